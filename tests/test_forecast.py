"""The second half of a run from its first: against loops, with wrong rates, and without peeking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rotsim
from rotsim import dataset, forecast
from rotsim.diagnosis import diagnose
from rotsim.forecast import FORESEEN, REACH, _Course, foresee
from rotsim.show.trace_tables import forecast_table
from rotsim.theory.rates import Rates
from tests.test_diagnosis import ADAM_L2, ADAMW, LION, RV, WHITE, made

PULLED = {"radial": 0.5, "gradient_cosine": 0.1}  # as if no normalisation followed
TILTED = {"radial": 0.5}
WINDOWS, WINDOW, DIM = 20, 500, 64
RESULTS = Path(__file__).parent.parent / "experiments" / "results"
MANY = 80  # windows, in which chance drifts less


def with_rates(trace, lr=1.0, decay=1.0):
    """The same, told that rates in the second half were so many times those of the first."""
    late = np.where(np.arange(trace.sizes["step"]) >= trace.sizes["step"] // 2 + 1, 1.0, 0.0)
    courses = {}
    for name, factor in (("lr", lr), ("weight_decay", decay)):
        constant = float(trace[name].values[0])
        course = (("parameter", "step"), (constant * factor**late)[None])
        courses |= {f"window_{name}": course, f"window_{name}_start": course}
    return trace.assign_coords(parameter=["body.weight"]).assign(courses)


def only(trace):
    (layer,) = diagnose(trace).layers
    return layer


@pytest.mark.parametrize("optimizer", [rotsim.AdamW(2e-3, 0.5), rotsim.SGDM(0.1, 2e-3), LION])
@pytest.mark.parametrize("growth", [0.0, 20.0])
@pytest.mark.parametrize("over_noise", [None, 0.6, 1.3])
def test_the_course_is_that_of_a_loop(optimizer, growth, over_noise):
    """Every step on its own, at rates that change in every step; noise adds κ times the square of a step.

    Where the optimizer gives a step its length under noise, the logarithm of the measured one over it goes with the
    root of the rate. That it did not is the control.
    """
    draw, steps, window = np.random.default_rng(0), 4000, 100
    lr = optimizer.lr * (1 + 0.5 * np.sin(np.arange(steps) / 300))
    decay = optimizer.weight_decay * np.linspace(1, 2, steps)
    added, across = draw.uniform(0.5, 2, 3), draw.uniform(0.5, 2, 3)  # at a rate of 1, per step
    share = lr * decay / (1 - optimizer.beta1) if optimizer.decay == "coupled" else lr * decay
    square, norms, turned = np.array([1.0, 4.0, 0.2]), [], []
    highest = lr.reshape(-1, window)[10:20].mean(axis=1).max()  # what lacks at higher rates was not seen
    felt = np.sqrt(np.minimum(lr, highest) / optimizer.lr)
    longer = np.ones(steps) if over_noise is None else over_noise**felt
    for t in range(steps):
        step = (across * longer[t] * lr[t]) ** 2
        square = square + added * lr[t] + growth * step - 2 * share[t] * square
        norms.append(square)
        turned.append(step / square)

    def mean(values):
        return np.sqrt(np.array(values).reshape(-1, window, 3).mean(axis=1)).T

    rates = Rates(0, lr, decay, np.full((2, steps), np.nan))
    length = np.median(across) if over_noise else np.nan
    ends = window * np.arange(1, 41)
    found, without = (
        _Course(optimizer, rates, ends, mean(norms), mean(turned), of).ahead(10, 20, 40, growth)
        for of in (length, np.nan)
    )
    np.testing.assert_allclose(found["norm"], mean(norms)[:, 20:], rtol=0.01)
    np.testing.assert_allclose(found["rotation"], mean(turned)[:, 20:], rtol=0.02)
    if over_noise:
        assert np.abs(without["rotation"] / mean(turned)[:, 20:] - 1).max() > 0.04


def test_what_lasts_is_foreseen_and_judged():
    layer = only(with_rates(made(**PULLED)))
    assert layer.verdict == "scale-sensitive" and not layer.claims
    assert layer.foreseen_outcome == "PASS" and layer.rest.claims == ("rotation", "norm")
    assert [quarter.end for quarter in layer.rest.quarters][-1] == WINDOWS * WINDOW
    assert {check.quantity: check.tolerance for check in layer.foreseen()} == FORESEEN
    applies = only(made())
    assert applies.rest is None and applies.foreseen_outcome is None


@pytest.mark.parametrize("like", [PULLED, TILTED])
@pytest.mark.parametrize("wrong", [{"lr": 1.5}, {"lr": 1 / 1.5}, {"decay": 2.0}, {"decay": 0.5}])
def test_wrong_rates_in_the_second_half_fail(wrong, like):
    """Negative control."""
    if like is PULLED and "lr" in wrong:  # what is noise may be a pull: then this is not told apart, and not claimed
        assert "the first half does not tell" in only(with_rates(made(**PULLED), **wrong)).rest.forbidden
        return
    diagnosis = diagnose(with_rates(made(**like), **wrong))
    assert [layer.foreseen_outcome for layer in diagnosis.unforeseen] == ["FAIL"]
    assert "second half of the run is foreseen from the first; 0 agree" in diagnosis.summary()


def test_the_second_half_is_not_looked_at():
    def twice(values):
        values[:, WINDOWS // 2 + 1 :] *= 2
        return values

    as_it_was = foresee(made(**PULLED), "body.weight", WINDOW)
    changed = made(rotation=twice, norm=twice, update_rms=twice, gradient_scale=twice, gradient_norm=twice, **PULLED)
    other = foresee(changed, "body.weight", WINDOW)
    assert other.forbidden == as_it_was.forbidden == ""
    for one, two in zip(as_it_was.quarters, other.quarters, strict=True):
        for quantity in FORESEEN:
            assert two.predicted(quantity) == one.predicted(quantity)
            assert two.error(quantity) > 0.5
    assert only(changed).foreseen_outcome == "FAIL"


def early(windows, factor):
    """Rotation that was so many times as fast up to there."""

    def of(values):
        values[:, :windows] *= factor
        return values

    return of


def test_what_did_not_last_in_the_first_half_is_not_claimed():
    layer = only(made(rotation=early(8, 0.8), **PULLED))
    assert layer.rest.claims == () and layer.foreseen_outcome is None and layer.rest.quarters
    missed = layer.rest.missed
    said = f"misses rotation or norm in the fourth by {missed:.0%}, more than {FORESEEN['rotation'] / REACH:.0%}"
    assert said in layer.rest.forbidden and missed > FORESEEN["rotation"] / REACH


def test_what_was_over_after_a_quarter_of_the_run_forbids_nothing():
    """Networks leave their start fast, and slow down. What was then says little of the second half."""
    assert only(made(rotation=early(6, 0.5), **PULLED)).foreseen_outcome == "PASS"


@pytest.mark.parametrize(
    ("trace", "why"),
    [
        (made(ADAM_L2, radial=lambda x: 2 * x), "Adam+L2's decay is not in proportion"),
        (made(windows=10, **PULLED), "9 windows are too few"),
    ],
)
def test_what_cannot_be_foreseen_says_why(trace, why):
    assert why in only(trace).rest.forbidden and only(trace).foreseen_outcome is None


@pytest.mark.parametrize("factor", [0.3, 0.1])
def test_a_walk_on_noise_is_foreseen_at_rates_that_it_had_not_seen(factor):
    """Half a course of white noise at one rate tells that at another: ‖w‖² goes with the rate, and not as it was."""
    steps = WINDOWS * WINDOW
    late = np.where(np.arange(1, steps + 1) <= (WINDOWS // 2 + 1) * WINDOW, 1.0, factor)
    norm = rotsim.equilibrium(ADAMW, DIM).norm
    course = rotsim.predict(ADAMW, DIM, None, steps, norm, late, record_every=WINDOW)
    told = {name: lambda values, name=name: 0 * values + course[name].values for name in dataset.QUANTITIES}
    rest = only(with_rates(made(**told, **TILTED), lr=factor)).rest
    assert rest.claims and max(rest.undecided_rotation, rest.undecided_norm) < 0.02
    for part in rest.quarters:
        assert abs(part.error("rotation")) < 0.03 and abs(part.error("norm")) < 0.03
    assert rest.quarters[-1].predicted_norm < 0.8 * norm


def worst(trace, name="body.weight"):
    """The largest error of rotation, and how far its last window is off."""
    rest = foresee(trace, name, int(trace["step"][0]))
    return max(abs(part.error("rotation")) for part in rest.quarters), abs(rest.ratio["rotation"][-1] - 1)


@pytest.mark.parametrize("factor", [1e4, 1e-4])
def test_a_window_that_does_not_turn_and_a_rate_that_jumps_leave_numbers(factor):
    """A step that lacks all of its length has no logarithm, and nothing is known of far higher rates."""
    still = only(made(rotation=lambda values: values * (np.arange(WINDOWS) != WINDOWS // 2 - 1), **PULLED)).rest
    jump = only(with_rates(made(rotation=lambda values: values * 2, **PULLED), lr=factor)).rest
    for rest in (still, jump):
        assert all(np.isfinite(part.predicted(key)) for part in rest.quarters for key in FORESEEN)


def test_networks_whose_rate_goes_to_zero(monkeypatch):
    """A cosine ends within a window: rotation is the RMS over its sampled steps, and so is the rate that it is of.

    Layers of a GPT with normalised weights (`experiments.suite`). Controls: AdamW's worst quarter is further off if
    what its step lacks stays, and the mean rate of Lion's last window is further from the RMS than rotation is.
    """
    traces = {name: dataset.load(RESULTS / "suite_gpu" / f"wngpt_{name}_cosine.nc") for name in ("adamw", "lion")}
    layers = [f"blocks.{name}.weight" for name in ("0.o", "0.v", "1.down", "1.v", "2.down", "2.v")]
    found = {name: np.median([worst(trace, layer) for layer in layers], axis=0) for name, trace in traces.items()}
    monkeypatch.setattr(forecast, "LACK", 0.0)
    without = {name: np.median([worst(trace, layer) for layer in layers], axis=0) for name, trace in traces.items()}
    assert found["adamw"][0] < 0.05 < 0.08 < without["adamw"][0]
    mean, square = (float(traces["lion"][f"window_lr_{kind}"].values[0, -1]) for kind in ("mean", "rms"))
    assert found["lion"][1] < 0.1 < 0.15 < square / mean - 1
    assert found["lion"].tolist() == without["lion"].tolist()


def test_what_may_be_a_pull_is_not_claimed_at_rates_that_it_had_not_seen():
    """Of noise alone theory knows how it goes with the rate. Three times as long weights are held by something else."""
    assert only(with_rates(made(**PULLED))).rest.undecided_norm < 1e-9
    pulled = only(with_rates(made(**PULLED), lr=0.1)).rest
    assert not pulled.claims and pulled.undecided_norm > 0.2 and "the first half does not tell" in pulled.forbidden
    longer = {"norm": lambda values: 3 * values, "rotation": lambda values: values / 3}
    assert only(with_rates(made(**longer, **PULLED), lr=0.1)).rest.claims
    assert not only(with_rates(made(**longer, **TILTED), lr=0.1)).rest.claims


def test_layers_that_are_dead_or_turned_by_hand_are_not_asked():
    assert only(made(active=0.0)).rest is None and only(made(RV)).rest is None
    assert only(made(LION, correlation=WHITE, gradient_cosine=0.125)).foreseen_outcome == "PASS"


@pytest.mark.parametrize("factor", [{"lr": 1.5}, {"weight_decay": 1.5}])
def test_a_rate_that_is_wrong_throughout_the_run_is_absorbed(factor):
    """What gradients add and how far they step is read off at that rate. Only the course of a wrong rate shows."""
    trace = with_rates(made(**PULLED))
    [(name, by)] = factor.items()
    told = {f"window_{name}{end}": trace[f"window_{name}{end}"] * by for end in ("", "_start")}
    right, wrong = only(trace), only(trace.assign(told))
    assert wrong.foreseen_outcome == right.foreseen_outcome == "PASS"
    for one, other in zip(right.rest.quarters, wrong.rest.quarters, strict=True):
        assert other.predicted("rotation") == pytest.approx(one.predicted("rotation"), rel=0.02)
        assert other.predicted("norm") == pytest.approx(one.predicted("norm"), rel=0.02)


@pytest.mark.parametrize("pace", [0.03, -0.05, 0.1])
def test_what_drifts_is_off_by_what_is_declared(pace):
    """Rotation drifts by a share of `pace` in each quarter: too much is refused, and less is declared."""
    drift = np.exp(pace * (np.arange(MANY) - MANY / 2) / (MANY / 4))
    rest = only(made(rotation=lambda values: values * drift, windows=MANY, **PULLED)).rest
    error = max(abs(part.error("rotation")) for part in rest.quarters)
    assert 0.5 * error < rest.declared("rotation") < 2 * error
    assert bool(rest.claims) == (rest.declared("rotation") <= FORESEEN["rotation"])
    still = only(made(windows=MANY, **PULLED)).rest
    assert still.declared("rotation") < 0.5 * rest.declared("rotation") and list(rest.ratio) == list(FORESEEN)
    assert rest.step.tolist() == sorted(rest.step.tolist()) and len(rest.step) == len(rest.ratio["norm"])


def test_no_forecast_has_weights_of_no_length():
    """Where gradients shorten weights so fast that nothing would be left, nothing is foreseen, or no error declared."""
    fall = np.append(np.ones(8), [0.7, 0.35])
    rest = only(made(norm=lambda values: values * np.append(fall, np.full(WINDOWS - 10, 0.3)), **PULLED)).rest
    assert not rest.quarters and "nothing would be left of them" in rest.forbidden
    pulled = made(norm=lambda values: 0.4 * values, rotation=lambda values: values / 0.4, **PULLED)
    diagnosis = diagnose(with_rates(pulled, lr=0.1))
    (rest,) = (layer.rest for layer in diagnosis.layers)
    assert rest.quarters and np.isinf(rest.declared("rotation")) and "without bound" in rest.forbidden
    row = [cell for column in forecast_table(diagnosis).columns for cell in column.cells]
    assert max(map(len, row)) < 20 and row.count("-") >= 1
    assert diagnosis.to_dict()["layers"][0]["rest"]["declared_rotation"] is None
