"""AdEMAMix: AdamW whose update is made of two averages of the gradient, a fast one and a slow one."""

from functools import cache

from sympy import Eq, Expr, Function, Integer, Matrix, Rational, Sum, Symbol, expand, factor, oo, solve, sqrt, symbols

from derivations import adamw, finite_dim, lion
from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.formula import follow, step
from derivations.symbols import *

_f, _K, _D = (Function(name) for name in ("f", "K", "D"))
_n_ = IndexedBase("n")
_since = Symbol("n", positive=True, integer=True)
_moved, _held = Function("F"), Function("H")
_beta_s, _x_s = Symbol("beta_s", positive=True), Symbol("x_s", positive=True)
_whole = 1 + alpha_s
_x = IndexedBase("x")


@step
def random_walk() -> tuple[Eq, ...]:
    """Beside AdamW's average m stands α times a slower one, n.

    Bias corrections are past. As for AdamW u = g/√v is the normalised gradient, of unit variance for constant v.
    """
    return (
        equation(E(u_[t] ** 2), Integer(1)),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * u_[t]),
        equation(_n_[t], beta3 * _n_[t - 1] + (1 - beta3) * u_[t]),
        equation(w_[t], a * w_[t - 1] - eta * (m_[t] + alpha_s * _n_[t])),
    )


@step
def filter_weights() -> tuple[Eq, ...]:
    """So the update is a filter of past gradients, of two geometric parts. Its weights add up to 1 + α.

    A gradient moves the weights by 1 + α times as much as under AdamW, in the end.
    """
    return equation(_f(j), _weight(j)), equation(Sum(_f(j), (j, 0, oo)), _whole)


def _weight(lag: Expr) -> Expr:
    return (1 - beta1) * beta1**lag + alpha_s * (1 - beta3) * beta3**lag


@step
def covariance() -> tuple[Eq, ...]:
    """Gradients are uncorrelated: the autocovariance is a sum over those that both updates hold.

    The later update holds them in both averages, each with its own decay. So two powers of the lag appear.
    """
    return equation(_K(0), _power()), equation(_K(k), _covariance())


def _product(one: Expr, other: Expr) -> Expr:
    """Σ c_j d_j of two averages of unit weight."""
    return tidy((1 - one) * (1 - other) / (1 - one * other))


def _power() -> Expr:
    return _product(beta1, beta1) + 2 * alpha_s * _product(beta1, beta3) + alpha_s**2 * _product(beta3, beta3)


def _covariance() -> Expr:
    shared = alpha_s * _product(beta1, beta3)
    return beta1**k * (_product(beta1, beta1) + shared) + beta3**k * (alpha_s**2 * _product(beta3, beta3) + shared)


@step("ademamix_shared", "What both averages of AdEMAMix share, over the power of one with the root √(β1β3).")
def shared() -> Eq:
    """A product of weights of both, c_j d_j, falls by β1β3, as the square of an average with the root √(β1β3) does."""
    return equation(_x_s, alpha_s * (1 - beta1) * (1 - beta3) / (1 - sqrt(beta1 * beta3)) ** 2)


@step
def random_second_moment() -> tuple[Eq, ...]:
    """With v random, the derivation of AdamW's holds step by step: of the filter it asks for products f_j f_{j+k} only.

    Each is divided by the same q_j, and summed. So the result is a sum of the D of three averages: those with the roots
    β1 and β3, and that with β_s.
    """
    one, both, other = (_D(root, beta2**k) for root in (beta1, _beta_s, beta3))
    mixed = _x_s * both
    return (
        equation(_beta_s, sqrt(beta1 * beta3)),
        equation(_K(0), (one + 2 * mixed + alpha_s**2 * other).subs(k, 0)),
        equation(_K(k), beta1**k * (one + mixed) + beta3**k * (alpha_s**2 * other + mixed)),
    )


follow(__name__, lion.exact_norm_squared, lion.exact_one_minus_cosine)


@step("ademamix_leading_norm", "RMS norm of the weights under AdEMAMix, as ηλ → 0.")
def leading_norm() -> Eq:
    """Where decay is far slower than the slow average, a gradient has moved the weights by all that it will.

    Then the norm is 1 + α times AdamW's.
    """
    return equation(sqrt(W), _whole * adamw.leading_norm().rhs)


@step("ademamix_linear_power", "E u² of AdEMAMix for constant v, over the square of 1 + mix.")
def linear_power() -> Eq:
    """Mean square of an update whose filter adds up to 1."""
    return equation(_K(0) / _whole**2, _power() / _whole**2)


@step("ademamix_leading_rotation", "RMS angle per step of AdEMAMix, as ηλ → 0.")
def leading_rotation() -> Eq:
    """Length of a step over the norm. A slow average adds much to the norm and little to the step."""
    return equation(theta, sqrt(2 * eta * lamda * linear_power().rhs))


