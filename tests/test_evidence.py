"""The evidence of a layer, number by number, against plain loops over a trace of random numbers."""

from __future__ import annotations

import itertools
from math import log, nan, sqrt

import numpy as np
import pytest
from scipy import stats

import rotsim
from rotsim import dataset
from rotsim.balance import balance
from rotsim.evidence import gather
from rotsim.quarters import parts_of
from rotsim.theory import courses
from rotsim.theory.base import required_theory
from rotsim.theory.courses import Influence, course
from rotsim.theory.influences import memory
from rotsim.theory.rates import Rates
from rotsim.theory.traces import predict_layer, predict_trace

OPTIMIZERS = {
    "adamw": rotsim.AdamW(lr=2e-3, weight_decay=0.5, betas=(0.9, 0.95)),
    "adam_l2": rotsim.AdamL2(lr=2e-3, weight_decay=1e-2, betas=(0.9, 0.95)),
    "sgdm": rotsim.SGDM(lr=0.1, weight_decay=1e-2, momentum=0.8),
    "lion": rotsim.Lion(lr=2e-4, weight_decay=5.0),
}
DIM, WINDOWS, LENGTH = 64, 21, 500
LATE = range(1, WINDOWS)  # a trace without the norm at the start begins at the end of its first window


def random_trace(optimizer, neurons=12, seed=0, **more):
    """Everything that a recorder writes, at random; layer "a" and a single row of "b"."""
    draw, shape = np.random.default_rng(seed), (neurons, WINDOWS)
    theory = rotsim.equilibrium(optimizer, DIM)
    levels = np.exp(0.03 * draw.standard_normal((neurons, 1)))
    noise = {
        name: levels ** (1 + i % 3) * np.exp(0.02 * draw.standard_normal(shape)) for i, name in enumerate("abcdefg")
    }
    variables = {
        "norm": theory.norm * noise["a"],
        "rotation": theory.rotation * noise["b"],
        "update_rms": 1.05 * theory.update_rms * noise["c"],
        "gradient_norm": noise["d"] / theory.norm,
        "gradient_scale": noise["e"],
        "gradient_cosine": 0.02 * noise["f"],
        "gradient_burst": 1.3 * noise["g"],
        "active": np.full(shape, 0.9),
        "radial": 0.1 * optimizer.weight_decay * draw.standard_normal(shape) + 0.02 * optimizer.weight_decay,
    }
    if optimizer.name == "adam_l2":  # the decay itself, divided by √v
        variables["radial"] += optimizer.weight_decay * sqrt(DIM) * theory.norm
    for name, change in more.items():
        variables[name] = change(variables[name])
    return dataset.build(
        "trace",
        step=LENGTH * np.arange(1, WINDOWS + 1),
        variables=variables,
        optimizer=optimizer,
        layer=np.array(["a"] * (neurons - 1) + ["b"]),
        fan_in=DIM,
        spec={},
    ).assign_coords(
        lr=("neuron", np.full(neurons, optimizer.lr)), weight_decay=("neuron", np.full(neurons, optimizer.weight_decay))
    )


def rms(values):
    return sqrt(sum(x * x for x in values) / len(values))


def between_two(norm):
    """At the end of the first window."""
    return np.sqrt(norm[:, 0] * norm[:, 1])


