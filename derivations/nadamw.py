"""NAdamW: AdamW whose newest gradient counts once more, as Nesterov's momentum has it."""

from functools import cache

from sympy import Eq, Expr, Function, Integer, Limit, Rational, Sum, Symbol, limit, oo, simplify, sqrt, symbols

from derivations import adamw, finite_dim, linear, lion, nesterov, second_moment_fluctuation, sgdm
from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.formula import follow, step
from derivations.symbols import *

_f, _K, _D, _D_0, _mu = (Function(name) for name in ("f", "K", "D", "D_0", "mu"))
_psi = Symbol("psi", positive=True)
_n = Symbol("n", positive=True, integer=True)


@step
def random_walk() -> tuple[Eq, ...]:
    """The update is AdamW's average m, by a weight μ, and the newest gradient by what is left, 1 - μ.

    Bias corrections are past. As for AdamW u = g/√v is the normalised gradient, of unit variance for constant v.
    """
    return (
        equation(E(u_[t] ** 2), Integer(1)),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * u_[t]),
        equation(w_[t], a * w_[t - 1] - eta * ((1 - mu_a) * u_[t] + mu_a * m_[t])),
    )


@step
def schedule() -> tuple[Eq, ...]:
    """PyTorch takes a μ that grows with the step, from β1/2 to β1, by Dozat's schedule with a rate ψ.

    At the default ψ = 0.004 its distance from β1 falls e-fold in some 6000 steps. What follows holds for any fixed μ.
    """
    return equation(_mu(t), _scheduled()), equation(Limit(_mu(t), t, oo), limit(_scheduled(), t, oo))


def _scheduled() -> Expr:
    return beta1 * (1 - Rational(96, 100) ** (_psi * t) / 2)


@step
def filter_weights() -> tuple[Eq, ...]:
    """So the update is a filter of past gradients: a direct part beside the geometric one. Its weights add up to one.

    A gradient thus moves the weights by η in all, as under AdamW: the norm is the same to leading order.
    """
    return (
        equation(_f(0), 1 - mu_a + _averaged(Integer(0))),
        equation(_f(j), _averaged(j)),
        equation(_f(0) + Sum(_f(j), (j, 1, oo)), tidy(1 - mu_a + geometric_sum(_averaged(j), j))),
    )


def _averaged(lag: Expr) -> Expr:
    return mu_a * (1 - beta1) * beta1**lag


@step("nadamw_newest", "What the direct part adds to the newest gradient's share of E u² under NAdamW.")
def newest() -> Eq:
    """Squared, the newest gradient has this besides what μ times the average has of it."""
    return equation(Symbol("f_n"), (1 - mu_a) * (1 - mu_a + 2 * mu_a * (1 - beta1)))


@step
def covariance() -> tuple[Eq, ...]:
    """Gradients are uncorrelated: the autocovariance is a sum over those that both updates hold.

    Only the earlier update can have its direct part among them.
    """
    return equation(_K(0), _power()), equation(_K(k), _covariance())


def _power() -> Expr:
    return newest().rhs + mu_a**2 * adamw_power()


def adamw_power() -> Expr:
    """Σ c² of AdamW's average."""
    return tidy(geometric_sum(((1 - beta1) * beta1**j) ** 2, j))


def _covariance() -> Expr:
    return beta1**k * (mu_a * (1 - mu_a) * (1 - beta1) + mu_a**2 * adamw_power())


@step
def random_second_moment() -> tuple[Eq, ...]:
    """With v random, the derivation of AdamW's holds step by step: of the filter only f_i f_{i+k} is asked for.

    Each product is divided by the same q_i, and summed. So the result is a sum of two that are known. One is D of β1.
    The other is D_0, that of β1 = 0, where the newest gradient is alone.
    """
    one, other = _D_0(beta2**k), _D(beta2**k)
    return (
        equation(_K(0), newest().rhs * _D_0(1) + mu_a**2 * _D(1)),
        equation(_K(k), beta1**k * (mu_a * (1 - mu_a) * (1 - beta1) * one + mu_a**2 * other)),
    )


@step
def growth_by_a_filter() -> tuple[Eq, ...]:
    """Gradients that resemble their predecessors by R_k: of the update, and of the growth of ‖w‖² where they cross w.

    D_n is what the update shares with a gradient n steps older. A gradient is orthogonal to the weights of its step.
    What updates since then share with it is along them when the average still holds it.
    """
    n, i = symbols("n i", integer=True, nonnegative=True)
    shared, alike = Function("D"), Function("R")
    total = Sum(_f(j) * Sum(shared(n), (n, 0, j - 1)), (j, 1, oo))
    return (
        equation(shared(n), Sum(_f(i) * alike(n - i), (i, 0, oo))),
        equation(E(u_[t] ** 2), Sum(_f(j) * shared(j), (j, 0, oo))),
        equation(g_W, Sum(_f(j) * shared(j), (j, 0, oo)) + 2 * total),
    )


