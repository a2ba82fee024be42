"""Making the traces that ship with the package, in `rotsim/measure/traces`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from experiments.networks.data import load_images
from experiments.networks.train import Run, train
from rotsim.dataset import save

INTERVAL = 5
MANTISSA_BITS = 12  # relative rounding error 1.2e-4, far below the differences between neurons
ROWS_PER_LAYER = 64  # evenly spaced; with 24 windows all eight files stay well below 1 MB
INPUT_NOISE = 1.0  # see `Run`

_HYPERPARAMETERS = {  # lr·wd = 1e-3 for AdamW and Lion: relaxation of the norm in 500 steps, AdamW's v adds up to 2000
    "adamw": (2e-3, 0.5),
    "sgdm": (0.1, 2e-3),
    "adam_l2": (1e-3, 1e-3),
    "lion": (2e-4, 5.0),
}
# widths, batch, steps, steps per record window
_NETWORKS = {
    "digits": ((64, 128, 128, 128, 10), 64, 6000, 250),
    "fashion": ((784, 256, 256, 256, 10), 128, 9000, 375),
}
WINDOW = {images: window for images, (_, _, _, window) in _NETWORKS.items()}

#: The shipped runs by name, ``{images}_{optimizer}``.
SHIPPED = {
    f"{images}_{optimizer}": Run(widths, batch, steps, optimizer, *hyperparameters, input_noise=INPUT_NOISE)
    for images, (widths, batch, steps, _) in _NETWORKS.items()
    for optimizer, hyperparameters in _HYPERPARAMETERS.items()
}


def record(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    data: Path | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> Path:
    """Repeat the shipped run `name` and write its trace to ``folder/name.nc``.

    Parameters
    ----------
    name : str
        A key of `SHIPPED`.
    folder : Path
        Must exist.
    seed : int
        0 for the shipped trace.
    data : Path, optional
        Where to look for Fashion-MNIST first.
    on_step : callable
        Called after every step.
    """
    images = load_images(name.split("_")[0], data)
    recorder, results = train(
        replace(SHIPPED[name], seed=seed), images, interval=INTERVAL, window=WINDOW[images.name], on_step=on_step
    )
    command = f"python -m experiments.networks record --only {name} --seed {seed}"
    trace = recorder.dataset(command=command, **{key: round(value, 4) for key, value in results.items()})
    return save(compressible(some_rows(trace, ROWS_PER_LAYER)), folder / f"{name}.nc")


def some_rows(trace: xr.Dataset, most: int) -> xr.Dataset:
    """At most `most` neurons of every layer, evenly spaced, renumbered."""
    layer = trace["layer"].values
    kept: list[int] = []
    for name in dict.fromkeys(layer):
        rows = np.flatnonzero(layer == name)
        kept += rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)].tolist()
    return trace.isel(neuron=kept).assign_coords(neuron=np.arange(len(kept)))


def compressible(trace: xr.Dataset) -> xr.Dataset:
    """Round the variables to `MANTISSA_BITS`, so that zlib finds zeros, and have the coordinates deflated.

    Layer names become fixed-width characters: HDF5 keeps strings of variable length outside what it deflates.
    """
    rounded = trace.copy()
    for name, variable in trace.data_vars.items():
        rounded[name] = variable.copy(data=round_mantissa(variable.values, MANTISSA_BITS))
    for name in ("neuron", "fan_in", "lr", "weight_decay"):
        rounded[name].encoding = {"zlib": True, "complevel": 4, "shuffle": True}
    rounded["layer"].encoding = {"dtype": "S1", "zlib": True}
    return rounded


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round finite float32 `values` to `bits` explicit mantissa bits, halves away from zero."""
    dropped = 23 - bits
    patterns = np.asarray(values, dtype=np.float32).view(np.uint32)
    half, mask = np.uint32(1 << (dropped - 1)), np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return ((patterns + half) & mask).view(np.float32)
