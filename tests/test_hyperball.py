"""Hyperball: the published recurrence, its theory against walks and against decoupled decay, and what must fail."""

from dataclasses import replace

import numpy as np
import pytest

import rotsim
from rotsim.cli import main
from rotsim.gradients import Isotropic
from rotsim.optimizers import Hyperball, optimizer_from_dict
from rotsim.optimizers.muon import orthogonalise
from rotsim.theory.base import required_theory
from rotsim.theory.hyperball import relative_lr, share_taken
from rotsim.theory.schedules import cosine
from rotsim.theory.walk import exponential_average
from tests import chance

ADAM = rotsim.AdamW(0.03, 0.0, (0.9, 0.95))
SPEC = Hyperball(ADAM)
INNER = (ADAM, rotsim.SGDM(0.03, 0.0), rotsim.Lion(0.03, 0.0), rotsim.Signum(0.03, 0.0), rotsim.NAdamW(0.03, 0.0))


def adam(gradients, beta1=0.9, beta2=0.95, eps=1e-8):
    """Kingma & Ba's updates."""
    m = v = 0.0
    for step, g in enumerate(gradients, 1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        yield m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)


def published(w, updates, lr, normalised=True):
    """Wen et al. 2026, on a matrix and the updates of its optimizer."""
    found, radius = [], np.linalg.norm(w)
    for u in updates:
        w = w - lr * radius * u / (np.linalg.norm(u) if normalised else np.sqrt(u.size))
        w = radius * w / np.linalg.norm(w)
        found.append(w)
    return np.array(found)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_a_walk_is_the_published_recurrence_of_a_matrix(engine):
    """All entries of the matrix are the weights of one neuron."""
    rng = np.random.default_rng(5)
    gradients, start = rng.normal(size=(60, 3, 17)), rng.normal(size=(3, 17))
    run = dict(
        dim=51, steps=60, gradient=rotsim.Replay(gradients.reshape(60, 1, 51)), initial_weights=start.reshape(1, 51),
        record_every=1, dtype="float64", keep_state=True, engine=engine,
    )  # fmt: skip
    walk, updates = rotsim.simulate(SPEC, **run), list(adam(gradients))
    expected = published(start, updates, SPEC.lr)
    np.testing.assert_allclose(walk["state"][0, 0], expected[-1].ravel(), rtol=1e-9)
    np.testing.assert_allclose(walk["norm"], np.linalg.norm(start), rtol=1e-12)
    flat = np.concatenate([start.reshape(1, 51), expected.reshape(60, 51)]) / np.linalg.norm(start)
    turned = 2 * np.arcsin(np.linalg.norm(np.diff(flat, axis=0), axis=1) / 2)
    np.testing.assert_allclose(walk["rotation"][0], turned, rtol=1e-9)
    assert np.abs(published(start, updates, SPEC.lr, False)[-1] - expected[-1]).max() > 1e-3  # negative control


@pytest.mark.parametrize(
    "inner",
    [pytest.param(i, marks=[] if i.name == "sgdm" else [pytest.mark.slow]) for i in INNER],
    ids=lambda i: i.name,
)
def test_the_kernel_follows_the_twin(inner):
    run = dict(dim=19, neurons=3, steps=40, record_every=1, dtype="float64", lr_schedule=cosine(40, 0.1))
    ours, twin = (rotsim.simulate(Hyperball(inner), engine=engine, **run) for engine in ("numba", "numpy"))
    for name in ("norm", "rotation", "update_rms"):
        np.testing.assert_allclose(ours[name], twin[name], rtol=1e-9)


MUON = rotsim.Muon(0.03, 0.0)


