"""The rates that a recorded run had at every step: a trace holds the first, the last and averages in each window.

Between first and last look a rate goes in two straight lines, which meet where its mean and RMS say: at the end of a
warm-up, for example. Or it jumps between two looks, as at a restart, where that is closer than lines that meet in the
middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset
from rotsim.schedules import named

if TYPE_CHECKING:
    import xarray as xr


MOST_LOOKS = 128  # of a window, at which two lines may meet
HIGHEST = 1.03  # times the highest rate at a window's first or last look, that another may be between two jumps
RELATIVE = 1e-9  # of the mean square, that a meeting in the middle may be worse by


@dataclass(frozen=True)
class Rates:
    """Hyperparameters of one layer at the steps after `start`, each of shape (steps,).

    Attributes
    ----------
    start : int
        Steps before the first of these.
    lr, weight_decay : ndarray
        >= 0.
    interval : int
        Steps between two samples: the numbers of sampled steps are multiples.
    betas : ndarray, shape (2, steps)
        Momentum or (β1, β2); NaN for what the optimizer does not have or the trace does not hold.
    spans : ndarray of int, shape (windows,), or None
        Where a window is one look at its end: steps between the two weights that it compares.
    """

    start: int
    lr: np.ndarray
    weight_decay: np.ndarray
    betas: np.ndarray
    interval: int = 1
    spans: np.ndarray | None = None

    @property
    def steps(self) -> np.ndarray:
        """The numbers of the steps."""
        return np.arange(self.start + 1, self.start + 1 + len(self.lr))


def rates_of(layer: xr.Dataset, start: int) -> Rates:
    """Rates of the neurons of one layer from step `start` + 1 to the last.

    Parameters
    ----------
    layer : Dataset
        The part of a trace with the neurons of one layer. A trace without the course of the rates had constant ones.
    start : int
        Steps before the first that is asked for, >= 0.

    Returns
    -------
    Rates

    Notes
    -----
    The hyperparameters are those of PyTorch's parameter groups.
    """
    end = layer["step"].values
    step = np.arange(start + 1, end[-1] + 1)
    parameter = str(layer["layer"].values[0]).split("[")[0]
    known = "parameter" in layer.coords and parameter in layer["parameter"].values
    interval = int(dataset.spec_of(layer).get("interval", 1))

    def average(name: str, kind: str) -> np.ndarray:
        key, unknown = f"window_{name}_{kind}", np.full(len(end), np.nan)
        return np.asarray(layer[key].sel(parameter=parameter).values) if key in layer else unknown

    def course(name: str, constant: float) -> np.ndarray:
        if not known or f"window_{name}" not in layer:
            return np.full(len(step), constant)
        at, value = end, layer[f"window_{name}"].sel(parameter=parameter).values
        if f"window_{name}_start" in layer:
            first = np.append(min(start + 1, end[0]), np.minimum(end[:-1] + interval, end[1:]))
            early = layer[f"window_{name}_start"].sel(parameter=parameter).values
            at, value = _looks(first, end, early, value, average(name, "mean"), average(name, "rms"), interval)
        seen = np.isfinite(value)
        return np.interp(step, at[seen], value[seen]) if seen.any() else np.full(len(step), np.nan)

    lr, decay = (course(name, float(layer[name].values[0])) for name in ("lr", "weight_decay"))
    if schedule := dataset.spec_of(layer).get("schedule"):  # known at every step, not at looks alone
        factor = named(schedule["name"], schedule["steps"], schedule["warmup_steps"], schedule["final"])
        lr = schedule["lr"] * factor(step)
    return Rates(
        start,
        lr,
        decay,
        np.stack([course(name, np.nan) for name in ("beta1", "beta2")]),
        interval,
        layer["span"].values if "span" in layer.variables else None,
    )


def _looks(
    first: np.ndarray,
    last: np.ndarray,
    early: np.ndarray,
    late: np.ndarray,
    mean: np.ndarray,
    rms: np.ndarray,
    interval: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Steps between which a rate goes in straight lines, and its values there: NaN where they are not known.

    All of shape (windows,): first and last look, the rate at both, its mean and RMS over all looks.
    """
    looks = (last - first) // interval + 1
    met, top, wrong = _meeting(early, late, mean, rms, looks)
    highest = HIGHEST * np.nanmax(np.append(early, late), initial=0.0)
    apart = np.where((late != early) & (looks > 2), late - early, np.nan)
    count = np.clip(np.round(looks * (late - mean) / apart), 1, np.maximum(looks - 1, 1))  # of looks before a jump
    share = count / looks
    # the longer part may be a line as well, so that the mean is as recorded
    falls = share >= 0.5
    long, end, brief, rest = (
        np.where(falls, *pair) for pair in ((share, 1 - share), (early, late), (late, early), (1 - share, share))
    )
    bend = np.maximum(2 * (mean - rest * brief) / long - end, 0.0)
    jumped = long * (end**2 + end * bend + bend**2) / 3 + rest * brief**2
    jumps = (np.abs(jumped - rms**2) < wrong) | ((top > highest) & np.isfinite(jumped))  # not where one is NaN
    before, meeting = first + interval * (count - 1), first + met * (last - first)
    at = first, np.where(jumps, before, meeting), np.where(jumps, np.minimum(before + interval, last), meeting), last
    value = (
        early,
        np.where(jumps, np.where(falls, bend, early), top),
        np.where(jumps, np.where(falls, late, bend), top),
        late,
    )
    return np.stack(at, axis=1).ravel(), np.stack(value, axis=1).ravel()


def _meeting(
    early: np.ndarray, late: np.ndarray, mean: np.ndarray, rms: np.ndarray, looks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where in each window two straight lines meet that have its mean and RMS, from 0 to 1, and the rate there.

    The third is by how much their mean square is wrong. Each rate of a window is its first, the one where the lines
    meet and its last, times shares that add up to one.
    """
    places, tops, left = np.full(len(early), 0.5), np.full(len(early), np.nan), np.full(len(early), np.nan)
    for count in np.unique(looks[(looks > 2) & np.isfinite(mean + rms)]):
        here = looks == count
        at = np.linspace(0, 1, int(min(count, MOST_LOOKS)))
        meet = at[1:-1, None]
        first, last = np.clip(1 - at / meet, 0, None), np.clip((at - meet) / (1 - meet), 0, None)
        shares = np.stack([first, 1 - first - last, last])
        ends = np.stack([early[here], late[here]])
        first, middle, last = shares.mean(axis=-1)
        top = (mean[here] - np.multiply.outer(first, ends[0]) - np.multiply.outer(last, ends[1])) / middle[:, None]
        rates = np.stack(np.broadcast_arrays(ends[0], np.maximum(top, 0.0), ends[1]))
        square = np.einsum("ipt,jpt,ipw,jpw->pw", shares, shares, rates, rates) / len(at)
        wrong = np.abs(square - rms[here] ** 2)
        best = np.argmin(wrong + RELATIVE * np.abs(meet - 0.5) * rms[here] ** 2, axis=0)
        chosen = best, np.arange(len(best))
        places[here], tops[here], left[here] = meet[best, 0], rates[1][chosen], wrong[chosen]
    still = (early == late) & (np.abs(tops - early) <= RELATIVE * early)  # to the last digit, for `Evidence.scheduled`
    return places, np.where(still, early, tops), left
