"""What a trace was trained with, where rotsim has no theory of it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rotsim.errors import text
from rotsim.optimizers.base import Optimizer


@dataclass(frozen=True)
class Unmodelled(Optimizer):
    """An optimizer that is measured and not predicted.

    Parameters
    ----------
    lr, weight_decay : float
        As in any spec, in the units of the optimizer it was.
    kind : str
        Its name, for example ``"NAdam"``.
    why : str
        Why no spec describes it, as a clause.

    Raises
    ------
    InvalidInput
        If a rate is out of range or a name is no string.
    """

    name = "unmodelled"

    kind: str
    why: str

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kind", "why"):
            self._set(name, text(name, getattr(self, name)))

    @property
    def label(self) -> str:  # type: ignore[override]
        return self.kind

    def refusal(self) -> str:
        """One line that says what is missing and why."""
        return f"rotsim has no theory for this {self.kind}: {self.why}"

    def describe(self) -> str:
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(Optimizer))
        return f"{self.kind}({values})"
