"""Signum: the sign of one exponential average beside decoupled decay, as the case β1 = β2 of Lion."""

from sympy import Eq, asin, pi, simplify, sqrt

from derivations import lion
from derivations.algebra import geometric_sum, vanishes
from derivations.formula import follow, step
from derivations.symbols import *


@step
def one_average() -> tuple[Eq, ...]:
    """What makes the step is what is kept: with β1 = β2 = β Lion's direction c is its momentum after the step."""
    rule, kept = (lion.random_walk()[place].rhs.subs({beta1: beta, beta2: beta}) for place in (1, 2))
    return equation(c_[t], rule), equation(m_[t], kept)


@step
def correlation() -> Eq:
    """An exponential average fades by β in a step, so that its values k steps apart are correlated by β^k.

    For Lion's direction this holds up to a factor, from k = 1 on.
    """
    return equation(gamma_k / gamma_0, beta**k)


@step
def signs() -> Eq:
    """By the arcsine law two signs then agree on average by this much."""
    return equation(Symbol("s_k"), 2 / pi * asin(beta**k))


follow(__name__, lion.arcsine_law, lion.exact_norm_squared, lion.exact_one_minus_cosine, lion.orthogonal_growth)


@step
def leading_rotation() -> Eq:
    """As ηλ → 0 with the sign taken as a straight line, a step of length √C turns weights whose noise adds up.

    It adds up to (1+β)/(1-β) of one step, as under AdamW, times 2/π. So Signum turns √(π/2) times as fast as AdamW at
    equal β and ηλ.
    """
    memory = 1 + 2 * geometric_sum(beta**k, k, 1)
    return equation(theta, sqrt(2 * eta * lamda) / sqrt(2 / pi * memory))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    one = {beta1: beta, beta2: beta}
    direction, momentum = (item.rhs for item in one_average())
    ratio = lion.covariance().rhs / lion.variance().rhs
    from derivations import adamw

    adam = adamw.leading_rotation().rhs.subs(beta1, beta)
    return [
        ("β1 = β2: Lion's direction is its momentum", vanishes(direction - momentum)),
        ("its correlation is β^k", vanishes(simplify(ratio.subs(one)) - correlation().rhs)),
        ("leading rotation is Lion's at β1 = β2", vanishes(
            leading_rotation().rhs**2
            - (lion.leading_rotation().rhs**2).subs(gamma_0, lion.variance().rhs).subs(one))),
        ("it is √(π/2) times that of AdamW", vanishes(leading_rotation().rhs**2 - pi / 2 * adam**2)),
    ]  # fmt: skip
