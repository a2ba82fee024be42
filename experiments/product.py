"""Equal products of learning rate and weight decay give equal rotation; what differs is the step of gains and biases.

Claim (Kosson et al. 2024, section 5 and appendix on constant ηλ): rotation depends on lr·wd alone under AdamW, SGDM and
Lion. A line of equal products changes the weights' norm, which a scale-invariant layer does not feel. It also changes
the step of parameters without decay, which is proportional to lr: two learning rates in one.

In random walks, and in a BN-MLP (digits under noise, AdamW) whose weights start at each setting's equilibrium norm.

What would refute it:

- a rotation that drifts along the line by more than its error plus 1/dim;
- in the network, whose gradients change with its gains, a rotation that drifts by more than 5 %;
- an undecayed parameter whose step is not proportional to lr, by more than 10 % of the slope in the network;
- a network whose loss is the same at both ends of the line, within 2 %, so that the gains' step would not matter.

Adam's step is lr·m/√v. It is proportional to lr where noise dominates, but a gain that is still on its way takes up to
1/0.23 times more. So the slope in the network comes out just below 1/1.1.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import rotsim
from experiments.harness.answers import Outcomes, Question, ratio
from experiments.harness.claim import Finding, claimed, main
from experiments.harness.panels import finish, loss_axis, plain_ticks, seed_curve, setting_axis
from experiments.training.arms import Plain
from experiments.training.blocks import Trial
from experiments.training.contest import Contest
from experiments.training.problems import ImageProblem
from rotsim.optimizers.base import Optimizer
from rotsim.show.plotting import style
from rotsim.statistics import Estimate, root_mean_square
from rotsim.tasks import Ledger

PRODUCT = 2e-3
DIM = 256
WIDTHS = (64, 64, 64)  # of the network
NAMES = ("adamw", "sgdm", "lion")


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Walks along a line of equal products, and of an undecayed parameter beside them."""
    rates = np.geomspace(1e-3, 1e-1, 3 if quick else 7)
    found = []
    numbers: dict[str, Any] = {"lr": rates.tolist(), "product": PRODUCT}
    for name in NAMES:
        spec = rotsim.OPTIMIZERS[name]
        # a seed for each: with common noise the walks would agree path by path, up to rounding
        line = [spec(lr=float(lr), weight_decay=PRODUCT / float(lr)) for lr in rates]
        decayed = [_decayed(optimizer, quick, seed) for seed, optimizer in enumerate(line)]
        gain = [_undecayed(spec(lr=float(lr), weight_decay=0.0)) for lr in rates]
        rotation = np.array([estimate["rotation"].value for estimate in decayed])
        error = np.array([estimate["rotation"].standard_error for estimate in decayed])
        apart = float(rotation.max() / rotation.min() - 1)
        allowed = float(6 * (error / rotation).max() + 1 / DIM)
        found.append(
            claimed(f"{spec.label}: max/min of rotation over two decades of lr, minus 1", apart,
                  float((error / rotation).max()), -allowed, allowed)
        )  # fmt: skip
        slope = float(np.polyfit(np.log(rates), np.log(gain), 1)[0])
        found.append(claimed(f"{spec.label}: d log (undecayed step) / d log lr", slope, float("nan"), 0.99, 1.01))
        numbers[name] = {
            "rotation": rotation.tolist(),
            "standard_error": error.tolist(),
            "norm": [estimate["norm"].value for estimate in decayed],
            "undecayed_step": gain,
            "predicted_rotation": rotsim.equilibrium(spec(lr=0.01, weight_decay=PRODUCT / 0.01), DIM).rotation,
        }
    network = contest(quick)
    answers, numbers["network"] = network.settle(1 if quick else 2, store)
    found += [answer.check() for answer in answers]
    equal, steeper, differs = answers
    spread = [f"{check.measured:.2%} ({check.statement.split(':')[0]})" for check in found[:-3:2]]
    result = (
        f"rotation equal to {', '.join(spread)} over two decades of lr; the undecayed step follows lr; in a network "
        f"rotation equal to {equal.effect:.1%}, step of gains ∝ lr^{1 + steeper.effect:.2f}, "
        f"loss {differs.effect:.0%} apart"
    )
    figure = _figure(numbers, network)
    return Finding(found, figure, numbers, result, answers=[answer.to_dict() for answer in answers])


class AtEquilibrium(Plain):
    """An optimizer that starts hidden rows at their equilibrium norm, which batch normalisation does not feel."""

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("hidden"):
                    norm = rotsim.equilibrium(self.spec, parameter.shape[1], method="leading").norm
                    parameter.mul_(norm / parameter.norm(dim=1, keepdim=True))
        return super().build(model, copies)


