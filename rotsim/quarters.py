"""The course of one layer in quarters of its run: prediction and measurement, and the noise of the latter."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from rotsim.facts import along, burst, median, rms
from rotsim.statistics import median_ratio, scatter
from rotsim.theory.base import Theory
from rotsim.theory.traces import Prediction

QUARTERS = 4  # of the run, in each of which prediction and measurement must agree


@dataclass(frozen=True)
class Part:
    """A part of a run: medians over neurons of the RMS over its windows.

    Attributes
    ----------
    start, end : int
        Its windows end after the one and up to the other step.
    predicted_rotation, measured_rotation : float
        Radians per step.
    predicted_norm, measured_norm : float
    rotation_noise, norm_noise : float
        Standard errors of measured over predicted.
    """

    start: int
    end: int
    predicted_rotation: float
    measured_rotation: float
    predicted_norm: float
    measured_norm: float
    rotation_noise: float
    norm_noise: float

    def predicted(self, quantity: str) -> float:
        """Of "rotation" or "norm"."""
        return float(getattr(self, f"predicted_{quantity}"))

    def measured(self, quantity: str) -> float:
        """Of "rotation" or "norm"."""
        return float(getattr(self, f"measured_{quantity}"))

    def noise(self, quantity: str) -> float:
        """Standard error of measured over predicted."""
        return float(getattr(self, f"{quantity}_noise"))

    def error(self, quantity: str) -> float:
        """Measured over predicted, minus 1; infinite where something moved that should not."""
        measured, predicted = self.measured(quantity), self.predicted(quantity)
        if measured == predicted:  # also where neither moved
            return 0.0
        return measured / predicted - 1 if predicted else inf * measured


@dataclass(frozen=True)
class Quarter(Part):
    """One quarter of a run, and what its gradients do besides being noise.

    Attributes
    ----------
    pulled_rotation, pulled_norm : float
        Factors in the prediction that the gradient's radial part makes, and for rotation the share of the update that
        is along the weights.
    remembered_rotation, remembered_norm : float
        Factors that are in the prediction: what the measured gradients, correlated and uneven as they are, make of
        the optimizer's averages.
    burst : float
        E‖g̃‖⁴/(E‖g̃‖²)², 1 for a steady gradient.
    silent : float
        Share of the sampled steps in which no neuron of the layer had a gradient.
    """

    pulled_rotation: float
    pulled_norm: float
    remembered_rotation: float
    remembered_norm: float
    burst: float
    silent: float

    def corrected(self, quantity: str) -> float:
        """The prediction with the gradient's radial part put in."""
        return self.predicted(quantity) * float(getattr(self, f"pulled_{quantity}"))


@dataclass(frozen=True, eq=False)
class Curves:
    """What a figure shows of "rotation" and "norm", of the neurons that count.

    Attributes
    ----------
    step : ndarray, shape (windows,)
    measured, predicted, corrected : dict of str to ndarray, shape (windows,)
        Medians over neurons.
    ratio : dict of str to ndarray, shape (windows,)
        Median of measured over predicted.
    neurons : dict of str to ndarray, shape (neurons,)
        Measured over predicted, each the RMS over all windows.
    """

    step: np.ndarray
    measured: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    corrected: dict[str, np.ndarray]
    ratio: dict[str, np.ndarray]
    neurons: dict[str, np.ndarray]


