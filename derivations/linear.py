r"""Second moments of a linear recursion driven by noise.

Every optimizer here but Lion is, per coordinate and for frozen second moments, a linear map of
the state x = (w, m) plus fresh noise: x_t = A x_{t-1} + b g_t, with E[g_t | past] = 0. Its second
moments obey a linear map too, whose fixed point is the equilibrium. Nothing about the
distribution of the noise is used beyond its variance.
"""

from typing import NamedTuple

from sympy import Eq, Expr, Matrix, S, Symbol, eye, factor, linsolve, solve, symbols

from derivations.algebra import tidy, vanishes
from derivations.symbols import E, equation, eta, m_, t, w_, x_

_w, _m, _g = symbols("w m g")
_ww, _wm, _mm = symbols("w^2 wm m^2")


class Recursion(NamedTuple):
    """x_t = transition · x_{t-1} + entry · g_t for the state x = (w, m)."""

    transition: Matrix
    entry: Matrix


class MomentMap(NamedTuple):
    """(E w², E wm, E m²)_t = matrix · (E w², E wm, E m²)_{t-1} + drive, per coordinate."""

    matrix: Matrix
    drive: Matrix


def recursion(next_m: Expr, next_w: Expr, old_w: Expr, old_m: Expr, new_m: Expr, noise: Expr) -> Recursion:
    """Read A and b off the two update rules as written in the walk-through.

    `next_w` may use the new momentum `new_m`; it is replaced by its own rule first.
    """
    names = {old_w: _w, old_m: _m, noise: _g}
    rule_m = next_m.subs(names)
    rule_w = next_w.subs(new_m, next_m).subs(names)
    rules = Matrix([rule_w, rule_m])
    return Recursion(rules.jacobian([_w, _m]), rules.jacobian([_g]))


def moment_map(rec: Recursion, variance: Expr) -> MomentMap:
    """The map of the second moments: x xᵀ → A x xᵀ Aᵀ + b bᵀ σ², since the noise is uncorrelated with the past."""
    old = Matrix([[_ww, _wm], [_wm, _mm]])
    new = rec.transition * old * rec.transition.T + rec.entry * rec.entry.T * variance
    stacked = Matrix([new[0, 0], new[0, 1], new[1, 1]]).expand()
    state = Matrix([_ww, _wm, _mm])
    matrix = stacked.jacobian(state)
    return MomentMap(matrix.applyfunc(tidy), (stacked - matrix * state).applyfunc(tidy))


def stationary(moments: MomentMap) -> Matrix:
    """(E w², E wm, E m²) at the fixed point: solve (I - K) x = drive."""
    [solution] = linsolve((eye(3) - moments.matrix, moments.drive))
    return Matrix(solution).applyfunc(tidy)


def lag_one(rec: Recursion, moments: Matrix) -> Expr:
    """E[w_{t-1} w_t] per coordinate: the first row of A against the stationary (E w², E wm)."""
    return rec.transition[0, 0] * moments[0] + rec.transition[0, 1] * moments[1]


def one_minus_cosine(rec: Recursion, moments: Matrix) -> Expr:
    """1 - E[w_{t-1} w_t] / E w², as a product so that it keeps its digits when it is tiny."""
    return tidy((moments[0] - lag_one(rec, moments)) / moments[0])


def map_equations(moments: MomentMap) -> tuple[Eq, ...]:
    """The moment map for x = (E w², E wm, E m²): x_t = K x_{t-1} + d."""
    matrix, drive = Symbol("K"), Symbol("d")
    return (
        equation(x_[t], matrix * x_[t - 1] + drive),
        equation(matrix, moments.matrix.as_immutable()),
        equation(drive, moments.drive.as_immutable()),
    )


def moment_equations(moments: Matrix) -> tuple[Eq, ...]:
    """The stationary moments, one equation each."""
    names = (E(w_[t] ** 2), E(w_[t] * m_[t]), E(m_[t] ** 2))
    return tuple(equation(name, value) for name, value in zip(names, moments, strict=True))


def fixed_by(moments: MomentMap, point: Matrix) -> bool:
    """True when sympy proves that one step of the map leaves `point` where it is."""
    return all(vanishes(part) for part in moments.matrix * point + moments.drive - point)


