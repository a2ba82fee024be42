"""Networks under Muon and AdamW groups: who follows whom, which decay makes both turn alike, and what is committed."""

import json
from pathlib import Path

import pytest

import rotsim
from experiments.networks import groups

COMMITTED = Path(groups.__file__).parents[1] / "results" / "groups"


def test_the_decay_of_the_second_pairing_makes_muon_turn_as_adamw():
    network = groups.NETWORKS["digits"]
    adamw = rotsim.equilibrium(rotsim.AdamW(*groups.ADAMW, betas=(0.9, groups.BETA2)), network.dim)
    for pairing, alike in zip(groups.PAIRINGS, (False, True), strict=True):
        muon = rotsim.Muon(groups.MUON[0], groups.decay_of_muon(pairing, network))
        found = rotsim.equilibrium(muon, network.dim, rows=network.rows)
        assert (found.rotation == pytest.approx(adamw.rotation, rel=1e-3)) == alike


def test_a_run_has_both_groups_and_is_told():
    run = groups.train("digits", "same product", steps=120)
    assert [(layer.layer, layer.optimizer) for layer in run.layers] == [
        ("hidden0", "adamw"), ("hidden1", "muon"), ("hidden2", "muon"), ("head", "adamw"),
    ]  # fmt: skip
    assert all(layer.measured > 0 and layer.predicted > 0 for layer in run.layers)
    assert run.muon.startswith("Muon(lr=0.02") and run.adamw.startswith("AdamW(lr=0.002")
    text = groups.table([run], "a command")
    assert text.count("| digits | same product |") == 1 + len(run.layers) and "`a command`" in text


def test_the_committed_table_is_that_of_the_committed_numbers():
    content = json.loads((COMMITTED / "groups.json").read_text())
    runs = [
        groups.Grouped(**{**run, "layers": tuple(
            groups.Layer(**{key: float("nan") if value is None else value for key, value in layer.items()})
            for layer in run["layers"]
        )})
        for run in content
    ]  # fmt: skip
    assert groups.table(runs, "python -m experiments.networks groups --seed 0") == (COMMITTED / "groups.md").read_text()
    normalised = [layer for run in runs for layer in run.layers if layer.layer == "hidden0"]
    assert normalised and all(abs(layer.measured / layer.predicted - 1) < 0.05 for layer in normalised)
