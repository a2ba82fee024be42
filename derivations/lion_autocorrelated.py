"""Lion under gradients that resemble their predecessors: one ratio sets how fast it turns."""

from sympy import Eq, Expr, Function, Integer, Sum, Symbol, oo, pi, simplify, sqrt, symbols

from derivations import lion
from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.autocorrelated import random_walk, shift
from derivations.formula import follow, step
from derivations.symbols import *

_R, _kappa, _b, _B, _h = (Function(name) for name in ("R", "kappa", "b", "B", "h"))
_d = Symbol("d", positive=True)


follow(__name__, random_walk)


@step
def lion_average() -> tuple[Eq, ...]:
    """Lion's weights shrink by β2 per step, except that of the newest gradient, which is not in the momentum yet.

    So one term stands apart, and with it b_0 = E[c·g]: the overlap of a direction with its own gradient.
    """
    momentum, newest = _lion_weights()
    shrink = shift(momentum.subs(j, l_ + 1), l_)  # of everything but the newest
    apart = tidy(simplify((momentum - newest * shrink) / beta2 ** (j - 1))) * beta2 ** (j - 1)
    return equation(_B(j), shrink * B_0 + apart * b_0), equation(b_0, _b(0)), equation(B_0, _B(0))


def _lion_weights() -> tuple[Expr, Expr]:
    newest, later, _ = lion.filter_weights()
    return later.rhs, newest.rhs


@step(
    "lion_linear_sum",
    "Σ a^k s_k of Lion under gradients orthogonal to w, sign linearised, for any autocorrelation.",
    limit="lr * weight_decay < 1",
)
def lion_linear_sum() -> Eq:
    """With the sign linearised, all of the autocorrelation enters through the single ratio q = b_0/B_0.

    Anticorrelated gradients lower E c² more than E[c·g]: q grows, and since β1 < β2 S falls and Lion turns faster.
    At β1 = β2 Lion averages exponentially and the autocorrelation drops out, as for AdamW.
    """
    shifted = lion_average()[0].rhs.subs(b_0, q * B_0) / B_0
    total = sum(tidy(geometric_sum(a**j * term, j, 1)) for term in shifted.expand().as_ordered_terms())
    return equation(S, tidy(simplify(2 / pi * total)))


@step(
    "lion_correlated_rotation",
    "θ²/(2ηλ) of Lion as ηλ → 0, sign linearised, for any autocorrelation of gradients orthogonal to w.",
)
def lion_rotation() -> Eq:
    """Step length over norm as ηλ → 0. Lag zero counts one and not 2/π, which the paper's formula leaves out."""
    return equation(theta**2 / (2 * eta * _lamda()), 1 / (1 + 2 * lion_linear_sum().rhs.subs(a, 1)))


def _lamda() -> Expr:
    return delta / eta


@step
def lion_power_by_lag() -> tuple[Eq, ...]:
    """Both numbers in q are sums over lags: b_0 with the weights of c, B_0 with the γ_k of white noise."""
    return (
        equation(b_0, _kappa(0) + Sum(_kappa(k) * _R(k), (k, 1, oo))),
        equation(B_0, gamma_0 + 2 * Sum(gamma_k * _R(k), (k, 1, oo))),
    )


@step("lion_weight", "Weight of a gradient `lag` steps old in Lion's update direction.")
def lion_weight() -> Eq:
    """The weight in c of a gradient k steps old."""
    return equation(_kappa(k), _lion_weights()[0].subs(j, k))


@step
def lion_sum() -> Eq:
    """The arcsine exceeds its argument, and what it adds comes from short lags, where orthogonality does not matter.

    There the autocovariance is γ_k, that of free gradients. For white noise the sum is the exact one.
    """
    excess = lion.arcsine_law().rhs - 2 / pi * gamma_k / gamma_0
    return equation(S, lion_linear_sum().rhs + Sum(a**k * excess, (k, 1, oo)))


@step
def lion_overlap() -> Eq:
    """b_0 for this memory: the newest gradient at full weight, older ones at φ to the power of their age."""
    momentum, newest = _lion_weights()
    return equation(b_0, newest + geometric_sum(momentum * phi**j, j, 1))


@step("lion_correlated_variance", "E c² of Lion under AR(1) gradients of unit variance.")
def lion_power() -> Eq:
    """B_0 = E c², from E m² and E m·g of the momentum, each the fixed point of its own recursion."""
    inner, square = _momentum_moments()
    return equation(B_0, beta1**2 * square + 2 * beta1 * (1 - beta1) * phi * inner + (1 - beta1) ** 2)


def _momentum_moments() -> tuple[Expr, Expr]:
    """E m·g and E m² of m_t = β2 m_{t-1} + (1-β2) g_t."""
    inner = (1 - beta2) / (1 - beta2 * phi)
    square = ((1 - beta2) ** 2 + 2 * beta2 * (1 - beta2) * phi * inner) / (1 - beta2**2)
    return inner, tidy(simplify(square))


@step(
    "lion_overlap_ratio",
    "E[c·g]/E[c²] of Lion under AR(1) gradients, through which alone they set its rotation.",
    where=(lion_overlap, lion_power),
)
def lion_overlap_ratio() -> Eq:
    """q, the one number that S needs, for this memory; without memory it is (1-β1)/γ_0."""
    return equation(q, b_0 / B_0)


def overlap_ratio() -> Expr:
    """The same written out."""
    return simplify(lion_overlap().rhs / lion_power().rhs)


