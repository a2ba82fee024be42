"""A radial part in the gradient: an effective weight decay, for every optimizer."""

from functools import cache
from types import ModuleType

from sympy import Eq, Expr, Function, Integer, Matrix, Poly, Symbol, factor, pi, powsimp, sign, simplify, solve, sqrt

from derivations import adam_l2, adamw, linear, lion, lion_autocorrelated, sgdm
from derivations.algebra import expansion, tidy, vanishes
from derivations.formula import expression, generated, step
from derivations.symbols import *

LIMIT = "lr * weight_decay < 1"


@step
def radial_gradient() -> tuple[Eq, ...]:
    """Weights that are not scale-invariant feel a gradient along themselves, whose mean is P_g times the weights.

    A positive P_g pulls inwards: the loss prefers smaller weights. A negative one pushes outwards.
    """
    return (equation(E(g_[t]), P_g * w_[t - 1]),)


@step
def coupled_decay() -> Eq:
    """SGDM and Adam+L2 add λw to the gradient. The radial part is one more such term: λ becomes λ + P_g, exactly.

    Everything that `derivations.sgdm` and `derivations.adam_l2` prove holds with it, v included.
    """
    added = sgdm.random_walk()[2].rhs.subs(g_[t], g_[t] + P_g * w_[t - 1])
    return equation(m_[t], added.collect(w_[t - 1]))


@step
def normalised() -> tuple[Eq, ...]:
    """AdamW divides the gradient by √v before it averages it: the weights feel P = P_g/√v, through the momentum.

    Their own decay stays outside. The second moment sees noise and radial part, uncorrelated, together.
    """
    return (
        equation(P, P_g / sqrt(v)),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * (u_[t] + P * w_[t - 1])),
        equation(w_[t], a * w_[t - 1] - eta * m_[t]),
    )


@step
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


@step
def adamw_norm_squared() -> Eq:
    """For noise without memory the linear recursion gives the norm as well, at any ηλ and for constant v.

    Noise of unit variance after division by √v; where the radial part has a share of v, the noise has less.
    """
    return equation(W, _in_total(tidy(C * _stationary()[0])))


@step
def adamw_one_minus_cosine() -> Eq:
    """The cosine of that walk is the one of the identity above."""
    return equation(1 - rho, _in_total(linear.one_minus_cosine(_recursion(), _stationary())))


def _in_total(expression: Expr) -> Expr:
    """1 - a + ηP written as δ + ηP, which does not cancel."""
    return expression.subs(1 - a + eta * P, delta + eta * P)


@step
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


@step
def lion_radial() -> tuple[Eq, ...]:
    """A sign responds to a small shift of its argument with the slope of the linearised sign.

    So Lion's weights feel P = P_g·slope, delayed as its filter delays any gradient, by β1/(1-β2) steps in the mean.
    """
    return (
        equation(E(w_[t - 1] * sign(c_[t])), P * W + E(w_[t - 1] * u_[t])),
        equation(P, P_g * lion.linearised_sign().rhs),
    )


@step
def lion_moments() -> tuple[Eq, ...]:
    """Linearised, u = ςc plus what is left of the sign, Lion's second moments close again.

    They are those of w and m; E c·m follows. Steps have unit size in every coordinate, whatever their direction:
    E u² = 1 is used as it is. What the arcsine adds to the straight line between recent steps, x_e, counts twice, as S
    does in `derivations.lion`.
    """
    ahead = beta1 * _inner + (1 - beta1) * P_g * w_square  # E w_{t-1}·c_t
    with_new, power = P_g * _inner, 1 + P_g**2 * w_square  # E m_{t-1}·g_t, E g²
    shared = beta1 * (1 - beta2) + beta2 * (1 - beta1)
    overlap = beta1 * beta2 * m_square + shared * with_new + (1 - beta1) * (1 - beta2) * power  # E c_t·m_t
    return (
        equation(_overlap, overlap),
        equation(w_square, a**2 * w_square - 2 * a * eta * varsigma * ahead + eta**2 * (1 + 2 * x_e)),
        equation(_inner, a * beta2 * _inner + a * (1 - beta2) * P_g * w_square - eta * varsigma * _overlap),
        equation(m_square, beta2**2 * m_square + 2 * beta2 * (1 - beta2) * with_new + (1 - beta2) ** 2 * power),
    )


_inner, _overlap = Symbol("E(wm)", real=True), Symbol("E(cm)", real=True)


def _closed() -> tuple[Eq, ...]:
    """The three equations, with the overlap of direction and momentum put in."""
    overlap, *moments = lion_moments()
    return tuple(moment.subs(_overlap, overlap.rhs) for moment in moments)


@step
def lion_momentum() -> Eq:
    """The third at rest gives E m² from E w·m."""
    third = _closed()[2]
    [found] = solve(third.lhs - third.rhs, m_square)
    return equation(m_square, _by_power(found, _inner))


