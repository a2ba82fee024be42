"""The parts of the recorder, each alone, against loops on a few numbers."""

from __future__ import annotations

import itertools
from math import nan, sqrt
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
from rotsim.dataset import NO_GRADIENT, UNKNOWN, spec_of  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Lion, Recorder, RotationalSGDM, optimizer_spec  # noqa: E402
from rotsim.measure import coordinates as coordinates_module  # noqa: E402
from rotsim.measure import recorded as recorded_module  # noqa: E402
from rotsim.measure import scales as scales_module  # noqa: E402
from rotsim.measure.coordinates import CoordinateSampler  # noqa: E402
from rotsim.measure.neurons import Neurons, numbering_of  # noqa: E402
from rotsim.measure.recorded import Recorded  # noqa: E402
from rotsim.measure.running import Running  # noqa: E402
from rotsim.measure.sample import (  # noqa: E402
    VARIABLES,
    Averaged,
    lengths,
    partial_sums,
    sample,
    whole_lengths,
    window_means,
)
from rotsim.measure.scales import ScaleSampler  # noqa: E402
from rotsim.measure.selection import row_labels, select  # noqa: E402
from rotsim.measure.windows import Windows, merged  # noqa: E402
from rotsim.optimizers import Unmodelled  # noqa: E402
from tests.conftest import EXAMPLES  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

nn = torch.nn
CPU = torch.device("cpu")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- one step, one window --------------------------------------------------------------------------


def test_a_step_is_added_once_if_it_was_copied():
    entries = [SimpleNamespace(neurons=2, parameter=torch.ones(2), groups=())]
    running = Running(SimpleNamespace(look=lambda step: [None], entries=entries), None)
    running.add(1, False)
    assert (running.samples, running.last) == (0, 0)
    running.copy(2, False)
    for _ in range(2):
        running.add(2, False)
        assert (running.samples, running.last) == (1, 2)
    running.next()
    assert (running.samples, running.last) == (0, 2)


def test_a_parameter_that_is_sharded_across_its_neurons_is_left_out(monkeypatch):
    """Here a process has the second half of axis 1 of all but one parameter, and of another no row."""
    cut = {"rows": 1, "columns": 1, "experts": 1, "elsewhere": 0}
    shapes = {"rows": (4, 6), "columns": (4, 6), "experts": (2, 6, 3), "elsewhere": (4, 3), "whole.experts": (2, 3, 3)}
    model = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    axis_of = {id(model[name]): axis for name, axis in cut.items()}
    parts = {name: model[name][:, 3:] if axis else model[name][:0] for name, axis in cut.items()}
    of = {id(model[name]): part for name, part in parts.items()}
    monkeypatch.setattr(recorded_module, "local", lambda parameter: of.get(id(parameter), parameter))
    monkeypatch.setattr(recorded_module, "first_along", lambda parameter, axis: 3 if axis else 4)
    levels = lambda parameter: {0: axis_of[id(parameter)]} if id(parameter) in axis_of else {}  # noqa: E731
    monkeypatch.setattr(recorded_module, "axes_by_level", levels)
    monkeypatch.setattr(
        recorded_module,
        "groups_of_rows",
        lambda parameter, axes: tuple("others" for axis in levels(parameter).values() if axis not in axes),
    )
    optimizer = torch.optim.SGD(model.values(), 0.1)
    found = Recorded(
        model, optimizer, None, {"columns": {"a": 4, "b": 2}}, None, axes={"columns": 1, "experts": (0, 1)}
    )
    assert found.skipped == {
        "experts": "sharded (DTensor) across its neurons",
        "elsewhere": "empty: other processes have its neurons",
    }
    assert {entry.name: (entry.neurons, entry.of_all, entry.fan_in, entry.groups) for entry in found.entries} == {
        "rows": (4, 4, 6, ("others",)), "columns": (3, 6, 4, ()), "whole.experts": (6, 6, 3, ()),
    }  # fmt: skip
    assert found.entries[1].labels == ["columns[a]", "columns[b]", "columns[b]"]
    with pytest.raises(InvalidInput, match=r"nothing to record: .*elsewhere: empty"):
        Recorded(model, optimizer, ["elsewhere"], {}, None)


@pytest.mark.parametrize("turned", [1e-7, 1e-3, 1.0])
@pytest.mark.parametrize("square", [True, False])
def test_sums_of_parts_of_rows_are_lengths_of_the_rows(turned, square):
    before, g = normal(5, 12), normal(5, 12, seed=1)
    after = before + turned * normal(5, 12, seed=2)
    v = normal(5, 12, seed=3).square() if square else None
    whole = lengths(before, after, g, Averaged(v, 0.1, 0.5, 1e-3))
    cuts = [slice(0, 5), slice(5, 5), slice(5, 12)]  # the second process has nothing
    parts = [
        partial_sums(before[:, cut], after[:, cut], g[:, cut], Averaged(v if v is None else v[:, cut], 0.1, 0.5, 1e-3))
        for cut in cuts
    ]
    torch.testing.assert_close(whole_lengths(sum(parts)), whole, rtol=1e-6, atol=0, equal_nan=True)
    for missing in (0, 2):
        others = whole_lengths(sum(part for i, part in enumerate(parts) if i != missing))
        assert ((others[:6] / whole[:6] - 1).abs() > 1e-2).all()


