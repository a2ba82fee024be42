"""`rotsim verify`: passes on the right theory, fails on a wrong one, and writes what it found."""

import io
import json
import os
from contextlib import nullcontext
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

import derivations
import rotsim
from rotsim import verify
from rotsim.cli import main
from rotsim.diagnosis import diagnose
from tests import chance


def test_a_quick_run_says_and_writes_all_that_it_found(tmp_path):
    """`tests.test_derivations` has the proofs; here one will do."""
    folder = tmp_path / "new" / "folder"
    console = Console(file=io.StringIO(), width=80)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "K", chance.errors(32, 24))
        patch.setattr(derivations, "QUICK", ("rotational_lion",))
        passed = verify.run(quick=True, output=folder, console=console)
    text = console.file.getvalue()
    assert passed and "FAIL" not in text, text
    for spec in rotsim.OPTIMIZERS.values():
        assert spec.label in text
        assert (f"digits {spec.name}" in text) == (f"digits_{spec.name}" in verify.QUICK_TRACES)
    words = "norm, rotation, update, predicted, simulated ±SE, paper, verdict, head, scale-sensitive"
    assert [word for word in words.split(", ") if word not in text] == []
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert sorted(os.listdir(folder)) == ["verify.json", "verify.png"]
    content = json.loads((folder / "verify.json").read_text())
    assert content["passed"] is True
    assert {case["optimizer"]["name"] for case in content["simulations"]} == set(rotsim.OPTIMIZERS)
    assert all(np.isfinite(check["z"]) for case in content["simulations"] for check in case["checks"])
    assert len(content["networks"]) == 2 and content["provenance"]["versions"]["numpy"]
    assert {row["verdict"] for row in content["derivations"]} == {"PASS"}
    assert "rotational_lion" in {row["group"] for row in content["derivations"]}
    assert all(row["tolerance"] and row["verdict"] != "FAIL" for case in content["networks"] for row in case["checks"])
    picture = matplotlib.image.imread(folder / "verify.png")
    assert picture.shape[0] > 400 and picture.std() > 0.01


@pytest.mark.parametrize("name", rotsim.OPTIMIZERS)
def test_a_wrong_formula_fails(name, monkeypatch):
    """Negative control: 2 % on one optimizer's rotation turns its verdicts, and the whole, into FAIL."""

    def wrong(optimizer, dim, gradient, method, rows=None):
        right = rotsim.equilibrium(optimizer, dim, gradient, method, rows=rows)
        return replace(right, rotation=1.02 * right.rotation) if optimizer.name == name else right

    monkeypatch.setattr(verify, "OPTIMIZERS", {name: rotsim.OPTIMIZERS[name]})
    monkeypatch.setattr(verify, "_derivations", lambda bar, quick: nullcontext(lambda: [verify.proof("skipped", True)]))
    monkeypatch.setattr(verify, "_networks", lambda bar, quick: [])
    console = Console(file=io.StringIO(), width=80)
    assert not verify.run(quick=True, predict=wrong, console=console)
    text = console.file.getvalue()
    assert text.count("FAIL") == 3  # two settings and the summary


def test_every_stage_can_turn_the_verdict():
    console = Console(file=io.StringIO(), width=80)
    trace = rotsim.load(verify_trace())
    faster = trace.assign(rotation=1.2 * trace["rotation"], update_rms=1.2 * trace["update_rms"])
    longer = trace.assign(norm=1.2 * trace["norm"], update_rms=1.2 * trace["update_rms"])
    for data, expected in ((trace, True), (faster, False), (longer, False)):
        case = verify.TraceCase("x", data, diagnose(data))
        assert [layer.applies for layer in case.diagnosis.layers] == [True, True, True, False]
        assert verify.verdict([verify.proof("a", True)], [], [case]) is expected
    # what is too noisy to tell neither refutes nor stands for an optimizer
    case = verify.TraceCase("x", trace, diagnose(trace))
    loud = [
        replace(one, quarters=tuple(replace(q, norm_noise=1.0) for q in one.quarters)) for one in case.diagnosis.layers
    ]
    for layers, expected in ((loud, False), ((case.diagnosis.layers[0], *loud[1:]), True)):
        noisy = verify.TraceCase("x", trace, replace(case.diagnosis, layers=tuple(layers)))
        assert verify.verdict([verify.proof("a", True)], [], [noisy]) is expected
    # layers outside the theory never decide, but nor can they stand for an optimizer
    head = trace.isel(neuron=trace["layer"].values == "head.weight")
    assert not verify.verdict([verify.proof("a", True)], [], [verify.TraceCase("x", head, diagnose(head))])
    assert not verify.verdict([verify.proof("a", True), verify.proof("b", False)], [], [])
    console.print(verify._derivation_line([verify.proof("b", False)], quick=True))
    assert "FAIL" in console.file.getvalue()


def verify_trace():
    from rotsim.measure.shipped import shipped_traces

    return shipped_traces()["digits_sgdm"]


def test_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(verify, "run", lambda **_: False)
    assert main(["verify", "--quick"]) == 1
    monkeypatch.setattr(verify, "run", lambda **_: True)
    assert main(["verify", "--quick"]) == 0


def test_unwritable_output(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["verify", "--quick", "--output", str(tmp_path / "file")]) == 2
    assert "cannot be created" in capsys.readouterr().err
