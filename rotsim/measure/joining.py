"""Two traces of one training, recorded one after the other, as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.errors import InvalidInput, integer
from rotsim.measure.quantities import ERAS, VARIABLES, WINDOW_RATES, variables_of, window_rates
from rotsim.measure.windows import Windows
from rotsim.schema import UNKNOWN

if TYPE_CHECKING:
    import xarray as xr

_MOST_TICKS = 1 << 15  # of the series that Lion needs, as a recorder keeps
_IN_TIME = ("step", "era", "tick")


def join(first: xr.Dataset, second: xr.Dataset, at: int | None = None, windows: int = 512) -> xr.Dataset:
    """The trace of a training that was interrupted: the second goes on where the first ends.

    Parameters
    ----------
    first, second : Dataset
        From `rotsim.measure.Recorder`, of layers that they have in common.
    at : int, optional
        Steps of the training before the first one of the second trace, >= 1. What the first recorded after them is left
        out: it was lost with the run. By default what the second says of itself, or else all that the first saw.
    windows : int
        Most windows to keep, ≥ 2 and even: neighbours are merged, as a recorder does.

    Returns
    -------
    Dataset
        The norm at the start is that of the first, what is in force at the end that of the second. A layer that one of
        them lacks is NaN there.

    Raises
    ------
    InvalidInput
        If they are no traces, of other layers or optimizers, or `at` leaves nothing of the first.
    """
    for name, trace in (("first", first), ("second", second)):
        dataset.validate(trace)
        if trace.attrs["source"] != "trace":
            raise InvalidInput(f"`{name}` must be a recorded trace; got a {trace.attrs['source']}")
        dataset.need(trace, "layer", "window_lr")
    check_joinable(first, rows_of(second), dataset.optimizer_of(second).label)
    before, after = dataset.spec_of(first), dataset.spec_of(second)
    start = int(second["initial_step"].min()) if "initial_step" in second else 0
    at = (start or int(before["steps"])) if at is None else integer("at", at, low=1)
    first = until(first, at)
    moved = [name for name in (*_IN_TIME, "initial_step") if name in second.coords]
    second = second.assign_coords({name: second[name] + (at - start) for name in moved})
    pair = _Pair(first, second)
    kept = _windows(pair, (int(before["window"]), int(after["window"])), integer("windows", windows, low=2))
    values, rates = kept.stacked()
    spec = _spec(before, after, at, at - start)
    result = dataset.build(
        "trace",
        step=np.array(kept.ends),
        variables=variables_of(values),
        optimizer=dataset.optimizer_of(second),
        layer=np.array([layer for layer, _ in pair.labels["neuron"]]),
        fan_in=pair.late("fan_in", "neuron").astype(np.int64),
        spec={**spec, "window": kept.window},
    ).assign_coords(
        lr=("neuron", pair.late("lr", "neuron")),
        weight_decay=("neuron", pair.late("weight_decay", "neuron")),
        parameter=pair.labels["parameter"],
    )
    result = result.assign(window_rates(rates))
    if "initial_norm" in first and "initial_norm" in second:
        result = result.assign_coords(
            initial_norm=("neuron", pair.early("initial_norm", "neuron")),
            initial_step=("neuron", pair.early("initial_step", "neuron").astype(np.int64)),
        )
    result = result.assign(_sampled(pair)).assign(_series(pair))
    result.attrs["provenance"] = second.attrs["provenance"]
    return dataset.validate(result)


def until(trace: xr.Dataset, step: int) -> xr.Dataset:
    """What a trace recorded up to a step, at least the end of its first window.

    Raises
    ------
    InvalidInput
        If nothing is left.
    """
    if step < int(trace["step"][0]):
        raise InvalidInput(
            f"`at` must be >= {int(trace['step'][0])}, the end of the first window, to leave anything of the first "
            f"trace; got {step}"
        )
    for dim in _IN_TIME:
        if dim in trace.dims:
            trace = trace.isel({dim: trace[dim].values <= step})
    return trace


def rows_of(trace: xr.Dataset) -> dict[str, tuple[int, int]]:
    """The number of neurons and the fan-in of every layer."""
    names, fan_in = trace["layer"].values.astype(str), trace["fan_in"].values
    found, firsts, counts = np.unique(names, return_index=True, return_counts=True)
    sizes = zip(found, firsts, counts, strict=True)
    return {str(name): (int(count), int(fan_in[at])) for name, at, count in sizes}


def check_joinable(earlier: xr.Dataset, layers: dict[str, tuple[int, int]], label: str) -> None:
    """Raise `InvalidInput` unless layers as of `rows_of`, under an optimizer of that label, go on from a trace."""
    known, was = rows_of(earlier), dataset.optimizer_of(earlier).label
    if was != label:
        raise InvalidInput(f"a trace of {was} cannot go on with {label}; record to another file")
    if not known.keys() & layers.keys():
        raise InvalidInput(
            f"the traces have no layer in common: {_few(known)} in the first, {_few(layers)} in the second"
        )
    for name in known.keys() & layers.keys():
        if known[name] != layers[name]:
            raise InvalidInput(
                "a layer must have the same neurons in both traces; {} is {} x {} in the first and {} x {} in the "
                "second. Record to another file".format(name, *known[name], *layers[name])
            )


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")


def _numbered(names: np.ndarray) -> list[tuple[str, int]]:
    """Every row as its layer and its place in it."""
    seen: dict[str, int] = {}
    found = []
    for name in names.tolist():
        seen[name] = seen.get(name, -1) + 1
        found.append((name, seen[name]))
    return found


class _Pair:
    """Two traces, and where each has the neurons, parameters and sampled rows of either."""

    def __init__(self, first: xr.Dataset, second: xr.Dataset) -> None:
        self.traces = (first, second)
        self.labels: dict[str, list[Any]] = {}
        self._places: dict[str, list[np.ndarray]] = {}
        for dim, name in (("neuron", "layer"), ("parameter", "parameter"), ("row", "row_layer")):
            found = [trace[name].values if name in trace else np.empty(0, dtype=str) for trace in self.traces]
            labels = [values.tolist() if dim == "parameter" else _numbered(values) for values in found]
            order = {label: i for i, label in enumerate(dict.fromkeys([*labels[0], *labels[1]]))}
            self.labels[dim] = list(order)
            self._places[dim] = [np.array([order[label] for label in each], dtype=int) for each in labels]

    def spread(self, which: int, values: np.ndarray, dim: str, fill: float = np.nan) -> np.ndarray:
        """Values of one trace, along their first axis `dim`, at the places that both share."""
        wide = np.full((len(self.labels[dim]), *values.shape[1:]), fill, dtype=np.result_type(values, type(fill)))
        wide[self._places[dim][which]] = values
        return wide

    def _both(self, name: str, dim: str) -> list[np.ndarray]:
        return [self.spread(i, trace[name].values, dim) for i, trace in enumerate(self.traces) if name in trace]

    def early(self, name: str, dim: str) -> np.ndarray:
        """What the first trace has, where it has it; else what the second has."""
        first, second = self._both(name, dim)
        return np.where(np.isnan(first), second, first)

    def late(self, name: str, dim: str) -> np.ndarray:
        """What the second trace has, where it has it; else what the first has."""
        first, second = self._both(name, dim)
        return np.where(np.isnan(second), first, second)


def _windows(pair: _Pair, lengths: tuple[int, int], most: int) -> Windows:
    """The windows of both, at the length of the longer ones."""
    joined = Windows(max(lengths), most)
    for which, (trace, length) in enumerate(zip(pair.traces, lengths, strict=True)):
        nothing = np.full(trace["norm"].shape, np.nan, dtype=np.float32)
        values = [trace[name].values if name in trace else nothing for name in VARIABLES]
        records = np.stack([pair.spread(which, each, "neuron") for each in values])
        absent = np.full((trace.sizes["parameter"], trace.sizes["step"]), np.nan)
        held = [trace[f"window_{name}"].values if f"window_{name}" in trace else absent for name in WINDOW_RATES]
        rates = np.stack([pair.spread(which, each, "parameter") for each in held])
        part = Windows(length, trace.sizes["step"] + 1)
        for i, end in enumerate(trace["step"].values.tolist()):
            part.add(end, records[:, :, i], rates[:, :, i])
        part.coarsen(max(lengths))
        joined.extend(part)
    return joined


def _sampled(pair: _Pair) -> dict[str, Any]:
    """Statistics of sampled gradients in at most `ERAS` parts of the run, and over its last half."""
    if not all("era_autocorrelation" in trace for trace in pair.traces):
        return {}
    lags = min(trace.sizes["lag"] for trace in pair.traces)
    ends = np.concatenate([trace["era"].values for trace in pair.traces])
    if not len(ends):
        return {}
    starts = [int(trace["initial_step"].min()) if "initial_step" in trace else 0 for trace in pair.traces]
    lengths = np.concatenate(
        [np.diff(trace["era"].values, prepend=start) for trace, start in zip(pair.traces, starts, strict=True)]
    ).astype(float)
    part = np.ceil((ends - starts[0]) / (ends[-1] - starts[0]) * ERAS).astype(int)
    late = ends > (ends[-1] + starts[0]) / 2
    groups = [part == number for number in dict.fromkeys(part.tolist())]
    found: dict[str, Any] = {"lag": np.arange(lags), "era": ends[[np.flatnonzero(group)[-1] for group in groups]]}
    for whole, of_eras, dims in (
        ("gradient_autocorrelation", "era_autocorrelation", ("lag",)),
        ("square_step", "era_square_step", ()),
    ):
        if not all(of_eras in trace for trace in pair.traces):
            continue
        held = [trace[of_eras] for trace in pair.traces]
        held = [each.isel(lag=slice(lags)) if "lag" in each.dims else each for each in held]
        table = np.concatenate([pair.spread(i, each.values, "parameter") for i, each in enumerate(held)], axis=1)
        means = [_mean(table[:, group], lengths[group]) for group in groups]
        # what the first era is worth, its attributes tell
        found[of_eras] = (("parameter", "era", *dims), np.stack(means, axis=1), held[0].attrs)
        found[whole] = (("parameter", *dims), _mean(table[:, late], lengths[late]), pair.traces[1][whole].attrs)
    return found


def _mean(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the second axis, NaN counting for nothing."""
    weight = weights.reshape(1, -1, *[1] * (table.ndim - 2)) * np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return (np.nansum(table * weight, axis=1) / weight.sum(axis=1)).astype(table.dtype)


