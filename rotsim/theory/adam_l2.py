"""The theory of Adam+L2: the decay passes through the average and the second moment, as every gradient does."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import AdamL2
from rotsim.theory import adam_l2_chain as chain
from rotsim.theory import adam_l2_table as table
from rotsim.theory import few_weights
from rotsim.theory.adam import Adam
from rotsim.theory.adam_in_time import adam_l2
from rotsim.theory.base import Method, theory_for
from rotsim.theory.coupled import stationary
from rotsim.theory.covariance import adam_covariance, felt_eps
from rotsim.theory.fixed_point import bracketed_root, falling, noise_variance
from rotsim.theory.rare_updates import heaviest, rare_updates
from rotsim.theory.second_moment import mean_response
from rotsim.theory.sgdm import fallen_with_momentum
from rotsim.theory.steady import SteadyState

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

MOST_TAKEN = 0.9  # of a weight in a step, that rare updates are weighed against


@theory_for(AdamL2)
class AdamL2Theory(Adam[AdamL2]):
    """The exact equilibrium follows from the chain of one coordinate (`rotsim.theory.adam_l2_chain`)."""

    follow, splits = adam_l2, True
    elementwise = ("lr", "weight_decay", "eps")
    burst_limit = 3.0

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        o = self.spec
        lr, weight_decay, beta1, beta2 = o.lr, o.weight_decay, *o.betas
        size = (law.scale_squared, law.homogeneity)
        leading_norm = closed_forms.adam_l2_leading_norm(lr, weight_decay, dim, *size)
        if method == "leading":
            rotation = closed_forms.adam_l2_leading_rotation(lr, weight_decay, beta1, dim, *size)
            v = closed_forms.adam_l2_second_moment(0.0, dim, leading_norm**2, *size)
            relaxation = closed_forms.adam_l2_relaxation_steps(lr, weight_decay, v, law.homogeneity)
            # neglected: finite effective decay, and λw beside g in the second moment
            error = 1 / relaxation / (1 - beta1) + (1 - beta2) + weight_decay**2 * leading_norm**2 / (v * dim)
            return SteadyState(leading_norm**2, rotation**2 / 2, relaxation, error)

        left_out = 0.0  # share of the update that an ε takes which the chain is not told of

        def walk(log_norm_squared: Any) -> tuple[SteadyState, Any]:
            """The chain of one coordinate, whose noise the norm sets; log E‖w‖² of it beyond what was put in."""
            nonlocal left_out
            variance = law.scale_squared * np.exp(law.homogeneity * log_norm_squared) / dim
            eps, left_out = felt_eps(beta1, beta2, o.eps / np.sqrt(variance))
            pull = lr * weight_decay / np.sqrt(variance)
            if np.ndim(pull):  # many are interpolated
                found = table.steady(pull, beta1, beta2, eps)
            else:
                found = chain.steady(float(pull), beta1, beta2, eps=float(eps))
            return found, np.log(found.norm_squared * dim * variance / weight_decay**2) - log_norm_squared

        log_norm_squared = 2 * np.log(leading_norm)
        if law.homogeneity:
            log_norm_squared = falling(lambda x: walk(x)[1], log_norm_squared)
        found, excess = walk(log_norm_squared)
        jump = abs(excess) if law.homogeneity else 0.0  # where the chain's cut changes, and with it a poor result
        norm_squared = np.exp(log_norm_squared + excess)
        response, _ = mean_response(beta1, beta2)
        v = closed_forms.adam_l2_second_moment(weight_decay, dim, norm_squared, *size)
        felt = np.sqrt(v) / (np.sqrt(v) + o.eps)
        relaxation = closed_forms.adam_l2_relaxation_steps(lr * felt, weight_decay * response, v, law.homogeneity)
        if law.homogeneity:  # the gradient follows the norm, and v follows the gradient
            relaxation = closed_forms.adam_l2_lagged_relaxation_steps(
                lr, weight_decay * response, beta2, v, law.homogeneity, felt
            )
        state = SteadyState(norm_squared, found.one_minus_cosine, relaxation, found.model_error + jump + left_out)
        return self._beside_rare_updates(dim, law, state)

    def _beside_rare_updates(self, dim: int, law: GradientPower, state: SteadyState) -> SteadyState:
        """As under AdamW, whose decay is decoupled, with the decay that passes through √v."""
        o = self.spec
        eps, _ = felt_eps(*o.betas, o.eps / np.sqrt(noise_variance(law, dim, state.norm_squared)))
        taken = np.minimum(self.decay_of(dim, law, state), MOST_TAKEN)
        seen, turned = rare_updates(
            o.lr, taken / o.lr, o.betas, eps, dim, adam_covariance(*o.betas, eps), heaviest(*o.betas)
        )
        error = state.model_error + np.maximum(abs(np.log(seen)), abs(np.log(turned))) / 2
        return replace(state, model_error=error, angle_factor=np.sqrt(turned))

    def lasting_decay(self, decay: np.ndarray) -> None:
        """It depends on v."""

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        """Of the Markov chain, where that has a solution; else v is taken constant."""
        o, norm_squared = self.spec, self.white(dim, law, "exact").norm_squared
        deviation = sqrt(noise_variance(law, dim, norm_squared))
        eps, _ = felt_eps(*o.betas, o.eps / deviation)
        pull = o.lr * o.weight_decay / deviation
        found = chain.fallen(pull, *o.betas, lag, eps)
        if isnan(found):
            v = deviation**2 + o.weight_decay**2 * norm_squared / dim
            found = fallen_with_momentum(o.lr * (1 - o.beta1), o.weight_decay / sqrt(v), o.beta1, lag)
        return found

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        """The norm goes as the cube root of the squares of growth and of one over decay."""
        met, wavers, bent = super().in_few_weights(dim, law, state)
        beta2, kept = self.spec.betas[1], 1 - self.decay_of(dim, law, state)
        faster = (1 - beta2) / (1 - beta2 * kept**2)  # of what v holds, as much is of the weight that it was
        second = 1 + few_weights.SECOND_ORDER / dim  # its own is twice that of the rest
        return (2 * met - faster * second) / 3, wavers, bent

    def decay_in_time(
        self, dim: int, law: GradientPower, lr: np.ndarray, weight_decay: np.ndarray, norm: np.ndarray
    ) -> np.ndarray:
        """By the v of the step, which λw is part of."""
        v = noise_variance(law, dim, norm**2) + weight_decay**2 * norm**2 / dim
        response, _ = mean_response(*self.spec.betas)
        return np.minimum(1.0, lr * weight_decay * response / (np.sqrt(v) + self.spec.eps))

    def in_free_noise(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        """Nothing: weights do not go with the length of their next step, since decay is in the momentum."""
        return 0.0, 0.0, 0.0

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        o = self.spec
        v = noise_variance(law, dim, state.norm_squared) + o.weight_decay**2 * state.norm_squared / dim
        response, _ = mean_response(*o.betas)
        return np.minimum(1.0, o.lr * o.weight_decay * response / (np.sqrt(v) + o.eps))

    # --- departures

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        o, (response, memory) = self.spec, mean_response(*self.spec.betas)
        v = noise + decayed
        decay = (o.weight_decay + radial) * response / sqrt(v)
        found = stationary(o.lr, decay, memory, adam_covariance(*o.betas))
        return replace(found, norm_squared=found.norm_squared * noise / v, decay=o.weight_decay)

    def projected_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        """The walk is a linear response, so only what the mean changes is taken from it."""
        found = super().projected_mean(dim, law, method, white)
        if method == "leading":
            return found
        norm_squared, walk = self.aligned(dim, law, white.norm_squared, 0.0)
        norm, half = white.norm_squared / norm_squared, white.one_minus_cosine / walk.one_minus_cosine
        return replace(
            found,
            norm_squared=found.norm_squared * norm,
            one_minus_cosine=found.one_minus_cosine * half,
            model_error=found.model_error + max(abs(norm - 1), abs(half - 1)) / 2,
        )

    def beside_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> tuple[float, ...]:
        fixed = closed_forms.sgdm_fixed_norm_squared(self.spec.weight_decay, law.scale_squared, law.signal)
        return fixed, white.norm_squared, white.one_minus_cosine

    # --- real gradients

    def power_factors(self, power: float, growth: float, homogeneity: int) -> tuple[float, float]:
        return (
            float(closed_forms.adam_l2_correlated_squared_rotation(homogeneity, power, growth)),
            float(closed_forms.adam_l2_correlated_norm_squared(homogeneity, growth)),
        )

    def radial_share(self, series: np.ndarray, coordinate: np.ndarray) -> np.ndarray:
        """The decay is in P, divided by √v: ‖g‖/√dim if all coordinates were alike."""
        return series * coordinate[:, None] - 1

    def balance_factor(self, radial: float, growth: float) -> float:
        """The largest root of a cubic, since the decay is proportional to ‖w‖ as well."""
        if not np.isfinite(radial + growth):
            return float("nan")

        def excess(turn: float) -> float:
            return float(closed_forms.adam_l2_turn_excess(radial, growth, turn))

        # the cubic rises from here on, and is positive at the other end
        low, high = np.sqrt(max(growth, 0.0) / 3), 1 + abs(growth) + abs(1 + radial)
        if excess(low) > 0 or (radial <= -1 and growth <= 0):
            return float("nan")
        return float(bracketed_root(excess, low, high, xtol=1e-13))
