"""How many layers of recorded networks carry a claim, and how many claims hold, over any traces.

A claim is of the whole run, or of its second half as foreseen from the first. Layers that no gradient moves, or that no
theory is of, are not live.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.harness import markdown
from rotsim.dataset import load
from rotsim.diagnosis import FORESEEABLE, Diagnosis, LayerDiagnosis, diagnose
from rotsim.forecast import FORESEEN

NOT_LIVE = ("no theory", "not finite", "frozen", "dead")


@dataclass
class Tally:
    """Layers of some traces: live ones, claims of either kind, those that hold, and why the others have none."""

    live: int = 0
    whole: int = 0
    foreseen: int = 0
    holding: int = 0
    without: Counter[str] = field(default_factory=Counter)

    def add(self, diagnosis: Diagnosis) -> None:
        """Count the layers of one trace."""
        for layer in diagnosis.layers:
            if layer.verdict in NOT_LIVE:
                continue
            self.live += 1
            self.whole += layer.applies
            foreseen = layer.foreseen_outcome is not None
            self.foreseen += foreseen
            if layer.applies or foreseen:
                self.holding += _holds(layer)
            else:
                self.without[layer.verdict if layer.verdict in FORESEEABLE else f"{layer.verdict} (not foreseen)"] += 1

    @property
    def claims(self) -> int:
        """Of either kind."""
        return self.whole + self.foreseen

    def row(self, name: str) -> list[object]:
        """Of a table."""
        why = ", ".join(f"{count} {verdict}" for verdict, count in self.without.most_common())
        shares = [
            f"{part / of:.0%}" if of else "-" for part, of in ((self.claims, self.live), (self.holding, self.claims))
        ]
        return [name, self.live, self.whole, self.foreseen, shares[0], self.holding, shares[1], why or "-"]


def _holds(layer: LayerDiagnosis) -> bool:
    """Whether what is claimed is as measured in every part, to within what a forecast may be off."""
    claims, parts = (layer.claims, layer.quarters) if layer.applies else (layer.rest.claims, layer.rest.quarters)  # type: ignore[union-attr]
    return all(abs(part.error(quantity)) <= FORESEEN[quantity] for part in parts for quantity in claims)


def tallies(folders: Iterable[Path]) -> dict[str, Tally]:
    """One of each folder's traces, and one of all."""
    found, every = {}, Tally()
    for folder in folders:
        of_folder = found[folder.name] = Tally()
        for path in sorted(folder.glob("*.nc")):
            diagnosis = diagnose(load(path))
            of_folder.add(diagnosis)
            every.add(diagnosis)
    return {**found, "all": every}


def table(found: dict[str, Tally]) -> str:
    """Markdown."""
    head = (
        "traces", "live layers", "claimed", "foreseen", "share with a claim", "claims that hold", "share", "without"
    )  # fmt: skip
    note = f"A claim holds within {FORESEEN['rotation']:.0%} in rotation and {FORESEEN['norm']:.0%} in norm."
    return markdown.table(head, [tally.row(name) for name, tally in found.items()]) + f"\n\n{note}\n"