@step
def lion_inner() -> tuple[Eq, ...]:
    """The second then gives E w·m = I_0 + I_1 E w²."""
    second = _closed()[1]
    rest = (second.lhs - second.rhs).subs(m_square, lion_momentum().rhs).expand()
    slope = _by_power(rest.coeff(_inner, 1).subs(w_square, 0), P_g)
    constant = rest.subs({_inner: 0, w_square: 0})
    return (
        equation(P_g, P / varsigma),
        equation(I_0, tidy(-constant) / slope),
        equation(I_1, -_by_power(rest.coeff(w_square, 1).subs(_inner, 0), P_g) / slope),
    )


def _by_power(expression: Expr, variable: Expr) -> Expr:
    """The polynomial in `variable`, each coefficient factored: sums of small terms stay sums."""
    found = Poly(expression.expand(), variable)
    return sum((factor(coefficient) * variable**power for (power,), coefficient in found.terms()), Integer(0))


@step
def lion_square() -> Eq:
    """And the first gives E w²: growth by steps of unit size over what decay and pull take, without a difference."""
    first = _closed()[0]
    rest = (first.rhs - first.lhs).subs(_inner, I_0 + I_1 * w_square).expand()
    taken = -rest.coeff(w_square, 1) - 1 + a**2
    growth = eta**2 * (1 + 2 * x_e) + factor(rest.coeff(I_0, 1)) * I_0
    return equation(w_square, growth / (delta * (1 + a) + factor(taken)))


@step(
    "lion_radial_norm_squared",
    "E‖w‖² of Lion where the linearised sign feels P·w beside noise of unit variance.",
    where=(lion_inner, lion_square),
    limit=LIMIT,
)
def lion_norm_squared() -> Eq:
    """C coordinates make the norm. With P = 0 it is the linearised norm of white noise."""
    return equation(W, C * w_square)


@step
def lion_momentum_at_rest() -> Eq:
    """With that E w·m put in, E m² follows from E w² alone."""
    return equation(m_square, lion_momentum().rhs.subs(_inner, I_0 + I_1 * w_square))


@step(
    "lion_radial_variance",
    "Variance of Lion's update direction where the linearised sign feels P·w beside noise of unit variance.",
    where=(lion_inner, lion_square, lion_momentum_at_rest),
    limit=LIMIT,
)
def lion_variance() -> Eq:
    """The variance of the update direction, which the slope follows: ς² = 2/(πγ_0). Noise and w both are in it."""
    inner = I_0 + I_1 * w_square
    return equation(
        gamma_0,
        beta1**2 * m_square + 2 * beta1 * (1 - beta1) * P_g * inner + (1 - beta1) ** 2 * (1 + P_g**2 * w_square),
    )


@step("lion_one_minus_cosine", "1 - ρ of Lion at a known norm, for any gradients.", limit=LIMIT)
def unit_steps() -> Eq:
    """Lion's cosine follows from its norm alone: ‖w_t - a w_{t-1}‖ is η√C, for any gradients at all."""
    return equation(1 - rho, (eta**2 * C / W - delta**2) / (2 * a))


@step
def decay_per_step() -> Eq:
    """A network that still learns has a norm that moves. Weigh all three: updates lengthen w, decay and P shorten it.

    An update adds more to ‖w‖² than its own square θ²W, since the next ones repeat it: by (1+β)/(1-β) more where an
    average with decay β makes it, the total contribution squared over the update squared. At rest decay takes this.
    """
    return equation(Function("L")(W) / W, _lengthening(adamw, beta1) * theta**2)


def _lengthening(optimizer: ModuleType, memory: Symbol) -> Expr:
    """Growth of ‖w‖² per squared length of an update."""
    return tidy(simplify(optimizer._growth() / optimizer.update_size().rhs)).subs(memory, beta)


@step(
    "turn_while_growing",
    "Rotation over that of equilibrium where ‖w‖² grows and the gradient has a radial part.",
    limit="1 + radial_share + growth >= 0",
)
def turn_while_growing() -> Eq:
    """So ψ = θ/θ_0, the rotation over that at rest without P, obeys ψ² = 1 + ϱ + Λ: ϱ = P/λ, Λ = Δ ln W over the decay.

    This needs no equilibrium and no white noise, only the average that makes the update. For Lion, whose step has one
    length, it holds with another number in the place of (1+β)/(1-β).
    """
    at_rest = decay_per_step().rhs.subs(theta, theta_0)
    change = decay_per_step().rhs.subs(theta, z_theta * theta_0) - at_rest * (1 + varrho)
    return equation(z_theta, solve(change - g_W * at_rest, z_theta)[-1])


@step
def adam_l2_decay_while_growing() -> Eq:
    """Adam+L2's decay is divided by √v, and v follows ‖w‖; its step has one length, so that W = W_0/ψ².

    A norm that moves within the 1/(1-β2) steps of v is not described. Below: the share of W that decay takes, over
    that at rest.
    """
    share = adam_l2._loss() / W
    return equation(Function("L")(W) * W_0 / (Function("L")(W_0) * W), _by_turn(share))


