"""Figures that explain themselves: measurement solid with its spread, prediction dashed.

Functions that draw take an Axes and return it; those that compose return a Figure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rotsim import dataset, files
from rotsim.dataset import layer_name
from rotsim.diagnosis import TOLERANCE, Diagnosis, LayerDiagnosis
from rotsim.errors import DatasetError, InvalidInput, choice, instance, names, positive, text
from rotsim.show.ticks import RATIO_TICKS, SIZE_TICKS, plain_ticks
from rotsim.theory.equilibrium import Equilibrium

_MOST_NAMES = 10  # layers whose names stand beside their lines
_MANY = 16  # layers whose lines hide one another, if they are not pale
FORMATS = ("png", "pdf", "svg")
COLUMNS = 4  # panels side by side that are still read on a page
_STYLE = Path(__file__).with_name("rotsim.mplstyle")
_COLORS = {"norm": "C0", "rotation": "C1", "update_rms": "C2"}
_NAMES = {"norm": "norm ‖w‖", "rotation": "rotation", "update_rms": "update size"}


@contextmanager
def style() -> Iterator[None]:
    """rotsim's matplotlib style, for the duration of a block."""
    with plt.style.context(_STYLE):
        yield


def check_figure(path: str | os.PathLike[str]) -> Path:
    """Return where `save_figure` would write; raise `InvalidInput` if it could not, before long work starts.

    As `rotsim.files.check_writable`, and the name must end in one of `FORMATS`.
    """
    if _format_of(path) not in FORMATS:
        endings = ", ".join(f".{known}" for known in FORMATS)
        raise InvalidInput(f"a figure's name must end in one of {endings}; got {str(path)!r}")
    return files.check_writable(path)


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float | None = None) -> Path:
    """Write a figure in the format of its name, atomically, in rotsim's style.

    Parameters
    ----------
    figure : matplotlib Figure
    path : str or Path
        As in `check_figure`.
    dpi : float, optional
        Dots per inch, > 0; default as the style has it.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InvalidInput
        As `check_figure` does.
    OSError
        If the disk is full or fails.
    """
    instance("figure", figure, Figure, "a matplotlib figure")
    dpi = None if dpi is None else positive("dpi", dpi)
    check_figure(path)
    drawn = BytesIO()
    with style():  # matplotlib resolves colours only when drawing
        figure.savefig(drawn, format=_format_of(path), dpi=dpi)
    return files.write_atomically(path, drawn.getvalue())


def _format_of(path: str | os.PathLike[str]) -> str:
    return files.resolved(path).suffix.lower().removeprefix(".")


def plot_walk(
    ax: Axes, data: xr.Dataset, predicted: Equilibrium, quantities: Sequence[str] = ("norm", "rotation")
) -> Axes:
    """A walk over its prediction against time: RMS over neurons, band from 5 to 95 % of the neurons."""
    instance("ax", ax, Axes, "matplotlib axes")
    dataset.validate(data)
    instance("predicted", predicted, Equilibrium, "from rotsim.equilibrium")
    chosen = names("quantities", quantities, dataset.QUANTITIES)
    for name in ("relaxation_steps", *chosen):
        positive(f"predicted.{name}", getattr(predicted, name))
    time = data.step.values / predicted.relaxation_steps
    for name in chosen:
        ratio = data[name].values / getattr(predicted, name)
        low, high = np.quantile(ratio, [0.05, 0.95], axis=0)
        ax.fill_between(time, low, high, color=_COLORS[name], alpha=0.2, linewidth=0)
        ax.plot(time, np.sqrt((ratio**2).mean(axis=0)), color=_COLORS[name], label=_NAMES[name])
    ax.axhline(1.0, color="k", linestyle="--", linewidth=1.3, label="prediction")
    ax.set(xlabel="steps / relaxation steps", ylabel="simulated / predicted")
    return ax


