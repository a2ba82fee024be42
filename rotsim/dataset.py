"""The one dataset schema shared by predictions, simulations and traces of real networks.

An `xarray.Dataset` with dimensions ``(neuron, step)``; ``step`` is the last step of a record
window (steps count from 1: step t turns w_{t-1} into w_t).

========================  ==================  =====================================================
name                      dims                meaning
========================  ==================  =====================================================
``norm``                  (neuron, step)      RMS of ‖w_t‖ over the window
``rotation``              (neuron, step)      RMS of the angle between w_{t-1} and w_t, radians
``update_rms``            (neuron, step)      RMS of ‖w_t - w_{t-1}‖ over the window
``gradient_norm``         (neuron, step)      RMS of ‖g_t‖ (traces)
``gradient_scale``        (neuron, step)      RMS of ‖g_t‖·‖w_{t-1}‖, i.e. ‖g̃‖ at unit norm (traces)
``gradient_cosine``       (neuron, step)      RMS of ⟨w, g⟩/(‖w‖‖g‖), 0 for scale-invariant weights (traces)
``gradient_burst``        (neuron, step)      mean of ‖g̃‖⁴ over the square of the mean of ‖g̃‖², at least 1 (traces)
``active``                (neuron, step)      share of sampled steps with a nonzero gradient (traces)
``radial``                (neuron, step)      mean ⟨w, ĝ⟩ over mean ‖w‖², ĝ the gradient as the optimizer scales it
``gradient_autocorrelation``  (parameter, lag)  of sampled gradient coordinates, ``lag`` in steps (traces)
``window_lr``, ``window_weight_decay``  (parameter, step)  last in force in each window (traces)
``square_step``           (parameter,)        mean (m/√v)² of those coordinates (AdamW), or mean m² over mean g² (SGDM)
``gradient_log2``         (row, tick)         log2 of ‖g_t‖ of some rows of ``row_layer`` at every step ``tick``, in
                                              eighths, 16-bit; `gradient_series` reads it (traces of Lion)
``gradient_overlap``      (row,)              mean squared cosine of their gradients some steps apart
``layer``, ``fan_in``     (neuron,)           coordinates: parameter name, length of the weight vector
========================  ==================  =====================================================

One NetCDF-4 file per dataset (`rotsim.netcdf`), complete or absent (`rotsim.files`). Attributes are strings and JSON;
nothing is ever unpickled.
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
from rotsim.errors import DatasetError, InvalidInput, is_a, shown, shown_error

if TYPE_CHECKING:
    import xarray as xr

    from rotsim.gradients import Gradient
    from rotsim.optimizers.base import Optimizer

SCHEMA = 1
PER_OCTAVE = 8  # of gradient_log2: norms to within 4.4 %
NO_GRADIENT, UNKNOWN = -(1 << 15), (1 << 15) - 1  # its values for a norm of 0, and for none
SOURCES = ("prediction", "simulation", "trace")
QUANTITIES = ("norm", "rotation", "update_rms")
LABELS = {
    "norm": ("RMS weight norm", "1"),
    "rotation": ("RMS angle between consecutive weights", "rad"),
    "update_rms": ("RMS norm of the weight change", "1"),
    "gradient_norm": ("RMS gradient norm", "1"),
    "gradient_scale": ("RMS gradient norm times weight norm", "1"),
    "gradient_cosine": ("RMS cosine of the angle between gradient and weights", "1"),
    "gradient_burst": ("mean fourth power of the gradient scale over its squared mean square", "1"),
    "radial": ("radial projection of the preconditioned gradient", "1"),
    "active": ("share of sampled steps with a nonzero gradient", "1"),
}

_PER_WINDOW, _PER_NEURON = ("neuron", "step"), ("neuron",)
# dimensions and type of every variable that rotsim knows, if it is there; a dataset may hold others
FORMS: dict[str, tuple[tuple[str, ...], type]] = {
    **dict.fromkeys(LABELS, (_PER_WINDOW, float)),
    "neuron": (_PER_NEURON, int),
    "step": (("step",), int),
    "fan_in": (_PER_NEURON, int),
    "layer": (_PER_NEURON, str),
    "lr": (_PER_NEURON, float),
    "weight_decay": (_PER_NEURON, float),
    "parameter": (("parameter",), str),
    "window_lr": (("parameter", "step"), float),
    "window_weight_decay": (("parameter", "step"), float),
    "square_step": (("parameter",), float),
    "gradient_autocorrelation": (("parameter", "lag"), float),
    "row_layer": (("row",), str),
    "tick": (("tick",), int),
    "gradient_log2": (("row", "tick"), int),
    "gradient_overlap": (("row",), float),
    "state": (("neuron", "slot", "coordinate"), float),
    "norm_squared": (_PER_NEURON, float),
    "open_window": (("neuron", "quantity"), float),
}
# likewise of the entries of `spec`: the type of each, and of what it holds
_SPEC_TYPES: dict[str, tuple[type, type | tuple[type, ...]]] = {
    "dim": (int, ()),
    "neurons": (int, ()),
    "steps": (int, ()),
    "gradient": (dict, object),
    "engine": (str, ()),
    "layers": (dict, list),
    "dtypes": (dict, str),
    "skipped": (dict, str),
    "left": (dict, int),
    "changed": (dict, dict),
    "changed_outside": (dict, (int, float)),
    "scale_invariant_layers": (list, str),
}


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


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Check that a dataset follows the schema.

    Parameters
    ----------
    dataset : Dataset

    Returns
    -------
    Dataset
        The same.

    Raises
    ------
    DatasetError
        If a variable or attribute that every dataset has is absent. If one that rotsim knows has other dimensions,
        another kind of values or another type. If steps do not increase, or there are none.
    """
    _check_schema(_attributes(dataset).get("rotsim_schema"))
    missing = [name for name in QUANTITIES if name not in dataset] + [
        name for name in ("neuron", "step", "fan_in") if name not in dataset.coords
    ]
    if missing:
        raise DatasetError(f"the dataset lacks {', '.join(missing)}; a rotsim dataset has them all")
    source = dataset.attrs.get("source")
    if not isinstance(source, str) or source not in SOURCES:
        raise DatasetError(f"`source` must be one of {', '.join(SOURCES)}; got {shown(source)}")
    for name, (dims, kind) in FORMS.items():
        if name not in dataset.variables:
            continue
        variable = dataset.variables[name]
        if variable.dims != dims:
            raise DatasetError(f"`{name}` must have dimensions {dims}; got {variable.dims}")
        if not _is_of(kind, variable.values):
            raise DatasetError(f"`{name}` must hold values of type {kind.__name__}; got {variable.dtype}")
    if not all(dataset.sizes[dim] for dim in _PER_WINDOW):
        raise DatasetError(f"a dataset must have neurons and steps; got {dict(dataset.sizes)}")
    step = dataset["step"].values
    if step[0] < 1 or not (step[1:] > step[:-1]).all():
        raise DatasetError(f"`step` must be >= 1 and increase; got {shown(step.tolist())}")
    if not (dataset["fan_in"].values >= 1).all():
        raise DatasetError(f"`fan_in` must be >= 1; got {dataset['fan_in'].values.min()}")
    spec = _json_of(dataset, "spec")
    for name, (outer, inner) in _SPEC_TYPES.items():
        value = spec.get(name, outer())
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if type(value) is not outer or not all(isinstance(entry, inner) for entry in entries):
            raise DatasetError(f"`{name}` in attribute `spec` is damaged: {shown(value)}")
    _json_of(dataset, "optimizer")
    _json_of(dataset, "provenance")
    return dataset


