"""Muon: the rule step for step, its theory against walks, matrices in engines, commands; with wrong theories."""

from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim import closed_forms
from rotsim.cli import main
from rotsim.optimizers import optimizer_from_dict
from rotsim.optimizers.muon import POLAR_EXPRESS, Muon
from rotsim.theory.base import required_theory
from rotsim.theory.spectral import Spectral, after, of_polynomials, row_response, spectral
from tests import chance

SHAPES = {"wide": (6, 17), "tall": (11, 4), "square": (8, 8)}
EXACT = Muon(0.02, 0.25, ns_coefficients=POLAR_EXPRESS, ns_steps=20)


# --- the rule


def transcribed(gradients, w, o, scale):
    """torch.optim.Muon's recurrence in float64, written from its documentation: B ← μ B + G without damping."""
    a, b, c = o.ns_coefficients
    buffer, history = np.zeros_like(w), []
    for g in gradients:
        buffer = o.momentum * buffer + g
        d = g + o.momentum * buffer if o.nesterov else buffer
        u, s, v = np.linalg.svd(d, full_matrices=False)
        s = s / np.sqrt((s**2).sum())
        for _ in range(o.ns_steps):
            s = a * s + b * s**3 + c * s**5
        w = w - o.lr * o.weight_decay * w
        w = w - o.lr * scale * (u * s) @ v
        history.append(w)
    return np.array(history)


SCALE = {None: lambda r, c: max(1, r / c) ** 0.5, "match_rms_adamw": lambda r, c: 0.2 * max(r, c) ** 0.5}


@pytest.mark.parametrize("engine", ["numba", "numpy"])
@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("rule", SCALE)
def test_it_follows_the_recurrence(engine, form, nesterov, rule):
    rows, dim = SHAPES[form]
    generator = np.random.default_rng(2)
    gradients, start = generator.normal(size=(40, rows, dim)), generator.normal(size=(rows, dim))
    o = Muon(0.03, 0.4, 0.9, nesterov, adjust_lr_fn=rule)
    run = dict(gradient=rotsim.Replay(gradients), dtype="float64", record_every=1, keep_state=True, engine=engine)
    walk = rotsim.simulate(o, initial_weights=start, steps=40, **run)
    history = transcribed(gradients, start, o, SCALE[rule](rows, dim))
    np.testing.assert_allclose(walk["state"][:, 0], history[-1], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(walk["norm"].values.T, np.linalg.norm(history, axis=2), rtol=1e-10)


@pytest.mark.machine
def test_it_follows_torch_within_bfloat16():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(4)
    gradients, start = generator.normal(size=(30, 12, 20)), generator.normal(size=(12, 20))
    o = Muon(0.05, 0.5, 0.9)
    w = torch.tensor(start, requires_grad=True)
    theirs = torch.optim.Muon([w], lr=0.05, weight_decay=0.5, momentum=0.9)
    for g in gradients:
        w.grad = torch.tensor(g)
        theirs.step()
    walk = rotsim.simulate(
        o, steps=30, gradient=rotsim.Replay(gradients), initial_weights=start, dtype="float64", keep_state=True
    )
    ours, found = walk["state"][:, 0].values, w.detach().numpy()
    away = np.linalg.norm(ours - found) / np.linalg.norm(found)
    assert 1e-6 < away < 0.01  # eight bits, of which errors in thirty updates average out
    other = transcribed(gradients, start, replace(o, nesterov=False), 1.0)[-1]
    assert np.linalg.norm(other - found) / np.linalg.norm(found) > 0.05


def test_twenty_steps_of_polar_express_give_the_polar_factor():
    d = np.random.default_rng(0).normal(size=(6, 9))
    change, _, _ = EXACT.update(np.zeros((6, 9)), d * 0, d * 0, d, np.array(_coefficients(EXACT)))
    u, _, v = np.linalg.svd(d, full_matrices=False)
    np.testing.assert_allclose(change, -0.02 * u @ v, atol=1e-12)


def _coefficients(o):
    one = np.ones(1)
    return o.coefficient_table(one, o.lr * one, o.weight_decay * one)[0]


def test_the_spec_round_trips_and_refuses_in_one_line():
    for o in (*Muon.examples(), EXACT):
        assert optimizer_from_dict(o.to_dict()) == o and hash(o)
        assert len(o.polynomials) == o.ns_steps
    for wrong, message in (
        ({"ns_steps": 0}, "`ns_steps` must be >= 1; got 0"),
        ({"ns_steps": 100}, "`ns_steps` must be < 100"),
        ({"ns_coefficients": (1.0, 2.0)}, "`ns_coefficients` must be three numbers"),
        ({"ns_coefficients": ()}, "`ns_coefficients` must be three numbers"),
        ({"ns_coefficients": ((1, 2, 3), 4)}, r"`ns_coefficients\[1\]` must be three numbers"),
        ({"adjust_lr_fn": "keller"}, "`adjust_lr_fn` must be .original., .match_rms_adamw. or .spectral."),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\)"),
        ({"lr": 20.0}, r"`lr \* weight_decay` must be < 1"),
        ({"nesterov": 1}, "`nesterov`"),
    ):
        with pytest.raises(rotsim.InvalidInput, match=f"^{message}[^\n]*$"):
            Muon(**{"lr": 0.1, **wrong})