def with_correlated_noise(keep: Expr, from_w: Expr, from_m: Expr) -> tuple[Expr, Expr]:
    """W/E‖m‖² and 1 - ρ when only g_t ⟂ w_{t-1} is known and gradients may be correlated in time.

    Let w_t = keep·w_{t-1} - η m_t and m_t = from_w·w_{t-1} + from_m·m_{t-1} + (gradient). The gradient drops out of
    y = E w_{t-1}·m_t. So y, x = E w_t·m_t and W = E‖w‖² follow in units of E‖m‖².
    """
    square, inner = symbols("square inner")
    ahead = from_w * square + from_m * inner
    [solution] = solve(
        [keep * ahead - eta - inner, keep**2 * square - 2 * keep * eta * ahead + eta**2 - square],
        [square, inner],
        dict=True,
    )
    cosine = keep - eta * ahead / square
    return tidy(solution[square]), tidy((1 - cosine).subs(solution))


def substitute(rec: Recursion, part: Expr, value: Expr) -> Recursion:
    """The recursion with one part of it written differently."""
    return Recursion(rec.transition.subs(part, value), rec.entry.subs(part, value))


class Autocorrelated(NamedTuple):
    """Stationary walk under z_t of unit variance with E z_t z_{t+k} = φ^k: per coordinate and for unit noise.

    E w², 1 - ρ, the overlap E z_t·w_{t-1}, and the share of the noise that the projection off w removes.
    """

    square: Expr
    one_minus_cosine: Expr
    overlap: Expr
    share: Expr


def free_walk(keep: Expr, from_w: Expr, from_m: Expr, entry: Expr, phi: Expr) -> Autocorrelated:
    """w_t = keep·w_{t-1} - η m_t, m_t = from_w·w_{t-1} + from_m·m_{t-1} + entry·z_t: five moments, five equations."""
    square, inner, power, along_w, along_m = symbols("square inner power along_w along_m")
    ahead = from_w * square + from_m * inner + entry * phi * along_w  # E w_{t-1}·m_t
    [solution] = solve(
        [
            keep * ahead - eta * power - inner,
            keep**2 * square - 2 * keep * eta * ahead + eta**2 * power - square,
            from_w**2 * square + from_m**2 * power + entry**2 - power
            + 2 * (from_w * from_m * inner + from_w * entry * phi * along_w + from_m * entry * phi * along_m),
            keep * phi * along_w - eta * along_m - along_w,
            from_w * phi * along_w + from_m * phi * along_m + entry - along_m,
        ],
        [square, inner, power, along_w, along_m],
        dict=True,
    )  # fmt: skip
    cosine = keep - eta * ahead / square
    return Autocorrelated(
        tidy(solution[square]), tidy((1 - cosine).subs(solution)), tidy(phi * solution[along_w]), S.Zero
    )


def projected_walk(keep: Expr, from_w: Expr, from_m: Expr, entry: Expr, phi: Expr) -> Autocorrelated:
    """The same with the part of z_t along w_{t-1} taken out, as scale invariance does.

    The norm and ρ in units of E‖m‖² are those of `with_correlated_noise`; E‖m‖² follows from the overlaps
    of w and m with the raw noise. The share of the noise along w is the squared cosine between z_t and w_{t-1}.
    """
    share, along_w, along_m = symbols("share along_w along_m")
    norm, angle = with_correlated_noise(keep, from_w, from_m)
    inner = (norm * (1 - keep**2) - eta**2) / (-2 * keep * eta)  # E w_{t-1}·m_t / E‖m‖², from the balance of E‖w‖²
    inner = keep * inner - eta
    [overlap] = solve(
        [
            from_w * phi * along_w + from_m * phi * along_m + entry * (1 - share) - along_m,
            keep * phi * along_w - eta * along_m - along_w,
        ],
        [along_w, along_m],
        dict=True,
    )
    with_new = phi * overlap[along_m] - phi * overlap[along_w] * inner / norm  # E m_{t-1}·g_t
    rest = 1 - from_m**2 - from_w**2 * norm - 2 * from_w * from_m * inner
    per_noise = factor((entry**2 * (1 - share) + 2 * from_m * entry * with_new) / rest / (1 - share))
    ratio = factor((phi * overlap[along_w] / (1 - share)) ** 2 / (norm * per_noise))  # share / (1 - share)
    return Autocorrelated(tidy(norm * per_noise), angle, S.Zero, tidy(ratio / (1 + ratio)))
