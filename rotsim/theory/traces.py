"""What theory says about each neuron of a recorded network, window by window.

A trace carries what the course needs: the norm before the first step, fan-in, learning rate and weight decay in every
window. It also has the gradient scale ‖g̃‖ = ‖g‖‖w‖, which only the norm (and Adam+L2's rotation) depends on. Lion's
depends on how that scale bursts, of which a trace holds the course.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.statistics import over
from rotsim.theory.base import theory_of
from rotsim.theory.courses import Influence, course
from rotsim.theory.influences import ALIVE, Bursts, bursts, memory, memory_known_from, of_bursts, radial
from rotsim.theory.rates import Rates, rates_of

if TYPE_CHECKING:
    import xarray as xr


# Factors between the norm at the start and in the first window, within which a course starts before it. A norm shrinks
# by decay, which is known. It grows by gradients, which may collapse as it does, so that their mean says little.
_SHRUNK, _GROWN = 2.5, 1.5
# factor between the norms of two windows, between which a start is read off: within its square root it is known, which
# is less than two thirds of the error that a claimed norm may have
_BETWEEN = 1.2


@dataclass(frozen=True, eq=False)
class Prediction:
    """The course of one layer.

    Attributes
    ----------
    spec : Optimizer
        With the layer's rates in the middle of their course.
    rates : Rates
    first : int
        The first window that is predicted: those before it are at the start, or before it.
    start_norm : ndarray, shape (neurons,)
        ‖w‖ where the course starts.
    values : ndarray, shape (3, neurons, windows)
        In the order of `rotsim.dataset.QUANTITIES`; NaN where there is no prediction.
    pulled, remembering : ndarray, shape (2, windows)
        Factors of norm and rotation. The first is by the gradient's radial part, which is not in the prediction. The
        second, which is in it, is what the measured gradients make of the optimizer's averages, over white noise.
    bursts : tuple of Bursts
    matrix_rows : int or None
        Neurons of the layer's matrix, where the optimizer acts on matrices.
    """

    spec: Optimizer
    rates: Rates
    first: int
    start_norm: np.ndarray
    values: np.ndarray
    pulled: np.ndarray
    remembering: np.ndarray
    bursts: tuple[Bursts, ...]
    matrix_rows: int | None = None


def predict_layer(trace: xr.Dataset, name: str) -> Prediction:
    """The course of the neurons of one layer, taken as scale-invariant.

    Parameters
    ----------
    trace : Dataset
        As `predict_trace` takes it.
    name : str
        Of the layer.

    Returns
    -------
    Prediction

    Notes
    -----
    See `predict_trace`; the radial part is that of `derivations.radial`.
    """
    layer = trace.isel(neuron=trace["layer"].values == name)
    ends, norm, dim = layer["step"].values, layer["norm"].values.astype(float), int(layer["fan_in"].values[0])
    start, first, start_norm = _start(layer, norm, memory_known_from(trace, name))
    rates = rates_of(layer, start)
    optimizer = dataset.optimizer_of(trace, name)
    # the rates of the layer, not those of another group; without decay a rotational variant does not rotate
    spec = optimizer if rates.weight_decay.any() or not optimizer.needs_decay else optimizer.plain
    if rates.lr.any() and theory_of(optimizer) is not None:
        spec = spec.with_rates(_typical(rates.lr), _typical(rates.weight_decay))
    theory = theory_of(spec)
    ones = np.ones((2, len(ends)))
    nothing = np.full((3, *norm.shape), np.nan)
    scale = layer["gradient_scale"].values.astype(float)
    matrix_rows = rows_of_matrix(trace, name, spec)
    if theory is None or matrix_rows == 1:
        return Prediction(spec, rates, first, start_norm, nothing, ones, ones, (Bursts(),), matrix_rows)
    parts = bursts(trace, name, theory, rates) if theory.counts_bursts else (Bursts(),)

    def follow(rows: np.ndarray, influence: Influence) -> np.ndarray:
        found = course(spec, dim, rates, ends, start_norm[rows], scale[rows], influence, matrix_rows)
        found[:, :, :first] = np.nan
        return found

    judged = layer["active"].values[:, max(first, layer.sizes["step"] // 2) :]
    alive = np.nan_to_num(judged).mean(axis=1) >= ALIVE
    of_memory = memory(trace, name, theory, dim)
    own = _both(of_bursts(parts, rates, ends) if theory.counts_bursts else Influence(), of_memory)
    values = nothing
    values[:, alive] = follow(alive, own)
    counted = np.isfinite(values[1, :, -1])
    if not counted.any() or optimizer.decay == "none":
        return Prediction(spec, rates, first, start_norm, values, ones, ones, parts, matrix_rows)
    middle = np.flatnonzero(counted)[[np.argsort(start_norm[counted])[counted.sum() // 2]]]
    course_of = follow(middle, own)[:2, 0]
    forgetful = follow(middle, of_bursts(parts, rates, ends) if theory.counts_bursts else Influence())[:2, 0]
    pulled = follow(middle, _both(own, radial(layer.isel(neuron=counted), theory, rates)))[:2, 0]
    factors = over(pulled, course_of), over(course_of, forgetful)  # 1 while the rate is 0
    return Prediction(spec, rates, first, start_norm, values, *factors, parts, matrix_rows)


def rows_of_matrix(trace: xr.Dataset, layer: str, spec: Optimizer) -> int | None:
    """Neurons of the parameter that the layer is a block of (`derivations.muon`); None where they move one by one."""
    if spec.acts_on != "matrix":
        return None
    parameter = layer.split("[")[0]
    if parameter in (some := dataset.spec_of(trace).get("sampled_rows", {})):  # of which not all were recorded
        return int(some[parameter])
    return sum(name.split("[")[0] == parameter for name in trace["layer"].values.tolist())


def start_of(trace: xr.Dataset, name: str) -> int:
    """Steps before the first window of a layer that a course from its first norm can follow.

    Parameters
    ----------
    trace : Dataset
    name : str
        Of the layer.

    Returns
    -------
    int

    Notes
    -----
    The course is that of `derivations.transient`.
    """
    layer = trace.isel(neuron=trace["layer"].values == name)
    return _start(layer, layer["norm"].values.astype(float))[0]


def _start(layer: xr.Dataset, norm: np.ndarray, known_from: int = 0) -> tuple[int, int, np.ndarray]:
    """Step and norms at the start, and the first window that is predicted.

    A trace without the norm before the first step starts where its first window ends. So does a course whose norm
    changes so much within that window that one gradient scale cannot tell how. The norm there is the geometric mean of
    two windows, which is exact where decay alone shrinks it. Where two are too far apart to tell the norm between them,
    the start is between later ones: the first that are not, or else those that are closest. Where it is known only
    from a step on what averages make of gradients, it starts there.
    """
    ends = layer["step"].values
    seen = np.isfinite(norm).any(axis=0)
    first = int(np.argmax(seen)) if seen.any() else 0
    if ends[first] < known_from < ends[-1]:
        first = int(np.searchsorted(ends, known_from))
    elif "initial_norm" in layer and "initial_step" in layer:
        start = layer["initial_norm"].values.astype(float)
        if -np.log(_SHRUNK) < _change(start, norm[:, first]) < np.log(_GROWN):
            return int(layer["initial_step"].values[0]), first, start
    if "span" in layer.variables:
        return int(ends[first]), min(first + 1, len(ends) - 1), norm[:, first]
    apart = np.array([abs(_change(norm[:, i], norm[:, i + 1])) for i in range(first, len(ends) - 1)] or [0.0])
    close = apart < np.log(_BETWEEN)
    first += int(np.argmax(close) if close.any() else np.argmin(apart))
    after = min(first + 1, len(ends) - 1)
    return int(ends[first]), after, np.sqrt(norm[:, first] * norm[:, after])


def _change(one: np.ndarray, other: np.ndarray) -> float:
    """Median over neurons of the change of ln ‖w‖; infinite where none has both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log(other / one)
    change = change[np.isfinite(change)]
    return float(np.median(change)) if len(change) else np.inf