def test_rows_that_make_no_matrix_are_refused_in_one_line():
    o, run = Muon(0.02), {"dim": 8, "steps": 2}
    for refused, message in (
        (lambda: rotsim.simulate(o, neurons=7, rows=4, **run), "`neurons` must be a multiple of rows=4"),
        (lambda: rotsim.simulate(o, neurons=1, **run), "`rows` must be >= 2; got 1"),
        (lambda: rotsim.equilibrium(o, 8, rows=1), "`rows` must be >= 2; got 1"),
        (lambda: rotsim.equilibrium(o, 8, rows=2.5), "`rows` must be a whole number"),
        (lambda: rotsim.equilibrium(rotsim.AdamW(1e-3, 0.1), 8, rows=4), "`rows` is for an optimizer that acts on"),
        (lambda: rotsim.simulate(rotsim.AdamW(1e-3, 0.1), neurons=8, rows=4, **run), "`rows` is for an optimizer"),
        (lambda: rotsim.Rotational(o), "Muon turns matrices and has no rotational variant"),
        (lambda: rotsim.equilibrium(o, 8, rotsim.Signal(0.1)), "`gradient` must be Isotropic or ScaleInvariant"),
        (lambda: rotsim.simulate(o, neurons=8, engine="gram", **run), "`engine='gram'` needs"),
    ):
        with pytest.raises(rotsim.InvalidInput, match=f"^{message}[^\n]*$"):
            refused()


# --- correlations of spectral updates


def polar(p, q, angles=8192):
    """The polar factor's shape, φ = 1."""
    angle = (np.arange(angles) + 0.5) * np.pi / angles
    return spectral(closed_forms.spectral_eigenvalue(angle, p / q) ** -0.5, angle)


def test_the_polar_factor_of_a_square_matrix_has_the_derived_parts():
    j = np.arange(1, 60)
    np.testing.assert_allclose(polar(64, 64).parts[:59], 64 / np.pi**2 * j**2 / (4 * j**2 - 1) ** 2, rtol=1e-4)
    thin = polar(1, 1000)
    assert thin.parts[0] == pytest.approx(1 - 1 / 4000, rel=1e-6) and thin.parts[1] == pytest.approx(1 / 4000, rel=2e-3)


@pytest.mark.parametrize(("p", "q"), [(40, 40), (32, 96)])
def test_correlations_are_those_of_random_matrices(p, q):
    """Polar factors of correlated matrices by singular value decomposition, and the iteration's; wrong laws fail."""
    generator, count, k = np.random.default_rng(7), 60, chance.errors(60, 4)
    first, noise = generator.normal(size=(2, count, p, q))
    for r in (0.5, 0.95):
        second = r * first + np.sqrt(1 - r**2) * noise
        for law, shape in ((of_polynomials(Muon(0.1).polynomials, p, q), Muon(0.1)), (polar(p, q), None)):
            u, v = (shaped(d, shape) for d in (first, second))
            found = (u * v).sum(axis=(1, 2)) / p
            wanted, allowed = law.power * float(law(r)), k * found.std(ddof=1) / np.sqrt(count) + 0.3 / p * r
            assert abs(found.mean() - wanted) < allowed
            assert abs(found.mean() - law.power * r) > allowed or q > 2 * p  # as AR(1) has it


def shaped(d, o):
    u, s, v = np.linalg.svd(d, full_matrices=False)
    s = np.ones_like(s) if o is None else after(o.polynomials, s / np.linalg.norm(s, axis=1, keepdims=True))
    return (u * s[:, None, :]) @ v


