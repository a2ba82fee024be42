"""The theory of hyperballs: they turn as their optimizer does at rest, with the decay that keeps the same norm.

`derivations.hyperball` shows that. So all that is asked of the inner optimizer is the autocovariance of its updates.
"""

from __future__ import annotations

from collections.abc import Callable
from math import asin, atan, exp, log, log1p, nan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import Hyperball
from rotsim.theory import few_weights
from rotsim.theory.base import Course, Method, Theory, required_theory, theory_for
from rotsim.theory.fixed_point import bracketed_root
from rotsim.theory.held import along_the_weights, turn_overlap
from rotsim.theory.record import in_parts, kernel
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, fallen

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower
    from rotsim.optimizers.base import Optimizer

MET = 1.5  # times Q of `few_weights`, and what momentum takes off the squared angle: as walks show
FELT = 2.5  # times what momentum takes off the angle: how an error of the updates' correlations is felt, as they show
UNEVEN = 6.0  # rows by which the error of a matrix doubles, as walks of 64 x 64, 32 x 64, 64 x 256 and 128 x 32 show
_LEAST, _MOST = -160.0, 30.0  # log odds of the share that a step takes of the weights


def relative_lr(decay: float, updates: UpdateCovariance) -> float:
    """Length of an update over that of the weights that are left, beside a decay at rest of a share in (0, 1).

    It is the learning rate of the hyperball that turns as much (`derivations.hyperball.relative_length`).
    """
    return float(closed_forms.hyperball_lr(1.0, decay, updates.discounted_sum(1 - decay)))


def share_taken(lr: float, updates: UpdateCovariance) -> float:
    """The decay in (0, 1) beside which updates are so long: the inverse of `relative_lr`, for `lr` > 0 up to 1e13."""
    return _decay_at(lr, lambda decay: relative_lr(decay, updates))


def turning_as(rotation: float, updates: UpdateCovariance) -> float:
    """Learning rate of the hyperball that turns by `rotation` > 0 in a step; the largest where none turns so far.

    It is `derivations.hyperball.relative_length`.
    """
    wanted = float(closed_forms.turned_one_minus_cosine(rotation))
    return relative_lr(_decay_at(wanted, lambda decay: _one_minus_cosine(decay, updates)), updates)


def hyperball_turning(inner: Optimizer, rotation: float, dim: int, law: GradientPower, rows: int | None) -> Hyperball:
    """The hyperball of an optimizer that turns by `rotation` in a step, whatever the rates of `inner` are."""
    start = inner.with_rates(1.0, 0.0)
    updates = required_theory(start, rows, dim).updates(dim, law, 1.0)
    return Hyperball(start.with_rates(turning_as(rotation, updates), 0.0))


def _one_minus_cosine(decay: float, updates: UpdateCovariance) -> float:
    return float(closed_forms.lion_exact_one_minus_cosine(1.0, decay, updates.discounted_sum(1 - decay)))


def _along(lr: float) -> float:
    """What isotropic updates across and along the weights change of the RMS angle without momentum, times dim.

    A share c of the update along the weights turns them by the arctangent of lr √(1-c²)/(1 - lr c). To second order.
    """
    angle, stretch = atan(lr), 1 + lr**2
    slope, bend = lr**2 / stretch, (2 * lr**3 - lr) / stretch - 2 * lr**5 / stretch**2
    return (slope**2 + angle * bend) / (2 * angle**2)


def _decay_at(wanted: float, measure: Callable[[float], float]) -> float:
    """The decay at which something that grows with it has a value > 0."""

    def decay(log_odds: float) -> float:
        return exp(-log1p(exp(-log_odds)))

    def excess(log_odds: float) -> float:
        return log(measure(decay(log_odds)) / wanted)

    return decay(bracketed_root(excess, _LEAST, _MOST, xtol=1e-13) if excess(_MOST) > 0 else _MOST)


