"""Lion's rotational variant: its direction, turned by the paper's rotation at constant norm."""

from sympy import Eq, Integer, Symbol, pi, sign

from derivations import lion, rotational
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import C, E, X_u, beta1, beta2, c_, equation, eta, gamma_0, lamda, phi, t, theta, vartheta

_VARIANCE = {gamma_0: lion.variance().rhs}


@step
def direction() -> tuple[Eq, ...]:
    """Lion's direction is a sign in every coordinate, of a mix of momentum and gradient; weight decay is left out.

    Signs do not know the gradient's size, and always make a vector of one length.
    """
    return (
        equation(c_[t], lion.random_walk()[1].rhs),
        equation(Symbol("direction"), sign(c_[t])),
    )


equilibrium_angle, series_in_decay = rotational.variant(__name__, lion, _VARIANCE)


@step
def one_length() -> tuple[Eq, ...]:
    """The square of C signs is C, but for the small part along w, and so is its running mean: no bias, no filling."""
    return (
        equation(X_u, C),
        equation(E(vartheta**2) / theta**2 - 1, rotational.angle_bias().rhs.subs(phi, 1)),
    )


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, β1 = 0, θ² is π/2 times 2ηλ: a straight line for the sign, as in `derivations.lion`."""
    return (equation(theta**2, (equilibrium_angle().rhs ** 2).subs(beta1, 0)),)


change_of_units = rotational.other_units(__name__, lion, equilibrium_angle)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        *rotational.variant_checks(equilibrium_angle, series_in_decay),
        ("β1 = 0: θ² = πηλ", vanishes(without_momentum()[0].rhs - pi * eta * lamda)),
        ("lengths that never change: no bias", one_length()[1].rhs == Integer(0)),
        ("β2 → 1: θ² = πηλ(1-β1)²", vanishes(
            (equilibrium_angle().rhs ** 2).subs(beta2, 1) - pi * eta * lamda * (1 - beta1) ** 2)),
        ("θ is the same in other units", change_of_units().rhs == theta),
    ]  # fmt: skip
