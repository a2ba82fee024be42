"""What .ci/run relies on when it repeats tests for another processor: numba compiles for it, and shares no cache."""

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


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names x86 processors")
def test_a_kernel_for_one_processor_is_not_served_to_another(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(name):
        environment = os.environ | {
            "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        }  # fmt: skip
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
        hits, *vectors = done.stdout.split()
        return int(hits), vectors

    old, again, newer = run("x86-64"), run("x86-64"), run("x86-64-v3")
    assert old == (0, ["False", "False"]) and again == (1, ["False", "False"])
    assert newer == (0, ["False", "True"])  # compiled anew, without what this machine may have beyond it
