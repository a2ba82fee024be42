"""The claims about training: every script runs, its statistics are right, and its checks can fail."""

import json
import re
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import stats

from experiments import __main__ as runner
from experiments import frozen, imbalance, invariance, product, sensitivity, special, warmup
from experiments.harness import table
from experiments.harness.claim import Finding, claimed, conduct, line
from experiments.harness.paired import Comparison, at_best, checks, holm, tuned
from experiments.networks.variants import ResNet, normalised_mlp
from experiments.training.arms import Plain, Turned
from experiments.training.loop import rise_and_fall
from experiments.training.trials import ImageProblem, TextProblem, Trial, run_trials
from rotsim.errors import InvalidInput
from rotsim.measure import Rotated
from rotsim.tasks import Ledger
from tests import chance

pytestmark = pytest.mark.machine

SEEDS = 6
noise = np.random.default_rng(0).normal(1.0, 0.01, (5, 4, SEEDS))  # (arm, setting, seed), arms about equal


def test_imbalance_with_its_arms_swapped_is_refuted():
    """Losses of known truth: half the neurons ten times faster costs 10 %; then it is held for balanced."""
    case = imbalance.CASES[0]
    shape = np.shape(table.committed("imbalance")["numbers"][case.name]["loss[arm][rotation][seed]"])
    loss = np.random.default_rng(1).normal(1.0, 0.03, shape)
    loss[-1] *= 1.1
    assert imbalance.judge(case, loss)[-1].passed
    swapped = imbalance.judge(case, loss[::-1])[-1]
    assert swapped.failed and "FAIL" in line(swapped)


@pytest.mark.parametrize("name", ["imbalance", "invariance", "product", "sensitivity", "special", "warmup"])
def test_committed_result_is_that_of_the_full_version(name):
    content = table.committed(name)
    assert not content["quick"] and content["provenance"]["command"] == f"python -m experiments.{name}"
    assert content["verdict"] == table.report_of(content).summary()


def test_committed_numbers_give_the_committed_verdicts():
    """The verdicts follow from the losses that stand beside them."""
    content = table.committed("imbalance")
    again = [
        check
        for case in imbalance.CASES
        for check in imbalance.judge(case, np.array(content["numbers"][case.name]["loss[arm][rotation][seed]"]))
    ]
    assert [(c.statement, c.verdict) for c in again] == [(c.statement, c.verdict) for c in table.report_of(content)]
    content = table.committed("warmup")
    losses = [np.array(case["loss[arm][warmup][lr][seed]"]) for case in content["numbers"]["cases"]]
    again, _ = warmup.judge(warmup.CASES, losses)
    assert [(c.statement, c.verdict) for c in again] == [(c.statement, c.verdict) for c in table.report_of(content)]


def test_the_runner_tells_a_new_refutation_from_a_lack_of_seeds():
    fine, wrong, open_ = (
        Finding([claimed("x", value, 0.1, 1.0, established=known)], None)
        for value, known in ((2.0, True), (0.0, True), (0.0, False))
    )
    held, refuted, undecided = ({"checks": [f.checks[0].to_dict()]} for f in (fine, wrong, open_))
    assert runner.judge(fine, held)[1] and runner.judge(wrong, refuted)[1]
    assert runner.judge(fine, refuted, quick=True)[1] and not runner.judge(wrong, held, quick=True)[1]
    assert not runner.judge(wrong, held)[1] and not runner.judge(fine, refuted)[1] and not runner.judge(wrong, None)[1]
    assert runner.judge(open_, held)[1] and runner.judge(open_, held)[0] == "UNRESOLVED: 1 of 1 statements"
    assert runner.judge(fine, undecided)[1] and runner.judge(wrong, undecided)[1]


def verdicts(found):
    """Check by check."""
    return [check.verdict for check in found]


