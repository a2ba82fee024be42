"""The theory of rotational variants (`derivations.rotational`): the angle of every step at a norm that stays."""

from __future__ import annotations

from math import exp, expm1, log, nan, sqrt
from typing import TYPE_CHECKING

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import Rotational
from rotsim.theory.base import Course, Method, Theory, required_theory, theory_for
from rotsim.theory.fixed_point import bracketed_root
from rotsim.theory.held import along_the_weights, turn_overlap
from rotsim.theory.record import in_parts, kernel
from rotsim.theory.steady import SteadyState

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


_LEAST_ACROSS = 1e-12  # of an update's length, that lies across the weights


@kernel
def _rotational(  # type: ignore[no-untyped-def]
    mean, first, last, overlap, angle, forget, length, seen, entered, newest, faded, odd, weights, alone, roots, error,
    bias, norm_squared, window, records,
):  # fmt: skip
    """`overlap` is of ŵ with each mode of the update."""
    for t in range(first, last):
        radial = along_the_weights(overlap, seen[t], odd, roots)
        across = closed_forms.rotational_across(radial, length[t])
        mean = closed_forms.rotational_mean_length(forget, across, mean)
        square = closed_forms.rotational_squared_angle(forget, t + 1, angle[t], across, mean)
        turned = np.sqrt(square)
        rate = closed_forms.rotational_rate(turned, across)
        kept = closed_forms.rotational_kept(rate, radial, turned)
        turn_overlap(overlap, rate, kept, entered[t], newest[t], faded[t], odd, weights, alone, roots)
        record = records[t // window]
        record[0] += norm_squared
        record[1] += square
        record[2] += 2 * norm_squared * closed_forms.turned_one_minus_cosine(turned)
        record[4] += bias + error
        record[5] += bias + error
    return mean


@theory_for(Rotational)
class RotationalTheory(Theory[Rotational]):
    """Its angle is that of the rule, whatever the gradient, but for the length of updates, which fluctuates."""

    def at_rest(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        return self.white(dim, law, method)

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        o = self.spec
        rotation = float(o.leading_rotation(o.lr, o.weight_decay))
        bias = self.angle_bias(dim, law) if method == "exact" else 0.0
        # neglected: the second order in 1/dim, and how a random v spreads the update's length
        half = closed_forms.turned_one_minus_cosine(rotation * np.sqrt(1 + bias))
        return SteadyState(nan, float(half), 0.0, abs(bias))

    def angle_bias(self, dim: int, law: GradientPower) -> float:
        """Mean square angle over θ², less one, which fluctuations of ‖u⊥‖ about its running mean make; order 1/dim."""
        o = self.spec
        if self.spec.inner.shape == "sign":  # of one length
            return 0.0
        directions = max(1, dim - 1 - int(o.zero_mean))
        filling = required_theory(self.spec.inner).filling(dim, law, 1)
        memory, first = float(filling.roots[0]), float(filling.weights[0])
        # the bias is linear in the correlations of squared lengths, (first·memory^k)²: Nesterov's first is below 1
        alone = closed_forms.rotational_bias(0.0, o.update_norm_decay, directions)
        lasting = closed_forms.rotational_bias(memory, o.update_norm_decay, directions)
        return float(alone + first**2 * (lasting - alone))

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        """With the filling of the inner average, and the part of older gradients that weights have turned towards."""
        o, bias, (norm_squared, lr, weight_decay, window, records) = self.spec, self.angle_bias(dim, law), course
        angle = self.spec.leading_rotation(lr, weight_decay) * np.sqrt(1 + bias)
        filling = required_theory(self.spec.inner).filling(dim, law, len(lr))
        fixed = (np.zeros_like(filling.weights), angle, o.update_norm_decay, *filling)
        in_parts(lambda *part: _rotational(*part, *fixed, abs(bias), norm_squared, window, records), 0.0, course)
        return 0.0

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray | None:
        """As much as that of the inner optimizer: it turns as far."""
        return required_theory(self.spec.inner).lasting_decay(decay)

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        """Once the averages are full: each turn keeps a share, and moves against what updates hold of earlier weights.

        `derivations.rotational.mode_overlap`.
        """
        noise = required_theory(self.spec.inner).updates(dim, law, 1.0)
        bias, (lr, weight_decay) = self.angle_bias(dim, law), (self.spec.lr, self.spec.weight_decay)
        angle = float(self.spec.leading_rotation(lr, weight_decay)) * sqrt(1 + bias)
        weights, roots = np.asarray(noise.weights), noise.roots

        def at(log_share: float) -> tuple[float, float, np.ndarray, float]:
            """Where so much of ‖u‖ is across the weights: rate, kept, each overlap, and by how much they miss."""
            across = noise.lag_0 * exp(2 * log_share)
            radial = -sqrt(-noise.lag_0 * expm1(2 * log_share))
            rate = float(closed_forms.rotational_rate(angle, across))
            kept = float(closed_forms.rotational_kept(rate, radial, angle))
            overlap = closed_forms.rotational_mode_overlap(rate, 0.0, weights, roots, kept) / (1 - kept * roots)
            return rate, kept, overlap, float((roots * overlap).sum()) - radial

        rate, kept, overlap, _ = at(bracketed_root(lambda share: at(share)[3], log(_LEAST_ACROSS), 0.0, xtol=1e-300))
        # ρ ← kept·ρ - rate·⟨w_0, u⟩, where the modes of u forget by their roots
        pushed = rate * roots * overlap
        return float(1 - kept**lag + (pushed * (kept**lag - roots**lag) / (kept - roots)).sum())

    def correlation_factors(self, autocorrelation: np.ndarray) -> tuple[float, float]:
        return 1.0, 1.0
