"""Lion: the sign of a Gaussian process, linearised as in the paper and exactly by the arcsine law."""

from sympy import (
    Eq,
    Expr,
    Function,
    Integer,
    Limit,
    Sum,
    Symbol,
    binomial,
    exp,
    expand,
    integrate,
    limit,
    oo,
    pi,
    sign,
    simplify,
    sqrt,
)

from derivations.algebra import (
    expansion,
    fixed_point,
    geometric_sum,
    relaxation_time,
    scale_exponent,
    scaling_factor,
    tidy,
    vanishes,
)
from derivations.formula import expression, step
from derivations.symbols import *

LIMIT = "lr * weight_decay < 1"

_kappa, _s = Function("kappa"), Function("s")
_R = Symbol("R", positive=True)


@step
def random_walk() -> tuple[Eq, ...]:
    """The gradient is noise without memory; its size cannot matter, because only a sign is used.

    We give it unit variance. The update direction c mixes the momentum of the previous step with
    the new gradient, while the momentum itself is averaged more slowly, with β2. A share δ = ηλ of
    the weights decays per step and a = 1 - δ is kept.
    """
    return (
        equation(E(g_[t] ** 2), Integer(1)),
        equation(c_[t], beta1 * m_[t - 1] + (1 - beta1) * g_[t]),
        equation(m_[t], beta2 * m_[t - 1] + (1 - beta2) * g_[t]),
        equation(w_[t], a * w_[t - 1] - eta * sign(c_[t])),
    )


@step
def filter_weights() -> tuple[Eq, ...]:
    """Unrolling the momentum writes c as a weighted sum of past gradients, c_t = Σ κ_j g_{t-j}.

    The gradient of the step itself has weight 1-β1; one that is j ≥ 1 steps old came through the
    momentum. All weights together make one.
    """
    return (
        equation(_kappa(0), 1 - beta1),
        equation(_kappa(j), _weight(j)),
        equation(_kappa(0) + Sum(_kappa(j), (j, 1, oo)), tidy(1 - beta1 + geometric_sum(_weight(j), j, 1))),
    )


def _weight(lag: Expr) -> Expr:
    return beta1 * (1 - beta2) * beta2 ** (lag - 1)


@step("lion_variance", "Variance of Lion's update direction, for gradients of unit variance.")
def variance() -> Eq:
    """The variance of c is the sum of the squared weights, since the gradients are uncorrelated."""
    return equation(gamma_0, (1 - beta1) ** 2 + tidy(geometric_sum(_weight(j) ** 2, j, 1)))


@step
def linearised_sign() -> Eq:
    """The paper replaces the sign by the straight line that fits it best: sign(c) ≈ slope·c.

    For a Gaussian c the best slope is E|c|/E c².
    """
    x = Symbol("x", positive=True)
    mean_size = 2 * integrate(x * exp(-(x**2) / (2 * gamma_0)), (x, 0, oo)) / sqrt(2 * pi * gamma_0)
    return equation(E(c_[t] * sign(c_[t])) / E(c_[t] ** 2), simplify(mean_size / gamma_0))


@step
def total_update_contribution() -> Eq:
    """With the sign linearised, one gradient contributes η·slope·Σκ_j in total, and Σκ_j = 1."""
    total = filter_weights()[-1].rhs
    return equation(eta * linearised_sign().lhs * (_kappa(0) + Sum(_kappa(j), (j, 1, oo))), _contribution(total))


def _contribution(total: Expr) -> Expr:
    return eta * linearised_sign().rhs * total


@step
def orthogonal_growth() -> Eq:
    """The contribution is orthogonal to the weights on average and adds its square to the squared norm.

    Decay removes 2ηλ of the squared norm. This is AdamW's balance with another constant.
    """
    return equation(W_[t], (W - _loss() + _growth()).subs(W, W_[t - 1]))


def _growth() -> Expr:
    return total_update_contribution().rhs ** 2 * C