def parts_of(
    start: int, step: np.ndarray, kept: dict[str, np.ndarray], theory: dict[str, np.ndarray], count: int
) -> tuple[Part, ...]:
    """Prediction and measurement in each of `count` equal parts of the steps after `start`.

    Parameters
    ----------
    start : int
        Steps before the first window.
    step : ndarray of int, shape (windows,)
        Last step of each window, > `start`.
    kept, theory : dict of ndarray, shape (neurons, windows)
        Measured and predicted "rotation" and "norm", of the neurons that count.
    count : int
        >= 1.

    Returns
    -------
    tuple of Part
        None if one has no window.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing turns while the rate is 0
        shared = {key: scatter(kept[key] / theory[key]) for key in ("rotation", "norm")}
    found = []
    for low, high, place in _places(start, step, count):
        measured, expected = ({key: of[key][:, place] for key in shared} for of in (kept, theory))
        ratio = {key: median_ratio(measured[key], expected[key], shared[key]) for key in shared}
        levels = {key: median(rms(expected[key])) for key in shared}
        reached = {
            key: ratio[key].value * levels[key] if levels[key] > 0 else median(rms(measured[key])) for key in shared
        }
        found.append(
            Part(
                start=low,
                end=high,
                predicted_rotation=levels["rotation"],
                measured_rotation=reached["rotation"],
                predicted_norm=levels["norm"],
                measured_norm=reached["norm"],
                rotation_noise=ratio["rotation"].standard_error,
                norm_noise=ratio["norm"].standard_error,
            )
        )
    return tuple(found)


def quarters_of(
    start: int,
    step: np.ndarray,
    kept: dict[str, np.ndarray],
    theory: dict[str, np.ndarray],
    pulled: np.ndarray,
    remembering: np.ndarray,
    known: Theory[Any] | None,
) -> tuple[Quarter, ...]:
    """Prediction and measurement in each quarter of the steps after `start`, none if one has no window.

    Parameters
    ----------
    start, step, kept, theory
        As `parts_of` takes them; `kept` has all that was measured.
    pulled, remembering : ndarray, shape (2, windows)
        Factors of norm and rotation, as of `rotsim.theory.traces.Prediction`.
    known : Theory or None
    """
    parts, found = parts_of(start, step, kept, theory, QUARTERS), []
    for part, (_, _, place) in zip(parts, _places(start, step, QUARTERS), strict=False):
        measured = {key: value[:, place] for key, value in kept.items()}

        def factor(influence: np.ndarray, key: str, at: np.ndarray = place) -> float:
            row = influence[("norm", "rotation").index(key), at]
            square = np.median(theory[key][:, at], axis=0) ** 2
            return float(np.sqrt((row**2 * square).sum() / square.sum())) if square.sum() else np.nan

        turning = np.sqrt(1 - along(measured)) if known is not None and known.feels_radial else 1.0
        held = known is not None and known.spec.decay == "none"
        found.append(
            Quarter(
                **vars(part),
                pulled_rotation=1.0 if held else factor(pulled, "rotation") * float(turning),
                pulled_norm=factor(pulled, "norm"),
                remembered_rotation=factor(remembering, "rotation"),
                remembered_norm=factor(remembering, "norm"),
                burst=burst(measured),
                silent=1 - float(np.nan_to_num(measured["active"]).mean(axis=1).max()),
            )
        )
    return tuple(found)


def _places(start: int, step: np.ndarray, count: int) -> list[tuple[int, int, np.ndarray]]:
    """First and last step of each part, and its windows; none if one has no window."""
    bounds = start + (step[-1] - start) * np.arange(count + 1) / count
    found = [
        (int(low), int(high), np.flatnonzero((step > low) & (step <= high))) for low, high in itertools.pairwise(bounds)
    ]
    return found if all(len(place) for *_, place in found) else []


def drowned(least: float, predicted: Prediction, step: np.ndarray, rotation: np.ndarray) -> tuple[float, float]:
    """What is lost of decay and of rotation where a step of either is less than `least` of the weights."""
    rates, spec = predicted.rates, predicted.spec
    decay = rates.lr * rates.weight_decay
    lost = float(decay[decay < least].sum()) if spec.decay == "decoupled" else 0.0
    square, share = np.median(rotation, axis=0) ** 2, 0.0
    bounds = rates.start + (step[-1] - rates.start) * np.arange(QUARTERS + 1) / QUARTERS
    for low, high in itertools.pairwise(bounds):
        part = square[(step > low) & (step <= high)]
        if part.sum() > 0:
            share = max(share, float(part[part < least**2].sum() / part.sum()))
    return lost, share


def curves_of(
    step: np.ndarray, kept: dict[str, np.ndarray], theory: dict[str, np.ndarray], factor: np.ndarray
) -> Curves:
    """The course of the median neuron; `factor` is what the gradient's radial part makes of norm and rotation."""
    names = {"norm": 0, "rotation": 1}
    predicted = {name: np.median(theory[name], axis=0) for name in names}
    return Curves(
        step,
        {name: np.median(kept[name], axis=0) for name in names},
        predicted,
        {name: predicted[name] * factor[row] for name, row in names.items()},
        {name: np.median(kept[name] / theory[name], axis=0) for name in names},
        {name: rms(kept[name]) / rms(theory[name]) for name in names},
    )
