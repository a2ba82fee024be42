"""A radial part in the gradient: an effective weight decay, for every optimizer."""

from __future__ import annotations

from functools import cache

from sympy import Eq, Expr, Matrix, S, factor, pi, sign, simplify, solve, sqrt, symbols

from derivations import adamw, autocorrelated, linear, lion, sgdm
from derivations.algebra import expansion, tidy, vanishes
from derivations.formula import Formula, Step
from derivations.symbols import (
    W_0,
    C,
    E,
    P,
    P_g,
    W,
    a,
    alpha,
    beta1,
    beta2,
    c_,
    delta,
    equation,
    eta,
    expand_parts,
    g_,
    gamma_0,
    lamda,
    m_,
    norm_m,
    phi,
    q,
    rho,
    t,
    theta_0,
    u_,
    v,
    varsigma,
    w_,
    x_e,
)
from derivations.symbols import S as S_


@cache
def radial_gradient() -> tuple[Eq, ...]:
    """Weights that are not scale-invariant feel a gradient along themselves, whose mean is P_g times the weights.

    A positive P_g pulls inwards: the loss prefers smaller weights. A negative one pushes outwards.
    """
    return (equation(E(g_[t]), P_g * w_[t - 1]),)


@cache
def coupled_decay() -> Eq:
    """SGDM and Adam+L2 add λw to the gradient. The radial part is one more such term: λ becomes λ + P_g, exactly.

    Everything that `derivations.sgdm` and `derivations.adam_l2` prove holds with it, v included.
    """
    added = sgdm.random_walk()[2].rhs.subs(g_[t], g_[t] + P_g * w_[t - 1])
    return equation(m_[t], added.collect(w_[t - 1]))


@cache
def normalised() -> tuple[Eq, ...]:
    """AdamW divides the gradient by √v before it averages it: the weights feel P = P_g/√v, through the momentum.

    Their own decay stays outside. The second moment sees noise and radial part, uncorrelated, together.
    """
    return (
        equation(P, P_g / sqrt(v)),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * (u_[t] + P * w_[t - 1])),
        equation(w_[t], a * w_[t - 1] - eta * m_[t]),
    )


@cache
def stationarity() -> tuple[Eq, ...]:
    """Let the gradients be correlated in time in any way, only their mean overlap with w be P‖w‖².

    Then the new gradient enters E w_{t-1}·m_t through P alone, and the norm and the cosine follow in units of E‖m‖².
    Measured in a network, this is an identity: it certifies that a layer is stationary.
    """
    norm, angle = linear.with_correlated_noise(a, (1 - beta1) * P, beta1)
    return equation(W / E(norm_m**2), norm), equation(1 - rho, angle)


@cache
def _recursion() -> linear.Recursion:
    _, rule_m, rule_w = normalised()
    return linear.recursion(rule_m.rhs, rule_w.rhs, w_[t - 1], m_[t - 1], m_[t], u_[t])


@cache
def _stationary() -> Matrix:
    return linear.stationary(linear.moment_map(_recursion(), adamw.random_walk()[0].rhs))


@cache
def adamw_norm_squared() -> Eq:
    """For noise without memory the linear recursion gives the norm as well, at any ηλ and for constant v.

    Noise of unit variance after division by √v; where the radial part has a share of v, the noise has less.
    """
    return equation(W, _in_total(tidy(C * _stationary()[0])))


@cache
def adamw_one_minus_cosine() -> Eq:
    """The cosine of that walk is the one of the identity above."""
    return equation(1 - rho, _in_total(linear.one_minus_cosine(_recursion(), _stationary())))


def _in_total(expression: Expr) -> Expr:
    """1 - a + ηP written as δ + ηP, which does not cancel."""
    return expression.subs(1 - a + eta * P, delta + eta * P)


