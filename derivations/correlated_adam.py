"""Adam under gradients with a memory, v left random: how updates correlate, and the walk they drive."""

from sympy import Eq, Expr, Function, Integer, Integral, Rational, Sum, Symbol, exp, oo, pi, solve, sqrt, symbols

from derivations import autocorrelated, damped, linear, second_moment
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import *

_f, _h, _G, _K = (Function(name) for name in "fhGK")
_s, _r, _shift = symbols("s r x_0", positive=True)
_xi, _xi_t = Symbol("xi", real=True), Function("xi")
_c = Symbol("c", real=True)
_d, _kappa, _kappa_v = symbols("d kappa kappa_v", positive=True)
_A, _B = symbols("A_h B_h", real=True)


@step
def one_coordinate() -> tuple[Eq, ...]:
    """z is a first-order autoregression of unit variance; y, what Adam averages, is z and a small shift x_0.

    The shift stands for all that follows the weights: projection, and under Adam+L2 decay.
    """
    return (
        equation(z_[t], phi * z_[t - 1] + sqrt(1 - phi**2) * _xi_t(t)),
        equation(y_[t], z_[t] + _shift),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * y_[t]),
        equation(v_[t], beta2 * v_[t - 1] + (1 - beta2) * y_[t] ** 2),
        equation(u_[t], m_[t] / sqrt(v_[t])),
    )


@step
def two_weights() -> Eq:
    """Both roots become integrals over weights e^(-sv), under which m, v's own gradients and z stay Gaussian."""
    weight = exp(-_s * v_[t] - _r * v_[t + k])
    inner = E(m_[t] * m_[t + k] * weight) / sqrt(_s * _r)
    return equation(_K(k), Integral(inner, (_s, 0, oo), (_r, 0, oo)) / pi)


@step
def one_after_the_other() -> Eq:
    """Up to t the two weights are one, of s + β2^k r; each later gradient has ζ(1-β2)y², where ζ = β2^(k-j) r.

    So the moments under one weight serve as the start, at every s + ζ, and are carried on from there in ζ alone.
    """
    later = Sum((1 - beta2) * beta2 ** (k - j) * y_[t + j] ** 2, (j, 1, k))
    return equation(v_[t + k], beta2**k * v_[t] + later)


@step("remembered_power", "Variance of an AR(1) gradient under e^(-ζv), before it is in v.")
def remembered() -> Eq:
    """What a gradient's variance Z₂ under the weight becomes: a share φ² of the last one's, and what is new."""
    return equation(y_power, phi**2 * z_power + 1 - phi**2)


@step("damped_covariance", "Covariance under e^(-ζv), once the newest gradient is in v.")
def covariances_left() -> Eq:
    """The new y takes from each covariance what goes along with it, as in `derivations.damped.covariances_left`.

    b is 2(1-β2)ζ and Q = 1 + bY₂. A mean moves likewise, with the mean of y in the place of one covariance.
    """
    by_y = {damped.weight_of_y().lhs: damped.weight_of_y().rhs}
    share = (damped.weight_of_y().rhs / damped.thinning().rhs).subs(by_y)
    return equation(Symbol("c′"), c_joint - share * c_one * c_two)


@step("averaged", "Covariance of the new momentum with anything, or its mean.")
def average() -> Eq:
    """The momentum averages whatever y has: its mean, and its covariance with anything else. Twice, for E m²."""
    return equation(E(m_[t] * _f(t)), beta1 * f_mean + (1 - beta1) * n_mean)


@step
def lasting_shift() -> tuple[Eq, ...]:
    """How u answers a shift of all y: the mean of m under each weight, from which the root is taken as before.

    Numerator and v answer apart: with weights h_j on a shift j steps ago, and κ_v of all that is owed to v. A signal is
    a shift that is not small: its mean takes a share of the weight too (`derivations.damped.weight_left_by_a_mean`).
    """
    return (
        equation(_kappa, Integral(E(m_[t] * exp(-_s * v_[t])) / (_shift * sqrt(_s)), (_s, 0, oo)) / sqrt(pi)),
        equation(_kappa_v, E(1 / sqrt(v_[t])) - _kappa),
    )