@pytest.mark.parametrize("rule", ["adamw", "adam_l2", "sgdm", "lion", "unmodelled"])
def test_a_window_is_the_average_of_its_steps_row_by_row(rule):
    group = {"weight_decay": 0.1, "betas": (0.9, 0.95), "eps": 1e-3}
    spec = EXAMPLES[rule] if rule in EXAMPLES else Unmodelled(0.1, 0.1, kind="Muon", why="it is new")
    sums, rows = 0.0, [[] for _ in range(4)]
    for step in range(1, 6):
        before, after, g = (normal(4, 3, seed=10 * step + i) for i in range(3))
        g[1] *= step % 2
        g[2] = 0.0
        if step == 3:
            g[3, 1] = torch.inf
        v = normal(4, 3, seed=10 * step + 4).square()
        state = {"exp_avg_sq": v, "step": torch.tensor(float(step))}
        sums = sums + sample(before, after, g, state, group, spec)
        for i, (w, u, x, s) in enumerate(zip(*(part.numpy() for part in (before, after, g, v)), strict=True)):
            scaled = x + 0.1 * w if rule == "adam_l2" else x
            if rule.startswith("adam"):
                scaled = scaled / (np.sqrt(s / (1 - 0.95**step)) + 1e-3)
            elif rule != "sgdm":
                scaled = np.full(3, nan)
            angle = np.arccos(w @ u / np.linalg.norm(w) / np.linalg.norm(u))
            if np.isfinite(x).all():
                rows[i].append((w, u, x, angle, w @ scaled))
    means = dict(zip(VARIABLES, window_means(sums).numpy(), strict=True))
    length = np.linalg.norm
    for i, steps in enumerate(rows):
        of = {
            "norm": sqrt(np.mean([length(u) ** 2 for _, u, *_ in steps])),
            "rotation": sqrt(np.mean([angle**2 for *_, angle, _ in steps])),
            "update_rms": sqrt(np.mean([length(u - w) ** 2 for w, u, *_ in steps])),
            "gradient_norm": sqrt(np.mean([length(x) ** 2 for _, _, x, *_ in steps])),
            "gradient_scale": sqrt(np.mean([(length(x) * length(w)) ** 2 for w, _, x, *_ in steps])),
            "active": np.mean([x.any() for _, _, x, *_ in steps]),
            "radial": np.sum([r for *_, r in steps]) / np.sum([length(u) ** 2 for _, u, *_ in steps]),
        }
        cosines = [(w @ x / length(w) / length(x)) ** 2 for w, _, x, *_ in steps if x.any()]
        of["gradient_cosine"] = sqrt(np.mean(cosines)) if cosines else nan
        square = [(length(x) * length(w)) ** 2 for w, _, x, *_ in steps]
        of["gradient_burst"] = np.mean(np.square(square)) / np.mean(square) ** 2 if any(square) else nan
        assert len(steps) == (4 if i == 3 else 5)
        for name, value in of.items():
            np.testing.assert_allclose(means[name][i], value, rtol=1e-9, err_msg=name)


def test_a_step_without_gradient_and_a_row_of_zeros():
    w = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    means = dict(zip(VARIABLES, window_means(sample(w, 2 * w, None, {}, {}, EXAMPLES["sgdm"])).numpy(), strict=True))
    assert means["norm"].tolist() == [10.0, 0.0] and means["update_rms"].tolist() == [5.0, 0.0]
    for name in ("rotation", "gradient_norm", "gradient_scale", "active"):
        assert means[name].tolist() == [0.0, 0.0]
    assert means["radial"][0] == 0.0 and np.isnan(means["radial"][1])
    assert np.isnan([means["gradient_cosine"], means["gradient_burst"]]).all()


def test_the_stable_rank_is_that_of_what_the_update_is_made_of():
    """Of the average if there is one, else of the gradient; once for every row, and of no other update."""
    u, v = (torch.linalg.qr(normal(n, 3, seed=n)).Q for n in (4, 6))
    m, w = u @ torch.diag(torch.tensor([4.0, 3.0, 2.0], dtype=torch.float64)) @ v.T, normal(4, 6)
    muon, at = rotsim.Muon(0.1), VARIABLES.index("stable_rank")
    for g, state, wanted in ((-m, {}, 29 / 16), (w, {"momentum_buffer": m}, 29 / 16), (u[:, :1] @ v[:, :1].T, {}, 1.0)):
        found = window_means(sample(w, w, g, state, {}, muon))[at]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert window_means(sample(w, w, m, {}, {}, EXAMPLES["sgdm"]))[at].isnan().all()


# --- windows ---------------------------------------------------------------------------------------


