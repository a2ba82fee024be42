"""How many seeds a verdict takes, for differences that are paired over seeds."""

from functools import cache

import numpy as np
from scipy import stats

POWER = 0.9
MOST = 100_000  # seeds; what takes more is not planned


@cache
def seeds_for(gap: float, deviation: float, level: float, power: float = POWER) -> int:
    """Seeds, from 2 to `MOST`, at which a two-sided t-test at `level` excludes a bound `gap` > 0 away from the mean.

    `deviation` is that of one seed's difference.
    """

    def chance(n: int) -> float:
        reached = stats.nct.sf(stats.t.isf(level / 2, n - 1), n - 1, gap / deviation * np.sqrt(n))
        return float(np.nan_to_num(reached, nan=1.0))  # SciPy has none where it is 1 to all digits

    if deviation == 0 or chance(2) >= power:
        return 2
    low, high = 2, 4
    while high < MOST and chance(high) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= power else (middle, high)
    return min(high, MOST)


def planned(margin: float, deviation: float, level: float, power: float = POWER) -> int:
    """Seeds at which an effect of 0 is shown to lie within ±`margin`; one of `margin` is then seen more surely."""
    return seeds_for(margin, deviation, level, (1 + power) / 2)
