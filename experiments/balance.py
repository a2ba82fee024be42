"""Rotation is the same for every neuron under AdamW, SGDM and Lion, whatever its gradient's scale; not under Adam+L2.

Claim (Kosson et al. 2024, sections 3.2 and 3.3): in equilibrium the rotation of scale-invariant weights does not depend
on the gradient's size under AdamW, SGDM and Lion, so that all neurons learn at one pace. Under Adam+L2
it falls as scale^(-1/3), so that neurons with large gradients are left behind.

What would refute it: a slope of log rotation against log scale that is not 0 (or not -1/3) within its
error, in random walks over four decades; recorded networks whose neurons spread as much under AdamW as
under Adam+L2.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.claim import Check, Finding, main
from rotsim.measure.shipped import load_shipped
from rotsim.optimizers.base import Optimizer
from rotsim.plotting import style
from rotsim.statistics import root_mean_square

SLOPES = {"adamw": 0.0, "adam_l2": -1 / 3, "sgdm": 0.0, "lion": 0.0}
DIM = 512


def examine(quick: bool) -> Finding:
    """Walks at gradient scales over four decades, and the spread over neurons of the shipped traces."""
    scales = np.geomspace(1e-2, 1e2, 3 if quick else 9)
    checks = []
    numbers: dict[str, Any] = {"scales": scales.tolist()}
    for name, slope in SLOPES.items():
        optimizer = rotsim.OPTIMIZERS[name].examples()[0]
        found = [_rotation(optimizer, scale, quick) for scale in scales]
        value, error = np.array([f[0] for f in found]), np.array([f[1] for f in found])
        fit, covariance = np.polyfit(np.log(scales), np.log(value), 1, w=value / error, cov="unscaled")
        # the exact law of Adam+L2 is not quite a power: allow a fiftieth of the contrast that is claimed
        statement = f"{optimizer.label}: d log rotation / d log scale"
        checks.append(
            Check(statement, float(fit[0]), float(np.sqrt(covariance[0, 0])), slope - 1 / 150, slope + 1 / 150)
        )
        predicted = [rotsim.equilibrium(optimizer, DIM, rotsim.ScaleInvariant(float(s))).rotation for s in scales]
        numbers[name] = {"rotation": value.tolist(), "standard_error": error.tolist(), "predicted": predicted}
    numbers["spread_over_neurons"] = spread = {name: _spread(f"fashion_{name}") for name in SLOPES}
    ratio = spread["adam_l2"] / spread["adamw"]
    checks.append(Check("network: spread over neurons, Adam+L2 against AdamW", ratio, float("nan"), 2.0))
    return Finding(checks, _figure(numbers), numbers)


def _figure(numbers: dict[str, Any]) -> Figure:
    scales = np.array(numbers["scales"])
    middle = len(scales) // 2
    with style():
        figure, (walks, networks) = plt.subplots(1, 2, figsize=(11, 4.6))
        for index, name in enumerate(SLOPES):
            found, label = numbers[name], rotsim.OPTIMIZERS[name].label
            unit = found["predicted"][middle]
            walks.plot(scales, np.array(found["predicted"]) / unit, "--", color=f"C{index}")
            # nested open symbols, so that three optimizers on one line can be told apart
            walks.plot(
                scales, np.array(found["rotation"]) / unit, "os^D"[index], color=f"C{index}", mfc="none",
                ms=14 - 3 * index, mew=1.6, label=label,
            )  # fmt: skip
        ticks = [0.2, 0.5, 1, 2, 5]
        walks.set(xscale="log", yscale="log", xlabel="gradient scale ‖g̃‖", ylabel="rotation / its value at scale 1")
        walks.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        walks.minorticks_off()
        walks.set(title="Random walk: symbols simulated, dashed predicted")
        walks.legend()
        spread = numbers["spread_over_neurons"]
        networks.bar(range(len(spread)), list(spread.values()), color=[f"C{i}" for i in range(len(spread))])
        networks.set_xticks(range(len(spread)), [rotsim.OPTIMIZERS[name].label for name in spread])
        networks.grid(axis="x", visible=False)
        networks.set(ylabel="std / mean of rotation over neurons", title="BN-MLP on Fashion-MNIST, hidden layers")
        plt.close(figure)
    return figure


def _rotation(optimizer: Optimizer, scale: float, quick: bool) -> tuple[float, float]:
    gradient = rotsim.ScaleInvariant(float(scale))
    eq = rotsim.equilibrium(optimizer, DIM, gradient)
    steps = int(np.clip(6 * eq.relaxation_steps, 2000, 8_000 if quick else 60_000))
    data = rotsim.simulate(
        optimizer, dim=DIM, neurons=16, steps=steps, gradient=gradient, initial_norm=eq.norm, record_every=50
    )
    kept = data["rotation"].values[:, data.sizes["step"] // 3 :]
    estimate = root_mean_square(kept, independent=True)
    return estimate.value, estimate.standard_error


def _spread(name: str) -> float:
    """Mean over hidden layers of the coefficient of variation of the neurons' RMS rotation, last half."""
    trace = load_shipped(name)
    half = trace.sizes["step"] // 2
    rms = np.sqrt((trace["rotation"].values[:, half:] ** 2).mean(axis=1))
    layers = [trace["layer"].values == f"hidden{i}.weight" for i in range(3)]
    return float(np.mean([rms[rows].std() / rms[rows].mean() for rows in layers]))


if __name__ == "__main__":
    main("balance", __doc__, examine)
