"""SGD with momentum and coupled (L2) weight decay: rotation and norm in equilibrium."""

from functools import cache

from sympy import Eq, Expr, Integer, Matrix, Rational, Sum, oo, simplify, sqrt

from derivations import linear
from derivations.algebra import (
    expansion,
    fixed_point,
    geometric_sum,
    raised,
    relaxation_time,
    scale_exponent,
    scaling_factor,
    tidy,
    vanishes,
)
from derivations.formula import step
from derivations.symbols import *

LIMIT = "lr * weight_decay < 2 * (1 + momentum)"


@step
def random_walk() -> tuple[Eq, ...]:
    """The gradient is noise without memory, but unlike Adam's its size matters: variance σ² per coordinate.

    How the gradient's size depends on the weights is written as E‖g‖² = Cσ² = G·W^p. An isotropic
    gradient has p = 0. Weights in front of a normalisation layer have p = -1: doubling them halves
    the gradient. The decay λw is added to the gradient and so passes through the momentum.
    """
    return (
        equation(E(g_[t] ** 2), sigma**2),
        equation(C * sigma**2, G * W**p),
        equation(m_[t], alpha * m_[t - 1] + g_[t] + lamda * w_[t - 1]),
        equation(w_[t], w_[t - 1] - eta * m_[t]),
    )


@step
def total_update_contribution() -> Eq:
    """Heavy-ball momentum repeats a gradient in all later steps, each time α times weaker.

    Added up, one gradient moves the weights by η/(1-α) times itself. The decay travels the same
    way, so the total decay that one step sets off is ηλ/(1-α) as well.
    """
    share = eta * alpha**j
    return equation(Sum(share, (j, 0, oo)), tidy(geometric_sum(share, j)))


@step
def orthogonal_growth() -> Eq:
    """The contribution is orthogonal to the weights on average and adds its square to the squared norm.

    Loss is again twice the total decay of a step times W. For p = -1 growth now falls as the
    weights grow: the balance is reached faster.
    """
    return equation(W_[t], (W - _loss() + _growth()).subs(W, W_[t - 1]))


def _growth() -> Expr:
    return total_update_contribution().rhs ** 2 * G * W**p


def _loss() -> Expr:
    return 2 * total_update_contribution().rhs * lamda * W


@step("sgdm_leading_norm", "RMS norm of the weights under SGDM, to leading order in ηλ.")
def leading_norm() -> Eq:
    """Setting growth equal to loss gives a power of the norm, W^(1-p).

    For scale-invariant weights, p = -1, the norm is the fourth root of ηG/(2λ(1-α)), the paper's
    result. It does depend on the gradient's size.
    """
    return equation(sqrt(W), raised(fixed_point(_growth(), _loss(), W, 1 - p), Rational(1, 2)))


@step("sgdm_relaxation_steps", "Steps in which a deviation of ‖w‖² shrinks e-fold.")
def relaxation_steps() -> Eq:
    """Near the balance a deviation shrinks at the rate at which growth and loss move apart.

    Loss is proportional to W and growth to W^p, so their difference has the relative slope 1-p: a
    scale-invariant network forgets its initial norm twice as fast as an isotropic walk.
    """
    return equation(tau, relaxation_time(_growth(), _loss(), W))


@step
def update_size() -> Eq:
    """The step is η m. Its square is the sum of the squares of the gradients still in the momentum.

    The decay inside m is neglected here: it is smaller than the noise by a power of ηλ.
    """
    power = geometric_sum((eta * alpha**j) ** 2, j)
    return equation(G * W**p * Sum((eta * alpha**j) ** 2, (j, 0, oo)), G * W**p * tidy(power))


