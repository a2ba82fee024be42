"""The paper's own settings: where each run settles, how fast, and what share of it is on the way.

Claim (ours, on sections 5 and 6 and the appendices of the paper): the equilibria of the settings that the authors'
scripts have explain which runs settle. All runs but one last at least two relaxations. IWSLT under the standard weight
decay does not: its run is a five hundredth of a relaxation. Its rotation is then set by lr and the norm of its weights,
not by the decay. A rotational variant at the same rates turns far less.

What would refute it:

- rotations and relaxations that differ from those below, which were computed apart from this script;
- a run of IWSLT that lasts a tenth of its relaxation, or another one that lasts less than two;
- a rotational variant on IWSLT that turns half as far in the whole run as AdamW does;
- a formula of the paper for Lion at batch 2048 that is within 20 % of the exact rotation.

Learning rates and decays are those of the authors' scripts, as are steps and schedules. `dim` is a typical fan-in of
the network. The initial norm is that of PyTorch's Linear and Conv2d, 1/√3 for every fan-in, or 0.02·√dim for GPTs and
DeiT.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness import markdown
from experiments.harness.claim import Finding, claimed, main
from rotsim.checks import Check
from rotsim.optimizers.base import Optimizer
from rotsim.schedules import named
from rotsim.show.plotting import style

SHOWS = 0.05  # of norm or rotation, by which the norm at the start moves them
DEFAULT_NORM = 1 / sqrt(3)  # of a row of PyTorch's Linear and Conv2d, uniform up to 1/√fan-in
WINDOWS = 400
QUICK_STEPS = 50_000
IWSLT, LARGE_LION = "IWSLT transformer, AdamW", "ResNet-20, Lion, batch 2048"


@dataclass(frozen=True)
class Setting:
    """One run of the paper.

    Attributes
    ----------
    name : str
    optimizer : Optimizer
    dim : int
        A typical fan-in.
    steps : int
    schedule : str
    theta : float
        Its rotation by the paper's formula, 1e-3 rad, as computed apart from this script.
    relaxation : float
        Steps, likewise.
    warmup : int
        Steps.
    initial_norm : float
    """

    name: str
    optimizer: Optimizer
    dim: int
    steps: int
    schedule: str
    theta: float
    relaxation: float
    warmup: int = 0
    initial_norm: float = DEFAULT_NORM


def _adamw(lr: float, weight_decay: float, beta2: float = 0.999) -> rotsim.AdamW:
    return rotsim.AdamW(lr, weight_decay, betas=(0.9, beta2))


def _gpt(dim: int) -> float:
    return 0.02 * sqrt(dim)


SETTINGS = (
    Setting("ResNet-50, SGDM", rotsim.SGDM(0.1, 1e-4, momentum=0.9), 1152, 250_000, "constant", 3.2444, 2500),
    Setting(
        "GPT2-124M, AdamW", _adamw(6e-4, 0.1, 0.95), 768, 100_000, "constant", 2.5131, 8353, initial_norm=_gpt(768)
    ),
    Setting("ResNet-20, AdamW, batch 128", _adamw(0.05, 0.01), 288, 78_000, "cosine", 7.255, 2618, 1950),
    Setting("ResNet-20, AdamW, batch 2048", _adamw(0.16, 0.01), 288, 4_880, "cosine", 12.98, 2168, 122),
    Setting("ResNet-20, few-shot values, batch 2048", _adamw(0.16, 0.08), 288, 4_880, "cosine", 36.71, 2020, 122),
    Setting(
        "ResNet-20, SGDM, batch 128", rotsim.SGDM(0.5, 1e-4, momentum=0.9), 288, 78_000, "cosine", 7.255, 500, 1950
    ),
    Setting("ResNet-20, SGDM, batch 2048", rotsim.SGDM(4.8, 1e-4, momentum=0.9), 288, 4_880, "cosine", 22.48, 52, 122),
    Setting("ResNet-20, Lion, batch 128", rotsim.Lion(5e-4, 1.0), 288, 78_000, "cosine", 4.701, 1000, 1950),
    Setting(LARGE_LION, rotsim.Lion(0.016, 1.0), 288, 4_880, "cosine", 26.59, 31, 122),
    Setting(IWSLT, _adamw(5e-4, 1e-4, 0.98), 512, 22_021, "cosine", 0.0726, 1.0e7, 4000),
    Setting("IWSLT, few-shot values", _adamw(5e-4, 0.4, 0.98), 512, 22_021, "cosine", 4.588, 2551, 4000),
    Setting("DeiT-Ti, AdamW", _adamw(5e-4, 0.05), 192, 375_300, "cosine", 1.622, 21_050, 6255, _gpt(192)),
    Setting("DeiT-Ti, few-shot values", _adamw(5e-4, 0.2), 192, 375_300, "cosine", 3.244, 6193, 6255, _gpt(192)),
    Setting("GPT, WikiText, AdamW", _adamw(5e-3, 0.5, 0.95), 768, 15_000, "cosine", 16.22, 222, 300, _gpt(768)),
    Setting(
        "GPT, WikiText, lr of one figure", _adamw(5e-4, 0.5, 0.95), 768, 15_000, "cosine", 5.130, 2020, 300, _gpt(768)
    ),
    Setting("ResNet-18, directions of Adam+L2", _adamw(1.25e-2, 0.08), 2304, 39_000, "cosine", 10.26, 2281, 975),
)


@dataclass(frozen=True)
class Row:
    """What theory says of one setting.

    Attributes
    ----------
    setting : Setting
    rotation, paper_rotation : float
        At the largest rates, rad per step; exact, and by the paper's formula.
    norm, paper_norm : float
        For gradients of size 1, which matters under SGDM alone.
    relaxation : float
        Of ‖w‖², steps.
    transient : float
        Share of the run in which the norm at the start still moves norm or rotation by more than `SHOWS`.
    turned, variant_turned : float
        Angles of all steps, summed in square, rad: of the optimizer from its start, and of its rotational variant.
    """

    setting: Setting
    rotation: float
    paper_rotation: float
    norm: float
    paper_norm: float
    relaxation: float
    transient: float
    turned: float
    variant_turned: float

    @property
    def relaxations(self) -> float:
        """Length of the run in relaxations."""
        return self.setting.steps / self.relaxation


def row(setting: Setting) -> Row:
    """Equilibrium at the largest rates, and two courses under the schedule: from the start, and from equilibrium."""
    optimizer, dim, steps = setting.optimizer, setting.dim, setting.steps
    exact, paper = (rotsim.equilibrium(optimizer, dim, method=method) for method in ("exact", "leading"))
    factors = named(setting.schedule, steps, setting.warmup)
    start = exact.norm / 2 if isinstance(optimizer, rotsim.SGDM) else setting.initial_norm
    own, settled = (
        rotsim.predict(optimizer, dim, None, steps, norm, factors, record_every=max(1, steps // WINDOWS))
        for norm in (start, exact.norm)
    )
    apart = [np.abs(own[name].values[0] / settled[name].values[0] - 1) for name in ("norm", "rotation")]
    moving = own["rotation"].values[0] > 0  # nothing is left of the rate at the end of a cosine
    length = np.diff(own["step"].values, prepend=0)
    rates = optimizer.lr * factors(np.arange(1, steps + 1))
    return Row(
        setting,
        exact.rotation,
        paper.rotation,
        exact.norm,
        paper.norm,
        exact.relaxation_steps,
        float(((np.maximum(*apart) > SHOWS) & moving) @ length / steps),
        float(np.sqrt(own["rotation"].values[0] ** 2 @ length)),
        float(np.sqrt((optimizer.leading_rotation(rates, optimizer.weight_decay) ** 2).sum())),
    )


def claims(rows: list[Row]) -> Iterator[Check]:
    """What the table has to show."""
    for found in rows:
        ratio = 1e3 * found.paper_rotation / found.setting.theta
        yield claimed(
            f"{found.setting.name}: rotation by the paper's formula over that computed apart", ratio, nan, 0.999, 1.001
        )
        ratio = found.relaxation / found.setting.relaxation
        yield claimed(f"{found.setting.name}: relaxation over that computed apart", ratio, nan, 0.98, 1.02)
        if found.setting.name != IWSLT:
            yield claimed(f"{found.setting.name}: length of the run in relaxations", found.relaxations, nan, 2.0)
    lion = next(found for found in rows if found.setting.name == LARGE_LION)
    yield claimed(
        f"{LARGE_LION}: the paper's rotation over the exact one", lion.paper_rotation / lion.rotation, nan, high=0.8
    )
    iwslt = next(found for found in rows if found.setting.name == IWSLT)
    yield claimed(f"{IWSLT}: length of the run in relaxations", iwslt.relaxations, nan, high=0.1)
    turned = iwslt.variant_turned / iwslt.turned
    yield claimed(f"{IWSLT}: the rotational variant turns over what AdamW turns", turned, nan, high=0.5)


def examine(quick: bool) -> Finding:
    """All settings; the quick version leaves out courses of more than 50 000 steps."""
    rows = [row(setting) for setting in SETTINGS if not quick or setting.steps <= QUICK_STEPS]
    iwslt = next(found for found in rows if found.setting.name == IWSLT)
    others = [found for found in rows if found is not iwslt]
    result = (
        f"{len(others)} of {len(rows)} runs last {min(f.relaxations for f in others):.2g} to "
        f"{max(f.relaxations for f in others):.0f} relaxations; IWSLT's lasts {iwslt.relaxations:.2g}: AdamW turns "
        f"{iwslt.turned:.2g} rad there on its small initial norm, its rotational variant {iwslt.variant_turned:.2g}"
    )
    return Finding(
        list(claims(rows)), _figure(rows), {"rows": [_numbers(found) for found in rows]}, result, document(rows)
    )


def _numbers(found: Row) -> dict[str, Any]:
    values = {key: value for key, value in vars(found).items() if key != "setting"}
    setting = {"name": found.setting.name, "optimizer": found.setting.optimizer.to_dict(), "steps": found.setting.steps}
    return {**setting, "dim": found.setting.dim, **values, "relaxations": found.relaxations}


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def document(rows: list[Row]) -> str:
    """The table, as Markdown."""
    head = [
        "run", "lr / weight decay", "rotation, 1e-3 rad", "paper's", "norm, paper / exact", "relaxation, steps",
        "run / relaxation", "in transient", "turned, rad", "variant",
    ]  # fmt: skip
    lines = [
        [
            found.setting.name, f"{found.setting.optimizer.lr:g} / {found.setting.optimizer.weight_decay:g}",
            f"{1e3 * found.rotation:.4g}", f"{found.paper_rotation / found.rotation - 1:+.1%}",
            f"{found.paper_norm / found.norm - 1:+.1%}", f"{found.relaxation:.0f}", _short(found.relaxations),
            f"{found.transient:.0%}", f"{found.turned:.2g}", f"{found.variant_turned:.2g}",
        ]
        for found in rows
    ]  # fmt: skip
    text = [
        "# The paper's own settings",
        "",
        "Rotation and norm in equilibrium at the largest learning rate, and the course under the run's schedule. In "
        f"transient: share of the run in which the norm at the start moves norm or rotation by more than {SHOWS:.0%}. "
        "The start is that of PyTorch's layers, or 0.02 a weight. Under SGDM, whose norm depends on the gradient's "
        "size, it is half the norm of equilibrium. Turned: the angles of all steps, summed in square. Variant: that of "
        "the rotational one, which turns by the angle of equilibrium from the first step on.",
        "",
        markdown.table(head, lines),
        "",
        "IWSLT under AdamW is over before its decay acts. Its norm is set by its start and by lr, and so is its pace. "
        "The rotational variant turns by what the decay would give in equilibrium, which is far less: without new "
        "hyperparameters it hardly learns. With the few-shot decay it turns as far as AdamW does with its own.",
        "",
        "Lion at batch 2048 has lr·weight_decay of 0.016. The paper's formula, and so the rotational variant, is a "
        "third too slow there.",
    ]
    return "\n".join(text) + "\n"


def _figure(rows: list[Row]) -> Figure:
    """Length of each run in relaxations, and the share of it in transient."""
    names = [found.setting.name for found in rows][::-1]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.5), sharey=True)
        left.barh(names, [found.relaxations for found in rows][::-1], color="C0")
        left.axvline(1, color="k", lw=0.8)
        left.set(xscale="log", xlabel="length of the run, in relaxations of ‖w‖²")
        right.barh(names, [100 * found.transient for found in rows][::-1], color="C1")
        right.set(xlabel="share of the run in which its start shows (%)", xlim=(0, 100))
        figure.suptitle("Most of the paper's runs forget their initial norm; ResNet-20 at batch 2048 and IWSLT do not")
        plt.close(figure)
    return figure


if __name__ == "__main__":
    main("settings", __doc__, examine)
