"""AdamW: rotation and norm in equilibrium, first as the paper derives them, then exactly."""

from functools import cache

from sympy import Eq, Expr, Integer, Matrix, Sum, oo, simplify, sqrt

from derivations import lag, linear
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
from derivations.formula import step
from derivations.symbols import *

LIMIT = "lr * weight_decay < 1"


@step
def random_walk() -> tuple[Eq, ...]:
    """In equilibrium we model the gradient as fresh noise: its mean, given the past, is zero.

    Adam divides every coordinate by the root of its second moment. The normalised gradient u = g/√v
    has unit variance, whatever the loss, the layer or the batch size. We take v as constant
    in time (β2 close to one). What is left is a filtered random walk: m averages u, and w adds up m.
    In every step a share δ = ηλ of w decays, and a = 1 - δ of it is kept.
    """
    return (
        equation(E(u_[t] ** 2), Integer(1)),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * u_[t]),
        equation(w_[t], a * w_[t - 1] - eta * m_[t]),
    )


@step
def total_update_contribution() -> Eq:
    """Follow one gradient through the average: it is used now and, ever weaker, in all later steps.

    Added up, its share of the updates is the geometric series below: momentum delays a
    contribution but does not change its total size. Each coordinate of the total has standard
    deviation η, so the total contribution of one step's gradient has length η√C.
    """
    share = eta * (1 - beta1) * beta1**j
    return equation(Sum(share, (j, 0, oo)), tidy(geometric_sum(share, j)))


@step
def orthogonal_growth() -> Eq:
    """Each contribution points in a random direction, so on average it is orthogonal to the weights.

    By Pythagoras it adds its own square, η²C, to the squared norm. Decay multiplies the weights by
    1 - ηλ and so removes 2ηλ of the squared norm, to first order in ηλ. Growth is constant and loss
    is proportional to W: a balance exists and it is stable.
    """
    return equation(W_[t], W_[t - 1] - _loss().subs(W, W_[t - 1]) + _growth())


def _growth() -> Expr:
    return total_update_contribution().rhs ** 2 * C


def _loss() -> Expr:
    return 2 * eta * lamda * W


@step("adamw_leading_norm", "RMS norm of the weights under AdamW, to leading order in ηλ.")
def leading_norm() -> Eq:
    """Setting growth equal to loss gives the equilibrium norm of the paper.

    It depends on η/λ and on the fan-in only: not on the gradient, and not on momentum.
    """
    return equation(sqrt(W), sqrt(fixed_point(_growth(), _loss(), W, W**0)))


@step("adamw_relaxation_steps", "Steps in which a deviation of ‖w‖² shrinks e-fold, for fixed v.")
def relaxation_steps() -> Eq:
    """A deviation from the balance decays exponentially, because the loss is linear in W.

    The number of steps in which it shrinks by a factor e is the memory of the squared norm: the
    training run forgets its initialisation on this scale.
    """
    return equation(tau, relaxation_time(_growth(), _loss(), W))


@step
def lagging_second_moment() -> tuple[Eq, Eq]:
    """In front of a normalisation layer a shrinking norm makes the gradient grow, E‖g‖² = G·W^p, and v notices late.

    Until v has caught up, over 1/(1-β2) steps, the normalised gradient is too long and growth too
    large: the norm cannot settle faster than v. Linearising both around the balance gives two modes, with
    T the sum and D the product of their rates. The smaller the share f_v of √v in √v + ε, the less v has to say.
    """
    growth = eta**2 * G * W**p / lag.DENOMINATOR**2
    return lag.rates(growth, _loss(), 2 * lamda * W / eta * lag.DENOMINATOR**2 / v)


@step(
    "adamw_lagged_relaxation_steps",
    "Steps in which a deviation of ‖w‖² shrinks e-fold while v follows it.",
    where=(lagging_second_moment,),
)
def lagged_relaxation_steps() -> Eq:
    """The slower mode is what an observer sees.

    The times of both modes add up to T/D, nearly all of which is the slow one's. For p = -1 and without ε that is
    1/(2ηλ) + 2/(1-β2): with β2 = 0.999 the second moment adds up to 2000 steps to the memory of a normalised layer.

    The momentum sees the gradient late as well, by 1/(1-β1), and then v is less behind it. That is neglected here. So
    the norm settles sooner than this where 1/(1-β1) is not short beside 1/(1-β2).
    """
    return lag.slow_time()


