"""Adam+L2's directions with AdamW's rotation train like AdamW: what Adam+L2 lacks is balance.

Claim (Kosson et al. 2024, section 6, the special wrapper): AdamW does better than Adam+L2 because its rotation is
balanced between layers and neurons. Taking every direction from Adam+L2 but turning each neuron by AdamW's
equilibrium angle closes most of the gap in the result.

A residual network (digits under noise) and a weight-normalised GPT (bytes of source text), in which
gradient norms differ between layers. AdamW and Adam+L2 each over a grid of learning rate and decay; the rotated arm
takes AdamW's grid, with L2 decay 1e-3 in its directions. Each arm is judged at its best setting, chosen on the
other seeds.

What would refute it, by t-tests paired over seeds with Holm's correction within each network:

- a network's layers within a factor 3 of each other under Adam+L2, or more than 1.5 apart when rotated;
- a tuned Adam+L2 that is no worse than AdamW: then there is no gap to close;
- a rotated arm that closes less than half of the gap.

What to make of it: a rotated arm also skips the fast first steps of AdamW (`experiments.warmup`). In the GPT it ends up
ahead of AdamW itself. There, closing the gap does not show that balance alone was what lacked.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from experiments.harness.claim import Finding, main
from experiments.harness.paired import Comparison, at_best, checks
from experiments.harness.panels import finish, plain_ticks
from experiments.networks.gpt import GPTSize
from experiments.training.arms import Plain
from experiments.training.trials import ImageProblem, Problem, TextProblem, Trial, run_trials
from rotsim.checks import Check
from rotsim.measure import Rotated, RotationalAdamW
from rotsim.show.plotting import style
from rotsim.tasks import Ledger

Setting = tuple[float, float]


@dataclass(frozen=True)
class AdamL2Turned(Plain):
    """Adam+L2 with decay `l2` for the directions; the angle is AdamW's at (lr, weight_decay)."""

    l2: float = 0.0

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        inner = Plain("adam_l2", self.lr, self.l2).build(model, copies)
        return Rotated(inner, lambda group: RotationalAdamW.rotation({**group, "weight_decay": self.weight_decay}))


@dataclass(frozen=True)
class Case:
    """One network with the settings (lr, weight decay) of each arm."""

    name: str
    task: Problem
    adamw: tuple[Setting, ...]
    adam_l2: tuple[Setting, ...]
    l2: float
    steps: int
    seeds: int

    def arms(self) -> dict[str, list[Plain]]:
        """AdamW, Adam+L2 and the rotated arm, setting by setting."""
        return {
            "AdamW": [Plain("adamw", *setting) for setting in self.adamw],
            "Adam+L2": [Plain("adam_l2", *setting) for setting in self.adam_l2],
            "Adam+L2, turned as AdamW": [AdamL2Turned("adamw", *setting, self.l2) for setting in self.adamw],
        }


def _grid(rates: tuple[float, ...], decays: tuple[float, ...]) -> tuple[Setting, ...]:
    return tuple((lr, decay) for lr in rates for decay in decays)


