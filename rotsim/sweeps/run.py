"""`sweep`: one call for a grid of hyperparameters."""

from __future__ import annotations

import json
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from rotsim.errors import InvalidInput, flag, function, integer, shown
from rotsim.gradients import Gradient
from rotsim.sweeps.execution import Answer, evaluate, run
from rotsim.sweeps.grid import Grid, Recipe, grid
from rotsim.sweeps.measures import MEASURES, Measure, measure_of, settings_of, unit
from rotsim.sweeps.store import Store
from rotsim.tasks import cores, digest

if TYPE_CHECKING:
    import xarray as xr

TIMED_CELLS = 5  # an estimate times so many, beside one that may have to compile
TIMED_TOGETHER = 200  # cells that are timed at once, where a measure answers for many
NOT_COMPUTED = "not computed: the sweep was interrupted"


class SweepInterrupted(KeyboardInterrupt):
    """A sweep stopped by Ctrl-C.

    Attributes
    ----------
    dataset : Dataset
        The cells that are finished; NaN elsewhere.
    kept_in : str or None
        The store that the same sweep goes on from.
    """

    def __init__(self, dataset: xr.Dataset, done: int, cells: int, kept_in: str | None) -> None:
        super().__init__(f"interrupted after {done} of {cells} cells")
        self.dataset, self.kept_in = dataset, kept_in


@dataclass(frozen=True)
class Estimate:
    """What a sweep would take, from a few cells that were computed.

    Attributes
    ----------
    cells, finished : int
        Cells in all, and those that the store has.
    seconds_per_cell : float
        Median of the cells tried.
    workers : int
        Processes here.
    seconds : float
        Expected time of the whole.
    memory_bytes : int
        What all results take here, and beside them the cells that are at work.
    """

    cells: int
    finished: int
    seconds_per_cell: float
    workers: int
    seconds: float
    memory_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.cells} cell{'s' * (self.cells != 1)}, {self.finished} of them finished; "
            f"{self.seconds_per_cell:.3g} s a cell, about {self.seconds:.3g} s on {self.workers} cores here; "
            f"{self.memory_bytes / 2**20:.3g} MiB of memory"
        )


