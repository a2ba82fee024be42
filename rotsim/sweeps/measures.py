"""What a sweep can compute in a cell: functions of an optimizer spec, whose keywords are the settings of a sweep.

A measure takes the spec, ``dim`` and ``gradient`` if it wants them, and settings of its own with defaults. It returns
numbers by name, or a `Dataset`. Its attribute ``together``, if it has one, answers for many cells at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.errors import INT64, InvalidInput, NoEquilibrium, choice, integer, registered, shown
from rotsim.gradients import Gradient
from rotsim.optimizers import Optimizer

if TYPE_CHECKING:
    import xarray as xr

Measure = Callable[..., Any]

DIM = 1024  # weights of a neuron, where nothing else is said

UNITS = {
    "norm": "1",
    "rotation": "rad",
    "update_rms": "1",
    "relaxation_steps": "steps",
    "model_error": "1",
}  # units of a quantity, and of every name that begins with it
QUANTITIES = tuple(UNITS)


def equilibrium(
    optimizer: Optimizer, dim: int = DIM, gradient: Gradient | None = None, rows: int | None = None
) -> dict[str, float]:
    """Norm, rotation, update size and time scale in equilibrium, by the exact theory."""
    return _at_rest(optimizer, dim, gradient, "exact", rows)


def leading(
    optimizer: Optimizer, dim: int = DIM, gradient: Gradient | None = None, rows: int | None = None
) -> dict[str, float]:
    """The same by the paper's leading-order formulas."""
    return _at_rest(optimizer, dim, gradient, "leading", rows)


