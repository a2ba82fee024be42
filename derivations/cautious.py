"""Cautious decay: only coordinates decay whose update shortens them, beside any decoupled optimizer."""

from collections.abc import Callable

from sympy import Eq, Expr, Function, Integer, Symbol, asin, cos, diff, integrate, pi, series, simplify, sin, sqrt

from derivations import lion, transient
from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import *

_mask, _K, _rest = (Function(name) for name in ("o", "K", "z"))
_phi, _turn = Symbol("varphi", real=True), Symbol("psi", real=True)
k_w, k_u = Symbol("k_w", real=True), Symbol("k_u", real=True)


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


def _in_turn(expression: Expr) -> Expr:
    """In terms of ψ, of which 1 - r² is the square of a cosine."""
    found = expression.subs(r_w, sin(_turn)).subs(asin(sin(_turn)), _turn)
    return simplify(found.subs(sqrt(1 - sin(_turn) ** 2), cos(_turn)))


def _in_r(expression: Expr) -> Expr:
    """In terms of r = sin ψ."""
    found = expression.expand(trig=True).subs(sin(2 * _turn), 2 * sin(_turn) * cos(_turn))
    return simplify(found.subs(cos(_turn), sqrt(1 - r_w**2)).subs(sin(_turn), r_w).subs(_turn, asin(r_w)))


@step
def balance() -> Eq:
    """Squares of both sides of the walk. y is the overlap of a weight with its next update, H that where the mask is 1.

    In units of η²K_0. Decay meets updates that point the same way, which the plain optimizer's does not on average.
    """
    return equation(W, (1 - 2 * y + 2 * delta * H_o) / (delta * (2 - delta) * f_o))


@step("cautious_length", "RMS weight of a coordinate at rest, for updates of mean square 1 and steps of 1.")
def length() -> Eq:
    """Both overlaps grow with the weight, as y and H of a weight of unit variance do. So √W solves a quadratic."""
    lost = delta * (2 - delta) * f_o
    met = delta * H_o - y
    return equation(sqrt(W), (met + sqrt(met**2 + lost)) / lost)


def _regressed(share: Expr, product: Expr, together: Expr) -> tuple[Expr, Expr]:
    """Slopes on a weight and an update of unit variance, of something with these overlaps with both."""
    apart = 1 - together**2
    return (share - together * product) / apart, (product - together * share) / apart


@step
def behind_the_mask() -> Eq:
    """Weights where they decay, and 0 elsewhere, are regressed on weight and update. What is left knows of neither."""
    return equation(w_[t - 1] * _mask(t), k_w * w_[t - 1] + k_u * u_[t] + _rest(t))


@step("cautious_of_weight", "Slope of the weights that decay on all weights, beside that on the update.")
def of_the_weight() -> Eq:
    """For unit variances. It is the share of coordinates that decay."""
    return equation(k_w, _in_r(_in_turn(_regressed(decayed().rhs, overlap().rhs, r_w)[0])))


@step("cautious_of_update", "Slope of the weights that decay on the update, for unit variances.")
def of_the_update() -> Eq:
    """The mask opens where an update points one way. So what decays looks like the update, too."""
    return equation(k_u, _in_r(_in_turn(_regressed(decayed().rhs, overlap().rhs, r_w)[1])))


@step("cautious_sign_of_weight", "The first slope for a sign in the place of the update.")
def sign_of_the_weight() -> Eq:
    """A sign and a Gaussian weight of unit variance overlap by √(2/π) r."""
    return equation(k_w, simplify(_regressed(decayed().rhs, sign_overlap().rhs, sqrt(2 / pi) * r_w)[0]))


@step("cautious_sign_of_update", "The second slope for a sign in the place of the update.")
def sign_of_the_update() -> Eq:
    """A decayed weight overlaps with the sign of its update as well, for a weight of unit variance."""
    return equation(k_u, simplify(_regressed(decayed().rhs, sign_overlap().rhs, sqrt(2 / pi) * r_w)[1]))


