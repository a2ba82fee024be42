"""The theory of Lion: signs of an average, whose correlations follow from the arcsine law, beside decoupled decay."""

from __future__ import annotations

from dataclasses import replace
from math import pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.arcsine import discounted_sum
from rotsim.optimizers import Lion
from rotsim.theory import few_weights
from rotsim.theory.base import Course, Filling, Method, theory_for
from rotsim.theory.bursts import burst_factors, burst_moments
from rotsim.theory.departures import DIVERGED, Departing
from rotsim.theory.mask import decaying, doubted, misjudged
from rotsim.theory.memory import projection, unit_steps
from rotsim.theory.record import in_parts, kernel, record_step
from rotsim.theory.sign import (
    answering_signs,
    arcsine_modes,
    correlated_covariance,
    discounted_excess,
    met_again,
    shifted_discounted_sum,
    sign_covariance,
)
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance, decoupled, fallen

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

SLOPE_TOLERANCE = 1e-13  # relative change of the sign's slope at which it has settled
MAX_SWEEPS = 100
LEAST_LEFT = 1e-3  # of decay beside an outward pull
ALONG_MEAN = 0.15  # of a slow part of the argument, what is declared where weights lie along the mean
AVERAGED = 0.65  # of what a pull adds to a sign's argument, what is declared of an answer through a long average


