"""How many layers of recorded networks carry a claim, and how many claims hold, over any traces.

A claim is of the whole run, or of its second half as foreseen from the first. Layers that no gradient moves, or that no
theory is of, are not live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from experiments.harness import markdown
from rotsim.dataset import load
from rotsim.diagnosis import FORESEEABLE, Diagnosis, LayerDiagnosis, diagnose
from rotsim.forecast import FORESEEN
from rotsim.quarters import Part

NOT_LIVE = ("no theory", "not finite", "frozen", "dead", "sparse")


@dataclass
class Tally:
    """Layers of some traces: live ones, claims of either kind, those that hold, and why the others have none.

    `possible` counts the layers of which a claim would hold, be it made or not: more cannot be claimed and hold.
    """

    live: int = 0
    whole: int = 0
    foreseen: int = 0
    holding: int = 0
    possible: int = 0
    without: Counter[str] = field(default_factory=Counter)

    def add(self, diagnosis: Diagnosis) -> None:
        """Count the layers of one trace."""
        for layer in diagnosis.layers:
            self.count(layer.verdict, layer.applies, holds(layer), within(layer))

    def count(self, verdict: str, applies: bool, held: bool | None, possible: bool) -> None:
        """Count one layer: whether its prediction applies, what `holds` says of it, and what `within` does."""
        if verdict in NOT_LIVE:
            return
        self.live += 1
        self.whole += applies
        self.foreseen += held is not None and not applies
        self.holding += bool(held)
        self.possible += possible
        if held is None:
            self.without[verdict if verdict in FORESEEABLE else f"{verdict} (not foreseen)"] += 1

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def claims(self) -> int:
        """Of either kind."""
        return self.whole + self.foreseen

    def row(self, name: str) -> list[object]:
        """Of a table."""
        why = ", ".join(f"{count} {verdict}" for verdict, count in self.without.most_common())
        shares = [
            f"{part / of:.0%}" if of else "-"
            for part, of in ((self.claims, self.live), (self.holding, self.claims), (self.possible, self.live))
        ]
        return [name, self.live, self.whole, self.foreseen, shares[0], self.holding, *shares[1:], why or "-"]


def holds(layer: LayerDiagnosis) -> bool | None:
    """Whether what is claimed is as measured in every part, within what a forecast may be off; None without a claim."""
    claimed = layer.applies or layer.foreseen_outcome is not None
    return within(layer) if claimed else None


def within(layer: LayerDiagnosis) -> bool:
    """Whether what is claimed, or could be foreseen though it is not claimed, is as measured."""
    claims = layer.claims if layer.applies else tuple(FORESEEN)
    parts: tuple[Part, ...] = layer.quarters if layer.applies else layer.rest.quarters if layer.rest else ()
    return bool(parts) and all(abs(part.error(key)) <= FORESEEN[key] for part in parts for key in claims)


def tallies(folders: Iterable[Path], beside: Mapping[str, Tally] | None = None) -> dict[str, Tally]:
    """One of each folder's traces, those that are given beside them, and one of all."""
    found = {}
    for folder in folders:
        of_folder = found[folder.name] = Tally()
        for path in sorted(folder.glob("*.nc")):
            of_folder.add(diagnose(load(path)))
    found |= beside or {}
    return {**found, "all": sum(found.values(), Tally())}


def table(found: dict[str, Tally]) -> str:
    """Markdown."""
    head = (
        "traces", "live layers", "claimed", "foreseen", "share with a claim", "claims that hold", "share", "would hold",
        "without",
    )  # fmt: skip
    note = (
        f"A claim holds within {FORESEEN['rotation']:.0%} in rotation and {FORESEEN['norm']:.0%} in norm. Would hold: "
        "share of the live layers of which a claim is right, or would be if it were made."
    )
    return markdown.table(head, [tally.row(name) for name, tally in found.items()]) + f"\n\n{note}\n"
