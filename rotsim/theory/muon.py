"""The theory of Muon: Lion's filter, singular values in the place of its sign, and decoupled decay."""

from __future__ import annotations

from math import inf, pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.errors import InvalidInput
from rotsim.optimizers import Muon
from rotsim.theory.base import Course, Filling, Method, Theory, theory_for
from rotsim.theory.lion import filling_of_modes, follow_modes
from rotsim.theory.spectral import Spectral, after, of_polynomials, row_response
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, decoupled, fallen

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

FINITE_SIZE = 0.17  # of 1/√(pq): what matrices of p × q differ from large ones, as walks show
ROWS = 0.25  # of 1/q: what rows change that set the size of their own gradients, as walks show
APART = 0.06  # error of the updates' correlations where rows have drifted apart, as walks of hyperballs show
DRIFTING = -1.8  # response of a row below which rows drift apart, in walks; -2 in large matrices
MOST_BEYOND = 2.0  # times what the polynomials make of a singular value up to the norm
LEAST_MOMENTUM = 1e-7  # continuous at 0, where 0^0 would be needed
_FELT = 1e-13


@theory_for(Muon)
class MuonTheory(Theory[Muon]):
    """Under white noise and in large matrices nothing is neglected (`derivations.muon`).

    Norm and rotation are those of a neuron, which is a row: all rows are alike.
    """

    feels_radial = False

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        o, exact = self.spec, self._exact(dim)
        relaxation = closed_forms.lion_relaxation_steps(o.lr, o.weight_decay)
        if method == "leading":
            power = o.update_factor(self._rows(dim), dim) ** 2 * self._share(dim)
            square = closed_forms.muon_published_norm_squared(o.lr, o.weight_decay, o.momentum, power)
            half = closed_forms.adamw_exact_one_minus_cosine(o.lr, o.weight_decay, o.momentum)
            neglected = max(abs(sqrt(square / exact[0]) - 1), abs(sqrt(half / exact[1]) - 1))
            return SteadyState(square, half, relaxation, neglected + self._finite(dim))
        error = self._finite(dim) + self._felt_eps(dim, law, exact[0]) + self._drift(dim, law)
        return SteadyState(*exact, relaxation, error)

    def _exact(self, dim: int) -> tuple[float, float]:
        """E‖w‖² of a row, and 1 - ρ."""
        o = self.spec
        total = self._shape(dim).discounted_sum(1 - o.lr * o.weight_decay, self._nearest(), o.momentum)
        square, half = decoupled(o.lr, o.weight_decay, self._power(dim), total)
        return float(square), float(half)

    def check_size(self, dim: int) -> None:
        """The law of large matrices has singular values above the norm for very small ones."""
        rows = self._rows(dim)
        edge = (1 + sqrt(min(rows, dim) / max(rows, dim))) / sqrt(min(rows, dim))  # the largest, over the norm
        values = np.append(np.linspace(0, 1, 999), edge)
        shaped = abs(after(self.spec.polynomials, values))
        if not shaped[-1] < MOST_BEYOND * shaped[:-1].max():
            raise InvalidInput(
                f"`rows` and `dim` must be larger for a prediction of {self.spec.label}, whose theory is that of large "
                f"matrices; got {rows} rows of dim {dim}, of which it expects singular values at which the polynomials "
                "diverge. Simulate it instead"
            )

    # --- its three choices

    @property
    def filter(self) -> tuple[float, float]:
        """β1 and β2 of the same filter in Lion (`derivations.muon.filter_of_lion`)."""
        momentum = max(self.spec.momentum, LEAST_MOMENTUM)
        return momentum**2 if self.spec.nesterov else momentum, momentum

    def _nearest(self) -> float:
        """Correlation of successive directions."""
        return float(closed_forms.lion_covariance(*self.filter, 1) / closed_forms.lion_variance(*self.filter))

    def _rows(self, dim: int) -> int:
        return self.rows or dim

    def _shape(self, dim: int) -> Spectral:
        rows = self._rows(dim)
        return of_polynomials(self.spec.polynomials, min(rows, dim), max(rows, dim))

    def _share(self, dim: int) -> float:
        """Singular values over rows."""
        return min(1.0, dim / self._rows(dim))

    def _power(self, dim: int) -> float:
        """E‖u‖² of a row."""
        return self.spec.update_factor(self._rows(dim), dim) ** 2 * self._share(dim) * self._shape(dim).power

    # --- what is neglected

    def _finite(self, dim: int) -> float:
        return FINITE_SIZE / sqrt(self._rows(dim) * dim)

    def few_weights(self, dim: Any, law: GradientPower, method: Method, state: SteadyState) -> Any:
        return ROWS / max(self._rows(dim), dim) if law.homogeneity else 0.0

    def _felt_eps(self, dim: int, law: GradientPower, norm_squared: float) -> float:
        """Infinite where directions are so short that ε is what they are divided by."""
        size = law.scale_squared * norm_squared**law.homogeneity * closed_forms.lion_variance(*self.filter)
        return inf if sqrt(self._rows(dim) * size) < 2 * self.spec.eps else 0.0

    def _drift(self, dim: int, law: GradientPower) -> float:
        """Infinite where rows of equal length do not last: a longer one has the larger update."""
        return inf if self._drifts(dim, law) else 0.0

    def _drifts(self, dim: int, law: GradientPower) -> bool:
        return law.homogeneity != 0 and row_response(self.spec.polynomials, self._rows(dim), dim) < DRIFTING

    # --- in time

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        """Lion's map: only what correlations become is another."""
        powers, factors = self._shape(dim).modes()
        as_of_signs = factors * (pi / 2)  # the map multiplies them by the 2/π of the arcsine law
        follow_modes(*self.filter, powers, as_of_signs, self.cautious, False, float(dim), self._power(dim), law, course)
        return self._finite(dim) + self._drift(dim, law)

    def filling(self, dim: int, law: GradientPower, steps: int) -> Filling:
        """The norm of an update is that of its shape, whatever the average holds."""
        powers, factors = self._shape(dim).modes()
        error = self._finite(dim) + APART * self._drifts(dim, law)
        return filling_of_modes(*self.filter, powers, factors * (pi / 2), steps, error)

    @property
    def beyond_noise(self) -> str:
        return (
            "Muon's prediction takes the singular values of gradients as those of white noise. In a trained layer they "
            "may be far from that, so nothing is claimed."
        )

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        return fallen(self.spec.lr, self.spec.weight_decay, self.updates(dim, law, 1.0), lag)

    def updates(self, dim: int, law: GradientPower, norm_squared: Any) -> UpdateCovariance:
        """Of a whole row, a mode for each part."""
        shape, (_, root), power = self._shape(dim), self.filter, self._power(dim)
        degrees = shape.degrees.astype(float)
        size = shape.parts * self._nearest() ** degrees
        felt = size > _FELT
        weights = power * shape.parts[felt] * (self._nearest() / root) ** degrees[felt]
        error = self._finite(dim) + APART * self._drifts(dim, law)
        return UpdateCovariance(power, weights, root ** degrees[felt], error)