def record(seed, neurons=2):
    return np.abs(normal(len(VARIABLES), neurons, seed=seed).numpy()).astype(np.float32) + 0.1


def test_two_windows_make_one_as_if_their_steps_were_one():
    pair = np.stack([record(1, 4), record(2, 4)], axis=-1)
    pair[:, 1, 0] = nan  # before a neuron joined
    pair[:, 2] = nan
    active, cosine, burst = (VARIABLES.index(name) for name in ("active", "gradient_cosine", "gradient_burst"))
    pair[active, 3, 1], pair[cosine, 3, 1], pair[burst, 3, 1] = 0.0, nan, nan  # no gradient in the second
    pair[VARIABLES.index("gradient_scale"), 3, 1] = 0.0
    found = dict(zip(VARIABLES, merged(pair), strict=True))
    v = dict(zip(VARIABLES, pair.astype(float), strict=True))
    for neuron in (0, 1, 3):
        of = {name: [x for x in v[name][neuron] if np.isfinite(x)] for name in VARIABLES}
        for name in ("norm", "rotation", "update_rms", "gradient_norm", "gradient_scale"):
            assert found[name][neuron] == pytest.approx(sqrt(np.mean(np.square(of[name]))), rel=1e-6)
        assert found["active"][neuron] == pytest.approx(np.mean(of["active"]), rel=1e-6)
        share = [a for a in of["active"] if a > 0]
        by_share = np.average(np.square(of["gradient_cosine"]), weights=share)
        assert found["gradient_cosine"][neuron] == pytest.approx(sqrt(by_share), rel=1e-6)
        fourth = [b * s**4 for b, s in zip(of["gradient_burst"], of["gradient_scale"], strict=False)]
        fourth += [0.0] * (len(of["gradient_scale"]) - len(fourth))
        mean_square = np.mean(np.square(of["gradient_scale"]))
        assert found["gradient_burst"][neuron] == pytest.approx(np.mean(fourth) / mean_square**2, rel=1e-6)
        by_square = np.average(of["radial"], weights=np.square(of["norm"]))
        assert found["radial"][neuron] == pytest.approx(by_square, rel=1e-6)
    assert all(np.isnan(values[2]) for values in found.values()) and merged(pair).dtype == np.float32


def test_windows_are_merged_in_pairs_when_there_are_most():
    windows, rates = Windows(5, 4), [np.array([[1.0], [10.0]] * 5) * i for i in range(9)]
    for i in range(3):
        windows.add(5 * (i + 1), record(i), rates[i])
    assert (windows.window, windows.ends) == (5, [5, 10, 15])
    more = windows.with_one_more(17, record(9, 3), np.ones((10, 2)))
    assert more.ends == [5, 10, 15, 17] and more.window == 5 and windows.ends == [5, 10, 15]
    values, in_force = more.stacked()
    assert values.shape == (len(VARIABLES), 3, 4) and in_force.shape == (10, 2, 4)
    np.testing.assert_array_equal(values[:, :2, 2], record(2))
    assert np.isnan(values[:, 2, :3]).all() and np.isnan(in_force[:, 1, :3]).all() and (in_force[..., 3] == 1).all()
    windows.add(20, record(3), rates[3])
    assert (windows.window, windows.ends) == (10, [10, 20])
    values, in_force = windows.stacked()
    np.testing.assert_array_equal(values[..., 1], merged(np.stack([record(2), record(3)], axis=-1)))
    # two that were in force at the first look, and four last, then means and root mean squares
    assert in_force[:6, 0].tolist() == [[0, 2], [0, 20], *[[1, 3], [10, 30]] * 2]
    assert in_force[6:8, 0].tolist() == [[0.5, 2.5], [5, 25]]
    np.testing.assert_allclose(in_force[8:, 0], np.array([[0.5, 6.5], [50, 650]]) ** 0.5)
    assert windows.nbytes == 2 * (len(VARIABLES) * 2 * 4 + 10 * 8)
    # one that ended early stays with the pair of steps that it is from
    odd = Windows(5, 4)
    for end in (5, 11, 15, 20):
        odd.add(end, record(end), rates[0])
    assert odd.ends == [5, 20]
    np.testing.assert_array_equal(odd.stacked()[0][..., 0], record(5))


# --- gradient norms at every step ------------------------------------------------------------------


def test_rows_are_spread_evenly_and_codes_are_eighths_of_octaves(monkeypatch):
    monkeypatch.setattr(scales_module, "_BLOCK", 4)
    sampler = ScaleSampler(count=3, length=6)
    labels = ["a"] * 7 + ["b"] * 2
    sizes = 2.0 ** torch.arange(9)
    for step in range(9):
        g = torch.zeros(9, 2)
        g[:, 1] = sizes * (1 + step % 2)
        sampler.add([g if step != 7 else None], [labels], CPU)
    codes = sampler.series()
    assert sampler.layers == ["a", "a", "a", "b", "b"]  # rows 0, 3, 6 of a and both of b
    expected = np.array([0, 3, 6, 7, 8])[:, None] * 8 + 8 * (np.arange(9) % 2)
    expected[:, 7] = UNKNOWN
    np.testing.assert_array_equal(codes, expected[:, -codes.shape[1] :])
    assert codes.shape[1] == 9  # 4 + 4 + 1: without the first block fewer than 6 are left
    sampler.add([torch.full((9, 2), nan)], [labels], CPU)
    sampler.add([torch.zeros(9, 2)], [labels], CPU)
    codes = sampler.series()
    assert codes.dtype == np.int16 and codes.shape[1] == 7
    assert (codes[:, -2] == UNKNOWN).all() and (codes[:, -1] == NO_GRADIENT).all()


