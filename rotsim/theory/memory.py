r"""The linear walk with memory: equilibrium under AR(1) gradients, E z_t z_{t+k} = φ^k.

Gradients orthogonal to the weights lose what the noise repeats along w. Others do not, and their weights grow by the
noise's spectral density at frequency zero. One coordinate under all but SGDM, in units of the noise, ℓ the decay inside
v and c the projection (derivations.correlated_adam):

.. math::
    r^i_t = ρ_i r^i_{t-1} + (1-ρ_i)\, w_{t-1}, \qquad
    w_t = a\, w_{t-1} - η \left( u_t + (ℓ - c)\, κ \sum_i s_i r^i_t \right), \qquad c\, E w^2 = E[w_t z_{t+1}]

u has the autocovariance of `correlated_moment`, with v as random as it is; κ, s and ρ are its answer to a pull. Lion's
signs have that of the arcsine law, and answer by its slope (derivations.lion_autocorrelated.lion_answer). Exact as
η·weight_decay → 0, under Adam also for constant v; neglected are products of the pull and what is not linear. Declared
for Lion is a part of the pull's share in the power of the sign's argument. An answer at once adds 4 φ² η·weight_decay.
For Adam it is what `rotsim.theory.adam` has of v. Under Adam+L2 only the ratio to white noise is taken from
this, since that is known exactly. SGDM is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite

import numpy as np
import scipy

from rotsim.theory.fixed_point import bracketed_root
from rotsim.theory.steady import SteadyState

SIZE_TOLERANCE = 1e-13  # of the size of a step, and of its logarithm
MAX_LOG_SIZE = 20.0


@dataclass(frozen=True, eq=False)
class CorrelatedUpdate:
    """What a coordinate of an update u is like under AR(1) gradients z of unit variance, and its answer to a shift.

    Attributes
    ----------
    covariance : ndarray, shape (lags + 1,)
        E[u_t u_{t+k}] from lag 0 on, to where all memory is gone.
    overlap : float
        E[u z] of the same step.
    response : float
        κ > 0: what a small lasting shift of z, in deviations, moves u by.
    shares, roots : ndarray, shape (3,)
        The answer to a shift j steps ago is κ Σ shares (1 - roots) roots^j, Σ shares = 1 and roots in (-1, 1).
    """

    covariance: np.ndarray
    overlap: float
    response: float
    shares: np.ndarray
    roots: np.ndarray

    def met_by(self, transition: np.ndarray) -> np.ndarray:
        """Σ_{k>=0} transition^k e_0 · covariance(k + 1): what states hold of the next update, over -η."""
        first = np.eye(len(transition))[0]
        # every state that a step becomes, lag by lag, in doubling blocks
        lags = len(self.covariance) - 1
        later, power = first[:, None], transition
        while later.shape[1] < lags:
            later, power = np.hstack([later, power @ later]), power @ power
        met: np.ndarray = later[:, :lags] @ self.covariance[1:]
        return met


def remembering(lr: float, pull: float, kept: float, correlation: float, update: CorrelatedUpdate) -> SteadyState:
    """The walk of the module docstring for a given pull (ℓ - c)κ.

    Parameters
    ----------
    lr : float
        η > 0.
    pull : float
        Of any sign.
    kept : float
        a in (0, 1], what decoupled decay leaves of the weights.
    correlation : float
        φ of `update`, in (-1, 1).
    update : CorrelatedUpdate

    Returns
    -------
    SteadyState
        Of infinite square where the walk diverges.

    Notes
    -----
    `derivations.correlated_adam.walk` and `overlap_with_the_next`.
    """
    roots = update.roots
    # rows of the state (w, r) after a step, apart from the noise
    moved = np.append(-(update.shares * (1 - roots)).sum(), -update.shares * roots) * lr * pull
    moved[0] += kept - 1
    transition = np.diag(np.append(0.0, roots))
    transition[0], transition[1:, 0] = moved, 1 - roots
    transition[0, 0] += 1
    if np.abs(np.linalg.eigvals(transition)).max() >= 1:
        return SteadyState(inf, 2.0)
    first = np.eye(4)[0]
    with_next = -lr * update.met_by(transition)  # E[state · u_{t+1}]
    crossed = np.outer(transition @ with_next, first)
    fresh = lr**2 * update.covariance[0] * np.outer(first, first)
    state = scipy.linalg.solve_discrete_lyapunov(transition, fresh - lr * (crossed + crossed.T), method="direct")
    change = moved @ state @ moved - 2 * lr * moved @ with_next + lr**2 * update.covariance[0]
    seen = np.linalg.solve(np.eye(4) - correlation * transition, first)[0]
    overlap = float(-lr * update.overlap * correlation * seen)
    return SteadyState(float(state[0, 0]), float(change / (2 * state[0, 0])), overlap=overlap)


def projection(lr: float, pull: float, kept: float, correlation: float, update: CorrelatedUpdate) -> float:
    """-cκ, at which what is projected away is what the noise repeats along w; parameters as in `remembering`.

    It is `derivations.correlated_adam.overlap_with_the_next`.
    """

    def excess(projected: float) -> float:
        walk = remembering(lr, pull + projected, kept, correlation, update)
        return projected + update.response * walk.overlap / walk.norm_squared  # if infinite, the first alone

    repeated = correlation * update.overlap
    if repeated == 0:
        return 0.0
    lost = pull + (1 - kept) / lr
    if repeated < 0:  # pushes outwards, less than decay pulls in
        return float(bracketed_root(excess, -lost * (1 - 1e-9), 0.0, xtol=1e-16 * lost, rtol=1e-13))
    high = lost
    while excess(high) < 0:
        high *= 2
    return float(bracketed_root(excess, 0.0, high, xtol=1e-16 * lost, rtol=1e-13))


def unit_steps(
    lr: float, kept: float, correlation: float, update: CorrelatedUpdate, pull: Callable[[CorrelatedUpdate], float]
) -> tuple[SteadyState, float]:
    """Lion's walk with a pull: free signs and the answer to it are scaled so that together they have the size of one.

    Parameters
    ----------
    lr : float
        η > 0.
    kept : float
        a in (0, 1].
    correlation : float
        φ of `update`, in (-1, 1).
    update : CorrelatedUpdate
        Of signs, as `rotsim.theory.sign.answering_signs` has it.
    pull : callable
        The pull on signs whose answer is scaled.

    Returns
    -------
    walk : SteadyState
    share : float
        Power of the pull in the sign's argument over that of the noise.

    Notes
    -----
    `derivations.lion_autocorrelated.lion_answer`.
    """

    def scaled(size: float) -> tuple[SteadyState, float]:
        signs = replace(
            update,
            covariance=size**2 * update.covariance,
            overlap=size * update.overlap,
            response=size * update.response,
        )
        pulled = pull(signs)
        return remembering(lr, pulled, kept, correlation, signs), pulled

    def excess(log_size: float) -> float:
        walk, _ = scaled(float(np.exp(log_size)))
        if not isfinite(walk.norm_squared):
            return MAX_LOG_SIZE
        moved = kept * 2 * walk.one_minus_cosine + (1 - kept) ** 2  # E(w' - aw)² over E w²
        return float(np.log(moved * walk.norm_squared / lr**2))

    size = 0.0
    if abs(excess(0.0)) > SIZE_TOLERANCE:
        size = bracketed_root(excess, -MAX_LOG_SIZE, 1.0, xtol=SIZE_TOLERANCE)
    walk, pulled = scaled(float(np.exp(size)))
    return walk, float(pulled**2 * walk.norm_squared * np.pi / 2)
