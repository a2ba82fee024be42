"""The theory of SGDM: linear in gradients and weights, so that second moments close by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import SGDM
from rotsim.theory import few_weights
from rotsim.theory.base import Course, Filling, Method, theory_for
from rotsim.theory.departures import Departing
from rotsim.theory.record import kernel, record_step
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@kernel
def _sgdm(momentum, power, homogeneity, w2, lr, weight_decay, window, records):  # type: ignore[no-untyped-def]
    """The map of one step, generated from derivations.transient."""
    overlap, m2 = 0.0, 0.0  # E[w·m], E‖m‖²
    for t in range(len(lr)):
        across = closed_forms.sgdm_across(weight_decay[t], momentum, w2, overlap)  # E[w_{t-1}·m_t]
        m2 = closed_forms.sgdm_momentum_power(weight_decay[t], momentum, w2, overlap, power * w2**homogeneity, m2)
        overlap = closed_forms.sgdm_momentum_overlap(lr[t], across, m2)
        w2 = record_step(records[t // window], w2, -lr[t] * across, lr[t] ** 2 * m2)


def fallen_with_momentum(lr: float, weight_decay: float, momentum: float, lag: int) -> float:
    """1 - ρ_lag of SGDM: its recursion over the lag, an affine map, raised to the power `lag`.

    Parameters
    ----------
    lr, weight_decay : float
        Both > 0.
    momentum : float
        In [0, 1).
    lag : int
        >= 0.

    Returns
    -------
    float

    Notes
    -----
    `derivations.transient.coupled_over_many_steps`.
    """
    hyper = (lr, weight_decay, momentum)
    source = closed_forms.sgdm_fallen(*hyper, 0.0, 0.0)
    near, far = (closed_forms.sgdm_fallen(*hyper, *unit) - source for unit in ((1.0, 0.0), (0.0, 1.0)))
    step = np.array([[near, far, source], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    first = closed_forms.sgdm_exact_one_minus_cosine(*hyper)  # 1 - ρ_1 = 1 - ρ_{-1}
    return float((np.linalg.matrix_power(step, lag) @ [0.0, first, 1.0])[0])


@theory_for(SGDM)
class SGDMTheory(Departing[SGDM]):
    """Nothing is neglected but a finite fan-in (`derivations.sgdm`)."""

    elementwise = ("lr", "weight_decay", "momentum")

    @property
    def _hyper(self) -> tuple[float, float, float]:
        return self.spec.lr, self.spec.weight_decay, self.spec.momentum

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        size = (law.scale_squared, law.homogeneity)
        relaxation = closed_forms.sgdm_relaxation_steps(*self._hyper, law.homogeneity)
        if method == "leading":
            rotation = closed_forms.sgdm_leading_rotation(*self._hyper)
            norm = closed_forms.sgdm_leading_norm(*self._hyper, *size)
            error = self.spec.lr * self.spec.weight_decay / (1 + self.spec.momentum)
            return SteadyState(norm**2, rotation**2 / 2, relaxation, error)
        norm_squared = closed_forms.sgdm_exact_norm_squared(*self._hyper, *size)
        return SteadyState(norm_squared, closed_forms.sgdm_exact_one_minus_cosine(*self._hyper), relaxation)

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, Any, Any]:
        o = self.spec
        kept = np.maximum(0.0, 1 - o.lr * o.weight_decay / (1 - o.momentum))
        wavers = few_weights.wavering(closed_forms.coupled_held(*self._hyper), 1.0, kept)
        return 0.0, wavers * few_weights.fed_back(kept, o.momentum, None), 0.0

    # --- in time

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        _sgdm(self.spec.momentum, law.scale_squared, float(law.homogeneity), *course)
        return 0.0

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray:
        return decay / (1 - self.spec.momentum)

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        """From the slower root of the recursion over lags (`derivations.transient.coupled_over_many_steps`)."""
        taken, lost = self.spec.lr * self.spec.weight_decay, 1 - self.spec.momentum
        spread = (lost + taken) ** 2 - 4 * taken
        if spread < 0:  # weights swing as they fade
            return 1 - np.sqrt(self.spec.momentum)
        return 2 * taken / (lost + taken + np.sqrt(spread))

    def filling(self, steps: int) -> Filling:
        memory = self.spec.momentum
        length = closed_forms.rotational_sgdm_filling(memory, np.arange(1.0, steps + 1))
        noise = UpdateCovariance(1.0, np.ones(1), np.array([memory]))
        return Filling(length, np.ones(steps), np.zeros(steps), noise)

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        return fallen_with_momentum(*self._hyper, lag)

    # --- departures

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        o = self.spec
        hyper = (o.lr, o.weight_decay + radial, o.momentum)
        square = closed_forms.sgdm_exact_norm_squared(*hyper, noise, 0)
        return SteadyState(square, closed_forms.sgdm_exact_one_minus_cosine(*hyper), decay=o.weight_decay)

    def beside_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> tuple[float, ...]:
        fixed = closed_forms.sgdm_fixed_norm_squared(self.spec.weight_decay, law.scale_squared, law.signal)
        return fixed, white.norm_squared, white.one_minus_cosine

    def correlated(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        if method == "leading":
            return self.by_factors(law, white)
        hyper = (*self._hyper, law.correlation)
        if law.homogeneity:
            gain, half = closed_forms.sgdm_projected_gain(*hyper), white.one_minus_cosine
        else:
            gain, half = closed_forms.sgdm_free_gain(*hyper), closed_forms.sgdm_free_one_minus_cosine(*hyper)
        norm_squared = (gain * law.scale_squared) ** (1 / (1 - law.homogeneity))
        return replace(white, norm_squared=float(norm_squared), one_minus_cosine=float(half))

    # --- real gradients

    def power_factors(self, power: float, growth: float, homogeneity: int) -> tuple[float, float]:
        turned, _ = super().power_factors(power, growth, homogeneity)
        return turned, float(closed_forms.sgdm_correlated_norm_squared(homogeneity, growth))

    def step_power(self, square_step: float, dim: int, around: float) -> float:
        """E‖m‖²/E‖g‖² as recorded, over (1-α)/(1+α), which it is for white noise."""
        momentum = self.spec.momentum
        return square_step * (1 + momentum) / (1 - momentum)
