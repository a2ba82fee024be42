"""Gradients that resemble their predecessors: who turns as under white noise, and how norms grow."""

from functools import cache
from types import ModuleType

from sympy import Eq, Expr, Function, Integer, Pow, Rational, Sum, Symbol, oo, powsimp, simplify

from derivations import adam_l2, adamw, linear, lion, sgdm
from derivations.algebra import fixed_point, geometric_sum, raised, tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

_R, _kappa, _b, _B, _h = (Function(name) for name in ("R", "kappa", "b", "B", "h"))
_d = Symbol("d", positive=True)


@step
def random_walk() -> tuple[Eq, ...]:
    """Batches overlap and losses curve: the gradient of a step resembles those before it, with autocorrelation R.

    Every update direction is an average c of gradients with some weights κ; AdamW, SGDM and Lion differ in
    κ only. Gradients are orthogonal to the weights, as in front of a normalisation layer, and have unit variance.
    """
    return (
        equation(E(g_[t] * g_[t - k]), _R(k)),
        equation(c_[t], Sum(_kappa(j) * g_[t - j], (j, 0, oo))),
        equation(E(w_[t - 1] * g_[t]), Integer(0)),
    )


@step
def overlaps() -> tuple[Eq, ...]:
    """Two numbers per lag describe c: how it overlaps with a gradient in it, b, and how with itself shifted, B.

    B_j differs from the autocovariance of c: only gradients that were there when the earlier direction was
    made are counted, at the weight that they have j steps later.
    """
    return (
        equation(_b(l_), Sum(_kappa(i) * _R(l_ - i), (i, 0, oo))),
        equation(_B(j), Sum(_kappa(l_ + j) * _b(l_), (l_, 0, oo))),
    )


@step
def pull_of_the_past() -> tuple[Eq, ...]:
    """Every gradient in c was orthogonal to the weights of its time; only the steps made since then overlap with it.

    Unrolling w from there, with w_t = a w_{t-1} - ηc_t, and collecting steps that are j apart leaves B.
    This is the sum over past steps that fixes norm and rotation in `derivations.lion`, so S is all that matters.
    """
    return (
        equation(E(w_[t - 1] * c_[t]), -eta / a * Sum(a**j * _B(j), (j, 1, oo))),
        equation(S, Sum(a**j * _B(j) / _B(0), (j, 1, oo))),
    )


@step
def exponential_average() -> tuple[Eq, ...]:
    """An exponential average looks the same after j steps, only β^j times as large; so does B, whatever R is.

    S is then a geometric series without R, and so is the cosine: AdamW's rotation does not depend on the
    autocorrelation of gradients, at any ηλ. For SGDM, where the decay passes through the momentum,
    `derivations.sgdm.correlated_gradients` proves the same.
    """
    shrink = shift(_ema_weight(l_), l_)
    return equation(_B(j), shrink * _B(0)), equation(S, tidy(geometric_sum(a**j * shrink, j, 1)))


def _ema_weight(age: Expr) -> Expr:
    return (1 - beta1) * beta1**age


def shift(weight: Expr, index: Expr) -> Expr:
    """κ_{l+j}/κ_l, after proving that it does not depend on l."""
    ratio = simplify(weight.subs(index, index + j) / weight)
    if ratio.has(index):
        raise ValueError(f"{weight} is not geometric: its ratio is {ratio}")
    return ratio


@step
def average_power() -> Eq:
    """Norms do follow the autocorrelation, through E‖m‖²: gradients that agree add up.

    Pairs of gradients k apart occur with Σ κ_j κ_{j+k}, which for an exponential average is β^k times Σ κ_j².
    """
    alone = tidy(geometric_sum(_ema_weight(j) ** 2, j))
    return equation(E(m_[t] ** 2), alone * (1 + 2 * Sum(beta1**k * _R(k), (k, 1, oo))))


@step
def power_factor() -> Eq:
    """So E‖m‖² is F times that under white noise, a single number for any autocorrelation."""
    power = average_power().rhs
    alone = tidy(geometric_sum(_ema_weight(j) ** 2, j))
    return equation(F, simplify(power / alone))


@step
def growth_factor() -> Eq:
    """Growth follows it where gradients are orthogonal to w. Where they are not, whole contributions add up.

    Those do not fade, as m does: growth is then F at β = 1, the gradients' spectral density at frequency zero.
    """
    return equation(F_0, 1 + 2 * Sum(_R(k), (k, 1, oo)))


@step
def norm_factors() -> tuple[Eq, ...]:
    """Put F_0 into the balance of growth and loss of AdamW, SGDM and Adam+L2: the factors of W, to leading order."""
    return tuple(
        equation(_factor(name), _raised(module, exponent))
        for name, module, exponent in (
            ("AdamW", adamw, Integer(1)),
            ("SGDM", sgdm, 1 - p),
            ("Adam+L2", adam_l2, 1 - p / 2),
        )
    )


