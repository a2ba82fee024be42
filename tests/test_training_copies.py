"""Copies of a network that are trained at once are the networks that are trained alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experiments import restored
from experiments.frozen import GrownTurned
from experiments.imbalance import Imbalanced
from experiments.networks.gpt import GPTSize
from experiments.restored import COURSE, THINGS, Restored, predicted
from experiments.special import AdamL2Turned
from experiments.training import blocks
from experiments.training.arms import BETA2, Plain, Turned
from experiments.training.blocks import Trial, run_trials
from experiments.training.copies import Copies
from experiments.training.loop import one_thread, seeded, train
from experiments.training.optimizers import make_optimizer
from experiments.training.problems import ImageProblem, TextProblem
from experiments.training.rectified import Rectified
from rotsim.balance import balance
from rotsim.measure import Recorder

SEEDS = range(3, 6)
TINY = ImageProblem(shape=(12, 12), batch_size=16)
TEXT = TextProblem(GPTSize(1, 8, 2, 8), batch_size=4)
PROBLEMS = {
    "bn": TINY,
    "ln": replace(TINY, network="ln"),
    "ws+ln": replace(TINY, network="ws+ln"),
    "resnet": replace(TINY, network="resnet", shape=(4, 2, 1)),
    "wn-gpt": TEXT,
    "gpt": replace(TEXT, normalised=False),
}


def alone(problem, build, seed, steps):
    """Parameters of one network, trained by the plain loop on its own batches."""
    model, draw = seeded(problem.model, seed, torch.device("cpu")), torch.Generator().manual_seed(seed)

    def loss():
        x, y = (part[0] for part in problem.batch([draw], torch.device("cpu")))
        return F.cross_entropy(model(x).flatten(0, -2), y.flatten())

    with one_thread():
        for _ in train(build(model), loss, steps):
            pass
    return model


def together(problem, arm, seeds, steps):
    """The same of all seeds at once."""
    copies = Copies(problem.model, seeds, torch.device("cpu"))
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    with one_thread():
        optimizer = arm.build(copies.model, copies.count)
        for _ in train(optimizer, lambda: copies.loss(*problem.batch(draws, torch.device("cpu"))).sum(), steps):
            pass
    return copies


def furthest(copies, models):
    """Largest difference of a tensor, buffers included, over its largest value."""
    off = 0.0
    for name, tensor in copies.model.state_dict().items():
        if "num_batches" in name:
            continue  # momentum is set: nothing depends on the count
        for own, model in zip(tensor.view(copies.count, *copies.shapes[name]), models, strict=True):
            single = model.state_dict()[name]
            off = max(off, float((own - single).abs().max() / single.abs().max().clamp(min=1e-3)))
    return off


@pytest.mark.few(6)
@pytest.mark.parametrize("network", PROBLEMS)
@pytest.mark.parametrize(
    "arm", [Plain("adamw", 1e-3, 0.5), Plain("sgdm", 0.1, 0.01), Turned("adamw", 1e-3, 0.5)],
    ids=["adamw", "sgdm", "rotational adamw"],
)  # fmt: skip
def test_every_network_is_trained_as_it_is_alone(network, arm):
    """Also a control: on another seed's batches nothing agrees."""
    problem, steps = PROBLEMS[network], 3
    models = [alone(problem, lambda model: arm.build(model, 1), seed, steps) for seed in SEEDS]
    assert furthest(together(problem, arm, SEEDS, steps), models) < 1e-3
    assert furthest(together(problem, arm, SEEDS[::-1], steps), models) > 0.1


def rotational(options):
    return lambda model: make_optimizer("rotational_sgdm", model, 0.1, 0.05, BETA2, **options)


@pytest.mark.parametrize(
    ("arm", "single"),
    [
        (Plain("lion", 1e-3, 0.5), None),
        (Plain("adam_l2", 1e-3, 0.01), None),
        (Turned("lion", 1e-3, 0.5), None),
        (Turned("sgdm", 0.1, 0.05), rotational({})),
        (Turned("sgdm", 0.1, 0.05, (("zero_mean", False),)), rotational({"zero_mean": False})),
        (Imbalanced("adamw", 1e-2, 0.5, 0.25, 10.0), None),
        (AdamL2Turned("adamw", 1e-2, 0.5, 1e-3), None),
        (GrownTurned("adamw", 1e-2, 0.5, times=4.0), None),
        (Restored("adamw", 1e-2, 0.5), None),
    ],
    ids=lambda value: None if callable(value) else str(value),  # an address would differ between processes
)
def test_every_arm_trains_each_copy_alone(arm, single):
    models = [alone(TINY, single or (lambda model: arm.build(model, 1)), seed, 3) for seed in SEEDS]
    assert furthest(together(TINY, arm, SEEDS, 3), models) < 1e-3


@pytest.mark.parametrize("network", ["bn", "resnet", "wn-gpt"])
def test_a_whole_tensor_turns_in_every_network(network):
    arm = Turned("sgdm", 0.1, 0.05, (("per_neuron", False),))
    models = [alone(PROBLEMS[network], rotational({"per_neuron": False}), seed, 2) for seed in SEEDS]
    assert furthest(together(PROBLEMS[network], arm, SEEDS, 2), models) < 1e-3


