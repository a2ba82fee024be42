"""Adam's update with v left random: quadrature against Monte Carlo, one-dimensional integrals and walks."""

from dataclasses import replace

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.signal import lfilter
from scipy.special import erfcx
from sympy import lambdify

import rotsim
from derivations import symbols
from derivations.second_moment_fluctuation import settled_ratio
from rotsim import closed_forms
from rotsim.theory import second_moment
from rotsim.theory.covariance import adam_covariance
from tests import chance

BETAS = [(0.9, 0.5), (0.5, 0.5), (0.9, 0.9), (0.95, 0.95), (0.9, 0.99), (0.0, 0.6)]
LAGS = np.array([0, 1, 3, 8])


def frozen(beta1, lag):
    return (1 - beta1) / (1 + beta1) * beta1**lag


@pytest.mark.few(2)
@pytest.mark.parametrize("betas", BETAS, ids=str)
def test_covariance_agrees_with_monte_carlo(betas):
    """7 million updates a case, errors from 1000 independent chains; constant v must fail at lag 0.

    What a constant v makes of the same gradients has a known mean, and most of the noise: it is taken off.
    """
    beta1, beta2 = betas
    g = np.random.default_rng(5).standard_normal((1000, 9000))
    m = lfilter([1 - beta1], [1, -beta1], g)
    v = lfilter([1 - beta2], [1, -beta2], g * g)
    u, m = (m / np.sqrt(v))[:, 1500:], m[:, 1500:]
    predicted = adam_covariance(beta1, beta2)(LAGS)
    k = chance.errors(len(u), len(LAGS))
    for lag, value in zip(LAGS, predicted, strict=True):
        product, constant = ((x[:, : x.shape[1] - lag] * x[:, lag:]).mean(axis=1) for x in (u, m))
        for found, expected in ((product, value), (product - constant, value - frozen(beta1, lag))):
            error = found.std(ddof=1) / np.sqrt(len(found))
            assert abs(found.mean() - expected) < k * error
        if lag == 0:
            assert abs(found.mean()) > k * error


@pytest.mark.parametrize("betas", [*BETAS, (0.98, 0.999), (0.9, 0.9999)], ids=str)
def test_lag_zero_is_the_one_dimensional_integral(betas):
    """E[m²/v] = ∫ P S dσ, factor by factor and by adaptive quadrature: no series, no grid, no fit in common."""
    beta1, beta2 = betas
    i = np.arange(int(np.ceil(np.log(1e-13) / np.log(max(betas)))))
    c, d = (1 - beta1) * beta1**i, (1 - beta2) * beta2**i

    def integrand(y):
        q = 1 + 2 * np.exp(y) * d
        return np.exp(y - np.log(q).sum() / 2) * (c * c / q).sum()

    expected = quad(integrand, -30, 12, epsrel=1e-8, epsabs=0, limit=300)[0]
    assert adam_covariance(beta1, beta2).lag_0 == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("beta2", [0.1, 0.5, 0.599, 0.6, 0.9, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9, 0.98, 0.9999])
def test_declared_error_is_small_and_covers_a_finer_quadrature(beta1, beta2):
    covariance = adam_covariance(beta1, beta2)
    assert covariance.error < (2e-5 if beta2 >= 0.5 else 2e-4)
    lags = np.array([0, 1, 2, 4, 7, 13, 40])
    fine = beta1**lags * second_moment.decorrelation(beta2 ** lags.astype(float), beta1, beta2, step=0.05)
    assert (np.abs(covariance(lags) - fine) <= (covariance.error + 1e-8) * fine).all()


@pytest.mark.few(1)
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
def test_first_order_in_its_fluctuation_is_the_derived_one(beta1):
    """The quadrature against the moments of v: what is left over falls as (1-β2)²; E[v/v] = 1 holds to all digits."""
    first_order = lambdify((symbols.beta1, symbols.beta2), settled_ratio().rhs)
    gap = [
        adam_covariance(beta1, beta2).lag_0 / frozen(beta1, 0) - first_order(beta1, beta2) for beta2 in (0.999, 0.9999)
    ]
    assert abs(gap[0]) < 3e-6
    assert gap[0] / gap[1] == pytest.approx(100, rel=0.03)
    for beta2 in (0.3, 0.9, 0.999):  # S with d in the place of c² is what β1² = β2 makes of it
        sigma = np.exp(np.arange(-40, 40, 0.05))
        log_p, total = second_moment.log_product_and_sum(sigma, np.sqrt(beta2), beta2)
        share = total * (1 - beta2) / (1 - np.sqrt(beta2)) ** 2
        assert 0.05 * (np.exp(log_p) * share * sigma).sum() == pytest.approx(1, abs=1e-12)


