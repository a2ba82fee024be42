"""In time: norm and rotation at every step, at O(1) a step, under any schedule and from any start."""

from functools import cache

from sympy import (
    Eq,
    Expr,
    Function,
    Integer,
    Matrix,
    Sum,
    Symbol,
    exp,
    eye,
    factor,
    limit,
    log,
    oo,
    series,
    simplify,
    solve,
    sqrt,
    symbols,
)
from sympy.codegen.cfunctions import expm1, log1p

from derivations import adamw, linear, lion, sgdm
from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

LIMIT = "lr * weight_decay < 1"

_X, _M, _f, _rho = Function("X_n")(t), Function("M"), Function("f"), Function("rho")
_r, _v = Function("r"), Function("v")
_norm, _new, _chord = symbols("‖w‖ ‖w′‖ ‖Δw‖", positive=True)


@step
def walk_with_memory() -> tuple[Eq, ...]:
    """AdamW and Lion are one walk: the weights keep a share a and take an update of length h that remembers.

    All that is known of the updates is their autocovariance, a sum of modes p_n μ_n^k over the lag k: one mode β1
    for AdamW with constant v, several for random v and for a sign. Both a and h may change with every step.
    """
    return (
        equation(w_[t], a * w_[t - 1] - h * u_[t]),
        equation(E(u_[t] * u_[t + k]), Sum(p_n * mu_n**k, (n, 0, oo))),
    )


@step
def overlap_with_a_mode() -> tuple[Eq, ...]:
    """What the weights have of the next update, mode by mode, is an average of what they took of it before.

    Unrolling the walk shows that each mode has a recursion of its own. X_n gathers p_n·h of every past update,
    decayed by a with the weights and by μ_n with the memory.
    """
    return (equation(_X, mode_overlap().rhs.subs(X_n, _X.subs(t, t - 1))), equation(y, Sum(mu_n * X_n, (n, 0, oo))))


@step("walk_mode_overlap", "Overlap of the weights with one mode, one step on.", shown=False)
def mode_overlap() -> Eq:
    """The right-hand side alone, X_n being that of the step before."""
    return equation(_X, a * mu_n * X_n - h * p_n)


@step("walk_along", "E w·Δw of one step of AdamW or Lion.")
def along_the_weights() -> Eq:
    """A step Δw = -δw - hu changes ‖w‖² by 2w·Δw + ‖Δw‖². The first part: decay, and the overlap y = E w·u."""
    return equation(E(w_[t - 1] * (w_[t] - w_[t - 1])), -delta * W - h * y)


@step("walk_moved", "E‖Δw‖² of one step of AdamW or Lion.")
def length_of_the_step() -> Eq:
    """The second part. With K_0 = E‖u‖² the new norm is known: three numbers a mode carry the whole course."""
    return equation(E((w_[t] - w_[t - 1]) ** 2), delta**2 * W + 2 * delta * h * y + h**2 * K_0)


@step
def norm_in_time() -> Eq:
    """Both together are the map of the squared norm. Nothing was neglected: any ηλ, any schedule, any start."""
    return equation(W_[t], _next_norm().subs(W, W_[t - 1]))


def _next_norm() -> Expr:
    return W + 2 * along_the_weights().rhs + length_of_the_step().rhs


@step
def angle_of_a_step() -> Eq:
    """The angle between w and w′ follows from three lengths, by the law of cosines.

    Written with the change of the norm it is a sum of small terms: no difference of numbers near one.
    """
    cosine = (_norm**2 + _new**2 - _chord**2) / (2 * _norm * _new)
    written = (_chord**2 - (_new - _norm) ** 2) / (_norm * _new)
    assert simplify(2 * (1 - cosine) - written) == 0
    return equation(2 * (1 - rho), written)


@step("walk_settled_overlap", "Overlap of the weights with one mode at rest.", limit=LIMIT)
def stationary_overlap() -> Eq:
    """With constant a and h the overlap of a mode settles where its recursion stays."""
    return equation(X_n, tidy(-h * p_n / (1 - a * mu_n)))


@step
def stationary_norm() -> tuple[Eq, ...]:
    """y is then -h/a times the discounted sum of the autocovariance, and W that of Lion and AdamW in equilibrium.

    S = Σ a^k K_k/K_0 is a sum over modes of geometric series.
    """
    one_mode = tidy(mu_n * stationary_overlap().rhs)
    by_sum = -h / a * geometric_sum(a**k * p_n * mu_n**k, k, 1)
    assert simplify(one_mode - by_sum) == 0
    return equation(y, -h / a * K_0 * S), equation(W, _stationary_norm())


def _stationary_norm() -> Expr:
    settled = (_next_norm() - W).subs(y, -h / a * K_0 * S)
    slope = settled.diff(W)
    return tidy(simplify(-(settled.subs(W, 0)) / slope).subs(delta, 1 - a))