def _by_turn(share: Expr) -> Expr:
    return powsimp(simplify(share.subs(W, W_0 / z_theta**2) / share.subs(W, W_0)), force=True)


@step(
    "adam_l2_turn_excess",
    "Zero at Adam+L2's rotation over that of equilibrium where ‖w‖² grows; scale-invariant weights.",
)
def adam_l2_turn_while_growing() -> Eq:
    """In front of a normalisation layer, p = -1, that is 1/ψ; multiplied by ψ the balance is a cubic in ψ.

    It has one positive root where decay and P together pull inwards.
    """
    taken = adam_l2_decay_while_growing().rhs.subs(p, -1)
    return equation(Integer(0), ((z_theta**2 - (1 + varrho) * taken - g_W) * z_theta).expand().collect(g_W))


generated(
    __name__,
    "lion_sign_slope",
    lion.linearised_sign,
    "Slope of the best straight line through the sign of Lion's direction, for gradients of unit variance.",
    where=(lion.variance,),
)
generated(
    __name__, "sign_slope", lion.linearised_sign, "Slope of the best straight line through the sign of a Gaussian."
)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    coupled_norm, coupled_angle = linear.with_correlated_noise(Integer(1), delta / eta + P, alpha)
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
        ("Lion: the three moments at rest fulfil their equations", _lion_at_rest()),
        ("Lion, P = 0: the norm of the linearised sum", vanishes(
            expression(__name__, "lion_radial_norm_squared").subs(P, 0) - lion.exact_norm_squared().rhs.subs(
                S, lion_autocorrelated.lion_linear_sum().rhs.subs(
                    q, lion_autocorrelated.overlap_ratio().subs(phi, 0)) * varsigma**2 * pi / 2
                * lion.variance().rhs + x_e))),
        ("Lion, P = 0: the variance of white noise", vanishes(
            expression(__name__, "lion_radial_variance").subs(P, 0) - lion.variance().rhs)),
        ("Lion: unit steps give the cosine of the exact norm", vanishes(
            unit_steps().rhs.subs(W, lion.exact_norm_squared().rhs) - lion.exact_one_minus_cosine().rhs)),
        ("updates lengthen w alike in AdamW, SGDM and Adam+L2", vanishes(
            _lengthening(adamw, beta1) - (1 + beta) / (1 - beta))
            and vanishes(_lengthening(sgdm, alpha) - _lengthening(adamw, beta1))
            and vanishes(adam_l2._growth() - adamw._growth())),
        ("at rest the updates make up for the loss, AdamW and SGDM", all(vanishes(
            _lengthening(module, memory).subs(beta, memory) * module.leading_rotation().rhs ** 2 - module._loss() / W)
            for module, memory in ((adamw, beta1), (sgdm, alpha)))),
        ("no growth: ψ² = 1 + P/λ is the paper's rotation at λ + P", vanishes(
            turn_while_growing().rhs.subs({g_W: 0, varrho: P / lamda}) ** 2
            - _at_total(adamw.leading_rotation().rhs ** 2) / adamw.leading_rotation().rhs ** 2)),
        ("Adam+L2: the share that decays is ψ^p", vanishes(adam_l2_decay_while_growing().rhs - z_theta**p)),
        ("Adam+L2, no growth: ψ³ = 1 + P/λ is the paper's rotation at λ + P", vanishes(
            adam_l2_turn_while_growing().rhs.subs({g_W: 0, varrho: P / lamda})
            - z_theta**3 + _adam_l2_cubed())),
        ("η → 0: W is the paper's at λ + P", vanishes(norm_ratio - 1)),
        ("η → 0: θ² is the paper's at λ + P", vanishes(angle_ratio - 1)),
    ]  # fmt: skip


def _adam_l2_cubed() -> Expr:
    """(θ at λ + P over θ at λ)³ of Adam+L2's leading order, p = -1."""
    rotation = adam_l2._rotation().subs(p, -1)
    return powsimp(simplify((_at_total(rotation) / rotation) ** 3), force=True)


def _lion_at_rest() -> bool:
    """Put what was eliminated back, one after the other, so that no slip in between survives."""
    first, second, third = (item.lhs - item.rhs for item in _closed())
    inner = {_inner: I_0 + I_1 * w_square}
    parts = {item.lhs: item.rhs for item in lion_inner()[1:]}
    in_turn = (
        third.subs(m_square, lion_momentum().rhs),
        second.subs(m_square, lion_momentum().rhs).subs(inner).subs(parts),
        first.subs(inner).subs(w_square, lion_square().rhs).subs(delta, 1 - a),
    )
    return all(expression.together().as_numer_denom()[0].expand() == 0 for expression in in_turn)
