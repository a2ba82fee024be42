"""Adam with a random second moment: the autocovariance of u = m/√v under Gaussian gradients."""

from sympy import (
    Derivative,
    Eq,
    Expr,
    Function,
    I,
    Integral,
    Product,
    Rational,
    Sum,
    Symbol,
    asin,
    cosh,
    exp,
    integrate,
    log,
    oo,
    pi,
    series,
    simplify,
    sinh,
    sqrt,
    symbols,
)

from derivations.algebra import geometric_sum, tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

_m, _v, _u, _d, _c = (Function(name) for name in ("m", "v", "u", "d", "c"))
_P, _S, _D, _K, _kappa = (Function(name) for name in ("P", "S", "D", "K", "kappa"))
_tau, _eps_v = symbols("tau epsilon", positive=True)
_s, _b, _x, _y, _h = symbols("s b x y h", positive=True)
_r = Symbol("r", nonnegative=True)
_z = Symbol("z", real=True)
_first, _second = symbols("C_1 C_2", positive=True)


@step
def random_moments() -> tuple[Eq, ...]:
    """The other derivations hold v constant. Here it stays what it is, an average of squared Gaussian gradients.

    m and v see the same gradients, m with the weights c_j and v with d_j. We give g unit variance, since u = m/√v
    does not change when all gradients are multiplied by a number.
    """
    return (
        equation(_m(t), Sum(_c(j) * g_[t - j], (j, 0, oo))),
        equation(_v(t), Sum(_d(j) * g_[t - j] ** 2, (j, 0, oo))),
        equation(_c(j), (1 - beta1) * beta1**j),
        equation(_d(j), (1 - beta2) * beta2**j),
        equation(_K(k), E(_m(t) * _m(t + k) / sqrt(_v(t) * _v(t + k)))),
    )


@step
def root_as_integral() -> Eq:
    """A root in the denominator cannot be averaged over Gaussians, but an exponential can: write one as the other.

    Substituting x = sv shows it: what is left is Γ(1/2) = √π.
    """
    return equation(1 / sqrt(v), Integral(_root_integrand(), (_s, 0, oo)) / sqrt(pi))


def _root_integrand() -> Expr:
    return exp(-_s * v) / sqrt(_s)


@step
def root_and_eps_as_integral() -> tuple[Eq, ...]:
    """With ε beside the root the same is possible. Over τ the inverse is an exponential of √v, and that one of v.

    The second is Lévy's density: the time at which a random walk first reaches a distance. Both integrals swapped, a
    weight over s is left that is 1/√(πs) for ε = 0.
    """
    levy = _tau * exp(-(_tau**2) / (4 * _s)) / (2 * sqrt(pi) * _s ** Rational(3, 2))
    return (
        equation(1 / (sqrt(v) + _eps_v), Integral(exp(-_tau * (sqrt(v) + _eps_v)), (_tau, 0, oo))),
        equation(exp(-_tau * sqrt(v)), Integral(levy * exp(-_s * v), (_s, 0, oo))),
    )


@step
def eps_weight() -> Eq:
    """What ε leaves of 1/√(πs), with x = ε√s: nearly all at small s, less and less beyond 1/ε². It is positive.

    The integral is over τ/(2√s). By parts it becomes the complementary error function.
    """
    return equation(_kappa(_x), _kept_of_weight())


def _kept_integrand() -> Expr:
    return 2 * _y * exp(-(_y**2) - 2 * _x * _y)


def _kept_of_weight() -> Expr:
    return simplify(integrate(_kept_integrand(), (_y, 0, oo)))


@step("eps_far_weight", "What ε leaves of the weight 1/√(πs), for ε√s far above one.")
def eps_far_weight() -> Eq:
    """For large x that is a difference of nearly equal numbers. exp(-y²), expanded, gives its series in 1/x²."""
    expanded = series(exp(-(_y**2)), _y, 0, 8).removeO()
    terms = integrate((2 * _y * expanded * exp(-2 * x_root * _y)).expand(), (_y, 0, oo))
    return equation(_kappa(x_root), terms)


@step
def one_gradient() -> tuple[Eq, ...]:
    """Each gradient then occurs in a factor exp(-x g²), alone or times its square from the product of two m.

    Both averages are powers of q = 1 + 2x. Every gradient gives 1/√q, and that which m·m shares one more 1/q.
    """
    plain, squared = (_average(power) for power in (0, 2))
    return equation(E(exp(-_x * _z**2)), plain), equation(E(_z**2 * exp(-_x * _z**2)), squared)


