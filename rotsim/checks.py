"""One row for every judgement: a number, the interval that it must lie in, and the verdict.

Comparisons, `rotsim verify` and the claims of `experiments/` make the same rows and use the same four verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from math import inf, isfinite, nan
from typing import Any, Literal, get_args

from rotsim.statistics import Estimate

#: Agrees; disagrees; too noisy, or predicted too roughly, to tell; measured before it had settled.
Verdict = Literal["PASS", "FAIL", "UNRESOLVED", "NOT EQUILIBRATED"]

ENOUGH_RESOLUTION = 0.05  # k standard errors above 5 % of the prediction, or above what is allowed, decide nothing
MAX_DECLARED_ERROR = 0.1  # a prediction that declares a larger relative error can be refuted, never confirmed


@dataclass(frozen=True, kw_only=True)
class Check:
    """One quantity of one group, measured, and what is allowed of it.

    Attributes
    ----------
    group : str
        What was measured: "simulation", a layer's name, an optimizer. Empty if the quantity says it.
    quantity : str
        "norm", "rotation", "update_rms", or a statement in words.
    measured, standard_error : float
        NaN where nothing is measured, as of a proof.
    predicted, tolerance : float
        And the relative model error allowed of it; NaN where an interval is claimed and no number.
    low, high : float
        Interval that is allowed, apart from noise.
    verdict : {"PASS", "FAIL", "UNRESOLVED", "NOT EQUILIBRATED"}
    note : str
        Why, or from which step on the average was taken.
    """

    group: str
    quantity: str
    measured: float = nan
    standard_error: float = nan
    predicted: float = nan
    tolerance: float = nan
    low: float = -inf
    high: float = inf
    verdict: Verdict
    note: str = ""

    @classmethod
    def about(
        cls, group: str, quantity: str, predicted: float, tolerance: float, found: Estimate, verdict: Verdict, note: str
    ) -> Check:
        """A measured number beside its prediction, of which a relative error of `tolerance` is allowed."""
        return cls(
            group=group, quantity=quantity, measured=found.value, standard_error=found.standard_error,
            predicted=predicted, tolerance=tolerance, low=predicted * (1 - tolerance), high=predicted * (1 + tolerance),
            verdict=verdict, note=note,
        )  # fmt: skip

    @classmethod
    def of(cls, statement: str, **rest: Any) -> Check:
        """A row whose group is what stands before the first colon of a statement, if there is one."""
        group, colon, quantity = statement.partition(": ")
        return cls(group=group if colon else "", quantity=quantity if colon else statement, **rest)

    @property
    def passed(self) -> bool:
        """True if the verdict is PASS."""
        return self.verdict == "PASS"

    @property
    def failed(self) -> bool:
        """True if the verdict is FAIL; an open one neither passed nor failed."""
        return self.verdict == "FAIL"

    @property
    def statement(self) -> str:
        """Group and quantity in one line."""
        return f"{self.group}: {self.quantity}" if self.group else self.quantity

    @property
    def z(self) -> float:
        """(measured - predicted) / standard error; NaN where a term is missing."""
        return (self.measured - self.predicted) / self.standard_error if self.standard_error > 0 else nan

    @property
    def relative_error(self) -> float:
        """measured / predicted - 1."""
        return (self.measured - self.predicted) / self.predicted

    def interval(self) -> str:
        """What is allowed, in words: "at least 2", "0.97 to 1.03"."""
        if self.low == -inf:
            return "" if self.high == inf else f"at most {self.high:.3g}"
        return f"at least {self.low:.3g}" if self.high == inf else f"{self.low:.3g} to {self.high:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable, without the numbers that a row of this kind does not have."""
        row: dict[str, Any] = {"group": self.group, "quantity": self.quantity}
        if isfinite(self.predicted):
            row["predicted"] = self.predicted
        if isfinite(self.measured) or isfinite(self.predicted) or self.interval():
            row |= {"measured": self.measured, "standard_error": self.standard_error}
            row |= {"low": self.low, "high": self.high}
        if isfinite(self.predicted):
            row |= {"z": self.z, "relative_error": self.relative_error, "tolerance": self.tolerance}
        return {**row, "verdict": self.verdict, "note": self.note}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Check:
        """The row that `to_dict` described; null stands for a number that there was none of."""
        return cls(**{field.name: row[field.name] for field in fields(cls) if row.get(field.name) is not None})


@dataclass(frozen=True)
class Report:
    """All checks of one comparison.

    Attributes
    ----------
    checks : tuple of Check
        One per quantity, or per layer and quantity.
    passed : bool
        There is a check and all of them passed.
    """

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True if there is at least one check and every one passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    def summary(self) -> str:
        """The verdict in a few words: "PASS", or "FAIL: 1 of 39 statements"."""
        counts = Counter(check.verdict for check in self.checks)
        others = [f"{verdict}: {counts[verdict]}" for verdict in get_args(Verdict)[1:] if counts[verdict]]
        if not others:
            return "PASS" if self.checks else "no statement"
        return f"{', '.join(others)} of {len(self.checks)} statements"

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def table(self) -> str:
        """The checks as aligned plain text, one line each."""
        head = ("group", "quantity", "predicted", "measured", "std. error", "z", "error", "allowed", "verdict", "note")
        rows = [head] + [
            (
                c.group,
                c.quantity,
                f"{c.predicted:.6g}",
                f"{c.measured:.6g}",
                f"{c.standard_error:.1g}",
                f"{c.z:+.1f}",
                f"{c.relative_error:+.2%}",
                f"{c.tolerance:.2%}",
                c.verdict,
                c.note,
            )
            for c in self.checks
        ]
        width = [max(len(row[i]) for row in rows) for i in range(len(head))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {"passed": self.passed, "checks": [check.to_dict() for check in self.checks]}


def resolution(allowed: float) -> float:
    """Relative size that k standard errors may have for a verdict; `allowed` is the model error, >= 0."""
    return max(min(allowed, MAX_DECLARED_ERROR), ENOUGH_RESOLUTION)


def too_uncertain(declared: float) -> str:
    """Why a prediction that declares this relative error confirms nothing, as a note."""
    return f"the prediction declares an error of {declared:.0%}; above {MAX_DECLARED_ERROR:.0%} it confirms nothing"
