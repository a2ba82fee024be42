"""Reports of many layers, and of a training that goes on."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from rotsim import dataset
from rotsim.cli import main, watching
from rotsim.diagnosis import diagnose
from rotsim.overview import MANY, Group, advice, blocks, kinds
from rotsim.show.terminal import console
from tests.conftest import press_ctrl_c
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


def test_a_median_is_over_the_layers_that_have_the_number(even):
    few = [replace(even.layers[0], measured_rotation=value) for value in (3.0, np.nan, 1.0, 5.0)]
    assert Group("few", tuple(few), 1.0).median("measured_rotation") == 3.0
    assert np.isnan(Group("few", tuple(few[1:2]), 1.0).median("measured_rotation"))


@pytest.mark.parametrize(
    ("layer", "pace", "way"),
    [
        ("wte", 3.0, "Lower the learning rate of wte, alone or with its weight decay, so that their product is 0.11 t"),
        (
            "head",
            1 / 3,
            "Raise the learning rate of head, alone or with its weight decay, so that their product is 9 t",
        ),
        ("head", 1.8, None),
        ("head", 1 / 1.8, None),
    ],
)
def test_a_layer_that_turns_unlike_the_others_gets_another_rate(even, layer, pace, way):
    """Three times as fast: a ninth of lr·weight_decay brings it back. Less than twice is left alone."""
    rotation = even.layers[0].measured_rotation
    layers = (replace(x, measured_rotation=pace * rotation) if x.layer == layer else x for x in even.layers)
    text = advice(replace(even, layers=tuple(layers)), STEPS)
    assert way in text if way else "Nothing needs to change" in text
    fast, slow = (f"{layer} turns {pace:.2g}", "") if pace > 1 else ("", f"{layer} {pace:.2g} times.")
    assert fast in text and slow in text


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
    monkeypatch.setattr("rotsim.diagnosis.STANDARD_ERRORS", 1e3)
    for command in (["report"], ["watch", "--once"]):  # both say what cannot be told
        main(["trace", *command, str(path)])
        assert "UNRESOLVED" in capsys.readouterr().out and "UNRESOLVED" not in shown


@pytest.mark.few(2)
@pytest.mark.parametrize(("height", "rows"), [(24, 15), (12, 3), (3, 1), (60, len(NAMES))])
def test_a_table_that_is_watched_fits_the_screen(height, rows, even, tmp_path, monkeypatch):
    """Rows of layers fill what title, heads and caption leave of a terminal, and there is always one."""
    path = dataset.save(made(), tmp_path / "run.nc")
    screen = console(file=io.StringIO(), force_terminal=True, color_system=None, width=120, height=height)
    monkeypatch.setattr("rotsim.show.terminal.console", lambda: screen)
    monkeypatch.setattr("rotsim.diagnosis.diagnose", lambda data: even)
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: press_ctrl_c())
    assert main(["trace", "watch", str(path)]) == 130
    lines = re.sub(r"\x1b\[\S*?[A-Za-z]", "\f", screen.file.getvalue()).split("\f")[-2].splitlines()
    assert sum(" applies " in line for line in lines) == rows
    assert len(lines) == height or rows in (1, len(NAMES))
    assert (f" {len(NAMES) - rows} layers" in "".join(lines)) == (rows < len(NAMES))
