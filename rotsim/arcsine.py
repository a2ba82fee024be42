"""The sum over lags of the correlations of Lion's signs, of which its rotation is made."""

from __future__ import annotations

from math import ceil, log
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.errors import require

MOST_LAGS = 4_000_000  # whose correlations are summed in a second
LARGEST_IN_SERIES = 0.8  # below this correlation the series of asin is summed
MOST_TERMS, LEAST_POWER = 90, 1e-17  # of it at most; and a power that adds nothing
_BLOCK = 1024  # lags that are summed at once


def _falls_to(size: float, first: float, root: float) -> int:
    """How many of the terms first·root^k, k = 0, 1, ..., are larger than `size`; at least 1."""
    if root == 0 or first * root <= size:
        return 1
    count = ceil(log(size / first) / log(root))
    way_out = f"Use betas[1] of at most 1 - {log(1 / size) / MOST_LAGS:.0e}"
    require(count <= MOST_LAGS, "betas", f"leave signs uncorrelated after {MOST_LAGS} steps", count, way_out)
    return count


def discounted_sum(kept: Any, beta1: float, beta2: float) -> Any:
    """Σ_{k≥1} kept^k s_k under white noise, elementwise in `kept` in [0, 1], for betas in [0, 1).

    Term by term while the correlations x_k are large. From there on each power of asin's series, x_k^(2n+1), is a
    geometric sequence of its own (`derivations.lion.arcsine_law`).
    """
    largest = closed_forms.lion_covariance(beta1, beta2, 1) / closed_forms.lion_variance(beta1, beta2)
    bent, kept = _falls_to(LARGEST_IN_SERIES, largest, beta2), np.asarray(kept)
    total = np.zeros(kept.shape)
    for first in range(1, bent + 1, _BLOCK):
        lags = np.arange(first, min(first + _BLOCK, bent + 1))
        total += (closed_forms.lion_sign_correlation(beta1, beta2, lags) * kept[..., None] ** lags).sum(axis=-1)
    left = largest * beta2**bent  # x at the next lag
    from_there, fading = kept ** (bent + 1), 1.0
    for n in range(MOST_TERMS):
        if (power := left ** (2 * n + 1)) < LEAST_POWER:
            break
        share = 2 / np.pi * fading / (2 * n + 1) * power
        total = total + share * from_there / (1 - kept * beta2 ** (2 * n + 1))
        fading *= (2 * n + 1) / (2 * n + 2)
    return total
