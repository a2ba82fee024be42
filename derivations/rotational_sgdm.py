"""SGDM's rotational variant: its direction, turned by the paper's rotation at constant norm."""

from __future__ import annotations

from functools import cache

from sympy import Eq, Expr, Symbol

from derivations import rotational, sgdm
from derivations.algebra import scaling_factor, vanishes
from derivations.formula import Formula, Step
from derivations.symbols import E, alpha, beta, equation, eta, g_, gamma, lamda, m_, n_free, t, theta, vartheta


@cache
def direction() -> tuple[Eq, ...]:
    """SGDM's direction is its momentum, here without the weight decay that SGDM adds to every gradient.

    The gradient's size drops out: the update's length is divided by its own running mean.
    """
    return (
        equation(m_[t], alpha * m_[t - 1] + g_[t]),
        equation(Symbol("direction"), m_[t]),
    )


@cache
def equilibrium_angle() -> Eq:
    """How far it turns in RMS: what growth and decay of SGDM would lead to, from the rates that are in force."""
    return equation(theta, sgdm.leading_rotation().rhs)


@cache
def series_in_decay() -> Eq:
    """Steps of equal length turn by θ, and the cosine is exact at any ηλ. Expanded, it starts with the paper's θ²/2."""
    return rotational.series_in_decay(sgdm)


@cache
def length_bias() -> Eq:
    """The update's length wavers about its running mean, which contains it: the mean square angle is below θ²."""
    return equation(E(vartheta**2) / theta**2 - 1, rotational.gaussian_bias().rhs.subs(beta, alpha))


@cache
def filling() -> Eq:
    """Momentum starts empty and grows: each update is longer than those in the mean. Q: E X_t over its final value."""
    return equation(Symbol("Q"), rotational.sgdm_filling().rhs.subs(beta, alpha))


@cache
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, α = 0, θ² = 2ηλ and updates keep their length from the first step; the bias is largest."""
    return (
        equation(theta**2, (equilibrium_angle().rhs ** 2).subs(alpha, 0)),
        equation(E(vartheta**2) / theta**2 - 1, length_bias().rhs.subs(alpha, 0)),
    )


@cache
def change_of_units() -> Eq:
    """Measured in other units, η → cη and λ → λ/c, an angle must not change; the norm stays what it was."""
    return equation(
        Symbol("theta_new", positive=True), scaling_factor(sgdm.leading_rotation().rhs, *sgdm.UNITS) * theta
    )


STEPS: tuple[Step, ...] = (
    direction,
    equilibrium_angle,
    rotational.mean_length,
    rotational.turning_step,
    rotational.constant_norm,
    rotational.turned_one_minus_cosine,
    series_in_decay,
    length_bias,
    filling,
    without_momentum,
    change_of_units,
)

#: Generated with the parts that all variants share, in `derivations.rotational`.
FORMULAS: tuple[Formula, ...] = ()


def equilibrium() -> dict[str, Expr]:
    """Nothing of its own."""
    return {}


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        *rotational.variant_checks(sgdm),
        ("α = 0: θ² = 2ηλ and no filling", vanishes(without_momentum()[0].rhs - 2 * eta * lamda)
            and vanishes(filling().rhs.subs(t, 3).subs(alpha, 0) - 1)),
        ("α = 0: the bias is -(2/n)γ(1-γ)/(1+γ)", vanishes(
            without_momentum()[1].rhs + 2 / n_free * gamma * (1 - gamma) / (1 + gamma))),
        ("the first term is SGDM's exact 1 - ρ", vanishes(
            series_in_decay().rhs.coeff(sgdm.delta, 1) * sgdm.delta - sgdm.exact_one_minus_cosine().rhs)),
        ("θ is the same in other units", change_of_units().rhs == theta),
    ]  # fmt: skip
