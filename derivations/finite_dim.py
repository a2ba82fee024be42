"""What a finite fan-in changes: the length of the weights wavers, and with it the angle of a step."""

from sympy import (
    Abs,
    Eq,
    Expr,
    Function,
    Poly,
    Rational,
    Symbol,
    acos,
    cos,
    diff,
    exp,
    factor,
    gamma,
    integrate,
    oo,
    series,
    simplify,
    sin,
    sqrt,
)

from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.formula import step
from derivations.symbols import (
    C,
    E,
    W,
    a,
    alpha,
    beta,
    beta1,
    beta2,
    equation,
    eta,
    g_,
    i,
    lamda,
    mu,
    sigma,
    varkappa,
    vartheta,
    w_,
)

_q, _n, _z = Symbol("q", positive=True), Symbol("n", positive=True), Symbol("z", real=True)
_length, _across = Symbol("‖w‖²", positive=True), Symbol("‖Δw⊥‖²", positive=True)
_moved = Symbol("‖Δw‖²", positive=True)
_small = Symbol("d", real=True)


@step
def many_coordinates() -> tuple[Eq, ...]:
    """Under isotropic noise the coordinates of w, and of a step u, are independent Gaussians with C of each.

    So ‖w‖² is a chi-square variable, E w² times one with C degrees of freedom, of relative width √(2/C).
    """
    return equation(E(_length), C * sigma**2), equation(E((_length - C * sigma**2) ** 2), 2 * C * sigma**4)


@step
def mean_square() -> Eq:
    """The mean of a chi-square variable q with n degrees of freedom, from its density."""
    return equation(E(_q), _mean(_q))


@step
def mean_inverse() -> Eq:
    """And of its inverse. It is above the inverse of the mean, and infinite for n = 2: short vectors weigh heavily."""
    return equation(E(1 / _q), _mean(1 / _q))


def _mean(expression: Expr) -> Expr:
    """Over the density of chi-square, written for n = m + 2 so that all integrals converge."""
    degrees = Symbol("m", positive=True) + 2
    density = _q ** (degrees / 2 - 1) * exp(-_q / 2) / (2 ** (degrees / 2) * gamma(degrees / 2))
    found = simplify(integrate(expression * density, (_q, 0, oo), conds="none"))
    return simplify(found.subs(Symbol("m", positive=True), _n - 2))


@step
def part_across() -> Eq:
    """Only the part of a step across the weights turns them: C - 1 of its C directions."""
    share = mean_square().rhs.subs(_n, C - 1) / mean_square().rhs.subs(_n, C)
    return equation(E(_across) / E(_moved), share)


@step("isotropic_angle_spread", "E[angle²] over 2(1 - ρ) under isotropic noise.", limit="dim > 2")
def angle_spread() -> Eq:
    """The square of a small angle is a quotient of independent squares, so its mean is no quotient of means.

    Below: E[angle²] over E‖Δw‖²/E‖w‖², which is 2(1 - ρ) with all C directions counted.
    """
    turned = mean_square().rhs.subs(_n, C - 1) * mean_inverse().rhs.subs(_n, C)
    plain = mean_square().rhs.subs(_n, C) / mean_square().rhs.subs(_n, C)
    return equation(E(_across / _length) * W / E(_moved), simplify(turned / plain))


@step
def sample_squares() -> tuple[Eq, ...]:
    """An angle that is not small is the arccosine of x/√(ab): a, b of weights before and after a step, x of both.

    Each is a mean over C coordinates, relative to E w². Coordinates are pairs of w and w' = w cos ϑ + u sin ϑ. Here u
    is independent of w, and w has the excess kurtosis k. Since w' has it as well, u has what is left of it.
    """
    return tuple(equation(E(one * two), _together(*of)) for (one, two), of in zip(_NAMES, _PAIRS, strict=True))


_before, _entering, _kurtosis = Symbol("w", real=True), Symbol("u", real=True), Symbol("k", real=True)
_after = _before * cos(vartheta) + _entering * sin(vartheta)
_A, _B, _X = (Symbol(f"delta_{letter}", real=True) for letter in "abx")
_NAMES = ((_A, _A), (_B, _B), (_X, _X), (_A, _B), (_A, _X), (_B, _X))
_PRODUCTS = {_A: _before**2, _B: _after**2, _X: _before * _after}
_PAIRS = tuple((_PRODUCTS[one], _PRODUCTS[two]) for one, two in _NAMES)