@overload
def sweep(
    spec: Any,
    over: Mapping[str, Any],
    measure: str | Measure = ...,
    store: str | os.PathLike[str] | None = ...,
    executor: Any = ...,
    *,
    gradient: Gradient | None = ...,
    workers: int | None = ...,
    progress: Callable[[int, int], None] | None = ...,
    dry_run: Literal[False] = ...,
    **fixed: Any,
) -> xr.Dataset: ...
@overload
def sweep(
    spec: Any,
    over: Mapping[str, Any],
    measure: str | Measure = ...,
    store: str | os.PathLike[str] | None = ...,
    executor: Any = ...,
    *,
    gradient: Gradient | None = ...,
    workers: int | None = ...,
    progress: Callable[[int, int], None] | None = ...,
    dry_run: Literal[True],
    **fixed: Any,
) -> Estimate: ...
def sweep(
    spec: Any,
    over: Mapping[str, Any],
    measure: str | Measure = "equilibrium",
    store: str | os.PathLike[str] | None = None,
    executor: Any = None,
    *,
    gradient: Gradient | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    dry_run: bool = False,
    **fixed: Any,
) -> xr.Dataset | Estimate:
    """Compute a quantity over a grid of hyperparameters, on all cores or wherever an executor runs.

    Parameters
    ----------
    spec : type of Optimizer, or Optimizer
        `rotsim.AdamW`, or ``rotsim.AdamW(lr=1e-3, weight_decay=0.1)`` whose values hold where `over` names none.
    over : mapping of str to list, or to (dimension, list)
        Names are hyperparameters of the spec (``betas`` as ``beta1``, ``beta2``), parameters of `gradient`, and
        settings of the measure such as ``dim``, ``steps`` or ``seed``. Lists make a grid. Names with one dimension, as
        in ``{"lr": ("rate", [...]), "weight_decay": ("rate", [...])}``, go together.
    measure : {"equilibrium", "leading", "predict", "simulate", "error"} or callable
        What is computed in each cell: see `rotsim.sweeps.measures`. A function gets the spec, and by name what else
        its signature has; it returns numbers by name, one number, or a Dataset.
    store : path, optional
        A folder such as ``"sweep.zarr"`` that keeps finished cells. The same sweep goes on there, and a larger one
        computes only what is new. At the end `xarray.open_zarr` reads the result from it.
    executor : object with `submit` or `map`, optional
        For example a `dask.distributed.Client`. Default: this machine's cores.
    gradient : Gradient, optional
        Default `rotsim.ScaleInvariant()`.
    workers : int, optional
        Processes on this machine, >= 1; default one per core. Changes no number.
    progress : callable, optional
        ``progress(cells_done, cells)``.
    dry_run : bool
        Try a few cells and return an `Estimate`.
    **fixed
        Values of further names, the same in all cells.

    Returns
    -------
    Dataset
        Dimensions are those of `over`, then those of the measure. A cell without a result is NaN, and the variable
        ``reason`` says why.

    Raises
    ------
    InvalidInput
        For an unknown or missing name, an empty list, or values that no cell can take.
    DatasetError
        If `store` is something else, or holds a sweep of another measure or optimizer.
    SweepInterrupted
        On Ctrl-C, a `KeyboardInterrupt` that carries what is finished.

    Examples
    --------
    >>> import rotsim
    >>> found = rotsim.sweep(rotsim.AdamW, {"lr": [1e-3, 1e-2], "weight_decay": [0.01, 0.1, 1.0]}, dim=256)
    >>> dict(found.sizes)
    {'lr': 2, 'weight_decay': 3}
    """
    name, chosen = measure_of(measure)
    takes = settings_of(chosen)
    if gradient is not None and "gradient" not in takes:
        raise InvalidInput(f"`gradient` is not used by this measure, which takes {', '.join(takes) or 'nothing else'}")
    settings = {key: default for key, default in takes.items() if key != "gradient"}
    cells = grid(spec, over, settings, gradient, fixed)
    if progress is not None:
        function("progress", progress, "of cells done and cells", 2)
    workers = cores() if workers is None else integer("workers", workers, low=1)
    if executor is not None and not (hasattr(executor, "submit") or hasattr(executor, "map")):
        raise InvalidInput("`executor` must have `submit` or `map`, as dask.distributed.Client and Pool have")
    recipes = list(cells.cells())
    kept = None if store is None else Store(store, {"measure": name, "optimizer": cells.kind.name})
    keys = [] if kept is None else [_key(name, settings, recipe) for recipe in recipes]
    earlier = {} if kept is None else kept.finished()
    answers: list[Answer | None] = [earlier.get(key) for key in keys] if keys else [None] * len(recipes)
    pending = [(number, recipe) for number, recipe in enumerate(recipes) if answers[number] is None]
    if flag("dry_run", dry_run):
        return _estimate(chosen, pending, len(recipes), workers)

    for answer in answers:
        _check_names(cells, answer)
    done = len(recipes) - len(pending)
    try:
        for found in run(chosen, pending, executor, workers):
            for number, answer in found:
                _check_names(cells, answer)
                answers[number] = answer
            if kept is not None:
                kept.add({"key": keys[number], **answer} for number, answer in found)
            done += len(found)
            if progress is not None:
                progress(done, len(recipes))
    except KeyboardInterrupt:
        partial = _assembled(cells, answers, name, over, fixed)
        raise SweepInterrupted(partial, done, len(recipes), None if kept is None else str(kept.path)) from None
    if recipes and not any(answer and answer["values"] for answer in answers):
        raise InvalidInput(f"no cell of this sweep has a result: {next(a['reason'] for a in answers if a)}")
    result = _assembled(cells, answers, name, over, fixed)
    if kept is not None:
        kept.publish(result)
    return result


def _check_names(cells: Grid, answer: Answer | None) -> None:
    """Refuse a dimension or a swept name that is a result's: one of both would be lost."""
    results = {"reason", *(answer["values"] if answer else ())}
    for axis in cells.axes:
        if axis.name in results:
            raise InvalidInput(f"`measure` returns {axis.name!r}, which is swept; give its result another name")
        if axis.dimension in results:
            raise InvalidInput(f"`over[{axis.name!r}]` names its dimension {axis.dimension!r}, as a result; rename it")


def _key(measure: str, defaults: Mapping[str, Any], recipe: Recipe) -> str:
    """What a cell is kept under: equal for equal specs, however they came about."""
    from rotsim import __version__

    try:
        optimizer, gradient, settings = recipe.specs()
        content: Any = {"optimizer": optimizer, "gradient": gradient, "settings": {**defaults, **settings}}
    except ValueError:
        content = {"optimizer": recipe.kind.name, "values": dict(recipe.values)}
    return digest({"measure": measure, "rotsim": __version__, **content})


