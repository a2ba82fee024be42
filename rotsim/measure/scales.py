"""The size of the gradient at every step, of a few rows of every layer, in bounded memory.

Lion takes the sign of an average: one large gradient sets its direction for as long as the average remembers it. What
bursts do to its equilibrium follows from their course (`rotsim.theory.bursts`), which no average over windows holds.
A norm also fluctuates because a gradient has few independent coordinates, without any burst. How few, the squared
cosine of gradients some steps apart tells: its mean is 1/dim for independent coordinates, more where they vary as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rotsim.dataset import NO_GRADIENT, PER_OCTAVE, UNKNOWN

_BLOCK = 256  # steps between two copies off the device
_PAIR_STEPS = 16  # between the gradients whose angle is taken


class ScaleSampler:
    """Norms of up to `count` evenly spread gradient rows of every layer, over the last `length` steps at least.

    Kept are logarithms as 16-bit integers, `PER_OCTAVE` to an octave: 2 · length · count bytes per layer.

    Parameters
    ----------
    count : int
        Rows per layer, >= 1.
    length : int
        Steps, >= 1. Whole blocks are dropped, so that up to one block more is kept.
    """

    def __init__(self, count: int = 8, length: int = 1 << 15) -> None:
        self.count, self.length = count, length
        self.layers: list[str] = []
        self._rows: list[torch.Tensor] = []
        self._running: list[torch.Tensor] = []
        self._blocks: list[np.ndarray] = []
        self._steps = 0
        self._earlier: list[torch.Tensor | None] = []
        self._cosines: list[torch.Tensor] = []
        self._overlaps: list[np.ndarray] = []

    def add(
        self, gradients: Sequence[torch.Tensor | None], labels: Sequence[Sequence[str]], device: torch.device
    ) -> None:
        """Read one step; parameters may be appended between steps, never removed.

        Parameters
        ----------
        gradients : sequence of Tensor or None
            One per parameter, the first axis being the neuron. None was not in the step.
        labels : sequence of sequence of str
            Per parameter the layer of every row.
        device : torch.device
            Where steps are held until a block is full.
        """
        for of_rows in labels[len(self._rows) :]:
            self._flush()  # a block holds the same rows throughout
            names, chosen = np.asarray(of_rows), []
            for layer in dict.fromkeys(of_rows):
                here = np.flatnonzero(names == layer)
                chosen.append(here[np.linspace(0, len(here) - 1, min(self.count, len(here))).astype(int)])
                self.layers += [layer] * len(chosen[-1])
            self._rows.append(torch.from_numpy(np.concatenate(chosen)))
            self._earlier.append(None)
        if not self._rows:
            return
        parts, cosines = [], []
        self._steps += 1
        for i, gradient in enumerate(gradients):
            if gradient is None:
                parts.append(torch.full((len(self._rows[i]),), torch.nan, device=device))
                cosines.append(parts[-1])
                continue
            if self._rows[i].device != gradient.device:
                self._rows[i] = self._rows[i].to(gradient.device)
            rows = gradient.index_select(0, self._rows[i]).flatten(1)
            parts.append(torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32).to(device))
            if self._steps % _PAIR_STEPS == 0:
                now = torch.nn.functional.normalize(rows.float(), dim=1)
                before, self._earlier[i] = self._earlier[i], now
                cosine = torch.full_like(parts[-1], torch.nan) if before is None else torch.linalg.vecdot(now, before)
                cosines.append(torch.where(parts[-1] > 0, cosine.to(device), torch.nan))
        self._running.append(torch.cat(parts))
        if self._steps % _PAIR_STEPS == 0:
            self._cosines.append(torch.cat(cosines) ** 2)
        if len(self._running) == _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._running:
            return
        self._blocks.append(_logarithms(torch.stack(self._running).cpu().numpy()))
        self._running = []
        if self._cosines:
            self._overlaps.append(torch.stack(self._cosines).nanmean(dim=0).cpu().numpy())
            self._cosines = []
        while sum(map(len, self._blocks)) - len(self._blocks[0]) >= self.length:
            del self._blocks[0]

    def series(self) -> np.ndarray:
        """The kept logarithms, up to the step read last.

        Returns
        -------
        ndarray of int16, shape (rows, steps)
            `PER_OCTAVE` · log2 of the norm; `NO_GRADIENT` for 0, `UNKNOWN` before a row joined.
        """
        self._flush()
        table = np.full((sum(map(len, self._blocks)), len(self.layers)), UNKNOWN, dtype=np.int16)
        start = 0
        for block in self._blocks:
            table[start : start + len(block), : block.shape[1]] = block
            start += len(block)
        return table.T

    def overlap(self) -> np.ndarray:
        """Mean squared cosine of a row's gradients 16 steps apart, over the last half of the run.

        Returns
        -------
        ndarray of float32, shape (rows,)
            In [0, 1]; NaN if no such pair was seen.
        """
        self._flush()
        total, count = np.zeros(len(self.layers)), np.zeros(len(self.layers))
        for block in self._overlaps[len(self._overlaps) // 2 :]:
            seen = np.isfinite(block)
            total[: len(block)][seen] += block[seen]
            count[: len(block)] += seen
        return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _logarithms(norms: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.round(PER_OCTAVE * np.log2(norms.astype(np.float64)))
    codes = np.where(norms == 0, NO_GRADIENT, np.where(np.isfinite(norms), codes, UNKNOWN))
    return codes.astype(np.int16)
