"""SGDM's rotational variant: its direction, turned by the paper's rotation at constant norm."""

from sympy import Eq, Symbol

from derivations import rotational, sgdm
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import E, alpha, beta, equation, eta, g_, gamma, lamda, m_, n_free, t, theta, vartheta


@step
def direction() -> tuple[Eq, ...]:
    """SGDM's direction is its momentum, here without the weight decay that SGDM adds to every gradient.

    The gradient's size drops out: the update's length is divided by its own running mean.
    """
    return (
        equation(m_[t], alpha * m_[t - 1] + g_[t]),
        equation(Symbol("direction"), m_[t]),
    )


equilibrium_angle, series_in_decay = rotational.variant(__name__, sgdm)


@step
def length_bias() -> Eq:
    """The update's length wavers about its running mean, which contains it: the mean square angle is below θ²."""
    return equation(E(vartheta**2) / theta**2 - 1, rotational.gaussian_bias().rhs.subs(beta, alpha))


@step
def filling() -> Eq:
    """Momentum starts empty and grows: each update is longer than those in the mean. Q: E X_t over its final value."""
    return equation(Symbol("Q"), rotational.sgdm_filling().rhs.subs(beta, alpha))


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, α = 0, θ² = 2ηλ and updates keep their length from the first step; the bias is largest."""
    return (
        equation(theta**2, (equilibrium_angle().rhs ** 2).subs(alpha, 0)),
        equation(E(vartheta**2) / theta**2 - 1, length_bias().rhs.subs(alpha, 0)),
    )


change_of_units = rotational.other_units(__name__, sgdm, equilibrium_angle)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        *rotational.variant_checks(equilibrium_angle, series_in_decay),
        ("α = 0: θ² = 2ηλ and no filling", vanishes(without_momentum()[0].rhs - 2 * eta * lamda)
            and vanishes(filling().rhs.subs(t, 3).subs(alpha, 0) - 1)),
        ("α = 0: the bias is -(2/n)γ(1-γ)/(1+γ)", vanishes(
            without_momentum()[1].rhs + 2 / n_free * gamma * (1 - gamma) / (1 + gamma))),
        ("the first term is SGDM's exact 1 - ρ", vanishes(
            series_in_decay().rhs.coeff(sgdm.delta, 1) * sgdm.delta - sgdm.exact_one_minus_cosine().rhs)),
        ("θ is the same in other units", change_of_units().rhs == theta),
    ]  # fmt: skip