def _average(power: int) -> Expr:
    density = exp(-(_z**2) / 2) / sqrt(2 * pi)
    return simplify(integrate(_z**power * exp(-_x * _z**2) * density, (_z, -oo, oo)))


@step
def product_and_sum() -> tuple[Eq, ...]:
    """Everything is made of two functions of one variable: the product of all 1/√q, and the sum of all c²/q.

    d_j falls by β2 from one gradient to the next, so taking the newest gradient out leaves the same function at
    β2σ. Both follow from their own values further in, which is how they are computed.
    """
    return (
        equation(_P(sigma), Product(1 / sqrt(1 + 2 * sigma * _d(j)), (j, 0, oo))),
        equation(_S(sigma), Sum(_c(j) ** 2 / (1 + 2 * sigma * _d(j)), (j, 0, oo))),
        equation(_P(sigma), _P(beta2 * sigma) / sqrt(_newest())),
        equation(_S(sigma), (1 - beta1) ** 2 / _newest() + beta1**2 * _S(beta2 * sigma)),
    )


def _newest() -> Expr:
    """1 + 2σ d_0."""
    return 1 + 2 * sigma * (1 - beta2)


@step
def power_series() -> tuple[Eq, ...]:
    """Where x = 2(1-β2)σ is small, expand each factor in it: the sum over gradients is then geometric, term by term.

    With β2 = 0.9999 tens of thousands of gradients matter, and none has to be taken by itself.
    """
    return (
        equation(log(_P(sigma)), Sum(_log_product_term(), (n, 1, oo))),
        equation(_S(sigma), Sum(_sum_term(), (n, 0, oo))),
    )


def _log_product_term() -> Expr:
    """Term n of log P: -½ log(1 + y) = ½ Σ (-y)^n/n with y = x β2^j, summed over j."""
    return (-_x) ** n * geometric_sum(beta2 ** (n * j), j) / (2 * n)


def _sum_term() -> Expr:
    return (-_x) ** n * geometric_sum((1 - beta1) ** 2 * beta1 ** (2 * j) * beta2 ** (n * j), j)


@step
def lag_zero() -> Eq:
    """At lag zero the two roots are one v, 1/v is a single exponential integral, and E[m²/v] a single integral.

    Only equal pairs of gradients in m² have a mean. Each gives c²·E[g² exp(-σ d g²)] times the 1/√q of the others:
    c²/q times the product of all.
    """
    return equation(_K(0), Integral(_P(sigma) * _S(sigma), (sigma, 0, oo)))


@step
def two_times() -> tuple[Eq, ...]:
    """k steps later each old gradient is β1^k as heavy in m and b = β2^k as heavy in v; k new ones have joined v.

    An old gradient meets s at the first time and r at the second: q = 1 + 2(s + br)d. A new one meets r alone. Its
    factors are the first k of P(r), and dividing by P(br) leaves just these.
    """
    return (
        equation(_b, beta2**k),
        equation(_c(j) * _c(j + k), beta1**k * _c(j) ** 2),
        equation(_s * _d(j) + _r * _d(j + k), (_s + _b * _r) * _d(j)),
        equation(Product(1 / sqrt(1 + 2 * _r * _d(j)), (j, 0, k - 1)), _P(_r) / _P(_b * _r)),
    )


@step
def decorrelation() -> tuple[Eq, ...]:
    """So K_k is β1^k times a function of b alone, a double integral that depends on nothing else but the betas."""
    inner = _P(_s + _b * _r) * _S(_s + _b * _r) * _P(_r) / _P(_b * _r) / sqrt(_s * _r)
    return (
        equation(_K(k), beta1**k * _D(beta2**k)),
        equation(_D(_b), Integral(inner, (_s, 0, oo), (_r, 0, oo)) / pi),
    )


@step
def at_once() -> Eq:
    """At b = 1 only s + r occurs. Along s + r = σ the weight 1/√(sr) integrates to π, whatever σ is.

    What is left is the single integral of lag zero: D(1) = K_0.
    """
    return equation(Integral(1 / sqrt(_r * (sigma - _r)), (_r, 0, sigma)), _simplex())


def _simplex() -> Expr:
    """∫_0^σ dr/√(r(σ-r)), by r = σ sin²(y/2): the antiderivative is asin(2r/σ - 1)."""
    primitive = asin(2 * _r / sigma - 1)
    assert simplify(primitive.diff(_r) ** 2 - 1 / (_r * (sigma - _r))) == 0
    return simplify(primitive.subs(_r, sigma) - primitive.subs(_r, 0))


