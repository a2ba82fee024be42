"""A map of two hyperparameters: contours of what settles, and shades where it does not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.errors import InvalidInput, array, choice, mapping, sequence, shown
from rotsim.gradients import Gradient, ScaleInvariant
from rotsim.sweeps.contours import Label, contours, levels_of, scale_of, short, write_labels
from rotsim.sweeps.measures import MEASURES, settings_of
from rotsim.sweeps.regimes import LOST_DECAY, NOTABLE, regimes

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTOURED = {"rotation": "rotation, rad per step", "norm": "norm ‖w‖", "relaxation_steps": "relaxation, steps"}
ALL = "all"
MOST_CONTOURS = {1: 9, 3: 4}  # contours of a quantity, by how many quantities a map shows
#: Of each quantity: colour, dashes, and where along a contour its number stands, so that parallel ones stay apart.
_LOOKS = {
    "rotation": ("0.1", "solid", 0.5),
    "norm": ("#6A3D9A", "dashed", 0.3),
    "relaxation_steps": ("#8B5A2B", "dotted", 0.8),
}
_PLAIN_LOOK = ("0.1", "solid", 0.5)
# Of each region: text, a number that is > 1 inside, colour, hatch. Without a hatch its border alone is drawn.
_REGIONS: tuple[tuple[str, Any, str, str | None], ...] = (
    ("run too short: more than {:.0%} of the start is left", lambda d: d["transient"] / NOTABLE, "#0072B2", "/"),
    ("paper's formula more than {:.0%} off", lambda d: d["leading_error"] / NOTABLE, "#D55E00", "\\"),
    ("gradient changes rotation by more than {:.0%}", lambda d: d["departure"] / NOTABLE, "#CC79A7", "."),
    ("below: bfloat16 weights lose the decay", lambda d: LOST_DECAY["bfloat16"] / d["decay"], "#009E73", None),
    ("below: float32 weights lose the decay", lambda d: LOST_DECAY["float32"] / d["decay"], "#000000", None),
)
_LEAST = 1e-9  # of such a number, as of an error that rounding makes 0: its logarithm stays finite
NO_RESULT = "no result"


def plot_map(
    specs: Any,
    over: Mapping[str, Any],
    quantity: str = ALL,
    *,
    dim: int = 1024,
    gradient: Gradient | None = None,
    steps: int | None = None,
    rows: int | None = None,
    points: Sequence[tuple[float, float]] = (),
    **fixed: Any,
) -> Figure:
    """Draw where optimizers settle over two hyperparameters, side by side at equal contours.

    A cross marks a setting that has no equilibrium.

    Parameters
    ----------
    specs : type of Optimizer, Optimizer, or a list of them
        One panel each.
    over : mapping of two names to lists of increasing values > 0
        The first is the horizontal axis.
    quantity : {"all", "rotation", "norm", "relaxation_steps"}
        What the contours show; the same in every panel.
    dim : int
        Fan-in C >= 2.
    gradient : Gradient, optional
        As in `rotsim.sweeps.regimes`.
    steps : int, optional
        Length of a run, >= 1: shaded is where 5 % of a deviation of ‖w‖² is left at its end.
    rows : int, optional
        Neurons of one matrix, >= 2, for those optimizers that act on matrices; default as many as `dim`.
    points : sequence of (float, float)
        Settings to mark, each finite: what the first name is and the second.
    **fixed
        Values of other names, as in `rotsim.sweep`.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    InvalidInput
        If not two names are swept, a point is no pair of numbers, or as `rotsim.sweep` raises.
    """
    choice("quantity", quantity, (ALL, *CONTOURED))
    axes_of = list(mapping("over", over))
    if len(axes_of) != 2:
        raise InvalidInput(f"a map has two axes; `over` must have two names, got {', '.join(axes_of) or 'none'}")
    marks = [array(f"points[{i}]", point, "be two numbers") for i, point in enumerate(sequence("points", points))]
    for i, mark in enumerate(marks):
        if mark.shape != (2,):
            raise InvalidInput(f"`points[{i}]` must be two numbers: {' and '.join(axes_of)}")
    if isinstance(specs, list | tuple) and not specs:
        raise InvalidInput("a map needs at least one optimizer; `specs` has none")
    panels = list(specs) if isinstance(specs, list | tuple) else [specs]
    for name in axes_of:
        values = array(f"over[{name!r}]", over[name], "be increasing numbers > 0, at least two")
        if values.ndim != 1 or len(values) < 2 or not (values[0] > 0 and (np.diff(values) > 0).all()):
            raise InvalidInput(
                f"`over[{name!r}]` must be increasing numbers > 0, at least two; got {shown(over[name])}"
            )
    if rows is not None and not any(getattr(spec, "acts_on", None) == "matrix" for spec in panels):
        raise InvalidInput("`rows` is for an optimizer that acts on matrices, such as Muon; leave it out")
    found = [
        (getattr(spec, "label", str(spec)), regimes(spec, over, dim, gradient, steps, rows, **fixed)) for spec in panels
    ]
    run = f", a run of {steps:,} steps" if steps is not None else ""
    if quantity == ALL:
        return _drawn(found, list(CONTOURED), axes_of, marks, f"Equilibrium at dim {dim}{run}")
    title = f"Equilibrium at dim {dim}{run}: contours of {CONTOURED[quantity]}"
    return _drawn(found, [quantity], axes_of, marks, title)


def plot_sweep(result: xr.Dataset, quantity: str | None = None) -> Figure:
    """Draw what `rotsim.sweep` returned: a curve over one name, contours over two, panels side by side for a third.

    Between cells is interpolated along the scales of the axes. A cross marks a cell without a result; its ``reason``
    says why.

    Parameters
    ----------
    result : Dataset
        Of one to three dimensions whose values are numbers.
    quantity : str, optional
        One of its variables; default the rotation, or the first there is.

    Raises
    ------
    InvalidInput
        If it has other dimensions, or is the same everywhere.
    """
    dims = [str(dim) for dim in result["reason"].dims]
    axes_of = [dim for dim in dims if result.sizes[dim] > 1] or dims
    known = [str(name) for name in result.data_vars if name != "reason"]
    chosen = choice("quantity", quantity or ("rotation" if "rotation" in known else known[0]), known)
    last = result.isel({dim: -1 for dim in (*result[chosen].dims, *dims) if dim not in axes_of})
    if not 1 <= len(axes_of) <= 3 or any(dim not in result.coords or result[dim].dtype.kind in "US" for dim in axes_of):
        raise InvalidInput(f"a figure is of a sweep over one to three names that are numbers; got {', '.join(axes_of)}")
    last = last.sortby(axes_of)
    title = _sweep_title(result, chosen, axes_of)
    if len(axes_of) == 1:
        return _curve(last[axes_of[0]].values, last[chosen].values, axes_of[0], chosen, title)
    panels = [("", last)]
    if len(axes_of) == 3:
        third = axes_of.pop()
        panels = [(f"{_axis_name(third)} {value:g}", last.sel({third: value})) for value in last[third].values]
    return _drawn(panels, [chosen], axes_of, [], title)


def _sweep_title(result: xr.Dataset, chosen: str, axes_of: list[str]) -> str:
    """What is drawn of which optimizer, and what is the same in all cells."""
    described = json.loads(result.attrs["sweep"])
    label, own = _spec_told(described["optimizer"])
    measure = result.attrs["measure"]
    settings = {"dim": settings_of(MEASURES[measure]).get("dim")} if measure in MEASURES else {}
    single = {name: values[0] for name, (_, values) in described["over"].items() if len(values) == 1}
    same = {**settings, **own, **described["fixed"], **single}
    swept = {name for name, (along, _) in described["over"].items() if along in axes_of}
    told = [f"{_axis_name(name)} {_told(value)}" for name, value in same.items() if name not in swept]
    if (gradient := described["gradient"]["name"]) != ScaleInvariant.name:
        told.append(f"{gradient.replace('_', '-')} gradients")
    what = f"{label}, {measure.partition(':')[0]}: {CONTOURED.get(chosen, chosen)}"
    return "\n".join([what, *([fill(", ".join(told), _LETTERS)] if told else [])])


def _spec_told(optimizer: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of a described optimizer, and its numbers as a sweep names them."""
    from rotsim.optimizers import OPTIMIZERS

    own, inner = dict(optimizer), optimizer.get("inner")
    name = own.pop("name")
    label = OPTIMIZERS[name].label if name in OPTIMIZERS else name.capitalize()
    if inner is not None:
        within, numbers = _spec_told(own.pop("inner"))
        label, own = f"{label} {within}", {**numbers, **own}
    own |= {f"beta{place}": beta for place, beta in enumerate(own.pop("betas", ()), start=1)}
    return label, own


