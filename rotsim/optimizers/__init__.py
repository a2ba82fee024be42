"""Optimizer specs. A new optimizer is one file here and one line in `OPTIMIZERS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotsim.errors import constructed, described, instance, is_a, registered
from rotsim.optimizers.adam_l2 import AdamL2
from rotsim.optimizers.adamw import AdamW
from rotsim.optimizers.ademamix import AdEMAMix
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.cautious import Cautious
from rotsim.optimizers.hyperball import Hyperball
from rotsim.optimizers.lion import Lion
from rotsim.optimizers.muon import Muon
from rotsim.optimizers.nadamw import NAdamW
from rotsim.optimizers.rotational import Rotational
from rotsim.optimizers.sgdm import SGDM
from rotsim.optimizers.signum import Signum
from rotsim.optimizers.unmodelled import Unmodelled

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adamw": AdamW,
    "adam_l2": AdamL2,
    "sgdm": SGDM,
    "lion": Lion,
    "signum": Signum,
    "muon": Muon,
    "nadamw": NAdamW,
    "ademamix": AdEMAMix,
}


#: What takes its updates from another optimizer, its `inner`.
WRAPPERS: dict[str, type[Optimizer]] = {
    "rotational": Rotational,
    "hyperball": Hyperball,
    "cautious": Cautious,
}


def optimizer_class(name: str) -> type[Optimizer]:
    """The spec class registered under `name`; the error lists the choices."""
    return registered("optimizer", name, OPTIMIZERS)


def checked_optimizer(optimizer: Any) -> Optimizer:
    """Return an argument called `optimizer` after checking that it is a spec."""
    found: Optimizer = instance("optimizer", optimizer, Optimizer, "a spec such as rotsim.AdamW(...)")
    return found


def optimizer_from_dict(fields: Mapping[str, Any]) -> Optimizer:
    """Rebuild a spec from `Optimizer.to_dict`; `InvalidInput` where a field is missing, unknown or out of range."""
    name, values = described("optimizer", fields)
    if is_a(name, str) and name in WRAPPERS and "inner" in values:
        inner, inner_values = described("inner", values["inner"])
        values["inner"] = constructed(optimizer_class(inner), inner_values, f"optimizer {inner!r}")
    known: dict[str, type[Optimizer]] = {**OPTIMIZERS, **WRAPPERS, Unmodelled.name: Unmodelled}
    return constructed(registered("optimizer", name, known), values, f"optimizer {name!r}")
