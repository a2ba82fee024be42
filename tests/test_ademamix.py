"""AdEMAMix: its filter, its updates under random v by another quadrature, walks and courses; with wrong theories."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import AdEMAMix
from rotsim.theory.base import theory_of
from rotsim.theory.two_averages import met_and_fed_back
from tests import chance, settling

SETTINGS, BAR = 60, 0.003
RNG = np.random.default_rng(25)


def drawn():
    """A random setting: β3 to 0.998, α to 8, β2 from 0.9 on, decay from 1e-4 to 0.05 per step."""
    lr = float(np.exp(RNG.uniform(np.log(1e-3), np.log(0.1))))
    decay = float(np.exp(RNG.uniform(np.log(1e-4), np.log(0.05))))
    beta2, beta3 = (float(1 - np.exp(RNG.uniform(np.log(low), np.log(0.1)))) for low in (1e-3, 2e-3))
    return AdEMAMix(lr, decay / lr, (float(RNG.uniform(0, 0.95)), beta2, beta3), float(RNG.uniform(0.2, 8)))


DRAWN = [drawn() for _ in range(SETTINGS)]
SPEC = AdEMAMix(0.02, 0.5, (0.9, 0.95, 0.98))


# --- few weights


@pytest.mark.parametrize(
    ("betas", "mix", "decay", "dim"),
    [
        ((0.8, 0.9, 0.99), 8.0, 0.05, 14),
        pytest.param((0.9, 0.99, 0.999), 8.0, 0.05, 14, marks=pytest.mark.slow),
        pytest.param((0.9, 0.95, 0.998), 8.0, 0.01, 24, marks=pytest.mark.slow),
    ],
)
def test_where_neurons_run_away_nothing_bounds_the_error(betas, mix, decay, dim):
    """A neuron that was short by chance: the slow average holds its large gradients when v has forgotten them."""
    spec = AdEMAMix(0.01, decay / 0.01, betas, mix)
    steps = int(20 / (1 - betas[2]) + 10 / decay)
    for many, runs in ((dim, True), (8 * dim, False)):
        eq = rotsim.equilibrium(spec, many)
        walk = rotsim.simulate(spec, many, 256, steps, record_every=steps // 4, initial_norm=eq.norm, seed=4)
        off = np.sqrt((walk["norm"].values[:, 1:] ** 2).mean()) / eq.norm - 1
        assert (off > 1) == runs and np.isinf(eq.model_error) == runs
        assert runs or abs(off) < eq.model_error + 0.01
    without = rotsim.equilibrium(AdEMAMix(0.01, decay / 0.01, betas, 0.0), dim)  # negative control: AdamW
    assert without.model_error < 0.3


def test_its_own_norm_comes_back_through_one_average_or_two_alike():
    """F of two equal averages is that of one; a walk of the filter itself, by a long series, has it too."""
    one, two = ((1.0, 0.9),), ((0.5, 0.9), (0.5, 0.9))
    assert met_and_fed_back(one, 0.99, 0.02) == pytest.approx(met_and_fed_back(two, 0.99, 0.02), rel=1e-6)
    weak = met_and_fed_back(one, 0.99, 1e-7)[0]
    assert weak == pytest.approx(theory_of(rotsim.AdamW(0.1, 0.1, (0.9, 0.99))).met_again(), rel=1e-4)
    kept, lags = 0.95, np.arange(4000)
    f = 0.2 * 0.8**lags + 3 * 0.03 * 0.97**lags
    h = np.convolve(f, kept**lags)[: len(lags)]
    shared = kept**lags * np.correlate(h, f, "full")[len(lags) - 1 :] / (h @ h)
    answer = np.convolve(shared, 0.1 * 0.9**lags)[: len(lags)] - h**2 / (h @ h)
    impulse = np.fft.rfft(np.append(0.0, answer), 1 << 15)
    alike = np.correlate(h, h, "full")[len(lags) - 1 :] / (h @ h)
    power = 2 * np.fft.rfft(alike**2, 1 << 15).real - 1
    expected = (power / abs(1 - impulse) ** 2).sum() / power.sum()
    met, late = met_and_fed_back(((1.0, 0.8), (3.0, 0.97)), 0.9, 0.05)
    other = met_and_fed_back(((1.0, 0.8), (3.0, 0.97)), 0.95, 0.05)
    assert late == pytest.approx(expected, rel=1e-3)
    seen = np.convolve(h, 0.1 * 0.9**lags * np.correlate(h, h, "full")[3999:] / (h @ h))[:399]
    assert met == pytest.approx(f[1:400] @ seen / ((1 - kept**2) * (h @ h)), rel=1e-3)
    assert abs(other[1] / late - 1) > 0.02 and abs(other[0] / met - 1) > 0.02  # negative controls


# --- the update


def impulse_response(spec, steps=2000):
    """Weights of past gradients in the update once bias corrections are past, v left out by an ε far above it."""
    [c] = spec.coefficient_table(np.array([10**7]), np.array([spec.lr]), np.zeros(1))
    m, slow, found = 0.0, 0.0, np.empty(steps)
    for step in range(steps):
        change, m, _, slow = spec.update(0.0, m, 0.0, 1.0 if step == 0 else 0.0, c, slow)
        found[step] = -change * spec.eps / spec.lr
    return found


def test_the_covariance_is_that_of_the_impulse_response():
    spec = AdEMAMix(0.1, 0.0, (0.8, 1 - 1e-9, 0.97), alpha=3.0, eps=1e12)
    f = impulse_response(spec)
    noise = theory_of(spec).noise()
    assert f.sum() == pytest.approx(1 + spec.alpha)
    for lag in (0, 1, 7, 60):
        assert noise(lag) == pytest.approx(f[: len(f) - lag] @ f[lag:], rel=1e-6)
    assert theory_of(spec).linear_power() == pytest.approx(f @ f / f.sum() ** 2)
    other = theory_of(replace(spec, betas=(0.8, 1 - 1e-9, 0.971))).noise()
    assert abs(other(1) / noise(1) - 1) > 1e-3  # negative control


@pytest.mark.parametrize("betas", [(0.8, 0.9, 0.95), (0.0, 0.7, 0.9), (0.9, 0.6, 0.5)])
def test_the_covariance_under_random_v_is_that_of_another_quadrature(betas):
    """E[u_t u_{t+k}] = (1/π) ∬ Σ f_i f_{i+k}/q_i Π q^(-1/2) ds dr/√(sr), gradient by gradient, on a grid of log s."""
    beta1, beta2, beta3 = betas
    ages = np.arange(int(-40 / np.log(max(betas))))
    f = (1 - beta1) * beta1**ages + 2 * (1 - beta3) * beta3**ages
    d = (1 - beta2) * beta2**ages
    s = np.exp(np.arange(-30.0, 14.0, 0.5))
    noise = theory_of(AdEMAMix(0.1, 0.1, betas, 2.0, eps=0.0)).noise()
    for lag in (1, 3):
        both = 1 + 2 * (s[:, None, None] * d[:-lag] + s[None, :, None] * d[lag:])
        fresh = np.log1p(2 * s[:, None] * d[:lag]).sum(axis=1)
        inside = np.exp(-(np.log(both).sum(axis=-1) + fresh) / 2) * (f[:-lag] * f[lag:] / both).sum(axis=-1)
        found = (np.sqrt(np.outer(s, s)) * inside).sum() * 0.5**2 / np.pi
        assert noise(lag) == pytest.approx(found, rel=1e-4), lag
    alone = 1 + 2 * s[:, None] * d
    at_once = (s * np.exp(-np.log(alone).sum(axis=1) / 2) * (f**2 / alone).sum(axis=1)).sum() * 0.5
    assert noise(0) == pytest.approx(at_once, rel=1e-4)
    constant = theory_of(AdEMAMix(0.1, 0.1, (beta1, 1 - 1e-7, beta3), 2.0, eps=0.0)).noise()
    assert abs(constant(0) / at_once - 1) > 5e-3  # negative control


@pytest.mark.parametrize("same", [{"alpha": 0.0}, {"betas": (0.9, 0.95, 0.9)}], ids=["nothing counts", "equal"])
def test_where_both_averages_are_one_it_is_adamw(same):
    """With equal averages at 1 + α times the learning rate, and a decay as much weaker."""
    spec = replace(SPEC, **same)
    size = 1 + spec.alpha
    adamw = rotsim.AdamW(size * spec.lr, spec.weight_decay / size, spec.betas[:2])
    for gradient in (ScaleInvariant(), Isotropic(0.1)):
        ours, theirs = (rotsim.equilibrium(one, 64, gradient) for one in (spec, adamw))
        assert (ours.norm, ours.rotation) == pytest.approx((theirs.norm, theirs.rotation), rel=1e-9)
    assert abs(rotsim.equilibrium(SPEC, 64).rotation / ours.rotation - 1) > 0.1  # negative control


# --- theory against walks


@functools.cache
def allowed():
    """Standard errors that either quantity of any setting may be off."""
    return chance.errors(32, 2 * SETTINGS)


def held_to_a_walk(spec, gradient, seed, theory=None):
    eq = rotsim.equilibrium(theory or spec, 256, gradient)
    steps = np.clip(20 * (eq.relaxation_steps + 2 / (1 - spec.betas[2])), 1000, 6000)
    settling.held_to_a_walk(spec, gradient, seed, eq, steps, 6, BAR + eq.model_error, allowed())


def test_a_walk_settles_where_theory_says_and_not_where_it_would_without_the_slow_average():
    held_to_a_walk(SPEC, ScaleInvariant(), 3)
    with pytest.raises(AssertionError, match="norm"):
        held_to_a_walk(SPEC, ScaleInvariant(), 3, rotsim.AdamW(0.02, 0.5, (0.9, 0.95)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SETTINGS))
def test_walks_of_many_settings_settle_where_theory_says(seed):
    held_to_a_walk(DRAWN[seed], (ScaleInvariant(), Isotropic(0.05))[seed % 2], seed)


def test_a_course_is_that_of_walks_from_the_first_step():
    """While the slow average fills, in every step; with one that starts filled, as if bias-corrected, it fails."""
    run = dict(dim=256, steps=60, record_every=1)
    walk = rotsim.simulate(SPEC, neurons=256, seed=7, initial_norm=1.0, engine="numpy", **run)

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

    assert off(SPEC) < 1
    assert off(replace(SPEC, alpha=2.2)) > 1
    assert off(replace(SPEC, betas=(0.9, 0.95, 0.983))) > 1


@pytest.mark.parametrize("spec", [SPEC, AdEMAMix(0.05, 0.3, (0.8, 0.5, 0.9), alpha=5.0)], ids=str)
def test_a_course_settles_on_the_equilibrium(spec):
    for gradient in (ScaleInvariant(), Isotropic(0.3)):
        eq = rotsim.equilibrium(replace(spec, eps=0.0), 10**5, gradient)
        end = rotsim.predict(replace(spec, eps=0.0), 10**5, gradient, 4000, 2 * eq.norm).isel(step=-1)
        for quantity in ("norm", "rotation", "update_rms"):
            assert end[quantity].item() == pytest.approx(getattr(eq, quantity), rel=2e-5)
        one = rotsim.rotation_over(spec, 10**5, 1, gradient)
        assert one == pytest.approx(eq.rotation, rel=1e-3)


@pytest.mark.parametrize("dim", [6, 12])
def test_what_few_weights_change_is_declared_and_not_by_far_too_much(dim):
    eq = rotsim.equilibrium(SPEC, dim)
    walk = rotsim.simulate(SPEC, dim, 2000, 3000, seed=dim, initial_norm=eq.norm, record_every=300, engine="numba")
    off = []
    for name in ("norm", "rotation"):
        square = (walk[name].values[:, 4:] ** 2).mean(axis=1)
        error = square.std() / np.sqrt(len(square)) / 2 / square.mean()
        off.append(abs(np.sqrt(square.mean()) / getattr(eq, name) - 1))
        assert off[-1] < eq.model_error + chance.errors(2000, 4) * error
    assert 5 * max(off) > eq.model_error


# --- whatever else has it


def test_many_at_once_are_those_one_by_one():
    betas = (np.array([0.9, 0.5]), 0.95, 0.98)
    for method in ("exact", "leading"):
        many = rotsim.equilibria(SPEC, lr=np.array([[0.01], [0.02]]), betas=betas, dim=64, method=method)
        for row, lr in enumerate((0.01, 0.02)):
            for column, beta1 in enumerate(betas[0]):
                one = rotsim.equilibrium(replace(SPEC, lr=lr, betas=(beta1, 0.95, 0.98)), 64, method=method)
                assert many.rotation[row, column] == pytest.approx(one.rotation, rel=1e-9)
                assert many.model_error[row, column] == pytest.approx(one.model_error, rel=1e-9)


def test_plans_transfers_and_conversions_have_it():
    assert rotsim.transfer(SPEC, batch_factor=4).optimizer.alpha == SPEC.alpha
    adamw = rotsim.AdamW(3e-4, 0.1)
    found = rotsim.convert(adamw, "ademamix", betas=(0.9, 0.999, 0.99))
    assert found.target.lr < adamw.lr and found.after.rotation == pytest.approx(found.before.rotation, rel=1e-8)
    back = rotsim.convert(found.target, "adamw").target
    assert (back.lr, back.weight_decay) == pytest.approx((adamw.lr, adamw.weight_decay), rel=1e-6)


def test_a_walk_goes_on_where_it_stopped():
    """The slow average is in the state, and both engines put it there."""
    run = dict(dim=7, neurons=3, keep_state=True, dtype="float64", record_every=4)
    for engine in ("numba", "numpy"):
        part = rotsim.simulate(SPEC, steps=6, engine=engine, **run)
        whole = rotsim.simulate(SPEC, steps=12, engine=engine, **run)
        resumed = rotsim.simulate(SPEC, steps=12, engine=engine, resume=part, **run)
        assert part["state"].shape == (3, 4, 7) and np.array_equal(resumed["state"], whole["state"])
        broken = part.copy(deep=True)
        broken["state"][:, 3] = 0.0
        other = rotsim.simulate(SPEC, steps=12, engine=engine, resume=broken, **run)
        assert not np.allclose(other["state"], whole["state"], rtol=1e-3)  # negative control


@pytest.mark.slow
def test_its_average_stands_beside_what_a_gradient_remembers():
    run = dict(dim=7, neurons=3, steps=12, keep_state=True, dtype="float64", gradient=rotsim.Autocorrelated(0.5))
    ours, twin = (rotsim.simulate(SPEC, engine=engine, **run)["state"] for engine in ("numba", "numpy"))
    assert ours.shape == (3, 5, 7)
    np.testing.assert_allclose(ours, twin, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("gradient", "bar"),
    [
        (rotsim.Signal(0.05), 1e-9),
        (rotsim.Signal(0.1, scale_invariant=False), 2e-3),  # the wavering of v to first order
        (rotsim.Autocorrelated(0.5), 3e-3),  # v as if constant
        (rotsim.Radial(0.01), 1e-4),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_beyond_white_noise_it_is_adamw_without_the_slow_average_or_with_two_alike(gradient, bar):
    """And with another slow average it is not."""
    adamw = rotsim.AdamW(1e-3, 0.1, betas=(0.9, 0.999))
    plain = rotsim.equilibrium(adamw, 256, gradient)
    scale = 2.0  # of the update, by two averages alike
    for mix, beta3, factor in ((0.0, 0.999, 1.0), (1.0, 0.9, scale)):
        of_adamw = plain if factor == 1 else rotsim.equilibrium(
            rotsim.AdamW(scale * 1e-3, 0.1 / scale, betas=(0.9, 0.999)), 256, gradient
        )  # fmt: skip
        found = rotsim.equilibrium(AdEMAMix(1e-3, 0.1, (0.9, 0.999, beta3), mix), 256, gradient)
        assert found.norm == pytest.approx(of_adamw.norm, rel=bar)
        assert found.rotation == pytest.approx(of_adamw.rotation, rel=bar)
    other = rotsim.equilibrium(AdEMAMix(1e-3, 0.1, (0.9, 0.999, 0.99), 1.0), 256, gradient)
    assert abs(other.rotation / plain.rotation - 1) > 0.1


def test_a_memory_of_ten_million_steps_is_summed_at_once():
    spec = AdEMAMix(1e-3, 0.1, (0.9, 0.999, 0.9999999))
    for gradient in (rotsim.Autocorrelated(0.5), rotsim.Radial(0.01), rotsim.Signal(0.05, scale_invariant=False)):
        assert rotsim.equilibrium(spec, 256, gradient).norm > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdEMAMix(0.1, 0.1, alpha=-1.0), "`alpha` must be finite and >= 0; got -1.0"),
        (lambda: AdEMAMix(0.1, 0.1, (0.9, 0.99)), r"`betas` must be three numbers in \[0, 1\); got \(0.9, 0.99\)"),
        (lambda: AdEMAMix(0.1, 0.1, (0.9, 0.99, 1.0)), r"`betas\[2\]` must be in \[0, 1\); got 1.0"),
        (lambda: rotsim.AdamW(0.1, 0.1, (0.9, 0.9, 0.9)), r"`betas` must be two numbers in \[0, 1\); got \(0.9, 0.9, "),
        (lambda: rotsim.Rotational(SPEC), "AdEMAMix keeps two averages of the gradient and has no rotational variant"),
        (lambda: rotsim.equilibrium(SPEC, 64, rotsim.Signal(0.1), "leading"), "AdEMAMix has no leading order under"),
        (lambda: rotsim.equilibrium(SPEC, 64, rotsim.Radial(0.1), "leading"), "AdEMAMix has no leading order under"),
        (
            lambda: rotsim.equilibrium(SPEC, 64, rotsim.Autocorrelated(0.1), "leading"),
            "AdEMAMix has no leading order under",
        ),
        (lambda: rotsim.equilibria(SPEC, betas=(0.9, 0.99)), "`betas` must be 3 of numbers"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(rotsim.InvalidInput, match=f"^{message}[^\n]*$"):
        make()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("equilibrium ademamix --lr 1e-3 --weight-decay 0.1 --alpha 8", "alpha=8.0"),
        ("predict ademamix --lr 1e-2 --weight-decay 0.1 --steps 300 --dim 64 --betas 0.9 0.99 0.999", "AdEMAMix("),
        ("convert adamw --lr 3e-4 --weight-decay 0.1 --to ademamix --set betas=0.9,0.999,0.99", "AdEMAMix"),
        ("derive ademamix", "Random second moment"),
    ],
)
def test_the_command_line_has_it(words, shown, capsys):
    assert main(words.split()) == 0
    assert shown in " ".join(capsys.readouterr().out.split())
