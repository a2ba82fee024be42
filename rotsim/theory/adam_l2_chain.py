r"""Adam with a pull towards the origin inside its gradient, exactly: the moments of one coordinate's Markov chain.

Take x = λw/σ, and m and v in units of the white noise's deviation σ. A coordinate is then a chain of its own that
depends on h = ηλ/σ and the betas alone (derivations.adam_l2, from `dimensionless_chain` on). The pull λ is the decay of
Adam+L2, where a = 1. Or it is a radial part of the gradient, of either sign, beside the decay a = 1 - ηλ of AdamW:

.. math::
    y = z + x, \quad m' = β_1 m + (1-β_1)\, y, \quad v' = β_2 v + (1-β_2)\, y^2, \quad
    x' = a x - h\, m'/(\sqrt{v'} + ε/σ),
    \qquad z \sim N(0, 1).

Steps of the argument:

1. x is nearly normal, and enters through y only. With s² near E x², the density of y given x is that of
   N(0, 1 + s²) times the Mehler series Σ_k ρ^k/k! He_k(x/s) He_k(y/√(1+s²)), ρ² = s²/(1+s²).
2. He_n(x'/s) = Σ_i C(n,i) (-h m'/(s(√v' + ε/σ)))^i He_{n-i}(ax/s), the last a sum of lower He_l(x/s), and m' is
   linear in m and y. So the expectation, one step ahead, of He_n(x/s) m^b f(v) is a sum. Its terms are He_l(x/s) m^j
   times integrals over y that contain v' alone,

   .. math:: (K_{kni} f)(v) = E\left[He_k(y)\, y^n\, (\sqrt{v'} + ε/σ)^{-i} f(v')\right], \qquad y \sim N(0, 1),

   in units of √(1+s²) for gradients and ε/σ. These depend on β2 and ε alone, not on h, s or β1.
3. Given all |y| the hierarchy would close at degree 2 but for the dependence of y on x. It is cut at total degree
   D in (x, m): a Galerkin projection, whose next terms are of order ρ^(D+2). f is interpolated in log v.
4. The stationary law, seen by these functions, is a left null vector: E x² follows, and E (x' - x)² = 2 (1 - ρ_w) E x².

Neither h nor 1 - β2 is taken as small. Rungs of rising degree and resolution, the lowest of them constant v, say how
far the last is off. Where it is further from the one before than that was from its own, the series is asymptotic
only, and the one before is taken: at h beyond 1, and for β2 < 0.3 beside momentum, where v gets very small.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import comb, expm1, factorial, log, log1p, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.theory.coupled import stationary
from rotsim.theory.fixed_point import bracketed_root
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import exponential_average

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

#: (D, points in log v): the last is what is used, those before it say how far off it is.
_RUNGS = ((2, 16), (4, 20), (6, 24))
_TAIL = 21.0  # e^-21 of the law of v lies beyond either end of the interpolation
_SMALLEST = 1e-12  # a smaller β2 > 0 counts as this; 0 itself is exact
_REACH = 11.0  # deviations of y up to which integrals go
_STEP = 0.125  # of asinh or log: the integrands are analytic within π/4 of the real axis
_FALL = 40.0  # of log y, below which e^-40 of an integral is left out
LEAST_STEP = 1e-10  # share of x that a step takes away; below it all is proportional to that, and 1 less it is rounded
_RAISE = 1.5  # less is as good as one
_MAX_UNRESOLVED_STEPS = 1e6  # steps over which what is not resolved is followed; its memory is gone well before


@lru_cache(maxsize=4096)
def steady(h: float, beta1: float, beta2: float, kept: float = 1.0, eps: float = 0.0) -> SteadyState:
    """Stationary state of the chain above.

    Parameters
    ----------
    h : float
        ηλ/σ, not 0: pull per step if v were the noise's variance; < 0 outwards, which `kept` must outweigh.
    beta1, beta2 : float
        In [0, 1); β2 > 0 unless β1 = 0, or u = m/√v has no variance.
    kept : float
        a in (0, 1], what decoupled decay leaves of the weights in a step.
    eps : float
        ε/σ >= 0; > 0 where β2 = 0 < β1.

    Returns
    -------
    SteadyState
        ``norm_squared`` is E x² = λ² E w²/σ²; ``model_error`` an estimate of the larger error of √E x² and √(1 - ρ).
        That for constant v, with an infinite error, where even the lowest degree gives no positive variance. An
        infinite ``norm_squared`` where growth and loss do not balance.

    Notes
    -----
    `derivations.adam_l2_chain.dimensionless_chain` and the steps after it.
    """
    raised = _raised(h, kept, eps)
    if raised > _RAISE:
        limit = steady(h * raised, beta1, beta2, 1 - (1 - kept) * raised, eps)
        shrunk = limit.norm_squared / raised, limit.one_minus_cosine / raised
        return SteadyState(*shrunk, model_error=limit.model_error)
    found = [np.array(_frozen(h, beta1, kept, eps))]
    if not np.isfinite(found[0][0]):
        return SteadyState(np.inf, 2.0, model_error=np.inf)
    with _blas().limit(limits=1):  # matrices this small wait for threads, on a busy machine ten times as long
        for rung in _RUNGS:
            square, moved = _solve(h, beta1, _remembered(beta2), kept, eps, *rung, float(found[-1][0]))
            if not (0 < square < np.inf and 0 < moved < np.inf):
                break
            found.append(np.array([square, moved / (2 * square)]))
    gaps = [float(np.abs(np.log(b / a)).max()) / 2 for a, b in pairwise(found)]
    best, error = found[-1], gaps[-1] if gaps else np.inf
    if len(gaps) > 1:
        before, last = gaps[-2:]
        best = found[-1 if last < before else -2]
        error = last / (1 - last / before) if last < before / 2 else before + last  # a geometric tail, if there is one
    return SteadyState(float(best[0]), float(best[1]), model_error=error)


def _raised(h: float, kept: float, eps: float) -> float:
    """Factor on all that is small in a step to bring it up to `LEAST_STEP`; 1 or less where it is there."""
    return LEAST_STEP / (abs(h) / (1 + eps) + (1 - kept))


def _remembered(beta2: float) -> float:
    return max(beta2, _SMALLEST) if beta2 > 0 else 0.0


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _frozen(h: float, beta1: float, kept: float, eps: float) -> tuple[float, float]:
    """E x² and 1 - ρ for constant v = 1 + E x²: the walk of `coupled`, which is linear then."""
    noise = exponential_average(beta1)

    def walk(square: float) -> SteadyState:
        return stationary(h / (sqrt(1 + square) + eps), 1.0, beta1, noise, kept)

    def excess(log_square: float) -> float:
        image = walk(float(np.exp(log_square))).norm_squared
        return log(image) - log_square if 0 < image < np.inf else 1e3

    gain = abs(h) / (1 + eps)
    guess = log(gain) - log1p((1 - kept) / gain)
    low, high = guess - 40, guess + 40
    if excess(high) > 0:
        return np.inf, 2.0
    square = float(np.exp(bracketed_root(excess, low, high, xtol=1e-12)))
    return square, walk(square).one_minus_cosine


@lru_cache(maxsize=16)
def _terms(
    degree: int, odd: bool = False
) -> tuple[list[tuple[int, int]], dict[str, np.ndarray], list[tuple[int, int, int]]]:
    """The terms of step 2, by exponent: functions (l, j), integer arrays of all terms, and the (k, n, i) that occur."""
    basis = [(low, total - low) for total in range(int(odd), degree + 1, 2) for low in range(total + 1)]
    place = {pair: number for number, pair in enumerate(basis)}
    kinds: dict[tuple[int, int, int], int] = {}
    rows = []
    for source, (a, b) in enumerate(basis):
        for i in range(a + 1):
            for j in range(min(b + i, degree) + 1):
                n = b + i - j
                for k in range(n % 2, degree - j + a - i + 1, 2):
                    kind = kinds.setdefault((k, n, i), len(kinds))
                    for q, power, scaled in _scaled(a - i):
                        for r in range(min(power, k) + 1):  # He_l He_k = Σ_r C(l,r) C(k,r) r! He_{l+k-2r}
                            left = power + k - 2 * r
                            if left + j <= degree:
                                factor = comb(a, i) * comb(b + i, j) * comb(power, r) * comb(k, r) * factorial(r)
                                share = factor * scaled / factorial(k)
                                rows.append((place[left, j], source, kind, i, j, n, k, b, q, power, share))
    names = ("target", "source", "kind", "i", "j", "n", "k", "b", "q", "power")
    table = np.array(rows)
    columns = {name: table[:, at].astype(int) for at, name in enumerate(names)}
    return basis, {**columns, "factor": table[:, -1]}, list(kinds)


def _scaled(n: int) -> Iterator[tuple[int, int, float]]:
    """He_n(a x) = Σ_q n!/(q! (n-2q)!) ((a²-1)/2)^q a^(n-2q) He_{n-2q}(x): q, n - 2q and the factorials."""
    for q in range(n // 2 + 1):
        yield q, n - 2 * q, factorial(n) / (factorial(q) * factorial(n - 2 * q))


def _range(beta2: float) -> tuple[float, float]:
    """log v below and above which its law has less than e^-21: Chernoff's bound, and Laurent and Massart's."""
    square = (1 - beta2) / (1 + beta2)  # Σ d_j²
    high = 1 + 2 * sqrt(_TAIL * square) + 2 * _TAIL * (1 - beta2)
    low = 1 - 2 * sqrt(_TAIL * square)
    if low < 0.3:
        share = (1 - beta2) * beta2 ** np.arange(max(2, int(np.ceil(50 / -log(beta2)))))
        sigma = np.geomspace(1.0, 1e20, 400)
        low = float(np.max((np.log1p(2 * np.outer(sigma, share)).sum(axis=1) / 2 - _TAIL) / sigma))
    return log(low), log(high)


@lru_cache(maxsize=24)
def _integrals(beta2: float, eps: float, degree: int, points: int, odd: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """log v at the nodes, and K_{kni} of `_terms` as matrices from values of f at the nodes to values at the nodes.

    y = √(β2 v/(1-β2)) sinh u makes log v' = log(β2 v) + 2 log cosh u: analytic, however small v is, and the
    trapezoidal rule converges geometrically. Without a memory v' is y² alone: there is one node, and y is e^t.
    """
    kinds = np.array(_terms(degree, odd)[2])
    if beta2 == 0:
        y = np.exp(np.arange(log(min(eps or 1.0, 1.0)) - _FALL, log(_REACH), _STEP))
        weight = 2 * _STEP * y * np.exp(-(y**2) / 2) / sqrt(2 * np.pi)
        return np.zeros(1), (_integrands(y, y, eps, degree, kinds) @ weight)[:, None, None]
    low, high = _range(beta2)
    if beta2 < 0.3:
        points = int(points + 2 * (high - low) - 24)
    middle, half = (low + high) / 2, (high - low) / 2
    angle = np.pi * (np.arange(points) + 0.5) / points
    node = np.cos(angle)
    barycentric = (-1.0) ** np.arange(points) * np.sin(angle)
    log_v = middle + half * node
    found = np.empty((len(kinds), points, points))
    for row, at in enumerate(log_v):
        scale = sqrt(beta2 / (1 - beta2)) * np.exp(at / 2)
        end = float(np.arcsinh(_REACH / scale))
        u = np.linspace(0.0, end, max(40, int(np.ceil(end / _STEP))) + 1)
        y = scale * np.sinh(u)
        weight = 2 * u[1] * scale * np.cosh(u) * np.exp(-(y**2) / 2) / sqrt(2 * np.pi)
        weight[0] /= 2
        after = at + log(beta2) + 2 * np.log(np.cosh(u))
        away = np.clip((after - middle) / half, -1, 1)[:, None] - node
        away[away == 0] = 1e-300
        interpolate = barycentric / away
        interpolate /= interpolate.sum(axis=1, keepdims=True)
        found[:, row] = (_integrands(y, np.exp(after / 2), eps, degree, kinds) * weight) @ interpolate
    return log_v, found


def _integrands(y: np.ndarray, root: np.ndarray, eps: float, degree: int, kinds: np.ndarray) -> np.ndarray:
    """He_k(y) yⁿ (√v' + ε)^-i of every (k, n, i), at y and √v'; shape (kinds, points)."""
    hermite = np.polynomial.hermite_e.hermevander(y, int(kinds[:, 0].max())).T
    power, inverse = (base ** np.arange(degree + 1)[:, None] for base in (y, 1 / (root + eps)))
    return np.asarray(hermite[kinds[:, 0]] * power[kinds[:, 1]] * inverse[kinds[:, 2]])


def _one_step_ahead(
    h: float,
    beta1: float,
    beta2: float,
    kept: float,
    eps: float,
    degree: int,
    points: int,
    spread: float,
    odd: bool = False,
) -> tuple[Any, np.ndarray, np.ndarray]:
    """The value of every term of `_terms`, the integrals, and both summed: the expectation one step ahead, a matrix."""
    basis, term, kinds = _terms(degree, odd)
    _, integrals = _integrals(beta2, eps / sqrt(1 + spread), degree, points, odd)
    n_nodes, s = integrals.shape[1], sqrt(spread)
    unit = sqrt((1 - beta1) / (1 + beta1))  # of m, so that all numbers are of order 1
    value: Any = term["factor"] * (-h / s) ** term["i"] * beta1 ** term["j"] * (1 - beta1) ** term["n"]
    value = value * unit ** (term["j"] - term["b"]) * (s / sqrt(1 + spread)) ** term["k"]
    value = value * kept ** term["power"] * ((kept**2 - 1) / 2) ** term["q"]
    coefficient = np.zeros((len(basis), len(basis), len(kinds)))
    np.add.at(coefficient, (term["target"], term["source"], term["kind"]), value)
    size = len(basis) * n_nodes
    ahead = np.tensordot(coefficient, integrals, axes=(2, 0)).transpose(0, 2, 1, 3).reshape(size, size)
    return value, integrals, ahead


def _law(ahead: np.ndarray, functions: int) -> np.ndarray:
    """Stationary expectations of the functions, by node of v."""
    size = len(ahead)
    system = (np.eye(size) - ahead).T
    system[0] = 0.0  # one equation follows from the others, since constants are left unchanged
    system[0, : size // functions] = 1.0
    right = np.zeros(size)
    right[0] = 1.0
    return np.linalg.solve(system, right).reshape(functions, -1)


def _solve(
    h: float, beta1: float, beta2: float, kept: float, eps: float, degree: int, points: int, spread: float
) -> tuple[float, float]:
    """E x² and E (x' - x)² with the hierarchy cut at `degree`, expanded about a variance `spread` of x."""
    basis, term, kinds = _terms(degree)
    value, integrals, ahead = _one_step_ahead(h, beta1, beta2, kept, eps, degree, points, spread)
    law, of_x = _law(ahead, len(basis)), basis.index((2, 0))

    def share(factors: int) -> float:
        """What the terms of He_2(x'/s) with so many factors that are the update have in its expectation."""
        chosen = (term["source"] == of_x) & (term["i"] == factors)
        step = np.zeros((len(basis), len(kinds)))
        np.add.at(step, (term["target"][chosen], term["kind"][chosen]), value[chosen])
        return float(np.einsum("lk,kv,lv->", step, integrals.sum(axis=2), law))

    square = 1 + float(law[of_x].sum())
    # x' - x is the update and what decoupled decay takes, 1 - a of x
    moved = share(2)
    if kept < 1:
        moved += (1 - kept) ** 2 * square - (1 - kept) / kept * share(1)
    return spread * square, spread * moved


def fallen(h: float, beta1: float, beta2: float, lag: int, eps: float = 0.0) -> float:
    """1 - ρ_lag, ρ being the stationary correlation of x with itself `lag` steps later; parameters as in `steady`.

    x_0 - E[x_lag | state] is the sum of the expected updates in between. These are odd functions of (x, m), each a step
    further ahead than the one before. Nothing near one is subtracted.

    Returns
    -------
    float
        NaN where `steady` knows nothing. The degree is the highest, or the one before where the series is asymptotic.
    """
    raised = _raised(h, 1.0, eps)
    if raised > _RAISE:  # in proportion, until so much has gone that the rest falls exponentially
        followed = min(lag, int(_MAX_UNRESOLVED_STEPS))
        gone = fallen(h * raised, beta1, beta2, followed, eps)
        return -expm1(log1p(-gone) / raised * (lag / max(followed, 1)))
    beta2, settled = _remembered(beta2), steady(h, beta1, beta2, eps=eps)
    if not np.isfinite(settled.model_error):
        return float("nan")
    with _blas().limit(limits=1):
        found = [_fallen(h, beta1, beta2, lag, eps, *rung, settled.norm_squared) for rung in _RUNGS]
    before, last = abs(found[1] - found[0]), abs(found[2] - found[1])
    return found[2] if last <= before or lag == 0 else found[1]


def _fallen(
    h: float, beta1: float, beta2: float, lag: int, eps: float, degree: int, points: int, spread: float
) -> float:
    even, (odd, term, kinds) = _terms(degree)[0], _terms(degree, odd=True)
    law = _law(_one_step_ahead(h, beta1, beta2, 1.0, eps, degree, points, spread)[2], len(even))
    value, integrals, ahead = _one_step_ahead(h, beta1, beta2, 1.0, eps, degree, points, spread, odd=True)
    moves = (term["source"] == odd.index((1, 0))) & (term["i"] == 1)  # He_1(x'/s) where the update is taken
    step = np.zeros((len(odd), len(kinds)))
    np.add.at(step, (term["target"][moves], term["kind"][moves]), value[moves])
    update = (step @ integrals.sum(axis=2)).ravel()
    total, power = np.zeros_like(update), np.eye(len(update))
    for digit in format(lag, "b"):  # Σ_{i<n} P^i u and P^n, n read from its binary digits
        total, power = total + power @ total, power @ power
        if digit == "1":
            total, power = update + ahead @ total, ahead @ power
    with_x = np.zeros((len(odd), law.shape[1]))  # He_1 He_l = He_{l+1} + l He_{l-1}
    for row, (low, j) in enumerate(odd):
        for other, factor in (((low + 1, j), 1), ((low - 1, j), low)):
            if other in even:
                with_x[row] += factor * law[even.index(other)]
    return float(-(with_x.ravel() @ total) / (1 + law[even.index((2, 0))].sum()))