@pytest.mark.parametrize("engine", ["numpy", "numba"])
@pytest.mark.parametrize("rows", [6, 24])
def test_under_muon_a_walk_is_the_published_recurrence(engine, rows):
    rng = np.random.default_rng(7)
    gradients, start = rng.normal(size=(30, rows, 12)), rng.normal(size=(rows, 12))
    average, updates, table = np.zeros_like(start), [], np.array(MUON.polynomials)
    for g in gradients:
        average = 0.95 * average + 0.05 * g
        updates.append(orthogonalise(0.95 * average + 0.05 * g, 1e-7, table))
    run = dict(
        dim=12, rows=rows, steps=30, gradient=rotsim.Replay(gradients), initial_weights=start, record_every=1,
        dtype="float64", keep_state=True, engine=engine,
    )  # fmt: skip
    walk = rotsim.simulate(Hyperball(MUON), **run)
    expected = published(start, updates, MUON.lr)
    np.testing.assert_allclose(walk["state"][:, 0], expected[-1], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose((walk["norm"] ** 2).sum("neuron"), (start**2).sum(), rtol=1e-12)
    assert np.abs(published(start, updates, MUON.lr, False)[-1] - expected[-1]).max() > 1e-3  # negative control


@pytest.mark.parametrize(
    ("rows", "dim"),
    [(16, 64), pytest.param(32, 32, marks=pytest.mark.slow), pytest.param(64, 16, marks=pytest.mark.slow)],
)
def test_under_muon_it_turns_as_theory_says(rows, dim):
    """As the update of Muon is correlated, and not as one that is across the weights."""
    spec = Hyperball(MUON)
    walk = rotsim.simulate(spec, dim, rows * 8, 1500, record_every=500, rows=rows, seed=1)
    square = (walk["rotation"].values[:, 1:] ** 2).reshape(8, -1).mean(axis=1)
    eq = rotsim.equilibrium(spec, dim, rows=rows)
    error = chance.errors(8, 3) * square.std(ddof=1) / square.mean() / 2 / np.sqrt(8)
    found = np.sqrt(square.mean())
    assert abs(found / eq.rotation - 1) < eq.model_error + error < 0.05
    assert abs(found / spec.lr - 1) > 0.05  # negative control


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "dim", "lr"), [(4, 256, 0.03), (4, 256, 0.1), (16, 64, 0.1), (8, 8, 0.1)])
def test_under_muon_what_a_small_matrix_changes_is_declared_and_not_by_far_too_much(rows, dim, lr):
    """Its updates are of one length whatever their size: only how they are correlated is felt, by the momentum."""
    spec = Hyperball(rotsim.Muon(lr, 0.0, momentum=0.9))
    eq = rotsim.equilibrium(spec, dim, rows=rows)
    walk = rotsim.simulate(spec, dim, rows * 24, 700, record_every=100, rows=rows, seed=2)
    square = (walk["rotation"].values[:, 3:] ** 2).mean(axis=1).reshape(-1, rows).mean(axis=1)
    error = chance.errors(24, 4) * square.std(ddof=1) / square.mean() / 2 / np.sqrt(24)
    off = abs(np.sqrt(square.mean()) / eq.rotation - 1)
    assert off < eq.model_error + error
    assert 5 * (off + error) > eq.model_error


# --- theory


@pytest.mark.parametrize("inner", INNER, ids=lambda i: i.name)
def test_it_turns_as_its_optimizer_at_rest_with_the_decay_that_it_stands_for(inner):
    """Not SGDM, whose decay passes through the momentum: it does to leading order."""
    law, dim = Isotropic().power(10**6), 10**6
    inner = replace(inner, eps=0.0) if "eps" in inner.to_dict() else inner  # which is felt as far as a norm lets it
    updates = required_theory(inner).updates(dim, law, 1.0)
    for lr in (1e-3, 0.05):
        decay = share_taken(lr, updates)
        assert relative_lr(decay, updates) == pytest.approx(lr, rel=1e-10)
        ball = Hyperball(inner.with_rates(lr, 0.0))
        rate = (decay * (1 - inner.beta1) if inner.decay == "coupled" else decay) ** 0.5
        plain = inner.with_rates(rate, rate)
        other = plain.with_rates(1.5 * plain.lr, plain.weight_decay)  # negative control
        close = dict(rel=1e-6) if inner.decay == "decoupled" else dict(rel=3 * decay)
        for measure in (lambda o: rotsim.equilibrium(o, dim).rotation, lambda o: rotsim.rotation_over(o, dim, 30)):
            assert measure(ball) == pytest.approx(measure(plain), **close)
            assert measure(ball) != pytest.approx(measure(other), **close)
    assert rotsim.equilibrium(Hyperball(inner.with_rates(1e-5, 0.0)), dim).rotation == pytest.approx(1e-5, rel=1e-6)