def _together(one: Expr, two: Expr) -> Expr:
    """Covariance of the means of two products over C coordinates."""
    return simplify((_moment(one * two) - _moment(one) * _moment(two)) / C)


def _moment(product: Expr) -> Expr:
    of_u = _kurtosis * (1 - cos(vartheta) ** 4) / sin(vartheta) ** 4
    known = {0: 1, 2: 1}
    total: Expr = Rational(0)
    for (in_w, in_u), factor_ in Poly(product.expand(), _before, _entering).terms():
        if in_w % 2 == 0 and in_u % 2 == 0:
            fourth = 3 + _kurtosis if in_w == 4 else 3 + of_u if in_u == 4 else known[in_w] * known[in_u]
            total += factor_ * fourth
    return total


@step
def wide_angle() -> Eq:
    """So E[angle²] is above ϑ² by the curvature of the arccosine, to first order in 1/C.

    Gaussian weights have k = 0 and sin² ϑ/C: of a small angle that is the share 1/C of before, of a wide one less.
    """
    a_, b_, x_ = (Symbol(letter, positive=True) for letter in "abx")
    square = acos(x_ / sqrt(a_ * b_)) ** 2
    at = {a_: 1, b_: 1, x_: cos(vartheta)}
    letters, total = {_A: a_, _B: b_, _X: x_}, Rational(0)
    for known in sample_squares():
        one, two = known.lhs.args[0].as_powers_dict(), known.rhs
        first, *second = [letters[name] for name, times in one.items() for _ in range(int(times))]
        other = second[0]
        weight = Rational(1, 2) if first == other else 1
        total += weight * diff(square, first, other).subs(at) * two
    found = simplify(total.subs(acos(cos(vartheta)), vartheta)).replace(Abs, lambda sine: sine)  # below π it is > 0
    return equation(E(_angle**2), vartheta**2 + found)


_angle = Symbol("angle", positive=True)


@step
def given_start() -> tuple[Eq, ...]:
    """While part of w is a given start, a coordinate is μ + σz: its square has this mean and this variance.

    Summed over C coordinates, with ϰ the share Cμ²/W of the start in W = C(μ² + σ²).
    """
    variance = simplify(_gauss(_coordinate**4) - _gauss(_coordinate**2) ** 2)
    return equation(E(w_[i] ** 2), _gauss(_coordinate**2)), equation(E(w_[i] ** 4) - E(w_[i] ** 2) ** 2, variance)


_coordinate = mu + sigma * _z


def _gauss(expression: Expr) -> Expr:
    """E over the standard normal z, moment by moment."""
    weight = exp(-(_z**2) / 2)
    total = integrate(weight, (_z, -oo, oo))
    return simplify(integrate((expression * weight).expand(), (_z, -oo, oo)) / total)


@step
def spread_of_the_square() -> Eq:
    """In these terms the start does not waver, and its product with the noise wavers less than noise alone."""
    root = {mu: sqrt(varkappa * W / C), sigma: sqrt((1 - varkappa) * W / C)}
    in_shares = C * given_start()[1].rhs.subs(root)
    return equation(E((_length - W) ** 2) / W**2, tidy(simplify(in_shares / W**2)))


@step
def mean_inverse_by_spread() -> Eq:
    """To first order in 1/C the mean of 1/‖w‖² follows from that spread alone."""
    expanded = series(1 / (1 + _small), _small, 0, 3).removeO()
    return equation(E(W / _length), 1 + expanded.coeff(_small, 2) * spread_of_the_square().rhs)


@step(
    "young_angle_spread",
    "E[angle²] of weights with a share of their start left, over that of settled ones, to first order in 1/C.",
)
def young_spread() -> Eq:
    """So the mean squared angle is below that of settled weights by this factor: ϰ is 1 at first and fades to 0."""
    ratio = mean_inverse_by_spread().rhs / mean_inverse_by_spread().rhs.subs(varkappa, 0)
    in_inverse = ratio.subs(C, 1 / _small)
    return equation(E(W / _length) * (C - 2) / C, series(in_inverse, _small, 0, 2).removeO().subs(_small, 1 / C))


