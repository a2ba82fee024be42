"""The recorder against snapshots of the weights, and against training without it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
import rotsim.measure  # noqa: E402
from rotsim.dataset import load, optimizer_of, spec_of  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Lion, Recorder, coordinates, optimizer_spec  # noqa: E402

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("one_thread")]

nn = torch.nn

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, foreach=True),
    "adam fused": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1, fused=True),
    "lion": lambda p: Lion(p, lr=1e-3, weight_decay=0.1),
}


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.3), nn.ReLU(), nn.Linear(5, 3))


def train(model, optimizer, steps, inputs=None, after=lambda step: None):
    """Train on random targets; `after(step)` runs after each step."""
    draw = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):
        x = torch.randn(8, 6, generator=draw) if inputs is None else inputs
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        after(step)


def rows(parameter) -> np.ndarray:
    return parameter.detach().reshape(parameter.shape[0], -1).double().numpy().copy()


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angle between rows from the part of b orthogonal to a: not the formula the recorder uses."""
    along = (a * b).sum(1, keepdims=True) / (a * a).sum(1, keepdims=True)
    across = np.linalg.norm(b - along * a, axis=1)
    return np.arctan2(across, along[:, 0] * np.linalg.norm(a, axis=1))


def rms(values: list[np.ndarray]) -> np.ndarray:
    return np.sqrt(np.mean(np.square(values), axis=0))


def cosine(weights, gradients, sampled) -> np.ndarray:
    """RMS cosine between weights and gradient, over the samples that have a gradient; NaN without any."""
    pairs = [(weights[t - 1], gradients[t - 1]) for t in sampled]
    values = [(w * g).sum(1) / np.linalg.norm(w, axis=1) / np.fmax(np.linalg.norm(g, axis=1), 1e-30) for w, g in pairs]
    active = np.sum([g.any(axis=1) for _, g in pairs], axis=0)
    return np.where(active > 0, np.sqrt(np.sum(np.square(values), axis=0) / np.maximum(active, 1)), np.nan)


