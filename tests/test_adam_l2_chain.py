"""Adam+L2's Markov chain: moments against a simulation of its own, its limits, and finer resolution."""

import numpy as np
import pytest
from scipy.special import ndtr

import rotsim
from experiments.exactness import settings
from rotsim import closed_forms
from rotsim.theory import adam_l2_chain as chain
from rotsim.theory import coupled, second_moment
from rotsim.theory.covariance import adam_covariance
from tests import chance

BETAS = [(0.0, 0.5), (0.9, 0.3), (0.9, 0.5), (0.98, 0.9), (0.8, 0.95), (0.95, 0.99), (0.98, 0.999), (0.9, 0.9999)]


def linear_response(h, beta1, beta2, kept, square):
    """E x² and 1 - ρ as the walk of `coupled` has them, at the v of E x² = `square`."""
    response, memory = second_moment.mean_response(beta1, beta2)
    noise = adam_covariance(beta1, beta2)
    linear = coupled.stationary(h, response / np.sqrt(1 + square), memory, noise, kept)
    return linear.norm_squared / (1 + square), linear.one_minus_cosine


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("h", "betas", "kept"),
    [
        (0.08, (0.98, 0.9), 1.0), (0.1, (0.8, 0.5), 1.0), (1.0, (0.9, 0.9), 1.0),
        (0.05, (0.98, 0.5), 0.97), (-0.02, (0.98, 0.5), 0.95),  # a radial part under AdamW, inwards and outwards
    ],
    ids=str,
)  # fmt: skip
def test_agrees_with_a_simulation_where_linear_response_fails(h, betas, kept):
    """The chain as it is written, in float64: 12 000 coordinates, errors from their spread."""
    (beta1, beta2), generator, expected = betas, np.random.default_rng(4), chain.steady(h, *betas, kept)
    x = np.sqrt(expected.norm_squared) * generator.standard_normal(12_000)
    m, v = np.zeros_like(x), np.ones_like(x)
    square, moved = np.zeros_like(x), np.zeros_like(x)
    for t in range(1600):
        y = generator.standard_normal(len(x)) + x
        m += (1 - beta1) * (y - m)
        v += (1 - beta2) * (y * y - v)
        change = h * m / np.sqrt(v) + (1 - kept) * x
        x -= change
        if t >= 600:
            square += x * x / 1000
            moved += change * change / 1000
    error = square.std() / square.mean() / np.sqrt(len(x))
    half = moved.mean() / (2 * square.mean())
    half_error = (moved / moved.mean() - square / square.mean()).std() / np.sqrt(len(x))
    k = chance.errors(len(x), 2)
    assert abs(square.mean() / expected.norm_squared - 1) < k * error + 2 * expected.model_error
    assert abs(half / expected.one_minus_cosine - 1) < k * half_error + 2 * expected.model_error
    wrong, wrong_half = linear_response(h, *betas, kept, expected.norm_squared)
    assert abs(square.mean() / wrong - 1) > k * error or abs(half / wrong_half - 1) > k * half_error


@pytest.mark.parametrize("h", [1e-7, 1e-17, 1e-30])
@pytest.mark.parametrize("betas", BETAS, ids=str)
def test_small_steps_are_the_quadrature_of_the_noise(betas, h):
    """E x²/h → (K_0 + 2 Σ K_k)/(2κ) and E dx² → h² K_0 as h → 0, from integrals that share no code with the chain."""
    noise, (response, _) = adam_covariance(*betas), second_moment.mean_response(*betas)
    found = chain.steady(h, *betas)
    growth = noise.lag_0 * (1 + 2 * noise.discounted_sum(1.0))
    assert found.norm_squared == pytest.approx(h * growth / (2 * response), rel=1e-5)
    assert 2 * found.norm_squared * found.one_minus_cosine == pytest.approx(h**2 * noise.lag_0, rel=1e-5)
    assert growth / response != pytest.approx(1, rel=1e-5)  # constant v


@pytest.mark.parametrize("eps", [0.0, 1e3])
@pytest.mark.parametrize("lag", [1, 100, 10**12])
def test_steps_too_small_to_be_resolved_turn_in_proportion(lag, eps):
    """On either side of where rounding takes over: h·lag alone counts once lags are long, h before."""
    near, far = (chain.fallen(h * (1 + eps), 0.9, 0.5, round(lag * s), eps) for h, s in ((1e-9, 1e-4), (1e-13, 1.0)))
    if lag == 10**12:
        assert far == pytest.approx(near, rel=1e-4) and 0.05 < far < 0.2
    else:
        assert far == pytest.approx(1e-4 * chain.fallen(1e-9 * (1 + eps), 0.9, 0.5, lag, eps), rel=1e-5)


