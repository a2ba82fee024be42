"""Rotation is the same for every neuron under AdamW, SGDM and Lion, whatever its gradient's scale; not under Adam+L2.

Claim (Kosson et al. 2024, sections 3.2 and 3.3): under AdamW, SGDM and Lion the equilibrium rotation of scale-invariant
weights does not depend on the gradient's size. All neurons learn at one pace. Under Adam+L2
it falls as scale^(-1/3), so that neurons with large gradients are left behind.

What would refute it:

- a slope of log rotation against log scale, over four decades, that is not 0 (or not -1/3) within its error;
- recorded networks that are not at least twice as uneven under Adam+L2 as under AdamW.

The slope is that of random walks, and of the paper's simple system, f(X) = γ_out N(W(γ_in X)), whose gains differ
between neurons and between inputs. The networks are a BN-MLP, by neurons within a layer, and a weight-normalised GPT,
by layers. Both had been recorded and looked at before; their traces are shipped and in results/suite_cpu.
"""

from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness.claim import RESULTS, Finding, claimed, gradient_scale, main
from experiments.harness.panels import finish, plain_ticks
from rotsim.balance import balance
from rotsim.checks import Check
from rotsim.measure.shipped import load_shipped
from rotsim.optimizers.base import Optimizer
from rotsim.show.plotting import style
from rotsim.statistics import root_mean_square

SLOPES = {"adamw": 0.0, "adam_l2": -1 / 3, "sgdm": 0.0, "lion": 0.0}
DIM = 512
SYSTEM: dict[str, Any] = dict(dim=32, rotation=0.03, batch=8)  # the simple system
REPLICATES = 16


def examine(quick: bool) -> Finding:
    """Walks at gradient scales over four decades, and the spread over neurons of the shipped traces."""
    scales = np.geomspace(1e-2, 1e2, 3 if quick else 9)
    checks = []
    numbers: dict[str, Any] = {"scales": scales.tolist()}
    for name, slope in SLOPES.items():
        optimizer = rotsim.OPTIMIZERS[name].examples()[0]
        found = [_rotation(optimizer, scale, quick) for scale in scales]
        value, error = np.array([f[0] for f in found]), np.array([f[1] for f in found])
        checks.append(_slope(f"{optimizer.label}: d log rotation / d log scale", scales, value, error, slope))
        predicted = [rotsim.equilibrium(optimizer, DIM, rotsim.ScaleInvariant(float(s))).rotation for s in scales]
        numbers[name] = {"rotation": value.tolist(), "standard_error": error.tolist(), "predicted": predicted}
        value, error = _simple_system(name, scales, quick)
        checks.append(_slope(f"{optimizer.label}, simple system: the same", scales, value, error, slope))
        numbers[name] |= {"system": value.tolist(), "system_standard_error": error.tolist()}
    slopes = [f"{round(check.measured, 3) + 0:.3f}" for check in checks]  # + 0: no minus before a zero
    numbers["spread_over_neurons"] = spread = {name: _spread(f"fashion_{name}") for name in SLOPES}
    ratio = float(np.mean(spread["adam_l2"]) / np.mean(spread["adamw"]))
    checks.append(claimed("network: spread over neurons, Adam+L2 against AdamW", ratio, float("nan"), 2.0))
    numbers["rotation_of_layers"] = layers = {
        name: balance(rotsim.load(RESULTS / "suite_cpu" / f"wngpt_{name}.nc")).rotation for name in SLOPES
    }
    apart = {name: max(of.values()) / min(of.values()) for name, of in layers.items()}
    statement = "network: layers' rotation, fastest / slowest, Adam+L2 against AdamW"
    checks.append(claimed(statement, apart["adam_l2"] / apart["adamw"], float("nan"), 2.0))
    result = (
        f"slopes {', '.join(slopes[::2])} (AdamW, Adam+L2, SGDM, Lion) over four decades, {', '.join(slopes[1::2])} in "
        f"the simple system; spread over a BN-MLP's neurons {ratio:.0f} times larger under Adam+L2 than under AdamW; "
        f"layers of a weight-normalised GPT apart by {', '.join(f'{x:.3g}' for x in apart.values())}"
    )
    return Finding(checks, _figure(numbers), numbers, result)


def _slope(statement: str, scales: np.ndarray, value: np.ndarray, error: np.ndarray, expected: float) -> Check:
    fit, covariance = np.polyfit(np.log(scales), np.log(value), 1, w=value / error, cov="unscaled")
    # the exact law of Adam+L2 is not quite a power: allow a fiftieth of the contrast that is claimed
    return claimed(statement, float(fit[0]), float(np.sqrt(covariance[0, 0])), expected - 1 / 150, expected + 1 / 150)


