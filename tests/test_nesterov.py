"""SGD with Nesterov momentum and dampening: impulse responses, walks, courses, and what PyTorch refuses."""

import functools

import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import SGDM
from rotsim.theory.base import theory_of
from tests import chance

SETTINGS, BAR = 60, 0.003
RNG = np.random.default_rng(20)


def drawn():
    """A random setting: momentum to 0.98, decay from 1e-4 to 0.05 per step, Nesterov or dampened."""
    momentum = float(RNG.uniform(0.01, 0.98))
    product = float(np.exp(RNG.uniform(np.log(1e-4), np.log(0.05)))) * (1 - momentum)
    lr = float(np.exp(RNG.uniform(np.log(0.01), np.log(1.0))))
    kind = {"nesterov": True} if RNG.random() < 0.6 else {"dampening": float(RNG.uniform(0, 0.95))}
    return SGDM(lr, product / lr, momentum, **kind)


DRAWN = [drawn() for _ in range(SETTINGS)]


def impulse_response(spec, steps):
    """Weights after one unit gradient, by the spec's own rule; its first step, which is not damped, is past."""
    w, m, v = 0.0, 0.0, 0.0
    found = np.empty(steps)
    [c] = spec.coefficient_table(np.array([2]), np.array([spec.lr]), np.array([spec.weight_decay]))
    for step in range(steps):
        change, m, v = spec.update(w, m, v, 1.0 if step == 0 else 0.0, c)
        w += change
        found[step] = w
    return found


@pytest.mark.few(3)
@pytest.mark.parametrize("spec", DRAWN[:6], ids=str)
def test_equilibrium_is_the_impulse_response(spec):
    decay = spec.lr * spec.weight_decay / (1 - spec.momentum) * (1 - spec.dampening)
    h = impulse_response(spec, min(200_000, int(25 / decay) + 500))
    eq = rotsim.equilibrium(spec, 64, Isotropic(1.0))
    assert eq.norm == pytest.approx(np.sqrt(64 * (h @ h)), rel=1e-6)
    half = 1 - h[:-1] @ h[1:] / (h @ h)
    theory, law = theory_of(spec), Isotropic(1.0).power(64)
    assert theory.white(64, law, "exact").one_minus_cosine == pytest.approx(half, rel=1e-5)
    for lag in (2, 7):
        fallen = 1 - h[:-lag] @ h[lag:] / (h @ h)
        assert theory.fallen(64, law, lag) == pytest.approx(fallen, rel=1e-5)
    plain = SGDM(spec.lr, spec.weight_decay, spec.momentum)
    assert abs(rotsim.equilibrium(plain, 64).rotation / eq.rotation - 1) > 1e-3  # another rule is told apart