def test_a_whole_tensor_does_not_turn_as_its_rows_do():
    """The control of the test above, whose arms would otherwise all agree."""
    rows, tensor = (together(TINY, Turned("sgdm", 0.1, 0.05, (("per_neuron", x),)), SEEDS, 3) for x in (True, False))
    name = "hidden0.weight"
    one, other = (copies.model.state_dict()[name].flatten() for copies in (rows, tensor))
    assert float((one - other).abs().max()) > 1e-3


def test_what_is_restored_is_the_variant_and_what_it_lacks():
    """Without anything it is the variant. A course of its own is AdamW's, and AdamW trains the head."""
    setting, initial = ("adamw", 0.016, 0.05), Copies(TINY.model, SEEDS, torch.device("cpu")).model.state_dict()
    arms = {things: Restored(*setting, things) for things in ((), (COURSE,), THINGS)}
    found = {things: together(TINY, arm, SEEDS, 1).model.state_dict() for things, arm in arms.items()}
    variant, adamw = (together(TINY, arm(*setting), SEEDS, 1).model.state_dict() for arm in (Turned, Plain))
    for name, tensor in variant.items():
        torch.testing.assert_close(found[()][name], tensor, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[THINGS]["head.weight"], adamw["head.weight"])
    assert not torch.allclose(found[COURSE,]["head.weight"], adamw["head.weight"], atol=1e-3)
    old, new = (state["hidden1.weight"] for state in (initial, found[THINGS]))
    norms = old.norm(dim=1)
    torch.testing.assert_close(new.norm(dim=1), norms)
    angle = torch.acos(((old * new).sum(1) / norms**2).clamp(max=1.0)).square().mean().sqrt()
    assert float(angle) == pytest.approx(predicted(0.016, 0.05, 12, 300, 30)[0], rel=1e-2)
    norm = float(initial["hidden1.weight"].square().sum(1).mean().sqrt())
    assert norm == pytest.approx(restored.NORM, rel=0.1)  # of 36 rows


def test_recorded_rotation_is_that_of_the_recorder(monkeypatch):
    monkeypatch.setattr(blocks, "INTERVAL", 1)
    problem, arm = replace(TINY, noise=0.5), Plain("adamw", 0.02, 0.5)
    trial = Trial(problem, arm, 40, constant=True, record=True)
    [found] = run_trials([(trial, 3, 2)])
    for index, seed in enumerate(SEEDS[:2]):
        recorders = []

        def build(model, recorders=recorders):
            optimizer = arm.build(model, 1)
            recorders.append(Recorder(model, optimizer, 1, 1, lambda n, p: p.ndim > 1 and "head" not in n).start())
            return optimizer

        alone(problem, build, seed, 40)
        recorders[0].close()
        expected = balance(recorders[0].dataset())
        assert found["across_layers"][index] == pytest.approx(expected.across_layers, rel=1e-3)
        assert found["within_layers"][index] == pytest.approx(expected.within_layers, rel=1e-3)
        assert found["rotation"][index] == pytest.approx(np.mean(list(expected.rotation.values())), rel=1e-3)


def test_a_copy_that_diverges_leaves_the_others_alone():
    copies = Copies(TINY.model, SEEDS, torch.device("cpu"))
    with torch.no_grad():
        copies.model.head.weight.view(3, 10, -1)[1] = torch.inf
    draws = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    optimizer = Turned("adamw", 1e-2, 0.5).build(copies.model, 3)
    for _ in train(optimizer, lambda: copies.loss(*TINY.batch(draws, torch.device("cpu"))).sum(), 3):
        pass
    good = [p.view(3, -1).isfinite().all(1).tolist() for p in copies.model.parameters()]
    assert all(row[0] and row[2] for row in good) and not all(row[1] for row in good)


def test_the_kernel_is_batch_normalisation_and_relu_with_its_gradients():
    """Of a dead feature, of one that is constant, and of one that has diverged; another ε is another function."""
    draw = torch.Generator().manual_seed(1)
    h, weights = torch.randn(2, 5, 24, generator=draw)
    h[1], h[2, 3] = 0.25, torch.nan
    gain, bias = torch.randn(2, 5, generator=draw)
    bias[3] = -9.0

    def found(function, eps=1e-3):
        given = [x.clone().requires_grad_() for x in (h, gain, bias)]
        out = function(*given, eps)
        return [out.detach(), *torch.autograd.grad((out * weights).sum(), given)]

    expected = found(lambda x, g, b, eps: F.relu(F.batch_norm(x[None], None, None, g, b, True, 0.1, eps)[0]))
    of_kernel, of_other = (found(lambda *x: Rectified.apply(*x)[0], eps) for eps in (1e-3, 1e-1))
    good = [0, 1, 3, 4]
    for own, right in zip(of_kernel, expected, strict=True):
        torch.testing.assert_close(own[good], right[good], rtol=1e-4, atol=1e-4)
    assert of_kernel[0][2].isnan().all() and of_kernel[1][2].isnan().all()
    assert not torch.allclose(of_other[0][4], expected[0][4], rtol=1e-2)
