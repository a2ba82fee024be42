r"""What the first half of a run says of the second, for layers that no prediction is claimed of.

Where no normalisation follows a layer, its gradients have a part along the weights. In a step gradients change ‖w‖² by
s: noise lengthens the weights, the part along them mostly shortens. Decay takes a share 2δ of it. The rest of a step
is across the weights, of length a, and turns them:

.. math:: \|w\|^2_{t+1} = \|w\|^2_t + s - 2\delta\|w\|^2_t, \qquad \theta_t = a / \|w\|_t

Both s and a are read off the last quarter of the first half, neuron by neuron, and are taken to last. A step is as long
as the learning rate. Noise adds κa², κ being known from the optimizer's average, and goes with the square of the rate.
A pull goes with the rate. Gradients orthogonal to the weights are noise: κa² of s is. Elsewhere a loss holds the norm
against noise, and all of s goes with the rate. That was found in networks, and is not derived.

Adam divides gradients by their size, so that under noise alone a step has one length at one rate. In networks it is
shorter, and less so where the rate falls: the logarithm of what it lacks goes about with the root of the rate
(`LACK`). That was found in networks as well. Gradients oppose the steps before them less where those are short. What a
higher rate does was not seen: there a step keeps what it lacks.

A drift that goes on, in a straight line over time or its logarithm, foresaw worse than none in each set of traces.
What drifts may drift on, though. So the declared error is `REACH` times what the same rule misses one quarter of the
half earlier: read off the third, it foresees the fourth. The larger error of rotation and norm counts for both. Where
the rate changes later, the first half does not tell how s goes with it. What it would make of the course if all of it
were noise, or elsewhere if κa² were, is declared as well. A rate that was wrong throughout the run is absorbed in s
and a: no forecast notices it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset, facts
from rotsim.facts import INVARIANT, median, rms
from rotsim.optimizers.base import Optimizer
from rotsim.quarters import Part, parts_of
from rotsim.statistics import over
from rotsim.theory.adam import Adam
from rotsim.theory.base import theory_of
from rotsim.theory.influences import ALIVE
from rotsim.theory.own_sizes import growth_per_turn
from rotsim.theory.rates import Rates, rates_of
from rotsim.theory.traces import rows_of_matrix

if TYPE_CHECKING:
    import xarray as xr

#: Relative error allowed of what is foreseen.
FORESEEN = {"rotation": 0.15, "norm": 0.20}
_PIECES = 4  # of the first half: the last is read, and foreseen from the one before
REACH = _PIECES / 2 + 0.5  # pieces from the middle of the last to that of the second half
LACK = 0.5  # power of the rate that the logarithm of Adam's step over one under noise goes with
_LEAST_WINDOWS = 16
_PARTS = 2  # of the second half, each of which must agree


@dataclass(frozen=True)
class Forecast:
    """The second half of a layer's run, from the first.

    Attributes
    ----------
    start : int
        Steps before the half that is foreseen.
    quarters : tuple of Part
        The third and the fourth; none where nothing could be foreseen.
    missed : float
        How far the same rule misses the last quarter of the first half, from the quarter before: the largest
        relative error, of rotation or norm, as what one misses the other may; NaN if there was none.
    undecided_rotation, undecided_norm : float
        How far the course would be off if more of s were noise: 0 where the rate stays as it was, and infinite where
        nothing would be left of the weights.
    forbidden : str
        The measured quantity because of which nothing is claimed; empty if it is.
    step : ndarray or None, shape (windows,)
        Last steps of the windows of that half.
    ratio : dict of str to ndarray, shape (windows,)
        Measured over foreseen "rotation" and "norm", the median over neurons.
    """

    start: int
    quarters: tuple[Part, ...]
    missed: float
    undecided_rotation: float
    undecided_norm: float
    forbidden: str
    step: np.ndarray | None = field(default=None, repr=False, compare=False)
    ratio: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def declared(self, quantity: str) -> float:
        """Relative error to expect of the foreseen "rotation" or "norm"; NaN if it is not known."""
        return REACH * self.missed + float(getattr(self, f"undecided_{quantity}"))

    @property
    def claims(self) -> tuple[str, ...]:
        """What is claimed to agree in the second half."""
        return () if self.forbidden else ("rotation", "norm")


def foresee(trace: xr.Dataset, name: str, begun: int) -> Forecast:
    """Foresee a layer's run after the step `begun`, as of `rotsim.theory.traces.start_of`."""
    layer = trace.isel(neuron=trace["layer"].values == name)
    layer = layer.isel(step=layer["step"].values > begun)
    step, spec = layer["step"].values, dataset.optimizer_of(trace, name)

    def none(why: str) -> Forecast:
        return Forecast(begun, (), np.nan, np.nan, np.nan, why)

    if spec.decay == "none" or (spec.decay == "coupled" and spec.shape != "identity"):
        return none(
            f"{spec.label}'s decay is not in proportion to the weights, so that it cannot be told from the pull."
        )
    if layer.sizes["step"] < _LEAST_WINDOWS:
        return none(f"{layer.sizes['step']} windows are too few; record at least {_LEAST_WINDOWS}.")
    middle, values = len(step) // 2, _values(layer)
    early = {key: series[:, :middle] for key, series in values.items()}
    rows = (np.nan_to_num(early["active"]).mean(axis=1) >= ALIVE) & (early["norm"] > 0).all(axis=1)
    rows &= np.isfinite(values["norm"] + values["rotation"]).all(axis=1)
    values = {key: series[rows] for key, series in values.items()}
    piece = middle // _PIECES
    read = middle - piece
    rates = rates_of(layer, begun)
    length = _length(spec, int(layer["fan_in"][0])) if rates.spans is None else np.nan
    course = _Course(spec, rates, step, values["norm"], values["rotation"], length)
    of_noise = _growth(trace, name, spec)
    invariant = facts.cosine({k: v[rows] for k, v in early.items()}, int(layer["fan_in"][0])) < INVARIANT
    growth, more = (of_noise, np.inf) if invariant else (0.0, of_noise)
    if not rows.any() or not all(course.lr[part].any() for part in (slice(read - piece, read), slice(read, middle))):
        return none("No neuron was moved in the second quarter of the run by gradients that are finite.")
    before = course.ahead(read - piece, read, middle, growth)
    missed = float(np.max([_missed(values[key][:, read:middle], before[key]) for key in FORESEEN]))
    theory, other = (course.ahead(read, middle, len(step), noise) for noise in (growth, more))
    lasting = (theory["norm"] > 0).all(axis=1)
    if lasting.mean() < 0.5:
        return none(
            "Gradients shortened the weights so fast in the second quarter of the run that nothing would be left of "
            "them before its end: it does not last."
        )
    undecided = {key: _missed(other[key], theory[key]) for key in FORESEEN}
    theory = {key: series[lasting] for key, series in theory.items()}
    late = {key: series[lasting, middle:] for key, series in values.items()}
    start = int(step[middle - 1])
    parts = parts_of(start, step[middle:], late, theory, _PARTS)
    found = Forecast(start, parts, missed, undecided["rotation"], undecided["norm"], forbidden="")
    return replace(
        found,
        forbidden=_forbidden(found),
        step=step[middle:],
        ratio={key: np.median(over(late[key], theory[key]), axis=0) for key in FORESEEN},
    )