def test_the_overlap_is_the_mean_squared_cosine_of_late_pairs_sixteen_steps_apart(monkeypatch):
    monkeypatch.setattr(scales_module, "_BLOCK", 32)
    sampler, given = ScaleSampler(count=2), [normal(2, 3, seed=i).float() for i in range(160)]
    given[95][1] = 0.0  # step 96 has no direction
    given[111] = None
    for g in given:
        sampler.add([g], [["a", "a"]], CPU)
    expected = []
    for row in range(2):
        blocks = []  # steps 81 to 160: the last three of five blocks
        for first in (64, 96, 128):
            found = []
            for step in range(first + 16, first + 33, 16):
                now, before = given[step - 1], given[step - 17]
                if step == 128:
                    before = given[95]  # none was seen at step 112
                if now is not None and now[row].any():
                    cosine = torch.nn.functional.cosine_similarity(now[row], before[row], dim=0)
                    found.append(float(cosine) ** 2)
            blocks += [np.mean(found)] if found else []
        expected.append(np.mean(blocks))
    np.testing.assert_allclose(sampler.overlap(), expected, rtol=1e-5)
    short = ScaleSampler(count=1)  # the block that is not full counts too
    for g in given[:48]:
        short.add([g], [["a", "a"]], CPU)
    cosine = torch.nn.functional.cosine_similarity(given[47][0], given[31][0], dim=0)
    np.testing.assert_allclose(short.overlap(), [float(cosine) ** 2], rtol=1e-5)
    few = ScaleSampler(count=1)
    for g in given[:31]:
        few.add([g], [["a", "a"]], CPU)
    assert np.isnan(few.overlap()).all()  # one direction makes no pair


# --- coordinates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("betas", [None, (0.8, 0.9), (0.8, 1.0)])
@np.errstate(invalid="ignore", divide="ignore")
def test_coordinates_are_reduced_block_by_block_as_loops_do(betas):
    lags, shapes = 3, [torch.Size([2, 5]), torch.Size([4])]
    sampler = CoordinateSampler(lags, count=4)
    places = [[0, 3, 6, 9], [0, 1, 2, 3]]
    given = [[], []]

    def rate(step):  # 0 throughout a block, where all steps count alike
        return 0.0 if 18 <= step < 24 else 1.0 + step % 3

    for step in range(29):  # four blocks of six, and one of five; the last three of them count
        first, second = normal(2, 5, seed=step), normal(4, seed=100 + step)
        first[0, 3] = 0.0  # dead, and left out
        if step == 26:
            second = None  # not in the step: counts as 0
        if step == 13:
            first[1, 1] = torch.inf  # coordinate 6: its block is left out, and all averages begin anew
        sampler.add([first, second], shapes, [betas, betas], [rate(step), 1.0], CPU)
        given[0].append(first.flatten()[places[0]].numpy())
        given[1].append(np.zeros(4) if second is None else second.numpy())
    for parameter in range(2):
        correlations, steps = [], []
        begun, averages, filled, bounds = None, {}, 0, [0, 6, 12, 18, 24, 29]
        for number, (low, high) in enumerate(itertools.pairwise(bounds)):
            block, size, half = np.array(given[parameter][low:high]), high - low, (high - low) // 2
            each, squares = [], []
            live = block.any(axis=0)
            early, late = (np.mean(part[:, live] ** 2, axis=0) for part in (block[:half], block[half:]))
            pace = np.log(late / early)
            pace = np.median(pace[np.isfinite(pace)]) / half  # which is no memory
            steady = block * np.exp(-pace / 2 * (np.arange(size) - half))[:, None]
            mean = np.mean(steady**2, axis=0)
            growth = np.exp(np.median(np.log((mean / begun)[live]))) if begun is not None else 1.0
            counts = np.array([rate(step) ** 2 if parameter == 0 else 1.0 for step in range(low, high)])
            counts = counts / counts.sum() if counts.any() else np.full(size, 1 / size)
            own = betas is None or betas[1] < 1  # else m alone is the step, and v of all coordinates
            for place, given_x in enumerate(block.T):
                # as if all were of the size that they have in the middle
                x = steady[:, place]
                (m, v), total, taken = averages.get(place, (0.0, 0.0)), 0.0, filled
                m, v = m * growth**0.5, v * growth
                for t in range(size):
                    if betas is not None:
                        other, taken = betas[own], taken + 1
                        m = betas[0] * m + (1 - betas[0]) * x[t]
                        v = other * v + (1 - other) * (x[t] ** 2 if own else np.mean(steady[t] ** 2))
                        # of white noise as large as when both are full
                        total += counts[t] * m**2 / (1 - betas[0] ** (2 * taken)) * (1 - other**taken) / (v or 1.0)
                averages[place] = m, v
                squares.append(total)
                if x.any():
                    products = [np.mean(given_x[: size - k] * given_x[k:]) for k in range(lags + 1)]
                    each.append(np.array(products) / products[0])
            begun, filled = mean, filled + size
            if low <= 13 < high:
                begun, averages, filled = None, {}, 0
            if number < 2 or not np.isfinite(block).all():
                continue
            correlations.append(np.mean(each, axis=0))
            steps.append(np.mean(squares))
        np.testing.assert_allclose(sampler.autocorrelation()[parameter], np.mean(correlations, axis=0), atol=1e-5)
        if betas is None:
            assert np.isnan(sampler.square_step()).all()
        else:
            np.testing.assert_allclose(sampler.square_step()[parameter], np.mean(steps), rtol=1e-4)


