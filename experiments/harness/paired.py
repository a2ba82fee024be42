"""Arms compared on the same seeds: paired t-tests, corrected for their number, and a fair choice of learning rate."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

import numpy as np
from scipy import stats

from experiments.harness.claim import claimed
from rotsim.checks import Check

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """A claim that a mean over seeds lies between `low` and `high`; `values` are (seeds,)."""

    statement: str
    values: np.ndarray
    low: float = -inf
    high: float = inf

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return float(self.values.std(ddof=1) / np.sqrt(len(self.values)))

    @property
    def p(self) -> float:
        """One-sided p-value of the side on which the mean lies, by the t-test against each bound.

        Inside the interval both bounds must be excluded (two one-sided tests); outside, the violated one.
        """
        gaps = [self.mean - self.low, self.high - self.mean]
        worst = min(gaps) if min(gaps) > 0 else -min(gaps)
        if self.standard_error == 0:
            return 0.0 if worst > 0 else 0.5
        return float(stats.t.sf(worst / self.standard_error, len(self.values) - 1))

    def seeds_needed(self, level: float) -> int | None:
        """Seeds at which the t-test at `level` would decide in 4 cases of 5, were mean and spread as found here.

        None if a thousand would not do.
        """
        gap = min(abs(self.mean - bound) for bound in (self.low, self.high))
        spread = float(self.values.std(ddof=1))
        if spread == 0:
            return len(self.values) if gap > 0 else None
        n = np.arange(2, 1001)
        power = stats.nct.sf(stats.t.isf(level, n - 1), n - 1, gap / spread * np.sqrt(n))
        enough = np.flatnonzero(power >= POWER)
        return int(n[enough[0]]) if len(enough) else None


def checks(family: list[Comparison]) -> list[Check]:
    """Checks of one family, each established if its p-value passes Holm's correction at 5 %.

    What is not says how many seeds it would take.
    """
    return [
        claimed(
            c.statement, c.mean, c.standard_error, c.low, c.high, p < LEVEL, "" if p < LEVEL else _asks_for(c, family)
        )
        for c, p in zip(family, holm([c.p for c in family]), strict=True)
    ]


def _asks_for(comparison: Comparison, family: list[Comparison]) -> str:
    needed = comparison.seeds_needed(LEVEL / len(family))
    has = len(comparison.values)
    if needed is None:
        return f"more than 1000 seeds would be needed, has {has}"
    return f"{max(needed, has + 1)} seeds would be needed, has {has}"


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def tuned(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each seed gets at the setting that is best on the other seeds.

    A minimum over settings of the same numbers that are then reported would be too good for the arm with
    the noisiest grid.

    Parameters
    ----------
    losses : ndarray, shape (settings, seeds)

    Returns
    -------
    losses : ndarray, shape (seeds,)
    chosen : ndarray of int, shape (seeds,)
    """
    seeds = losses.shape[1]
    others = (losses.sum(axis=1, keepdims=True) - losses) / (seeds - 1)
    chosen = others.argmin(axis=0)
    return losses[chosen, np.arange(seeds)], chosen


def at_best(losses: Iterable[np.ndarray], values: Iterable[np.ndarray]) -> np.ndarray:
    """`values` (setting, seed), arm by arm, at the setting `tuned` chooses: (arm, seed)."""
    chosen = [tuned(arm)[1] for arm in losses]
    return np.array([x[c, np.arange(len(c))] for x, c in zip(values, chosen, strict=True)])
