"""The theory of AdEMAMix: that of AdamW, whose filter has a second, slower part (`derivations.ademamix`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import AdEMAMix
from rotsim.theory.adam_in_time import ademamix
from rotsim.theory.adamw import WhiteNoiseAlone
from rotsim.theory.base import theory_for
from rotsim.theory.covariance import adam_covariance
from rotsim.theory.rare_updates import heaviest, rare_updates
from rotsim.theory.second_moment import mean_response
from rotsim.theory.walk import UpdateCovariance

SEEN = 0.01  # of a deviation of the norm, that a mode of its course has
NUDGE = 1e-30  # an imaginary deviation, whose image over it is a derivative without cancellation


@theory_for(AdEMAMix)
class AdEMAMixTheory(WhiteNoiseAlone):
    """Under white noise as exact as AdamW's."""

    follow = ademamix
    moments = 12
    interpolated = False
    spec: AdEMAMix  # type: ignore[assignment]

    # --- its update

    @property
    def betas(self) -> tuple[Any, Any]:
        beta1, beta2, _ = self.spec.betas
        return beta1, beta2

    def momenta(self) -> tuple[Any, ...]:
        return self.spec.betas[::2]

    def _averages(self) -> tuple[tuple[float, float], ...]:
        """Root and size of averages whose squares add up to the filter's: fast, slow, and what both share, twice."""
        beta1, _, beta3 = self.spec.betas
        shared = float(closed_forms.ademamix_shared(beta1, beta3, self.spec.alpha))
        return (beta1, 1.0), (beta3, self.spec.alpha**2), (np.sqrt(beta1 * beta3), 2 * shared)

    def noise(self, eps: Any = 0.0) -> UpdateCovariance:
        beta1, beta2, beta3 = self.spec.betas
        parts = [(adam_covariance(root, beta2, eps), size) for root, size in self._averages()]
        count = max(len(part.weights) for part, _ in parts)
        fast, slow, both = (_longer(size * part.weights, count) for part, size in parts)
        return UpdateCovariance(
            sum(size * part.lag_0 for part, size in parts),
            np.concatenate([fast + both / 2, slow + both / 2]),
            np.concatenate([root * beta2 ** np.arange(float(count)) for root in (beta1, beta3)]),
            np.maximum.reduce([part.error for part, _ in parts]),
        )

    def response(self) -> tuple[Any, Any]:
        beta1, beta2, beta3 = self.spec.betas
        fast, root = mean_response(beta1, beta2)
        return self._mean(fast, mean_response(beta3, beta2)[0]) * (1 + self.spec.alpha), root

    def _mean(self, fast: Any, slow: Any) -> Any:
        """Of something that both averages have, by what they count."""
        return (fast + self.spec.alpha * slow) / (1 + self.spec.alpha)

    def linear_power(self) -> Any:
        beta1, _, beta3 = self.spec.betas
        return closed_forms.ademamix_linear_power(beta1, beta3, self.spec.alpha)

    def held(self, decay: Any) -> Any:
        fast, slow = (closed_forms.decoupled_held(1.0, decay, root) for root in self.spec.betas[::2])
        return self._mean(fast, slow)

    def twice(self, decay: Any) -> Any:
        """What two averages share of it is not derived."""
        return 1.0

    def met_again(self) -> Any:
        return closed_forms.ademamix_met_again(*self.spec.betas, self.spec.alpha)

    def leading_norm(self, dim: Any) -> Any:
        return closed_forms.ademamix_leading_norm(self.spec.lr, self.spec.weight_decay, dim, self.spec.alpha)

    def leading_rotation(self) -> Any:
        o, (beta1, _, beta3) = self.spec, self.spec.betas
        return closed_forms.ademamix_leading_rotation(o.lr, o.weight_decay, beta1, beta3, o.alpha)

    def rare(self, eps: Any, dim: int, covariance: UpdateCovariance) -> tuple[Any, Any]:
        o, beta2 = self.spec, self.spec.betas[1]
        (beta1, share), *more = self._averages()
        most = max(heaviest(root, beta2) for root in (beta1, *(root for root, _ in more)))
        squares = (share, 0.0, *(number for pair in more for number in pair))
        return rare_updates(o.lr, o.weight_decay, (beta1, beta2), eps, dim, covariance, most, squares)

    # --- in time

    def relaxation(self, homogeneity: int, felt: Any) -> Any:
        """The slow average, too, still holds gradients as they were before a deviation: the norm may swing around rest.

        Of the modes of one step, v taken as constant at rest, those count which have `SEEN` of a deviation.
        """
        if not homogeneity:
            return super().relaxation(homogeneity, felt)
        decay, felt = np.broadcast_arrays(self.spec.lr * self.spec.weight_decay, felt)
        rest = self._settled(decay)
        modes = np.empty((*decay.shape, len(rest), len(rest)))
        for place in range(len(rest)):
            moved = [part + 0j for part in rest]
            moved[place] = moved[place] + 1j * NUDGE
            after = self._next(moved, rest[0], decay, homogeneity, felt)
            modes[..., place] = np.stack([np.imag(part) / NUDGE for part in after], axis=-1)
        left, vectors = np.linalg.eig(modes)
        seen = np.abs(vectors[..., 0, :] * np.linalg.solve(vectors, np.eye(len(rest)))[..., 0]) > SEEN
        return -1 / np.log(np.where(seen, np.abs(left), 0.0).max(axis=-1))

    def _settled(self, decay: Any) -> list[Any]:
        """E w², overlaps of w with both averages, the second moments of these, and v: at rest, for noise of size 1."""
        (beta1, _, beta3), mix = self.spec.betas, self.spec.alpha
        powers = [(1 - r) * (1 - q) / (1 - r * q) for r, q in ((beta1, beta1), (beta1, beta3), (beta3, beta3))]
        entered = powers[0] + mix * powers[1], powers[1] + mix * powers[2]
        overlaps = [
            closed_forms.walk_settled_overlap(1.0, decay, 1.0, weight, root)
            for weight, root in zip(entered, (beta1, beta3), strict=True)
        ]
        across = beta1 * overlaps[0] + mix * beta3 * overlaps[1]
        square = (entered[0] + mix * entered[1] - 2 * (1 - decay) * across) / (decay * (2 - decay))
        return [square, *overlaps, *(np.full_like(decay, power) for power in powers), np.ones_like(decay)]

    def _next(self, state: list[Any], settled: Any, decay: Any, homogeneity: int, felt: Any) -> list[Any]:
        """The same one step on (`derivations.transient`)."""
        square, fast, slow, fast_power, both, slow_power, v = state
        (beta1, beta2, beta3), mix = self.spec.betas, self.spec.alpha
        gradient = (square / settled) ** homogeneity
        fast_power = beta1**2 * fast_power + (1 - beta1) ** 2 * gradient
        both = beta1 * beta3 * both + (1 - beta1) * (1 - beta3) * gradient
        slow_power = beta3**2 * slow_power + (1 - beta3) ** 2 * gradient
        v = beta2 * v + (1 - beta2) * gradient
        length = v ** (-felt / 2)
        across = beta1 * fast + mix * beta3 * slow
        power = fast_power + 2 * mix * both + mix**2 * slow_power
        along = closed_forms.walk_along(1.0, decay, square, length, across)
        moved = closed_forms.walk_moved(1.0, decay, square, length, across, power)
        fast = closed_forms.walk_mode_overlap(1.0, decay, length, fast, fast_power + mix * both, beta1)
        slow = closed_forms.walk_mode_overlap(1.0, decay, length, slow, both + mix * slow_power, beta3)
        return [square + 2 * along + moved, fast, slow, fast_power, both, slow_power, v]

    def second_average(self) -> tuple[float, float]:
        return self.spec.betas[2], self.spec.alpha


def _longer(weights: np.ndarray, count: int) -> np.ndarray:
    """The same with zeros up to so many modes."""
    return np.concatenate([weights, np.zeros((count - len(weights), *weights.shape[1:]))])