def _series(pair: _Pair) -> dict[str, Any]:
    """Gradient norms of single steps, as far back as a recorder keeps them; unknown between the two traces."""
    held = [(i, trace) for i, trace in enumerate(pair.traces) if "gradient_log2" in trace and trace.sizes["tick"]]
    if not held:
        return {}
    ticks = np.arange(min(int(t["tick"][0]) for _, t in held), max(int(t["tick"][-1]) for _, t in held) + 1)[
        -_MOST_TICKS:
    ]
    table = np.full((len(pair.labels["row"]), len(ticks)), UNKNOWN, dtype=np.int16)
    for which, trace in held:
        here = trace.isel(tick=trace["tick"].values >= ticks[0])
        codes = pair.spread(which, here["gradient_log2"].values, "row", UNKNOWN)
        known = codes != UNKNOWN
        table[:, here["tick"].values - ticks[0]] = np.where(known, codes, table[:, here["tick"].values - ticks[0]])
    overlaps = [pair.spread(i, trace["gradient_overlap"].values, "row") for i, trace in held]
    overlap = np.where(np.isnan(overlaps[-1]), overlaps[0], overlaps[-1])
    return {
        "tick": ticks,
        "row_layer": ("row", np.array([layer for layer, _ in pair.labels["row"]])),
        "gradient_log2": (("row", "tick"), table, held[-1][1]["gradient_log2"].attrs),
        "gradient_overlap": ("row", overlap.astype(np.float32)),
    }