def test_warmup_tells_the_arms_apart():
    case = warmup.Case("x", None, "adamw", 0.1, (1.0, 4.0), 10, SEEDS)
    loss = noise[:2, :4].reshape(2, 2, 2, SEEDS).copy()
    loss[0, 0] += 0.3  # the plain optimizer suffers without warm-up
    assert verdicts(warmup.judge([case], [loss])[0]) == ["PASS"] * 3
    assert verdicts(warmup.judge([case], [loss[::-1]])[0]) == ["PASS", "FAIL", "FAIL"]
    assert verdicts(warmup.judge([case], [loss * np.array([1, 1.3])[:, None, None, None]])[0])[0] == "FAIL"


def test_imbalance_needs_a_difference():
    assert verdicts(imbalance.judge(imbalance.CASES[0], np.repeat(noise[:1], 5, axis=0))) == ["UNRESOLVED"] * 3
    harmed = noise * np.array([1, 1, 1.2, 1.5, 0.8])[:, None, None]
    assert verdicts(imbalance.judge(imbalance.CASES[0], harmed)) == ["PASS", "PASS", "FAIL"]


def test_invariance_tells_the_norms_apart():
    loss, spread = noise[:3, 0] * [[1], [1.2], [1]], noise[:3, 1] * [[0.05], [0.15], [0.05]]
    assert verdicts(invariance.judge("x", loss, spread)) == ["PASS"] * 3
    swap = [0, 2, 1]
    assert verdicts(invariance.judge("x", loss[swap], spread[swap])) == ["FAIL"] * 3


def test_sensitivity_sees_a_tenth():
    names = list(sensitivity.VARIATIONS)[:3]
    loss = noise[:3] * np.array([1, 1.02, 1.3])[:, None, None]
    assert verdicts(sensitivity.judge("x", names, loss)) == ["PASS", "FAIL"]


def test_special_needs_a_gap_that_closes():
    loss, across = noise[:3, 0] * [[1], [1.3], [1.05]], noise[:3, 1] * [[1.2], [9], [1.2]]
    assert verdicts(special.judge("x", loss, across)) == ["PASS"] * 4
    swap = [0, 2, 1]
    assert verdicts(special.judge("x", loss[swap], across[swap])) == ["FAIL", "FAIL", "PASS", "FAIL"]


def test_product_would_see_a_rotation_that_follows_lr():
    rates = np.array([1e-3, 1e-2, 1e-1])
    follows, still = noise[0, :3] * rates[:, None], noise[1, :3]
    differs = still * np.array([[2], [1], [1.5]])
    assert verdicts(product.judge_network(rates, still, follows, differs)) == ["PASS"] * 3
    assert verdicts(product.judge_network(rates, follows, still, still))[:2] == ["FAIL"] * 2


def test_p_value_is_that_of_the_t_test_and_holm_of_the_textbook():
    values = noise[0, 0]
    expected = stats.ttest_1samp(values, 0.99, alternative="greater").pvalue
    assert Comparison("x", values, low=0.99).p == pytest.approx(expected)
    assert Comparison("x", values, high=0.99).p == pytest.approx(expected)  # refuted with the same confidence
    both = max(stats.ttest_1samp(values, b, alternative=a).pvalue for b, a in ((0.9, "greater"), (1.05, "less")))
    assert Comparison("x", values, 0.9, 1.05).p == pytest.approx(both)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    weak = Comparison("x", np.array([0.1, -0.1, 0.2, -0.1]), low=0.0)
    assert verdicts(checks([weak])) == ["UNRESOLVED"] and "UNRESOLVED" in line(checks([weak])[0])


def test_each_seed_is_tuned_on_the_others():
    losses = np.array([[1.0, 1.0, 0.0], [0.9, 0.9, 0.9]])  # the first setting is best once, by luck
    found, chosen = tuned(losses)
    assert chosen.tolist() == [0, 0, 1] and found.tolist() == [1.0, 1.0, 0.9]
    assert at_best([losses], [10 * losses])[0].tolist() == [10.0, 10.0, 9.0]


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


def run(trial):
    return run_trials([trial])[0]


