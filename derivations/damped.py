"""Adam in time: second moments of a coordinate together with its v, whatever gradient and decay do."""

from functools import cache

from sympy import (
    Eq,
    Expr,
    Function,
    Integer,
    Integral,
    Matrix,
    Poly,
    Symbol,
    exp,
    integrate,
    log,
    oo,
    pi,
    sqrt,
)

from derivations import adam_l2, linear, second_moment
from derivations.algebra import vanishes
from derivations.formula import expression, step
from derivations.symbols import *

_f = Function("f")
_x = Symbol("x", positive=True)
_xi = Symbol("xi", real=True)
_PARTS = (lambda: weight_of_y(), lambda: thinning())  # type: ignore[has-type]
_i, _j = Symbol("i"), Symbol("j")
_cov = Function("c")


@step
def one_coordinate() -> tuple[Eq, ...]:
    """AdamW and Adam+L2 are one chain: what Adam averages is y, gradient and λw. AdamW has λ = 0, Adam+L2 a = 1.

    h is the learning rate with all bias corrections. The gradient's power Γ may change from step to step.
    """
    return (
        equation(y_[t], g_[t] + lamda * w_[t - 1]),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * y_[t]),
        equation(v_[t], beta2 * v_[t - 1] + (1 - beta2) * y_[t] ** 2),
        equation(w_[t], a * w_[t - 1] - h * m_[t] / sqrt(v_[t])),
    )


@step
def damped_moments() -> tuple[Eq, ...]:
    """Give each moment f of (w, m) the weight e^(-ζv) and follow it for all ζ: divisions by v become integrals.

    ζ = 0 is the moment itself. The weight of a tail beyond ζ is what a root or a whole power of v takes away.
    """
    weight = exp(-_x * v)
    root = Integral(weight / sqrt(_x - zeta), (_x, zeta, oo)) / sqrt(pi)
    return (
        equation(exp(-zeta * v) / sqrt(v), root),
        equation(exp(-zeta * v) / v, Integral(weight, (_x, zeta, oo))),
    )


@step
def newest_gradient() -> tuple[Eq, ...]:
    """v′ = β2 v + (1-β2) y², so the weight is that of the old v at β2 ζ, times a Gaussian in y.

    All moments at ζ thus follow from those at β2 ζ, one step before: points ζ = β2^(-t)·constant keep apart.
    """
    return (
        equation(exp(-zeta * v_[t]), exp(-zeta * beta2 * v_[t - 1]) * exp(-b_y * y_[t] ** 2 / 2)),
        weight_of_y(),
    )


@cache
def weight_of_y() -> Eq:
    """b is 2(1-β2)ζ, which stands in every one of the following steps."""
    return equation(b_y, 2 * (1 - beta2) * zeta)


@step
def gaussian_under_every_weight() -> Eq:
    """Under AdamW m is a sum of gradients, and stays Gaussian when e^(-ζv), a product of Gaussians, weighs them.

    Of (w, m) under Adam+L2 the same is taken to hold for each ζ by itself, given where w started: the only step that
    is not exact. Together they need not be Gaussian for it, as each ζ and each start has moments of its own.
    """
    return pull()


@step("damped_pull", "Variance of gradient and decay in one coordinate.", shown=False)
def pull() -> Eq:
    """y has then the variance of its two parts: g is new. Its mean is λ times that of w."""
    return equation(y_power, Gamma / C + lamda**2 * w_power)


@step("damped_share", "What a gradient leaves of E e^(-ζv).", where=_PARTS)
def weight_left() -> Eq:
    """The Gaussian in y leaves 1/√Q of the weight: that is what E e^(-ζv) is multiplied by."""
    return equation(E(exp(-b_y * (_xi - E(_xi)) ** 2 / 2)), 1 / sqrt(Q_y))


@step
def thinning() -> Eq:
    """Q is by how much the inverse variance of y grows."""
    return equation(Q_y, 1 + b_y * y_power)


@step("damped_share_of_mean", "What the mean of the decay leaves of it.", where=_PARTS)
def weight_left_by_a_mean() -> Eq:
    """Where w, and with it y, has a mean, that takes a part of its own.

    This is how decay larger than the gradients fills v.
    """
    return equation(E(exp(-b_y * _xi**2 / 2)) * sqrt(Q_y), exp(-b_y * (lamda * w_mean) ** 2 / (2 * Q_y)))


@step
def covariances_left() -> Eq:
    """Large y count less, and with them whatever goes along with y.

    For jointly Gaussian variables a covariance loses b/Q times the product of both covariances with y.
    """
    i, j, both = _cov(_i, y_), _cov(_j, y_), _cov(_i, _j)
    return equation(Symbol("c′"), both - b_y / Q_y * i * j)