def test_without_momentum_the_learning_rate_is_the_tangent():
    for lr in (1e-6, 0.1, 1.0, 5.0):
        found = rotsim.equilibrium(Hyperball(rotsim.SGDM(lr, 0.0, 0.0)), 10**9)
        assert found.rotation == pytest.approx(np.arctan(lr), rel=1e-8) and np.isnan(found.norm)
    for lr in (1e-9, 1e8):  # a share of nearly nothing, and nearly all
        assert relative_lr(share_taken(lr, exponential_average(0.9)), exponential_average(0.9)) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("inner", "gradient"),
    [
        (rotsim.SGDM(0.05, 0.0, 0.95), None),
        pytest.param(rotsim.AdamW(0.05, 0.0, (0.95, 0.99)), Isotropic(), marks=pytest.mark.slow),
        pytest.param(rotsim.Lion(0.05, 0.0), None, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "name", "noise"),
)
def test_a_walk_turns_as_theory_says_at_every_step_of_a_schedule(inner, gradient):
    """From empty averages on. Momentum takes more off the angle than the walk is uncertain by."""
    spec = Hyperball(inner)
    arguments = dict(dim=512, steps=400, lr_schedule=cosine(400), record_every=20, gradient=gradient, initial_norm=2.0)
    course, walk = rotsim.predict(spec, **arguments), rotsim.simulate(spec, neurons=48, seed=3, **arguments)
    k = chance.errors(None, 3)
    report = rotsim.compare(walk, course, k=k)
    assert report.passed, "\n" + report.table()
    naive = course.copy(deep=True)
    naive["rotation"][:] = np.sqrt((spec.lr * cosine(400)(np.arange(1, 401))).reshape(20, 20) ** 2).mean(axis=1)
    assert not rotsim.compare(walk, naive, k=k).passed  # negative control: an update across the weights
    rest = rotsim.predict(spec, **{**arguments, "lr_schedule": None})
    assert rest["rotation"].values[0, -1] == pytest.approx(rotsim.equilibrium(spec, 512, gradient).rotation, rel=2e-3)
    assert rotsim.steps_to_equilibrium(spec, 512, gradient, within=1e-3) > 20


NADAMW = rotsim.NAdamW(0.1, 0.0, (0.95, 0.6), momentum_decay=0.3)


def turned(spec, matrices, schedule, every=10, seed=3, **arguments):
    """Angles of a course and of a walk, what is declared, and the error of the walk's by so many independent parts."""
    arguments = dict(steps=300, record_every=every, initial_norm=2.0, lr_schedule=schedule, **arguments)
    course = rotsim.predict(spec, **arguments)
    walk = rotsim.simulate(spec, neurons=matrices * (arguments.get("rows") or 1), seed=seed, **arguments)
    square = (walk["rotation"].values ** 2).reshape(matrices, -1, walk.sizes["step"]).mean(axis=1)
    k = chance.errors(matrices, square.shape[1] + 4)
    error = k * square.std(axis=0, ddof=1) / square.mean(axis=0) / 2 / np.sqrt(matrices)
    norms = np.sqrt((walk["norm"].values ** 2).mean(axis=0))
    np.testing.assert_allclose(norms, course["norm"][0], rtol=1e-5)
    return course["rotation"].values[0], np.sqrt(square.mean(axis=0)), course["rotation_model_error"].values[0], error


