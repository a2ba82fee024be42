"""Every optimizer as a filter, a shape and a decay: how a shape turns correlation into correlation."""

from sympy import (
    Eq,
    Expr,
    Function,
    Integer,
    Rational,
    Sum,
    Symbol,
    asin,
    assoc_laguerre,
    binomial,
    exp,
    expand,
    factor,
    factorial,
    gammasimp,
    hermite_prob,
    integrate,
    limit,
    oo,
    pi,
    rf,
    series,
    simplify,
    sqrt,
)
from sympy import (
    gamma as gamma_function,
)

from derivations import lion
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import *

q_row = Symbol("q", integer=True, positive=True)
_f, _s, _phi, _B = Function("f"), Function("s"), Function("phi"), Function("B")
_d = IndexedBase("d")
_r_k = IndexedBase("r")[k]
_r = Symbol("r", positive=True)
LOCAL = (_r, q_row)  # with meanings of their own here


@step
def three_choices() -> tuple[Eq, ...]:
    """Every optimizer with decoupled decay makes three choices.

    A filter f averages past gradients. A shape φ makes the update of the average: the identity, a sign, a division by
    a length. A decay keeps a share a = 1 - ηλ of the weights in every step.
    """
    return (
        equation(_d[t], Sum(_f(j) * g_[t - j], (j, 0, oo))),
        equation(u_[t], _phi(_d[t])),
        equation(w_[t], a * w_[t - 1] - eta * u_[t]),
    )


@step
def correlation_of_the_filter() -> Eq:
    """Gradients are white and Gaussian. Then so is their average, and correlations are all there is to know of it.

    Two averages k steps apart share old gradients. Multiply the weights that they give to each.
    """
    return equation(_r_k, Sum(_f(j) * _f(j + k), (j, 0, oo)) / Sum(_f(j) ** 2, (j, 0, oo)))


@step
def correlation_of_the_shape() -> Eq:
    """A shape without memory turns a correlation r into s(r), a power series whose coefficients are not negative.

    The later average is r times the earlier one, and noise. Averaging over that noise multiplies the Hermite
    polynomial of degree n by r^n. So write the shape as a sum of such polynomials, of any number of variables. The part
    of degree n has the size B_n, a square, and meets its own later self with a factor r^n.
    """
    return equation(_s(_r), Sum(_B(n) * _r**n, (n, 0, oo)))


@step
def sum_over_lags() -> tuple[Eq, ...]:
    """Decay sums the correlations of updates. One number S gives norm and rotation, whatever filter and shape were.

    Lion's derivation asks nothing of its sign but s(r_k) and E‖u‖², which is C there.
    """
    return (
        equation(S, Sum(a**k * _s(_r_k), (k, 1, oo)) / _s(1)),
        lion.exact_norm_squared(),
        lion.exact_one_minus_cosine(),
    )


@step
def identity() -> Eq:
    """The shape of SGD, and of Adam while v is constant: B_1 alone, and a correlation stays what it is."""
    return equation(_s(_r), _r)


@step
def sign_shape() -> tuple[Eq, ...]:
    """Lion's shape. A sign has a part of every odd degree, and their sizes are the series of the arcsine law."""
    return equation(_B(2 * n + 1), _sign_part(n)), equation(_s(_r), 2 / pi * asin(_r))


def _sign_part(degree: Expr) -> Expr:
    return 2 / pi * binomial(2 * degree, degree) / (4**degree * (2 * degree + 1))


@step
def row_over_its_length() -> tuple[Eq, ...]:
    """A row of q entries, divided by its length. Its parts are d·L_n(‖d‖²/2), with Laguerre polynomials L_n of q/2.

    The first coefficient is that of the projection on d itself. The others follow from one integral,
    ∫ t^((q-1)/2) e^(-t) L_n(t) dt = Γ((q+1)/2)·(1/2)_n/n!, and the length of each part.
    """
    return (
        equation(_B(1), row_part(Integer(0), q_row)),
        equation(_B(2 * n + 1) / _B(1), rf(Rational(1, 2), n) ** 2 / (rf(q_row / 2 + 1, n) * factorial(n))),
    )


def row_part(degree: Expr, entries: Expr) -> Expr:
    """B_(2n+1) of a row of so many entries over its length."""
    half = Rational(1, 2)
    first = 2 / entries * (gamma_function((entries + 1) / 2) / gamma_function(entries / 2)) ** 2
    return first * rf(half, degree) ** 2 / (rf(entries / 2 + 1, degree) * factorial(degree))


