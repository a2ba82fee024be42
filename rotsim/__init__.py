"""rotsim: rotational equilibrium under weight decay: predict, simulate, measure, compare.

Public names are loaded when first used, so that ``import rotsim`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rotsim.checks import Report as Report
    from rotsim.comparison import compare as compare
    from rotsim.dataset import load as load
    from rotsim.dataset import save as save
    from rotsim.errors import DatasetError as DatasetError
    from rotsim.errors import InvalidInput as InvalidInput
    from rotsim.errors import NoEquilibrium as NoEquilibrium
    from rotsim.gradients import Autocorrelated as Autocorrelated
    from rotsim.gradients import Bursts as Bursts
    from rotsim.gradients import Isotropic as Isotropic
    from rotsim.gradients import LayerInvariant as LayerInvariant
    from rotsim.gradients import Radial as Radial
    from rotsim.gradients import Replay as Replay
    from rotsim.gradients import ScaleInvariant as ScaleInvariant
    from rotsim.gradients import Signal as Signal
    from rotsim.gradients import SimpleSystem as SimpleSystem
    from rotsim.gradients import StudentT as StudentT
    from rotsim.optimizers import OPTIMIZERS as OPTIMIZERS
    from rotsim.optimizers import SGDM as SGDM
    from rotsim.optimizers import AdamL2 as AdamL2
    from rotsim.optimizers import AdamW as AdamW
    from rotsim.optimizers import AdEMAMix as AdEMAMix
    from rotsim.optimizers import Cautious as Cautious
    from rotsim.optimizers import Hyperball as Hyperball
    from rotsim.optimizers import Lion as Lion
    from rotsim.optimizers import Muon as Muon
    from rotsim.optimizers import NAdamW as NAdamW
    from rotsim.optimizers import Rotational as Rotational
    from rotsim.optimizers import Signum as Signum
    from rotsim.show.animation import animate as animate
    from rotsim.simulation import Interrupted as Interrupted
    from rotsim.simulation import simulate as simulate
    from rotsim.sweeps import SweepInterrupted as SweepInterrupted
    from rotsim.sweeps import sweep as sweep
    from rotsim.sweeps.map import plot_map as plot_map
    from rotsim.theory.approach import steps_to_equilibrium as steps_to_equilibrium
    from rotsim.theory.conversion import Conversion as Conversion
    from rotsim.theory.conversion import convert as convert
    from rotsim.theory.equilibrium import Equilibrium as Equilibrium
    from rotsim.theory.equilibrium import equilibrium as equilibrium
    from rotsim.theory.planning import Plan as Plan
    from rotsim.theory.planning import plan as plan
    from rotsim.theory.planning import transfer as transfer
    from rotsim.theory.prediction import predict as predict
    from rotsim.theory.prediction import rotation_over as rotation_over
    from rotsim.theory.together import equilibria as equilibria

    __version__: str

_NAMES = {
    "comparison": "compare",
    "checks": "Report",
    "dataset": "load save",
    "errors": "DatasetError InvalidInput NoEquilibrium",
    "gradients": "Autocorrelated Bursts Isotropic LayerInvariant Radial Replay ScaleInvariant Signal SimpleSystem "
    "StudentT",
    "optimizers": "OPTIMIZERS AdamW AdamL2 SGDM Lion Signum Muon NAdamW AdEMAMix Cautious Hyperball Rotational",
    "show.animation": "animate",
    "simulation": "Interrupted simulate",
    "sweeps": "sweep SweepInterrupted",
    "sweeps.map": "plot_map",
    "theory.equilibrium": "equilibrium Equilibrium",
    "theory.conversion": "Conversion convert",
    "theory.planning": "Plan plan transfer",
    "theory.prediction": "predict rotation_over",
    "theory.approach": "steps_to_equilibrium",
    "theory.together": "equilibria",
}
_HOME = {name: f"rotsim.{module}" for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOME, "__version__"])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes longer to import than all of rotsim's specs

    try:
        return version("rotsim")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'rotsim' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