follow(__name__, lion.exact_norm_squared, lion.exact_one_minus_cosine)


@step("nadamw_leading_rotation", "RMS angle per step of NAdamW, to leading order in ηλ.")
def leading_rotation() -> Eq:
    """Length of a step over the norm, as for AdamW. A step is longer, since less of it is averaged."""
    return equation(theta, sqrt(2 * eta * lamda * _power()))


@step
def once_the_schedule_has_ended() -> Eq:
    """At μ = β1 that is AdamW's rotation times the factor by which SGD turns faster with Nesterov momentum.

    At β1 = 0.9 it is 1.16.
    """
    ratio = (leading_rotation().rhs ** 2 / adamw.leading_rotation().rhs ** 2).subs(mu_a, beta1)
    return equation(theta**2 / theta_0**2, simplify(ratio))


@step("nadamw_met_again", "Q in the growth 2Q/dim of E‖w‖² under NAdamW behind a normalisation, first order in 1/dim.")
def met_again() -> Eq:
    """As under AdamW a gradient meets the variance that it has changed itself: less of it, but changed by more.

    n steps after it, it has moved its weight by 1 - μβ1^n. Updates to come hold it by μ times AdamW's share.
    """
    held = mu_a * (1 - beta1) * (1 - beta2) * beta1**_n / (1 - beta1 * beta2)
    whole, back = geometric_sum(held, _n, 1), geometric_sum(simplify(held * mu_a * beta1**_n), _n, 1)
    return equation(Symbol("Q_w"), tidy(simplify(whole - back)))


@step("nadamw_filling", "E u² of NAdamW and of AdamW at a step, for a v that is full.")
def filling() -> Eq:
    """Averages start empty: at step t the average has the share 1 - β1^(2t) of its power.

    With bias corrections the update takes o_t of the newest gradient and h_t of the average. AdamW's o_t is 0.
    """
    newest_twice = o_u**2 + 2 * o_u * h_u * (1 - beta1)
    return equation(_K(0), newest_twice * D_a + h_u**2 * (1 - beta1 ** (2 * t)) * D_m)


@step
def entering() -> Eq:
    """Later updates hold gradients up to step t in their average alone. Their covariance is h_(t+k) β1^k times this."""
    return equation(Symbol("K_t"), o_u * (1 - beta1) * D_a + h_u * (1 - beta1 ** (2 * t)) * D_m)


@cache
def _recursion() -> linear.Recursion:
    _, rule_m, rule_w = random_walk()
    return linear.recursion(rule_m.rhs, rule_w.rhs, w_[t - 1], m_[t - 1], m_[t], u_[t])


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    first, later, total = (item.rhs for item in filter_weights())
    squares = first**2 + geometric_sum(later**2, j, 1)
    lagged = first * later.subs(j, k) + geometric_sum(later * later.subs(j, j + k), j, 1)
    moments = linear.stationary(linear.moment_map(_recursion(), Integer(1)))
    summed = geometric_sum(a**k * _covariance(), k, 1)
    square = eta**2 * (_power() + 2 * summed) / (1 - a**2)
    half = linear.one_minus_cosine(_recursion(), moments)
    ratio = once_the_schedule_has_ended().rhs
    return [
        ("one gradient contributes η in all, as in AdamW", vanishes(total - 1)),
        ("K_0 is the sum of the squared weights", vanishes(squares - _power())),
        ("K_k is the sum of their products", vanishes(lagged - _covariance())),
        ("random v: products over q_i are those of D_0 and D", _split()),
        ("β2 → 1: D_0 and D are the sums of constant v", _constant()),
        ("the sum over lags gives E w² of the linear recursion", vanishes(moments[0] - square)),
        ("leading rotation: 2(1-ρ) of the linear recursion as ηλ → 0", vanishes(
            simplify((2 * expand_parts(half)).subs(eta, delta / lamda) / delta).subs(delta, 0)
            - leading_rotation().rhs**2 / eta / lamda)),
        ("μ = 0: AdamW without momentum", vanishes(
            (leading_rotation().rhs**2).subs(mu_a, 0) - 2 * eta * lamda)),
        ("μ = β1: AdamW's rotation² times Nesterov's factor", vanishes(
            ratio - ((nesterov.leading_rotation().rhs / sgdm.leading_rotation().rhs) ** 2).subs(alpha, beta1))),
        ("μ = 1: AdamW's Q", vanishes(met_again().rhs.subs(mu_a, 1) - finite_dim.met_again().rhs)),
        ("Q is the sum over all steps in between, term by term", _summed()),
        ("K_0 and K_k while the average fills are sums over three gradients", _filled()),
        ("of one average, power and growth follow a memory alike, and white noise grows by (Σf)²", _grown()),
        ("t → ∞: they are those at rest", all(vanishes(
            one.rhs.subs({beta1 ** (2 * t): 0, o_u: 1 - mu_a, h_u: mu_a, D_a: 1, D_m: adamw_power()}) - other)
            for one, other in ((filling(), _power()), (entering(), _covariance() / beta1**k / mu_a)))),
    ]  # fmt: skip


