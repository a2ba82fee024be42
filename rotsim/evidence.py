"""What a trace measured of each layer, beside its prediction: the facts on which `rotsim.diagnosis` decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms, dataset, facts
from rotsim.facts import median, rms
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.quarters import Curves, Quarter, curves_of, drowned, quarters_of
from rotsim.statistics import median_ratio, scatter
from rotsim.theory.approach import CLOSE, steps_to_equilibrium
from rotsim.theory.base import theory_of
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.influences import ALIVE, level, signal_of
from rotsim.theory.traces import Prediction, predict_layer

if TYPE_CHECKING:
    import xarray as xr

WITHIN = 0.10
SPACING = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}  # of neighbouring numbers, over the lower
COARSE = 2  # from so many spacings on, rounding up and down even out
_SLOW = 0.9  # quantile of the gradient scales that sets the pace: large ones slow Adam+L2 and lengthen SGDM's way
_COMPLETE = 0.9  # share of the windows that must be finite for a neuron to count


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
    active : float
        Share of the samples of the judged half in which a neuron has a gradient, the mean over neurons.
    lr, weight_decay : float
        In force at the end; the last that moved the weights.
    largest_lr : float
        Of the run.
    quarters : tuple of Quarter
        Four, or none if a quarter has no window.
    predicted_rotation, measured_rotation : float
        Radians per step.
    rotation_error : float
        Standard error of the measured over the predicted rotation, times the latter. See `statistics.median_ratio`.
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
        Correlation left at the longest lags, in the part of the run where most is left; NaN if not measured.
    stable_rank, white_rank : float
        Of the average that a spectral update is made of, and of such a matrix of white noise; NaN for other updates.
    relaxation_steps : float
        Steps in which the norm's distance from equilibrium shrinks by e, at the rates in the middle of their course.
    steps_needed : float
        Steps from the norm at the start to within 5 % of equilibrium at these rates, by theory; at least a relaxation.
    drowned_decay, drowned_rotation : float
        What rounding of the stored weights takes, in steps of less than `COARSE` spacings. Of decay: the change of
        ln ‖w‖. Of rotation: the largest share of a quarter's squared rotation.
    scheduled : bool
        Some rate changed.
    judged_from : int
        Steps before the predicted course: 0, or the end of a first window that it cannot follow.
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
    active: float
    lr: float
    weight_decay: float
    largest_lr: float
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
    stable_rank: float
    white_rank: float
    relaxation_steps: float
    steps_needed: float
    drowned_decay: float
    drowned_rotation: float
    scheduled: bool
    judged_from: int
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
    """The evidence of every layer of a recorder's trace, in the order of its neurons.

    Raises
    ------
    DatasetError
        If it does not follow the schema of `rotsim.dataset`.
    """
    trace = dataset.completed(dataset.validate(trace))
    for name in dict.fromkeys(trace["layer"].values.tolist()):
        layer = trace.isel(neuron=trace["layer"].values == name)
        yield _layer(name, layer, predict_layer(trace, name), facts.correlation(trace, name), signal_of(trace, name))


@np.errstate(divide="ignore", invalid="ignore")  # nothing moves where a rate is 0
def _layer(
    name: str, layer: xr.Dataset, predicted: Prediction, correlation: np.ndarray | None, lasting: float
) -> Evidence:
    values = {
        str(key): layer[key].values.astype(float) for key in layer.data_vars if layer[key].dims == ("neuron", "step")
    }
    step, first, rates = layer["step"].values, predicted.first, predicted.rates
    half, dim = layer.sizes["step"] // 2, int(layer["fan_in"].values[0])
    finite = np.isfinite(values["norm"]) & np.isfinite(values["rotation"])
    whole = finite[:, first:].mean(axis=1) >= _COMPLETE
    active = np.nan_to_num(values["active"][:, max(half, first) :]).mean(axis=1)
    dead = whole & (active < ALIVE)
    rows = whole & ~dead
    used = finite[rows].all(axis=0) & rows.any()  # the windows that all these neurons have
    used[:first] = False
    of_all: dict[str, Any] = {
        "layer": name,
        "fan_in": dim,
        "neurons": len(rows),
        "dead": int(dead.sum()),
        "lost": int((~whole).sum()),
        "active": float(active.mean()),
        "lr": float(layer["lr"].values[0]),
        "weight_decay": float(layer["weight_decay"].values[0]),
        "largest_lr": float(max(layer["lr"].values[0], rates.lr.max(initial=0.0))),
        "windows": int(used.sum()),
        "judged_from": rates.start,
        "recorded_from": int(step[finite.any(axis=0)][0]) if finite.any() else int(step[-1]),
        "scheduled": any(np.ptp(rate[np.isfinite(rate)], axis=None) > 0 for rate in _known(rates)),
    }
    if not (used.any() and rates.lr.size):
        nothing = {each.name: np.nan for each in fields(Evidence) if each.name not in of_all}
        return Evidence(**{**nothing, **of_all, "quarters": (), "curves": None})
    kept = {key: value[rows][:, used] for key, value in values.items()}
    span = layer["span"].values[used] if "span" in layer.variables else 1
    kept["pace"] = facts.pace(kept["norm"], step[used]) * span
    theory = dict(zip(dataset.QUANTITIES, predicted.values[:, rows][:, :, used], strict=True))
    spec, known = predicted.spec, theory_of(predicted.spec)
    pulled, remembering = (factor[:, used] for factor in (predicted.pulled, predicted.remembering))
    rotation, around = rms(kept["rotation"]), rms(theory["rotation"])
    predictable = bool(np.isfinite(around).all())
    quarters = quarters_of(rates.start, step[used], kept, theory, pulled, remembering, known)
    radial, radial_error = facts.radial(kept, known, float(np.median(rates.weight_decay)), dim)
    relaxation, steps_needed = (
        _relaxation(
            spec, dim, median(predicted.start_norm[rows]), kept["gradient_scale"], int(step[-1]), predicted.matrix_rows
        )
        if predictable and spec.settles
        else (np.nan, np.nan)
    )
    center = median(around)
    bursts = {
        key: facts.mean([getattr(part, key) for part in predicted.bursts])
        for key in ("rotation", "norm", "error", "overlap")
    }
    measured_more = known is not None and known.feels_radial and np.isfinite(radial) and spec.decay != "none"

    def corrected(quantity: str) -> float:
        factor = [_corrected(each, quantity) for each in quarters]
        return median(rms(theory[quantity])) * facts.mean(factor) if measured_more and factor else np.nan

    dtype = dataset.spec_of(layer).get("dtypes", {}).get(name.split("[")[0])
    drowned_decay, drowned_rotation = drowned(
        COARSE * SPACING.get(dtype, 0.0), predicted, step[used], theory["rotation"]
    )
    against = theory["rotation"] / center if predictable else np.ones_like(kept["rotation"])
    return Evidence(
        **of_all,
        quarters=quarters,
        predicted_rotation=center,
        measured_rotation=median(rotation),
        rotation_error=median_ratio(kept["rotation"], against, scatter(kept["rotation"] / against)).standard_error,
        corrected_rotation=corrected("rotation"),
        predicted_norm=median(rms(theory["norm"])),
        measured_norm=median(rms(kept["norm"])),
        corrected_norm=corrected("norm"),
        rotation_factor=(np.nan if known is None or correlation is None else known.correlation_factors(correlation)[0]),
        spread=float(rotation.std() / rotation.mean()) if rotation.mean() > 0 else np.nan,
        within=float(np.mean(np.abs(rotation / around - 1) <= WITHIN)) if predictable else np.nan,
        radial=radial,
        radial_error=radial_error,
        norm_change=median(kept["norm"][:, -1] / np.where(kept["norm"][:, 0] > 0, kept["norm"][:, 0], np.nan)),
        cosine=facts.cosine(kept, dim),
        along=facts.along(kept),
        burst=max((each.burst for each in quarters), default=np.nan),
        burst_rotation=bursts["rotation"],
        burst_norm=bursts["norm"],
        burst_error=bursts["error"],
        overlap=bursts["overlap"],
        signal=_signal(lasting, correlation),
        stable_rank=median(kept["stable_rank"]) if "stable_rank" in kept else np.nan,
        white_rank=_white_rank(predicted.matrix_rows, dim),
        relaxation_steps=relaxation,
        steps_needed=steps_needed,
        drowned_decay=drowned_decay,
        drowned_rotation=drowned_rotation,
        curves=curves_of(step[used], kept, theory, pulled),
    )


def _signal(lasting: float, correlation: np.ndarray | None) -> float:
    if np.isfinite(lasting):
        return lasting
    return level(correlation) if correlation is not None else np.nan


def _white_rank(rows: int | None, dim: int) -> float:
    """Shorter side over the largest squared singular value, where the mean of all is 1 (`derivations.muon`)."""
    shorter, longer = sorted((rows or 0, dim))
    return shorter / float(closed_forms.spectral_eigenvalue(0.0, shorter / longer)) if rows else np.nan


def _known(rates: Any) -> list[np.ndarray]:
    every = [rates.lr, rates.weight_decay, *rates.betas]
    return [rate for rate in every if np.isfinite(rate).any()]


def _corrected(quarter: Quarter, quantity: str) -> float:
    return quarter.corrected(quantity) / quarter.predicted(quantity)


def _relaxation(
    optimizer: Optimizer, dim: int, initial_norm: float, scale: np.ndarray, last: int, rows: int | None
) -> tuple[float, float]:
    """Steps in which the norm relaxes, and steps to equilibrium from the first recorded norm."""
    if not initial_norm > 0:
        return float("nan"), float("nan")
    gradient = ScaleInvariant(float(np.quantile(rms(scale), _SLOW)))
    settled = equilibrium(optimizer, dim, gradient, rows=rows)
    relaxation = settled.relaxation_steps
    if not relaxation:  # a norm that is held
        return 0.0, 0.0
    if 2 * relaxation <= last:  # else the answer is far off, and an estimate will do
        steps = steps_to_equilibrium(optimizer, dim, gradient, initial_norm, CLOSE, rows=rows)
        return relaxation, max(relaxation, float(steps))
    excess = abs((initial_norm / settled.norm) ** 2 - 1)
    return relaxation, relaxation * max(1.0, float(np.log(max(excess, 1e-9) / (2 * CLOSE))))
