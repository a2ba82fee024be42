"""The formulas read backwards: rates for a wanted rotation and norm, and how to keep them."""

from types import ModuleType

from sympy import Eq, Expr, Symbol, pi, powsimp, simplify, solve, sqrt

from derivations import adam_l2, adamw, lion, sgdm
from derivations.algebra import tidy, vanishes
from derivations.formula import Step, generated, step
from derivations.symbols import *

_FOR_IT = "for a wanted rotation and norm, to leading order."

_N, _theta_new = Symbol("N", positive=True), Symbol("theta_new", positive=True)
_new = {eta: Symbol("eta_new", positive=True), lamda: Symbol("lambda_new", positive=True)}


@step
def length_and_balance() -> tuple[Eq, ...]:
    """A step has the length of rotation times norm; growth and loss balance. Two equations for two rates.

    The first holds the learning rate alone, the second is linear in the decay: no root has to be chosen.
    Below for AdamW.
    """
    return (
        equation(adamw.update_size().rhs, theta**2 * W),
        equation(adamw._growth(), adamw._loss()),
    )


def _rates(module: ModuleType, squared_step: Expr) -> tuple[Eq, Eq]:
    """η and λ of an optimizer, for a wanted θ and W."""
    lr = theta * sqrt(W) / sqrt(tidy(simplify(squared_step / eta**2)))
    [decay] = solve(module._growth() - module._loss(), lamda)
    wd = powsimp(tidy(simplify(decay / eta)) * lr, force=True)
    return equation(eta, lr), equation(lamda, wd)


@step
def adamw_rates() -> tuple[Eq, Eq]:
    """So the rotation fixes ηλ and the norm η/λ.

    Momentum asks for a larger ηλ at the same rotation, by (1+β1)/(1-β1).
    """
    return _rates(adamw, adamw.update_size().rhs)


@step
def lion_rates() -> tuple[Eq, Eq]:
    """Lion: a step has length η√C, so the learning rate is rotation times norm per √C, whatever the betas are."""
    return _rates(lion, eta**2 * C)


@step
def sgdm_rates() -> tuple[Eq, Eq]:
    """SGDM: the norm knows the gradient, E‖g‖² = G·W^p, and so do both rates; their product does not."""
    return _rates(sgdm, sgdm.update_size().rhs)


@step
def adam_l2_rates() -> tuple[Eq, Eq]:
    """Adam+L2: the learning rate is that of AdamW, since steps are alike. The decay is measured in units of √v."""
    return _rates(adam_l2, adamw.update_size().rhs)


@step
def turn_within_memory() -> tuple[Eq, ...]:
    """Rotation and time scale are tied: θ²τ, the squared angle turned while the norm forgets, knows momentum only.

    It is largest without momentum. Below 1/(1-p) or 1 lies all that can be asked for; Adam's lagging v lowers it.
    """
    plain = [
        (adamw.leading_rotation().rhs, adamw.relaxation_steps().rhs),
        (sgdm.leading_rotation().rhs, sgdm.relaxation_steps().rhs),
        (lion.leading_rotation().rhs, lion.relaxation_steps().rhs),
    ]
    return tuple(equation(theta**2 * tau, tidy(simplify(rotation**2 * time))) for rotation, time in plain)


@step
def adamw_momentum() -> Eq:
    """Solved for β1: slow turning at a short memory of the norm takes much momentum."""
    return _momentum(0, beta1)


@step
def sgdm_momentum() -> Eq:
    """The same for SGDM, whose norm forgets 1-p times as fast."""
    return _momentum(1, alpha)


def _momentum(which: int, memory: Symbol) -> Eq:
    [found] = solve(turn_within_memory()[which].rhs - theta**2 * tau, memory)
    return equation(memory, simplify(found))


@step(
    "transferred_rotation", "Rotation that keeps the squared angle turned in a training whose batch and length change."
)
def rotation_to_keep_pace() -> Eq:
    """Steps add up incoherently: after N of them the weights have turned by √N·θ. Learning at one pace keeps N·θ².

    A batch f_B times as large leaves N/f_B steps an epoch, a training f_T times as long has f_T·N.
    """
    [found] = solve(_N * theta**2 - _N * f_T / f_B * _theta_new**2, _theta_new)
    return equation(_theta_new, simplify(found))


@step
def adamw_transfer() -> tuple[Eq, Eq]:
    """At the same norm both of AdamW's rates go with the root: the square-root rule for batches, with decay in it.

    The same holds for Lion. A change of β1 at equal rotation moves both by the root of (1+β1)/(1-β1).
    """
    return _transferred(adamw_rates(), {})


