"""Figures that explain themselves: measurement solid with its spread, prediction dashed.

Functions that draw take an Axes and return it; those that compose return a Figure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rotsim import dataset
from rotsim.theory.equilibrium import Equilibrium
from rotsim.theory.traces import predict_trace

if TYPE_CHECKING:
    from rotsim.verify import Case, TraceCase

_STYLE = Path(__file__).with_name("rotsim.mplstyle")
_COLORS = {"norm": "C0", "rotation": "C1", "update_rms": "C2"}
_NAMES = {"norm": "norm ‖w‖", "rotation": "rotation", "update_rms": "update size"}


@contextmanager
def style() -> Iterator[None]:
    """rotsim's matplotlib style, for the duration of a block."""
    with plt.style.context(_STYLE):
        yield


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, atomically, in rotsim's style (matplotlib resolves colours only when drawing)."""
    with style():
        return dataset.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))


def plot_walk(
    ax: Axes, data: xr.Dataset, predicted: Equilibrium, quantities: Sequence[str] = ("norm", "rotation")
) -> Axes:
    """Measured over predicted against time: RMS over neurons, band from 5 to 95 % of the neurons.

    Parameters
    ----------
    ax : Axes
    data : Dataset
        From `rotsim.simulate`.
    predicted : Equilibrium
    quantities : sequence of {"norm", "rotation", "update_rms"}
    """
    time = data.step.values / predicted.relaxation_steps
    for name in quantities:
        ratio = data[name].values / getattr(predicted, name)
        low, high = np.quantile(ratio, [0.05, 0.95], axis=0)
        ax.fill_between(time, low, high, color=_COLORS[name], alpha=0.2, linewidth=0)
        ax.plot(time, np.sqrt((ratio**2).mean(axis=0)), color=_COLORS[name], label=_NAMES[name])
    ax.axhline(1.0, color="k", linestyle="--", linewidth=1.3, label="prediction")
    ax.set(xlabel="steps / relaxation steps", ylabel="simulated / predicted")
    return ax


def plot_layers(ax: Axes, trace: xr.Dataset, invariant: Sequence[str], quantity: str = "rotation") -> Axes:
    """Measured over predicted for every neuron of a trace, by layer: box to the quartiles, whiskers 5 to 95 %.

    Parameters
    ----------
    ax : Axes
    trace : Dataset
        From `rotsim.measure.Recorder`.
    invariant : sequence of str
        Layers with scale-invariant neurons, drawn in colour; the others in grey.
    quantity : {"rotation", "norm"}
    """
    half = trace.sizes["step"] // 2
    measured = np.sqrt((trace[quantity].values[:, half:] ** 2).mean(axis=1))
    ratio = measured / predict_trace(trace)[quantity].values[:, 0]
    layers = list(dict.fromkeys(trace["layer"].values))
    for position, layer in enumerate(layers):
        values = ratio[(trace["layer"].values == layer) & np.isfinite(ratio)]
        color = _COLORS[quantity] if layer in invariant else "0.6"
        ax.boxplot(
            values,
            positions=[position],
            widths=0.6,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": color, "edgecolor": color, "alpha": 0.6},
            medianprops={"color": "k"},
            whiskerprops={"color": color},
            capprops={"color": color},
        )
    ax.axhline(1.0, color="k", linestyle="--", linewidth=1.3)
    ax.set_xticks(range(len(layers)), [str(i + 1) if name in invariant else "head" for i, name in enumerate(layers)])
    ax.set_yscale("log")
    ticks = [0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(axis="x", visible=False)
    return ax


def verify_figure(cases: Sequence[Case], traces: Sequence[TraceCase]) -> Figure:
    """What `rotsim verify` found: simulations above, real networks below, one column per optimizer."""
    columns = list(dict.fromkeys(case.optimizer.name for case in cases))
    datasets = list(dict.fromkeys(trace.name.split("_")[0] for trace in traces))
    rows = 1 + len(datasets)
    with style():
        figure, axes = plt.subplots(
            rows, len(columns), figsize=(3.6 * len(columns), 3.3 * rows), squeeze=False, sharey="row"
        )
        for column, name in enumerate(columns):
            case = next(case for case in cases if case.optimizer.name == name)
            ax = plot_walk(axes[0, column], case.data, case.exact)
            ax.set(title=f"{case.optimizer.label}: random walk", xlim=(0, 12), ylim=(0.15, 2.1))
            for row, data_name in enumerate(datasets, start=1):
                ax = axes[row, column]
                found = [t for t in traces if t.name == f"{data_name}_{name}"]
                if not found:
                    ax.set_axis_off()
                    continue
                spec = dataset.spec_of(found[0].data)
                plot_layers(ax, found[0].data, spec["scale_invariant_layers"])
                ax.set(
                    title=f"{case.optimizer.label}: {spec['network'].split()[0]} on {spec['data']}", ylim=(0.28, 1.6)
                )
                ax.set_xlabel("layer")
        for row in range(1, rows):
            axes[row, 0].set_ylabel("rotation measured / predicted")
        for ax in axes[:, 1:].flat:
            ax.set_ylabel("")
        axes[0, -1].legend(loc="upper right", fontsize=10)
        figure.suptitle(
            "Rotational equilibrium: simulations settle on the exact prediction (dashed); so do the scale-invariant\n"
            "layers of real networks (colour). Theory makes no claim for the scale-sensitive head (grey).",
            fontsize=13,
        )
        plt.close(figure)
    return figure
