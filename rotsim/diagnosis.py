"""Does rotational equilibrium describe this layer? Decided from what was recorded, before looking at agreement.

The prediction assumes weight decay, constant hyperparameters, a finished transient, scale-invariant
weights, and gradients that are noise. Each assumption has a measurement of its own in a trace; the first
one that fails names the verdict. Only layers with the verdict "applies" are claimed to agree.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from rotsim import dataset
from rotsim.comparison import TRACE_DRIFT
from rotsim.errors import InvalidInput, NoEquilibrium
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.statistics import equilibration
from rotsim.theory.autocorrelated import lion_rotation_factor
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.traces import predict_trace

Verdict = Literal[
    "applies",
    "not finite",
    "dead",
    "no decay",
    "schedule",
    "transient",
    "scale-sensitive",
    "signal",
    "autocorrelated",
    "bursty",
    "unknown",
]

RADIAL = 0.1  # |P|/λ that makes weights count as scale-sensitive: half the error allowed, since rotation goes as √λ
ALONG = 0.5  # share of the squared update along the weights above which they change length more than direction
BURST = 3.0  # E‖g̃‖⁴/(E‖g̃‖²)²: 1 for a steady gradient, 1.2 to 2 in ordinary training, 5 and more when it memorises
SIGNAL = 0.1  # correlation left at the longest lags
LION_CORRELATION = 0.1  # change of Lion's rotation by the measured autocorrelation
WITHIN = 0.10


@dataclass(frozen=True)
class LayerDiagnosis:
    """One layer: prediction, measurement, and whether the one should describe the other.

    Attributes
    ----------
    layer : str
    neurons, dead : int
        Rows recorded, and those without a gradient in most of the last half.
    predicted_rotation, measured_rotation : float
        Medians over neurons, radians per step; measured over the last half of the trace.
    corrected_rotation : float
        With λ_eff = λ + P for λ (EMA optimizers), or the measured autocorrelation (Lion); NaN if not measured.
        It uses the measured gradients of the same windows: it explains, it does not predict.
    predicted_norm, measured_norm : float
    spread : float
        Standard deviation over mean of the neurons' rotations.
    within : float
        Share of neurons whose rotation is within 10 % of the prediction.
    radial : float
        P/λ, median; NaN if not measured.
    along : float
        Share of the squared update that is along the weights, 1 - (θ‖w‖/‖Δw‖)², median.
    burst, signal : float
        E‖g̃‖⁴/(E‖g̃‖²)², and the correlation left at the longest lags; NaN if not measured.
    relaxation_steps : float
        Steps in which the norm's distance from equilibrium shrinks by e.
    verdict : str
    reason : str
        One sentence.
    """

    layer: str
    neurons: int
    dead: int
    predicted_rotation: float
    measured_rotation: float
    corrected_rotation: float
    predicted_norm: float
    measured_norm: float
    spread: float
    within: float
    radial: float
    along: float
    burst: float
    signal: float
    relaxation_steps: float
    verdict: Verdict
    reason: str

    @property
    def applies(self) -> bool:
        """True if the prediction is claimed to hold."""
        return self.verdict == "applies"

    @property
    def ratio(self) -> float:
        """Measured over predicted rotation."""
        return self.measured_rotation / self.predicted_rotation


@dataclass(frozen=True)
class Diagnosis:
    """All layers of one trace."""

    optimizer: Optimizer
    layers: tuple[LayerDiagnosis, ...]

    @property
    def passed(self) -> bool:
        """True if the prediction applies somewhere and is within 10 % wherever it does."""
        claimed = [layer for layer in self.layers if layer.applies]
        return bool(claimed) and all(abs(layer.ratio - 1) <= WITHIN for layer in claimed)

    def summary(self) -> str:
        """One sentence for a person."""
        claimed = [layer for layer in self.layers if layer.applies]
        if not claimed:
            return f"The prediction applies to none of {len(self.layers)} layers; see the reasons."
        good = sum(abs(layer.ratio - 1) <= WITHIN for layer in claimed)
        return (
            f"The prediction applies to {len(claimed)} of {len(self.layers)} layers "
            f"and is within {WITHIN:.0%} in {good} of them."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; what was not measured is null."""
        layers = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(layer).items()}
            for layer in self.layers
        ]
        return {"optimizer": self.optimizer.to_dict(), "passed": self.passed, "layers": layers}


def diagnose(trace: xr.Dataset) -> Diagnosis:
    """Say for every layer of a trace whether rotational equilibrium should describe it, and how well it does.

    Parameters
    ----------
    trace : Dataset
        From `rotsim.measure.Recorder`. Traces without ``radial``, ``gradient_burst`` or
        ``gradient_autocorrelation`` are judged by what they have.

    Raises
    ------
    InvalidInput
        If the dataset is not a trace.
    """
    dataset.validate(trace)
    if trace.attrs["source"] != "trace":
        raise InvalidInput(f"diagnosis needs a recorded trace; got a {trace.attrs['source']}. Use rotsim.compare")
    predicted = predict_trace(trace)
    names = dict.fromkeys(trace["layer"].values.tolist())
    return Diagnosis(dataset.optimizer_of(trace), tuple(_diagnose_layer(trace, predicted, name) for name in names))


