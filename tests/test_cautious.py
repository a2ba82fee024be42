"""Cautious decay: its rule, its theory against walks of 60 random settings, limits, and what must fail."""

import functools

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms
from rotsim.cli import main
from rotsim.gradients import Isotropic, ScaleInvariant
from rotsim.optimizers import Cautious, optimizer_from_dict
from rotsim.theory.base import Theory, theory_of
from rotsim.theory.cautious import CautiousTheory, balanced
from rotsim.theory.schedules import cosine
from rotsim.theory.walk import exponential_average
from tests import chance, settling

SETTINGS, BAR = 60, 0.01
RNG = np.random.default_rng(26)


def drawn():
    """A random setting: decay from 3e-4 to 3e-3 per step, momentum to 0.95."""
    decay = float(np.exp(RNG.uniform(np.log(3e-4), np.log(3e-3))))
    beta1, beta2 = float(RNG.uniform(0, 0.95)), float(1 - np.exp(RNG.uniform(np.log(1e-3), np.log(0.05))))
    if RNG.random() < 0.3:
        return Cautious(rotsim.Lion(1e-3, decay / 1e-3, (min(beta1, 0.9), min(beta2, 0.98))))
    return Cautious(rotsim.AdamW(1e-2, decay / 1e-2, (beta1, beta2)))


DRAWN = [drawn() for _ in range(SETTINGS)]
SPEC = Cautious(rotsim.AdamW(0.02, 0.15, (0.9, 0.99)))
PLAIN = (
    rotsim.AdamW(0.02, 0.5, (0.9, 0.95)),
    rotsim.Lion(0.01, 0.5),
    rotsim.Signum(0.01, 0.5),
    rotsim.AdEMAMix(0.02, 0.5, (0.9, 0.95, 0.98)),
    rotsim.Muon(0.02, 0.5),
)


def published(spec, w, gradients):
    """Chen et al. 2025, algorithm 1, on the update that the plain optimizer makes of the same gradients."""
    bare = spec.inner.with_rates(spec.lr, 0.0)
    steps = np.arange(1, len(gradients) + 1)
    table = bare.coefficient_table(steps, np.full(len(steps), spec.lr), np.zeros(len(steps)))
    kept, all_weights = [np.zeros_like(w)] * (2 + bare.memory_slots), []
    for g, c in zip(gradients, table, strict=True):
        change, m, v, *more = bare.update(w, kept[0], kept[1], g, c, *kept[2:])
        kept, u = [m, v, *more], -change / spec.lr
        mask = np.where(u * w >= 0, 1.0, 0.0)
        w = w - spec.lr * (u + spec.weight_decay * mask * w)
        all_weights.append(w)
    return np.array(all_weights)


@pytest.mark.parametrize("plain", PLAIN, ids=lambda spec: spec.name)
def test_a_walk_is_the_published_recurrence(plain):
    rng, spec = np.random.default_rng(5), Cautious(plain)
    gradients, start = rng.normal(size=(60, 3, 17)), rng.normal(size=(3, 17))
    run = dict(
        dim=17, steps=60, gradient=rotsim.Replay(gradients), initial_weights=start, record_every=1, dtype="float64",
        keep_state=True,
    )  # fmt: skip
    twin = rotsim.simulate(spec, engine="numpy", **run)
    expected = published(spec, start, gradients)
    np.testing.assert_allclose(twin["state"][:, 0], expected[-1], rtol=1e-9)
    np.testing.assert_allclose(twin["norm"], np.linalg.norm(expected, axis=2).T, rtol=1e-9)
    always = rotsim.simulate(plain, engine="numpy", **run)["norm"]
    assert np.abs(always / twin["norm"] - 1).max() > 1e-2  # negative control


@pytest.mark.parametrize(
    "plain",
    [pytest.param(p, marks=[] if p.name == "adamw" else [pytest.mark.slow]) for p in PLAIN],
    ids=lambda p: p.name,
)
def test_the_kernel_follows_the_twin(plain):
    run = dict(dim=19, neurons=3, steps=40, record_every=1, dtype="float64")
    ours, twin = (rotsim.simulate(Cautious(plain), engine=engine, **run) for engine in ("numba", "numpy"))
    for name in ("norm", "rotation", "update_rms"):
        np.testing.assert_allclose(ours[name], twin[name], rtol=1e-9)


# --- theory


