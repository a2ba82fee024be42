"""Two processes that train one model: the trace of the first is that of one process, whole or of its own rows."""

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

STEPS = 20
WORKER = """
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

from rotsim.errors import InvalidInput
from rotsim.measure import Recorder

way, rank, processes, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
if processes > 1:
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 6, bias=False))
if way == "DDP":
    model = nn.parallel.DistributedDataParallel(model)
elif way == "FSDP":
    model = fully_shard(model, mesh=init_device_mesh("cpu", (processes,)))
elif way == "columns":
    mesh = init_device_mesh("cpu", (processes,))
    model = fully_shard(model, mesh=mesh, shard_placement_fn=lambda parameter: Shard(parameter.ndim - 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
draw = torch.Generator().manual_seed(1)
try:
    with Recorder(model, optimizer, interval=2, window=4, lags=2, path=folder / f"{rank}.nc", split={"0.weight": "ab"}):
        for _ in range(STEPS):
            x, y = torch.randn(8, 12, generator=draw), torch.randn(8, 6, generator=draw)
            mine = slice(rank, None, processes)
            optimizer.zero_grad()
            (model(x[mine]) - y[mine]).square().mean().backward()
            optimizer.step()
except InvalidInput as error:
    print(error)
if processes > 1:
    distributed.destroy_process_group()
"""


def trained(way: str, processes: int, folder: Path) -> tuple[dict[str, object], list[str]]:
    """The traces that a training wrote, by name, and what its processes said."""
    folder.mkdir()
    words = [sys.executable, "-c", WORKER.replace("STEPS", str(STEPS)), way]
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


@pytest.mark.parametrize("way", ["DDP", "FSDP"])
def test_the_first_process_records_what_one_process_would(way, alone, tmp_path):
    traces, _ = trained(way, 2, tmp_path / "run")
    assert list(traces) == ["0"]
    trace, sampled = traces["0"], dataset.spec_of(traces["0"])["sampled_rows"]
    if way == "DDP":
        rows = np.arange(alone.sizes["neuron"])
        assert not sampled
    else:  # the first half of each weight
        rows = np.r_[0:4, 8:11]
        assert sampled == {"0.weight": 8, "2.weight": 6}
    assert trace["layer"].values.tolist() == alone["layer"].values[rows].tolist()
    assert set(trace["layer"].values.tolist()) >= {"0.weight[a]", "2.weight"}
    for name in ("norm", "rotation", "update_rms", "gradient_norm", "radial", "active"):
        np.testing.assert_allclose(trace[name], alone[name][rows], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(trace["initial_norm"], alone["initial_norm"][rows], rtol=1e-12)
    if way == "DDP":
        name = "gradient_autocorrelation"
        np.testing.assert_allclose(trace[name], alone[name], rtol=1e-5, atol=1e-6)
    else:  # other rows are told apart
        assert np.abs(trace["rotation"].values - alone["rotation"].values[rows + 1]).max() > 1e-4


def test_rows_that_no_process_has_whole_are_refused(tmp_path):
    traces, said = trained("columns", 2, tmp_path / "run")
    assert not traces
    assert all("sharded (DTensor), and not by rows" in words for words in said)
