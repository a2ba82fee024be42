"""The turn on a GPU: the numbers of the CPU's kernel, in a few launches; without one, in Triton's interpreter."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from benchmarks import page, traffic  # noqa: E402
from experiments.gpu import turn  # noqa: E402
from rotsim.measure import rotation_triton  # noqa: E402
from rotsim.measure.rotation_kernel import difference  # noqa: E402
from rotsim.optimizers import SGDM, AdamW, Lion  # noqa: E402

INTERPRETED = """
from unittest import mock
from experiments.gpu import turn
from rotsim.measure import rotation_triton
for name in turn.KINDS[{names}]:
    for dtype, allowed in turn.ALLOWED.items():
        for options in turn.OPTIONS:
            cpu = turn.course(name, dtype, options, steps=2)
            with mock.patch("rotsim.measure.rotation_loop.turn_", rotation_triton.turn_), \\
                 mock.patch("rotsim.measure.rotated.turn_", rotation_triton.turn_):
                gpu = turn.course(name, dtype, options, steps=2)
            assert turn.difference(cpu, gpu) < allowed, (name, dtype, options)
            assert turn.difference(cpu, turn.course(name, dtype, options, steps=3)) > allowed
"""


@pytest.mark.parametrize("names", [":1", pytest.param("1:", marks=pytest.mark.slow)])
def test_triton_turns_as_the_cpu_does(names):
    pytest.importorskip("triton", minversion="3.9", reason="numpy 2.4 breaks older interpreters")
    command = [sys.executable, "-c", INTERPRETED.replace("{names}", names)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_gpu_turns_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    for row in turn.deviations("cuda"):
        assert row["deviation"] < row["allowed"], row


@pytest.mark.few(1)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("update", "averages"), [(AdamW.update, 2), (SGDM.update, 1), (Lion.update, 1), (SGDM.update, 0), (difference, 0)]
)
def test_triton_compiles_for_a_gpu(update, averages, dtype):
    """To machine code, of a large GPU, which need not be here."""
    triton = pytest.importorskip("triton")
    compiler = pytest.importorskip("triton.backends.compiler")
    real = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    kinds = {"jobs": "*i64", "numbers": "*fp64", "pieces": "*i64", "sums": "*fp64", "powers": real}
    for kernel in rotation_triton._kernels(update, averages, update is difference, dtype, 1024):
        source = triton.compiler.ASTSource(kernel, {name: kinds[name] for name in kernel.arg_names}, {})
        made = triton.compile(source, target=compiler.GPUTarget("cuda", 90, 32))
        assert ".target sm_90" in made.asm["ptx"]


def test_a_step_takes_a_few_launches_whatever_the_network():
    table = traffic.table()
    assert page.shown("traffic") == table, "run `python -m benchmarks.traffic --table`"
    counts = [int(line.split("|")[3]) for line in table.splitlines()[2:]]
    of_adamw, turning = counts[:: len(traffic.SHOWN)], counts
    assert of_adamw == [9, 9] and max(turning) <= 14
    assert counts[: len(traffic.SHOWN)] == counts[len(traffic.SHOWN) :]


def test_what_triton_lacks_is_said_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    device = torch.device("cpu")
    rotation_triton.available.cache_clear()
    rotation_triton._kernels.cache_clear()
    with pytest.warns(UserWarning, match=r"their slower way on cpu, since Triton does not work there \(ModuleNot"):
        assert not rotation_triton.available(device)
    assert not rotation_triton.available(device)  # and no second warning, which would be an error
    rotation_triton.available.cache_clear()
