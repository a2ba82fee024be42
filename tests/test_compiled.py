"""Kernels: what their names on disk depend on, what is said while they are compiled; and the root search of theory."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

import rotsim
from rotsim import compiled, jit, kernels, noise
from rotsim.simulation import walk
from rotsim.theory.fixed_point import bracketed_root

PACKAGE = Path(rotsim.__file__).parent


def files_of(kernel):
    return {str(path.relative_to(PACKAGE)) for path in compiled.ingredients(kernel)[0]}


def test_a_kernel_depends_on_what_it_calls_and_on_nothing_else():
    kernel = walk.kernel(rotsim.AdamW, rotsim.ScaleInvariant)
    assert files_of(kernel) == {
        "compiled.py", "jit.py", "noise.py", "gradients/base.py", "gradients/scale_invariant.py", "optimizers/adamw.py",
        "optimizers/root.py", "simulation/walk.py", "angle.py",
    }  # fmt: skip
    facts = compiled.ingredients(kernel)[1]
    assert "BLOCK = 64" in facts  # a number that another file defines
    assert "gradients/autocorrelated.py" in files_of(walk.kernel(rotsim.AdamW, rotsim.Autocorrelated))


@pytest.mark.slow
def test_numba_compiles_no_file_that_the_digest_leaves_out(tmp_path):
    """An independent route: the files of all functions that numba reports while it compiles without a cache."""
    program = """
from numba.core import event
import rotsim
from rotsim import compiled
from rotsim.theory import lion
seen = set()
class Listener(event.Listener):
    def on_start(self, event):
        seen.add(event.data["dispatcher"].py_func.__code__.co_filename)
    def on_end(self, event):
        pass
event.register("numba:compile", Listener())
rotsim.predict(rotsim.Lion(1e-3, 1.0), dim=8, steps=2)
own = {str(path) for path in compiled.ingredients(lion.course_of_modes)[0]}
reported = {name for name in seen if "rotsim" in name}
assert any(name.endswith("closed_forms.py") for name in reported), reported
print(sorted(reported - own))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_changed_source_option_or_constant_is_another_kernel(monkeypatch):
    def made(**options):
        return compiled.digest(kernels.compiled(walk._walk, "test", {"_sample": noise.box_muller}, **options))

    plain = made()
    assert made() == plain
    assert made(fastmath={"nsz"}) != plain
    monkeypatch.setattr(walk, "BLOCK", 32)
    assert made() != plain
    monkeypatch.undo()
    assert made() == plain
    content = compiled._content
    monkeypatch.setattr(compiled, "_content", lambda path: content(path) + b"#" * (path.name == "noise.py"))
    assert made() != plain


def test_a_terminal_hears_what_is_compiled(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def twice(x):
        return 2 * x

    for stream, expected in ((Terminal(), 1), (io.StringIO(), 0)):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(jit.numba, "njit", uncached(jit.numba.njit))
        kernel = kernels.compiled(twice, "twice", {})
        assert kernel(2) == 4 and kernel(3) == 6
        assert stream.getvalue().count("rotsim: compiling twice (once per machine)") == expected


def uncached(njit):
    """The same, but in memory: a kernel on disk would not be compiled."""
    return lambda *arguments, cache=False, **options: njit(*arguments, **options)


def test_a_part_is_plain_python_until_a_kernel_calls_it():
    @compiled.kernel_part()
    def thrice(x):
        return 3 * x

    assert thrice(2) == 6

    def twice_that(x):
        return 2 * thrice(x)

    assert jit.njit(twice_that)(2) == 12


def test_the_root_search_takes_the_steps_of_brentq():
    rng = np.random.default_rng(0)
    for a, b, c in rng.uniform(0.1, 3, (100, 3)):
        for function in (
            lambda x, a=a, b=b, c=c: np.tanh(c * (x - a)) + 0.01 * (x - b),
            lambda x, a=a, c=c: (x - a) ** 3 + 0.1 * c * (x - a),
            lambda x, a=a: np.sign(x - a) * abs(x - a) ** 0.3,
            lambda x, a=a: 1e3 if x > a + 1 else x - a,  # flat where it is not defined
        ):
            for xtol, rtol in ((1e-12, 8.881784197001252e-16), (1e-9, 1e-13)):
                expected = brentq(function, -7.0, 11.0, xtol=xtol, rtol=rtol)
                assert bracketed_root(function, -7.0, 11.0, xtol=xtol, rtol=rtol) == expected
    assert bracketed_root(lambda x: x, 0.0, 1.0, xtol=1e-12) == 0.0
    for function in (lambda x: x + 8.0, lambda x: float("nan")):
        with pytest.raises(ValueError, match="no change of sign"):
            bracketed_root(function, -7.0, 11.0, xtol=1e-12)
