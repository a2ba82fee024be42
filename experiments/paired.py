"""Arms compared on the same seeds: paired t-tests, corrected for their number, and a fair choice of learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from scipy import stats

from experiments.claim import Check

LEVEL = 0.05


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


def checks(family: list[Comparison]) -> list[Check]:
    """Checks of one family, each established if its p-value passes Holm's correction at 5 %."""
    return [
        Check(c.statement, c.mean, c.standard_error, c.low, c.high, established=p < LEVEL)
        for c, p in zip(family, holm([c.p for c in family]), strict=True)
    ]


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


def at_best(losses: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> np.ndarray:
    """`values` (setting, seed), arm by arm, at the setting `tuned` chooses: (arm, seed)."""
    chosen = [tuned(arm)[1] for arm in losses]
    return np.array([x[c, np.arange(len(c))] for x, c in zip(values, chosen, strict=True)])
