"""What a finite fan-in changes: the length of the weights wavers, and with it the angle of a step."""

from sympy import Eq, Expr, Symbol, exp, gamma, integrate, oo, series, simplify, sqrt

from derivations.algebra import tidy, vanishes
from derivations.formula import step
from derivations.symbols import C, E, W, equation, i, mu, sigma, varkappa, w_

_q, _n, _z = Symbol("q", positive=True), Symbol("n", positive=True), Symbol("z", real=True)
_length, _across = Symbol("‖w‖²", positive=True), Symbol("‖Δw⊥‖²", positive=True)
_moved = Symbol("‖Δw‖²", positive=True)
_small = Symbol("d", real=True)


@step
def many_coordinates() -> tuple[Eq, ...]:
    """Under isotropic noise the coordinates of w, and of a step u, are independent Gaussians with C of each.

    So ‖w‖² is a chi-square variable, E w² times one with C degrees of freedom, of relative width √(2/C).
    """
    return equation(E(_length), C * sigma**2), equation(E((_length - C * sigma**2) ** 2), 2 * C * sigma**4)


@step
def mean_square() -> Eq:
    """The mean of a chi-square variable q with n degrees of freedom, from its density."""
    return equation(E(_q), _mean(_q))


@step
def mean_inverse() -> Eq:
    """And of its inverse. It is above the inverse of the mean, and infinite for n = 2: short vectors weigh heavily."""
    return equation(E(1 / _q), _mean(1 / _q))


def _mean(expression: Expr) -> Expr:
    """Over the density of chi-square, written for n = m + 2 so that all integrals converge."""
    degrees = Symbol("m", positive=True) + 2
    density = _q ** (degrees / 2 - 1) * exp(-_q / 2) / (2 ** (degrees / 2) * gamma(degrees / 2))
    found = simplify(integrate(expression * density, (_q, 0, oo), conds="none"))
    return simplify(found.subs(Symbol("m", positive=True), _n - 2))


@step
def part_across() -> Eq:
    """Only the part of a step across the weights turns them: C - 1 of its C directions."""
    share = mean_square().rhs.subs(_n, C - 1) / mean_square().rhs.subs(_n, C)
    return equation(E(_across) / E(_moved), share)


@step("isotropic_angle_spread", "E[angle²] over 2(1 - ρ) under isotropic noise.", limit="dim > 2")
def angle_spread() -> Eq:
    """The square of a small angle is a quotient of independent squares, so its mean is no quotient of means.

    Below: E[angle²] over E‖Δw‖²/E‖w‖², which is 2(1 - ρ) with all C directions counted.
    """
    turned = mean_square().rhs.subs(_n, C - 1) * mean_inverse().rhs.subs(_n, C)
    plain = mean_square().rhs.subs(_n, C) / mean_square().rhs.subs(_n, C)
    return equation(E(_across / _length) * W / E(_moved), simplify(turned / plain))


@step
def given_start() -> tuple[Eq, ...]:
    """While part of w is a given start, a coordinate is μ + σz: its square has this mean and this variance.

    Summed over C coordinates, with ϰ the share Cμ²/W of the start in W = C(μ² + σ²).
    """
    variance = simplify(_gauss(_coordinate**4) - _gauss(_coordinate**2) ** 2)
    return equation(E(w_[i] ** 2), _gauss(_coordinate**2)), equation(E(w_[i] ** 4) - E(w_[i] ** 2) ** 2, variance)


_coordinate = mu + sigma * _z


def _gauss(expression: Expr) -> Expr:
    """E over the standard normal z, moment by moment."""
    weight = exp(-(_z**2) / 2)
    total = integrate(weight, (_z, -oo, oo))
    return simplify(integrate((expression * weight).expand(), (_z, -oo, oo)) / total)


@step
def spread_of_the_square() -> Eq:
    """In these terms the start does not waver, and its product with the noise wavers less than noise alone."""
    root = {mu: sqrt(varkappa * W / C), sigma: sqrt((1 - varkappa) * W / C)}
    in_shares = C * given_start()[1].rhs.subs(root)
    return equation(E((_length - W) ** 2) / W**2, tidy(simplify(in_shares / W**2)))


@step
def mean_inverse_by_spread() -> Eq:
    """To first order in 1/C the mean of 1/‖w‖² follows from that spread alone."""
    expanded = series(1 / (1 + _small), _small, 0, 3).removeO()
    return equation(E(W / _length), 1 + expanded.coeff(_small, 2) * spread_of_the_square().rhs)


@step(
    "young_angle_spread",
    "E[angle²] of weights with a share of their start left, over that of settled ones, to first order in 1/C.",
)
def young_spread() -> Eq:
    """So the mean squared angle is below that of settled weights by this factor: ϰ is 1 at first and fades to 0."""
    ratio = mean_inverse_by_spread().rhs / mean_inverse_by_spread().rhs.subs(varkappa, 0)
    in_inverse = ratio.subs(C, 1 / _small)
    return equation(E(W / _length) * (C - 2) / C, series(in_inverse, _small, 0, 2).removeO().subs(_small, 1 / C))


LOCAL = (_n, _q, mu)  # with meanings of their own here


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        ("a chi-square variable has mean n, its inverse 1/(n-2)", vanishes(mean_square().rhs - _n)
            and vanishes(mean_inverse().rhs - 1 / (_n - 2))),
        ("E[angle²] is (C-1)/(C-2) times 2(1-ρ)", vanishes(angle_spread().rhs - (C - 1) / (C - 2))),
        ("it is 1 + 1/C to first order", vanishes(
            series(angle_spread().rhs.subs(C, 1 / _small), _small, 0, 2).removeO() - 1 - _small)),
        ("‖w‖² of μ + noise has the relative variance (2/C)(1-ϰ²)", vanishes(
            spread_of_the_square().rhs - 2 * (1 - varkappa**2) / C)),
        ("settled weights: the spread of chi-square", vanishes(
            spread_of_the_square().rhs.subs(varkappa, 0) - many_coordinates()[1].rhs / (C * sigma**2) ** 2)),
        ("young weights: 1 - 2ϰ²/C", vanishes(young_spread().rhs - 1 + 2 * varkappa**2 / C)),
    ]  # fmt: skip
