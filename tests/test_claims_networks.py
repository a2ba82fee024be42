"""The claims about training: their questions tell arms apart, their results are whole, and cut-off runs go on."""

import json
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from experiments import __main__ as runner
from experiments import frozen, imbalance, invariance, product, restored, sensitivity, special, warmup, warmup_large
from experiments.harness import table
from experiments.harness.answers import answer
from experiments.harness.claim import Finding, claimed, conduct
from experiments.networks.variants import ResNet, normalised_mlp
from experiments.training.arms import Plain, Turned
from experiments.training.blocks import Trial, blocks, run_trials
from experiments.training.contest import PILOT_FIRST, Contest
from experiments.training.loop import rise_and_fall
from experiments.training.problems import ImageProblem, TextProblem
from rotsim.errors import InvalidInput
from rotsim.measure import Rotated
from rotsim.tasks import Ledger

pytestmark = pytest.mark.machine

CLAIMS = {
    "frozen": frozen.CONTESTS,
    "imbalance": imbalance.CONTESTS,
    "invariance": invariance.CONTESTS,
    "product": [product.contest(False)],
    "restored": restored.CONTESTS,
    "sensitivity": sensitivity.CONTESTS,
    "special": special.CONTESTS,
    "warmup": warmup.CONTESTS,
    "warmup_large": warmup_large.CONTESTS,
}
CONTESTS = [contest for contests in CLAIMS.values() for contest in contests]
MEASURED = ("loss", "rotation", "across_layers", "within_layers", "undecayed_step")


def outcomes(arms, seeds, of=lambda arm: 1.0, seed=0):
    """Arms whose outcomes are noise of 0.3 % about `of` each."""
    draw = np.random.default_rng(seed)
    return {arm: {what: of(arm) * np.exp(0.003 * draw.standard_normal(seeds)) for what in MEASURED} for arm in arms}


def judged(contest, of, questions=None):
    """Answers where the truth is known."""
    questions = questions or contest.questions
    known = outcomes(contest.arms, 64, of)
    return answer(questions, lambda wanted: known, outcomes(contest.arms, 16, of, seed=1), 64)


@pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: contest.name)
def test_a_question_finds_what_is_there_and_not_what_is_not(contest):
    """Arms that are equal are equivalent; one that is 1.7 times the others is an effect, of the right sign."""
    simple = [q for q in contest.questions if len(q.arms) == 2]
    assert simple or contest.name == "network"
    for found in judged(contest, lambda arm: 1.0, simple):
        assert found.kind == "equivalent" and (found.verdict == "PASS") == (found.claim == "equal")
    for question in simple:
        up, down = (
            judged(contest, lambda arm, f=f, q=question: f if arm == q.arms[0] else 1.0, [question]) for f in (1.7, 0.6)
        )
        assert up[0].kind == down[0].kind == "effect" and up[0].effect > 0.5 and down[0].effect < -0.3
        assert up[0].verdict == ("PASS" if question.claim == "more" else "FAIL") and down[0].verdict == "FAIL"


def test_warmups_gain_is_the_plain_optimizers_over_the_variants():
    contest = warmup.CONTESTS[0]
    [gain] = judged(contest, lambda arm: 1.2 if arm == "plain without warm-up" else 1.0, contest.questions[2:])
    assert gain.effect == pytest.approx(0.2, abs=0.02) and gain.verdict == "PASS"
    [less] = judged(contest, lambda arm: 1.2 if arm == "rotational without warm-up" else 1.0, contest.questions[2:])
    assert less.effect < -0.15 and less.verdict == "FAIL"


def test_product_would_see_a_rotation_that_follows_lr():
    contest = product.contest(False)
    still = judged(contest, lambda arm: 1.0, contest.questions[:1])
    follows = judged(contest, float, contest.questions)
    assert still[0].verdict == "PASS" and [x.verdict for x in follows] == ["FAIL", "PASS", "PASS"]
    [half] = judged(contest, lambda arm: float(arm) ** 0.5, contest.questions[1:2])
    assert half.verdict == "FAIL" and half.effect == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize("name", [name for name in CLAIMS if "answers" in (table.committed(name) or {})])
