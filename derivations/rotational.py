"""Rotational variants, what they share: the leading-order rotation, set by hand at a constant norm."""

from collections.abc import Callable
from functools import cache
from types import ModuleType

from sympy import Eq, Expr, Function, IndexedBase, Matrix, Symbol, cos, pi, series, simplify, sin, sqrt

from derivations import adamw, lion, sgdm, transient
from derivations.algebra import expansion, geometric_sum, scale_exponent, scaling_factor, tidy, vanishes
from derivations.formula import follow, step
from derivations.symbols import *

_X, _s = IndexedBase("X"), IndexedBase("s")
_r, _norm = Function("r"), Function("‖w‖")


@step("rotational_mean_length", "Running mean of ‖u⊥‖², one step on.")
def mean_length() -> Eq:
    """The update's part across the weights has a length that wavers; X is its square, and s_u the running mean of X.

    On the right-hand side s_u is that of the step before.
    """
    return equation(_s[t], gamma * s_u + (1 - gamma) * X_u)


@step("rotational_squared_angle", "Square of the angle of one step of a rotational variant.")
def turning_step() -> Eq:
    """That part sets the direction of a turn, its length relative to the running mean the angle ϑ.

    The mean, now that of this step, is corrected for its start; θ is the inner optimizer's leading-order rotation.
    """
    return equation(vartheta**2, theta**2 * X_u * (1 - gamma**t) / s_u)


@step
def constant_norm() -> Eq:
    """Weights and update are orthogonal, and cosine and sine of the angle weigh them: the norm cannot change."""
    turned = Matrix([cos(vartheta), -sin(vartheta)])
    return equation(_norm(t) ** 2 / _norm(0) ** 2, simplify(turned.dot(turned)))


@step("turned_one_minus_cosine", "1 - ρ of weights that turn by an angle.")
def turned_one_minus_cosine() -> Eq:
    """So the cosine between successive weights is that of the angle; in this form small angles keep their digits."""
    return equation(1 - rho, 2 * sin(vartheta / 2) ** 2)


@step
def equilibrium_angle() -> tuple[Eq, ...]:
    """θ is what the balance of growth and decay would lead to: the paper's rotation of the inner optimizer.

    It holds at the learning rate and decay of the step, so a schedule acts at once. Adam+L2 has no variant: its
    rotation depends on the gradient's size, which the variant was made to ignore.
    """
    return tuple(equation(theta, module.leading_rotation().rhs) for module in (adamw, sgdm, lion))


@step
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


@step
def angle_bias() -> Eq:
    """The mean square angle is below θ² by this share, for lengths whose correlation is r_k = φ^k."""
    with_newest, spread = (step.rhs for step in running_mean())
    return equation(E(vartheta**2) / theta**2 - 1, tidy(simplify(spread - with_newest)))


@step
def gaussian_updates() -> tuple[Eq, ...]:
    """An averaged Gaussian update has κ² = 2/n in n free directions, and its square forgets as β^(2k).

    n is the fan-in less one for the weights' own direction, and one more where the mean is kept. So the bias is of
    order 1/n and vanishes with γ → 0 and γ → 1: it is largest, 0.17·2/n, near γ = 0.4 without momentum.
    """
    return (
        equation(kappa**2, 2 / n_free),
        equation(_r(k), beta ** (2 * k)),
    )


@step(
    "rotational_bias",
    "Mean square angle of a rotational variant over θ², less one, for Gaussian updates, to first order in 1/n.",
)
def gaussian_bias() -> Eq:
    """Both put in. For SGDM β is the momentum, for AdamW β1. Lion's update has a constant length, and no bias."""
    share = angle_bias().rhs.subs(kappa, sqrt(gaussian_updates()[0].rhs)).subs(phi, beta**2)
    return equation(E(vartheta**2) / theta**2 - 1, tidy(simplify(share)))


@step
def no_transient() -> Eq:
    """In step t the mean has weights γ^j (1-γ)/(1-γ^t) on t lengths; without memory the bias grows from zero.

    The very first step turns by θ exactly, since s is then its own length.
    """
    age = gamma**t
    newest = (1 - gamma) / (1 - age)
    spread = (1 - gamma) * (1 + age) / ((1 + gamma) * (1 - age))
    return equation(E(vartheta**2) / theta**2 - 1, kappa**2 * (spread - newest))


@step
def filling_average() -> tuple[Eq, ...]:
    """The average that makes the update starts empty, so its length has a mean of its own in the first 1/(1-β) steps.

    SGDM's momentum grows, and each step is longer than those in the running mean: it turns faster than θ. AdamW
    divides by 1-β1^t and starts with the full length of one gradient: it turns slower. Below: Q,
    E X_t over its final value.
    """
    filled = 1 - beta ** (2 * t)
    return equation(_ratio("SGDM"), filled), equation(_ratio("AdamW"), filled / (1 - beta**t) ** 2)


_ratio = Function("Q")


@step("rotational_across", "E‖u⊥‖² of a rotational variant.")
def across_the_weights() -> Eq:
    """Older gradients were orthogonal to older weights: their average has a part y = E u·ŵ along the present ones.

    It is of the order of the angle turned within the memory, and is removed. What is left is X; where a schedule
    changes θ it follows at once, and s_u later.
    """
    return equation(X_u, K_0 - y**2)


