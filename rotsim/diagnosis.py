"""Does theory describe this layer's training? Decided from what was recorded, before looking at agreement.

What is judged is the course: norm and rotation in each quarter of the run, predicted from the norm before the first
step and the rates in force. A constant rate is one schedule among others, a finished transient one course.

The prediction assumes weight decay, gradients without a part along the weights, and gradients that are noise. Each
assumption has a measurement of its own in a trace; the first one that fails names the verdict. What a departure does to
the course decides, not its size: a radial part that has no time to act changes nothing. Only layers with the verdict
"applies" are claimed to agree. Bursts are part of Lion's prediction where the trace holds their course, however weak.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rotsim import checks, dataset, files
from rotsim.checks import Check, Report
from rotsim.errors import InvalidInput
from rotsim.evidence import SPACING, WITHIN, Evidence, gather
from rotsim.optimizers.base import Optimizer
from rotsim.statistics import Estimate
from rotsim.theory.base import Theory, required_theory, theory_of

if TYPE_CHECKING:
    import xarray as xr

Verdict = Literal[
    "applies",
    "no theory",
    "not finite",
    "frozen",
    "dead",
    "changed outside",
    "no decay",
    "rounded",
    "scale-sensitive",
    "tilted",
    "signal",
    "autocorrelated",
    "bursty",
    "unknown",
]

#: Relative error allowed where the prediction applies. A norm depends on how coordinates differ, rotation does not.
TOLERANCE = {"rotation": WITHIN, "norm": 0.15}

RADIAL = 0.05  # change of rotation by the gradient's radial part in a quarter: half the error allowed
INVARIANT = 0.1  # RMS cosine of gradient and weights, over that of a random direction, below which they are orthogonal
ALONG = 0.2  # share of the squared update that is along the weights and turns nothing: 10 % of the rotation
CORRELATED = 0.1  # change of rotation (or norm) in a quarter by memory, beyond which its leading order is not trusted
OUTSIDE = 0.02  # share of the samples after which the weights had changed before the next step; loading is rarer
ABSENT = 0.02  # share of the samples without a gradient, in which not even decay moves the weights
SIGNAL = 0.5  # correlation left at the longest lags: more than half of the gradient is not noise
ROUNDED = 0.05  # change of the norm, and of the rotation of a quarter, that rounding may take: half the error allowed
# overlap at which scale invariance costs 5 % of Lion's rotation, half the error allowed (random walks on projected
# noise of few dimensions; set when the bursts of one network had been compared)
OVERLAP = 0.1
BURST_ERROR = 0.05  # standard error of what bursts do to Lion's rotation: two of them are the error allowed
_MIN_WINDOWS = 8
_REMEMBERING = 0.5 ** np.arange(65.0)  # an autocorrelation, to ask whether steady rotation depends on it


@dataclass(frozen=True, kw_only=True)
class LayerDiagnosis(Evidence):
    """One layer: its `Evidence` and what follows from it.

    Attributes
    ----------
    verdict : str
        "applies", or the first assumption that fails.
    reason : str
        One sentence, or two.
    """

    verdict: Verdict
    reason: str

    @property
    def applies(self) -> bool:
        """True if the prediction is claimed to hold."""
        return self.verdict == "applies"

    @property
    def claims(self) -> tuple[str, ...]:
        """What is claimed to agree: nothing, the rotation, or also the norm, if gradients are like white noise."""
        if not self.applies:
            return ()
        return ("rotation",) if self._remembered("norm") > CORRELATED else ("rotation", "norm")

    def _remembered(self, quantity: str) -> float:
        return _furthest(self, f"remembered_{quantity}")

    def error(self, quantity: str) -> float:
        """Measured over predicted rotation or norm, minus 1, in the quarter where they differ most."""
        return self.worst(quantity).error(quantity) if self.quarters else nan

    @property
    def agrees(self) -> bool:
        """True if every quantity that is claimed is within its `TOLERANCE` in every quarter of the run."""
        return all(check.passed for check in self.checks())

    def checks(self) -> Iterator[Check]:
        """What is claimed of this layer, and whether it is within its `TOLERANCE`, in the quarter that is worst."""
        for quantity in self.claims:
            worst, allowed = self.worst(quantity), TOLERANCE[quantity]
            found = Estimate(worst.measured(quantity), self.rotation_error if quantity == "rotation" else nan)
            verdict: checks.Verdict = "PASS" if abs(worst.error(quantity)) <= allowed else "FAIL"
            note = f"steps {worst.start + 1} to {worst.end}, the quarter furthest off. {self.reason}"
            yield Check.about(self.layer, quantity, worst.predicted(quantity), allowed, found, verdict, note)


def _furthest(e: Evidence, factor: str) -> float:
    """The largest distance from 1 that a factor has in a quarter; NaN counts for nothing."""
    found = (abs(getattr(quarter, factor) - 1) for quarter in e.quarters)
    return max((distance for distance in found if np.isfinite(distance)), default=0.0)


@dataclass(frozen=True)
class Diagnosis:
    """All layers of one trace."""

    optimizer: Optimizer
    layers: tuple[LayerDiagnosis, ...]

    @property
    def claimed(self) -> tuple[LayerDiagnosis, ...]:
        """The layers that the prediction applies to."""
        return tuple(layer for layer in self.layers if layer.applies)

    @property
    def passed(self) -> bool:
        """True if the prediction applies somewhere and agrees wherever it does."""
        return bool(self.claimed) and all(layer.agrees for layer in self.claimed)

    def summary(self) -> str:
        """One sentence for a person."""
        if theory_of(self.optimizer) is None:
            layers = f"{len(self.layers)} layers are measured, none predicted."
            return f"There is no theory for {self.optimizer.label}: {layers}"
        if not self.claimed:
            return f"The prediction applies to none of {len(self.layers)} layers; see the reasons."
        good = sum(layer.agrees for layer in self.claimed)
        return (
            f"The prediction applies to {len(self.claimed)} of {len(self.layers)} layers and agrees in {good} of them "
            f"in each quarter of the run (rotation within {TOLERANCE['rotation']:.0%}, norm within "
            f"{TOLERANCE['norm']:.0%})."
        )

    def report(self) -> Report:
        """What is claimed of the layers, as checks: the prediction against the measured medians."""
        return Report(tuple(check for layer in self.claimed for check in layer.checks()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; what was not measured is null."""
        layers = [
            {k: _plain(v) for k, v in asdict(replace(layer, curves=None)).items() if k != "curves"}
            | {"claims": list(layer.claims), "agrees": layer.agrees if layer.applies else None}
            for layer in self.layers
        ]
        return {"optimizer": self.optimizer.to_dict(), "passed": self.passed, "layers": layers}


