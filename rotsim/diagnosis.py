"""Does theory describe this layer's training? Decided from what was recorded, before looking at agreement.

What is judged is the course: norm and rotation in each quarter of the run, predicted from the norm before the first
step and the rates in force. A constant rate is one schedule among others, a finished transient one course.

`rotsim.findings` has the rules by which a layer is claimed. Only layers with the verdict "applies" are.
A claim is a `Check`: it fails where a quarter misses by more than its tolerance and the noise of its measurement.
It is unresolved where that noise may explain a miss, or could hide one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset, files
from rotsim.checks import Check, Report, resolution
from rotsim.checks import Verdict as Outcome
from rotsim.errors import InvalidInput
from rotsim.evidence import WITHIN, Evidence, gather
from rotsim.findings import CORRELATED, Finding, Verdict, finding_of, furthest
from rotsim.forecast import FORESEEN, Forecast, foresee
from rotsim.optimizers.base import Optimizer
from rotsim.quarters import Part
from rotsim.statistics import Estimate
from rotsim.theory.traces import start_of

if TYPE_CHECKING:
    import xarray as xr

#: Relative error allowed where the prediction applies. A norm depends on how coordinates differ, rotation does not.
TOLERANCE = {"rotation": WITHIN, "norm": 0.15}
#: Standard errors of the measurement that a miss must exceed in a quarter. A layer that is off by just its tolerance in
#: each of four quarters fails by chance in one claim of 180; one that is off by half of it, practically never.
STANDARD_ERRORS = 3.0
#: Verdicts of layers that are no less alive for having no claim: what their gradients do may last. A signal that turns
#: weights one way does not, as networks showed that had not been looked at.
FORESEEABLE = ("scale-sensitive", "tilted", "autocorrelated", "bursty", "no decay", "unknown")


@dataclass(frozen=True, kw_only=True)
class LayerDiagnosis(Evidence):
    """One layer: its `Evidence` and what follows from it.

    Attributes
    ----------
    verdict : str
        "applies", or the first assumption that fails.
    reason : str
        One sentence, or two.
    rest : Forecast or None
        The second half of the run as the first shows it. None if the prediction applies, or the verdict leaves
        nothing to foresee.
    """

    verdict: Verdict
    reason: str
    rest: Forecast | None = None

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
        return furthest(self, f"remembered_{quantity}")

    def error(self, quantity: str) -> float:
        """Measured over predicted rotation or norm, minus 1, in the quarter where they differ most."""
        return self.worst(quantity).error(quantity) if self.quarters else nan

    @property
    def outcome(self) -> Outcome | None:
        """The worst verdict of its checks: "PASS", "UNRESOLVED" or "FAIL"; None if nothing is claimed."""
        return max((check.verdict for check in self.checks()), key=_SEVERITY.index, default=None)

    @property
    def agrees(self) -> bool:
        """True if no check failed or is unresolved; also if nothing is claimed."""
        return self.outcome in ("PASS", None)

    def checks(self) -> Iterator[Check]:
        """What is claimed of this layer, and whether it holds in every quarter; each at the quarter that is worst."""
        yield from self._judged(self.claims, self.quarters, TOLERANCE, self.reason)

    def foreseen(self) -> Iterator[Check]:
        """What is foreseen of the second half of the run, and whether it holds; nothing if nothing is foreseen."""
        if self.rest is not None:
            why = "Foreseen from the first half of the run."
            yield from self._judged(self.rest.claims, self.rest.quarters, FORESEEN, why)

    @property
    def foreseen_outcome(self) -> Outcome | None:
        """The worst verdict on what is foreseen; None if nothing is."""
        return max((check.verdict for check in self.foreseen()), key=_SEVERITY.index, default=None)

    def _judged(
        self, claims: tuple[str, ...], quarters: tuple[Part, ...], tolerance: dict[str, float], reason: str
    ) -> Iterator[Check]:
        for quantity in claims:
            allowed = tolerance[quantity]
            judged = [
                (_SEVERITY.index(_verdict(each, quantity, allowed)), abs(each.error(quantity))) for each in quarters
            ]
            worst = quarters[judged.index(max(judged))]
            verdict = _verdict(worst, quantity, allowed)
            noise, which = worst.noise(quantity), f"steps {worst.start + 1} to {worst.end}"
            note = f"{which}, the quarter furthest off. {reason}"
            if verdict == "UNRESOLVED":
                could = "explain the miss" if abs(worst.error(quantity)) > allowed else "hide a miss"
                note = (
                    f"{which}: {STANDARD_ERRORS:g} standard errors are {STANDARD_ERRORS * noise:.0%}, which may "
                    f"{could}. A smaller `interval`, more neurons or a longer run lessens them."
                )
            found = Estimate(worst.measured(quantity), noise * worst.predicted(quantity))
            yield Check.about(self.layer, quantity, worst.predicted(quantity), allowed, found, verdict, note)


_SEVERITY: list[Outcome] = ["PASS", "UNRESOLVED", "FAIL"]


def _verdict(quarter: Part, quantity: str, allowed: float) -> Outcome:
    """Of one claim in one quarter."""
    error = abs(quarter.error(quantity))
    noise = STANDARD_ERRORS * quarter.noise(quantity)
    if not np.isfinite(error) or error > allowed + noise:
        return "FAIL"
    return "PASS" if error <= allowed and noise <= resolution(allowed) else "UNRESOLVED"


@dataclass(frozen=True)
class Diagnosis:
    """All layers of one trace, the rule of its first group, and that of each layer, where groups have their own."""

    optimizer: Optimizer
    layers: tuple[LayerDiagnosis, ...]
    optimizers: tuple[Optimizer, ...] = ()

    @property
    def claimed(self) -> tuple[LayerDiagnosis, ...]:
        """The layers that the prediction applies to."""
        return tuple(layer for layer in self.layers if layer.applies)

    @property
    def passed(self) -> bool:
        """True if the prediction agrees in some layer that it applies to, and is refuted in none."""
        return any(layer.agrees for layer in self.claimed) and not self.refuted

    @property
    def refuted(self) -> tuple[LayerDiagnosis, ...]:
        """The layers that the prediction applies to, where it fails."""
        return tuple(layer for layer in self.claimed if layer.outcome == "FAIL")

    @property
    def foreseen(self) -> tuple[LayerDiagnosis, ...]:
        """The layers whose second half is foreseen from the first."""
        return tuple(layer for layer in self.layers if layer.foreseen_outcome is not None)

    @property
    def unforeseen(self) -> tuple[LayerDiagnosis, ...]:
        """Those of them where what is foreseen fails."""
        return tuple(layer for layer in self.layers if layer.foreseen_outcome == "FAIL")

    def rates(self) -> str:
        """Each optimizer at the largest learning rate of the run, and the last one where a schedule has moved it."""
        counts = Counter(self.optimizers)
        if len(counts) < 2:
            return self._rates_of(self.optimizer, self.layers)
        parts = []
        for optimizer, count in counts.most_common():
            pairs = zip(self.layers, self.optimizers, strict=True)
            its = self._rates_of(optimizer, [layer for layer, own in pairs if own == optimizer])
            parts.append(f"{its}, on {count} layer{'s' * (count > 1)}")
        return "; ".join(parts)

    @staticmethod
    def _rates_of(optimizer: Optimizer, layers: Iterable[LayerDiagnosis]) -> str:
        own = (layer.largest_lr for layer in layers if layer.lr == optimizer.lr)  # groups may have others
        largest = max(own, default=0.0)
        if largest < 1.01 * optimizer.lr:
            return optimizer.describe()
        first = optimizer.with_rates(float(f"{largest:.3g}"), optimizer.weight_decay)
        return f"{first.describe()}, last lr {optimizer.lr:.2g}"

    def summary(self) -> str:
        """One sentence for a person."""
        if all(layer.verdict == "no theory" for layer in self.layers):
            layers = f"{len(self.layers)} layers are measured, none predicted."
            return f"There is no theory for {self.optimizer.label}: {layers}"
        if not self.claimed:
            return f"The prediction applies to none of {len(self.layers)} layers; see the reasons.{self._foreseen()}"
        good = sum(layer.agrees for layer in self.claimed)
        unresolved = len(self.claimed) - good - len(self.refuted)
        return (
            f"The prediction applies to {len(self.claimed)} of {len(self.layers)} layers and agrees in {good} of them "
            f"in each quarter of the run (rotation within {TOLERANCE['rotation']:.0%}, norm within "
            f"{TOLERANCE['norm']:.0%})."
            + (f" {unresolved} measured with too much noise to tell." if unresolved else "")
            + self._foreseen()
        )

    def _foreseen(self) -> str:
        if not self.foreseen:
            return ""
        good = sum(layer.foreseen_outcome == "PASS" for layer in self.foreseen)
        return (
            f" Of {len(self.foreseen)} others the second half of the run is foreseen from the first; {good} agree "
            f"(rotation within {FORESEEN['rotation']:.0%}, norm within {FORESEEN['norm']:.0%})."
        )

    def report(self) -> Report:
        """What is claimed of the layers, as checks: the prediction against the measured medians."""
        return Report(tuple(check for layer in self.claimed for check in layer.checks()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable; what was not measured is null."""
        layers = [
            {k: _plain(v) for k, v in asdict(replace(layer, curves=None, rest=None)).items() if k != "curves"}
            | {
                "rest": layer.rest and _plain(_foreseen(layer.rest)),
                "claims": list(layer.claims),
                "outcome": layer.outcome,
                "agrees": layer.agrees if layer.applies else None,
                "foreseen": layer.foreseen_outcome,
            }
            for layer in self.layers
        ]
        others = {"optimizers": [own.to_dict() for own in self.optimizers]} if len(set(self.optimizers)) > 1 else {}
        return {"optimizer": self.optimizer.to_dict(), **others, "passed": self.passed, "layers": layers}