@step
def far_apart() -> Eq:
    """At b = 0 the integral falls into two factors, which undo the first step: m and v meet at one time only.

    What stays correlated at long lags is m; each v has its own mean effect. D goes from K_0 to this as v is renewed.
    """
    one, other = _first * sqrt(pi), _second * sqrt(pi)
    first = equation(one, Integral(_P(_s) * _S(_s) / sqrt(_s), (_s, 0, oo)))
    second = equation(other, Integral(_P(_r) / sqrt(_r), (_r, 0, oo)))
    return equation(_D(0), first.rhs * second.rhs / pi)


@step
def conserved_sum() -> tuple[Eq, ...]:
    """One integral is known exactly: E[v/v] = 1. Weighted with d instead of c², S is minus the slope of log P.

    A quadrature can be held against it. E[g²/v] of the newest gradient alone is not one: it is below, since a large
    gradient makes its own v large.
    """
    weighted = Sum(_d(j) / (1 + 2 * sigma * _d(j)), (j, 0, oo))
    return (
        equation(Derivative(log(_P(sigma)), sigma), -weighted),
        equation(Integral(_P(sigma) * weighted, (sigma, 0, oo)), _P(0) - _P(oo)),
    )


@step
def even_grid() -> tuple[Eq, ...]:
    """s = sinh²y takes the root out of the integral and spreads the tail doubly exponentially.

    P and S are singular only where 1 + 2σd = 0, d <= 1-β2 <= 1, hence no nearer to the real y axis than π/4. On an
    even grid of spacing h the trapezoidal rule is then wrong by exp(-2π(π/4)/h): 1e-17 at h = 1/8.
    """
    return (
        equation(1 / sqrt(_s) * Derivative(_s, _y), simplify((sinh(_y) ** 2).diff(_y) / sinh(_y))),
        equation(Symbol("y_0"), I * _singularity()),
        equation(Symbol("error"), exp(-2 * pi * _singularity() / _h)),
    )


def _singularity() -> Expr:
    """|Im y| where sinh²y = -1/2: sinh(iy) = i sin y."""
    return asin(sqrt(Rational(1, 2)))


@step
def modes() -> tuple[Eq, ...]:
    """D is analytic in b on [0, 1], so a polynomial of low degree in b = β2^k stands for it to all digits.

    Each power of b is a mode that decays as (β1β2^n)^k. Sums over all lags, and recursions in time, use the modes.
    """
    p_n = Function("p")(n)
    root = beta1 * beta2**n
    term = geometric_sum((a * root) ** k, k, 1)
    return (
        equation(_K(k), Sum(p_n * root**k, (n, 0, oo))),
        equation(Sum(a**k * _K(k), (k, 1, oo)), Sum(p_n * tidy(term), (n, 0, oo))),
    )


@step
def response() -> tuple[Eq, ...]:
    """A small lasting shift of the gradient moves u by κ times it over the root of E v.

    By parts, κ = E Σ c_j g_j²/√v. The same integral as at far lags, with c in the place of c². κ is 1 for constant v.
    Adam+L2's decay, a shift that follows the weights, passes through it.
    """
    shifted = Integral(_P(_s) * Sum(_c(j) / (1 + 2 * _s * _d(j)), (j, 0, oo)) / sqrt(_s), (_s, 0, oo))
    return (
        equation(E(Derivative(_u(t), g_[t - j])), E(_u(t) * g_[t - j])),
        equation(Symbol("kappa"), shifted / sqrt(pi)),
    )


