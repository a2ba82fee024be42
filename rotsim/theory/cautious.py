"""The theory of cautious decay: any optimizer with decoupled decay whose updates are known, behind a mask.

Weight and update are taken as Gaussian together, or the weight with what a sign is taken of. Then the walk is one with
less decay and longer steps (`rotsim.theory.mask`), at rest, in time and over many steps. Under Muon an entry of the
update is a sum over many singular vectors, and so nearly Gaussian.
"""

from __future__ import annotations

from dataclasses import replace
from math import pi, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import Cautious
from rotsim.theory.base import Course, Method, Theory, theory_for, theory_of
from rotsim.theory.fixed_point import bracketed_root, settled
from rotsim.theory.mask import behind, doubted
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, fallen

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

MOST_ALIGNED = 1 - 1e-6  # correlation of weight and update
NUDGE = 1e-3  # relative change of the power of updates over many steps, for a slope


class Balance(NamedTuple):
    """A coordinate at rest, for steps of mean square 1.

    ``square`` is E w², ``half`` is 1 - ρ. ``acts`` is the share of decay that acts on E w². ``aligned`` is the
    correlation of weight and update. ``decay`` and ``step`` are those of the equivalent walk.
    """

    square: float
    half: float
    acts: float
    aligned: float
    decay: float
    step: float


def balanced(decay: float, updates: UpdateCovariance, signs: bool) -> Balance:
    """Where the squares of the walk behind the mask settle, beside a decay lr·weight_decay in (0, 1).

    `updates` are of a coordinate, and `signs` says whether they are signs. `derivations.cautious.balance`: of a
    correlation it makes E w², and of both the overlap that they must have.
    """
    weight, root = np.asarray(updates.weights, dtype=float) / updates.lag_0, updates.roots

    def at(aligned: float) -> tuple[Balance, float]:
        """And by how much the correlation of weight and update is missed."""
        acts, met, of_weight, of_update = behind(signs, aligned)
        together = aligned / sqrt(pi / 2) if signs else aligned
        length = closed_forms.cautious_length(1.0, decay, together, acts, met)
        step, left = 1 + decay * of_update * length, decay * of_weight
        overlap = (root * closed_forms.walk_settled_overlap(1.0, left, step, weight, root)).sum()
        half = closed_forms.cautious_one_minus_cosine(1.0, decay, length**2, together * length, acts)
        found = (float(each) for each in (length**2, half, acts, aligned, left, step))
        return Balance(*found), float(overlap) / float(length) - together

    return at(bracketed_root(lambda aligned: at(aligned)[1], -MOST_ALIGNED, MOST_ALIGNED, xtol=1e-15))[0]


@theory_for(Cautious)
class CautiousTheory(Theory[Cautious]):
    """Second moments of masked decay, where those of the plain optimizer's updates are known."""

    feels_radial = False

    def plain(self, acts: float) -> Theory[Any]:
        """Of the plain optimizer with so much of the decay."""
        inner = self.spec.inner
        found = theory_of(inner.with_rates(inner.lr, inner.weight_decay * acts), self.rows)
        assert found is not None
        return found

    def _balanced(self, dim: int, law: GradientPower, norm_squared: float) -> tuple[Balance, UpdateCovariance]:
        """`balanced` beside the noise of a norm, and updates."""
        updates = self.plain(1.0).updates(dim, law, norm_squared)
        return balanced(self.spec.lr * self.spec.weight_decay, updates, self.spec.shape == "sign"), updates

    def _norm_squared(self, dim: int, law: GradientPower, norm_squared: float) -> float:
        """E‖w‖² to which the noise of another leads."""
        found, updates = self._balanced(dim, law, norm_squared)
        many = 1 if self.spec.acts_on == "matrix" else dim  # whose updates are those of a whole row
        return found.square * self.spec.lr**2 * many * float(updates.lag_0)

    def _lasts(self, dim: int, law: GradientPower, norm_squared: float) -> float:
        """Steps in which updates are alike, of those that weights remember."""
        updates = self.plain(1.0).updates(dim, law, norm_squared)
        return 1 + 2 * float(updates.discounted_sum(1 - self.spec.lr * self.spec.weight_decay))

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        start = self.plain(0.5).white(dim, law, method)
        square = settled(lambda given: self._norm_squared(dim, law, given), start.norm_squared)
        found, _ = self._balanced(dim, law, square)
        plain = self.plain(found.acts).white(dim, law, method)
        if method == "leading":
            neglected = max(
                abs(sqrt(start.norm_squared / square) - 1), abs(sqrt(start.one_minus_cosine / found.half) - 1)
            )
            return replace(start, model_error=start.model_error + neglected)
        doubt = doubted(self._lasts(dim, law, square), self.spec.lr * self.spec.weight_decay, found.aligned**2)
        error = plain.model_error + doubt / 2
        return replace(plain, norm_squared=square, one_minus_cosine=found.half, model_error=error, update_squared=None)

    def few_weights(self, dim: Any, law: GradientPower, method: Method, state: SteadyState) -> Any:
        """Where weights shape their gradient updates lengthen them, and then fewer decay.

        That lengthens them once more. The second power is what walks show.
        """
        plain = self.plain(0.5).few_weights(dim, law, method, state)
        return plain * self._amplified(dim, law, state.norm_squared) ** 2 if law.homogeneity else plain

    def _amplified(self, dim: int, law: GradientPower, norm_squared: float) -> float:
        """Growth of E‖w‖² where more is alike among updates, over that under plain decay."""
        updates = self.plain(1.0).updates(dim, law, norm_squared)
        decay, signs = self.spec.lr * self.spec.weight_decay, self.spec.shape == "sign"
        alike = float(updates.discounted_sum(1 - decay))
        if alike <= 0:
            return 1.0
        more = replace(updates, weights=np.asarray(updates.weights) * (1 + NUDGE * (1 + 1 / (2 * alike))))
        squares = (balanced(decay, each, signs).square for each in (updates, more))
        return float(-np.subtract(*np.log(list(squares))) / np.log1p(NUDGE))

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        return self.spec.lr * self.spec.weight_decay * self._balanced(dim, law, state.norm_squared)[0].acts

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray | None:
        return None

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        """That of the plain optimizer, with decay behind the mask."""
        plain = self.plain(1.0)
        plain.cautious = self._lasts(dim, law, course.norm_squared)
        return plain.advance(dim, law, course)

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        square = self.white(dim, law, "exact").norm_squared
        found, updates = self._balanced(dim, law, square)
        of_one = replace(updates, lag_0=1.0, weights=np.asarray(updates.weights, dtype=float) / updates.lag_0)
        return fallen(1.0, found.decay, of_one, lag, found.step, found.square)

    @property
    def beyond_noise(self) -> str:
        return "What cautious decay does under gradients that are no white noise is not known, so nothing is claimed."