def _spec(before: dict[str, Any], after: dict[str, Any], at: int, shift: int) -> dict[str, Any]:
    """Of the whole run: what changed, left or was changed outside in either part; steps of the second are moved."""
    steps = int(after["steps"]) + shift
    left = {name: step + shift for name, step in after.get("left", {}).items()}
    after = {**after, "left": left}
    spec = {**before, **after, "steps": steps}
    for name in ("changed_outside", "absent"):
        parts = before.get(name, {}), after.get(name, {})
        spec[name] = {
            key: (parts[0].get(key, 0.0) * at + parts[1].get(key, 0.0) * (steps - at)) / steps
            for key in {**parts[0], **parts[1]}
        }
    for name in ("layers", "dtypes", "optimizers", "left"):
        spec[name] = {**before.get(name, {}), **after.get(name, {})}
    back = [name for name in spec["left"] if name in after.get("layers", {}) and name not in after.get("left", {})]
    spec["left"] = {name: step for name, step in spec["left"].items() if name not in back}
    changed = {name: dict(last) for name, last in before.get("changed", {}).items()}
    for name, last in after.get("changed", {}).items():
        changed.setdefault(name, {}).update({rate: step + shift for rate, step in last.items()})
    spec["changed"] = changed
    flags = {key for key in spec if key.endswith("_changed")}
    return spec | {key: bool(before.get(key) or after.get(key)) for key in flags}