_factor = Function("W/W₀")


def _raised(module: ModuleType, exponent: Expr) -> Expr:
    """W over that of white noise, when growth is F_0 times as large."""
    white = fixed_point(module._growth(), module._loss(), W, exponent)
    more = fixed_point(F_0 * module._growth(), module._loss(), W, exponent)
    base = simplify(raised(more, exponent) / raised(white, exponent))
    return Pow(base, tidy(1 / exponent))


@step
def rotation_factors() -> tuple[Eq, ...]:
    """Steps follow F, θ² is their square over W. For SGDM their size follows the norm too, W^p, which drops out.

    In front of a normalisation layer F_0 = F: no change for AdamW and SGDM, and F^(1/6) in Adam+L2's rotation.
    """
    sizes = {"AdamW": Integer(1), "SGDM": Function("W")(p), "Adam+L2": Integer(1)}
    plain, of_sgdm, of_adam_l2 = (item.rhs for item in norm_factors())
    sizes["SGDM"] = Pow(F_0, tidy(p / (1 - p)))
    return tuple(
        equation(_turned(name), powsimp(simplify(F * sizes[name] / norm)))
        for name, norm in zip(sizes, (plain, of_sgdm, of_adam_l2), strict=True)
    )


_turned = Function("θ²/θ₀²")


@step(
    "sgdm_correlated_norm_squared",
    "E‖w‖² of SGDM over that under white noise, to leading order, for any autocorrelation of gradients.",
    shown=False,
)
def sgdm_norm_factor() -> Eq:
    """The second of `norm_factors`."""
    return norm_factors()[1]


@step(
    "adam_l2_correlated_norm_squared",
    "E‖w‖² of Adam+L2 over that under white noise, to leading order, for any autocorrelation of gradients.",
    shown=False,
)
def adam_l2_norm_factor() -> Eq:
    """The third of `norm_factors`."""
    return norm_factors()[2]


@step(
    "correlated_squared_rotation",
    "θ² of AdamW and SGDM over that under white noise, to leading order, for any autocorrelation of gradients.",
    shown=False,
)
def average_rotation_factor() -> Eq:
    """The first two of `rotation_factors`."""
    return rotation_factors()[0]


@step(
    "adam_l2_correlated_squared_rotation",
    "θ² of Adam+L2 over that under white noise, to leading order, for any autocorrelation of gradients.",
    shown=False,
)
def adam_l2_rotation_factor() -> Eq:
    """The third of `rotation_factors`."""
    return rotation_factors()[2]


@step
def first_order_memory() -> Eq:
    """The simplest memory: each gradient keeps a share φ of the one before, R_k = φ^k."""
    return equation(_R(k), phi**k)


@step("average_power_factor", "E‖m‖² of an average of AR(1) gradients over that of white.")
def first_order_factor() -> Eq:
    """F for this memory; growth of free gradients is the same at β = 1."""
    return equation(F, tidy(simplify(1 + 2 * geometric_sum((beta * phi) ** k, k, 1))))


@cache
def _adamw(projected: bool) -> linear.Autocorrelated:
    walk = linear.projected_walk if projected else linear.free_walk
    return walk(a, Integer(0), beta1, 1 - beta1, phi)


@cache
def _sgdm(projected: bool) -> linear.Autocorrelated:
    walk = linear.projected_walk if projected else linear.free_walk
    return walk(Integer(1), delta / eta, alpha, Integer(1), phi)


@step
def adamw_projected_norm_squared() -> Eq:
    """AdamW with gradients orthogonal to w, for constant v: the norm at any ηλ.

    Projection removes what the noise repeats along w, hence the terms in aφ. As ηλ → 0 the squared norm is
    (1+β1φ)/(1-β1φ) times that under white noise.
    """
    return equation(W, C * _adamw(True).square)


@step
def adamw_free_norm_squared() -> Eq:
    """AdamW with gradients that know nothing of w, for constant v: here nothing is projected away.

    As ηλ → 0 growth is the spectral density of the gradients at frequency zero, (1+φ)/(1-φ).
    """
    return equation(W, C * _adamw(False).square)


@step
def adamw_free_one_minus_cosine() -> Eq:
    """The cosine without orthogonality, symmetric in the three memories a, β1 and φ: it does depend on φ.

    Independence of the autocorrelation is a gift of scale invariance, not of the average alone.
    """
    return equation(1 - rho, _adamw(False).one_minus_cosine)


