"""A persistent mean in the gradient: the part of the weights that stands still, and where it wins."""

from sympy import Eq, Symbol, erf, exp, integrate, oo, pi, radsimp, sign, simplify, sin, solve, sqrt

from derivations import adamw, lion, sgdm
from derivations.algebra import tidy, vanishes
from derivations.formula import step
from derivations.symbols import *

_x, _h = Symbol("x", real=True), Symbol("h", positive=True)


@step
def random_walk() -> tuple[Eq, ...]:
    """The loss has a slope: every gradient coordinate has the mean rσ beside noise of standard deviation σ."""
    return equation(E(g_[t]), r * sigma), equation(E(g_[t] ** 2), (1 + r**2) * sigma**2)


@step
def normalised_mean() -> tuple[Eq, ...]:
    """Adam divides by √v, and v contains the mean as well: signal and noise share what was one.

    We take v as constant in time. However strong the signal, a normalised gradient has at most the mean one. With v as
    random as it is, mean and noise follow from the weights of `derivations.correlated_adam`.
    """
    power = random_walk()[1].rhs
    return (
        equation(E(u_[t]), simplify(random_walk()[0].rhs / sqrt(power))),
        equation(E((u_[t] - E(u_[t])) ** 2), simplify(sigma**2 / power)),
    )


@step("adamw_fixed_norm_squared", "Square of AdamW's mean weights under a signal, constant v.")
def adamw_fixed_part() -> Eq:
    """The walk is linear, so mean and noise never meet: the mean weight is where decay balances the mean step.

    Its square adds to that of the noise. The fixed part does not turn: rotation falls by the noise's share of W.
    """
    mean = normalised_mean()[0].rhs
    [fixed] = solve((1 - delta) * w_fixed - eta * mean - w_fixed, w_fixed)
    return equation(W, simplify(C * (fixed.subs(delta, eta * lamda)) ** 2))


@step("sgdm_fixed_norm_squared", "Square of the mean weights of SGDM and Adam+L2 (G is E‖noise‖²).")
def coupled_fixed_part() -> Eq:
    """Where the decay is part of the gradient, SGDM and Adam+L2, the mean of g + λw must vanish: w = -rσ/λ.

    The mean then is gone from what the optimizer sees, so the noise walks as if there were no signal, in v too.
    """
    [fixed] = solve(random_walk()[0].rhs + lamda * w_fixed, w_fixed)
    return equation(W, (C * fixed**2).subs(sigma, sqrt(G / C)))


@step("lion_sign_mean", "Mean sign of Lion's update direction under a signal.", where=(lion.variance,))
def sign_mean() -> Eq:
    """Lion's direction c has the mean rσ too, since its weights add up to one; its sign then has a mean as well."""
    density = exp(-((_x - _h) ** 2) / 2) / sqrt(2 * pi)
    mean = integrate(density, (_x, 0, oo)) - integrate(density, (_x, -oo, 0))
    return equation(E(sign(c_[t])), simplify(mean.rewrite(erf)).subs(_h, r / sqrt(gamma_0)))


@step("lion_fixed_norm_squared", "Square of Lion's mean weights under a signal.", where=(lion.variance,))
def lion_fixed_part() -> Eq:
    """Decay balances the mean sign, as it balances AdamW's mean step."""
    return equation(W, C * (sign_mean().rhs / lamda) ** 2)


@step
def sign_covariance_slope() -> Eq:
    """The arcsine law with a mean: the slope in the correlation x is four times the joint density at the two zeros.

    Both directions lie h = r/√γ_0 above zero. With x = sin ψ the root cancels. The covariance of two signs is (2/π)
    times the integral of exp(-h²/(1 + sin ψ)), from 0 to the arcsine of their correlation.
    """
    return equation(Symbol("ds/dx"), 4 / (2 * pi * sqrt(1 - _x**2)) * exp(-(_h**2) / (1 + _x)))


