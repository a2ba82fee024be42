"""The rotational Gram chain: the same steps as the vectors on the same noise, the same law on its own."""

import numpy as np
import pytest
from scipy import stats

import rotsim
from rotsim import noise
from rotsim.compiled import specialised
from rotsim.dataset import spec_of
from rotsim.gradients.base import shape_noise
from rotsim.simulation import chunks
from rotsim.simulation.arguments import Neurons, Steps, Windows
from rotsim.simulation.engines import engine_for, gram_rotational
from rotsim.simulation.engines.base import Problem
from rotsim.simulation.state import fresh
from rotsim.simulation.workspace import workspace
from tests import chance
from tests.test_gram import distances

pytestmark = pytest.mark.machine

MODELS = [rotsim.Isotropic(0.7), rotsim.ScaleInvariant(1.3)]
STEPS = 200


def variant(zero_mean=True, momentum=0.8, decay=0.6):
    return rotsim.Rotational(rotsim.SGDM(0.5, 0.1, momentum), update_norm_decay=decay, zero_mean=zero_mean)


def ball(momentum=0.8):
    return rotsim.Hyperball(rotsim.SGDM(0.3, 0.0, momentum))


def problem_of(optimizer, model, weights):
    """One neuron with these weights."""
    norms = np.linalg.norm(weights[None], axis=1)
    return Problem(optimizer, model, 1, weights.size, 0, np.dtype(np.float64), norms, weights[None])


def kernel_on_given_noise(name, optimizer, weights):
    """What an engine walks by, where the gradients of every step are given."""
    given = rotsim.Replay(np.ones((1, 1, weights.size)))
    return engine_for(name, optimizer, given).kernel(problem_of(optimizer, given, weights))


def table_of(optimizer):
    """Coefficients under a learning rate that rises and is zero at every seventh step, the first included."""
    number = np.arange(1, STEPS + 1)
    lr = optimizer.lr * np.where(number % 7 == 1, 0.0, number / STEPS)
    return optimizer.coefficient_table(number, lr, np.full(STEPS, optimizer.weight_decay))


def direction(v, rng, *others):
    """v/‖v‖; where nothing is left of v, some unit vector across the others."""
    if np.linalg.norm(v) < 1e-12:
        v = rng.normal(size=v.size)
        for other in others:
            v = v - (v @ other) * other
    length = np.linalg.norm(v)
    return v / length if length > 1e-12 else np.zeros(v.size)


def walk_of_vectors(optimizer, model, weights, walk):
    """Walk one neuron by `walk`: the chain's numbers at the end, the records, the noise as the chain sees it."""
    rng = np.random.default_rng(5)
    dim, orthogonal = weights.size, isinstance(model, rotsim.ScaleInvariant)
    table = table_of(optimizer)
    slots, norm_squared = np.zeros((1, 4, dim)), np.array([weights @ weights])
    slots[0, 0] = weights
    keys, records = noise.neuron_keys(0, 1, 0), np.zeros((1, 3, STEPS))
    room = workspace(model, dim, np.dtype(np.float64), optimizer.memory_slots)
    e = np.full(dim, dim**-0.5) if getattr(optimizer, "zero_mean", False) else np.zeros(dim)
    seen = []

    def frame():
        """p, q and the directions c and d."""
        w, m = slots[0, 0], slots[0, 1]
        centred, rest = w - (w @ e) * e, m - (m @ e) * e
        norm, length = np.linalg.norm(w), np.linalg.norm(rest)
        c = direction(centred, rng, e, rest / length if length else rest)
        return (w @ e) / norm, np.linalg.norm(centred) / norm, c, direction(rest - (rest @ c) * c, rng, e, c)

    for t in range(STEPS):
        p, q, c, d = frame()
        z = rng.normal(size=dim)
        first = p * c - q * e if orthogonal else c
        seen.append((z @ first, z @ d, np.linalg.norm(z - (z @ e) * e - (z @ c) * c - (z @ d) * d)))
        g = shape_noise(z[None], slots[0, :1], np.array([model.scale]), orthogonal)
        neurons = Neurons(slots, norm_squared, keys, np.zeros((1, 1)))
        walk((0, 1), neurons, Steps(t + 1, table[t : t + 1], g[None]), room, Windows(records, 1, 0))
    p, q, c, d = frame()
    w, m = slots[0, :2]
    return np.array([np.linalg.norm(w), m @ c, m @ d, slots[0, -1, 0], p, q]), records[0], seen