def _split() -> bool:
    """f_i f_{i+2}/q_i over four gradients, and f_i²/q_i, against `derivations.second_moment.product_and_sum`."""
    weights = [1 - mu_a + _averaged(Integer(0)), *(_averaged(Integer(lag)) for lag in range(1, 6))]
    thinned = [Symbol(f"q_{lag}", positive=True) for lag in range(4)]
    alone = 1 / thinned[0]
    average = sum(((1 - beta1) * beta1**lag) ** 2 / q_i for lag, q_i in enumerate(thinned))
    squares = sum(weights[lag] ** 2 / q_i for lag, q_i in enumerate(thinned))
    products = sum(weights[lag] * weights[lag + 2] / q_i for lag, q_i in enumerate(thinned))
    by_both = beta1**2 * (mu_a * (1 - mu_a) * (1 - beta1) * alone + mu_a**2 * average)
    return vanishes(squares - newest().rhs * alone - mu_a**2 * average) and vanishes(products - by_both)


def _constant() -> bool:
    constant = second_moment_fluctuation.constant_second_moment()[-1].rhs
    values = {_D(1): constant, _D(beta2**k): constant}
    values |= {_D_0(1): constant.subs(beta1, 0), _D_0(beta2**k): constant.subs(beta1, 0)}
    return all(
        vanishes(random.rhs.subs(values) - fixed.rhs)
        for random, fixed in zip(random_second_moment(), covariance(), strict=True)
    )


def _grown() -> bool:
    """By the sums of `growth_by_a_filter`, for rational numbers to 60 steps: what is left out is below 1e-6."""
    beta, alike = Rational(1, 2), Rational(3, 5)
    weights = [(1 - beta) * beta**age for age in range(60)]

    def sums(correlation: Expr) -> tuple[Expr, Expr]:
        shared = [
            sum(weight * correlation ** abs(n - i) for i, weight in enumerate(weights) if correlation or n == i)
            for n in range(60)
        ]
        power = sum(one * other for one, other in zip(weights, shared, strict=True))
        return power, power + 2 * sum(weights[j] * sum(shared[:j]) for j in range(60))

    (white, plain), (power, growth) = sums(Integer(0)), sums(alike)
    return bool(abs(growth / plain - power / white) < 1e-6 and abs(plain - 1) < 1e-6)


def _filled() -> bool:
    """The third update against one two steps later, of constant v."""
    later = Symbol("h_5", positive=True)
    average = [(1 - beta1) * beta1**age for age in range(5)]
    third = [h_u * average[0] + o_u, h_u * average[1], h_u * average[2]]
    fifth = [later * average[age + 2] for age in range(3)]
    values = {t: 3, D_a: 1, D_m: adamw_power()}
    return vanishes(sum(one**2 for one in third) - filling().rhs.subs(values)) and vanishes(
        sum(one * two for one, two in zip(third, fifth, strict=True)) - later * beta1**2 * entering().rhs.subs(values)
    )


def _summed() -> bool:
    """Q against the double sum over l >= n >= 1, of rational averages, to 60 steps: what is left out is below 1e-6."""
    rates = {beta1: Rational(1, 2), beta2: Rational(4, 5), mu_a: Rational(2, 5)}
    b1, b2, share = rates.values()
    total = sum(
        (1 - share * b1**n) * share * (1 - b1) * b1**later * (1 - b2) * b2 ** (later - n)
        for later in range(1, 61)
        for n in range(1, later + 1)
    )
    return bool(abs(met_again().rhs.subs(rates) - total) < 1e-6)
