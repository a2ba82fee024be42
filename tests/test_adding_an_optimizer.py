"""An optimizer that rotsim does not have, added in this file: a spec, a theory and a derivation are all it takes."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest
from sympy import Eq, Symbol

import derivations
import rotsim
from derivations.formula import step
from rotsim.cli import main
from rotsim.comparison import compare_with_theory
from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput
from rotsim.optimizers import OPTIMIZERS
from rotsim.optimizers.base import Optimizer
from rotsim.page.numerics import script
from rotsim.theory.base import Theory, theory_for
from rotsim.theory.record import record_step
from rotsim.theory.schedules import cosine
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import decoupled, exponential_average, fallen
from tests import chance
from tests.javascript import answer, needs_node
from tests.test_page_numbers import COURSE, close, rates, walked


@kernel_part()
def _update(w, m, v, g, c):
    m = g + c[2] * (m - g)
    return -c[0] * w - c[1] * m, m, v


@dataclass(frozen=True)
class SGDW(Optimizer):
    r"""SGD by an average of gradients, beside decoupled decay: w_t = (1 - ηλ) w_{t-1} - η m_t."""

    name, label, update = "sgdw", "SGDW", staticmethod(_update)
    shape, decay = "identity", "decoupled"
    momentum: float = 0.9

    @classmethod
    def examples(cls):
        return cls(0.1, 0.05), cls(0.5, 0.1)

    def coefficients(self, step, lr, weight_decay):
        return lr * weight_decay, lr, self.momentum


@theory_for(SGDW)
class SGDWTheory(Theory[SGDW]):
    """Filter: an exponential average. Shape: the identity. Decay: decoupled."""

    def white(self, dim, law, method):
        o, noise = self.spec, exponential_average(self.spec.momentum)
        total = noise.discounted_sum(1 - o.lr * o.weight_decay if method == "exact" else 1.0)
        gain, half = decoupled(o.lr, o.weight_decay, noise.lag_0 * law.scale_squared, total)
        relaxation = 1 / (2 * o.lr * o.weight_decay * (1 - law.homogeneity))
        return SteadyState(gain ** (1 / (1 - law.homogeneity)), half, relaxation)

    def advance(self, dim, law, course):
        w2, lr, weight_decay, window, records = course
        overlap, m2, beta = 0.0, 0.0, self.spec.momentum
        for t in range(len(lr)):
            eta, decay = lr[t], lr[t] * weight_decay[t]
            across = beta * overlap  # E[w_{t-1}·m_t]
            m2 = beta**2 * m2 + (1 - beta) ** 2 * law.scale_squared * w2**law.homogeneity
            overlap = (1 - decay) * across - eta * m2
            moved = decay**2 * w2 + 2 * decay * eta * across + eta**2 * m2
            w2 = record_step(records[t // window], w2, -decay * w2 - eta * across, moved)
        return 0.0

    def fallen(self, dim, law, lag):
        return fallen(self.spec.lr, self.spec.weight_decay, exponential_average(self.spec.momentum), lag)


@step
def leading_rotation():
    """Growth of ‖w‖² by independent steps balances its decay; the average keeps (1-β)/(1+β) of their power."""
    theta, eta, lamda, beta = (Symbol(name, positive=True) for name in ("theta", "eta", "lamda", "beta"))
    return Eq(theta**2, 2 * eta * lamda * (1 - beta) / (1 + beta))


SPEC, DIM = SGDW(0.1, 0.05, momentum=0.8), 24


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "sgdw", SGDW)
    monkeypatch.setitem(derivations.DERIVATIONS, "sgdw", sys.modules[__name__])


def test_it_is_predicted_simulated_and_compared():
    gradient = rotsim.ScaleInvariant(0.7)
    eq = rotsim.equilibrium(SPEC, DIM, gradient)
    walk = rotsim.simulate(
        SPEC, DIM, 128, 4000, gradient, seed=3, initial_norm=eq.norm, record_every=100, engine="numba"
    )
    k = chance.errors(128, 6)
    assert rotsim.compare(walk, eq, k=k).passed and compare_with_theory(walk).passed
    wrong = rotsim.equilibrium(SGDW(0.1, 0.05, momentum=0.5), DIM, gradient)
    assert not rotsim.compare(walk, wrong, k=k).passed
    course = rotsim.predict(SPEC, DIM, gradient, 4000, eq.norm, record_every=100)
    assert rotsim.compare(walk, course, k=k).passed


def test_it_has_times_angles_and_plans():
    eq = rotsim.equilibrium(SPEC, DIM)
    course = rotsim.predict(SPEC, DIM, steps=3000, initial_norm=2.0, record_every=10)
    assert course["norm"].values[0, -1] == pytest.approx(eq.norm, rel=1e-3)
    assert course["rotation"].values[0, -1] == pytest.approx(eq.rotation, rel=1e-3)
    after = rotsim.steps_to_equilibrium(SPEC, DIM, initial_norm=2 * eq.norm)
    assert abs(rotsim.predict(SPEC, DIM, steps=after + 1, initial_norm=2 * eq.norm)["norm"][0, -1] / eq.norm - 1) < 0.02
    assert rotsim.rotation_over(SPEC, DIM, 1) == pytest.approx(eq.rotation, rel=1e-9)
    assert rotsim.rotation_over(SPEC, DIM, 10**6) == pytest.approx(np.pi / 2)
    found = rotsim.plan("sgdw", rotation=0.01, norm=1.0, dim=DIM)
    assert isinstance(found.optimizer, SGDW) and found.equilibrium.rotation == pytest.approx(0.01)
    assert rotsim.transfer(SPEC, momentum=0.5, dim=DIM).equilibrium.norm == pytest.approx(eq.norm)
    scheduled = rotsim.predict(SPEC, DIM, steps=400, lr_schedule=cosine(400))
    assert scheduled["rotation"].values[0, -1] < 0.3 * eq.rotation


def test_what_its_theory_leaves_out_is_refused_in_one_line():
    for refused in (
        lambda: rotsim.equilibrium(SPEC, DIM, rotsim.Signal(0.1)),
        lambda: rotsim.Rotational(SPEC),
        lambda: rotsim.equilibrium(rotsim.optimizers.Unmodelled(0.1, 0.1, kind="Muon", why="it is new"), DIM),
    ):
        with pytest.raises(InvalidInput) as error:
            refused()
        assert "\n" not in str(error.value)


@needs_node
def test_it_is_on_the_page_of_rotsim_explore():
    core = script()  # with it in the registry
    assert close(*walked(SPEC, core=core))
    given = {
        "dim": DIM, "steps": 400, "norm": 2.0, "spec": SPEC.to_dict(), "scale": 1.0, "rotational": False,
        "rates": rates(400).tolist(), "window": 50,
    }  # fmt: skip
    course = rotsim.predict(SPEC, DIM, steps=400, initial_norm=2.0, lr_schedule=rates(400), record_every=50)
    assert answer(COURSE, given, core)["rotation"] == pytest.approx(course["rotation"].values[0].tolist(), rel=1e-8)


@pytest.mark.parametrize(
    "words",
    [
        "equilibrium sgdw --lr 0.1 --weight-decay 0.05 --momentum 0.8 --dim 24",
        "predict sgdw --lr 0.1 --weight-decay 0.05 --steps 500",
        "transfer sgdw --lr 0.1 --weight-decay 0.05 --batch-factor 2",
        "plan sgdw --rotation 0.01 --norm 1 --dim 24",
        "derive sgdw",
    ],
)
def test_the_command_line_has_it(words, capsys):
    assert main(words.split()) == 0
    assert ("Leading rotation" if words.startswith("derive") else "SGDW(") in capsys.readouterr().out