def test_gradients_that_persist_at_first_and_alternate_until_the_rate_falls_are_told_apart():
    """Under a warm-up and a decay to 0: neither large first steps nor the last whole block speak for other steps."""
    lags, momentum, dim, last = 64, 0.9, 400, 620
    shape, firm = torch.Size([dim]), normal(dim, seed=-1)
    noise = [normal(dim, seed=step) for step in range(last + 1)]

    def power(rate):
        sampler = CoordinateSampler(lags, count=dim)
        for step in range(last):
            gradient = 30 * np.exp(-step / 5) * firm + noise[step]  # large, and gone after some steps
            if step < 512:
                gradient = gradient - noise[step + 1]  # of which the average is 1 - α of white noise
            sampler.add([gradient], [shape], [(momentum, 1.0)], [rate(step)], CPU)
        ends, _, squares = sampler.eras()
        assert ends.tolist() == [128, 256, 384, 512, 620]
        return squares[0] * (1 + momentum) / (1 - momentum)

    scheduled = power(lambda step: min(step / 100, (last - step) / 100, 1.0))
    assert scheduled[0] < 0.3 and power(lambda step: 1.0)[0] > 1.0
    np.testing.assert_allclose(scheduled[1:4], 1 - momentum, rtol=0.1)
    assert scheduled[4] == pytest.approx(1.0, rel=0.15)  # six standard errors of 108 · 400 / 3 / 9.5 squares


@pytest.mark.parametrize("pace", [0.0, 0.03])
def test_the_trend_of_a_block_is_that_of_most_coordinates(pace):
    """One that bursts is no trend of all: their averages would be those of gradients that die, or are born."""
    steps, beta1 = 4 * 64, 0.9

    def measured(burst):
        sampler = CoordinateSampler(64, count=33)
        for step in range(steps):
            gradient = normal(33, seed=step) * np.exp(-pace * step)
            gradient[0] *= burst if step == steps - 3 else 1.0
            sampler.add([gradient], [gradient.shape], [(beta1, 0.99)], [0.1], CPU)
        return float(sampler.square_step()[0])

    white = (1 - beta1) / (1 + beta1)
    assert measured(1.0) == pytest.approx(white, rel=0.3)  # four standard errors of 33 · 192 / 19 independent squares
    assert measured(1e4) == pytest.approx(measured(1.0), rel=0.05)


def test_a_parameter_that_joins_starts_a_block_anew_and_silence_has_no_correlation():
    sampler, first, second = CoordinateSampler(2, count=2), torch.Size([3]), torch.Size([2])
    for step in range(13):
        late = step >= 6  # two steps into the second block of four
        parts = [normal(3, seed=step), torch.zeros(2)] if late else [normal(3, seed=step)]
        sampler.add(parts, [first, second] if late else [first], [None] * len(parts), [0.1] * len(parts), CPU)
    assert sampler.length == 4 and len(sampler._spans) == 2 and len(sampler._block) == 3
    sampler._block.pop()  # with three steps it is a block of its own
    found = sampler.autocorrelation()
    assert found.shape == (2, 3) and found[0, 0] == pytest.approx(1.0) and np.isnan(found[1]).all()
    block = np.array([normal(3, seed=step).numpy()[[0, 2]] for step in range(6, 10)])  # the last half of two
    one_apart = np.mean(block[:-1] * block[1:], axis=0) / np.mean(block**2, axis=0)
    assert found[0, 1] == pytest.approx(np.mean(one_apart), abs=1e-5)