@step
def projected_variance() -> Eq:
    """In front of a normalisation layer a gradient has no part along w, so less of coordinates in which w is long.

    Projection leaves the variance 1 - ŵ_i² of one coordinate of unit noise. v follows that: a steady ŵ_i changes
    nothing in u, whose scale it divides out.
    """
    return equation(E(g_[i] ** 2), 1 - w_[i] ** 2 / W)


@step
def moved_since() -> Eq:
    """But a gradient g moves its own weight, for constant v by this much after n more steps of its momentum.

    So later gradients of this coordinate have the variance 1 - ŵ_i² + 2η ŵ_i (1-β1^n) g/‖w‖ + O(η²).
    """
    return equation(Symbol("Δw_i"), -eta * (1 - beta1**_since) * g_[i])


_since, _later = Symbol("n", positive=True, integer=True), Symbol("l", positive=True, integer=True)


@step
def still_held() -> Eq:
    """An update l steps later holds g with the weight (1-β1)β1^l, over a v that has seen the n-th gradient after g.

    Summed over l >= n: what that gradient's variance takes of the part of g, twice, since the root takes half.
    """
    held = (1 - beta1) * beta1**_later * (1 - beta2) * beta2 ** (_later - _since)
    return equation(Symbol("H_n"), simplify(geometric_sum(held, _later, _since)))


@step(
    "adam_met_again",
    "Q in the growth 2Q/dim of E‖w‖² under Adam whose gradients are orthogonal to w, to first order in 1/dim.",
)
def met_again() -> Eq:
    """So w and its update overlap by -ηQ Σ ŵ_i² more than under free gradients: E‖w‖² is larger by the share 2Q/C.

    It is nothing without momentum, and for v that forgets far more slowly; at most one half. For Lion the variance of
    the sign's argument stands in the place of v (`rotsim.theory.lion`).
    """
    held = still_held().rhs
    whole, back = geometric_sum(held, _since, 1), geometric_sum(simplify(held * beta1**_since), _since, 1)
    return equation(Symbol("Q_w"), tidy(simplify(whole - back)))


@step
def alike() -> tuple[Eq, ...]:
    """Weights l steps apart, v constant: two roots of a walk with momentum, and what a memory β^l has of all ρ_l.

    From ρ_l = φ1 ρ_{l-1} + φ2 ρ_{l-2} and its symmetry, the sum closes on itself.
    """
    rho_1 = _phi1 / (1 - _phi2)
    total = (1 + _phi2 * beta * rho_1) / (1 - _phi1 * beta - _phi2 * beta**2)
    return equation(_rho(_l), _phi1 * _rho(_l - 1) + _phi2 * _rho(_l - 2)), equation(_held, (1 - beta) * total)


_phi1, _phi2, _held = Symbol("varphi_1", real=True), Symbol("varphi_2", real=True), Symbol("varrho", positive=True)
_rho, _l = Function("rho"), Symbol("l", positive=True, integer=True)


@step("decoupled_held", "Mean correlation of the weights with those of all gradients in the average, decoupled decay.")
def decoupled_held() -> Eq:
    """With decoupled decay one root is a, which decay leaves, and one is β, which the average keeps."""
    return equation(_held, _tidied({_phi1: a + beta, _phi2: -a * beta}))


@step(
    "coupled_held",
    "The same where decay passes through the momentum, as in SGDM.",
    limit="lr * weight_decay < 2(1 + momentum)",
)
def coupled_held() -> Eq:
    """Where decay passes through the momentum, the recursion of two steps is that of `derivations.sgdm`."""
    found = alike()[1].rhs.subs({_phi1: 1 + beta - eta * lamda, _phi2: -beta}).subs(beta, alpha)
    return equation(_held, simplify(found))


def _tidied(roots: dict[Symbol, Expr]) -> Expr:
    return simplify(factor(alike()[1].rhs.subs(roots)))


@step
def met_twice() -> Eq:
    """All weights that one gradient moves, by its share in the average of each step, are alike by a mean ς.

    Two of its steps are l apart with probability 2β^l (1-β)/(1+β), and the same with half of that at l = 0.
    """
    return equation(_twice, (2 * _held - (1 - beta)) / (1 + beta))


