"""A movie for a slide: weight vectors walk on spheres, beside their norm and the angle of every step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from rotsim import files
from rotsim.errors import InvalidInput, NoEquilibrium, function, integer
from rotsim.gradients import Gradient, ScaleInvariant
from rotsim.optimizers import Optimizer, checked_optimizer
from rotsim.show.movies import check_movie, encoded
from rotsim.show.plotting import style
from rotsim.show.sphere import STARTS, Rolling
from rotsim.show.ticks import SIZE_TICKS, plain_ticks
from rotsim.simulation import watched
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.prediction import ScheduleLike, predict

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

MOST_OPTIMIZERS = 4  # that fit side by side
POINTS_PER_FRAME = 8  # points that a picture adds to a path, at most
LEAST_SPAN = 1.25  # up and down from its middle an axis shows at least this factor, and no rounding
WIDTH_INCHES, HEIGHT_INCHES = 12.8, 7.2
DOTS_PER_INCH = {".gif": 75, ".mp4": 100}
_CURVES = {"norm": "norm ‖w‖", "rotation": "angle of a step, rad"}


@dataclass(frozen=True)
class _Walk:
    """What the movie shows of one optimizer.

    Attributes
    ----------
    measured : Dataset
        Of all neurons, a window for each picture.
    predicted : Dataset or None
        The same windows; None where theory has no course.
    settled : float
        Norm of equilibrium; NaN if there is none.
    paths : ndarray, shape (points, shown, 3)
        On a sphere of radius 1.
    norms : ndarray, shape (points, shown)
    """

    optimizer: Optimizer
    measured: xr.Dataset
    predicted: xr.Dataset | None
    settled: float
    paths: np.ndarray
    norms: np.ndarray

    @property
    def unit(self) -> float:
        """The norm that a sphere of radius 1 stands for."""
        return self.settled if np.isfinite(self.settled) else float(self.norms[-1].mean())


def animate(
    optimizers: Optimizer | Sequence[Optimizer],
    output: str | os.PathLike[str],
    *,
    dim: int = 128,
    steps: int = 2000,
    frames: int = 120,
    neurons: int = 64,
    rows: int | None = None,
    gradient: Gradient | None = None,
    initial_norm: float = 1.0,
    lr_schedule: ScheduleLike = None,
    seed: int = 0,
    fps: int = 15,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write a movie of weight vectors that walk on their spheres, for a slide.

    Each sphere has the radius ‖w‖ of three neurons, in units of the equilibrium norm, which is dotted. A path keeps the
    angle of every step: see `rotsim.show.sphere`. Beside it are norm and angle, RMS over all neurons. Predictions are
    dashed.

    Parameters
    ----------
    optimizers : Optimizer, or a list of one to four of them
        Side by side.
    output : path
        The file, which ends in .gif or .mp4. An .mp4 needs ffmpeg, or the extra ``movie``.
    dim : int
        Fan-in C >= 3.
    steps, frames : int
        Optimizer steps, and pictures that show them; each >= 1.
    neurons : int
        Neurons behind the curves, >= 3. The first three are on the sphere.
    rows : int, optional
        Neurons of one matrix, >= 2, under Muon; default all.
    gradient : Gradient, optional
        Default `rotsim.ScaleInvariant()`.
    initial_norm : float
        ‖w_0‖ > 0.
    lr_schedule : array_like of shape (steps,) or callable, optional
        As in `rotsim.simulate`.
    seed : int
        In [0, 2⁶⁴).
    fps : int
        Pictures per second, in [1, 50].
    progress : callable, optional
        ``progress(done, total)``, in parts of the work.

    Returns
    -------
    Path
        The file written. It is written at the end and at once: Ctrl-C leaves what was there before.

    Raises
    ------
    InvalidInput
        If an argument is out of range, the name has another ending, or an .mp4 is wanted without ffmpeg.
    OSError
        If the disk is full.
    """
    ending = check_movie(output)
    chosen = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    if not 1 <= len(chosen) <= MOST_OPTIMIZERS:
        raise InvalidInput(f"`optimizers` must be one to {MOST_OPTIMIZERS}; got {len(chosen)}")
    specs = [checked_optimizer(one) for one in chosen]
    dim, neurons = integer("dim", dim, low=3), integer("neurons", neurons, low=len(STARTS))
    steps, fps = integer("steps", steps, low=1), integer("fps", fps, low=1, high=50)
    every = max(1, round(steps / integer("frames", frames, low=1)))
    pictures = 1 + -(-steps // every)
    total = len(specs) * steps + pictures * every  # a picture counts as the steps that it shows
    tell = function("progress", progress, "of done and total", 2) if progress is not None else lambda *_: None
    run: dict[str, Any] = {
        "dim": dim, "steps": steps, "gradient": ScaleInvariant() if gradient is None else gradient,
        "initial_norm": initial_norm, "lr_schedule": lr_schedule, "record_every": every,
    }  # fmt: skip
    walks = []
    for place, spec in enumerate(specs):

        def tell_step(step: int, begun: int = place * steps) -> None:
            tell(begun + step, total)

        walks.append(_walked(spec, run, neurons, rows, seed, tell_step))
    with style():
        movie, drawn = _Movie(walks, every, DOTS_PER_INCH[ending]), count(1)

        def draw(number: int) -> np.ndarray:
            tell(min(len(specs) * steps + next(drawn) * every, total), total)
            return movie.picture(number)

        content = encoded(ending, draw, pictures, fps)
    return files.write_atomically(output, content)


def _walked(
    optimizer: Optimizer,
    run: dict[str, Any],
    neurons: int,
    rows: int | None,
    seed: int,
    tell: Callable[[int], object],
) -> _Walk:
    """The walk of one optimizer, with the paths of some neurons, and what theory says of it."""
    thinned = max(1, run["record_every"] // POINTS_PER_FRAME)
    rolling: list[Rolling] = []
    paths, norms = [], []

    def watch(step: int, weights: np.ndarray) -> None:
        seen = weights[: len(STARTS)]
        if not rolling:
            rolling.append(Rolling(seen))
        points = rolling[0].follow(seen)
        if step % thinned == 0 or step == run["steps"]:
            paths.append(points)
            norms.append(np.linalg.norm(seen, axis=1))
        tell(step)

    run = {**run, "rows": (rows or neurons) if optimizer.acts_on == "matrix" else None}
    measured = watched(watch, optimizer, neurons=neurons, seed=seed, threads=1, **run)
    predicted, settled = None, np.nan
    with suppress(InvalidInput, NoEquilibrium):
        predicted = predict(optimizer, **run)
    with suppress(InvalidInput, NoEquilibrium):
        settled = equilibrium(optimizer, run["dim"], run["gradient"], rows=run["rows"]).norm
        if not np.isfinite(settled):  # a rotational variant keeps the norm that it starts with
            settled = run["initial_norm"]
    return _Walk(optimizer, measured, predicted, settled, np.array(paths), np.array(norms))


class _Movie:
    """The figure, of which what stands still is drawn once."""

    def __init__(self, walks: list[_Walk], every: int, dpi: int) -> None:
        self.walks, self.every = walks, every
        self.figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=dpi, layout=ConstrainedLayoutEngine(h_pad=0.1))
        self.canvas = FigureCanvasAgg(self.figure)
        spheres, curves = self._axes()
        colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        self.spheres = [_Sphere(ax, walk, color) for ax, walk, color in zip(spheres, walks, colors, strict=False)]
        self.lines = [
            (ax, name, walk, self._curve(ax, name, walk, color))
            for (name, ax) in curves.items()
            for walk, color in zip(walks, colors, strict=False)
        ]
        self.clock = self.figure.text(0.012, 0.988, "", va="top", fontsize=15, animated=True)
        self.figure.suptitle(
            "Weights on their spheres: the radius is the norm ‖w‖, and each step turns by an angle θ", fontsize=16
        )
        looks: dict[str, tuple[Any, float]] = {"measured": ("-", 3), "predicted": ("--", 1.6), "equilibrium": (":", 2)}
        key = [Line2D([], [], color="0.25", linestyle=dash, linewidth=width) for dash, width in looks.values()]
        self.figure.legend(key, list(looks), loc="outside lower center", ncols=len(key), fontsize=13)
        for ax in curves.values():
            plain_ticks(ax.yaxis, SIZE_TICKS)
        self.canvas.draw()
        self.figure.set_layout_engine("none")
        self.still = self.canvas.copy_from_bbox(self.figure.bbox)

    def _axes(self) -> tuple[list[Axes], dict[str, Axes]]:
        """Spheres above curves, or one sphere beside them."""
        columns = len(self.walks)
        if columns == 1:
            outer = self.figure.add_gridspec(1, 2, width_ratios=(1.1, 1))
            spheres, places = outer[0].subgridspec(1, 1), outer[1].subgridspec(2, 1)
        else:
            outer = self.figure.add_gridspec(2, 1, height_ratios=(1.3, 1))
            spheres, places = outer[0].subgridspec(1, columns), outer[1].subgridspec(1, 2)
        curves = {
            name: self.figure.add_subplot(place) for name, place in zip(_CURVES, (places[0], places[1]), strict=True)
        }
        for name, ax in curves.items():
            ax.set(xlabel="step", ylabel=_CURVES[name], yscale="log", xlim=(0, self.walks[0].measured["step"][-1]))
        return [self.figure.add_subplot(spheres[k]) for k in range(columns)], curves

    def _curve(self, ax: Axes, name: str, walk: _Walk, color: str) -> tuple[Any, Any]:
        """The line that will grow and, over it, what was predicted. The whole prediction is there from the start."""
        step, values = walk.measured["step"], [_mean(walk.measured[name])]
        if walk.predicted is not None:
            values.append(walk.predicted[name].values[0])
            ax.plot(step, values[1], "--", color=color, linewidth=1.6)
        middle = np.sqrt(values[0].min() * values[0].max())
        for seen in (*values, middle * np.array([1 / LEAST_SPAN, LEAST_SPAN])):  # what the axis has to show
            ax.update_datalim(np.column_stack([np.full(len(seen), step[0]), seen]))
        ax.autoscale_view(scalex=False)
        (line,) = ax.plot([], [], color=color, linewidth=3.5, animated=True)
        (over,) = ax.plot([], [], "--", color="0.1", linewidth=1.3, animated=True)
        return line, over

    def picture(self, number: int) -> np.ndarray:
        """Picture `number` as uint8 of shape (height, width, 3)."""
        self.canvas.restore_region(self.still)
        for sphere in self.spheres:
            sphere.show(number, self.every)
        for ax, name, walk, (line, over) in self.lines:
            line.set_data(walk.measured["step"][:number], _mean(walk.measured[name])[:number])
            ax.draw_artist(line)
            if walk.predicted is not None:
                over.set_data(walk.predicted["step"][:number], walk.predicted[name][0, :number])
                ax.draw_artist(over)
        step = min(number * self.every, int(self.walks[0].measured["step"][-1]))
        self.clock.set_text(f"step {step}")
        self.figure.draw_artist(self.clock)
        drawn = np.asarray(self.canvas.buffer_rgba())[..., :3]
        height, width = (size - size % 2 for size in drawn.shape[:2])
        return drawn[:height, :width].copy()


class _Sphere:
    """One optimizer's sphere, seen from the front, with arrows from its centre and the paths of their tips."""

    def __init__(self, ax: Axes, walk: _Walk, color: str) -> None:
        self.ax, self.walk = ax, walk
        largest = max(1.0, float(walk.norms.max()) / walk.unit)
        ax.set(xlim=(-1.12 * largest, 1.12 * largest), ylim=(-1.12 * largest, 1.12 * largest), aspect="equal")
        ax.set_axis_off()
        spec = walk.optimizer
        name = f"rotational {spec.plain.label}" if spec.plain is not spec else spec.label
        ax.set_title(f"{name}\nlr {spec.lr:g}, decay {spec.weight_decay:g}", fontsize=15)
        turn = np.linspace(0, 2 * np.pi, 181)
        self.circle = np.stack([np.cos(turn), np.sin(turn)])
        if np.isfinite(walk.settled):
            ax.plot(*self.circle, ":", color="0.25", linewidth=2)
        shown = walk.paths.shape[1]

        def lines(**look: Any) -> list[Any]:
            return [ax.plot([], [], animated=True, solid_capstyle="round", **look)[0] for _ in range(shown)]

        (self.outline,) = ax.fill([], [], facecolor=to_rgba(color, 0.07), edgecolor=color, linewidth=2, animated=True)
        self.behind = lines(color=color, linewidth=1.2, alpha=0.25)
        self.before = lines(color=color, linewidth=1.8, alpha=0.6)
        self.latest = lines(color=color, linewidth=4)
        self.arrows = lines(color="0.15", linewidth=2.5, marker="o", markevery=[1], markersize=8)
        # These words stand for the numbers to come, so that the layout leaves room.
        below: dict[str, Any] = {
            "xycoords": "axes fraction",
            "textcoords": "offset points",
            "ha": "center",
            "va": "top",
        }
        below |= {"fontsize": 14, "animated": True}
        self.measured = ax.annotate("measured", (0.5, 0), (0, -2), color=color, weight="bold", **below)
        self.predicted = ax.annotate("predicted", (0.5, 0), (0, -21), color="0.25", **below)

    def show(self, number: int, every: int) -> None:
        """Draw picture `number`."""
        walk = self.walk
        thinned = max(1, every // POINTS_PER_FRAME)
        last = min(number * every // thinned, len(walk.paths) - 1)
        recent = max(0, last - 3 * max(1, every // thinned))
        radius = float(np.sqrt((walk.norms[last] ** 2).mean())) / walk.unit
        self.outline.set_xy(radius * self.circle.T)
        for neuron in range(walk.paths.shape[1]):
            x, y, z = radius * walk.paths[: last + 1, neuron].T
            self.behind[neuron].set_data(x, np.where(z < 0, y, np.nan))
            self.before[neuron].set_data(x, np.where(z >= 0, y, np.nan))
            self.latest[neuron].set_data(x[recent:], y[recent:])
            self.latest[neuron].set_alpha(1.0 if z[-1] >= 0 else 0.35)
            self.arrows[neuron].set_data([0, x[-1]], [0, y[-1]])
            self.arrows[neuron].set_alpha(0.9 if z[-1] >= 0 else 0.3)
        self.measured.set_text(_numbers(walk.measured, number, named=True))
        self.predicted.set_text(
            f"predicted {_numbers(walk.predicted, number, named=False)}" if walk.predicted else "no prediction"
        )
        artists: list[Artist] = [self.outline, *self.behind, *self.arrows, *self.before, *self.latest]
        artists += [self.measured, self.predicted]
        for artist in artists:
            self.ax.draw_artist(artist)


def _numbers(course: xr.Dataset, number: int, *, named: bool) -> str:
    """Norm and angle of the window before picture `number`; of the first window at the start."""
    window = max(number - 1, 0)
    found = {sign: float(_mean(course[name])[window]) for name, sign in (("norm", "‖w‖"), ("rotation", "θ"))}
    return "   ".join(f"{sign} {value:.3g}" if named else f"{value:.3g}" for sign, value in found.items())


def _mean(values: xr.DataArray) -> np.ndarray:
    """RMS over neurons."""
    return np.asarray(np.sqrt((values**2).mean("neuron")))
