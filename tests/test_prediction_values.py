"""Courses, settling points and long rotations on few steps, against loops and at the bounds of their arguments."""

from __future__ import annotations

from math import acos, asin, cos, inf, nan, sqrt

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms
from rotsim.errors import InvalidInput, NoEquilibrium
from rotsim.theory.base import required_theory
from rotsim.theory.betas import mean_response
from rotsim.theory.covariance import adam_covariance
from rotsim.theory.prediction import _young, rotation_over, settling
from rotsim.theory.sign import sign_covariance

SGDM = rotsim.SGDM(lr=0.1, weight_decay=0.2, momentum=0.8)
ADAMW = rotsim.AdamW(lr=0.05, weight_decay=0.5, betas=(0.8, 0.9), eps=0.0)
LION = rotsim.Lion(lr=0.01, weight_decay=4.0)
FLAT = rotsim.ScaleInvariant(2.0)


@pytest.mark.parametrize(("steps", "every", "ends"), [(25, 10, [10, 20, 25]), (20, 10, [10, 20]), (3, 7, [3])])
@pytest.mark.parametrize("optimizer", [SGDM, rotsim.Rotational(SGDM)], ids=lambda o: o.name)
def test_a_window_is_the_root_mean_square_of_its_steps(optimizer, steps, every, ends):
    factors = np.linspace(1.0, 0.5, steps)
    options = {"steps": steps, "initial_norm": 0.7, "lr_schedule": factors, "wd_schedule": 2 * factors}
    single = rotsim.predict(optimizer, 32, FLAT, record_every=1, **options)
    course = rotsim.predict(optimizer, 32, FLAT, record_every=every, **options)
    assert single["step"].values.tolist() == list(range(1, steps + 1)) and course["step"].values.tolist() == ends
    for name in ("norm", "rotation", "update_rms"):
        first = 0
        for window, last in enumerate(ends):
            inside = single[name].values[0, first:last]
            assert course[name].values[0, window] == pytest.approx(sqrt(np.mean(inside**2)), rel=1e-9)
            errors = single[f"{name}_model_error"].values[0, first:last]
            assert course[f"{name}_model_error"].values[0, window] == pytest.approx(np.mean(errors))
            first = last
        assert (course[f"{name}_model_error"].values >= 1 / 32 - 1e-12).all()


def test_the_first_step_of_a_course_by_hand():
    """SGDM from rest: w1 = (1 - ηλ) w0 - η g, and g is orthogonal to w0: 31 of 32 coordinates of noise."""
    start, keep = 0.7, 1 - 0.1 * 0.2
    course = rotsim.predict(SGDM, 32, FLAT, steps=1, initial_norm=start)
    step = 0.1 * 2.0 / start * sqrt(31 / 32)
    assert course["norm"].values[0, 0] == pytest.approx(sqrt((keep * start) ** 2 + step**2), rel=1e-9)
    assert course["update_rms"].values[0, 0] == pytest.approx(sqrt((0.02 * start) ** 2 + step**2), rel=1e-9)
    angle = acos(keep * start / sqrt((keep * start) ** 2 + step**2))
    assert course["rotation"].values[0, 0] == pytest.approx(angle, rel=0.01)


def test_settling_is_the_equilibrium_of_the_rates_in_force():
    step, factors = np.array([1, 3, 4, 8]), np.array([0.5, 0.5, 1.0, 0.25, 0.0, 1.0, 1.0, 0.75])
    found = settling(SGDM, 32, FLAT, step, factors, 2 * factors)
    assert found["step"].values.tolist() == step.tolist()
    for i, factor in enumerate((0.5, 1.0, 0.25, 0.75)):
        rates = 0.1 * factor, 0.4 * factor
        expected = rotsim.equilibrium(SGDM.with_rates(*rates), 32, FLAT)
        assert (found["lr"].values[i], found["weight_decay"].values[i]) == pytest.approx(rates)
        assert (found["norm"].values[i], found["rotation"].values[i]) == pytest.approx(
            (expected.norm, expected.rotation)
        )
    still = settling(SGDM, 32, FLAT, np.array([4, 5]), factors[:5])
    assert np.isfinite(still["norm"].values[0]) and np.isnan(still["norm"].values[1])
    undecayed = settling(SGDM, 32, FLAT, np.array([1]), None, np.zeros(1))
    assert np.isnan(undecayed["rotation"].values[0]) and undecayed["lr"].values[0] == 0.1