@kernel
def _course(  # type: ignore[no-untyped-def]
    first, last, overlap, lr, length, seen, entered, newest, faded, odd, weights, alone, roots, error, felt,
    norm_squared, window, records,
):  # fmt: skip
    """`overlap` is of ŵ with each mode of the update."""
    for t in range(first, last):
        along = along_the_weights(overlap, seen[t], odd, roots)
        stretch = closed_forms.hyperball_stretch(lr[t], along, length[t])
        angle = closed_forms.hyperball_angle(lr[t], along, length[t])
        rate = lr[t] / np.sqrt(length[t]) / stretch
        turn_overlap(overlap, rate, 1 / stretch, entered[t], newest[t], faded[t], odd, weights, alone, roots)
        record = records[t // window]
        record[0] += norm_squared
        record[1] += angle**2
        record[2] += 2 * norm_squared * closed_forms.turned_one_minus_cosine(angle)
        straight = closed_forms.hyperball_angle(lr[t], 0.0, 1.0)
        declared = felt * error * np.log(max(1.0, straight / angle)) if angle > 0.0 else 0.0
        record[4] += declared
        record[5] += declared


@theory_for(Hyperball)
class HyperballTheory(Theory[Hyperball]):
    """In large dim, where updates are as long as on average, nothing is neglected."""

    def _rest(self, dim: int, law: GradientPower) -> tuple[float, UpdateCovariance]:
        """Share of the weights that a step takes, and updates. Their ε is felt as at norm 1."""
        updates = required_theory(self.spec.inner, self.rows, dim).updates(dim, law, 1.0)
        return share_taken(self.spec.lr, updates), updates

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        decay, updates = self._rest(dim, law)
        half = _one_minus_cosine(decay, updates)
        if method == "exact":
            bent = log(max(1.0, atan(self.spec.lr) / self._angle(half)))  # the length of updates plays no part
            return SteadyState(nan, half, 0.0, FELT * float(np.max(updates.error)) * bent)
        plain = float(closed_forms.turned_one_minus_cosine(self.spec.leading_rotation(self.spec.lr, 0.0)))
        return SteadyState(nan, plain, 0.0, abs(log(half / plain)) / 2)

    @staticmethod
    def _angle(one_minus_cosine: float) -> float:
        return 2 * asin(min(1.0, sqrt(one_minus_cosine / 2)))

    def few_weights(self, dim: Any, law: GradientPower, method: Method, state: SteadyState) -> Any:
        """By walks of 16 weights and of 32, z being the share of the squared angle that momentum leaves.

        Isotropic noise has 1/dim of its power along the weights. Updates of a whole matrix are of one length.
        """
        if self.spec.acts_on == "matrix":
            rows = self.rows or 1
            uneven = min(rows, dim**2 / rows) / UNEVEN  # rows of one matrix are longer and shorter than its mean
            return max(0.0 if law.homogeneity else 0.5, (1 + uneven) / dim) / dim
        met, bent = required_theory(self.spec.inner).met_and_bent()
        left = min(1.0, (self._angle(state.one_minus_cosine) / atan(self.spec.lr)) ** 2)
        if law.homogeneity:
            return few_weights.declared(dim, MET * met * (1 - left), left * (1 - left) / 2, bent)
        lost = left * (0.5 + _along(self.spec.lr)) + (1 - left - left**2) / 2
        return few_weights.declared(dim, lost, 0.0, bent)

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        return self._rest(dim, law)[0]

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray | None:
        return None

    def correlation_factors(self, autocorrelation: np.ndarray) -> tuple[float, float]:
        return 1.0, 1.0

    def remembered(self, beta1: float, correlation: float) -> tuple[float, float]:
        return 1.0, 1.0

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        return fallen(1.0, *self._rest(dim, law), lag)

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        """With the filling of the inner averages; ε is left out."""
        norm_squared, lr, _, window, records = course
        filling = required_theory(self.spec.inner, self.rows, dim).filling(dim, law, len(lr))
        fixed = (np.zeros_like(filling.weights), lr, *filling, FELT, norm_squared, window, records)
        in_parts(lambda _, first, last: _course(first, last, *fixed), None, course)
        return 0.0
