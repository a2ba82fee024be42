"""The CUDA engine: what the CPU engines compute, run in numba's simulator, and on a GPU where there is one."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numba
import numba.cuda
import numpy as np
import pytest

import rotsim
from rotsim.optimizers import OPTIMIZERS
from rotsim.simulation.engines import cuda
from tests.conftest import EXAMPLES

SIMULATED = """
import json, warnings
import numpy as np
import rotsim
from rotsim.dataset import QUANTITIES
from rotsim.simulation import chunks
from rotsim.simulation.engines import cuda
from tests.conftest import EXAMPLES
warnings.filterwarnings("ignore", "overflow encountered in scalar", RuntimeWarning)  # the noise counts modulo 2³²
def deviation(optimizer, gradient, **options):
    neurons = len(gradient.parameters())
    options = dict(dim=7, neurons=neurons, steps=4, record_every=3, initial_norm=2.0, gradient=gradient) | options
    gpu = rotsim.simulate(optimizer, engine="cuda", keep_state=True, **options)
    cpu = rotsim.simulate(optimizer, engine="numpy", keep_state=True, **options | {"seed": 0})
    assert gpu.sizes == cpu.sizes and set(gpu) == set(cpu)
    return float(max(np.abs(gpu[name] / cpu[name] - 1).max() for name in QUANTITIES))
found = {
    f"{name} {gradient.name} {dtype}": deviation(optimizer, gradient, dtype=dtype)
    for name, optimizer in EXAMPLES.items()
    for gradient in (rotsim.Isotropic(0.7), rotsim.ScaleInvariant((1.3, 0.5)))
    for dtype in ("float32", "float64")
}
control = deviation(rotsim.AdamW(1e-2, 0.1), rotsim.Isotropic(), seed=1)
wide = dict(dim=70, steps=70, record_every=3)  # several counters a thread or threads a neuron, steps kept and windows
room = {"memory": 1, "registers": cuda._ROW_BYTES}
for place in room:
    cuda._ROW_BYTES = room[place]
    for optimizer in (rotsim.AdamW(1e-2, 0.1), rotsim.AdEMAMix(1e-2, 0.1)):
        found[f"{optimizer.name} float32 in {place}"] = deviation(optimizer, rotsim.ScaleInvariant(), **wide)
"""

CUT_UP = """
options = dict(dim=6, neurons=2, record_every=4, keep_state=True, engine="cuda", wd_schedule=lambda step: 1 / step)
walk = lambda **more: rotsim.simulate(rotsim.SGDM(0.1, 0.01), **options | more)
same, most = [], chunks.MAX_CHUNK_STEPS
for place in room:
    cuda._ROW_BYTES, chunks.MAX_CHUNK_STEPS = room[place], most
    whole, part = walk(steps=7), walk(steps=5)
    chunks.MAX_CHUNK_STEPS = 3
    same += [whole.drop_attrs().identical(other.drop_attrs()) for other in (walk(steps=7, resume=part), walk(steps=7))]