def test_settling_is_interpolated_between_a_hundred_points():
    step, factors = np.arange(1, 252), np.linspace(1.0, 0.5, 251)
    found = settling(SGDM, 32, FLAT, step, factors)
    points = np.unique(np.round(np.linspace(0, 250, 100)).astype(int))
    assert len(points) == 100
    exact = [rotsim.equilibrium(SGDM.with_rates(0.1 * factors[i], 0.2), 32, FLAT).norm for i in points]
    np.testing.assert_allclose(found["norm"].values, np.interp(np.arange(251), points, exact), rtol=1e-12)
    # at half the rates it is not a straight line: the points are where they are said to be
    between = next(i for i in range(251) if i not in points)
    there = rotsim.equilibrium(SGDM.with_rates(0.1 * factors[between], 0.2), 32, FLAT).norm
    assert abs(found["norm"].values[between] / there - 1) > 1e-9


@pytest.mark.parametrize("step", [[0, 1], [2, 1], [1, 1], [1.5], [], [[1]], [nan], [inf]])
def test_steps_to_settle_at_are_rising_whole_numbers(step):
    with pytest.raises(InvalidInput, match=r"`step` must be rising whole numbers >= 1"):
        settling(SGDM, 32, FLAT, np.array(step))


@pytest.mark.parametrize("lag", [0, 1, 2, 7, 60])
@pytest.mark.parametrize("optimizer", [ADAMW, LION], ids=lambda o: o.name)
def test_the_angle_over_a_lag_is_that_of_the_weights_autocorrelation(optimizer, lag):
    """w_t = Σ_i κ^i u_{t-i}: its autocovariance as a double sum over that of the update."""
    kept = 1 - optimizer.lr * optimizer.weight_decay
    covariance = (adam_covariance if optimizer is ADAMW else sign_covariance)(*optimizer.betas)
    terms = np.arange(1500)
    at = np.array([covariance.lag_0, *((covariance.weights * covariance.roots**k).sum() for k in terms[1:])])
    reach = 400  # κ^400 is nothing
    powers = kept ** np.arange(reach)
    apart = np.abs(np.subtract.outer(np.arange(reach), np.arange(reach)))
    shifted = np.abs(np.subtract.outer(np.arange(reach), np.arange(reach) + lag))
    correlation = (powers @ at[shifted] @ powers) / (powers @ at[apart] @ powers)
    assert rotation_over(optimizer, 32, lag) == pytest.approx(acos(min(correlation, 1.0)), rel=1e-6, abs=1e-6)
    if lag == 1:
        many = 10**6  # coordinates, among which no single one moves the angle
        expected = rotsim.equilibrium(optimizer, many).rotation
        assert rotation_over(optimizer, many, 1) == pytest.approx(expected, rel=1e-6)


def test_the_angle_over_a_step_of_sgdm_is_its_rotation():
    assert rotation_over(SGDM, 32, 0) == pytest.approx(0.0, abs=1e-9)
    assert rotation_over(SGDM, 32, 1) == pytest.approx(rotsim.equilibrium(SGDM, 32).rotation, rel=1e-9)


def test_what_has_no_angle_over_a_lag():
    with pytest.raises(NoEquilibrium, match="`weight_decay` must be > 0"):
        rotation_over(rotsim.SGDM(0.1, 0.0), 32, 5)
    assert rotation_over(rotsim.SGDM(0.1, 1.0, momentum=0.0), 32, 5) > 0
    with pytest.raises(InvalidInput, match="`lag` must be >= 0"):
        rotation_over(SGDM, 32, -1)
    with pytest.raises(InvalidInput, match="`dim` must be >= 3; got 2"):
        rotation_over(SGDM, 2, 1)
    assert rotation_over(SGDM, 3, 1) > 0


