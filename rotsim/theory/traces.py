"""What theory says about each neuron of a recorded network.

A trace carries what the closed forms need: fan-in, learning rate and weight decay of every neuron,
and its gradient scale ‖g̃‖ = ‖g‖‖w‖, which only the norm (and Adam+L2's rotation) depends on. Lion's depends on
how that scale bursts, of which a trace holds the course.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import required_theory, theory_of
from rotsim.theory.equilibrium import equilibrium

if TYPE_CHECKING:
    import xarray as xr

BURSTS = ("burst_rotation", "burst_norm", "burst_error", "overlap")
ALIVE = 0.5  # a neuron without a gradient in more than this share of the steps is dead and not judged
_LEAST_ROWS = 3
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
        is no equilibrium: no weight decay, no gradient, or fan-in below 2; and where there is no theory. Coordinates
        `BURSTS` (neuron,) hold what `layer_bursts` gives: the factors are in the prediction already, and where they
        are NaN it is for steady ones.

    Raises
    ------
    DatasetError
        If the trace does not follow the schema of `rotsim.dataset`.

    Notes
    -----
    `rotsim.equilibrium` of each neuron, hence the closed forms of `derivations.adamw` and its siblings; with bursts
    `rotsim.theory.bursts`.
    """
    dataset.need(dataset.validate(trace), "layer", "lr", "weight_decay", "gradient_scale")
    optimizer = dataset.optimizer_of(trace)
    late = trace["gradient_scale"].isel(step=slice(trace.sizes["step"] // 2, None))
    scale = (late**2).mean("step").values ** 0.5  # over the finite windows
    rows = zip(scale, trace["fan_in"].values, trace["lr"].values, trace["weight_decay"].values, strict=True)
    predicted = np.array([_predict_neuron(optimizer, *map(float, row)) for row in rows])
    bursts = np.full((len(predicted), len(BURSTS)), np.nan)
    if (theory := theory_of(optimizer)) is not None and theory.counts_bursts:
        for name in dict.fromkeys(trace["layer"].values.tolist()):
            here = np.flatnonzero(trace["layer"].values == name)
            rates = (float(trace[key].values[here[0]]) for key in ("lr", "weight_decay"))
            bursts[here] = layer_bursts(trace, name, *rates)
        known = np.isfinite(bursts[:, 0])
        predicted[known, dataset.QUANTITIES.index("rotation")] *= bursts[known, 0]
        predicted[known, dataset.QUANTITIES.index("norm")] *= bursts[known, 1]
    result = dataset.build(
        "prediction",
        step=trace["step"].values[-1:],
        variables={name: predicted[:, [column]] for column, name in enumerate(dataset.QUANTITIES)},
        optimizer=optimizer,
        fan_in=trace["fan_in"].values,
        layer=trace["layer"].values,
        spec={"gradient": {"name": ScaleInvariant.name}, "of": dataset.spec_of(trace)},
    )
    return result.assign_coords({name: ("neuron", bursts[:, i]) for i, name in enumerate(BURSTS)})


def layer_bursts(trace: xr.Dataset, layer: str, lr: float, weight_decay: float) -> tuple[float, float, float, float]:
    """What bursts do to a layer under Lion: medians over the rows whose gradient norms were kept at every step.

    Parameters
    ----------
    trace : Dataset
        Of Lion.
    layer : str
    lr, weight_decay : float
        > 0.

    Returns
    -------
    (float, float, float, float)
        Factors of rotation and norm over those of steady gradients, averaged over the second half of the trace, the
        standard error of the first, and `_overlap`. What norms fluctuate for want of independent coordinates is taken
        out. NaN if the series is absent, or shorter there than the norm's memory, or all but two of its rows are dead.
    """
    unknown = np.nan, np.nan, np.nan, np.nan
    series, tick = dataset.gradient_series(trace, layer)
    if not (len(series) and lr > 0 and weight_decay > 0):
        return unknown
    last_half = tick > trace["step"].values[trace.sizes["step"] // 2 - 1]
    theory = required_theory(dataset.optimizer_of(trace).with_rates(lr, weight_decay))
    factors = []
    for norms in series:
        seen = np.isfinite(norms)
        late = norms[seen & last_half]
        judged = len(late)
        if judged * lr * weight_decay * 2 < 1 or (late > 0).mean() < ALIVE:
            continue
        factors.append(theory.burst_factors(norms[seen], slice(-judged, None)))
    if len(factors) < min(_LEAST_ROWS, len(series)):  # too few for their spread to be known
        return unknown
    overlap = _overlap(trace, layer)
    few = _sampling_factors(theory.spec, overlap)
    rotation, norm = np.median(factors, axis=0) / few
    low, high = np.quantile(np.array(factors)[:, 0], [0.16, 0.84])  # as for the measured rotation
    return float(rotation), float(norm), float(1.25 * (high - low) / 2 / np.sqrt(len(factors))), overlap


def _overlap(trace: xr.Dataset, layer: str) -> float:
    """Mean squared cosine of a row's gradients at different steps: 1/dim of the space they fill; 0 if unknown."""
    if "gradient_overlap" not in trace:
        return 0.0
    values = trace["gradient_overlap"].values[trace["row_layer"].values == layer]
    return float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0


@lru_cache(maxsize=1024)
def _sampling_factors(optimizer: Optimizer, overlap: float) -> tuple[float, float]:
    """What the theory makes of Gaussian gradients of one scale with so few independent coordinates.

    Their norms fluctuate as the root of a chi-square, which is no burst. To second order in the logarithm of the norm
    both fluctuations add in the logarithm of a factor.
    """
    if overlap <= 0:
        return 1.0, 1.0
    half = 0.5 / min(1.0, overlap)  # of the degrees of freedom
    return required_theory(optimizer).burst_factors(np.sqrt(np.random.default_rng(0).gamma(half, 1 / half, 20_000)))


def _predict_neuron(
    optimizer: Optimizer, scale: float, fan_in: float, lr: float, weight_decay: float
) -> tuple[float, ...]:
    if theory_of(optimizer) is None or not (lr > 0 and weight_decay > 0 and scale > 0 and fan_in >= 2):
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