@step("sgdm_leading_rotation", "RMS angle per step of SGDM, to leading order in ηλ.")
def leading_rotation() -> Eq:
    """Step length over norm, with the equilibrium norm put in.

    The gradient's size G and its exponent p cancel: a neuron with large gradients grows until it
    rotates like any other. This is the balance that decay brings to networks trained with SGDM.
    """
    # step²/W = const·G·W^p/W, and W/W^p = W^(1-p) is what the balance fixed
    squared = update_size().rhs / W**p / raised(leading_norm().rhs, 2 * (1 - p))
    return equation(theta, sqrt(tidy(squared)))


@cache
def _recursion() -> linear.Recursion:
    _, _, rule_m, rule_w = random_walk()
    rec = linear.recursion(rule_m.rhs, rule_w.rhs, w_[t - 1], m_[t - 1], m_[t], g_[t])
    # with λ = δ/η the small parameter stands alone
    return linear.substitute(rec, lamda, delta / eta)


@step
def transient() -> tuple[Eq, ...]:
    """The recursion is linear, so its second moments x = (E w², E wm, E m²) follow a linear map, for any ηλ.

    For p = 0 the drive is constant. For other p it follows the norm, and the map is iterated with
    σ² = G·W^p/C taken anew in every step.
    """
    return linear.map_equations(linear.moment_map(_recursion(), sigma**2))


@cache
def _stationary() -> Matrix:
    return linear.stationary(linear.moment_map(_recursion(), sigma**2))


@step
def stationary_moments() -> tuple[Eq, ...]:
    """The fixed point of the map, for a given variance σ² of the gradient.

    All three moments share the denominator 2(1+α) - δ, which vanishes where the recursion becomes
    unstable: ηλ = 2(1+α).
    """
    return linear.moment_equations(_stationary())


@step
def gain() -> Eq:
    """Divide the variance of a weight by that of a gradient: A = W/E‖g‖², the fan-in cancels."""
    return equation(A, tidy(_stationary()[0] / sigma**2))


@step("sgdm_exact_norm_squared", "E‖w‖² of SGDM.", where=(gain,), limit=LIMIT)
def exact_norm_squared() -> Eq:
    """W = A·E‖g‖² = A·G·W^p is one equation for W; collecting the powers solves it.

    The exact A differs from the leading-order one by a single factor, 1/(1 - δ/(2(1+α))).
    """
    return equation(W, (A * G) ** (1 / (1 - p)))


def _norm_power() -> Expr:
    """W^(1-p), exactly."""
    return raised(exact_norm_squared().rhs, 1 - p).subs(A, gain().rhs)


@step("sgdm_exact_one_minus_cosine", "1 - ρ of SGDM.", limit=LIMIT)
def exact_one_minus_cosine() -> Eq:
    """The expected cosine between successive weights; σ² cancels, and with it G and p.

    The paper's rotation, θ² = 2(1-ρ), turns out to be exact in ηλ as a statement about the cosine.
    """
    return equation(1 - rho, linear.one_minus_cosine(_recursion(), _stationary()))


@step
def correlated_gradients() -> tuple[Eq, ...]:
    """Let gradients of neighbouring steps resemble each other, as long as each is orthogonal to the weights.

    The new gradient drops out of E w_{t-1}·m_t, and stationarity gives the norm in units of E‖m‖².
    The cosine is the one found for white noise: autocorrelation changes the norm, not the rotation.
    """
    norm, angle = linear.with_correlated_noise(Integer(1), delta / eta, alpha)
    return equation(W / E(norm_m**2), norm), equation(1 - rho, angle)


@step
def series_in_decay() -> tuple[Eq, ...]:
    """Expanding in δ = ηλ: both series start with 1, which proves the leading order.

    The rotation has no correction at all. That of the norm is at most δ/2 for every α, unlike AdamW's,
    because here the decay passes through the same momentum as the gradients.
    """
    norm_ratio = _norm_power() / raised(leading_norm().rhs, 2 * (1 - p))
    angle_ratio = 2 * exact_one_minus_cosine().rhs / leading_rotation().rhs ** 2
    return (
        equation((W / W_0) ** (1 - p), expansion(_in_decay(norm_ratio), delta, 2)),
        equation(2 * (1 - rho) / theta_0**2, expansion(_in_decay(angle_ratio), delta, 2)),
    )


