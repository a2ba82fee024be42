"""Cautious decay: only coordinates decay whose update shortens them, beside any decoupled optimizer."""

from sympy import Eq, Expr, Function, Integer, Symbol, asin, cos, diff, integrate, pi, series, simplify, sin, sqrt

from derivations import lion
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import *

_mask, _K, _X, _z = (Function(name) for name in ("o", "K", "X", "z"))
_phi, _turn = Symbol("varphi", real=True), Symbol("psi", real=True)


@step
def random_walk() -> tuple[Eq, ...]:
    """The mask o is 1 where weight and update have one sign, and 0 elsewhere. Decay acts behind it.

    Updates u are those of the plain optimizer, with the autocovariance K_k = Σ p μ^k of its theory.
    """
    return (
        equation(w_[t], w_[t - 1] - eta * u_[t] - delta * w_[t - 1] * _mask(t)),
        equation(E(u_[t] * u_[t - k]), _K(k)),
    )


@step
def polar() -> tuple[Eq, ...]:
    """Weight and update are taken as Gaussian together, of unit variance and correlation r = sin ψ.

    In polar coordinates the angle φ is even on the circle, and E R² is 2. The mask is 1 on two arcs, of which one is
    from -ψ to π/2.
    """
    return equation(Symbol("w"), Symbol("R") * cos(_phi)), equation(Symbol("u"), Symbol("R") * sin(_phi + _turn))


def _over_arc(inside: Expr) -> Expr:
    """E over both arcs, of R² times something of the angle."""
    return simplify(2 * 2 * integrate(inside, (_phi, -_turn, pi / 2)) / (2 * pi))


@step
def open_share() -> Eq:
    """The arcs are this part of the circle: one half, and less where the average of gradients opposes the weights."""
    return equation(E(_mask(t)), (pi / 2 + asin(r_w)) / pi)


@step("cautious_decayed", "Share of E w² that stands in coordinates that decay, under cautious decay.")
def decayed() -> Eq:
    """Weights count by their squares. So this is the share of weight decay that acts on the norm."""
    return equation(f_o, _in_r(_over_arc(cos(_phi) ** 2)))


@step("cautious_overlap", "E w·u over those coordinates, for unit variances.")
def overlap() -> Eq:
    """Where the mask is 1, the product of weight and update is positive."""
    return equation(E(w_[t - 1] * u_[t] * _mask(t)), _in_r(_over_arc(cos(_phi) * sin(_phi + _turn))))


@step("cautious_sign_overlap", "The same for the sign of the update, for a weight of unit variance.")
def sign_overlap() -> Eq:
    """Where u is a sign, as in Lion, r is the correlation of the weight with what the sign is taken of.

    The mean of the radius is √(π/2).
    """
    mean = sqrt(pi / 2) * 2 * integrate(cos(_phi), (_phi, -_turn, pi / 2)) / (2 * pi)
    return equation(E(w_[t - 1] * sign_(u_[t]) * _mask(t)), _in_r(simplify(mean)))


sign_ = Function("sign")


def _in_r(expression: Expr) -> Expr:
    """In terms of r = sin ψ."""
    found = expression.expand(trig=True).subs(sin(2 * _turn), 2 * sin(_turn) * cos(_turn))
    return simplify(found.subs(cos(_turn), sqrt(1 - r_w**2)).subs(sin(_turn), r_w).subs(_turn, asin(r_w)))


@step(
    "cautious_norm_squared",
    "E w² of a coordinate under cautious decay, for updates of mean square 1 and steps of 1.",
)
def balance() -> Eq:
    """Squares of both sides of the walk. X is the overlap of a weight with its next update, H that where the mask is 1.

    In units of η²K_0. Decay meets updates that point the same way, which the plain optimizer's does not on average.
    """
    return equation(W, (1 - 2 * y + 2 * delta * H_o) / (delta * (2 - delta) * f_o))


@step("cautious_mode", "Overlap of the weights with one mode of the updates to come, under cautious decay.")
def mode_overlap() -> Eq:
    """One step on, the mode has faded by μ. The step has taken p of it, and decay what it takes where the mask is 1.

    Of that, C is what stands behind the mask: a mode is regressed on weight and update, which are known.
    """
    return equation(X_n, -mu_n * (p_n + delta * C_o) / (1 - mu_n))