def test_constant_second_moment_is_the_limit():
    """As β2 → 1 the covariance tends to that of the momentum alone, linearly in 1 - β2."""
    gap = [adam_covariance(0.9, b)(LAGS) / frozen(0.9, LAGS) - 1 for b in (0.999, 0.9999)]
    assert np.abs(gap[1]).max() < 2e-4
    assert np.allclose(gap[1], gap[0] / 10, rtol=0.02)
    opt = rotsim.AdamW(1e-2, 0.1, betas=(0.9, 0.9999), eps=0)
    assert rotsim.equilibrium(opt, 10**9).norm ** 2 == pytest.approx(
        closed_forms.adamw_exact_norm_squared(1e-2, 0.1, 0.9, 10**9), rel=3e-4
    )


def test_modes_sum_like_the_covariance():
    covariance = adam_covariance(0.95, 0.8)
    lags = np.arange(1, 2000)
    assert covariance.discounted_sum(0.99) == pytest.approx((0.99**lags * covariance(lags)).sum() / covariance.lag_0)


@pytest.mark.few(2)
@pytest.mark.parametrize("betas", [(0.9, 0.5), (0.5, 0.9), (0.9, 0.95), (0.9, 0.99)], ids=str)
def test_walks_agree_where_constant_v_fails(betas):
    """Full simulations: exact within the noise, constant v rejected by the same comparison."""
    dim, gradient = 256, rotsim.Isotropic()
    opt = rotsim.AdamW(lr=0.1, weight_decay=0.2, betas=betas)
    eq = rotsim.equilibrium(opt, dim, gradient)
    walk = rotsim.simulate(
        opt, dim=dim, neurons=256, steps=6000, gradient=gradient, initial_norm=eq.norm, seed=3, record_every=20
    )
    k = chance.errors(256, 3)
    report = rotsim.compare(walk, eq, k=k, tolerance=1 / dim**2)
    assert report.passed, "\n" + report.table()
    wrong = replace(
        eq,
        norm=float(np.sqrt(closed_forms.adamw_exact_norm_squared(0.1, 0.2, betas[0], dim))),
        rotation=float(np.sqrt(2 * closed_forms.adamw_exact_one_minus_cosine(0.1, 0.2, betas[0]))),
    )
    assert {c.verdict for c in rotsim.compare(walk, wrong, k=k, tolerance=1 / dim**2)} >= {"FAIL"}


EPS_CASES = [((0.9, 0.95), 0.03), ((0.9, 0.99), 1.0), ((0.0, 0.9), 30.0), ((0.5, 0.5), 0.3), ((0.0, 0.0), 0.1)]


def by_monte_carlo(betas, eps, lags):
    """E[u_t u_{t+k}] and standard errors of 1000 chains."""
    beta1, beta2 = betas
    g = np.random.default_rng(8).standard_normal((1000, 5000))
    u = lfilter([1 - beta1], [1, -beta1], g) / (np.sqrt(lfilter([1 - beta2], [1, -beta2], g * g)) + eps)
    u = u[:, 1000:]
    products = [(u[:, : u.shape[1] - lag] * u[:, lag:]).mean(axis=1) for lag in lags]
    return [(product.mean(), product.std(ddof=1) / np.sqrt(len(product))) for product in products]


@pytest.mark.few(2)
@pytest.mark.parametrize(("betas", "eps"), EPS_CASES, ids=str)
def test_covariance_beside_eps_agrees_with_monte_carlo(betas, eps):
    """To first order in ε, as it was before, the update is wrong by far more than the noise."""
    lags = LAGS if betas[0] else LAGS[:1]
    predicted, plain = adam_covariance(*betas, eps)(lags), adam_covariance(*betas)(lags)
    k = chance.errors(1000, len(lags))
    for value, without, (mean, error) in zip(predicted, plain, by_monte_carlo(betas, eps, lags), strict=True):
        assert abs(mean - value) < k * error
        assert abs(mean - without) > k * error


@pytest.mark.parametrize("eps", [1e-9, 1e-4, 0.1, 3.0, 1e3, 1e9])
def test_a_single_gradient_beside_eps_is_a_one_dimensional_integral(eps):
    """β1 = β2 = 0: E[g²/(|g| + ε)²]; and for large ε the update is m/ε."""

    def integrand(g):
        return 2 * np.exp(-(g**2) / 2) / np.sqrt(2 * np.pi) * (g / (g + eps)) ** 2

    middle = 10 * min(eps, 1.0)
    expected = sum(quad(integrand, *piece, epsabs=0, epsrel=1e-12)[0] for piece in ((0, middle), (middle, 14)))
    assert adam_covariance(0.0, 0.0, eps).lag_0 == pytest.approx(expected, rel=1e-7)
    linear = adam_covariance(0.9, 0.95, 1e9)
    assert 1e18 * linear(LAGS) == pytest.approx(frozen(0.9, LAGS), rel=1e-8)