@step
def means_left() -> Eq:
    """A mean moves by b/Q times its covariance with y times the mean of y: that of y itself shrinks to 1/Q."""
    return equation(Symbol("μ′"), E(_i) - b_y / Q_y * _cov(_i, y_) * E(y_))


def _left(i: Expr, j: Expr, both: Expr) -> Expr:
    rule = covariances_left().rhs
    return rule.subs({_cov(_i, y_): i, _cov(_j, y_): j, _cov(_i, _j): both}, simultaneous=True)


def _mean_left(mean: Expr, with_y: Expr) -> Expr:
    return means_left().rhs.subs({E(_i): mean, _cov(_i, y_): with_y, E(y_): lamda * w_mean}, simultaneous=True)


_wy, _my = lamda * w_power, lamda * x_m  # covariances with y: the gradient's part has none


@step("damped_weight", "E w under e^(-ζv), once the newest gradient is in v.", where=_PARTS)
def weights_mean() -> Eq:
    """For w itself, whose covariance with y is λ times its variance."""
    return equation(E(w_[t - 1]), _mean_left(w_mean, _wy))


@step("damped_momentum", "E m of the old m likewise.", where=_PARTS)
def momentum_mean() -> Eq:
    """For the old momentum by the same rule, its covariance with y being λ times that with w."""
    return equation(E(m_[t - 1]), _mean_left(m_mean, _my))


@step("damped_pull_mean", "Mean of gradient and decay likewise.", where=_PARTS)
def pull_mean() -> Eq:
    """And for y, of which the new momentum takes 1-β1 in the place of as much of the old."""
    return equation(E(y_[t]), lamda * w_mean / Q_y)


@step("damped_weight_square", "Var w likewise.", where=_PARTS)
def weights() -> Eq:
    """Variances and covariances in the same way; from here on A₂, x and M are central."""
    return equation(E(w_[t - 1] ** 2), _left(_wy, _wy, w_power))


@step("damped_overlap", "Cov(w, m) likewise, m being the new one.", where=_PARTS)
def overlap() -> Eq:
    """For w and the new momentum: what y has of w is new in it."""
    return equation(E(w_[t - 1] * m_[t]), beta1 * _left(_wy, _my, x_m) + (1 - beta1) * _wy / Q_y)


@step("damped_momentum_square", "Var m of the new m likewise.", where=_PARTS)
def momentum() -> Eq:
    """For the new momentum's square. Without decay the last term alone is left beside β1² of what there was."""
    fresh, kept = 1 - beta1, beta1
    shared = 2 * kept * fresh * _my / Q_y
    return equation(E(m_[t] ** 2), kept**2 * _left(_my, _my, m_power) + shared + fresh**2 * y_power / Q_y)


@step("moved_weight", "E w under e^(-ζv) after the step.")
def mean_after_the_step() -> Eq:
    """Then the weights move by h m/√v. At each ζ the integral over larger ones takes the root, as in the second step.

    U is E[m/√v] under the weight, or E[m²/√v] in the next step. At ζ = 0 they are what moves norm and angle.
    """
    return equation(E(w_[t]), a * w_mean - h * u_m)


@step("moved_overlap", "E w·m under e^(-ζv) after the step.")
def overlap_after_the_step() -> Eq:
    """The product of the new weights and m, to be averaged into the next overlap."""
    return equation(E(w_[t] * m_[t]), a * x_m - h * u_m)


@step("moved_weight_square", "E w² under e^(-ζv) after the step.")
def weights_after_the_step() -> Eq:
    """The square of the new weights likewise, with y = E[w m/√v] and K_0 = E[m²/v]. Only decay inside v asks for it."""
    return equation(E(w_[t] ** 2), a**2 * w_power - 2 * a * h * y + h**2 * K_0)


@step
def even_in_the_logarithm() -> tuple[Eq, ...]:
    """In log ζ all functions are smooth, so few points do: the substitution x = ζ e^s leaves a root at s = 0 alone.

    Old points move right by -log β2 a step and out of sight; new ones enter at small ζ, where everything is nearly
    straight. A sum over the points costs the same at every step, however long Adam remembers.
    """
    s = Symbol("s", positive=True)
    inside = _f(_x) / sqrt(_x - zeta)
    new = (inside.subs(_x, zeta * exp(s)) * (zeta * exp(s)).diff(s)).subs(
        zeta * exp(s) - zeta, zeta * exp(s) * (1 - exp(-s))
    )
    return (
        equation(Integral(inside, (_x, zeta, oo)), Integral(new, (s, 0, oo))),
        equation(log(zeta / beta2), log(zeta) - log(beta2)),
    )


