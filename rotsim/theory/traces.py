"""What theory says about each neuron of a recorded network, and about a simulation that knows its gradients.

A trace carries what the closed forms need: fan-in, learning rate and weight decay of every neuron,
and its gradient scale ‖g̃‖ = ‖g‖‖w‖, which only the norm (and Adam+L2's rotation) depends on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import xarray as xr

from rotsim import dataset
from rotsim.comparison import Report, compare
from rotsim.errors import InvalidInput
from rotsim.gradients import ScaleInvariant, gradient_from_dict
from rotsim.optimizers.base import Optimizer
from rotsim.theory.equilibrium import equilibrium

_GRID = 0.25  # of the logarithm of the gradient's scale; interpolating costs Adam+L2 about 1e-4


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

    Raises
    ------
    DatasetError
        If the trace does not follow the schema of `rotsim.dataset`.

    Notes
    -----
    `rotsim.equilibrium` of each neuron, hence the closed forms of `derivations.adamw` and its siblings.
    """
    dataset.validate(trace)
    optimizer = dataset.optimizer_of(trace)
    late = trace["gradient_scale"].isel(step=slice(trace.sizes["step"] // 2, None))
    scale = (late**2).mean("step").values ** 0.5  # over the finite windows
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
    if not (lr > 0 and weight_decay > 0 and scale > 0 and fan_in >= 2):
        return (np.nan,) * len(dataset.QUANTITIES)
    # powers of the scale, under Adam+L2 nearly so: two points of a coarse grid serve every neuron between them
    position = np.log(scale) / _GRID
    point = int(np.floor(position))
    rated = optimizer.with_rates(lr, weight_decay)
    low, high = (_log_equilibrium(rated, int(fan_in), at) for at in (point, point + 1))
    return tuple(np.exp(low + (position - point) * (high - low)).tolist())


@lru_cache(maxsize=4096)
def _log_equilibrium(optimizer: Optimizer, dim: int, point: int) -> np.ndarray:
    """Logarithms of norm, rotation and update at gradient scale exp(point · _GRID)."""
    found = equilibrium(optimizer, dim, ScaleInvariant(float(np.exp(point * _GRID))))
    return np.log([getattr(found, name) for name in dataset.QUANTITIES])


def compare_with_theory(data: xr.Dataset) -> Report:
    """Compare a simulation with the theory that its own spec selects; for traces, `rotsim.diagnosis.diagnose`.

    Parameters
    ----------
    data : Dataset
        From `rotsim.simulate`.

    Returns
    -------
    Report
        Against `rotsim.equilibrium`, hence the closed forms of `derivations.adamw` and its siblings.

    Raises
    ------
    InvalidInput, NoEquilibrium
        If it is a trace, its gradients follow no law, or there is no weight decay.
    """
    if data.attrs["source"] == "trace":
        raise InvalidInput("a trace is judged layer by layer; use `rotsim trace report` or rotsim.diagnosis.diagnose")
    spec = dataset.spec_of(data)
    return compare(data, equilibrium(dataset.optimizer_of(data), spec["dim"], gradient_from_dict(spec["gradient"])))
