"""Reports of many layers, and of a training that goes on."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from rotsim import dataset
from rotsim.cli import main, watching
from rotsim.diagnosis import diagnose
from rotsim.overview import MANY, advice, blocks, kinds
from tests.test_diagnosis import made

STEPS = 10_000  # of the traces that are made
NAMES = [f"blocks.{i}.{kind}.weight" for i in range(6) for kind in ("attn.q", "attn.k", "mlp")] + ["wte", "head"]


def network(paces=None, **change):
    """Layers in equilibrium; those whose name holds a key of `paces` turn that much faster, and have another lr."""
    parts = []
    for name in NAMES:
        pace = next((factor for key, factor in (paces or {}).items() if key in name), 1.0)
        trace = made(rotation=lambda x, pace=pace: pace * x, update_rms=lambda x, pace=pace: pace * x, **change)
        parts.append(trace.assign_coords(layer=("neuron", [name] * trace.sizes["neuron"])))
    whole = xr.concat(parts, "neuron", combine_attrs="override")
    return whole.assign_coords(neuron=np.arange(whole.sizes["neuron"]))


@pytest.fixture(scope="module")
def even():
    return diagnose(network())


def test_layers_are_grouped_by_kind_and_block(even):
    assert len(even.layers) == MANY
    assert {group.name: len(group.layers) for group in kinds(even)} == {
        "blocks.*.attn.q": 6, "blocks.*.attn.k": 6, "blocks.*.mlp": 6, "wte": 1, "head": 1,
    }  # fmt: skip
    assert {group.name: len(group.layers) for group in blocks(even)} == {
        **{f"blocks.{i}": 3 for i in range(6)}, "wte": 1, "head": 1,
    }  # fmt: skip
    assert all(group.verdicts.endswith("applies") and group.pace == 1.0 for group in kinds(even))


def test_the_worst_comes_first_and_the_last_sentence_says_what_to_change(even):
    assert advice(even, STEPS).endswith("the run was long enough for their equilibrium.")
    short = advice(even, 400)
    assert "Equilibrium takes about" in short and "and the run had 400: raise lr·weight_decay" in short
    failing = diagnose(network({"blocks.3.mlp": 1.5}))
    assert kinds(failing)[0].name == "blocks.*.mlp" and kinds(failing)[0].verdicts == "5 applies; 1 FAIL"
    assert kinds(failing)[0].worst.layer == "blocks.3.mlp.weight" and blocks(failing)[0].name == "blocks.3"
    assert "First find what moves blocks.3.mlp besides the recorded rates" in advice(failing, STEPS)


def test_a_layer_that_turns_unlike_the_others_gets_another_rate():
    """Three times as fast: a ninth of lr·weight_decay brings it back."""
    diagnosis = diagnose(network({"wte": 3.0}, gradient_cosine=0.1, radial=1.0))
    text = advice(diagnosis, STEPS)
    if not diagnosis.refuted:
        assert "wte turns 3 times as fast as the median layer" in text
        assert "Lower the learning rate of wte, alone or with its weight decay" in text and "is 0.11 times" in text


@pytest.mark.slow
def test_the_command_groups_many_layers_unless_all_are_asked_for(tmp_path, capsys):
    path = str(dataset.save(network({"blocks.3.mlp": 1.5}), tmp_path / "many.nc"))
    assert main(["trace", "report", path]) == 1
    grouped = capsys.readouterr().out
    assert "blocks.*.attn.q" in grouped and "In equilibrium" not in grouped and "First find what moves" in grouped
    assert main(["trace", "report", path, "--all"]) == 1
    every = capsys.readouterr().out
    assert "blocks.*.attn.q" not in every and "blocks.5.attn.q" in every and "blocks.0.mlp" in every
    few = str(dataset.save(made(), tmp_path / "few.nc"))
    assert main(["trace", "report", few]) == 0
    assert "±10 %" in capsys.readouterr().out


def test_a_recording_is_watched_while_it_grows(tmp_path, monkeypatch, capsys):
    path, looks = tmp_path / "run.nc", []

    def wait(seconds):
        """The training saves twice, then the user presses Ctrl-C."""
        looks.append(seconds)
        if len(looks) == 4:
            raise KeyboardInterrupt
        trace = made()
        dataset.save(trace.isel(step=slice(0, 6 + 4 * len(looks))), path)

    monkeypatch.setattr(watching.time, "sleep", wait)
    assert main(["trace", "watch", str(path)]) == 130
    assert "step 9000" in " ".join(capsys.readouterr().out.split())
    assert main(["trace", "watch", str(path), "--once"]) == 0
    shown = capsys.readouterr().out
    assert "applies" in shown and "▄" in shown + "▄" * ("▅" in shown) and "step 9000" in " ".join(shown.split())
    assert main(["trace", "watch", str(tmp_path / "absent.nc"), "--once"]) == 2
