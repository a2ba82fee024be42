"""What numba compiles for a named processor: whole vectors in the walk, and nothing from another processor's cache."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from numba import njit
@njit(cache=True)
def kernel(x):
    for j in range(x.size):
        x[j] = x[j] * 1.5
kernel(np.ones(1000))
(code,) = kernel.inspect_asm().values()
print(sum(kernel.stats.cache_hits.values()), "%zmm" in code, "%ymm" in code)
"""

#: The quotients of Adam's kernel, of whole vectors and of single numbers.
QUOTIENTS = """
import sys
import numpy as np
from numba import typeof
import rotsim
from rotsim.simulation import walk
from rotsim.simulation.arguments import Neurons, Steps, Windows
from rotsim.simulation.workspace import workspace
if "in order" in sys.argv:  # of a sum, which then cannot be taken in vectors
    walk.FASTMATH = walk.FASTMATH - {"reassoc"}
one, keys = np.ones((1, 1)), np.ones((1, 2), np.uint32)
neurons = Neurons(np.ones((1, 3, 64), np.float32), np.ones(1), keys, one)
steps = Steps(1, np.ones((1, 7), np.float32), np.ones((1, 1, 0), np.float32))
room = workspace(rotsim.Isotropic(), 64, np.dtype(np.float32))
kernel = walk.kernel(rotsim.AdamW, rotsim.Isotropic).dispatcher
kernel.compile(tuple(typeof(x) for x in ((0, 1), neurons, steps, room, Windows(np.ones((1, 3, 1)), 1, 0))))
(code,) = kernel.inspect_asm().values()
print(sum("vdivps" in line and "%ymm" in line for line in code.splitlines()), code.count("vdivss"))
"""

ON_X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names x86 processors")


def on_processor(name, cache, *arguments):
    """What a program prints when numba compiles for the named processor."""
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


@ON_X86
def test_an_update_takes_whole_vectors_on_avx2(tmp_path):
    """Compiled, not run. Eight in whole tiles, eight in half a tile, and of single numbers those of a step alone."""
    vectors, single = map(int, on_processor("x86-64-v3", tmp_path, "-c", QUOTIENTS))
    assert vectors == 16 and single < 8
    vectors, single = map(int, on_processor("x86-64-v3", tmp_path, "-c", QUOTIENTS, "in order"))
    assert vectors < 16 and single >= 8


@pytest.mark.slow
@ON_X86
def test_a_kernel_for_one_processor_is_not_served_to_another(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(name):
        hits, *vectors = on_processor(name, tmp_path / "cache", program)
        return int(hits), vectors

    old, again, newer = run("x86-64"), run("x86-64"), run("x86-64-v3")
    assert old == (0, ["False", "False"]) and again == (1, ["False", "False"])
    assert newer == (0, ["False", "True"])  # compiled anew, without what this machine may have beyond it