@step
def wavering() -> Eq:
    """‖w‖² wavers by what updates have along w. Under isotropic noise its relative variance is 2/C, here f of that.

    A gradient has nothing along the weights of its step. Those that its average still moves l steps later are like them
    by ρ_l only. ϱ is that mean of ρ_l, and ϱ²/ς the squared cosine between their sum and the weights of the step. κ² is
    the share of the update's power that is linear in gradients.
    """
    return equation(Symbol("f_w"), 1 - _linear * _held**2 / _twice)


_linear, _twice = Symbol("kappa_2", positive=True), Symbol("varsigma_2", positive=True)
MEAN_HELD = _held


@step
def long_weights_decay_faster() -> Eq:
    """Under Adam+L2 a coordinate's decay is over its own v: that of long weights is stronger, by 1/C in all of ‖w‖².

    Their share of v is 1 - ŵ_i² where its mean is 1 - 1/C, and E ŵ_i⁴ is 3/C². It holds as far as v forgets before the
    weight moves.
    """
    of_all = series(1 / sqrt((1 - _share) / (1 - _small)), _share, 0, 2).removeO()
    by_share = (C * _share * of_all).expand()
    mean = by_share.coeff(_share, 1) / C + by_share.coeff(_share, 2) * 3 / C**2
    return equation(Symbol("L/L_0"), series(mean.subs(C, 1 / _small), _small, 0, 2).removeO().subs(_small, 1 / C))


_share = Symbol("s", positive=True)

# with meanings of their own here
LOCAL = (_n, _q, mu, _since, _later, _linear, _twice, _held, _phi1, _phi2, _l, _kurtosis)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    return [
        ("a chi-square variable has mean n, its inverse 1/(n-2)", vanishes(mean_square().rhs - _n)
            and vanishes(mean_inverse().rhs - 1 / (_n - 2))),
        ("E[angle²] is (C-1)/(C-2) times 2(1-ρ)", vanishes(angle_spread().rhs - (C - 1) / (C - 2))),
        ("it is 1 + 1/C to first order", vanishes(
            series(angle_spread().rhs.subs(C, 1 / _small), _small, 0, 2).removeO() - 1 - _small)),
        ("‖w‖² of μ + noise has the relative variance (2/C)(1-ϰ²)", vanishes(
            spread_of_the_square().rhs - 2 * (1 - varkappa**2) / C)),
        ("settled weights: the spread of chi-square", vanishes(
            spread_of_the_square().rhs.subs(varkappa, 0) - many_coordinates()[1].rhs / (C * sigma**2) ** 2)),
        ("Adam: Q is the sum over all steps in between, term by term", _summed()),
        ("weights that do not move are alike at all lags", vanishes(decoupled_held().rhs.subs(a, 1) - 1)
            and vanishes(coupled_held().rhs.subs(lamda, 0) - 1)),
        ("no momentum: the average holds one gradient", vanishes(decoupled_held().rhs.subs(beta, 0) - 1)),
        ("weights alike by q^l: both means are geometric sums", vanishes(met_twice().rhs.subs(
            _held, (1 - beta) * geometric_sum((beta * _q) ** _later, _later, 0))
            - (1 - beta) / (1 + beta) * (1 + 2 * geometric_sum((beta * _q) ** _later, _later, 1)))),
        ("long weights: decay is stronger by 1/C", vanishes(long_weights_decay_faster().rhs - 1 - 1 / C)),
        ("Gaussian weights: E[angle²] is ϑ² + sin²ϑ/C", vanishes(
            (wide_angle().rhs - vartheta**2).subs(_kurtosis, 0) - sin(vartheta) ** 2 / C)),
        ("of small angles that is the share 1/C", vanishes(
            (sin(vartheta) ** 2 / vartheta**2).series(vartheta, 0, 2).removeO() - 1)),
        ("young weights: 1 - 2ϰ²/C", vanishes(young_spread().rhs - 1 + 2 * varkappa**2 / C)),
    ]  # fmt: skip


def _summed() -> bool:
    """Q against the double sum over l >= n >= 1, of rational averages, to 60 steps: what is left out is below 1e-6."""
    rates = {beta1: Rational(1, 2), beta2: Rational(4, 5)}
    b1, b2 = rates.values()
    total = sum(
        (1 - b1**n) * (1 - b1) * b1**later * (1 - b2) * b2 ** (later - n)
        for later in range(1, 61)
        for n in range(1, later + 1)
    )
    return bool(abs(met_again().rhs.subs(rates) - total) < 1e-6)
