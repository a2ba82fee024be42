"""Adam's kin whose update is made of several averages over one root of v: what gradients beyond white noise change.

The averages are summed with their sizes (`derivations.ademamix.filter_weights`). Each answers to a pull with its own
memory, by the walk of `derivations.correlated_adam`. Under a memory, and beside a mean, v is taken as constant in what
changes against white noise. What is declared of that are orders of magnitude that walks showed to suffice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from rotsim.errors import InvalidInput
from rotsim.theory.adam import MAX_SWEEPS, SWEEP_TOLERANCE, Adam
from rotsim.theory.adamw import AdamWTheory
from rotsim.theory.base import Method
from rotsim.theory.betas import adam_covariance, mean_response
from rotsim.theory.memory import CorrelatedUpdate, remembering
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, decoupled

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

SPREAD = 1.7  # errors per relative variance of v that a memory adds, as walks show
SATURATED = 6.0  # how much slower they grow where it is large
WAVERING = 2.0  # errors per share of the mean in the gradient's power and per share of the newest square in v
MEMORIES = 20.0  # of the slowest average, after which what it holds is left out
MOST_AGES = 400_000
_ROOTS = 3  # that an answer has room for
Averages = tuple[tuple[float, float], ...]  # size and root of each


@dataclass(frozen=True, eq=False)
class Fading(CorrelatedUpdate):
    """An update whose autocovariance fades in modes, however long: read·step^k·start at lags k >= 1.

    `covariance` has lag 0 alone. ``step`` is the diagonal of a matrix, or the matrix.
    """

    read: np.ndarray
    step: np.ndarray
    start: np.ndarray

    def met_by(self, transition: np.ndarray) -> np.ndarray:
        n, first = len(transition), np.eye(len(transition))[0]
        if self.step.ndim == 1:
            held = np.linalg.solve(np.eye(n) - self.step[:, None, None] * transition, first[:, None])[..., 0]
            return (self.read * self.step * self.start) @ held
        m = len(self.step)
        both = np.eye(n * m) - np.kron(self.step.T, transition)
        held = np.linalg.solve(both, np.outer(self.read, first).ravel()).reshape(m, n)
        return np.asarray((self.step @ self.start) @ held)

    def discounted(self, kept: float) -> float:
        """Σ_{k>=1} kept^k · covariance(k)."""
        step = np.diag(self.step) if self.step.ndim == 1 else self.step
        return float(self.read @ np.linalg.solve(np.eye(len(step)) - kept * step, kept * step @ self.start))


class Filtered(AdamWTheory):
    """Of AdamW's kin whose update is a sum of averages."""

    def averages(self) -> Averages:
        """Size and root of each, those of the update in the long run."""
        raise NotImplementedError

    # --- real gradients

    def correlation_factors(self, autocorrelation: np.ndarray) -> tuple[float, float]:
        """By the filter, for constant v (`derivations.nadamw.growth_by_a_filter`)."""
        sizes, roots = (np.array(each, dtype=float) for each in zip(*self.averages(), strict=True))
        lags = len(autocorrelation) - 1
        age = np.arange(min(MOST_AGES, lags + ceil(MEMORIES / (1 - float(roots.max())))))
        weight = (sizes * (1 - roots) * roots ** age[:, None]).sum(axis=1)
        two_sided = np.append(autocorrelation[:0:-1], autocorrelation)
        shared = np.convolve(weight, two_sided)[lags : lags + len(weight)]  # of an update with a gradient so much older
        power, white = float(weight @ shared), float(weight @ weight)
        older = np.append(0.0, np.cumsum(shared)[:-1])
        growth = (power + 2 * float(weight @ older)) / float(weight.sum()) ** 2
        if not (power > 0 and growth > 0):
            return nan, nan
        return sqrt(power / white / growth), sqrt(growth)

    def remembered(self, beta1: float, correlation: float) -> tuple[float, float]:
        """What one average makes of a memory is no answer here."""
        return nan, nan

    def step_factors(self, autocorrelation: np.ndarray, power: float) -> tuple[float, float]:
        """What `power` has beyond the memory, as gradients that burst one by one, is that of every average."""
        turned, grown = self.correlation_factors(autocorrelation)
        uneven = power / self.average_power(autocorrelation)
        return turned, grown * sqrt(uneven) if uneven > 0 else nan

    def step_power(self, square_step: float, dim: int, around: float) -> float:
        """Recorded is the mean square of AdamW's update."""
        return square_step / float(adam_covariance(*self.betas).lag_0)

    def radial_share(self, series: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
        return series * sum(size for size, _ in self.averages())

    # --- departures

    def departed(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        if method == "leading":
            raise InvalidInput(f'{self.spec.label} has no leading order under {law}; use method="exact"')
        return super().departed(dim, law, method, white)

    def _answering(self, eps: float) -> Fading:
        """The update under white noise, with v as random as it is."""
        answers = [(size, mean_response(root, self.betas[1])) for size, root in self.averages()]
        sizes, roots = [size * response for size, (response, _) in answers], [memory for _, (_, memory) in answers]
        noise, response = self.noise(float(eps)), sum(sizes) / (1 + eps)
        shares = np.array(sizes) / sum(sizes)
        return Fading(
            np.array([float(noise.lag_0)]), response, response, _padded(shares), _padded(roots),
            np.asarray(noise.weights, dtype=float), noise.roots, np.ones(len(noise.roots)),
        )  # fmt: skip

    def _neglected(
        self, moving: float, pull: float, projected: float, correlation: float, update: CorrelatedUpdate
    ) -> float:
        """As AdamW's, but of the pull alone: several averages of it are not the longer for what v does."""
        decay = self.spec.lr * self.spec.weight_decay
        slowest = decay + self.spec.lr * min(0.0, pull + projected)
        alike = (1 - self.betas[1]) / (1 - self.betas[1] * (1 - slowest) ** 2)
        return float(moving * alike * sqrt(decay / slowest))

    # --- a radial part

    def pulled(self, noise: float, radial: float) -> SteadyState:
        o, v = self.spec, noise
        update = self._answering(o.eps / sqrt(noise))
        for _ in range(MAX_SWEEPS):
            pull = radial * update.response / sqrt(v)
            walk = remembering(o.lr, pull, 1 - o.lr * o.weight_decay, 0.0, update)
            decay = o.weight_decay * sqrt(v) / update.response
            if not isfinite(walk.norm_squared):
                return SteadyState(inf, 2.0, model_error=inf, decay=decay)
            square = walk.norm_squared * noise / v
            before, v = v, noise + radial**2 * square
            if abs(v / before - 1) < SWEEP_TOLERANCE:
                break
        error = self._neglected(1 - noise / v, pull, 0.0, 0.0, update)
        return replace(walk, norm_squared=square, model_error=error, decay=decay)

    # --- a mean

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        o, v, update = self.spec, noise + mean, self._answering(0.0)
        gain = update.response / sqrt(v)
        found = remembering(o.lr, radial * gain, 1 - o.lr * o.weight_decay, 0.0, update)
        return replace(found, norm_squared=found.norm_squared * noise / v, decay=o.weight_decay / gain)

    def beside_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> tuple[float, ...]:
        """The mean's update wavers with v, to first order of either.

        A gradient on the side of the mean makes v larger, and the update smaller, as one more average would. Squares of
        the noise are alike as v is.
        """
        o, share, update, beta2 = self.spec, 1 / (1 + law.signal**2), self._answering(0.0), float(self.betas[1])
        mean, kept = update.response * law.signal * sqrt(share), 1 - o.lr * o.weight_decay
        plain = self.averages()
        lessened, linear = _linear((*plain, (-mean * law.signal * sqrt(share), beta2)), 0.0), _linear(plain, 0.0)
        power = mean**2 * share * (1 - beta2) / (1 + beta2) / 2
        wavers = UpdateCovariance(power, np.array([power]), np.array([beta2]))
        lag_0 = float(update.covariance[0] + lessened.covariance[0] - linear.covariance[0]) + power
        later = update.discounted(kept) + lessened.discounted(kept) - linear.discounted(kept)
        total = (later + power * float(wavers.discounted_sum(kept))) / lag_0
        square, half = decoupled(o.lr, o.weight_decay, dim * lag_0 * share, total)
        return dim * (mean / o.weight_decay) ** 2, float(square), float(half)

    def constant_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        found = super().constant_mean(dim, law, method, white)
        return replace(found, model_error=found.model_error + WAVERING * law.signal**2 * (1 - self.betas[1]))

    def declared_signal(
        self, law: GradientPower, dim: int, norm_squared: float, walk: SteadyState, aligned: float
    ) -> float:
        found = super().declared_signal(law, dim, norm_squared, walk, aligned)
        return found * min(1.0, WAVERING * (1 - float(self.betas[1])))

    # --- a memory

    def correlated_update(self, correlation: float) -> CorrelatedUpdate:
        return _linear(self.averages(), correlation)

    def correlated(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """Declared is what the spread of v changes, which grows with the memory of squares."""
        found = Adam.correlated(self, dim, law, method, white)  # what AdamW has besides is of one average
        beta2, alike = self.betas[1], law.correlation**2
        more = 2 * (1 - beta2) / (1 + beta2) * (2 * beta2 * alike / (1 - beta2 * alike))
        return replace(found, model_error=found.model_error + SPREAD * more / (1 + SATURATED * more))


@lru_cache(maxsize=256)
def _linear(averages: Averages, correlation: float) -> Fading:
    """The update under AR(1) gradients of unit variance, for constant v: a linear chain of gradient and averages."""
    sizes, roots = (np.array(each) for each in zip(*averages, strict=True))
    step = np.diag(np.append(correlation, roots))
    step[1:, 0] = correlation * (1 - roots)
    entered = np.append(1.0, 1 - roots)
    fresh = (1 - correlation**2) * np.outer(entered, entered)
    state = scipy.linalg.solve_discrete_lyapunov(step, fresh, method="direct")
    read = np.append(0.0, sizes)
    return Fading(
        np.array([read @ state @ read]), float(read @ state[:, 0]), float(sizes.sum()),
        _padded(sizes / sizes.sum()), _padded(roots), read, step, state @ read,
    )  # fmt: skip


def _padded(values: Any) -> np.ndarray:
    """With room for `_ROOTS`."""
    found = np.zeros(_ROOTS)
    found[: len(values)] = values
    return found
