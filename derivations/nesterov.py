"""SGD with Nesterov momentum and coupled weight decay; and what dampening changes."""

from functools import cache

from sympy import Eq, Expr, Matrix, expand, simplify, sqrt, symbols

from derivations import linear, sgdm
from derivations.algebra import tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

LIMIT = "lr * weight_decay < 2 * (1 + momentum) / (1 + 2 * momentum)"

_tau_d = symbols("tau_d", positive=True)


@step
def looks_ahead() -> tuple[Eq, ...]:
    """Nesterov's rule steps by the gradient and α times the momentum that has it already, as PyTorch writes it.

    The decay λw is part of the gradient. Noise is that of SGDM: variance σ² per coordinate, and Cσ² = G·W^p.
    """
    return (
        equation(m_[t], alpha * m_[t - 1] + _pull()),
        equation(w_[t], w_[t - 1] - eta * (_pull() + alpha * m_[t])),
    )


def _pull() -> Expr:
    return g_[t] + lamda * w_[t - 1]


@step
def impulse_response() -> tuple[Eq, ...]:
    """Without decay a gradient moves the weights by η(1+α) at once and by ηα² times a power of α after it.

    In all that is η/(1-α), as without Nesterov: the norm is the same to leading order. The squares are not.
    """
    first, later = eta * (1 + alpha), eta * alpha**2
    return (
        equation(symbols("h_total"), tidy(first + later / (1 - alpha))),
        equation(symbols("h_squares"), tidy(first**2 + later**2 / (1 - alpha**2))),
    )


@cache
def _recursion() -> linear.Recursion:
    rule_m, rule_w = looks_ahead()
    rec = linear.recursion(rule_m.rhs, rule_w.rhs, w_[t - 1], m_[t - 1], m_[t], g_[t])
    return linear.substitute(rec, lamda, delta / eta)


@cache
def _stationary() -> Matrix:
    return linear.stationary(linear.moment_map(_recursion(), sigma**2))


@step
def stationary_moments() -> tuple[Eq, ...]:
    """The recursion is linear, as SGDM's is, so the fixed point of its second moments is found in the same way."""
    return linear.moment_equations(_stationary())


@step
def gain() -> Eq:
    """Variance of a weight over that of a gradient. The last factor below bounds ηλ: the decay looks ahead as well."""
    return equation(A, tidy(_stationary()[0] / sigma**2))


@step("nesterov_exact_norm_squared", "E‖w‖² of SGD with Nesterov momentum.", where=(gain,), limit=LIMIT)
def exact_norm_squared() -> Eq:
    """W = A·G·W^p is one equation for W, and the same as for SGDM but for A."""
    return equation(W, (A * G) ** (1 / (1 - p)))


@step("nesterov_exact_one_minus_cosine", "1 - ρ of SGD with Nesterov momentum.", limit=LIMIT)
def exact_one_minus_cosine() -> Eq:
    """The expected cosine between successive weights, in which σ² cancels."""
    return equation(1 - rho, linear.one_minus_cosine(_recursion(), _stationary()))


@step("nesterov_leading_rotation", "RMS angle per step with Nesterov momentum, to leading order in ηλ.")
def leading_rotation() -> Eq:
    """To leading order: SGDM's rotation times √(1+2α-2α³), which is 1 without momentum and nearly 1 with much of it."""
    slope = (exact_one_minus_cosine().rhs / delta).subs(delta, 0)
    return equation(theta, sqrt(2 * eta * lamda * tidy(slope)))


@step("nesterov_along", "E w·Δw of one step with Nesterov momentum.")
def along_the_weights() -> Eq:
    """In time, the state is SGDM's: W, x = E w·m and M = E‖m‖². The new momentum has y of the weights."""
    return equation(E(w_[t - 1] * (w_[t] - w_[t - 1])), -eta * (lamda * W + alpha * y))


@step("nesterov_moved", "E‖Δw‖² of one step with Nesterov momentum, x and M those of the momentum before it.")
def length_of_the_step() -> Eq:
    """The square of the step. Y₂ = Γ + λ²W is that of gradient and decay, which have λx of the old momentum."""
    return equation(E((w_[t] - w_[t - 1]) ** 2), eta**2 * _product(_direction(), _direction()))


@step("nesterov_momentum_overlap", "E w·m of SGD with Nesterov momentum after a step; y is E w·m before it moves.")
def overlap_after_the_step() -> Eq:
    """And what the new weights have of the new momentum, to be averaged into the next."""
    return equation(x_m, y - eta * _product(_direction(), _new_momentum()))


_pull_m, _old_m = symbols("pull m")