def _typical(rate: np.ndarray) -> float:
    return float(np.median(rate) or rate.max())


def _both(one: Influence, other: Influence) -> Influence:
    return Influence(one.norm * other.norm, one.rotation * other.rotation, one.decay * other.decay)


def predict_trace(trace: xr.Dataset) -> xr.Dataset:
    """The course of every neuron of a trace, taking it as scale-invariant.

    Parameters
    ----------
    trace : Dataset
        From `rotsim.measure.Recorder`, with ``gradient_scale``, ``active`` and the coordinates ``layer``, ``lr`` and
        ``weight_decay``.

    Returns
    -------
    Dataset
        ``norm``, ``rotation``, ``update_rms`` with the dims (neuron, step) and the windows of the trace. NaN where
        there is no gradient, fan-in is below 3, or there is no theory; and before the first window that is predicted.

    Raises
    ------
    DatasetError
        If the trace does not follow the schema of `rotsim.dataset`.

    Notes
    -----
    `rotsim.predict` of each neuron, hence the maps of `derivations.transient` and its siblings, under the schedules
    of `rotsim.theory.courses`; with bursts `rotsim.theory.bursts`.
    """
    trace = dataset.completed(dataset.validate(trace))
    values = np.full((len(dataset.QUANTITIES), trace.sizes["neuron"], trace.sizes["step"]), np.nan)
    for name in dict.fromkeys(trace["layer"].values.tolist()):
        values[:, trace["layer"].values == name] = predict_layer(trace, name).values
    return dataset.build(
        "prediction",
        step=trace["step"].values,
        variables=dict(zip(dataset.QUANTITIES, values, strict=True)),
        optimizer=dataset.optimizer_of(trace),
        fan_in=trace["fan_in"].values,
        layer=trace["layer"].values,
        spec={"gradient": {"name": ScaleInvariant.name}, "of": dataset.spec_of(trace)},
    )
