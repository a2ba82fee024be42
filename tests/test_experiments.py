"""Every claim script runs in its quick version, its checks can fail, and the runner and the table say what it found."""

import json
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import rotsim
from experiments import __main__ as runner
from experiments import balance, convergence, early, idealisations, radial, schedules, validity
from experiments.harness import claim, table
from experiments.harness.answers import Answer
from experiments.harness.claim import Finding, claimed, line, write
from experiments.harness.pictures import in_few_colours
from rotsim.checks import Check
from rotsim.files import to_json
from rotsim.show import plotting
from tests import chance

ELSEWHERE = {"exactness"}  # claims that have a test file of their own
SCRIPTS = [name for name in runner.CLAIMS if name not in ELSEWHERE]


def beyond_chance(finding):
    """The same, with what noise may have refuted left open.

    Quick walks are short, and a claim is judged at two or three standard errors: by chance alone, some would fail.
    """
    k = chance.errors(None, len(finding.checks))
    checks = [
        replace(c, verdict="UNRESOLVED")
        if c.failed and max(c.low - c.measured, c.measured - c.high) <= k * c.standard_error
        else c
        for c in finding.checks
    ]
    return replace(finding, checks=checks)


def test_a_refutation_within_noise_is_none():
    inside, beyond = (claimed("x", value, 0.1, high=2.0) for value in (2.3, 3.0))
    near, far = beyond_chance(Finding([inside, beyond], None)).checks
    assert inside.failed and near.verdict == "UNRESOLVED" and far.failed


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_quick_version(name, tmp_path):
    """It runs, and refutes nothing that the committed result does not: by more than noise, of walks or of seeds."""
    script = runner.module_of(name)
    finding = script.examine(quick=True)
    verdict, as_committed = runner.judge(beyond_chance(finding), table.committed(name), quick=True)
    assert as_committed, verdict
    write(name, script.__doc__, finding, tmp_path, quick=True)
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["verdict"] == finding.report.summary()
    assert content["provenance"]["command"] == f"python -m experiments.{name} --quick"
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", runner.CLAIMS)
def test_every_claim_says_what_would_refute_it(name):
    documentation = runner.module_of(name).__doc__
    assert "would refute" in documentation and table.section_of(documentation)
    assert len(documentation.splitlines()[0]) < 120


def test_a_check_holds_only_inside_its_interval():
    inside, below, above = (claimed("x", value, 0.1, 1.0, 2.0) for value in (1.5, 0.9, 2.1))
    assert inside.passed and below.failed and above.failed
    assert claimed("x", 7.0, float("nan"), 2.0).passed and "FAIL" in line(below)
    assert claimed("x", -7.0, 0.1, high=2.0).passed and "at most 2" in line(claimed("x", 3.0, 0.1, high=2.0))
    assert not Finding([], None).report.passed and not Finding([inside, above], None).report.passed
    assert claimed("x", float("nan"), 0.1, 1.0).failed


def test_a_row_is_read_as_it_was_written():
    rows = [
        claimed("AdamW: x: y", 7.0, float("nan"), 2.0),
        claimed("no colon", 1.0, 0.1, 2.0, 3.0, because="too small"),
        replace(claimed("x", 1.0, 0.1), verdict="UNRESOLVED", note="12 seeds would decide"),
        Check.of("lion: proved", verdict="PASS"),
    ]
    for row in rows:
        again = Check.from_dict(json.loads(to_json(row.to_dict())))
        assert repr(again) == repr(row) and again.to_dict().keys() == row.to_dict().keys()  # NaN is not equal to itself
    assert [row.group for row in rows] == ["AdamW", "", "", "lion"] and rows[0].quantity == "x: y"
    assert "measured" not in rows[3].to_dict() and "predicted" not in rows[0].to_dict()
    assert [row.note for row in rows[:2]] == ["", "too small"]


def test_json_is_plain_and_short(tmp_path):
    numbers = {"a": [np.float32(1 / 3), float("inf")], "b": {"c": (1, True, "[x]")}}
    write("x", "title\n\nmore", Finding([claimed("s", 1.0, np.nan, high=2.0)], plt.figure(), numbers), tmp_path, True)
    text = (tmp_path / "x.json").read_text()
    content = json.loads(text)
    assert content["numbers"] == {"a": [0.33333, None], "b": {"c": [1, True, "[x]"]}}
    assert content["claim"] == "title" and content["checks"][0]["low"] is None and '"a": [0.33333, null]' in text


# ---------------------------------------------------------------------------------------------- negative controls


