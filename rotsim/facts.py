"""Single facts that the windows of one layer tell: what its gradients are like, and what rounding takes.

Each takes series of shape (neurons, windows), by name, of the neurons and windows that count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.theory.base import Theory

if TYPE_CHECKING:
    import xarray as xr

_FEWEST = 3  # windows, between which a trend is seen
INVARIANT = 0.1  # RMS cosine of gradient and weights, over that of a random direction, below which they are orthogonal


def rms(series: np.ndarray) -> np.ndarray:
    """Of each neuron, over windows."""
    return np.sqrt((series**2).mean(axis=1))


def median(values: np.ndarray) -> float:
    """Of all values; NaN without any."""
    return float(np.median(values)) if values.size else float("nan")


def mean(values: list[float]) -> float:
    """Over finite values; NaN without any."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def correlation(trace: xr.Dataset, name: str) -> np.ndarray | None:
    """Autocorrelation of the parameter that holds the layer, if it was recorded."""
    parameter = name.split("[")[0]
    if "gradient_autocorrelation" not in trace or parameter not in trace["parameter"].values:
        return None
    values = trace["gradient_autocorrelation"].sel(parameter=parameter).values.astype(float)
    return values if np.isfinite(values).all() else None


def radial(kept: dict[str, np.ndarray], theory: Theory[Any] | None, decay: float, dim: int) -> tuple[float, float]:
    """λ_eff/λ - 1, the median over neurons, and its standard error; windows weigh by ‖w‖², as its balance has it."""
    if "radial" not in kept or theory is None or decay == 0:
        return float("nan"), float("nan")
    weight = kept["norm"] ** 2
    series = kept["radial"] * weight / weight.mean(axis=1, keepdims=True) / decay
    series = theory.radial_share(series, rms(kept["gradient_norm"]) / dim**0.5)
    return median(series.mean(axis=1)), _median_error_of_mean(series)


def _median_error_of_mean(series: np.ndarray) -> float:
    over_time = series.mean(axis=0)
    return float(over_time.std() / np.sqrt(len(over_time)))


def cosine(kept: dict[str, np.ndarray], dim: int) -> float:
    """RMS cosine of weights and gradient, in units of that of a random direction: the median over neurons."""
    if "gradient_cosine" not in kept:
        return float("nan")
    return float(np.nanmedian(np.sqrt(np.nanmean(kept["gradient_cosine"] ** 2, axis=1)))) * dim**0.5


def along(kept: dict[str, np.ndarray]) -> float:
    """What changes the norm for good, decay and growth, is along the weights too, and does not count."""
    across = ((kept["norm"] * kept["rotation"]) ** 2 + kept["pace"] ** 2).mean(axis=1)
    total = (kept["update_rms"] ** 2).mean(axis=1)
    return median(np.maximum(0.0, 1 - across[total > 0] / total[total > 0]))


def pace(norm: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Change of the norm per step."""
    return np.gradient(norm, step, axis=1) if len(step) > 1 else np.zeros_like(norm)


def burst(kept: dict[str, np.ndarray]) -> float:
    """Over all samples: within windows as recorded, between them from the windows' scales.

    What the scales of all neurons become in time, which a course follows, is no burst: their trend is taken out.
    """
    scale = kept["gradient_scale"]
    square = (scale * np.exp(-_trend(scale))) ** 2
    inside = np.nan_to_num(kept["gradient_burst"], nan=1.0) if "gradient_burst" in kept else np.ones_like(square)
    mean = square.mean(axis=1)
    return median((inside * square**2).mean(axis=1)[mean > 0] / mean[mean > 0] ** 2)


def _trend(scale: np.ndarray) -> np.ndarray:
    """A line through the logarithm of the median neuron's scale: the median of all slopes, which no burst moves."""
    level, at = np.median(scale, axis=0), np.arange(scale.shape[1])
    seen = np.flatnonzero((level > 0) & np.isfinite(level))
    if len(seen) < _FEWEST:
        return np.zeros(len(at))
    one, other = np.triu_indices(len(seen), 1)
    rise = np.log(level[seen[other]] / level[seen[one]])
    return at * float(np.median(rise / (seen[other] - seen[one])))
