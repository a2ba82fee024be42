"""The theory of SGDM: linear in gradients and weights, so that second moments close by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput
from rotsim.optimizers import SGDM
from rotsim.optimizers.sgdm import entering_share
from rotsim.theory import few_weights
from rotsim.theory.adam_errors import carry
from rotsim.theory.base import Course, Filling, Method, theory_for
from rotsim.theory.departures import Departing
from rotsim.theory.filters import led, led_filling
from rotsim.theory.record import in_parts, kernel, record_step
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@kernel_part()
def _moments(rate, decay, momentum, ahead, overlap, m2, w2, noise):  # type: ignore[no-untyped-def]
    """E[w·Δw], E‖Δw‖², and the new E[w·m] and E‖m‖²: linear in the last four numbers.

    The maps are those of `derivations.transient` and `derivations.nesterov`.
    """
    across = closed_forms.sgdm_across(decay, momentum, w2, overlap)  # E[w_{t-1}·m_t]
    m2_new = closed_forms.sgdm_momentum_power(decay, momentum, w2, overlap, noise, m2)
    if ahead:
        pull = closed_forms.damped_pull(decay, 1.0, noise, w2)
        along = closed_forms.nesterov_along(rate, decay, momentum, w2, across)
        moved = closed_forms.nesterov_moved(rate, decay, momentum, overlap, m2, pull)
        after = closed_forms.nesterov_momentum_overlap(rate, decay, momentum, across, overlap, m2, pull)
        return along, moved, after, m2_new
    return -rate * across, rate**2 * m2_new, closed_forms.sgdm_momentum_overlap(rate, across, m2_new), m2_new


@kernel_part()
def _deviations(rate, decay, momentum, ahead, slope, matrix, entry):  # type: ignore[no-untyped-def]
    """What a step leaves of small deviations of (w·m, ‖m‖², ‖w‖²) of a neuron, and what one of ‖g‖² adds.

    `slope` is that of ‖g‖² in ‖w‖².
    """
    for k in range(4):
        overlap, m2 = 1.0 if k == 0 else 0.0, 1.0 if k == 1 else 0.0
        w2, noise = 1.0 if k == 2 else 0.0, slope if k == 2 else 1.0 if k == 3 else 0.0
        along, moved, after, power = _moments(rate, decay, momentum, ahead, overlap, m2, w2, noise)
        square = w2 + 2.0 * along + moved
        if k == 3:
            entry[0], entry[1], entry[2] = after, power, square
        else:
            matrix[0, k], matrix[1, k], matrix[2, k] = after, power, square


@kernel
def _sgdm(  # type: ignore[no-untyped-def]
    carried, first, last, momentum, entering, ahead, power, homogeneity, dim, arrays, lr, weight_decay, window, records
):
    """Follow a course, m over what enters of g.

    Neurons behind a normalisation layer differ in ‖w‖², which sets their own ‖g‖². Of that the covariance is followed
    to first order (`derivations.damped.neurons_differ`). The mean of a convex function of it is declared.
    """
    overlap, m2, w2 = carried  # E[w·m], E‖m‖², E‖w‖²
    matrix, covariance, half, entry = arrays[0], arrays[1], arrays[2], arrays[3, 0]
    for t in range(first, last):
        rate, decay, noise = lr[t] * entering, weight_decay[t], power * w2**homogeneity
        along, moved, after, m2_new = _moments(rate, decay, momentum, ahead, overlap, m2, w2, noise)
        if t == 0 and not ahead:  # the first gradient enters whole
            across = -along / rate / entering if rate > 0.0 else 0.0
            m2_new = m2_new / entering**2
            along, moved = -rate * across, rate**2 * m2_new
            after = closed_forms.sgdm_momentum_overlap(rate, across, m2_new)
        if homogeneity != 0.0:
            _deviations(rate, decay, momentum, ahead, homogeneity * noise / w2, matrix, entry)
            carry(matrix, arrays[3, 1], covariance, half)
            fresh = (2.0 * noise**2 + 4.0 * momentum**2 * max(m2 - overlap**2 / w2, 0.0) * noise) / dim
            if t == 0 and not ahead:
                fresh /= entering**4
            for i in range(3):
                for j in range(3):
                    covariance[i, j] += fresh * entry[i] * entry[j]
        overlap, m2 = after, m2_new
        record = records[t // window]
        w2 = record_step(record, w2, along, moved)
        spread = min(covariance[2, 2] / w2**2, 3.0)  # of ‖w‖², taken for log-normal
        on_size, on_angle = np.expm1(spread) / 2, np.expm1(3 * spread) / 2  # roots of E[1/‖w‖²] and E[1/‖w‖⁴], less 1
        record[3] += max(on_size - 1 / dim, 0.0)
        record[4] += max(on_angle - 1 / dim**2 / max(on_angle, 1 / dim), 0.0)  # nothing up to 1/dim, then all of it
        record[5] += max(on_size - 1 / dim, 0.0)
    return overlap, m2, w2


#: 1 - ρ over one step, and over some from that over one and two steps less.
_FALLING = {
    "sgdm": (closed_forms.sgdm_exact_one_minus_cosine, closed_forms.sgdm_fallen),
    "nesterov": (closed_forms.nesterov_exact_one_minus_cosine, closed_forms.nesterov_fallen),
}


def fallen_with_momentum(lr: float, weight_decay: float, momentum: float, lag: int, form: str = "sgdm") -> float:
    """1 - ρ_lag of SGDM: its recursion over the lag, an affine map, raised to a power.

    Parameters
    ----------
    lr, weight_decay : float
        Both > 0.
    momentum : float
        In [0, 1).
    lag : int
        >= 0.
    form : {"sgdm", "nesterov"}
        Of the closed forms.

    Returns
    -------
    float

    Notes
    -----
    `derivations.transient.coupled_over_many_steps` and `derivations.nesterov.over_many_steps`. The second holds from
    two steps on, so both begin with one.
    """
    if lag == 0:
        return 0.0
    hyper, (once, ahead) = (lr, weight_decay, momentum), _FALLING[form]
    source = ahead(*hyper, 0.0, 0.0)
    near, far = (ahead(*hyper, *unit) - source for unit in ((1.0, 0.0), (0.0, 1.0)))
    step = np.array([[near, far, source], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return float((np.linalg.matrix_power(step, lag - 1) @ [once(*hyper), 0.0, 1.0])[0])


@theory_for(SGDM)
class SGDMTheory(Departing[SGDM]):
    """Nothing is neglected but a finite fan-in (`derivations.sgdm`, `derivations.nesterov`)."""

    elementwise = ("lr", "weight_decay", "momentum")

    @property
    def lr(self) -> Any:
        """The learning rate of the same walk without dampening (`derivations.nesterov.dampening`)."""
        return self.spec.lr * entering_share(self.spec.momentum, self.spec.dampening)

    @property
    def _hyper(self) -> tuple[Any, Any, Any]:
        return self.lr, self.spec.weight_decay, self.spec.momentum

    @property
    def _ahead(self) -> str:
        """What the closed forms of norm and rotation that fit begin with."""
        return "nesterov" if self.spec.nesterov else "sgdm"

    def _form(self, name: str) -> Any:
        return getattr(closed_forms, f"{self._ahead}_{name}")

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        size = (law.scale_squared, law.homogeneity)
        relaxation = closed_forms.sgdm_relaxation_steps(*self._hyper, law.homogeneity)
        if method == "leading":
            rotation = self._form("leading_rotation")(*self._hyper)
            norm = closed_forms.sgdm_leading_norm(*self._hyper, *size)
            error = self.lr * self.spec.weight_decay * self._share_of_limit()
            return SteadyState(norm**2, rotation**2 / 2, relaxation, error)
        norm_squared = self._form("exact_norm_squared")(*self._hyper, *size)
        return SteadyState(norm_squared, self._form("exact_one_minus_cosine")(*self._hyper), relaxation)

    def _share_of_limit(self) -> Any:
        """Twice the inverse of the bound on lr·weight_decay; Nesterov's first order counts the momentum, too."""
        plain = 1 / (1 + self.spec.momentum)
        return (1 + 2 * self.spec.momentum) * plain / (1 - self.spec.momentum) if self.spec.nesterov else plain

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        o = self.spec
        kept = np.maximum(0.0, 1 - self.lr * o.weight_decay / (1 - o.momentum))
        held = closed_forms.coupled_held(*self._hyper)
        wavers = few_weights.wavering(held, few_weights.met_twice(held, o.momentum), 1.0, kept)
        return 0.0, wavers * few_weights.fed_back(kept, o.momentum, None), 0.0

    def updates(self, dim: int, law: GradientPower, norm_squared: Any) -> UpdateCovariance:
        memory = self.spec.momentum
        return led(memory, memory) if self.spec.nesterov else UpdateCovariance(1.0, np.ones(1), np.array([memory]))

    # --- in time

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        o = self.spec
        entering = entering_share(o.momentum, o.dampening)
        fixed = (
            o.momentum, entering, o.nesterov, law.scale_squared, float(law.homogeneity), float(dim),
            np.zeros((4, 3, 3)), *course[1:],
        )  # fmt: skip
        in_parts(lambda *part: _sgdm(*part, *fixed), (0.0, 0.0, course.norm_squared), course)
        return 0.0

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray:
        """1 - |z| of the slower root of the recursion of expected weights (`derivations.transient`), swinging or not.

        The roots are 1 - y with y² - (1-α+ηλ) y + ηλ = 0, under Nesterov momentum 1-α+ηλ(1+α). Their product is what
        is left of the momentum.
        """
        ahead = self.spec.momentum * self.spec.nesterov
        taken = decay * entering_share(self.spec.momentum, self.spec.dampening)
        both = 1 - self.spec.momentum + taken * (1 + ahead)
        spread = both**2 - 4 * taken
        apart = np.sqrt(np.maximum(spread, 0.0))
        swings = 1 - np.sqrt(np.maximum(self.spec.momentum - taken * ahead, 0.0))
        return np.where(spread < 0, swings, np.minimum(2 * taken / (both + apart), 2 - (both + apart) / 2))

    def filling(self, dim: int, law: GradientPower, steps: int) -> Filling:
        """Of a damped momentum it is not that of the first steps, which are counted whole."""
        memory, weights = self.spec.momentum, np.ones(1)
        length = closed_forms.rotational_sgdm_filling(memory, np.arange(1.0, steps + 1))
        entered = length
        if self.spec.nesterov:
            noise = led(memory, memory)
            length, entered = led_filling(memory, memory, steps)
            weights = noise.weights / noise.lag_0
        whole, none = np.ones(steps), np.zeros(steps)
        return Filling(
            length, whole, entered, none, whole, np.ones(1), weights, np.zeros(1), np.array([memory]), 0.0
        )  # fmt: skip

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        return fallen_with_momentum(*self._hyper, lag, self._ahead)

    def departed(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        if self.spec.nesterov and not law.radial:  # which is decay, as the momentum has it
            raise InvalidInput(f"Nesterov momentum has no prediction under {law}; simulate it")
        return super().departed(dim, law, method, white)

    # --- departures

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        o = self.spec
        hyper = (self.lr, o.weight_decay + radial, o.momentum)
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

    @property
    def beyond_noise(self) -> str:
        if not self.spec.nesterov:
            return ""
        return (
            "What gradients that resemble their predecessors do under Nesterov momentum is not known in theory, so "
            "nothing is claimed."
        )

    def power_factors(self, power: float, growth: float, homogeneity: int) -> tuple[float, float]:
        turned = float(closed_forms.correlated_squared_rotation(power, growth))
        return turned, float(closed_forms.sgdm_correlated_norm_squared(homogeneity, growth))

    def step_power(self, square_step: float, dim: int, around: float) -> float:
        """E‖m‖²/E‖g‖² as recorded, over (1-α)/(1+α), which it is for white noise."""
        momentum = self.spec.momentum
        return square_step * (1 + momentum) / (1 - momentum)
