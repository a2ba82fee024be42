"""Imports point one way: the contracts of pyproject.toml, and breaches of them that are noticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = (ROOT / "pyproject.toml").read_text()
CONTRACTS = CONTRACTS[CONTRACTS.index("[tool.importlinter]") :]


def checked(contracts, folder):
    """Whether all contracts hold, and what import-linter says."""
    file = folder / "contracts.toml"
    file.write_text(contracts)
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--no-cache"], env=environment, cwd=folder, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def test_imports_point_one_way(tmp_path):
    held, said = checked(CONTRACTS, tmp_path)
    assert held, said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"errors",\n', "", "not listed as layers"),  # a module without a place
        (
            'ancestors = ["rotsim"]',
            'ancestors = ["rotsim"]\nignore_imports = ["rotsim.noise -> rotsim.cli"]',
            "No matches",
        ),  # a stale exception
        ('"cli",\n  "verify"', '"verify",\n  "cli"', "rotsim.cli.comparing -> rotsim.verify"),  # inside a function
    ],
)
def test_a_breach_is_noticed(tmp_path, old, new, said):
    assert old in CONTRACTS
    held, output = checked(CONTRACTS.replace(old, new, 1), tmp_path)
    assert not held and said in output, output