def test_memory_of_coordinates_is_bounded_and_averages_are_of_all_blocks(monkeypatch):
    def sampled(most):
        monkeypatch.setattr(coordinates_module, "MOST_SPANS", most)
        sampler = CoordinateSampler(1, count=2)
        for step in range(2 * 192):
            late = step >= 2 * 100  # a second parameter joins
            parts = [normal(2, seed=step), normal(2, seed=-1 - step) if late else None][: 1 + late]
            shapes, betas = [torch.Size([2])] * len(parts), [(0.5, 0.9)] * len(parts)
            sampler.add(parts, shapes, betas, [0.1] * len(parts), CPU)
        return sampler

    bounded, whole = sampled(8), sampled(192)
    assert len(bounded._spans) == 6 and len(whole._spans) == 192
    np.testing.assert_allclose(bounded.autocorrelation(), whole.autocorrelation(), rtol=1e-6)
    np.testing.assert_allclose(bounded.square_step(), whole.square_step(), rtol=1e-6)
    assert bounded.eras()[0].tolist() == [2 * 32 * k for k in range(1, 7)]  # blocks of 2, 32 to a span
    assert np.isnan(bounded.eras()[1][1, :3]).all() and np.isfinite(bounded.eras()[1][1, 3:]).all()


# --- which parameters ------------------------------------------------------------------------------


def test_recorded_rows_are_evenly_spaced_from_the_first_to_the_last():
    assert Neurons(torch.Size([10, 2]), most=4).chosen.tolist() == [0, 3, 6, 9]
    assert Neurons(torch.Size([4, 2]), most=4).chosen is None


@pytest.mark.parametrize(("name", "numbering"), [("Conv1D", {"0.weight": ((1,), 1)}), ("Other", {})])
def test_columns_are_neurons_in_what_transformers_calls_conv1d_alone(name, numbering):
    kind = type(name, (nn.Linear,), {"nf": 3})
    assert numbering_of(nn.Sequential(kind(2, 3))) == numbering


class Kinds(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain, self.frozen, self.other = (nn.Parameter(torch.ones(2, 2)) for _ in range(3))
        self.frozen.requires_grad = False
        self.vector, self.empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 0))
        self.whole = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
        self.complex = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))


def test_every_parameter_that_is_left_out_has_its_reason():
    model = Kinds()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p is not model.other], lr=0.1)
    found, skipped = select(model, optimizer, None)
    assert list(found) == ["plain"] and found["plain"] == (model.plain, 0)
    assert skipped == {
        "frozen": "frozen",
        "other": "not updated by this optimizer",
        "vector": "1-D: not a weight of neurons",
        "empty": "empty",
        "whole": "not floating point",
        "complex": "complex",
    }
    # of tensors given by name gradients may come from elsewhere
    found, skipped = select({"a": model.frozen, "b": model.plain}, optimizer, None)
    assert list(found) == ["a", "b"] and skipped == {"4 parameters of the optimizer": "not in `model`"}
    _, skipped = select({"a": model.plain}, torch.optim.SGD([model.plain, model.other], lr=0.1), None)
    assert skipped == {"1 parameter of the optimizer": "not in `model`"}
    rest = {name: getattr(model, name) for name in ("vector", "empty", "whole", "complex")}
    own = torch.optim.SGD(list(rest.values()), lr=0.1)
    with pytest.raises(InvalidInput, match=r"dimensions \(vector: 1-D.*; empty: empty; whole: not .* point; \.\.\.\)"):
        select(rest, own, None)
    with pytest.raises(InvalidInput, match=r"dimensions \(vector: 1-D: not a weight of neurons\); pass the optimizer"):
        select({"vector": model.vector}, torch.optim.SGD([model.vector], lr=0.1), None)
    with pytest.raises(InvalidInput, match="`parameters` must be names or a function of name and parameter; got 3"):
        select(model, optimizer, 3)


def test_groups_are_numbered_and_names_are_chosen_in_the_order_of_the_model():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model], lr=0.1)
    found, _ = select(model, optimizer, ["1.weight", "0.weight"])
    assert [(name, group) for name, (_, group) in found.items()] == [("0.weight", 0), ("1.weight", 1)]
    assert list(select(model, optimizer, lambda name, p: name == "1.weight" and p.ndim == 2)[0]) == ["1.weight"]


def test_rows_are_labelled_block_by_block():
    assert row_labels("a.qkv", 3, {"qkv": "qkv"}) == ["a.qkv[q]", "a.qkv[k]", "a.qkv[v]"]
    assert row_labels("qkv", 4, {"x": "ab", "qkv": {"q": 3, "k": 1}}) == ["qkv[q]"] * 3 + ["qkv[k]"]
    assert row_labels("a.myqkv", 2, {"qkv": "ab"}) == ["a.myqkv"] * 2
    for blocks in ({}, {"q": 0, "k": 3}, {"q": 1.0, "k": 2}, {"q": 1, "k": 1}, ("q", "k")):
        with pytest.raises(InvalidInput, match="must add up to the 3 rows of qkv"):
            row_labels("qkv", 3, {"qkv": blocks})


# --- the spec --------------------------------------------------------------------------------------


