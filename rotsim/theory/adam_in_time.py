r"""AdamW and its like step by step, v random: second moments of a coordinate under the weights of `damped`.

* AdamW is exact for any course of the gradient's scale: m is Gaussian under every weight. So are NAdamW and
  AdEMAMix (`rotsim.theory.slow_average`).
* Under Adam+L2 the decay λw is averaged into m and v with the gradient. (w, m) is taken as Gaussian under every weight
  by itself, given where w started. Coordinates are therefore followed in parts, by |w|, while decay fills v and their
  start is remembered; elsewhere all are one part of mean 0. A step of many parts takes 20 times as long as one of one.

What is declared besides 1/dim, from the state at each step:

* Neurons of one dim differ, and in scale-invariant weights the norm of a neuron sets its own gradient. The variance of
  ‖w‖² among them follows the linear response of the mean's map (derivations.damped.neurons_differ). Half of it is an
  error of E‖w‖ and of the angle, half of that of ‖Δw‖² one of the update. For β1 > √β2 and weights far too short this
  grows with every step, since m remembers large gradients that v has forgotten: a neuron runs away from the mean.
* Weights under Adam+L2 that are not Gaussian: the fourth cumulant that steps have made, times the share that decay has
  in v. In the random part of the update it is its own cumulant, times the square of that share. The error is carried on
  to the norm, and from there through the gradient to m and v, by the same linear response.
* Weights behind the mask of `Cautious` that are not Gaussian with their update (`rotsim.theory.mask`).
* What eps leaves of an update is exact, but for the shape of the moments under e^(-ζv), which is nearly so. Coordinates
  in parts feel it as by a v at its mean. Declared of that is a share of what it takes, larger over the first steps.
* The sum over parts, by its distance to that over every second part. For the norm it is that of the moment. For the
  update it is the largest so far, since it goes up and down as one part after the other reaches 0.

The first is derived but for the 2 of Gaussian weights in the kurtosis. The factors of the second are orders of
magnitude, doubled after a look at exact equilibria and 30 random walks. The third is as wide as it is after 60 more.
They do not cover decay above half of v in the long run, at lr·weight_decay/√v above 0.3 and small β2. Nor does
`adam_l2_chain`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.theory.adam_errors import carry, fourth_moments, leaves_normal, respond
from rotsim.theory.adam_parts import (
    MM,
    SHARE_TO_MERGE,
    SHARE_TO_SPLIT,
    WEIGHT,
    WM,
    WW,
    M,
    W,
    merge,
    remembered,
    split,
    unlike_neurons,
)
from rotsim.theory.damped import GHOSTS, POINTS, SIDE, beside_eps, beyond, flatten, integral, lay, widen
from rotsim.theory.mask import decaying, doubted, misjudged
from rotsim.theory.record import kernel, record_step
from rotsim.theory.slow_average import blend, entered, move, overlap

_LEAST_EXPECTATION = 1e-14  # E e^(-ζv) below which a point is given up
_MAX_RATIO = 4.0  # E e^(-ζv) falling by more from point to point is not resolved: ratios to it are held there
_LEAST_FELT = 1e-4  # share of the update that eps takes, up to which it is felt as by a v at its mean
_OF_SHAPE = 2e-4  # error that `flatten` leaves, of the share that eps takes: twice what courses at rest are off
_NM, _NN = 6, 7  # of NAdamW and AdEMAMix, whose update is made of n in the place of m

# The maps of one step, generated from derivations.damped.


@kernel_part()
def _absorb(rows, count, zeta, centre, decay, beta1, beta2, dim, gradient):  # type: ignore[no-untyped-def]
    """Take a new gradient, and the decay λw beside it, into v and m; return the number of points left."""
    w0, m0 = centre[0], centre[1]
    new_m0 = beta1 * m0 + (1 - beta1) * decay * w0
    for k in range(count + 1):
        share = rows[WEIGHT, k]
        w, m = rows[W, k] / share, rows[M, k] / share
        ww, wm, mm = rows[WW, k] / share - w * w, rows[WM, k] / share - w * m, rows[MM, k] / share - m * m
        if decay != 0.0 and (ww < 0.0 or mm < 0.0 or wm * wm > ww * mm):  # rounding beside a large mean
            ww, mm = max(ww, 0.0), max(mm, 0.0)
            wm = min(abs(wm), np.sqrt(ww * mm)) * np.sign(wm)
        w, m = w + w0, m + m0
        pull = closed_forms.damped_pull(decay, dim, gradient, max(ww, 0.0))
        share *= closed_forms.damped_share(beta2, zeta[k], pull)
        if w0 != 0.0:
            share *= closed_forms.damped_share_of_mean(decay, beta2, zeta[k], w, pull)
        new_w = closed_forms.damped_weight(decay, beta2, zeta[k], w, ww, pull) - w0
        pulled = closed_forms.damped_pull_mean(decay, beta2, zeta[k], w, pull)
        new_m = (
            beta1 * closed_forms.damped_momentum(decay, beta2, wm, zeta[k], w, m, pull) + (1 - beta1) * pulled - new_m0
        )
        rows[WEIGHT, k], rows[W, k], rows[M, k] = share, share * new_w, share * new_m
        rows[WW, k] = share * (closed_forms.damped_weight_square(decay, beta2, zeta[k], ww, pull) + new_w * new_w)
        rows[WM, k] = share * (closed_forms.damped_overlap(decay, beta1, beta2, wm, zeta[k], ww, pull) + new_w * new_m)
        rows[MM, k] = share * (
            closed_forms.damped_momentum_square(decay, beta1, beta2, wm, mm, zeta[k], pull) + new_m * new_m
        )
    centre[1] = new_m0
    while count > 2 * SIDE and rows[WEIGHT, count] < _LEAST_EXPECTATION:
        for row in range(rows.shape[0]):
            rows[row, count] = 0.0
        count -= 1
    return count


@kernel_part()
def _look_ahead(rows, count, zeta, own, ahead, beta1, beta2, pull):  # type: ignore[no-untyped-def]
    """E[n m] and E[n²] under e^(-ζv) of n = own·g + ahead·m, g being the newest gradient."""
    for k in range(count + 1):
        square = rows[WEIGHT, k] * closed_forms.damped_momentum_square(0.0, 0.0, beta2, 0.0, 0.0, zeta[k], pull)
        shared = own * (1 - beta1) * square
        rows[_NM, k] = ahead * rows[MM, k] + shared
        rows[_NN, k] = ahead * (rows[_NM, k] + shared) + own * own * square


@kernel_part()
def _read(rows, count, zeta, centre, coupled, tables, integrals, values, scratch, crossed, squared):  # type: ignore[no-untyped-def]
    """E[m/√v], E[w·m/√v], E[m²/√v] and E[m²/v] under e^(-ζv), w about its mean, into the four rows of `integrals`.

    The last two are of the rows `crossed` and `squared`.
    """
    m0 = centre[1]
    for k in range(count + 1):
        integrals[0, k] = 0.0
    for which in range(4 if coupled else 3):
        if which == 0 and m0 == 0.0:
            continue
        for k in range(count + 1):
            if which == 0:
                values[k] = m0 * rows[WEIGHT, k] + rows[M, k]
            elif which == 1:
                values[k] = m0 * rows[W, k] + rows[WM, k]
            elif which == 2:
                values[k] = m0 * rows[M, k] + rows[crossed, k]
            else:
                values[k] = m0 * (m0 * rows[WEIGHT, k] + 2 * rows[M, k]) + rows[squared, k]
        root = which < 3
        integrals[which, 0] = integral(values, zeta, count, root, tables.root_tail if root else tables.plain_tail)
        if coupled or which == 2:
            weights = tables.root if root else tables.plain
            beyond(values, zeta, count, root, weights, tables.ghosts, scratch, integrals[which])
    if not coupled:
        integrals[3, 0] = integral(rows[squared], zeta, count, False, tables.plain_tail)


@kernel_part()
def _felt(rows, count, zeta, eps, integrals, crossed, squared):  # type: ignore[no-untyped-def]
    """What ε leaves of E[m²/√v], of E[w·m/√v] and of E[m²/v]: shares of the ``integrals[:, 0]`` that `_read` found.

    Means are 0. The second is that of the first where nothing overlaps.
    """
    left = beside_eps(rows[crossed], zeta, count, True, eps) / integrals[2, 0]
    met = left
    if integrals[1, 0] != 0.0:
        met = beside_eps(rows[WM], zeta, count, True, eps) / integrals[1, 0]
    return left, met, beside_eps(rows[squared], zeta, count, False, eps) / integrals[3, 0]


@kernel_part()
def _move(rows, count, centre, coupled, lr, decay, step, integrals):  # type: ignore[no-untyped-def]
    """Move the weights by -step·m/√v, about a mean that moves as well."""
    mean = integrals[0, 0]
    for k in range(count + 1):
        weight, w, m = rows[WEIGHT, k], rows[W, k], rows[M, k]
        if coupled:
            crossed = integrals[1, k] - mean * w
            square = integrals[3, k] - 2 * mean * integrals[0, k] + mean * mean * weight
            rows[WW, k] = closed_forms.moved_weight_square(lr, decay, step, crossed, square, rows[WW, k])
            rows[W, k] = closed_forms.moved_weight(lr, decay, step, w, integrals[0, k] - mean * weight)
        rows[WM, k] = closed_forms.moved_overlap(lr, decay, step, rows[WM, k], integrals[2, k] - mean * m)
    centre[0] = closed_forms.moved_weight(lr, decay, step, centre[0], mean)
    last = count
    for k in range(1, count if coupled else 1):
        if rows[WEIGHT, k] > _MAX_RATIO * rows[WEIGHT, k + 1]:
            last = k
            break
    for k in range(last + 1, count + 1):
        held = rows[WEIGHT, k] / rows[WEIGHT, last]
        for row in (W, WW, WM):
            rows[row, k] = held * rows[row, last]


@kernel_part()
def _mean_size(rows, count, zeta, squared, tables, values):  # type: ignore[no-untyped-def]
    """√(π/2) E|m|/√v, m being Gaussian under every weight."""
    for k in range(count + 1):
        values[k] = np.sqrt(rows[WEIGHT, k] * max(rows[squared, k], 0.0))
    return integral(values, zeta, count, True, tables.root_tail)


class State(NamedTuple):
    """Everything a kernel changes, made outside of it: numba takes long over an array it has to allocate."""

    zeta: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    centres: np.ndarray
    v: np.ndarray
    integrals: np.ndarray
    values: np.ndarray
    scratch: np.ndarray
    whole: np.ndarray
    error: np.ndarray
    matrices: np.ndarray


def state(parts: int, square: float, rows: int) -> State:
    """One coordinate before its first step, with room for so many parts, and six rows, 8 for NAdamW, 12 for AdEMAMix.

    It is one part of Gaussian weights, `square` = E w_0², without momentum (`derivations.damped.one_coordinate`).
    """
    size = POINTS + 1
    moments = np.zeros((parts, rows, size))
    moments[0, WEIGHT, :], moments[0, WW, :] = 1.0, square
    counts, centres, v = np.full(parts, POINTS), np.zeros((parts, 2)), np.zeros(parts)
    room = (np.zeros((4, size)), np.zeros(size), np.zeros(size + GHOSTS), np.zeros((6, size)))
    return State(np.zeros(size), moments, counts, centres, v, *room, np.zeros(3), np.zeros((3, 3, 3)))


def carried(square: float) -> tuple[int | float, ...]:
    """What a kernel carries on in numbers, before the first step from `square` = E‖w_0‖²; the rest is in `state`.

    Numbers of `derivations.damped.one_coordinate`.
    """
    return 1, square, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.5, 1.0, 0.0


_coupled, _nesterov, _mixed = None, None, None  # what a kernel binds


def _adam(  # type: ignore[no-untyped-def]
    carried, first, last, beta1, beta2, eps, fading, second, tables, point, share, coarse, strongest, state, dim, power,
    homogeneity, cautious, lr, weight_decay, window, records,
):  # fmt: skip
    """Follow a course from step `first` up to `last`; what is carried on begins as `carried` has it.

    `strongest` is the largest weight decay from each step on. With len(point) = 1 there are no parts. `fading` is what
    a step leaves of NAdamW's distance from β1, which is β1/2 at first. `second` is β3 and α of AdEMAMix.
    """
    zeta, rows, counts, centres, v = state.zeta, state.rows, state.counts, state.centres, state.v
    integrals, values, scratch, error = state.integrals, state.values, state.scratch, state.error
    matrix, covariance, half = state.matrices[0], state.matrices[1], state.matrices[2]
    (
        parts, w2, last_filled, m_total, v_total, cumulant, not_normal, ripple, left1, left2, distance, product, alike,
    ) = carried  # fmt: skip
    crossed, squared = (_NM, _NN) if _nesterov or _mixed else (MM, MM)
    beta3, mix = second
    own, ahead = 0.0, 1.0
    for t in range(first, last):
        left1, left2 = left1 * beta1, left2 * beta2
        inside, outside = (weight_decay[t], 0.0) if _coupled else (0.0, weight_decay[t])
        gradient = power * w2**homogeneity
        if _coupled:
            filled = strongest[t] ** 2 * w2 / (gradient + strongest[t] ** 2 * w2)
            started = remembered(centres, share) * dim / w2
            if parts > 1 and started * filled < SHARE_TO_MERGE:
                merge(rows, counts, centres, v, share)
                parts, last_filled = 1, filled
            elif parts == 1 and filled > max(SHARE_TO_SPLIT, 2 * last_filled):
                parts = len(point)
                if t == 0:
                    lay(zeta, 1.0)
                widen(zeta, rows, counts, 1, v[0] * point[-1] ** 2, tables.entering)
                split(rows, counts, centres, v, zeta, point, state.whole)
        largest, total = 0.0, 0.0
        for part in range(parts):
            square = centres[part, 0] ** 2 + rows[part, WW, 0]
            v[part] = beta2 * v[part] + (1 - beta2) * closed_forms.damped_pull(inside, dim, gradient, square)
            largest, total = max(largest, v[part]), total + v[part]
        if t == 0:
            lay(zeta, largest)
        else:
            for k in range(1, POINTS + 1):
                zeta[k] /= beta2
            widen(zeta, rows, counts, parts, largest, tables.entering)
        step = lr[t] / (1 - left1) * np.sqrt(1 - left2)
        if _nesterov:
            distance *= fading
            momentum, then = beta1 * (1 - distance), beta1 * (1 - distance * fading)
            product *= momentum
            own, ahead = (1 - momentum) / (1 - product), then / (1 - product * then)
            step = lr[t] * np.sqrt(1 - left2)
        if _mixed:
            ahead = mix * (1 - left1)  # of the slow average; step has the correction of the other
        across, update_power, fourth, wild, made = 0.0, 0.0, 0.0, 0.0, 0.0
        off_norm, off_power, stopped = 0.0, 0.0, 0.0
        for part in range(parts):
            of, centre, by = rows[part], centres[part], share[part] if parts > 1 else 1.0
            if _mixed:
                entered(of, counts[part], zeta, beta1, beta2, beta3, gradient / dim)
            count = _absorb(of, counts[part], zeta, centre, inside, beta1, beta2, dim, gradient)
            if _nesterov:
                _look_ahead(of, count, zeta, own, ahead, beta1, beta2, gradient / dim)
            if _mixed:
                blend(of, count, ahead)
            _read(of, count, zeta, centre, _coupled, tables, integrals, values, scratch, crossed, squared)
            deviation = np.sqrt(v[part] / (1 - left2))
            felt = deviation / (deviation + eps)
            stopped = max(stopped, 1 - felt)
            one, two = integrals[1, 0] + centre[0] * integrals[0, 0], integrals[3, 0]
            felt_along, felt_twice = felt, felt**2
            evenly, beside = 0.0, eps * np.sqrt(1 - left2)
            if 1 - felt > _LEAST_FELT and parts == 1:  # of many parts by a v at its mean
                evenly = 1 - felt
                felt, felt_along, felt_twice = _felt(of, count, zeta, beside, integrals, crossed, squared)
                flatten(of[crossed], count, evenly, integrals[2])
                if _coupled:  # in which the weight's square is moved by these as well
                    flatten(of[WM], count, evenly, integrals[1])
                    flatten(of[squared], count, evenly, integrals[3])
                    for k in range(count + 1):
                        integrals[1, k] *= felt_along / felt
                        integrals[3, k] *= felt_twice / felt**2
            if _mixed:
                slow = overlap(of, zeta, count, tables, beside if evenly > 0.0 else 0.0)
                one += ahead * slow / (felt_along if evenly > 0.0 else 1.0)
            held = ahead if _nesterov else 1.0  # the newest gradient has no overlap with the weights
            across, update_power = across + by * felt_along * held * one, update_power + by * felt_twice * two
            four, central_four, central = fourth_moments(of, count, zeta, centre, squared)
            fourth += by * felt_twice**2 * four
            if _coupled and central > 0.0:
                about = inside**2 * max(of[WW, 0], 0.0)
                about /= gradient / dim + about + (inside * centre[0]) ** 2
                wild += by * felt_twice * about**2 * abs(central_four / (3 * central**2) - 1) * central
                if parts == 1:
                    made = leaves_normal(of, count, zeta, step * felt, one, two)
            size = felt * _mean_size(of, count, zeta, squared, tables, values) if cautious > 0.0 else 1.0
            decayed, met, of_weight, of_update, now_alike = decaying(
                cautious, False, w2, dim * across, np.sqrt(dim) * size
            )  # of the last part that of all; decay outside is never in parts
            lasting, length = outside * of_weight, (step + lr[t] * outside * of_update) * felt
            _move(of, count, centre, _coupled, lr[t], lasting, length, integrals)
            if _mixed:
                move(of, count, zeta, lr[t], lasting, length, felt, evenly, beside, tables, scratch, integrals[1])
            counts[part] = count
            if parts > 1:
                off_norm += (coarse[part] - share[part]) * (centre[0] ** 2 + of[WW, 0])
                off_power += (coarse[part] - share[part]) * felt_twice * two
        before = w2
        along = closed_forms.walk_along(lr[t], outside, decayed, step, dim * across)
        moved = closed_forms.walk_moved(lr[t], outside, decayed, step, met, dim * update_power)
        record = records[t // window]
        w2 = record_step(record, before, along, moved)

        # what is declared
        ripple = max(ripple, abs(off_power) / (2 * update_power)) if parts > 1 else 0.0
        pull_power = gradient + inside**2 * before
        lost = lr[t] * outside * (decayed / before) + step / np.sqrt(total / parts) * inside
        kept = max(1 - lost, 0.0) ** 2
        old = min(kept * before / w2, 1.0)
        follows = (homogeneity * gradient + inside**2 * before) / pull_power
        m_old, v_old = beta1**2 * m_total, beta2 * v_total
        m_total, v_total = m_old + (1 - beta1) ** 2 * pull_power, v_old + (1 - beta2) * pull_power
        m_left, v_left = m_old / m_total, v_old / v_total
        if _mixed:
            m_left = 1 - (1 - beta1 + ahead * (1 - beta3)) ** 2 * gradient / dim / rows[0, _NN, 0]
        respond(matrix, old, follows * (1 - m_left), follows * (1 - v_left), m_left, v_left)
        unlike, differ = 0.0, 0.0
        if _coupled:
            if parts == 1:
                cumulant = kept**2 * cumulant + abs(made)
                not_normal, started = cumulant / (3 * (w2 / dim) ** 2), 1.0
            else:
                started = remembered(centres, share) * dim / w2
                differ = max(unlike_neurons(rows, centres, share, point) / dim - covariance[0, 0], 0.0)
                differ = np.expm1(min(differ, 9.0)) / 2  # the root of E[1/‖w‖²], less 1, as of a log-normal law
            unlike = 2 * (wild / update_power + (1 - gradient / pull_power) * not_normal * started)
        sampled = max(2.0, fourth / update_power**2 - 1) / dim
        carry(matrix, error, covariance, half)
        doubt = doubted(cautious, lr[t] * outside, alike)
        alike = old * alike + (1 - old) * now_alike
        on_square, on_angle, masked = misjudged(
            doubt, lr[t] * outside, step, before, w2, dim * update_power, moved, dim
        )
        error[0] += 2 * (1 - old) * unlike + on_square
        covariance[0, 0] += sampled * (1 - old**2)
        radial = np.sqrt(w2) - np.sqrt(before)
        steeper = np.sqrt(moved / max(moved - radial**2, 1e-12 * moved)) if moved > 0.0 else 1.0
        spread = max(np.expm1(min(covariance[0, 0], 9.0)) / 2 - 1 / dim, 0.0)  # as of a log-normal law
        power_spread = covariance[1, 1] - 2 * covariance[1, 2] + covariance[2, 2] + sampled
        power_spread = np.expm1(min(power_spread, 9.0)) / 2 - 1 / dim
        size_error = error[1] - error[2]
        on_norm, on_update = abs(off_norm) * dim / (2 * w2), ripple + unlike
        if stopped > _LEAST_FELT and parts == 1:
            on_update += _OF_SHAPE * stopped
        elif stopped > 0.0:  # of a v of t gradients 1/√v, the weight of eps, has a logarithm at t = 1
            on_update += stopped * (1 - np.log(stopped) / (t + 1))
        record[3] += abs(homogeneity) * differ + on_norm + spread + abs(error[0]) / 2
        record[4] += differ + on_norm + on_angle + on_update * steeper + spread + abs(size_error - error[0]) / 2
        record[5] += on_update + masked + max(spread, power_spread) + abs(size_error) / 2
    return (
        parts, w2, last_filled, m_total, v_total, cumulant, not_normal, ripple, left1, left2, distance, product, alike,
    )  # fmt: skip


# Apart, since numba leaves out of AdamW's what decay inside v alone asks for, which is a third of its time to compile.
adamw = kernel(_adam, "adamw", _coupled=False, _nesterov=False, _mixed=False)
nadamw = kernel(_adam, "nadamw", _coupled=False, _nesterov=True, _mixed=False)
ademamix = kernel(_adam, "ademamix", _coupled=False, _nesterov=False, _mixed=True)
adam_l2 = kernel(_adam, "adam_l2", _coupled=True, _nesterov=False, _mixed=False)
