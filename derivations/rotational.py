"""Rotational variants: the leading-order rotation, set by hand at a constant norm."""

from __future__ import annotations

from functools import cache

from sympy import Eq, Expr, Function, IndexedBase, Matrix, cos, pi, simplify, sin, sqrt

from derivations import adamw, lion, sgdm
from derivations.algebra import geometric_sum, scaling_factor, tidy, vanishes
from derivations.formula import Formula, Step
from derivations.symbols import (
    K_0,
    E,
    G,
    a,
    alpha,
    beta,
    beta1,
    equation,
    eta,
    expand_parts,
    gamma,
    gamma_0,
    h,
    j,
    k,
    kappa,
    lamda,
    n_free,
    phi,
    t,
    theta,
    y,
)

_X, _s = IndexedBase("X"), IndexedBase("s")
_r = Function("r")
_angle, _norm = Function("phi")(t), Function("‖w‖")


@cache
def turning_step() -> tuple[Eq, ...]:
    """The update's part across the weights sets the direction, its length relative to its running mean the angle.

    X = ‖u⊥‖² has the running mean s, corrected for its start; θ is the inner optimizer's leading-order rotation.
    """
    return (
        equation(_s[t], gamma * _s[t - 1] + (1 - gamma) * _X[t]),
        equation(_angle**2, theta**2 * _X[t] / (_s[t] / (1 - gamma**t))),
    )


@cache
def constant_norm() -> Eq:
    """Weights and update are orthogonal, and cosine and sine of the angle weigh them: the norm cannot change."""
    turned = Matrix([cos(_angle), -sin(_angle)])
    return equation(_norm(t) ** 2 / _norm(0) ** 2, simplify(turned.dot(turned)))


@cache
def equilibrium_angle() -> tuple[Eq, ...]:
    """θ is what the balance of growth and decay would lead to: the paper's rotation of the inner optimizer.

    It holds at the learning rate and decay of the step, so a schedule acts at once. Adam+L2 has no variant: its
    rotation depends on the gradient's size, which the variant was made to ignore.
    """
    return tuple(equation(theta, module.leading_rotation().rhs) for module in (adamw, sgdm, lion))


@cache
def running_mean() -> tuple[Eq, ...]:
    """The running mean contains the newest length itself, so a long step is divided by more than the mean.

    Let X = 1 + x with variance κ² and autocorrelation r_k, and s = 1 + y: to second order X/s is 1 - E xy + E y².
    The weights of the mean are (1-γ)γ^j.
    """
    weight = (1 - gamma) * gamma**j
    with_newest = tidy(weight.subs(j, 0)) * (1 + _tail())
    spread = tidy(geometric_sum(weight**2, j)) * (1 + 2 * _tail())
    return (
        equation(E(_X[t] * (_s[t] - 1)), kappa**2 * with_newest),
        equation(E((_s[t] - 1) ** 2), kappa**2 * spread),
    )


def _tail() -> Expr:
    """Σ_{k>=1} γ^k r_k for lengths that forget as φ^k."""
    return geometric_sum((gamma * phi) ** k, k, 1)


@cache
def angle_bias() -> Eq:
    """The mean square angle is below θ² by this share, for lengths whose correlation is r_k = φ^k."""
    with_newest, spread = (step.rhs for step in running_mean())
    return equation(E(_angle**2) / theta**2 - 1, tidy(simplify(spread - with_newest)))


@cache
def gaussian_updates() -> tuple[Eq, ...]:
    """An averaged Gaussian update has κ² = 2/n in n free directions, and its square forgets as β^(2k).

    n is the fan-in less one for the weights' own direction, and one more where the mean is kept. So the bias is of
    order 1/n and vanishes with γ → 0 and γ → 1: it is largest, 0.17·2/n, near γ = 0.4 without momentum.
    """
    return (
        equation(kappa**2, 2 / n_free),
        equation(_r(k), beta ** (2 * k)),
    )


@cache
def gaussian_bias() -> Eq:
    """Both put in. For SGDM β is the momentum, for AdamW β1. Lion's update has a constant length, and no bias."""
    share = angle_bias().rhs.subs(kappa, sqrt(gaussian_updates()[0].rhs)).subs(phi, beta**2)
    return equation(E(_angle**2) / theta**2 - 1, tidy(simplify(share)))


@cache
def no_transient() -> Eq:
    """In step t the mean has weights γ^j (1-γ)/(1-γ^t) on t lengths; without memory the bias grows from zero.

    The very first step turns by θ exactly, since s is then its own length.
    """
    age = gamma**t
    newest = (1 - gamma) / (1 - age)
    spread = (1 - gamma) * (1 + age) / ((1 + gamma) * (1 - age))
    return equation(E(_angle**2) / theta**2 - 1, kappa**2 * (spread - newest))