def _diagnose_layer(trace: xr.Dataset, predicted: xr.Dataset, name: str) -> LayerDiagnosis:
    here = trace["layer"].values == name
    layer, expected = trace.isel(neuron=here), predicted.isel(neuron=here, step=0)
    half = trace.sizes["step"] // 2
    late = layer.isel(step=slice(half, None))
    dead = late["active"].fillna(0).mean("step").values < 0.5
    finite = np.isfinite(late["norm"].values).all(axis=1) & np.isfinite(late["rotation"].values).all(axis=1)
    rows = finite & ~dead
    lr, decay = (float(layer[key].values[0]) for key in ("lr", "weight_decay"))
    optimizer = dataset.optimizer_of(trace)
    rotation, norm = (np.sqrt((late[q].values[rows].astype(float) ** 2).mean(axis=1)) for q in ("rotation", "norm"))
    theory = expected["rotation"].values[rows]
    radial, along = _radial(late, rows, optimizer, decay), _along(late, rows)
    burst = _burst(late, rows)
    correlation = _correlation(trace, name)
    signal = float(correlation[3 * len(correlation) // 4 :].mean()) if correlation is not None else np.nan
    factor = (
        lion_rotation_factor(optimizer.betas, correlation)  # type: ignore[attr-defined]
        if optimizer.name == "lion" and correlation is not None
        else np.nan
    )
    relaxation = _relaxation(optimizer, lr, decay, late, rows)
    verdict, reason = _verdict(
        trace, layer, expected, rows, finite, optimizer, decay, radial, along, burst, signal, factor, relaxation, name
    )
    center = _median(theory)
    if optimizer.name == "adam_l2":  # P holds the decay itself: the angle follows from it alone
        correction = np.sqrt(2 * lr * decay * radial * _memory(optimizer)) / center if radial > 0 else np.nan
    else:
        correction = np.sqrt(1 + radial) if radial > -1 else np.nan
    return LayerDiagnosis(
        layer=name,
        neurons=int(here.sum()),
        dead=int(dead.sum()),
        predicted_rotation=center,
        measured_rotation=_median(rotation),
        corrected_rotation=center * (factor if optimizer.name == "lion" else correction),
        predicted_norm=_median(expected["norm"].values[rows]),
        measured_norm=_median(norm),
        spread=float(rotation.std() / rotation.mean()) if rows.any() and rotation.mean() > 0 else np.nan,
        within=float(np.mean(np.abs(rotation / theory - 1) <= WITHIN)) if rows.any() else np.nan,
        radial=radial,
        along=along,
        burst=burst,
        signal=signal,
        relaxation_steps=relaxation,
        verdict=verdict,
        reason=reason,
    )


def _verdict(
    trace: xr.Dataset,
    layer: xr.Dataset,
    expected: xr.Dataset,
    rows: np.ndarray,
    finite: np.ndarray,
    optimizer: Optimizer,
    decay: float,
    radial: float,
    along: float,
    burst: float,
    signal: float,
    factor: float,
    relaxation: float,
    name: str,
) -> tuple[Verdict, str]:
    """The first assumption that fails, in the order in which one makes the next meaningless."""
    spec = dataset.spec_of(trace)
    last = int(trace["step"].values[-1])
    if not finite.any():
        return "not finite", "Weights or gradients are NaN or infinite, or were recorded for less than half the run."
    if not rows.any():
        return "dead", "No neuron receives gradients; decay alone shrinks the weights."
    if decay == 0:
        return "no decay", "Without weight decay the norm grows for ever and rotation never settles."
    if not np.isfinite(expected["rotation"].values[rows]).all():
        return "unknown", "No prediction: the fan-in is too small."
    changed = [key for key in ("lr", "weight_decay") if spec.get(f"{key}_changed", False)]
    if changed:
        return "schedule", f"{' and '.join(changed)} changed in the run; the equilibrium moved along with it."
    if last < 2 * relaxation:
        return "transient", (
            f"The norm relaxes in {relaxation:.2g} steps and training lasted {last}; "
            f"expect equilibrium after about {4 * relaxation:.2g} steps."
        )
    ratios = [layer[q].values[rows] / expected[q].values[rows][:, None] for q in ("norm", "rotation")]
    seen = np.isfinite(ratios[0]).all(axis=0)
    settled = equilibration(layer["step"].values[seen], [r[:, seen] for r in ratios], False, TRACE_DRIFT)
    if not settled.reached:
        more = f"; expect equilibrium after about {settled.steps_needed:.2g} steps" if settled.steps_needed else ""
        return "transient", f"Norm or rotation is {settled.reason}{more}."
    if along > ALONG:
        return "scale-sensitive", (
            f"{along:.0%} of the squared update is along the weights: it changes length more than direction."
        )
    declared = spec.get("scale_invariant_layers")
    linear = optimizer.name in ("adamw", "sgdm")
    if linear and np.isfinite(radial) and abs(radial) > RADIAL:
        pull = "shrinks them as extra" if radial > 0 else "stretches them as negative"
        return "scale-sensitive", (
            f"The gradient has a radial part that {pull} weight decay: "
            f"λ_eff = λ + P = {decay * (1 + radial):.3g} instead of λ = {decay:.3g}."
            + ("" if radial > -1 else " Noise alone would let the norm grow; a persistent gradient holds it.")
        )
    if not (linear and np.isfinite(radial)) and declared is not None and name not in declared:
        return "scale-sensitive", "The run declares this layer as not scale-invariant."
    if optimizer.name == "lion" and ("gradient_burst" not in trace or not np.isfinite(factor)):
        return "unknown", (
            "Lion's rotation depends on how gradients burst and on their autocorrelation, which this trace does not "
            "hold; record it anew with rotsim.measure.Recorder, for at least 4 · lags steps."
        )
    if np.isfinite(signal) and signal > SIGNAL:
        return "signal", (
            f"{signal:.0%} of the gradient's correlation is still there at the longest recorded lag: "
            "weights follow a persistent gradient more than they walk at random."
        )
    if np.isfinite(factor) and abs(factor - 1) > LION_CORRELATION:
        kind = "anticorrelated gradients turn" if factor > 1 else "correlated gradients turn"
        return "autocorrelated", f"Successive {kind} Lion's weights {factor:.2f} times as fast as white noise would."
    if np.isfinite(burst) and burst > BURST:
        return "bursty", (
            f"Gradient norms come in bursts (E‖g̃‖⁴/(E‖g̃‖²)² = {burst:.1f}), as when a network memorises its data; "
            "theory assumes a steady gradient."
        )
    if not (linear and np.isfinite(radial)) and declared is None:
        return "unknown", (
            "In equilibrium, but whether the weights are scale-invariant cannot be measured for this trace; "
            "if a normalisation follows this layer, the prediction applies."
        )
    return "applies", f"In equilibrium ({settled.reason}), scale-invariant, gradients like noise."


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _memory(optimizer: Optimizer) -> float:
    beta = float(optimizer.betas[0])  # type: ignore[attr-defined]
    return (1 - beta) / (1 + beta)


def _radial(late: xr.Dataset, rows: np.ndarray, optimizer: Optimizer, decay: float) -> float:
    """P/λ, the median over neurons of the mean over windows."""
    if "radial" not in late or optimizer.name == "lion" or decay == 0 or not rows.any():
        return float("nan")
    return float(np.median(late["radial"].values[rows].astype(float).mean(axis=1))) / decay


def _along(late: xr.Dataset, rows: np.ndarray) -> float:
    """1 - (θ‖w‖/‖Δw‖)², the median over neurons; 0 for scale-invariant weights, 1/dim for white noise."""
    norm, angle, update = (late[q].values[rows].astype(float) for q in ("norm", "rotation", "update_rms"))
    around = ((norm * angle) ** 2).mean(axis=1)
    total = (update**2).mean(axis=1)
    return _median(np.maximum(0.0, 1 - around[total > 0] / total[total > 0]))


def _burst(late: xr.Dataset, rows: np.ndarray) -> float:
    """E‖g̃‖⁴/(E‖g̃‖²)² over all samples: within windows as recorded, between them from the windows' scales."""
    square = late["gradient_scale"].values[rows].astype(float) ** 2
    inside = late["gradient_burst"].fillna(1.0).values[rows] if "gradient_burst" in late else np.ones_like(square)
    mean = square.mean(axis=1)
    return _median((inside * square**2).mean(axis=1)[mean > 0] / mean[mean > 0] ** 2)


def _correlation(trace: xr.Dataset, name: str) -> np.ndarray | None:
    """Autocorrelation of the parameter that holds the layer, if it was recorded."""
    parameter = name.split("[")[0]
    if "gradient_autocorrelation" not in trace or parameter not in trace["parameter"].values:
        return None
    values = trace["gradient_autocorrelation"].sel(parameter=parameter).values.astype(float)
    return values if np.isfinite(values).all() else None


def _relaxation(optimizer: Optimizer, lr: float, decay: float, late: xr.Dataset, rows: np.ndarray) -> float:
    if not rows.any() or decay == 0:
        return float("nan")
    scale = float(np.median(np.sqrt((late["gradient_scale"].values[rows].astype(float) ** 2).mean(axis=1))))
    dim = int(late["fan_in"].values[0])
    try:
        found = equilibrium(optimizer.with_rates(lr, decay), dim, ScaleInvariant(scale))
    except (InvalidInput, NoEquilibrium):
        return float("nan")
    return found.relaxation_steps


def to_json(diagnosis: Diagnosis, trace: xr.Dataset) -> str:
    """The diagnosis with what the trace says about itself."""
    content = {
        **diagnosis.to_dict(),
        "spec": dataset.spec_of(trace),
        "provenance": json.loads(trace.attrs["provenance"]),
    }
    return json.dumps(content, indent=1) + "\n"