def _foreseen(rest: Forecast) -> dict[str, Any]:
    """A forecast without its course, and with its declared errors."""
    errors = {f"declared_{quantity}": rest.declared(quantity) for quantity in FORESEEN}
    return {k: v for k, v in asdict(rest).items() if k not in ("step", "ratio")} | errors


def _plain(value: Any) -> Any:
    """What JSON has a form for."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
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
    trace = dataset.completed(trace)
    spec, last = dataset.spec_of(trace), int(trace["step"].values[-1])
    layers, optimizers, lost = [], [], dataset.forgotten_rates(trace)
    for evidence in gather(trace):
        optimizer = dataset.optimizer_of(trace, evidence.layer)
        optimizers.append(optimizer)
        if lost:  # a prediction at the last rates would say nothing
            evidence = replace(evidence, predicted_rotation=nan, predicted_norm=nan)
        finding: Finding = (
            ("unknown", f"The {lost} changed in training, and the trace does not say how. Record it again.")
            if lost
            else finding_of(evidence, optimizer, spec, last)
        )
        open_ended = not lost and finding[0] in FORESEEABLE and evidence.lr > 0 and evidence.fan_in > 1
        rest = foresee(trace, evidence.layer, start_of(trace, evidence.layer)) if open_ended else None
        layers.append(LayerDiagnosis(**vars(evidence), verdict=finding[0], reason=finding[1], rest=rest))
    return Diagnosis(dataset.optimizer_of(trace), tuple(layers), tuple(optimizers))


def to_json(diagnosis: Diagnosis, trace: xr.Dataset) -> str:
    """The diagnosis with what the trace says about itself."""
    content = {
        **diagnosis.to_dict(),
        "spec": dataset.spec_of(trace),
        "provenance": json.loads(trace.attrs["provenance"]),
    }
    return files.to_json(content)