def test_few_modes_stand_for_all_parts():
    r = np.concatenate([np.linspace(0.05, 0.95, 40), 1 - np.geomspace(1e-4, 0.05, 40)])
    for law in (polar(64, 64), of_polynomials(Muon(0.1).polynomials, 16, 16)):
        powers, factors = law.modes()
        assert len(powers) < 60
        np.testing.assert_allclose((factors * r[:, None] ** powers).sum(axis=1), law(r), atol=1e-8)
    short = Spectral(1.0, np.array([0.9, 0.1]))
    assert short.modes()[0].tolist() == [1.0, 3.0]
    assert short.discounted_sum(0.9, 0.5, 0.8) == pytest.approx(
        sum(0.9**k * float(short(0.5 * 0.8 ** (k - 1))) for k in range(1, 300))
    )


# --- theory against walks


def random_settings(count, seed):
    """Rates, momentum and shape, as they are drawn for the bar."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        rows, dim = (int(2 ** generator.uniform(4, 6.5)) for _ in range(2))
        decay = 10 ** generator.uniform(-2, np.log10(0.05))
        momentum, nesterov = generator.choice([0.0, generator.uniform(0.3, 0.97)], p=[0.1, 0.9]), number % 2 == 0
        yield Muon(0.02, decay / 0.02, float(momentum), nesterov), rows, dim, number


def deviation(o, rows, dim, seed, relaxations=60):
    """Norm and rotation of a walk in equilibrium over the prediction, less 1."""
    gradient = rotsim.ScaleInvariant() if seed % 3 else rotsim.Isotropic()
    eq = rotsim.equilibrium(o, dim, gradient, rows=rows)
    steps = int(np.clip(relaxations * eq.relaxation_steps, 500, 6000))
    walk = rotsim.simulate(o, dim, rows, steps, gradient, seed, eq.norm, record_every=steps // 10)
    late = walk.isel(step=slice(3, None))
    return [float(np.sqrt((late[q] ** 2).mean())) / getattr(eq, q) - 1 for q in ("norm", "rotation")], eq


def check_settings(count, seed):
    for o, rows, dim, number in random_settings(count, seed):
        found, eq = deviation(o, rows, dim, number)
        allowed = 0.01 + 1 / min(rows, dim)
        assert np.abs(found).max() < allowed, f"{o.describe()} {rows} x {dim}: {found}"
        assert eq.model_error <= 2 / min(rows, dim)


def test_random_settings_are_within_a_per_cent_and_one_over_p():
    check_settings(3, 1)


@pytest.mark.slow
def test_sixty_random_settings_are_within_a_per_cent_and_one_over_p():
    check_settings(60, 2)


def test_wrong_theories_fail():
    """The published formula, the polar factor in the place of the iteration, and Nesterov's step forgotten."""
    o, rows, dim = Muon(0.02, 0.5, 0.9), 64, 64
    found, eq = deviation(o, rows, dim, 3, relaxations=150)
    leading = rotsim.equilibrium(o, dim, method="leading", rows=rows)
    wrong = {
        "published": leading,
        "polar": rotsim.equilibrium(replace(o, ns_coefficients=POLAR_EXPRESS, ns_steps=20), dim, rows=rows),
        "no Nesterov": rotsim.equilibrium(replace(o, nesterov=False), dim, rows=rows),
        "another shape": rotsim.equilibrium(o, dim, rows=8),
    }
    assert np.abs(found).max() < 0.015
    for name, other in wrong.items():
        off = max(abs(other.norm / eq.norm - 1), abs(other.rotation / eq.rotation - 1))
        assert off > 0.03, name
    assert leading.model_error > 0.2


def test_finite_size_is_declared_and_falls_as_one_over_p():
    errors = [rotsim.equilibrium(Muon(0.02), dim, rows=dim).model_error for dim in (16, 64, 256)]
    assert errors[0] / errors[1] == pytest.approx(4) and errors[1] / errors[2] == pytest.approx(4)
    assert rotsim.equilibrium(Muon(0.02, eps=1e3), 16, rows=16).model_error == np.inf  # what d is divided by