@step
def still_held() -> tuple[Eq, ...]:
    """As under AdamW a gradient meets the variance that it has changed itself, which makes the norm longer by 2Q/C.

    n steps after it, it has moved its weight by F: 1 + α less what both averages still hold. Updates to come hold it by
    H, in both. Q is over the square of 1 + α, since the norm grows by that.
    """
    held = sum(size * _held_by(root) * root**_since for size, root in _SIZES)
    return (
        equation(_moved(_since), _whole - beta1**_since - alpha_s * beta3**_since),
        equation(_held(_since), held),
        equation(Symbol("Q_w"), Sum(_moved(_since) * _held(_since), (_since, 1, oo)) / _whole**2),
    )


_SIZES = ((Integer(1), beta1), (alpha_s, beta3))


def _held_by(root: Expr) -> Expr:
    return (1 - root) * (1 - beta2) / (1 - root * beta2)


@step(
    "ademamix_met_again",
    "Q in the growth 2Q/dim of E‖w‖² under AdEMAMix behind a normalisation, first order in 1/dim.",
    shown=False,
)
def met_again() -> Eq:
    """That sum, of geometric ones."""
    total = Integer(0)
    for size, root in _SIZES:
        back = sum(other * geometric_sum((root * kept) ** _since, _since, 1) for other, kept in _SIZES)
        total += tidy(size * _held_by(root) * (_whole * geometric_sum(root**_since, _since, 1) - back))
    return equation(Symbol("Q_w"), total / _whole**2)


@step("ademamix_met_twice", "How alike the weights are that a gradient moves in a step of one average and of another.")
def met_twice() -> Eq:
    """Its ages in both are independent, i with c_i and j with d_j. Weights n steps apart are alike by ρ_n.

    The ages are equal with one probability. Beyond, one of both goes on by itself: that is the mean ϱ of `ρ` over ages,
    less the part of age 0.
    """
    longer = sum((each - (1 - root)) / (1 - root) for each, root in ((held, beta1), (held_3, beta3)))
    return equation(Symbol("ς"), _product(beta1, beta3) * (1 + longer))


@step
def met_again_beside_decay() -> tuple[Eq, ...]:
    """Decay takes of what a gradient has moved its weight by: n steps after it that is h of the n-1 before.

    The weight that v has seen then is like that of the update by ρ, l - n steps later. Without decay it is the Q above.
    """
    later, n = symbols("l n", integer=True, positive=True)
    h_n, rho = Function("h"), Function("ρ")
    seen = Sum((1 - beta2) * beta2 ** (later - n) * h_n(n - 1) * rho(later - n), (n, 1, later))
    return (
        equation(h_n(n), Sum(a ** (n - j) * _f(j), (j, 0, n))),
        equation(Symbol("Q_w"), Sum(_f(later) * seen, (later, 1, oo)) / (1 - a**2) / Sum(h_n(j) ** 2, (j, 0, oo))),
    )


@step
def answer_to_its_own_norm() -> tuple[Eq, ...]:
    """A neuron's norm sets its own gradient. Let ln ‖w‖² be x_t too large, by little.

    The gradient of step s is then x_s/2 too short. √v is too small by half of y, the average of x over what v holds.
    The weights are sums of gradients with what is left of their steps, h. A gradient of step s is in the update of each
    step t, over that step's v. So x is a filter of x: less h², and more of y by what steps share with h. Both add up
    to one, as a lasting deviation changes no update.
    """
    n = Symbol("n", integer=True, nonnegative=True)
    h_n, P_n = Function("h"), Function("P")
    return (
        equation(h_n(n), Sum(a ** (n - j) * _f(j), (j, 0, n))),
        equation(P_n(n), a**n * Sum(_f(j) * h_n(n + j), (j, 0, oo)) / Sum(h_n(j) ** 2, (j, 0, oo))),
        equation(_y[t], Sum((1 - beta2) * beta2**j * _x[t - j], (j, 0, oo))),
        equation(_x[t], Sum(P_n(n) * _y[t - n] - h_n(n) ** 2 * _x[t - n] / Sum(h_n(j) ** 2, (j, 0, oo)), (n, 0, oo))),
    )


_y = IndexedBase("y")


@step
def area_of_a_deviation() -> tuple[Eq, ...]:
    """Behind a normalisation a norm that is too long has short gradients, which both averages and v notice late.

    A deviation of E‖w‖², x_t of its value at rest, sets off deviations of all other moments. Sum each over all steps.
    Averages and v then answer as to a gradient that lasts, and one that lasts does not change an update over √v. So
    decay alone makes up for a deviation, by 1 - a² in a step, and its area knows no average.

    A slow average holds gradients from before the deviation. While v forgets them it shortens the norm below rest, and
    later it makes up for that. The norm swings, at the same area. So no single rate describes it.
    """
    return equation(Sum(_x[t], (t, 0, oo)), _x[0] / (1 - a**2))