@step
def memory_of_the_norm() -> Eq:
    """The map is triangular: overlaps do not feel the norm, so a deviation of ‖w‖² shrinks by a² a step, exactly.

    As ηλ → 0 its relaxation time is the 1/(2ηλ) of the first argument.
    """
    return equation(tau, -1 / log(_next_norm().expand().coeff(W).subs(delta, 1 - a).factor()))


@step
def sizes_that_change() -> tuple[Eq, ...]:
    """While moments fill, and while the gradient changes, u = m/√v changes its size, but m forgets as always.

    E m_s·m_t = β1^(t-s) M_s for s < t: a step enters its modes with the M of its own time. The 1/√v belongs to h, with
    the bias corrections. M and v, and Γ = E‖g‖² from the norm, have recursions of their own.
    """
    return (
        equation(_M(t), beta1**2 * _M(t - 1) + (1 - beta1) ** 2 * Gamma),
        equation(_v(t), beta2 * _v(t - 1) + (1 - beta2) * Gamma / C),
        equation(h, eta / (1 - beta1**t) / sqrt(_v(t) / (1 - beta2**t))),
    )


@step("sgdm_across", "E w·m of the weights before a step of SGDM with the momentum after.")
def coupled_pull() -> Eq:
    """Where decay passes through the momentum, as in SGDM, the state is (W, x = E w·m, M = E‖m‖²).

    The new momentum holds αm + λw of what the weights know, and noise.
    """
    return equation(y, _coupled()[0])


@step("sgdm_momentum_power", "E‖m‖² of SGDM, one step on.")
def coupled_momentum_power() -> Eq:
    """Its square: the new noise is independent of the rest."""
    return equation(_M(t), _coupled()[1])


@step("sgdm_momentum_overlap", "E w·m of SGDM after a step.")
def coupled_overlap() -> Eq:
    """The step -ηm follows: the weights have y of the new momentum, less η of its square.

    Together with ‖w‖² the three make the linear map of the SGDM derivation, now with η, λ and Γ of every step.
    """
    return equation(x_m, y - h * m_power)


def _coupled() -> tuple[Expr, Expr]:
    return alpha * x_m + lamda * W, alpha**2 * m_power + 2 * alpha * lamda * x_m + lamda**2 * W + Gamma


@step
def coupled_relaxation() -> Eq:
    """Linearise the map around its fixed point, the noise following the norm as Γ = G·W^p.

    One root of its characteristic polynomial is 1 - ε with ε of the order of ηλ. To first order it is what growth and
    decay alone gave.
    """
    return equation(1 / tau, tidy(_slow_rate() * delta).subs(delta, eta * lamda))


@cache
def _slow_rate() -> Expr:
    """ε/δ as δ → 0, from the determinant."""
    rec = sgdm._recursion()
    moments = linear.moment_map(rec, sigma**2)
    follows = (moments.drive / sigma**2) * Matrix([[p / sgdm.gain().rhs, 0, 0]])
    rate = Symbol("rate", positive=True)
    matrix = moments.matrix + follows - (1 - rate * delta) * eye(3)
    leading = factor(matrix.subs(eta, 1).det() / delta).subs(delta, 0)  # the unit of η drops out
    [solution] = solve(leading, rate)
    return solution


@step
def over_many_steps() -> tuple[Eq, ...]:
    """The angle between weights k steps apart: decay keeps a^k, and each update in between takes its overlap.

    The overlap with an update i steps ahead is Σ μ_n^i X_n.
    """
    inner = Sum(a ** (k - i) * mu_n**i, (i, 1, k))
    taken = h / W * Sum(X_n * Function("T_n")(k), (n, 0, oo))
    return equation(_rho(k), a**k - taken), equation(Function("T_n")(k), inner)


@step(
    "walk_taken",
    "What the updates of one mode take of the weights in `lag` steps, per overlap with it.",
    limit="root != 1 - lr * weight_decay",
)
def taken_over_many() -> Eq:
    """Summed over i, T_n is a geometric sum: two exponentials for each mode."""
    return equation(Function("T_n")(k), mu_n * (a**k - mu_n**k) / (a - mu_n))


@step("walk_taken_alike", "`walk_taken` where root = 1 - lr * weight_decay.", limit=LIMIT)
def taken_alike() -> Eq:
    """Where memory and weights fade alike, μ = a, the limit of the two is this."""
    return equation(Function("T_n")(k), limit(taken_over_many().rhs, mu_n, a))


@step("walk_decayed", "What decay takes of the weights in `lag` steps.", limit=LIMIT)
def decayed_over_many() -> Eq:
    """What decay alone takes in k steps, written so that the digits of a small δ are not lost in 1 - δ."""
    return equation(1 - a**k, -expm1(k * log1p(-delta)))


