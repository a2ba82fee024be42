"""From a run to a compact trace; and the runs whose traces ship with the package, in `rotsim/measure/traces`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from experiments.networks.corpus import load_corpus
from experiments.networks.data import load_images
from experiments.networks.train import Run, train
from experiments.networks.train_text import TextRun, train_text
from rotsim.dataset import save

AnyRun = Run | TextRun

INTERVAL = 5
WINDOWS = 24
MANTISSA_BITS = 12  # relative rounding error 1.2e-4, far below the differences between neurons
ROWS_PER_LAYER = 48  # evenly spaced
ROWS_PER_TRACE = 512  # which layers of a deeper network share
LEAD = 500  # steps of the course of gradient norms kept before the half that is judged: five memories of Lion
ROWS_OF_A_LOSS = 2  # per layer of a run whose loss is the point

INPUT_NOISE = 1.0  # see `Run`
_RATES = {  # lr·wd = 1e-3 for AdamW and Lion: relaxation of the norm in 500 steps, AdamW's v adds up to 2000
    "adamw": (2e-3, 0.5),
    "sgdm": (0.1, 2e-3),
    "lion": (2e-4, 5.0),
}
_ADAM_L2 = {"digits": (2e-3, 1e-3), "fashion": (1e-3, 1e-3)}
_NETWORKS = {"digits": ((64, 128, 128, 128, 10), 64), "fashion": ((784, 256, 256, 256, 10), 128)}  # widths, batch

#: The shipped runs by name, ``{images}_{optimizer}``.
SHIPPED = {
    f"{images}_{optimizer}": Run(widths, batch, 9000, optimizer, *rates, input_noise=INPUT_NOISE)
    for images, (widths, batch) in _NETWORKS.items()
    for optimizer, rates in {**_RATES, "adam_l2": _ADAM_L2[images]}.items()
}


def record(
    name: str,
    run: AnyRun,
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    data: Path | None = None,
    command: str,
    on_step: Callable[[], object] = lambda: None,
) -> Path:
    """Train one run and write its trace to ``folder/name.nc``, into a folder that exists.

    Images are digits if `name` starts so, else Fashion-MNIST, which is looked for in `data` first. `command` repeats
    the run, for the provenance. `on_step` is called after every step.
    """
    window = INTERVAL * max(1, round(run.steps / WINDOWS / INTERVAL))
    start = time.perf_counter()
    if isinstance(run, TextRun):
        recorder, results = train_text(
            run, load_corpus(), interval=INTERVAL, window=window, device=device, on_step=on_step
        )
        scheduled = run.warmup is not None
    else:
        images = load_images("digits" if name.startswith("digits") else "fashion", data)
        recorder, results = train(run, images, interval=INTERVAL, window=window, device=device, on_step=on_step)
        scheduled = False
    trace = recorder.dataset(
        command=command,
        run=asdict(run),
        seconds=round(time.perf_counter() - start, 1),
        **{key: round(value, 4) for key, value in results.items()},
    )
    layers = len(set(trace["layer"].values.tolist()))
    most = ROWS_OF_A_LOSS if name.startswith("warmup") else min(ROWS_PER_LAYER, ROWS_PER_TRACE // layers)
    kept = some_rows(trace, most)
    return save(compressible(kept if scheduled else late_course(kept)), folder / f"{name}.nc")


def some_rows(trace: xr.Dataset, most: int) -> xr.Dataset:
    """At most `most` neurons of every layer, evenly spaced, renumbered."""
    layer = trace["layer"].values
    kept: list[int] = []
    for name in dict.fromkeys(layer):
        rows = np.flatnonzero(layer == name)
        kept += rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)].tolist()
    return trace.isel(neuron=kept).assign_coords(neuron=np.arange(len(kept)))


def late_course(trace: xr.Dataset) -> xr.Dataset:
    """Without the course of gradient norms long before the judged half, which is most of the file otherwise."""
    if "tick" not in trace.dims:
        return trace
    return trace.isel(tick=trace["tick"].values > trace["step"].values[trace.sizes["step"] // 2 - 1] - LEAD)


def compressible(trace: xr.Dataset) -> xr.Dataset:
    """Round the variables to `MANTISSA_BITS`, so that zlib finds zeros, and have the coordinates deflated.

    Layer names become fixed-width characters: HDF5 keeps strings of variable length outside what it deflates.
    """
    rounded = trace.copy()
    for name, variable in trace.data_vars.items():
        if variable.dtype.kind != "f" or str(name).startswith("window_"):  # given, not measured
            continue
        rounded[name] = variable.copy(data=round_mantissa(variable.values, MANTISSA_BITS))
    for name in {"neuron", "fan_in", "lr", "weight_decay", "tick"} & set(rounded.coords):
        rounded[name].encoding = {"zlib": True, "complevel": 4, "shuffle": True}
    for name in {"layer", "row_layer"} & set(rounded.coords):
        rounded[name].encoding = {"dtype": "S1", "zlib": True}
    return rounded


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """Round finite float32 `values` to `bits` explicit mantissa bits, halves away from zero."""
    dropped = 23 - bits
    patterns = np.asarray(values, dtype=np.float32).view(np.uint32)
    half, mask = np.uint32(1 << (dropped - 1)), np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF)
    return ((patterns + half) & mask).view(np.float32)
