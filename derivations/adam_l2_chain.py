"""Adam+L2 with a random second moment: a Markov chain of each coordinate, with one number beside the betas."""

from functools import cache

from sympy import Eq, Expr, Function, Sum, binomial, exp, factorial2, floor, hermite_prob, solve, sqrt

from derivations import adam_l2, linear, sgdm
from derivations.algebra import scaling_factor, vanishes
from derivations.formula import step
from derivations.symbols import *


@step
def dimensionless_chain() -> tuple[Eq, ...]:
    """Now let v fluctuate. In units of the noise's deviation σ, and with x = λw/σ, one number is left but the betas.

    It is h = ηλ/σ, the decay per step if v were σ². With white noise z a coordinate is a Markov chain of its own,
    (x, m, v). It is not linear: the decay is divided by a root that it stands in itself, through y.
    """
    return (
        equation(h, eta * lamda / sigma),
        equation(y_[t], x_[t - 1] + z_[t]),
        equation(m_[t], beta1 * m_[t - 1] + (1 - beta1) * y_[t]),
        equation(v_[t], beta2 * v_[t - 1] + (1 - beta2) * y_[t] ** 2),
        equation(x_[t], x_[t - 1] - h * m_[t] / sqrt(v_[t])),
    )


def _walk_in_units() -> tuple[Expr, Expr]:
    """m_t and x_t by the rules of `random_walk`, in the units of the chain."""
    _, rule_m, rule_w = adam_l2.random_walk()
    units = {
        g_[t]: sigma * z_[t],
        m_[t]: sigma * m_[t],
        m_[t - 1]: sigma * m_[t - 1],
        w_[t - 1]: sigma * x_[t - 1] / lamda,
        sqrt(v): sigma * sqrt(v_[t]),
    }
    next_m, next_w = (rule.rhs.subs(units, simultaneous=True) / sigma for rule in (rule_m, rule_w))
    return next_m, lamda * next_w


@step
def norm_from_the_chain() -> tuple[Eq, Eq]:
    """X(h) = E x² of the chain is a function of h and the betas. It gives the norm through σ² = G·W^p/C.

    Where the gradient does not know the norm, p = 0, this is no equation but the answer. The cosine is the
    chain's own: 1 - ρ = E(x' - x)²/(2E x²), as for any stationary sequence.
    """
    variance = adam_l2.random_walk()[0].rhs
    return equation(W, C * variance / lamda**2 * X(h)), equation(h, eta * lamda / sqrt(variance))


@step
def weights_seen_by_the_gradient() -> tuple[Eq, Eq]:
    """x acts through y only. Were x normal with variance s², y would say this of it, with He the Hermite polynomials.

    The right-hand side generates ρ^k He_k(y/√(1+s²)), so that the density of y at given x is that of N(0, 1+s²)
    times Mehler's series Σ ρ^k/k! He_k(x/s) He_k(y/√(1+s²)). This holds for every x, whatever its law; a law near
    the normal one makes few terms do, and ρ < 1 at any decay.
    """
    seen = xi * rho * y / sqrt(1 + s**2) - xi**2 * rho**2 / 2
    return equation(E(exp(xi * x / s - xi**2 / 2)), exp(seen)), equation(rho**2, s**2 / (1 + s**2))


@step
def one_step_ahead() -> Eq:
    """A step of length ν·s moves a Hermite polynomial of x by finitely many of lower degree, ν = hm'/(s√v').

    Since m' is linear in m and y, the expectation of He_n(x'/s)·m'^b·f(v') is a sum of He_l(x/s)·m^j times integrals
    over y that contain v' alone. The total degree is at most n + b, but for Mehler's terms. Cut at a total degree,
    this is a linear system for the functions of v that go with each (l, j).
    """
    moved = Sum(binomial(n, i) * (-nu) ** i * Function("He")(n - i, x / s), (i, 0, n))
    return equation(Function("He")(n, x / s - nu), moved)


