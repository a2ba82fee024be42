"""Imbalanced rotation hurts: some neurons turning faster than the rest cost accuracy, at equal mean rotation.

Claim (Kosson et al. 2024, section 6 and the appendix on imbalanced rotation): balance between neurons is what
makes AdamW train well. If a tenth of the neurons turns ten times faster than the others, the result is worse,
whatever the overall speed.

The networks are a BN-MLP (digits under noise) and a weight-normalised GPT (bytes of source text). Every neuron inside
turns by a set angle per step along AdamW's direction. The fast ones turn f times as far as the slow ones, with the mean
over neurons held. The mean is swept by weight decay alone, and each arm is judged at its own best, chosen
on the other seeds. So neither a wrong learning rate nor the step of gains and biases is taken for imbalance.

What would refute it: with 10 % of the neurons 10 or 30 times faster, or half of them 10 times, a test loss below that
of balanced rotation. T-tests are paired over seeds, with Holm's correction within each network. The GPT was added after
the MLP, where a tenth of the neurons proved not to matter: 64 neurons a layer are more than digits need, and the other
nine tenths can do the work. To tell so small an effect from none would take hundreds of seeds. The GPT had 3 seeds and
three means at first, the smallest of which was the best for every arm. A smaller mean and the seeds that its spread
asked for were added then.
"""

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from experiments.harness.claim import Finding, main
from experiments.harness.paired import Comparison, at_best, checks
from experiments.harness.panels import finish, loss_axis, seed_curve, setting_axis
from experiments.training.arms import Plain
from experiments.training.trials import ImageProblem, Problem, TextProblem, Trial, run_trials
from rotsim.checks import Check
from rotsim.measure import Rotated, RotationalAdamW
from rotsim.show.plotting import style
from rotsim.tasks import Ledger

LR = 0.016  # of the gains and biases, the same for all
BALANCED = (0.0, 1.0)
CLAIMED = ((0.1, 10.0), (0.1, 30.0), (0.5, 10.0))


@dataclass(frozen=True)
class Case:
    """One network; an arm is (fraction of fast neurons, how many times faster), the first one balanced."""

    name: str
    task: Problem
    arms: tuple[tuple[float, float], ...]
    rotations: tuple[float, ...]
    steps: int
    seeds: int


CASES = [
    Case(
        "BN-MLP, digits", ImageProblem(noise=0.5), (BALANCED, (0.1, 3.0), (0.1, 10.0), (0.1, 30.0), (0.5, 10.0)),
        (0.01, 0.02, 0.04, 0.08, 0.16), 400, 8,
    ),
    Case(
        "WN-GPT, text", TextProblem(batch=16), (BALANCED, (0.1, 10.0), (0.5, 10.0)),
        (0.005, 0.01, 0.02, 0.04), 400, 8,
    ),
]  # fmt: skip
QUICK = [Case("BN-MLP, digits", ImageProblem(shape=(32, 32), noise=0.5), (BALANCED, (0.5, 10.0)), (0.04, 0.08), 60, 4)]


