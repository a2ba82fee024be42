"""The learning rate of every step, read off a trace that holds first, last and averages of each window."""

import numpy as np
import pytest
import torch

from rotsim.measure import Recorder
from rotsim.theory.rates import rates_of

STEPS = 480


def recorded(rate, interval=1, window=40, windows=512, steps=STEPS):
    """The rates of a recorded run whose learning rate is that of an array, and those without averages."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.SGD([weight], lr=1.0, weight_decay=0.1)
    with Recorder({"w": weight}, optimizer, interval=interval, window=window, windows=windows, lags=0) as recorder:
        for lr in rate[:steps]:
            optimizer.param_groups[0]["lr"] = float(lr)
            weight.grad = torch.ones_like(weight)
            optimizer.step()
    trace = recorder.dataset()
    averages = [f"window_{name}_{kind}" for name in ("lr", "weight_decay") for kind in ("mean", "rms")]
    return rates_of(trace, 0), rates_of(trace.drop_vars(averages), 0)


STEP = np.arange(1, STEPS + 1)


@pytest.mark.few(5)
@pytest.mark.parametrize("at", [81, 97, 100, 119, 120])
@pytest.mark.parametrize("levels", [(1.0, 0.1), (0.01, 1.0), (1.0, 0.0)])
def test_a_jump_is_where_it_was(at, levels):
    rate = np.repeat(levels, [at - 1, STEPS + 1 - at])
    rates, blurred = recorded(rate)
    np.testing.assert_allclose(rates.lr, rate, atol=1e-9)
    np.testing.assert_allclose(rates.weight_decay, 0.1)
    if at != 81:  # at the start of a window, first and last looks tell it alone
        assert np.abs(blurred.lr - rate).sum() > 4


def test_a_jump_between_two_looks_is_known_to_within_an_interval():
    rate = np.where(STEP >= 98, 0.1, 1.0)
    rates, _ = recorded(rate, interval=5)
    assert (np.abs(rates.lr - rate) > 1e-9).sum() <= 5


@pytest.mark.few(2)
@pytest.mark.parametrize("windows", [16, 512])
@pytest.mark.parametrize(
    "rate",
    [
        0.525 + 0.475 * np.cos(np.pi * (STEP % 100) / 100),  # a restart at the last step of every fifth window
        np.minimum(STEP / 50, 1) * (0.5 + 0.5 * np.cos(np.pi * STEP / STEPS)),  # a peak inside a window
        0.05 ** (STEP / STEPS),
    ],
)
def test_the_mean_of_every_window_is_what_it_was(rate, windows):
    """Decay over a window is the sum of the rate, whatever its course; merged windows have it too."""
    rates, blurred = recorded(rate, window=20, windows=windows)
    length = 20 if windows == 512 else 40
    true, found, without = (each.reshape(-1, length).mean(axis=1) for each in (rate, rates.lr, blurred.lr))
    assert np.abs(found - true).max() < 0.02 * (length / 40) ** 2  # what falls before a restart is no line
    if rate[99] > 0.9:
        assert np.abs(without - true).max() > 0.1


@pytest.mark.parametrize("top", [87, 100, 113])
def test_the_end_of_a_warm_up_inside_a_window_is_where_it_was(top):
    """Lines that met in the middle of the window went 2 % beyond the peak."""
    rate = np.minimum(STEP / top, 1) * (0.5 + 0.5 * np.cos(np.pi * np.maximum(STEP - top, 0) / (STEPS - top)))
    rates, blurred = recorded(rate)
    assert abs(rates.lr.max() - 1) < 6e-3 and abs(int(rates.steps[np.argmax(rates.lr)]) - top) <= 2
    np.testing.assert_allclose(rates.lr, rate, atol=6e-3)
    assert np.abs(blurred.lr - rate).max() > 0.02


@pytest.mark.parametrize("rate", [1e-2, 0.3, 1e-7])
def test_a_constant_rate_is_one_number(rate):
    rates, _ = recorded(np.full(STEPS, rate), window=20)
    assert np.ptp(rates.lr) == 0 and np.ptp(rates.weight_decay) == 0


@pytest.mark.parametrize("rise", [125, 131, 137, 170])
@pytest.mark.parametrize("turned", [False, True])
def test_no_rate_is_beyond_those_that_were_seen_where_a_warm_up_ends_or_a_decay_does(rise, turned):
    """Two lines that meet in the middle of a window, as its mean says, meet above the peak, or below the last rate."""
    rate = np.minimum(STEP / rise, 1.0)
    rate = 1.1 - rate if turned else rate
    rates, _ = recorded(rate)
    assert rate.min() - 1e-9 <= rates.lr.min() and rates.lr.max() <= rate.max() + 1e-9
    found, true = (each.reshape(-1, 40).mean(axis=1) for each in (rates.lr, rate))
    np.testing.assert_allclose(found, true, rtol=0.01)  # of 40 looks, through which no line goes exactly


def test_a_peak_between_two_looks_is_above_both():
    rate = 1 - np.abs(STEP - 100.5) / 100
    rates, _ = recorded(rate)
    assert rates.lr.max() > 0.98 > rates.lr[[80, 119]].max()


def test_a_trace_without_means_has_straight_lines():
    _, blurred = recorded(np.where(STEP >= 100, 0.1, 1.0))
    np.testing.assert_allclose(blurred.lr[80:120], np.linspace(1.0, 0.1, 40))
