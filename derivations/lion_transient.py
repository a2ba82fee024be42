"""Lion in time: the signs of its directions, whose correlations multiply along the momentum."""

from sympy import Eq, Expr, Function, Product, Sum, Symbol, oo, pi, simplify, sqrt, symbols

from derivations import lion
from derivations.algebra import tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

_r = Function("r")


@step
def signs_that_change() -> tuple[Eq, ...]:
    """Lion's directions are Gaussian and meet only through m, which forgets from step to step: correlations multiply.

    That of c_s and c_t is r(c_s, m_s)·Π r(m, m′)·r(m_{t-1}, c_t). A power of a product is a product of powers: with
    asin(x) = Σ a_n x^ν each power ν is a mode, whatever the variances do.
    """
    s = Symbol("s", integer=True)
    m, c = Function("m"), Function("c")
    chain = _r(c(s), m(s)) * Product(_r(m(i - 1), m(i)), (i, s + 1, t - 1)) * _r(m(t - 1), c(t))
    sign = Function("sign")
    return (
        equation(_r(c(s), c(t)), chain),
        equation(E(sign(c(s)) * sign(c(t))), Sum(sign_mode().rhs.subs(R, _r(c(s), c(t))), (n, 0, oo))),
    )


@step("lion_sign_mode", "One mode of the covariance of two signs: a power in the arcsine law.")
def sign_mode() -> Eq:
    """One power of the arcsine law, at a correlation R of two directions. A mode is so large when a sign enters it."""
    return equation(p_n, 2 / pi * a_n * R**nu_n)


@step
def lion_direction_power() -> Eq:
    """Square the rule of the direction; the new gradient is uncorrelated with the momentum M = E m² before the step."""
    return equation(E(c_[t] ** 2), _lion_moment(_direction(), _direction()))


@step("lion_momentum_power", "E m² of Lion, one step on.")
def lion_momentum_power() -> Eq:
    """The same for the momentum, whose rule has β2 in the place of β1."""
    return equation(E(m_[t] ** 2), _lion_moment(_momentum(), _momentum()))


@step("lion_seen", "Correlation of Lion's direction with the momentum before it.")
def lion_seen() -> Eq:
    """How the new direction is correlated with the momentum before it: what it sees of all earlier signs."""
    return _correlation(c_[t], _direction(), m_[t - 1], m_[t - 1])


@step("lion_entered", "Correlation of Lion's direction with the momentum after it.")
def lion_entered() -> Eq:
    """How it is correlated with the momentum after it: what later directions see of this one."""
    return _correlation(c_[t], _direction(), m_[t], _momentum())


@step("lion_faded", "Correlation of Lion's momentum with that of the next step.")
def lion_faded() -> Eq:
    """How one momentum is correlated with the next: what all modes lose in a step. At rest it is β2."""
    return _correlation(m_[t - 1], m_[t - 1], m_[t], _momentum())


def _direction() -> Expr:
    return lion.random_walk()[1].rhs


def _momentum() -> Expr:
    return lion.random_walk()[2].rhs


def _lion_moment(one: Expr, other: Expr) -> Expr:
    """E of a product of linear forms in m_{t-1} and g_t: M and Γ times what multiplies the squares."""
    product = (one * other).expand()
    return tidy(product.coeff(m_[t - 1], 2)) * m_power + tidy(product.coeff(g_[t], 2)) * Gamma


def _correlation(name: Expr, one: Expr, other_name: Expr, other: Expr) -> Eq:
    squares = _lion_moment(one, one), _lion_moment(other, other)
    return equation(_r(name, other_name), _lion_moment(one, other) / sqrt(squares[0]) / sqrt(squares[1]))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    at_rest = {Gamma: 1, m_power: (1 - beta2) / (1 + beta2)}
    return [
        ("correlations of Lion's directions multiply along m", _markov()),
        ("Lion at rest: E c², E m² and the fading are those of constant gradients", vanishes(
            lion_direction_power().rhs.subs(at_rest) - lion.variance().rhs)
            and vanishes(lion_momentum_power().rhs.subs(at_rest) - at_rest[m_power])
            and vanishes(lion_faded().rhs.subs(at_rest) - beta2)),
        ("Lion at rest: seen times entered is the correlation of neighbouring directions", vanishes(
            lion_seen().rhs.subs(at_rest) * lion_entered().rhs.subs(at_rest)
            - lion.covariance().rhs.subs(k, 1) / lion.variance().rhs)),
    ]  # fmt: skip


def _markov() -> bool:
    """E c_1 c_4 / √(E c_1² E c_4²) from the filter of m, with a gradient variance of its own in every step."""
    variance = symbols("s1:5", positive=True)
    power = [Symbol("m_0", positive=True)]  # E m_0²
    for square in variance:
        power.append(lion_momentum_power().rhs.subs({m_power: power[-1], Gamma: square}))
    at = [{m_power: before, Gamma: square} for before, square in zip(power, variance, strict=False)]
    own = [beta1**2 * power[step] + (1 - beta1) ** 2 * variance[step] for step in (0, 3)]  # E c_1², E c_4²
    meets = beta1 * beta2 * power[0] + (1 - beta1) * (1 - beta2) * variance[0]  # E c_1 m_1
    direct = beta1 * beta2**2 * meets / sqrt(own[0] * own[1])
    chain = lion_entered().rhs.subs(at[0]) * lion_seen().rhs.subs(at[3])
    for age in (1, 2):
        chain *= lion_faded().rhs.subs(at[age])
    return bool(simplify(direct**2 / chain**2) == 1)
