"""Adam's rare large updates at finite dim: growth of log ‖w‖² and the angle of a step, of any size."""

from sympy import (
    Eq,
    Function,
    Integral,
    Sum,
    Symbol,
    atan,
    exp,
    integrate,
    log,
    oo,
    pi,
    series,
    simplify,
    solve,
    sqrt,
    symbols,
)

from derivations.algebra import vanishes
from derivations.formula import step
from derivations.symbols import C, E, a, equation, eta, k, u_, v, xi

_L, _K, _P, _S = (Function(name) for name in "LKPS")
_kappa, _s, _x, _y, _variance, _length = symbols("kappa s x y A N", positive=True)
_t = Symbol("t", positive=True)


_u = u_[Symbol("t")]


@step
def heavy_tail() -> Eq:
    """At small β2 a newest gradient near 0 leaves v small, and m, which remembers others, is divided by almost nothing.

    The fourth moment shows it: m is Gaussian under e^(-sv), with m⁴ three times its squared variance, and 1/v² is the
    integral of s e^(-sv). Beside β1 = 0.9 and β2 = 0.001 it is 10⁵ times the squared second moment.
    """
    return equation(E(_u**4), Integral(3 * _s * _P(_s) * _S(_s) ** 2, (_s, 0, oo)))


@step
def one_large_step() -> tuple[Eq, ...]:
    """A step that is orthogonal to w turns it by θ, where κ is the square of its unit and N stands for ‖w‖².

    Where one coordinate is much larger than the others, θ saturates at a right angle while the step grows.
    """
    return equation(Symbol("tan²θ"), _kappa * _u**2), equation(_kappa, eta**2 / (a**2 * _length))


@step
def longer_weights() -> Eq:
    """The same step makes the weights longer, after decay has taken its share: N grows by a factor of 1/cos² θ."""
    return equation(Symbol("N′"), a**2 * _length * (1 + _kappa * _u**2))


@step
def growth() -> Eq:
    """At rest log N stays the same on average, however rare large steps are. L is what every coordinate adds to it.

    The mean of N itself balances E u² in the place of this logarithm, and may live on events that no run sees.
    """
    return equation(_L(_kappa), E(log(1 + _kappa * _u**2)))


@step
def balance() -> Eq:
    """Decay takes the rest. Later lags of the update add what they add to the mean, since no single step is in them.

    With κ E u² for L this is the exact balance of E‖w‖². Solved for κ, and with it N, it is what a run mostly sees.
    """
    later = 2 * C * _kappa * Sum(a**k * _K(k), (k, 1, oo))
    return equation(C * _L(_kappa) + later, (1 - a**2) / a**2)


@step
def logarithm_as_integral() -> Eq:
    """The logarithm of a quotient is a difference of exponentials, under an integral. With x = κm² it needs v alone."""
    return equation(log(1 + _x / v), Integral(exp(-_s * v) * (1 - exp(-_s * _x)) / _s, (_s, 0, oo)))


@step
def over_the_momentum() -> Eq:
    """Under e^(-sv) the momentum is Gaussian with the variance S(s), and P(s) is the mean of the weight.

    Averaged over m, one exponential is 1/√(1 + 2sκS).
    """
    return equation(_L(_kappa), Integral(_P(_s) * (1 - 1 / sqrt(1 + 2 * _s * _kappa * _S(_s))) / _s, (_s, 0, oo)))


@step
def angle_as_integral() -> Eq:
    """The squared angle is made of the same logarithms: its slope in κu² is that of the integral over t."""
    return equation(atan(sqrt(_x)) ** 2, Integral((log(1 + _x) - log(1 + _x * _t**2)) / (1 - _t**2), (_t, 0, 1)))


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    inside = logarithm_as_integral().rhs.args[0]
    slope = integrate(inside.diff(_x), (_s, 0, oo))
    density = exp(-(xi**2) / (2 * _variance)) / sqrt(2 * pi * _variance)
    averaged = simplify(integrate(2 * exp(-_s * _kappa * xi**2) * density, (xi, 0, oo)))
    return [
        ("the integral's slope in x is that of log(1 + x/v)", vanishes(slope - log(1 + _x / v).diff(_x))),
        ("and both begin at 0", inside.subs(_x, 0) == 0),
        ("over a Gaussian m: 1/√(1 + 2sκS)", vanishes(averaged - 1 / sqrt(1 + 2 * _s * _kappa * _variance))),
        ("the squared angle's slope is that of its integral", _same_slope()),
        ("1/v² is the integral of s e^(-sv), and m⁴ is three times its squared variance", vanishes(
            integrate(_s * exp(-_s * v), (_s, 0, oo)) - 1 / v**2)
            and vanishes(integrate(xi**4 * 2 * density, (xi, 0, oo)) - 3 * _variance**2)),
        ("small steps: the balance is that of E‖w‖²", _is_exact_balance()),
        ("a small step: log(1 + x) and the squared angle are x", all(
            series(f, _x, 0, 2).removeO() == _x for f in (log(1 + _x), atan(sqrt(_x)) ** 2))),
    ]  # fmt: skip


def _same_slope() -> bool:
    """d/dx: the difference of 1/(1+x) and t²/(1+xt²) is (1-t²)/((1+x)(1+xt²)), whose integral over t is an atan."""
    inside = angle_as_integral().rhs.args[0].diff(_x)
    plain = 1 / ((1 + _x) * (1 + _x * _t**2))
    whole = integrate(1 / (1 + _y**2 * _t**2), (_t, 0, 1)) / (1 + _y**2)
    slope = (atan(sqrt(_x)) ** 2).diff(_x).subs(_x, _y**2)
    return vanishes(inside - plain) and vanishes(whole - slope)


def _is_exact_balance() -> bool:
    """With κK_0 in the place of L: N is then η²C(K_0 + 2Σ)/(1-a²), the form of `derivations.lion` for any update."""
    power, later = symbols("K_0 Sigma", positive=True)
    sides = C * _kappa * power + 2 * C * _kappa * later - balance().rhs
    [length] = solve(sides.subs(_kappa, one_large_step()[1].rhs), _length)
    return vanishes(length - eta**2 * C * (power + 2 * later) / (1 - a**2))
