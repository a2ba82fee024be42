"""How many standard errors a test allows, so that a whole run of the suite is almost never wrong by chance.

Noise is drawn from fixed seeds, so a run repeats. But a new seed, a new generator or another order of summation draws
anew, and then every statistical test has its chance to fail although nothing is wrong. A run spends at most
`FALSE_ALARM` in all: `TESTS` statistical tests spend an equal share each, over however many comparisons they make
(Bonferroni). The last line of pytest says how many there were; more than `TESTS` fail the run.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

FALSE_ALARM = 1e-4  # probability of a false alarm in a run of the whole suite, slow tests included
TESTS = 800  # more than the suite has
SHARE = FALSE_ALARM / TESTS

spent = 0  # shares, in this process


def share() -> float:
    """The p-value below which a test fails."""
    global spent
    spent += 1
    return SHARE


def errors(samples: int | None = None, comparisons: int = 1) -> float:
    """Standard errors that a mean may be off, in either direction.

    Parameters
    ----------
    samples : int, optional
        Independent samples whose spread gives the standard error, >= 2: Student's t. Default: so many that it is known.
    comparisons : int
        Means that the test looks at, >= 1.

    Returns
    -------
    float
        5.3 for one comparison and many samples, 9.3 for one and 16 samples.
    """
    tail = share() / (2 * comparisons)
    return float(stats.norm.isf(tail) if samples is None else stats.t.isf(tail, samples - 1))


def too_many(count: int, trials: int, rate: float) -> bool:
    """Whether an event of at most this probability cannot have happened so often by chance.

    Parameters
    ----------
    count, trials : int
        How often it happened, of how many independent times.
    rate : float
        Its probability, at most.
    """
    return bool(stats.binom.sf(count - 1, trials, rate) < share())


def error_of_deviation(sample: np.ndarray) -> float:
    """Standard error of the standard deviation of independent values, of any law with a fourth moment."""
    x = np.asarray(sample) - np.mean(sample)
    return float(np.sqrt((np.mean(x**4) / np.mean(x**2) - np.mean(x**2)) / (4 * len(x))))
