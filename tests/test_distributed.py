"""Processes that train one model: the trace of the first is that of one process, whole or of its own rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rotsim import dataset

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"),
]

STEPS, INPUTS = 20, 4
SIZES = {"0.weight": 8, "2.weight": 6}  # neurons
WORKER = """
import os
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from rotsim.errors import InvalidInput
from rotsim.measure import Recorder

way, rank, processes, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
if processes > 1:
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(INPUTS, 8), nn.Tanh(), nn.Linear(8, 6, bias=False))
if way == "DDP":
    model = nn.parallel.DistributedDataParallel(model)
elif way == "FSDP":
    model = fully_shard(model, mesh=init_device_mesh("cpu", (processes,)))
elif way == "columns":
    mesh = init_device_mesh("cpu", (processes,))
    model = fully_shard(model, mesh=mesh, shard_placement_fn=lambda parameter: Shard(parameter.ndim - 1))
elif way == "tensor":
    mesh = init_device_mesh("cpu", (processes,))
    model = parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
elif way == "grid":
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
    model = fully_shard(model, mesh=mesh["data"])
    rank, processes = rank // 2, 2  # those of one row have the same data
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
me, split = distributed.get_rank() if processes > 1 else 0, {} if way == "grid" else {"0.weight": "ab"}
draw = torch.Generator().manual_seed(1)
try:
    with Recorder(model, optimizer, interval=2, window=4, lags=2, path=folder / f"{me}.nc", split=split):
        for _ in range(STEPS):
            x, y = torch.randn(12, INPUTS, generator=draw), torch.randn(12, 6, generator=draw)
            mine = slice(None) if way == "tensor" else slice(rank, None, processes)
            optimizer.zero_grad()
            (model(x[mine]) - y[mine]).square().mean().backward()
            optimizer.step()
except InvalidInput as error:
    print(error)
if processes > 1:
    distributed.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # after the last Python code PyTorch now and then aborts a process that was one of several
"""


def trained(way: str, processes: int, folder: Path) -> tuple[dict[str, object], list[str]]:
    """The traces that a training wrote, by name, and what its processes said."""
    folder.mkdir()
    words = [sys.executable, "-c", WORKER.replace("STEPS", str(STEPS)).replace("INPUTS", str(INPUTS)), way]
    running = [
        subprocess.Popen([*words, str(rank), str(processes), str(folder)], stdout=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * processes
    return {path.stem: dataset.load(path) for path in folder.glob("*.nc")}, said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    traces, _ = trained("alone", 1, tmp_path_factory.mktemp("alone") / "run")
    return traces["0"]


MEASURED = ("norm", "rotation", "update_rms", "gradient_norm", "gradient_cosine", "radial", "active")


def agree(trace, alone, rows):
    """A trace has the numbers of the same rows of another one."""
    assert trace["layer"].values.tolist() == alone["layer"].values[rows].tolist()
    assert trace["fan_in"].values.tolist() == alone["fan_in"].values[rows].tolist()
    for name in MEASURED:
        np.testing.assert_allclose(trace[name], alone[name][rows], rtol=1e-5, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(trace["initial_norm"], alone["initial_norm"][rows], rtol=1e-12)


@pytest.mark.parametrize(
    ("way", "processes", "rows"),
    [
        ("DDP", 2, range(14)),
        ("FSDP", 2, (*range(4), *range(8, 11))),  # the first half of each weight
        ("tensor", 2, (*range(4), *range(8, 14))),  # half the rows of one weight, and half the columns of the other
        ("columns", 2, range(14)),
        ("grid", 4, range(8, 11)),  # half the rows of half the columns; of the other weight no whole block of rows
    ],
)
def test_the_first_process_records_what_one_process_would(way, processes, rows, alone, tmp_path):
    traces, _ = trained(way, processes, tmp_path / "run")
    assert list(traces) == ["0"]
    trace, rows = traces["0"], np.array(rows)
    found = {str(name): int((trace["layer"].str.startswith(name)).sum()) for name in SIZES}
    fewer = {name: size for name, size in SIZES.items() if 0 < found[name] < size}
    assert dataset.spec_of(trace)["sampled_rows"] == fewer
    agree(trace, alone, rows)
    if way == "DDP":
        name = "gradient_autocorrelation"
        np.testing.assert_allclose(trace[name], alone[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(AssertionError):
        agree(trace, alone, np.roll(rows, 1))  # other rows are told apart


def test_rows_of_which_a_process_has_a_part_alone_are_measured_with_the_others(alone, tmp_path, monkeypatch):
    """The control: a process that does not ask the others finds shorter rows."""
    monkeypatch.setattr(sys.modules[__name__], "WORKER", ALONE_IN_SUMS + WORKER)
    traces, _ = trained("columns", 2, tmp_path / "run")
    assert (traces["0"]["norm"] < 0.95 * alone["norm"]).mean() > 0.9


ALONE_IN_SUMS = """
import rotsim.measure.running
rotsim.measure.running.added = lambda parts, groups: parts
"""