print(json.dumps({"found": found, "control": control, "same": same}))
"""


@pytest.mark.slow
def test_the_simulator_follows_the_twin():
    """Every optimizer of coordinates, two noise models, both formats, an odd dim; then resumed, and cut into chunks.

    The NumPy twin stands for the CPU engine: compiling all walks would take most of the test's time.
    """
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-c", SIMULATED + CUT_UP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["found"]) == 4 + 4 * sum(spec.acts_on == "coordinate" for spec in OPTIMIZERS.values())
    for name, deviation in result["found"].items():
        assert deviation < (1e-4 if "float32" in name else 1e-12), name
    assert result["control"] > 1e-2
    assert result["same"] == [True] * 4


def test_a_gpu_follows_the_cpu_engine(optimizer, gradient):
    if not numba.cuda.is_available():
        pytest.skip("no GPU")
    for dim, steps in ((333, 1000), (6000, 100)):  # in registers, in memory
        options = dict(dim=dim, neurons=20, steps=steps, gradient=gradient)
        for dtype, bound in (("float32", 1e-3), ("float64", 1e-9)):
            gpu, cpu = (rotsim.simulate(optimizer, engine=name, dtype=dtype, **options) for name in ("cuda", "numba"))
            for name in ("norm", "rotation", "update_rms"):
                assert abs(gpu[name] / cpu[name] - 1).max() < bound, (name, dtype, dim)


class OnHost(np.ndarray):
    """An array that stays where it is, in place of one on a GPU."""

    def copy_to_host(self, host):
        pass


@pytest.fixture
def compiler(monkeypatch):
    """NVIDIA's compiler without a GPU: what `simulate` launches is compiled for compute capability 9.0, not run."""
    if numba.cuda.is_available():
        pytest.skip("there is a GPU: the test above compiles for it")
    dispatcher = pytest.importorskip("numba.cuda.dispatcher", reason="numba has no CUDA target here")
    options = dict(device=False, cc=(9, 0), abi="numba")
    try:
        numba.cuda.compile(lambda: None, (), **options)
    except Exception as missing:  # its type depends on who provides `numba.cuda`
        pytest.skip(f"no libNVVM to compile with (pip install 'rotsim[cuda]' brings it): {type(missing).__name__}")
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(9, 0)))
    monkeypatch.setattr(numba.cuda, "is_available", lambda: True)
    monkeypatch.setattr(numba.cuda, "to_device", lambda array: array.view(OnHost))
    monkeypatch.setattr(numba.cuda, "device_array", np.zeros)
    kernel_of, assembled = cuda._kernel, []

    def launchable(*given):
        kernel = kernel_of(*given)

        class Launchable:
            def __getitem__(self, configuration):
                kernel[configuration]  # numba checks the sizes, and may warn
                return self

            def __call__(self, *arguments):
                types = [numba.typeof(np.asarray(x) if isinstance(x, OnHost) else x) for x in arguments]
                assembled.append(numba.cuda.compile(kernel.py_func, tuple(types), **options)[0])

        return Launchable()

    monkeypatch.setattr(cuda, "_kernel", launchable)
    return assembled


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("adamw", "float32"),
        ("adamw", "float64"),
        *(pytest.param(name, "float32", marks=pytest.mark.slow) for name in EXAMPLES if name != "adamw"),
    ],
)
def test_compiles_for_a_gpu(compiler, name, dtype):
    """To PTX, with the very arguments of a launch.

    A float32 walk counts in float64 only where it records. That is the same in both walks, while coordinates come eight
    at a time in the one and singly in the other.
    """
    for dim in (7, 6000):
        rotsim.simulate(EXAMPLES[name], dim=dim, neurons=2, steps=5, engine="cuda", dtype=dtype)
    in_registers, in_memory = compiler
    assert all(".target sm_90" in ptx and ".visible .entry" in ptx and "bar.sync" in ptx for ptx in compiler)
    assert not any(".local" in ptx for ptx in compiler)  # where a thread's arrays lie that do not fit into registers
    assert (in_registers.count(".f64") == in_memory.count(".f64")) == (dtype == "float32")


@pytest.mark.parametrize(
    ("optimizer", "gradient"),
    [
        (rotsim.SGDM(0.1, 0.01), rotsim.Radial(0.1)),
        (rotsim.Rotational(rotsim.SGDM(0.1, 0.01)), rotsim.ScaleInvariant()),
    ],
)
def test_refuses_what_it_has_not(optimizer, gradient):
    with pytest.raises(
        rotsim.InvalidInput,
        match=r"`engine='cuda'` needs an optimizer that acts on .*Use engine='numba'",
    ):
        rotsim.simulate(optimizer, steps=1, gradient=gradient, engine="cuda")


def test_says_what_is_missing(monkeypatch):
    if not numba.cuda.is_available():
        with pytest.raises(rotsim.InvalidInput, match=r"needs an NVIDIA GPU"):
            rotsim.simulate(rotsim.SGDM(0.1, 0.01), steps=1, engine="cuda")
    monkeypatch.delattr(numba, "cuda")
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    with pytest.raises(rotsim.InvalidInput, match=r"needs numba-cuda: pip install 'rotsim\[cuda\]'"):
        rotsim.simulate(rotsim.SGDM(0.1, 0.01), steps=1, engine="cuda")