@pytest.mark.parametrize("betas", [(0.9, 0.5), (0.9, 0.999), (0.0, 0.9)], ids=str)
def test_small_eps_is_left_out_then_straight_then_exact(betas):
    """The three ways meet: each is within its declared error of the quadrature."""
    for eps in (3e-7, 1e-6, 1e-5, 1e-4, 2e-4, 3.1e-4):
        found, exact = adam_covariance(*betas, eps), second_moment.by_quadrature(*betas, eps)
        lags = LAGS if betas[0] else LAGS[:1]
        assert np.abs(found(lags) / exact(lags) - 1).max() <= found.error + exact.error < 5e-6
    assert adam_covariance(*betas, 1e-4).lag_0 < adam_covariance(*betas).lag_0


@pytest.mark.parametrize("gradient", [rotsim.ScaleInvariant(), rotsim.Isotropic()], ids=lambda g: g.name)
@pytest.mark.parametrize(
    "optimizer",
    [
        rotsim.AdamW(0.05, 0.2, (0.9, 0.95), eps=0.5),
        rotsim.AdamW(0.05, 0.2, (0.0, 0.0), eps=0.1),
        rotsim.AdamL2(0.05, 0.05, (0.9, 0.95), eps=0.5),
    ],
    ids=lambda o: f"{o.name} {o.betas}",
)
def test_walks_agree_where_eps_is_felt(optimizer, gradient):
    """Within the noise and a tenth of 1/dim; without ε in the theory the same comparison fails."""
    dim = 256
    eq = rotsim.equilibrium(optimizer, dim, gradient)
    assert eq.model_error < 1.1 / dim
    walk = rotsim.simulate(
        optimizer, dim, 64, 4000, gradient, initial_norm=eq.norm, seed=3, record_every=20, engine="numba"
    )
    limits = dict(tolerance=0.3 / dim, k=chance.errors(64, 3))
    report = rotsim.compare(walk, eq, **limits)
    assert report.passed, "\n" + report.table()
    without = rotsim.equilibrium(replace(optimizer, eps=0.0), dim, gradient)
    assert "FAIL" in {c.verdict for c in rotsim.compare(walk, without, **limits)}


def test_eps_counts_at_large_dim():
    """A coordinate's gradient falls as 1/√dim: at dim 10¹⁵ AdamW is SGD with momentum, whose norm is known."""
    lr, wd, beta1, dim = 1e-3, 0.1, 0.9, 10**15
    eq = rotsim.equilibrium(rotsim.AdamW(lr, wd, (beta1, 0.999)), dim)
    growth = closed_forms.adamw_exact_norm_squared(lr, wd, beta1, 1) / 1e-16  # of a coordinate, per unit noise
    assert eq.norm == pytest.approx(growth**0.25, rel=2e-3)  # E‖w‖² = growth / E‖w‖²
    assert eq.model_error < 1e-6
    assert eq.rotation == pytest.approx(
        rotsim.equilibrium(rotsim.AdamW(lr, wd, (beta1, 0.999)), 1024).rotation, rel=1e-4
    )


def test_sign_of_a_single_gradient_has_no_finite_variance_beside_momentum():
    assert rotsim.equilibrium(rotsim.AdamW(0.01, 0.1, (0.0, 0.0), eps=0)).rotation == pytest.approx(
        rotsim.equilibrium(rotsim.Lion(0.01, 0.1, (0.0, 0.0))).rotation
    )
    with pytest.raises(rotsim.NoEquilibrium, match=r"`betas\[1\]` must be > 0"):
        rotsim.equilibrium(rotsim.AdamW(0.01, 0.1, (0.9, 0.0), eps=0))


@pytest.mark.parametrize("root", [0.0, 1e-9, 0.3, 5.3, 12.37, 25.99, 26.0, 40.0, 1e6])
def test_what_eps_leaves_far_out(root):
    """Against forty digits; from root 26 on a series, which is good to 3e-10 there."""
    with mpmath.workdps(60):
        exact = 1 - mpmath.sqrt(mpmath.pi) * root * mpmath.exp(mpmath.mpf(root) ** 2) * mpmath.erfc(root)
    rounding = 3e-10 if root >= second_moment._FAR_ROOT else 1e-13
    assert second_moment.left_by_eps(np.array([root]))[0] == pytest.approx(float(exact), rel=rounding)


def test_scaled_complement_of_the_error_function():
    x = np.linspace(0, second_moment._FAR_ROOT, 2001)
    assert second_moment._erfcx(x) == pytest.approx(erfcx(x), rel=1e-14)