@step
def lion_answer() -> tuple[Eq, ...]:
    """At finite ηλ a pull -cw beside the gradients, c keeping them orthogonal to w, moves the mean of a sign.

    To first order it does so by the slope ς of E sign, which is also that of its overlap d with a gradient. A gradient
    j steps old counts by its weight in the average. Signs of free gradients and this answer make a walk, as
    `derivations.correlated_adam` has it for Adam. As ηλ → 0 it is the linear sum above, and what arcsines add to it.
    """
    return (
        equation(varsigma, sqrt(2 / (pi * B_0))),
        equation(_h(0), varsigma * (1 - beta1)),
        equation(_h(j), varsigma * beta1 * (1 - beta2) * beta2 ** (j - 1)),
        equation(_d, varsigma * b_0),
    )


@step
def lion_met() -> Eq:
    """E c·m of a direction and the momentum after it, from the moments of m."""
    inner, square = _momentum_moments()
    return equation(c_m, beta2 * (beta1 * square + (1 - beta1) * phi * inner) + (1 - beta2) * b_0)


@step
def lion_driven() -> Eq:
    """Later momenta forget it as β2^n, but new gradients, alike to older ones, keep a part up, which falls as φ^n."""
    return equation(d_m, (1 - beta2) * phi * b_0 / (phi - beta2))


@step(
    "lion_correlated_covariance",
    "Covariance of update directions `lag` steps apart under AR(1) gradients.",
    where=(lion_overlap, lion_met, lion_driven),
    limit="correlation != beta2, correlation != 0",
)
def lion_covariance() -> Eq:
    """γ_k of free gradients: two memories, the momentum's β2 and the gradients' φ, make two geometric sequences."""
    return equation(gamma_k, beta1 * (c_m - d_m) * beta2 ** (k - 1) + (beta1 * d_m / phi + (1 - beta1) * b_0) * phi**k)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    white_sum = lion_linear_sum().rhs.subs(q, overlap_ratio().subs(phi, 0))
    white_lion = 2 / pi * geometric_sum(a**k * lion.covariance().rhs, k, 1) / lion.variance().rhs
    covariance = expand_parts(lion_covariance().rhs, (lion_overlap(), lion_met(), lion_driven()))
    return [
        ("Lion: E c² by lags is the sum over the filter, three gradients", _by_lags()),
        ("white noise: Lion's sum is the linearised arcsine law", vanishes(white_sum - white_lion)),
        ("ηλ → 0: what a pull leaves of free signs is the linear sum", vanishes(
            _left_by_a_pull() - lion_linear_sum().rhs.subs(a, 1).subs(q, overlap_ratio()))),
        ("β1 = β2: Lion's linearised sum has no autocorrelation in it", not lion_linear_sum().rhs.subs(
            beta1, beta2).simplify().has(q)),
        ("white noise: Lion's covariance at lags 1 and 2", all(vanishes(
            simplify(covariance.subs(k, lag)).subs(phi, 0) - lion.covariance().rhs.subs(k, lag)) for lag in (1, 2))),
        ("γ_1 from one step of the filter itself", _filtered_lags(covariance)),
    ]  # fmt: skip


def _left_by_a_pull() -> Expr:
    """Σ s_k of free gradients, signs linearised, without what w has of the next gradient times the answer to it.

    That is E w·g = -η d φ/(1-φ) per step, all of which c takes away, and the sum of h_j is ς.
    """
    free = (geometric_sum(coefficient * ratio ** (k - 1), k, 1) for coefficient, ratio in _covariance_modes())
    slope, _, _, met = (item.rhs for item in lion_answer())
    taken = slope * met.subs(varsigma, slope) * phi / (1 - phi)
    parts = (lion_overlap(), lion_power(), lion_met(), lion_driven())
    return expand_parts(2 / pi * sum(free) / B_0 - taken, parts)


def _covariance_modes() -> tuple[tuple[Expr, Expr], ...]:
    """Coefficients of β2^(k-1) and φ^(k-1) in `lion_covariance`."""
    return (beta1 * (c_m - d_m), beta2), (beta1 * d_m + (1 - beta1) * b_0 * phi, phi)


def _filtered_lags(covariance: Expr) -> bool:
    """γ_1 = E c_{t+1}·c_t from c_{t+1} = β1 m_t + (1-β1) g_{t+1} and m_t = β2 m_{t-1} + (1-β2) g_t, term by term."""
    inner, square = _momentum_moments()
    before = beta1 * square + (1 - beta1) * phi * inner  # E m_{t-1}·c_t
    with_new = lion_overlap().rhs  # E g_t·c_t
    first = beta1 * (beta2 * before + (1 - beta2) * with_new) + (1 - beta1) * phi * with_new
    return vanishes(covariance.subs(k, 1) - first)


def _by_lags() -> bool:
    """Σ_ij κ_i κ_j R_{i-j} of three weights, against Σ κ_i κ_{i+k} collected by lag."""
    weights, given = symbols("k0:3"), (Integer(1), *symbols("R1:3"))
    direct = sum(x * y * given[abs(i_ - j_)] for i_, x in enumerate(weights) for j_, y in enumerate(weights))
    lagged = [sum(x * y for x, y in zip(weights, weights[lag:], strict=False)) for lag in range(3)]
    return vanishes(direct - lagged[0] - 2 * sum(r * own for r, own in zip(given[1:], lagged[1:], strict=True)))
