"""The theory of SGDM: linear in gradients and weights, so that second moments close by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.errors import InvalidInput
from rotsim.optimizers import SGDM
from rotsim.optimizers.sgdm import entering_share
from rotsim.theory import few_weights
from rotsim.theory.base import Course, Filling, Method, theory_for
from rotsim.theory.departures import Departing
from rotsim.theory.filters import led, led_filling
from rotsim.theory.record import in_parts, kernel, record_step
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@kernel
def _sgdm(  # type: ignore[no-untyped-def]
    carried, first, last, momentum, entering, ahead, power, homogeneity, lr, weight_decay, window, records
):
    """The map of one step, generated from derivations.transient and derivations.nesterov, m over what enters of g."""
    overlap, m2, w2 = carried  # E[w·m], E‖m‖², E‖w‖²
    for t in range(first, last):
        rate, decay, noise = lr[t] * entering, weight_decay[t], power * w2**homogeneity
        across = closed_forms.sgdm_across(decay, momentum, w2, overlap)  # E[w_{t-1}·m_t]
        if ahead:
            pull = closed_forms.damped_pull(decay, 1.0, noise, w2)
            along = closed_forms.nesterov_along(rate, decay, momentum, w2, across)
            moved = closed_forms.nesterov_moved(rate, decay, momentum, overlap, m2, pull)
            after = closed_forms.nesterov_momentum_overlap(rate, decay, momentum, across, overlap, m2, pull)
            m2 = closed_forms.sgdm_momentum_power(decay, momentum, w2, overlap, noise, m2)
        else:
            m2 = closed_forms.sgdm_momentum_power(decay, momentum, w2, overlap, noise, m2)
            if t == 0:  # the first gradient enters whole
                across, m2 = across / entering, m2 / entering**2
            along, moved = -rate * across, rate**2 * m2
            after = closed_forms.sgdm_momentum_overlap(rate, across, m2)
        overlap = after
        w2 = record_step(records[t // window], w2, along, moved)
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
        fixed = (o.momentum, entering, o.nesterov, law.scale_squared, float(law.homogeneity), *course[1:])
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