@step("cautious_behind", "What of a mode's overlap with the weights stands where the mask is 1.")
def behind_the_mask() -> Eq:
    """Regression on a weight and an update of mean squares W and 1 whose overlap is X."""
    spread = W - y**2
    by_weight, by_update = (X_n - p_n * y) / spread, (p_n * W - X_n * y) / spread
    return equation(C_o, by_weight * f_o * W + by_update * H_o)


@step("cautious_one_minus_cosine", "1 - ρ of the weights from step to step under cautious decay.")
def one_minus_cosine() -> Eq:
    """A step takes of the weights, along themselves, the decay that acts and the overlap with the update."""
    return equation(1 - rho, delta * f_o + y / W)


@step
def leading() -> tuple[Eq, ...]:
    """As ηλ → 0 weights know little of the next update, and half of the decay acts: a norm longer by √2.

    Steps are those of the plain optimizer, so that rotation is smaller by as much.
    """
    half = decayed().rhs.subs(r_w, 0)
    return equation(W / W_0, 1 / half), equation(theta**2 / theta_0**2, half)


LOCAL = (_phi, _turn)  # with meanings of their own here


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    plain = {f_o: Integer(1), H_o: y}
    share, product = decayed().rhs, overlap().rhs
    mode = -mu_n * p_n / (1 - mu_n * (1 - delta))
    return [
        ("no correlation: half of all is open, and decays", share.subs(r_w, 0) == open_share().rhs.subs(r_w, 0)
            and vanishes(share.subs(r_w, 0) - Integer(1) / 2)),
        ("r = 1: all decays, and all of E w·u is met", vanishes(share.subs(r_w, 1) - 1)
            and vanishes(product.subs(r_w, 1) - 1) and vanishes(sign_overlap().rhs.subs(r_w, 1) - sqrt(2 / pi))),
        ("r = -1: nothing does", vanishes(share.subs(r_w, -1)) and vanishes(product.subs(r_w, -1))
            and vanishes(sign_overlap().rhs.subs(r_w, -1))),
        ("Price's theorem: d E[w u o]/dr is the share that is open", vanishes(
            diff(product, r_w) - open_share().rhs)),
        ("open and shut parts of E w·u add up to r", vanishes(product - product.subs(r_w, -r_w) - r_w)),
        ("open and shut parts of E w² add up to 1", vanishes(share + share.subs(r_w, -r_w) - 1)),
        ("signs: both parts add up to E w·sign", vanishes(
            sign_overlap().rhs - sign_overlap().rhs.subs(r_w, -r_w) - sqrt(2 / pi) * r_w)),
        ("to first order the share is 1/2 + 2r/π", vanishes(
            series(share, r_w, 0, 2).removeO() - Integer(1) / 2 - 2 * r_w / pi)),
        ("without a mask: the modes are those of decoupled decay", vanishes(
            mode_overlap().rhs.subs(C_o, X_n).subs(X_n, mode) - mode)),
        ("without a mask a regression gives back what it is of", vanishes(
            behind_the_mask().rhs.subs(plain) - X_n)),
        ("without a mask: E w² and ρ of decoupled decay, for one mode", _unmasked(mode)),
    ]  # fmt: skip


def _unmasked(mode: Expr) -> bool:
    """Against the sum over lags of `derivations.lion`, with K_0 = p = 1."""
    total = mu_n * (1 - delta) / (1 - mu_n * (1 - delta))
    of_one = {p_n: 1}
    square = balance().rhs.subs({f_o: 1, H_o: y}).subs(y, mode).subs(of_one)
    half = one_minus_cosine().rhs.subs(f_o, 1).subs(W, square).subs(y, mode).subs(of_one)
    theirs = lion.exact_norm_squared().rhs.subs({C: 1, eta: 1}).subs(a, 1 - delta).subs(S, total)
    turned = lion.exact_one_minus_cosine().rhs.subs(a, 1 - delta).subs(S, total)
    return all(vanishes(one - other) for one, other in ((square, theirs), (half, turned)))
