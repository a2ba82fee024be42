"""Equilibrium where the gradient is more than white noise: a persistent mean, a memory, or a radial part.

Each departure is reduced to a walk that is solved already (derivations.signal, .autocorrelated, .radial):

* a radial part is decay that passes through the momentum, under Adam without any other approximation;
* a mean adds a fixed part to the weights, about which noise walks. Where scale invariance projects the mean, the
  weights turn towards it, up to a cosine that one equation fixes, and the rest of them feels a radial part;
* bursts leave the rotation of averaging optimizers alone too; Lion's is `rotsim.theory.bursts`;
* a memory is `rotsim.theory.ar1`: it changes every norm, Lion's rotation through one number, that of Adam+L2 through
  its norm, and that of AdamW, by a few per cent at small β2, through the spread of v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log, sqrt

import numpy as np
import scipy

from rotsim import closed_forms
from rotsim.errors import InvalidInput, NoEquilibrium
from rotsim.gradients import GradientPower
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion
from rotsim.optimizers.base import Method, Moments, Optimizer
from rotsim.theory.adam_l2_chain import steady
from rotsim.theory.ar1 import autocorrelated_moments, signs, unit_steps
from rotsim.theory.bursts import burst_moments
from rotsim.theory.correlated_moment import signal_update
from rotsim.theory.coupled import stationary
from rotsim.theory.fixed_point import bracketed_root, noise_variance, settled
from rotsim.theory.second_moment import adam_covariance, felt_eps, mean_inverse_root, mean_response
from rotsim.theory.sign import correlated_covariance, discounted, discounted_excess, shifted_discounted_sum


def moments(optimizer: Optimizer, dim: int, law: GradientPower, method: Method) -> Moments:
    """Steady state under a gradient that is not white noise alone.

    Parameters
    ----------
    optimizer : Optimizer
        AdamW, AdamL2, SGDM or Lion, with ``weight_decay`` > 0.
    dim : int
        Fan-in C >= 2.
    law : GradientPower
        With one of ``signal``, ``correlation``, ``radial`` and ``series``.
    method : {"exact", "leading"}
        "leading": the limit of small lr·weight_decay and, for Adam, constant v.

    Returns
    -------
    Moments
        With a declared error: products of what follows the weights and what is not linear.

    Raises
    ------
    InvalidInput
        For other optimizers, or several departures at once.
    NoEquilibrium
        If a radial part pushes outwards at least as strongly as decay pulls inwards.

    Notes
    -----
    `derivations.signal`, `derivations.autocorrelated`, `derivations.correlated_adam` and `derivations.radial`.

    In 60 random settings of each optimizer and kind, norm, rotation and update are at most 0.3 % off beyond 3 standard
    errors under AdamW, Adam+L2 and SGDM, 2.2 % under Lion, and no error is more than 1.02 of the declared one:
    experiments/results/departures.md, which `python -m experiments.departures` writes.
    """
    if law.series is not None:
        if not isinstance(optimizer, Lion):
            raise InvalidInput(
                "`gradient` may be Bursts for Lion only, whose equilibrium bursts change; the rotation of AdamW and "
                "SGDM does not depend on them (predict it with ScaleInvariant), norms and Adam+L2 can be simulated"
            )
        if method == "leading":
            return optimizer.moments(dim, replace(law, series=None), method)
        return burst_moments(optimizer, dim, law.series, homogeneity=law.homogeneity)
    if type(optimizer) not in _WALKS:
        raise InvalidInput(
            "`optimizer` must be AdamW, AdamL2, SGDM or Lion to be predicted under such gradients; "
            f"got {optimizer.describe()}"
        )
    if bool(law.signal) + bool(law.correlation) + bool(law.radial) != 1:
        raise InvalidInput(f"one of signal, correlation and radial can be predicted at a time; got {law}")
    noise = replace(law, signal=0.0, correlation=0.0, radial=0.0)
    white = optimizer.moments(dim, noise, method)
    found = _beside_white(optimizer, dim, law, method, replace(white, angle_factor=1.0))
    if white.angle_factor < 1:  # rare large updates turn the weights as under white noise, about
        error = found.model_error + 1 - white.angle_factor
        found = replace(found, angle_factor=white.angle_factor, model_error=error)
    return found


def _beside_white(optimizer: Optimizer, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    """One departure, with what is known of white noise of the same size."""
    if law.radial:
        return _radial(optimizer, dim, law, method, white)
    shape: Callable[..., Moments] = autocorrelated_moments
    if law.signal:
        shape = _projected_signal if law.homogeneity else _fixed_part
    if isinstance(optimizer, AdamW | AdamL2) and method == "exact" and optimizer.eps > 0:
        return _beside_eps(shape, optimizer, dim, law, white)
    return shape(optimizer, dim, law, method, white)


def _beside_eps(
    shape: Callable[..., Moments], o: AdamW | AdamL2, dim: int, law: GradientPower, white: Moments
) -> Moments:
    """ε takes of the update what it takes under white noise of the size that the larger norm leads to.

    Neglected is that the spread of v, and a mean inside v, are felt less beside ε. Under Adam+L2 ε lessens the decay
    as well, which is not taken into account at all.
    """
    bare, noise = replace(o, eps=0.0), replace(law, signal=0.0, correlation=0.0)
    plain = bare.moments(dim, noise, "exact")
    found = shape(bare, dim, law, "exact", plain)
    growth, turn = found.norm_squared / plain.norm_squared, found.one_minus_cosine / plain.one_minus_cosine
    felt = white
    if isinstance(o, AdamW) and law.homogeneity:
        felt = o.moments(dim, replace(noise, scale_squared=noise.scale_squared * growth**law.homogeneity), "exact")
    beside = o.eps / sqrt(noise_variance(law, dim, growth * felt.norm_squared))
    share = beside / (1 + beside) if o.betas[1] == 0 else beside / (1 / mean_inverse_root(*o.betas) + beside)
    unequal = 1 - o.betas[1] if isinstance(o, AdamW) else 1.0
    neglected = share * (unequal * max(abs(log(growth)), abs(log(turn))) + min(1.0, law.signal**2))
    moved = found.update_squared
    if moved is not None:
        moved *= felt.norm_squared * felt.one_minus_cosine / (plain.norm_squared * plain.one_minus_cosine)
    return Moments(
        growth * felt.norm_squared,
        turn * felt.one_minus_cosine,
        found.relaxation_steps * white.relaxation_steps / plain.relaxation_steps,
        found.model_error - plain.model_error + felt.model_error + neglected,
        moved,
    )


@dataclass(frozen=True)
class _Walk:
    """One coordinate under noise and a radial part: E w², 1 - ρ, the weight decay in units of a lasting gradient."""

    square: float
    one_minus_cosine: float
    decay: float
    error: float = 0.0


def _walk_adamw(o: AdamW, noise: float, rest: float, radial: float) -> _Walk:
    response, memory = mean_response(*o.betas)
    v = noise + rest
    gain = response / sqrt(v)
    kept = 1 - o.lr * o.weight_decay
    square, half = stationary(o.lr, radial * gain, memory, adam_covariance(*o.betas), kept)
    return _Walk(square * noise / v, half, o.weight_decay / gain)


def _walk_adam_l2(o: AdamL2, noise: float, rest: float, radial: float) -> _Walk:
    response, memory = mean_response(*o.betas)
    v = noise + rest
    decay = (o.weight_decay + radial) * response / sqrt(v)
    square, half = stationary(o.lr, decay, memory, adam_covariance(*o.betas))
    return _Walk(square * noise / v, half, o.weight_decay)


def _walk_sgdm(o: SGDM, noise: float, rest: float, radial: float) -> _Walk:
    hyper = (o.lr, o.weight_decay + radial, o.momentum)
    square = closed_forms.sgdm_exact_norm_squared(*hyper, noise, 0)
    return _Walk(square, closed_forms.sgdm_exact_one_minus_cosine(*hyper), o.weight_decay)


def _walk_lion(o: Lion, noise: float, mean_squared: float, radial: float) -> _Walk:
    hyper, kept = (o.lr, o.weight_decay, *o.betas), 1 - o.lr * o.weight_decay
    excess = discounted_excess(kept, correlated_covariance(*o.betas, 0.0), closed_forms.lion_variance(*o.betas))
    strength, mean = radial / sqrt(noise), mean_squared / noise  # in units of the noise
    slope = closed_forms.lion_sign_slope(*o.betas)
    for _ in range(100):
        # steps of unit size: what the mean takes of them is not left for the rest
        left = float(closed_forms.lion_left_of_a_sign(slope, sqrt(mean)))
        unmoved = excess - (1 - left) / 2
        total = mean + closed_forms.lion_radial_variance(*hyper, slope, unmoved, strength * slope)
        if not 0 < total < np.inf:
            return _Walk(np.inf, 2.0, 0.0)
        before, slope = slope, float(closed_forms.sign_slope(total))
        if abs(slope / before - 1) < 1e-13:
            break
    square = closed_forms.lion_radial_norm_squared(*hyper, 1.0, slope, unmoved, strength * slope)
    left = closed_forms.lion_left_of_a_sign(slope, sqrt(mean))
    half = closed_forms.lion_one_minus_cosine(o.lr, o.weight_decay, left, square)
    return _Walk(float(square), float(half), o.weight_decay * sqrt(noise) / slope)


#: ``walk(optimizer, noise, rest, radial)``: `noise` is the variance of a coordinate of the gradient, `rest` the
#: mean square of all else in it, λw of a coupled decay included; for Lion, of its constant part alone.
_WALKS: dict[type[Optimizer], Callable[..., _Walk]] = {
    AdamW: _walk_adamw,
    AdamL2: _walk_adam_l2,
    SGDM: _walk_sgdm,
    Lion: _walk_lion,
}


# --- radial part: decay through the momentum (derivations.radial) ---


def _radial(o: Optimizer, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    if isinstance(o, AdamL2 | SGDM):  # their decay is a radial gradient already
        total = o.weight_decay + law.radial
        if total <= 0:
            raise _outward(o, law)
        return replace(o, weight_decay=total).moments(dim, replace(law, radial=0.0), method)

    def at(norm_squared: float) -> _Walk:
        noise = noise_variance(law, dim, norm_squared)
        gain = _leading_gain(o) / sqrt(noise)
        if method == "leading":
            total = o.weight_decay + law.radial * gain
            if total <= 0:
                return _Walk(np.inf, 2.0, 0.0)
            known = replace(o, weight_decay=total).moments(1, GradientPower(1.0, 0), "leading")
            return _Walk(known.norm_squared, known.one_minus_cosine, o.weight_decay / gain)
        if isinstance(o, AdamW):
            return _pulled_adamw(o, noise, law.radial)
        assert isinstance(o, Lion)
        return _pulled_lion(o, noise, law.radial)

    try:
        norm_squared = settled(lambda square: dim * at(square).square, white.norm_squared)
    except ValueError:  # growth exceeds loss at any norm
        if law.radial > 0:
            raise NoEquilibrium(
                f"a radial gradient of strength {law.radial:g} pulls {o.describe()} past the origin in every step, for "
                "which theory has no equilibrium; lower strength or lr"
            ) from None
        raise _outward(o, law) from None
    walk = at(norm_squared)
    drowned = law.radial**2 * norm_squared > noise_variance(law, dim, norm_squared) * dim
    if law.radial < 0 and (
        drowned or walk.decay + law.radial <= 0
    ):  # a balance of another kind: what is left of the noise hardly turns w
        raise _outward(o, law)
    relaxation = white.relaxation_steps / (1 + law.radial / walk.decay)
    return Moments(norm_squared, walk.one_minus_cosine, relaxation, white.model_error + walk.error)


def _pulled_adamw(o: AdamW, noise: float, radial: float) -> _Walk:
    """Exactly, for a pull of any strength: the chain of one coordinate."""
    eps, left_out = felt_eps(*o.betas, o.eps / sqrt(noise))
    found = steady(o.lr * radial / sqrt(noise), *o.betas, 1 - o.lr * o.weight_decay, eps)
    square = found.square * noise / radial**2
    gain = mean_response(*o.betas)[0] / (sqrt(noise * (1 + found.square)) + eps * sqrt(noise))
    return _Walk(square, found.one_minus_cosine, o.weight_decay / gain, found.error + left_out)


def _pulled_lion(o: Lion, noise: float, radial: float) -> _Walk:
    """To first order in the pull, but for the size of steps. The declared tenth was chosen after a look at 80 walks."""
    update, kept = signs(o, 0.0), 1 - o.lr * o.weight_decay
    walk, share = unit_steps(o.lr, kept, 0.0, update, lambda scaled: radial * scaled.response / sqrt(noise))
    decay = o.weight_decay * sqrt(noise) / update.response
    error = 2 * o.lr * o.weight_decay + 0.1 * share / (1 + share)
    return _Walk(walk.square, walk.one_minus_cosine, decay, error)


def _leading_gain(o: Optimizer) -> float:
    """Mean update per lasting gradient, for noise of unit variance."""
    return float(closed_forms.lion_sign_slope(*o.betas)) if isinstance(o, Lion) else 1.0


def _outward(o: Optimizer, law: GradientPower) -> NoEquilibrium:
    return NoEquilibrium(
        "weight decay and radial gradient together must pull inwards for an equilibrium to exist; "
        f"strength {law.radial:g} outweighs weight_decay {o.weight_decay:g} in {o.describe()}. Raise weight_decay"
    )


# --- persistent mean (derivations.signal) ---


def _fixed_part(o: Optimizer, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    """Gradients independent of w: noise walks about weights that do not move."""
    ratio, noise, half = law.signal, white.norm_squared, white.one_minus_cosine
    kept = 1 - o.lr * o.weight_decay
    about: tuple[float, float] | None = None  # variance of a step about its mean, and Σ kept^k K_k over it
    if isinstance(o, AdamL2 | SGDM):
        fixed = closed_forms.sgdm_fixed_norm_squared(o.weight_decay, law.scale_squared, ratio)
    elif isinstance(o, AdamW):
        fixed = closed_forms.adamw_fixed_norm_squared(o.weight_decay, dim, ratio)
        noise *= float(closed_forms.adamw_noise_share(ratio))
        if method == "exact":
            mean, covariance = signal_update(*o.betas, ratio)
            fixed = dim * (mean / o.weight_decay) ** 2
            about = covariance[0], discounted(kept, covariance[1:], o.betas[1]) / covariance[0]
    elif isinstance(o, Lion):
        fixed = closed_forms.lion_fixed_norm_squared(o.weight_decay, *o.betas, dim, abs(ratio))
        if method == "exact":
            mean = abs(ratio) / sqrt(closed_forms.lion_variance(*o.betas))  # in deviations of the sign's argument
            about = shifted_discounted_sum(kept, *o.betas, mean)
    if about is not None:
        noise = closed_forms.lion_exact_norm_squared(o.lr, o.weight_decay, dim * about[0], about[1])
        half = closed_forms.lion_exact_one_minus_cosine(o.lr, o.weight_decay, about[1])
    total = noise + fixed
    turned = half * noise / total * float(closed_forms.young_angle_spread(dim, fixed / total))  # ‖w‖ hardly varies then
    # the fixed part of w fades in at the rate of w, half that of ‖w‖²
    return Moments(total, turned, 2 * white.relaxation_steps, white.model_error, 2 * half * noise)


def _projected_signal(o: Optimizer, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    """Gradients orthogonal to w: the weights turn towards the mean, and what noise adds to them is pulled after."""
    if method == "leading":
        return white

    def excess(log_odds: float) -> float:
        aligned = float(scipy.special.expit(log_odds))
        try:
            norm_squared, walk = _aligned(o, dim, law, white.norm_squared, aligned)
        except ValueError:  # so strong a pull that the rest of the weights diverges
            return 1e3
        needed = closed_forms.signal_squared_mean(norm_squared, aligned, walk.decay)
        return float(np.log(needed / (law.signal**2 * noise_variance(law, dim, norm_squared) * dim)))

    takeover = closed_forms.adamw_takeover(o.lr, o.weight_decay)
    guess = float(scipy.special.logit(closed_forms.signal_alignment(law.signal**2 / takeover)))
    aligned = float(scipy.special.expit(bracketed_root(excess, guess - 12, guess + 6, xtol=1e-10)))
    norm_squared, walk = _aligned(o, dim, law, white.norm_squared, aligned)
    error = white.model_error
    if isinstance(o, Lion):  # neglected: how the linearised sign sees a slow part that differs between coordinates
        error += 2 * o.lr * o.weight_decay
    elif isinstance(o, AdamW):  # products of the pull and the spread of v
        pull = float(closed_forms.signal_pull(aligned, walk.decay))
        error += pull**2 * norm_squared * (1 - aligned) / (noise_variance(law, dim, norm_squared) * dim)
    half = walk.one_minus_cosine * (1 - aligned)
    if isinstance(o, AdamL2):  # linear response, so only what the mean changes is taken from it
        linear_norm, linear_walk = _aligned(o, dim, law, white.norm_squared, 0.0)
        norm_share, half_share = white.norm_squared / linear_norm, white.one_minus_cosine / linear_walk.one_minus_cosine
        norm_squared, half = norm_squared * norm_share, half * half_share
        error += max(abs(norm_share - 1), abs(half_share - 1)) / 2
    return replace(white, norm_squared=norm_squared, one_minus_cosine=half, model_error=error)


def _aligned(o: Optimizer, dim: int, law: GradientPower, start: float, aligned: float) -> tuple[float, _Walk]:
    """E‖w‖² at a squared cosine `aligned` between w and the mean, and the walk of the rest of w."""
    across = 1 - aligned

    def rest_of_weights(norm_squared: float) -> _Walk:
        noise = noise_variance(law, dim, norm_squared)
        left = law.signal**2 * noise * across ** (2 if isinstance(o, Lion) else 1)
        found = _WALKS[type(o)](o, noise, left, 0.0)
        for _ in range(2):  # for AdamW the pull depends on the gain, and the gain on what is left
            pull = float(closed_forms.signal_pull(aligned, found.decay))
            coupled = (o.weight_decay + pull) ** 2 * norm_squared * across / dim
            found = _WALKS[type(o)](o, noise, coupled if isinstance(o, AdamL2) else left, pull)
        return found

    norm_squared = settled(lambda square: dim * rest_of_weights(square).square / across, start)
    return norm_squared, rest_of_weights(norm_squared)