def _loss() -> Expr:
    return 2 * eta * lamda * W


@step("lion_leading_norm", "RMS norm of the weights under Lion, sign linearised.", where=(variance,))
def leading_norm() -> Eq:
    """Setting growth equal to loss gives the norm of the paper."""
    return equation(sqrt(W), sqrt(fixed_point(_growth(), _loss(), W, Integer(1))))


@step("lion_relaxation_steps", "Steps in which a deviation of ‖w‖² shrinks e-fold.")
def relaxation_steps() -> Eq:
    """Growth is constant and loss is linear, so a deviation decays as for AdamW."""
    return equation(tau, relaxation_time(_growth(), _loss(), W))


@step("lion_leading_rotation", "RMS angle per step of Lion, sign linearised.", where=(variance,))
def leading_rotation() -> Eq:
    """A step changes every coordinate by η, so its length is η√C whatever happens.

    Length over norm gives the paper's rotation: sqrt(π/2)·sqrt(2ηλ) times the standard deviation of c.
    """
    return equation(theta, sqrt(eta**2 * C / leading_norm().rhs ** 2))


@step("lion_covariance", "Covariance of update directions `lag` steps apart.")
def covariance() -> Eq:
    """Two directions k steps apart share old gradients: multiply the weights that they give to each.

    The newest gradient that both see has weight κ_0 in one and κ_k in the other. The rest is a geometric
    sum again, and the result decays as β2^k.
    """
    shared = (1 - beta1) * _weight(k) + geometric_sum(_weight(j) * _weight(j + k), j, 1)
    decay = beta2 ** (k - 1)
    return equation(gamma_k, tidy(simplify(shared / decay)) * decay)


@step(
    "lion_sign_correlation",
    "Correlation s_k of the signs of update directions `lag` steps apart, for Gaussian gradients.",
    where=(covariance, variance),
)
def arcsine_law() -> Eq:
    """Now exactly. The signs of two Gaussians with correlation r have correlation (2/π) asin r.

    Its derivative in r is four times the joint density at the origin, 1/(2π sqrt(1-r²)), because a
    sign changes only at zero. Integrating from zero correlation gives the arcsine.
    """
    x = Symbol("x", real=True)
    law = integrate(4 / (2 * pi * sqrt(1 - x**2)), x)
    return equation(_s(k), (law - law.subs(x, 0)).subs(x, gamma_k / gamma_0))


@step("lion_exact_norm_squared", "E‖w‖² of Lion, from the sum of a^k s_k.", limit=LIMIT)
def exact_norm_squared() -> Eq:
    """The weights are w_t = -η Σ a^i sign(c_{t-i}); square the sum and collect equal distances k.

    Distance zero occurs with weight Σ a^(2i), distance k twice with a^k times that. What is left is one
    number, S = Σ a^k s_k over k ≥ 1.
    """
    diagonal = tidy(geometric_sum(a ** (2 * j), j))
    return equation(W, eta**2 * C * diagonal * (1 + 2 * S))


@step("lion_exact_one_minus_cosine", "1 - ρ of Lion, from the sum of a^k s_k.", limit=LIMIT)
def exact_one_minus_cosine() -> Eq:
    """The new sign is correlated with the weights, because its momentum made them: E w_{t-1}·sign(c_t) = -ηC·S/a.

    So ρW = aW + η²C·S/a. Taking the difference to W by hand leaves a form without cancellation: S is
    at most a/δ.
    """
    pull = tidy(eta**2 * C / (a * exact_norm_squared().rhs))
    denominator = a * (1 + 2 * S)
    numerator = expand(simplify((delta - pull * S) * denominator / delta).subs(delta, 1 - a))
    by_power = numerator.coeff(S, 0) + tidy(numerator.coeff(S, 1)) * S
    return equation(1 - rho, delta * by_power / denominator)