def _told(value: Any) -> str:
    """A value of a title: numbers short, anything else as it is."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _curve(x: np.ndarray, y: np.ndarray, axis: str, quantity: str, title: str) -> Figure:
    """A quantity over one name; crosses below mark the values that it has no result at."""
    import matplotlib.pyplot as plt

    from rotsim.show.plotting import style

    with style():
        figure, ax = plt.subplots(figsize=(6.8, 5.0), layout="constrained")
        ax.plot(x, y, "o-", color="0.15")
        ax.set(
            xscale=scale_of(x), yscale=scale_of(y), xlabel=_axis_name(axis), ylabel=CONTOURED.get(quantity, quantity)
        )
        missing = x[~np.isfinite(y)]
        if len(missing):
            ax.plot(missing, 0 * missing, "x", color=_MISSING, transform=ax.get_xaxis_transform(), clip_on=False)
            figure.legend(ax.lines[-1:], [NO_RESULT], loc="outside lower center", fontsize="small")
        figure.suptitle(title, fontsize="medium")
    return figure


_LEGEND_WIDTH = 8.0  # inches: of two of its sentences side by side
_LETTERS = 80  # of a line of a title
_MISSING = "0.55"  # colour of the crosses of cells without a result


def _drawn(
    panels: list[tuple[str, xr.Dataset]], quantities: list[str], axes_of: list[str], marks: list[np.ndarray], title: str
) -> Figure:
    """Panels side by side at equal contours."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    from rotsim.show.plotting import style

    most = MOST_CONTOURS[len(quantities)]
    levels = {
        name: levels_of(np.concatenate([data[name].values.ravel() for _, data in panels]), most) for name in quantities
    }
    with style():
        width = max(_LEGEND_WIDTH, 6.2 * len(panels) + 0.6)
        figure, axes = plt.subplots(
            1, len(panels), figsize=(width, 5.6), sharey=True, squeeze=False, layout="constrained"
        )
        legend: dict[str, Any] = {}
        labels: list[Label] = []
        if len(quantities) > 1:
            looks = {name: _LOOKS[name] for name in quantities}
            legend = {CONTOURED[n]: Line2D([], [], color=color, ls=dash) for n, (color, dash, _) in looks.items()}
        for (name, data), ax in zip(panels, axes[0], strict=True):
            legend |= _regions(ax, data, axes_of)
            for quantity in quantities:
                look = _LOOKS[quantity] if len(quantities) > 1 else _PLAIN_LOOK
                labels += _contours(ax, data, quantity, axes_of, levels[quantity], look)
            legend |= _missing(ax, data, quantities, axes_of)
            for x, y in marks:
                ax.plot(x, y, "o", ms=9, mfc="white", mec="black", mew=2, clip_on=False, zorder=5)
                _reach(ax, x, y)
            ax.set_title(name)
        axes[0, 0].set_ylabel(_axis_name(axes_of[1]))
        figure.suptitle(title)
        if legend:
            figure.legend(
                legend.values(), legend.keys(), loc="outside lower center", ncols=min(2, len(legend)), fontsize="small"
            )
        write_labels(figure, labels, [(ax, point) for ax in axes[0] for point in marks])
    return figure


