"""AdamW where lasting gradients are orthogonal to the weights: v follows the weights, to first order."""

from sympy import Eq, Expr, Function, IndexedBase, Rational, Sum, Symbol, diff, exp, oo, series, sqrt, symbols

from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import *

d_ = IndexedBase("d")
_c, _x = symbols("c x", real=True)
_v = Symbol("v̄", positive=True)
_D, _G, _R, _S, _b, _kappa = (Function(name) for name in "DGRSbκ")
_tau = Symbol("tau", integer=True, positive=True)


@step
def one_coordinate() -> tuple[Eq, ...]:
    """z is lasting noise of unit variance, and c takes from it what lies along the weights."""
    return (
        equation(g_[t], z_[t] + _c * w_[t - 1]),
        equation(E(g_[t] * w_[t - 1]), 0),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * g_[t]),
        equation(w_[t], a * w_[t - 1] - eta * u_[t]),
    )


@step
def expansion() -> tuple[Eq, ...]:
    """v wavers about its mean v̄ = E g² by a share d, an average of squares less their mean."""
    wavering = Sum((1 - beta2) * beta2**k * (g_[t - k] ** 2 / _v - 1), (k, 0, oo))
    root = series(1 / sqrt(1 + _x), _x, 0, 3).removeO().subs(_x, d_[t])
    return equation(d_[t], wavering), equation(u_[t], m_[t] / sqrt(_v) * root)


@step
def linear_part() -> Eq:
    """Of m·g² what is like a Gaussian: m with the mean of g², and g as often as m knows of it.

    So u loses -½·d·m's part Σ (1-β2) β2^k E[m_t g_{t-k}]/v̄ · g_{t-k}, and d² gives ⅜ of its variance to m.
    """
    return equation(m_[t] * g_[t - k] ** 2, _linear(m_[t], g_[t - k]))


def _linear(m: Expr, g: Expr) -> Expr:
    return m * E(g**2) + 2 * E(m * g) * g


@step
def loose_part() -> Eq:
    """The rest of -½·d·m is noise that no gradient is like: where m knows little of d, covariances multiply."""
    return equation(_S(tau), _D(tau) * E(m_[t] * m_[t + tau]) / (4 * _v))


@step
def return_to_d() -> Eq:
    """That noise moves the weights, these the gradient, and it m, by R(τ) of it, τ steps after. There it meets d again.

    u has -½ d R(τ) of -½ d m τ steps before, each over √v̄: what is left of d's is its autocovariance.
    """
    met = d_[t] / 2 * _R(tau) * d_[t - tau] * m_[t - tau] / (2 * _v)
    return equation(E(met, m_[t - tau]), _D(tau) * _R(tau) * m_[t - tau] / (4 * _v))


@step
def prolonged() -> tuple[Eq, ...]:
    """g² feels d: where d made a step shorter, less of the next gradients is projected away. G(τ) is the answer of g.

    b is what the average of squares becomes with that.
    """
    felt = -_G(tau) * E(g_[t] * m_[t - tau]) / _v ** Rational(3, 2)
    share = (1 - beta2) * beta2**tau
    before = Sum(_b(tau - i) * Sum(_kappa(l_) * (1 - beta2) * beta2 ** (i - l_), (l_, 0, i)), (i, 0, tau))
    return equation(_kappa(tau), felt), equation(_b(tau), share + before)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    m, g, x, y = symbols("m g x y", real=True)
    names = (m, g, x, y)
    met = {(one, two): Symbol(f"E{min(str(one), str(two))}{max(str(one), str(two))}") for one in names for two in names}
    rest = m * g**2 - (m * met[g, g] + 2 * met[m, g] * g)
    power = _moment(rest**2, names, met)
    slow = power.subs(met[m, g], 0)
    wick = [_moment(rest * other, names, met) for other in names]
    root = expansion()[1].rhs / m_[t] * sqrt(_v)
    by_d = [diff(root, d_[t], order).subs(d_[t], 0) for order in range(3)]
    return [
        ("what is left of m·g² is like no Gaussian", all(vanishes(value) for value in wick)),
        ("its power is that of m times that of g² - E g², where m knows nothing of g",
         vanishes(slow - 2 * met[m, m] * met[g, g] ** 2)),
        ("and 4 E[mg]² E g² beside, of the next order", vanishes(power - slow - 4 * met[m, g] ** 2 * met[g, g])),
        ("the variance of g² is 2 (E g²)²",
         vanishes(_moment((g**2 - met[g, g]) ** 2, names, met) - 2 * met[g, g] ** 2)),
        ("1/√(1 + d) to second order", by_d == [1, -Rational(1, 2), Rational(3, 4)]),
    ]  # fmt: skip


def _moment(polynomial: Expr, names: tuple[Symbol, ...], met: dict[tuple[Symbol, Symbol], Symbol]) -> Expr:
    """E of a polynomial in jointly Gaussian variables, term by term, from their moment-generating function."""
    found = Rational(0)
    for powers, by in polynomial.as_poly(*names).terms():
        found += by * _product(powers, names, met)
    return found.expand()


def _product(powers: tuple[int, ...], names: tuple[Symbol, ...], met: dict[tuple[Symbol, Symbol], Symbol]) -> Expr:
    generating = exp(Rational(1, 2) * sum(met[one, two] * one * two for one in names for two in names))
    orders = [(name, power) for name, power in zip(names, powers, strict=True) if power]
    derivative = diff(generating, *orders) if orders else generating
    return derivative.subs(dict.fromkeys(names, 0))