@pytest.mark.parametrize("schedule", [None, cosine(300, 0.1)], ids=["constant", "cosine"])
@pytest.mark.parametrize(
    ("inner", "dim", "rows"),
    [
        (rotsim.Muon(0.03, 0.0), 64, 16),
        pytest.param(rotsim.Muon(0.1, 0.0, 0.9, nesterov=False), 16, 64, marks=pytest.mark.slow),
        (NADAMW, 512, None),
        pytest.param(rotsim.NAdamW(0.2, 0.0, (0.9, 0.99)), 512, None, marks=pytest.mark.slow),
        pytest.param(rotsim.AdamW(0.2, 0.0, (0.9, 0.99)), 2048, None, marks=pytest.mark.slow),
    ],
    ids=["muon", "tall muon", "nadamw", "nadamw, slow", "adamw"],
)
def test_a_walk_turns_as_theory_says_from_the_first_step(inner, dim, rows, schedule):
    """While averages fill, under Muon by what its shape leaves of their correlations; under NAdamW by each μ."""
    spec = Hyperball(inner)
    given = {"dim": dim, "rows": rows} if rows else {"dim": dim}
    course, walk, declared, error = turned(spec, 32, schedule, **given)
    assert (np.abs(walk / course - 1) < declared + error).all()
    factor = np.ones(300) if schedule is None else schedule(np.arange(1, 301))
    rate = spec.lr * np.sqrt((factor**2).reshape(-1, 10).mean(axis=1))
    settled = rate * rotsim.equilibrium(spec, **given).rotation / spec.lr
    for naive in (rate, settled):  # negative controls: updates across the weights, and averages that are full
        assert (np.abs(walk / naive - 1) > declared + error).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inner", "given", "gradient"),
    [
        (rotsim.Muon(0.1, 0.0, 0.9), {"dim": 16, "rows": 64}, Isotropic()),
        (rotsim.Muon(0.1, 0.0, 0.9), {"dim": 64, "rows": 4}, None),
    ],
    ids=["isotropic", "scale-invariant"],
)
def test_what_the_course_of_a_matrix_declares_is_not_by_far_too_much(inner, given, gradient):
    course, walk, declared, error = turned(Hyperball(inner), 256, None, 50, gradient=gradient, **given)
    off = np.abs(walk / course - 1)
    assert (off < declared + error).all() and (5 * (off + error) > declared)[-1]


def test_without_decay_adam_with_l2_is_adam():
    adam, l2 = (
        rotsim.predict(Hyperball(kind(0.05, 0.0, betas)), 64, steps=200, record_every=20)["rotation"]
        for kind, betas in ((rotsim.AdamW, (0.9, 0.95)), (rotsim.AdamL2, (0.9, 0.95)))
    )
    np.testing.assert_allclose(adam, l2, rtol=2e-5)  # what each makes of a young v has an error of quadrature
    other = rotsim.predict(Hyperball(rotsim.AdamL2(0.05, 0.0, (0.95, 0.95))), 64, steps=200, record_every=20)
    assert np.abs(other["rotation"] / adam - 1).max() > 1e-3  # negative control


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [Isotropic(), None], ids=["isotropic", "scale-invariant"])
@pytest.mark.parametrize(
    "inner",
    [rotsim.SGDM(0.05, 0.0), rotsim.SGDM(0.01, 0.0), rotsim.Lion(0.05, 0.0), rotsim.AdamW(0.05, 0.0, (0.9, 0.95))],
    ids=lambda i: f"{i.name} {i.lr}",
)
def test_what_few_weights_change_is_declared_and_not_by_far_too_much(inner, gradient):
    spec = Hyperball(inner)
    walk = rotsim.simulate(spec, 8, 128, 6000, gradient, record_every=2000, seed=4, engine="numba")
    square = (walk["rotation"].values[:, 1:] ** 2).mean(axis=1)
    eq = rotsim.equilibrium(spec, 8, gradient)
    off = abs(np.sqrt(square.mean()) / eq.rotation - 1)
    error = chance.errors(128, 8) * square.std() / square.mean() / 2 / np.sqrt(128)
    assert off < eq.model_error + error
    assert 5 * (off + error) > eq.model_error or eq.model_error < 1.001 / 8**2  # of second order at least