def _check_schema(schema: Any) -> None:
    if schema is None:
        raise DatasetError(
            "this is not a rotsim dataset: it has no `rotsim_schema` attribute; "
            "write datasets with rotsim.save, rotsim simulate --output or Recorder.save"
        )
    number = schema.item() if is_a(schema, np.ndarray, np.generic) and schema.size == 1 else schema
    if type(number) is not int or number < 1:
        raise DatasetError(f"attribute `rotsim_schema` must be a whole number >= 1; got {shown(schema)}")
    if number > SCHEMA:
        raise DatasetError(f"the dataset has schema {number}, this rotsim reads up to {SCHEMA}; upgrade rotsim")


def _is_of(kind: type, values: np.ndarray) -> bool:
    if kind is str:
        return values.dtype.kind in "UT" or all(isinstance(entry, str) for entry in values.ravel())
    return values.dtype.kind in ("iu" if kind is int else "f")


def _attributes(dataset: Any) -> dict[Any, Any]:
    import xarray as xr

    if not is_a(dataset, xr.Dataset):
        raise DatasetError(f"{shown(dataset)} is no dataset; give one from rotsim.simulate, predict or load")
    attributes: dict[Any, Any] = dataset.attrs
    return attributes


def _json_of(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """An attribute that holds a JSON object."""
    text = _attributes(dataset).get(name)
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise DatasetError(f"attribute `{name}` must be a JSON object; got {shown(text)}")
    return content


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


def optimizer_of(dataset: xr.Dataset) -> Optimizer:
    """The optimizer spec that a dataset was made with; `DatasetError` if its attribute describes none."""
    from rotsim.optimizers import optimizer_from_dict

    try:
        return optimizer_from_dict(_json_of(dataset, "optimizer"))
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
    return _Spec(_json_of(dataset, "spec"))


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
