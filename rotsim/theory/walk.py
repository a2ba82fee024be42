r"""Every optimizer as a filter of gradients, a shape and a decay: the sums over lags that all of them share.

A filter turns gradients into an average, of which the correlation r_k from step to step matters. A shape turns the
average into the update u: identity, sign, division by √v. It turns r_k into the autocovariance K_k = E[u_t u_{t+k}].
With decoupled decay, w_t = a w_{t-1} - η u_t and a = 1 - ηλ, one sum over lags then gives norm and rotation:

.. math::
    S = \sum_{k\ge1} a^k K_k / K_0, \qquad E\|w\|^2 = \frac{η^2 C K_0 (1 + 2S)}{1-a^2}.

The derivation is that of `derivations.lion`, which asks nothing of u but its autocovariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from rotsim import closed_forms


@dataclass(frozen=True, eq=False)
class UpdateCovariance:
    """Autocovariance of a coordinate's update: ``lag_0``, then Σ_n weights[n] · roots[n]^k at lags k >= 1.

    Attributes
    ----------
    lag_0 : float or ndarray, any shape
        E[u²] of one coordinate.
    weights, roots : ndarray, shape (modes,)
        Roots are in [0, 1).
    error : float or ndarray, any shape
        Estimated relative error of quadrature and fit.

    Notes
    -----
    Of many coordinates that share their roots, `lag_0` and `error` are arrays, and so is each entry of `weights`.
    """

    lag_0: Any
    weights: np.ndarray
    roots: np.ndarray
    error: Any = 0.0

    def __call__(self, lag: np.ndarray | int) -> np.ndarray:
        """Covariance at whole lags >= 0."""
        lag = np.asarray(lag)
        modes = (self.weights * self.roots ** lag[..., None]).sum(axis=-1)
        return np.where(lag == 0, self.lag_0, modes)

    def discounted_sum(self, kept: Any) -> Any:
        """Σ_{k>=1} kept^k · covariance(k) / lag_0, for 0 <= kept <= 1, elementwise."""
        total = 0.0
        for weight, root in zip(self.weights, self.roots, strict=True):
            total = total + weight * (kept * root) / (1 - kept * root)
        return total / self.lag_0


def exponential_average(beta: float) -> UpdateCovariance:
    """The filter m ← β m + (1-β) g of white gradients of unit variance (`derivations.lion.covariance` at β1 = β2)."""
    power = (1 - beta) / (1 + beta)
    return UpdateCovariance(power, np.array([power]), np.array([beta]))


def running_sum(values: np.ndarray, kept: float, before: float = 0.0) -> np.ndarray:
    """y_t = kept·y_{t-1} + values_t, from `before` on.

    The filter of `derivations.lion.filter_weights`, for a given series. `scipy.signal` takes a second to import.
    """
    if not len(values):
        return np.zeros(0)
    bands = np.stack([np.ones(len(values)), np.full(len(values), -kept)])
    first = np.zeros(len(values))
    first[0] = kept * before
    return np.asarray(scipy.linalg.solve_banded((1, 0), bands, values + first))


def discounted(kept: float, covariance: np.ndarray, root: float) -> float:
    """Σ_{k≥1} kept^k K_k of a covariance, at lags 1, 2, ..., that goes on by the factor `root` where the array ends.

    The sum of `derivations.lion.arcsine_law`.
    """
    faded = covariance * kept ** np.arange(1, len(covariance) + 1)
    return float(faded.sum() + faded[-1] * kept * root / (1 - kept * root))


def decoupled(lr: Any, weight_decay: Any, power: Any, total: Any) -> tuple[Any, Any]:
    """E‖w‖² and 1 - ρ of w ← (1-ηλ) w - η u, elementwise, for E‖u‖² = `power` and S = `total` > -1/2.

    They are `derivations.lion.exact_norm_squared` and `exact_one_minus_cosine`.
    """
    return (
        closed_forms.lion_exact_norm_squared(lr, weight_decay, power, total),
        closed_forms.lion_exact_one_minus_cosine(lr, weight_decay, total),
    )


def fallen(
    lr: float,
    weight_decay: float,
    covariance: UpdateCovariance,
    lag: int,
    step_length: float | None = None,
    norm_squared: float | None = None,
) -> float:
    """1 - ρ_lag of the same walk: a sum over the modes of its update (`derivations.transient.over_many_steps`).

    `step_length` multiplies the update, and `norm_squared` is E w², where noise that no update remembers adds to the
    walk. By default they are `lr` and what it leads to.
    """
    rates, roots = (lr, weight_decay), covariance.roots
    kept = 1 - lr * weight_decay
    step_length = lr if step_length is None else step_length
    if norm_squared is None:
        norm_squared, _ = decoupled(*rates, covariance.lag_0, covariance.discounted_sum(kept))
    alike = np.abs(kept - roots) <= 1e-9 * kept
    taken = closed_forms.walk_taken(*rates, lag, np.where(alike, 0.0, roots))
    taken = np.where(alike, closed_forms.walk_taken_alike(*rates, lag), taken)
    overlap = closed_forms.walk_settled_overlap(*rates, step_length, covariance.weights, roots)
    return float(closed_forms.walk_decayed(*rates, lag) + step_length / norm_squared * (overlap * taken).sum())
