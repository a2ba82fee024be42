"""Traces that go on, are joined, and survive: interruptions, signals, checkpoints, and what trackers get."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import rotsim.measure.saving  # noqa: E402
from rotsim.cli import main  # noqa: E402
from rotsim.dataset import load, save, spec_of  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Recorder, join  # noqa: E402
from rotsim.measure import recorder as recorder_module  # noqa: E402
from rotsim.schema import STEP_WEIGHTS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

nn = torch.nn
EXACT = ("norm", "rotation", "update_rms", "gradient_norm", "active", "radial", "window_lr", "initial_norm", "step")


def training(make=lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), width=5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width, bias=False), nn.Linear(width, 3, bias=False))
    return model, make(model.parameters())


def run(model, optimizer, first, last):
    """Steps `first` to `last` of a training whose gradients depend on the step alone."""
    for step in range(first, last + 1):
        draw = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


def interrupted(path, saved, killed, end, resume=True, **options):
    """A training whose checkpoint is of step `saved`, that ran until `killed`, and was resumed until `end`."""
    model, optimizer = training()
    with Recorder(model, optimizer, 2, 10, lags=2, path=path, **options):
        run(model, optimizer, 1, saved)
        checkpoint = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        run(model, optimizer, saved + 1, killed)
    model, optimizer = training()
    model.load_state_dict(checkpoint[0])
    recorder = Recorder(model, optimizer, 2, 10, lags=2, path=path, resume=resume, **options)
    optimizer.load_state_dict(checkpoint[1])  # after the recorder was made
    with recorder:
        run(model, optimizer, saved + 1, end)
    assert recorder.steps == end
    return load(path)


def whole(end, **options):
    model, optimizer = training()
    with Recorder(model, optimizer, 2, 10, lags=2, **options) as recorder:
        run(model, optimizer, 1, end)
    return recorder.dataset()


@pytest.mark.parametrize("killed", [60, 75])
def test_a_resumed_trace_is_that_of_the_training_without_the_interruption(tmp_path, killed):
    """Also where the run went on after its checkpoint: what was lost with it is in the trace once."""
    found, expected = interrupted(tmp_path / "a.nc", 60, killed, 100), whole(100)
    for name in EXACT:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=name)
    assert spec_of(found)["steps"] == 100 and found["era"].values[-1] == 100
    assert found["gradient_autocorrelation"].shape == expected["gradient_autocorrelation"].shape


def test_a_resumed_trace_stays_within_its_windows(tmp_path):
    found, expected = interrupted(tmp_path / "a.nc", 160, 160, 320, windows=16), whole(320, windows=16)
    np.testing.assert_array_equal(found["step"], expected["step"])
    np.testing.assert_allclose(found["norm"], expected["norm"], rtol=1e-6)


def test_an_existing_file_is_never_replaced_unasked(tmp_path):
    path = tmp_path / "trace.nc"
    path.write_bytes(b"something of yours")
    model, optimizer = training()
    with pytest.raises(InvalidInput, match=r"`path` must not exist yet.*Pass resume=True to go on from it"):
        Recorder(model, optimizer, path=path)
    assert path.read_bytes() == b"something of yours"
    with Recorder(model, optimizer, 1, 5, path=tmp_path / "new.nc", resume=True) as recorder:
        run(model, optimizer, 1, 5)
    with recorder:  # its own file it may go on with
        run(model, optimizer, 6, 10)
    assert load(tmp_path / "new.nc")["step"].values.tolist() == [5, 10]


def test_without_a_count_of_steps_a_resumed_recorder_says_where_it_goes_on(tmp_path):
    """SGD counts none, and a checkpoint may be older than the trace; so may one without the optimizer's state."""
    sgd = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    for number, make in enumerate((sgd, lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1))):
        path = tmp_path / f"{number}.nc"
        model, optimizer = training(make)
        with Recorder(model, optimizer, 1, 5, path=path):
            run(model, optimizer, 1, 20)
        copies = path.read_bytes()
        model, optimizer = training(make)
        said = pytest.warns(UserWarning, match=r"counts no steps, so the recording goes on at step 20.*pass resume=N")
        with said, Recorder(model, optimizer, 1, 5, path=path, resume=True):
            run(model, optimizer, 11, 25)
        path.write_bytes(copies)
        with Recorder(model, optimizer, 1, 5, path=path, resume=10) as recorder:  # says it, and hears nothing
            run(model, optimizer, 11, 25)
        assert recorder.steps == 25


def test_a_number_says_where_an_optimizer_without_a_counter_goes_on(tmp_path):
    model, optimizer = training(lambda p: torch.optim.SGD(p, lr=0.1))
    for resume in (False, 10):
        with Recorder(model, optimizer, 1, 5, path=tmp_path / "trace.nc", resume=resume) as recorder:
            run(model, optimizer, 1, 15)
    assert recorder.steps == 25 and load(tmp_path / "trace.nc")["step"].values.tolist() == [5, 10, 15, 20, 25]