def test_balance_would_be_refuted_by_the_wrong_slope():
    """Adam+L2 is not balanced and the others are; the script says so of its own numbers when the reverse is claimed."""
    numbers = table.committed("balance")["numbers"]
    for name, slope in balance.SLOPES.items():
        for key, noise in (("rotation", "standard_error"), ("system", "system_standard_error")):
            points = [np.array(x) for x in (numbers["scales"], numbers[name][key], numbers[name][noise])]
            right, wrong = (balance._slope("x", *points, s) for s in (slope, -1 / 3 - slope))
            assert right.passed and wrong.failed


def test_a_wrong_course_is_refuted():
    """Half the decay, or a tenth more, does not pass for the simulated course."""
    optimizer = rotsim.AdamW(0.01, 1.0, (0.9, 0.99))
    run = dict(dim=128, steps=1000, initial_norm=0.5, record_every=20)
    walk, k = rotsim.simulate(optimizer, neurons=32, **run), chance.errors(None, 2)
    assert all(check.passed for check in claim.course_checks("right", walk, rotsim.predict(optimizer, **run), k))
    for decay in (0.5, 1.1):
        wrong = rotsim.predict(rotsim.AdamW(0.01, decay, (0.9, 0.99)), **run)
        assert not any(check.passed for check in claim.course_checks("wrong", walk, wrong, k))


def test_growth_and_decay_cross_elsewhere_at_another_decay(monkeypatch):
    """The crossing is measured: it does not follow a prediction that is made for twice the decay."""
    true = rotsim.equilibrium
    optimizer = rotsim.SGDM(0.1, 0.01)
    run = (optimizer, (-2, 2), np.array([0.8, 1.2]), 32)

    def doubled(spec, *arguments, **keywords):
        return true(rotsim.SGDM(spec.lr, 2 * spec.weight_decay), *arguments, **keywords)

    k = chance.errors(32, 2)

    def crosses(at):
        found = convergence._balance(*run)
        return abs(found["crossing"] - at) < 0.01 + k * found["crossing_error"] < 0.1

    assert crosses(1.0)
    monkeypatch.setattr(rotsim, "equilibrium", doubled)
    assert crosses(2**0.25)


def test_early_rotation_is_the_norms_doing(monkeypatch):
    """From the equilibrium norm the claimed excess is not there."""
    runs = {case: (1.0, *rest) for case, (_, *rest) in early.RUNS.items()}
    monkeypatch.setattr(early, "RUNS", runs)
    monkeypatch.setattr(early, "OPTIMIZERS", {"sgdm": "SGDM"})
    monkeypatch.setattr(early, "_figure", lambda numbers: None)
    found = {check.statement: check.passed for check in early.examine(quick=True).checks}
    assert not found["SGDM, quarter norm, no warm-up: early rotation / equilibrium"]


def test_the_norm_moves_if_decay_does_not_follow():
    walk = rotsim.simulate(
        rotsim.plan("sgdm", rotation=schedules.ROTATION, norm=1.0, dim=schedules.DIM).optimizer,
        schedules.DIM, 16, schedules.STEPS, lr_schedule=schedules.COSINE, record_every=schedules.WINDOW,
    )  # fmt: skip
    assert [check.passed for check in schedules._of_cosine("x", walk, corrected=True)] == [False, False]
    assert [check.passed for check in schedules._of_cosine("x", walk, corrected=False)] == [True]


def test_lions_norm_stays_with_the_decay_of_its_equilibrium_and_not_with_the_rate():
    optimizer = rotsim.plan("lion", rotation=schedules.ROTATION, norm=1.0, dim=schedules.DIM).optimizer
    decay = schedules._steady_decay(optimizer)

    def norm(step, share):
        rate = float(schedules.COSINE(np.array([step]))[0])
        return rotsim.equilibrium(rotsim.Lion(rate * optimizer.lr, share * optimizer.weight_decay), schedules.DIM).norm

    for step in (1, 3000, 8000):
        assert norm(step, float(decay(np.array([step]))[0])) == pytest.approx(1.0, abs=1e-3)
    assert norm(8000, schedules.FINAL_FACTOR) > 1.08


def test_momentums_delay_is_seen_in_the_walk():
    """What the paper's λ + P misses under Lion, the formula with the delay must not be allowed to miss."""
    found = table.committed("radial")["numbers"]["lion, strong"]
    for quantity in ("rotation", "norm"):
        paper, exact = radial._of_walks("x", found, quantity)
        assert paper.failed and "90 steps late" in line(paper) and exact.passed
        without_delay = {**found, f"{quantity}_delayed_error": found[f"{quantity}_error"]}
        assert radial._of_walks("x", without_delay, quantity)[1].failed