def _in_decay(expression: Expr) -> Expr:
    return simplify(expand_parts(expression).subs(eta, delta / lamda))


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, α = 0, this is plain SGD: w is an exponential average with factor 1 - ηλ.

    The same 1 - ρ = δ as AdamW without momentum: coupled and decoupled decay are then one thing.
    """
    return equation(A, gain().rhs.subs(alpha, 0)), equation(1 - rho, exact_one_minus_cosine().rhs.subs(alpha, 0))


@step
def change_of_units() -> tuple[Eq, ...]:
    """Measure the weights in units 1/c: η → cη, λ → λ/c, and G → G/c^(2p), so that the gradient stays as it was.

    The norm scales with c and the rotation does not change. The rotation does not contain G at all,
    so for SGDM η → cη, λ → λ/c alone already leaves it as it is.
    """
    norm = raised(scaling_factor(_norm_power(), *UNITS), 1 / (1 - p))
    angle = scaling_factor(exact_one_minus_cosine().rhs, *UNITS)
    return equation(W_new, norm * W), equation(1 - rho_new, angle * (1 - rho))


UNITS = ((eta, c), (lamda, 1 / c), (G, c ** (-2 * p)))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    norm_series, angle_series = (step.rhs for step in series_in_decay())
    still_gain, still_angle = (step.rhs for step in without_momentum())
    moments = linear.moment_map(_recursion(), sigma**2)
    variance = eta * sigma**2 * (1 + alpha) / ((1 - alpha) * lamda * (2 * (1 + alpha) - eta * lamda))
    return [
        ("one gradient contributes η/(1-α) in total", vanishes(total_update_contribution().rhs - eta / (1 - alpha))),
        ("p = -1: leading norm⁴ = ηG/(2λ(1-α))",
         vanishes(raised(leading_norm().rhs.subs(p, -1), Integer(4)) - eta * G / (2 * lamda * (1 - alpha)))),
        ("leading rotation² = 2ηλ/(1+α), without G and p",
         vanishes(leading_rotation().rhs ** 2 - 2 * eta * lamda / (1 + alpha))),
        ("the stationary moments are the fixed point of the transient", linear.fixed_by(moments, _stationary())),
        ("E w² = ησ²(1+α)/((1-α)λ(2(1+α)-ηλ))", vanishes(_stationary()[0] - variance)),
        ("p = -1: exact W² = W·C·E w² with Cσ² = G/W",
         vanishes(_norm_power().subs(p, -1) - W * C * variance.subs(sigma, sqrt(G / (C * W))))),
        (
            "ρ is the same for gradients correlated in time, if they are orthogonal to w",
            vanishes(correlated_gradients()[1].rhs - exact_one_minus_cosine().rhs),
        ),
        ("exact W → leading W as ηλ → 0", vanishes(norm_series.subs(delta, 0) - 1)),
        ("2(1-ρ) = leading θ² at every ηλ", vanishes(angle_series - 1)),
        ("α = 0: W^(1-p) = ηG/(λ(2-ηλ))", vanishes(still_gain * G - eta * G / (lamda * (2 - eta * lamda)))),
        ("α = 0: 1-ρ = ηλ", vanishes(still_angle - eta * lamda)),
        ("units: rotation is invariant, norm scales as c under η → cη, λ → λ/c, G → G/c^(2p)",
         change_of_units() == (equation(W_new, c**2 * W), equation(1 - rho_new, 1 - rho))),
        ("rotation is invariant under η → cη, λ → λ/c alone",
         scaling_factor(exact_one_minus_cosine().rhs, *UNITS[:2]) == 1),
        ("d log θ / d log (gradient scale) = 0", scale_exponent(leading_rotation().rhs) == 0),
    ]  # fmt: skip
