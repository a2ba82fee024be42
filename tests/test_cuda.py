"""The CUDA engine: what the CPU engine computes, run in numba's simulator, and on a GPU where there is one."""

import json
import os
import subprocess
import sys

import numba
import numba.cuda
import pytest

import rotsim

DRAWN_ON_CPU = """
import json, warnings
import numpy as np
import rotsim
from rotsim.dataset import QUANTITIES
from rotsim.simulation import run
from tests.conftest import EXAMPLES
warnings.filterwarnings("ignore", "overflow encountered in scalar", RuntimeWarning)  # the noise counts modulo 2³²
def deviation(optimizer, gradient, **options):
    options = dict(dim=7, neurons=2, steps=6, record_every=4, initial_norm=2.0, gradient=gradient) | options
    gpu = rotsim.simulate(optimizer, engine="cuda", keep_state=True, **options)
    cpu = rotsim.simulate(optimizer, keep_state=True, **options | {"seed": 0})
    assert gpu.sizes == cpu.sizes and set(gpu) == set(cpu)
    return float(max(np.abs(gpu[name] / cpu[name] - 1).max() for name in QUANTITIES))
found = {
    f"{name} {gradient.name} {dtype}": deviation(optimizer, gradient, dtype=dtype)
    for name, optimizer in EXAMPLES.items()
    for gradient in (rotsim.Isotropic(0.7), rotsim.ScaleInvariant((1.3, 0.5)))
    for dtype in ("float32", "float64")
}
control = deviation(rotsim.AdamW(1e-2, 0.1), rotsim.Isotropic(), seed=1)
"""

CUT_UP = """
options = dict(dim=6, neurons=2, record_every=4, keep_state=True, engine="cuda", wd_schedule=lambda step: 1 / step)
walk = lambda **more: rotsim.simulate(rotsim.SGDM(0.1, 0.01), **options | more)
whole, part = walk(steps=7), walk(steps=5)
run._MAX_CHUNK = 3
same = [whole.drop_attrs().identical(other.drop_attrs()) for other in (walk(steps=7, resume=part), walk(steps=7))]
print(json.dumps({"found": found, "control": control, "same": same}))
"""


def test_the_simulator_follows_the_cpu_engine():
    """Four optimizers, two noise models, both formats, an odd dim; then resumed, and cut into chunks."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-c", DRAWN_ON_CPU + CUT_UP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["found"]) == 16
    for name, deviation in result["found"].items():
        assert deviation < (1e-4 if "float32" in name else 1e-12), name
    assert result["control"] > 1e-2
    assert result["same"] == [True, True]


def test_a_gpu_follows_the_cpu_engine(optimizer, gradient):
    if not numba.cuda.is_available():
        pytest.skip("no GPU")
    options = dict(dim=333, neurons=20, steps=1000, gradient=gradient)
    for dtype, bound in (("float32", 1e-3), ("float64", 1e-9)):
        gpu, cpu = (rotsim.simulate(optimizer, engine=engine, dtype=dtype, **options) for engine in ("cuda", "numba"))
        for name in ("norm", "rotation", "update_rms"):
            assert abs(gpu[name] / cpu[name] - 1).max() < bound, (name, dtype)


@pytest.mark.parametrize(
    ("optimizer", "gradient"),
    [
        (rotsim.SGDM(0.1, 0.01), rotsim.Radial(0.1)),
        (rotsim.Rotational(rotsim.SGDM(0.1, 0.01)), rotsim.ScaleInvariant()),
    ],
)
def test_refuses_what_it_has_not(optimizer, gradient):
    with pytest.raises(rotsim.InvalidInput, match=r"`engine='cuda'` has AdamW, .*got .*Use engine='numba'"):
        rotsim.simulate(optimizer, steps=1, gradient=gradient, engine="cuda")


def test_says_what_is_missing(monkeypatch):
    if not numba.cuda.is_available():
        with pytest.raises(rotsim.InvalidInput, match=r"needs an NVIDIA GPU"):
            rotsim.simulate(rotsim.SGDM(0.1, 0.01), steps=1, engine="cuda")
    monkeypatch.delattr(numba, "cuda")
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    with pytest.raises(rotsim.InvalidInput, match=r"needs numba-cuda: pip install 'rotsim\[cuda\]'"):
        rotsim.simulate(rotsim.SGDM(0.1, 0.01), steps=1, engine="cuda")
