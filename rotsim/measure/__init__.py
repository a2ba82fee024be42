"""Measuring real PyTorch networks in the dataset schema of `rotsim.dataset`.

`Recorder`, `read_checkpoints`, `optimizer_spec` and the optimizers (`Lion`, the rotational variants, `Rotated`) need
PyTorch (``pip install 'rotsim[torch]'``). `read_log`, `shipped_traces` and `load_shipped` read runs without
it, and `join` makes one trace of two.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rotsim.measure.checkpoints import read_checkpoints as read_checkpoints
    from rotsim.measure.joining import join as join
    from rotsim.measure.lion import Lion as Lion
    from rotsim.measure.logs import read_log as read_log
    from rotsim.measure.recorder import Recorder as Recorder
    from rotsim.measure.rotated import Rotated as Rotated
    from rotsim.measure.rotational import RotationalAdamW as RotationalAdamW
    from rotsim.measure.rotational import RotationalLion as RotationalLion
    from rotsim.measure.rotational import RotationalSGDM as RotationalSGDM
    from rotsim.measure.shipped import load_shipped as load_shipped
    from rotsim.measure.shipped import shipped_traces as shipped_traces
    from rotsim.measure.spec import optimizer_spec as optimizer_spec

_HOME = {
    "Lion": "rotsim.measure.lion",
    "Recorder": "rotsim.measure.recorder",
    "Rotated": "rotsim.measure.rotated",
    "RotationalAdamW": "rotsim.measure.rotational",
    "RotationalLion": "rotsim.measure.rotational",
    "RotationalSGDM": "rotsim.measure.rotational",
    "join": "rotsim.measure.joining",
    "load_shipped": "rotsim.measure.shipped",
    "optimizer_spec": "rotsim.measure.spec",
    "read_checkpoints": "rotsim.measure.checkpoints",
    "read_log": "rotsim.measure.logs",
    "shipped_traces": "rotsim.measure.shipped",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rotsim.measure' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"rotsim.measure.{name} needs PyTorch; install rotsim[torch]", name="torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