def test_a_trace_of_another_network_is_not_gone_on_with(tmp_path):
    save(whole(20), tmp_path / "trace.nc")
    for (model, optimizer), rule in (
        (training(width=4), "a layer must have the same neurons"),
        (training(lambda p: torch.optim.SGD(p, lr=0.1)), "a trace of AdamW cannot go on with SGDM"),
    ):
        with pytest.raises(InvalidInput, match=rule):
            Recorder(model, optimizer, path=tmp_path / "trace.nc", resume=True)


def test_a_checkpoint_keeps_the_trace(tmp_path):
    model, optimizer = training()
    recorder = Recorder(model, optimizer, 2, 10, lags=2).start()
    run(model, optimizer, 1, 60)
    torch.save(recorder.state_dict(), tmp_path / "checkpoint.pt")
    recorder.close()
    after = Recorder(model, optimizer, 2, 10, lags=2)
    after.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    with after:
        run(model, optimizer, 61, 100)
    np.testing.assert_array_equal(after.dataset()["norm"].values, whole(100)["norm"].values)
    with pytest.raises(InvalidInput, match="`load_state_dict` must come before the first step; 40 were seen"):
        after.load_state_dict(recorder.state_dict())
    with pytest.raises(InvalidInput, match=r"must be what Recorder\.state_dict returned"):
        Recorder(model, optimizer).load_state_dict({"trace": b"", "steps": 3})


def test_two_files_are_joined(tmp_path, capsys):
    model, optimizer = training()
    for name, steps in (("a", (1, 60)), ("b", (61, 100))):
        with Recorder(model, optimizer, 2, 10, lags=2, path=tmp_path / f"{name}.nc"):
            run(model, optimizer, *steps)
    files = [str(tmp_path / f"{name}.nc") for name in "abc"]
    assert main(["trace", "join", *files[:2], "--output", files[2]]) == 0
    assert "steps up to 100 in 10 windows" in capsys.readouterr().out
    expected, joined = whole(100), load(files[2])
    for name in EXACT:
        np.testing.assert_array_equal(joined[name].values, expected[name].values, err_msg=name)
    cut = join(load(files[0]), load(files[1]), at=45)  # what the first saw after its step 45 was lost
    assert cut["step"].values.tolist() == [10, 20, 30, 40, 55, 65, 75, 85]
    with pytest.raises(InvalidInput, match="`at` must be >= 10, the end of the first window"):
        join(load(files[0]), load(files[1]), at=5)


def test_what_the_first_era_of_a_joined_trace_is_worth_the_first_trace_tells():
    model, optimizer = training()
    traces = []
    for _ in range(2):
        with Recorder(model, optimizer, 2, 20, lags=2) as recorder:
            run(model, optimizer, 1, 200)
        traces.append(recorder.dataset())
    assert join(*traces)["era_square_step"].attrs["weights"] == STEP_WEIGHTS
    older, newer = traces[0].copy(deep=True), traces[1]
    del older["era_square_step"].attrs["weights"]
    assert "weights" not in join(older, newer)["era_square_step"].attrs
    assert join(newer, older)["era_square_step"].attrs["weights"] == STEP_WEIGHTS


def test_a_layer_that_only_one_trace_has_is_unknown_in_the_other():
    model, optimizer = training()
    traces = []
    for names in (["0.weight"], ["1.weight", "0.weight"]):
        with Recorder(model, optimizer, 2, 10, names, lags=0) as recorder:
            run(model, optimizer, 1, 20)
        traces.append(recorder.dataset())
    joined = join(*traces)
    late = joined["norm"].values[joined["layer"].values == "1.weight"]
    assert np.isnan(late[:, :2]).all() and np.isfinite(late[:, 2:]).all() and joined["step"].values[-1] == 40
    assert np.isfinite(joined["norm"].values[joined["layer"].values == "0.weight"]).all()


