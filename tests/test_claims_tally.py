"""The tally of claims over traces: it counts what a report says, and a wrong rate shows in it."""

import json

import pytest

pytest.importorskip("torch")

from experiments.networks import heldout
from experiments.networks.claims import Tally, table, tallies
from rotsim.dataset import load, save
from rotsim.diagnosis import diagnose
from rotsim.measure.shipped import load_shipped


@pytest.mark.slow
def test_claims_of_folders_are_counted_and_a_wrong_rate_breaks_them(tmp_path):
    trace = load_shipped("digits_adamw")
    for name, told in (("right", trace), ("wrong", trace.assign_coords(lr=trace["lr"] * 4))):
        (tmp_path / name).mkdir()
        if name == "wrong":
            told = told.assign({key: told[key] * 4 for key in told if str(key).startswith("window_lr")})
        save(told, tmp_path / name / "trace.nc")
    found = tallies([tmp_path / "right", tmp_path / "wrong"])
    report = diagnose(load(tmp_path / "right" / "trace.nc"))
    right, wrong, every = (found[name] for name in ("right", "wrong", "all"))
    assert right.live == len(report.layers) and right.whole == len(report.claimed) > 0
    assert right.foreseen == len(report.foreseen) and right.holding == right.claims <= right.possible <= right.live
    assert right.live - right.claims == right.without.total()
    assert wrong.holding < wrong.claims
    assert (every.live, every.claims) == (right.live + wrong.live, right.claims + wrong.claims)
    assert table(found).count("\n|") == 4 and f"| right | {right.live} | {right.whole} |" in table(found)
    # and so they are from the file of held-out networks, each in its half
    alone = next(name for name in heldout.NETWORKS if name not in heldout.LOOKED_AT | heldout.LATER)
    networks = {min(heldout.LOOKED_AT): (report, True), alone: (diagnose(load(tmp_path / "wrong" / "trace.nc")), True)}
    heldout.write(networks, tmp_path, "a command")
    beside = heldout.tallies(json.loads((tmp_path / "heldout.json").read_text()))
    assert beside == {"to look at": right, "judged alone": wrong, "judged alone, joined later": Tally()}
    assert tallies([tmp_path / "right"], beside)["all"] == right + right + wrong
