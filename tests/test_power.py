"""The verdicts of trainings err as rarely as they say, and plans have the power that they say; on simulated data."""

from math import expm1, log1p

import numpy as np
import pytest
from scipy import stats

from experiments.harness.answers import LOOKS, Answer, Question, answer
from experiments.harness.power import planned, seeds_for
from experiments.harness.spending import levels, spent
from tests import chance


def family(draw, effects, margin=0.05, claim="more", deviation=0.1, most=10_000, luck=1.0):
    """Answers on normal differences with these means."""
    names = [str(i) for i in range(len(effects))]
    values = {n: {"x": mean + deviation * draw.standard_normal(most)} for n, mean in zip(names, effects, strict=True)}
    # unless it is lucky the pilot has the true deviation exactly: what is measured is the looks
    pilot = {n: {"x": luck * deviation / np.std([1, -1], ddof=1) * np.array([1.0, -1.0])} for n in names}
    questions = [Question(n, (n,), lambda found, n=n: found[n]["x"], margin, claim) for n in names]
    return answer(questions, lambda wanted: {n: {"x": values[n]["x"][:k]} for n, k in wanted.items()}, pilot, most)


def share(hits):
    """Mean and the error that chance may make."""
    return np.mean(hits), chance.errors(None, 4) * 0.5 / np.sqrt(len(hits))


RUNS = 600


@pytest.fixture(scope="module")
def simulated():
    draw = np.random.default_rng(0)
    none = [family(draw, [0.0])[0] for _ in range(RUNS)]
    matters = [family(draw, [log1p(0.05)], claim="equal")[0] for _ in range(RUNS)]
    return none, matters


def test_an_effect_that_is_not_there_is_seldom_found_at_any_look(simulated):
    found, error = share([a.kind == "effect" or a.low > 0 or a.high < 0 for a in simulated[0]])
    assert found < 0.05 + error * 2 * np.sqrt(0.05 * 0.95)


def test_an_effect_that_matters_is_seldom_called_equivalent(simulated):
    found, error = share([a.kind == "equivalent" for a in simulated[1]])
    assert found < 0.025 + error * 2 * np.sqrt(0.025 * 0.975)


