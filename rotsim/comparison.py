"""`compare`: a measured dataset against a prediction, as a table of verdicts.

Two tolerances are kept apart: k standard errors of the measurement, and the prediction's declared
model error. A run that is not in equilibrium, or too noisy to tell, is said to be so; it never
passes. Nor does a prediction that declares an error above 10 %, however large a tolerance is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.checks import MAX_DECLARED_ERROR, Check, Report, Verdict, resolution, too_uncertain
from rotsim.errors import LARGEST_SIZE, InvalidInput, is_a, mapping, names, nonnegative, positive, shown
from rotsim.statistics import Equilibration, Estimate, equilibration, median_ratio, root_mean_square, scatter
from rotsim.theory.equilibrium import Equilibrium, equilibrium
from rotsim.windows import compare_windows, is_course

if TYPE_CHECKING:
    import xarray as xr

TRACE_DRIFT = 0.04  # last half against first third of what is averaged: real networks always drift a little


def compare(
    measured: xr.Dataset,
    predicted: Equilibrium | xr.Dataset,
    *,
    quantities: tuple[str, ...] | None = None,
    tolerance: float | dict[str, float] | None = None,
    k: float = 4.0,
) -> Report:
    """Hold measured norm, rotation and update size against a predicted equilibrium.

    Parameters
    ----------
    measured : Dataset
        From `rotsim.simulate` or a `rotsim.measure.Recorder`.
    predicted : Equilibrium or Dataset
        From `rotsim.equilibrium`. Or from `rotsim.predict` with the same windows, compared one by one, transients
        included. Or a prediction per neuron, such as `rotsim.theory.traces.predict_trace` makes, of one step.
    quantities : tuple of str, optional
        Default: all of norm, rotation and update_rms that are predicted.
    tolerance : float or mapping from quantity to float, optional
        Relative model error to allow, >= 0; default what the prediction declares.
    k : float
        Standard errors to allow, > 0; over many windows, more in each for the same rate of
        false alarms, and at most 37.

    Returns
    -------
    Report
        One check per quantity. For a trace with layers, one per layer and quantity, on the median
        over neurons of measured/predicted. Against a course from `predict`, the worst window.

    Raises
    ------
    InvalidInput, DatasetError
        If the arguments are not of these kinds or do not fit each other.
    """
    import xarray as xr

    if not isinstance(measured, xr.Dataset):
        raise InvalidInput(f"`measured` must be a dataset from simulate or Recorder; got {type(measured).__name__}")
    dataset.validate(measured)
    for name in dataset.QUANTITIES:
        values = measured[name].values
        if ((values < 0) | (values > LARGEST_SIZE)).any():
            raise InvalidInput(f"`measured` must hold numbers from 0 to {LARGEST_SIZE:g} or NaN; `{name}` does not")
    k = positive("k", k)
    chosen = dataset.QUANTITIES if quantities is None else names("quantities", quantities, dataset.QUANTITIES)
    allowed = _checked_tolerance(tolerance)
    if isinstance(predicted, Equilibrium):
        _check_equilibrium(predicted)
        return Report(tuple(_compare_ensemble(measured, predicted, chosen, allowed, k)))
    if isinstance(predicted, xr.Dataset):
        dataset.validate(predicted)
        if is_course(predicted):
            return Report(tuple(compare_windows(measured, predicted, chosen, allowed, k)))
        if predicted.sizes["neuron"] != measured.sizes["neuron"]:
            raise InvalidInput(
                f"`predicted` has {predicted.sizes['neuron']} neurons and `measured` {measured.sizes['neuron']}; "
                "predict for the same trace"
            )
        return Report(tuple(_compare_layers(measured, predicted, chosen, allowed, k)))
    raise InvalidInput(f"`predicted` must be an Equilibrium or a dataset; got {type(predicted).__name__}")


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
        If it is a trace or a prediction, its gradients follow no law, or there is no weight decay.
    DatasetError
        If it does not follow the schema of `rotsim.dataset`.
    """
    dataset.validate(data)
    if data.attrs["source"] == "trace":
        raise InvalidInput("a trace is judged layer by layer; use `rotsim trace report` or rotsim.diagnosis.diagnose")
    if data.attrs["source"] == "prediction":
        raise InvalidInput("a prediction is no measurement; compare a simulation, or a trace, with theory")
    optimizer, gradient = dataset.optimizer_of(data), dataset.gradient_of(data)
    spec = dataset.spec_of(data)
    return compare(data, equilibrium(optimizer, spec["dim"], gradient, rows=spec.get("rows")))


