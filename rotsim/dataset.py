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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import files
from rotsim.errors import DatasetError, InvalidInput

if TYPE_CHECKING:
    import xarray as xr

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


@cache
def _versions() -> dict[str, str]:
    """Installed versions; looking them up takes as long as a short walk."""
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
        "optimizer": json.dumps(optimizer.to_dict()),
        "spec": json.dumps(dict(spec)),
        "provenance": json.dumps(provenance(**(provenance_extra or {}))),
    }
    import xarray as xr

    dataset = xr.Dataset(data, coords=coords, attrs=attrs)
    validate(dataset)
    return dataset


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Return `dataset` if it follows the schema, else raise `DatasetError` with what is missing."""
    if dataset.attrs.get("rotsim_schema") is None:
        raise DatasetError(
            "this is not a rotsim dataset: it has no `rotsim_schema` attribute; "
            "write datasets with rotsim.save, rotsim simulate --output or Recorder.save"
        )
    if int(dataset.attrs["rotsim_schema"]) > SCHEMA:
        raise DatasetError(
            f"the dataset has schema {dataset.attrs['rotsim_schema']}, this rotsim reads up to {SCHEMA}; upgrade rotsim"
        )
    missing = [name for name in QUANTITIES if name not in dataset] + [
        name for name in ("neuron", "step", "fan_in") if name not in dataset.coords
    ]
    if missing:
        raise DatasetError(f"the dataset lacks {', '.join(missing)}; a rotsim dataset has them all")
    if dataset.attrs.get("source") not in SOURCES:
        raise DatasetError(f"`source` must be one of {', '.join(SOURCES)}; got {dataset.attrs.get('source')!r}")
    return dataset


def optimizer_of(dataset: xr.Dataset) -> Optimizer:
    """The optimizer spec that a dataset was made with."""
    from rotsim.optimizers import optimizer_from_dict

    return optimizer_from_dict(json.loads(dataset.attrs["optimizer"]))


def spec_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Everything besides the optimizer that determined a dataset's numbers."""
    return dict(json.loads(dataset.attrs["spec"]))


def layer_name(name: str) -> str:
    """A parameter's name without the "weight" that says nothing, at its end or before a block of a split."""
    return re.sub(r"\.weight(?=$|\[| \()", "", name)


def gradient_series(dataset: xr.Dataset, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Gradient norms of a layer's sampled rows at every step kept, shape (rows, ticks), and the ticks.

    NaN where there was no gradient to measure; no rows if the dataset has none of the layer.
    """
    if "gradient_log2" not in dataset:
        return np.empty((0, 0)), np.empty(0, dtype=np.int64)
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
            raise DatasetError(f"{files.shown(path)} is no regular file; a dataset is one NetCDF-4 file")
    except (InvalidInput, OSError) as error:
        raise DatasetError(f"{files.shown(path)} cannot be read ({error}); check the path") from None
    if not is_file:
        raise DatasetError(f"no dataset at {files.shown(path)}; check the path")
    try:
        with target.open("rb") as file:
            return validate(netcdf.decode(file))
    except DatasetError as error:
        raise DatasetError(f"{files.shown(path)}: {error}") from None
    except Exception as error:  # h5py and xarray raise many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(
            f"{files.shown(path)} is not a readable NetCDF-4 file ({reason}); it is truncated or of another format"
        ) from None