def _new_momentum() -> Expr:
    return alpha * _old_m + _pull_m


def _direction() -> Expr:
    return _pull_m + alpha * _new_momentum()


def _product(one: Expr, other: Expr) -> Expr:
    """E of a product of linear forms in g + λw and m: Y₂, M and λx times what multiplies the squares."""
    squares = expand(one * other)
    parts = ((_pull_m**2, y_power), (_old_m**2, m_power), (_pull_m * _old_m, lamda * x_m))
    return tidy(sum(squares.coeff(power) * value for power, value in parts))


@step("nesterov_fallen", "1 - ρ with Nesterov momentum over two or more steps, from that over one and two steps less.")
def over_many_steps() -> Eq:
    """Over lags, f = 1 - ρ_k obeys the recursion of the state's characteristic polynomial, from k = 2 on."""
    trace, determinant = (part.subs(lamda, delta / eta) for part in _invariants())
    return equation(symbols("f"), tidy(expand(trace)) * f_1 - tidy(determinant) * f_2 + delta)


def _invariants() -> tuple[Expr, Expr]:
    matrix = _recursion().transition
    return simplify(matrix.trace()), simplify(matrix.det())


@step
def dampening() -> tuple[Eq, ...]:
    """PyTorch's dampening multiplies what enters the momentum, all but the first gradient, by 1 - τ_d.

    Then m/(1-τ_d) is SGDM's momentum, with a learning rate of η(1-τ_d). Only the first steps differ.
    """
    damped = m_[t] * (1 - _tau_d)
    return (
        equation(damped, alpha * m_[t - 1] * (1 - _tau_d) + (1 - _tau_d) * _pull()),
        equation(w_[t], w_[t - 1] - eta * (1 - _tau_d) * m_[t]),
    )


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    total, squares = (item.rhs for item in impulse_response())
    moments = linear.moment_map(_recursion(), sigma**2)
    per_noise = gain().rhs
    still = {alpha: 0}
    return [
        ("one gradient contributes η/(1-α) in all, as in SGDM", vanishes(
            total - sgdm.total_update_contribution().rhs)),
        ("the stationary moments are the fixed point of the transient", linear.fixed_by(moments, _stationary())),
        ("norm: SGDM's as ηλ → 0", vanishes((per_noise * delta - sgdm.gain().rhs * delta).subs(delta, 0))),
        ("leading rotation is the update's size over the norm", vanishes(
            leading_rotation().rhs**2 - squares / (eta / lamda / 2 / (1 - alpha)))),
        ("leading rotation² = SGDM's times 1 + 2α - 2α³", vanishes(
            leading_rotation().rhs**2 - sgdm.leading_rotation().rhs**2 * (1 + 2 * alpha - 2 * alpha**3))),
        ("α = 0: SGD, in norm and rotation", vanishes((per_noise - sgdm.gain().rhs).subs(still))
            and vanishes((exact_one_minus_cosine().rhs - sgdm.exact_one_minus_cosine().rhs).subs(still))),
        ("the map in time has the stationary moments as its fixed point", _settles()),
        ("1 - ρ over two steps is that of the state's square", _two_steps()),
        ("dampening is another learning rate", vanishes(
            dampening()[0].rhs - (1 - _tau_d) * looks_ahead()[0].rhs)),
    ]  # fmt: skip


def _settles() -> bool:
    """W, x and M of `_stationary` after one step of the map in time, which SGDM's momentum begins."""
    from derivations import transient

    square, overlap, power = _stationary()
    at = {lamda: delta / eta, W: square, x_m: overlap, m_power: power, Gamma: sigma**2,
          y_power: sigma**2 + delta**2 / eta**2 * square}  # fmt: skip
    across = transient.coupled_pull().rhs.subs(at, simultaneous=True)
    along = along_the_weights().rhs.subs(y, across).subs(at, simultaneous=True)
    moved = length_of_the_step().rhs.subs(at, simultaneous=True)
    after = overlap_after_the_step().rhs.subs(y, across).subs(at, simultaneous=True)
    new_power = transient.coupled_momentum_power().rhs.subs(at, simultaneous=True)
    return vanishes(2 * along + moved) and vanishes(after - overlap) and vanishes(new_power - power)


def _two_steps() -> bool:
    rec, moments = _recursion(), _stationary()
    covariance = Matrix([[moments[0], moments[1]], [moments[1], moments[2]]])
    direct = 1 - (rec.transition**2 * covariance)[0, 0] / moments[0]
    return vanishes(direct - over_many_steps().rhs.subs({f_1: exact_one_minus_cosine().rhs, f_2: 0}))