LOCAL = (_h, _y, _tau, _eps_v)  # with meanings of their own here


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    plain, squared = (item.rhs for item in one_gradient())
    _, _, functional_p, functional_s = product_and_sum()
    three = [1 + 2 * sigma * (1 - beta2) * beta2**age for age in range(3)]  # q of a v with three gradients in it
    c_three = [(1 - beta1) ** 2 * beta1 ** (2 * age) for age in range(3)]
    product = 1 / sqrt(three[0] * three[1] * three[2])
    shrunk = 1 / sqrt(three[1] * three[2])  # of P(β2σ), cut where P(σ) is cut
    total = sum(c / q for c, q in zip(c_three, three, strict=True))
    inner = sum(c / q for c, q in zip(c_three[:2], three[1:], strict=True))
    replace_p = {_P(sigma): product, _P(beta2 * sigma): shrunk}
    replace_s = {_S(sigma): total, _S(beta2 * sigma): inner}
    weighted = sum((1 - beta2) * beta2**age / q for age, q in enumerate(three))
    logs, sums = _log_product_term(), _sum_term()
    by_newest = series(-log(1 + _x) / 2, _x, 0, 4).removeO()
    newest_sum = series((1 - beta1) ** 2 / (1 + _x), _x, 0, 4).removeO()
    return [
        ("1/√v is the integral", vanishes(integrate(_root_integrand(), (_s, 0, oo)) / sqrt(pi) - 1 / sqrt(v))),
        ("1/(√v + ε): its integral over τ, and that of Lévy's density", _eps_integrals()),
        ("ε = 0 leaves the weight of a root", vanishes(eps_weight().rhs.subs(_x, 0) - 1)),
        ("the weight is Lévy's, integrated over τ", _is_levys()),
        ("the far series is that of the weight", _is_far_series()),
        ("one gradient: q^(-1/2) and q^(-3/2)", vanishes(plain**2 - 1 / (1 + 2 * _x))
            and vanishes(squared - plain**3)),
        ("P(σ) is P(β2σ) times the newest factor", vanishes(functional_p.subs(replace_p).lhs ** 2
            - functional_p.subs(replace_p).rhs ** 2)),
        ("S(σ) is its newest term and β1² S(β2σ)", vanishes(functional_s.subs(replace_s).lhs
            - functional_s.subs(replace_s).rhs)),
        ("the series of log P fulfils P's equation", all(vanishes(
            logs.subs(n, order) - logs.subs(n, order).subs(_x, beta2 * _x) - by_newest.coeff(_x, order) * _x**order)
            for order in (1, 2, 3))),
        ("the series of S fulfils S's equation", all(vanishes(
            sums.subs(n, order) - beta1**2 * sums.subs(n, order).subs(_x, beta2 * _x)
            - newest_sum.coeff(_x, order) * _x**order) for order in (0, 1, 2, 3))),
        ("the new gradients' factors are P(r)/P(br)", vanishes(
            (product / (1 / sqrt(three[2]))) ** 2 - 1 / (three[0] * three[1]))),
        ("D(1): ∫ dr/√(r(σ-r)) = π for every σ", vanishes(at_once().rhs - pi)),
        ("E[v/v] = 1: the slope of log P is -Σ d/q", vanishes(log(product).diff(sigma) + weighted)),
        ("ds/√s = 2 cosh y dy", vanishes(even_grid()[0].rhs - 2 * cosh(_y))),
        ("the nearest singularity is π/4 from the real axis", _singularity() == pi / 4
            and simplify(sinh(I * _singularity()) ** 2) == -Rational(1, 2)),
        ("the sum over lags of a mode is geometric", vanishes(
            geometric_sum((a * beta1 * beta2**i) ** k, k, 1) - a * beta1 * beta2**i / (1 - a * beta1 * beta2**i))),
    ]  # fmt: skip


def _eps_integrals() -> bool:
    first, second = root_and_eps_as_integral()
    inner = integrate(first.rhs.args[0], (_tau, 0, oo))
    density = integrate(second.rhs.args[0].subs(v, _x**2), (_s, 0, oo))
    return vanishes(inner - first.lhs) and vanishes(density - second.lhs.subs(v, _x**2))


def _is_levys() -> bool:
    """Substitute τ = 2√s y in the weight of e^(-sv): dτ is 2√s dy, and ε√s is x."""
    levy = root_and_eps_as_integral()[1].rhs.args[0] * exp(_s * v) * exp(-_eps_v * _tau)
    inside = levy.subs(_tau, 2 * sqrt(_s) * _y) * 2 * sqrt(_s) * sqrt(pi * _s)
    return vanishes(inside.subs(_eps_v, _x / sqrt(_s)) - _kept_integrand())


def _is_far_series() -> bool:
    """κ obeys xκ' = 2x²κ - 1 + κ, and the series does but for a term beyond its last."""

    def rest(kept: Expr, at: Symbol) -> Expr:
        return simplify(at * kept.diff(at) - 2 * at**2 * kept + 1 - kept)

    far = eps_far_weight().rhs
    last = min(term.as_coeff_exponent(x_root)[1] for term in far.args)
    beyond = rest(far, x_root).expand()
    return vanishes(rest(eps_weight().rhs, _x)) and beyond.as_coeff_exponent(x_root)[1] == last