def test_committed_answers_follow_from_the_committed_numbers(name):
    content = table.committed(name)
    assert not content["quick"] and content["provenance"]["command"] == f"python -m experiments.{name}"
    assert content["verdict"] == table.report_of(content).summary()
    by_statement = {a["statement"]: a for a in content["answers"]}
    numbers = content["numbers"]
    questions = [(contest.name, q) for contest in CLAIMS[name] for q in contest.questions]
    assert [q.statement for _, q in questions] == list(by_statement)
    for contest, question in questions:
        found, own = by_statement[question.statement], numbers[contest]["at best[seed]"]
        trained = {arm: {what: np.array(x[: found["seeds"]]) for what, x in own[arm].items()} for arm in question.arms}
        values = question.effect(trained)
        assert len(values) == found["seeds"] and found["margin"] == question.margin
        assert np.expm1(values.mean()) == pytest.approx(found["effect"], abs=2e-3)
        assert values.std(ddof=1) == pytest.approx(found["deviation"], rel=0.02, abs=1e-3)


def test_the_pilots_seeds_are_not_judged_and_choose_the_setting():
    """Two learning rates, of which one learns nothing: the other is chosen, and trained on seeds from 0 on."""
    problem = ImageProblem(shape=(16,), noise=0.5)
    rates = {"slow": (1e-6, 0.05), "fast": (0.05, 1e-6)}
    arms = {name: [Trial(problem, Plain("adamw", lr, 0.1), 20) for lr in both] for name, both in rates.items()}
    question = replace(
        warmup.CONTESTS[0].questions[0],
        arms=("slow", "fast"),
        effect=lambda found: found["slow"]["loss"] - found["fast"]["loss"],
    )
    book = Ledger()
    answers, numbers = Contest("x", arms, [question], 8, 4).settle(1, book)
    assert numbers["setting"] == {"slow": 1, "fast": 0} and answers[0].effect == 0 and answers[0].kind == "equivalent"
    firsts = [task.first for part in arms.values() for trial in part for task in blocks(trial, PILOT_FIRST, 4)]
    assert (
        set(firsts) == {PILOT_FIRST} and len(book.run) == 2 + 1 and len(numbers["at best[seed]"]["slow"]["loss"]) == 8
    )


def test_the_runner_tells_a_new_refutation_from_a_lack_of_seeds():
    fine, wrong, missed = (Finding([claimed("x", value, 0.1, 1.0)], None) for value in (2.0, 0.0, 0.0))
    open_ = Finding([replace(missed.checks[0], verdict="UNRESOLVED")], None)
    held, refuted, undecided = ({"checks": [f.checks[0].to_dict()]} for f in (fine, wrong, open_))
    assert runner.judge(fine, held)[1] and runner.judge(wrong, refuted)[1]
    assert runner.judge(fine, refuted, quick=True)[1] and not runner.judge(wrong, held, quick=True)[1]
    assert not runner.judge(wrong, held)[1] and not runner.judge(fine, refuted)[1] and not runner.judge(wrong, None)[1]
    assert runner.judge(open_, held)[1] and runner.judge(open_, held)[0] == "UNRESOLVED: 1 of 1 statements"
    assert runner.judge(fine, undecided)[1] and runner.judge(wrong, undecided)[1]


@pytest.mark.parametrize(("norm", "row", "layer"), [("bn", 0, 0), ("ws+ln", 0, 0), ("ln", 1, 0)])
def test_what_is_scale_invariant(norm, row, layer):
    """The gradient of a scale-invariant neuron, or layer, is orthogonal to it; under LN the neuron's is not."""
    torch.manual_seed(0)
    model, x = normalised_mlp((16, 12, 12, 10), norm).double(), torch.randn(64, 16, dtype=torch.float64)
    for module in model:
        if hasattr(module, "eps"):
            module.eps = 1e-12
    torch.nn.functional.cross_entropy(model(x), torch.arange(64) % 10).backward()
    weight = model.hidden0.weight
    radial = (weight * weight.grad).sum(1)
    size = weight.norm(dim=1) * weight.grad.norm(dim=1)
    assert bool((radial.abs() > 1e-3 * size).all()) == bool(row)
    assert (abs(radial.sum()) > 1e-9 * size.sum()) == bool(layer)


