"""The Gram chain: the same step as the vectors, the right chi-square, the same law as the full walk."""

import numpy as np
import pytest
from scipy import stats

import rotsim
import rotsim.dataset
from rotsim import noise
from rotsim.jit import njit
from rotsim.simulation.engines import gram
from rotsim.statistics import autocorrelation_time
from tests import chance

pytestmark = pytest.mark.machine

SGDM = rotsim.SGDM(lr=0.5, weight_decay=0.1, momentum=0.8)
MODELS = [rotsim.Isotropic(0.7), rotsim.ScaleInvariant(1.3)]


@pytest.mark.parametrize("dim", [2, 3, 50])
def test_a_step_is_that_of_the_vectors(dim):
    rng = np.random.default_rng(dim)
    for _ in range(100):
        w, m, g = rng.normal(size=(3, dim))
        new_m = SGDM.momentum * m + g + SGDM.weight_decay * w
        new_w = w - SGDM.lr * new_m
        e1 = w / np.linalg.norm(w)
        m_across, rest = m - (m @ e1) * e1, g - (g @ e1) * e1
        e2 = m_across / np.linalg.norm(m_across)
        g3 = np.linalg.norm(rest - (rest @ e2) * e2)
        before = (np.linalg.norm(w), m @ e1, np.linalg.norm(m_across))
        got = gram.step(*before, g @ e1, g @ e2, g3, SGDM.lr, SGDM.weight_decay, SGDM.momentum)
        u = new_w / np.linalg.norm(new_w)
        angle = np.arctan2(np.linalg.norm(new_w - (new_w @ e1) * e1), new_w @ e1)
        across = np.linalg.norm(new_m - (new_m @ u) * u)
        expected = (np.linalg.norm(new_w), new_m @ u, across, angle, ((new_w - w) ** 2).sum())
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@njit
def drawn(freedom, key0, key1, count):
    out = np.empty(count)
    for i in range(count):
        out[i] = noise.chi_squared(freedom, key0, key1, i)
    return out


@pytest.mark.few(2)
@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 1000, 10**9])
def test_chi_squared(freedom):
    key = noise.neuron_keys(freedom, 1, 0)[0]
    sample = drawn(freedom, key[0], key[1], 200_000)
    # far out the normal law is the chi-square's to 1e-5, and scipy's own distribution function loses digits
    law = stats.chi2(freedom) if freedom < 10**6 else stats.norm(freedom, np.sqrt(2 * freedom))
    assert stats.kstest(sample, law.cdf).pvalue > chance.share()
    assert stats.kstest(sample, stats.chi2(freedom + 1).cdf).pvalue < chance.SHARE or freedom >= 10**6  # the control
    k = chance.errors(sample.size, 2)
    assert abs((sample.mean() - freedom) / np.sqrt(2 * freedom / sample.size)) < k
    spread = np.sqrt((2 + 12 / freedom) / sample.size)  # standard error of a variance: kurtosis 12/freedom
    assert abs(sample.var() / (2 * freedom) - 1) < k * spread


def series(gradient, dim, engine, seed, momentum=SGDM.momentum):
    """‖w‖² and the angle at every step in equilibrium, shape (2, neurons, steps)."""
    optimizer = rotsim.SGDM(SGDM.lr, SGDM.weight_decay, momentum)
    options = dict(dim=dim, neurons=400, steps=500, record_every=1, gradient=gradient, dtype="float64")
    data = rotsim.simulate(optimizer, engine=engine, seed=seed, **options)
    return np.array([data["norm"].values ** 2, data["rotation"].values])[:, :, 100:]


