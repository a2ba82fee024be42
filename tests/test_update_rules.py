"""Every spec follows its torch.optim counterpart step for step on the same gradients."""

import functools

import numpy as np
import pytest

import rotsim
from tests.conftest import COORDINATEWISE as OPTIMIZERS

pytestmark = pytest.mark.machine

torch = pytest.importorskip("torch")

STEPS, NEURONS, DIM = 200, 3, 17

# eps is large in one case on purpose: with 1e-8 nobody would see it misplaced
CASES = {
    "adamw": rotsim.AdamW(lr=0.02, weight_decay=0.3, betas=(0.8, 0.95), eps=1e-8),
    "adamw eps": rotsim.AdamW(lr=0.02, weight_decay=0.3, betas=(0.9, 0.999), eps=0.3),
    "adamw no momentum": rotsim.AdamW(lr=0.02, weight_decay=0.0, betas=(0.0, 0.9)),
    "nadamw": rotsim.NAdamW(lr=0.02, weight_decay=0.3, betas=(0.8, 0.95), momentum_decay=0.2),
    "nadamw eps": rotsim.NAdamW(lr=0.02, weight_decay=0.3, betas=(0.9, 0.999), eps=0.3),
    "nadamw no momentum": rotsim.NAdamW(lr=0.02, weight_decay=0.0, betas=(0.0, 0.9)),
    "nadamw no schedule": rotsim.NAdamW(lr=0.02, weight_decay=0.3, momentum_decay=0.0),
    "ademamix": rotsim.AdEMAMix(lr=0.02, weight_decay=0.3, betas=(0.8, 0.95, 0.99), alpha=3.0),
    "ademamix eps": rotsim.AdEMAMix(lr=0.02, weight_decay=0.3, eps=0.3),
    "ademamix slow alone": rotsim.AdEMAMix(lr=0.02, weight_decay=0.0, betas=(0.0, 0.9, 0.97), alpha=8.0),
    "adam_l2": rotsim.AdamL2(lr=0.02, weight_decay=0.3, betas=(0.8, 0.95)),
    "adam_l2 eps": rotsim.AdamL2(lr=0.02, weight_decay=0.3, eps=0.3),
    "sgdm": rotsim.SGDM(lr=0.05, weight_decay=0.3, momentum=0.9),
    "sgdm no momentum": rotsim.SGDM(lr=0.05, weight_decay=0.3, momentum=0.0),
    "sgdm nesterov": rotsim.SGDM(lr=0.05, weight_decay=0.3, momentum=0.8, nesterov=True),
    "sgdm dampening": rotsim.SGDM(lr=0.05, weight_decay=0.3, momentum=0.9, dampening=0.6),
    "sgdm dampening alone": rotsim.SGDM(lr=0.05, weight_decay=0.3, momentum=0.0, dampening=0.6),
    "lion": rotsim.Lion(lr=0.01, weight_decay=0.5, betas=(0.9, 0.99)),
    "signum": rotsim.Signum(lr=0.01, weight_decay=0.5, momentum=0.8),
    "lion other betas": rotsim.Lion(lr=0.01, weight_decay=0.5, betas=(0.5, 0.8)),
}