def _reach(ax: Axes, x: float, y: float) -> None:
    """Let a panel hold a marked point, which would be drawn outside of it."""
    for axis, limits, limit, value in (
        (ax.xaxis, ax.get_xlim(), ax.set_xlim, x),
        (ax.yaxis, ax.get_ylim(), ax.set_ylim, y),
    ):
        if np.isfinite(value) and (value > 0 or axis.get_scale() == "linear"):
            limit(min(*limits, value), max(*limits, value))


def _regions(ax: Axes, data: xr.Dataset, axes: list[str]) -> dict[str, Any]:
    """Shaded regions of one optimizer; what the legend says of them."""
    from matplotlib.colors import to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    x, y = (data[name].values for name in axes)
    ax.set(xscale=scale_of(x), yscale=scale_of(y), xlabel=_axis_name(axes[0]))
    ax.grid(False)
    shown: dict[str, Any] = {}
    for text, ratio, color, hatch in _REGIONS:
        try:
            values = ratio(data).transpose(*reversed(axes)).values
        except KeyError:  # this map was not asked for it
            continue
        if np.nanmax(values, initial=0) <= 1:
            continue
        values = np.log(np.maximum(values, _LEAST))
        dashes = "solid" if hatch else "dashed"
        contours(ax, x, y, values, [0], colors=[color], linewidths=2, linestyles=dashes)
        shown[text.format(NOTABLE)] = Line2D([], [], color=color, lw=2, ls=dashes)
        if hatch is not None:
            contours(ax, x, y, values, [0, np.inf], True, colors=[color], alpha=0.12)
            drawn = contours(ax, x, y, values, [0, np.inf], True, colors="none", hatches=[hatch])
            drawn.set_edgecolor(to_rgba(color, 0.4))
            shown[text.format(NOTABLE)] = Patch(facecolor=to_rgba(color, 0.12), edgecolor=color, hatch=2 * hatch)
    return shown


