"""What a trace measured of each layer, beside its prediction: the facts on which `rotsim.diagnosis` decides."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.approach import steps_to_equilibrium
from rotsim.theory.base import Theory, theory_of
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.influences import ALIVE
from rotsim.theory.traces import Prediction, predict_layer

if TYPE_CHECKING:
    import xarray as xr

WITHIN = 0.10
CLOSE = 0.05  # of norm and rotation, where a run counts as in equilibrium
QUARTERS = 4  # of the run, in each of which prediction and measurement must agree
SPACING = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}  # of neighbouring numbers, over the lower
COARSE = 2  # from so many spacings on, rounding up and down even out
_SLOW = 0.9  # quantile of the gradient scales that sets the pace: large ones slow Adam+L2 and lengthen SGDM's way
_COMPLETE = 0.9  # share of the windows that must be finite for a neuron to count


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

    def error(self, quantity: str) -> float:
        """Measured over predicted, minus 1."""
        return self.measured(quantity) / self.predicted(quantity) - 1


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


@dataclass(frozen=True)
class Evidence:
    """One layer: prediction, measurement, and what tells whether the one should describe the other.

    Predicted and measured mean: median over live neurons of the RMS over all judged windows, those of the quarters.

    Attributes
    ----------
    layer : str
    fan_in : int
        Weights per row.
    neurons, dead, lost : int
        Rows recorded; those without a gradient in most samples; those with too few finite windows to count.
    lr, weight_decay : float
        In force at the end; the last that moved the weights.
    quarters : tuple of Quarter
        Four, or none if a quarter has no window.
    predicted_rotation, measured_rotation : float
        Radians per step.
    rotation_error : float
        Standard error of the measured over the predicted rotation, times the latter.
    corrected_rotation : float
        The prediction with the measured radial part of the gradient put in, λ_eff = λ + P for λ; NaN if there is
        none. It uses weights and gradients of the same windows: it explains, it does not predict.
    predicted_norm, measured_norm, corrected_norm : float
    rotation_factor : float
        What the autocorrelation of the last half does to rotation, over white noise; NaN if not measured.
    spread : float
        Standard deviation over mean of the neurons' rotations.
    within : float
        Share of neurons whose rotation is within 10 % of the prediction.
    radial, radial_error : float
        λ_eff/λ - 1, that is P/λ, and its standard error; NaN if not measured. For Adam+L2, whose decay is divided by
        √v like the gradient, over the decay that one size of gradient in all coordinates would give.
    norm_change : float
        Norm at the end of the judged windows over that at their start.
    cosine : float
        RMS cosine between weights and gradient, in units of 1/√dim: 0 for scale-invariant weights, 1 for a gradient
        in a random direction; NaN if not measured.
    along : float
        Share of the squared update that is along the weights, 1 - (θ‖w‖/‖Δw‖)², beyond what changes the norm for good.
    burst : float
        E‖g̃‖⁴/(E‖g̃‖²)² of the quarter with the largest, 1 for a steady gradient.
    burst_rotation, burst_norm, burst_error : float
        Factors in the predicted rotation and norm that bursts make under Lion, and the standard error of the first.
        The mean of the parts of the run where they are known; NaN if the gradient's course was not recorded.
    overlap : float
        Mean squared cosine of a row's gradients at different steps, 1 over the number of coordinates that vary
        independently; NaN likewise.
    signal : float
        Correlation left at the longest lags; NaN if not measured.
    relaxation_steps : float
        Steps in which the norm's distance from equilibrium shrinks by e, at the rates in the middle of their course.
    steps_needed : float
        Steps from the norm at the start to within 5 % of equilibrium at these rates, by theory; at least a relaxation.
    drowned_decay, drowned_rotation : float
        What rounding of the stored weights takes, in steps of less than `COARSE` spacings. Of decay: the change of
        ln ‖w‖. Of rotation: the largest share of a quarter's squared rotation.
    scheduled : bool
        Some rate changed.
    recorded_from : int
        First recorded step of the layer: later than the first window if it joined later.
    windows : int
        Record windows that are judged.
    curves : Curves or None
    """

    layer: str
    fan_in: int
    neurons: int
    dead: int
    lost: int
    lr: float
    weight_decay: float
    quarters: tuple[Quarter, ...]
    predicted_rotation: float
    measured_rotation: float
    rotation_error: float
    corrected_rotation: float
    predicted_norm: float
    measured_norm: float
    corrected_norm: float
    rotation_factor: float
    spread: float
    within: float
    radial: float
    radial_error: float
    norm_change: float
    cosine: float
    along: float
    burst: float
    burst_rotation: float
    burst_norm: float
    burst_error: float
    overlap: float
    signal: float
    relaxation_steps: float
    steps_needed: float
    drowned_decay: float
    drowned_rotation: float
    scheduled: bool
    recorded_from: int
    windows: int
    curves: Curves | None = field(default=None, repr=False, compare=False)

    @property
    def ratio(self) -> float:
        """Measured over predicted rotation."""
        return self.measured_rotation / self.predicted_rotation

    @property
    def norm_ratio(self) -> float:
        """Measured over predicted norm."""
        return self.measured_norm / self.predicted_norm

    def worst(self, quantity: str) -> Quarter:
        """The quarter whose measured "rotation" or "norm" is furthest from the prediction; NaN counts as furthest."""
        return max(self.quarters, key=lambda quarter: np.nan_to_num(abs(quarter.error(quantity)), nan=np.inf))


def gather(trace: xr.Dataset) -> Iterator[Evidence]:
    """The evidence of every layer of a trace, in the order of its neurons.

    Parameters
    ----------
    trace : Dataset
        From `rotsim.measure.Recorder`.

    Yields
    ------
    Evidence

    Raises
    ------
    DatasetError
        If it does not follow the schema of `rotsim.dataset`.
    """
    dataset.need(dataset.validate(trace), "layer", "lr", "weight_decay", "active", "gradient_norm", "gradient_scale")
    for name in dict.fromkeys(trace["layer"].values.tolist()):
        layer = trace.isel(neuron=trace["layer"].values == name)
        yield _layer(name, layer, predict_layer(trace, name), _correlation(trace, name))


@np.errstate(divide="ignore", invalid="ignore")  # nothing moves where a rate is 0
def _layer(name: str, layer: xr.Dataset, predicted: Prediction, correlation: np.ndarray | None) -> Evidence:
    values = {
        str(key): layer[key].values.astype(float) for key in layer.data_vars if layer[key].dims == ("neuron", "step")
    }
    step, first, rates = layer["step"].values, predicted.first, predicted.rates
    half, dim = layer.sizes["step"] // 2, int(layer["fan_in"].values[0])
    finite = np.isfinite(values["norm"]) & np.isfinite(values["rotation"])
    whole = finite[:, first:].mean(axis=1) >= _COMPLETE
    dead = whole & (np.nan_to_num(values["active"][:, max(half, first) :]).mean(axis=1) < ALIVE)
    rows = whole & ~dead
    used = finite[rows].all(axis=0) & rows.any()  # the windows that all these neurons have
    used[:first] = False
    facts: dict[str, Any] = {
        "layer": name,
        "fan_in": dim,
        "neurons": len(rows),
        "dead": int(dead.sum()),
        "lost": int((~whole).sum()),
        "lr": float(layer["lr"].values[0]),
        "weight_decay": float(layer["weight_decay"].values[0]),
        "windows": int(used.sum()),
        "recorded_from": int(step[finite.any(axis=0)][0]) if finite.any() else int(step[-1]),
        "scheduled": any(np.ptp(rate[np.isfinite(rate)], axis=None) > 0 for rate in _known(rates)),
    }
    if not used.any():
        nothing = {each.name: np.nan for each in fields(Evidence) if each.name not in facts}
        return Evidence(**{**nothing, **facts, "quarters": (), "curves": None})
    kept = {key: value[rows][:, used] for key, value in values.items()}
    kept["pace"] = _pace(kept["norm"], step[used])
    theory = dict(zip(dataset.QUANTITIES, predicted.values[:, rows][:, :, used], strict=True))
    spec, known = predicted.spec, theory_of(predicted.spec)
    pulled, remembering = (factor[:, used] for factor in (predicted.pulled, predicted.remembering))
    rotation, around = _rms(kept["rotation"]), _rms(theory["rotation"])
    predictable = bool(np.isfinite(around).all())
    quarters = _quarters(rates.start, step[used], kept, theory, pulled, remembering, known)
    (radial, radial_error), along = (
        _radial(kept, known, float(np.median(rates.weight_decay)), dim),
        _along(kept),
    )
    relaxation, steps_needed = (
        _relaxation(spec, dim, _median(predicted.start_norm[rows]), kept["gradient_scale"], int(step[-1]))
        if predictable and spec.weight_decay > 0
        else (np.nan, np.nan)
    )
    center = _median(around)
    bursts = {
        key: _mean([getattr(part, key) for part in predicted.bursts])
        for key in ("rotation", "norm", "error", "overlap")
    }
    measured_more = known is not None and known.feels_radial and np.isfinite(radial) and spec.decay != "none"

    def corrected(quantity: str) -> float:
        factor = [_corrected(each, quantity) for each in quarters]
        return _median(_rms(theory[quantity])) * _mean(factor) if measured_more and factor else np.nan

    dtype = dataset.spec_of(layer).get("dtypes", {}).get(name.split("[")[0])
    drowned = _drowned(COARSE * SPACING.get(dtype, 0.0), predicted, step[used], theory["rotation"])
    course = center * np.median(kept["rotation"] / theory["rotation"], axis=0) if predictable else None
    return Evidence(
        **facts,
        quarters=quarters,
        predicted_rotation=center,
        measured_rotation=_median(rotation),
        rotation_error=_median_error(kept["rotation"], course),
        corrected_rotation=corrected("rotation"),
        predicted_norm=_median(_rms(theory["norm"])),
        measured_norm=_median(_rms(kept["norm"])),
        corrected_norm=corrected("norm"),
        rotation_factor=(np.nan if known is None or correlation is None else known.correlation_factors(correlation)[0]),
        spread=float(rotation.std() / rotation.mean()) if rotation.mean() > 0 else np.nan,
        within=float(np.mean(np.abs(rotation / around - 1) <= WITHIN)) if predictable else np.nan,
        radial=radial,
        radial_error=radial_error,
        norm_change=_median(kept["norm"][:, -1] / np.where(kept["norm"][:, 0] > 0, kept["norm"][:, 0], np.nan)),
        cosine=_cosine(kept, dim),
        along=along,
        burst=max((each.burst for each in quarters), default=np.nan),
        burst_rotation=bursts["rotation"],
        burst_norm=bursts["norm"],
        burst_error=bursts["error"],
        overlap=bursts["overlap"],
        signal=float(correlation[3 * len(correlation) // 4 :].mean()) if correlation is not None else np.nan,
        relaxation_steps=relaxation,
        steps_needed=steps_needed,
        drowned_decay=drowned[0],
        drowned_rotation=drowned[1],
        curves=_curves(step[used], kept, theory, pulled),
    )


def _known(rates: Any) -> list[np.ndarray]:
    every = [rates.lr, rates.weight_decay, *rates.betas]
    return [rate for rate in every if np.isfinite(rate).any()]


def _corrected(quarter: Quarter, quantity: str) -> float:
    return quarter.corrected(quantity) / quarter.predicted(quantity)


def _quarters(
    start: int,
    step: np.ndarray,
    kept: dict[str, np.ndarray],
    theory: dict[str, np.ndarray],
    pulled: np.ndarray,
    remembering: np.ndarray,
    known: Theory[Any] | None,
) -> tuple[Quarter, ...]:
    """Prediction and measurement in each quarter of the steps after `start`; none if one of them has no window."""
    bounds = start + (step[-1] - start) * np.arange(QUARTERS + 1) / QUARTERS
    places = [np.flatnonzero((step > low) & (step <= high)) for low, high in itertools.pairwise(bounds)]
    if not all(len(place) for place in places):
        return ()
    found = []
    for place, low, high in zip(places, bounds[:-1], bounds[1:], strict=True):
        measured = {key: value[:, place] for key, value in kept.items()}
        expected = {key: theory[key][:, place] for key in ("rotation", "norm")}
        ratio = {key: _median(_rms(measured[key]) / _rms(expected[key])) for key in expected}
        middle = {key: np.median(value, axis=0) for key, value in expected.items()}

        def factor(influence: np.ndarray, key: str, at: np.ndarray = place, weight: Any = middle) -> float:
            row = influence[("norm", "rotation").index(key), at]
            square = weight[key] ** 2
            return float(np.sqrt((row**2 * square).sum() / square.sum())) if square.sum() else np.nan

        turning = np.sqrt(1 - _along(measured)) if known is not None and known.feels_radial else 1.0
        held = known is not None and known.spec.decay == "none"
        levels = {key: _median(_rms(expected[key])) for key in expected}
        found.append(
            Quarter(
                start=int(low),
                end=int(high),
                predicted_rotation=levels["rotation"],
                measured_rotation=ratio["rotation"] * levels["rotation"]
                if np.isfinite(levels["rotation"])
                else _median(_rms(measured["rotation"])),
                predicted_norm=levels["norm"],
                measured_norm=ratio["norm"] * levels["norm"]
                if np.isfinite(levels["norm"])
                else _median(_rms(measured["norm"])),
                pulled_rotation=1.0 if held else factor(pulled, "rotation") * float(turning),
                pulled_norm=factor(pulled, "norm"),
                remembered_rotation=factor(remembering, "rotation"),
                remembered_norm=factor(remembering, "norm"),
                burst=_burst(measured),
            )
        )
    return tuple(found)


def _drowned(least: float, predicted: Prediction, step: np.ndarray, rotation: np.ndarray) -> tuple[float, float]:
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


def _curves(step: np.ndarray, kept: dict[str, np.ndarray], theory: dict[str, np.ndarray], factor: np.ndarray) -> Curves:
    names = {"norm": 0, "rotation": 1}
    predicted = {name: np.median(theory[name], axis=0) for name in names}
    return Curves(
        step,
        {name: np.median(kept[name], axis=0) for name in names},
        predicted,
        {name: predicted[name] * factor[row] for name, row in names.items()},
        {name: np.median(kept[name] / theory[name], axis=0) for name in names},
        {name: _rms(kept[name]) / _rms(theory[name]) for name in names},
    )


def _rms(series: np.ndarray) -> np.ndarray:
    return np.sqrt((series**2).mean(axis=1))


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _mean(values: list[float]) -> float:
    """Over finite values; NaN without any."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def _median_error(series: np.ndarray, course: np.ndarray | None) -> float:
    """Standard error of the median over neurons: from its scatter about its course, and the spread over neurons."""
    over_time = np.median(series, axis=0) if course is None else course
    low, high = np.quantile(_rms(series), [0.16, 0.84])
    along = over_time.std() / np.sqrt(len(over_time))
    return float(np.hypot(along, 1.25 * (high - low) / 2 / np.sqrt(len(series))))