def snapshots(model, name, optimizer, steps):
    """Train; return weights w_0..w_T and the gradients g_1..g_T of one parameter."""
    parameter = dict(model.named_parameters())[name]
    weights, gradients = [rows(parameter)], []

    def keep(step: int) -> None:
        weights.append(rows(parameter))
        gradients.append(rows(parameter.grad))

    train(model, optimizer, steps, after=keep)
    return weights, gradients


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_training_is_bit_identical_with_and_without_the_recorder(kind):
    ends, random_states = [], []
    for recorded in (False, True):
        model = mlp()
        optimizer = OPTIMIZERS[kind](model.parameters())
        if recorded:
            with Recorder(model, optimizer, interval=1, window=3) as recorder:
                train(model, optimizer, 20)
            assert recorder.dataset().sizes["step"] == 7
        else:
            train(model, optimizer, 20)
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
        random_states.append(torch.get_rng_state())
    assert torch.equal(*ends)
    assert torch.equal(*random_states)
    assert not torch.equal(ends[0], torch.cat([p.detach().reshape(-1) for p in mlp().parameters()]))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_quantity_equals_numpy_on_snapshots(kind):
    model = mlp()
    optimizer = OPTIMIZERS[kind](model.parameters())
    recorder = Recorder(model, optimizer, interval=5, window=10).start()
    weights, gradients = snapshots(model, "0.weight", optimizer, 27)
    recorder.close()
    trace = recorder.dataset()
    # steps 5 and 10, 15 and 20, and 25 alone in the window that 27 steps leave open
    assert trace["step"].values.tolist() == [10, 20, 25]
    here = trace.isel(neuron=trace["layer"].values == "0.weight")
    for window, sampled in enumerate(([5, 10], [15, 20], [25])):
        expected = {
            "norm": rms([np.linalg.norm(weights[t], axis=1) for t in sampled]),
            "rotation": rms([angle(weights[t - 1], weights[t]) for t in sampled]),
            "update_rms": rms([np.linalg.norm(weights[t] - weights[t - 1], axis=1) for t in sampled]),
            "gradient_norm": rms([np.linalg.norm(gradients[t - 1], axis=1) for t in sampled]),
            "gradient_scale": rms(
                [np.linalg.norm(gradients[t - 1], axis=1) * np.linalg.norm(weights[t - 1], axis=1) for t in sampled]
            ),
            "gradient_cosine": cosine(weights, gradients, sampled),
            "active": np.mean([np.any(gradients[t - 1] != 0, axis=1) for t in sampled], axis=0),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(here[name].values[:, window], values, rtol=1e-6, err_msg=name)


def test_angles_of_a_millionth_are_right_where_arccos_in_float32_is_not():
    torch.manual_seed(0)
    model = nn.Linear(256, 64, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    direction = torch.randn(64, 256)
    optimizer.zero_grad()
    before = model.weight.detach().clone()
    model.weight.grad = 1e-6 * direction / direction.norm(dim=1, keepdim=True) * before.norm(dim=1, keepdim=True)
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        optimizer.step()
    truth = angle(rows(before), rows(model.weight))
    assert 0.9e-6 < np.median(truth) < 1.1e-6
    np.testing.assert_allclose(recorder.dataset()["rotation"].values[:, 0], truth, rtol=1e-6)
    cosine = torch.cosine_similarity(before, model.weight.detach(), dim=1).clamp(-1, 1)
    assert np.median(np.abs(torch.acos(cosine).numpy() / truth - 1)) > 0.1


def test_convolution_and_embedding_rows_and_dead_rows():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.conv = nn.Conv2d(2, 3, (1, 2))

        def forward(self, tokens):
            return self.conv(self.table(tokens).reshape(-1, 2, 1, 4))

    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {"table.weight": rows(model.table.weight), "conv.weight": rows(model.conv.weight)}
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        model(torch.tensor([[0, 1], [3, 0]])).square().sum().backward()
        optimizer.step()
    trace = recorder.dataset()
    assert spec_of(trace)["layers"] == {"table.weight": [7, 4], "conv.weight": [3, 2, 1, 2]}
    assert trace["fan_in"].values.tolist() == [4] * 7 + [4] * 3
    for name, weights in before.items():
        here = trace.isel(neuron=trace["layer"].values == name)
        after = rows(dict(model.named_parameters())[name])
        moved = np.linalg.norm(after - weights, axis=1)
        np.testing.assert_allclose(here["update_rms"].values[:, 0], moved, rtol=1e-6)
    assert trace["active"].values[:, 0].tolist() == [1, 1, 0, 1, 0, 0, 0, 1, 1, 1]
    assert not trace["rotation"].values[[2, 4, 5, 6], 0].any()
    assert trace["rotation"].values[[0, 1, 3], 0].all()


def test_sparse_gradients_are_recorded_like_dense_ones():
    traces = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Embedding(5, 3, sparse=sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Recorder(model, optimizer, interval=1, window=1) as recorder:
            model(torch.tensor([1, 1, 4])).sub(torch.arange(3)).square().sum().backward()
            optimizer.step()
        traces.append(recorder.dataset())
    for name in traces[0].data_vars:
        np.testing.assert_allclose(traces[1][name].values, traces[0][name].values, rtol=1e-6, err_msg=name)


def test_coordinates_of_sparse_gradients_are_read_without_the_rest(monkeypatch):
    """The whole of an embedding's gradient is as large as its table, and would be made at every step."""
    draw = torch.Generator().manual_seed(0)
    for shape, sparse_dims, entries in (((6, 4), 1, 5), ((6, 4), 2, 9), ((6, 4), 1, 0), ((3, 4, 2), 2, 7)):
        indices = torch.stack([torch.randint(size, (entries,), generator=draw) for size in shape[:sparse_dims]])
        values = torch.randn(entries, *shape[sparse_dims:], generator=draw)  # several may share a place
        gradient = torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)
        places = torch.arange(0, math.prod(shape), 3)
        torch.testing.assert_close(coordinates._at(gradient, places), gradient.to_dense().reshape(-1)[places])
    model = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monkeypatch.setattr(torch.Tensor, "to_dense", lambda self: pytest.fail("the whole gradient was made"))
    with Recorder(model, optimizer, interval=4):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.tensor([0, 3, 3])).square().sum().backward()
            optimizer.step()


def test_a_parameter_without_gradient_is_inactive_and_still():
    model = nn.ModuleDict({"used": nn.Linear(6, 3), "unused": nn.Linear(6, 4)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with Recorder(model, optimizer, interval=1, window=2) as recorder:
        train(model["used"], optimizer, 2)
    trace = recorder.dataset()
    unused = trace.isel(neuron=trace["layer"].values == "unused.weight", step=0)
    assert unused.sizes["neuron"] == 4
    assert not unused["active"].any() and not unused["rotation"].any() and not unused["gradient_norm"].any()
    norm = np.linalg.norm(rows(model["unused"].weight), axis=1)
    np.testing.assert_allclose(unused["norm"].values, norm, rtol=1e-6)


def test_a_zero_row_has_no_angle_and_no_nan():
    model = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        model.weight[0] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.weight.grad = torch.zeros_like(model.weight)
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        optimizer.step()
    assert recorder.dataset()["rotation"].values.tolist() == [[0.0], [0.0]]


def test_groups_keep_their_hyperparameters_and_vectors_are_skipped():
    model = mlp()
    groups = [
        {"params": [model[3].weight], "lr": 0.2, "weight_decay": 0.0},
        {"params": [model[0].weight, model[0].bias, model[3].bias], "lr": 0.1, "weight_decay": 0.01},
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        train(model, optimizer, 2)
    trace = recorder.dataset()
    assert trace["layer"].values.tolist() == ["0.weight"] * 5 + ["3.weight"] * 3
    assert trace["lr"].values.tolist() == [0.1] * 5 + [0.2] * 3
    assert trace["weight_decay"].values.tolist() == [0.01] * 5 + [0.0] * 3
    assert optimizer_of(trace) == rotsim.SGDM(lr=0.1, weight_decay=0.01, momentum=0.9)
    assert not spec_of(trace)["lr_changed"] and not spec_of(trace)["weight_decay_changed"]


def test_a_tied_weight_is_one_entry():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        train(model, optimizer, 1)
    assert recorder.dataset()["layer"].values.tolist() == ["0.weight"] * 6


@pytest.mark.parametrize(
    "choice", [["3.weight"], "3.weight", lambda name, parameter: parameter.shape[0] == 3], ids=["list", "name", "call"]
)
def test_parameters_are_chosen_by_name_or_callable(choice):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, interval=1, window=1, parameters=choice) as recorder:
        train(model, optimizer, 1)
    assert recorder.dataset()["layer"].values.tolist() == ["3.weight"] * 3


def test_an_exception_in_training_keeps_the_records():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, optimizer, interval=2, window=4)

    def stop(step: int) -> None:
        if step == 7:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), recorder:
        train(model, optimizer, 20, after=stop)
    assert recorder.dataset()["step"].values.tolist() == [4, 6]
    assert spec_of(recorder.dataset())["steps"] == 7
    train(model, optimizer, 3)
    assert recorder.steps == 7, "a closed recorder must be detached"


def test_a_step_that_raises_is_not_counted():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def broken():
        raise RuntimeError("no loss")

    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        train(model, optimizer, 1)
        with pytest.raises(RuntimeError, match="no loss"):
            optimizer.step(broken)
        train(model, optimizer, 1)
    assert recorder.dataset()["step"].values.tolist() == [1, 2]


def test_asking_in_between_changes_nothing():
    traces = []
    for asks in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Recorder(model, optimizer, interval=1, window=4) as recorder:
            train(model, optimizer, 8, after=lambda step, r=recorder, asks=asks: r.dataset() if asks else None)
        traces.append(recorder.dataset())
    assert traces[0].equals(traces[1])


def test_with_a_closure_the_gradient_is_the_one_it_computed():
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 6)).square().mean()
        loss.backward()
        return loss

    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        optimizer.step(closure)
    norm = np.linalg.norm(rows(model.weight.grad), axis=1)
    assert norm.all()
    np.testing.assert_allclose(recorder.dataset()["gradient_norm"].values[:, 0], norm, rtol=1e-6)


