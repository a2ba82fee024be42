"""What a walk carries from step to step: fresh, or taken from the dataset of an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.errors import DatasetError, InvalidInput
from rotsim.noise import INITIAL_WEIGHTS_STREAM, neuron_keys, normals, places

if TYPE_CHECKING:
    import xarray as xr

DRAWN_AT_ONCE = 1 << 20  # coordinates drawn at once
SLOTS = 3  # weights, first and second moment; what else an engine carries follows

_VARIABLES = ("state", "norm_squared", "open_window")
_MOMENTS = "sums of AdamW and Adam+L2, averages of others"  # slots of another kind cannot be gone on with


@dataclass
class State:
    """Everything the walk carries from step to step.

    Attributes
    ----------
    done : int
        Steps done.
    slots : ndarray, shape (neurons, rows, length)
        Weights, first and second moment, and what else the engine carries.
    norm_squared : ndarray of float64, shape (neurons,)
        ‖w‖².
    open_window : ndarray of float64, shape (neurons, 3), or 0
        Sums of a record window that was cut short.
    """

    done: int
    slots: np.ndarray
    norm_squared: np.ndarray
    open_window: np.ndarray | float = 0.0

    def store_in(self, result: xr.Dataset) -> None:
        """Add what `resumed` needs to a dataset."""
        neurons = len(self.norm_squared)
        sums = np.broadcast_to(np.asarray(self.open_window, np.float64), (neurons, 3))
        for name, part in zip(_VARIABLES, (self.slots, self.norm_squared, sums), strict=True):
            result[name] = (dataset.FORMS[name][0], part.copy())
        result["state"].attrs["moments"] = _MOMENTS


def fresh(
    shape: tuple[int, int, int], seed: int, norms: np.ndarray, initial_weights: np.ndarray | None, dtype: np.dtype[Any]
) -> State:
    """State before the first step, in `shape`: given weights, or uniform directions of the given norms."""
    neurons, _, dim = shape
    keys = neuron_keys(seed, neurons, INITIAL_WEIGHTS_STREAM)
    slots, norm_squared = np.zeros(shape, dtype), np.zeros(neurons)
    rows = max(1, DRAWN_AT_ONCE // places(dim))  # few: the temporaries of a draw are larger than its result
    for block in (slice(first, first + rows) for first in range(0, neurons, rows)):
        if initial_weights is None:
            direction = normals(keys[block], 0, dim).astype(np.float64)
            slots[block, 0] = direction * (norms[block] / np.linalg.norm(direction, axis=1))[:, None]
        else:
            slots[block, 0] = initial_weights[block]
        norm_squared[block] = (slots[block, 0].astype(np.float64) ** 2).sum(axis=1)
    return State(0, slots, norm_squared)


def resumed(earlier: xr.Dataset, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> State:
    """State saved in an earlier dataset, after checking that it has this form."""
    done, planned = int(earlier.step[-1]), dataset.spec_of(earlier)["steps"]
    parts = [earlier[name].values.copy() for name in _VARIABLES]
    forms = [(shape, dtype), (shape[:1], np.dtype("float64")), ((shape[0], 3), np.dtype("float64"))]
    found = [(part.shape, part.dtype) for part in parts]
    if done != planned or found != forms or not all(np.isfinite(part).all() for part in parts):
        raise DatasetError(
            f"`resume` is damaged: its state after {done} of {planned} steps must be finite and of {forms}; "
            f"it is of {found}"
        )
    return State(done, *parts)


def check_resumable(earlier: xr.Dataset) -> None:
    """Raise `InvalidInput` unless a dataset holds a state."""
    dataset.validate(earlier)
    if "state" not in earlier:
        raise InvalidInput("`resume` needs a dataset made with keep_state=True; this one holds records only")
    complete = "open_window" in earlier and "norm_squared" in earlier
    if not complete or earlier["state"].attrs.get("moments") != _MOMENTS:
        raise InvalidInput("`resume` was made by an older rotsim, which kept another state; walk it again")


def without_state(result: xr.Dataset) -> xr.Dataset:
    """The records alone."""
    return result.drop_vars(_VARIABLES)
