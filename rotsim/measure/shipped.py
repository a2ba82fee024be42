"""The recorded training runs that come with the package; reading them needs no PyTorch.

`python -m experiments.networks record` makes them again.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from rotsim.dataset import load
from rotsim.errors import InvalidInput, is_a, shown

TRACES = Path(__file__).parent / "traces"


def shipped_traces() -> dict[str, Path]:
    """Names and files of the traces in the package, sorted by name.

    A name is ``{data}_{optimizer}``, for example ``digits_sgdm``.

    Returns
    -------
    dict of str to Path
    """
    return {path.stem: path for path in sorted(TRACES.glob("*.nc"))}


def gpu_traces() -> dict[str, Path]:
    """Names and files of the runs that a GPU trained: every third layer of those of `experiments/results/suite_gpu`."""
    return {path.stem: path for path in sorted((TRACES / "gpu").glob("*.nc"))}


def load_shipped(name: str) -> xr.Dataset:
    """Load one shipped trace.

    Parameters
    ----------
    name : str
        A key of `shipped_traces`.

    Returns
    -------
    Dataset
        With source ``"trace"``, dimensions (neuron, step) and the coordinates and attributes that
        `rotsim.measure.Recorder.dataset` describes.

    Raises
    ------
    InvalidInput
        If no trace has that name; the message lists them.
    """
    traces = shipped_traces()
    if not is_a(name, str) or name not in traces:
        raise InvalidInput(f"no shipped trace is called {shown(name)}; choose from {', '.join(traces)}")
    return load(traces[name])