def test_moments_behind_the_mask_are_those_of_draws():
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, 10**6))
    for r in (-0.6, -0.1, 0.3):
        y = r * x + np.sqrt(1 - r * r) * z
        mask = x * y >= 0
        for f, values in (
            (closed_forms.cautious_decayed, x**2 * mask),
            (closed_forms.cautious_overlap, x * y * mask),
            (closed_forms.cautious_sign_overlap, x * np.sign(y) * mask),
        ):
            assert abs(values.mean() - f(r)) < chance.errors(None, 9) * values.std() / 1e3
            assert abs(values.mean() - f(r + 0.05)) > 5 * values.std() / 1e3  # negative control


def test_without_momentum_half_of_the_decay_acts_exactly():
    """Then updates know nothing of the weights: W δ(2 - δ)/2 = 1 + (2δ/π)√W, a quadratic in √W."""
    for decay in (1e-4, 0.01, 0.3):
        found = balanced(decay, exponential_average(0.0), False)
        by = decay * (2 - decay) / 2
        root = (2 * decay / np.pi + np.sqrt((2 * decay / np.pi) ** 2 + 4 * by)) / (2 * by)
        assert (found.acts, found.aligned) == (0.5, 0.0)
        assert found.square == pytest.approx(root**2, rel=1e-10) and found.half == pytest.approx(decay / 2)


@pytest.mark.parametrize("plain", PLAIN, ids=lambda spec: spec.name)
def test_to_leading_order_the_norm_is_longer_by_root_two(plain):
    gentle = plain.with_rates(1e-5, 1e-4)
    ours, theirs = (rotsim.equilibrium(spec, 10**5, Isotropic(0.1)) for spec in (Cautious(gentle), gentle))
    assert ours.norm / theirs.norm == pytest.approx(np.sqrt(2), rel=2e-3)
    assert ours.rotation / theirs.rotation == pytest.approx(np.sqrt(0.5), rel=2e-3)
    strong = rotsim.equilibrium(Cautious(plain), 10**5).norm / rotsim.equilibrium(plain, 10**5).norm
    assert strong > 1.5  # negative control


@functools.cache
def allowed():
    """Standard errors that either quantity of any setting may be off."""
    return chance.errors(32, 2 * SETTINGS)


def held_to_a_walk(spec, gradient, seed, theory=None):
    eq = rotsim.equilibrium(theory or spec, 256, gradient)
    steps = np.clip(12 / (spec.lr * spec.weight_decay), 1000, 20_000)
    settling.held_to_a_walk(spec, gradient, seed, eq, steps, 3, BAR, allowed())


def test_a_walk_settles_where_theory_says_and_not_where_all_decay_acts():
    held_to_a_walk(SPEC, ScaleInvariant(), 3)
    with pytest.raises(AssertionError, match="norm"):
        held_to_a_walk(SPEC, ScaleInvariant(), 3, SPEC.inner)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SETTINGS))
def test_walks_of_many_settings_settle_where_theory_says(seed):
    held_to_a_walk(DRAWN[seed], (ScaleInvariant(), Isotropic(0.05))[seed % 2], seed)


@pytest.mark.slow
@pytest.mark.parametrize("decay", [0.01, 0.03])
def test_what_is_no_gaussian_is_declared_and_not_by_far_too_much(decay):
    """AdamW with β1 = 0.95 beyond the decays of practice, where the closure is off most."""
    spec = Cautious(rotsim.AdamW(0.01, decay / 0.01, (0.95, 0.9999)))
    eq = rotsim.equilibrium(spec, 256, Isotropic(0.1))
    steps = int(30 / decay) // 10 * 10
    walk = rotsim.simulate(
        spec, 256, 512, steps, Isotropic(0.1), seed=1, initial_norm=eq.norm, record_every=steps // 10, engine="numba"
    )
    off = []
    for name in ("norm", "rotation"):
        square = (walk[name].values[:, 3:] ** 2).mean(axis=1)
        error = square.std() / np.sqrt(len(square)) / 2 / square.mean()
        off.append(abs(np.sqrt(square.mean()) / getattr(eq, name) - 1))
        assert off[-1] < eq.model_error + chance.errors(512, 4) * error
    assert 5 * max(off) > eq.model_error


# --- in time


COURSES = (  # start over the norm at rest, spec, gradient
    (20.0, SPEC, ScaleInvariant()),
    (0.02, SPEC, Isotropic(0.05)),
    (3.0, Cautious(rotsim.Lion(3e-3, 1.0, (0.9, 0.98))), ScaleInvariant()),
    (0.1, Cautious(rotsim.NAdamW(0.01, 0.3)), ScaleInvariant()),
    (4.0, Cautious(rotsim.AdEMAMix(2e-3, 0.5, (0.9, 0.99, 0.99), 3.0)), ScaleInvariant()),
)