@step(
    "sign_covariance_by_arc",
    "Slope in the arcsine of their correlation of the covariance of two signs whose arguments have a mean.",
)
def sign_covariance_by_arc() -> Eq:
    """In this form, x = sin ψ, nothing is singular at strong correlation, and few points integrate it."""
    slope = sign_covariance_slope().rhs * sqrt(1 - _x**2)  # dx = cos ψ dψ
    return equation(Symbol("ds/dψ"), slope.subs({_x: sin(psi), _h: h_s}))


@step
def takeover() -> tuple[Eq, ...]:
    """Signal and noise hold equal shares of W at a ratio r far below one, because the noise adds up incoherently.

    For AdamW and Lion it is r² = ηλ/2, for SGDM ηλ/(2(1-α)): the smaller ηλ, the longer w averages, and the
    weaker the signal that it can tell from noise.
    """
    return tuple(
        equation(r**2, tidy(simplify(noise / (signal / r**2))))
        for signal, noise in (
            (C * r**2 / lamda**2, adamw.leading_norm().rhs ** 2),
            (coupled_fixed_part().rhs, sgdm.leading_norm().rhs.subs(p, 0) ** 2),
            (C * 2 * r**2 / (pi * gamma_0 * lamda**2), lion.leading_norm().rhs ** 2),
        )
    )


@step
def projected_mean() -> tuple[Eq, ...]:
    """In front of a normalisation layer only the part of the mean across w is left, and w turns towards minus the mean.

    Let μ be the length of the mean and Y = y² the squared cosine between w and it. Along the mean 1-Y of it is left.
    Across, what is taken away points along w: the rest of w decays, as under a radial gradient of strength P.
    """
    return (
        equation(E(g_[t]), mu * (1 - Y)),
        equation(P, mu * sqrt(Y) / sqrt(W)),
    )


@step
def overlap_dynamics() -> Eq:
    """Along the mean, decay works against what the projection leaves.

    κ is the optimizer's gain of a lasting gradient. The overlap x = w·mean/μ, which is negative, moves by this much
    per step, to leading order in ηλ.
    """
    return equation(Symbol("Δx"), -eta * lamda * _x - eta * kappa * mu * (1 - _x**2 / W))


@step
def alignment_balance() -> Eq:
    """Where the overlap rests, decay κ^-1·λ times it equals the mean that is left.

    So P = (λ/κ)·Y/(1-Y): the rest of w decays 1/(1-Y) times as fast as decay alone would have it.
    """
    [strength] = solve(overlap_dynamics().rhs.subs(_x, -sqrt(Y * W)), mu)
    return equation(P, simplify(strength * sqrt(Y) / sqrt(W)))


@step("signal_squared_mean", "Squared mean gradient that leads to an alignment.")
def mean_at_alignment() -> Eq:
    """The same read the other way: how long a mean leads to an alignment Y, with ℓ = λ/κ."""
    [strength] = solve(overlap_dynamics().rhs.subs({_x: -sqrt(Y * W), lamda: ell * kappa}), mu)
    return equation(mu**2, simplify(strength**2))


@step("signal_pull", "Radial pull that a projected mean exerts on the rest of the weights.")
def pull_at_alignment() -> Eq:
    """And the strength of the pull on the rest of w."""
    return equation(P, alignment_balance().rhs.subs(lamda, ell * kappa))


@step("lion_left_of_a_sign", "What a lasting part leaves of a sign's square, sign linearised.")
def left_of_a_sign() -> Eq:
    """Lion's steps have one size. A lasting part μ of the direction's argument takes its square, ς²μ², out of it."""
    return equation(E((sign(c_[t]) - varsigma * mu) ** 2), 1 - varsigma**2 * mu**2)


@step
def norm_and_rotation() -> tuple[Eq, ...]:
    """Noise makes the rest of w, of square (1-Y)W, under the decay λ/(1-Y): its balance gives the W of pure noise.

    The rotation, 2ηλ/(1-Y) times momentum's factor for the rest and none for what is fixed, is that of noise as well.
    A scale-invariant neuron thus turns at one rate whether it learns or not; its gradient decides where to.
    """
    total = simplify(lamda + kappa * alignment_balance().rhs)
    rest = adamw.leading_norm().rhs ** 2
    return (
        equation(lamda + kappa * P, tidy(total)),
        equation(W, simplify(rest.subs(lamda, total) / (1 - Y))),
        equation(2 * delta, simplify(2 * eta * total * (1 - Y))),
    )