@kernel
def course_of_modes(  # type: ignore[no-untyped-def]
    carried, first, last, overlap, beta1, beta2, odd, arcsine, cautious, signs, weights, dim, power, homogeneity, lr,
    weight_decay, window, records,
):  # fmt: skip
    """The map of one step, generated from derivations.transient; `overlap` is of w with m, mode by mode."""
    m2, w2, unit, off, alike = carried
    if first == 0:
        unit = power * w2**homogeneity  # the scale of the first gradient: signs know no other
    for t in range(first, last):
        gradient = power * w2**homogeneity / unit
        seen, entered = (
            closed_forms.lion_seen(beta1, gradient, m2),
            closed_forms.lion_entered(beta1, beta2, gradient, m2),
        )
        faded = closed_forms.lion_faded(beta2, gradient, m2)
        m2 = closed_forms.lion_momentum_power(beta2, gradient, m2)
        across = 0.0  # E[w_{t-1}·u_t]
        for n in range(len(arcsine)):
            across += seen ** odd[n] * overlap[n]
        decay, record, before = lr[t] * weight_decay[t], records[t // window], w2
        size = np.sqrt(np.pi / 2 * dim if signs else dim)
        decayed, met, of_weight, of_update, now_alike = decaying(cautious, signs, w2, across, size)
        length = lr[t] + decay * of_update
        for n in range(len(arcsine)):
            weight = dim * closed_forms.lion_sign_mode(entered, arcsine[n], odd[n])
            overlap[n] = closed_forms.walk_mode_overlap(
                lr[t], weight_decay[t] * of_weight, length, overlap[n], weight, faded ** odd[n]
            )
        along = closed_forms.walk_along(lr[t], weight_decay[t], decayed, lr[t], across)
        moved = closed_forms.walk_moved(lr[t], weight_decay[t], decayed, lr[t], met, dim)
        w2 = record_step(record, w2, along, moved)
        if cautious > 0.0:
            old = min(1.0, max(0.0, 1 - 2 * decay * decayed / before) * before / w2)
            doubt = doubted(cautious, decay, alike)
            on_square, on_angle, on_update = misjudged(doubt, decay, lr[t], before, w2, dim, moved, weights)
            alike, off = old * alike + (1 - old) * now_alike, old * off + on_square
            record[3] += off / 2
            record[4] += off / 2 + on_angle
            record[5] += on_update
    return m2, w2, unit, off, alike


def follow_modes(
    beta1: float, beta2: float, odd: np.ndarray, factors: np.ndarray, cautious: float, signs: bool, weights: float,
    dim: float, law: GradientPower, course: Course,
) -> None:  # fmt: skip
    """Follow a course whose steps correlate as a sum of modes: those of a sign, or of another shape.

    Parameters
    ----------
    beta1, beta2 : float
        Of the average, in [0, 1).
    odd, factors : ndarray, shape (modes,)
        Powers >= 1 of the average's correlation, and π/2 times what each contributes to that of steps.
    cautious : float
        `Theory.cautious`, >= 0.
    signs : bool
        Whether steps are signs; else coordinates of them are Gaussian.
    weights : float
        Of a neuron, >= 1.
    dim : float
        E‖u‖² > 0 of a step.
    law : GradientPower
    course : Course

    Notes
    -----
    `derivations.lion_transient.sign_mode`.
    """
    overlap, size = np.zeros_like(factors), (dim, law.scale_squared, float(law.homogeneity))
    fixed = (overlap, beta1, beta2, odd, factors, cautious, signs, weights, *size, *course[1:])
    in_parts(lambda *part: course_of_modes(*part, *fixed), (0.0, course.norm_squared, 0.0, 0.0, 0.0), course)


def filling_of_modes(
    beta1: float, beta2: float, odd: np.ndarray, factors: np.ndarray, steps: int, error: float
) -> Filling:
    """Updates of one length that correlate as a sum of modes, as in `follow_modes`, from an empty average on.

    Parameters
    ----------
    beta1, beta2, odd, factors
        As in `follow_modes`.
    steps : int
        >= 1.
    error : float
        Declared of the correlations, >= 0.

    Returns
    -------
    Filling

    Notes
    -----
    `derivations.lion_transient.signs_that_change`, for gradients of one size.
    """
    older = (1 - beta2) / (1 + beta2) * (1 - beta2 ** (2 * np.arange(0.0, steps)))  # E m² before each step
    seen = closed_forms.lion_seen(beta1, 1.0, older)
    entered = closed_forms.lion_entered(beta1, beta2, 1.0, older)
    faded = closed_forms.lion_faded(beta2, 1.0, older)
    weights = closed_forms.lion_sign_mode(1.0, factors, odd)
    none, same = np.zeros(steps), np.ones_like(odd)
    return Filling(np.ones(steps), seen, entered, none, faded, odd, weights, np.zeros_like(odd), same, error)


@theory_for(Lion)
class LionTheory(Departing[Lion]):
    """Nothing is neglected under white noise but a finite fan-in (`derivations.lion`)."""

    elementwise = ("lr", "weight_decay")
    burst_limit, counts_bursts, feels_radial = 2.0, True, False

    def white(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        lr, weight_decay, (beta1, beta2) = self.spec.lr, self.spec.weight_decay, self.spec.betas
        relaxation = closed_forms.lion_relaxation_steps(lr, weight_decay)
        if method == "leading":
            rotation = self.spec.leading_rotation(lr, weight_decay)
            norm = closed_forms.lion_leading_norm(lr, weight_decay, beta1, beta2, dim)
            # neglected: lr·wd against the momentum window, and the sign's own noise (1 - 2/π of its variance)
            window = closed_forms.lion_variance(beta1, beta2)
            return SteadyState(norm**2, rotation**2 / 2, relaxation, lr * weight_decay / (1 - beta2) + window)
        total = discounted_sum(1 - lr * weight_decay, beta1, beta2)
        return SteadyState(*decoupled(lr, weight_decay, dim, total), relaxation)

    def updates(self, dim: int, law: GradientPower, norm_squared: Any) -> UpdateCovariance:
        return sign_covariance(*self.spec.betas)

    def in_few_weights(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        o, (beta1, beta2) = self.spec, self.spec.betas
        power = 1 + 2 * sign_covariance(beta1, beta2).discounted_sum(1.0)
        linear = closed_forms.lion_sign_slope(beta1, beta2) ** 2 / power
        older = closed_forms.decoupled_held(o.lr, o.weight_decay, beta2)
        twice = few_weights.met_twice(older, beta2, 1 - beta1)
        wavers = few_weights.wavering(1 - beta1 + beta1 * older, twice, linear, 1 - o.lr * o.weight_decay)
        met, bent = self.met_and_bent()
        return met, wavers, bent

    def met_and_bent(self) -> tuple[Any, Any]:
        betas = self.spec.betas
        return met_again(*betas) / (1 + 2 * sign_covariance(*betas).discounted_sum(1.0)), 1 - 2 / pi

    def in_free_noise(self, dim: Any, law: GradientPower, state: SteadyState) -> tuple[Any, ...]:
        """Weights are no Gaussian where signs last: as if what they share with the next were a telegraph signal.

        Half of its excess kurtosis -6/(3 + 2/x) is what E 1/‖w‖² has less, x being the decay while signs last.
        """
        o = self.spec
        signs = sign_covariance(*o.betas)
        lasts = o.lr * o.weight_decay * (1 + 2 * signs.discounted_sum(1.0))
        lighter = few_weights.lighter_tails(state.one_minus_cosine, 1 - o.lr * o.weight_decay)
        return 0.0, float(signs(1)) * 3 * lasts / (3 * lasts + 2) + lighter, 0.0

    # --- in time

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        follow_modes(*self.spec.betas, *arcsine_modes(), self.cautious, True, float(dim), float(dim), law, course)
        return 0.0

    def filling(self, dim: int, law: GradientPower, steps: int) -> Filling:
        return filling_of_modes(*self.spec.betas, *arcsine_modes(), steps, 0.0)

    def fallen(self, dim: int, law: GradientPower, lag: int) -> float:
        return fallen(self.spec.lr, self.spec.weight_decay, sign_covariance(*self.spec.betas), lag)

    # --- departures

    def bursting(self, dim: int, law: GradientPower, method: Method) -> SteadyState:
        if method == "leading":
            return self.white(dim, replace(law, series=None), method)
        assert law.series is not None
        return burst_moments(self.spec, dim, law.series, homogeneity=law.homogeneity)

    def burst_factors(self, series: np.ndarray, judged: slice | None = None) -> tuple[float, float]:
        return burst_factors(self.spec, series, judged)

    def walk(self, noise: float, mean: float, decayed: float, radial: float) -> SteadyState:
        o = self.spec
        hyper, kept = (o.lr, o.weight_decay, *o.betas), 1 - o.lr * o.weight_decay
        excess = discounted_excess(kept, correlated_covariance(*o.betas, 0.0), closed_forms.lion_variance(*o.betas))
        strength, mean = radial / sqrt(noise), mean / noise  # in units of the noise
        slope = closed_forms.lion_sign_slope(*o.betas)
        for _ in range(MAX_SWEEPS):
            # steps of unit size: what the mean takes of them is not left for the rest
            left = float(closed_forms.lion_left_of_a_sign(slope, sqrt(mean)))
            unmoved = excess - (1 - left) / 2
            total = mean + closed_forms.lion_radial_variance(*hyper, slope, unmoved, strength * slope)
            if not 0 < total < np.inf:
                return DIVERGED
            before, slope = slope, float(closed_forms.sign_slope(total))
            if abs(slope / before - 1) < SLOPE_TOLERANCE:
                break
        square = closed_forms.lion_radial_norm_squared(*hyper, 1.0, slope, unmoved, strength * slope)
        left = closed_forms.lion_left_of_a_sign(slope, sqrt(mean))
        half = closed_forms.lion_one_minus_cosine(o.lr, o.weight_decay, left, square)
        return SteadyState(float(square), float(half), decay=o.weight_decay * sqrt(noise) / slope)

    def left_of_mean(self, signal: float, noise: float, across: float) -> float:
        """Of its constant part alone."""
        return signal**2 * noise * across**2

    def declared_signal(
        self, law: GradientPower, dim: int, norm_squared: float, walk: SteadyState, aligned: float
    ) -> float:
        """How the linearised sign sees a slow part that differs between coordinates, by its share of the argument.

        Weights that lie along the mean feel it, too, in how far they do. Numbers after a look at 90 walks.
        """
        slow = law.signal**2 * (1 - aligned) ** 2 / float(closed_forms.lion_variance(*self.spec.betas))
        along = ALONG_MEAN * aligned * slow / (1 + 6 * slow)
        return 2 * self.spec.lr * self.spec.weight_decay * slow / (1 + slow) + along

    def gain(self, noise: float) -> float:
        return float(closed_forms.lion_sign_slope(*self.spec.betas)) / sqrt(noise)

    def pulled(self, noise: float, radial: float) -> SteadyState:
        """To first order in the pull, but for the size of steps. Both factors were chosen after a look at 80 walks."""
        o, signs = self.spec, answering_signs(*self.spec.betas, 0.0)
        kept = 1 - o.lr * o.weight_decay
        walk, share = unit_steps(o.lr, kept, 0.0, signs, lambda scaled: radial * scaled.response / sqrt(noise))
        error = 0.5 * o.lr * o.weight_decay + 0.025 * share / (1 + share)
        pull = radial * signs.response / sqrt(noise)
        if pull < 0:  # nearly makes up for decay: the norm that is left is off by as much more
            error *= o.weight_decay / max(o.weight_decay + pull, o.weight_decay * LEAST_LEFT)
        return replace(walk, decay=o.weight_decay * sqrt(noise) / signs.response, model_error=error)

    def beside_mean(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> tuple[float, ...]:
        o, ratio = self.spec, abs(law.signal)
        fixed = closed_forms.lion_fixed_norm_squared(o.weight_decay, *o.betas, dim, ratio)
        if method == "leading":
            return fixed, white.norm_squared, white.one_minus_cosine
        mean = ratio / sqrt(closed_forms.lion_variance(*o.betas))  # in deviations of the sign's argument
        lag_0, total = shifted_discounted_sum(1 - o.lr * o.weight_decay, *o.betas, mean)
        return fixed, *decoupled(o.lr, o.weight_decay, dim * lag_0, total)

    def correlated(self, dim: int, law: GradientPower, method: Method, white: SteadyState) -> SteadyState:
        o, correlation = self.spec, law.correlation
        kept = 1 - o.lr * o.weight_decay if method == "exact" else 1.0
        if method == "leading" and law.homogeneity:
            covariance = correlated_covariance(*o.betas, correlation)
            excess = discounted_excess(kept, covariance, closed_forms.lion_correlated_variance(*o.betas, correlation))
            ratio = closed_forms.lion_overlap_ratio(*o.betas, correlation)
            total = closed_forms.lion_linear_sum(o.lr, o.weight_decay, *o.betas, ratio) + excess
        else:
            signs = answering_signs(*o.betas, correlation)
            if law.homogeneity:
                walk, share = unit_steps(
                    o.lr, kept, correlation, signs, lambda scaled: projection(o.lr, 0.0, kept, correlation, scaled)
                )
                # an answer at once meets the noise that it answers to; numbers after a look at 300 walks
                at_once = float(np.clip(abs(signs.shares[1]), 0.0, 1.0))
                longer = 2 * (sqrt(1 + share) - 1)  # the argument, by its pull
                felt = at_once + (1 - at_once) * AVERAGED * self._averaged(correlation)
                error = white.model_error + felt * longer + 4 * at_once * correlation**2 * o.lr * o.weight_decay
                return replace(
                    white, norm_squared=dim * walk.norm_squared, one_minus_cosine=walk.one_minus_cosine,
                    model_error=error,
                )  # fmt: skip
            total = float((kept ** np.arange(1, len(signs.covariance)) * signs.covariance[1:]).sum())
        norm_squared, half = decoupled(o.lr, o.weight_decay, dim, total)
        return replace(white, norm_squared=norm_squared, one_minus_cosine=half)

    def _averaged(self, correlation: float) -> float:
        """Share that the momentum has in the power of a sign's argument, beside the newest gradient alone."""
        beta1, beta2 = self.spec.betas
        newest = (1 - beta1) ** 2
        older = float(closed_forms.lion_correlated_variance(beta2, beta2, correlation)) * beta1**2
        return older / (older + newest)

    # --- real gradients

    def signal_share(self, level: float) -> float:
        """Of the sign's argument: its average lets through a part that lasts, and little of the noise."""
        noise = (1 - level) * closed_forms.lion_variance(*self.spec.betas)
        return float(level / (level + noise)) if level > 0 else level

    def correlation_factors(self, autocorrelation: np.ndarray) -> tuple[float, float]:
        """A sign has one length, so the norm changes as the inverse of the rotation.

        The autocorrelation enters through q = b_0/B_0 = E[c·g]/E[c²] alone, both of which are sums over it
        (`derivations.lion_autocorrelated.lion_linear_sum` and `lion_power_by_lag`). ηλ → 0, gradients orthogonal to
        the weights, sign linearised. White noise at β = (0.9, 0.99) gives θ = √(2ηλ)·0.148, where the paper's formula
        has 0.149: it drops a constant 1 - 2/π.
        """
        betas, given = self.spec.betas, np.asarray(autocorrelation, dtype=float)
        lag = np.arange(1, len(given))
        overlap = (1 - betas[0]) * given[0] + float((closed_forms.lion_weight(*betas, lag) * given[1:]).sum())
        power = closed_forms.lion_variance(*betas) + 2 * float(
            (closed_forms.lion_covariance(*betas, lag) * given[1:]).sum()
        )
        if power <= 0:
            return float("nan"), float("nan")
        white = closed_forms.lion_correlated_rotation(*betas, closed_forms.lion_overlap_ratio(*betas, 0.0))
        found = closed_forms.lion_correlated_rotation(*betas, overlap / power)
        factor = float(np.sqrt(found / white)) if found > 0 else float("nan")
        return factor, 1 / factor

    def remembered(self, beta1: float, correlation: float) -> tuple[float, float]:
        betas = self.spec.betas
        white = closed_forms.lion_correlated_rotation(*betas, closed_forms.lion_overlap_ratio(*betas, 0.0))
        found = closed_forms.lion_correlated_rotation(*betas, closed_forms.lion_overlap_ratio(*betas, correlation))
        return float(np.sqrt(found / white)), float(np.sqrt(white / found))
