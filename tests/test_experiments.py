"""Every claim script runs in its quick version, and its checks can fail."""

import json

import pytest

from experiments import balance, product, table
from experiments.__main__ import judge
from experiments.claim import Check, Finding, write

SCRIPTS = [balance, product]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__)
def test_quick_version(script, tmp_path):
    assert "would refute" in script.__doc__
    finding = script.examine(quick=True)
    name = script.__name__.split(".")[-1]
    verdict, as_committed = judge(finding, table.committed(name))
    assert as_committed, (verdict, [check.line() for check in finding.checks])
    write(name, "claim", finding, tmp_path, quick=True)
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert (
        content["holds"] == finding.holds
        and content["provenance"]["command"] == f"python -m experiments.{name} --quick"
    )
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_a_check_holds_only_inside_its_interval():
    inside, below, above = (Check("x", value, 0.1, 1.0, 2.0) for value in (1.5, 0.9, 2.1))
    assert inside.holds and not below.holds and not above.holds
    assert Check("x", 7.0, float("nan"), 2.0).holds and "REFUTED" in below.line()
    assert not Finding([], None).holds and not Finding([inside, above], None).holds
    assert not Check("x", float("nan"), 0.1, 1.0).holds


def test_balance_would_be_refuted_by_the_wrong_slope(monkeypatch):
    """Negative control: Adam+L2 is not balanced, and the script says so when that is claimed."""
    monkeypatch.setattr(balance, "SLOPES", {"adam_l2": 0.0, "adamw": 0.0})
    verdicts = [check.holds for check in balance.examine(quick=True).checks[:2]]
    assert verdicts == [False, True]