def published_lion(parameters, lr, weight_decay, betas):
    """Algorithm 2 of Chen et al. 2023 as a torch optimizer, written here independently of the package."""

    class Published(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(parameters, {})

        @torch.no_grad()
        def step(self):
            for p in self.param_groups[0]["params"]:
                state = self.state[p]
                m = state.setdefault("m", torch.zeros_like(p))
                c = betas[0] * m + (1 - betas[0]) * p.grad
                p -= lr * (torch.sign(c) + weight_decay * p)
                state["m"] = betas[1] * m + (1 - betas[1]) * p.grad

    return Published()


def published_signum(parameters, lr, weight_decay, momentum):
    """Algorithm 2 of Bernstein et al. 2018, with decoupled decay: δ is the momentum, the sign of it the step."""

    class Published(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(parameters, {})

        @torch.no_grad()
        def step(self):
            for p in self.param_groups[0]["params"]:
                delta = momentum * self.state[p].get("delta", torch.zeros_like(p)) + (1 - momentum) * p.grad
                self.state[p]["delta"] = delta
                p -= lr * weight_decay * p
                p -= lr * delta.sign()

    return Published()


def published_ademamix(parameters, lr, weight_decay, betas, alpha, eps):
    """Algorithm 1 of Pagliardini et al. 2024 with α and β3 fixed; the slow average has no bias correction."""

    class Published(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(parameters, {})

        @torch.no_grad()
        def step(self):
            for p in self.param_groups[0]["params"]:
                state, g = self.state[p], p.grad
                age = state["age"] = state.get("age", 0) + 1
                zero = torch.zeros_like(p)
                for name, beta, value in (("m1", betas[0], g), ("nu", betas[1], g * g), ("m2", betas[2], g)):
                    state[name] = beta * state.get(name, zero) + (1 - beta) * value
                fast, second = state["m1"] / (1 - betas[0] ** age), state["nu"] / (1 - betas[1] ** age)
                p -= lr * ((fast + alpha * state["m2"]) / (second.sqrt() + eps) + weight_decay * p)

    return Published()


def torch_optimizer(spec, parameter):
    values = {k: v for k, v in spec.to_dict().items() if k != "name"}
    make = {
        "adamw": torch.optim.AdamW,
        "nadamw": functools.partial(torch.optim.NAdam, decoupled_weight_decay=True),
        "adam_l2": torch.optim.Adam,
        "sgdm": torch.optim.SGD,
        "lion": published_lion,
        "signum": published_signum,
        "ademamix": published_ademamix,
    }[spec.name]
    if "betas" in values:
        values["betas"] = tuple(values["betas"])
    return make([parameter], **values)


def torch_weights(spec, gradients, initial):
    """All weights w_0 ... w_T, shape (steps + 1, neurons, dim), float64."""
    w = torch.tensor(initial, dtype=torch.float64, requires_grad=True)
    optimizer = torch_optimizer(spec, w)
    history = [w.detach().numpy().copy()]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in which NAdam keeps the product of its momenta
    for g in gradients:
        w.grad = torch.tensor(g)
        optimizer.step()
        history.append(w.detach().numpy().copy())
    torch.set_default_dtype(before)
    return np.array(history)


def reference(history):
    """Norm, rotation, update RMS per step from the weights themselves; angle by its sine and cosine."""
    before, after = history[:-1].astype(np.longdouble), history[1:].astype(np.longdouble)
    norm = np.sqrt((after**2).sum(-1))
    update = np.sqrt(((after - before) ** 2).sum(-1))
    u = before / np.sqrt((before**2).sum(-1, keepdims=True))
    cosine = (u * after).sum(-1)
    sine = np.sqrt(((after - cosine[..., None] * u) ** 2).sum(-1))
    return {"norm": norm.T, "rotation": np.arctan2(sine, cosine).T, "update_rms": update.T}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    gradients = rng.normal(size=(STEPS, NEURONS, DIM)) * rng.lognormal(size=(1, NEURONS, 1))
    return gradients, rng.normal(size=(NEURONS, DIM))


def walk(spec, gradients, initial, **options):
    return rotsim.simulate(
        spec,
        steps=len(gradients),
        gradient=rotsim.Replay(gradients),
        initial_weights=initial,
        record_every=1,
        dtype="float64",
        **options,
    )


def test_every_optimizer_has_a_case():
    assert {spec.name for spec in CASES.values()} == set(OPTIMIZERS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("engine", ["numba", "numpy"])
def test_follows_torch(case, engine, data):
    gradients, initial = data
    expected = reference(torch_weights(CASES[case], gradients, initial))
    got = walk(CASES[case], gradients, initial, engine=engine)
    for name, values in expected.items():
        np.testing.assert_allclose(got[name].values, values.astype(float), rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (rotsim.AdamW(0.02, 0.3), rotsim.AdamL2(0.02, 0.3)),
        (rotsim.AdamW(0.02, 0.3, eps=0.3), rotsim.AdamW(0.02, 0.3, eps=0.29)),
        (rotsim.NAdamW(0.02, 0.3), rotsim.AdamW(0.02, 0.3)),
        (rotsim.NAdamW(0.02, 0.3), rotsim.NAdamW(0.02, 0.3, momentum_decay=4.1e-3)),
        (rotsim.SGDM(0.05, 0.3), rotsim.SGDM(0.05, 0.3, momentum=0.9001)),
        (rotsim.Lion(0.01, 0.5), rotsim.Lion(0.01, 0.5, betas=(0.99, 0.9))),
    ],
    ids=lambda spec: spec.label,
)
def test_a_wrong_rule_is_seen(mine, theirs, data):
    """Negative control: the comparison tells rules apart that differ in one detail."""
    gradients, initial = data
    expected = reference(torch_weights(theirs, gradients, initial))["norm"].astype(float)
    got = walk(mine, gradients, initial)["norm"].values
    assert np.abs(got / expected - 1).max() > 1e-6


def test_windows_are_rms_of_steps(data):
    gradients, initial = data
    spec = CASES["adamw"]
    every = walk(spec, gradients, initial)
    windows = rotsim.simulate(
        spec,
        steps=STEPS,
        gradient=rotsim.Replay(gradients),
        initial_weights=initial,
        record_every=70,
        dtype="float64",
    )
    assert windows.step.values.tolist() == [70, 140, 200]
    for name in ("norm", "rotation", "update_rms"):
        square = every[name].values ** 2
        expected = [np.sqrt(square[:, a:b].mean(axis=1)) for a, b in ((0, 70), (70, 140), (140, 200))]
        np.testing.assert_allclose(windows[name].values, np.array(expected).T, rtol=1e-12)
