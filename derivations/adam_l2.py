"""Adam with L2 regularisation: SGDM's walk, with a learning rate that the gradient sets."""

from functools import cache

from sympy import (
    Derivative,
    Eq,
    Expr,
    Function,
    Integer,
    Matrix,
    Rational,
    Sum,
    oo,
    simplify,
    sqrt,
)

from derivations import lag, linear, sgdm
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


@step
def random_walk() -> tuple[Eq, ...]:
    """The decay is added to the gradient before Adam sees it, so it is averaged and divided by √v as well.

    We take v as constant in time (β2 close to one). Gradients are noise with E‖g‖² = G·W^p: p = 0 for
    an isotropic gradient, p = -1 for weights in front of a normalisation layer.
    """
    return (
        equation(E(g_[t] ** 2), G * W**p / C),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * (g_[t] + lamda * w_[t - 1])),
        equation(w_[t], w_[t - 1] - eta * m_[t] / sqrt(v)),
    )


@step
def effective_learning_rate() -> Eq:
    """To leading order the gradient alone makes v, and Adam is SGD with learning rate η_e = η/√v.

    The decay is subject to the same η_e. A neuron with large gradients thus decays slowly: this is
    where Adam+L2 differs from AdamW.
    """
    return equation(eta_e, eta / sqrt(random_walk()[0].rhs))


@step
def total_update_contribution() -> Eq:
    """One gradient is averaged into all later steps; added up it moves the weights by η_e times itself."""
    share = eta_e * (1 - beta1) * beta1**j
    return equation(Sum(share, (j, 0, oo)), tidy(geometric_sum(share, j)))


@step
def orthogonal_growth() -> Eq:
    """The contribution is orthogonal to the weights on average and adds its square to the squared norm.

    Its length is η√C for every neuron, because Adam normalises it: growth is the same as for AdamW.
    Loss is 2η_eλW, and η_e depends on the gradient's size.
    """
    return equation(W_[t], (W - _loss() + _growth()).subs(W, W_[t - 1]))


def _growth() -> Expr:
    contribution = total_update_contribution().rhs.subs(eta_e, effective_learning_rate().rhs)
    return simplify(contribution**2 * C * random_walk()[0].rhs)


def _loss() -> Expr:
    return 2 * effective_learning_rate().rhs * lamda * W


@step
def balance() -> Eq:
    """Setting growth equal to loss fixes a power of the norm, W^(1-p/2)."""
    return equation(W, raised(fixed_point(_growth(), _loss(), W, 1 - p / 2), Integer(1)))


@step("adam_l2_leading_norm", "RMS norm of the weights under Adam+L2, to leading order in ηλ.")
def leading_norm() -> Eq:
    """The root of W is the norm: for scale-invariant weights, p = -1, the cube root of η√(CG)/(2λ).

    This is the paper's result. The norm follows the gradient's size, here as for SGDM.
    """
    return equation(sqrt(W), raised(balance().rhs, Rational(1, 2)))


@step("adam_l2_relaxation_steps", "Steps in which a deviation of ‖w‖² shrinks e-fold, v following at once.")
def relaxation_steps() -> Eq:
    """Near the balance a deviation shrinks at the rate at which growth and loss move apart.

    Growth is constant and loss is proportional to W^(1-p/2), so the rate is (2-p)η_eλ. It is written
    with the second moment v, since that is what an optimizer stores.
    """
    time = relaxation_time(_growth(), _loss(), W)
    return equation(tau, tidy(simplify(time.subs(G, C * v / W**p))))


@step
def lagging_second_moment() -> tuple[Eq, Eq]:
    """v needs 1/(1-β2) steps to follow a change of the norm, as for AdamW, and here it sets the decay as well.

    Linearising W and v around their balance gives two modes, with T the sum and D the product of their rates.
    """
    growth = eta**2 * G * W**p / lag.DENOMINATOR**2
    loss = 2 * eta * lamda * W / lag.DENOMINATOR
    return lag.rates(growth, loss, 2 * lamda * W * lag.DENOMINATOR / (eta * v))


@step(
    "adam_l2_lagged_relaxation_steps",
    "Steps in which a deviation of ‖w‖² shrinks e-fold while v follows it.",
    where=(lagging_second_moment,),
)
def lagged_relaxation_steps() -> Eq:
    """The slower of the two modes is what an observer sees; with fast v it is the relaxation found above."""
    return lag.slow_time()


