"""The theory of AdEMAMix: that of AdamW, whose filter has a second, slower part (`derivations.ademamix`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import AdEMAMix
from rotsim.theory import two_averages
from rotsim.theory.adam import Adam
from rotsim.theory.adam_in_time import ademamix
from rotsim.theory.base import Filling, Theory, theory_for
from rotsim.theory.covariance import adam_covariance
from rotsim.theory.filtered import Filtered
from rotsim.theory.rare_updates import heaviest, rare_updates
from rotsim.theory.second_moment import mean_response
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@theory_for(AdEMAMix)
class AdEMAMixTheory(Filtered):
    """Under white noise as exact as AdamW's, but for the relaxation, which is AdamW's own.

    A slow average makes the norm swing, with no area in all (`derivations.ademamix.area_of_a_deviation`).
    """

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

    def averages(self) -> tuple[tuple[float, float], ...]:
        beta1, _, beta3 = self.spec.betas
        return (1.0, beta1), (self.spec.alpha, beta3)

    def _squares(self) -> tuple[tuple[float, float], ...]:
        """Root and size of averages whose squares add up to the filter's: fast, slow, and what both share, twice."""
        beta1, _, beta3 = self.spec.betas
        shared = float(closed_forms.ademamix_shared(beta1, beta3, self.spec.alpha))
        return (beta1, 1.0), (beta3, self.spec.alpha**2), (np.sqrt(beta1 * beta3), 2 * shared)

    def noise(self, eps: Any = 0.0) -> UpdateCovariance:
        beta1, beta2, beta3 = self.spec.betas
        parts = [(adam_covariance(root, beta2, eps), size) for root, size in self._squares()]
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
        return two_averages.met_twice(self.averages(), decay)

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        _, wavers, bent = Adam.in_few_weights(self, dim, law, state)
        decay = self.decay_of(dim, law, state)
        met, late = two_averages.met_and_fed_back(self.averages(), self.betas[1], decay)
        return met, wavers * late, bent, late, two_averages.runaway(self.averages(), self.betas[1], decay, late)

    def met_again(self) -> Any:
        return closed_forms.ademamix_met_again(*self.spec.betas, self.spec.alpha)

    def leading_norm(self, dim: Any) -> Any:
        return closed_forms.ademamix_leading_norm(self.spec.lr, self.spec.weight_decay, dim, self.spec.alpha)

    def leading_rotation(self) -> Any:
        o, (beta1, _, beta3) = self.spec, self.spec.betas
        return closed_forms.ademamix_leading_rotation(o.lr, o.weight_decay, beta1, beta3, o.alpha)

    def rare(self, eps: Any, dim: int, covariance: UpdateCovariance) -> tuple[Any, Any]:
        o, beta2 = self.spec, self.spec.betas[1]
        (beta1, share), *more = self._squares()
        most = max(heaviest(root, beta2) for root in (beta1, *(root for root, _ in more)))
        squares = (share, 0.0, *(number for pair in more for number in pair))
        return rare_updates(o.lr, o.weight_decay, (beta1, beta2), eps, dim, covariance, most, squares)

    # --- in time

    def filling(self, dim: int, law: GradientPower, steps: int) -> Filling:
        return Theory.filling(self, dim, law, steps)  # which refuses: no hyperball keeps two averages besides v

    def second_average(self) -> tuple[float, float]:
        return self.spec.betas[2], self.spec.alpha


def _longer(weights: np.ndarray, count: int) -> np.ndarray:
    """The same with zeros up to so many modes."""
    return np.concatenate([weights, np.zeros((count - len(weights), *weights.shape[1:]))])