def _simple_system(name: str, gains: np.ndarray, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and its error at each output gain; one walk, neurons in groups of one gain."""
    dim = SYSTEM["dim"]
    gain_in = np.random.default_rng(1).permutation(np.geomspace(0.5, 2.0, dim))
    optimizer = rotsim.plan(name, rotation=SYSTEM["rotation"], norm=1.0, dim=dim).optimizer
    unit = _unit_scale(tuple(gain_in))
    settled = [rotsim.equilibrium(optimizer, dim, rotsim.ScaleInvariant(float(unit * gain))) for gain in gains]
    longest = max(eq.relaxation_steps for eq in settled)
    data = rotsim.simulate(
        optimizer,
        steps=int(np.clip(6 * longest, 2000, 2500 if quick else 20_000)),
        gradient=rotsim.SimpleSystem(SYSTEM["batch"], tuple(np.repeat(gains, REPLICATES)), tuple(gain_in)),
        initial_norm=np.repeat([eq.norm for eq in settled], REPLICATES),
        record_every=50,
        dim=dim,
        neurons=REPLICATES * len(gains),
        engine="numba",
    )
    kept = data["rotation"].values[:, data.sizes["step"] // 3 :].reshape(len(gains), REPLICATES, -1)
    estimates = [root_mean_square(group, independent=True) for group in kept]
    return np.array([e.value for e in estimates]), np.array([e.standard_error for e in estimates])


@cache
def _unit_scale(gain_in: tuple[float, ...]) -> float:
    """Of the gradient at output gain 1, to which it is proportional."""
    return gradient_scale(rotsim.SimpleSystem(SYSTEM["batch"], 1.0, gain_in), SYSTEM["dim"])


def _figure(numbers: dict[str, Any]) -> Figure:
    scales = np.array(numbers["scales"])
    middle = len(scales) // 2
    labels = [rotsim.OPTIMIZERS[name].label for name in SLOPES]
    with style():
        figure, ((walks, systems), (neurons, layers)) = plt.subplots(2, 2, figsize=(13, 9))
        for index, name in enumerate(SLOPES):
            found = numbers[name]
            for ax, key in ((walks, "rotation"), (systems, "system")):
                unit = found[key][middle]
                ax.plot(scales, np.array(found["predicted"]) / found["predicted"][middle], "--", color=f"C{index}")
                # nested open symbols, so that three optimizers on one line can be told apart
                ax.plot(
                    scales, np.array(found[key]) / unit, "os^D"[index], color=f"C{index}", mfc="none",
                    ms=14 - 3 * index, mew=1.6, label=labels[index],
                )  # fmt: skip
            spread = numbers["spread_over_neurons"][name]
            neurons.bar(index, np.mean(spread), color=f"C{index}", alpha=0.6)
            neurons.plot(np.full(len(spread), index), spread, "ko", ms=6)
            rotation = np.array(list(numbers["rotation_of_layers"][name].values()))
            jitter = np.linspace(-0.2, 0.2, len(rotation))
            layers.plot(index + jitter, rotation / np.median(rotation), "o", color=f"C{index}", ms=8, alpha=0.7)
        for ax in (walks, systems):
            ax.set(xscale="log", yscale="log")
            plain_ticks(ax.yaxis, [0.2, 0.5, 1, 2, 5])
        walks.set(xlabel="gradient scale ‖g̃‖", ylabel="rotation / its value at scale 1", title="Random walk")
        systems.set(
            xlabel=r"output gain $\gamma_\mathrm{out}$", ylabel="rotation / its value at gain 1",
            title="Simple system, back-propagated gradients",
        )  # fmt: skip
        walks.legend()
        neurons.set(ylabel="std / mean of rotation over neurons", title="BN-MLP, Fashion-MNIST (dots: hidden layers)")
        layers.set(yscale="log", ylabel="rotation of a layer / median", title="Weight-normalised GPT (dots: layers)")
        plain_ticks(layers.yaxis, [0.5, 1, 2, 5, 10, 20])
        for ax in (neurons, layers):
            ax.set_xticks(range(len(labels)), labels)
            ax.grid(axis="x", visible=False)
    message = (
        "Only Adam+L2 lets the gradient's scale set the pace\n"
        "(symbols: measured, errors below their size; dashed: predicted)"
    )
    return finish(figure, message)


def _rotation(optimizer: Optimizer, scale: float, quick: bool) -> tuple[float, float]:
    gradient = rotsim.ScaleInvariant(float(scale))
    eq = rotsim.equilibrium(optimizer, DIM, gradient)
    steps = int(np.clip(6 * eq.relaxation_steps, 2000, 4_000 if quick else 60_000))
    data = rotsim.simulate(
        optimizer,
        dim=DIM,
        neurons=16,
        steps=steps,
        gradient=gradient,
        initial_norm=eq.norm,
        record_every=50,
        engine="numba",
    )
    kept = data["rotation"].values[:, data.sizes["step"] // 3 :]
    estimate = root_mean_square(kept, independent=True)
    return estimate.value, estimate.standard_error


def _spread(name: str) -> list[float]:
    """Coefficient of variation of the neurons' RMS rotation, last half; hidden layer by hidden layer."""
    trace = load_shipped(name)
    half = trace.sizes["step"] // 2
    rms = np.sqrt((trace["rotation"].values[:, half:] ** 2).mean(axis=1))
    layers = [trace["layer"].values == f"hidden{i}.weight" for i in range(3)]
    return [float(rms[rows].std() / rms[rows].mean()) for rows in layers]


if __name__ == "__main__":
    main("balance", __doc__, examine)