def test_a_pull_without_its_correction_is_seen(monkeypatch):
    monkeypatch.setattr(radial, "with_pull", lambda optimizer, dim, strength: rotsim.equilibrium(optimizer, dim))
    found = radial._walks("sgdm", 0.02, np.array([0.0, 1.0]), quick=True)
    (none, error), (off, _) = found["rotation_error"]
    assert abs(none) < 0.01 + chance.errors() * error and off > 0.35  # √2 for twice the decay


def test_the_simple_system_has_the_gradient_scale_that_is_claimed_for_it():
    """In closed form as validity has it, and by Monte Carlo: squared lengths vary by about their own mean."""
    setting = idealisations.simple_system("sgdm", 8)
    by_draws = claim.gradient_scale(setting.gradient, setting.dim, draws=20_000)
    error = chance.errors() / 2 / np.sqrt(20_000)
    assert by_draws == pytest.approx(setting.assumed.scale * np.sqrt(1 - 1 / setting.dim), rel=error)


def test_where_a_boundary_is_crossed():
    axis = idealisations.Axis("x", "x", (1.0, 10.0, 100.0), lambda name, value: None)
    ending = idealisations.Axis("x", "x", (100.0, 10.0, 1.0), lambda name, value: None, lambda value: 1 / value)

    def crossing(axis, *errors, noise=0.0):
        return validity._crossing(axis, {"error": list(errors), "standard_error": [noise] * len(errors)}, "error")

    assert crossing(axis, 0.01, -0.02, 0.125) == "32"  # half way, in logarithms
    assert crossing(ending, 0.01, 0.02, 0.125) == "3.2"
    assert crossing(axis, 0.01, 0.02, 0.03) == "never" and crossing(axis, -0.06, 0.1, 0.2) == "always"
    assert crossing(axis, 0.01, 0.08, 0.2, noise=0.02) == "10"  # not shown before, but likely
    assert crossing(axis, 0.01, 0.02, 0.08, noise=0.02) == "never"  # not beyond noise
    assert crossing(axis) == "n/a"


# ------------------------------------------------------------------------------------------------ runner and table


def finding(*holds):
    checks = [claimed(f"statement {i}", 1.0 if held else 3.0, 0.1, high=2.0) for i, held in enumerate(holds)]
    return Finding(checks, plt.figure(), {}, "found")


def test_a_verdict_is_compared_with_the_committed_one():
    committed = {"checks": [check.to_dict() for check in finding(True, False).checks]}
    assert runner.judge(finding(True, False), committed) == ("FAIL: 1 of 2 statements", True)
    assert runner.judge(finding(True, True), committed) == ("PASS; no longer failed: statement 1", False)
    assert runner.judge(finding(True, True), committed, quick=True) == ("PASS", True)
    assert not runner.judge(finding(False, False), committed, quick=True)[1]
    assert runner.judge(finding(True), None) == ("PASS", True) and not runner.judge(finding(False), None)[1]


@pytest.fixture
def stubs(monkeypatch, tmp_path):
    """Claims that take no time; one breaks, one is stopped."""

    def breaks(quick):
        raise ValueError("broken [on purpose]")

    def stopped(quick):
        raise KeyboardInterrupt

    scripts = {
        "good": SimpleNamespace(__doc__="Good.", examine=lambda quick: finding(True)),
        "broken": SimpleNamespace(__doc__="Broken.", examine=breaks),
        "refuted": SimpleNamespace(__doc__="Refuted.", examine=lambda quick: finding(False)),
        "stopped": SimpleNamespace(__doc__="Stopped by Ctrl-C.", examine=stopped),
    }
    monkeypatch.setattr(runner, "CLAIMS", tuple(scripts))
    monkeypatch.setattr(runner, "module_of", scripts.__getitem__)
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    return lambda *arguments: CliRunner().invoke(runner.main, [*arguments, "--output", str(tmp_path / "out")])


def test_runner_goes_on_after_a_failure_and_reports_it(stubs, tmp_path):
    result = stubs("--all", "--skip", "stopped")
    assert result.exit_code == 1 and "ValueError: broken [on purpose]" in result.output
    assert "3/3 refuted" in result.output and "newly failed: statement 0" in result.output
    assert (tmp_path / "out" / "good.json").exists() and (tmp_path / "out" / "refuted.png").exists()


