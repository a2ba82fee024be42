"""AdamW's rotational variant: its direction, turned by the paper's rotation at constant norm."""

from sympy import Eq, Integer, Symbol

from derivations import adamw, rotational
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import E, beta, beta1, equation, eta, gamma, lamda, m_, n_free, t, theta, u_, vartheta


@step
def direction() -> tuple[Eq, ...]:
    """AdamW's direction is the bias-corrected average m of normalised gradients u; weight decay is left out of it.

    The variant turns by it, instead of stepping along it. We take v as constant in time, as in `derivations.adamw`.
    """
    return (
        equation(E(u_[t] ** 2), Integer(1)),
        equation(m_[t], adamw.random_walk()[1].rhs),
        equation(Symbol("direction"), m_[t] / (1 - beta1**t)),
    )


equilibrium_angle, series_in_decay = rotational.variant(__name__, adamw)


@step
def length_bias() -> Eq:
    """The update's length wavers about its running mean, which contains it: the mean square angle is below θ²."""
    return equation(E(vartheta**2) / theta**2 - 1, rotational.gaussian_bias().rhs.subs(beta, beta1))


@step
def filling() -> Eq:
    """Dividing by 1 - β1^t makes the first updates as long as a gradient: Q, E X_t over its final value, is above 1.

    For constant v. With v as random as it is, the course of E m²/v is that of AdamW, of `derivations.damped`.
    """
    return equation(Symbol("Q"), rotational.adamw_filling().rhs.subs(beta, beta1))


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, β1 = 0, θ² = 2ηλ and updates keep their length from the first step; the bias is largest."""
    return (
        equation(theta**2, (equilibrium_angle().rhs ** 2).subs(beta1, 0)),
        equation(E(vartheta**2) / theta**2 - 1, length_bias().rhs.subs(beta1, 0)),
    )


change_of_units = rotational.other_units(__name__, adamw, equilibrium_angle)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        *rotational.variant_checks(equilibrium_angle, series_in_decay),
        ("β1 = 0: θ² = 2ηλ and no filling", vanishes(without_momentum()[0].rhs - 2 * eta * lamda)
            and vanishes(filling().rhs.subs(beta1, 0).subs(t, 3) - 1)),
        ("β1 = 0: the bias is -(2/n)γ(1-γ)/(1+γ)", vanishes(
            without_momentum()[1].rhs + 2 / n_free * gamma * (1 - gamma) / (1 + gamma))),
        ("one long average, β1 → 1: no bias", vanishes(length_bias().rhs.subs(beta1, 1))),
        ("θ is the same in other units", change_of_units().rhs == theta),
    ]  # fmt: skip
