"""The school algebra that every derivation uses: geometric sums, balances, tidy products, units."""

from sympy import (
    Expr,
    Integer,
    Mul,
    Pow,
    Rational,
    Symbol,
    expand,
    factor,
    fraction,
    powsimp,
    series,
    simplify,
    together,
)  # fmt: skip

from derivations.symbols import G, a, delta, expand_parts


def geometric_sum(term: Expr, index: Symbol, first: int = 0) -> Expr:
    """Sum ``term`` over ``index`` from `first` to infinity, after proving that it is geometric.

    Sympy's own summation returns a case distinction on |ratio| < 1; here every ratio is a product
    of decay factors, all below one.
    """
    ratio = powsimp(simplify(term.subs(index, index + 1) / term))
    if ratio.has(index):
        raise ValueError(f"{term} is not a geometric series in {index}: its ratio is {ratio}")
    return term.subs(index, first) / (1 - ratio)


def fixed_point(growth: Expr, loss: Expr, unknown: Symbol, power: Expr) -> Expr:
    """Solve growth = loss, where the quotient loss/growth is a constant times ``unknown**power``."""
    constant = tidy(powsimp(simplify(loss / growth / unknown**power)))
    if constant.has(unknown):
        raise ValueError(f"loss/growth is not proportional to {unknown}**({power}): {constant} is left")
    return (1 / constant) ** (1 / power)


def tidy(expression: Expr) -> Expr:
    """Factor, write every factor so that it is positive, and write 1 - a as δ.

    The result is a quotient of products of positive terms: no part of it is a small difference of
    large numbers, so that it stays accurate however small δ is.
    """
    if expression.has(a):
        expression = expression.subs(delta, 1 - a)
    factors: list[Expr] = []
    for part in Mul.make_args(factor(expression)):
        base, exponent = part.as_base_exp()
        if _sign(base) < 0:
            base, factors = -base, [*factors, Integer(-1) ** exponent]
        factors.append(Pow(delta if base == 1 - a else base, exponent))
    return Mul(*factors)


def _sign(expression: Expr) -> int:
    """Sign at an interior point of the valid range: all symbols between 0 and 1."""
    value = expression.subs({symbol: Rational(1, 3) for symbol in expression.free_symbols})
    return -1 if value < 0 else 1


def relaxation_time(growth: Expr, loss: Expr, unknown: Symbol) -> Expr:
    """Steps in which a small deviation from growth = loss shrinks by a factor e.

    One step changes the unknown by growth - loss, and minus the slope of that difference is the
    rate. Written with logarithmic derivatives the slope is loss/unknown times a pure number, since
    growth and loss are equal at the fixed point.
    """
    exponents = [powsimp(simplify(side.diff(unknown) * unknown / side)) for side in (growth, loss)]
    return tidy(1 / ((exponents[1] - exponents[0]) * simplify(loss / unknown)))


def expansion(expression: Expr, small: Symbol, order: int) -> Expr:
    """Taylor polynomial of `expression` in `small` below `order`, each coefficient a tidy product."""
    polynomial = series(expression, small, 0, order).removeO()
    return sum((tidy(polynomial.coeff(small, i)) * small**i for i in range(order)), Integer(0))


def vanishes(expression: Expr) -> bool:
    """True when sympy proves that `expression` is zero.

    A quotient of polynomials in roots and symbols is zero where its numerator, multiplied out, is. That shows nearly
    all, at a sixth of the time. What it leaves may still be simplified to zero.
    """
    parts = expand_parts(expression)
    numerator, _ = fraction(together(parts))
    return bool(expand(numerator) == 0) or bool(simplify(parts) == 0)


def raised(expression: Expr, exponent: Expr) -> Expr:
    """``expression**exponent`` for a positive power: multiply the exponents, which sympy does not dare to."""
    base, inner = expression.as_base_exp()
    return Pow(base, tidy(inner * exponent))


def scaling_factor(expression: Expr, *factors: tuple[Symbol, Expr]) -> Expr:
    """By what a change of units multiplies `expression`; each factor is (symbol, what it is multiplied by)."""
    plain = expand_parts(expression)
    changed = plain.subs({symbol: symbol * by for symbol, by in factors}, simultaneous=True)
    return powsimp(simplify(powsimp(changed / plain, force=True)), force=True)


def scale_exponent(expression: Expr) -> Expr:
    """d log(expression) / d log(gradient scale), where the scale is the square root of G."""
    return simplify(2 * G * expression.diff(G) / expression)