@cache
def filling_average() -> tuple[Eq, ...]:
    """The average that makes the update starts empty, so its length has a mean of its own in the first 1/(1-β) steps.

    SGDM's momentum grows, and each step is longer than those in the running mean: it turns faster than θ. AdamW
    divides by 1-β1^t and starts with the full length of one gradient: it turns slower. Below: E X_t over its final
    value.
    """
    filled = 1 - beta ** (2 * t)
    return equation(_ratio("SGDM"), filled), equation(_ratio("AdamW"), filled / (1 - beta**t) ** 2)


_ratio = Function("X_t/X")


@cache
def weights_that_turn() -> tuple[Eq, ...]:
    """Older gradients were orthogonal to older weights: their average has a part y = E u·ŵ along the present ones.

    It is of the order of the angle turned within the memory, and is removed. In units of the norm the weights then
    walk as in `derivations.transient`, with this a and h. Where a schedule changes θ, ‖u⊥‖² follows, and s later.
    """
    across = K_0 - y**2
    return (
        equation(_across**2, across),
        equation(h, sin(_angle) / sqrt(across)),
        equation(a, cos(_angle) + h * y),
    )


_across = Function("‖u⊥‖")(t)


STEPS: tuple[Step, ...] = (
    turning_step,
    constant_norm,
    equilibrium_angle,
    running_mean,
    angle_bias,
    gaussian_updates,
    gaussian_bias,
    no_transient,
    filling_average,
    weights_that_turn,
)


@cache
def sgdm_filling() -> Eq:
    """The first of `filling_average`."""
    return filling_average()[0]


@cache
def adamw_filling() -> Eq:
    """The second of `filling_average`."""
    return filling_average()[1]


FORMULAS: tuple[Formula, ...] = (
    Formula("rotational_sgdm_filling", sgdm_filling, "E‖u‖² of SGDM at a step over its final value, from no momentum."),
    Formula(
        "rotational_adamw_filling", adamw_filling, "E‖u‖² of AdamW at a step over its final value, for constant v."
    ),
    Formula(
        "rotational_bias",
        gaussian_bias,
        "Mean square angle of a rotational variant over θ², less one, for Gaussian updates, to first order in 1/n.",
    ),
)


def equilibrium() -> dict[str, Expr]:
    """Everything that is generated for rotational variants: function name to expression in its arguments."""
    return {formula.name: formula.expression for formula in FORMULAS}


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    white = angle_bias().rhs.subs(phi, 0)
    return [
        ("the norm is constant", constant_norm().rhs == 1),
        ("no memory: bias = -κ²γ(1-γ)/(1+γ)", vanishes(white + kappa**2 * gamma * (1 - gamma) / (1 + gamma))),
        ("lengths that never change: no bias", vanishes(angle_bias().rhs.subs(phi, 1))),
        ("E m² fills as 1 - β^(2t)", vanishes(
            (filling_average()[0].rhs / (1 - beta**2)).subs(t, 3) - sum(beta ** (2 * age) for age in range(3)))),
        ("turning weights: the walk with this a and h keeps the norm", _keeps_norm()),
        ("γ = 0: every step turns by θ", vanishes(angle_bias().rhs.subs(gamma, 0))),
        ("the first step turns by θ", vanishes(no_transient().rhs.subs(t, 1))),
        ("t → ∞: the bias of the stationary mean", vanishes(no_transient().rhs.subs(gamma**t, 0) - white)),
        ("Gaussian updates: bias = -(2/n)γ(1-γ)(1-β²)/((1+γ)(1-γβ²))", vanishes(
            gaussian_bias().rhs
            + 2 / n_free * gamma * (1 - gamma) * (1 - beta**2) / ((1 + gamma) * (1 - gamma * beta**2)))),
        ("θ does not change with the unit of the weights: η → cη, λ → λ/c", all(
            scaling_factor(expand_parts(step.rhs.subs(gamma_0, lion.variance().rhs)), *adamw.UNITS) == 1
            for step in equilibrium_angle())),
        ("without momentum AdamW's and SGDM's variants turn by θ² = 2ηλ, Lion's by π/2 times that", all(
            vanishes(step.rhs.subs(gamma_0, lion.variance().rhs).subs({beta1: 0, alpha: 0}) ** 2 - factor * eta * lamda)
            for step, factor in zip(equilibrium_angle(), (2, 2, pi), strict=True))),
        ("θ does not contain the gradient's size", all(not step.rhs.has(G) for step in equilibrium_angle())),
    ]  # fmt: skip


def _keeps_norm() -> bool:
    """‖aŵ - hu‖² = a² - 2ah·y + h²‖u‖²."""
    _, rate, kept = (step.rhs for step in weights_that_turn())
    turned = kept**2 - 2 * kept * h * y + h**2 * K_0
    return bool(simplify(turned.subs(h, rate)) == 1)