def walk_of_chain(optimizer, model, weights, seen):
    """The chain's walk on given noise: its numbers at the end and its records."""
    orthogonal = isinstance(model, rotsim.ScaleInvariant)
    problem = problem_of(optimizer, model, weights)
    chain = engine_for("gram", optimizer, model).fresh(problem)
    records = np.zeros((1, 3, STEPS))
    turning = specialised(gram_rotational._step, "step_on_given_noise", {"_turn": type(optimizer).turn})
    bound = {"components": lambda freedom, key0, key1, step: seen[step - 1], "_step": turning}
    walk = specialised(gram_rotational._walk, "walk_on_given_noise", bound)
    scale = np.array([model.scale * (weights.size**-0.5 if orthogonal else 1.0)])
    neurons = Neurons(chain.slots, chain.norm_squared, np.zeros((1, 2), np.uint32), np.ones((1, 1)))
    steps = Steps(1, table_of(optimizer), np.zeros((1, 1, 0)))
    walk((0, 1), neurons, steps, Windows(records, 1, 0), scale, orthogonal, None)
    return chain.slots[0, :, 0], records[0]


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
@pytest.mark.parametrize(("dim", "zero_mean"), [(2, False), (3, False), (50, False), (3, True), (4, True), (50, True)])
def test_takes_the_steps_of_the_vectors(dim, zero_mean, model):
    """The NumPy twin's vectors, weights with a large mean; forgetting that mean is noticed."""
    optimizer = variant(zero_mean)
    weights = np.random.default_rng(dim).normal(1.0, 0.5, size=dim)
    twin = kernel_on_given_noise("numpy", optimizer, weights)
    vectors, records, seen = walk_of_vectors(optimizer, model, weights, twin)
    chain, own = walk_of_chain(optimizer, model, weights, seen)
    np.testing.assert_allclose(chain, vectors, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(own, records, rtol=1e-9, atol=1e-14)
    if zero_mean:
        centred = weights - weights.mean()
        other, others = walk_of_chain(optimizer, model, centred * (vectors[0] / np.linalg.norm(centred)), seen)
        assert abs(other[1:3] - vectors[1:3]).max() > 1e-3 and abs(others - own)[1].max() > 1e-4


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
@pytest.mark.parametrize("dim", [2, 3, 50])
def test_takes_the_steps_of_the_vectors_of_a_hyperball(dim, model):
    """But for the running mean, which no step of it asks for. Another momentum is noticed."""
    weights = np.random.default_rng(dim).normal(1.0, 0.5, size=dim)
    vectors, records, seen = walk_of_vectors(ball(), model, weights, kernel_on_given_noise("numpy", ball(), weights))
    chain, own = walk_of_chain(ball(), model, weights, seen)
    np.testing.assert_allclose(chain[:3], vectors[:3], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(own, records, rtol=1e-9, atol=1e-14)
    _, others = walk_of_chain(ball(0.7), model, weights, seen)
    assert abs(others - own)[1].max() > 1e-4


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
def test_equal_weights_have_no_centred_direction(model):
    """The kernel's vectors, since the twin divides by zero."""
    optimizer = variant()
    walk = kernel_on_given_noise("numba", optimizer, np.full(16, 2.0))
    vectors, records, seen = walk_of_vectors(optimizer, model, np.full(16, 2.0), walk)
    chain, own = walk_of_chain(optimizer, model, np.full(16, 2.0), seen)
    np.testing.assert_allclose(chain, vectors, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(own, records, rtol=1e-9, atol=1e-14)


def walked(optimizer, dim, engine, model, steps, neurons, **options):
    """The angle at every step (neurons, steps), and the mean's share of the weights at the end."""
    options = dict(dim=dim, neurons=neurons, steps=steps, record_every=1, gradient=model, dtype="float64") | options
    data = rotsim.simulate(optimizer, engine=engine, seed=3 + (engine == "gram"), keep_state=True, **options)
    state = data["state"].values
    w = state[:, 0]
    share = state[:, 4, 0] if engine == "gram" else w.mean(axis=1) * np.sqrt(dim) / np.linalg.norm(w, axis=1)
    norm, angle = data["norm"].values, data["rotation"].values
    np.testing.assert_allclose(norm, np.linalg.norm(w, axis=1)[:, None] * np.ones(steps), rtol=1e-12)
    np.testing.assert_allclose(data["update_rms"], 2 * norm * np.sin(angle / 2), rtol=1e-9)
    return angle, share


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
@pytest.mark.parametrize(
    ("dim", "zero_mean"),
    [(3, True), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, False), (16, True)))],
)
def test_same_law_as_the_full_walk_in_equilibrium(dim, zero_mean, model):
    """Mean, variance, lagged covariances of the angle; another momentum and another running mean are told apart."""
    full, _ = walked(variant(zero_mean), dim, "numpy", model, 150, 800)
    reduced, _ = walked(variant(zero_mean), dim, "gram", model, 150, 800)
    full, reduced = full[:, 40:], reduced[:, 40:]
    k = chance.errors(800, 5)
    assert distances(full, reduced).max() < k
    for wrong in (variant(zero_mean, momentum=0.7), variant(zero_mean, decay=0.65)):
        other, _ = walked(wrong, dim, "gram", model, 150, 800)
        assert distances(full, other[:, 40:]).max() > k


