"""Muon's Gram chain: its frame, its noise, the same law as the full walk, any number of columns."""

import numpy as np
import pytest

import rotsim
import rotsim.dataset
from rotsim.jit import njit
from rotsim.simulation.engines.base import Problem
from rotsim.simulation.engines.gram_matrix import initial_frame, turn_frame
from rotsim.statistics import autocorrelation_time
from tests import chance
from tests.test_gram import distances

pytestmark = pytest.mark.machine

MUON = rotsim.Muon(0.1, 0.5, 0.8)
MODELS = [rotsim.Isotropic(0.7), rotsim.ScaleInvariant(1.3)]


@njit
def turned(x, gram):
    turn_frame(x, gram)


def test_a_turned_frame_keeps_lengths_and_angles():
    """Of any rows, those that depend on others and those of zeros included."""
    x = np.random.default_rng(0).normal(size=(16, 24))
    x[3], x[5], x[9:11], x[11] = 0.0, x[4], 2 * x[1:3] - x[0], 1e-9 * x[12]
    wanted = x @ x.T
    for turn in (turned, turn_frame):
        found = x.copy()
        turn(found, np.zeros((16, 16)))
        np.testing.assert_allclose(found @ found.T, wanted, rtol=1e-6, atol=1e-13 * wanted.max())
        assert not np.triu(found, 1).any()


def matrices(dim, engine, seed, gradient, optimizer=MUON, rows=3, count=240):
    """Mean over the rows of ‖w‖² and of the angle, at every step in equilibrium: shape (2, matrices, steps)."""
    options = dict(dim=dim, neurons=count * rows, rows=rows, steps=160, record_every=1, dtype="float64")
    norm = rotsim.equilibrium(optimizer, dim, gradient, rows=rows).norm
    data = rotsim.simulate(optimizer, engine=engine, seed=seed, gradient=gradient, initial_norm=norm, **options)
    values = np.array([data["norm"].values ** 2, data["rotation"].values])[:, :, 60:]
    return values.reshape(2, count, rows, -1).mean(axis=2)


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
@pytest.mark.parametrize("dim", [24, pytest.param(60, marks=pytest.mark.slow)])
def test_same_law_as_the_full_walk(model, dim):
    """Means, variances, autocorrelations of ‖w‖² and the angle; a nearby momentum is told apart."""
    full, reduced = matrices(dim, "numba", 1, model), matrices(dim, "gram", 2, model)
    k = chance.errors(240, 10)
    for a, b in zip(full, reduced, strict=True):
        assert distances(a, b).max() < k
        times = autocorrelation_time(a), autocorrelation_time(b)
        error = np.sqrt(2 * 2 * (2 * 5 * times[0] + 1) / a.size)  # Sokal's, of both
        assert times[1] == pytest.approx(times[0], rel=chance.errors() * error)
    wrong = matrices(dim, "gram", 2, model, rotsim.Muon(0.1, 0.5, 0.75))
    assert max(distances(a, b).max() for a, b in zip(full, wrong, strict=True)) > k


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_billion_columns(nesterov):
    """Rows that long are orthogonal already, and nothing is left to chance: the filter alone counts."""
    optimizer, rows, gradient = rotsim.Muon(0.1, 0.5, 0.8, nesterov), 24, rotsim.Isotropic()
    eq = rotsim.equilibrium(optimizer, 10**9, gradient, rows=rows)
    run = dict(neurons=2 * rows, rows=rows, steps=600, record_every=200, initial_norm=eq.norm)
    data = rotsim.simulate(optimizer, 10**9, gradient=gradient, **run)
    assert rotsim.dataset.spec_of(data)["engine"] == "gram"
    for quantity in ("norm", "rotation"):
        assert data[quantity].values[:, 1:].mean() == pytest.approx(getattr(eq, quantity), rel=1e-4)
    wrong = rotsim.equilibrium(rotsim.Muon(0.1, 0.5, 0.8, not nesterov), 10**9, gradient, rows=rows)
    assert abs(wrong.norm / eq.norm - 1) > 0.03


def test_same_bits_for_any_threads_chunks_and_when_resumed(monkeypatch):
    from rotsim.simulation import chunks

    options = dict(dim=10**6, neurons=30, rows=6, record_every=7, seed=3, engine="gram", keep_state=True)
    whole = rotsim.simulate(MUON, steps=40, threads=1, **options)
    part = rotsim.simulate(MUON, steps=17, threads=3, **options)
    assert rotsim.simulate(MUON, steps=40, resume=part, **options).drop_attrs().identical(whole.drop_attrs())
    monkeypatch.setattr(chunks, "MAX_CHUNK_STEPS", 3)
    assert rotsim.simulate(MUON, steps=40, **options).drop_attrs().identical(whole.drop_attrs())
    alone = rotsim.simulate(MUON, steps=40, **{**options, "neurons": 6})
    np.testing.assert_array_equal(alone["norm"], whole["norm"][:6])


def test_it_starts_from_the_given_weights():
    weights = np.random.default_rng(0).normal(size=(6, 24))
    data = rotsim.simulate(rotsim.Muon(1e-9, 0.0), steps=1, initial_weights=weights, rows=3, engine="gram")
    np.testing.assert_allclose(data["norm"].values[:, 0], np.linalg.norm(weights, axis=1), rtol=1e-6)
    norms = np.linalg.norm(weights, axis=1)
    problem = Problem(MUON, MODELS[0], 6, 24, 1, np.dtype("float64"), norms, weights, 3)
    frame = initial_frame(problem)
    for one, other in ((frame[:3], weights[:3]), (frame[3:], weights[3:])):
        np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=1e-10, atol=1e-12)


def test_directions_at_the_start_are_uniform():
    """Squared cosines of rows have mean 1/dim; lengths are those asked for."""
    count, dim = 4000, 8
    problem = Problem(MUON, MODELS[0], 2 * count, dim, 5, np.dtype("float64"), np.full(2 * count, 3.0), None, 2)
    rows = initial_frame(problem).reshape(count, 2, 2)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=2), 3.0, rtol=1e-12)
    square = ((rows[:, 0] * rows[:, 1]).sum(axis=1) / 9) ** 2
    error = square.std() / np.sqrt(count)
    assert abs(square.mean() - 1 / dim) < chance.errors() * error < abs(1 / (dim + 2) - 1 / dim)


def test_chosen_for_long_rows_and_refused_elsewhere():
    def engine(dim, gradient=None, **options):
        data = rotsim.simulate(MUON, dim=dim, neurons=4, steps=1, gradient=gradient, **options)
        return rotsim.dataset.spec_of(data)["engine"]

    given = rotsim.Replay(np.ones((1, 4, 32)))
    assert engine(32) == engine(10**9) == engine(32, rotsim.Isotropic()) == "gram"
    assert engine(32, keep_state=True) == engine(31) == engine(32, given) == "numba"
    for dim, gradient in ((31, None), (32, given)):
        with pytest.raises(rotsim.InvalidInput, match=rf"or Muon on rows .* of 4 x {dim} .* Use engine='numba'"):
            rotsim.simulate(MUON, dim, 4, steps=1, gradient=gradient, engine="gram")
