"""Window-by-window comparison of a measured course with a predicted one, transients included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from rotsim.checks import MAX_DECLARED_ERROR, Check, Verdict, resolution, too_uncertain
from rotsim.errors import InvalidInput, integer, nonnegative, require
from rotsim.statistics import ENOUGH_NEURONS, MOST_ERRORS, Estimate, as_seldom

if TYPE_CHECKING:
    import xarray as xr


def is_course(predicted: xr.Dataset) -> bool:
    """True for what `rotsim.predict` makes: the expectation at many steps, rather than one equilibrium per neuron.

    Parameters
    ----------
    predicted : Dataset
        Any prediction of rotsim, with its ``source``.
    """
    return predicted.attrs["source"] == "prediction" and "norm_model_error" in predicted


def bonferroni(k: float, windows: int, neurons: int) -> float:
    """Standard errors to allow in each of many windows for the false-alarm rate of one normal check at k.

    Windows are counted as independent, which is on the safe side; the error of each comes from the
    spread over neurons, hence Student's t.

    Parameters
    ----------
    k : float
        Standard errors of the one check, from 0 to 37.
    windows : int
        >= 1.
    neurons : int
        >= 2.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """
    windows, neurons = integer("windows", windows, low=1), integer("neurons", neurons, low=2)
    k = nonnegative("k", k)
    require(k <= MOST_ERRORS, "k", f"be at most {MOST_ERRORS:g} standard errors", k)
    return as_seldom(k, neurons - 1, windows)


def compare_windows(
    measured: xr.Dataset,
    predicted: xr.Dataset,
    quantities: tuple[str, ...],
    tolerance: Mapping[str, float],
    k: float,
) -> Iterator[Check]:
    """One check per quantity, reported at the window that is furthest outside what is allowed.

    Parameters
    ----------
    measured : Dataset
        Independent neurons from `rotsim.simulate`, at least 16.
    predicted : Dataset
        From `rotsim.predict`, with the same windows.
    quantities, k
        As in `rotsim.compare`; k holds for each quantity over all its windows together.
    tolerance : mapping from quantity to float
        Relative error to allow, >= 0, where that is not what the prediction declares.

    Raises
    ------
    InvalidInput
        If the windows differ, or `measured` is no simulation of enough neurons.
    """
    if not np.array_equal(measured.step, predicted.step):
        raise InvalidInput(
            f"`predicted` must have the windows of `measured`, which end at steps {_span(measured)}; "
            f"got {_span(predicted)}. Use the same steps and record_every"
        )
    neurons = measured.sizes["neuron"]
    if neurons < ENOUGH_NEURONS or measured.attrs["source"] != "simulation":
        raise InvalidInput(
            f"`measured` must be a simulation of at least {ENOUGH_NEURONS} neurons to be compared window by window; "
            f"got a {measured.attrs['source']} of {neurons}"
        )
    per_window = bonferroni(k, measured.sizes["step"], neurons)
    for name in quantities:
        square = measured[name].values ** 2
        value = np.sqrt(square.mean(axis=0))
        spread = square.std(axis=0, ddof=1) / np.sqrt(neurons)
        noise = np.divide(spread, 2 * value, out=np.zeros_like(value), where=value > 0)  # weights of 0 have none
        expected = predicted[name].values[0]
        declared = predicted[f"{name}_model_error"].values[0]
        allowed = np.array([tolerance.get(name, error) for error in declared])
        excess = np.abs(value - expected) - per_window * noise - allowed * expected
        worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
        noisy = per_window * noise > np.array([resolution(a) for a in allowed]) * expected
        verdict: Verdict = "PASS"
        at = int(measured.step[worst])
        note = f"worst of {len(value)} windows, at step {at}; {per_window:.1f} SE allowed in each"
        if not excess[worst] <= 0:
            verdict = "FAIL"
        elif not declared.max() <= MAX_DECLARED_ERROR:
            verdict, note = "UNRESOLVED", too_uncertain(float(declared.max()))
        elif noisy.any():
            verdict = "UNRESOLVED"
        found = Estimate(float(value[worst]), float(noise[worst]))
        source = measured.attrs["source"]
        yield Check.about(source, name, float(expected[worst]), float(allowed[worst]), found, verdict, note)


def _span(data: xr.Dataset) -> str:
    step = data.step.values
    return f"{step[0]} to {step[-1]} ({len(step)} windows)"