def test_runner_chooses_skips_and_takes_up(stubs):
    assert stubs("good").exit_code == 0
    assert stubs("--all", "--skip", "broken", "--skip", "refuted", "--skip", "stopped").exit_code == 0
    again = stubs("--quick", "--from", "refuted", "--skip", "stopped")
    assert again.exit_code == 1 and "1/1 refuted" in again.output
    assert stubs().exit_code == 2
    wrong = stubs("nonsense")
    assert wrong.exit_code == 2 and "choose from good, broken, refuted" in wrong.output


def test_ctrl_c_says_how_to_go_on(stubs):
    result = stubs("--all", "--skip", "broken")
    assert result.exit_code == 130 and "`--from stopped`" in result.output and "newly failed" in result.output


def test_statements_that_do_not_pass_have_effect_interval_and_cause(monkeypatch):
    checks = [
        claimed("Lion: y", 3.0, 0.1, high=2.0, because="its momentum is long"),
        claimed("AdamW: y", 1.0, 0.1, high=2.0, because="not said"),
    ]
    monkeypatch.setattr(table, "committed", lambda name: {"checks": [check.to_dict() for check in checks]})
    head, _, row = table.statements(["early"], every=False).splitlines()
    assert row == "| early | Lion: y | 3 ± 0.1 | at most 2 | FAIL | its momentum is long |"
    assert head.count("|") == row.count("|")
    assert table.statements(["early"], every=True).endswith("| early | AdamW: y | 1 ± 0.1 | at most 2 | PASS |  |")


def test_answers_have_effect_interval_margin_seeds_and_verdict_in_columns(monkeypatch):
    """A verdict has at most ten words; an answer stands in its own table only."""
    low, high, claims = (0.01, 0.06, -0.02), (0.03, 0.09, 0.06), ("equal", "more", "equal")
    found = [
        Answer(f"x: {i}", claims[i], 0.05, (low[i] + high[i]) / 2, low[i], high[i], 0.1, 64, 64, 0.05) for i in range(3)
    ]
    content = {"checks": [a.check().to_dict() for a in found], "answers": [a.to_dict() for a in found]}
    monkeypatch.setattr(table, "committed", lambda name: content)
    rows = [row.strip("| ").split(" | ") for row in table.answers(["early"], every=True).splitlines()[2:]]
    assert rows[0] == ["early", "x: 0", "+2.0%", "+1.0% to +3.0%", "5%", "64", "equivalent, as claimed"]
    assert rows[1][-1] == "effect, as claimed" and "seeds would decide" in rows[2][-1]
    assert all(len(row[-1].split()) <= 10 for row in rows)
    assert len(table.answers(["early"], every=False).splitlines()) == 3
    assert len(table.statements(["early"], every=True).splitlines()) == 2


def test_readme_has_the_committed_results():
    assert table.README.read_text() == table.text(runner.CLAIMS), "run `python -m experiments --table`"
    assert table.README.read_text().count("\n| ") > len(runner.CLAIMS)
    assert (claim.RESULTS / "claims.md").read_text() == table.document(runner.CLAIMS)
    verdicts = [table.report_of(table.committed(name)).summary() for name in runner.CLAIMS]
    assert max(len(verdict.split()) for verdict in verdicts) <= 10
    for name in runner.CLAIMS:
        assert table.gallery(runner.CLAIMS).count(f"(results/{name}.png)") == 2  # shown, and linked


def test_committed_results_are_small():
    files = [path for path in claim.RESULTS.rglob("*") if path.is_file() and ".trials." not in path.name]
    sizes = {path.name: path.stat().st_size for path in files}
    assert max(sizes.values()) < 1e6 and sum(sizes.values()) < 20e6, max(sizes, key=sizes.get)
    for path in files:
        if path.suffix == ".png" and path.name != "verify.png":  # which `rotsim verify` draws
            with Image.open(path) as picture:
                assert picture.mode == "P", path


def test_a_picture_in_few_colours_is_the_same_picture(tmp_path):
    figure, axes = plt.subplots(figsize=(4, 3))
    axes.imshow(np.linspace(0, 1, 400).reshape(20, 20))
    axes.plot([0, 19], [0, 19], color="C1")
    plain = plotting.save_figure(figure, tmp_path / "plain.png").read_bytes()
    small = in_few_colours(plain)
    one, other = (np.asarray(Image.open(BytesIO(content)).convert("RGB"), float) for content in (small, plain))
    assert np.abs(one - other).mean() < 1 and np.abs(one - other).max() < 24
    assert len(small) < len(plain)
    plt.close(figure)