def _correlation(trace: xr.Dataset, name: str) -> np.ndarray | None:
    """Autocorrelation of the parameter that holds the layer, if it was recorded."""
    parameter = name.split("[")[0]
    if "gradient_autocorrelation" not in trace or parameter not in trace["parameter"].values:
        return None
    values = trace["gradient_autocorrelation"].sel(parameter=parameter).values.astype(float)
    return values if np.isfinite(values).all() else None


def _relaxation(
    optimizer: Optimizer, dim: int, initial_norm: float, scale: np.ndarray, last: int
) -> tuple[float, float]:
    """Steps in which the norm relaxes, and steps to equilibrium from the first recorded norm."""
    if not initial_norm > 0:
        return float("nan"), float("nan")
    gradient = ScaleInvariant(float(np.quantile(_rms(scale), _SLOW)))
    settled = equilibrium(optimizer, dim, gradient)
    relaxation = settled.relaxation_steps
    if not relaxation:  # a rotational variant
        return 0.0, 0.0
    if 2 * relaxation <= last:  # else the answer is far off, and an estimate will do
        steps = steps_to_equilibrium(optimizer, dim, gradient, initial_norm, CLOSE)
        return relaxation, max(relaxation, float(steps))
    excess = abs((initial_norm / settled.norm) ** 2 - 1)
    return relaxation, relaxation * max(1.0, float(np.log(max(excess, 1e-9) / (2 * CLOSE))))