def _forbidden(found: Forecast) -> str:
    most = min(FORESEEN.values()) / REACH
    if not found.missed <= most:
        return (
            "What gradients did to the weights in the third eighth of the run misses rotation or norm in the fourth "
            f"{_by(found.missed)}, more than {most:.0%}: it did not last."
        )
    for key, allowed in FORESEEN.items():
        if not found.declared(key) <= allowed:
            return (
                "The learning rate changes after the first half of the run. How what gradients add to the norm goes "
                f"with it changes the {key} {_by(getattr(found, f'undecided_{key}'))}: the first half does not tell."
            )
    return "" if found.quarters else "A quarter of the run has no window."


def _by(error: float) -> str:
    return f"by {error:.0%}" if np.isfinite(error) else "without bound"


def _values(layer: xr.Dataset) -> dict[str, np.ndarray]:
    names = ("norm", "rotation", "active", "gradient_cosine")
    return {name: layer[name].values.astype(float) for name in names if name in layer}


def _missed(measured: np.ndarray, expected: np.ndarray) -> float:
    """Median over neurons of measured over expected, minus 1, in the half of the windows where that is larger."""
    halves = zip(np.array_split(measured, _PARTS, axis=1), np.array_split(expected, _PARTS, axis=1), strict=True)
    return max(abs(median(over(rms(x), rms(y))) - 1) for x, y in halves)


