"""The theory of cautious decay: any optimizer with decoupled decay whose updates are known, behind a mask.

Weight and update are taken as Gaussian together, or the weight with what a sign is taken of. Second moments then close:
E w², and the overlap of the weights with each mode of the updates to come (`derivations.cautious`).
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers import Cautious
from rotsim.theory.base import Method, Theory, theory_for, theory_of
from rotsim.theory.fixed_point import settled
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, decoupled

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

MAX_SWEEPS = 2000
TOLERANCE = 1e-13  # relative change of E w² in a sweep at which it has settled
NOT_GAUSSIAN = 0.5  # of decay and squared correlation, what is declared of weights that are no Gaussian; see tests


def balanced(decay: float, updates: UpdateCovariance, signs: bool) -> tuple[float, float, float, float]:
    """E w² for steps of mean square 1, 1 - ρ, the share of decay that acts, the correlation of weight and update.

    Parameters
    ----------
    decay : float
        lr·weight_decay in (0, 1).
    updates : UpdateCovariance
        Of a coordinate.
    signs : bool
        Whether updates are signs.

    Returns
    -------
    square, half, open_decay, aligned : float
        NaN where no correlation fits.

    Notes
    -----
    `derivations.cautious.balance` and after it, by repeated substitution from the plain walk.
    """
    weight, root = np.asarray(updates.weights, dtype=float) / updates.lag_0, updates.roots
    square, _ = decoupled(1.0, decay, 1.0, updates.discounted_sum(1 - decay))
    modes = -weight * root / (1 - (1 - decay) * root)
    for _ in range(MAX_SWEEPS):
        overlap = float(modes.sum())
        aligned = overlap / sqrt(square) * (sqrt(np.pi / 2) if signs else 1.0)
        if not abs(aligned) < 1:
            return np.nan, np.nan, np.nan, np.nan
        acts = float(closed_forms.cautious_decayed(aligned))
        form = closed_forms.cautious_sign_overlap if signs else closed_forms.cautious_overlap
        met = float(form(aligned)) * sqrt(square)
        behind = closed_forms.cautious_behind(square, modes, weight, overlap, acts, met)
        # the part of `behind` that the mode itself makes up is solved for: a long average would swing otherwise
        found = closed_forms.cautious_mode(1.0, decay, weight, root, behind - acts * modes)
        modes = found * (1 - root) / (1 - root + root * decay * acts)
        before, square = square, float(closed_forms.cautious_norm_squared(1.0, decay, float(modes.sum()), acts, met))
        if abs(square / before - 1) < TOLERANCE:
            break
    return square, float(closed_forms.cautious_one_minus_cosine(1.0, decay, square, overlap, acts)), acts, aligned


@theory_for(Cautious)
class CautiousTheory(Theory[Cautious]):
    """Second moments of masked decay, where those of the plain optimizer's updates are known."""

    feels_radial = False

    def plain(self, acts: float) -> Theory[Any]:
        """Of the plain optimizer with so much of the decay."""
        inner = self.spec.inner
        found = theory_of(inner.with_rates(inner.lr, inner.weight_decay * acts))
        assert found is not None
        return found

    def _balanced(self, dim: int, law: GradientPower, norm_squared: float) -> tuple[float, float, float, float]:
        """`balanced` beside the noise of a norm, E‖w‖² in the place of E w²."""
        o = self.spec
        updates = self.plain(1.0).updates(dim, law, norm_squared)
        square, half, acts, aligned = balanced(o.lr * o.weight_decay, updates, o.shape == "sign")
        return square * o.lr**2 * dim * float(updates.lag_0), half, acts, aligned

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        start = self.plain(0.5).white(dim, law, method)
        exact = settled(lambda square: self._balanced(dim, law, square)[0], start.norm_squared)
        square, half, acts, aligned = self._balanced(dim, law, exact)
        plain = self.plain(acts).white(dim, law, method)
        if method == "leading":
            neglected = max(abs(sqrt(start.norm_squared / square) - 1), abs(sqrt(start.one_minus_cosine / half) - 1))
            return replace(start, model_error=start.model_error + neglected)
        error = plain.model_error + NOT_GAUSSIAN * (self.spec.lr * self.spec.weight_decay + aligned**2)
        return replace(plain, norm_squared=square, one_minus_cosine=half, model_error=error, update_squared=None)

    def few_weights(self, dim: Any, law: GradientPower, method: Method, state: SteadyState) -> Any:
        return self.plain(0.5).few_weights(dim, law, method, state)

    def decay_of(self, dim: Any, law: GradientPower, state: SteadyState) -> Any:
        return self.spec.lr * self.spec.weight_decay * self._balanced(dim, law, state.norm_squared)[2]

    def lasting_decay(self, decay: np.ndarray) -> np.ndarray | None:
        return None

    @property
    def beyond_noise(self) -> str:
        return "What cautious decay does under gradients that are no white noise is not known, so nothing is claimed."