@step("adam_l2_leading_rotation", "RMS angle per step of Adam+L2, to leading order in ηλ.", where=(balance,))
def leading_rotation() -> Eq:
    """Step length over norm: momentum shortens the step just as it does for AdamW, and W is that of the balance.

    The step does not depend on the gradient's size but W does, so the rotation does, too. Neurons
    with large gradients settle at a large norm and rotate slowly: no common rotation, unlike with AdamW.
    """
    step = eta**2 * C * geometric_sum(((1 - beta1) * beta1**j) ** 2, j)
    return equation(theta, sqrt(tidy(step) / W))


def _rotation() -> Expr:
    return leading_rotation().rhs.subs(W, balance().rhs)


@step
def gradient_imbalance() -> Eq:
    """How the rotation follows the scale of a neuron's gradient, √G: a power law.

    The exponent is -1/3 for scale-invariant weights. For AdamW, SGDM and Lion it is zero.
    """
    angle = Function("theta")(G)
    return equation(2 * G / angle * Derivative(angle, G), scale_exponent(_rotation()))


@step("adam_l2_second_moment", "Stationary v of one coordinate, from noise and decay.")
def second_moment() -> Eq:
    """Beyond leading order the decay contributes to v as well: noise and weights are uncorrelated.

    E(g + λw)² is the sum of the two squares. Each is shared by C coordinates.
    """
    return equation(v, (G * W**p + lamda**2 * W) / C)


@step
def equivalent_step_size() -> Eq:
    """Call m/(1-β1) the momentum, and the recursion is SGDM's with α = β1 and the learning rate η'.

    Everything that was proved for SGDM holds with this η', for given v.
    """
    return equation(eta_step, eta * (1 - beta1) / sqrt(v))


@cache
def _recursion() -> linear.Recursion:
    _, rule_m, rule_w = random_walk()
    grown = (1 - beta1) * m_[t]
    next_m = rule_m.rhs.subs(m_[t - 1], grown.subs(t, t - 1)) / (1 - beta1)
    next_w = rule_w.rhs.subs(m_[t], grown)
    rec = linear.recursion(simplify(next_m), next_w, w_[t - 1], m_[t - 1], m_[t], g_[t])
    # v is named through η', so that the moments are rational functions
    return linear.substitute(rec, sqrt(v), eta * (1 - beta1) / eta_step)


@step
def transient() -> tuple[Eq, ...]:
    """For given v the second moments x = (E w², E wm, E m²) follow a linear map, with m the rescaled momentum."""
    return linear.map_equations(linear.moment_map(_recursion(), sigma**2))


@cache
def _stationary() -> Matrix:
    return linear.stationary(linear.moment_map(_recursion(), sigma**2))


@step
def gain() -> Eq:
    """SGDM's gain A = W/E‖g‖², with η' in the place of η and β1 in that of α."""
    by_step = sgdm.gain().rhs.subs(delta, eta_step * lamda)
    return equation(A, by_step.subs({eta: eta_step, alpha: beta1}))


@step(
    "adam_l2_exact_norm_squared_map",
    "F(W), whose fixed point W = F(W) is E‖w‖² of Adam+L2, for constant v.",
    where=(second_moment, equivalent_step_size, gain),
)
def exact_norm_squared_map() -> Eq:
    """W = A·E‖g‖² as for SGDM, but A depends on v and v on W: one scalar equation W = F(W).

    It has no closed solution for general p. Its right-hand side is what is generated.
    """
    return equation(W, A * G * W**p)


@step("adam_l2_exact_one_minus_cosine", "1 - ρ of Adam+L2, for constant v.", where=(equivalent_step_size,))
def exact_one_minus_cosine() -> Eq:
    """SGDM's cosine with η' in the place of η. For given v it is exact, and v is all that the gradient enters by."""
    cosine = sgdm.exact_one_minus_cosine().rhs.subs(delta, eta_step * lamda).subs(alpha, beta1)
    return equation(1 - rho, cosine)


@step
def decay_share() -> tuple[Eq, ...]:
    """What has to be small here is κ = η_eλ, the decay per step, and not ηλ itself.

    At the leading-order balance G and C can be expressed by κ, λ, η and W. The share of v that comes from
    the decay then turns out to be κ/2: as small as the other terms that are neglected.
    """
    return (
        equation(G, 2 * lamda**2 * W ** (1 - p) / kappa),
        equation(C, 2 * kappa * W / eta**2),
    )