def test_a_trial_repeats_and_its_seed_matters():
    task = ImageProblem(shape=(16,))
    first, again, other = (run(Trial(task, Turned("adamw", 0.02, 0.5), 20, seed)).loss for seed in (0, 0, 1))
    assert first == again != other
    assert first != run(Trial(task, Plain("adamw", 0.02, 0.5), 20, 0)).loss


def test_a_run_that_diverges_counts_as_guessing():
    task = ImageProblem(shape=(16,))
    lost = run(Trial(task, Plain("sgdm", 1e30, 0.0), 20, 0, record=True))
    assert lost.loss == task.chance and np.isnan(lost.within_layers)
    assert run(Trial(TextProblem(), Plain("sgdm", 0.0, 0.0), 1, 0)).loss <= TextProblem().chance


def test_schedule():
    factors = rise_and_fall(100, 10)
    assert factors[0] == pytest.approx(1 / 11) and factors[10] == 1.0 == factors.max()
    assert np.all(np.diff(factors[:11]) > 0) and np.all(np.diff(factors[10:]) < 0) and factors[-1] < 1e-3
    assert rise_and_fall(100, 0)[0] == 1.0


# ------------------------------------------------------------------------------------- a claim that was cut off


TINY = Trial(ImageProblem(shape=(16,)), Plain("adamw", 0.02, 0.5), 10, 0)
TRIALS = [replace(TINY, seed=seed) for seed in range(3)]


def test_trials_of_a_run_that_was_cut_off_are_taken_up(tmp_path):
    path = tmp_path / "x.trials.jsonl"
    first = run_trials(TRIALS[:2], 1, Ledger(path))
    path.write_text(path.read_text() + '{"id": "cut o')  # the line that was being written
    book = Ledger(path)
    again = run_trials(TRIALS, 1, book)
    assert repr(again[:2]) == repr(first) and repr(again[2]) == repr(run(TRIALS[2])) != repr(first[0])
    assert len(book.run) == 1 and len(book.reused) == 2


@pytest.mark.slow
def test_trials_in_other_processes_have_the_same_bits():
    assert repr(run_trials(TRIALS, 2)) == repr(run_trials(TRIALS, 1))


def test_a_trial_that_differs_in_anything_is_another():
    others = [replace(TINY, seed=1), replace(TINY, steps=11), replace(TINY, arm=Turned("adamw", 0.02, 0.5))]
    ids = {replace(trial, device=device).strong_id() for trial in (TINY, *others) for device in ("cpu", "cuda")}
    assert len(ids) == 8 and TINY.strong_id() == replace(TINY).strong_id()
    assert {"torch", "code", "rotsim"} < TINY.strong_id_value().keys()


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


def test_seeds_needed_have_the_power_that_is_asked_for():
    values = np.array([0.2, 1.8, 0.9, 1.1, 1.0])
    needed = Comparison("x", values, low=0.5).seeds_needed(0.0125)
    effect, draw = 0.5 / values.std(ddof=1), np.random.default_rng(1)

    def power(n):
        sample = effect + draw.standard_normal((40_000, n))
        t = sample.mean(axis=1) / sample.std(axis=1, ddof=1) * np.sqrt(n)
        return (t > stats.t.isf(0.0125, n - 1)).mean()

    error = chance.errors(None, 2) * np.sqrt(0.8 * 0.2 / 40_000)
    assert power(needed) > 0.8 - error > power(needed - 3)
    assert Comparison("x", values, low=0.5).seeds_needed(0.05) < needed
    assert Comparison("x", values, low=0.9999).seeds_needed(0.05) is None
    [open_] = checks([Comparison("x", values, low=0.9)])
    assert re.search(r"\d+ seeds would be needed, has 5", line(open_))


def test_frozen_norms_are_judged_apart():
    case = np.repeat(noise[:4, :1], 2, axis=1) * np.array([1, 1.1, 1, 1.01])[:, None, None]
    assert verdicts(frozen.judge("x", case)) == ["PASS", "PASS"]
    assert verdicts(frozen.judge("x", case[[1, 0, 0, 1]])) == ["FAIL", "FAIL"]
