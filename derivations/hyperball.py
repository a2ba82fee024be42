"""Hyperball: steps of a fixed relative length at a constant norm turn as decoupled decay does at rest."""

from sympy import Eq, Function, Integer, Symbol, asin, limit, simplify, sqrt, symbols, tan

from derivations import adamw, lion
from derivations.algebra import vanishes
from derivations.formula import follow, step
from derivations.symbols import *

_R_0, _N, _norm_u = Symbol("R_0", positive=True), Symbol("N", positive=True), Symbol("‖u‖", positive=True)
_unit, _update, _s = (Function(name) for name in ("ŵ", "û", "s"))


@step
def published_step() -> Eq:
    """Weights of norm R_0 take a step of length ηR_0 along the update u, and are brought back to that norm.

    So η is a relative learning rate. N is the norm before it is brought back, over R_0.
    """
    return equation(w_[t] / _R_0, (w_[t - 1] / _R_0 - eta * u_[t] / _norm_u) / _N)


@step("hyperball_stretch", "Norm to which a step of a hyperball leads, before it is brought back, over that norm.")
def stretch() -> Eq:
    """In high dimension ‖u‖² is its mean K_0. y is the overlap of weights of length 1 with u, below 0 with momentum."""
    return equation(_N, sqrt(1 - 2 * eta * y / sqrt(K_0) + eta**2))


@step("hyperball_angle", "Angle of a step of a hyperball, for y <= 0.")
def angle() -> Eq:
    """The part of the step across the weights, over N, is the sine of the angle ϑ."""
    return equation(vartheta, asin(eta * sqrt(1 - y**2 / K_0) / stretch().rhs))


@step
def across_the_weights() -> Eq:
    """Without momentum u is across the weights, y = 0: then η is the tangent of the angle."""
    return equation(tan(vartheta), simplify(tan(angle().rhs.subs(y, 0))))


@step
def as_decay() -> Eq:
    """So a step keeps a share a = 1/N of the weights, and is a walk with decoupled decay 1 - a. Hats: of length 1."""
    return equation(_unit(t), a * (_unit(t - 1) - eta * _update(t)))


@step
def against_the_weights() -> Eq:
    """At rest weights are the sum of all updates before, faded by a: ŵ_t = -η Σ a^(j+1) û_(t-j).

    S is the sum over k >= 1 of a^k s_k, where s_k is the correlation of updates k steps apart.
    """
    return equation(y / sqrt(K_0), -eta * S)


@step("hyperball_lr", "Relative learning rate of the hyperball that turns as decoupled decay does at rest.")
def relative_length() -> Eq:
    """Put into N = 1/a, that gives 1/a² = 1 + η² + 2η²S. So a learning rate stands for a decay, and the other way.

    On the right-hand side δ = ηλ is that of the optimizer with decay.
    """
    return equation(eta_e, sqrt(delta * (2 - delta) / (1 + 2 * S)) / a)


follow(__name__, lion.exact_one_minus_cosine)


@step
def leading() -> Eq:
    """For an average with β1, S is near β1/(1-β1) where δ is small. Then η_e is the rotation of AdamW.

    Momentum plays no part in the rotation of a hyperball to leading order: a step turns it by η_e.
    """
    return equation(eta_e, sqrt(2 * delta / (1 + 2 * beta1 / (1 - beta1))))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    cosine, rate = symbols("kappa eta_r", real=True)
    along, across = 1 - eta * y / sqrt(K_0), eta * sqrt(1 - y**2 / K_0)
    rest = {cosine: -rate * S, rate: relative_length().rhs}
    squared = (relative_length().rhs ** 2).subs(a, 1 - delta)
    theirs = lion.exact_norm_squared().rhs.subs({C: 1, eta: 1}).subs(a, 1 - delta)
    turned = lion.exact_one_minus_cosine().rhs.subs(a, 1 - delta)
    kept = a * (1 - rate * cosine)  # the cosine of the turn, as N = 1/a
    small = limit(squared / delta, delta, 0).subs(S, beta1 / (1 - beta1))
    scaled = angle().rhs.subs({y: c * y, K_0: c**2 * K_0}, simultaneous=True)
    return [
        ("N² is the sum of squares along and across the weights", vanishes(
            simplify(along**2 + across**2 - stretch().rhs ** 2))),
        ("without momentum η is the tangent", vanishes(across_the_weights().rhs - eta)),
        ("with it, it is not", not vanishes(across / along - eta)),
        ("N = 1/a at rest", vanishes(1 + squared + 2 * squared * S - 1 / (1 - delta) ** 2)),
        ("the relative length is that of an update beside the weights that decay leaves", vanishes(
            simplify(squared - 1 / ((1 - delta) ** 2 * theirs)))),
        ("the cosine of a step is that of decoupled decay", vanishes(
            simplify(kept.subs(rest).subs(rate, relative_length().rhs).subs(a, 1 - delta) - 1 + turned))),
        ("an update that ignored what it shares with the weights would have another", not vanishes(
            simplify((1 - delta) - 1 + turned))),
        ("to leading order the rate is AdamW's rotation", vanishes(
            simplify(small * delta - (adamw.leading_rotation().rhs ** 2).subs(eta, delta / lamda)))
            and vanishes(leading().rhs ** 2 - small * delta)),
        ("the gradient's scale plays no part", vanishes(scaled - angle().rhs)),
        ("a learning rate of 0 turns nothing", angle().rhs.subs(eta, 0) == 0
            and stretch().rhs.subs(eta, 0) == Integer(1)),
    ]  # fmt: skip
