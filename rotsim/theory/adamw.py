"""The theory of AdamW: an average over the root of a random second moment, beside decoupled decay."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.gradients import GradientPower
from rotsim.optimizers import AdamW
from rotsim.theory import few_weights
from rotsim.theory.adam import Adam
from rotsim.theory.adam_in_time import adamw
from rotsim.theory.adam_l2_chain import steady
from rotsim.theory.base import Method, theory_for
from rotsim.theory.betas import adam_covariance, felt_eps, heaviest, mean_response
from rotsim.theory.correlated_moment import signal_update
from rotsim.theory.coupled import stationary
from rotsim.theory.fixed_point import falling, noise_variance
from rotsim.theory.rare_updates import rare_updates
from rotsim.theory.shifting_moment import reaches, shifting_moment
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, decoupled, discounted, fallen


@theory_for(AdamW)
class AdamWTheory(Adam[AdamW]):
    """The exact equilibrium keeps the fluctuations of v, and ε beside them (`derivations.second_moment`)."""

    follow = adamw
    elementwise, interpolated = ("lr", "weight_decay", "eps"), True

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        o = self.spec
        lr, weight_decay, beta1, beta2 = o.lr, o.weight_decay, *self.betas
        relaxation = closed_forms.adamw_relaxation_steps(lr, weight_decay)
        if method == "leading":
            rotation = self.leading_rotation()
            norm = self.leading_norm(dim)
            # neglected: finite lr·wd against the momentum window, and the spread of v
            error = lr * weight_decay / (1 - np.maximum.reduce(self.momenta())) + (1 - beta2)
            return SteadyState(norm**2, rotation**2 / 2, relaxation, error)

        def at(log_norm_squared: Any) -> tuple[UpdateCovariance, Any, Any]:
            """Updates under the noise that a norm sets, 1 - ρ, and log E‖w‖² beyond what was put in."""
            covariance = self.updates(dim, law, np.exp(log_norm_squared))
            total = covariance.discounted_sum(1 - lr * weight_decay)
            image, half = decoupled(lr, weight_decay, dim * covariance.lag_0, total)
            return covariance, half, np.log(image) - log_norm_squared

        log_norm_squared = 2 * np.log(self.leading_norm(dim))
        if law.homogeneity:
            log_norm_squared = falling(lambda x: at(x)[2], log_norm_squared)
        covariance, half, excess = at(log_norm_squared)
        norm_squared = np.exp(log_norm_squared + excess)
        deviation = np.sqrt(noise_variance(law, dim, norm_squared))
        if law.homogeneity:  # the gradient follows the norm, and v follows the gradient
            felt = deviation / (deviation + o.eps)
            relaxation = closed_forms.adamw_lagged_relaxation_steps(lr, weight_decay, beta2, law.homogeneity, felt)
        eps, _ = felt_eps(beta1, beta2, o.eps / deviation)
        seen, turned = self.rare(eps, dim, covariance)
        # neglected: that a run mostly sees less of the norm; in the angle, as much as rare updates take of it
        error = covariance.error + np.maximum(abs(np.log(seen)), abs(np.log(turned))) / 2
        return SteadyState(norm_squared, half, relaxation, error, angle_factor=np.sqrt(turned))

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        met, wavers, bent = super().in_few_weights(dim, law, state)
        kept = 1 - self.spec.lr * self.spec.weight_decay
        late = np.maximum.reduce([few_weights.fed_back(kept, each, self.betas[1]) for each in self.momenta()])
        return met, wavers * late, bent, late

    def leading_norm(self, dim: Any) -> Any:
        """RMS norm to leading order."""
        return closed_forms.adamw_leading_norm(self.spec.lr, self.spec.weight_decay, dim)

    def leading_rotation(self) -> Any:
        """RMS angle per step to leading order."""
        return self.spec.leading_rotation(self.spec.lr, self.spec.weight_decay)

    def rare(self, eps: Any, dim: int, covariance: UpdateCovariance) -> tuple[Any, Any]:
        """What rare updates leave of squared norm and angle, beside an ε in deviations of the gradient."""
        o = self.spec
        return rare_updates(o.lr, o.weight_decay, o.betas, eps, dim, covariance, heaviest(*o.betas))

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        updates = self.updates(dim, law, self.white(dim, law, "exact").norm_squared)
        return fallen(self.spec.lr, self.spec.weight_decay, updates, lag)

    # --- departures

    def correlated(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """Of two theories that which declares less: v as under noise alone, or v that follows the weights."""
        found = super().correlated(dim, law, method, white)
        o, phi = self.spec, law.correlation
        decay = o.lr * o.weight_decay
        if method == "leading" or not law.homogeneity or phi <= 0 or not reaches(decay, o.betas, phi):
            return found
        free, plain = (self._remembering(dim, replace(law, homogeneity=0), of, white.norm_squared) for of in (phi, 0.0))
        following, loose = (shifting_moment(decay, o.betas, phi, projected) for projected in (True, False))
        known = white.norm_squared * free.norm_squared / (plain.norm_squared * dim * o.lr**2 * loose.square)
        turned = white.one_minus_cosine * free.one_minus_cosine / (plain.one_minus_cosine * loose.one_minus_cosine)
        other = replace(
            white,
            norm_squared=dim * o.lr**2 * following.square * known**following.left,
            one_minus_cosine=following.one_minus_cosine * turned**following.left,
            model_error=white.model_error + following.error,
        )
        return min(found, other, key=lambda state: state.model_error)

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        o, (response, memory) = self.spec, mean_response(*self.spec.betas)
        v = noise + mean
        gain = response / sqrt(v)
        found = stationary(o.lr, radial * gain, memory, adam_covariance(*o.betas), 1 - o.lr * o.weight_decay)
        return replace(found, norm_squared=found.norm_squared * noise / v, decay=o.weight_decay / gain)

    def pulled(self, noise: float, radial: float) -> SteadyState:
        """Exactly: the chain of one coordinate (`derivations.adam_l2_chain.dimensionless_chain`)."""
        o = self.spec
        eps, left_out = felt_eps(*o.betas, o.eps / sqrt(noise))
        found = steady(o.lr * radial / sqrt(noise), *o.betas, 1 - o.lr * o.weight_decay, eps)
        gain = mean_response(*o.betas)[0] / (sqrt(noise * (1 + found.norm_squared)) + eps * sqrt(noise))
        square, error = found.norm_squared * noise / radial**2, found.model_error + left_out
        return replace(found, norm_squared=square, model_error=error, decay=o.weight_decay / gain)

    def beside_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> tuple[float, ...]:
        o = self.spec
        if method == "leading":
            share = float(closed_forms.adamw_noise_share(law.signal))
            fixed = closed_forms.adamw_fixed_norm_squared(o.weight_decay, dim, law.signal)
            return fixed, white.norm_squared * share, white.one_minus_cosine
        mean, covariance = signal_update(*o.betas, law.signal)
        total = discounted(1 - o.lr * o.weight_decay, covariance[1:], o.betas[1]) / covariance[0]
        return dim * (mean / o.weight_decay) ** 2, *decoupled(o.lr, o.weight_decay, dim * covariance[0], total)

    def declared_signal(
        self, law: GradientPower, dim: int, norm_squared: float, walk: SteadyState, aligned: float
    ) -> float:
        """Products of the pull and the spread of v."""
        pull = float(closed_forms.signal_pull(aligned, walk.decay))
        return pull**2 * norm_squared * (1 - aligned) / (noise_variance(law, dim, norm_squared) * dim)