@step
def sgdm_transfer() -> tuple[Eq, Eq]:
    """SGDM's gradient is noise, whose square falls as 1/f_B. At the same norm this is the linear rule: f_B·η, same λ.

    A longer training has the same noise: there both rates go with the root.
    """
    return _transferred(sgdm_rates(), {G: G / f_B})


@step
def adam_l2_transfer() -> tuple[Eq, Eq]:
    """Adam+L2: η goes with the root, as AdamW's. λ is measured in units of √v.

    So λ does not change with the batch, but with the length of the training.
    """
    return _transferred(adam_l2_rates(), {G: G / f_B})


def _transferred(rates: tuple[Eq, Eq], noise: dict[Symbol, Expr]) -> tuple[Eq, Eq]:
    changed = {theta: rotation_to_keep_pace().rhs.subs(_theta_new, theta), **noise}
    ratios = (powsimp(simplify(rate.rhs.subs(changed, simultaneous=True) / rate.rhs), force=True) for rate in rates)
    first, second = (equation(_new[rate.lhs] / rate.lhs, ratio) for rate, ratio in zip(rates, ratios, strict=True))
    return first, second


def _part(step: Step, index: int) -> Step:
    """One of the equations of a step, under the step's own name."""

    def part() -> Eq:
        return step()[index]

    part.__name__, part.__module__ = step.__name__, step.__module__
    return part


generated(__name__, "adamw_planned_lr", _part(adamw_rates, 0), f"Learning rate of AdamW {_FOR_IT}")
generated(__name__, "adamw_planned_weight_decay", _part(adamw_rates, 1), f"Weight decay of AdamW {_FOR_IT}")


def checks() -> list[tuple[str, bool]]:
    """The claims of the walk-through that sympy can prove, each with its verdict."""
    per_adamw, per_sgdm, per_lion = (item.rhs for item in turn_within_memory())
    root = sqrt(f_B / f_T)
    return [
        ("AdamW: the rates give back rotation and norm", _gives_back(adamw, adamw_rates())),
        ("Lion: the rates give back rotation and norm", _gives_back(lion, lion_rates())),
        ("SGDM: the rates give back rotation and norm", _gives_back(sgdm, sgdm_rates())),
        ("Adam+L2: the rates give back rotation and norm", _gives_back(adam_l2, adam_l2_rates())),
        ("Adam+L2's learning rate is AdamW's", adam_l2_rates()[0] == adamw_rates()[0]),
        ("AdamW: θ²τ = (1-β1)/(1+β1)", vanishes(per_adamw - (1 - beta1) / (1 + beta1))),
        ("SGDM: θ²τ = (1-α)/((1+α)(1-p))", vanishes(per_sgdm - (1 - alpha) / ((1 + alpha) * (1 - p)))),
        ("Lion: θ²τ is π/2 times the variance of its direction", vanishes(per_lion - pi / 2 * gamma_0)
            and not per_lion.has(eta, lamda, beta1, beta2)),
        ("planned momentum gives back θ²τ", vanishes(
            per_adamw.subs(beta1, adamw_momentum().rhs) - theta**2 * tau)
            and vanishes(per_sgdm.subs(alpha, sgdm_momentum().rhs) - theta**2 * tau)),
        ("AdamW: both rates go with √(f_B/f_T)", all(vanishes(item.rhs - root) for item in adamw_transfer())),
        ("SGDM: a larger batch is the linear rule, η times f_B at the same λ", all(vanishes(
            item.rhs.subs(f_T, 1) - wanted) for item, wanted in zip(sgdm_transfer(), (f_B, 1), strict=True))),
        ("SGDM: a longer training takes both rates down with the root", all(vanishes(
            item.rhs.subs(f_B, 1) - 1 / sqrt(f_T)) for item in sgdm_transfer())),
        ("Adam+L2: η goes with the root, and λ not with the batch", vanishes(adam_l2_transfer()[0].rhs - root)
            and vanishes(adam_l2_transfer()[1].rhs.subs(f_T, 1) - 1)),
    ]  # fmt: skip


def _gives_back(module: ModuleType, rates: tuple[Eq, Eq]) -> bool:
    """The paper's rotation and norm at the solved rates, for noise that knows the norm or not."""
    rotation = module._rotation() if module is adam_l2 else module.leading_rotation().rhs
    wanted = ((rotation**2, theta**2), (module.leading_norm().rhs ** 2, W))
    return all(
        vanishes(powsimp(simplify((found / target).subs(p, power).subs(solved, simultaneous=True)), force=True) - 1)
        for power in (0, -1)
        for solved in [{item.lhs: item.rhs.subs(p, power) for item in rates}]
        for found, target in wanted
    )