def contest(quick: bool) -> Contest:
    """Networks along the line: every arm is one learning rate."""
    rates = np.geomspace(1e-3, 1e-1, 3 if quick else 5)
    most, pilot, steps = (8, 4, 200) if quick else (64, 16, 800)
    problem = ImageProblem(shape=(32, 32) if quick else WIDTHS)
    arms = {
        f"{lr:.2g}": [
            Trial(problem, AtEquilibrium("adamw", float(lr), PRODUCT / float(lr)), steps, constant=True, record=True)
        ]
        for lr in rates
    }
    names, ends = tuple(arms), (f"{rates[-1]:.2g}", f"{rates[0]:.2g}")

    def apart(found: Outcomes) -> np.ndarray:
        rotation = np.log([found[name]["rotation"] for name in names])
        return rotation.max(axis=0) - rotation.min(axis=0)

    def slope(found: Outcomes) -> np.ndarray:
        return np.log(np.polyfit(np.log(rates), np.log([found[name]["undecayed_step"] for name in names]), 1)[0])

    questions = [
        Question("network: rotation, largest over smallest along the line", names, apart, 0.05, "equal"),
        Question("network: d log (undecayed step) / d log lr, over 1", names, slope, 0.1, "equal"),
        Question("network: test loss, largest lr over smallest", ends, ratio(*ends), 0.02, "more"),
    ]
    return Contest("network", arms, questions, most, pilot)


def _decayed(optimizer: Optimizer, quick: bool, seed: int) -> dict[str, Estimate]:
    eq = rotsim.equilibrium(optimizer, DIM)
    steps = int(np.clip(4 * eq.relaxation_steps, 4000, 6_000 if quick else 40_000))
    data = rotsim.simulate(
        optimizer, dim=DIM, neurons=32, steps=steps, initial_norm=eq.norm, record_every=50, seed=seed, engine="numba"
    )
    half = data.sizes["step"] // 2
    return {name: root_mean_square(data[name].values[:, half:], independent=True) for name in ("rotation", "norm")}


def _undecayed(optimizer: Optimizer) -> float:
    """RMS step per coordinate of a parameter without decay, under the same noise at every lr."""
    data = rotsim.simulate(
        optimizer,
        dim=16,
        neurons=32,
        steps=2000,
        gradient=rotsim.Isotropic(),
        initial_norm=1.0,
        dtype="float64",
        engine="numba",
    )
    return float(np.sqrt((data["update_rms"].values[:, 10:] ** 2).mean() / 16))


def _figure(numbers: dict[str, Any], network: Contest) -> Figure:
    with style():
        figure, (axes, lower) = plt.subplots(2, 3, figsize=(13, 8.6), layout="constrained")
        titles = (
            "Walk: rotation is the same",
            "norm changes, but is not felt",
            "undecayed step: proportional to lr",
        )
        for ax, quantity, title in zip(axes, ("rotation", "norm", "undecayed_step"), titles, strict=True):
            for index, name in enumerate(NAMES):
                found, label = numbers[name], rotsim.OPTIMIZERS[name].label
                ax.plot(numbers["lr"], found[quantity], "os^"[index], color=f"C{index}", label=label)
                if quantity == "rotation":
                    ax.axhline(found["predicted_rotation"], color=f"C{index}", linestyle="--")
            ax.set(xscale="log", yscale="log", xlabel=f"lr, at lr·wd = {PRODUCT:g}", title=title)
        axes[0].set(ylabel="rotation, rad per step", ylim=(7e-3, 7e-2))
        axes[1].set(ylabel="‖w‖")
        axes[2].set(ylabel="RMS step of one coordinate")
        plain_ticks(axes[0].yaxis, [0.01, 0.02, 0.05])
        axes[1].legend()
        _draw_network(lower, numbers["network"], network)
    message = (
        "Along a line of equal lr·wd rotation stays; only the step of what has no decay moves\n"
        "(top: random walks, errors below the symbols; bottom: a network, mean ± SE over seeds; dashed: predicted)"
    )
    return finish(figure, message)


def _draw_network(axes: Any, numbers: dict[str, Any], network: Contest) -> None:
    names = ("rotation", "undecayed_step", "loss")
    labels = ("rotation, rad per step", "RMS step of one gain or bias", "test loss, nats")
    rates = [float(name) for name in network.arms]
    for ax, name, label in zip(axes, names, labels, strict=True):
        seed_curve(ax, rates, np.array([numbers["at best[seed]"][arm][name] for arm in network.arms]), marker="o")
        setting_axis(ax, rates, f"lr, at lr·wd = {PRODUCT:g}")
        loss_axis(ax)
        ax.set(ylabel=label)
    predicted = rotsim.equilibrium(Plain("adamw", 0.01, PRODUCT / 0.01).spec, WIDTHS[0]).rotation
    axes[0].axhline(predicted, color="C0", linestyle="--")
    axes[0].set(ylim=(7e-3, 7e-2), title="AdamW, BN-MLP on digits: the same")
    axes[1].set_yscale("log")  # decades need no more ticks
    axes[1].set_title("step of gains and biases grows with lr")
    plain_ticks(axes[2].yaxis, [0.6, 0.65, 0.7, 0.75, 0.8])
    axes[2].set(title="so the result differs")


if __name__ == "__main__":
    main("product", __doc__, examine)