@cache
def effective_decay() -> tuple[Eq, ...]:
    """As η → 0 at given λ and P, the radial part is decay: λ becomes λ + P in the paper's rotation and norm.

    The ratios below compare with the leading-order formulas at λ + P; both start with one.
    """
    norm = adamw_norm_squared().rhs / _at_total(adamw.leading_norm().rhs ** 2)
    angle = 2 * adamw_one_minus_cosine().rhs / _at_total(adamw.leading_rotation().rhs ** 2)
    return (
        equation(W / W_0, expansion(expand_parts(norm), eta, 1)),
        equation(2 * (1 - rho) / theta_0**2, expansion(expand_parts(angle), eta, 1)),
    )


def _at_total(leading: Expr) -> Expr:
    return leading.subs(lamda, lamda + P)


@cache
def lion_radial() -> tuple[Eq, ...]:
    """A sign responds to a small shift of its argument with the slope of the linearised sign.

    So Lion's weights feel P = P_g·slope, delayed as its filter delays any gradient, by β1/(1-β2) steps in the mean.
    """
    return (
        equation(E(w_[t - 1] * sign(c_[t])), P * W + E(w_[t - 1] * u_[t])),
        equation(P, P_g * lion.linearised_sign().rhs),
    )


@cache
def lion_moments() -> tuple[Eq, ...]:
    """Linearised, u = ςc plus what is left of the sign, Lion's second moments close again: E w·m, E m² and W.

    Steps have unit size in every coordinate, whatever their direction: E u² = 1 is used as it is. What the arcsine
    adds to the straight line between recent steps, x_e, counts twice, as S does in `derivations.lion`.
    """
    ahead = beta1 * _inner + (1 - beta1) * P_g * _square  # E w_{t-1}·c_t
    with_new, power = P_g * _inner, 1 + P_g**2 * _square  # E m_{t-1}·g_t, E g²
    shared = beta1 * (1 - beta2) + beta2 * (1 - beta1)
    overlap = beta1 * beta2 * _power + shared * with_new + (1 - beta1) * (1 - beta2) * power  # E c_t·m_t
    return (
        equation(_square, a**2 * _square - 2 * a * eta * varsigma * ahead + eta**2 * (1 + 2 * x_e)),
        equation(_inner, a * beta2 * _inner + a * (1 - beta2) * P_g * _square - eta * varsigma * overlap),
        equation(_power, beta2**2 * _power + 2 * beta2 * (1 - beta2) * with_new + (1 - beta2) ** 2 * power),
    )


_square, _inner, _power = symbols("E(w²) E(wm) E(m²)")


@cache
def _lion_solution() -> dict[Expr, Expr]:
    [found] = solve(lion_moments(), [_square, _inner, _power], dict=True)
    return {moment: value.subs(P_g, P / varsigma) for moment, value in found.items()}


def _in_small(expression: Expr) -> Expr:
    """With a = 1 - δ multiplied out, so that δ and ηP, not differences of large terms, make what is small."""
    over, under = factor(expression.subs(a, 1 - delta)).as_numer_denom()
    return factor(over.expand()) / factor(under.expand())


@cache
def lion_norm_squared() -> Eq:
    """Their solution, in terms of P = ςP_g. With P = 0 it is the linearised norm of white noise."""
    return equation(W, C * _in_small(_lion_solution()[_square]))


@cache
def lion_variance() -> Eq:
    """The variance of the update direction, which the slope follows: ς² = 2/(πγ_0). Noise and w both are in it."""
    strength = P / varsigma
    total = (
        beta1**2 * _power + 2 * beta1 * (1 - beta1) * strength * _inner + (1 - beta1) ** 2 * (1 + strength**2 * _square)
    )
    return equation(gamma_0, _in_small(simplify(total.subs(_lion_solution()))))


@cache
def unit_steps() -> Eq:
    """Lion's cosine follows from its norm alone: ‖w_t - a w_{t-1}‖ is η√C, for any gradients at all."""
    return equation(1 - rho, (eta**2 * C / W - delta**2) / (2 * a))


