"""The course of one layer in quarters of its run: prediction and measurement, and the noise of the latter."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim.facts import along, burst, median, rms
from rotsim.statistics import median_ratio, scatter
from rotsim.theory.base import Theory
from rotsim.theory.traces import Prediction

QUARTERS = 4  # of the run, in each of which prediction and measurement must agree


@dataclass(frozen=True)
class Quarter:
    """One quarter of a run: medians over neurons of the RMS over its windows.

    Attributes
    ----------
    start, end : int
        Its windows end after the one and up to the other step.
    predicted_rotation, measured_rotation : float
        Radians per step.
    predicted_norm, measured_norm : float
    rotation_noise, norm_noise : float
        Standard errors of measured over predicted.
    pulled_rotation, pulled_norm : float
        Factors in the prediction that the gradient's radial part makes, and for rotation the share of the update that
        is along the weights.
    remembered_rotation, remembered_norm : float
        Factors that are in the prediction: what the measured gradients, correlated and uneven as they are, make of
        the optimizer's averages.
    burst : float
        E‖g̃‖⁴/(E‖g̃‖²)², 1 for a steady gradient.
    """

    start: int
    end: int
    predicted_rotation: float
    measured_rotation: float
    predicted_norm: float
    measured_norm: float
    rotation_noise: float
    norm_noise: float
    pulled_rotation: float
    pulled_norm: float
    remembered_rotation: float
    remembered_norm: float
    burst: float

    def predicted(self, quantity: str) -> float:
        """Of "rotation" or "norm"."""
        return float(getattr(self, f"predicted_{quantity}"))

    def measured(self, quantity: str) -> float:
        """Of "rotation" or "norm"."""
        return float(getattr(self, f"measured_{quantity}"))

    def corrected(self, quantity: str) -> float:
        """The prediction with the gradient's radial part put in."""
        return self.predicted(quantity) * float(getattr(self, f"pulled_{quantity}"))

    def noise(self, quantity: str) -> float:
        """Standard error of measured over predicted."""
        return float(getattr(self, f"{quantity}_noise"))

    def error(self, quantity: str) -> float:
        """Measured over predicted, minus 1."""
        measured, predicted = self.measured(quantity), self.predicted(quantity)
        return measured / predicted - 1 if measured != predicted else 0.0


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


def quarters_of(
    start: int,
    step: np.ndarray,
    kept: dict[str, np.ndarray],
    theory: dict[str, np.ndarray],
    pulled: np.ndarray,
    remembering: np.ndarray,
    known: Theory[Any] | None,
    parts: int = QUARTERS,
) -> tuple[Quarter, ...]:
    """Prediction and measurement in each of equal parts of the steps after `start`; none if one has no window."""
    bounds = start + (step[-1] - start) * np.arange(parts + 1) / parts
    places = [np.flatnonzero((step > low) & (step <= high)) for low, high in itertools.pairwise(bounds)]
    if not all(len(place) for place in places):
        return ()
    shared = {key: scatter(kept[key] / theory[key]) for key in ("rotation", "norm")}
    found = []
    for place, low, high in zip(places, bounds[:-1], bounds[1:], strict=True):
        measured = {key: value[:, place] for key, value in kept.items()}
        expected = {key: theory[key][:, place] for key in ("rotation", "norm")}
        ratio = {key: median_ratio(measured[key], expected[key], shared[key]) for key in expected}
        middle = {key: np.median(value, axis=0) for key, value in expected.items()}

        def factor(influence: np.ndarray, key: str, at: np.ndarray = place, weight: Any = middle) -> float:
            row = influence[("norm", "rotation").index(key), at]
            square = weight[key] ** 2
            return float(np.sqrt((row**2 * square).sum() / square.sum())) if square.sum() else np.nan

        turning = np.sqrt(1 - along(measured)) if known is not None and known.feels_radial else 1.0
        held = known is not None and known.spec.decay == "none"
        levels = {key: median(rms(expected[key])) for key in expected}
        reached = {
            key: ratio[key].value * levels[key] if levels[key] > 0 else median(rms(measured[key])) for key in expected
        }
        found.append(
            Quarter(
                start=int(low),
                end=int(high),
                predicted_rotation=levels["rotation"],
                measured_rotation=reached["rotation"],
                predicted_norm=levels["norm"],
                measured_norm=reached["norm"],
                rotation_noise=ratio["rotation"].standard_error,
                norm_noise=ratio["norm"].standard_error,
                pulled_rotation=1.0 if held else factor(pulled, "rotation") * float(turning),
                pulled_norm=factor(pulled, "norm"),
                remembered_rotation=factor(remembering, "rotation"),
                remembered_norm=factor(remembering, "norm"),
                burst=burst(measured),
            )
        )
    return tuple(found)


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
