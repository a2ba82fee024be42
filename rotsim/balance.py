"""How evenly a network turns: across layers and across the neurons of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset
from rotsim.errors import InvalidInput

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Balance:
    """Rotation of a trace, summarised.

    Attributes
    ----------
    rotation : dict of str to float
        Median over live neurons by layer, radians per step, last half of the trace.
    across_layers : float
        Largest over smallest of these, 1 if balanced.
    within_layers : float
        Standard deviation over mean of a layer's neurons, averaged over layers, 0 if balanced.
    """

    rotation: dict[str, float]
    across_layers: float
    within_layers: float


def balance(trace: xr.Dataset) -> Balance:
    """Summarise how evenly the neurons of a recorder's trace rotate; live, finite ones of two or more weights count.

    Raises
    ------
    InvalidInput
        If the dataset is not a trace or no neuron of it is alive.
    """
    dataset.validate(trace)
    if trace.attrs["source"] != "trace":
        raise InvalidInput(f"balance needs a recorded trace; got a {trace.attrs['source']}")
    trace = dataset.completed(trace)
    late = trace.isel(step=slice(trace.sizes["step"] // 2, None))
    rotation = np.sqrt((late["rotation"].values.astype(float) ** 2).mean(axis=1))
    alive = (late["active"].fillna(0).mean("step").values >= 0.5) & np.isfinite(rotation) & (rotation > 0)
    alive &= trace["fan_in"].values > 1  # a row of one weight has no direction
    layers = trace["layer"].values
    live = {name: rotation[(layers == name) & alive] for name in dict.fromkeys(layers.tolist())}
    live = {name: values for name, values in live.items() if values.size}
    if not live:
        raise InvalidInput("no neuron of the trace turns: all gradients are zero or not finite, or rows are one weight")
    medians = {name: float(np.median(values)) for name, values in live.items()}
    return Balance(
        medians,
        across_layers=max(medians.values()) / min(medians.values()),
        within_layers=float(np.mean([values.std() / values.mean() for values in live.values()])),
    )
