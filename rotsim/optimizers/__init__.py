"""Optimizer specs. A new optimizer is one file here and one line in `OPTIMIZERS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotsim.errors import InvalidInput
from rotsim.optimizers.adam_l2 import AdamL2
from rotsim.optimizers.adamw import AdamW
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.lion import Lion
from rotsim.optimizers.rotational import Rotational
from rotsim.optimizers.sgdm import SGDM
from rotsim.optimizers.unmodelled import Unmodelled

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adamw": AdamW,
    "adam_l2": AdamL2,
    "sgdm": SGDM,
    "lion": Lion,
}


def optimizer_class(name: str) -> type[Optimizer]:
    """The spec class registered under `name`; the error lists the choices."""
    try:
        return OPTIMIZERS[name]
    except KeyError:
        raise InvalidInput(f"optimizer {name!r} is unknown; choose from {', '.join(OPTIMIZERS)}") from None


def optimizer_from_dict(fields: Mapping[str, Any]) -> Optimizer:
    """Rebuild a spec from `Optimizer.to_dict`."""
    values = dict(fields)
    name = values.pop("name")
    if name == Rotational.name:
        return Rotational(optimizer_from_dict(values.pop("inner")), **values)
    if name == Unmodelled.name:
        return Unmodelled(**values)
    return optimizer_class(name)(**values)