@step
def from_signs_to_averages() -> tuple[Eq, ...]:
    """One entry over its length is a sign: q = 1 is the arcsine law. A long row hardly changes length.

    No B_1 is above 1, the sum of all parts. Those of q and of q + 1 entries have a product without gamma functions. So
    B_1 of q entries lies between that product and 1. Then q → ∞ is the identity: all that is left is B_1 = 1.
    Rows that are normalised lie between Lion and SGD.
    """
    product = gammasimp(row_part(Integer(0), q_row) * row_part(Integer(0), q_row + 1))
    return (
        equation(_B(1), simplify(row_part(Integer(0), Integer(1)))),
        equation(_B(1) * Function("B_1")(q_row + 1), product),
        equation(Function("lim")(_B(1)), limit(product, q_row, oo)),
    )


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        ("Hermite polynomials: r^n on the diagonal and 0 beside it, n < 5", _hermite()),
        ("averages without memory: S = 0 gives 1 - ρ = ηλ", vanishes(
            sum_over_lags()[2].rhs.subs(S, 0) - eta * lamda)),
        ("the parts of a sign, by integration, are those of the arcsine, n < 4", all(
            vanishes(_sign_projection(degree) - _sign_part(Integer(degree))) for degree in range(4))),
        ("they are the Taylor coefficients of (2/π) asin r, n < 4", _arcsine_series()),
        ("the parts of a row over its length, by integration, n < 4", all(
            vanishes(_row_projection(degree) / row_part(Integer(degree), q_row).expand(func=True) - 1)
            for degree in range(4))),
        ("q = 1: they are the parts of a sign", all(
            vanishes(row_part(Integer(degree), Integer(1)) - _sign_part(Integer(degree))) for degree in range(6))),
        ("all parts of a row together make its length, 1", vanishes(gammasimp(_gauss_sum()) - 1)),
        ("q → ∞: B_1 = 1, the identity", from_signs_to_averages()[2].rhs == 1),
    ]  # fmt: skip


def _hermite() -> bool:
    """E He_n(x)·He_m(y) of Gaussians with correlation r, by the moments of x and of the noise in y = rx + √(1-r²)z."""
    one, other = Symbol("x"), Symbol("z")

    def moment(power: int) -> Expr:
        return factorial(power) / (2 ** (power // 2) * factorial(power // 2)) if power % 2 == 0 else Integer(0)

    def mean(polynomial: Expr) -> Expr:
        terms = expand(polynomial).as_poly(one, other).terms()
        return sum(coefficient * moment(of_x) * moment(of_z) for (of_x, of_z), coefficient in terms)

    later = _r * one + sqrt(1 - _r**2) * other
    return all(
        vanishes(mean(hermite_prob(m, one) * hermite_prob(lower, later)) - (factorial(m) * _r**m if m == lower else 0))
        for m in range(1, 5)
        for lower in range(1, m + 1)
    )


def _sign_projection(degree: int) -> Expr:
    """(E sign(x)·He(x))²/n! for n = 2·degree + 1."""
    z, n_ = Symbol("z", positive=True), 2 * degree + 1
    overlap = 2 * integrate(hermite_prob(n_, z) * exp(-(z**2) / 2), (z, 0, oo)) / sqrt(2 * pi)
    return overlap**2 / factorial(n_)


def _arcsine_series() -> bool:
    law = series(2 / pi * asin(_r), _r, 0, 8).removeO()
    return all(vanishes(law.coeff(_r, 2 * degree + 1) - _sign_part(Integer(degree))) for degree in range(4))


def _row_projection(degree: int) -> Expr:
    """(E‖d‖L)²/E‖d‖²L² for half the squared length, a gamma variate of q/2, term by term of the polynomial L."""
    half_length = Symbol("z", positive=True)
    part = expand(assoc_laguerre(degree, q_row / 2, half_length))

    def mean(polynomial: Expr, power: Expr) -> Expr:
        """E z^power·polynomial over E z^power; a moment is a rising factorial more than the one before it."""
        terms = polynomial.as_poly(half_length).terms()
        return sum(c_n * rf(q_row / 2 + power, n_).expand(func=True) for (n_,), c_n in terms)

    root = gamma_function((q_row + 1) / 2) / gamma_function(q_row / 2)  # E √z
    of_powers = factor(mean(part, Rational(1, 2)) ** 2 / (q_row / 2 * mean(expand(part**2), Integer(1))))
    return root**2 * of_powers


def _gauss_sum() -> Expr:
    """Σ B of a row by Gauss's theorem for the hypergeometric series at 1."""
    top = gamma_function(q_row / 2 + 1) * gamma_function(q_row / 2)
    return row_part(Integer(0), q_row) * top / gamma_function((q_row + 1) / 2) ** 2