def _estimate(measure: Measure, pending: list[tuple[int, Recipe]], cells: int, workers: int) -> Estimate:
    """A few cells are timed. Where cells are computed together, as many as that are timed at once."""
    at_once = TIMED_TOGETHER if hasattr(measure, "together") else 1
    tried = random.Random(0).sample([recipe for _, recipe in pending], min(TIMED_CELLS * at_once + 1, len(pending)))
    seconds = []
    for part in [tried[:1], *(tried[start : start + at_once] for start in range(1, len(tried), at_once))]:
        started = time.perf_counter()
        evaluate(measure, part)
        seconds.append((time.perf_counter() - started) / max(1, len(part)))
    each = float(np.median(seconds[1:] or seconds or [0.0]))
    tracemalloc.start()
    answers = evaluate(measure, tried[-1:])
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    memory = len(answers) * cells * kept + workers * peak
    return Estimate(cells, cells - len(pending), each, workers, each * len(pending) / workers, memory)


def _assembled(
    cells: Grid, answers: list[Answer | None], measure: str, over: Mapping[str, Any], fixed: Mapping[str, Any]
) -> xr.Dataset:
    """One array for each number of the measure, over the dimensions of the grid and its own."""
    import xarray as xr

    from rotsim.dataset import provenance

    dimensions, shape = tuple(cells.shape), tuple(cells.shape.values())
    own: dict[str, tuple[str, ...]] = {}
    labels: dict[str, dict[Any, int]] = {}
    for answer in answers:
        for name, (dims, values) in (answer["values"] if answer else {}).items():
            own.setdefault(name, tuple(dims))
            if tuple(dims) == (name,):
                known = labels.setdefault(name, {})
                for value in values:
                    known.setdefault(value, len(known))
    order = {name: {value: place for place, value in enumerate(sorted(known))} for name, known in labels.items()}
    sizes = {dim: len(order[dim]) for dim in order}
    for answer in answers:
        for dims, values in answer["values"].values() if answer else ():
            for dim, length in zip(dims, np.shape(values), strict=True):
                if dim not in order:
                    sizes[dim] = max(sizes.get(dim, 0), length)
    arrays = {
        name: np.full((len(answers), *(sizes[dim] for dim in dims)), np.nan)
        for name, dims in own.items()
        if dims != (name,)
    }
    for number, answer in enumerate(answers):
        values = answer["values"] if answer else {}
        for name, (dims, value) in values.items():
            if name not in arrays:
                continue
            if not dims:
                arrays[name][number] = value
                continue
            places = [
                [order[dim][x] for x in values[dim][1]] if dim in order and dim in values else list(range(length))
                for dim, length in zip(dims, np.shape(value), strict=True)
            ]
            place: Any = (number, *np.ix_(*places))
            arrays[name][place] = np.asarray(value, dtype=float)
    result = xr.Dataset(
        {
            name: ((*dimensions, *own[name]), array.reshape((*shape, *array.shape[1:])))
            for name, array in arrays.items()
        },
        coords={
            **{axis.name: (axis.dimension, _column(axis.values)) for axis in cells.axes},
            **{dim: (dim, _column(tuple(places))) for dim, places in order.items()},
        },
    )
    reasons = [NOT_COMPUTED if answer is None else answer["reason"] for answer in answers]
    result["reason"] = dimensions, np.array(reasons, dtype=object).astype(str).reshape(shape)
    for name in result.data_vars:
        if (units := unit(str(name))) is not None and measure in MEASURES:
            result[name].attrs["units"] = units
    described = {
        "optimizer": cells.base.to_dict() if cells.base is not None else {"name": cells.kind.name},
        "gradient": cells.gradient.to_dict(),
        "over": {axis.name: [axis.dimension, list(axis.values)] for axis in cells.axes},
        "fixed": dict(fixed),
    }
    return result.assign_attrs(
        source="sweep", measure=measure, sweep=json.dumps(described, default=str), provenance=json.dumps(provenance())
    )


def _column(values: tuple[Any, ...]) -> np.ndarray:
    """Numbers as numbers, everything else by name."""
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values):
        numbers = np.array(values)
        if numbers.dtype.kind in "iuf":
            return numbers
    return np.array([shown(value) if not isinstance(value, str) else value for value in values])
