"""The size of the gradient at every step, of a few rows of every layer, in bounded memory.

Lion takes the sign of an average: one large gradient sets its direction for as long as the average remembers it. What
bursts do to its equilibrium follows from their course (`rotsim.theory.bursts`), which no average over windows holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rotsim.dataset import NO_GRADIENT, PER_OCTAVE, UNKNOWN

_BLOCK = 256  # steps between two copies off the device


class ScaleSampler:
    """Norms of up to `count` evenly spread gradient rows of every layer, over the last `length` steps at least.

    Kept are logarithms as 16-bit integers, `PER_OCTAVE` to an octave: 2 · length · count bytes per layer.
    """

    def __init__(self, count: int = 8, length: int = 1 << 15) -> None:
        self.count, self.length = count, length
        self.layers: list[str] = []
        self._rows: list[torch.Tensor] = []
        self._running: list[torch.Tensor] = []
        self._blocks: list[np.ndarray] = []

    def add(
        self, gradients: Sequence[torch.Tensor | None], labels: Sequence[Sequence[str]], device: torch.device
    ) -> None:
        """Read one step; parameters, with the layer of every row, may be appended between steps, never removed."""
        for of_rows in labels[len(self._rows) :]:
            self._flush()  # a block holds the same rows throughout
            names, chosen = np.asarray(of_rows), []
            for layer in dict.fromkeys(of_rows):
                here = np.flatnonzero(names == layer)
                chosen.append(here[np.linspace(0, len(here) - 1, min(self.count, len(here))).astype(int)])
                self.layers += [layer] * len(chosen[-1])
            self._rows.append(torch.from_numpy(np.concatenate(chosen)))
        parts = []
        for i, gradient in enumerate(gradients):
            if gradient is None:
                parts.append(torch.full((len(self._rows[i]),), torch.nan, device=device))
                continue
            if self._rows[i].device != gradient.device:
                self._rows[i] = self._rows[i].to(gradient.device)
            rows = gradient.index_select(0, self._rows[i]).flatten(1)
            parts.append(torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).to(device))
        self._running.append(torch.cat(parts))
        if len(self._running) == _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._running:
            return
        self._blocks.append(_logarithms(torch.stack(self._running).cpu().numpy()))
        self._running = []
        while sum(map(len, self._blocks)) - len(self._blocks[0]) >= self.length:
            del self._blocks[0]

    def series(self) -> np.ndarray:
        """The kept logarithms, shape (rows, steps), up to the step read last; a row that joined later is `UNKNOWN`."""
        self._flush()
        table = np.full((sum(map(len, self._blocks)), len(self.layers)), UNKNOWN, dtype=np.int16)
        start = 0
        for block in self._blocks:
            table[start : start + len(block), : block.shape[1]] = block
            start += len(block)
        return table.T


def _logarithms(norms: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.round(PER_OCTAVE * np.log2(norms.astype(np.float64)))
    codes = np.where(norms == 0, NO_GRADIENT, np.where(np.isfinite(norms), codes, UNKNOWN))
    return codes.astype(np.int16)
