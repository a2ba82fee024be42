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
    from rotsim.optimizers import Lion as Lion
    from rotsim.optimizers import Rotational as Rotational
    from rotsim.simulation import Interrupted as Interrupted
    from rotsim.simulation import simulate as simulate
    from rotsim.sweeps import SweepInterrupted as SweepInterrupted
    from rotsim.sweeps import sweep as sweep
    from rotsim.sweeps.map import plot_map as plot_map
    from rotsim.theory.approach import steps_to_equilibrium as steps_to_equilibrium
    from rotsim.theory.equilibrium import Equilibrium as Equilibrium
    from rotsim.theory.equilibrium import equilibrium as equilibrium
    from rotsim.theory.planning import Plan as Plan
    from rotsim.theory.planning import plan as plan
    from rotsim.theory.planning import transfer as transfer
    from rotsim.theory.prediction import predict as predict
    from rotsim.theory.prediction import rotation_over as rotation_over

    __version__: str

_HOME = {
    "compare": "rotsim.comparison",
    "Report": "rotsim.checks",
    "load": "rotsim.dataset",
    "save": "rotsim.dataset",
    "DatasetError": "rotsim.errors",
    "InvalidInput": "rotsim.errors",
    "NoEquilibrium": "rotsim.errors",
    "Autocorrelated": "rotsim.gradients",
    "Bursts": "rotsim.gradients",
    "Isotropic": "rotsim.gradients",
    "LayerInvariant": "rotsim.gradients",
    "Radial": "rotsim.gradients",
    "Replay": "rotsim.gradients",
    "ScaleInvariant": "rotsim.gradients",
    "Signal": "rotsim.gradients",
    "SimpleSystem": "rotsim.gradients",
    "StudentT": "rotsim.gradients",
    "OPTIMIZERS": "rotsim.optimizers",
    "AdamW": "rotsim.optimizers",
    "AdamL2": "rotsim.optimizers",
    "SGDM": "rotsim.optimizers",
    "Lion": "rotsim.optimizers",
    "Rotational": "rotsim.optimizers",
    "Interrupted": "rotsim.simulation",
    "simulate": "rotsim.simulation",
    "sweep": "rotsim.sweeps",
    "plot_map": "rotsim.sweeps.map",
    "SweepInterrupted": "rotsim.sweeps",
    "equilibrium": "rotsim.theory.equilibrium",
    "Equilibrium": "rotsim.theory.equilibrium",
    "Plan": "rotsim.theory.planning",
    "plan": "rotsim.theory.planning",
    "transfer": "rotsim.theory.planning",
    "predict": "rotsim.theory.prediction",
    "rotation_over": "rotsim.theory.prediction",
    "steps_to_equilibrium": "rotsim.theory.approach",
}

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