def transient_distances(a, b):
    """Largest difference of mean, variance and covariance with one and three steps before, in standard errors."""
    centre = a.mean(axis=0)
    a, b = a - centre, b - centre
    out = []
    for lag in (None, 0, 1, 3):
        p, q = (x if lag is None else x[:, lag:] * x[:, : x.shape[1] - lag] for x in (a, b))
        out.append(np.abs(p.mean(axis=0) - q.mean(axis=0)) / np.sqrt((p.var(axis=0) + q.var(axis=0)) / len(p)))
    return max(x.max() for x in out)


@pytest.mark.few(2)
@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
@pytest.mark.parametrize(("dim", "zero_mean"), [(8, False), (3, True), (8, True)])
def test_same_law_as_the_full_walk_in_the_transient(dim, zero_mean, model):
    """Momentum and running mean fill up, weights lose the mean they started with; the first angle is θ exactly."""
    weights = np.random.default_rng(7).normal(1.0, size=(3000, dim))
    options = dict(model=model, steps=40, neurons=3000)
    (full, share), (reduced, own) = (
        walked(variant(zero_mean), dim, engine, initial_weights=weights, **options) for engine in ("numpy", "gram")
    )
    theta = variant().leading_rotation(0.5, 0.1)
    np.testing.assert_allclose(np.stack([full[:, 0], reduced[:, 0]]), theta, rtol=1e-9)
    k = chance.errors(3000, 4 * 39)
    assert transient_distances(full[:, 1:], reduced[:, 1:]) < k
    wrong, _ = walked(variant(zero_mean, decay=0.5), dim, "gram", **options)
    assert transient_distances(full[:, 1:], wrong[:, 1:]) > k
    if zero_mean:
        assert share.mean() > 0.2 and stats.ks_2samp(share, own).pvalue > chance.share()
        _, none = walked(variant(), dim, "gram", **options)
        assert stats.ks_2samp(share, none).pvalue < chance.SHARE


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
def test_same_law_as_the_full_walk_of_a_hyperball(model):
    """From empty averages on, and at rest; another momentum is told apart."""
    options = dict(dim=4, steps=60, neurons=2000, record_every=1, gradient=model, dtype="float64")
    one, other, wrong = (
        rotsim.simulate(spec, engine=engine, seed=seed, **options)["rotation"].values
        for spec, engine, seed in ((ball(), "numpy", 3), (ball(), "gram", 4), (ball(0.7), "gram", 4))
    )
    k = chance.errors(2000, 4 * 60)
    assert transient_distances(one, other) < k < transient_distances(one, wrong)