@step
def by_age() -> Eq:
    """The mean age of the answer: shift y by its age. A step ahead all are one step older, and the new y is 0 old.

    ν is the response to that, μ the response to a shift that is the same at all ages.
    """
    before, older = Symbol("nu_before"), Symbol("mu_before")
    return equation(Symbol("nu"), beta1 * (before + older))


@step
def shape_of_the_answer() -> Eq:
    """Three geometric sequences: the momentum's, and v's own memory of what m shares with a gradient j steps ago.

    For nearly constant v that is E m_t·z_{t-j}, of the two memories φ and β1 (`derivations.autocorrelated`). A and B
    are set by the sum and the mean age of what is owed to v.
    """
    return equation(_h(j), E(1 / sqrt(v_[t])) * (1 - beta1) * beta1**j - beta2**j * (_A * phi**j + _B * beta1**j))


@step
def walk() -> tuple[Eq, ...]:
    """With a gradient z - cw + λw the weights walk under u of z alone and what that pull makes of it.

    To first order in the pull, at any speed of the walk. For constant v it is the walk itself.
    """
    pull = (lamda - _c) * Sum(_h(j) * w_[t - 1 - j], (j, 0, oo))
    return (equation(w_[t], a * w_[t - 1] - eta * (u_[t] + pull)),)


@step
def overlap_with_the_next() -> Eq:
    """E w_t·z_{t+1}, which projection removes: an update had an overlap d with its gradient, of which φ^j lasts.

    G_j is what the walk keeps of a step j steps later.
    """
    return equation(E(w_[t] * z_[t + 1]), -eta * _d * phi * Sum(phi**j * _G(j), (j, 0, oo)))


@step
def orthogonality() -> tuple[Eq, ...]:
    """In front of a normalisation layer c makes the gradient orthogonal to w, and w feels a pull that it caused.

    v sees what is left: the share ε of z that lies along w is gone. Products of pull and spread of v are neglected.
    """
    return (
        equation(_c, E(w_[t - 1] * z_[t]) / E(w_[t] ** 2)),
        equation(E(y_[t] ** 2), 1 - epsilon),
        equation(epsilon, _c**2 * E(w_[t] ** 2)),
    )


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    left = covariances_left().rhs
    of_y = left.subs({c_joint: y_power, c_one: y_power, c_two: y_power}, simultaneous=True)
    thinned = damped.thinning().rhs.subs(damped.weight_of_y().lhs, damped.weight_of_y().rhs)
    return [
        ("v two steps later, from its own rule", _two_steps_later()),
        ("unit variance stays", vanishes(remembered().rhs.subs(z_power, 1) - 1)),
        ("y itself is thinned by Q", vanishes(of_y - y_power / thinned)),
        ("φ = 0: E m² under the weight is that of white noise", vanishes(_square(of_y) - _white_square())),
        ("ζ = 0: E m² and E m·z settle at what the autocorrelation gives", _settles_at_average_power()),
        ("ζ = 0: a shift of all y arrives whole, β1/(1-β1) steps old", _arrives_whole()),
        ("constant v, gradients free: the walk has AdamW's norm and cosine", _free_walk()),
        ("constant v, projected: c makes it AdamW's norm, cosine and share", _projected_walk()),
    ]


def _square(new: Expr) -> Expr:
    """E m² at φ = 0, where the new y has no covariance with the old m."""
    rule = average().rhs
    with_y = rule.subs({f_mean: 0, n_mean: new}, simultaneous=True)
    with_old = rule.subs({f_mean: m_power, n_mean: 0}, simultaneous=True)
    return rule.subs({f_mean: with_old, n_mean: with_y}, simultaneous=True)