def test_rows_that_drift_apart_are_declared():
    """Long rows where φ falls fast: a longer row has the larger update under scale-invariant noise."""
    o, rows, dim = Muon(0.1, 0.5, 0.8), 24, 6144
    for gradient, apart in ((rotsim.Isotropic(), False), (rotsim.ScaleInvariant(), True)):
        eq = rotsim.equilibrium(o, dim, gradient, rows=rows)
        walk = rotsim.simulate(o, dim, rows, 400, gradient, initial_norm=eq.norm, record_every=200)
        norm = walk["norm"].values[:, -1]
        assert (norm.std() / norm.mean() > 0.1) == apart
        assert (abs(np.sqrt((norm**2).mean()) / eq.norm - 1) > 0.05) == apart
        assert (eq.model_error == np.inf) == apart
    responses = [row_response(o.polynomials, *form) for form in ((24, 6144), (6144, 24), (48, 6144), (24, 24))]
    assert responses[0] < -2 and responses[1] > 1.9 and min(responses[2:]) > 0
    long, step = 10**12, 1e-5  # rows as long as that see one singular value
    at = np.array([1 - step, 1 + step]) / np.sqrt(24)
    slope = np.diff(np.log(after(o.polynomials, at) ** 2))[0] / np.diff(np.log(at))[0]
    assert row_response(o.polynomials, 24, long) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_course_settles_on_the_equilibrium(nesterov):
    for rows, dim in ((32, 32), (16, 200), (200, 16)):
        o, gradient = Muon(0.02, 0.5, 0.9, nesterov), rotsim.Isotropic()
        eq = rotsim.equilibrium(o, dim, gradient, rows=rows)
        end = rotsim.predict(o, dim, gradient, 4000, 3 * eq.norm, rows=rows).isel(step=-1)
        for quantity in ("norm", "rotation", "update_rms"):
            assert end[quantity].item() == pytest.approx(getattr(eq, quantity), rel=1e-7)
        one = rotsim.rotation_over(o, dim, 1, gradient, rows=rows)
        assert one == pytest.approx(2 * np.arcsin(eq.update_rms / 2 / eq.norm), rel=1e-8)
        assert rotsim.rotation_over(o, dim, 10**5, gradient, rows=rows) == pytest.approx(np.pi / 2)


def test_every_window_of_a_course_agrees_with_walks():
    """From a start that is too long, under a schedule that warms up and falls; another start and schedule fail."""
    o, rows, dim, steps = Muon(0.05, 0.4, 0.9), 48, 64, 300
    run = dict(steps=steps, record_every=25, rows=rows)
    schedule = np.minimum(np.arange(1, steps + 1) / 40, 1) * np.linspace(1, 0.2, steps)
    walk = rotsim.simulate(o, dim, 8 * rows, seed=5, initial_norm=4.0, lr_schedule=schedule, **run)
    known = dict(initial_norm=4.0, lr_schedule=schedule)
    k = chance.errors(None, 3)
    assert rotsim.compare(walk, rotsim.predict(o, dim, **run, **known), k=k).passed
    for changed in ({"initial_norm": 3.8}, {"lr_schedule": 1.1 * schedule}):
        wrong = rotsim.predict(o, dim, **run, **{**known, **changed})
        assert "FAIL" in {check.verdict for check in rotsim.compare(walk, wrong, k=k)}


def test_plans_transfers_and_times():
    found = rotsim.plan("muon", rotation=0.01, norm=1.0, dim=256, rows=64)
    assert found.equilibrium.rotation == pytest.approx(0.01) and found.equilibrium.norm == pytest.approx(1.0)
    again = rotsim.equilibrium(found.optimizer, 256, rows=64)
    assert again == found.equilibrium
    larger = rotsim.transfer(Muon(0.02), batch_factor=4, dim=64, rows=32)
    before = rotsim.equilibrium(Muon(0.02), 64, rows=32)
    assert larger.equilibrium.rotation == pytest.approx(2 * before.rotation)
    assert larger.optimizer.lr == pytest.approx(0.04, rel=0.05)
    steps = rotsim.steps_to_equilibrium(Muon(0.02, 0.5), 64, rows=32, initial_norm=2 * before.norm)
    assert 50 < steps < 1000


def test_the_filter_is_that_of_the_recurrence():
    """r_k from the weights of past gradients."""
    for nesterov in (True, False):
        theory, mu, age = required_theory(Muon(0.1, momentum=0.9, nesterov=nesterov)), 0.9, np.arange(2000)
        weights = (1 - mu) * mu**age
        if nesterov:
            weights = mu * weights
            weights[0] += 1 - mu
        for lag in (1, 5):
            wanted = weights[lag:] @ weights[:-lag] / (weights @ weights)
            by_lion = closed_forms.lion_covariance(*theory.filter, lag) / closed_forms.lion_variance(*theory.filter)
            assert by_lion == pytest.approx(wanted)


# --- the engine


