"""Verdicts with power: effect, equivalent or undecided, from differences that are paired over seeds.

A question states the smallest effect that matters before anything is trained. A pilot on seeds of its own plans how
many seeds show that there is none. At a third, two thirds and all of them, the interval is looked at. Where seeds then
scatter more than those of the pilot, the plan grows with them, whatever their mean is.
It is corrected for the looks (`spending`) and for the number of questions in a family (Bonferroni).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log1p
from typing import Any, Literal

import numpy as np
from scipy import stats

from experiments.harness.power import MOST, planned, seeds_for
from experiments.harness.spending import levels, spent
from rotsim.checks import Check, Verdict

LEVEL = 0.05
LOOKS = (1 / 3, 2 / 3, 1.0)
LEAST_SEEDS = 8  # at any look: a deviation of fewer is hardly known

#: What was measured of every arm, by name, each (seeds,).
Outcomes = Mapping[str, Mapping[str, np.ndarray]]
#: From the seeds that are wanted of each arm to their outcomes, which begin with the same seeds every time.
Learn = Callable[[Mapping[str, int]], Outcomes]


@dataclass(frozen=True)
class Question:
    """Whether an effect is there.

    Attributes
    ----------
    statement : str
    arms : tuple of str
        What has to be trained.
    effect : callable
        From outcomes of these arms to the logarithm of a ratio, (seeds,).
    margin : float
        The smallest ratio, minus 1, that matters.
    claim : {"more", "equal"}
        What the paper says: a ratio above 1, or none that matters.
    """

    statement: str
    arms: tuple[str, ...]
    effect: Callable[[Outcomes], np.ndarray]
    margin: float
    claim: Literal["more", "equal"]


def ratio(arm: str, other: str, what: str = "loss") -> Callable[[Outcomes], np.ndarray]:
    """The effect that is one arm's outcome over another's."""
    return lambda found: np.log(found[arm][what] / found[other][what])


@dataclass(frozen=True)
class Answer:
    """What was found, as ratios minus 1: the mean, its interval after the last look, and what decides.

    `deviation` is that of one seed's logarithm, `level` that of the question.
    """

    statement: str
    claim: str
    margin: float
    effect: float
    low: float
    high: float
    deviation: float
    seeds: int
    plan: int
    level: float

    @property
    def kind(self) -> Literal["effect", "equivalent", "undecided"]:
        """Equivalent if the interval lies within the margin, an effect if it lies beyond 0."""
        if 1 / (1 + self.margin) < 1 + self.low and self.high < self.margin:
            return "equivalent"
        return "effect" if self.low > 0 or self.high < 0 else "undecided"

    @property
    def settled(self) -> bool:
        """Whether more seeds are of no use: a small effect may still prove not to matter where that is claimed."""
        if self.kind == "effect" and self.claim == "equal":
            return self.low > self.margin or 1 + self.high < 1 / (1 + self.margin)
        return self.kind != "undecided"

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds."""
        if self.kind == "undecided":
            return "UNRESOLVED"
        held = self.kind == "equivalent" if self.claim == "equal" else self.kind == "effect" and self.low > 0
        return "PASS" if held else "FAIL"

    def seeds_that_would_decide(self) -> int:
        """For the nearer verdict, were effect and deviation as found."""
        off, margin = abs(log1p(self.effect)), log1p(self.margin)
        return max(self.seeds + 1, seeds_for(max(off, margin - off), self.deviation, self.level))

    def words(self) -> str:
        """The verdict in at most ten words."""
        if self.kind != "undecided":
            return self.kind
        needed = self.seeds_that_would_decide()
        return f"undecided: {'more than ' if needed >= MOST else ''}{min(needed, MOST)} seeds would decide"

    def check(self) -> Check:
        """As a row of a report."""
        low, high = (0.0, np.inf) if self.claim == "more" else (1 / (1 + self.margin) - 1, self.margin)
        error = (1 + self.effect) * self.deviation / np.sqrt(self.seeds)
        return Check.of(
            self.statement, measured=self.effect, standard_error=error, low=low, high=float(high),
            verdict=self.verdict, note=self.words(),
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**vars(self), "kind": self.kind, "verdict": self.verdict, "words": self.words()}


def answer(
    questions: Sequence[Question], learn: Learn, pilot: Outcomes, most: int, step: int = 1, level: float = LEVEL
) -> list[Answer]:
    """Answer a family of questions, each with as many seeds as its plan and the looks ask for.

    Parameters
    ----------
    questions : sequence of Question
    learn : callable
        See `Learn`.
    pilot : mapping
        Outcomes of seeds that `learn` does not have; of them only the deviation is used.
    most : int
        Seeds that can be afforded.
    step : int
        Seeds come in this many at a time.
    level : float
        Probability of a wrong effect in the family.
    """
    own = level / len(questions)
    series = [_Series(question, own, most, step, question.effect(pilot)) for question in questions]
    while going := [one for one in series if not one.ended]:
        wanted: dict[str, int] = {}
        for one in going:
            for arm in one.question.arms:
                wanted[arm] = max(one.next_look(), wanted.get(arm, 0))
        outcomes = learn(wanted)
        for one in going:
            one.look(outcomes)
    return [one.answer for one in series if one.answer is not None]


class _Series:
    """The looks at one question."""

    def __init__(self, question: Question, level: float, most: int, step: int, pilot: np.ndarray) -> None:
        self.question, self.level, self.most, self.step = question, level, most, step
        self.answer: Answer | None = None
        self._sizes: list[int] = []
        self._spent: list[float] = []
        self._plan = self._planned(pilot)

    @property
    def ended(self) -> bool:
        return self.answer is not None and (self.answer.settled or self.answer.seeds >= self._plan)

    def next_look(self) -> int:
        """Seeds of the next look that asks for more than the last one."""
        seen = self._sizes[-1] if self._sizes else 0
        return next(size for share in LOOKS if (size := self._rounded(share * self._plan)) > seen)

    def look(self, outcomes: Outcomes) -> None:
        """Judge by so many seeds."""
        seeds = self.next_look()
        parts = {arm: {what: x[:seeds] for what, x in outcomes[arm].items()} for arm in self.question.arms}
        values = self.question.effect(parts)
        self._plan = max(self._plan, self._planned(values))
        self._sizes.append(seeds)
        self._spent.append(spent(min(1.0, seeds / self._plan), self.level))
        nominal = levels(tuple(self._sizes), tuple(self._spent))[-1]
        mean, deviation = float(values.mean()), float(values.std(ddof=1))
        half = float(stats.t.isf(nominal / 2, seeds - 1)) * deviation / np.sqrt(seeds)
        with np.errstate(over="ignore"):  # an early look may know nothing
            effect, low, high = (float(np.expm1(x)) for x in (mean, mean - half, mean + half))
        asked = self.question.statement, self.question.claim, self.question.margin
        self.answer = Answer(*asked, effect, low, high, deviation, seeds, self._plan, self.level)

    def _planned(self, values: np.ndarray) -> int:
        return self._rounded(planned(log1p(self.question.margin), float(values.std(ddof=1)), self.level))

    def _rounded(self, seeds: float) -> int:
        return min(self.most, self.step * ceil(max(seeds, LEAST_SEEDS) / self.step))
