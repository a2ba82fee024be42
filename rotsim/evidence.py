"""What a trace measured of each layer, beside its prediction: the facts on which `rotsim.diagnosis` decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.comparison import TRACE_DRIFT
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.statistics import equilibration
from rotsim.theory.approach import steps_to_equilibrium
from rotsim.theory.base import Theory, theory_of
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.traces import ALIVE, predict_trace

if TYPE_CHECKING:
    import xarray as xr

WITHIN = 0.10
START_TOLERANCE = 0.05  # of norm and rotation, where an average may begin: what is left fades while it goes on
_PACE_QUANTILE = 0.9  # of the gradient scales; it sets the pace: large ones slow Adam+L2 and lengthen SGDM's way
_COMPLETE = 0.9  # share of the windows that must be finite for a neuron to count


@dataclass(frozen=True)
class Evidence:
    """One layer: prediction, measurement, and what tells whether the one should describe the other.

    Measured means: median over live neurons of what the last half of the trace averages.

    Attributes
    ----------
    layer : str
    fan_in : int
        Weights per row.
    neurons, dead, lost : int
        Rows recorded; those without a gradient in most samples; those with too few finite windows to count.
    lr, weight_decay : float
        In force at the end.
    predicted_rotation, measured_rotation : float
        Radians per step.
    rotation_error : float
        Standard error of the measured rotation.
    corrected_rotation : float
        The prediction with the measured growth of the norm put in. For EMA optimizers and Adam+L2 also with the radial
        part of the gradient, λ_eff = λ + P for λ, and for Lion with the gradient's autocorrelation. NaN if not
        measured. It uses the gradients of the same windows: it explains, it does not predict.
    predicted_norm, measured_norm : float
    norm_factor, rotation_factor : float
        What the measured autocorrelation does to norm and rotation, over white noise. The norms of AdamW and SGDM are
        judged by what the measured gradients make of the optimizer's averages: also by bursts of single coordinates and
        dead ones (AdamW), and with large coordinates counting more (SGDM). NaN if not measured.
    spread : float
        Standard deviation over mean of the neurons' rotations.
    within : float
        Share of neurons whose rotation is within 10 % of the prediction.
    radial, radial_error : float
        λ_eff/λ - 1, that is P/λ, and its standard error; NaN if not measured. For Adam+L2, whose decay is divided by
        √v like the gradient, over the decay that one size of gradient in all coordinates would give.
    growth : float
        Growth of ‖w‖² in the judged half, over its decay: 0 in equilibrium, < 0 while the norm falls.
    norm_change : float
        Norm at the end of the judged half over that at its start.
    cosine : float
        RMS cosine between weights and gradient, in units of 1/√dim: 0 for scale-invariant weights, 1 for a gradient
        in a random direction; NaN if not measured.
    along : float
        Share of the squared update that is along the weights, 1 - (θ‖w‖/‖Δw‖)².
    burst : float
        E‖g̃‖⁴/(E‖g̃‖²)², 1 for a steady gradient.
    burst_rotation, burst_norm, burst_error : float
        Factors in the predicted rotation and norm that bursts make under Lion, and the standard error of the first
        (`rotsim.theory.traces.layer_bursts`). NaN if the gradient's course was not recorded.
    overlap : float
        Mean squared cosine of a row's gradients at different steps, 1 over the number of coordinates that vary
        independently; NaN likewise.
    signal : float
        Correlation left at the longest lags; NaN if not measured.
    relaxation_steps : float
        Steps in which the norm's distance from equilibrium shrinks by e.
    steps_needed : float
        Steps from the norm at the start of the trace to within 5 % of equilibrium, by theory; at least a relaxation.
    recorded_from : int
        First recorded step of the layer: later than the first window if it joined later.
    settled : bool
        Norm and rotation are stationary.
    windows : int
        Record windows that could be used.
    """

    layer: str
    fan_in: int
    neurons: int
    dead: int
    lost: int
    lr: float
    weight_decay: float
    predicted_rotation: float
    measured_rotation: float
    rotation_error: float
    corrected_rotation: float
    predicted_norm: float
    measured_norm: float
    norm_factor: float
    rotation_factor: float
    spread: float
    within: float
    radial: float
    radial_error: float
    growth: float
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
    recorded_from: int
    settled: bool
    windows: int

    @property
    def ratio(self) -> float:
        """Measured over predicted rotation."""
        return self.measured_rotation / self.predicted_rotation

    @property
    def norm_ratio(self) -> float:
        """Measured over predicted norm."""
        return self.measured_norm / self.predicted_norm


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
    dataset.need(dataset.validate(trace), "active", "gradient_norm")
    optimizer = dataset.optimizer_of(trace)
    predicted = predict_trace(trace).isel(step=0)
    for name in dict.fromkeys(trace["layer"].values.tolist()):
        here = trace["layer"].values == name
        yield _layer(
            name, trace.isel(neuron=here), predicted.isel(neuron=here), optimizer, _correlation(trace, name),
            _square_step(trace, name),
        )  # fmt: skip


def _layer(
    name: str,
    layer: xr.Dataset,
    predicted: xr.Dataset,
    optimizer: Optimizer,
    correlation: np.ndarray | None,
    square_step: float,
) -> Evidence:
    values = {
        str(key): layer[key].values.astype(float) for key in layer.data_vars if layer[key].dims == ("neuron", "step")
    }
    step, half, dim = layer["step"].values, layer.sizes["step"] // 2, int(layer["fan_in"].values[0])
    finite = np.isfinite(values["norm"]) & np.isfinite(values["rotation"])
    whole = finite[:, half:].mean(axis=1) >= _COMPLETE
    dead = whole & (np.nan_to_num(values["active"][:, half:]).mean(axis=1) < ALIVE)
    rows = whole & ~dead
    used = finite[rows].all(axis=0) & rows.any()  # the windows that all these neurons have
    lr, decay = float(layer["lr"].values[0]), float(layer["weight_decay"].values[0])
    facts = {
        "layer": name,
        "fan_in": dim,
        "neurons": len(rows),
        "dead": int(dead.sum()),
        "lost": int((~whole).sum()),
        "lr": lr,
        "weight_decay": decay,
        "windows": int(used.sum()),
        "recorded_from": int(step[finite.any(axis=0)][0]) if finite.any() else int(step[-1]),
    }
    if not used[half:].any():
        nothing = {field.name: np.nan for field in fields(Evidence) if field.name not in facts}
        return Evidence(**{**nothing, **facts, "settled": False})  # type: ignore[arg-type]
    every = {key: value[rows][:, used] for key, value in values.items()}
    late = {key: value[:, used[:half].sum() :] for key, value in every.items()}
    theory = {key: predicted[key].values[rows] for key in ("norm", "rotation")}
    if optimizer.decay == "none":
        theory["norm"] = every["norm"][:, 0]  # it keeps the norm it starts with
    # the rates of the layer, not those of another group; without decay a rotational variant does not rotate
    plain = optimizer.plain if decay == 0 else optimizer
    spec = plain.with_rates(lr, decay) if lr > 0 else plain
    known = theory_of(spec)
    rotation_factor, norm_factor = np.nan, np.nan
    if known is not None and correlation is not None:
        rotation_factor, norm_factor = known.correlation_factors(correlation)
    predictable = bool(np.isfinite(theory["rotation"]).all())
    if known is not None and np.isfinite(square_step):  # ‖Δw‖ = η√dim·√E(m/√v)² = θ‖w‖
        norm_factor = known.norm_factor(square_step, dim, _median(theory["norm"] * theory["rotation"]))
    ratios = [every[key] / theory[key][:, None] for key in ("norm", "rotation")]
    relaxation, steps_needed = (
        _relaxation(spec, dim, _median(every["norm"][:, 0]), late["gradient_scale"], int(step[-1]))
        if predictable
        else (np.nan, np.nan)
    )
    rotation, (radial, radial_error), along = _rms(late["rotation"]), _radial(late, known, decay, dim), _along(late)
    center = _median(theory["rotation"])
    growth = _growth(step[half:][used[half:]], late["norm"], known, center)
    return Evidence(
        **facts,  # type: ignore[arg-type]
        predicted_rotation=center,
        measured_rotation=_median(rotation),
        rotation_error=_median_error(late["rotation"]),
        corrected_rotation=(
            np.nan if known is None else known.corrected_rotation(center, radial, growth, along, rotation_factor)
        ),
        predicted_norm=_median(theory["norm"]),
        measured_norm=_median(_rms(late["norm"])),
        norm_factor=norm_factor,
        rotation_factor=rotation_factor,
        spread=float(rotation.std() / rotation.mean()) if rotation.mean() > 0 else np.nan,
        within=float(np.mean(np.abs(rotation / theory["rotation"] - 1) <= WITHIN)) if predictable else np.nan,
        radial=radial,
        radial_error=radial_error,
        growth=growth,
        norm_change=_median(late["norm"][:, -1] / np.where(late["norm"][:, 0] > 0, late["norm"][:, 0], np.nan)),
        cosine=_cosine(late, dim),
        along=along,
        burst=_burst(late),
        burst_rotation=float(predicted["burst_rotation"].values[0]),
        burst_norm=float(predicted["burst_norm"].values[0]),
        burst_error=float(predicted["burst_error"].values[0]),
        overlap=float(predicted["overlap"].values[0]),
        signal=float(correlation[3 * len(correlation) // 4 :].mean()) if correlation is not None else np.nan,
        relaxation_steps=relaxation,
        steps_needed=steps_needed,
        settled=predictable and equilibration(step[used], ratios, False, TRACE_DRIFT).reached,
    )


def _rms(series: np.ndarray) -> np.ndarray:
    return np.sqrt((series**2).mean(axis=1))


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _median_error(series: np.ndarray) -> float:
    """Standard error of the median over neurons, from its course over windows and the middle spread over neurons."""
    over_time, (low, high) = np.median(series, axis=0), np.quantile(_rms(series), [0.16, 0.84])
    along = over_time.std() / np.sqrt(len(over_time))
    return float(np.hypot(along, 1.25 * (high - low) / 2 / np.sqrt(len(series))))


def _correlation(trace: xr.Dataset, name: str) -> np.ndarray | None:
    """Autocorrelation of the parameter that holds the layer, if it was recorded."""
    parameter = name.split("[")[0]
    if "gradient_autocorrelation" not in trace or parameter not in trace["parameter"].values:
        return None
    values = trace["gradient_autocorrelation"].sel(parameter=parameter).values.astype(float)
    return values if np.isfinite(values).all() else None


def _square_step(trace: xr.Dataset, name: str) -> float:
    """E(m/√v)² of the parameter that holds the layer; NaN if it was not recorded."""
    if "square_step" not in trace or (parameter := name.split("[")[0]) not in trace["parameter"].values:
        return float("nan")
    return float(trace["square_step"].sel(parameter=parameter))


def _relaxation(
    optimizer: Optimizer, dim: int, initial_norm: float, scale: np.ndarray, last: int
) -> tuple[float, float]:
    """Steps in which the norm relaxes, and steps to equilibrium from the first recorded norm."""
    if not initial_norm > 0:
        return float("nan"), float("nan")
    gradient = ScaleInvariant(float(np.quantile(_rms(scale), _PACE_QUANTILE)))
    settled = equilibrium(optimizer, dim, gradient)
    relaxation = settled.relaxation_steps
    if not relaxation:  # a rotational variant
        return 0.0, 0.0
    if 2 * relaxation <= last:  # else the answer is far off, and an estimate will do
        steps = steps_to_equilibrium(optimizer, dim, gradient, initial_norm, START_TOLERANCE)
        return relaxation, max(relaxation, float(steps))
    excess = abs((initial_norm / settled.norm) ** 2 - 1)
    return relaxation, relaxation * max(1.0, float(np.log(max(excess, 1e-9) / (2 * START_TOLERANCE))))


def _radial(late: dict[str, np.ndarray], theory: Theory[Any] | None, decay: float, dim: int) -> tuple[float, float]:
    """λ_eff/λ - 1, the median over neurons, and its standard error; windows weigh by ‖w‖², as its balance has it."""
    if "radial" not in late or theory is None or decay == 0:
        return float("nan"), float("nan")
    weight = late["norm"] ** 2
    series = late["radial"] * weight / weight.mean(axis=1, keepdims=True) / decay
    series = theory.radial_share(series, _rms(late["gradient_norm"]) / dim**0.5)
    return _median(series.mean(axis=1)), _median_error_of_mean(series)


def _median_error_of_mean(series: np.ndarray) -> float:
    over_time = series.mean(axis=0)
    return float(over_time.std() / np.sqrt(len(over_time)))


def _cosine(late: dict[str, np.ndarray], dim: int) -> float:
    if "gradient_cosine" not in late:
        return float("nan")
    return float(np.nanmedian(np.sqrt(np.nanmean(late["gradient_cosine"] ** 2, axis=1)))) * dim**0.5


def _along(late: dict[str, np.ndarray]) -> float:
    around = ((late["norm"] * late["rotation"]) ** 2).mean(axis=1)
    total = (late["update_rms"] ** 2).mean(axis=1)
    return _median(np.maximum(0.0, 1 - around[total > 0] / total[total > 0]))


def _burst(late: dict[str, np.ndarray]) -> float:
    """Over all samples: within windows as recorded, between them from the windows' scales."""
    square = late["gradient_scale"] ** 2
    inside = np.nan_to_num(late["gradient_burst"], nan=1.0) if "gradient_burst" in late else np.ones_like(square)
    mean = square.mean(axis=1)
    return _median((inside * square**2).mean(axis=1)[mean > 0] / mean[mean > 0] ** 2)


def _growth(step: np.ndarray, norm: np.ndarray, theory: Theory[Any] | None, rotation: float) -> float:
    """Growth of ln ‖w‖² per step, from the first window to the last, over its rate of decay; median over neurons."""
    if len(step) < 2:
        return 0.0
    if theory is None:
        return float("nan")
    moving = norm.all(axis=1)
    growth = 2 * np.log(norm[moving, -1] / norm[moving, 0]) / (step[-1] - step[0])
    return _median(growth) / theory.decay_rate(rotation) + 0.0  # no -0.0 where a norm is held