@step
def arcsine_series() -> Eq:
    """Since γ_k decays as β2^k, every term of asin(x) = Σ b_n x^(2n+1) sums over k to a geometric series.

    R = γ_1/γ_0 is below one, so a few terms of the sum over n give all digits of S.
    """
    return equation(S, Sum(_arcsine_term(a), (n, 0, oo)))


def _arcsine_term(discount: Expr) -> Expr:
    coefficient = binomial(2 * n, n) / (4**n * (2 * n + 1))
    power = discount**k * (_R * beta2 ** (k - 1)) ** (2 * n + 1)
    return 2 / pi * coefficient * geometric_sum(power, k, 1)


@step
def linearised_everywhere() -> tuple[Eq, ...]:
    """Where does the paper's formula come from in the exact one? Replace asin(x) by x everywhere.

    Lag zero then counts 2/π instead of 1, and the sum over lags is geometric. As δ → 0 the norm turns
    into the paper's W_0: the linearised sign is all that separates the two in this limit.
    """
    ratio = _in_decay(_linearised_norm() / leading_norm().rhs ** 2)
    return _discounted_covariance(), equation(W / W_0, expansion(ratio, delta, 1))


def _discounted_covariance() -> Eq:
    return equation(Sum(a**k * gamma_k, (k, 1, oo)), tidy(geometric_sum(a**k * covariance().rhs, k, 1)))


def _linearised_norm() -> Expr:
    exact = exact_norm_squared().rhs
    lag_zero = exact.subs(S, 0)
    correlation = 2 / pi * _discounted_covariance().rhs / gamma_0
    return lag_zero * 2 / pi + (exact - lag_zero).subs(S, correlation)


def _in_decay(expression: Expr) -> Expr:
    full = expand_parts(expression.subs(gamma_0, variance().rhs))
    return simplify(full.subs(eta, delta / lamda))


@step
def discrepancy() -> tuple[Eq, ...]:
    """What the linearisation loses as δ → 0, relative to the paper's W_0.

    A sign is correlated with itself to 1, not 2/π: the first term. And the arcsine exceeds its argument:
    the sum, whose terms are all positive because no γ_k is negative. So the true norm is larger and the
    true rotation smaller than the paper's, however small ηλ is.
    """
    missing = Sum(_in_leading_norm(2 * _arcsine_term(Integer(1))), (n, 1, oo))
    return equation(W / W_0, 1 + _lag_zero_excess() + missing), equation(_R, _first_correlation())


def _lag_zero_excess() -> Expr:
    return tidy(_in_leading_norm(1 - 2 / pi))


def _linear_part() -> Expr:
    correlations = 2 / pi + 2 * _arcsine_term(Integer(1)).subs(n, 0).subs(_R, _first_correlation())
    return _in_leading_norm(correlations).subs(gamma_0, variance().rhs)


def _in_leading_norm(correlations: Expr) -> Expr:
    """A part of 1 + 2S as δ → 0, in units of the paper's squared norm."""
    uncorrelated = exact_norm_squared().rhs.subs(S, 0) / leading_norm().rhs ** 2
    return simplify(expand_parts(uncorrelated).subs(eta, delta / lamda)).subs(delta, 0) * correlations


def _first_correlation() -> Expr:
    return covariance().rhs.subs(k, 1) / gamma_0