@step
def update_size() -> Eq:
    """The step actually taken is η m, and averaging makes m smaller than u.

    The weights (1-β1)β1^j of the average are squared and added up, because the terms are
    uncorrelated. Successive steps therefore are short but alike: their sum is as large as without
    momentum, but each single step rotates the weights less.
    """
    power = geometric_sum(((1 - beta1) * beta1**j) ** 2, j)
    return equation(eta**2 * C * Sum(((1 - beta1) * beta1**j) ** 2, (j, 0, oo)), tidy(eta**2 * C * power))


@step("adamw_leading_rotation", "RMS angle per step of AdamW, to leading order in ηλ.")
def leading_rotation() -> Eq:
    """The step is orthogonal to the weights on average, so the angle is step length over norm.

    The fan-in cancels, and so does the ratio η/λ: rotation depends on the product ηλ and on β1. Every
    neuron of every layer that is trained with the same hyperparameters rotates at the same rate.
    """
    return equation(theta, sqrt(simplify(update_size().rhs / leading_norm().rhs ** 2)))


@cache
def _recursion() -> linear.Recursion:
    _, rule_m, rule_w = random_walk()
    return linear.recursion(rule_m.rhs, rule_w.rhs, w_[t - 1], m_[t - 1], m_[t], u_[t])


@step
def transient() -> tuple[Eq, ...]:
    """Nothing so far needed small ηλ except convenience: the recursion is linear, so second moments are exact.

    The noise is uncorrelated with the past. So x = (E w², E wm, E m²) of a coordinate follows a linear
    map, with a constant drive. Iterating the map gives the exact transient, from any initial norm
    and under any schedule of η and λ.
    """
    return linear.map_equations(linear.moment_map(_recursion(), _unit_variance()))


def _unit_variance() -> Expr:
    return random_walk()[0].rhs


@cache
def _stationary() -> Matrix:
    return linear.stationary(linear.moment_map(_recursion(), _unit_variance()))


@step
def stationary_moments() -> tuple[Eq, ...]:
    """The equilibrium is the fixed point of the map: three linear equations in three unknowns.

    Weights and momentum are anticorrelated, E wm < 0: the momentum still contains gradients that
    the weights have already followed. The leading-order argument has to neglect this, since it
    treats a contribution as if it were made in one step.
    """
    return linear.moment_equations(_stationary())


@step("adamw_exact_norm_squared", "E‖w‖² of AdamW, for constant v.", limit=LIMIT)
def exact_norm_squared() -> Eq:
    """The squared norm adds up the C coordinates.

    The factor (1 + aβ1)/(1 - aβ1) is what the momentum does at finite ηλ: while a contribution is
    still being made, its first part already decays.
    """
    return equation(W, tidy(C * _stationary()[0]))


@step("adamw_exact_one_minus_cosine", "1 - ρ of AdamW, for constant v.", limit=LIMIT)
def exact_one_minus_cosine() -> Eq:
    """The expected cosine between successive weights is ρ = (a + β1)/(1 + aβ1), like an addition of velocities.

    Only 1 - ρ is ever used, because ρ is so close to one that subtracting it from one would lose
    its digits. The rotation is θ² = 2(1 - ρ) for small angles.
    """
    return equation(1 - rho, linear.one_minus_cosine(_recursion(), _stationary()))


@step
def correlated_gradients() -> tuple[Eq, ...]:
    """Real gradients resemble those of neighbouring steps. The rotation does not care, if they are orthogonal to w.

    Scale invariance makes them so. Then the new gradient drops out of E w_{t-1}·m_t, and stationarity
    of E w·m and E‖w‖² gives both in units of E‖m‖². The norm follows E‖m‖², which autocorrelation changes;
    the cosine is the one found for white noise, at any ηλ.
    """
    norm, angle = linear.with_correlated_noise(a, Integer(0), beta1)
    return equation(W / E(norm_m**2), norm), equation(1 - rho, angle)


