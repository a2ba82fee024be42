"""Adam whose second moment wavers little: the fluctuations of v to first order in 1-β2."""

from sympy import (
    Eq,
    Expr,
    Function,
    Integer,
    Poly,
    Rational,
    Symbol,
    exp,
    integrate,
    oo,
    pi,
    rf,
    series,
    simplify,
    sqrt,
    symbols,
)

from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

_m, _v = (Function(name) for name in ("m", "v"))
_P, _S, _D = (Function(name) for name in ("P", "S", "D"))
_s, _b, _y = symbols("s b y", positive=True)
_r = Symbol("r", nonnegative=True)
_z = Symbol("z", real=True)
_eps = Symbol("epsilon", positive=True)


@step
def constant_second_moment() -> tuple[Eq, ...]:
    """As β2 → 1 every d vanishes at Σd = 1: P becomes exp(-σ), S its value at zero, and D the same at all b.

    That is AdamW with constant v, K_k = β1^k (1-β1)/(1+β1).
    """
    return (
        equation(_P(sigma), exp(-sigma)),
        equation(_S(sigma), _square_sum()),
        equation(_D(_b), _gaussian_double(_square_sum())),
    )


def _square_sum() -> Expr:
    """Σ c²."""
    return tidy(geometric_sum((1 - beta1) ** 2 * beta1 ** (2 * j), j))


def _gaussian_double(polynomial: Expr) -> Expr:
    """(1/π)∬ polynomial(s, r) e^(-s-r)/√(sr) ds dr, term by term: ∫ s^(n-1/2) e^(-s) ds is √π·½·(3/2)···(n-½)."""
    terms = Poly(polynomial, _s, _r).terms()
    half = Rational(1, 2)
    return simplify(sum(by * rf(half, n_s) * rf(half, n_r) for (n_s, n_r), by in terms))


@step
def first_order() -> Eq:
    """The first correction in 1-β2, with ε = Σd² = (1-β2)/(1+β2): log P = -σ + εσ², S = Σc² - 2σ Σc²d.

    All moments of s and r are those of Γ(1/2). v wavers, which makes 1/v larger: ε(3 + b)/2. And m² is large when v
    is: the last term.
    """
    return equation(_D(_b), _first_order())


def _first_order() -> Expr:
    spread, shared = _spread(), tidy(geometric_sum(_shared_term(), j))
    exponent = (_s + _b * _r) ** 2 + _r**2 - (_b * _r) ** 2
    average = _gaussian_double(Integer(1) + _eps * simplify(exponent)).subs(_eps, spread)
    pull = _gaussian_double(2 * (_s + _b * _r))
    return _square_sum() * (average - tidy(shared / _square_sum()) * pull)


def _spread() -> Expr:
    return tidy(geometric_sum(((1 - beta2) * beta2**j) ** 2, j))


def _shared_term() -> Expr:
    return ((1 - beta1) * beta1**j) ** 2 * (1 - beta2) * beta2**j


@step
def moment_of_the_ratio() -> Eq:
    """The same from the first two moments: expand m²/v in the deviation of v from its mean.

    In this form it needs no equilibrium. With half of Var v and of Cov(m², v), both for one coordinate, written s_v
    and c_v, it holds while the gradient's size changes.
    """
    deviation = Symbol("Δv")
    expanded = series(1 / (v + deviation), deviation, 0, 3).removeO()
    first, second = (simplify(expanded.coeff(deviation, order) * v) for order in (1, 2))
    return equation(E(_m(t) ** 2 / _v(t)) * v / m_power, 1 + second * 2 * s_v + first * 2 * c_v / m_power)


@step
def spread_in_time() -> tuple[Eq, ...]:
    """Both are sums over gradients, since E g⁴ - (E g²)² = 2 and different gradients are independent.

    So both follow recursions of their own: the squares of the weights of v decay by β2², the products of weights of
    m² and v by β1²β2. y is the variance of the gradient now.
    """
    kurtosis = simplify(_moment(4) - _moment(2) ** 2)
    half = kurtosis / 2
    return (
        equation(Function("s_v")(t), beta2**2 * Function("s_v")(t - 1) + half * ((1 - beta2) * _y) ** 2),
        equation(
            Function("c_v")(t),
            beta1**2 * beta2 * Function("c_v")(t - 1) + half * (1 - beta1) ** 2 * (1 - beta2) * _y**2,
        ),
    )


def _moment(power: int) -> Expr:
    return simplify(integrate(_z**power * exp(-(_z**2) / 2) / sqrt(2 * pi), (_z, -oo, oo)))


@step
def settled_ratio() -> Eq:
    """At rest this is the first-order lag zero: the two routes meet."""
    settled = _at_rest(spread_in_time())
    ratio = moment_of_the_ratio().rhs.subs({s_v: settled[0], c_v: settled[1], v: 1, m_power: _square_sum()})
    return equation(E(_m(t) ** 2 / _v(t)) * v / m_power, _tidy_terms(ratio))


def _at_rest(recursions: tuple[Eq, ...]) -> list[Expr]:
    """Fixed points of the two recursions for gradients of unit variance."""
    points = []
    for item in recursions:
        [old] = [part for part in item.rhs.atoms(Function) if part.args[0] == t - 1]
        keep = item.rhs.coeff(old)
        points.append(tidy(simplify((item.rhs - keep * old).subs(_y, 1) / (1 - keep))))
    return points


def _tidy_terms(expression: Expr) -> Expr:
    return sum((tidy(simplify(term)) for term in expression.as_ordered_terms()), Integer(0))


LOCAL = (_y,)  # with a meaning of its own here


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    constant = constant_second_moment()[-1].rhs
    corrected = first_order().rhs
    return [
        ("β2 → 1: D = (1-β1)/(1+β1) at all b", vanishes(constant - (1 - beta1) / (1 + beta1))),
        ("first order → constant v as β2 → 1", vanishes(corrected.subs(beta2, 1) - constant)),
        ("first order: D(1) is the ratio of moments at rest", vanishes(
            corrected.subs(_b, 1) / _square_sum() - settled_ratio().rhs)),
        ("first order: D changes with b as Σd²/2 - Σc²d/Σc²", vanishes(
            corrected.diff(_b) / constant - _spread() / 2
            + (1 - beta1**2) * (1 - beta2) / (1 - beta1**2 * beta2))),
        ("β1 = 0: to first order E[g²/v] = 1 - 2β2(1-β2)/(1+β2), below one", vanishes(
            settled_ratio().rhs.subs(beta1, 0) - 1 + 2 * beta2 * (1 - beta2) / (1 + beta2))),
        ("the first step: u = ±1, and the ratio of moments is 1", vanishes(moment_of_the_ratio().rhs.subs(
            {s_v: v**2, c_v: m_power * v}) - 1)),
    ]  # fmt: skip