@pytest.mark.parametrize(
    ("optimizer", "limit"),
    [
        (rotsim.AdamW(0.5, 1.0), 1.0),
        (rotsim.Lion(0.5, 1.0), 1.0),
        (rotsim.SGDM(0.5, 1.0, momentum=0.5), 3.0),
        (rotsim.Rotational(rotsim.SGDM(0.5, 1.0, momentum=0.5)), 3.0),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_a_schedule_may_not_push_decay_past_what_the_spec_allows(optimizer, limit):
    factors = np.ones(3)
    factors[1] = 2 * limit
    with pytest.raises(InvalidInput, match=rf"keep lr \* weight_decay < {limit:g} at every step"):
        rotsim.predict(optimizer, 8, steps=3, lr_schedule=factors)
    factors[1] *= 0.999
    assert rotsim.predict(optimizer, 8, steps=3, lr_schedule=factors).sizes["step"] == 1


def test_the_share_of_the_start_lessens_the_spread_of_the_angle():
    """Only under white noise, whose norms differ: Π z² of the given start, averaged over the window.

    Here z is the slow root of z² - (1+α-ηλ)z + α.
    """
    law, start, last = rotsim.Isotropic(1.0).power(16), 0.7, np.array([2, 5])
    decay, norm = np.array([0.01, 0.02, 0.005, 0.03, 0.01]), np.array([1.5, 0.9])
    rates = decay / 0.1, np.full(5, 0.1)
    for optimizer, momentum in ((rotsim.SGDM(0.1, 0.2, momentum=0.5), 0.5), (ADAMW, 0.0)):
        left, square = [], 1.0
        for d in decay:
            square *= max(np.roots([1, d - 1 - momentum, momentum])) ** 2
            left.append(square)
        shares = [start**2 * np.mean(part) / n**2 for part, n in zip((left[:2], left[2:]), norm, strict=True)]
        expected = [closed_forms.young_angle_spread(16, min(1.0, share)) for share in shares]
        np.testing.assert_allclose(
            _young(required_theory(optimizer), 16, law, start, *rates, norm, last), expected, rtol=1e-12
        )
        whole = _young(required_theory(optimizer), 16, law, 9.0, *rates, norm, last)  # no more than all of it
        assert whole[0] == pytest.approx(closed_forms.young_angle_spread(16, 1))
    assert _young(required_theory(ADAMW), 16, FLAT.power(16), start, *rates, norm, last).tolist() == [1.0, 1.0]
    cautious = required_theory(rotsim.Cautious(ADAMW))  # whose decay depends on more
    assert _young(cautious, 16, law, start, *rates, norm, last).tolist() == [1.0, 1.0]
    coupled = required_theory(rotsim.AdamL2(0.1, 0.2, eps=0.0))
    found = _young(coupled, 16, law, start, *rates, norm, last)
    v = 1 + (0.1 * norm / 4) ** 2  # whose root divides the pull
    kept = np.cumprod(1 - decay * mean_response(*coupled.spec.betas)[0] / np.sqrt(np.repeat(v, (2, 3)))) ** 2
    shares = [start**2 * np.mean(part) / n**2 for part, n in zip((kept[:2], kept[2:]), norm, strict=True)]
    np.testing.assert_allclose(found, [closed_forms.young_angle_spread(16, min(1.0, share)) for share in shares])


def test_isotropic_noise_spreads_the_angle_and_what_is_given_does_not():
    """A first step from a given start turns by the angle of a Gaussian of that length: no norm differs yet."""
    optimizer, dim = rotsim.SGDM(lr=0.01, weight_decay=0.01, momentum=0.0), 64
    course = rotsim.predict(optimizer, dim, rotsim.Isotropic(1.0), steps=1, initial_norm=50.0)
    across = 0.01 * sqrt(dim - 1) / 50.0
    assert course["rotation"].values[0, 0] == pytest.approx(across, rel=2e-3)
    assert cos(2 * asin(across / 2)) < 1