def _plain(expression: Expr) -> Expr:
    """`expression` without the named parts A, η' and v."""
    for part in (gain(), equivalent_step_size(), second_moment()):
        expression = expression.subs(part.lhs, part.rhs)
    return expression


def at_balance(expression: Expr) -> Expr:
    """`expression` with G and C replaced, W being the leading-order equilibrium, as a function of κ."""
    return simplify(_plain(expression).subs({part.lhs: part.rhs for part in decay_share()}))


@step
def series_in_decay() -> tuple[Eq, ...]:
    """Expanding in κ: the right-hand side of W = F(W), taken at the leading-order W_0, starts with W_0.

    So does the cosine with the paper's rotation θ_0. Both series start with 1, which proves the leading order.
    """
    angle_ratio = 2 * exact_one_minus_cosine().rhs / leading_rotation().rhs ** 2
    return (
        equation(Function("F")(W_0) / W_0, expansion(at_balance(exact_norm_squared_map().rhs / W), kappa, 2)),
        equation(2 * (1 - rho) / theta_0**2, expansion(at_balance(angle_ratio), kappa, 2)),
    )


@step
def without_momentum() -> tuple[Eq, ...]:
    """Without momentum, β1 = 0, one step decays by η/√v·λ and the cosine says just that."""
    return tuple(equation(s.lhs, s.rhs.subs(beta1, 0)) for s in (gain(), exact_one_minus_cosine()))


@step
def change_of_units() -> tuple[Eq, ...]:
    """Measure the weights in units 1/c: η → cη, λ → λ/c, W → c²W, and G → G/c^(2p), so that the gradient stays.

    The map turns into c² times itself and the rotation does not change. Unlike for the other
    optimizers G has to change too: for p ≠ 0, η → cη and λ → λ/c alone do change the rotation.
    """
    units = (*sgdm.UNITS, (W, c**2))
    norm = scaling_factor(_plain(exact_norm_squared_map().rhs), *units)
    angle = scaling_factor(_plain(exact_one_minus_cosine().rhs), *units)
    return equation(W_new, norm * W), equation(1 - rho_new, angle * (1 - rho))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    norm_series, angle_series = (step.rhs for step in series_in_decay())
    moments = linear.moment_map(_recursion(), sigma**2)
    still_angle = without_momentum()[1].rhs
    rate_sum, rate_product = (step.rhs for step in lagging_second_moment())
    at_once = (rate_sum / rate_product).subs(beta2, -1 / c).limit(c, 0)
    alone = scaling_factor(_rotation(), *sgdm.UNITS[:2])
    return [
        ("growth per step is η²C, as for AdamW", vanishes(_growth() - eta**2 * C)),
        ("p = -1: leading norm³ = η√(CG)/(2λ)",
         vanishes(raised(leading_norm().rhs.subs(p, -1), 3) - eta * sqrt(C * G) / (2 * lamda))),
        ("p = -1: d log θ / d log (gradient scale) = -1/3",
         vanishes(gradient_imbalance().rhs.subs(p, -1) + Rational(1, 3))),
        ("Adam+L2 is SGDM with η' = η(1-β1)/√v", vanishes(_stationary()[0] / sigma**2 - gain().rhs)),
        ("the stationary moments are the fixed point of the transient", linear.fixed_by(moments, _stationary())),
        ("β2 → -∞ (v follows at once): T/D is the relaxation time of W alone",
         vanishes(at_once.subs(f_v, 1) - relaxation_steps().rhs)),
        ("the decay's share of v is η_eλ/2", vanishes(at_balance(lamda**2 * W / (G * W**p)) - kappa / 2)),
        ("κ parametrises the leading balance", vanishes(at_balance(balance().rhs / W) - 1)),
        ("F(W_0)/W_0 → 1 as κ → 0", vanishes(norm_series.subs(kappa, 0) - 1)),
        ("exact 2(1-ρ) → leading θ² = 2η_eλ(1-β1)/(1+β1) as κ → 0", vanishes(angle_series.subs(kappa, 0) - 1)),
        ("β1 = 0: 1-ρ = η'λ", vanishes(still_angle - eta_step * lamda)),
        ("under η → cη, λ → λ/c alone the leading rotation changes by c^(-p/(2-p))",
         vanishes(c * alone.diff(c) / alone + p / (2 - p))),
        ("units: rotation is invariant, norm scales as c under η → cη, λ → λ/c, G → G/c^(2p)",
         change_of_units() == (equation(W_new, c**2 * W), equation(1 - rho_new, 1 - rho))),
    ]  # fmt: skip
