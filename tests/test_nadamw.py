"""NAdamW: its filter, its updates under random v by another quadrature, walks and courses; with wrong theories."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import NAdamW
from rotsim.optimizers.nadamw import product_left, scheduled
from rotsim.theory.base import theory_of
from rotsim.theory.rare_updates import log_growth
from tests import chance, settling

SETTINGS, BAR = 60, 0.003
RNG = np.random.default_rng(24)


def drawn():
    """A random setting: β1 to 0.98, β2 from 0.9 on, decay from 1e-4 to 0.05 per step, a schedule that ends soon."""
    lr = float(np.exp(RNG.uniform(np.log(1e-3), np.log(0.1))))
    decay = float(np.exp(RNG.uniform(np.log(1e-4), np.log(0.05))))
    betas = float(RNG.uniform(0, 0.98)), float(1 - np.exp(RNG.uniform(np.log(1e-3), np.log(0.1))))
    return NAdamW(lr, decay / lr, betas, momentum_decay=0.0 if RNG.random() < 0.2 else 2.0)


DRAWN = [drawn() for _ in range(SETTINGS)]
SPEC = NAdamW(0.02, 0.5, (0.9, 0.95), momentum_decay=2.0)


# --- the rule


@pytest.mark.parametrize(("beta1", "momentum_decay"), [(0.9, 4e-3), (0.999, 4e-3), (0.9, 0.0), (0.7, 3.0), (0.0, 0.1)])
def test_the_product_of_momenta_is_that_of_its_factors(beta1, momentum_decay):
    step = np.arange(1, 3001)
    momenta = beta1 * (1 - 0.5 * 0.96 ** (step * momentum_decay))
    np.testing.assert_allclose(scheduled(beta1, momentum_decay, step), momenta, rtol=1e-13)
    np.testing.assert_allclose(product_left(beta1, momentum_decay, step), 1 - np.cumprod(momenta), rtol=1e-12)


def impulse_response(spec, steps=400):
    """Weights of past gradients in the update long after the schedule, v left out by an ε far above it."""
    [c] = spec.coefficient_table(np.array([10**7]), np.array([spec.lr]), np.zeros(1))
    m, found = 0.0, np.empty(steps)
    for step in range(steps):
        change, m, _ = spec.update(0.0, m, 0.0, 1.0 if step == 0 else 0.0, c)
        found[step] = -change * spec.eps / spec.lr
    return found


@pytest.mark.parametrize("momentum_decay", [4e-3, 0.0])
def test_the_covariance_is_that_of_the_impulse_response(momentum_decay):
    spec = NAdamW(0.1, 0.0, (0.8, 1 - 1e-9), eps=1e12, momentum_decay=momentum_decay)
    f = impulse_response(spec)
    noise = theory_of(spec).noise()
    assert f.sum() == pytest.approx(1)
    for lag in (0, 1, 7):
        assert noise(lag) == pytest.approx(f[: len(f) - lag] @ f[lag:], rel=1e-6)
    assert theory_of(spec).linear_power() == pytest.approx(f @ f)
    other = theory_of(replace(spec, betas=(0.81, 1 - 1e-9))).noise()
    assert abs(other(1) / noise(1) - 1) > 1e-3  # negative control


@pytest.mark.parametrize("betas", [(0.8, 0.9), (0.5, 0.7), (0.9, 0.3)])
def test_the_covariance_under_random_v_is_that_of_another_quadrature(betas):
    """E[u_t u_{t+k}] = (1/π) ∬ Σ f_i f_{i+k}/q_i Π q^(-1/2) ds dr/√(sr), gradient by gradient, on a grid of log s."""
    beta1, beta2 = betas
    ages = np.arange(int(-40 / np.log(max(betas))))
    f = beta1 * (1 - beta1) * beta1**ages
    f[0] += 1 - beta1
    d = (1 - beta2) * beta2**ages
    s = np.exp(np.arange(-30.0, 14.0, 0.5))
    noise = theory_of(NAdamW(0.1, 0.1, betas, eps=0.0)).noise()
    for lag in (1, 3):
        both = 1 + 2 * (s[:, None, None] * d[:-lag] + s[None, :, None] * d[lag:])
        fresh = np.log1p(2 * s[:, None] * d[:lag]).sum(axis=1)
        inside = np.exp(-(np.log(both).sum(axis=-1) + fresh) / 2) * (f[:-lag] * f[lag:] / both).sum(axis=-1)
        found = (np.sqrt(np.outer(s, s)) * inside).sum() * 0.5**2 / np.pi
        assert noise(lag) == pytest.approx(found, rel=1e-4), lag
    alone = 1 + 2 * s[:, None] * d
    at_once = (s * np.exp(-np.log(alone).sum(axis=1) / 2) * (f**2 / alone).sum(axis=1)).sum() * 0.5
    assert noise(0) == pytest.approx(at_once, rel=1e-4)
    plain = theory_of(rotsim.AdamW(0.1, 0.1, betas, eps=0.0)).noise()
    assert abs(plain(0) / at_once - 1) > 5e-3  # negative control


def test_the_newest_gradient_alone_is_adam_without_momentum():
    assert log_growth(0.3, 0.8, 0.9, 0.0, 0.0, 1.0) == pytest.approx(log_growth(0.3, 0.0, 0.9, 0.0), rel=1e-12)
    for gradient in (Isotropic(0.1), ScaleInvariant()):
        ours, theirs = (
            rotsim.equilibrium(kind(0.02, 0.5, (0.0, 0.9)), 64, gradient) for kind in (NAdamW, rotsim.AdamW)
        )
        assert (ours.norm, ours.rotation) == pytest.approx((theirs.norm, theirs.rotation), rel=1e-9)


def test_it_turns_faster_than_adamw_by_the_factor_of_nesterov():
    for beta1 in (0.5, 0.9):
        ours, theirs = (
            rotsim.equilibrium(kind(1e-5, 0.1, (beta1, 1 - 1e-7), eps=0.0), 10**6) for kind in (NAdamW, rotsim.AdamW)
        )
        assert ours.rotation / theirs.rotation == pytest.approx(np.sqrt(1 + 2 * beta1 - 2 * beta1**3), rel=1e-5)
        assert ours.norm == pytest.approx(theirs.norm, rel=1e-5)


# --- theory against walks


@functools.cache
def allowed():
    """Standard errors that either quantity of any setting may be off."""
    return chance.errors(32, 2 * SETTINGS)


def held_to_a_walk(spec, gradient, seed, theory=None):
    eq = rotsim.equilibrium(theory or spec, 256, gradient)
    steps = np.clip(40 * eq.relaxation_steps, 1000, 4000)
    settling.held_to_a_walk(spec, gradient, seed, eq, steps, 5, BAR + eq.model_error, allowed())


def test_a_walk_settles_where_theory_says_and_not_where_adamw_does():
    held_to_a_walk(SPEC, ScaleInvariant(), 3)
    with pytest.raises(AssertionError, match="rotation"):
        held_to_a_walk(SPEC, ScaleInvariant(), 3, rotsim.AdamW(0.02, 0.5, (0.9, 0.95)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SETTINGS))
def test_walks_of_many_settings_settle_where_theory_says(seed):
    held_to_a_walk(DRAWN[seed], (ScaleInvariant(), Isotropic(0.05))[seed % 2], seed)


def test_a_course_is_that_of_walks_from_the_first_step():
    """While μ grows from β1/2, in every step; a schedule twice as fast fails."""
    spec, run = NAdamW(0.02, 0.5, (0.9, 0.95), momentum_decay=0.5), dict(dim=256, steps=60, record_every=1)
    walk = rotsim.simulate(spec, neurons=256, seed=7, initial_norm=1.0, engine="numpy", **run)

    def off(other):
        course = rotsim.predict(other, initial_norm=1.0, **run)
        found = []
        for name in ("norm", "update_rms"):
            square = walk[name].values.astype(float) ** 2
            error = square.std(axis=0) / 16 + 1e-6 * square.mean(axis=0)
            model = 2 * course[f"{name}_model_error"].values[0] * square.mean(axis=0)
            away = abs(square.mean(axis=0) - course[name].values[0] ** 2)
            found.append((away / (chance.errors(256, 120) * error + model)).max())
        return max(found)

    assert off(spec) < 1
    assert off(replace(spec, momentum_decay=1.0)) > 1
    assert off(replace(spec, momentum_decay=0.0)) > 1


@pytest.mark.parametrize("spec", [SPEC, NAdamW(0.05, 0.3, (0.8, 0.5), momentum_decay=0.0)], ids=str)
def test_a_course_settles_on_the_equilibrium(spec):
    for gradient in (ScaleInvariant(), Isotropic(0.3)):
        eq = rotsim.equilibrium(replace(spec, eps=0.0), 10**5, gradient)
        end = rotsim.predict(replace(spec, eps=0.0), 10**5, gradient, 4000, 2 * eq.norm).isel(step=-1)
        for quantity in ("norm", "rotation", "update_rms"):
            assert end[quantity].item() == pytest.approx(getattr(eq, quantity), rel=2e-5)
        one = rotsim.rotation_over(spec, 10**5, 1, gradient)
        assert one == pytest.approx(eq.rotation, rel=1e-3)


def test_the_default_schedule_takes_thousands_of_steps():
    eq = rotsim.equilibrium(NAdamW(1e-2, 0.1), 256)
    course = rotsim.predict(NAdamW(1e-2, 0.1), 256, steps=60_000, initial_norm=eq.norm)
    rotation = course["rotation"].values[0] / eq.rotation
    assert rotation[19] > 1.3 and rotation[199] > 1.02 and rotation[-1] == pytest.approx(1, abs=1e-3)
    settled = rotsim.steps_to_equilibrium(NAdamW(1e-2, 0.1), 256, initial_norm=eq.norm, within=0.02)
    assert abs(rotation[settled // 100 - 10] - 1) > 0.02 > abs(rotation[settled // 100 + 10] - 1)


# --- whatever else has it


def test_many_at_once_are_those_one_by_one():
    beta1, beta2 = np.linspace(0.5, 0.95, 20), 1 - np.geomspace(1e-3, 0.1, 20)
    for method in ("exact", "leading"):
        many = rotsim.equilibria(SPEC, lr=np.geomspace(1e-3, 0.05, 20), betas=(beta1, beta2), dim=64, method=method)
        for place in (0, 11, 19):
            one = replace(SPEC, lr=float(np.geomspace(1e-3, 0.05, 20)[place]), betas=(beta1[place], beta2[place]))
            alone = rotsim.equilibrium(one, 64, method=method)
            assert many.rotation[place] == pytest.approx(alone.rotation, rel=1e-5)
            assert many.model_error[place] == pytest.approx(alone.model_error, rel=1e-2)


def test_plans_transfers_and_conversions_have_it():
    assert rotsim.transfer(SPEC, batch_factor=4).optimizer.momentum_decay == SPEC.momentum_decay
    adamw = rotsim.AdamW(3e-4, 0.1)
    found = rotsim.convert(adamw, "nadamw", keep=("rotation", "time")).target
    assert found.betas[0] != 0.9 and found.lr * found.weight_decay == pytest.approx(3e-5)
    back = rotsim.convert(rotsim.convert(adamw, "nadamw").target, "adamw").target
    assert (back.lr, back.weight_decay) == pytest.approx((adamw.lr, adamw.weight_decay), rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NAdamW(0.1, 0.1, momentum_decay=-1.0), "`momentum_decay` must be finite and >= 0; got -1.0"),
        (lambda: rotsim.Rotational(SPEC), "the momentum of NAdamW changes in training, so it has no rotational"),
        (lambda: rotsim.equilibrium(SPEC, 64, rotsim.Signal(0.1), "leading"), "NAdamW has no leading order under"),
        (lambda: rotsim.equilibrium(SPEC, 64, rotsim.Radial(0.1), "leading"), "NAdamW has no leading order under"),
        (
            lambda: rotsim.equilibrium(SPEC, 64, rotsim.Autocorrelated(0.1), "leading"),
            "NAdamW has no leading order under",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(rotsim.InvalidInput, match=f"^{message}[^\n]*$"):
        make()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("equilibrium nadamw --lr 1e-3 --weight-decay 0.1 --momentum-decay 0.01", "momentum_decay=0.01"),
        ("predict nadamw --lr 1e-2 --weight-decay 0.1 --steps 300 --dim 64", "NAdamW("),
        ("convert adamw --lr 3e-4 --weight-decay 0.1 --to nadamw", "NAdamW"),
        ("derive nadamw", "Leading rotation"),
    ],
)
def test_the_command_line_has_it(words, shown, capsys):
    assert main(words.split()) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


def test_the_recorder_knows_it():
    torch = pytest.importorskip("torch")
    from rotsim.measure import optimizer_spec

    weight = [torch.zeros(2, 3, requires_grad=True)]
    theirs = torch.optim.NAdam(weight, 1e-3, (0.8, 0.99), 1e-7, 0.1, 0.01, decoupled_weight_decay=True)
    assert optimizer_spec(theirs) == NAdamW(1e-3, 0.1, (0.8, 0.99), 1e-7, 0.01)
    assert optimizer_spec(torch.optim.NAdam(weight)).weight_decay == 0
    with pytest.raises(rotsim.InvalidInput, match="decoupled_weight_decay=True has it beside the update"):
        optimizer_spec(torch.optim.NAdam(weight, weight_decay=0.1))


def test_the_equilibrium_of_a_schedule_says_when_it_is_reached(capsys):
    spec = rotsim.NAdamW(0.05, 2.0, (0.8, 0.95))
    command = ["--lr", "0.05", "--weight-decay", "2", "--betas", "0.8", "0.95"]
    assert main(["equilibrium", "nadamw", *command]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    steps = int(re.search(r"the last μ, 0.8, which .* comes within 5% of after (\d+) steps", shown)[1])
    assert scheduled(0.8, spec.momentum_decay, steps - 1) < 0.95 * 0.8 <= scheduled(0.8, spec.momentum_decay, steps)
    assert steps == pytest.approx(rotsim.steps_to_equilibrium(spec, within=0.05), rel=0.1)
    assert main(["equilibrium", "nadamw", *command, "--momentum-decay", "0"]) == 0
    assert "μ" not in capsys.readouterr().out