@step
def as_decay() -> Eq:
    """So the walk is one with decoupled decay δ k_w and longer steps, beside a noise that no later update knows.

    What the weights have of a mode of the updates follows that walk, at rest and in time (derivations.transient).
    """
    return equation(w_[t], (1 - delta * k_w) * w_[t - 1] - (eta + delta * k_u) * u_[t] - delta * _rest(t))


@step
def overlap_of_a_mode() -> Eq:
    """What weights and a mode have in common one step on, in units of K_0."""
    return equation(X_n, _effective(transient.mode_overlap().rhs))


def _effective(expression: Expr) -> Expr:
    """With the decay and the step of the equivalent walk."""
    return expression.subs({a: 1 - delta * k_w, h: eta + delta * k_u}, simultaneous=True)


@step
def in_time() -> tuple[Eq, ...]:
    """Along the weights, and in all, a step moves them as decay of f W would that meets the update with H."""
    return (
        equation(E(w_[t - 1] * (w_[t] - w_[t - 1])), transient.along_the_weights().rhs.subs(W, f_o * W)),
        equation(
            E((w_[t] - w_[t - 1]) ** 2),
            transient.length_of_the_step().rhs.subs({W: f_o * W, y: H_o}, simultaneous=True),
        ),
    )


@step("cautious_one_minus_cosine", "1 - ρ of the weights from step to step under cautious decay.")
def one_minus_cosine() -> Eq:
    """A step takes of the weights, along themselves, the decay that acts and the overlap with the update.

    Over many steps it is that of the equivalent walk.
    """
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
    unmasked = {k_w: Integer(1), k_u: Integer(0)}
    share, product = decayed().rhs, overlap().rhs
    mode = mu_n * _effective(transient.stationary_overlap().rhs).subs(unmasked).subs(eta, 1)
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
        ("the slope on the weight is the share that is open", vanishes(of_the_weight().rhs - open_share().rhs)),
        ("weight and slopes give back what decays of both", _gives_back(of_the_weight, of_the_update, product, r_w)),
        ("signs: so do these", _gives_back(
            sign_of_the_weight, sign_of_the_update, sign_overlap().rhs, sqrt(2 / pi) * r_w)),
        ("a slope on the weight alone does not", not vanishes(of_the_weight().rhs - share)),
        ("without a mask: the modes are those of decoupled decay", vanishes(
            overlap_of_a_mode().rhs.subs(unmasked) - transient.mode_overlap().rhs.subs({a: 1 - delta, h: eta}))),
        ("at rest squares neither grow nor shrink", vanishes(
            (2 * in_time()[0].rhs + in_time()[1].rhs).subs({h: 1, K_0: 1}).subs(W, balance().rhs))),
        ("the root weight solves the balance", vanishes(simplify(
            balance().rhs.subs({y: y * length().rhs, H_o: H_o * length().rhs}, simultaneous=True)
            - length().rhs ** 2))),
        ("without a mask: E w² and ρ of decoupled decay, for one mode", _unmasked(mode)),
    ]  # fmt: skip


def _gives_back(of_weight: Callable[[], Eq], of_update: Callable[[], Eq], product: Expr, together: Expr) -> bool:
    """Both normal equations of the regression, r being the sine of an angle."""
    by_weight, by_update = of_weight().rhs, of_update().rhs
    missed = by_weight + together * by_update - decayed().rhs, by_weight * together + by_update - product
    return all(simplify(_in_turn(one)) == 0 for one in missed)


def _unmasked(mode: Expr) -> bool:
    """Against the sum over lags of `derivations.lion`, with K_0 = p = 1."""
    total = mu_n * (1 - delta) / (1 - mu_n * (1 - delta))
    of_one = {p_n: 1}
    square = balance().rhs.subs({f_o: 1, H_o: y}).subs(y, mode).subs(of_one)
    half = one_minus_cosine().rhs.subs(f_o, 1).subs(W, square).subs(y, mode).subs(of_one)
    theirs = lion.exact_norm_squared().rhs.subs({C: 1, eta: 1}).subs(a, 1 - delta).subs(S, total)
    turned = lion.exact_one_minus_cosine().rhs.subs(a, 1 - delta).subs(S, total)
    return all(vanishes(one - other) for one, other in ((square, theirs), (half, turned)))
