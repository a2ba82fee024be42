"""The theory of NAdamW: that of AdamW, whose newest gradient counts once more in the filter (`derivations.nadamw`)."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import NAdamW
from rotsim.optimizers.nadamw import FADE
from rotsim.theory import few_weights
from rotsim.theory.adam_in_time import nadamw
from rotsim.theory.base import theory_for
from rotsim.theory.betas import adam_covariance, heaviest, mean_response
from rotsim.theory.filtered import Filtered
from rotsim.theory.rare_updates import rare_updates
from rotsim.theory.walk import UpdateCovariance

if TYPE_CHECKING:
    pass


@theory_for(NAdamW)
class NAdamWTheory(Filtered):
    """Under white noise as exact as AdamW's: at rest with the last μ of the schedule, in time with each.

    What is declared takes the average for the whole update where it asks how slowly updates follow the norm.
    """

    follow = nadamw
    moments = 8
    spec: NAdamW  # type: ignore[assignment]

    # --- its update

    def averages(self) -> tuple[tuple[float, float], ...]:
        ahead = self.spec.last_momentum
        return (ahead, self.spec.betas[0]), (1 - ahead, 0.0)

    @property
    def _shares(self) -> tuple[Any, Any]:
        """μ², and what the newest gradient has of E u² besides."""
        ahead = self.spec.last_momentum
        return ahead**2, closed_forms.nadamw_newest(self.spec.betas[0], ahead)

    def noise(self, eps: Any = 0.0) -> UpdateCovariance:
        (beta1, beta2), ahead, (share, newest) = self.spec.betas, self.spec.last_momentum, self._shares
        average, alone = adam_covariance(beta1, beta2, eps), adam_covariance(0 * beta1, beta2, eps)
        later = ahead * (1 - ahead) * (1 - beta1)
        pairs = zip_longest(alone.weights, average.weights, fillvalue=0.0)
        weights = [later * one + share * other for one, other in pairs]
        return UpdateCovariance(
            newest * alone.lag_0 + share * average.lag_0,
            np.stack(np.broadcast_arrays(*weights)),
            np.stack([beta1 * beta2**n for n in range(len(weights))]),
            np.maximum(alone.error, average.error),
        )

    def response(self) -> tuple[Any, Any]:
        (beta1, beta2), ahead = self.spec.betas, self.spec.last_momentum
        size, root = mean_response(beta1, beta2)
        return ahead * size + (1 - ahead) * mean_response(0 * beta1, beta2)[0], root

    def linear_power(self) -> Any:
        share, newest = self._shares
        return newest + share * super().linear_power()

    def held(self, decay: Any) -> Any:
        return 1 + self.spec.last_momentum * (super().held(decay) - 1)

    def twice(self, decay: Any) -> Any:
        return few_weights.met_twice(super().held(decay), self.spec.betas[0], 1 - self.spec.last_momentum)

    def met_again(self) -> Any:
        return closed_forms.nadamw_met_again(*self.spec.betas, self.spec.last_momentum)

    def leading_rotation(self) -> Any:
        o = self.spec
        return closed_forms.nadamw_leading_rotation(o.lr, o.weight_decay, o.betas[0], o.last_momentum)

    def rare(self, eps: Any, dim: int, covariance: UpdateCovariance) -> tuple[Any, Any]:
        o, (beta1, beta2) = self.spec, self.spec.betas
        most = np.maximum(heaviest(beta1, beta2), heaviest(0 * beta1, beta2))  # of a mixture of the two
        return rare_updates(o.lr, o.weight_decay, o.betas, eps, dim, covariance, most, self._shares)

    # --- in time

    @property
    def lasting_shares(self) -> tuple[Any, Any]:
        return 1 - self.spec.last_momentum, self.spec.last_momentum

    def shares(self, step: Any) -> tuple[Any, Any]:
        return self.spec.shares(step)

    def modes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, Any]:
        """Those of the average, then those of the newest gradient."""
        beta1, beta2 = self.spec.betas
        average, alone = adam_covariance(beta1, beta2), adam_covariance(0.0, beta2)
        weights = np.append(average.weights, np.zeros_like(alone.weights))
        roots = np.append(average.roots, beta1 * beta2 ** np.arange(0.0, len(alone.weights)))
        newest = np.append(np.zeros_like(average.weights), alone.weights)
        return weights, newest, roots, max(average.error, alone.error)

    def fading(self) -> float:
        return FADE**self.spec.momentum_decay