def _compare_ensemble(
    measured: xr.Dataset,
    predicted: Equilibrium,
    quantities: tuple[str, ...],
    tolerance: Mapping[str, float],
    k: float,
) -> Iterator[Check]:
    """Independent identical neurons against one equilibrium."""
    independent = measured.attrs["source"] == "simulation"
    # a rotational variant has a rotation in equilibrium but no norm of its own
    series = {name: measured[name].values for name in dataset.QUANTITIES if np.isfinite(getattr(predicted, name))}
    settled = equilibration(
        measured.step.values,
        [x**2 for x in series.values()],
        independent,
        0.0 if independent else TRACE_DRIFT,
    )
    for name in filter(series.__contains__, quantities):
        estimate = root_mean_square(series[name][:, settled.start :], independent)
        declared = predicted.model_error
        allowed = tolerance.get(name, declared)
        yield _judge(measured.attrs["source"], name, getattr(predicted, name), estimate, declared, allowed, k, settled)


def _compare_layers(
    measured: xr.Dataset,
    predicted: xr.Dataset,
    quantities: tuple[str, ...],
    tolerance: Mapping[str, float],
    k: float,
) -> Iterator[Check]:
    """Neurons of a real network, each with its own prediction, summarised by layer."""
    layers = measured["layer"].values if "layer" in measured.coords else np.full(measured.sizes["neuron"], "all")
    declared = float(dataset.spec_of(predicted).get("model_error", 0.0))
    for layer in dict.fromkeys(layers):
        rows = layers == layer
        if "active" in measured:
            rows &= measured["active"].values[:, measured.sizes["step"] // 2 :].mean(axis=1) > 0.5
        rows &= np.isfinite(predicted["rotation"].values[:, -1])
        used = np.isfinite(predicted["rotation"].values[rows]).all(axis=0)  # a course may begin after the trace does
        used = np.broadcast_to(used, measured.sizes["step"])
        for name in dataset.QUANTITIES:  # neurons with a window that is not known, as of a parameter that joined late
            rows &= np.isfinite(measured[name].values[:, used]).all(axis=1)
        if not rows.any():
            continue
        every = {q: measured[q].values[rows] / predicted[q].values[rows] for q in dataset.QUANTITIES}
        ratio = {q: values[:, used] for q, values in every.items()}
        settled = equilibration(
            measured.step.values[used], [ratio["norm"], ratio["rotation"]], independent=False,
            drift_tolerance=TRACE_DRIFT,
        )  # fmt: skip
        # a trace always has a transient of its own; never average its first half
        start = max(settled.start, int(used.sum()) // 2)
        settled = Equilibration(settled.reached, start, settled.steps_needed, settled.reason)
        for name in quantities:
            kept = measured[name].values[rows][:, used][:, start:]
            reference = float(np.median(predicted[name].values[rows][:, -1]))
            late = ratio[name][:, start:]
            estimate = median_ratio(kept, kept / late, scatter(late))
            estimate = Estimate(estimate.value * reference, estimate.standard_error * reference)
            allowed = tolerance.get(name, declared)
            yield _judge(str(layer), name, reference, estimate, declared, allowed, k, settled)


def _checked_tolerance(tolerance: Any) -> dict[str, float]:
    """What is allowed of each quantity, where that is not what the prediction declares."""
    if tolerance is None:
        return {}
    if is_a(tolerance, Mapping):
        given = mapping("tolerance", tolerance, dataset.QUANTITIES)
        return {name: nonnegative(f"tolerance[{name!r}]", value) for name, value in given.items()}
    return dict.fromkeys(dataset.QUANTITIES, nonnegative("tolerance", tolerance))


def _check_equilibrium(predicted: Equilibrium) -> None:
    """Raise `InvalidInput` unless its numbers are such as `rotsim.equilibrium` gives."""
    for name in (*dataset.QUANTITIES, "model_error"):
        value = getattr(predicted, name)
        if not is_a(value, Real) or is_a(value, bool) or value < 0 or (value == 0 and name != "model_error"):
            raise InvalidInput(
                f"`predicted.{name}` must be a number > 0, or NaN where there is none; got {shown(value)}"
            )


def _judge(
    group: str,
    quantity: str,
    predicted: float,
    estimate: Estimate,
    declared: float,
    allowed: float,
    k: float,
    settled: Equilibration,
) -> Check:
    error, noise = estimate.value - predicted, estimate.standard_error
    note = settled.reason
    verdict: Verdict
    if not settled.reached:
        verdict = "NOT EQUILIBRATED"
        if settled.steps_needed is not None:
            note += f"; about {settled.steps_needed:.2g} steps needed"
    elif not np.isfinite(noise) or k * noise > resolution(allowed) * predicted:
        verdict = "UNRESOLVED"
        note = f"{k:g} standard errors exceed {resolution(allowed):.0%} of the prediction; run longer"
    elif not abs(error) <= k * noise + allowed * predicted:
        verdict = "FAIL"
    elif not declared <= MAX_DECLARED_ERROR:
        verdict, note = "UNRESOLVED", too_uncertain(declared)
    else:
        verdict = "PASS"
    return Check.about(group, quantity, predicted, allowed, estimate, verdict, note)
