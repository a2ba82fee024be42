"""What Adam and its kin divide by: √v and ε, with lr and bias corrections in their factors."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.optimizers.base import LEAST_LR, TINY, filled

_ONE = np.float32(1)  # keeps what it meets in float32


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def denominator(v, per_root, beta1, beta2, per_unit):  # type: ignore[no-untyped-def]
    """What m is divided by, where m and v are sums that forget, Σ βᵏ g: averages over 1 - β.

    A sum takes an instruction less than an average. The factors are of a step, not of a coordinate.
    """
    share = _ONE - beta1
    return np.sqrt(v) * (per_root * np.sqrt(_ONE - beta2) / share) + per_unit / share


def root_factors(step: Any, step_size: Any, beta2: float, eps: float) -> tuple[Any, Any]:
    """Of √v and of 1, so that the quotient is the whole step.

    Parameters
    ----------
    step : ndarray, shape (steps,)
        Counted from 1.
    step_size : ndarray, shape (steps,)
        Learning rate times what the first moment counts, its bias correction included.
    beta2, eps : float
    """
    step_size = np.maximum(step_size, LEAST_LR)
    return 1 / np.sqrt(filled(beta2, step)) / step_size, np.maximum(eps / step_size, TINY)