@step("signal_alignment", "Squared cosine between w and a mean gradient that scale invariance projects.")
def alignment() -> Eq:
    """With the W of noise, μ² = r²G/W, the balance reads Y/(1-Y)² = χ, where χ is r² over its value at takeover.

    Far below takeover Y = χ, far above 1-Y = 1/√χ: the mean is found slowly, and never entirely.
    """
    [root] = [root for root in solve(Y - chi * (1 - Y) ** 2, Y) if root.subs(chi, 1).evalf() < 1]
    return equation(Y, 2 * chi / simplify(radsimp(2 * chi / root)))


LOCAL = (_x, _h)  # with meanings of their own here


@step("adamw_noise_share", "Share of noise in AdamW's normalised gradient, for constant v.", shown=False)
def adamw_noise_share() -> Eq:
    """The second of `normalised_mean`."""
    return normalised_mean()[1]


@step("adamw_takeover", "signal_ratio² at which signal and noise share AdamW's W.", shown=False)
def adamw_takeover() -> Eq:
    """The first of `takeover`."""
    return takeover()[0]


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    mean, spread = (step.rhs for step in normalised_mean())
    aligned = alignment().rhs
    effective, total, doubled = (step.rhs for step in norm_and_rotation())
    by_angle = integrate(sign_covariance_slope().rhs.subs(_h, 0), (_x, 0, Symbol("z", positive=True)))
    [projected, pull] = (step.rhs for step in projected_mean())
    return [
        ("mean² and variance of the normalised gradient add up to one", vanishes(mean**2 + spread - 1)),
        ("AdamW: fixed part = C r²/((1+r²)λ²)", vanishes(adamw_fixed_part().rhs - C * r**2 / ((1 + r**2) * lamda**2))),
        ("h = 0: the law with a mean is the arcsine law", vanishes(
            by_angle - lion.arcsine_law().rhs.subs(lion.arcsine_law().rhs.args[-1], by_angle.args[-1])
            if by_angle.args[-1].func == lion.arcsine_law().rhs.args[-1].func else 1)),
        ("by arc: without a mean the slope is 2/π", vanishes(sign_covariance_by_arc().rhs.subs(h_s, 0) - 2 / pi)),
        ("small r: the mean sign is slope·r", vanishes(
            sign_mean().rhs.diff(r).subs(r, 0) - lion.linearised_sign().rhs)),
        ("takeover: r² = ηλ/2 for AdamW, ηλ/(2(1-α)) for SGDM", vanishes(takeover()[0].rhs - eta * lamda / 2)
            and vanishes(takeover()[1].rhs - eta * lamda / (2 * (1 - alpha)))),
        ("takeover of Lion: r² = ηλ/2", vanishes(takeover()[2].rhs - eta * lamda / 2)),
        ("the pull along w is what the projection takes: the parts along and across add up to μ²(1-Y)", vanishes(
            projected**2 + pull**2 * W * (1 - Y) - mu**2 * (1 - Y))),
        ("the mean at an alignment is Y/(1-Y)² in units of (λ/κ)²W", vanishes(
            mean_at_alignment().rhs - ell**2 * W * Y / (1 - Y) ** 2)),
        ("the best straight line: E(sign - ςμ)² is 1 - 2ςμE[sign] + ς²μ² at E[sign] = ςμ", vanishes(
            left_of_a_sign().rhs - (1 - 2 * (varsigma * mu) * (varsigma * mu) + (varsigma * mu) ** 2))),
        ("alignment solves Y = χ(1-Y)²", vanishes(aligned - chi * (1 - aligned) ** 2)),
        ("far below takeover Y → χ", vanishes((aligned / chi).subs(chi, 0) - 1)),
        ("scale-invariant: W is that of noise", vanishes(total - adamw.leading_norm().rhs ** 2)),
        ("scale-invariant: rotation is that of noise", vanishes(doubled - 2 * eta * lamda)),
        ("the rest of w decays 1/(1-Y) times as fast", vanishes(effective - lamda / (1 - Y))),
    ]  # fmt: skip