LOCAL = (_since, _beta_s, _x_s)  # with meanings of their own here


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    of_adamw, of_one = {alpha_s: 0}, {beta3: beta1}
    small = linear_power().rhs
    return [
        ("the filter adds up to 1 + α", vanishes(
            sum(geometric_sum(part, j) for part, _ in _terms(j)) - _whole)),
        ("K_0 is the sum of the squared weights", vanishes(_squares() - _power())),
        ("K_k is the sum of their products", vanishes(_products() - _covariance())),
        ("K_k at no lag is K_0", vanishes(_covariance().subs(k, 0) - _power())),
        ("random v: products over q_j are those of three averages", _split()),
        ("β2 → 1: the D are those of constant v", _constant()),
        ("the sum over lags gives E w² of the linear recursion", vanishes(_summed() - _solved())),
        ("E w² as ηλ → 0: the leading norm", vanishes(
            factor(_summed() * (1 - a) / eta**2).subs(a, 1) - _whole**2 / 2)),
        ("leading rotation: AdamW's for α = 0", vanishes(
            (leading_rotation().rhs**2).subs(of_adamw) - adamw.leading_rotation().rhs**2)),
        ("β3 = β1: AdamW's rotation", vanishes(
            (leading_rotation().rhs**2).subs(of_one) - adamw.leading_rotation().rhs**2)),
        ("Q: AdamW's for α = 0, and for β3 = β1", all(vanishes(
            met_again().rhs.subs(case) - finite_dim.met_again().rhs) for case in (of_adamw, of_one))),
        ("Q is the sum over all steps in between, term by term", _counted()),
        ("equal averages: how alike one average has it", vanishes(
            met_twice().rhs.subs({beta3: beta1, held_3: held})
            - finite_dim.met_twice().rhs.subs({beta: beta1, finite_dim.MEAN_HELD: held}))),
        ("it is the mean over all pairs of ages", _paired()),
        ("the answer to a lasting deviation of the norm adds up to nothing", _answers_add_up()),
        ("a deviation of E w² has the area 1/(1-a²), whatever averages and v remember", _area()),
        ("a slow average turns less: rotation² falls by 1/(1+α)² as β3 → 1", vanishes(
            small.subs(beta3, 1) * _whole**2 - _product(beta1, beta1))),
    ]  # fmt: skip


def _terms(lag: Expr) -> tuple[tuple[Expr, Expr], ...]:
    """Size and root of the parts of the filter at a lag."""
    return ((1 - beta1) * beta1**lag, beta1), (alpha_s * (1 - beta3) * beta3**lag, beta3)


def _squares() -> Expr:
    return sum(geometric_sum(one * other, j) for one, _ in _terms(j) for other, _ in _terms(j))


def _products() -> Expr:
    return sum(geometric_sum(one * other, j) for one, _ in _terms(j) for other, _ in _terms(j + k))


def _split() -> bool:
    """f_j f_{j+2}/q_j over four gradients, against the same of the averages of which D is made."""
    thinned = [Symbol(f"q_{lag}", positive=True) for lag in range(4)]

    def average(root: Expr) -> Expr:
        return sum(((1 - root) * root**lag) ** 2 / q_j for lag, q_j in enumerate(thinned))

    mixed = shared().rhs * average(sqrt(beta1 * beta3))
    ours = beta1**2 * (average(beta1) + mixed) + beta3**2 * (alpha_s**2 * average(beta3) + mixed)
    theirs = sum(_weight(lag) * _weight(lag + 2) / q_j for lag, q_j in enumerate(thinned))
    return vanishes(ours - theirs)


def _constant() -> bool:
    constant = {
        _D(root, at): (1 - root) / (1 + root) for root in (beta1, _beta_s, beta3) for at in (Integer(1), beta2**k)
    }
    named, *randoms = random_second_moment()
    return all(
        vanishes(random.rhs.subs(constant).subs(_x_s, shared().rhs).subs(_beta_s, named.rhs) - fixed.rhs)
        for random, fixed in zip(randoms, covariance(), strict=True)
    )


def _summed() -> Expr:
    """E w² of a coordinate by the sum over lags."""
    at_1 = (_product(beta1, beta1) + alpha_s * _product(beta1, beta3)) * a * beta1 / (1 - a * beta1)
    at_3 = (alpha_s**2 * _product(beta3, beta3) + alpha_s * _product(beta1, beta3)) * a * beta3 / (1 - a * beta3)
    return eta**2 * (_power() + 2 * (at_1 + at_3)) / (1 - a**2)