def test_a_gradient_left_scaled_for_a_fused_step_is_recorded_unscaled():
    model = nn.Linear(6, 3, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = rows(model.weight)
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        scaler.scale(model(torch.ones(2, 6)).square().mean()).backward()
        scaler.step(optimizer)
    trace = recorder.dataset()
    moved = np.linalg.norm(rows(model.weight) - before, axis=1)
    np.testing.assert_allclose(trace["gradient_norm"].values[:, 0], moved / 0.1, rtol=1e-4)


def test_a_schedule_is_noticed_and_may_start_and_end_at_zero():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    factors = [0.0, 0.5, 1.0, 0.25, 0.0]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factors[min(step, 4)])
    with Recorder(model, optimizer, interval=1, window=5) as recorder:
        train(model, optimizer, 5, after=lambda step: schedule.step())
    trace = recorder.dataset()
    assert spec_of(trace)["lr_changed"] and not spec_of(trace)["weight_decay_changed"]
    assert set(trace["lr"].values) == {0.25e-2}
    assert optimizer_of(trace) == rotsim.AdamW(lr=0.25e-2, weight_decay=0.1)


def test_memory_grows_by_ten_float32_per_neuron_and_window():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, interval=2, window=10) as recorder:
        train(model, optimizer, 200)
    assert recorder._windows.nbytes == 20 * (10 * 8 * 4 + 2 * 10 * 8)  # and ten rates per parameter
    assert not recorder._running._before and not recorder._running._sums