def _white_square() -> Expr:
    """The same by the rule of S(σ) in `derivations.second_moment`, for a y of variance A."""
    _, _, _, rule = second_moment.product_and_sum()
    old = rule.lhs.func(beta2 * rule.lhs.args[0])
    return y_power * rule.rhs.subs(old, m_power / y_power).subs(rule.lhs.args[0], zeta * y_power)


def _two_steps_later() -> bool:
    rule = one_coordinate()[3].rhs
    once = rule.subs({t: t + 1})
    twice = rule.subs({t: t + 2}).subs(v_[t + 1], once)
    return vanishes(twice.expand() - one_after_the_other().rhs.subs(k, 2).doit().expand())


def _settles_at_average_power() -> bool:
    """x = E m·z and M = E m², with z of unit variance: x = β1 φ x + 1-β1, M by the rule of the average."""
    rule = average().rhs
    met = Symbol("met")
    [overlap] = solve(rule.subs({f_mean: phi * met, n_mean: 1}, simultaneous=True) - met, met)
    old_with_new = rule.subs({f_mean: m_power, n_mean: phi * overlap}, simultaneous=True)
    new_with_new = rule.subs({f_mean: phi * overlap, n_mean: 1}, simultaneous=True)
    square = rule.subs({f_mean: old_with_new, n_mean: new_with_new}, simultaneous=True)
    [power] = solve(square - m_power, m_power)
    white = (1 - beta1) / (1 + beta1)
    factor = autocorrelated.first_order_factor().rhs.subs(Symbol("beta", positive=True), beta1)
    return vanishes(power - white * factor)


def _arrives_whole() -> bool:
    """The mean of m settles at Σ κ_j of the average for a shift of all y, at Σ j κ_j for one by age."""
    rule, mean, aged = average().rhs, Symbol("mean"), Symbol("aged")
    [whole] = solve(rule.subs({f_mean: mean, n_mean: 1}, simultaneous=True) - mean, mean)
    before, older = sorted(by_age().rhs.free_symbols - {beta1}, key=str, reverse=True)
    [age] = solve(by_age().rhs.subs({before: aged, older: whole}, simultaneous=True) - aged, aged)
    return vanishes(whole - 1) and vanishes(age - beta1 / (1 - beta1))


def _with_pull(pull: Expr, memory: Expr, correlation: Expr, kept: Expr, step: Expr) -> linear.Autocorrelated:
    """The walk for constant v: m averages z and the pull."""
    found = linear.free_walk(kept, (1 - memory) * pull, memory, 1 - memory, correlation)
    return linear.Autocorrelated(*(part.subs(eta, step) for part in found))


def _free_walk() -> bool:
    found = _with_pull(Integer(0), beta1, phi, a, eta)
    return vanishes(found.square - autocorrelated.adamw_free_norm_squared().rhs / Symbol("C", positive=True)) and (
        vanishes(found.one_minus_cosine - autocorrelated.adamw_free_one_minus_cosine().rhs)
    )


def _projected_walk() -> bool:
    """In exact arithmetic at two points, one of them with anticorrelated gradients."""
    projected = linear.projected_walk(a, Integer(0), beta1, 1 - beta1, phi)
    points = ((Rational(1, 3), Rational(1, 2), Rational(1, 5)), (Rational(3, 4), Rational(-2, 5), Rational(1, 20)))
    for memory, correlation, decay in points:
        at = {delta: decay, a: 1 - decay, beta1: memory, phi: correlation, eta: 1}
        square, half, share = (
            part.subs(at) for part in (projected.square, projected.one_minus_cosine, projected.share)
        )
        square *= 1 - share  # there it is in units of what projection leaves, here of z
        size = sqrt(share / square)
        for c in (size, -size):
            found = _with_pull(-c, memory, correlation, 1 - decay, Integer(1))
            if found.square == square and found.overlap == c * square:
                break
        else:
            return False
        if found.one_minus_cosine != half:
            return False
    return True