@pytest.mark.few(2)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", SHAPES)
def test_the_twin_walks_alike(form, dtype):
    rows, dim = SHAPES[form]
    o = Muon(0.05, 0.3, 0.9, ns_coefficients=POLAR_EXPRESS)
    run = dict(neurons=2 * rows, rows=rows, steps=11, seed=3, record_every=4, dtype=dtype)
    for gradient in (rotsim.ScaleInvariant(0.7), rotsim.Autocorrelated(0.5)):
        walk, twin = (rotsim.simulate(o, dim, gradient=gradient, engine=e, **run) for e in ("numba", "numpy"))
        for quantity in ("norm", "rotation", "update_rms"):
            np.testing.assert_allclose(walk[quantity], twin[quantity], rtol=3e-5 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("o", [Muon(0.05, 0.3), rotsim.Hyperball(Muon(0.05, 0.0))], ids=["muon", "hyperball"])
def test_threads_chunks_and_resumed_walks_have_the_same_bits(o, monkeypatch):
    """Of matrices whose sides the kernel fills up: what lies beyond them in memory is the next matrix, or nobody's."""
    from rotsim.simulation import chunks

    run = dict(dim=12, neurons=30, rows=6, steps=40, record_every=7, keep_state=True)
    walk = rotsim.simulate(o, threads=1, **run)
    np.testing.assert_allclose(walk["rotation"], rotsim.simulate(o, engine="numpy", **run)["rotation"], rtol=1e-4)
    assert rotsim.dataset.spec_of(walk)["rows"] == 6 and rotsim.dataset.spec_of(walk)["engine"] == "numba"
    assert rotsim.simulate(o, threads=3, **run).drop_attrs().identical(walk.drop_attrs())
    part = rotsim.simulate(o, **{**run, "steps": 17})
    assert rotsim.simulate(o, resume=part, **run).drop_attrs().identical(walk.drop_attrs())
    monkeypatch.setattr(chunks, "MAX_CHUNK_STEPS", 3)
    assert rotsim.simulate(o, **run).drop_attrs().identical(walk.drop_attrs())
    alone = rotsim.simulate(o, **{**run, "neurons": 6})
    np.testing.assert_array_equal(alone["norm"], walk["norm"][:6])
    assert not np.allclose(rotsim.simulate(o, **{**run, "rows": 5})["norm"], walk["norm"], rtol=1e-3)
    with pytest.raises(rotsim.InvalidInput, match="was run with rows=6, not 10"):
        rotsim.simulate(o, resume=part, **{**run, "rows": 10})


# --- the command line


@pytest.mark.few(3)
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("equilibrium muon --lr 0.02 --dim 256 --rows 64", "matrices of 64 x 256"),
        ("equilibrium muon --lr 0.02 --no-nesterov --ns-steps 4 --adjust-lr-fn match_rms_adamw", "1024 x 1024"),
        ("predict muon --lr 0.02 --weight-decay 0.5 --steps 300 --dim 64 --rows 32", "64"),
        ("plan muon --rotation 0.01 --norm 1 --dim 64 --rows 32", "Muon("),
        ("transfer muon --lr 0.02 --batch-factor 2 --dim 64", "Muon("),
        ("simulate muon --lr 0.05 --weight-decay 0.4 --steps 400 --dim 24 --neurons 16 --rows 8", "8 x 24"),
        ("derive muon", "Words that fade"),
        ("derive shapes", "Row over its length"),
    ],
)
def test_the_command_line_has_it(words, shown, capsys):
    main(words.split())
    assert shown in " ".join(capsys.readouterr().out.split())


def test_a_walk_is_compared_with_the_theory_of_its_own_matrices():
    o = Muon(0.05, 0.4, 0.9)
    eq = rotsim.equilibrium(o, 96, rows=24)
    walk = rotsim.simulate(o, 96, 96, 2500, rows=24, initial_norm=eq.norm, record_every=25, seed=2)
    from rotsim.comparison import compare_with_theory

    assert compare_with_theory(walk).passed
    assert not rotsim.compare(walk, rotsim.equilibrium(o, 96, rows=96), k=chance.errors(96, 3)).passed


@pytest.mark.parametrize(("rows", "dim"), [(2, 2), (2, 3), (3, 2)])
def test_matrices_too_small_for_the_law_of_large_ones_are_refused(rows, dim):
    """Their singular values would be above the norm in that law, where the polynomials make 1e57 of a norm of 0.4."""
    for ask in (rotsim.equilibrium, rotsim.predict) if dim > 2 else (rotsim.equilibrium,):
        with pytest.raises(
            rotsim.InvalidInput, match=rf"`rows` and `dim` must be larger .* got {rows} rows of dim {dim}"
        ):
            ask(Muon(0.02, 1.0), dim, rows=rows)
    assert 0.3 < rotsim.equilibrium(Muon(0.02, 1.0), 4, rows=2).norm < 0.5