def test_the_convolutions_of_the_resnet_are_scale_invariant():
    torch.manual_seed(0)
    model = ResNet(8, 4, 2, 1)
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = 1e-12
    torch.nn.functional.cross_entropy(model(torch.randn(32, 64)), torch.arange(32) % 10).backward()
    weights = [p for p in model.parameters() if p.ndim == 4]
    assert len(weights) == 5
    for p in weights:
        rows, grads = p.flatten(1), p.grad.flatten(1)
        assert ((rows * grads).sum(1).abs() < 1e-4 * rows.norm(dim=1) * grads.norm(dim=1)).all()
    head = model.head.weight
    assert abs((head * head.grad).sum()) > 1e-3 * head.norm() * head.grad.norm()


def test_rows_turn_by_their_factors():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 2000, dtype=torch.float64))
    factors = torch.tensor([0.0, 0.5, 1.0, 3.0])
    optimizer = Rotated(
        torch.optim.AdamW([weight], weight_decay=0.1), 0.01, update_norm_decay=0.0, factors={weight: factors}
    )
    for _ in range(3):
        before = weight.detach().clone()
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    cosine = torch.nn.functional.cosine_similarity(before, weight.detach(), dim=1).clamp(max=1.0)
    assert torch.allclose(cosine.arccos(), 0.01 * factors.double(), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(cosine.arccos(), torch.full((4,), 0.01).double(), rtol=0.4)
    made = imbalance.row_factors(20, 0.1, 10.0)
    assert made.mean().item() == pytest.approx(1.0) and (made[:2] / made[2:].max()).tolist() == pytest.approx([10, 10])


@pytest.mark.parametrize("bad", [torch.ones(3), -torch.ones(4), torch.full((4,), float("nan"))])
def test_bad_factors_are_answered_in_a_line(bad):
    weight = torch.nn.Parameter(torch.ones(4, 5))
    with pytest.raises(InvalidInput, match="one finite number >= 0 for each of the 4 rows"):
        Rotated(torch.optim.AdamW([weight]), 0.01, factors={weight: bad})
    with pytest.raises(InvalidInput, match="does not update"):
        Rotated(torch.optim.AdamW([torch.nn.Parameter(torch.ones(4, 5))]), 0.01, factors={weight: torch.ones(4)})
    with pytest.raises(InvalidInput, match="per_neuron=True"):
        Rotated(torch.optim.AdamW([weight]), 0.01, per_neuron=False, factors={weight: torch.ones(4)})


def run(trial, first=0, seeds=1):
    return run_trials([(trial, first, seeds)])[0]


def test_a_trial_repeats_and_its_seed_matters():
    trial = Trial(ImageProblem(shape=(16,)), Turned("adamw", 0.02, 0.5), 20)
    first, again, other = (run(trial, seed)["loss"][0] for seed in (0, 0, 1))
    assert first == again != other
    assert first != run(replace(trial, arm=Plain("adamw", 0.02, 0.5)))["loss"][0]
    assert run(trial, 0, 2)["loss"] == pytest.approx([first, other], rel=1e-3)


def test_a_run_that_diverges_counts_as_guessing():
    problem = ImageProblem(shape=(16,))
    lost = run(Trial(problem, Plain("sgdm", 1e30, 0.0), 20, record=True))
    assert lost["loss"][0] == problem.chance and np.isnan(lost["within_layers"][0])
    tiny = replace(TextProblem(), batch_size=1)
    assert run(Trial(tiny, Plain("sgdm", 0.0, 0.0), 1))["loss"][0] <= tiny.chance


def test_schedule():
    factors = rise_and_fall(100, 10)
    assert factors[0] == pytest.approx(1 / 11) and factors[10] == 1.0 == factors.max()
    assert np.all(np.diff(factors[:11]) > 0) and np.all(np.diff(factors[10:]) < 0) and factors[-1] < 1e-3
    assert rise_and_fall(100, 0)[0] == 1.0


# ------------------------------------------------------------------------------------- a claim that was cut off


TINY = Trial(ImageProblem(shape=(16,)), Plain("adamw", 0.02, 0.5), 10)
TRIALS = [(TINY, first, 1) for first in range(3)]


def test_trials_of_a_run_that_was_cut_off_are_taken_up(tmp_path):
    path = tmp_path / "x.trials.jsonl"
    first = run_trials(TRIALS[:2], 1, Ledger(path))
    path.write_text(path.read_text() + '{"id": "cut o')  # the line that was being written
    book = Ledger(path)
    again = run_trials(TRIALS, 1, book)
    assert repr(again[:2]) == repr(first) and repr(again[2]) == repr(run(TINY, 2)) != repr(first[0])
    assert len(book.run) == 1 and len(book.reused) == 2


@pytest.mark.slow
def test_trials_in_other_processes_have_the_same_bits():
    assert repr(run_trials(TRIALS, 2)) == repr(run_trials(TRIALS, 1))


def test_seeds_are_trained_in_blocks():
    problem = replace(TINY.problem, network="resnet")
    parts = blocks(replace(TINY, problem=problem), 5, 20)
    assert [(task.first, task.copies) for task in parts] == [(5, 8), (13, 8), (21, 4)]


def test_a_trial_that_differs_in_anything_is_another():
    others = [replace(TINY, warmup=1), replace(TINY, steps=11), replace(TINY, arm=Turned("adamw", 0.02, 0.5))]
    tasks = [
        blocks(replace(trial, device=d), 0, n) for trial in (TINY, *others) for d in ("cpu", "cuda") for n in (1, 2)
    ]
    assert len({part.strong_id() for parts in tasks for part in parts}) == 16
    [one], [same] = blocks(TINY, 0, 1), blocks(replace(TINY), 0, 1)
    assert one.strong_id() == same.strong_id() and {"torch", "code", "rotsim"} < one.strong_id_value().keys()


def test_a_claim_that_crashed_goes_on_where_it_was(tmp_path):
    """What it takes over and what that took is in the provenance, and counted in its CPU time; then nothing is left."""

    def examine(quick, store, crash):
        run_trials(TRIALS[:2], 1, store)
        if crash:
            raise ValueError("cut off")
        run_trials(TRIALS[2:], 1, store)
        return Finding([claimed("x", 1.0, 0.1, high=2.0)], plt.figure())

    left = tmp_path / "x.trials.jsonl"
    with pytest.raises(ValueError, match="cut off"):
        conduct("x", "X.", partial(examine, crash=True), False, tmp_path)
    kept = [json.loads(line)["cpu_seconds"] for line in left.read_text().splitlines()]
    conduct("x", "X.", partial(examine, crash=False), False, tmp_path)
    content = json.loads((tmp_path / "x.json").read_text())
    trials = content["provenance"]["trials"]
    assert trials["run"] == 1 and trials["reused_from_a_run_cut_off"]["trials"] == 2
    assert content["cpu_seconds"] >= trials["cpu_seconds"] + trials["reused_from_a_run_cut_off"]["cpu_seconds"] - 0.2
    assert trials["reused_from_a_run_cut_off"]["cpu_seconds"] == pytest.approx(sum(kept), abs=0.06)
    assert not left.exists()
    conduct("x", "X.", partial(examine, crash=False), False, tmp_path)
    again = json.loads((tmp_path / "x.json").read_text())["provenance"]["trials"]
    assert again["run"] == 3 and "reused_from_a_run_cut_off" not in again