@step
def beside_decoupled_decay() -> Eq:
    """Where AdamW's decay leaves a of the weights and the pull is a part of the gradient, ax/s takes the place of x/s.

    Its polynomials are sums of those of x/s, of the same or a lower degree.
    """
    lower = binomial(n, 2 * j) * factorial2(2 * j - 1) * (a**2 - 1) ** j * a ** (n - 2 * j)
    return equation(Function("He")(n, a * x), Sum(lower * Function("He")(n - 2 * j, x), (j, 0, floor(n / 2))))


@step
def closed_given_second_moment() -> tuple[Eq, ...]:
    """With x left out of v no cut is needed: |z| alone makes v, and given all |z| the signs of z are independent.

    The second moments of (x, m) then follow a linear map with c = h/√v' in it and v the only random state. It is the
    first term of Mehler's series, and for constant v it is SGDM's.
    """
    return linear.map_equations(_given_second_moment())


@cache
def _given_second_moment() -> linear.MomentMap:
    next_m = beta1 * m_[t - 1] + (1 - beta1) * (w_[t - 1] + g_[t])
    rec = linear.recursion(next_m, w_[t - 1] - c * m_[t], w_[t - 1], m_[t - 1], m_[t], g_[t])
    return linear.moment_map(rec, z_[t] ** 2)


def _hermite(expression: Expr, degree: int) -> Expr:
    """A side of `one_step_ahead` at n = `degree`, written out."""
    return expression.subs(n, degree).doit().replace(Function("He"), hermite_prob)


def _scaled_polynomials() -> bool:
    rule = beside_decoupled_decay()
    sides = ([_hermite(side, degree) for degree in range(7)] for side in (rule.lhs, rule.rhs))
    return all(vanishes(left - right) for left, right in zip(*sides, strict=True))


def _weights_given_gradient() -> Expr:
    """Exponent of the left-hand side of `weights_seen_by_the_gradient`, with x integrated out of its joint law with y.

    An exponent quadratic in x integrates to its value where it is largest, times a factor without ξ and y.
    """
    joint = -((y - x) ** 2) / 2 - x**2 / (2 * s**2)
    tilted = joint + xi * x / s - xi**2 / 2
    [top], [peak] = solve(joint.diff(x), x), solve(tilted.diff(x), x)
    return tilted.subs(x, peak) - joint.subs(x, top)


LOCAL = (h, x, y)  # with meanings of their own here


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    named_h, sum_y, chain_m, _, chain_x = dimensionless_chain()
    walk_m, walk_x = _walk_in_units()
    by_chain, decay = norm_from_the_chain()
    seen, correlation = weights_seen_by_the_gradient()
    translated = one_step_ahead()
    given = _given_second_moment()
    unit_noise = linear.stationary(linear.MomentMap(given.matrix, given.drive.subs(z_[t], 1)))
    units = (*sgdm.UNITS, (W, c**2), (G, c ** (-2 * p)))
    return [
        ("in its units the walk is the chain: η, λ and σ enter by h alone",
         vanishes(chain_m.rhs.subs(y_[t], sum_y.rhs) - walk_m) and vanishes(chain_x.rhs.subs(h, named_h.rhs) - walk_x)),
        ("h does not depend on units", scaling_factor(decay.rhs, *units) == 1),
        ("X(h) → h/2 is the leading balance, with h = κ",
         vanishes(adam_l2.at_balance(decay.rhs) - kappa)
         and vanishes(adam_l2.at_balance(by_chain.rhs.subs(X(h), kappa / 2)) - W)),
        ("E(exp(ξx/s - ξ²/2) | y) generates ρ^k He_k(y/√(1+s²))",
         vanishes(_weights_given_gradient() - seen.rhs.args[0].subs(rho, sqrt(correlation.rhs)))),
        ("He_n(x/s - ν) is the sum of lower degrees, n ≤ 6",
         all(vanishes(_hermite(translated.lhs, degree) - _hermite(translated.rhs, degree)) for degree in range(7))),
        ("He_n(ax) is the sum of lower degrees, n ≤ 6", _scaled_polynomials()),
        ("given constant v the closed recursion settles on SGDM's gain",
         vanishes(unit_noise[0] - lamda**2 * adam_l2.gain().rhs.subs(eta_step, c * (1 - beta1) / lamda))),
    ]  # fmt: skip