def test_memory_is_bounded_and_merged_windows_are_those_of_twice_the_length():

    traces = []
    for window, windows in ((10, 16), (40, 512)):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        recorder = Recorder(model, optimizer, 5, window, windows=windows, lags=0)
        with recorder:
            draw = torch.Generator().manual_seed(0)
            for step in range(1, 486):
                for parameter in model.parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=draw)
                model[0].weight.grad[1] *= step % 3 == 0
                optimizer.step()
                rate.step()
        traces.append(recorder.dataset())
    merged, long = traces
    assert recorder.window == 40 and merged.sizes["step"] == long.sizes["step"] == 13
    assert spec_of(merged)["window"] == 40
    np.testing.assert_array_equal(merged["step"], long["step"])
    for name in (
        "norm",
        "rotation",
        "update_rms",
        "gradient_cosine",
        "gradient_burst",
        "active",
        "radial",
        "window_lr",
    ):
        rounding = 1e-6 * float(np.abs(long[name]).max())  # of means whose terms cancel
        np.testing.assert_allclose(merged[name], long[name], rtol=2e-5, atol=rounding, err_msg=name)
    assert merged["window_lr"].values[0, -1] == 1e-2 / 485 and merged["window_weight_decay"].values[0, 0] == 0.1


def test_a_folder_that_goes_stops_no_training(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train():
        for _ in range(10):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()

    with (
        pytest.warns(UserWarning, match="does not exist.*training goes on"),
        pytest.raises(rotsim.InvalidInput, match="does not exist"),
        Recorder(model, optimizer, 1, 5, path=folder / "trace.nc", save_seconds=1e-9),
    ):
        folder.rmdir()
        train()
    folder.mkdir()
    with (
        pytest.warns(UserWarning, match="the trace is lost"),
        pytest.raises(ZeroDivisionError),
        Recorder(model, optimizer, 1, 5, path=folder / "trace.nc"),
    ):
        train()
        folder.rmdir()
        raise ZeroDivisionError


def test_a_trace_is_on_disk_before_training_ends(tmp_path):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(model, optimizer, 1, 5, path=tmp_path / "trace.nc", save_seconds=1e-9):
        train(model, optimizer, 4)
        assert load(tmp_path / "trace.nc")["step"].values.tolist() == [4]
        train(model, optimizer, 8)
        assert load(tmp_path / "trace.nc")["step"].values.tolist() == [5, 10, 12]


def test_a_saved_trace_comes_back_identical(tmp_path):
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with Recorder(model, optimizer, interval=1, window=5, note={"network": "tiny", "seed": 3}) as recorder:
        train(model, optimizer, 10)
    path = recorder.save(tmp_path / "trace.nc", command="pytest")
    trace = load(path)
    assert trace.equals(recorder.dataset())
    assert trace.attrs["source"] == "trace"
    assert optimizer_of(trace) == rotsim.AdamW(lr=1e-2, weight_decay=0.1)
    spec = spec_of(trace)
    assert (spec["network"], spec["seed"], spec["interval"], spec["window"], spec["steps"]) == ("tiny", 3, 1, 5, 10)
    assert '"command": "pytest"' in trace.attrs["provenance"] and '"device": "cpu"' in trace.attrs["provenance"]


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interval": 0}, "`interval` must be >= 1; got 0"),
        ({"window": 0}, "`window` must be >= 1; got 0"),
        ({"interval": 1.5}, "`interval` must be a whole number; got 1.5"),
        ({"interval": 10, "window": 25}, r"`window` must be a multiple of `interval` \(10\); got 25. Use 30"),
        ({"parameters": ["0.wieght"]}, "names '0.wieght', which cannot be recorded; choose from 0.weight, 3.weight"),
        ({"parameters": ["0.bias"]}, "names '0.bias', which cannot be recorded; choose from 0.weight, 3.weight"),
        ({"parameters": [torch.ones(1)]}, "must be names of parameters; got"),
        ({"lags": 1 << 16}, r"`lags` must be < 2\*\*16; got 65536"),
        ({"windows": 33}, "`windows` must be even"),
        ({"parameters": 3}, "must be names or a function of name and parameter; got 3"),
        ({"parameters": lambda name, parameter: False}, "selects nothing; choose from 0.weight, 3.weight"),
        ({"spec": "AdamW"}, "`spec` must be a rotsim optimizer"),
        ({"note": {"window": 3}}, "`note` may not set window"),
        ({"note": {"data": object()}}, "`note` must be JSON-serialisable"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    model = mlp()
    with pytest.raises(InvalidInput, match=message):
        Recorder(model, sgd(model), **arguments)


def test_a_wrong_model_or_optimizer_is_named():
    model = mlp()
    with pytest.raises(InvalidInput, match=r"`model` must be a torch\.nn\.Module or a mapping of names .*; got list"):
        Recorder([], sgd(model))
    with pytest.raises(InvalidInput, match=r"nothing to record.*4 parameters of the optimizer: not in `model`"):
        Recorder({}, sgd(model))
    with pytest.raises(InvalidInput, match=r"`optimizer` must be a torch\.optim\.Optimizer; got 'sgd'"):
        Recorder(model, "sgd")
    with pytest.raises(InvalidInput, match="share no trainable parameter"):
        Recorder(mlp(), sgd(model))


def test_nothing_sampled_is_an_error_that_says_what_to_do():
    model = mlp()
    optimizer = sgd(model)
    with Recorder(model, optimizer) as recorder:
        train(model, optimizer, 9)
    with pytest.raises(InvalidInput, match="9 optimizer steps were seen and the first sample is step 10"):
        recorder.dataset()


@pytest.mark.parametrize(
    ("make", "spec"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.2), rotsim.SGDM(0.1, 0.2, 0.0)),
        (lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9)), rotsim.AdamW(0.1, 0.01, (0.8, 0.9), 1e-8)),
        (lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2), rotsim.AdamL2(0.1, 0.2, (0.9, 0.999), 1e-8)),
        (lambda p: Lion(p, lr=0.1, weight_decay=0.2), rotsim.Lion(0.1, 0.2, (0.9, 0.99))),
    ],
)
def test_the_spec_is_read_off_the_optimizer(make, spec):
    assert optimizer_spec(make(mlp().parameters())) == spec