@step
def order_of_limits() -> tuple[Eq, ...]:
    """The paper's limit also assumes that decay is slow against the momentum: ηλ small against 1-β2.

    At fixed ηλ, β2 → 1 removes all correlations between steps; taking ηλ → 0 first keeps them. The two
    limits do not commute, so no formula without ηλ/(1-β2) can be right for both.
    """
    total = _discounted_covariance().rhs
    return tuple(
        equation(Limit(expression, beta2, 1, "-"), limit(expression, beta2, 1, "-"))
        for expression in (total, total.subs(a, 1))
    )


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, β1 = 0, Lion is sign descent: independent steps, S = 0.

    Then 1 - ρ = δ, as for the other optimizers. The paper's θ²/2 is π/2 times that: here the straight
    line in place of the sign overstates the rotation by 25 %.
    """
    paper = simplify(leading_rotation().rhs ** 2 / 2).subs(gamma_0, variance().rhs).subs(beta1, 0)
    return (
        equation(gamma_k, covariance().rhs.subs(beta1, 0)),
        equation(1 - rho, exact_one_minus_cosine().rhs.subs(S, 0)),
        equation(theta**2 / 2, paper),
    )


UNITS = ((eta, c), (lamda, 1 / c))


@step
def change_of_units() -> tuple[Eq, ...]:
    """Measure the weights in other units: η → cη and λ → λ/c multiply every length by c.

    An angle must not change and the norm must scale with c. S contains only ηλ and the betas.
    """
    norm, angle = (scaling_factor(s.rhs, *UNITS) for s in (exact_norm_squared(), exact_one_minus_cosine()))
    return equation(W_new, norm * W), equation(1 - rho_new, angle * (1 - rho))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    paper = pi / 2 * 2 * eta * lamda * ((1 - beta1) ** 2 + beta1**2 * (1 - beta2) / (1 + beta2))
    rotation = expression(__name__, "lion_leading_rotation")
    norm, angle = exact_norm_squared().rhs, exact_one_minus_cosine().rhs
    by_hand = 1 - a - eta**2 * C / norm * S / a
    at_fixed_decay, at_no_decay = (step.rhs for step in order_of_limits())
    still_cov, still_angle, still_paper = (step.rhs for step in without_momentum())
    return [
        ("the weights of past gradients add up to 1", filter_weights()[-1].rhs == 1),
        ("leading rotation² = (π/2)·2ηλ·((1-β1)² + β1²(1-β2)/(1+β2))", vanishes(rotation**2 - paper)),
        ("leading norm = η√C/θ", vanishes(leading_norm().rhs - eta * sqrt(C) / leading_rotation().rhs)),
        ("cov_k = β2^(k-1)[(1-β1)β1(1-β2) + β1²β2(1-β2)/(1+β2)]", vanishes(
            covariance().rhs / beta2 ** (k - 1)
            - (1 - beta1) * beta1 * (1 - beta2) - beta1**2 * beta2 * (1 - beta2) / (1 + beta2))),
        ("1-ρ is the difference 1 - a - η²C·S/(aW)", vanishes(angle - by_hand)),
        ("asin(x) → x everywhere gives the paper's norm as ηλ → 0", vanishes(linearised_everywhere()[1].rhs - 1)),
        ("the linearised part of the exact law is the paper's", vanishes(_linear_part() - 1)),
        ("lag 0 counts 1, not 2/π: W/W_0 exceeds 1 by (π/2 - 1)·var c", vanishes(
            _lag_zero_excess() - (pi / 2 - 1) * gamma_0)),
        ("first term of the arcsine series is the linearised sum", vanishes(
            _arcsine_term(a).subs(n, 0).subs(_R, _first_correlation())
            - 2 / pi * _discounted_covariance().rhs / gamma_0)),
        ("β2 → 1 at fixed ηλ: no correlation is left", vanishes(at_fixed_decay)),
        ("ηλ → 0 before β2 → 1: β1(2-β1)/2 is left", vanishes(at_no_decay - beta1 * (2 - beta1) / 2)),
        ("β1 = 0: no correlation and 1-ρ = ηλ", still_cov == 0 and vanishes(still_angle - eta * lamda)),
        ("β1 = 0: the paper's θ²/2 is π/2 times ηλ", vanishes(still_paper - pi / 2 * eta * lamda)),
        ("rotation depends on ηλ only, norm scales as c under η → cη, λ → λ/c",
         change_of_units() == (equation(W_new, c**2 * W), equation(1 - rho_new, 1 - rho))),
        ("d log θ / d log (gradient scale) = 0", scale_exponent(rotation) == 0),
    ]  # fmt: skip