def plot_layers(ax: Axes, trace: xr.Dataset, diagnosis: Diagnosis, quantity: str = "rotation") -> Axes:
    """Measured over predicted for every neuron of a trace, by layer: box to the quartiles, whiskers 5 to 95 %.

    Parameters
    ----------
    ax : Axes
    trace : Dataset
        From `rotsim.measure.Recorder`.
    diagnosis : Diagnosis
        Of this trace: layers that the prediction applies to are drawn in colour, the others in grey.
    quantity : {"rotation", "norm"}
    """
    instance("ax", ax, Axes, "matplotlib axes")
    instance("diagnosis", diagnosis, Diagnosis, "from rotsim.diagnosis.diagnose")
    quantity = choice("quantity", quantity, ("rotation", "norm"))
    trace = dataset.completed(dataset.validate(trace))
    for position, layer in enumerate(diagnosis.layers):
        ratio = np.empty(0) if layer.curves is None else layer.curves.neurons[quantity]
        values = ratio[np.isfinite(ratio)]
        color = _COLORS[quantity] if layer.applies else "0.6"
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
    names = [layer_name(layer.layer).replace("hidden", "hidden\n") for layer in diagnosis.layers]
    ax.set_xticks(range(len(names)), names)
    if len(max("\n".join(names).split("\n"), key=len)) * len(names) > _LETTERS:
        ax.tick_params(axis="x", labelrotation=40, labelsize=9)
        plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    ax.set_yscale("log")
    ticks = [0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.grid(axis="x", visible=False)
    return ax


def verify_figure(
    walks: Sequence[tuple[xr.Dataset, Equilibrium]], traces: Mapping[str, tuple[xr.Dataset, Diagnosis]]
) -> Figure:
    """What `rotsim verify` found: simulations above, real networks below, at most `COLUMNS` panels side by side.

    Parameters
    ----------
    walks : sequence of (Dataset, Equilibrium)
        From `rotsim.simulate`, with its prediction; the first of each optimizer is drawn.
    traces : mapping from str to (Dataset, Diagnosis)
        By name, as `rotsim.measure.shipped_traces` has them.
    """
    simulated: dict[str, Callable[[Axes], None]] = {}
    for data, predicted in walks:
        label = dataset.optimizer_of(data).label
        simulated.setdefault(label, partial(_walk_panel, data=data, predicted=predicted, title=f"{label}: random walk"))
    blocks = [list(simulated.values())]
    for name in dict.fromkeys(name.split("_")[0] for name in traces):
        found = [trace for key, trace in traces.items() if key.startswith(f"{name}_")]
        found.sort(key=lambda trace: [*simulated, trace[1].optimizer.label].index(trace[1].optimizer.label))
        blocks.append([partial(_network_panel, data=data, diagnosis=diagnosis) for data, diagnosis in found])
    rows = [block[first : first + COLUMNS] for block in blocks for first in range(0, len(block), COLUMNS)]
    width = max(map(len, rows))
    with style():
        figure, axes = plt.subplots(len(rows), width, figsize=(3.6 * width, 3.3 * len(rows)), squeeze=False)
        for panels, row in zip(rows, axes, strict=True):
            for ax, draw in zip_longest(row, panels):
                if draw is None:
                    ax.set_axis_off()
                    continue
                draw(ax)
                if ax is not row[0]:
                    ax.set_ylabel("")
        axes[0, -1].legend(loc="upper right", fontsize=10)
        figure.suptitle(
            "Rotational equilibrium: simulations settle on the exact prediction (dashed); so do the layers of real\n"
            "networks to which it applies by their recorded gradients (colour). Others (grey) are no test of it.",
            fontsize=13,
        )
        plt.close(figure)
    return figure


def _walk_panel(ax: Axes, data: xr.Dataset, predicted: Equilibrium, title: str) -> None:
    plot_walk(ax, data, predicted)
    ax.set(title=title, xlim=(0, 12), ylim=(0.15, 2.1))


def _network_panel(ax: Axes, data: xr.Dataset, diagnosis: Diagnosis) -> None:
    spec = dataset.spec_of(data)
    plot_layers(ax, data, diagnosis)
    title = f"{diagnosis.optimizer.label}: {spec['network'].split()[0]} on {spec['data']}"
    ax.set(title=title, ylim=(0.28, 1.6), xlabel="layer", ylabel="rotation measured / predicted")


_LETTERS = 32  # that find room side by side below a panel
_VERDICT_COLORS = {
    "applies": "C0",
    "scale-sensitive": "C1",
    "transient": "C3",
    "autocorrelated": "C2",
    "bursty": "C4",
    "signal": "C5",
    "tilted": "#8b5a2b",
    "drifting": "0.3",
}  # a layer of which nothing can be said stays grey


def _label(layer: str, unpredicted: bool, most: int = 28) -> str:
    """A layer's name for an axis, broken at a dot if it is long."""
    name = layer_name(layer)
    if len(name) > most and (cut := name.rfind(".", len(name) // 3, -1)) > 0:
        name = f"{name[: cut + 1]}\n{name[cut + 1 :]}"
    return f"{name} (no prediction)" if unpredicted else name


def trace_figure(trace: xr.Dataset, diagnosis: Diagnosis) -> Figure:
    """What `rotsim trace report` found: rotation and norm of each layer in time, and its neurons, over prediction.

    Parameters
    ----------
    trace : Dataset
        From `rotsim.measure.Recorder`.
    diagnosis : Diagnosis
        Of this trace.
    """
    instance("diagnosis", diagnosis, Diagnosis, "from rotsim.diagnosis.diagnose")
    trace = dataset.completed(dataset.validate(trace))
    layers = [layer for layer in diagnosis.layers if layer.curves is not None]
    anywhere = any(np.isfinite(layer.predicted_rotation) for layer in layers)
    with style():
        figure = plt.figure(figsize=(13, max(6.4, 2.2 + 0.32 * len(layers))), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1))
        panels = {"rotation": figure.add_subplot(grid[0, 0]), "norm": figure.add_subplot(grid[1, 0])}
        spread = figure.add_subplot(grid[:, 1])
        for name, panel in panels.items():
            _over_time(panel, layers, name, anywhere)
        _spread_over_neurons(spread, layers, anywhere)
        for verdict in dict.fromkeys(layer.verdict for layer in layers):
            panels["rotation"].plot([], [], color=_VERDICT_COLORS.get(verdict, "0.55"), label=verdict)
        figure.legend(
            *(a + b for a, b in zip(panels["rotation"].get_legend_handles_labels(),
                                    spread.get_legend_handles_labels(), strict=True)),
            loc="outside lower center", fontsize=10, ncols=4,
        )  # fmt: skip
        figure.suptitle(fill(diagnosis.summary(), 110), fontsize=12)
        plt.close(figure)
    return figure


def _over_time(panel: Axes, layers: Sequence[LayerDiagnosis], name: str, anywhere: bool) -> None:
    """Measured over predicted course of every layer, with the names of those that end or stray furthest."""
    ends, alpha = [], 0.85 if len(layers) <= _MANY else 0.5
    for layer in layers:
        assert layer.curves is not None
        values = layer.curves.ratio[name] if anywhere else layer.curves.measured[name]
        if not np.isfinite(values).any():
            continue
        color = _VERDICT_COLORS.get(layer.verdict, "0.55")
        panel.plot(layer.curves.step, values, color=color, alpha=alpha, linewidth=1.4)
        ends.append((float(values[-1]), float(layer.curves.step[-1]), layer_name(layer.layer), color))
        if anywhere and layer.rest is not None and layer.rest.claims and layer.rest.step is not None:
            panel.plot(layer.rest.step, layer.rest.ratio[name], color=color, linestyle=":", linewidth=1.6)
    if anywhere and name == "rotation" and any(layer.foreseen_outcome for layer in layers):
        panel.plot([], [], color="0.3", linestyle=":", linewidth=1.6, label="over what the first half foresees")
    if anywhere:
        panel.axhline(1.0, color="k", linestyle="--", linewidth=1.3, label="prediction" if name == "rotation" else None)
        allowed = TOLERANCE[name]
        panel.axhspan(1 - allowed, 1 + allowed, color="0.93", zorder=0)
    panel.set(yscale="log", ylabel=f"{name}\nmeasured / predicted" if anywhere else name, xlabel="step")
    plain_ticks(panel.yaxis, RATIO_TICKS if anywhere else SIZE_TICKS)
    ends.sort(key=lambda end: abs(np.log(end[0])) if anywhere and end[0] > 0 else 0.0, reverse=True)
    chosen = sorted(ends[:_MOST_NAMES])
    low, high = np.log(panel.get_ylim())
    heights = [(float(np.log(value)) - low) / (high - low) if value > 0 else 0.0 for value, *_ in chosen]
    for place, (value, step, label, color) in zip(_apart(heights), chosen, strict=True):
        panel.annotate(
            label, (step, value), xytext=(1.03, place), textcoords="axes fraction", fontsize=8, color=color,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def _apart(heights: Sequence[float], gap: float = 1 / 16) -> list[float]:
    """Heights of names in an axes from 0 to 1, in order: as near to those given as names that need `gap` may be."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + gap if places else 0.0))
    ceiling = 1.0
    for at in range(len(places) - 1, -1, -1):
        places[at] = min(places[at], ceiling)
        ceiling = places[at] - gap
    return places


def _spread_over_neurons(spread: Axes, layers: Sequence[LayerDiagnosis], anywhere: bool) -> None:
    for position, layer in enumerate(reversed(layers)):
        assert layer.curves is not None
        color = _VERDICT_COLORS.get(layer.verdict, "0.55")
        values = layer.curves.neurons["rotation"]
        values = values[np.isfinite(values) & (values > 0)]
        if not len(values):
            continue
        low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        spread.plot([low, high], [position] * 2, color=color, linewidth=1.2)
        spread.plot([first, third], [position] * 2, color=color, linewidth=5, solid_capstyle="butt")
        spread.plot(middle, position, "o", color="k", markersize=4)
        corrected = layer.corrected_rotation / layer.predicted_rotation
        if np.isfinite(corrected):
            spread.plot(corrected, position, "|", color="k", markersize=14, markeredgewidth=1.6)
    if anywhere:
        spread.axvline(1.0, color="k", linestyle="--", linewidth=1.3)
        spread.plot([], [], "|", color="k", markersize=14, markeredgewidth=1.6, label="corrected prediction")
    what = "rotation measured / predicted, RMS over the run"
    spread.set(xscale="log", xlabel=what, title="Neurons", ylim=(-0.6, len(layers) - 0.4))
    names = [_label(layer.layer, anywhere and not np.isfinite(layer.predicted_rotation)) for layer in layers[::-1]]
    spread.set_yticks(range(len(layers)), names, fontsize=10 if any("\n" in name for name in names) else None)
    spread.plot([], [], "o", color="k", markersize=4, label="median (bars: 50 %, 90 % of neurons)")
    plain_ticks(spread.xaxis, RATIO_TICKS if anywhere else SIZE_TICKS)
    spread.tick_params(axis="x", labelsize=9)


def course_figure(course: xr.Dataset, in_force: xr.Dataset, title: str) -> Figure:
    """Norm, rotation and learning rate in time; dashed, what the rates in force would settle at.

    Parameters
    ----------
    course : Dataset
        From `rotsim.predict`.
    in_force : Dataset
        From `rotsim.theory.prediction.settling`, at the same steps.
    title : str
    """
    dataset.validate(course)
    if missing := [f"{name}_model_error" for name in ("norm", "rotation") if f"{name}_model_error" not in course]:
        raise DatasetError(f"`course` lacks {', '.join(missing)}; give one from rotsim.predict")
    instance("in_force", in_force, xr.Dataset, "a dataset from rotsim.theory.prediction.settling")
    title = text("title", title)
    step = course["step"].values
    if not {"norm", "rotation", "lr"} <= set(in_force) or in_force.sizes.get("step") != len(step):
        raise InvalidInput("`in_force` must hold norm, rotation and lr at the steps of `course`; it does not")
    with style():
        figure, axes = plt.subplots(
            3, 1, figsize=(8, 7.5), sharex=True, height_ratios=(1, 1, 0.5), layout="constrained"
        )
        labels = {"norm": "norm ‖w‖", "rotation": "rotation (rad per step)"}
        for ax, (name, label), color in zip(axes, labels.items(), ("C0", "C1"), strict=False):
            values, error = course[name].values[0], course[f"{name}_model_error"].values[0]
            ax.plot(step, values, color=color, label="predicted course (band: declared error)")
            ax.fill_between(step, values * (1 - error), values * (1 + error), color=color, alpha=0.2, linewidth=0)
            ax.plot(step, in_force[name], "k--", linewidth=1.5, label="equilibrium of the rates in force")
            ax.set(ylabel=label, yscale="log")
            ax.legend(fontsize=10)
        axes[2].plot(step, in_force["lr"], color="0.3")
        axes[2].set(ylabel="learning rate", xlabel="step")
        axes[2].set_ylim(bottom=0)
        figure.suptitle(fill(title, 90), fontsize=12)
        plt.close(figure)
    return figure