@pytest.mark.parametrize("dim", [3, 50, 10**9])
def test_uniform_directions_have_the_right_mean(dim):
    mean, centred = gram_rotational.initial_shares(20_000, dim, 5, None)
    np.testing.assert_allclose(mean**2 + centred**2, 1, rtol=1e-14)
    assert stats.kstest(mean**2, stats.beta(0.5, (dim - 1) / 2).cdf).pvalue > chance.share()
    assert abs(np.sign(mean).mean()) < chance.errors() / np.sqrt(20_000)
    assert stats.kstest(mean**2, stats.beta(0.5, dim / 2 + 0.5).cdf).pvalue < chance.SHARE or dim > 10  # the control
    if dim < 100:
        w = fresh((20_000, 3, dim), 6, np.ones(20_000), None, np.dtype(float)).slots[:, 0]
        assert stats.ks_2samp(mean, w.sum(axis=1) / np.sqrt(dim)).pvalue > chance.share()


@pytest.mark.parametrize("optimizer", [rotsim.Rotational(rotsim.SGDM(0.1, 0.01)), ball()], ids=lambda o: o.name)
@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
def test_a_billion_coordinates(model, optimizer):
    data = rotsim.simulate(optimizer, dim=10**9, neurons=8, steps=1000, gradient=model, initial_norm=20.0)
    assert spec_of(data)["engine"] == "gram"
    rotation = rotsim.equilibrium(optimizer, 10**9, model).rotation
    assert data["rotation"].values[:, 2:].mean() == pytest.approx(rotation, rel=1e-4)
    np.testing.assert_allclose(data["norm"], 20.0, rtol=1e-12)


def test_same_bits_for_any_threads_and_chunks_and_when_resumed(monkeypatch, tmp_path):
    options = dict(dim=10**6, neurons=5, record_every=50, seed=3, keep_state=True, engine="gram")
    whole = rotsim.simulate(variant(), steps=330, threads=1, **options)
    part = rotsim.simulate(variant(), steps=120, threads=3, **options)
    again = rotsim.simulate(variant(), steps=330, resume=part, **options)
    monkeypatch.setattr(chunks, "MAX_CHUNK_STEPS", 70)
    file, kept = tmp_path / "checkpoint.nc", []

    def progress(done, total):  # called before the checkpoint of the same chunk
        if done == 140:
            kept.append(rotsim.load(file))

    saving = dict(progress=progress, checkpoint=file, checkpoint_seconds=1e-9)
    cut = rotsim.simulate(variant(), steps=330, threads=2, **saving, **options)  # chunks shrink with the threads
    assert kept[0].step[-1] == 70
    onward = rotsim.simulate(variant(), steps=330, resume=kept[0], **options)
    for other in (again, cut, onward):
        assert whole.drop_attrs().identical(other.drop_attrs())


def test_chosen_where_valid_and_refused_elsewhere():
    def engine(optimizer, dim, **options):
        return spec_of(rotsim.simulate(optimizer, dim=dim, neurons=1, steps=1, **options))["engine"]

    assert engine(variant(), 3) == engine(variant(), 10**9) == "gram"
    assert engine(variant(), 3, engine="gram") == engine(variant(zero_mean=False), 2, engine="gram") == "gram"
    assert engine(ball(), 2) == engine(ball(), 10**9) == "gram"
    with pytest.raises(rotsim.InvalidInput, match=r"needs SGDM, its .*got Rotational\(AdamW\(.* Use engine='numba'"):
        engine(rotsim.Rotational(rotsim.AdamW(1e-3, 0.1)), 10, engine="gram")
    with pytest.raises(rotsim.InvalidInput, match=r"`dim` must be >= 3 for Rotational, .*; got 2"):
        engine(variant(), 2, engine="gram")


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_size_of_the_gradient_leaves_the_floats(scale):
    """1e200 was once a size, and squares of it made the walk end as diverged: the largest that is let in must not."""
    run = dict(dim=10, neurons=3, steps=50, engine="gram", dtype="float64", record_every=1)
    one, extreme = (
        rotsim.simulate(variant(), gradient=rotsim.Isotropic(size), **run)["rotation"] for size in (1.0, scale)
    )
    np.testing.assert_allclose(extreme, one, rtol=1e-9)
    with pytest.raises(rotsim.InvalidInput, match=r"`scale` must be"):
        rotsim.Isotropic(1e200)