@step
def series_in_decay() -> tuple[Eq, ...]:
    """Expanding the exact results in δ = ηλ shows what the paper's formulas, W_0 and θ_0, leave out.

    Both series start with 1, which proves the leading order. The correction of the norm grows like
    1/(1-β1): what has to be small is not ηλ itself but the decay during the memory of the momentum.
    The rotation has no such term, since the stretched norm and the steps' own correlation cancel.
    """
    norm_ratio = exact_norm_squared().rhs / leading_norm().rhs ** 2
    angle_ratio = 2 * exact_one_minus_cosine().rhs / leading_rotation().rhs ** 2
    return (
        equation(W / W_0, expansion(_in_decay(norm_ratio), delta, 2)),
        equation(2 * (1 - rho) / theta_0**2, expansion(_in_decay(angle_ratio), delta, 2)),
    )


def _in_decay(expression: Expr) -> Expr:
    """The expression in δ and λ alone: a = 1 - δ and η = δ/λ."""
    return simplify(expand_parts(expression).subs(eta, delta / lamda))


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, β1 = 0, the weights are an exponential average of the gradients.

    Their autocorrelation at lag one is then a itself, so that 1 - ρ = δ.
    """
    return tuple(equation(s.lhs, s.rhs.subs(beta1, 0)) for s in (exact_norm_squared(), exact_one_minus_cosine()))


@step
def change_of_units() -> tuple[Eq, ...]:
    """Measure the weights in other units: η → cη and λ → λ/c multiply every length by c.

    An angle must not change and the norm must scale with c. So only the product ηλ can enter the
    rotation: tuning η at constant ηλ leaves it alone.
    """
    norm, angle = (scaling_factor(s.rhs, *UNITS) for s in (exact_norm_squared(), exact_one_minus_cosine()))
    return equation(W_new, norm * W), equation(1 - rho_new, angle * (1 - rho))


UNITS = ((eta, c), (lamda, 1 / c))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    angle = exact_one_minus_cosine().rhs
    norm_series, angle_series = (step.rhs for step in series_in_decay())
    still, still_angle = (expand_parts(step.rhs) for step in without_momentum())
    moments = linear.moment_map(_recursion(), _unit_variance())
    rate_sum, rate_product = (step.rhs for step in lagging_second_moment())
    return [
        ("one gradient contributes η in total", vanishes(total_update_contribution().rhs - eta)),
        ("leading rotation = RMS update / leading norm = sqrt(2ηλ(1-β1)/(1+β1))",
         vanishes(leading_rotation().rhs ** 2 - 2 * eta * lamda * (1 - beta1) / (1 + beta1))),
        ("the stationary moments are the fixed point of the transient", linear.fixed_by(moments, _stationary())),
        ("ρ = (a+β1)/(1+aβ1)", vanishes(1 - expand_parts(angle) - expand_parts((a + beta1) / (1 + a * beta1)))),
        (
            "ρ is the same for gradients correlated in time, if they are orthogonal to w",
            vanishes(correlated_gradients()[1].rhs - angle),
        ),
        ("p = -1: the times of both modes add up to T/D = (1/(2ηλ) + 2/(1-β2))/(2-f_v)",
         vanishes((rate_sum / rate_product).subs(p, -1) * (2 - f_v) - 1 / (2 * eta * lamda) - 2 / (1 - beta2))),
        ("p = 0: the modes decouple, with the rates 2ηλ and 1-β2",
         vanishes((T**2 - rate_sum * T + rate_product).subs(p, 0) - (T - 2 * eta * lamda) * (T - 1 + beta2))),
        ("exact W → leading W as ηλ → 0", vanishes(norm_series.subs(delta, 0) - 1)),
        ("exact 2(1-ρ) → leading θ² as ηλ → 0", vanishes(angle_series.subs(delta, 0) - 1)),
        ("β1 = 0: W = η²C/(1-a²)", vanishes(still - expand_parts(eta**2 * C / (1 - a**2)))),
        ("β1 = 0: 1-ρ = ηλ", vanishes(still_angle - eta * lamda)),
        ("rotation depends on ηλ only, norm scales as c under η → cη, λ → λ/c",
         change_of_units() == (equation(W_new, c**2 * W), equation(1 - rho_new, 1 - rho))),
        ("d log θ / d log (gradient scale) = 0", scale_exponent(leading_rotation().rhs) == 0),
    ]  # fmt: skip