def predict(
    optimizer: Optimizer,
    dim: int = DIM,
    gradient: Gradient | None = None,
    steps: int = 20_000,
    initial_norm: float = 1.0,
    schedule: str = "constant",
    warmup: int = 0,
    final: float = 0.0,
    windows: int = 20,
    rows: int | None = None,
) -> xr.Dataset:
    """The expected course under a schedule, in windows of equal length over the run.

    Runs of different length stand side by side, since windows are named by the share of the run at their end.
    """
    from rotsim.schedules import named
    from rotsim.theory.prediction import predict

    steps, windows = integer("steps", steps, low=1), integer("windows", windows, low=1)
    window = -(-steps // min(windows, steps))
    course = predict(
        optimizer, dim, gradient, steps, initial_norm, named(schedule, steps, warmup, final),
        record_every=window, rows=rows,
    )  # fmt: skip
    kept = course[list(dataset.QUANTITIES)].isel(neuron=0, drop=True)
    share = np.round(kept["step"].values / (window * windows), 12)
    return kept.drop_vars([n for n in kept.coords if n != "step"]).assign_coords(step=share).rename(step="run_share")


def simulate(
    optimizer: Optimizer,
    dim: int = DIM,
    gradient: Gradient | None = None,
    neurons: int = 64,
    steps: int = 20_000,
    seed: int = 0,
    initial_norm: float = 1.0,
    schedule: str = "constant",
    warmup: int = 0,
    final: float = 0.0,
    rows: int | None = None,
) -> dict[str, float]:
    """Walk on one core; RMS over the windows that are stationary, each with its standard error."""
    from rotsim.schedules import named
    from rotsim.simulation import simulate
    from rotsim.statistics import equilibration, root_mean_square

    steps = integer("steps", steps, low=1)
    walk = simulate(
        optimizer, dim, neurons, steps, gradient, seed, initial_norm,
        record_every=max(1, steps // 200), lr_schedule=named(schedule, steps, warmup, final), threads=1,
        rows=rows,
    )  # fmt: skip
    series = {name: walk[name].values for name in dataset.QUANTITIES}
    settled = equilibration(walk["step"].values, [x**2 for x in series.values()], True, 0.0)
    if not settled.reached:
        raise NoEquilibrium(f"the walk is not in equilibrium after {steps} steps: {settled.reason}")
    found: dict[str, float] = {}
    for name, values in series.items():
        estimate = root_mean_square(values[:, settled.start :], True)
        found[name], found[f"{name}_standard_error"] = estimate.value, estimate.standard_error
    return found


def error(
    optimizer: Optimizer,
    dim: int = DIM,
    gradient: Gradient | None = None,
    of: str = "leading",
    neurons: int = 64,
    steps: int = 20_000,
    seed: int = 0,
    rows: int | None = None,
) -> dict[str, float]:
    """Relative distance from the exact theory: of the leading order, or of a simulation with its standard error."""
    choice("of", of, ("leading", "simulation"))
    exact = equilibrium(optimizer, dim, gradient, rows)
    if of == "leading":
        other = leading(optimizer, dim, gradient, rows)
    else:
        other = simulate(optimizer, dim, gradient, neurons, steps, seed, initial_norm=exact["norm"], rows=rows)
    found: dict[str, float] = {}
    for name in dataset.QUANTITIES:
        found[f"{name}_error"] = other[name] / exact[name] - 1
        if of == "simulation":
            found[f"{name}_standard_error"] = other[f"{name}_standard_error"] / exact[name]
    return found | {"model_error": exact["model_error"]}


def _together(method: Any, cells: Sequence[tuple[Optimizer, dict[str, Any]]]) -> list[dict[str, float] | None]:
    """`equilibrium` or `leading` of many cells; None for those that have to be asked alone."""
    from rotsim.theory.together import of_specs

    found: list[dict[str, float] | None] = [None] * len(cells)
    groups: dict[Any, list[int]] = {}
    for number, (_, settings) in enumerate(cells):
        dim = settings.get("dim", DIM)
        if isinstance(dim, int | np.integer) and 2 <= dim < INT64 and settings.get("rows") is None:
            with suppress(TypeError):  # a gradient that is made of arrays has no text
                groups.setdefault(settings["gradient"], []).append(number)
    for gradient, numbers in groups.items():
        dims = np.array([cells[number][1].get("dim", DIM) for number in numbers])
        values = of_specs([cells[number][0] for number in numbers], dims, gradient, method)
        columns = [values[name].tolist() for name in QUANTITIES]
        for number, row in zip(numbers, zip(*columns, strict=True), strict=True):
            if row[0] == row[0] or row[1] == row[1]:
                found[number] = dict(zip(QUANTITIES, row, strict=True))
    return found


for _measure, _method in ((equilibrium, "exact"), (leading, "leading")):
    _measure.together = partial(_together, _method)  # type: ignore[attr-defined]

MEASURES: dict[str, Measure] = {
    measure.__name__: measure for measure in (equilibrium, leading, predict, simulate, error)
}


def measure_of(given: Any) -> tuple[str, Measure]:
    """A measure and what stands for it in the key of a cell: its name, or a digest of its code."""
    if not callable(given):
        measure = registered("measure", given, MEASURES)
        return str(given), measure
    try:
        code = inspect.getsource(given)
    except (OSError, TypeError):
        code = repr(getattr(given, "__code__", given))
    name = f"{getattr(given, '__module__', '')}.{getattr(given, '__qualname__', type(given).__name__)}"
    return f"{name}:{sha256(code.encode()).hexdigest()[:16]}", given


def settings_of(measure: Measure) -> dict[str, Any]:
    """What a measure takes besides the spec, with defaults: the names that can be swept or fixed for it."""
    try:
        parameters = list(inspect.signature(measure).parameters.values())
    except (TypeError, ValueError):
        raise InvalidInput("`measure` must be a function with a signature, of an optimizer spec") from None
    if not parameters or parameters[0].kind in (parameters[0].KEYWORD_ONLY, parameters[0].VAR_KEYWORD):
        raise InvalidInput("`measure` must take an optimizer spec as its first argument")
    return {p.name: p.default for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def described(result: Any) -> dict[str, tuple[tuple[str, ...], Any]]:
    """The result of a measure as arrays by name, each with its dimensions; coordinates of dimensions among them."""
    if hasattr(result, "data_vars"):
        variables = {**result.data_vars, **{name: result.coords[name] for name in result.dims if name in result.coords}}
        return {str(name): (tuple(map(str, found.dims)), found.values.tolist()) for name, found in variables.items()}
    if hasattr(result, "to_dict"):
        result = result.to_dict()
    if not isinstance(result, Mapping):
        result = {"value": result}
    numbers: dict[str, tuple[tuple[str, ...], Any]] = {}
    for name, value in result.items():
        if isinstance(value, str):
            continue
        try:
            numbers[str(name)] = ((), float(value))
        except (TypeError, ValueError):
            raise InvalidInput(
                f"`measure` must return numbers by name, or a Dataset; got {type(value).__name__} for {name!r}"
            ) from None
    if not numbers:
        raise InvalidInput(f"`measure` must return numbers by name, or a Dataset; got no number: {shown(result)}")
    return numbers


def unit(name: str) -> str | None:
    """The unit of a variable of the measures here, by the quantity that its name begins with; errors have none."""
    if name.endswith("_error") and not name.endswith("standard_error"):
        return "1"
    return next((unit for quantity, unit in UNITS.items() if name.startswith(quantity)), None)


def _at_rest(
    optimizer: Optimizer, dim: int, gradient: Gradient | None, method: Any, rows: int | None
) -> dict[str, float]:
    from rotsim.theory.equilibrium import equilibrium

    found = equilibrium(optimizer, dim, gradient, method, rows)
    return {name: float(getattr(found, name)) for name in QUANTITIES}