@pytest.mark.parametrize("kind", [{}, {"nesterov": True}, {"dampening": 0.8}], ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.98])
def test_lasting_decay_is_that_of_the_slower_root(momentum, kind):
    """By the roots of the expected weights' recursion, at every rate that is stable, and where they swing."""
    spec = SGDM(1.0, 1.0, momentum, **kind) if momentum else SGDM(1.0, 1.0, momentum)
    decay = spec.decay_limit * np.array([1e-9, 1e-3, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
    taken, ahead = decay * (1 - spec.dampening), momentum * spec.nesterov
    roots = [np.roots([1, -(1 + momentum - t * (1 + ahead)), momentum - t * ahead]) for t in taken]
    found = theory_of(spec).lasting_decay(decay)
    np.testing.assert_allclose(found, [1 - np.abs(both).max() for both in roots], rtol=1e-6, atol=1e-12)
    assert (found > 0).all()
    swings = np.array([np.iscomplex(both).any() for both in roots])
    assert swings.any() == (momentum > 0)
    assert (np.abs(found / taken - 1) > 1e-3)[swings].all()  # control: not decay itself


@functools.cache
def allowed():
    """Standard errors that either quantity of any setting may be off."""
    return chance.errors(24, 2 * SETTINGS)


def held_to_a_walk(spec, gradient, seed):
    """In many weights, so that norms which start alike and should not be matter less than the bar."""
    eq = rotsim.equilibrium(spec, 512, gradient)
    steps = int(np.clip(40 * eq.relaxation_steps, 1000, 4000)) // 10 * 10
    walk = rotsim.simulate(
        spec, 512, 24, steps, gradient, seed=seed, initial_norm=eq.norm, record_every=steps // 10, engine="numba"
    )
    half = walk.isel(step=slice(5, None))
    for name in ("norm", "rotation"):
        square = (half[name].values ** 2).mean(axis=1)
        found, error = np.sqrt(square.mean()), square.std() / np.sqrt(len(square)) / 2 / square.mean()
        assert abs(found / getattr(eq, name) - 1) < BAR + eq.model_error + allowed() * error, (spec, name)


def test_walks_settle_where_theory_says():
    held_to_a_walk(SGDM(0.3, 0.05, 0.9, nesterov=True), ScaleInvariant(), 3)
    held_to_a_walk(SGDM(0.3, 0.05, 0.8, dampening=0.7), Isotropic(0.05), 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SETTINGS))
def test_walks_of_many_settings_settle_where_theory_says(seed):
    held_to_a_walk(DRAWN[seed], (ScaleInvariant(), Isotropic(0.05))[seed % 2], seed)


@pytest.mark.parametrize("kind", [{"nesterov": True}, {"dampening": 0.8}], ids=str)
def test_a_course_is_that_of_walks_from_the_first_step(kind):
    spec, gradient = SGDM(0.2, 0.1, 0.9, **kind), Isotropic(0.3)
    course = rotsim.predict(spec, 256, gradient, 40, 1.0, record_every=1)
    walk = rotsim.simulate(spec, 256, 256, 40, gradient, seed=7, initial_norm=1.0, record_every=1, engine="numpy")
    for name in ("norm", "update_rms"):
        square = walk[name].values.astype(float) ** 2
        error = square.std(axis=0) / 16 + 1e-6 * square.mean(axis=0)
        assert (abs(square.mean(axis=0) - course[name].values[0] ** 2) < chance.errors(256, 80) * error).all()
    at_rest = rotsim.predict(spec, 256, gradient, 4000, 1.0)["norm"].values[0, -1]
    assert at_rest == pytest.approx(rotsim.equilibrium(spec, 256, gradient).norm, rel=1e-3)


def test_nesterov_turns_faster_at_the_same_norm():
    plain, ahead = (rotsim.equilibrium(SGDM(1e-3, 1e-3, 0.9, nesterov=n), 256) for n in (False, True))
    assert ahead.norm == pytest.approx(plain.norm, rel=1e-4)
    assert ahead.rotation / plain.rotation == pytest.approx(np.sqrt(1 + 2 * 0.9 - 2 * 0.9**3), rel=1e-4)


def test_plans_transfers_and_conversions_have_them():
    spec = SGDM(0.1, 1e-3, nesterov=True)
    assert rotsim.transfer(spec, batch_factor=4).optimizer.nesterov
    found = rotsim.convert(rotsim.AdamW(3e-4, 0.1), "sgdm", nesterov=True)
    assert found.after.rotation == pytest.approx(found.before.rotation) and found.target.nesterov
    turning = rotsim.Rotational(spec)
    eq = rotsim.equilibrium(turning, 64)
    course = rotsim.predict(turning, 64, steps=300)
    assert course["rotation"].values[0, -1] == pytest.approx(eq.rotation, rel=0.01)


def test_many_at_once_are_those_one_by_one():
    many = rotsim.equilibria(SGDM(0.1, 1e-3, nesterov=True), lr=[0.1, 0.2], dim=64)
    assert many.rotation[1] == pytest.approx(rotsim.equilibrium(SGDM(0.2, 1e-3, nesterov=True), 64).rotation)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGDM(0.1, 0.1, 0.0, nesterov=True), "`momentum` must be > 0 with nesterov"),
        (lambda: SGDM(0.1, 0.1, 0.9, 0.1, nesterov=True), "`dampening` must be 0 with nesterov"),
        (lambda: SGDM(0.1, 0.1, 0.9, 1.0), r"`dampening` must be in \[0, 1\); got 1.0"),
        (lambda: SGDM(0.1, 0.1, nesterov=1), "`nesterov` must be True or False"),
        (
            lambda: SGDM(1.0, 1.4, 0.9, nesterov=True),
            r"/ \(1 \+ 2 \* momentum\) = 1.357",
        ),
        (lambda: rotsim.equilibrium(SGDM(0.1, 0.1, nesterov=True), 64, rotsim.Signal(0.1)), "Nesterov momentum has no"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(rotsim.InvalidInput, match=message):
        make()


def test_the_command_line_has_them(capsys):
    words = "equilibrium sgdm --lr 0.1 --weight-decay 1e-3 --nesterov --dim 64"
    assert main(words.split()) == 0
    assert "nesterov=True" in capsys.readouterr().out
    assert main(["derive", "nesterov"]) == 0
    assert main(["sweep", "sgdm", "--lr", "0.1", "--weight-decay", "1e-3", "--nesterov", "true,false"]) == 0
    assert "True" in capsys.readouterr().out
    assert main(["sweep", "sgdm", "--lr", "0.1", "--weight-decay", "1e-3", "--nesterov", "maybe"]) == 2