def test_the_spec_of_a_group_and_what_may_replace_its_rates():
    one, two = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    groups = [{"params": [one]}, {"params": [two], "lr": 0.3, "betas": (0.5, 0.6), "eps": 1e-4}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.2)
    assert optimizer_spec(optimizer, 1) == rotsim.AdamW(lr=0.3, weight_decay=0.2, betas=(0.5, 0.6), eps=1e-4)
    assert optimizer_spec(optimizer, 0, lr=0.7).lr == 0.7
    for group, rule in ((-1, ">= 0"), (2, "< 2")):
        with pytest.raises(InvalidInput, match=f"`group` must be {rule}; got {group}"):
            optimizer_spec(optimizer, group)
    lion = Lion([one], 0.1, betas=(0.3, 0.4), weight_decay=0.2)
    assert optimizer_spec(lion) == rotsim.Lion(lr=0.1, weight_decay=0.2, betas=(0.3, 0.4))
    turning = RotationalSGDM([one], lr=0.1, momentum=0.7, weight_decay=0.2, update_norm_decay=0.5)
    assert optimizer_spec(turning) == rotsim.Rotational(
        rotsim.SGDM(lr=0.1, weight_decay=0.2, momentum=0.7), update_norm_decay=0.5
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: torch.optim.AdamW(p, amsgrad=True), "AdamW: amsgrad=True changes the recurrence; supported"),
        (lambda p: torch.optim.SGD(p, maximize=True), "SGD: maximize=True changes"),
        (lambda p: RotationalSGDM(p, lr=0.1, weight_decay=0.1, per_neuron=False), "per_neuron=False sets the angle"),
        (lambda p: type("Mine", (Lion,), {})(p, 0.1), "this Mine: a subclass may change the update rule of Lion"),
        (lambda p: torch.optim.RAdam(p), "this RAdam: its update rule is unknown to rotsim"),
    ],
)
def test_what_has_no_spec_says_why(make, why):
    with pytest.raises(InvalidInput, match=why):
        optimizer_spec(make([nn.Parameter(torch.ones(2, 2))]))


def test_dampening_without_momentum_and_a_subclass_of_a_subclass():
    p = [nn.Parameter(torch.ones(2, 2))]
    assert optimizer_spec(torch.optim.SGD(p, lr=0.1, dampening=0.5)) == rotsim.SGDM(
        lr=0.1, weight_decay=0.0, momentum=0.0
    )
    with pytest.raises(InvalidInput, match="the update rule of AdamW"):  # the nearest that is known
        optimizer_spec(type("Mine", (torch.optim.AdamW,), {})(p))


# --- what is followed ------------------------------------------------------------------------------


def followed(optimizer, model, **options):
    return Recorded(model, optimizer, options.get("selection"), options.get("split", {}), options.get("spec"))


def test_hyperparameters_are_read_at_every_step_and_changes_are_dated():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW([{"params": layer.parameters()} for layer in model], lr=0.1, weight_decay=0.2)
    recorded = followed(optimizer, model)
    first, second = recorded.entries
    assert recorded.look(1) == [first, second] and not first.changed
    first.count()
    optimizer.param_groups[0]["lr"] = 0.0
    recorded.look(4)
    first.count()
    assert first.changed == {"lr": 4} and first.lr == 0.1  # the last one that moved anything
    optimizer.param_groups[0].update(lr=0.1, betas=[0.5, 0.6])
    optimizer.param_groups[1]["weight_decay"] = 0.0
    recorded.look(6)
    assert first.changed == {"lr": 4, "momentum": 6} and second.changed == {"weight_decay": 6}
    at_start, in_force, betas = [[0.1, 0.1], [0.2, 0.2]], [[0.1, 0.1], [0.2, 0.0]], [[0.5, 0.9], [0.6, 0.999]]
    means = [[0.05, 0.1], [0.2, 0.0]]  # of what was counted, or else what is in force
    assert recorded.rates()[:8].tolist() == [*at_start, *in_force, *betas, *means]
    np.testing.assert_allclose(recorded.rates()[8:], [[0.1 / 2**0.5, 0.1], [0.2, 0.0]])
    recorded.next_window()
    assert all(part.tolist() == in_force for part in (recorded.rates()[:2], *np.split(recorded.rates()[6:], 2)))
    # the spec of the run is that of the first group with weight decay
    assert recorded.specs()[recorded.main().name] == rotsim.AdamW(lr=0.1, weight_decay=0.2, betas=(0.5, 0.6))
    del optimizer.param_groups[0]
    assert recorded.look(9) == [None, second] and recorded.left == {"0.weight": 8} and second.group == 0
    assert recorded.look(11) == [None, second] and recorded.left == {"0.weight": 8}
    assert recorded.specs()[recorded.main().name] == rotsim.AdamW(lr=0.1, weight_decay=0.0)