@step("rotational_rate", "What multiplies u in a turn of weights of norm one.")
def turning_rate() -> Eq:
    """What multiplies the update in a step, in units of the norm."""
    return equation(h, sin(vartheta) / sqrt(X_u))


@step("rotational_kept", "What multiplies the weights in a turn, the part of u along them put back.")
def kept_share() -> Eq:
    """What the weights keep: the cosine, and what the part of the update along them would have taken."""
    return equation(a_turn, cos(vartheta) + h * y)


@step("rotational_mode_overlap", "Overlap of weights that turn with one mode, one step on.")
def mode_overlap() -> Eq:
    """With this share and rate the weights walk as in `derivations.transient`, and y is the sum over its modes."""
    walk = transient.mode_overlap()
    return equation(walk.lhs, walk.rhs.subs(a, a_turn))


@step("rotational_sgdm_filling", "E‖u‖² of SGDM at a step over its final value, from no momentum.", shown=False)
def sgdm_filling() -> Eq:
    """The first of `filling_average`."""
    return filling_average()[0]


@step("rotational_adamw_filling", "E‖u‖² of AdamW at a step over its final value, for constant v.", shown=False)
def adamw_filling() -> Eq:
    """The second of `filling_average`."""
    return filling_average()[1]


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
        ("the chord of a turn is 2(1 - ρ)", _chord()),
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
        ("d log θ / d log (gradient scale) = 0 for every variant", all(
            scale_exponent(step.rhs) == 0 for step in equilibrium_angle())),
        ("a turn does not know the gradient's scale: X and its mean go with its square", vanishes(
            turning_step().rhs.subs({X_u: c**2 * X_u, s_u: c**2 * s_u}, simultaneous=True) - turning_step().rhs)),
    ]  # fmt: skip


def _keeps_norm() -> bool:
    """‖aŵ - hu‖² = a² - 2ah·y + h²‖u‖²."""
    kept, rate, across = kept_share().rhs, turning_rate().rhs, across_the_weights().rhs
    turned = kept**2 - 2 * kept * h * y + h**2 * K_0
    return bool(simplify(turned.subs(h, rate).subs(X_u, across)) == 1)


def _chord() -> bool:
    """‖Δŵ‖² of (cos ϑ, -sin ϑ) against (1, 0) is 2(1 - ρ)."""
    moved = Matrix([cos(vartheta) - 1, -sin(vartheta)])
    return vanishes(moved.dot(moved) - 2 * turned_one_minus_cosine().rhs)


# --- what the modules of the single variants share ---


def variant(
    module: str, inner: ModuleType, replace: dict[Expr, Expr] | None = None
) -> tuple[Callable[[], Eq], Callable[[], Eq]]:
    """Two steps of every variant's own, and between them those that all share: its angle, and the series of its cosine.

    `inner` is the derivation of the optimizer, `replace` names parts of its rotation.
    """

    @cache
    def equilibrium_angle() -> Eq:
        """How far it turns in RMS: the paper's rotation of the optimizer, from the rates that are in force.

        It is what growth and decay would lead to; Lion's takes a straight line for the sign.
        """
        return equation(theta, inner.leading_rotation().rhs.subs(replace or {}))

    @cache
    def series_in_decay() -> Eq:
        """Steps of equal length turn by θ; the cosine is exact at any ηλ. Expanded, it starts with the paper's θ²/2."""
        angle = equilibrium_angle().rhs.subs(eta, delta / lamda)
        small = Symbol("small", positive=True)  # θ, of which the cosine is a power series
        cosine = series(turned_one_minus_cosine().rhs.subs(vartheta, small), small, 0, 6).removeO()
        return equation(1 - rho, expansion(simplify(cosine.subs(small, angle)), delta, 3))

    follow(
        module, equilibrium_angle, mean_length, turning_step, constant_norm, turned_one_minus_cosine, series_in_decay
    )
    return equilibrium_angle, series_in_decay


def other_units(module: str, inner: ModuleType, angle: Callable[[], Eq]) -> Callable[[], Eq]:
    """The last step of every variant."""

    @cache
    def change_of_units() -> Eq:
        """Measured in other units, η → cη and λ → λ/c, an angle must not change; the norm stays what it was."""
        return equation(Symbol("theta_new", positive=True), scaling_factor(angle().rhs, *inner.UNITS) * theta)

    follow(module, change_of_units)
    return change_of_units


def variant_checks(equilibrium_angle: Callable[[], Eq], series_in_decay: Callable[[], Eq]) -> list[tuple[str, bool]]:
    """What has to hold of every variant: its limit, its units, and that it does not know the gradient."""
    angle = equilibrium_angle().rhs
    first = series_in_decay().rhs.coeff(delta, 1)
    return [
        ("the first term of 1 - ρ in ηλ is half the paper's θ²", vanishes(
            first * eta * lamda - angle**2 / 2)),
        ("θ does not change with the unit of the weights: η → cη, λ → λ/c",
         scaling_factor(expand_parts(angle), *adamw.UNITS) == 1),
        ("d log θ / d log (gradient scale) = 0", scale_exponent(angle) == 0),
    ]  # fmt: skip
