"""The exactness experiment in small, what it would say of a wrong theory, and its committed result."""

import json
from dataclasses import replace

import numpy as np
import pytest

import rotsim
from experiments import exactness


@pytest.fixture(scope="module")
def small():
    return exactness.run(8, exactness.BUDGET / 20)


def test_every_claim_holds(small):
    for line in small["summary"]:
        assert exactness.holds(line), line
        if line["optimizer"] != "adam_l2":
            assert exactness.within_noise(line), line
    assert len(small["settings"]) == 32


def test_leading_order_is_outside_the_noise(small):
    """The same statistics of the paper's formulas, for the three optimizers where they err by more than 1 %."""
    rows = [
        {
            **row,
            **{q: {**row[q], "z": row[q]["leading_error"] / row[q]["standard_error"]} for q in exactness.QUANTITIES},
        }
        for row in small["settings"]
    ]
    failed = {line["optimizer"] for line in exactness.summary(rows) if not exactness.within_noise(line)}
    assert failed >= {"adamw", "lion", "adam_l2"}


def test_constant_v_is_rejected(monkeypatch):
    """AdamW with the closed form for constant v: this is what β2-exactness is for."""
    true = rotsim.equilibrium

    def frozen(optimizer, dim, gradient, method="exact"):
        near = replace(optimizer, betas=(optimizer.betas[0], 1 - 1e-8))
        return true(near if method == "exact" else optimizer, dim, gradient, method=method)

    monkeypatch.setattr(rotsim, "equilibrium", frozen)
    optimizer = rotsim.AdamW(0.01, 2.0, (0.9, 0.5))
    wrong = exactness.measure(optimizer, 1)
    monkeypatch.setattr(rotsim, "equilibrium", true)
    right = exactness.measure(optimizer, 1)
    assert abs(right["norm"]["z"]) < 4 and abs(wrong["norm"]["z"]) > 8


def test_settings_are_reproducible_and_span_the_range():
    many = exactness.settings("lion", 60)
    assert many[:4] == exactness.settings("lion", 4)
    decay = [o.lr * o.weight_decay for o in many]
    assert min(decay) < 2e-4 and max(decay) > 0.05
    assert {o.betas[0] for o in many} == set(exactness.BETA1)


def test_committed_result_meets_the_bar():
    result = json.loads((exactness.RESULTS / "exactness.json").read_text())
    assert len(result["settings"]) == 240
    again = exactness.summary(result["settings"])
    for line, stored in zip(again, result["summary"], strict=True):
        assert exactness.holds(stored) and exactness.holds(line)
        assert line["z_rms"] == pytest.approx(stored["z_rms"], rel=1e-3)
        assert stored["largest_pooled_error"] < 0.003
        if line["optimizer"] != "adam_l2":
            assert stored["largest_systematic_error"] < 0.003
    assert np.max([line["largest_leading_error"] for line in again]) > 1


def test_figure_and_table(small, tmp_path):
    exactness.figure(small["settings"]).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert exactness.table(small["summary"]).row_count == 8
