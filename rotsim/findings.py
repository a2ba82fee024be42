"""The rules of the diagnosis: which assumption of theory fails for a layer, from its `Evidence` alone.

The prediction assumes weight decay, gradients without a part along the weights, and gradients that are noise. Each
assumption has a measurement of its own in a trace; the first one that fails names the verdict. What a departure does to
the course decides, not its size: a radial part that has no time to act changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rotsim.evidence import SPACING, Evidence
from rotsim.facts import INVARIANT
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import Theory, required_theory, theory_of

Verdict = Literal[
    "applies",
    "no theory",
    "not finite",
    "frozen",
    "dead",
    "sparse",
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

RADIAL = 0.05  # change of rotation by the gradient's radial part in a quarter: half the error allowed
ALONG = 0.2  # share of the squared update that is along the weights and turns nothing: 10 % of the rotation
CORRELATED = 0.1  # change of rotation (or norm) in a quarter by memory, beyond which its leading order is not trusted
SIGNAL = 0.5  # share of a part that lasts, in what an optimizer makes of gradients: beyond, they are no noise
OUTSIDE = 0.02  # share of the samples after which the weights had changed before the next step; loading is rarer
ABSENT = 0.02  # share of the samples without a gradient, in which not even decay moves the weights
ROUNDED = 0.05  # change of the norm, and of the rotation of a quarter, that rounding may take: half the error allowed
# overlap at which scale invariance costs 5 % of Lion's rotation, half the error allowed (random walks on projected
# noise of few dimensions; set when the bursts of one network had been compared)
OVERLAP = 0.1
BURST_ERROR = 0.05  # standard error of what bursts do to Lion's rotation: two of them are the error allowed
_MIN_WINDOWS = 8
_REMEMBERING = 0.5 ** np.arange(65.0)  # an autocorrelation, to ask whether steady rotation depends on it
#: What gradients do that lowers the norm, and that raises it.
_UNEVEN = ("burst in single coordinates or alternate", "are correlated from step to step")

Finding = tuple[Verdict, str]


def finding_of(e: Evidence, optimizer: Optimizer, spec: Mapping[str, Any], last: int) -> Finding:
    """The verdict on a layer, and why; `spec` is that of the trace, of a run of `last` steps."""
    if finding := _known(e, optimizer, spec, last) or _predicted(e, optimizer, spec) or _silent(e):
        return finding
    theory = required_theory(optimizer)
    if theory.beyond_noise:
        return "unknown", theory.beyond_noise + _rank(e)
    return _radial(e, theory, spec) or _noise(e, theory, last)


def _rank(e: Evidence) -> str:
    """How far the singular values that a spectral update sees are from those of white noise."""
    if not np.isfinite(e.stable_rank + e.white_rank):
        return ""
    return f" The stable rank of its averages was {e.stable_rank:.2g}, that of white noise is {e.white_rank:.2g}."


def furthest(e: Evidence, factor: str) -> float:
    """The largest distance from 1 that a factor has in a quarter; NaN counts for nothing."""
    found = (abs(getattr(quarter, factor) - 1) for quarter in e.quarters)
    return max((distance for distance in found if np.isfinite(distance)), default=0.0)


def _known(e: Evidence, optimizer: Optimizer, spec: Mapping[str, Any], last: int) -> Finding | None:
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
        if not e.active > 0:
            return "dead", "No neuron has a gradient: nothing but decay and momentum moves them."
        return "sparse", (
            f"No neuron has a gradient in most steps, the average one in {e.active:.1%} of them, as the rows of a "
            "table that are looked up now and then. Theory is for gradients in every step."
        )
    if e.layer in spec.get("products", ()):
        return (
            "no theory",
            "It is the product of two trained matrices, which are reported by themselves, and is only measured.",
        )
    theory = theory_of(optimizer)
    if theory is None:
        return "no theory", f"{optimizer.refusal()}. It is only measured; to compare it, give the Recorder `spec`."
    if not theory.has_course:
        return (
            "no theory",
            f"{optimizer.label} has an equilibrium in theory, but no course in time. It is only measured.",
        )
    if (share := spec.get("changed_outside", {}).get(e.layer.split("[")[0], 0.0)) > OUTSIDE:
        return "changed outside", (
            f"After {share:.0%} of the sampled steps something besides the optimizer changed these weights (clipping, "
            "averaging, normalising, loading), which no prediction counts."
        )
    if e.fan_in == 1:
        return "unknown", "A row of one weight has no direction to turn in."
    return None


def _predicted(e: Evidence, optimizer: Optimizer, spec: Mapping[str, Any]) -> Finding | None:
    """Is there a course to hold the measurement against?"""
    if e.lr == 0:
        return "unknown", "The learning rate was 0 throughout; nothing moved."
    if e.weight_decay == 0 and optimizer.needs_decay:
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


def _silent(e: Evidence) -> Finding | None:
    """Did gradients reach the layer in every step?"""
    worst = max(e.quarters, key=lambda quarter: quarter.silent)
    if worst.silent <= ABSENT:
        return None
    return "sparse", (
        f"In {worst.silent:.0%} of the sampled steps from {worst.start + 1} to {worst.end} none of its neurons had a "
        "gradient: it was not used in them, or what it feeds is dying. Such a step is what averages remember of others."
    )


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


def _radial(e: Evidence, theory: Theory[Any], spec: Mapping[str, Any]) -> Finding | None:
    """Does the gradient change the length of the weights, beside noise and decay?"""
    if theory.spec.decay == "none":
        return "applies", "The optimizer turns the weights by the predicted angle, at constant norm."
    if e.along > ALONG:
        return "scale-sensitive", (
            f"{e.along:.0%} of the squared update is along the weights: it changes their length and turns nothing."
        )
    invariant = _invariant(e, spec)
    if theory.feels_radial and np.isfinite(e.radial):
        if not furthest(e, "pulled_rotation") <= RADIAL:
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


def _noise(e: Evidence, theory: Theory[Any], last: int) -> Finding:
    """Are gradients the noise that this optimizer's prediction assumes?"""
    label = theory.spec.label
    if theory.counts_bursts and not np.isfinite(e.burst + e.rotation_factor):
        return "unknown", (
            f"{label}'s rotation depends on how gradients burst and on their autocorrelation, which this trace does "
            "not hold; record it anew with rotsim.measure.Recorder, for 1.5 · lags steps or 96, whichever is more."
        )
    if (share := theory.signal_share(e.signal)) > SIGNAL:
        amplified = "" if share == e.signal else f", which is {share:.0%} of what {label} takes the sign of"
        return "signal", (
            f"{e.signal:.0%} of the gradient's correlation is still there at the longest recorded lag{amplified}: "
            "weights follow a persistent gradient more than they walk at random."
        )
    felt = abs(theory.correlation_factors(_REMEMBERING)[0] - 1) > 1e-6  # else averages alone say what memory does
    if felt and furthest(e, "remembered_rotation") > CORRELATED:
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
    late = f", from step {e.judged_from} on" if e.judged_from else ""
    if e.scheduled:
        return f"On the course that its rates set{late}"
    if e.steps_needed <= last / 2:
        return f"In equilibrium{late}"
    return f"On the way to equilibrium, which takes about {e.steps_needed:.2g} steps{late}"