def test_plans_decide_in_nine_of_ten(simulated):
    """And so seldom for want of an easy task: a third of the seeds would not do."""
    for answers, kind in zip(simulated, ("equivalent", "effect"), strict=True):
        found, error = share([a.kind == kind for a in answers])
        assert found > 0.9 - error * 2 * np.sqrt(0.9 * 0.1)
    few = [family(np.random.default_rng(i), [0.0], most=simulated[0][0].plan // 3)[0].kind for i in range(200)]
    assert np.mean([kind == "equivalent" for kind in few]) < 0.7
    assert np.mean([a.seeds for a in simulated[0]]) <= simulated[0][0].plan


def test_looks_without_the_correction_would_err_more(monkeypatch):
    """The control: each look at the full level finds what is not there in more than one of twenty."""
    monkeypatch.setattr("experiments.harness.answers.levels", lambda sizes, spent_in_all: [0.05] * len(sizes))
    draw = np.random.default_rng(1)
    found = [family(draw, [0.0], margin=0.02)[0] for _ in range(RUNS)]
    assert np.mean([a.low > 0 or a.high < 0 for a in found]) > 0.07


def test_levels_are_those_of_the_textbook():
    """Two looks in closed form by SciPy's bivariate normal; all looks together spend the level."""
    first, second = levels((50, 100), (spent(0.5, 0.05), 0.05))
    assert first == pytest.approx(spent(0.5, 0.05)) and levels((7,), (0.05,)) == (pytest.approx(0.05),)
    a, b = (stats.norm.isf(x / 2) for x in (first, second))
    joint = stats.multivariate_normal([0, 0], [[1, np.sqrt(0.5)], [np.sqrt(0.5), 1]])
    inside = joint.cdf([a, b], lower_limit=[-a, -b])
    assert 1 - inside == pytest.approx(0.05, abs=1e-5)
    increasing = levels((1, 2, 3), tuple(spent(share, 0.01) for share in LOOKS))
    assert list(increasing) == sorted(increasing) and increasing[-1] < 0.01
    # a look whose share shrank has nothing to spend, and those after it no less than without it
    first, nothing, last = levels((50, 60, 100), (0.01, 0.005, 0.05))
    assert nothing == 0 and (first, last) == pytest.approx(levels((50, 100), (0.01, 0.05)))


@pytest.mark.parametrize(("claim", "effect", "kind"), [("more", 0.0, "equivalent"), ("equal", log1p(0.05), "effect")])
def test_a_lucky_pilot_costs_no_power_and_no_sureness(monkeypatch, claim, effect, kind):
    """Of a third of the true deviation: the plan grows as seeds are seen to scatter. The control is one that stays."""
    draw = np.random.default_rng(4)
    found = [family(draw, [effect], claim=claim, luck=1 / 3)[0] for _ in range(RUNS // 2)]
    right, error = share([a.kind == kind for a in found])
    assert right > 0.9 - error * 2 * np.sqrt(0.9 * 0.1)
    if claim == "more":
        wrong, error = share([a.low > 0 or a.high < 0 for a in found])
        allowed = 0.05
    else:
        wrong, error = share([a.kind == "equivalent" for a in found])
        allowed = 0.025
    assert wrong < allowed + error * 2 * np.sqrt(allowed * (1 - allowed))
    monkeypatch.setattr("experiments.harness.answers.planned", lambda *_: 12)
    stays = [family(draw, [effect], claim=claim, luck=1 / 3)[0].kind == kind for _ in range(200)]
    assert np.mean(stays) < 0.5


def test_seeds_are_those_of_the_t_test():
    n = seeds_for(0.5, 1.0, 0.05)
    sample = 0.5 + np.random.default_rng(2).standard_normal((20_000, n))
    t = sample.mean(1) / sample.std(1, ddof=1) * np.sqrt(n)
    error = chance.errors(None, 1) * np.sqrt(0.09 / 20_000)
    assert abs((t > stats.t.isf(0.025, n - 1)).mean() - 0.9) < error + 0.01
    assert planned(0.5, 1.0, 0.05) > n and seeds_for(1e9, 1.0, 0.05) == 2 and seeds_for(1.0, 0.0, 0.05) == 2
    assert seeds_for(1e-6, 1.0, 0.05) == 100_000


def made(low, high, claim, margin=0.05):
    return Answer("x", claim, margin, expm1((log1p(low) + log1p(high)) / 2), low, high, 0.1, 20, 60, 0.05)


@pytest.mark.parametrize(
    ("low", "high", "kind", "more", "equal"),
    [
        (0.01, 0.03, "equivalent", "FAIL", "PASS"),
        (-0.03, 0.03, "equivalent", "FAIL", "PASS"),
        (0.01, 0.09, "effect", "PASS", "FAIL"),
        (-0.2, -0.06, "effect", "FAIL", "FAIL"),
        (-0.01, 0.06, "undecided", "UNRESOLVED", "UNRESOLVED"),
    ],
)
def test_three_verdicts_and_what_they_say_of_a_claim(low, high, kind, more, equal):
    claims = [made(low, high, claim) for claim in ("more", "equal")]
    assert [a.kind for a in claims] == [kind] * 2 and [a.verdict for a in claims] == [more, equal]
    assert [a.check().verdict for a in claims] == [more, equal]
    assert all(len(a.words().split()) <= 10 for a in claims)
    assert claims[0].settled == (kind != "undecided")


def test_equality_is_given_the_seeds_to_be_shown():
    assert not made(0.01, 0.09, "equal").settled and made(0.06, 0.09, "equal").settled
    assert made(-0.01, 0.06, "equal").seeds_that_would_decide() > 20


def test_a_family_is_as_sure_as_one_question():
    one, many = (family(np.random.default_rng(3), [0.0] * n)[0] for n in (1, 5))
    assert many.plan > one.plan and many.level == pytest.approx(one.level / 5)