def noise_of(series, theory, scatter_of=None):
    """Relative standard error of a median over rows, from their middle spread and second differences in time."""
    every = series / theory if scatter_of is None else scatter_of
    course = [np.median(every[:, t]) for t in range(every.shape[1])]
    bends = [abs(a - 2 * b + c) for a, b, c in zip(course, course[1:], course[2:], strict=False)]
    along = 1.4826 * np.median(bends) / sqrt(6 * series.shape[1])
    low, high = np.quantile([rms(row) / rms(p) for row, p in zip(series, theory, strict=True)], [0.16, 0.84])
    across = 1.2533 * (high - low) / 2 / sqrt(len(series))
    degrees = (along**2 + across**2) ** 2 / (across**4 / (len(series) - 1) + 2 * along**4 * 1.36 / len(bends))
    return sqrt(along**2 + across**2) * stats.t.isf(stats.norm.sf(3), degrees) / 3


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_number_of_a_layer_against_loops(kind):
    optimizer = OPTIMIZERS[kind]
    trace, here = random_trace(optimizer), slice(0, 11)
    e, other = gather(trace)
    v = {name: trace[name].values[here] for name in trace.data_vars}
    late = {name: values[:, LATE] for name, values in v.items()}
    predicted = predict_layer(trace, "a")
    theory = {name: predicted.values[i][:, LATE] for i, name in enumerate(dataset.QUANTITIES)}
    assert (e.layer, other.layer, e.fan_in, e.neurons, e.dead, e.lost) == ("a", "b", DIM, 11, 0, 0)
    assert (other.neurons, other.windows, e.windows, e.recorded_from) == (1, WINDOWS - 1, WINDOWS - 1, LENGTH)
    assert (e.lr, e.weight_decay, e.scheduled) == (optimizer.lr, optimizer.weight_decay, False)
    for name in ("rotation", "norm"):
        assert getattr(e, f"predicted_{name}") == pytest.approx(np.median([rms(row) for row in theory[name]]))
        assert getattr(e, f"measured_{name}") == pytest.approx(np.median([rms(row) for row in late[name]]))
    assert e.ratio == e.measured_rotation / e.predicted_rotation and e.norm_ratio == e.measured_norm / e.predicted_norm
    relative = theory["rotation"] / e.predicted_rotation
    assert e.rotation_error == pytest.approx(noise_of(late["rotation"], relative))
    turned = np.array([rms(row) for row in late["rotation"]])
    assert e.spread == pytest.approx(turned.std() / turned.mean())
    close = [abs(x / rms(p) - 1) <= 0.1 for x, p in zip(turned, theory["rotation"], strict=True)]
    assert e.within == pytest.approx(sum(close) / 11)

    # what of the update is along the weights
    pace = {t: np.gradient(late["norm"], LENGTH, axis=1)[:, t - 1] for t in LATE}

    def share_along(windows):
        def across(row):
            turned = [(v["norm"][row, t] * v["rotation"][row, t]) ** 2 + pace[t][row] ** 2 for t in windows]
            return np.mean(turned) / rms(v["update_rms"][row, windows]) ** 2

        return np.median([max(0.0, 1 - across(row)) for row in range(11)])

    assert e.along == pytest.approx(share_along(LATE)) and e.along > 0
    # the radial part, each window by its share of ‖w‖²
    square = late["norm"] ** 2
    share = late["radial"] * square / square.mean(axis=1, keepdims=True) / optimizer.weight_decay
    if kind == "adam_l2":
        share = np.array([row * rms(g) / sqrt(DIM) - 1 for row, g in zip(share, late["gradient_norm"], strict=True)])
    assert e.radial == pytest.approx(np.median([np.mean(row) for row in share]))
    course = share.mean(axis=0)
    assert e.radial_error == pytest.approx(np.std(course) / sqrt(len(course)))
    assert e.norm_change == pytest.approx(np.median([row[-1] / row[0] for row in late["norm"]]))
    assert e.cosine == pytest.approx(np.median([rms(row) for row in late["gradient_cosine"]]) * sqrt(DIM))
    # the quarters of the steps after the start, at the end of the first window
    bounds = [LENGTH + (WINDOWS - 1) * LENGTH * k / 4 for k in range(5)]
    assert [(q.start, q.end) for q in e.quarters] == [(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
    bursts = []
    for quarter, low, high in zip(e.quarters, bounds[:-1], bounds[1:], strict=True):
        part = [t for t in LATE if low < LENGTH * (t + 1) <= high]
        for name, i in (("rotation", 1), ("norm", 0)):
            expected = [rms(row) for row in predicted.values[i][:, part]]
            ratio = np.median([rms(row) / p for row, p in zip(v[name][:, part], expected, strict=True)])
            assert quarter.predicted(name) == pytest.approx(np.median(expected))
            assert quarter.error(name) == pytest.approx(ratio - 1)
            every = late[name] / theory[name]
            assert quarter.noise(name) == pytest.approx(noise_of(v[name][:, part], predicted.values[i][:, part], every))
            middle = np.median(predicted.values[i][:, part], axis=0)
            factor = rms(predicted.pulled[i][part] * middle) / rms(middle)
            if kind != "lion" and name == "rotation":
                factor *= sqrt(1 - share_along(part))
            assert quarter.corrected(name) == pytest.approx(quarter.predicted(name) * factor)
            assert getattr(quarter, f"remembered_{name}") == 1.0  # no memory was recorded
        scale, inside = v["gradient_scale"][:, part], v["gradient_burst"][:, part]
        level = [log(np.median(column)) for column in scale.T]
        slope = np.median([(level[j] - level[i]) / (j - i) for j in range(len(part)) for i in range(j)])
        scale = scale * np.exp(-slope * np.arange(len(part)))  # what all do in time is followed
        bursts.append(np.median([np.mean(b * s**4) / np.mean(s**2) ** 2 for b, s in zip(inside, scale, strict=True)]))
        assert quarter.burst == pytest.approx(bursts[-1])
    assert e.burst == pytest.approx(max(bursts))
    for name in ("rotation", "norm"):
        worst = max(e.quarters, key=lambda quarter, name=name: abs(quarter.error(name)))
        assert e.worst(name) == worst
    if kind == "lion":
        assert np.isnan(e.corrected_rotation)
    else:
        factors = [quarter.corrected("rotation") / quarter.predicted("rotation") for quarter in e.quarters]
        assert e.corrected_rotation == pytest.approx(e.predicted_rotation * np.mean(factors))
    assert np.isnan([e.signal, e.rotation_factor, e.burst_rotation, e.overlap]).all()
    # what a figure shows: window by window over neurons, and neuron by neuron over windows
    assert e.curves.step.tolist() == [LENGTH * (t + 1) for t in LATE]
    for name, i in (("rotation", 1), ("norm", 0)):
        middle = [np.median(predicted.values[i][:, t]) for t in LATE]
        assert e.curves.measured[name] == pytest.approx([np.median(v[name][:, t]) for t in LATE])
        assert e.curves.predicted[name] == pytest.approx(middle)
        assert e.curves.corrected[name] == pytest.approx(predicted.pulled[i][LATE] * middle)
        ratio = [np.median(v[name][:, t] / predicted.values[i][:, t]) for t in LATE]
        assert e.curves.ratio[name] == pytest.approx(ratio)
        rows = zip(late[name], theory[name], strict=True)
        assert e.curves.neurons[name] == pytest.approx([rms(row) / rms(p) for row, p in rows])
    # relaxation and way at the gradient of the tenth largest
    scale = rotsim.ScaleInvariant(float(np.quantile([rms(row) for row in late["gradient_scale"]], 0.9)))
    assert e.relaxation_steps == rotsim.equilibrium(optimizer, DIM, scale).relaxation_steps
    start = float(np.median(between_two(v["norm"])))
    way = rotsim.steps_to_equilibrium(optimizer, dim=DIM, gradient=scale, initial_norm=start, within=0.05)
    assert e.steps_needed == max(e.relaxation_steps, way)


def test_a_row_that_does_not_move_has_no_share_along():
    def stopped(values):
        values[:3] = 0.0
        return values

    trace = random_trace(OPTIMIZERS["adamw"], rotation=stopped, update_rms=stopped)
    whole = random_trace(OPTIMIZERS["adamw"]).isel(neuron=slice(3, 12))
    assert gather_first(trace).along == pytest.approx(gather_first(whole).along)


@pytest.mark.parametrize(
    ("norms", "initial", "start"),
    [
        ((1.0, 1.0, 1.0), 0.7, 0),  # grows 1.43-fold within the first window
        ((1.0, 1.0, 1.0), 0.6, 1),  # 1.67-fold: its gradients may have collapsed as it grew
        ((1.0, 1.0, 1.0), 2.4, 0),  # decay takes what it takes
        ((1.0, 1.0, 1.0), 2.6, 1),
        ((1.0, 1.19, 1.19), None, 1),
        ((1.0, 3.8, 3.3), None, 2),  # between the first two windows the norm may be anything
        ((1.0, 3.8, 2.2), 0.3, 3),  # the norm before the first step is of no use, and nor are two windows
        ((1.0, 1.3, 1.0), None, 3),
    ],
)
def test_a_course_starts_where_its_norm_is_known(norms, initial, start):
    """At the first step, or between the first two windows whose norms are within 20 %."""

    def moved(values):
        values[:, : len(norms)] = norms
        values[:, len(norms) :] = norms[-1]
        return values

    trace = random_trace(OPTIMIZERS["sgdm"], norm=moved)
    if initial:
        neurons = trace.sizes["neuron"]
        trace = trace.assign_coords(
            initial_norm=("neuron", np.full(neurons, initial)), initial_step=("neuron", np.zeros(neurons))
        )
    found = predict_layer(trace, "a")
    assert found.rates.start == LENGTH * start and found.first == start
    expected = initial if not start else np.sqrt(np.prod([*norms, norms[-1]][start - 1 : start + 1]))
    assert found.start_norm == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reached", "found"),
    [
        (lambda x: 0.3 * x + 0.4, 2.0),  # a lead forgets, but not all
        (lambda x: np.sqrt(x) + 1 - np.sqrt(1.5), 1.5),
        (lambda x: 0.9, None),  # it forgets all
        (lambda x: 0.01 * x, None),  # it would have to come from afar
        (lambda x: np.nan, None),
    ],
)
def test_the_norm_that_a_lead_starts_from(reached, found):
    wanted = courses._meeting(1.0, reached)
    assert np.isnan(wanted) if found is None else wanted == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize(("factor", "steps"), [(3.0, 1.0), (1.0, 0.0), (0.9, 0.0), (30.0, 1.0)])
def test_a_way_longer_than_the_run_is_estimated(factor, steps):
    """By the slow mode, from the square of the norm; at least a relaxation."""
    optimizer = rotsim.SGDM(lr=0.1, weight_decay=1e-5, momentum=0.8)
    theory = rotsim.equilibrium(optimizer, DIM, rotsim.ScaleInvariant(1.0))
    flat = {name: lambda x: np.ones_like(x) for name in ("gradient_scale", "update_rms")}
    e, _ = gather(random_trace(optimizer, norm=lambda x: np.full_like(x, factor * theory.norm), **flat))
    assert e.relaxation_steps == pytest.approx(theory.relaxation_steps) and e.relaxation_steps > LENGTH * WINDOWS / 2
    expected = max(1.0, log(max(abs(factor**2 - 1), 1e-9) / 0.1)) if steps else 1.0
    assert e.steps_needed == pytest.approx(theory.relaxation_steps * expected)
    assert (e.steps_needed > theory.relaxation_steps) == (factor != 1.0 and expected > 1)
    still, _ = gather(random_trace(optimizer, norm=np.zeros_like, radial=lambda x: x * nan, **flat))
    assert np.isnan([still.relaxation_steps, still.steps_needed, still.norm_change]).all()


@pytest.mark.parametrize(("run", "followed"), [(1.02, True), (0.98, False)])
def test_a_way_is_followed_where_two_relaxations_fit_the_run(run, followed):
    """The run ends with its last window; that of the window before would be 5 % shorter."""
    optimizer, factor = rotsim.SGDM(lr=0.1, weight_decay=1e-4, momentum=0.8), 3.0
    gradient = rotsim.ScaleInvariant(1.0)
    theory = rotsim.equilibrium(optimizer, DIM, gradient)
    flat = {name: np.ones_like for name in ("gradient_scale", "update_rms")}
    trace = random_trace(optimizer, norm=lambda x: np.full_like(x, factor * theory.norm), **flat)
    length = round(run * 2 * theory.relaxation_steps / WINDOWS)
    found = gather_first(trace.assign_coords(step=length * np.arange(1, WINDOWS + 1))).steps_needed
    way = rotsim.steps_to_equilibrium(optimizer, DIM, gradient, initial_norm=factor * theory.norm, within=0.05)
    estimate = theory.relaxation_steps * log((factor**2 - 1) / 0.1)
    assert found == pytest.approx(way if followed else estimate) and abs(way - estimate) > 2


def test_a_part_in_which_nothing_should_turn():
    """There is no ratio to a prediction of 0: what was measured stands by itself."""
    step, level = 10 * np.arange(1, 9), np.where(np.arange(8) < 4, 2.0, 0.0) * np.ones((3, 1))
    still = {"rotation": level, "norm": np.ones((3, 8))}
    moved = still | {"rotation": np.full((3, 8), 2.0) * np.array([[1.0], [3.0], [5.0]])}
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = parts_of(0, step, still, still, 2)
        _, turned = parts_of(0, step, moved, still, 2)
    assert (first.measured_rotation, first.error("rotation")) == (2.0, 0.0)
    assert (second.measured_rotation, second.predicted_rotation, second.error("rotation")) == (0.0, 0.0, 0.0)
    assert turned.measured_rotation == 6.0 and turned.error("rotation") == np.inf


def test_rows_that_are_dead_or_lost_and_windows_that_they_lack_do_not_count():
    optimizer = OPTIMIZERS["adamw"]

    def norm(values):
        values[0, 10] = nan  # 19 of 20 windows: complete enough, and its window is left out
        values[1, 12:15] = nan  # 17 of 20: lost
        return values

    def active(values):
        values[3, 10:] = 0.49
        values[4, 10:] = 0.5
        values[5, :10] = 0.0  # of the last half it is asked alone
        values[1] = 0.0  # lost, and not dead besides
        return values

    trace = random_trace(optimizer, norm=norm, active=active)
    e, _ = gather(trace)
    assert (e.neurons, e.dead, e.lost, e.windows) == (11, 1, 1, 19)
    rows, windows = [0, 2, 4, 5, 6, 7, 8, 9, 10], [t for t in LATE if t != 10]
    kept = trace["rotation"].values[rows][:, windows]
    assert e.measured_rotation == pytest.approx(np.median([rms(row) for row in kept]))
    predicted = predict_trace(trace)["rotation"].values
    assert e.predicted_rotation == pytest.approx(np.median([rms(row) for row in predicted[rows][:, windows]]))
    assert np.isnan(predicted[3]).all() and np.isnan(predicted[:, 0]).all()
    # a layer that joined late has a course, and quarters, of its own
    late = random_trace(optimizer, norm=lambda x: np.where(np.arange(WINDOWS) < 8, nan, x))
    e, _ = gather(late)
    assert (e.lost, e.recorded_from, e.windows) == (0, 9 * LENGTH, 12)
    assert e.quarters[0].start == 9 * LENGTH and e.quarters[-1].end == WINDOWS * LENGTH
    never, _ = gather(random_trace(optimizer, norm=lambda x: np.full_like(x, nan)))
    assert (never.lost, never.recorded_from, never.windows, never.quarters) == (11, WINDOWS * LENGTH, 0, ())
    assert np.isnan(never.measured_rotation) and np.isnan(never.predicted_norm) and never.lr == optimizer.lr


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_the_recorded_averages_make_is_in_the_course(kind):
    """‖Δw‖ = η√C·√E(m/√v)² = θ‖w‖ for AdamW, ‖w‖⁴ ∝ E m²/E g² for SGDM; else by the autocorrelation."""
    optimizer, correlation = OPTIMIZERS[kind], 0.9 ** np.arange(41.0)
    bare, theory = random_trace(optimizer).assign_coords(parameter=["other", "a"]), required_theory(optimizer)
    plain = bare.assign(gradient_autocorrelation=(("parameter", "lag"), np.stack([np.full(41, nan), correlation])))
    e, other = gather(plain)
    turned, grown = theory.correlation_factors(correlation)
    assert e.rotation_factor == turned and e.signal == pytest.approx(np.mean(correlation[30:]))
    assert np.isnan(other.signal) and other.quarters[-1].remembered_norm == 1.0
    last = gather_first(plain).quarters[-1]
    assert (last.remembered_norm, last.remembered_rotation) == pytest.approx((grown, turned), rel=0.02)
    assert last.predicted_norm / gather_first(bare).quarters[-1].predicted_norm == pytest.approx(grown, rel=0.02)
    assert np.isnan(gather_first(plain.assign(gradient_autocorrelation=plain["gradient_autocorrelation"] * nan)).signal)
    if kind in ("adamw", "sgdm"):
        last = gather_first(plain.assign(square_step=(("parameter",), [nan, 0.03]))).quarters[-1]
        rest = rotsim.equilibrium(optimizer, DIM)
        expected = optimizer.lr * sqrt(DIM * 0.03) / rest.norm / rest.rotation
        if kind == "sgdm":
            expected = (0.03 * 1.8 / 0.2) ** 0.25
        assert last.remembered_norm == pytest.approx(expected, rel=0.02)
        assert last.remembered_rotation == pytest.approx(1.0, abs=0.01)
    # era by era: a memory of the first half is forgotten in the last quarter, where that is long enough
    eras = np.stack([np.full((2, 41), nan), np.stack([correlation, np.eye(1, 41)[0]])])
    told = plain.assign_coords(era=[5 * LENGTH, 10 * LENGTH]).assign(
        era_autocorrelation=(("parameter", "era", "lag"), eras)
    )
    first, *_, last = gather_first(told).quarters
    assert abs(last.remembered_norm - 1) < 0.3 * abs(first.remembered_norm - 1)
    # in a straight line from the middle of an era to that of the next, and every window has the mean of its steps
    last_of_first = 5 * LENGTH // 2
    factors = memory(told.assign_coords(era=[last_of_first, WINDOWS * LENGTH]), "a", theory, DIM).norm
    middles = last_of_first / 2, (last_of_first + WINDOWS * LENGTH) / 2
    steps = [1 + (grown - 1) * min(1, max(0, (middles[1] - t - 0.5) / (middles[1] - middles[0])))
             for t in range(WINDOWS * LENGTH)]  # fmt: skip
    np.testing.assert_allclose(factors, np.reshape(steps, (WINDOWS, LENGTH)).mean(axis=1), rtol=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_shares_are_of_the_decay_of_the_layer_not_of_another_group(kind):
    trace = random_trace(OPTIMIZERS[kind])
    trace["weight_decay"].values[0:11] *= 0.5
    whole = gather_first(random_trace(OPTIMIZERS[kind]))
    half = gather_first(trace)
    assert half.radial + (kind == "adam_l2") == pytest.approx(2 * (whole.radial + (kind == "adam_l2")))
    trace["weight_decay"].values[0:11] = 0.0
    for rotational in (False, True):
        if rotational and kind == "adam_l2":
            continue  # has no rotational variant
        optimizer = rotsim.Rotational(OPTIMIZERS[kind]) if rotational else OPTIMIZERS[kind]
        none = gather_first(trace.assign_attrs(optimizer=_attribute(optimizer)))
        assert np.isnan([none.radial, none.radial_error, none.steps_needed]).all()
        assert none.predicted_norm > 1.2 * none.quarters[0].predicted_norm  # noise alone lets it grow


def gather_first(trace):
    return next(iter(gather(trace)))


def test_a_rotational_variant_keeps_the_norm_it_has():
    optimizer = rotsim.Rotational(OPTIMIZERS["adamw"])
    trace = random_trace(OPTIMIZERS["adamw"]).assign_attrs(
        random_trace(OPTIMIZERS["adamw"]).attrs | {"optimizer": _attribute(optimizer)}
    )
    e = gather_first(trace)
    assert e.predicted_norm == pytest.approx(np.median(between_two(trace["norm"].values[:11])))
    assert (e.relaxation_steps, e.steps_needed) == (0.0, 0.0) and np.isnan(e.corrected_rotation)


def _attribute(optimizer):
    import json

    return json.dumps(optimizer.to_dict())


# --- balance ---------------------------------------------------------------------------------------


def test_balance_counts_live_finite_rows_of_two_weights_over_the_last_half():
    rotation = np.ones((6, 5)) * np.array([1.0, 2.0, 4.0, 9.0, 9.0, 9.0])[:, None]
    rotation[:, :2] = 100.0  # windows 2, 3 and 4 are the last half
    rotation[3, 3] = nan
    active = np.ones((6, 5))
    active[1, 3:] = [0.5, 0.0]  # half of the time
    active[4, 3:] = [0.49, 0.0]
    trace = dataset.build(
        "trace",
        step=np.arange(1, 6),
        variables={"norm": np.ones((6, 5)), "rotation": rotation, "update_rms": np.ones((6, 5)), "active": active},
        optimizer=OPTIMIZERS["sgdm"],
        layer=np.array(list("aabbcc")),
        fan_in=np.array([2, 2, 2, 2, 2, 1]),
        spec={},
    )
    found = balance(trace)
    assert found.rotation == {"a": 1.5, "b": 4.0}
    assert found.across_layers == pytest.approx(4.0 / 1.5) and found.within_layers == pytest.approx((1 / 3 + 0) / 2)
    rotation[:, 2:] = np.array([3.0, 4.0, 0.0, 0.0, 0.0, 0.0])[:, None]  # what does not turn does not count
    assert balance(trace.assign(rotation=(("neuron", "step"), rotation))).rotation == {"a": 3.5}
    with pytest.raises(rotsim.InvalidInput, match="no neuron of the trace turns"):
        balance(trace.assign(rotation=(("neuron", "step"), 0 * rotation)))
    with pytest.raises(rotsim.InvalidInput, match="needs a recorded trace; got a simulation"):
        balance(trace.assign_attrs(source="simulation"))


def loop(kind, lr, decay, betas, w, size, draw):
    """Squares of norms and of angles, shape (steps, rows), of weights under the rule of an optimizer.

    Gradients are noise across the weights; `size`, shape (steps,) or (steps, rows), is theirs times the norm.
    """
    (beta1, beta2), m, v, norms, turned = betas, 0.0, 0.0, [], []
    for t in range(1, len(size) + 1):
        g = draw.normal(size=w.shape) / w.shape[1] ** 0.5
        square = (w**2).sum(axis=1, keepdims=True)
        g = (g - (g * w).sum(axis=1, keepdims=True) / square * w) * np.reshape(size[t - 1], (-1, 1)) / np.sqrt(square)
        g = g if kind == "adamw" else g + decay * w
        if kind == "sgdm":
            m = beta1 * m + g
            new = w - lr * m
        else:
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            kept = 1 - lr * decay if kind == "adamw" else 1.0
            new = w * kept - lr * m / (1 - beta1**t) / np.sqrt(v / (1 - beta2**t))
        cosine = (w * new).sum(axis=1) / np.sqrt(square[:, 0]) / np.linalg.norm(new, axis=1)
        turned.append(np.arccos(np.minimum(cosine, 1)) ** 2)
        w = new
        norms.append((w**2).sum(axis=1))
    return np.array(norms), np.array(turned)


def rms_of_windows(squares, window):
    """Root mean squares over windows, shape (rows, windows), of what has shape (steps, rows)."""
    return np.sqrt(squares.reshape(-1, window, squares.shape[1]).mean(axis=1)).T


@pytest.mark.parametrize("coupled", [False, True])
def test_v_remembers_gradients_over_the_norms_that_they_met(coupled):
    """Gradients fall by a factor of 50 while weights shrink by 3: a loop of Adam's rule on noise, by the course."""
    steps, window, rows, dim, beta1, beta2 = 1600, 50, 48, 48, 0.9, 0.999
    lr, decay = 0.01, 1e-5 if coupled else 0.1
    draw, size = np.random.default_rng(6), np.exp(-np.log(50) * np.arange(steps) / steps)
    w = draw.normal(size=(rows, dim))
    w *= 3.0 / np.linalg.norm(w, axis=1, keepdims=True)
    start = np.linalg.norm(w, axis=1)
    norms, turned = loop("adam_l2" if coupled else "adamw", lr, decay, (beta1, beta2), w, size, draw)
    kind = rotsim.AdamL2 if coupled else rotsim.AdamW
    rates = Rates(0, np.full(steps, lr), np.full(steps, decay), np.full((2, steps), np.nan))
    scale = np.sqrt((size**2).reshape(-1, window).mean(axis=1)) * np.ones((rows, 1))
    ends = window * np.arange(1, steps // window + 1)
    found = course(kind(lr, decay, (beta1, beta2), 0.0), dim, rates, ends, start, scale, Influence())
    np.testing.assert_allclose(np.median(rms_of_windows(norms, window) / found[0], axis=0), 1, atol=0.03)
    np.testing.assert_allclose(np.median(rms_of_windows(turned, window) / found[1], axis=0)[1:], 1, atol=0.08)


@pytest.mark.parametrize("kind", ["adamw", "adam_l2", "sgdm"])
def test_each_neuron_follows_the_size_of_its_own_gradients(kind):
    """Half of the rows come to life as the others die: a loop of the rule on noise, by the course of each half."""
    steps, window, rows, dim, beta1, beta2 = 1600, 40, 64, 48, 0.9, 0.99
    lr, decay = {"adamw": (0.01, 0.2), "adam_l2": (0.01, 4e-3), "sgdm": (0.1, 8e-3)}[kind]
    draw, late = np.random.default_rng(7), (np.arange(rows) % 2)[:, None]
    size = np.exp(np.where(late, 1, -1) * np.linspace(-1.2, 1.2, steps))
    w = draw.normal(size=(rows, dim))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    start = np.linalg.norm(w, axis=1)
    norms, turned = loop(kind, lr, decay, (beta1, beta2), w, size.T, draw)
    optimizer = (
        rotsim.SGDM(lr, decay, beta1) if kind == "sgdm" else rotsim.OPTIMIZERS[kind](lr, decay, (beta1, beta2), 0.0)
    )
    rates = Rates(0, np.full(steps, lr), np.full(steps, decay), np.full((2, steps), np.nan))
    scale = np.sqrt((size**2).reshape(rows, -1, window).mean(axis=2))
    ends = window * np.arange(1, steps // window + 1)
    found = course(optimizer, dim, rates, ends, start, scale, Influence())
    typical = course(
        optimizer, dim, rates, ends, start, np.broadcast_to(np.median(scale, axis=0), scale.shape), Influence()
    )
    for measured, of_each, of_one, misses in (
        (rms_of_windows(norms, window), found[0], typical[0], 0.15),
        (rms_of_windows(turned, window), found[1], typical[1], 0.05),
    ):
        for half in (0, 1):
            ratio = np.median(measured[half::2] / of_each[half::2], axis=0)[2:]
            np.testing.assert_allclose(ratio, 1, atol=0.07)
            np.testing.assert_allclose(ratio.reshape(-1, 19).mean(axis=1), 1, atol=0.03)
        assert abs(np.median(measured[0::2] / of_one[0::2], axis=0) - 1).max() > misses