STEPS: tuple[Step, ...] = (
    radial_gradient,
    coupled_decay,
    normalised,
    stationarity,
    adamw_norm_squared,
    adamw_one_minus_cosine,
    effective_decay,
    lion_radial,
    lion_moments,
    lion_norm_squared,
    lion_variance,
    unit_steps,
)

LIMIT = "lr * weight_decay < 1"

FORMULAS: tuple[Formula, ...] = (
    Formula(
        "adamw_radial_norm_squared",
        adamw_norm_squared,
        "E‖w‖² of AdamW where the normalised gradient is unit noise plus P·w, for constant v.",
        limit=LIMIT,
    ),
    Formula(
        "adamw_radial_one_minus_cosine",
        adamw_one_minus_cosine,
        "1 - ρ of AdamW where the normalised gradient is unit noise plus P·w, for constant v.",
        limit=LIMIT,
    ),
    Formula(
        "lion_radial_norm_squared",
        lion_norm_squared,
        "E‖w‖² of Lion where the linearised sign feels P·w beside noise of unit variance.",
        limit=LIMIT,
    ),
    Formula(
        "lion_radial_variance",
        lion_variance,
        "Variance of Lion's update direction where the linearised sign feels P·w beside noise of unit variance.",
        limit=LIMIT,
    ),
    Formula("lion_one_minus_cosine", unit_steps, "1 - ρ of Lion at a known norm, for any gradients.", limit=LIMIT),
    Formula(
        "lion_sign_slope",
        lion.linearised_sign,
        "Slope of the best straight line through the sign of Lion's direction, for gradients of unit variance.",
        (lion.variance,),
    ),
)


def equilibrium() -> dict[str, Expr]:
    """Everything that is generated for radial gradients: function name to expression in its arguments."""
    return {formula.name: formula.expression for formula in FORMULAS}


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    coupled_norm, coupled_angle = linear.with_correlated_noise(S.One, delta / eta + P, alpha)
    norm_ratio, angle_ratio = (step.rhs for step in effective_decay())
    _, angle = stationarity()
    return [
        ("SGDM: λ + P_g in the place of λ", vanishes(
            coupled_decay().rhs - sgdm.random_walk()[2].rhs.subs(lamda, lamda + P_g))),
        ("SGDM: the cosine is the white one at λ + P, for any autocorrelation", vanishes(
            coupled_angle - sgdm.exact_one_minus_cosine().rhs.subs(delta, delta + eta * P)) and coupled_norm != 0),
        ("P = 0: AdamW's norm and cosine", vanishes(
            adamw_norm_squared().rhs.subs(P, 0) - adamw.exact_norm_squared().rhs)
            and vanishes(adamw_one_minus_cosine().rhs.subs(P, 0) - adamw.exact_one_minus_cosine().rhs)),
        ("white noise: the cosine is that of the identity", vanishes(angle.rhs - adamw_one_minus_cosine().rhs)),
        ("Lion, P = 0: the norm of the linearised sum", vanishes(
            lion_norm_squared().rhs.subs(P, 0) - lion.exact_norm_squared().rhs.subs(
                S_, autocorrelated.lion_linear_sum().rhs.subs(
                    q, autocorrelated.lion_overlap_ratio().rhs.subs(phi, 0)) * varsigma**2 * pi / 2
                * lion.variance().rhs + x_e))),
        ("Lion, P = 0: the variance of white noise", vanishes(lion_variance().rhs.subs(P, 0) - lion.variance().rhs)),
        ("Lion: unit steps give the cosine of the exact norm", vanishes(
            unit_steps().rhs.subs(W, lion.exact_norm_squared().rhs) - lion.exact_one_minus_cosine().rhs)),
        ("η → 0: W is the paper's at λ + P", vanishes(norm_ratio - 1)),
        ("η → 0: θ² is the paper's at λ + P", vanishes(angle_ratio - 1)),
    ]  # fmt: skip
