"""Adam's second moment lags: two coupled modes instead of one, where the gradient follows the norm."""

from sympy import Eq, Expr, Matrix, Symbol, powsimp, simplify, sqrt

from derivations.algebra import tidy
from derivations.symbols import C, D, G, T, W, beta2, equation, f_v, p, tau, v

EPS = Symbol("varepsilon", positive=True)
DENOMINATOR = sqrt(v) + EPS  # of an update


def rates(growth: Expr, loss: Expr, balance_dim: Expr) -> tuple[Eq, Eq]:
    """Sum T and product D of the two rates at which small deviations of (W, v) decay.

    Parameters
    ----------
    growth, loss : Expr
        What one step adds to and takes from W, with v free; ε in the `DENOMINATOR` of either.
    balance_dim : Expr
        C at the balance of the two, with v at its target; eliminates one unknown.
    """
    target = G * W**p / C
    change = Matrix([growth - loss, (1 - beta2) * (target - v)])
    jacobian = change.jacobian([W, v]).subs(G, v * C / W**p).subs(C, balance_dim)
    jacobian = jacobian.subs(EPS, sqrt(v) * (1 - f_v) / f_v)
    jacobian = jacobian.applyfunc(lambda entry: powsimp(simplify(entry), force=True))
    return equation(T, tidy(-jacobian[0, 0]) + tidy(-jacobian[1, 1])), equation(D, tidy(simplify(jacobian.det())))


def slow_time() -> Eq:
    """Steps in which the slower of the two modes shrinks by a factor e: no difference of near-equal numbers."""
    return equation(tau, (T + sqrt(T**2 - 4 * D)) / (2 * D))