@dataclass(frozen=True)
class Imbalanced(Plain):
    """AdamW's directions; a `fraction` of each inner layer's rows turns `times` as far as the rest."""

    fraction: float = 0.0
    times: float = 1.0

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        inner = [p for name, p in model.named_parameters() if p.ndim >= 2 and name.startswith(("hidden", "blocks"))]
        factors: dict[torch.Tensor, torch.Tensor] = {
            p: row_factors(len(p) // copies, self.fraction, self.times).repeat(copies) for p in inner
        }
        return Rotated(super().build(model, copies), RotationalAdamW.rotation, factors=factors)


def row_factors(rows: int, fraction: float, times: float) -> torch.Tensor:
    """Factors (rows,) with mean 1: the first rows `times` those of the others (neurons are exchangeable)."""
    factors = torch.ones(rows)
    factors[: round(fraction * rows)] = times
    return factors / factors.mean()


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Train every arm of every case at every mean rotation."""
    cases = QUICK if quick else CASES
    found: list[Check] = []
    numbers: dict[str, Any] = {}
    for case in cases:
        outcomes = run_trials(
            [
                Trial(case.task, Imbalanced("adamw", LR, _weight_decay(rotation), *arm), case.steps, seed)
                for arm in case.arms
                for rotation in case.rotations
                for seed in range(case.seeds)
            ],
            1 if quick else 2,
            store,
        )
        shape = (len(case.arms), len(case.rotations), case.seeds)
        loss = np.reshape([outcome.loss for outcome in outcomes], shape)
        accuracy = np.reshape([outcome.accuracy for outcome in outcomes], shape)
        found += judge(case, loss)
        numbers[case.name] = {
            "arms": case.arms,
            "rotation": case.rotations,
            "loss[arm][rotation][seed]": loss.round(5).tolist(),
            "accuracy[arm][rotation][seed]": accuracy.round(5).tolist(),
            "loss_at_best": at_best(loss, loss).mean(axis=1).tolist(),
            "accuracy_at_best": at_best(loss, accuracy).mean(axis=1).tolist(),
        }
    excess = [f"{c.measured:+.1%} ± {c.standard_error:.1%} ({c.statement.rpartition(':')[0]})" for c in found]
    result = f"test loss against balanced rotation: {', '.join(excess)}"
    return Finding(found, _figure(cases, numbers), numbers, result)


def judge(case: Case, loss: np.ndarray) -> list[Check]:
    """One check for each arm that is claimed to hurt; `loss` is (arm, rotation, seed)."""
    best = at_best(loss, loss)
    return checks(
        [
            Comparison(f"{case.name}, {_label(arm)}: test loss / balanced - 1", values / best[0] - 1, 0.0)
            for arm, values in zip(case.arms, best, strict=True)
            if arm in CLAIMED
        ]
    )


def _weight_decay(rotation: float) -> float:
    """The decay that gives AdamW this leading-order rotation at `LR`."""
    at_one = RotationalAdamW.rotation({"lr": LR, "weight_decay": 1.0, "betas": (0.9, 0.999)})
    return (rotation / at_one) ** 2


def _label(arm: tuple[float, float]) -> str:
    fraction, times = arm
    return f"{fraction:.0%} of neurons {times:g} times faster" if fraction else "balanced"


def _figure(cases: list[Case], numbers: dict[str, Any]) -> Figure:
    looks = {arm: {"color": f"C{i}", "marker": "os^Dv"[i]} for i, arm in enumerate(CASES[0].arms)}
    with style():
        figure, axes = plt.subplots(
            len(cases),
            2,
            figsize=(13, 4.6 * len(cases) + 0.6),
            width_ratios=(1.3, 1),
            squeeze=False,
            layout="constrained",
        )
        for (sweep, bars), case in zip(axes, cases, strict=True):
            loss = np.array(numbers[case.name]["loss[arm][rotation][seed]"])
            best = at_best(loss, loss)
            for arm, values in zip(case.arms, loss, strict=True):
                seed_curve(sweep, case.rotations, values, label=_label(arm), **looks[arm])
            setting_axis(sweep, case.rotations, "mean rotation of all neurons, rad per step (peak)")
            loss_axis(sweep)
            sweep.set(ylabel="test loss, nats", title=f"{case.name}: the same directions, the same mean")
            sweep.legend(fontsize=11)
            for index, arm in enumerate(case.arms[1:], start=1):
                excess = 100 * (best[index] / best[0] - 1)
                bars.barh(index, excess.mean(), color=looks[arm]["color"], alpha=0.5)
                bars.plot(excess, np.full(case.seeds, index), "o", color="k", markersize=4)
            bars.set_yticks(range(1, len(best)), [_label(arm).replace(" of neurons ", ",\n") for arm in case.arms[1:]])
            bars.axvline(0, color="k", linewidth=1)
            bars.grid(axis="y", visible=False)
            bars.set(xlabel="test loss above balanced, %", title="Each at its best mean (dots: seeds)")
    message = (
        "A part of the neurons turns faster than the rest, at equal mean rotation\n"
        "(left: mean ± SE over seeds; right: the loss that this costs, above zero: it hurts)"
    )
    return finish(figure, message)


if __name__ == "__main__":
    main("imbalance", __doc__, examine)
