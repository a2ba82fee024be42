"""The rates that a recorded run had at every step: a trace holds the first, the last and averages in each window.

Between first and last look a rate goes in two straight lines, which meet in the middle where its mean says. If that is
beyond both looks, as at the end of a warm-up, it goes straight to the nearer one, and stays. Or it jumps between two
looks, as at a restart, where that is closer to its RMS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset
from rotsim.schedules import named

if TYPE_CHECKING:
    import xarray as xr


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
    bent = np.where(looks > 2, np.maximum(2 * mean - (early + late) / 2, 0.0), np.nan)
    lines = (early**2 + early * bent + 2 * bent**2 + bent * late + late**2) / 6
    # beyond both looks nothing was seen: a line from the far one to the near one, which then lasts
    near = np.where(bent > mean, np.maximum(early, late), np.minimum(early, late))
    far = early + late - near
    way = 2 * (near - mean) / np.where(near != far, near - far, np.nan)  # share of the window
    stays = ((bent - near) * (near - far) > 0) & (way > 0)
    bent = np.where(stays, near, bent)
    lines = np.where(stays, near**2 - way * (near - far) * (2 * near + far) / 3, lines)
    knee = first + np.where(stays, np.where(near == late, way, 1 - way), 0.5) * (last - first)
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
    jumps = np.abs(jumped - rms**2) < np.abs(lines - rms**2)  # not where one is NaN
    before = first + interval * (count - 1)
    at = first, np.where(jumps, before, knee), np.where(jumps, np.minimum(before + interval, last), knee), last
    value = (
        early,
        np.where(jumps, np.where(falls, bend, early), bent),
        np.where(jumps, np.where(falls, late, bend), bent),
        late,
    )
    return np.stack(at, axis=1).ravel(), np.stack(value, axis=1).ravel()
