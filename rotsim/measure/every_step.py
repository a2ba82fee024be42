"""What a recorder reads at every step: some coordinates of the gradients, and the norms of some rows for signs."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from rotsim.measure.assembly import averaging, with_samples, with_series
from rotsim.measure.coordinates import CoordinateSampler
from rotsim.measure.recorded import Entry
from rotsim.measure.scales import ScaleSampler
from rotsim.measure.sharding import local

MOST_LAGS = 1 << 16  # steps; 64 gradients of twice as many are in memory, per parameter

LEAST_BLOCK = 128  # steps of sampled gradients that are reduced together, but for short lags


class EveryStep:
    """Two samplers that need each gradient, one after another.

    Parameters
    ----------
    lags : int
        Longest lag >= 0 of the autocorrelation, in steps; 0 turns it off.
    """

    def __init__(self, lags: int) -> None:
        self.coordinates = CoordinateSampler(lags, least=min(4 * lags, LEAST_BLOCK)) if lags else None
        self.scales = ScaleSampler()
        self._last_tick = 0

    def begin(self, done: int) -> None:
        """Count on from as many steps."""
        if self.coordinates is not None:
            self.coordinates.begin(done)

    def read(self, entries: Sequence[Entry], step: int) -> None:
        """Read the gradients.

        Parameters
        ----------
        entries : sequence of Entry
        step : int
            The step that they are of.
        """
        device = entries[0].parameter.device
        signed = [i for i, entry in enumerate(entries) if entry.rule.shape == "sign"]
        if self.coordinates is None and not signed:
            return
        # of a product it would cost as much as of the whole matrix
        gradients = [
            local(e.parameter.grad)
            if e.parameter.grad is not None and e.factors is None and local(e.parameter).shape == e.shape
            else None
            for e in entries
        ]
        if self.coordinates is not None:
            betas, rates = [averaging(entry.rule) for entry in entries], [entry.in_force[0] for entry in entries]
            self.coordinates.add(gradients, [entry.shape for entry in entries], betas, rates, device)
        if signed:
            pairs = ((entries[i], gradients[i]) for i in signed)
            of_neurons = [None if given is None or e.groups else e.layout.rows(given) for e, given in pairs]
            self.scales.add(of_neurons, [entries[i].labels for i in signed], device)
            self._last_tick = step

    def onto(self, trace: xr.Dataset, entries: Sequence[Entry]) -> xr.Dataset:
        """The trace, and what was read.

        Parameters
        ----------
        trace : Dataset
        entries : sequence of Entry
            Those of the trace.

        Returns
        -------
        Dataset
        """
        trace = with_series(trace, self.scales, self._last_tick)
        return trace if self.coordinates is None else with_samples(trace, self.coordinates, entries)