CASES = [
    Case(
        "ResNet, digits", ImageProblem(network="resnet", shape=(8, 2, 1), noise=0.5),
        _grid((0.016, 0.064, 0.256), (0.05, 0.5)), _grid((0.004, 0.016, 0.064), (1e-4, 1e-3, 1e-2)), 1e-3, 300, 5,
    ),
    Case(
        "WN-GPT, text", TextProblem(batch=16),
        _grid((0.004, 0.016), (0.5,)), _grid((0.004, 0.016), (1e-4, 1e-3)), 1e-3, 700, 3,
    ),
]  # fmt: skip
QUICK = [
    Case(
        "WN-GPT, text", TextProblem(GPTSize(1, 16, 2, 16)),
        _grid((0.03,), (0.5,)), _grid((0.03,), (1e-3,)), 1e-3, 40, 3,
    ),
]  # fmt: skip


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Train and record every arm of every case."""
    found: list[Check] = []
    numbers: dict[str, Any] = {}
    for case in QUICK if quick else CASES:
        arms = case.arms()
        results = {}
        for name, settings in arms.items():
            trials = [
                Trial(case.task, arm, case.steps, seed, record=True) for arm in settings for seed in range(case.seeds)
            ]
            results[name] = run_trials(trials, 1 if quick else 2, store)
        arrays = {
            what: [
                np.reshape([getattr(outcome, what) for outcome in outcomes], (-1, case.seeds))
                for outcomes in results.values()
            ]
            for what in ("loss", "accuracy", "across_layers", "within_layers")
        }
        best = {what: at_best(arrays["loss"], values) for what, values in arrays.items()}
        found += judge(case.name, best["loss"], best["across_layers"])
        numbers[case.name] = {
            "arms": list(arms),
            "settings": {"AdamW": case.adamw, "Adam+L2": case.adam_l2, "l2 of the directions": case.l2},
            "loss[arm][setting][seed]": [x.round(5).tolist() for x in arrays["loss"]],
            "at_best[arm][seed]": {what: x.round(5).tolist() for what, x in best.items()},
        }
    result = "; ".join(
        f"{name}: layers apart by {', '.join(f'{np.mean(x):.1f}' for x in of['at_best[arm][seed]']['across_layers'])}, "
        f"loss {', '.join(f'{np.mean(x):.3f}' for x in of['at_best[arm][seed]']['loss'])} (AdamW, Adam+L2, turned)"
        for name, of in numbers.items()
    )
    return Finding(found, _figure(numbers), numbers, result)


def judge(name: str, loss: np.ndarray, across: np.ndarray) -> list[Check]:
    """The checks of one network; `loss` and `across` (largest over smallest layer) are (arm, seed)."""
    adamw, adam_l2, turned = loss
    return checks(
        [
            Comparison(f"{name}: layers' rotation, max/min, Adam+L2", across[1], 3.0, inf),
            Comparison(f"{name}: the same, turned as AdamW", across[2], 1.0, 1.5),
            Comparison(f"{name}: test loss, Adam+L2 / AdamW - 1", adam_l2 / adamw - 1, 0.0, inf),
            # at least half closed: turned <= (AdamW + Adam+L2) / 2
            Comparison(f"{name}: test loss, turned / halfway - 1", turned / ((adamw + adam_l2) / 2) - 1, -inf, 0.0),
        ]
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    with style():
        figure, axes = plt.subplots(
            len(numbers), 2, figsize=(12, 3.4 * len(numbers) + 0.8), squeeze=False, layout="constrained"
        )
        for (left, right), (name, found) in zip(axes, numbers.items(), strict=True):
            best = found["at_best[arm][seed]"]
            for ax, what, label in ((left, "across_layers", "rotation of layers, fastest / slowest"),
                                    (right, "loss", "test loss, nats")):  # fmt: skip
                for index, values in enumerate(best[what]):
                    seeds = np.array(values)
                    ax.plot(seeds, np.full(len(seeds), index), "o", color=f"C{index}", alpha=0.5)
                    ax.errorbar(
                        seeds.mean(), index, xerr=seeds.std(ddof=1) / np.sqrt(len(seeds)), color="k", marker="D",
                        capsize=5,
                    )  # fmt: skip
                ax.set(xlabel=label, ylim=(2.5, -0.5), title=name)
                ax.set_yticks(range(3), [arm.replace(", ", ",\n") for arm in found["arms"]])
                ax.grid(axis="y", visible=False)
            left.set_xscale("log")
            plain_ticks(left.xaxis, [1, 2, 3, 5, 10, 20, 30])
            left.axvline(1, color="0.7", lw=1)
    message = (
        "Adam+L2's directions, turned by AdamW's angle: balance, and what it does to the loss\n"
        "(dots: seeds, each arm at its best setting; diamonds: mean ± SE)"
    )
    return finish(figure, message)


if __name__ == "__main__":
    main("special", __doc__, examine)
