"""The sums that a walk adds to, and the dataset that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rotsim import dataset
from rotsim.simulation.request import Run
from rotsim.simulation.state import State

if TYPE_CHECKING:
    import xarray as xr


class Records:
    """‖w‖², squared angle and ‖Δw‖² over the record windows of a run, from the first that is open.

    Attributes
    ----------
    windows : ndarray of float64, shape (neurons, 3, windows)
        RMS in those that are complete, sums of squares in the open one.
    first_window : int
        Windows that were complete before.
    """

    def __init__(self, run: Run, state: State) -> None:
        self.run, self.state = run, state
        self.first_window = state.done // run.window
        windows = -(-run.steps // run.window) - self.first_window
        self.windows = np.zeros((run.problem.neurons, len(dataset.QUANTITIES), windows))
        self.windows[:, :, 0] = state.open_window

    def complete(self, block: tuple[int, int], before: int, done: int) -> None:
        """Take the RMS of the windows that these neurons completed after the step `before`: whoever walked them does.

        Their sums are in that core's cache, and cores do it side by side.
        """
        window = self.run.window
        rms = self.windows[slice(*block), :, before // window - self.first_window : done // window - self.first_window]
        if window > 1:
            rms /= window
        np.sqrt(rms, out=rms)

    def so_far(self, with_state: bool, last: bool = False) -> xr.Dataset:
        """The dataset of the steps done: what a run of that many steps returns. The `last` uses up the windows."""
        state, window = self.state, self.run.window
        if with_state:
            reached, rest = divmod(state.done, window)
            state.open_window = self.windows[:, :, reached - self.first_window].copy() if rest else 0.0
        result = self._joined(self._means(self.windows if last else self.windows.copy()))
        if with_state:
            state.store_in(result)
        return result

    def _means(self, sums: np.ndarray) -> xr.Dataset:
        """RMS of every window, in place of what is summed of the open one."""
        done, window = self.state.done, self.run.window
        windows = -(-done // window)
        last_step = np.minimum(np.arange(self.first_window + 1, windows + 1) * window, done)
        rms = sums[:, :, : len(last_step)]
        if rest := done % window:
            rms[:, :, -1] = np.sqrt(rms[:, :, -1] / rest)
        return dataset.build(
            "simulation",
            step=last_step,
            variables={name: rms[:, k] for k, name in enumerate(dataset.QUANTITIES)},
            optimizer=self.run.problem.optimizer,
            fan_in=self.run.problem.dim,
            spec=self.run.spec(done),
        )

    def _joined(self, result: xr.Dataset) -> xr.Dataset:
        """The windows of the run that was resumed, and these."""
        if self.run.resume is None:
            return result
        import xarray as xr

        earlier = self.run.resume[list(dataset.QUANTITIES)].isel(step=slice(0, self.first_window))
        return xr.concat([earlier, result], dim="step", join="exact").assign_attrs(result.attrs)