def _radial(kept: dict[str, np.ndarray], theory: Theory[Any] | None, decay: float, dim: int) -> tuple[float, float]:
    """λ_eff/λ - 1, the median over neurons, and its standard error; windows weigh by ‖w‖², as its balance has it."""
    if "radial" not in kept or theory is None or decay == 0:
        return float("nan"), float("nan")
    weight = kept["norm"] ** 2
    series = kept["radial"] * weight / weight.mean(axis=1, keepdims=True) / decay
    series = theory.radial_share(series, _rms(kept["gradient_norm"]) / dim**0.5)
    return _median(series.mean(axis=1)), _median_error_of_mean(series)


def _median_error_of_mean(series: np.ndarray) -> float:
    over_time = series.mean(axis=0)
    return float(over_time.std() / np.sqrt(len(over_time)))


def _cosine(kept: dict[str, np.ndarray], dim: int) -> float:
    if "gradient_cosine" not in kept:
        return float("nan")
    return float(np.nanmedian(np.sqrt(np.nanmean(kept["gradient_cosine"] ** 2, axis=1)))) * dim**0.5


def _along(kept: dict[str, np.ndarray]) -> float:
    """What changes the norm for good, decay and growth, is along the weights too, and does not count."""
    across = ((kept["norm"] * kept["rotation"]) ** 2 + kept["pace"] ** 2).mean(axis=1)
    total = (kept["update_rms"] ** 2).mean(axis=1)
    return _median(np.maximum(0.0, 1 - across[total > 0] / total[total > 0]))


def _pace(norm: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Change of the norm per step."""
    return np.gradient(norm, step, axis=1) if len(step) > 1 else np.zeros_like(norm)


def _burst(kept: dict[str, np.ndarray]) -> float:
    """Over all samples: within windows as recorded, between them from the windows' scales."""
    square = kept["gradient_scale"] ** 2
    inside = np.nan_to_num(kept["gradient_burst"], nan=1.0) if "gradient_burst" in kept else np.ones_like(square)
    mean = square.mean(axis=1)
    return _median((inside * square**2).mean(axis=1)[mean > 0] / mean[mean > 0] ** 2)