def test_it_is_kept_and_described():
    assert optimizer_from_dict(SPEC.to_dict()) == SPEC
    assert SPEC.describe() == f"Hyperball({ADAM.describe()})"
    walk = rotsim.simulate(SPEC, 64, 4, 20, keep_state=True, engine="numpy")
    again = rotsim.simulate(SPEC, 64, 4, 40, resume=walk, engine="numpy")
    assert np.array_equal(again["norm"][:, -1], rotsim.simulate(SPEC, 64, 4, 40, engine="numpy")["norm"][:, -1])
    walk = rotsim.simulate(SPEC, 256, 8, 200, record_every=10, engine="numpy")
    assert np.abs(walk["norm"] - 1).max() < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hyperball(rotsim.AdamW(0.1, 0.1)), "`weight_decay` must be 0; got 0.1. A hyperball keeps the norm"),
        (lambda: Hyperball(rotsim.AdEMAMix(0.1, 0.0)), "`inner` must be a spec that keeps two averages at most"),
        (lambda: Hyperball(rotsim.Cautious(ADAM)), "`inner` must be a spec that keeps two averages at most"),
        (lambda: rotsim.equilibrium(SPEC, 64, rows=8), "`rows` is for an optimizer that acts on matrices"),
        (lambda: Hyperball(SPEC), "`inner` must be a spec such as"),
        (lambda: rotsim.Rotational(SPEC), "`inner` must be a spec such as"),
        (lambda: rotsim.equilibrium(SPEC, 64, rotsim.Signal(0.1)), "`gradient` must be Isotropic or ScaleInvariant"),
        (lambda: rotsim.simulate(SPEC, 64, engine="cuda"), "engine"),
        (lambda: rotsim.simulate(SPEC, 64, engine="gram"), "engine"),
        (lambda: rotsim.transfer(Hyperball(rotsim.AdamW(0.5, 0.0)), batch_factor=40), "no Hyperball reaches rotation"),
        (lambda: rotsim.plan("hyperball", rotation=0.1, norm=1.0), "keeps any norm"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(rotsim.InvalidInput, match=f"{message}[^\n]*$"):
        make()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("equilibrium adamw --lr 0.01 --weight-decay 0 --hyperball", "Hyperball(AdamW("),
        ("predict adamw --lr 0.01 --weight-decay 0 --hyperball --schedule cosine --steps 200", "within 5 %"),
        ("simulate lion --lr 0.01 --weight-decay 0 --hyperball --dim 8 --steps 20 --engine numpy", "Hyperball(Lion("),
        ("convert muon --lr 0.02 --to hyperball --shape 64x256", "Hyperball(Muon("),
        ("derive hyperball", "As decay"),
    ],
)
def test_the_command_line_has_it(words, shown, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_rows_of_a_large_matrix_are_uneven_as_declared(monkeypatch, momentum):
    """Only the matrix is held: of rows of several lengths the short ones turn further."""
    rows, dim, matrices = 64, 64, 24
    optimizer = rotsim.Hyperball(rotsim.Muon(0.05 if momentum == 0 else 0.02, 0.0, momentum))
    walk = rotsim.simulate(optimizer, neurons=rows * matrices, dim=dim, rows=rows, steps=4000, record_every=100, seed=3)
    squares = (walk["rotation"].values[:, 20:] ** 2).mean(axis=1).reshape(matrices, rows).mean(axis=1)
    predicted = rotsim.equilibrium(optimizer, dim, rows=rows)
    off = np.sqrt(squares.mean()) / predicted.rotation - 1
    noise = chance.errors(matrices, 3) * squares.std(ddof=1) / squares.mean() / 2 / np.sqrt(matrices)
    assert abs(off) - noise < predicted.model_error < 5 * (abs(off) + noise)
    monkeypatch.setattr("rotsim.theory.hyperball.UNEVEN", np.inf)
    assert rotsim.equilibrium(optimizer, dim, rows=rows).model_error < abs(off) - noise
