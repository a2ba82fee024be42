r"""Adam's update with its second moment left random: exact autocovariance for Gaussian gradients.

Let g_t ~ N(0, 1) be independent, m_t = Σ c_j g_{t-j} and v_t = Σ d_j g_{t-j}², where
c_j = (1-β1) β1^j and d_j = (1-β2) β2^j. The update u = m/(√v + ε) has the autocovariance

.. math:: K_k = E[u_t u_{t+k}] = \beta_1^k\, D(\beta_2^k),

which does not depend on the learning rate or the decay, and on the gradient's deviation through ε/σ alone.
Steps of the argument:

1. 1/(√v + ε) = ∫ κ(s) e^(-sv) ds, where κ(s) = (1 - √π x erfcx(x))/√(πs) with x = ε√s. It turns K_k into an
   integral over (s, r) of a Gaussian expectation, Π q_i^(-1/2) · Σ c_i c_{i+k}/q_i. For gradients seen at both times
   q_i = 1 + 2(s d_i + r d_{i+k}). For those seen at t + k only it is q_j = 1 + 2 r d_j.
2. d_{i+k} = β2^k d_i and c_{i+k} = β1^k c_i. So everything is made of two functions of one variable:
   P(σ) = Π (1 + 2σ d_i)^(-1/2) and S(σ) = Σ c_i²/(1 + 2σ d_i). Then

   .. math:: D(b) = \iint \kappa(s)\, \kappa(r)\, (PS)(s + b r)\, \frac{P(r)}{P(b r)}\, ds\,dr.

3. √s = exp(y - e^(-y)), and likewise r, make both integrands analytic and fast in their decay at either end, where
   the trapezoidal rule converges geometrically.
4. D is smooth in b = β2^k: a polynomial of low degree in b. Hence K_k = Σ_n p_n (β1 β2^n)^k for all
   lags at once: a sum of decaying modes, which sums over k and recursions in time can use directly.

Derivation: `derivations.second_moment`, step by step; no publication is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import erfc

import numpy as np

from rotsim import closed_forms
from rotsim.theory.walk import UpdateCovariance

STEP = 0.2  # of y; the integrands are analytic within about 0.78 of the real axis: error e^(-2π·0.78/0.2)
LEFT_END = 3.7  # of -y: √s = e^(-e^3.7), 1e-18, there
NEGLIGIBLE = 36.0  # e^-36 of the integrand is left out
_LAST_END = 300.0  # e^(2 * 300) is a float yet
_LEAST = 1e-300  # β2 below this is as good as 0
_FAR_ROOT = 26.0  # from here on `left_by_eps` is a series, good to 3e-10; erfc is no normal number from 26.6 on
LARGEST_IN_SERIES = 0.2  # below this, log(1 + x) and 1/(1 + x) are summed over i as power series of 20 terms, to 1e-14
_HALF = 4  # points on either side that interpolation in y looks at; 2e-11 off
DEGREES = (4, 16)  # the first is enough where β2 is near 1
MOST_MODES = DEGREES[-1] + 1
TRIMMED = 1e-11  # coefficients of so much of the first are left out
LEAST_BETA2_BY_CHEBYSHEV = 0.6  # below this β2, lags are so far apart in b that D is fitted at the lags themselves
_CONDITION = 1e13  # of the polynomial fit at geometrically spaced nodes, which amplifies rounding by so much
_FINER = 0.75  # of the step, at which the quadrature is checked: e^(-2π·0.78/0.15)
_PROBES = (*range(14), 21, 34, 55, 144, 377, 987, np.inf)  # lags at which it is


def log_product_and_sum(sigma: np.ndarray, beta1: float, beta2: float, power: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """log P(σ) and S(σ) of the module docstring, for σ >= 0 and 0 <= β2 < 1.

    `power` 1 has c_i in S instead of c_i². The first factors are taken one by one, until 2σd_i < 0.2. The rest are
    power series in it, each of whose terms is a geometric series in i. At β2 = 0.9999 no factor at all is taken by
    itself.
    """
    x, c, fade = 2 * (1 - beta2) * sigma, (1 - beta1) ** power, beta1**power
    log_product, total = np.zeros_like(x), np.zeros_like(x)
    largest = float(np.max(x))
    above = np.log(max(largest, LARGEST_IN_SERIES)) - np.log(LARGEST_IN_SERIES)  # their quotient may overflow
    large = above / -np.log(max(beta2, _LEAST))  # factors
    for _ in range(max(0, int(np.ceil(large)))):
        log_product += np.log1p(x)
        total += c / (1 + x)
        x, c = x * beta2, c * fade
    term = np.ones_like(x)
    total += c / (1 - fade)
    for n in range(1, 21):
        term = -term * x
        log_product -= term / (n * (1 - beta2**n))
        total += c * term / (1 - fade * beta2**n)
    return -log_product / 2, total


def left_by_eps(root: np.ndarray) -> np.ndarray:
    """What ε leaves of the weight 1/√(πs) in the integral for 1/(√v + ε), at root = ε√s >= 0: 1 - √π root erfcx(root).

    It is in (0, 1], and accurate relative to its own size: `derivations.second_moment.eps_weight`. Far out it is its
    series, `eps_far_weight`, since the difference cancels there.
    """
    near = np.minimum(root, _FAR_ROOT)
    return np.where(
        root < _FAR_ROOT,
        1 - np.sqrt(np.pi) * near * _erfcx(near),
        closed_forms.eps_far_weight(np.maximum(root, _FAR_ROOT)),
    )


def _erfcx(x: np.ndarray) -> np.ndarray:
    """e^(x²) erfc(x) for 0 <= x <= 26; `scipy.special` takes longer to import than an equilibrium to compute.

    The square is split into (x - a)(x + a) + a², with a in steps of 1/64: its rounding would cost 700 times as much.
    """
    a = np.round(64 * x) / 64
    complement = np.array([erfc(value) for value in x.flat]).reshape(x.shape)
    return np.exp(a * a) * np.exp((x - a) * (x + a)) * complement


def _nodes(beta1: float, beta2: float, step: float, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """s on a grid, and weights that make Σ weight·F(s) the integral of F over the weight of 1/(√v + ε).

    √s = exp(y - e^(-y-L)) with L = log(max(ε, 1)): doubly exponential at 0, where the weight has a term in √s. The grid
    is the same for all ε up to 1, so that what is known on it serves them all. Where v forgets at once, ε alone makes
    the integral end.
    """
    shift = float(np.log(max(eps, 1.0)))
    end = _right_end(beta1, beta2, eps if shift else 0.0)
    if eps and end >= _LAST_END:
        end = _right_end(beta1, beta2, eps)
    root, weight = _weighted(np.arange(-LEFT_END - shift, end + step, step), shift, eps)
    return root**2, step * weight


def _weighted(y: np.ndarray, shift: float, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """√s, and the weight of F(s) dy."""
    root, weight = substituted(y, shift)
    return root, weight * left_by_eps(eps * root) if eps else weight


def substituted(y: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """√s, and the weight of F(s) dy beside no ε.

    Parameters
    ----------
    y : ndarray, any shape
    shift : float
        L of `_nodes`, >= 0.

    Returns
    -------
    root, weight : ndarray
        Of the shape of `y`.

    Notes
    -----
    `derivations.second_moment.root_as_integral`.
    """
    fall = np.exp(-y - shift)
    root = np.exp(y - fall)
    return root, 2 / np.sqrt(np.pi) * root * (1 + fall)


@lru_cache(maxsize=1024)
def _right_end(beta1: float, beta2: float, eps: float) -> float:
    """Where y may end, since what is left of the integrand is negligible."""
    shift = float(np.log(max(eps, 1.0)))
    end, largest = -shift, -np.inf
    while True:
        root, weight = _weighted(np.array([end]), shift, eps)
        log_product, total = log_product_and_sum(root**2, beta1, beta2)
        size = float(log_product[0] + np.log(total[0] * weight[0]))
        largest = max(largest, size)
        if size < largest - NEGLIGIBLE or end >= _LAST_END:
            return end
        end += 0.5


def decorrelation(b: np.ndarray, beta1: float, beta2: float, step: float = STEP, eps: float = 0.0) -> np.ndarray:
    """D(b) = K_k/β1^k at b = β2^k in [0, 1], any shape; for constant v and ε = 0, D would be (1-β1)/(1+β1) at all b.

    `step` is that of the trapezoidal rule. ε is in units of the gradient's deviation, > 0 where β2 = 0 < β1
    (`derivations.second_moment.decorrelation`).
    """
    s, weight = _nodes(beta1, beta2, step, eps)
    shared, alone = _on_grid(np.ravel(b).tobytes(), s.tobytes(), beta1, beta2, step)
    return np.reshape((shared @ (alone * weight)[..., None])[..., 0] @ weight, np.shape(b))


@lru_cache(maxsize=4)
def _on_grid(b: bytes, s: bytes, beta1: float, beta2: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """(PS)(s + b r) and P(r)/P(b r), which no ε is in: the next one finds them here."""
    ratio, grid = np.frombuffer(b)[:, None], np.frombuffer(s)
    log_p, log_ps = _tabulated(2 * grid[-1], step / 4, beta1, beta2)
    shared = np.exp(log_ps(grid[:, None] + (ratio * grid)[:, None, :]))
    return shared, np.exp(log_p(grid) - log_p(ratio * grid))


def _tabulated(largest: float, spacing: float, beta1: float, beta2: float) -> list[Callable[[np.ndarray], np.ndarray]]:
    """log P and log PS of any σ up to `largest`, interpolated in y = arsinh √σ, of which both are even functions.

    A grid of σ is two-dimensional and P and S are not: to interpolate takes a tenth of the time. In every cell of y
    stands the polynomial through the 2·_HALF points around it, as powers of the share of the cell.
    """
    y = spacing * np.arange(np.ceil(np.arcsinh(np.sqrt(largest)) / spacing) + _HALF + 1)
    log_p, total = log_product_and_sum(np.sinh(y) ** 2, beta1, beta2)
    to_powers = np.linalg.inv(np.vander(np.arange(1.0 - _HALF, _HALF + 1), increasing=True))

    def interpolated(table: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        mirrored = np.concatenate([table[_HALF - 1 : 0 : -1], table])
        around = np.lib.stride_tricks.sliding_window_view(mirrored, 2 * _HALF)
        powers = np.ascontiguousarray(to_powers @ around.T)

        def look_up(sigma: np.ndarray) -> np.ndarray:
            place = np.arcsinh(np.sqrt(sigma)) / spacing
            cell = place.astype(int)
            share = place - cell
            value = powers[-1].take(cell)
            for row in powers[-2::-1]:
                value *= share
                value += row.take(cell)
            return value

        return look_up

    return [interpolated(log_p), interpolated(log_p + np.log(total))]


@lru_cache(maxsize=256)
def by_quadrature(beta1: float, beta2: float, eps: float) -> UpdateCovariance:
    """The autocovariance at one ε >= 0 in units of the gradient's deviation; betas in [0, 1).

    ``error`` is the largest relative disagreement at 21 lags with a quadrature of three quarters of the step. So it is
    an upper estimate for every discounted sum. It is below 2e-6 for β2 >= 0.5 and 1e-5 for β2 >= 0.1.
    """
    if beta2 == 0 and eps == 0:
        return UpdateCovariance(1.0, np.zeros(1), np.zeros(1), 0.0)  # sign(g)
    weights = modes(beta1, beta2, eps)
    probe = beta2 ** np.array(_PROBES if beta1 > 0 else [0.0], dtype=float)  # without momentum only lag 0 counts
    check = decorrelation(probe, beta1, beta2, step=_FINER * STEP, eps=eps)
    error = float(np.max(np.abs(np.polynomial.polynomial.polyval(probe, weights) / check - 1)))
    roots = beta1 * beta2 ** np.arange(len(weights), dtype=float)
    return UpdateCovariance(float(weights.sum()), weights, roots, error)


def modes(beta1: float, beta2: float, eps: float) -> np.ndarray:
    """Coefficients p_n of D as a polynomial in b, by quadrature: at most `MOST_MODES`, for betas in [0, 1).

    ε is in units of the gradient's deviation, > 0 where β2 = 0 (`derivations.second_moment.modes`).
    """
    if beta2 < LEAST_BETA2_BY_CHEBYSHEV:
        exponent = np.log(_CONDITION) / -np.log(max(beta2, _LEAST))  # n(n+1)/2 for the largest n allowed
        lags = int(np.sqrt(2 * exponent + 0.25) - 0.5)
        b = np.append(beta2 ** np.arange(lags + 1.0), 0.0)
        return np.asarray(_newton(b, decorrelation(b, beta1, beta2, eps=eps)).coef)
    for degree in DEGREES:
        chebyshev = np.polynomial.Chebyshev.interpolate(
            decorrelation, degree, domain=[0, 1], args=(beta1, beta2, STEP, eps)
        )
        small = TRIMMED * abs(chebyshev.coef[0])
        if abs(chebyshev.coef[-1]) < small:
            break
    return np.asarray(chebyshev.trim(small).convert(kind=np.polynomial.Polynomial).coef)


def _newton(x: np.ndarray, y: np.ndarray) -> np.polynomial.Polynomial:
    """The polynomial through all points, by divided differences: stable for points that fall geometrically."""
    divided = y.copy()
    for order in range(1, len(x)):
        divided[order:] = (divided[order:] - divided[order - 1 : -1]) / (x[order:] - x[:-order])
    result = np.polynomial.Polynomial([divided[-1]])
    for node, coefficient in zip(x[-2::-1], divided[-2::-1], strict=True):
        result = result * np.polynomial.Polynomial([-node, 1.0]) + coefficient
    return result


@lru_cache(maxsize=256)
def mean_inverse_root(beta1: float, beta2: float) -> float:
    """E[u²/√v]/E[u²] for u = m/√v and gradients of variance 1: the share of an update that a small ε takes, per ε.

    m/(√v + ε) ≈ u (1 - ε/√v), and the integral for m²/v has the weight ds, that for m²/v^(3/2) the weight 2√(s/π) ds.
    So `derivations.second_moment.lag_zero`, with the power of v as in `root_as_integral`; for β2 > 0.
    """
    s, weight = _nodes(beta1, beta2, STEP, 0.0)
    log_p, total = log_product_and_sum(s, beta1, beta2)
    power = weight * np.sqrt(s) * total * np.exp(log_p)
    return float(2 / np.sqrt(np.pi) * (power @ np.sqrt(s)) / power.sum())


@lru_cache(maxsize=256)
def uneven_pace(beta2: float) -> float:
    """E[1/v]/E[1/√v]² - 1 >= 0 for gradients of variance 1: how unequal the steps are that v makes of equal averages.

    The integrals of `derivations.second_moment.root_as_integral` and `lag_zero` without an average; for β2 > 0.
    """
    s, weight = _nodes(0.0, beta2, STEP, 0.0)
    left = weight * np.exp(log_product_and_sum(s, 0.0, beta2)[0])
    return max(0.0, float(np.sqrt(np.pi) * (left @ np.sqrt(s)) / left.sum() ** 2) - 1)


@lru_cache(maxsize=256)
def mean_response(beta1: float, beta2: float) -> tuple[float, float]:
    """How a small lasting shift of the gradient moves u = m/√v: its size κ and the root of its geometric memory.

    By Gaussian integration by parts, σ E[∂u_t/∂g_{t-j}] = E[u g_j]/σ = c_j E[g_j²/√v]/σ =: h_j, so that
    κ = Σ h_j = π^(-1/2) ∫ s^(-1/2) P(s) Σ_j c_j/(1 + 2s d_j) ds. The geometric sequence with the sum
    and the mean lag of h_j stands for it. For constant v, κ = 1 and the root is β1.

    Parameters
    ----------
    beta1, beta2 : float
        In [0, 1).

    Returns
    -------
    size, root : float

    Notes
    -----
    `derivations.second_moment.response`.
    """
    if beta2 == 0:
        return float(np.sqrt(2 / np.pi)), 0.0  # of a sign; with momentum u has no variance and is refused before
    s, weight = _nodes(0.0, beta2, STEP, 0.0)

    def generating(root: float) -> float:  # Σ_j root^j h_j / c_j
        log_p, total = log_product_and_sum(s, root, beta2, power=1)
        return float(weight @ (total * np.exp(log_p)) / (1 - root))

    size = (1 - beta1) * generating(beta1)
    if beta1 == 0:
        return size, 0.0
    step = 1e-4 * min(beta1, 1 - beta1)
    lag = beta1 * np.log(generating(beta1 + step) / generating(beta1 - step)) / (2 * step)
    return size, float(lag / (1 + lag))
