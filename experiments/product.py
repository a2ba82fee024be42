"""Equal products of learning rate and weight decay give equal rotation; what differs is the step of gains and biases.

Claim (Kosson et al. 2024, section 5 and appendix on constant ηλ): rotation depends on lr·wd alone under AdamW, SGDM
and Lion. Moving along a line of equal products changes the weights' norm, which a scale-invariant layer does
not feel, and the step of parameters without decay, which is proportional to lr: two learning rates in one.

What would refute it: a rotation that drifts along the line by more than its error plus 1/dim, or an undecayed
parameter whose step is not proportional to lr.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.claim import Check, Finding, main
from rotsim.optimizers.base import Optimizer
from rotsim.plotting import style
from rotsim.statistics import Estimate, root_mean_square

PRODUCT = 2e-3
DIM = 256
NAMES = ("adamw", "sgdm", "lion")


def examine(quick: bool) -> Finding:
    """Walks along a line of equal products, and of an undecayed parameter beside them."""
    rates = np.geomspace(1e-3, 1e-1, 3 if quick else 7)
    checks = []
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
        checks.append(
            Check(f"{spec.label}: max/min of rotation over two decades of lr, minus 1", apart,
                  float((error / rotation).max()), -allowed, allowed)
        )  # fmt: skip
        slope = float(np.polyfit(np.log(rates), np.log(gain), 1)[0])
        checks.append(Check(f"{spec.label}: d log (undecayed step) / d log lr", slope, float("nan"), 0.99, 1.01))
        numbers[name] = {
            "rotation": rotation.tolist(),
            "standard_error": error.tolist(),
            "norm": [estimate["norm"].value for estimate in decayed],
            "undecayed_step": gain,
            "predicted_rotation": rotsim.equilibrium(spec(lr=0.01, weight_decay=PRODUCT / 0.01), DIM).rotation,
        }
    spread = [f"{check.value:.2%} ({check.statement.split(':')[0]})" for check in checks[::2]]
    result = f"rotation equal to {', '.join(spread)} over two decades of lr; the undecayed step follows lr"
    return Finding(checks, _figure(numbers), numbers, result)


def _decayed(optimizer: Optimizer, quick: bool, seed: int) -> dict[str, Estimate]:
    eq = rotsim.equilibrium(optimizer, DIM)
    steps = int(np.clip(4 * eq.relaxation_steps, 4000, 12_000 if quick else 40_000))
    data = rotsim.simulate(
        optimizer, dim=DIM, neurons=32, steps=steps, initial_norm=eq.norm, record_every=50, seed=seed
    )
    half = data.sizes["step"] // 2
    return {name: root_mean_square(data[name].values[:, half:], independent=True) for name in ("rotation", "norm")}


def _undecayed(optimizer: Optimizer) -> float:
    """RMS step per coordinate of a parameter without decay, under the same noise at every lr."""
    data = rotsim.simulate(
        optimizer, dim=16, neurons=32, steps=2000, gradient=rotsim.Isotropic(), initial_norm=1.0, dtype="float64"
    )
    return float(np.sqrt((data["update_rms"].values[:, 10:] ** 2).mean() / 16))


def _figure(numbers: dict[str, Any]) -> Figure:
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
        titles = (
            "rotation: the same (dashed: predicted)",
            "norm: changes, but is not felt",
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
        axes[0].set_yticks([0.01, 0.02, 0.05], ["0.01", "0.02", "0.05"])
        axes[0].tick_params(axis="y", which="minor", labelleft=False)
        axes[1].legend()
        plt.close(figure)
    return figure


if __name__ == "__main__":
    main("product", __doc__, examine)