def test_decoupled_adam_is_adamw():
    optimizer = torch.optim.Adam(mlp().parameters(), lr=0.1, weight_decay=0.2, decoupled_weight_decay=True)
    assert optimizer_spec(optimizer) == rotsim.AdamW(0.1, 0.2)


class Subclass(torch.optim.SGD):
    """May do anything in its step."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda p: torch.optim.RMSprop(p, lr=0.1), "RMSprop: its update rule is unknown"),
        (lambda p: Subclass(p, lr=0.1), "Subclass: a subclass may change the update rule of SGD"),
        (lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True), "amsgrad=True"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize=True"),
    ],
)
def test_an_optimizer_without_spec_is_recorded_without_or_with_a_given_one(make, reason):
    model = mlp()
    optimizer = make(model.parameters())
    with pytest.raises(InvalidInput, match=f"{reason}.*supported are.*spec=rotsim"):
        optimizer_spec(optimizer)
    with Recorder(model, optimizer, interval=1, window=1) as recorder:
        train(model, optimizer, 2)
    found = optimizer_of(recorder.dataset())
    assert reason in found.refusal() and found.lr == 0.1
    given = rotsim.SGDM(lr=0.1, weight_decay=0.0)
    with Recorder(model, optimizer, interval=1, window=1, spec=given) as recorder:
        train(model, optimizer, 2)
    assert optimizer_of(recorder.dataset()) == given


def test_hyperparameters_without_equilibrium_are_refused_before_training():
    model = mlp()
    with pytest.raises(InvalidInput, match=r"lr \* weight_decay"):
        Recorder(model, torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=2.0))


def test_lion_follows_its_recurrence():
    model = mlp()
    lr, decay, beta1, beta2 = 0.01, 0.3, 0.8, 0.95
    optimizer = Lion(model.parameters(), lr=lr, betas=(beta1, beta2), weight_decay=decay)
    weights, gradients = snapshots(model, "3.weight", optimizer, 12)
    w, m = weights[0], np.zeros_like(weights[0])
    for gradient, seen in zip(gradients, weights[1:], strict=True):
        w = (1 - lr * decay) * w - lr * np.sign(beta1 * m + (1 - beta1) * gradient)
        m = beta2 * m + (1 - beta2) * gradient
        np.testing.assert_allclose(seen, w, rtol=0, atol=1e-6)
    assert np.abs(w - weights[0]).max() > 0.05


def test_lion_skips_parameters_without_gradient_and_returns_the_loss():
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    before = rows(model["unused"].weight)
    optimizer = Lion(model.parameters(), lr=0.1, weight_decay=0.5)

    def closure():
        loss = model["used"](torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    assert torch.is_tensor(optimizer.step(closure))
    assert (rows(model["unused"].weight) == before).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -0.1}, "`lr` must be finite and >= 0; got -0.1"),
        ({"lr": 0.1, "weight_decay": -1.0}, "`weight_decay` must be finite and >= 0"),
        ({"lr": 0.1, "weight_decay": 10.0}, r"`lr \* weight_decay` must be < 1"),
        ({"lr": 0.1, "betas": (0.9, 1.0)}, r"`betas\[1\]` must be in \[0, 1\); got 1.0"),
        ({"lr": 0.0, "betas": (0.9,)}, "`betas` must be two numbers"),
    ],
)
def test_lion_refuses_bad_hyperparameters(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        Lion(mlp().parameters(), **arguments)


def test_lion_refuses_sparse_gradients():
    model = nn.Embedding(3, 2, sparse=True)
    model(torch.tensor([1])).sum().backward()
    with pytest.raises(InvalidInput, match="sparse=False"):
        Lion(model.parameters(), lr=0.1).step()


def test_without_torch_one_line_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("rotsim.measure.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("Recorder", "Lion", "optimizer_spec"):
        monkeypatch.delitem(vars(rotsim.measure), name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("Recorder", "Lion", "optimizer_spec"):
        with pytest.raises(ImportError, match=rf"rotsim\.measure\.{name} needs PyTorch; install rotsim\[torch\]"):
            getattr(rotsim.measure, name)
    with pytest.raises(AttributeError, match="no attribute 'recorder_'"):
        _ = rotsim.measure.recorder_


def test_reading_shipped_traces_does_not_import_torch():
    code = "import sys, rotsim.measure.shipped as s; s.shipped_traces(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