def _contours(
    ax: Axes, data: xr.Dataset, quantity: str, axes: list[str], levels: np.ndarray, look: tuple[str, str, float]
) -> list[Label]:
    """Contours of one quantity; the numbers that belong on them."""
    x, y = (data[name].values for name in axes)
    color, dashes, share = look
    values = data[quantity].transpose(*reversed(axes)).values
    if np.nanmin(values, initial=np.inf) > 0 and levels[0] > 0:
        lines = contours(ax, x, y, np.log(values), np.log(levels), colors=color, linestyles=dashes)
    else:
        lines = contours(ax, x, y, values, levels, colors=color, linestyles=dashes)
    numbered = zip(levels, lines.allsegs, strict=True)
    found = [(level, [part for part in parts if len(part)]) for level, parts in numbered]
    return [Label(ax, short(level), color, parts, share) for level, parts in found if parts]


def _missing(ax: Axes, data: xr.Dataset, quantities: list[str], axes: list[str]) -> dict[str, Any]:
    """Crosses where cells have no result; what the legend says of them."""
    x, y = (data[name].values for name in axes)
    without = np.any([~np.isfinite(data[name].transpose(*axes).values) for name in quantities], axis=0)
    places = np.argwhere(without)
    if not len(places):
        return {}
    cross = ax.plot(x[places[:, 0]], y[places[:, 1]], "x", ms=5, color=_MISSING, clip_on=False)
    return {NO_RESULT: cross[0]}


def _axis_name(name: str) -> str:
    return {"lr": "learning rate", "weight_decay": "weight decay"}.get(name, name.replace("_", " "))