@step("fourth_cumulant", "E w⁴ - 3(E w²)² that a step from Gaussian weights makes.")
def leaving_the_normal_law() -> Eq:
    """A step makes Gaussian weights less so: by the fourth cumulant of w - hu, with moments under the weights above.

    Decay that fills v is felt through the whole law of w, so this, in units of 3(E w²)², is a part of the error.
    """
    made = -4 * h * c_31 + 6 * h**2 * c_22 - 4 * h**3 * c_13 + h**4 * c_04
    return equation(Symbol("κ_4"), made)


@step
def neurons_differ() -> tuple[Eq, ...]:
    """Neurons of one dim C differ: ‖w‖² is a sum of C terms, and a neuron's own norm sets its own gradient.

    To first order relative deviations of (W, M, v) follow the mean's map. It is W′ = kW + const·M′/v′, with the
    gradient Γ ~ W^p in M′ and v′. f is the share of kW in W′. New terms bring the variance of C independent squares.
    """
    return (
        equation(Symbol("x′"), norm_response().rhs * Symbol("x") + (1 - f_w) * (Symbol("a") - Symbol("b"))),
        equation(Symbol("Var W/W^2"), (E(u_[t] ** 4) / K_0**2 - 1) / C),
    )


@step("norm_response", "What a relative deviation of one neuron's ‖w‖² leaves of itself.")
def norm_response() -> Eq:
    """What a deviation of W leaves of itself. Above one, where v follows the gradient faster than m, it runs away.

    That is β1 > √β2: gradients fall as the weights grow, v forgets the old ones, m does not, and u grows.
    """
    return equation(Symbol("L"), f_w + (1 - f_w) * (q_m - q_v))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    whole = {name: expression(__name__, f"damped_{name}") for name in ("share", "momentum_square", "weight_square")}
    no_decay = {lamda: 0}
    share, square = whole["share"], whole["momentum_square"].subs(no_decay)
    plain, _ = (item.rhs for item in second_moment.one_gradient())
    _, _, p_rule, s_rule = second_moment.product_and_sum()
    newest = (p_rule.rhs / p_rule.lhs.func(beta2 * sigma)).subs(sigma, zeta)  # of P(σ), for gradients of unit variance
    of_sum = s_rule.rhs.subs(sigma, zeta).subs(s_rule.lhs.func(beta2 * zeta), m_power)
    constant = linear.moment_map(_linear(), Gamma / C)
    step = constant.matrix * Matrix([w_power, x_m, m_power]) + constant.drive
    return [
        ("one root: ∫ e^(-xv)/√(x-ζ) over x > ζ", vanishes(
            integrate(exp(-_x * v) / sqrt(_x), (_x, 0, oo)) / sqrt(pi) - 1 / sqrt(v))),
        ("a whole power: ∫ e^(-xv) over x > ζ", vanishes(
            integrate(exp(-_x * v), (_x, zeta, oo)) - exp(-zeta * v) / v)),
        ("a Gaussian weight leaves 1/√Q", vanishes(
            expand_parts(weight_left().rhs, (thinning(),)) - _weighted(0).subs(sigma, sqrt(y_power)))),
        ("beside it a mean leaves its own factor, and 1/Q of itself", _mean_by_squares()),
        ("means and covariances under it, by completing the square", _by_squares()),
        ("without decay: E e^(-ζv) is P of the second moment", vanishes(share.subs(y_power, 1) - newest)),
        ("without decay: E m² is S of the second moment", vanishes(square.subs(y_power, 1) - of_sum)),
        ("without decay: 1/√Q is the average over one gradient", vanishes(
            share.subs(y_power, 1) - plain.subs(plain.free_symbols.pop(), (1 - beta2) * zeta))),
        ("β2 → 1: the linear map of constant v", all(vanishes(one - other) for one, other in zip(
            _moved_at_constant_v(), step, strict=True))),
        ("at ζ = 0 nothing is damped", vanishes(share.subs(zeta, 0) - 1)
            and vanishes(whole["weight_square"].subs(zeta, 0) - w_power)),
        ("the fourth cumulant is that of w - hu", _is_fourth_cumulant()),
        ("the norm's response is the slope of its own map", _is_slope()),
        ("Adam+L2's rules are those of its own derivation", _same_rules()),
    ]  # fmt: skip


@cache
def _weighted(power: int, mean: Expr | int = 0) -> Expr:
    """E[ξ^power e^(-bξ²/2)] for ξ of variance σ² and power 0, 1 or 2: complete the square, and ξ is Gaussian again."""
    exponent = -b_y * _xi**2 / 2 - (_xi - mean) ** 2 / (2 * sigma**2)
    spread = sigma / sqrt(1 + b_y * sigma**2)
    middle = mean * spread**2 / sigma**2
    rest = exponent.subs(_xi, middle)
    assert vanishes(exponent - rest + (_xi - middle) ** 2 / (2 * spread**2))
    moments = (Integer(1), middle, middle**2 + spread**2)
    return spread / sigma * exp(rest) * moments[power]


