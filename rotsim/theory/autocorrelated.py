"""What correlated gradients do to rotation and norm.

For constant v the rotation of AdamW and SGDM does not depend on the gradients' autocorrelation: the decay of ‖w‖²
balances the same share of ‖m‖² whatever it is. `rotsim.theory.ar1` has what a random v changes. Every norm does, and so
does the rotation of Adam+L2, whose decay is divided by the gradient's size, and of Lion, whose sign feeds back through
an average of other length.
"""

from __future__ import annotations

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers.base import Optimizer

_SCALE_INVARIANT = -1  # homogeneity


def autocorrelation_factors(optimizer: Optimizer, autocorrelation: np.ndarray) -> tuple[float, float]:
    r"""Rotation and norm of scale-invariant weights under correlated gradients, over those under white noise.

    Parameters
    ----------
    optimizer : Optimizer
    autocorrelation : ndarray, shape (lags + 1,)
        R_k, with R_0 = 1, of a gradient coordinate; 0 beyond.

    Returns
    -------
    (float, float)
        Factors of rotation and norm; NaN if the correlations admit no walk.

    Notes
    -----
    Derived in `derivations.autocorrelated`. An average with decay β of correlated gradients has F = 1 + 2 Σ β^k R_k
    times the power of one of white noise, and growth of ‖w‖² follows it: `norm_factors`, `rotation_factors`. Lion:
    `lion_rotation_factor` and its inverse, since a sign has one length. A rotational variant sets both. Leading order:
    terms in lr·weight_decay and 1/dim are dropped.
    """
    if optimizer.name == "rotational":
        return 1.0, 1.0
    if optimizer.name == "lion":
        factor = lion_rotation_factor(optimizer.betas, autocorrelation)  # type: ignore[attr-defined]
        return factor, 1 / factor
    beta = optimizer.momentum if optimizer.name == "sgdm" else optimizer.betas[0]  # type: ignore[attr-defined]
    given = np.asarray(autocorrelation, dtype=float)
    power = 1 + 2 * float((beta ** np.arange(1, len(given)) * given[1:]).sum())
    if power <= 0:
        return float("nan"), float("nan")
    if optimizer.name == "adam_l2":
        squared_rotation = closed_forms.adam_l2_correlated_squared_rotation(_SCALE_INVARIANT, power, power)
        norm_squared = closed_forms.adam_l2_correlated_norm_squared(_SCALE_INVARIANT, power)
    else:
        squared_rotation = closed_forms.correlated_squared_rotation(power, power)
        sgdm = optimizer.name == "sgdm"
        norm_squared = closed_forms.sgdm_correlated_norm_squared(_SCALE_INVARIANT, power) if sgdm else power
    return float(np.sqrt(squared_rotation)), float(np.sqrt(norm_squared))


def lion_rotation_factor(betas: tuple[float, float], autocorrelation: np.ndarray) -> float:
    r"""Rotation of Lion under gradients with a given autocorrelation, over that under white noise.

    Parameters
    ----------
    betas : (float, float)
        (β1, β2), each in [0, 1).
    autocorrelation : ndarray, shape (lags + 1,)
        R_k, with R_0 = 1, of a gradient coordinate; 0 beyond.

    Returns
    -------
    float
        NaN if the correlations admit no walk.

    Notes
    -----
    The autocorrelation enters through q = b_0/B_0 = E[c·g]/E[c²] alone, both of which are sums over it
    (`derivations.lion_autocorrelated.lion_linear_sum` and `lion_power_by_lag`). ηλ → 0, gradients orthogonal to the
    weights, sign linearised.
    White noise at β = (0.9, 0.99) gives θ = √(2ηλ)·0.148, where the paper's formula has 0.149: it drops a
    constant 1 - 2/π.
    """
    given = np.asarray(autocorrelation, dtype=float)
    lag = np.arange(1, len(given))
    overlap = (1 - betas[0]) * given[0] + float((closed_forms.lion_weight(*betas, lag) * given[1:]).sum())
    power = closed_forms.lion_variance(*betas) + 2 * float(
        (closed_forms.lion_covariance(*betas, lag) * given[1:]).sum()
    )
    if power <= 0:
        return float("nan")
    white = closed_forms.lion_correlated_rotation(*betas, closed_forms.lion_overlap_ratio(*betas, 0.0))
    found = closed_forms.lion_correlated_rotation(*betas, overlap / power)
    return float(np.sqrt(found / white)) if found > 0 else float("nan")
