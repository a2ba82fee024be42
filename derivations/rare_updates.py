"""Adam's rare large updates at finite dim: growth of log ‖w‖² and the angle of a step, of any size."""

from __future__ import annotations

from functools import cache

from sympy import (
    Eq,
    Expr,
    Function,
    Integral,
    Symbol,
    atan,
    exp,
    integrate,
    log,
    oo,
    pi,
    series,
    simplify,
    sqrt,
    symbols,
)

from derivations.algebra import vanishes
from derivations.formula import Formula, Step
from derivations.symbols import E, a, equation, eta, u_, v, xi

_L, _T, _P, _S = (Function(name) for name in "LTPS")
_kappa, _theta, _s, _x, _y, _tau, _variance, _jump, _length = symbols("kappa theta s x y tau A J N", positive=True)
_t = Symbol("t", positive=True)


@cache
def one_large_step() -> tuple[Eq, ...]:
    """A step that is orthogonal to w turns it by θ and makes it longer by 1/cos θ. κ is the square of its unit.

    Where one coordinate is much larger than the others, θ saturates at a right angle while the step grows.
    """
    return (
        equation(Symbol("tan²θ"), _kappa * u_[Symbol("t")] ** 2),
        equation(_kappa, eta**2 / (a**2 * _length)),
        equation(Symbol("‖w′‖²"), a**2 * _length * (1 + _kappa * u_[Symbol("t")] ** 2)),
    )


@cache
def growth() -> tuple[Eq, ...]:
    """At rest log ‖w‖² stays the same on average, however rare large steps are. Decay takes -2 log a of it.

    The mean of ‖w‖² itself balances E u² in the place of this logarithm, and may live on events that no run sees.
    """
    return (
        equation(_L(_kappa), E(log(1 + _kappa * u_[Symbol("t")] ** 2))),
        equation(_L(_kappa).diff(_kappa).subs(_kappa, 0), E(u_[Symbol("t")] ** 2)),
    )


@cache
def logarithm_as_integral() -> Eq:
    """The logarithm of a quotient is a difference of exponentials, under an integral. With x = κm² it needs v alone."""
    return equation(log(1 + _x / v), Integral(exp(-_s * v) * (1 - exp(-_s * _x)) / _s, (_s, 0, oo)))


@cache
def over_the_momentum() -> Eq:
    """Under e^(-sv) the momentum is Gaussian with the variance S(s), and P(s) is the mean of the weight.

    Averaged over m, one exponential is 1/√(1 + 2sκS).
    """
    return equation(_L(_kappa), Integral(_P(_s) * (1 - 1 / sqrt(1 + 2 * _s * _kappa * _S(_s))) / _s, (_s, 0, oo)))


@cache
def angle_as_integral() -> Eq:
    """The squared angle is made of the same logarithms: its slope in κu² is that of the integral over t."""
    return equation(atan(sqrt(_x)) ** 2, Integral((log(1 + _x) - log(1 + _x * _t**2)) / (1 - _t**2), (_t, 0, 1)))


STEPS: tuple[Step, ...] = (one_large_step, growth, logarithm_as_integral, over_the_momentum, angle_as_integral)

FORMULAS: tuple[Formula, ...] = ()  # the numbers are integrals: rotsim.theory.rare_updates


def equilibrium() -> dict[str, Expr]:
    """Nothing is generated for rare updates."""
    return {formula.name: formula.expression for formula in FORMULAS}


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    inside = logarithm_as_integral().rhs.args[0]
    slope = integrate(inside.diff(_x), (_s, 0, oo))
    density = exp(-(xi**2) / (2 * _variance)) / sqrt(2 * pi * _variance)
    averaged = simplify(integrate(2 * exp(-_s * _kappa * xi**2) * density, (xi, 0, oo)))
    return [
        ("the integral's slope in x is that of log(1 + x/v)", vanishes(slope - log(1 + _x / v).diff(_x))),
        ("and both begin at 0", inside.subs(_x, 0) == 0),
        ("over a Gaussian m: 1/√(1 + 2sκS)", vanishes(averaged - 1 / sqrt(1 + 2 * _s * _kappa * _variance))),
        ("the squared angle's slope is that of its integral", _same_slope()),
        ("a small step: log(1 + x) and the squared angle are x", all(
            series(f, _x, 0, 2).removeO() == _x for f in (log(1 + _x), atan(sqrt(_x)) ** 2))),
    ]  # fmt: skip


def _same_slope() -> bool:
    """d/dx: the difference of 1/(1+x) and t²/(1+xt²) is (1-t²)/((1+x)(1+xt²)), whose integral over t is an atan."""
    inside = angle_as_integral().rhs.args[0].diff(_x)
    plain = 1 / ((1 + _x) * (1 + _x * _t**2))
    whole = integrate(1 / (1 + _y**2 * _t**2), (_t, 0, 1)) / (1 + _y**2)
    slope = (atan(sqrt(_x)) ** 2).diff(_x).subs(_x, _y**2)
    return vanishes(inside - plain) and simplify(whole - slope) == 0
