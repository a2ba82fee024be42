"""What the gradients of a recorded layer make of its walk besides their size, in the course of the run.

`radial` and `memory` explain: they come from the gradients of the windows that they correct. `bursts` is part of the
prediction of Lion, whose rotation depends on them however weak they are; the trace holds their course.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rotsim import dataset
from rotsim.optimizers.base import Optimizer
from rotsim.schema import STEP_WEIGHTS
from rotsim.theory.base import Theory, required_theory
from rotsim.theory.courses import Influence
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.rates import Rates

if TYPE_CHECKING:
    import xarray as xr

ALIVE = 0.5  # a neuron without a gradient in more than this share of the steps is dead and not judged
_LEAST_ROWS = 3
_SMOOTHED = 16  # parts of a run over which the radial part is averaged
PARTS = 4  # of a run, in each of which bursts are taken for themselves


class Bursts(NamedTuple):
    """Factors of rotation and norm, the standard error of the first, and the overlap of gradients; NaN if unknown."""

    rotation: float = np.nan
    norm: float = np.nan
    error: float = np.nan
    overlap: float = np.nan


def radial(layer: xr.Dataset, theory: Theory[Any], rates: Rates) -> Influence:
    """λ_eff over λ in every window, the median over the neurons given; 1 where it was not measured or is not felt.

    Parameters
    ----------
    layer : Dataset
        The neurons of one layer that count.
    theory : Theory
    rates : Rates

    Returns
    -------
    Influence

    Notes
    -----
    λ_eff of `derivations.radial`.
    """
    if "radial" not in layer or not theory.feels_radial:
        return Influence()
    decay = np.interp(layer["step"].values, rates.steps, rates.weight_decay)
    with np.errstate(invalid="ignore", divide="ignore"):
        series = layer["radial"].values.astype(float) / decay
    if not np.isfinite(series).any() or layer.sizes["neuron"] == 0:
        return Influence()
    coordinate = layer["gradient_norm"].values.astype(float) / layer["fan_in"].values[:, None] ** 0.5
    share = theory.radial_share(series.reshape(-1, 1), coordinate.ravel()).reshape(series.shape)
    return Influence(decay=1 + _smooth(np.median(share, axis=0)))


def level(correlation: np.ndarray) -> float:
    """What is left of an autocorrelation at its longest lags: the share of a part of the gradient that lasts.

    Parameters
    ----------
    correlation : ndarray, shape (lags + 1,)

    Returns
    -------
    float
        What lasts is the mean of `derivations.signal`.
    """
    return float(correlation[3 * len(correlation) // 4 :].mean())


def signal_of(trace: xr.Dataset, layer: str) -> float:
    """The `level` in the part of a run where it is largest: that of gradients when a network begins to learn, too.

    Parameters
    ----------
    trace : Dataset
    layer : str

    Returns
    -------
    float
        NaN if no era was recorded. What lasts is the mean of `derivations.signal`.
    """
    parameter = layer.split("[")[0]
    if not _has_eras(trace, parameter):
        return float("nan")
    parts = np.array_split(_of_eras(trace, parameter), min(PARTS, trace.sizes["era"]))
    return max(level(part.mean(axis=0)) for part in parts)


def _has_eras(trace: xr.Dataset, parameter: str) -> bool:
    seen = "era_autocorrelation" in trace and trace.sizes["era"] > 0
    return seen and parameter in trace["parameter"].values


def _of_eras(trace: xr.Dataset, parameter: str) -> np.ndarray:
    return np.asarray(trace["era_autocorrelation"].sel(parameter=parameter).values.astype(float))


def memory_known_from(trace: xr.Dataset, layer: str) -> int:
    """The step from which on a trace tells what averages make of gradients: 0, or the end of its first era.

    Traces that were recorded before each step counted with its squared rate have another measure of the first era:
    averages of its late steps over gradients of all. First gradients are large, so that it is too small.

    Parameters
    ----------
    trace : Dataset
    layer : str

    Returns
    -------
    int

    Notes
    -----
    What `derivations.autocorrelated` makes of that measure.
    """
    parameter = layer.split("[")[0]
    if "era_square_step" not in trace or not _has_eras(trace, parameter):
        return 0
    squares = trace["era_square_step"]
    weighed = squares.attrs.get("weights") == STEP_WEIGHTS
    return 0 if weighed or not np.isfinite(squares.sel(parameter=parameter)[0]) else int(trace["era"][0])


def memory(trace: xr.Dataset, layer: str, theory: Theory[Any], dim: int) -> Influence:
    """Factors of norm and rotation by the measured averages of gradients, in every window.

    They follow from what the measured gradients make of the optimizer's average: also by bursts of single coordinates
    and dead ones (Adam), and with large coordinates counting more (SGDM). For Lion the autocorrelation tells them.

    Parameters
    ----------
    trace : Dataset
    layer : str
    theory : Theory
    dim : int
        Weights per neuron, >= 1.

    Returns
    -------
    Influence

    Notes
    -----
    `derivations.autocorrelated`, and for Lion `derivations.lion_autocorrelated`.
    """
    parameter, ends = layer.split("[")[0], trace["step"].values
    if "gradient_autocorrelation" not in trace or parameter not in trace["parameter"].values:
        return Influence()
    here = trace.sel(parameter=parameter)
    if _has_eras(trace, parameter):
        bounds = np.append(0, trace["era"].values)
        at = (bounds[1:] + bounds[:-1]) / 2
        correlations = _of_eras(trace, parameter)
        squares = here["era_square_step"].values if "era_square_step" in trace else np.full(len(at), np.nan)
    else:
        bounds, at = ends[-1] * np.array([0.5, 1.0]), ends[-1:]
        correlations = here["gradient_autocorrelation"].values.astype(float)[None]
        squares = np.array([float(here["square_step"]) if "square_step" in trace else np.nan])
    if "momentum" in dataset.spec_of(trace).get("changed", {}).get(parameter, {}):
        squares = np.full(len(at), np.nan)  # they are of the averages at first, and not of this spec's
    if theory.spec.shape == "inverse root":
        squares = squares / _live(trace, parameter, bounds)
    factors = np.array([_factors(theory, dim, *pair) for pair in zip(correlations, squares, strict=True)])
    seen = np.isfinite(factors).all(axis=1)
    seen[0] &= not memory_known_from(trace, layer)
    if not seen.any():
        return Influence()
    turned, grown = (_over_windows(ends, at[seen], column) for column in factors[seen].T)
    return Influence(norm=grown, rotation=turned)


def _over_windows(ends: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean over each window of straight lines from value to value, each in the middle of its era."""
    total = np.append(0.0, np.cumsum(np.interp(np.arange(ends[-1]) + 0.5, at, values)))
    first = np.append(0, ends[:-1])
    return np.asarray((total[ends] - total[first]) / (ends - first))