def _growth(trace: xr.Dataset, name: str, spec: Optimizer) -> float:
    """κ of the layer's optimizer; 0 without a theory: all that gradients add then goes with the rate."""
    dim, rows = int(trace["fan_in"].values[trace["layer"].values == name][0]), rows_of_matrix(trace, name, spec)
    known = theory_of(spec) is not None and dim >= 3 and rows != 1
    return growth_per_turn(spec, dim, rows) if known else 0.0


def _length(spec: Optimizer, dim: int) -> float:
    """Of a step at a rate of 1 under noise, where the optimizer gives it one; else NaN."""
    theory = theory_of(spec)
    return float(np.sqrt(theory.noise().lag_0 * dim)) if isinstance(theory, Adam) else np.nan


class _Course:
    """The norms of a layer's neurons, and what decay and the learning rate are in every window.

    `length` is that of a step under noise at a rate of 1; NaN where the optimizer does not give it one.
    """

    def __init__(
        self, spec: Optimizer, rates: Rates, step: np.ndarray, norm: np.ndarray, rotation: np.ndarray, length: float
    ) -> None:
        self.square, self.turned, self.length = norm**2, rotation * norm, length
        share = rates.lr * rates.weight_decay
        if spec.decay == "coupled":  # it goes through the momentum
            share = share * (1 - getattr(spec, "dampening", 0.0)) / (1 - spec.beta1)
        ends = step - rates.start
        sampled = rates.steps % rates.interval == 0
        series = share, rates.lr, rates.lr**2, sampled * 1.0, sampled * rates.lr**2
        sums = (np.diff(np.append(0.0, np.cumsum(of))[ends], prepend=0.0) for of in series)
        self.decay, self.lr, self.squares, looks, looked = sums
        mean_square = self.squares / np.diff(ends, prepend=0)
        #: RMS over the sampled steps of a window: rotation is that of the angles.
        self.rate = np.sqrt(np.divide(looked, looks, out=mean_square, where=looks > 0))

    def ahead(self, first: int, now: int, last: int, growth: float = 0.0) -> dict[str, np.ndarray]:
        """Norm and rotation in the windows from `now` to `last`, from those between `first` and `now`.

        Of what gradients add, `growth` times a² is noise; all if it is infinite.
        """
        past, between = slice(first, now), np.ones(now - first)
        between[[0, -1]] = 0.5  # from the middle of the first window to that of the last
        lost = 2 * (self.decay * self.square)[:, past] @ between
        rate, moving = self.rate[:last], first + np.flatnonzero(self.rate[past] > 0)
        across = self.turned[:, moving] / rate[moving]
        longer = np.ones(last)  # a step over one under noise, in each window
        size = np.median(across, axis=0)
        if np.isfinite(self.length) and (size > 0).all():
            felt = np.minimum(rate, rate[moving].max()) ** LACK  # of rates above those of the past nothing is known
            longer = np.exp(np.log(size / self.length).mean() / felt[moving].mean() * felt)
        across, squares = rms(across / longer[moving]), self.squares[:last] * longer**2
        # of rates of 1: what noise adds in a step, and the rest
        total = self.square[:, now - 1] - self.square[:, first] + lost
        noise = total / (squares[past] @ between) if np.isinf(growth) else growth * across**2
        added = (total - noise * (squares[past] @ between)) / (self.lr[past] @ between)
        square = self.square[:, now - 1] ** 1.5 / np.sqrt(self.square[:, now - 2])  # at the end of the window
        found = []
        for window in range(now, last):
            twice = 2 * self.decay[window]
            gained = added * self.lr[window] + noise * squares[window]
            kept, kept_mean = np.exp(-twice), -np.expm1(-twice) / twice if twice > 0 else 1.0
            # gains come evenly, and decay after them: the mean over the window, and its end
            gain_mean = (1 - kept_mean) / twice if twice > 1e-6 else 0.5
            found.append(square * kept_mean + gained * gain_mean)
            square = square * kept + gained * kept_mean
        norm = np.sqrt(np.maximum(np.array(found).T, 0.0))
        step = across[:, None] * (longer * rate)[now:]
        return {"norm": norm, "rotation": np.divide(step, norm, out=np.full_like(norm, np.inf), where=norm > 0)}
