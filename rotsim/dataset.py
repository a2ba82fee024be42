"""The one kind of dataset that predictions, simulations and traces of real networks are: made, saved, read, asked.

`rotsim.schema` says what is in it. It is one NetCDF-4 file (`rotsim.netcdf`), complete or absent (`rotsim.files`).
Attributes are strings and JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import files
from rotsim.errors import DatasetError, InvalidInput, shown_error
from rotsim.schema import FORMS as FORMS
from rotsim.schema import LABELS, NO_GRADIENT, PER_OCTAVE, SCHEMA, UNKNOWN, json_of, validate
from rotsim.schema import QUANTITIES as QUANTITIES

if TYPE_CHECKING:
    import xarray as xr

    from rotsim.gradients import Gradient
    from rotsim.optimizers.base import Optimizer


@cache
def _versions() -> dict[str, str]:
    """Installed versions; looking them up takes as long as a short walk."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("rotsim", "numpy", "numba", "xarray", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def provenance(**extra: Any) -> dict[str, Any]:
    """Versions, platform and time: what is needed to tell two runs apart."""
    return {
        "versions": dict(_versions()),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }


def json_text(name: str, value: Any) -> str:
    """`value` as JSON, or `InvalidInput` that says what in it JSON has no form for."""
    try:
        return json.dumps(value)
    except Exception as error:  # TypeError, ValueError, RecursionError, or what an object of the caller raises
        raise InvalidInput(
            f"`{name}` must be JSON-serialisable ({shown_error(error)}); use strings, numbers, lists"
        ) from None