@step(
    "sgdm_projected_gain",
    "W/E‖g‖² of SGDM under AR(1) gradients, g before its projection off w.",
    where=(lambda: sgdm_projected_share(),),
)
def sgdm_projected_gain() -> Eq:
    """SGDM with gradients orthogonal to w: the gain W/E‖g‖², where g is the noise before projection."""
    return equation(A, _sgdm(True).square * (1 - epsilon))


@step
def sgdm_projected_share() -> Eq:
    """How much of the noise lies along w and is projected away: the squared cosine between them."""
    return equation(epsilon, _sgdm(True).share)


@step("sgdm_free_gain", "W/E‖g‖² of SGDM under AR(1) gradients independent of w.")
def sgdm_free_gain() -> Eq:
    """SGDM with gradients that know nothing of w: no projection, so no share of the noise is lost."""
    return equation(A, _sgdm(False).square)


@step("sgdm_free_one_minus_cosine", "1 - ρ of SGDM under AR(1) gradients independent of w.")
def sgdm_free_one_minus_cosine() -> Eq:
    """The cosine of that walk; the gradient's size cancels, the memory does not."""
    return equation(1 - rho, _sgdm(False).one_minus_cosine)


@step
def sgdm_free_overlap() -> Eq:
    """E w_{t-1}·g_t per E‖g‖² of that walk; with Adam+L2 it enters v through E(g + λw)²."""
    return equation(E(w_[t - 1] * g_[t]), _sgdm(False).overlap)


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    by_shift = exponential_average()[1].rhs
    growth = (1 + beta1 * phi) / (1 - beta1 * phi)
    small = {delta: 0, a: 1}
    white_norm = C * _adamw(True).square.subs(phi, 0)
    return [
        (
            "any autocorrelation: S = aβ/(1-aβ) turns Lion's form of the cosine into AdamW's",
            vanishes(lion.exact_one_minus_cosine().rhs.subs(S, by_shift) - adamw.exact_one_minus_cosine().rhs),
        ),
        ("AR(1): AdamW's and SGDM's cosine is that of white noise", vanishes(
            _adamw(True).one_minus_cosine - adamw.exact_one_minus_cosine().rhs)
            and vanishes(_sgdm(True).one_minus_cosine - sgdm.exact_one_minus_cosine().rhs)),
        ("AR(1): F is E‖m‖² over that under white noise", vanishes(
            first_order_factor().rhs.subs(beta, beta1) - growth)),
        ("AR(1): the spectral density at zero is F at β = 1", vanishes(
            first_order_factor().rhs.subs(beta, 1) - 1 - 2 * geometric_sum(phi**k, k, 1))),
        ("p = -1: norms follow F^(1/2), F^(1/4), F^(1/3), and only Adam+L2's rotation F, as F^(1/6)", _powers()),
        ("φ = 0: AdamW's norm is that of white noise", vanishes(white_norm - adamw.exact_norm_squared().rhs)),
        ("φ = 0: SGDM's gain is that of white noise, with or without projection", all(
            vanishes(step().rhs.subs({epsilon: 0, phi: 0}) - sgdm.gain().rhs)
            for step in (sgdm_projected_gain, sgdm_free_gain))),
        ("ηλ → 0: projected AdamW's W grows by (1+β1φ)/(1-β1φ), as E‖m‖² does", vanishes(
            (_adamw(True).square * delta).subs(small) / (_adamw(True).square * delta).subs(small).subs(phi, 0) - growth)
            and vanishes(1 + 2 * geometric_sum((beta1 * phi) ** k, k, 1) - growth)),
        ("ηλ → 0: free AdamW's W grows by the spectral density (1+φ)/(1-φ)", vanishes(
            (_adamw(False).square * delta).subs(small) / (_adamw(False).square * delta).subs(small).subs(phi, 0)
            - (1 + phi) / (1 - phi))),
        ("free AdamW is symmetric in a, β1, φ: swapping φ and β1 leaves W/E‖m‖² alone", vanishes(
            _swapped(_adamw(False).one_minus_cosine) - _adamw(False).one_minus_cosine)),
        ("the projected share is a squared cosine: 0 at φ = 0 and at ηλ → 0",
         vanishes(_sgdm(True).share.subs(phi, 0)) and vanishes(_sgdm(True).share.subs(delta, 0))),
    ]  # fmt: skip


def _swapped(expression: Expr) -> Expr:
    return expand_parts(expression).subs({beta1: phi, phi: beta1}, simultaneous=True)


def _powers() -> bool:
    layer = {p: -1, F_0: F}
    found = [powsimp(item.rhs.subs(layer)) for item in (*norm_factors(), *rotation_factors())]
    halved = (12, 6, 8, 0, 0, 4)  # twelfths of the powers in W and θ²
    alike = rotation_factors()[0].rhs == rotation_factors()[1].rhs
    return alike and all(vanishes(one - F ** Rational(power, 12)) for one, power in zip(found, halved, strict=True))
