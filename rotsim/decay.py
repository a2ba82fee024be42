"""Which weight decay was really used: lr·weight_decay of a run, from how much of earlier weights is left in later ones.

Noise is not along the weights that it meets, so only decay takes from ⟨w_b, w_e⟩ (`rotsim.theory.spans`). Its logarithm
over ‖w_b‖² falls by the sum of lr·weight_decay over the steps between. This needs no equilibrium and no size of noise.
A part of the gradient that lasts along the weights counts as decay, as it acts as one. So does a pull of the loss to or
from earlier weights: a small network whose data have nothing to learn kept a third more than decay leaves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.checks import Check, Report, Verdict
from rotsim.errors import InvalidInput
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import required_theory, theory_of
from rotsim.theory.rates import Rates, rates_of
from rotsim.theory.spans import kept_by_averages

if TYPE_CHECKING:
    import xarray as xr

FACTOR = 1.8  # between decay used and given, beside noise, that gradients of real networks may make (module docstring)
_K = 4.0  # standard errors to allow
_LEAST_LOOKS = 3  # over which the scatter of a layer says more than the theory of its noise


@dataclass(frozen=True)
class LayerDecay:
    """One layer.

    Attributes
    ----------
    layer : str
    given : float
        lr·weight_decay over the steps between the looks, summed.
    ratio, standard_error : float
        What was used over what was given; NaN where nothing is known of the layer.
    """

    layer: str
    given: float
    ratio: float
    standard_error: float


@dataclass(frozen=True)
class DecayUsed:
    """The decay of a run.

    Attributes
    ----------
    layers : tuple of LayerDecay
    ratio, standard_error : float
        lr·weight_decay used over given, the mean of the layers; the error is that of noise and of scatter over layers.
        Of the layers declared scale-invariant alone, where some are.
    weight_decay : float
        Given.
    """

    layers: tuple[LayerDecay, ...]
    ratio: float
    standard_error: float
    weight_decay: float

    @property
    def verdict(self) -> Verdict:
        """PASS if what was given was used, FAIL if not; UNRESOLVED if the looks do not tell."""
        noise = _K * self.standard_error
        if not (np.isfinite(noise) and 1 / FACTOR - noise <= self.ratio <= FACTOR + noise):
            return "FAIL" if np.isfinite(self.ratio) else "UNRESOLVED"
        return "PASS" if 1 / FACTOR - noise > 0 else "UNRESOLVED"  # else no decay at all would pass

    def report(self) -> Report:
        """The mean over layers as a check."""
        note = f"lr·weight_decay used over given; {_K:g} standard errors and a factor of {FACTOR:g} are allowed"
        row = Check.of(
            "decay used over given", measured=self.ratio, standard_error=self.standard_error, low=1 / FACTOR,
            high=FACTOR, verdict=self.verdict, note=note,
        )  # fmt: skip
        return Report((row,))

    def sentence(self) -> str:
        """The answer for a person."""
        used, error = self.weight_decay * self.ratio, self.weight_decay * self.standard_error
        fitted = f"The weights kept what a weight decay of {used:.3g} ± {error:.1g} (standard error) leaves"
        if self.verdict == "PASS":
            return f"{fitted}: the {self.weight_decay:g} given was used, as far as gradients let it be seen."
        if self.verdict == "FAIL":
            return f"{fitted}, {self.ratio:.3g} times the {self.weight_decay:g} given: another decay was used, or lr."
        return f"{fitted}; {self.weight_decay:g} was given. The looks are too few, or cover too few steps, to tell."

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return {**asdict(self), "verdict": self.verdict}


@np.errstate(divide="ignore", invalid="ignore")
def decay_used(trace: xr.Dataset) -> DecayUsed:
    """Fit lr·weight_decay to a trace of `rotsim.measure.read_checkpoints`, whose looks are many steps apart.

    Raises
    ------
    InvalidInput
        If it is another dataset, or the optimizer's decay is none or depends on more than its rates, as Adam+L2's does.

    Notes
    -----
    The exponent of `derivations.transient.over_many_steps`, with what averages still hold.
    """
    trace = dataset.completed(dataset.validate(trace))
    if missing := [name for name in ("span", "initial_norm", "initial_step") if name not in trace.variables]:
        raise InvalidInput(f"the trace lacks {', '.join(missing)}; the decay is read off checkpoints, some steps apart")
    optimizer = dataset.optimizer_of(trace)
    if theory_of(optimizer) is None:
        raise InvalidInput(f"{optimizer.refusal()}, so what its decay leaves of weights is not known")
    if optimizer.decay == "none" or not optimizer.weight_decay:
        raise InvalidInput(f"{optimizer.describe()} has no decay that would take from weights; there is none to fit")
    if required_theory(optimizer).lasting_decay(np.ones(1)) is None:
        raise InvalidInput(f"what {optimizer.label}'s decay takes depends on its gradients, not on its rates alone")
    layers = tuple(_layer(trace, name) for name in dict.fromkeys(trace["layer"].values.tolist()))
    declared = set(dataset.spec_of(trace).get("scale_invariant_layers", ()))
    chosen = [layer for layer in layers if not declared or layer.layer in declared]
    known = np.array([[layer.ratio, layer.standard_error] for layer in chosen])
    known = known[np.isfinite(known).all(axis=1)]
    if not len(known):  # of layers whose gradient is not along the weights, where it is known which they are
        raise InvalidInput("no layer has finite norms and angles at two looks, so no decay can be fitted")
    ratio, error = _mean(*known.T)
    return DecayUsed(layers, ratio, error, float(optimizer.weight_decay))


def _layer(trace: xr.Dataset, name: str) -> LayerDecay:
    layer = trace.isel(neuron=trace["layer"].values == name)
    optimizer, dim = dataset.optimizer_of(trace), int(layer["fan_in"].values[0])
    first = int(layer["initial_step"].values[0])
    rates = rates_of(layer, first)
    if dim < 3 or not rates.weight_decay.any():
        return LayerDecay(name, 0.0, np.nan, np.nan)
    ends, spans = layer["step"].values, layer["span"].values
    lasting = required_theory(optimizer).lasting_decay(rates.lr * rates.weight_decay)
    assert lasting is not None
    taken = np.append(0.0, np.cumsum(-np.log1p(-np.minimum(lasting, 1 - 1e-12))))
    begins = ends - spans
    looks = np.flatnonzero(begins >= first)
    given = taken[ends[looks] - first] - taken[begins[looks] - first]
    norm = np.column_stack([layer["initial_norm"].values, layer["norm"].values])
    angle = layer["rotation"].values[:, looks]
    left = np.cos(angle) * norm[:, looks + 1] / norm[:, looks]  # ⟨w_b, w_e⟩/‖w_b‖² of each neuron
    across = (np.sin(angle) * norm[:, looks + 1] / norm[:, looks]) ** 2
    whole = np.isfinite(left).all(axis=1)
    if not whole.any() or not given.any():
        return LayerDecay(name, float(given.sum()), np.nan, np.nan)
    held = np.array([_held(optimizer, dim, rates, begin - first, end - first) for begin, end in zip(
        begins[looks].tolist(), ends[looks].tolist(), strict=True)])  # fmt: skip
    held = np.where(begins[looks] > 0, held, 0.0)  # a fresh average holds nothing
    mean, turned = left[whole].mean(axis=0), across[whole].mean(axis=0)
    seen = (mean > 0) & (given > 0) & np.isfinite(held)
    if seen[1:].sum() >= _LEAST_LOOKS:
        seen[0] &= begins[looks][0] > 0  # in its first steps a network learns: gradients are more than noise
    fallen = (-np.log(mean) + held * turned / mean**2)[seen]
    variance = (turned / mean**2 / (dim * whole.sum()))[seen]  # of the noise that lies along w_b
    if not seen.any():
        return LayerDecay(name, float(given.sum()), np.nan, np.nan)
    ratio, error = _mean(fallen / given[seen], np.sqrt(variance) / given[seen])
    return LayerDecay(name, float(given.sum()), ratio, error)


def _held(optimizer: Optimizer, dim: int, rates: Rates, begin: int, end: int) -> float:
    """What averages keep over a span, at its mean rates, of which two digits are enough."""
    lr, decay = (float(f"{rate[begin:end].mean():.2g}") for rate in (rates.lr, rates.weight_decay))
    return kept_by_averages(optimizer.with_rates(lr, decay), dim, end - begin)[1] if lr * decay > 0 else 0.0


def _mean(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Weighted mean and its error, which grows where values scatter by more than their errors."""
    weight = 1 / np.maximum(errors, 1e-12) ** 2
    mean = float((weight * values).sum() / weight.sum())
    scatter = (weight * (values - mean) ** 2).sum() / max(len(values) - 1, 1)
    grown = np.sqrt(max(1.0, scatter)) if len(values) >= _LEAST_LOOKS else 1.0
    return mean, float(grown / np.sqrt(weight.sum()))
