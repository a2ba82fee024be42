"""Finished record windows in bounded memory."""

from __future__ import annotations

import numpy as np

from rotsim.measure.quantities import MEANS, STARTS, VARIABLES


class Windows:
    """At most `most` windows: when there are so many, neighbours are merged and the window doubles.

    Parameters
    ----------
    window : int
        Steps per window, >= 1.
    most : int
        Even, ≥ 2.

    Attributes
    ----------
    window : int
        Steps per window now.
    ends : list of int
        Last step of each.
    """

    def __init__(self, window: int, most: int) -> None:
        self.window, self.most = window, most
        self.ends: list[int] = []
        self._records: list[np.ndarray] = []
        self._rates: list[np.ndarray] = []

    def add(self, end: int, record: np.ndarray, rates: np.ndarray) -> None:
        """Append a window; later ones may have more neurons and parameters, never fewer.

        Parameters
        ----------
        end : int
            Its last step, > that of the window before.
        record : ndarray, shape (len(VARIABLES), neurons)
        rates : ndarray, shape (len(WINDOW_RATES), parameters)
            As `rotsim.measure.recorded.Recorded.rates` gives them.
        """
        self.ends.append(end)
        self._records.append(record)
        self._rates.append(rates)
        if len(self.ends) >= self.most:
            self._merge()

    def with_one_more(self, end: int, record: np.ndarray, rates: np.ndarray) -> Windows:
        """These windows and an unfinished one, given as to `add`, which is not merged."""
        more = Windows(self.window, self.most)
        more.ends, more._records, more._rates = [*self.ends, end], [*self._records, record], [*self._rates, rates]
        return more

    def coarsen(self, window: int) -> None:
        """Merge neighbours until a window is at least so many steps long."""
        while self.window < window:
            self._merge()

    def extend(self, later: Windows) -> None:
        """Append windows of the same neurons and parameters, all of them later."""
        for end, record, rates in zip(later.ends, later._records, later._rates, strict=True):
            self.add(end, record, rates)

    def stacked(self) -> tuple[np.ndarray, np.ndarray]:
        """All windows along a new last axis; NaN before a neuron or parameter joined.

        Returns
        -------
        records : ndarray, shape (len(VARIABLES), neurons, windows)
        rates : ndarray, shape (len(WINDOW_RATES), parameters, windows)
        """
        return _stack(self._records), _stack(self._rates)

    @property
    def neurons(self) -> int:
        """The number of them in the last window."""
        return self._records[-1].shape[1]

    def last(self) -> np.ndarray:
        """The window that ended last, shape (len(VARIABLES), neurons)."""
        return self._records[-1]

    @property
    def nbytes(self) -> int:
        """Memory that all windows take."""
        return sum(array.nbytes for array in (*self._records, *self._rates))

    def _merge(self) -> None:
        self.window *= 2
        ends, records, rates = self.ends, self._records, self._rates
        self.ends, self._records, self._rates = [], [], []
        for i, end in enumerate(ends):
            if self.ends and (end - 1) // self.window == (self.ends[-1] - 1) // self.window:
                self._records[-1] = merged(_stack([self._records[-1], records[i]]))
                before, after = np.moveaxis(_stack([self._rates[-1], rates[i]]), -1, 0)
                seen = np.isfinite(before[STARTS])
                after[STARTS] = np.where(seen, before[STARTS], after[STARTS])
                after[MEANS] = np.where(seen, (before[MEANS] + after[MEANS]) / 2, after[MEANS])
                mean_square = (before[MEANS.stop :] ** 2 + after[MEANS.stop :] ** 2) / 2
                after[MEANS.stop :] = np.where(seen, np.sqrt(mean_square), after[MEANS.stop :])
                self.ends[-1], self._rates[-1] = end, after
            else:
                self.ends.append(end)
                self._records.append(records[i])
                self._rates.append(rates[i])


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    """Along a new last axis, those of fewer columns filled up with NaN."""
    columns = arrays[-1].shape[1]
    absent = [np.full((len(a), columns - a.shape[1]), np.nan, a.dtype) for a in arrays]
    return np.stack([np.hstack(pair) for pair in zip(arrays, absent, strict=True)], axis=-1)


def merged(pair: np.ndarray) -> np.ndarray:
    """Two windows of equal length, along the last axis, as one; NaN in one counts for nothing."""
    values = dict(zip(VARIABLES, pair.astype(float), strict=True))
    active, square = np.nan_to_num(values["active"]), {}
    for name in ("norm", "rotation", "update_rms", "gradient_norm", "gradient_scale"):
        square[name] = _mean(values[name] ** 2)
    fourth = _mean(np.nan_to_num(values["gradient_burst"]) * values["gradient_scale"] ** 4)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = {
            **{name: np.sqrt(value) for name, value in square.items()},
            "active": _mean(values["active"]),
            "gradient_cosine": np.sqrt(
                np.nansum(values["gradient_cosine"] ** 2 * active, axis=-1) / active.sum(axis=-1)
            ),
            "gradient_burst": fourth / square["gradient_scale"] ** 2,
            "radial": _mean(values["radial"] * values["norm"] ** 2) / square["norm"],
            "stable_rank": _mean(values["stable_rank"]),
        }
    return np.stack([result[name] for name in VARIABLES]).astype(pair.dtype)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over the last axis and the numbers that are finite; NaN without any."""
    finite = np.isfinite(values)
    count = finite.sum(axis=-1)
    return np.where(count > 0, np.where(finite, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)
