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
WINDOW = {"digits": 200, "fashion": 400}  # steps per record; all eight files stay below 1 MB
MANTISSA_BITS = 12  # relative rounding error 1.2e-4, far below the differences between neurons

_HYPERPARAMETERS = {  # lr·wd = 1e-3 for AdamW and Lion: the norm settles in 500 steps, an eighth of the run
    "adamw": (2e-3, 0.5),
    "sgdm": (0.1, 2e-3),
    "adam_l2": (1e-3, 1e-3),
    "lion": (2e-4, 5.0),
}
_NETWORKS = {"digits": ((64, 128, 128, 128, 10), 64), "fashion": ((784, 256, 256, 256, 10), 128)}

#: The shipped runs by name, ``{images}_{optimizer}``.
SHIPPED = {
    f"{images}_{optimizer}": Run(widths, batch, 4000, optimizer, *hyperparameters)
    for images, (widths, batch) in _NETWORKS.items()
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
    return save(compressible(trace), folder / f"{name}.nc")


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