@pytest.mark.parametrize("beta1", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("h", [1e-3, 0.1, 0.5])
def test_constant_second_moment_is_the_limit(h, beta1):
    gaps = []
    for beta2 in (1 - 1e-5, 1 - 1e-6):
        found = chain.steady(h, beta1, beta2)
        image = closed_forms.adam_l2_exact_norm_squared_map(h, 1.0, beta1, 1.0, found.norm_squared, 1.0, 0.0)
        half = closed_forms.adam_l2_exact_one_minus_cosine(h, 1.0, beta1, 1 + found.norm_squared)
        gaps.append([found.norm_squared / image - 1, found.one_minus_cosine / half - 1])
    assert np.abs(gaps[1]).max() < 2e-5
    assert np.abs(gaps[1]).max() < 0.3 * np.abs(gaps[0]).max()


@pytest.mark.parametrize(
    "case",
    [(0.08, 0.98, 0.95), (1e-3, 0.9, 0.95), (0.08, 0.98, 0.5), (0.08, 0.9, 0.2), (1.0, 0.98, 0.9), (10.0, 0.9, 0.9)],
    ids=str,
)
def test_declared_error_covers_a_finer_cut(case):
    """Degree 8 with 28 points, in the range of the exactness experiment and beyond it."""
    found = chain.steady(*case)
    square, moved = chain._solve(*case, 1.0, 0.0, 8, 28, found.norm_squared)
    off = np.abs(np.log([square / found.norm_squared, moved / (2 * square) / found.one_minus_cosine])).max() / 2
    assert off < found.model_error
    assert found.model_error < 1e-4 or case[0] >= 1 or case[2] < 0.5


def test_declared_error_in_the_range_of_the_exactness_experiment():
    cases = [(o.lr * o.weight_decay, *o.betas) for o in settings("adam_l2", 60)]
    assert max(chain.steady(*case).model_error for case in cases) < 1e-5


def test_where_the_cut_does_not_converge_the_error_is_infinite():
    found = chain.steady(1.0, 0.98, 0.5)
    assert found.model_error == np.inf and 0 < found.norm_squared < 2 and 0 < found.one_minus_cosine < 2
    eq = rotsim.equilibrium(rotsim.AdamL2(0.1, 10.0, (0.98, 0.5)), 64, rotsim.Isotropic())
    assert eq.model_error == np.inf and np.isfinite([eq.norm, eq.rotation]).all()


def test_a_sign_without_memory():
    """β1 = β2 = 0: x' = x - h sign(z + x) is a walk on a lattice, whose law follows from detailed balance."""
    h = 0.3
    found = chain.steady(h, 0.0, 0.0)
    assert 2 * found.norm_squared * found.one_minus_cosine == pytest.approx(h * h, rel=1e-5)
    x = h * np.arange(-20, 21)
    up = ndtr(-x)
    weight = np.concatenate([[0.0], np.cumsum(np.log(up[:-1] / (1 - up[1:])))])
    law = np.exp(weight - weight.max())
    assert found.norm_squared == pytest.approx((law * x**2).sum() / law.sum(), rel=1e-5)
    assert found.norm_squared == pytest.approx(chain.steady(h, 0.0, 1e-6).norm_squared, rel=0.01)  # continuous in β2


@pytest.mark.parametrize("case", [(0.01, 0.9, 0.1), (0.3, 0.5, 1.0), (0.02, 0.0, 0.03)], ids=str)
def test_a_second_moment_without_memory_is_the_limit_of_one_with(case):
    """β2 = 0 has one node of v; β2 = 1e-9, as good as none beside ε, has many, and other points of y."""
    h, beta1, eps = case
    one, many, other = (chain.steady(h, beta1, beta2, eps=eps) for beta2 in (0.0, 1e-9, 0.01))
    for name in ("norm_squared", "one_minus_cosine"):
        assert getattr(one, name) == pytest.approx(getattr(many, name), rel=1e-6)
        assert getattr(one, name) != pytest.approx(getattr(other, name), rel=1e-3)  # control
    lag = [chain.fallen(h, beta1, beta2, 30, eps) for beta2 in (0.0, 1e-9)]
    assert lag[0] == pytest.approx(lag[1], rel=1e-6)


@pytest.mark.parametrize("betas", [(0.98, 0.9), (0.9, 0.999)], ids=str)
def test_scale_invariant_weights_make_their_own_noise(betas):
    """At the norm it finds, white noise of the variance that the norm gives leads to the same state."""
    opt, dim = rotsim.AdamL2(0.01, 3.0, betas, eps=0), 256
    found = rotsim.equilibrium(opt, dim, rotsim.ScaleInvariant(2.0))
    white = rotsim.equilibrium(opt, dim, rotsim.Isotropic(2.0 * np.sqrt((dim - 1) / dim) / np.sqrt(dim) / found.norm))
    assert found.norm == pytest.approx(white.norm, rel=1e-9)
    assert found.update_rms == pytest.approx(white.update_rms, rel=1e-9)


@pytest.mark.parametrize(("h", "betas"), [(0.1, (0.98, 0.5)), (0.08, (0.98, 0.9)), (0.01, (0.0, 0.9))], ids=str)
def test_correlation_over_many_steps(h, betas):
    """One step is the cosine of `steady`, which takes another way to it; 5 and 20 are those of the chain as written."""
    (beta1, beta2), generator, expected = betas, np.random.default_rng(6), chain.steady(h, *betas)
    assert chain.fallen(h, *betas, 0) == 0
    assert chain.fallen(h, *betas, 1) == pytest.approx(expected.one_minus_cosine, rel=1e-4)
    assert chain.fallen(h, *betas, 10**7) == pytest.approx(1, rel=1e-9)
    x = np.sqrt(expected.norm_squared) * generator.standard_normal(6000)
    m, v = np.zeros_like(x), np.ones_like(x)
    lags, past = (1, 5, 20), []
    square, fallen = np.zeros_like(x), np.zeros((len(lags), len(x)))
    for t in range(900):
        y = generator.standard_normal(len(x)) + x
        m += (1 - beta1) * (y - m)
        v += (1 - beta2) * (y * y - v)
        x = x - h * m / np.sqrt(v)
        past = [*past[-20:], x]
        if t >= 400:
            square += x * x
            fallen += [(x - past[-1 - lag]) ** 2 / 2 for lag in lags]
    k = chance.errors(len(x), len(lags))
    for row, lag in zip(fallen, lags, strict=True):
        ratio = row.mean() / square.mean()
        error = (row / row.mean() - square / square.mean()).std() / np.sqrt(len(x))
        assert abs(ratio / chain.fallen(h, *betas, lag) - 1) < k * error < 0.05
        assert abs(ratio / chain.fallen(h, *betas, lag + 2) - 1) > k * error