def _live(trace: xr.Dataset, parameter: str, bounds: np.ndarray) -> np.ndarray:
    """Share of a parameter's rows that have gradients between bounds.

    Sampled coordinates are of all rows. Those of the others do not move, and a course is that of a live one.
    """
    rows = [name.split("[")[0] == parameter for name in trace["layer"].values.tolist()]
    active, step = np.nan_to_num(trace["active"].values[rows]), trace["step"].values
    parts = [active[:, (step > low) & (step <= high)] for low, high in itertools.pairwise(bounds.tolist())]
    shares = np.array([float((part.mean(axis=1) >= ALIVE).mean()) if part.size else 1.0 for part in parts])
    return np.where(shares > 0, shares, 1.0)


def _factors(theory: Theory[Any], dim: int, correlation: np.ndarray, square_step: float) -> tuple[float, float]:
    """Of rotation and norm."""
    if theory.beyond_noise or not np.isfinite(correlation).all():
        return np.nan, np.nan
    if not (np.isfinite(square_step) and theory.spec.weight_decay and dim >= 2):
        return theory.correlation_factors(correlation)
    power = theory.step_power(float(square_step), dim, _around(theory.spec, dim))
    return theory.step_factors(correlation, power)


@lru_cache(maxsize=256)
def _around(spec: Optimizer, dim: int) -> float:
    """θ‖w‖ in equilibrium."""
    rest = equilibrium(spec, dim)
    return rest.rotation * rest.norm


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean over finite values."""
    width = max(1, len(values) // _SMOOTHED)
    finite = np.isfinite(values)
    box = np.ones(width)
    total = np.convolve(np.where(finite, values, 0.0), box, "same")
    count = np.convolve(finite.astype(float), box, "same")
    return np.where(count > 0, total / np.maximum(count, 1), 0.0)


def bursts(trace: xr.Dataset, layer: str, theory: Theory[Any], rates: Rates) -> tuple[Bursts, ...]:
    """What bursts do to a layer under Lion in each of `PARTS` parts of the run.

    Medians over the rows whose gradient norms were kept at every step. What norms fluctuate for want of independent
    coordinates is taken out.

    Parameters
    ----------
    trace : Dataset
    layer : str
    theory : Theory
    rates : Rates

    Returns
    -------
    tuple of Bursts
        Unknown where the series is absent or shorter than a part, or all but two of its rows are dead there.

    Notes
    -----
    `derivations.lion_transient.signs_that_change`.
    """
    unknown = (Bursts(),) * PARTS
    series, tick = dataset.gradient_series(trace, layer)
    if not (len(series) and theory.counts_bursts):
        return unknown
    bounds = rates.start + (trace["step"].values[-1] - rates.start) * np.arange(PARTS + 1) / PARTS
    overlap, found = _overlap(trace, layer), []
    for low, high in itertools.pairwise(bounds):
        inside = (rates.steps > low) & (rates.steps <= high)
        lr, decay = rates.lr[inside].mean(), rates.weight_decay[inside].mean()
        within = (tick > low) & (tick <= high)
        if not (lr > 0 and decay > 0 and within.sum() >= 0.9 * inside.sum()):
            found.append(Bursts())
            continue
        part = required_theory(theory.spec.with_rates(float(lr), float(decay)))
        found.append(_of_part(part, series[:, tick <= high], within[tick <= high], overlap))
    return tuple(found)


def _of_part(theory: Theory[Any], series: np.ndarray, within: np.ndarray, overlap: float) -> Bursts:
    factors = []
    for norms in series:
        seen = np.isfinite(norms)
        judged = int((seen & within).sum())
        if judged and (norms[seen & within] > 0).mean() >= ALIVE:
            factors.append(theory.burst_factors(norms[seen], slice(-judged, None)))
    if len(factors) < min(_LEAST_ROWS, len(series)):  # too few for their spread to be known
        return Bursts(overlap=overlap)
    few = _sampling_factors(theory.spec, overlap)
    rotation, norm = np.median(factors, axis=0) / few
    low, high = np.quantile(np.array(factors)[:, 0], [0.16, 0.84])  # as for the measured rotation
    return Bursts(float(rotation), float(norm), float(1.25 * (high - low) / 2 / np.sqrt(len(factors))), overlap)


def of_bursts(parts: tuple[Bursts, ...], rates: Rates, ends: np.ndarray) -> Influence:
    """The factors of known parts at every window; where a part is unknown, those of the nearest.

    Parameters
    ----------
    parts : tuple of Bursts
    rates : Rates
    ends : ndarray of int, shape (windows,)
        Last step of each window, > 0.

    Returns
    -------
    Influence

    Notes
    -----
    `derivations.lion_transient.signs_that_change`.
    """
    centre = rates.start + (ends[-1] - rates.start) * (np.arange(PARTS) + 0.5) / PARTS
    known = np.array([np.isfinite(part.rotation) for part in parts])
    if not known.any():
        return Influence()
    turned, grown = (
        np.interp(ends, centre[known], np.array([getattr(part, name) for part in parts])[known])
        for name in ("rotation", "norm")
    )
    return Influence(norm=grown, rotation=turned)


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
