"""Sweeps: the grid, its numbers against the functions it calls, what a store keeps, and executors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import rotsim
from rotsim.errors import DatasetError, InvalidInput
from rotsim.schedules import cosine
from rotsim.sweeps.execution import evaluate

RATES = {"lr": [1e-3, 1e-2], "weight_decay": [0.01, 0.1, 1.0]}


def counted(spec, dim=64, folder=""):
    """lr times dim; leaves a file for every call."""
    with open(Path(folder) / f"{os.getpid()}-{time.monotonic_ns()}", "x"):
        return spec.lr * dim


def fatal_once(spec, folder=""):
    """Kills its process the first time that it is called."""
    try:
        with open(Path(folder) / "called", "x"):
            pass
    except FileExistsError:
        return spec.lr
    os.kill(os.getpid(), signal.SIGKILL)


def refused(spec, x=0.0):
    if x > 1:
        raise RuntimeError("x is\nlarge")
    return {"twice": 2 * x}


def wordy(spec):
    return "a"


def echoing(spec):
    return {"lr": spec.lr}


def test_every_cell_is_what_the_function_returns():
    over = {"lr": [1e-3, 1e-2], "weight_decay": [0.1], "beta2": [0.9, 0.999]}
    found = rotsim.sweep(rotsim.AdamW, over, dim=128, eps=1e-3)
    assert found["norm"].dims == ("lr", "weight_decay", "beta2")
    for cell in found["norm"].stack(cell=found["norm"].dims).transpose("cell"):
        lr, decay, beta2 = cell["cell"].item()
        alone = rotsim.equilibrium(rotsim.AdamW(lr, decay, (0.9, beta2), eps=1e-3), 128)
        at = found.sel(lr=lr, weight_decay=decay, beta2=beta2)
        assert {name: at[name].item() for name in alone.to_dict() if name != "method"} == {
            name: value for name, value in alone.to_dict().items() if name != "method"
        }
    assert found["rotation"].attrs["units"] == "rad"


def test_axes_of_one_dimension_go_together():
    over = {"lr": ("pair", [1e-3, 1e-2]), "weight_decay": ("pair", [1.0, 0.1]), "dim": [64, 256]}
    found = rotsim.sweep(rotsim.Lion, over, "leading")
    assert dict(found.sizes) == {"pair": 2, "dim": 2}
    assert found["lr"].dims == found["weight_decay"].dims == ("pair",)
    expected = rotsim.equilibrium(rotsim.Lion(1e-2, 0.1), 256, method="leading").norm
    assert found["norm"].values[1, 1] == expected != found["norm"].values[0, 1]


def test_a_gradient_and_a_variant_are_swept_too():
    noise = rotsim.Autocorrelated(0.0)
    found = rotsim.sweep(rotsim.SGDM(0.1, 1e-2), {"correlation": [0.0, 0.5]}, gradient=noise, dim=256)
    alone = rotsim.equilibrium(rotsim.SGDM(0.1, 1e-2), 256, rotsim.Autocorrelated(0.5))
    assert found["norm"].values[1] == alone.norm != found["norm"].values[0]
    turned = rotsim.sweep(rotsim.Rotational(rotsim.AdamW(1e-3, 0.1)), {"lr": [1e-3, 1e-2]}, dim=256)
    assert turned["rotation"].values[1] == rotsim.equilibrium(rotsim.Rotational(rotsim.AdamW(1e-2, 0.1)), 256).rotation


def test_each_beta_is_swept_by_its_number():
    found = rotsim.sweep(rotsim.AdEMAMix, {"beta1": [0.8, 0.9], "beta3": [0.99, 0.999]}, lr=0.1, weight_decay=0.1)
    of = rotsim.AdEMAMix(0.1, 0.1, (0.8, 0.999, 0.999))
    assert found["rotation"].values[0, 1] == pytest.approx(rotsim.equilibrium(of).rotation, rel=1e-12)
    with pytest.raises(InvalidInput, match="beta3"):
        rotsim.sweep(rotsim.AdamW, {**RATES, "beta3": [0.9]})


def test_rows_of_a_matrix_are_swept_and_fixed():
    """By every measure; for an optimizer that knows no matrices the cells say so."""
    over = {"lr": [0.01, 0.02], "rows": [16, 32]}
    for measure in ("equilibrium", "leading"):
        found = rotsim.sweep(rotsim.Muon, over, measure, dim=32)
        alone = rotsim.equilibrium(rotsim.Muon(0.02), 32, method=found.measure.replace("equilibrium", "exact"), rows=16)
        assert found["norm"].sel(lr=0.02, rows=16) == alone.norm
        same = found["norm"].sel(lr=0.02, rows=32) == alone.norm
        assert same == (measure == "leading")  # the published formula knows no rows up to a square
    fixed = rotsim.sweep(rotsim.Muon, {"adjust_lr_fn": ["original", "spectral"]}, lr=0.02, rows=16, dim=32)
    assert fixed["norm"].values[0] == rotsim.equilibrium(rotsim.Muon(0.02), 32, rows=16).norm != fixed["norm"].values[1]
    walk = dict(lr=0.02, weight_decay=1.0, rows=16, dim=32, steps=200)
    course = rotsim.sweep(rotsim.Muon, {"momentum": [0.5, 0.9]}, "predict", **walk)
    assert (
        course["norm"].values[1, -1]
        == rotsim.predict(rotsim.Muon(0.02, 1.0, 0.9), 32, steps=200, rows=16, record_every=10)["norm"].values[0, -1]
    )
    with pytest.raises(InvalidInput, match="no cell of this sweep has a result: `rows` is for an optimizer that acts"):
        rotsim.sweep(rotsim.AdamW, RATES, rows=16)


def test_a_cell_without_equilibrium_says_why():
    found = rotsim.sweep(rotsim.AdamW, {"lr": [1e-2], "weight_decay": [0.0, 0.1, 1000.0]})
    assert np.isnan(found["norm"].values[0, [0, 2]]).all() and found["norm"].values[0, 1] > 0
    assert "grows without bound" in found["reason"].values[0, 0]
    assert "lr * weight_decay" in found["reason"].values[0, 2]
    assert found["reason"].values[0, 1] == ""


def test_courses_of_different_length_stand_side_by_side():
    found = rotsim.sweep(rotsim.SGDM(0.1, 1e-2), {"steps": [100, 1000]}, "predict", windows=10, schedule="cosine")
    assert found["norm"].dims == ("steps", "run_share")
    course = rotsim.predict(rotsim.SGDM(0.1, 1e-2), steps=1000, record_every=100, lr_schedule=cosine(1000))
    np.testing.assert_array_equal(found["norm"].sel(steps=1000).values, course["norm"].values[0])


def test_simulated_error_is_within_its_standard_error():
    found = rotsim.sweep(
        rotsim.SGDM, {"lr": [0.1, 0.3]}, "error", weight_decay=0.01, of="simulation", dim=64, neurons=64, steps=4000
    )
    for name in ("norm", "rotation"):
        bound = 5 * found[f"{name}_standard_error"] + found["model_error"]
        assert (abs(found[f"{name}_error"]) < bound).all()
        assert (found[f"{name}_standard_error"] > 0).all()
    leading = rotsim.sweep(rotsim.SGDM, {"lr": [0.1, 3.0]}, "error", weight_decay=0.01, dim=64)
    assert abs(leading["norm_error"].values[1]) > 1e-3  # a control: the leading order is off at large lr * weight_decay


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"over": {"lrr": [1.0]}}, "Did you mean 'lr'"),
        ({"over": {"lr": []}}, "has no values"),
        ({"over": {"lr": 3}}, "list of values"),
        ({"over": {"lr": [1e-3]}}, "needs values for weight_decay"),
        ({"over": {**RATES}, "lr": 1.0}, "both swept and fixed"),
        ({"over": {"lr": ("d", [1.0]), "weight_decay": ("d", [0.1, 0.2])}}, "one length"),
        ({"over": {**RATES}, "measure": "norm"}, "choose from equilibrium"),
        ({"over": {**RATES}, "executor": 3}, "`submit` or `map`"),
        ({"over": {**RATES}, "workers": 0}, "`workers` must be >= 1"),
        ({"over": {"lr": [-1.0], "weight_decay": [0.1]}}, "no cell of this sweep has a result: `lr`"),
        ({"over": {"lr": range(1, 10_000), "weight_decay": range(1, 10_000)}}, "at most 10,000,000 cells"),
        ({"over": {**RATES}, "steps": 3}, "takes lr, weight_decay, beta1"),
        (
            {"over": {**RATES}, "measure": wordy},
            "`measure` must return numbers by name, or a Dataset; got no number: {'v",
        ),
        ({"over": {**RATES}, "measure": echoing}, "`measure` returns 'lr', which is swept; give its result another"),
        ({"over": {"lr": ("norm", [1e-3]), "weight_decay": [0.1]}}, "names its dimension 'norm', as a result; rename"),
        ({"over": {"lr": ("reason", [1e-3]), "weight_decay": [0.1]}}, "names its dimension 'reason', as a result"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(InvalidInput) as error:
        rotsim.sweep(rotsim.AdamW, **arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_measure_of_the_caller_may_fail_in_some_cells():
    found = rotsim.sweep(rotsim.SGDM(0.1, 0.1), {"x": [0.5, 2.0]}, refused)
    assert found["twice"].values[0] == 1 and np.isnan(found["twice"].values[1])
    assert found["reason"].values.tolist() == ["", "RuntimeError: x is large"]


def test_a_store_computes_only_what_is_new(tmp_path):
    calls, store = tmp_path / "calls", tmp_path / "sweep.zarr"
    calls.mkdir()
    arguments = dict(measure=counted, store=store, folder=str(calls), weight_decay=0.1, workers=1)
    first = rotsim.sweep(rotsim.SGDM, {"lr": [1e-3, 1e-2]}, **arguments)
    assert len(list(calls.iterdir())) == 2
    wider = rotsim.sweep(rotsim.SGDM, {"lr": [1e-3, 1e-2, 0.1], "dim": [32, 64]}, **arguments)
    assert len(list(calls.iterdir())) == 6  # cells at dim 64, the default, were named with it and are found again
    assert first["value"].values.tolist() == wider["value"].sel(dim=64, lr=[1e-3, 1e-2]).values.tolist()
    assert xr.open_zarr(store).load().identical(wider)


def test_a_torn_line_costs_one_cell(tmp_path):
    arguments = dict(measure="leading", store=tmp_path / "s.zarr", weight_decay=0.1)
    whole = rotsim.sweep(rotsim.SGDM, {"lr": [1e-3, 1e-2, 0.1]}, **arguments)
    (cells,) = (tmp_path / "s.zarr" / "cells").glob("*.jsonl")
    cells.write_bytes(cells.read_bytes()[:-40] + b'\n{"key": 3}\n[]\n\xff\n')
    assert rotsim.sweep(rotsim.SGDM, {"lr": [1e-3, 1e-2, 0.1]}, dry_run=True, **arguments).finished == 2
    again = rotsim.sweep(rotsim.SGDM, {"lr": [1e-3, 1e-2, 0.1]}, **arguments)
    assert again.drop_attrs().identical(whole.drop_attrs())


def test_a_store_of_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    rotsim.sweep(rotsim.SGDM, RATES, store=tmp_path / "other.zarr")
    for name, message in {"file": "is no folder", "folder": "holds no sweep", "other.zarr": "another sweep"}.items():
        with pytest.raises(DatasetError, match=message):
            rotsim.sweep(rotsim.AdamW, RATES, store=tmp_path / name)
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"


def test_a_disk_that_is_full_at_the_end_loses_no_cell(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    arguments = dict(measure="leading", store=tmp_path / "x.zarr", weight_decay=0.1, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr("xarray.Dataset.to_zarr", full)
        with pytest.raises(
            OSError, match=r"x\.zarr' cannot be written \(No space left on device\); its finished cells"
        ):
            rotsim.sweep(rotsim.SGDM, {"lr": [0.01, 0.02]}, **arguments)
    assert rotsim.sweep(rotsim.SGDM, {"lr": [0.01, 0.02]}, dry_run=True, **arguments).finished == 2


def test_without_zarr_a_store_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("rotsim.sweeps.store.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"`store` needs zarr: pip install"):
        rotsim.sweep(rotsim.SGDM, RATES, store=tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", ["threads", "processes", "map"])
def test_the_same_bits_wherever_cells_run(kind):
    arguments = dict(measure="simulate", weight_decay=0.1, dim=16, neurons=8, steps=2000)
    over = {"lr": [0.1, 0.2], "seed": [0, 1, 2]}
    here = rotsim.sweep(rotsim.SGDM, over, workers=1, **arguments)
    spawn = get_context("spawn")
    with (
        ThreadPoolExecutor(2) if kind == "threads"
        else ProcessPoolExecutor(1, spawn) if kind == "processes"
        else ThreadPool(1)
    ) as pool:  # fmt: skip
        there = rotsim.sweep(rotsim.SGDM, over, executor=pool, **arguments)
    assert there.drop_attrs().identical(here.drop_attrs())
    assert np.isfinite(here["norm"].values).any()


def test_a_killed_process_costs_nothing(tmp_path, monkeypatch):
    from rotsim.sweeps import execution

    monkeypatch.setattr(execution, "_lead", lambda *_, **__: iter(()))
    found = rotsim.sweep(
        rotsim.SGDM, {"lr": [0.1, 0.2, 0.3]}, fatal_once, folder=str(tmp_path), weight_decay=0.1, workers=2
    )
    assert found["value"].values.tolist() == [0.1, 0.2, 0.3]
    assert (tmp_path / "called").exists()


def test_ctrl_c_keeps_what_is_finished(tmp_path):
    def stop(done, cells):
        if done == 2:
            raise KeyboardInterrupt

    arguments = dict(over={"lr": [0.1, 0.2, 0.3]}, store=tmp_path / "s.zarr", weight_decay=0.1)
    with pytest.raises(rotsim.SweepInterrupted, match="interrupted after 2 of 3 cells") as stopped:
        rotsim.sweep(rotsim.SGDM, progress=stop, **arguments)
    assert np.isfinite(stopped.value.dataset["norm"].values).tolist() == [True, True, False]
    assert "interrupted" in stopped.value.dataset["reason"].values[2]
    assert rotsim.sweep(rotsim.SGDM, dry_run=True, **arguments).finished == 2


def test_two_processes_on_one_store(tmp_path):
    program = (
        "import rotsim, sys; print(rotsim.sweep(rotsim.SGDM, {'lr': [x / 100 for x in range(1, 40)]}, 'leading', "
        f"store={str(tmp_path / 's.zarr')!r}, weight_decay=0.1).norm.values.tolist())"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2)]
    answers = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1]
    assert len(json.loads(answers[0])) == 39


def test_a_broken_executor_is_named():
    class Broken:
        def submit(self, *work):
            future = ThreadPoolExecutor(1).submit(int, "no number")
            return future

    with pytest.raises(InvalidInput, match="`executor` lost a cell 4 times"):
        rotsim.sweep(rotsim.SGDM, RATES, executor=Broken())


def test_answers_have_one_shape():
    from rotsim.sweeps.grid import grid

    (recipe,) = grid(rotsim.SGDM(0.1, 0.1), {}, {"dim": 64}, None, {}).cells()
    (answer,) = evaluate(rotsim.sweeps.MEASURES["equilibrium"], [recipe])
    assert answer["reason"] == "" and answer["values"]["norm"][0] == ()


def test_a_sweep_over_nothing_is_one_cell():
    found = rotsim.sweep(rotsim.SGDM(0.1, 0.01), {}, measure="leading", dim=8)
    assert found.norm.shape == () and float(found.norm) > 0
