"""A report of many layers in few lines: their kinds and blocks, worst first, and what to change."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from rotsim.dataset import layer_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rotsim.checks import Verdict as Outcome
    from rotsim.diagnosis import Diagnosis, LayerDiagnosis

MANY = 20  # layers from which on a report is grouped
UNEVEN = 2.0  # times as fast as the median layer, or as slow: beyond, a layer is named
_NUMBER = re.compile(r"\d+")
_RANK = {"FAIL": 3, "UNRESOLVED": 2, "PASS": 1, None: 0}


@dataclass(frozen=True)
class Group:
    """Layers that belong together.

    Attributes
    ----------
    name : str
        Of a kind, such as ``blocks.*.attn.q``, or of a block, such as ``blocks.3``.
    layers : tuple of LayerDiagnosis
    pace : float
        Median of their rotations over the median of the network; NaN if none turns.
    """

    name: str
    layers: tuple[LayerDiagnosis, ...]
    pace: float

    @property
    def verdicts(self) -> str:
        """How many layers have which verdict, the most frequent first."""
        words = map(_word, self.layers)
        return "; ".join(f"{count} {word}" for word, count in Counter(words).most_common())

    @property
    def worst(self) -> LayerDiagnosis:
        """The layer that fails, or else is furthest from its prediction."""
        return max(self.layers, key=badness)

    def median(self, name: str) -> float:
        """Of an attribute of the layers, over those that are finite; NaN without any."""
        values = [value for layer in self.layers if np.isfinite(value := getattr(layer, name))]
        return median(values) if values else float("nan")


def badness(layer: LayerDiagnosis) -> tuple[int, float]:
    """Orders layers: those whose claim fails come last, then those that are furthest from the prediction."""
    off = abs(np.log(layer.ratio)) if layer.ratio > 0 and np.isfinite(layer.ratio) else 0.0
    return _RANK[_outcome(layer)], float(off)


def _outcome(layer: LayerDiagnosis) -> Outcome | None:
    """Of what is claimed of the layer, or else of what is foreseen."""
    return layer.outcome or layer.foreseen_outcome


def _word(layer: LayerDiagnosis) -> str:
    outcome = _outcome(layer)
    if outcome in ("FAIL", "UNRESOLVED"):
        return outcome
    return f"{layer.verdict}, foreseen" if layer.foreseen_outcome else layer.verdict


def kinds(diagnosis: Diagnosis) -> list[Group]:
    """Layers whose names differ in numbers alone, worst first."""
    return _grouped(diagnosis, lambda name: _NUMBER.sub("*", name))


def blocks(diagnosis: Diagnosis) -> list[Group]:
    """Layers whose names are the same up to the first number, worst first; those without one stand alone."""

    def block(name: str) -> str:
        found = _NUMBER.search(name)
        return name[: found.end()] if found else name

    return _grouped(diagnosis, block)


def _grouped(diagnosis: Diagnosis, key: Callable[[str], str]) -> list[Group]:
    found: dict[str, list[LayerDiagnosis]] = {}
    for layer in diagnosis.layers:
        found.setdefault(key(layer_name(layer.layer)), []).append(layer)
    of_all = _median_rotation(diagnosis.layers)
    groups = [Group(name, tuple(some), _median_rotation(some) / of_all) for name, some in found.items()]
    return sorted(groups, key=lambda group: badness(group.worst), reverse=True)


def _median_rotation(layers: Iterable[LayerDiagnosis]) -> float:
    turning = [x.measured_rotation for x in layers if np.isfinite(x.measured_rotation) and x.measured_rotation > 0]
    return median(turning) if turning else float("nan")


def advice(diagnosis: Diagnosis, steps: int) -> str:
    """Three sentences on a run of so many steps: what agrees, what turns unlike the others, and what to change."""
    every = [group for group in kinds(diagnosis) if np.isfinite(group.pace)]
    if not every:
        return f"{diagnosis.summary()} No layer turns. Look for what keeps the weights where they are."
    fast, slow = max(every, key=lambda group: group.pace), min(every, key=lambda group: group.pace)
    even = f"{fast.name} turns {fast.pace:.2g} times as fast as the median layer, {slow.name} {slow.pace:.2g} times."
    return f"{diagnosis.summary()} {even} {_change(diagnosis, fast, slow, steps)}"


def _change(diagnosis: Diagnosis, fast: Group, slow: Group, steps: int) -> str:
    if failing := diagnosis.refuted + diagnosis.unforeseen:
        names = ", ".join(layer_name(layer.layer) for layer in failing[:3])
        return f"First find what moves {names} besides the recorded rates: the prediction should hold there and fails."
    uneven = max((fast, slow), key=lambda group: abs(np.log(group.pace)))
    if not 1 / UNEVEN < uneven.pace < UNEVEN:
        way = "Lower" if uneven.pace > 1 else "Raise"
        # in equilibrium rotation goes as the root of lr·weight_decay
        return (
            f"{way} the learning rate of {uneven.name}, alone or with its weight decay, so that their product is "
            f"{uneven.pace**-2:.2g} times what it is: then it turns as the others do."
        )
    needed = median(values) if (values := [x.steps_needed for x in diagnosis.layers if x.steps_needed > 0]) else 0.0
    if needed > steps:
        return (
            f"Equilibrium takes about {needed:.2g} steps, and the run had {steps}: raise lr·weight_decay "
            f"{needed / steps:.2g} times, or expect the pace to be that of the start and the warm-up."
        )
    return "Nothing needs to change: layers turn alike, and the run was long enough for their equilibrium."