@pytest.mark.parametrize(
    ("start", "spec", "gradient"), [pytest.param(*c, marks=[] if c[1] == SPEC else [pytest.mark.slow]) for c in COURSES]
)
def test_a_walk_follows_its_course_from_any_start_under_a_schedule(start, spec, gradient):
    """Every window of norm, rotation and update is within `BAR`, or within half again where the start was long."""
    steps, neurons = 1200, 192
    run = dict(
        dim=256, gradient=gradient, steps=steps, initial_norm=start * rotsim.equilibrium(spec, 256, gradient).norm,
        lr_schedule=cosine(steps, 0.2), record_every=100,
    )  # fmt: skip
    walk, course = rotsim.simulate(spec, neurons=neurons, seed=8, engine="numba", **run), rotsim.predict(spec, **run)
    plain = rotsim.predict(spec.inner, **run)
    worst = 0.0
    for name in ("norm", "rotation", "update_rms"):
        square = walk[name].values ** 2
        found = np.sqrt(square.mean(axis=0))
        error = square.std(axis=0) / np.sqrt(neurons) / 2 / found**2
        off = np.abs(found / course[name].values[0] - 1)
        most = chance.errors(neurons, 36) * error
        assert (off < 1.5 * BAR + most).all()
        assert (off < course[f"{name}_model_error"].values[0] + most).all()
        worst = max(worst, np.max(np.abs(found / plain[name].values[0] - 1) - most))
    assert worst > 0.2  # negative control


@pytest.mark.parametrize(
    ("rows", "dim", "weight_decay"), [(24, 48, 0.5), pytest.param(48, 24, 2.0, marks=pytest.mark.slow)]
)
def test_a_matrix_follows_its_course(rows, dim, weight_decay):
    """Entries of Muon's update are as good as Gaussian, so the same mask holds; the plain course is refuted."""
    spec, matrices = Cautious(rotsim.Muon(0.02, weight_decay)), 60
    run = dict(dim=dim, rows=rows, steps=600, initial_norm=1.5, record_every=50)
    walk, course = rotsim.simulate(spec, neurons=rows * matrices, seed=8, **run), rotsim.predict(spec, **run)
    plain = rotsim.predict(spec.inner, **run)
    worst = 0.0
    for name in ("norm", "rotation", "update_rms"):
        square = (walk[name].values ** 2).reshape(matrices, rows, -1).mean(axis=1)
        found = np.sqrt(square.mean(axis=0))
        most = chance.errors(matrices, 36) * square.std(axis=0) / np.sqrt(matrices) / 2 / found**2
        off = np.abs(found / course[name].values[0] - 1)
        assert (off < course[f"{name}_model_error"].values[0] + most).all()
        worst = max(worst, np.max(np.abs(found / plain[name].values[0] - 1) - most))
    assert worst > 0.1
    rest = rotsim.equilibrium(spec, dim, rows=rows)
    assert course["norm"].values[0, -1] == pytest.approx(rest.norm, rel=rest.model_error)


def test_what_the_course_makes_of_it():
    """Steps to equilibrium, rotation over many steps, and the course at rest as the equilibrium has it."""
    spec = Cautious(rotsim.AdamW(0.01, 0.3, (0.9, 0.99)))
    eq = rotsim.equilibrium(spec, 256)
    steps = rotsim.steps_to_equilibrium(spec, 256, initial_norm=3 * eq.norm)
    assert 1.5 < steps / rotsim.steps_to_equilibrium(spec.inner, 256, initial_norm=3 * eq.norm) < 3
    settled = rotsim.predict(spec, 256, steps=6000, initial_norm=eq.norm, record_every=1000)
    for name in ("norm", "rotation"):  # at rest v is taken as constant in what decay meets
        assert settled[name].values[0, -1] == pytest.approx(getattr(eq, name), rel=1.5e-3)
    theory, law = theory_of(spec), ScaleInvariant().power(256)
    assert theory.fallen(256, law, 1) == pytest.approx(theory.white(256, law, "exact").one_minus_cosine, rel=1e-9)
    walk = rotsim.simulate(spec, 256, 48, 2400, seed=3, initial_norm=eq.norm, keep_state=True, engine="numba")
    for lag in (10, 200):
        later = rotsim.simulate(spec, 256, 48, 2400 + lag, seed=3, initial_norm=eq.norm, resume=walk, keep_state=True)
        a, b = (one["state"].values[:, 0] for one in (walk, later))
        cosine_ = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        angle = np.sqrt((np.arccos(cosine_) ** 2).mean())
        spread = np.std(np.arccos(cosine_)) / np.sqrt(len(a)) / angle
        allowed = BAR + 1 / 256 + chance.errors(48, 2) * spread
        assert abs(angle / rotsim.rotation_over(spec, 256, lag) - 1) < allowed
        assert abs(angle / rotsim.rotation_over(spec.inner, 256, lag) - 1) > allowed  # negative control