def test_what_takes_a_name_again_is_numbered():
    model = nn.ModuleDict({"qkv": nn.Linear(2, 4, bias=False)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorded = followed(optimizer, model, split={"qkv.weight": "ab"})
    for count in (2, 3):
        model["qkv"].weight = nn.Parameter(torch.ones(4, 2))
        optimizer.param_groups[0]["params"] = [model["qkv"].weight]
        recorded.select()
        recorded.select()
        last = recorded.entries[-1]
        assert len(recorded.entries) == count and last.name == f"qkv.weight ({count})"
        assert last.labels == [f"qkv.weight ({count})[a]"] * 2 + [f"qkv.weight ({count})[b]"] * 2
    with pytest.raises(InvalidInput, match="`split` names 'kv', which no recorded parameter ends in; choose from qkv"):
        followed(optimizer, model, split={"qkv.weight": "ab", "kv": "ab"})


def test_groups_have_specs_of_their_own():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(
        [{"params": layer.parameters(), "momentum": 0.1 * i} for i, layer in enumerate(model)], lr=0.0, weight_decay=0.2
    )
    specs = followed(optimizer, model).specs()
    assert [spec.momentum for spec in specs.values()] == [0.0, 0.1] and list(specs) == ["0.weight", "1.weight"]


# --- the dataset -----------------------------------------------------------------------------------


def test_what_a_dataset_says_of_a_run():
    """Two groups of which one has its rates changed, and one parameter is written to from outside."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False))
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in model], lr=0.1, weight_decay=0.2)
    recorder = Recorder(model, optimizer, 2, 4, note={"seed": 3}, lags=1)
    with recorder:
        for step in range(1, 8):
            for parameter in model.parameters():
                parameter.grad = normal(*parameter.shape, seed=step).float()
            if step == 3:
                optimizer.param_groups[1]["lr"] = 0.3
            if step == 5:  # after the sample of step 4
                model[0].weight.data *= 1.5
            optimizer.step()
    trace = recorder.dataset(command="here")
    spec = spec_of(trace)
    assert trace["step"].values.tolist() == [4, 6] and recorder.steps == 7
    assert trace["fan_in"].values.tolist() == [2, 2, 2, 3, 3]
    assert trace["lr"].values.tolist() == [0.1] * 3 + [0.3] * 2 and set(trace["weight_decay"].values) == {0.2}
    assert spec["changed"] == {"1.weight": {"lr": 4}}  # seen at the next sample
    assert (spec["lr_changed"], spec["weight_decay_changed"], spec["momentum_changed"]) == (True, False, False)
    assert spec["changed_outside"] == {"0.weight": pytest.approx(1 / 3)}  # looked at after the samples of 2, 4 and 6
    assert (spec["interval"], spec["window"], spec["steps"], spec["seed"]) == (2, 4, 7, 3)
    assert spec["layers"] == {"0.weight": [3, 2], "1.weight": [2, 3]} and spec["skipped"] == spec["left"] == {}
    assert spec["dtypes"] == {"0.weight": "float32", "1.weight": "float32"}
    assert trace["window_lr"].values.tolist() == [[0.1, 0.1], [0.3, 0.3]]
    assert trace["window_weight_decay"].values.tolist() == [[0.2, 0.2], [0.2, 0.2]]
    assert trace["parameter"].values.tolist() == ["0.weight", "1.weight"] and trace["lag"].values.tolist() == [0, 1]
    assert "gradient_log2" not in trace and np.isfinite(trace["square_step"].values).all()
    for name in ("interval", "changed", "lr_changed", "dtypes"):
        with pytest.raises(InvalidInput, match=f"`note` may not set {name}, which the recorder writes; rename it"):
            Recorder(model, optimizer, note={name: 1})
    with pytest.raises(InvalidInput, match="`note` must be JSON-serialisable"):
        Recorder(model, optimizer, note={"model": model})


def test_the_ticks_of_lions_series_are_steps(monkeypatch):
    monkeypatch.setattr(scales_module, "_BLOCK", 4)
    model = nn.Linear(3, 2, bias=False)
    optimizer = Lion(model.parameters(), 1e-3, weight_decay=1.0)
    recorder = Recorder(model, optimizer, 1, 5, lags=0)
    recorder._every_step.scales.length = 6
    with recorder:
        for step in range(1, 12):
            model.weight.grad = torch.full((2, 3), 2.0**step / sqrt(3))
            optimizer.step()
    trace = recorder.dataset()
    assert trace["tick"].values.tolist() == list(range(5, 12)) and trace["row_layer"].values.tolist() == ["weight"] * 2
    np.testing.assert_array_equal(trace["gradient_log2"], 8 * np.array([np.arange(5, 12)] * 2))


def test_a_file_that_cannot_be_written_does_not_stop_a_training(monkeypatch, tmp_path):
    model = nn.Linear(3, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def full(*_):
        raise OSError("disk full")

    recorder = Recorder(model, optimizer, 1, 1, lags=0, path=tmp_path / "trace.nc", save_seconds=1e-9).start()
    monkeypatch.setattr(Recorder, "save", full)
    model.weight.grad = torch.ones(2, 3)
    with pytest.warns(UserWarning, match="disk full; training goes on"):
        optimizer.step()
    assert recorder.dataset().sizes["step"] == 1
    with pytest.raises(InvalidInput, match="`windows` must be even, since pairs are merged; got 17"):
        Recorder(model, optimizer, windows=17)