def _plain(value: Any) -> Any:
    """What JSON has a form for."""
    if isinstance(value, tuple):
        return [{key: _plain(number) for key, number in quarter.items()} for quarter in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def diagnose(trace: xr.Dataset) -> Diagnosis:
    """Say for every layer of a trace whether theory should describe its course, and how well it does.

    Parameters
    ----------
    trace : Dataset
        From `rotsim.measure.Recorder`. Traces without ``radial``, ``gradient_cosine``, ``gradient_burst`` or
        ``gradient_autocorrelation`` are judged by what they have.

    Returns
    -------
    Diagnosis
        One verdict a layer, in the order of its neurons.

    Raises
    ------
    InvalidInput, DatasetError
        If the dataset is not a trace, or lacks what every trace has.
    """
    dataset.validate(trace)
    if trace.attrs["source"] != "trace":
        raise InvalidInput(f"diagnosis needs a recorded trace; got a {trace.attrs['source']}. Use rotsim.compare")
    optimizer, spec, last = dataset.optimizer_of(trace), dataset.spec_of(trace), int(trace["step"].values[-1])
    layers = []
    for evidence in gather(trace):
        finding = _known(evidence, optimizer, spec, last) or _predicted(evidence, spec)
        if finding is None:
            theory = required_theory(optimizer)
            finding = _radial(evidence, theory, spec) or _noise(evidence, theory, last)
        layers.append(LayerDiagnosis(**vars(evidence), verdict=finding[0], reason=finding[1]))
    return Diagnosis(optimizer, tuple(layers))


_Finding = tuple[Verdict, str]


def _known(e: Evidence, optimizer: Optimizer, spec: Mapping[str, Any], last: int) -> _Finding | None:
    """Was the layer there throughout, and is there a theory of what moved it?"""
    if (left := spec.get("left", {}).get(e.layer.split("[")[0])) is not None:
        return "unknown", f"It left the optimizer or changed its shape about step {left}; before that it is recorded."
    if e.lost == e.neurons:
        return "not finite", "Weights or gradients are NaN or infinite."
    if (share := spec.get("absent", {}).get(e.layer.split("[")[0], 0.0)) > ABSENT:
        return "frozen", (
            f"In {share:.0%} of the sampled steps it had no gradient at all, not even of zeros: it was frozen, or no "
            "part of the loss. The optimizer leaves it as it is then, without decay."
        )
    if e.lost + e.dead == e.neurons:
        return "dead", "No neuron has a gradient in most steps: nothing but decay and momentum moves them."
    if theory_of(optimizer) is None:
        return "no theory", f"{optimizer.refusal()}. It is only measured; to compare it, give the Recorder `spec`."
    if (share := spec.get("changed_outside", {}).get(e.layer.split("[")[0], 0.0)) > OUTSIDE:
        return "changed outside", (
            f"After {share:.0%} of the sampled steps something besides the optimizer changed these weights (clipping, "
            "averaging, normalising, loading), which no prediction counts."
        )
    if e.fan_in == 1:
        return "unknown", "A row of one weight has no direction to turn in."
    return None


def _predicted(e: Evidence, spec: Mapping[str, Any]) -> _Finding | None:
    """Is there a course to hold the measurement against?"""
    if e.lr == 0:
        return "unknown", "The learning rate was 0 throughout; nothing moved."
    if e.weight_decay == 0:
        return "no decay", (
            "The optimizer has no weight decay: noise lets the norm grow for ever and rotation never settles, unless "
            f"something else holds it, such as a penalty in the loss. The norm changed by {e.norm_change - 1:+.1%}."
        )
    dtype = str(spec.get("dtypes", {}).get(e.layer.split("[")[0], "float32"))
    if max(e.drowned_decay, e.drowned_rotation) > ROUNDED:
        return "rounded", _rounding(e, dtype)
    if not np.isfinite(e.predicted_rotation):
        return "unknown", "No prediction: no live neuron has a gradient scale that is finite."
    if e.windows < _MIN_WINDOWS or not e.quarters:
        return "unknown", (
            f"{e.windows} record windows are too few to see the course of norm and rotation; "
            f"record at least {_MIN_WINDOWS}, some in each quarter of the run, with a smaller `window`."
        )
    return None


def _rounding(e: Evidence, dtype: str) -> str:
    if e.drowned_decay > ROUNDED:
        what = f"steps of decay too small for that should have shortened them by {-np.expm1(-e.drowned_decay):.0%}"
    else:
        what = f"{e.drowned_rotation:.0%} of the squared rotation of a quarter is in steps too small for that"
    way_out = "Raise lr or weight_decay" if dtype == "float32" else "Keep float32 master weights"
    return (
        f"Weights are kept in {dtype}, where neighbouring numbers differ by up to {SPACING[dtype]:.2g} of their size: "
        f"{what}. {way_out}."
    )


def _radial(e: Evidence, theory: Theory[Any], spec: Mapping[str, Any]) -> _Finding | None:
    """Does the gradient change the length of the weights, beside noise and decay?"""
    if theory.spec.decay == "none":
        return "applies", "The optimizer turns the weights by the predicted angle, at constant norm."
    if e.along > ALONG:
        return "scale-sensitive", (
            f"{e.along:.0%} of the squared update is along the weights: it changes their length and turns nothing."
        )
    invariant = _invariant(e, spec)
    if theory.feels_radial and np.isfinite(e.radial):
        if not _furthest(e, "pulled_rotation") <= RADIAL:
            return ("tilted" if invariant else "scale-sensitive"), _pull(e, theory.spec, invariant)
        if not invariant and e.radial_error > RADIAL:  # two standard errors, and rotation follows by half
            return "unknown", (
                f"The gradient's radial part, {e.radial:+.0%} of the weight decay, is known only to "
                f"±{2 * e.radial_error:.0%}; record longer or with a smaller `interval`."
            )
        return None
    if invariant is None:
        return "unknown", (
            "In equilibrium, but this trace does not tell whether the gradient is orthogonal to the weights; if a "
            "normalisation follows this layer, the prediction applies."
        )
    if not invariant:
        return "scale-sensitive", (
            "The gradient is not orthogonal to the weights"
            + (f" (RMS cosine {e.cosine:.2g} times that of a random direction)" if np.isfinite(e.cosine) else "")
            + ": no normalisation follows that would make it so."
        )
    return None


def _invariant(e: Evidence, spec: Mapping[str, Any]) -> bool | None:
    """True if gradients are orthogonal to the weights: measured, else as the run declares, else None."""
    if np.isfinite(e.cosine):
        return e.cosine < INVARIANT
    declared = spec.get("scale_invariant_layers")
    return None if declared is None else e.layer in declared


def _pull(e: Evidence, optimizer: Optimizer, invariant: bool | None) -> str:
    pull = "shrinks the weights as extra" if e.radial > 0 else "stretches the weights as negative"
    cause = "The gradient has a radial part and "
    if invariant:
        cause = (
            "The gradient is nearly orthogonal to the weights, but large beside the decay, and what radial part it has "
            if optimizer.shape == "identity"
            else "The gradient is orthogonal to the weights, but divided by √v, which differs between coordinates, it "
        )
    return (
        f"{cause}{pull} weight decay: "
        f"λ_eff = λ + P = {e.weight_decay * (1 + e.radial):.3g} instead of λ = {e.weight_decay:.3g}."
        + ("" if e.radial > -1 else " Noise alone would let the norm grow; a persistent gradient holds it.")
    )


def _noise(e: Evidence, theory: Theory[Any], last: int) -> _Finding:
    """Are gradients the noise that this optimizer's prediction assumes?"""
    label = theory.spec.label
    if theory.counts_bursts and not np.isfinite(e.burst + e.rotation_factor):
        return "unknown", (
            f"{label}'s rotation depends on how gradients burst and on their autocorrelation, which this trace does "
            "not hold; record it anew with rotsim.measure.Recorder, for at least 4 · lags steps."
        )
    if e.signal > SIGNAL:
        return "signal", (
            f"{e.signal:.0%} of the gradient's correlation is still there at the longest recorded lag: "
            "weights follow a persistent gradient more than they walk at random."
        )
    felt = abs(theory.correlation_factors(_REMEMBERING)[0] - 1) > 1e-6  # else averages alone say what memory does
    if felt and _furthest(e, "remembered_rotation") > CORRELATED:
        worst = max(e.quarters, key=lambda quarter: abs(quarter.remembered_rotation - 1))
        kind = "anticorrelated" if (worst.remembered_rotation > 1) == (theory.spec.shape == "sign") else "correlated"
        return "autocorrelated", (
            f"Successive {kind} gradients turn {label}'s weights {worst.remembered_rotation:.2f} times as fast as "
            f"white noise would (steps {worst.start + 1} to {worst.end})."
        )
    bursts = f"Gradient norms come in bursts (E‖g̃‖⁴/(E‖g̃‖²)² = {e.burst:.1f})"
    known = np.isfinite(e.burst_rotation)
    if theory.counts_bursts and e.burst > theory.burst_limit and not known:
        return "unknown", (
            f"{bursts}, and this trace does not hold their course in enough rows; {label}'s rotation depends on "
            "it. Record it anew with rotsim.measure.Recorder."
        )
    if known and e.overlap > OVERLAP:
        return "unknown", (
            f"The layer's gradients vary in about {1 / e.overlap:.0f} directions only. Where normalisation takes the "
            f"one along the weights from so few, {label} turns more slowly, by an amount that theory does not have."
        )
    if known and e.burst_error > BURST_ERROR:
        return "bursty", (
            f"{bursts} of different course from row to row: they turn {label}'s weights {e.burst_rotation:.2f} times "
            f"as fast as steady gradients would, give or take {2 * e.burst_error:.2f}."
        )
    if not theory.counts_bursts and e.burst > theory.burst_limit:
        return "bursty", (
            f"{bursts}, as when a network memorises its data; {label}'s rotation assumes a steady gradient."
        )
    uneven = max(e.quarters, key=lambda quarter: abs(quarter.remembered_norm - 1))
    factor = uneven.remembered_norm
    norm = f"; gradients that {_UNEVEN[factor > 1]} make the norm {factor:.2f} times that of white noise"
    return "applies", (
        f"{_where(e, last)}; "
        + (
            f"the gradient's radial part, {e.radial:+.0%} of the decay, hardly acts"
            if abs(e.radial) >= 0.005 and theory.feels_radial
            else "the gradient has no radial part"
        )
        + f"{norm if abs(factor - 1) > CORRELATED else ''}."
        + (
            f" Bursts of the gradient are in the prediction: rotation {e.burst_rotation:.2f} times, norm "
            f"{e.burst_norm:.2f} times that of steady gradients."
            if known
            else ""
        )
    )


def _where(e: Evidence, last: int) -> str:
    """Where the layer is on its way."""
    if e.scheduled:
        return "On the course that its rates set"
    if e.steps_needed <= last / 2:
        return "In equilibrium"
    return f"On the way to equilibrium, which takes about {e.steps_needed:.2g} steps"


#: What gradients do that lowers the norm, and that raises it.
_UNEVEN = ("burst in single coordinates or alternate", "are correlated from step to step")


def to_json(diagnosis: Diagnosis, trace: xr.Dataset) -> str:
    """The diagnosis with what the trace says about itself."""
    content = {
        **diagnosis.to_dict(),
        "spec": dataset.spec_of(trace),
        "provenance": json.loads(trace.attrs["provenance"]),
    }
    return files.to_json(content)
