"""What correlated gradients do to rotation and norm.

The rotation of AdamW and SGDM does not depend on the gradients' autocorrelation: the decay of ‖w‖² balances
the same share of ‖m‖² whatever it is. Every norm does, and so does the rotation of Adam+L2, whose decay is
divided by the gradient's size, and of Lion, whose sign feeds back through an average of other length.
"""

from __future__ import annotations

import numpy as np

from rotsim.optimizers.base import Optimizer

_POWERS = {"adamw": (0.0, 1 / 2), "sgdm": (0.0, 1 / 4), "adam_l2": (1 / 6, 1 / 3)}  # of F, in rotation and norm


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
    An average with decay β of correlated gradients has F = 1 + 2 Σ β^k R_k times the power of one of white noise.
    AdamW: θ keeps its value and ‖w‖ = η‖u‖/θ follows √F. SGDM: the same, with ‖g‖ ∝ 1/‖w‖, gives F^{1/4}. Adam+L2: the
    effective decay is proportional to ‖w‖, so θ² ∝ ‖w‖ and θ‖w‖ ∝ √F: F^{1/6} and F^{1/3}. Lion: `lion_rotation_factor`
    and its inverse, since a sign has one length. A rotational variant sets both. Leading order: terms of
    1/dim are dropped.
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
    rotation, norm = _POWERS[optimizer.name]
    return power**rotation, power**norm


def lion_rotation_factor(betas: tuple[float, float], autocorrelation: np.ndarray) -> float:
    r"""Rotation of Lion under gradients with a given autocorrelation, over that under white noise.

    Parameters
    ----------
    betas : (float, float)
    autocorrelation : ndarray, shape (lags + 1,)
        R_k, with R_0 = 1, of a gradient coordinate; 0 beyond.

    Returns
    -------
    float
        √(G_white / G); NaN if the correlations admit no walk (G ≤ 0).

    Notes
    -----
    With c_t = Σ_k a_k g_{t-k}, a_0 = 1-β1, a_k = β1(1-β2)β2^{k-1}, gradients orthogonal to the weights and the sign
    linearised (its covariance with g is √(2/π)/σ_c that of c), the growth of ‖w‖² by η²C·G per step balances its
    decay, and θ² = 2ηλ/G with

    .. math::
        G = 1 + \frac{4}{\pi\sigma_c^2} \sum_k a_k \sum_{j=1}^{k} \sum_i a_i R_{k-j-i}, \qquad
        \sigma_c^2 = \sum_{ik} a_i a_k R_{k-i}.

    White noise at β = (0.9, 0.99) gives θ = √(2ηλ)·0.148, where the paper's formula has 0.149: it drops a
    constant 1 - 2/π.
    """
    beta1, beta2 = betas
    given = np.asarray(autocorrelation, dtype=float)
    length = max(len(given), int(np.ceil(7 / (1 - beta2))))
    weights = np.concatenate([[1 - beta1], beta1 * (1 - beta2) * beta2 ** np.arange(length - 1)])
    white = np.zeros(length)
    white[0] = 1.0
    measured = np.zeros(length)
    measured[: len(given)] = given
    growth, reference = _growth(weights, measured), _growth(weights, white)
    return float(np.sqrt(reference / growth)) if growth > 0 else float("nan")


def _growth(weights: np.ndarray, correlation: np.ndarray) -> float:
    length = len(weights)
    two_sided = np.concatenate([correlation[:0:-1], correlation])
    # b_n = Σ_i a_i R_{n-i} for n = 0 .. length-1
    size = 1 << (3 * length).bit_length()
    b = np.fft.irfft(np.fft.rfft(two_sided, size) * np.fft.rfft(weights, size), size)[length - 1 : 2 * length - 1]
    variance = float(weights @ b)
    # Σ_k a_k Σ_{n=0}^{k-1} b_n
    inner = np.concatenate([[0.0], np.cumsum(b)[:-1]])
    return 1 + 4 / np.pi * float(weights @ inner) / variance