def _mean_by_squares() -> bool:
    mean, q = Symbol("mu", positive=True), 1 + b_y * sigma**2
    left, first = _weighted(0, mean), _weighted(1, mean)
    factor = weight_left_by_a_mean().rhs.subs({w_mean: mean / lamda, Q_y: q})
    return vanishes(left * sqrt(q) / factor - 1) and vanishes(first / left - mean / q)


def _by_squares() -> bool:
    """Two variables that are i·y and j·y plus independent parts: the weight changes y alone."""
    i, j, rest, mean = (Symbol(name, positive=True) for name in ("i", "j", "c_0", "mu"))
    q = 1 + b_y * sigma**2
    total = _weighted(0, mean)
    first, square = (_weighted(power, mean) / total for power in (1, 2))
    by_rule = _left(i * sigma**2, j * sigma**2, i * j * sigma**2 + rest).subs(Q_y, q)
    moved = _mean_left(Symbol("m_0"), i * sigma**2).subs({Q_y: q, w_mean: mean / lamda})
    return vanishes(i * j * (square - first**2) + rest - by_rule) and vanishes(
        Symbol("m_0") + i * (first - mean) - moved
    )


def _linear() -> linear.Recursion:
    _, rule_m, _, rule_w = one_coordinate()
    next_m = rule_m.rhs.subs(y_[t], one_coordinate()[0].rhs)
    return linear.recursion(next_m, rule_w.rhs.subs(sqrt(v_[t]), 1 / c), w_[t - 1], m_[t - 1], m_[t], g_[t])


def _moved_at_constant_v() -> tuple[Expr, ...]:
    """(E w², E wm, E m²) after a step at β2 = 1, where 1/√v is the number c."""
    one = {
        name: expression(__name__, name).subs(beta2, 1).subs(y_power, pull().rhs)
        for name in ("damped_weight_square", "damped_overlap", "damped_momentum_square")
    }
    overlap_, power = one["damped_overlap"], one["damped_momentum_square"]
    new_w = weights_after_the_step().rhs.subs(
        {y: c * overlap_, K_0: c**2 * power, w_power: one["damped_weight_square"]}, simultaneous=True
    )
    return new_w, overlap_after_the_step().rhs.subs({u_m: c * power, x_m: overlap_}, simultaneous=True), power


def _is_fourth_cumulant() -> bool:
    """Expand (w - hu)⁴ and 3(E(w - hu)²)², for a Gaussian w with moments 3A², 0, A."""
    w, u = Symbol("w"), Symbol("u")
    moments = {(2, 0): w_power, (1, 1): y, (0, 2): K_0}
    moments |= {(4, 0): 3 * w_power**2, (3, 1): c_31 + 3 * w_power * y, (2, 2): c_22 + w_power * K_0 + 2 * y**2}
    moments |= {(1, 3): c_13 + 3 * y * K_0, (0, 4): c_04 + 3 * K_0**2}

    def mean(expression: Expr) -> Expr:
        return sum(factor * moments[powers] for powers, factor in Poly(expression.expand(), w, u).terms())

    direct = mean((w - h * u) ** 4) - 3 * mean((w - h * u) ** 2) ** 2
    return vanishes(direct - leaving_the_normal_law().rhs)


def _is_slope() -> bool:
    """d log W′/d log W of W′ = kW + cM′/v′, where m² and v take shares of a gradient of exponent p."""
    kept, c_, old_m, new_m, old_v, new_v = (Symbol(name, positive=True) for name in ("k", "c", "M", "N", "V", "U"))
    start, p = Symbol("W", positive=True), Symbol("p", real=True)
    power, moment = old_m + new_m * start**p, old_v + new_v * start**p
    after = kept * start + c_ * power / moment
    slope = after.diff(start) * start / after
    shares = {f_w: kept * start / after, q_m: p * new_m * start**p / power, q_v: p * new_v * start**p / moment}
    return vanishes(slope - norm_response().rhs.subs(shares))


def _same_rules() -> bool:
    _, rule_m, rule_w = adam_l2.random_walk()
    rules = one_coordinate()
    ours = rules[1].rhs.subs(y_[t], rules[0].rhs) - rule_m.rhs
    return vanishes(ours.expand()) and vanishes(
        rules[3].rhs.subs({a: 1, sqrt(v_[t]): sqrt(v), h: Symbol("eta", positive=True)}) - rule_w.rhs
    )