def _solved() -> Expr:
    """The same by the fixed point of all second moments of (w, m, n), from the rules."""
    return _at_rest()[0]


@cache
def _at_rest() -> tuple[Expr, ...]:
    square, with_m, with_n, mm, mn, nn = unknown = _MOMENTS
    update = mm + 2 * alpha_s * mn + alpha_s**2 * nn
    rules = (
        a**2 * square - 2 * a * eta * (beta1 * with_m + alpha_s * beta3 * with_n) + eta**2 * update - square,
        a * beta1 * with_m - eta * (mm + alpha_s * mn) - with_m,
        a * beta3 * with_n - eta * (mn + alpha_s * nn) - with_n,
        beta1**2 * mm + (1 - beta1) ** 2 - mm,
        beta1 * beta3 * mn + (1 - beta1) * (1 - beta3) - mn,
        beta3**2 * nn + (1 - beta3) ** 2 - nn,
    )
    found = solve(rules, unknown, dict=True)[0]
    return tuple(found[each] for each in unknown)


_MOMENTS = symbols("ww wm wn mm mn nn")


def _area() -> bool:
    """One step of all moments and v, linear about rest, beside the sums that the step has in words."""
    rest = (*_at_rest(), Integer(1))
    square, with_m, with_n, mm, mn, nn = _MOMENTS
    held, gradient = Symbol("vv"), rest[0] / square
    newer_v = beta2 * held + (1 - beta2) * gradient
    step_length = eta / sqrt(newer_v)
    newer = [
        root * other * moment + (1 - root) * (1 - other) * gradient
        for root, other, moment in ((beta1, beta1, mm), (beta1, beta3, mn), (beta3, beta3, nn))
    ]
    along = beta1 * with_m + alpha_s * beta3 * with_n
    update = newer[0] + 2 * alpha_s * newer[1] + alpha_s**2 * newer[2]
    after = Matrix([
        a**2 * square - 2 * a * step_length * along + step_length**2 * update,
        a * beta1 * with_m - step_length * (newer[0] + alpha_s * newer[1]),
        a * beta3 * with_n - step_length * (newer[1] + alpha_s * newer[2]),
        *newer,
        newer_v,
    ])  # fmt: skip
    state = (*_MOMENTS, held)
    one = after.jacobian(state).subs(dict(zip(state, rest, strict=True)))
    area = 1 / (1 - a**2)
    answers = (1, -Rational(1, 2), -Rational(1, 2), -1, -1, -1, -1)  # of a moment, over that of E w²
    sums = Matrix([area * answer * value for answer, value in zip(answers, rest, strict=True)])
    left = sums - one * sums - Matrix([rest[0], 0, 0, 0, 0, 0, 0])
    return all(vanishes(each) for each in left)


def _paired() -> bool:
    """The double sum over ages, of rational averages and ρ_n = q^n, to 60 steps: what is left out is below 1e-6."""
    b1, b3, alike = Rational(1, 2), Rational(7, 10), Rational(4, 5)
    total = sum(
        (1 - b1) * b1**one * (1 - b3) * b3**other * alike ** abs(one - other)
        for one in range(60)
        for other in range(60)
    )
    means = {each: (1 - root) / (1 - root * alike) for each, root in ((held, b1), (held_3, b3))}
    return bool(abs(met_twice().rhs.subs({beta1: b1, beta3: b3, **means}) - total) < 1e-6)


def _answers_add_up() -> bool:
    """Σ_n a^n Σ_j f_j h_(n+j) = Σ_m h_m Σ_j a^(m-j) f_j = Σ h_m², for a filter and weights of a few steps."""
    weights = symbols("f_0:4")
    impulse = [sum(a ** (step - j) * weights[j] for j in range(step + 1)) for step in range(4)]
    shared = sum(a**n * weights[j] * impulse[n + j] for n in range(4) for j in range(4 - n))
    return vanishes(expand(shared - sum(h**2 for h in impulse)))


def _counted() -> bool:
    """Q against the double sum over l >= n >= 1, of rational averages, to 80 steps: what is left out is below 1e-6."""
    rates = {beta1: Rational(1, 2), beta2: Rational(4, 5), beta3: Rational(7, 10), alpha_s: Rational(3, 2)}
    b1, b2, b3, mix = rates.values()
    weights = [(1 - b1) * b1**lag + mix * (1 - b3) * b3**lag for lag in range(81)]
    moved = [sum(weights[:since]) for since in range(81)]
    total = sum(
        moved[since] * weights[later] * (1 - b2) * b2 ** (later - since)
        for later in range(1, 81)
        for since in range(1, later + 1)
    )
    return bool(abs(met_again().rhs.subs(rates) - total / (1 + mix) ** 2) < 1e-6)
