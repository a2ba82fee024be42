"""Autocorrelation of sampled gradient coordinates, per parameter, in bounded memory.

Lion's rotation and every norm depend on how gradients of successive steps are correlated. A few
coordinates per parameter are read at every step into a block of fixed length; a full block is reduced to
one autocorrelation per parameter and forgotten. The result averages the blocks of the last half: gradients
of the first steps are correlated otherwise, by enough to turn a correction of 40 % into none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


class CoordinateSampler:
    """Autocorrelation up to `lags` of `count` evenly spread gradient coordinates of each parameter.

    Parameters
    ----------
    lags : int
        Longest lag, in steps, ≥ 1. Blocks are 4 · lags steps long.
    count : int
        Coordinates per parameter, ≥ 1 (all, if it has fewer).

    Notes
    -----
    Each coordinate is normalised by its own mean square in the block, so that large ones do not speak for
    all, and its mean is kept: a persistent gradient shows as correlation that does not decay. Coordinates
    with a gradient of zero throughout a block are left out, blocks with a value that is not finite too.
    """

    def __init__(self, lags: int, count: int = 64) -> None:
        self.lags, self.count = lags, count
        self.length = 4 * lags
        self._places: list[torch.Tensor] = []
        self._block: list[torch.Tensor] = []
        self._reduced: list[np.ndarray] = []

    def add(self, gradients: Sequence[torch.Tensor | None], shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Read one step; parameters may be appended between steps, never removed."""
        for shape in shapes[len(self._places) :]:
            places = np.linspace(0, shape.numel() - 1, min(self.count, shape.numel())).astype(np.int64)
            self._places.append(torch.from_numpy(places))
            self._block = []  # a block holds the same parameters throughout
        parts = []
        for i, gradient in enumerate(gradients):
            if gradient is None:
                parts.append(torch.zeros(len(self._places[i]), device=device))
                continue
            if self._places[i].device != gradient.device:
                self._places[i] = self._places[i].to(gradient.device)
            dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
            parts.append(dense.reshape(-1)[self._places[i]].to(device, torch.float32))
        self._block.append(torch.cat(parts))
        if len(self._block) == self.length:
            self._reduce()

    def _reduce(self) -> None:
        block = torch.stack(self._block)
        self._block = []
        # zero-padded, so that the correlation does not wrap around
        power = torch.fft.rfft(block, n=self.length + self.lags, dim=0).abs().square()
        products = torch.fft.irfft(power, n=self.length + self.lags, dim=0)[: self.lags + 1]
        products /= torch.arange(self.length, self.length - self.lags - 1, -1, device=block.device)[:, None]
        table = products.cpu().double().numpy()
        result = np.full((len(self._places), self.lags + 1), np.nan, dtype=np.float32)
        start = 0
        for i, places in enumerate(self._places):
            part = table[:, start : start + len(places)]
            start += len(places)
            part = part[:, part[0] > 0]
            if part.shape[1] and np.isfinite(part).all():
                result[i] = (part / part[0]).mean(axis=1)
        self._reduced.append(result)

    def autocorrelation(self) -> np.ndarray:
        """Mean over the last half of the blocks, shape (parameters, lags + 1); NaN for a parameter without one."""
        late = self._reduced[len(self._reduced) // 2 :]
        total = np.zeros((len(self._places), self.lags + 1))
        count = np.zeros(len(self._places))
        for block in late:
            seen = np.isfinite(block[:, 0])
            total[: len(block)][seen] += block[seen]
            count[: len(block)] += seen
        return np.where(count > 0, total.T / np.maximum(count, 1), np.nan).T