def test_sigterm_saves_and_calls_the_handler_that_was_there(tmp_path):
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *given: calls.append(given))
    mine = signal.getsignal(signal.SIGTERM)
    try:
        model, optimizer = training()
        with Recorder(model, optimizer, 1, 50, path=tmp_path / "trace.nc") as recorder:
            run(model, optimizer, 1, 7)
            os.kill(os.getpid(), signal.SIGTERM)
            assert len(calls) == 1 and load(tmp_path / "trace.nc")["step"].values.tolist() == [7]
            with recorder._saving.whole():  # inside a hook it waits
                os.kill(os.getpid(), signal.SIGTERM)
                assert len(calls) == 1
            assert len(calls) == 2
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_first_save_is_soon_and_the_next_after_the_interval(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(rotsim.measure.saving, "monotonic", lambda: clock[0])
    model, optimizer = training()
    recorder = Recorder(model, optimizer, 1, 1000, path=tmp_path / "trace.nc", save_seconds=30).start()
    saved = []
    for step in range(1, 80):  # one a second, none of them the end of a window
        clock[0] += 1.0
        run(model, optimizer, step, step)
        saved += [step] if recorder._unsaved is False else []
    assert saved == [5, 35, 65] and load(tmp_path / "trace.nc")["step"].values.tolist() == [65]
    recorder.close()
    assert load(tmp_path / "trace.nc")["step"].values.tolist() == [79]


class Tracker:
    """Keeps what it is given, under the name of the method."""

    def __init__(self, *methods):
        self.given = []
        for method in methods:
            setattr(self, method, lambda *given, method=method, **named: self.given.append((method, given, named)))


def test_trackers_get_measured_and_predicted_rotation_after_each_window():
    model, optimizer = training()
    board, wandb, mlflow, trackio, function = (
        Tracker("add_scalar"), Tracker("log", "define_metric"), Tracker("log_metrics"), Tracker("log"), [],
    )  # fmt: skip

    def broken(metrics, step):
        raise ConnectionError("offline")

    log = [board, wandb, mlflow, trackio, lambda metrics, step: function.append((step, metrics)), broken]
    with (
        pytest.warns(UserWarning, match="`log` failed .ConnectionError: offline.; training goes on"),
        Recorder(model, optimizer, 2, 10, lags=0, split={"0.weight": {"q": 2, "k": 3}}, log=log) as recorder,
    ):
        run(model, optimizer, 1, 20)
    (_, first), (step, metrics) = function
    assert step == 20 and metrics == recorder.latest() != first
    trace = recorder.dataset().isel(step=-1)
    for layer, name in (("0.weight[q]", "0.q"), ("1.weight", "1")):
        rotation = trace["rotation"].values[trace["layer"].values == layer]
        assert metrics[f"rotation/measured/{name}"] == pytest.approx(np.sqrt(np.mean(rotation**2)), rel=1e-6)
        assert metrics[f"rotation/predicted/{name}"] == pytest.approx(np.sqrt(2 * 1e-2 * 0.1 * 0.1 / 1.9))
    assert len(board.given) == 2 * len(metrics) and board.given[-1][1][2] == 20
    assert [name for name, *_ in wandb.given].count("log") == 2
    assert {"optimizer_step": 20}.items() <= wandb.given[-1][1][0].items() and wandb.given[-1][2] == {}
    assert mlflow.given[-1] == ("log_metrics", (metrics,), {"step": 20})
    assert trackio.given[-1] == ("log", (metrics,), {"step": 20})
    with pytest.raises(InvalidInput, match="`log` must be a function of metrics and step, or a tracker"):
        Recorder(model, optimizer, log=3)


KILLED = """
import sys, time, torch
from rotsim.measure import Recorder
model = torch.nn.Linear(6, 5)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
with Recorder(model, optimizer, 1, 1000000, lags=0, path=sys.argv[1], save_seconds=0.2):
    for step in range(1, 10**6):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        print(step, time.monotonic(), flush=True)
        time.sleep(0.01)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_loses_no_more_than_the_interval(tmp_path, number):
    rng = np.random.default_rng(0)
    for k in range(2):
        path = tmp_path / f"{k}.nc"
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0.1, 0.9))
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == -number
        times = dict(line.split() for line in out.splitlines() if line.count(" ") == 1)
        steps = [int(step) for step in times]
        last = int(load(path)["step"][-1])
        if number == signal.SIGTERM:
            assert last >= steps[-1]
            continue
        # the interval, the steps that run while it ends, and the time to write
        lost = float(times[str(steps[-1])]) - float(times[str(min(last, steps[-1]))])
        assert lost <= 0.2 + 0.5


def test_another_process_neither_saves_nor_goes_on_from_the_rows_of_the_first(tmp_path, monkeypatch):
    """The first process of two that share rows has half of them; its state is loaded by both."""
    half, whole = (torch.nn.Linear(4, rows, bias=False) for rows in (3, 6))
    first = Recorder(half, torch.optim.SGD(half.parameters(), 0.1), interval=1, window=1, path=tmp_path / "trace.nc")
    with first:
        half(torch.ones(1, 4)).sum().backward()
        first.optimizer.step()
    monkeypatch.setattr(recorder_module, "rank", lambda: 1)
    other = Recorder(whole, torch.optim.SGD(whole.parameters(), 0.1), interval=1, window=1, path=tmp_path / "trace.nc")
    other.load_state_dict(first.state_dict())
    assert first.saves and not other.saves
    with other:
        whole(torch.ones(1, 4)).sum().backward()
        other.optimizer.step()
    assert load(tmp_path / "trace.nc").sizes["neuron"] == 3
    monkeypatch.setattr(recorder_module, "rank", lambda: 0)
    with pytest.raises(
        InvalidInput, match="weight is 3 x 4 in the first and 6 x 4 in the second"
    ):  # the control: the process that writes is particular
        Recorder(whole, torch.optim.SGD(whole.parameters(), 0.1), path=tmp_path / "x.nc").load_state_dict(
            first.state_dict()
        )