def distances(a, b):
    """Difference of mean, variance and lagged covariance in standard errors from the spread over neurons."""
    centre, width = a.mean(), a.std()
    out = []
    for lag in (None, 0, 1, 5, 20):
        summaries = []
        for x in ((a - centre) / width, (b - centre) / width):
            pairs = x if lag is None else x[:, lag:] * x[:, : x.shape[1] - lag]
            summaries.append(pairs.mean(axis=1))
        p, q = summaries
        out.append((p.mean() - q.mean()) / np.sqrt((p.var(ddof=1) + q.var(ddof=1)) / len(p)))
    return np.abs(out)


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
@pytest.mark.parametrize("dim", [2, 3, 16])
def test_same_law_as_the_full_walk(model, dim):
    """Means, variances, autocorrelations of ‖w‖² and the angle; a nearby momentum is told apart."""
    full, reduced = series(model, dim, "numba", 1), series(model, dim, "gram", 2)
    k = chance.errors(400, 10)
    for a, b in zip(full, reduced, strict=True):
        assert distances(a, b).max() < k
        times = autocorrelation_time(a), autocorrelation_time(b)
        error = np.sqrt(2 * 2 * (2 * 5 * times[0] + 1) / a.size)  # Sokal's, of both
        assert times[1] == pytest.approx(times[0], rel=chance.errors() * error)
    wrong = series(model, dim, "gram", 2, momentum=0.75)
    assert max(distances(a, b).max() for a, b in zip(full, wrong, strict=True)) > k


@pytest.mark.parametrize("model", MODELS, ids=lambda g: g.name)
def test_a_billion_coordinates(model):
    optimizer = rotsim.SGDM(0.1, 0.01)
    data = rotsim.simulate(optimizer, dim=10**9, neurons=32, steps=12_000, gradient=model, initial_norm=20.0)
    assert '"engine": "gram"' in data.attrs["spec"]
    eq = rotsim.equilibrium(optimizer, 10**9, model)
    assert data["rotation"].values[:, -20:].mean() == pytest.approx(eq.rotation, rel=1e-4)
    assert data["norm"].values[:, -20:].mean() == pytest.approx(eq.norm, rel=1e-3)


def test_same_bits_for_any_threads_and_when_resumed():
    options = dict(dim=10**6, neurons=5, record_every=50, seed=3, engine="gram")
    whole = rotsim.simulate(SGDM, steps=330, keep_state=True, threads=1, **options)
    part = rotsim.simulate(SGDM, steps=120, keep_state=True, threads=3, **options)
    again = rotsim.simulate(SGDM, steps=330, keep_state=True, resume=part, **options)
    assert whole.drop_attrs().identical(again.drop_attrs())


def test_transient_starts_from_the_given_weights():
    weights = np.random.default_rng(0).normal(size=(4, 10))
    data = rotsim.simulate(rotsim.SGDM(1e-9, 0.0), steps=1, initial_weights=weights, engine="gram")
    np.testing.assert_allclose(data["norm"].values[:, 0], np.linalg.norm(weights, axis=1), rtol=1e-6)


def test_chosen_where_valid_and_refused_elsewhere():
    def engine(optimizer, dim, gradient=None, **options):
        data = rotsim.simulate(optimizer, dim=dim, neurons=1, steps=1, gradient=gradient, **options)
        return rotsim.dataset.spec_of(data)["engine"]

    assert engine(SGDM, 2) == engine(SGDM, 10**9) == engine(SGDM, 16, rotsim.Isotropic()) == "gram"
    assert engine(SGDM, 16, keep_state=True) == "numba"  # asked for weights, it has them
    assert engine(rotsim.AdamW(1e-3, 0.1), 16) == "numba"
    replay = rotsim.Replay(np.ones((1, 1, 16)))
    assert engine(SGDM, 16, replay) == "numba"
    for optimizer, gradient in ((rotsim.AdamW(1e-3, 0.1), None), (SGDM, replay)):
        with pytest.raises(rotsim.InvalidInput, match=r"needs SGDM, its .* Use engine='numba'"):
            rotsim.simulate(optimizer, steps=1, gradient=gradient, engine="gram")


@pytest.mark.parametrize("made_with", ["gram", "numba"])
def test_a_resumed_walk_goes_on_with_the_engine_it_has(made_with):
    options = dict(dim=8, neurons=2, record_every=5)
    whole = rotsim.simulate(SGDM, steps=20, engine=made_with, **options)
    part = rotsim.simulate(SGDM, steps=11, engine=made_with, keep_state=True, **options)
    again = rotsim.simulate(SGDM, steps=20, resume=part, **options)
    assert again.drop_attrs().identical(whole.drop_attrs())
    assert rotsim.dataset.spec_of(again)["engine"] == made_with
