"""Turns and samples on a GPU: the numbers of the CPU in a few launches; without one, in Triton's interpreter.

Triton comes with PyTorch for CUDA, and with the extra dev.
"""

import contextlib
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from benchmarks import page, traffic  # noqa: E402
from experiments.gpu import turn  # noqa: E402
from rotsim.measure import gpu, rotation_triton, sample_triton  # noqa: E402
from rotsim.measure.rotation_kernel import _turns_right, difference, turn_  # noqa: E402
from rotsim.measure.sample import lengths  # noqa: E402
from rotsim.optimizers import SGDM, AdamW, Lion  # noqa: E402

INTERPRETED = """
from unittest import mock
from experiments.gpu import turn
from rotsim.measure import gpu, rotation_triton, sample_triton
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


SAMPLED = """
import torch
from rotsim.measure.sample import Averaged, lengths
from rotsim.measure.sample_triton import launched
draw = torch.Generator().manual_seed(0)
for dtype in (torch.float32, torch.float64, torch.float16):
    def normal(*shape):
        return torch.randn(shape, generator=draw).to(dtype)
    looks = [(normal(3, 8), normal(3, 8), None, Averaged(rank=torch.tensor(2.5)))]
    looks += [(normal(4, 7), normal(4, 7), normal(4, 7), Averaged(known=float("nan")))]
    looks += [(normal(5, 3000), normal(5, 3000), normal(5, 3000), Averaged(normal(5, 3000).square(), 0.1, 0.3, 1e-3))]
    columns = [normal(20, 6).T for _ in range(4)]
    looks += [(*columns[:3], Averaged(columns[3].square(), 0.0, 0.3, 0.0))]
    for found, look in zip(launched(looks), looks):
        torch.testing.assert_close(found, lengths(*look), rtol=1e-12, atol=0.0, equal_nan=True)
        assert not torch.allclose(found[:5], lengths(look[1], *look[1:])[:5])
"""


@pytest.mark.slow
@pytest.mark.parametrize("names", [":1", "1:"])
def test_triton_turns_as_the_cpu_does(names):
    pytest.importorskip("triton", minversion="3.9", reason="numpy 2.4 breaks older interpreters")
    interpret(INTERPRETED.replace("{names}", names))


@pytest.mark.slow
def test_triton_samples_as_the_cpu_does():
    pytest.importorskip("triton", minversion="3.9", reason="numpy 2.4 breaks older interpreters")
    interpret(SAMPLED)


def interpret(program):
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_gpu_turns_as_the_cpu_does():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    for row in turn.deviations("cuda"):
        assert row["deviation"] < row["allowed"], row


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("update", "averages"), [(AdamW.update, 2), (SGDM.update, 1), (Lion.update, 1), (SGDM.update, 0), (difference, 0)]
)
def test_triton_compiles_for_a_gpu(update, averages, dtype):
    pytest.importorskip("triton")
    for kernel in rotation_triton._kernels(update, averages, update is difference, dtype, 1024):
        compile_for_a_gpu(kernel, dtype)
    compile_for_a_gpu(sample_triton._kernel(dtype, 512), dtype)


def compile_for_a_gpu(kernel, dtype):
    """To machine code of a large GPU, which need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget

    real = {torch.float32: "*fp32", torch.float64: "*fp64"}[dtype]
    kinds = dict.fromkeys(("jobs", "pieces", "rows"), "*i64") | dict.fromkeys(("numbers", "sums", "found"), "*fp64")
    kinds["powers"] = real
    source = triton.compiler.ASTSource(kernel, {name: kinds[name] for name in kernel.arg_names}, {})
    assert ".target sm_90" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


def test_a_step_and_a_sample_take_a_few_launches_whatever_the_network():
    table = traffic.table()
    assert page.shown("traffic") == table, "run `python -m benchmarks.traffic --table`"
    *steps, sample = (int(line.split("|")[3]) for line in table.splitlines()[2:])
    one, other = steps[: len(traffic.SHOWN)], steps[len(traffic.SHOWN) :]
    assert one == other and one[0] == 9 and max(one) <= 14
    assert sample <= 40  # of 39 parameters


def test_what_triton_lacks_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.ones(*shape))
    gpu.available.cache_clear()
    with pytest.warns(UserWarning, match="a slower way on cuda:7: Triton does not work there .ModuleNotFoundError"):
        assert not gpu.available(torch.device("cuda", 7))
    assert not gpu.available(torch.device("cpu"))
    gpu.available.cache_clear()


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1.0, None),
        (1.01, r"a kernel of Triton is 0\.\d+ off there"),
        ("one", r"a kernel of Triton fails there .TypeErr"),
    ],
)
def test_a_kernel_that_is_wrong_on_a_gpu_is_not_used(factor, said, monkeypatch):
    """At its first use it is held against the CPU: whatever a driver or a compiler does, training is not harmed."""
    device = torch.device("cpu")

    def turn_too_far(*given, **options):
        turn_(*given[:-1], given[-1] * factor, **options)

    def too_long(looks):
        return [lengths(*look) * factor for look in looks]

    monkeypatch.setattr(rotation_triton, "turn_", turn_too_far)
    monkeypatch.setattr(sample_triton, "launched", too_long)
    for check in (_turns_right, sample_triton._measures_right):
        check.cache_clear()
        warned = pytest.warns(UserWarning, match=f"takes a slower way on cpu: {said}")
        with warned if said else contextlib.nullcontext():
            assert check(device) == (said is None)
        check.cache_clear()