def build(
    source: str,
    *,
    step: np.ndarray,
    variables: Mapping[str, np.ndarray],
    optimizer: Optimizer,
    layer: np.ndarray | None = None,
    fan_in: np.ndarray | int,
    spec: Mapping[str, Any],
    provenance_extra: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Assemble a dataset in the schema above.

    Parameters
    ----------
    source : {"prediction", "simulation", "trace"}
    step : ndarray of int, shape (windows,)
        Last step of each window, increasing.
    variables : mapping of name to ndarray, each of shape (neurons, windows)
        At least ``norm``, ``rotation`` and ``update_rms``.
    optimizer : Optimizer
        The spec in force.
    layer : ndarray of str, shape (neurons,), optional
    fan_in : int or ndarray of int, shape (neurons,)
    spec : mapping
        Everything else that determines the numbers (gradient, seed, window, ...); JSON-serialisable.
    provenance_extra : mapping, optional
        Anything worth keeping that does not determine the numbers (device, command, ...).

    Raises
    ------
    InvalidInput
        If `spec` or the provenance is no JSON.
    DatasetError
        If the result does not follow the schema.
    """
    neurons = next(iter(variables.values())).shape[0]
    data = {
        name: (("neuron", "step"), values, dict(zip(("long_name", "units"), LABELS[name], strict=True)))
        for name, values in variables.items()
    }
    coords: dict[str, Any] = {
        "neuron": np.arange(neurons),
        "step": np.asarray(step, dtype=np.int64),
        "fan_in": ("neuron", np.broadcast_to(np.asarray(fan_in, dtype=np.int64), (neurons,)).copy()),
    }
    if layer is not None:
        coords["layer"] = ("neuron", np.asarray(layer, dtype=str))
    attrs = {
        "rotsim_schema": SCHEMA,
        "source": source,
        "optimizer": json_text("optimizer", optimizer.to_dict()),
        "spec": json_text("spec", dict(spec)),
        "provenance": json_text("provenance", provenance(**(provenance_extra or {}))),
    }
    import xarray as xr

    dataset = xr.Dataset(data, coords=coords, attrs=attrs)
    validate(dataset)
    return dataset


class _Spec(dict[str, Any]):
    """A dataset's spec; what it lacks is an error of the dataset."""

    def __missing__(self, key: str) -> Any:
        raise DatasetError(f"the dataset's `spec` lacks {key!r}; write the dataset again with this rotsim")


def need(dataset: xr.Dataset, *names: str) -> xr.Dataset:
    """Return `dataset` if it holds all these variables, which the schema leaves optional; else raise `DatasetError`."""
    if missing := [name for name in names if name not in dataset.variables]:
        raise DatasetError(
            f"the {dataset.attrs['source']} lacks {', '.join(missing)}, which rotsim.measure.Recorder writes; "
            "record it again"
        )
    return dataset


def forgotten_rates(trace: xr.Dataset) -> str:
    """Rates that changed in training while the trace does not say how, in words; empty if none did."""
    spec = spec_of(trace)
    words = {"lr": "learning rate", "weight_decay": "weight decay"}
    known = {"lr"} if spec.get("schedule") else set()
    lost = [
        word
        for name, word in words.items()
        if spec.get(f"{name}_changed") and f"window_{name}" not in trace and name not in known
    ]
    return " and ".join(lost)


def completed(trace: xr.Dataset) -> xr.Dataset:
    """A trace with what `rotsim.measure.Recorder` always writes, where it lacks that because another program made it.

    Parameters
    ----------
    trace : Dataset
        That follows the schema.

    Returns
    -------
    Dataset
        Neurons are of one layer "all" and have the optimizer's rates. They count as alive wherever their norm is known.
        The gradient's size is taken as 1 under an optimizer that no size moves, and is not known under others.
    """
    optimizer, known = optimizer_of(trace), np.isfinite(trace["norm"].values)
    normalised = optimizer.plain.decay != "coupled" and optimizer.plain.shape != "identity"
    per_neuron = {"layer": "all", "lr": optimizer.lr, "weight_decay": optimizer.weight_decay}
    per_window = {"gradient_norm": np.nan, "gradient_scale": 1.0 if normalised else np.nan}
    coords = {name: ("neuron", np.full(len(known), value)) for name, value in per_neuron.items()}
    values = {name: (("neuron", "step"), np.where(known, value, np.nan)) for name, value in per_window.items()}
    values["active"] = ("neuron", "step"), known.astype(float)
    return trace.assign_coords({name: value for name, value in coords.items() if name not in trace.variables}).assign(
        {name: value for name, value in values.items() if name not in trace.variables}
    )


def optimizer_of(dataset: xr.Dataset, layer: str | None = None) -> Optimizer:
    """The optimizer spec that a dataset, or one layer of it, was made with.

    Parameters
    ----------
    dataset : Dataset
    layer : str, optional
        One of its ``layer``; parameter groups may follow rules of their own.

    Returns
    -------
    Optimizer

    Raises
    ------
    DatasetError
        If its attribute describes none.
    """
    from rotsim.optimizers import optimizer_from_dict

    others = {} if layer is None else json_of(dataset, "spec").get("optimizers", {})
    try:
        return optimizer_from_dict(others.get(str(layer).split("[")[0]) or json_of(dataset, "optimizer"))
    except InvalidInput as error:
        raise DatasetError(f"attribute `optimizer` describes no optimizer: {error}") from None


def gradient_of(dataset: xr.Dataset) -> Gradient:
    """The gradient model that a simulation or prediction was made with; `DatasetError` if its spec describes none."""
    from rotsim.gradients import gradient_from_dict

    try:
        return gradient_from_dict(spec_of(dataset)["gradient"])
    except InvalidInput as error:
        raise DatasetError(f"`gradient` in attribute `spec` describes no gradients: {error}") from None


def spec_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Everything besides the optimizer that determined a dataset's numbers; an absent key is a `DatasetError`."""
    return _Spec(json_of(dataset, "spec"))


def initial_description(initial_norm: Any, initial_weights: Any) -> str:
    """Identifies the initial weights in a dataset's spec."""
    if initial_weights is not None:
        return "weights " + sha256(np.ascontiguousarray(initial_weights).tobytes()).hexdigest()
    norm = np.asarray(initial_norm, dtype=np.float64)
    return f"norm {float(norm)!r}" if norm.ndim == 0 else "norms " + sha256(norm.tobytes()).hexdigest()


def layer_name(name: str) -> str:
    """A parameter's name without the "weight" that says nothing, at its end or before a block of a split."""
    return re.sub(r"\.weight(?=$|\[| \()", "", name)


def gradient_series(dataset: xr.Dataset, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Gradient norms of a layer's sampled rows at every step kept, shape (rows, ticks), and the ticks.

    NaN where there was no gradient to measure; no rows if the dataset has none of the layer.
    """
    if "gradient_log2" not in dataset:
        return np.empty((0, 0)), np.empty(0, dtype=np.int64)
    need(dataset, "row_layer", "tick")
    codes = dataset["gradient_log2"].values[dataset["row_layer"].values == layer]
    powers = np.where(codes == NO_GRADIENT, -np.inf, np.where(codes == UNKNOWN, np.nan, codes / PER_OCTAVE))
    return np.exp2(powers), dataset["tick"].values


def save(dataset: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a dataset as one NetCDF-4 file, atomically.

    Parameters
    ----------
    dataset : Dataset
        From `rotsim.simulate`, `rotsim.predict` or a `rotsim.measure.Recorder`.
    path : str or Path
        Replaced if it exists; see `rotsim.files.check_writable`.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    DatasetError
        If `dataset` does not follow the schema.
    InvalidInput
        If `path` cannot be written.
    OSError
        If the disk is full or fails; a file that was there is unchanged.
    """
    from rotsim import netcdf

    validate(dataset)
    files.check_writable(path)
    return files.write_atomically(path, netcdf.encode(dataset))


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a dataset that `save` wrote, fully into memory.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Dataset
        As saved: ``norm``, ``rotation`` (radians) and ``update_rms`` with dims (neuron, step), spec and provenance in
        its attributes.

    Raises
    ------
    DatasetError
        If the file is absent, damaged, of another format, not in the schema, or needs more memory than there is.

    Notes
    -----
    `save` writes a digest of the file at its end, and one flipped bit is refused. A file without one is read too, from
    an earlier version or changed by another program. What a file may hold is bounded before it is read: no links,
    no parts in other files, no more data than its bytes can hold or half of the available memory
    (`rotsim.netcdf`).
    """
    from rotsim import netcdf

    try:
        target = files.resolved(path)
        is_file = target.is_file()
        if not is_file and target.exists():
            raise DatasetError(f"{files.quoted(path)} is no regular file; a dataset is one NetCDF-4 file")
    except InvalidInput as error:
        raise DatasetError(f"no dataset can be read: {error}") from None
    except OSError as error:
        raise DatasetError(f"{files.quoted(path)} cannot be read ({files.reason(error)}); check the path") from None
    if not is_file:
        raise DatasetError(f"no dataset at {files.quoted(path)}; check the path")
    try:
        with target.open("rb") as file:
            return validate(netcdf.decode(file))
    except DatasetError as error:
        raise DatasetError(f"{files.quoted(path)}: {error}") from None
    except Exception as error:  # h5py and xarray raise many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{files.quoted(path)} is not a readable NetCDF-4 file ({reason}); it is truncated or of another format"
        ) from None