@step("sgdm_fallen", "1 - ρ of SGDM over some steps, from that over one and two steps less.")
def coupled_over_many_steps() -> Eq:
    """For SGDM the weights alone are AR(2), and f = 1 - ρ_k obeys its recursion with a source; f_0 = 0, f_{-1} = f_1.

    On the right-hand side f_1 and f_2 stand for f one and two steps less apart. At k = 1 this fixes f = δ/(1+α), the
    cosine of one step.
    """
    return equation(_f(k), (1 + alpha - delta) * f_1 - alpha * f_2 + delta)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    norm = stationary_norm()[1].rhs
    in_lion = {h: eta, K_0: C}
    frozen = {S: beta1 * a / (1 - a * beta1), h: eta, K_0: C * (1 - beta1) / (1 + beta1)}
    overlap = stationary_overlap().rhs
    inner = over_many_steps()[1].rhs
    one_step = 1 - a + h / norm * (-h / a * K_0 * S)
    leading_time = series(memory_of_the_norm().rhs.subs(a, 1 - delta), delta, 0, 0).removeO()
    return [
        ("the overlap of a mode is that of the unrolled walk, any a, h and M in every step", _unrolled()),
        ("X_n is the fixed point of its recursion", vanishes(overlap - mode_overlap().rhs.subs(X_n, overlap))),
        ("stationary W is the exact one of Lion", vanishes(norm.subs(in_lion) - lion.exact_norm_squared().rhs)),
        ("one mode β1: stationary W is the exact one of AdamW", vanishes(
            norm.subs(frozen) - adamw.exact_norm_squared().rhs)),
        ("1 - ρ of one step is the exact one of Lion", vanishes(
            one_step.subs(in_lion) - lion.exact_one_minus_cosine().rhs)),
        ("W shrinks by a² a step: relaxation 1/(2ηλ) as ηλ → 0", vanishes(
            leading_time.subs(delta, eta * lamda) - adamw.relaxation_steps().rhs)),
        ("SGDM: the three numbers are the derived linear map", _is_linear_map()),
        ("SGDM: the slow root of the map is the derived relaxation", vanishes(
            coupled_relaxation().rhs - 1 / sgdm.relaxation_steps().rhs)),
        ("the sum over k steps is two exponentials, k = 1, 2, 3", all(vanishes(
            taken_over_many().rhs.subs(k, length) - inner.subs(k, length).doit()) for length in (1, 2, 3))),
        ("equal rates: each of k steps takes a^k", vanishes(taken_alike().rhs - k * a**k)),
        ("1 - a^k without cancellation", _keeps_digits()),
        ("one step: 1 - ρ_1 is the exact cosine of Lion", vanishes(
            (1 - a - h / norm * (-taken_over_many().rhs.subs(k, 1) * overlap).subs(p_n, K_0 * S * (1 - a * mu_n)
            / (a * mu_n))).subs(in_lion) - lion.exact_one_minus_cosine().rhs)),
        ("SGDM over one step: f_1 = δ/(1+α)", vanishes(
            coupled_over_many_steps().rhs.subs({f_1: 0, f_2: sgdm.exact_one_minus_cosine().rhs})
            - sgdm.exact_one_minus_cosine().rhs)),
        ("SGDM: f is that of the matrix recursion over two steps", _two_steps()),
    ]  # fmt: skip


def _keeps_digits() -> bool:
    """1 - a^k and its written form, in terms of the logarithm of a."""
    log_kept = Symbol("log a", real=True)
    written = decayed_over_many().rhs.rewrite(exp).rewrite(log).subs(delta, 1 - exp(log_kept))
    return vanishes(written - 1 + exp(log_kept) ** k)


def _unrolled() -> bool:
    """E w_3·u_4 of the walk from w_0 = 0, term by term, against the recursion: three steps, all symbols different."""
    kept, length, size = (symbols(f"{name}1:4") for name in ("a", "h", "M"))
    recursive, direct = Integer(0), Integer(0)
    for age in range(3):
        rule = mode_overlap().rhs.subs({a: kept[age], h: length[age], X_n: recursive, p_n: size[age]})
        recursive = rule
        later = Integer(1)
        for factor_ in kept[age + 1 :]:
            later *= factor_
        direct -= length[age] * later * size[age] * mu_n ** (3 - age)
    return vanishes(mu_n * recursive - direct)


def _is_linear_map() -> bool:
    state = Matrix([W, x_m, m_power])
    pull, power = _coupled()
    overlap = coupled_overlap().rhs.subs({h: eta, m_power: power}).subs(y, pull)
    norm = W - 2 * eta * pull + eta**2 * power
    moments = linear.moment_map(sgdm._recursion(), Gamma)
    derived = moments.matrix * state + moments.drive
    return all(vanishes(one - other) for one, other in zip((norm, overlap, power), derived, strict=True))


def _two_steps() -> bool:
    """1 - ρ_2 of SGDM from the stationary covariance of (w, m)."""
    rec, moments = sgdm._recursion(), sgdm._stationary()
    covariance = Matrix([[moments[0], moments[1]], [moments[1], moments[2]]])
    direct = 1 - (rec.transition**2 * covariance)[0, 0] / moments[0]
    first = sgdm.exact_one_minus_cosine().rhs
    stepped = coupled_over_many_steps().rhs.subs({f_1: first, f_2: 0})
    return vanishes(direct - stepped)
