"""The GPU runs: their commands are ones that exist, they go on where they stopped, and say what is missing."""

from importlib import import_module

import pytest

torch = pytest.importorskip("torch")

from click.testing import CliRunner  # noqa: E402

import rotsim  # noqa: E402
from experiments.gpu import __main__ as program  # noqa: E402
from experiments.gpu.engine import ALLOWED, GRADIENTS, deviation  # noqa: E402
from experiments.gpu.parts import PARTS, Part  # noqa: E402


def call(*words):
    return CliRunner().invoke(program.main, words)


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_is_a_command_that_exists(part, tmp_path):
    _python, _m, module, *arguments = part.command(tmp_path)
    command = import_module(f"{module}.__main__" if module == "experiments.networks" else module).main
    context = command.make_context(module, arguments)  # click parses and checks every argument
    assert context.params["output"] == tmp_path / part.result


def test_parts_that_ended_are_not_run_again_and_those_that_failed_are(tmp_path, monkeypatch):
    ends, fails = Part("ends", "", "platform", (), "a", "--terse"), Part("fails", "", "no_such_module", (), "b")
    monkeypatch.setattr(program, "PARTS", {"ends": ends, "fails": fails})
    first = call("--anyway", "--output", str(tmp_path))
    assert first.exit_code == 1 and "ends: exit 0" in first.output and "fails: exit 1" in first.output
    assert "No module named no_such_module" in (tmp_path / "fails.log").read_text()
    again = call("--anyway", "--output", str(tmp_path))
    assert "ends: done before" in again.output and "fails: exit 1" in again.output
    (tmp_path / "a").write_text("old")
    assert "ends: exit 0" in call("--anyway", "--again", "--output", str(tmp_path), "ends").output
    assert not (tmp_path / "a").exists()
    late = call("--anyway", "--output", str(tmp_path), "--minutes", "0", "fails")
    assert late.exit_code == 0 and "no time left" in late.output


def test_where_there_is_no_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "torch sees no CUDA device" in call().output
    assert "'walks' is no part; there are turn, " in " ".join(call("walks").output.split())
    assert "suite-resnet20_adamw" in call("--list").output


def test_two_engines_are_compared_and_another_seed_is_noticed():
    given = rotsim.SGDM(0.1, 0.01), GRADIENTS["isotropic"], "float64"
    small = dict(engines=("numpy", "numba"), dim=5, neurons=2, steps=20)
    assert deviation(*given, **small) < ALLOWED["float64"] < 1e-2 < deviation(*given, **small, seeds=(0, 1))
