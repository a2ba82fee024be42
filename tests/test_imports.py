"""What a command imports before it has anything to compute with it: modules are counted, not seconds."""

import json
import subprocess
import sys

import pytest

VERBS = ("equilibrium", "predict", "plan", "transfer", "convert", "simulate", "compare", "trace", "derive", "verify",
         "explore")  # fmt: skip
#: Packages that take long to import, whatever the machine.
HEAVY = ("numba", "llvmlite", "xarray", "pandas", "h5py", "h5netcdf", "matplotlib", "sympy", "torch", "scipy.stats",
         "scipy.signal")  # fmt: skip
#: All of scipy but its front, which loads the rest where it is asked for.
SCIPY = ("scipy.special", "scipy.optimize", "scipy.linalg", "scipy.interpolate")
#: Parts of the standard library and of other packages that take a tenth of a second, and that few commands need.
SLOW = ("importlib.metadata", "rich.progress", "threadpoolctl")
RATES = {
    "adamw": ("--lr", "1e-3", "--weight-decay", "0.1"),
    "adam_l2": ("--lr", "1e-3", "--weight-decay", "0.1"),
    "sgdm": ("--lr", "0.1", "--weight-decay", "1e-3"),
    "lion": ("--lr", "1e-3", "--weight-decay", "1"),
}


def imported(code):
    """The modules that a fresh Python has after `code`, which may end it."""
    program = (
        f"import contextlib, io, json, sys\nwith contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def run(*arguments):
    return imported(f"from rotsim.cli import main; assert main({list(arguments)!r}) == 0")


def test_help_imports_nothing_that_takes_long():
    commands = [[verb, "--help"] for verb in VERBS] + [["equilibrium", "adamw", "--help"], ["--help"]]
    found = imported(f"from rotsim.cli import main; [main(command) for command in {commands!r}]")
    assert "numpy" in found and not found & {*HEAVY, *SCIPY, *SLOW}


@pytest.mark.parametrize("name", RATES)
def test_an_equilibrium_needs_numpy_alone(name):
    assert not run("equilibrium", name, *RATES[name]) & {*HEAVY, *SCIPY}


def test_planning_compiles_nothing_and_reads_no_file():
    unwanted = {*HEAVY, *SCIPY, *SLOW} - {"threadpoolctl"}  # the chain of Adam+L2 keeps BLAS to one thread
    assert not run("plan", "adamw", "--rotation", "0.01", "--norm", "1") & unwanted
    for name in RATES:
        assert not run("transfer", name, *RATES[name], "--batch-factor", "4") & unwanted


def test_what_is_imported_is_noticed():
    """Negative control: a course is an xarray dataset made by a compiled kernel."""
    found = run("predict", "sgdm", *RATES["sgdm"], "--steps", "10")
    assert {"numba", "xarray"} <= found
