"""What theory says about each neuron of a recorded network, and the comparison that follows.

A trace carries what the closed forms need: fan-in, learning rate and weight decay of every neuron,
and its gradient scale ‖g̃‖ = ‖g‖‖w‖, which only the norm (and Adam+L2's rotation) depends on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xarray as xr

from rotsim import dataset
from rotsim.comparison import Report, compare
from rotsim.gradients import ScaleInvariant, gradient_from_dict
from rotsim.optimizers.base import Optimizer
from rotsim.theory.equilibrium import Equilibrium, equilibrium

# What real gradients allow: they are correlated in time and differ between coordinates. The rotation of an EMA
# optimizer needs neither assumption if g is orthogonal to w; every norm, and Lion's rotation, needs both.
TRACE_TOLERANCE = {"rotation": 0.10, "norm": 0.15}


def predict_trace(trace: xr.Dataset) -> xr.Dataset:
    """Equilibrium of every neuron of a trace, taking it as scale-invariant.

    Parameters
    ----------
    trace : Dataset
        From `rotsim.measure.Recorder`, with ``gradient_scale`` and the coordinates ``fan_in``,
        ``lr`` and ``weight_decay``.

    Returns
    -------
    Dataset
        ``norm``, ``rotation``, ``update_rms`` with dims (neuron, step), one step. NaN where there
        is no equilibrium: no weight decay, no gradient, or fan-in below 2.
    """
    dataset.validate(trace)
    optimizer = dataset.optimizer_of(trace)
    half = trace.sizes["step"] // 2
    scale = np.sqrt((trace["gradient_scale"].values[:, half:] ** 2).mean(axis=1))
    rows = zip(scale, trace["fan_in"].values, trace["lr"].values, trace["weight_decay"].values, strict=True)
    predicted = np.array([_predict_neuron(optimizer, *map(float, row)) for row in rows])
    result = dataset.build(
        "prediction",
        step=trace["step"].values[-1:],
        variables={name: predicted[:, [column]] for column, name in enumerate(dataset.QUANTITIES)},
        optimizer=optimizer,
        fan_in=trace["fan_in"].values,
        layer=trace["layer"].values,
        spec={"gradient": {"name": ScaleInvariant.name}, "of": dataset.spec_of(trace)},
    )
    return result


def _predict_neuron(
    optimizer: Optimizer, scale: float, fan_in: float, lr: float, weight_decay: float
) -> tuple[float, ...]:
    if not (weight_decay > 0 and scale > 0 and fan_in >= 2):
        return (np.nan,) * len(dataset.QUANTITIES)
    # only the norm feels the scale, smoothly: a grid of 0.1 % serves every neuron of a layer
    rounded = float(np.exp(np.round(np.log(scale) * 1000) / 1000))
    found = _equilibrium(optimizer.with_rates(lr, weight_decay), int(fan_in), rounded)
    return tuple(getattr(found, name) for name in dataset.QUANTITIES)


@lru_cache(maxsize=4096)
def _equilibrium(optimizer: Optimizer, dim: int, scale: float) -> Equilibrium:
    return equilibrium(optimizer, dim, ScaleInvariant(scale))


def compare_with_theory(data: xr.Dataset) -> Report:
    """Compare a simulation or a trace with the theory that its own spec selects.

    Raises
    ------
    InvalidInput, NoEquilibrium
        If its gradients follow no law, or there is no weight decay.
    """
    if data.attrs["source"] == "trace":
        return compare(data, predict_trace(data), quantities=("norm", "rotation"), tolerance=TRACE_TOLERANCE)
    spec = dataset.spec_of(data)
    return compare(data, equilibrium(dataset.optimizer_of(data), spec["dim"], gradient_from_dict(spec["gradient"])))
