"""Imbalanced rotation hurts: some neurons turning faster than the rest cost accuracy, at equal mean rotation.

Claim (Kosson et al. 2024, section 6 and the appendix on imbalanced rotation): balance between neurons is what
makes AdamW train well. If a tenth of the neurons turns ten times faster than the others, the result is worse,
whatever the overall speed.

Here every hidden neuron of a BN-MLP (digits under noise) turns by a set angle per step along AdamW's direction:
the fast ones f times as far as the slow ones, with the mean over neurons held. The mean is swept over a
factor of 16, by weight decay alone, and each arm is judged at its own best, chosen on the other seeds. So
neither a wrong learning rate nor the step of gains and biases is taken for imbalance.

What would refute it: a test loss with 10 % of the neurons 10 or 30 times faster, or half of them 10 times
faster, that is below that of balanced rotation, by a t-test paired over seeds with Holm's correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from experiments.claim import Check, Finding, main
from experiments.paired import Comparison, at_best, checks
from experiments.panels import loss_axis, seed_curve, setting_axis
from experiments.trials import ImageTask, Plain, Trial, run_trials
from rotsim.measure import Rotated, RotationalAdamW
from rotsim.plotting import style

LR = 0.016  # of the gains and biases, the same for all
ROTATIONS = (0.01, 0.02, 0.04, 0.08, 0.16)
BALANCED = (0.0, 1.0)
#: (fraction of fast neurons, how many times faster)
ARMS = (BALANCED, (0.1, 3.0), (0.1, 10.0), (0.1, 30.0), (0.5, 10.0))
CLAIMED = ((0.1, 10.0), (0.1, 30.0), (0.5, 10.0))


@dataclass(frozen=True)
class Imbalanced(Plain):
    """AdamW's directions; a `fraction` of each hidden layer's rows turns `times` as far as the rest."""

    fraction: float = 0.0
    times: float = 1.0

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        hidden = [p for name, p in model.named_parameters() if p.ndim >= 2 and not name.startswith("head")]
        factors = {p: row_factors(len(p), self.fraction, self.times) for p in hidden}
        return Rotated(super().build(model), RotationalAdamW.rotation, factors=factors)


def row_factors(rows: int, fraction: float, times: float) -> torch.Tensor:
    """Factors (rows,) with mean 1: the first rows `times` those of the others (neurons are exchangeable)."""
    factors = torch.ones(rows)
    factors[: round(fraction * rows)] = times
    return factors / factors.mean()


def examine(quick: bool) -> Finding:
    """Train every arm at every mean rotation."""
    task = ImageTask(shape=(32, 32) if quick else (64, 64, 64), noise=0.5)
    arms = (BALANCED, (0.5, 10.0)) if quick else ARMS
    rotations = (0.04, 0.08) if quick else ROTATIONS
    seeds, steps = (4, 100) if quick else (8, 400)
    trials = [
        Trial(task, Imbalanced("adamw", LR, _weight_decay(rotation), fraction, times), steps, seed)
        for fraction, times in arms
        for rotation in rotations
        for seed in range(seeds)
    ]
    outcomes = run_trials(trials, 1 if quick else 2)
    shape = (len(arms), len(rotations), seeds)
    loss = np.reshape([outcome.loss for outcome in outcomes], shape)
    accuracy = np.reshape([outcome.accuracy for outcome in outcomes], shape)
    numbers = {
        "arms": arms,
        "rotation": rotations,
        "loss[arm][rotation][seed]": loss.round(5).tolist(),
        "accuracy[arm][rotation][seed]": accuracy.round(5).tolist(),
        "loss_at_best": at_best(loss, loss).mean(axis=1).tolist(),
        "accuracy_at_best": at_best(loss, accuracy).mean(axis=1).tolist(),
    }
    found = judge(arms, loss)
    excess = [f"{c.value:+.1%} ± {c.standard_error:.1%} ({c.statement.split(':')[0]})" for c in found]
    result = f"test loss against balanced rotation: {', '.join(excess)}"
    return Finding(found, _figure(arms, rotations, loss), numbers, result)


def judge(arms: Sequence[tuple[float, float]], loss: np.ndarray) -> list[Check]:
    """One check for each arm that is claimed to hurt; `loss` is (arm, rotation, seed), balanced first."""
    best = at_best(loss, loss)
    return checks(
        [
            Comparison(f"{_label(arm)}: test loss / balanced - 1", values / best[0] - 1, 0.0)
            for arm, values in zip(arms, best, strict=True)
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


def _figure(arms: Sequence[tuple[float, float]], rotations: Sequence[float], loss: np.ndarray) -> Figure:
    best = at_best(loss, loss)
    with style():
        figure, (sweep, bars) = plt.subplots(1, 2, figsize=(12, 4.8), width_ratios=(1.3, 1), layout="constrained")
        for index, (arm, values) in enumerate(zip(arms, loss, strict=True)):
            seed_curve(sweep, rotations, values, color=f"C{index}", marker="os^Dv"[index], label=_label(arm))
        setting_axis(sweep, rotations, "mean rotation of all neurons, rad per step (peak)")
        loss_axis(sweep)
        sweep.set(ylabel="test loss, nats", title="BN-MLP, digits: the same directions, the same mean")
        sweep.legend(fontsize=10)
        excess = 100 * (best / best[0] - 1)[1:]
        for index, values in enumerate(excess):
            bars.barh(index, values.mean(), color=f"C{index + 1}", alpha=0.5)
            bars.plot(values, np.full(len(values), index), "o", color="k", markersize=4)
        bars.set_yticks(range(len(excess)), [_label(arm).replace(" of neurons ", "\n") for arm in arms[1:]])
        bars.axvline(0, color="k", linewidth=1)
        bars.grid(axis="y", visible=False)
        bars.set(xlabel="test loss above balanced, %", title="Each at its best mean (dots: seeds)")
        plt.close(figure)
    return figure


if __name__ == "__main__":
    main("imbalance", __doc__, examine)