# --- whatever else has it


def test_it_is_kept_and_described():
    assert optimizer_from_dict(SPEC.to_dict()) == SPEC
    assert SPEC.describe() == f"Cautious({SPEC.inner.describe()})"
    assert SPEC.with_beta1(0.5).inner.betas[0] == 0.5 and SPEC.with_rates(0.1, 0.2).weight_decay == 0.2
    assert theory_of(SPEC).decay_of(256, ScaleInvariant().power(256), rotsim_state(SPEC)) < 0.5 * 0.003


def rotsim_state(spec):
    from rotsim.theory.steady import SteadyState

    return SteadyState(rotsim.equilibrium(spec, 256).norm ** 2, 0.0)


def test_what_turns_as_it_does():
    found = rotsim.convert(SPEC, "adamw", betas=SPEC.inner.betas)
    assert found.after.rotation == pytest.approx(found.before.rotation, rel=1e-8)
    assert 0.4 < found.target.lr * found.target.weight_decay / 0.003 < 0.5
    walk = rotsim.simulate(SPEC, 64, 4, 20, keep_state=True, engine="numpy")
    again = rotsim.simulate(SPEC, 64, 4, 40, resume=walk, engine="numpy")
    assert np.array_equal(again["norm"].values[:, -1], rotsim.simulate(SPEC, 64, 4, 40, engine="numpy")["norm"][:, -1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cautious(rotsim.SGDM(0.1, 0.1)), "`inner` must be a spec whose decay is beside its update"),
        (lambda: Cautious(rotsim.AdamL2(0.1, 0.1)), "[^\n]*, whose gradient holds its decay"),
        (lambda: rotsim.simulate(Cautious(rotsim.Muon(0.1, 0.1)), 64, 8, 4, engine="gram"), "`engine='gram'` needs"),
        (lambda: Cautious(SPEC), "`inner` must be a spec whose decay is beside its update"),
        (lambda: Cautious("adamw"), "`inner` must be a spec whose decay is beside its update"),
        (lambda: rotsim.Rotational(SPEC), "a rotational variant knows no decay"),
        (lambda: rotsim.equilibrium(SPEC, 64, rotsim.Signal(0.1)), "`gradient` must be Isotropic or ScaleInvariant"),
        (lambda: rotsim.simulate(SPEC, 64, engine="cuda"), "engine"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(rotsim.InvalidInput, match=f"{message}[^\n]*$"):
        make()


@pytest.mark.parametrize(
    ("course", "said"),
    [
        (True, "What cautious decay does under gradients that are no white noise is not known"),
        (False, "Cautious has an equilibrium in theory, but no course in time. It is only measured."),
    ],
)
def test_a_recording_has_a_course_and_no_claim(course, said, tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    from rotsim.measure import Recorder

    if not course:
        monkeypatch.setattr(CautiousTheory, "advance", Theory.advance)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8, bias=False), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    path = tmp_path / "trace.nc"
    with Recorder(model, optimizer, 2, 10, path=path, spec=Cautious(rotsim.AdamW(1e-2, 0.1))):
        for _ in range(120):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.randint(2, (16,))).backward()
            optimizer.step()
    assert main(["trace", "report", str(path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert said in printed


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("equilibrium adamw --lr 1e-3 --weight-decay 0.1 --cautious", "Cautious(AdamW("),
        ("simulate lion --lr 1e-3 --weight-decay 1 --cautious --dim 8 --steps 20 --engine numpy", "Cautious(Lion("),
        ("equilibrium muon --lr 0.02 --cautious --dim 64 --rows 16", "Cautious(Muon("),
        ("convert adamw --lr 3e-4 --weight-decay 0.1 --cautious --to adamw", "AdamW"),
        ("derive cautious", "Behind the mask"),
    ],
)
def test_the_command_line_has_it(words, shown, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 0
    assert shown in " ".join(capsys.readouterr().out.split())
