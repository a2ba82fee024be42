"""Statistics of sampled gradient coordinates, per parameter, in bounded memory.

Lion's rotation and every norm depend on how gradients of successive steps are correlated, Adam's norms also on
how single coordinates burst: those behind a rectifier are 0 in many steps. A few coordinates per parameter are
read at every step into a block of fixed length. A full block is reduced to one autocorrelation per parameter and to
the mean squares of m/√v in its quarters, and forgotten. Gradients of the first steps persist. Those that oppose
their predecessors do so because steps were long, and cease to as the rate falls. So what is kept is averaged in parts
of the run, up to the last step, and over the last half.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rotsim.measure.quantities import ERAS

MOST_SPANS = 8 * ERAS  # sums that are kept of a run, of one block (or a quarter of one) or of more each
_LEAST_SHARE = 0.5  # of a block, from which on an unfinished one counts


class CoordinateSampler:
    """Autocorrelation up to `lags`, and mean square of m/√v, of `count` evenly spread gradient coordinates each.

    Parameters
    ----------
    lags : int
        Longest lag, in steps, ≥ 1. Blocks are 4 · lags steps long.
    count : int
        Coordinates per parameter, ≥ 1 (all, if it has fewer).

    Notes
    -----
    Each coordinate is normalised by its own mean square in the block, so that large ones do not speak for
    all. Its mean is kept: a persistent gradient shows as correlation that does not decay. Coordinates
    with a gradient of zero throughout a block are left out, blocks with a value that is not finite too.

    m and v go on from block to block. While they fill up m² is over 1 - β1^{2t}, v over 1 - β2^t: of white noise m²/v
    is then at once as large as ever. Gradients are without their trend, an exponential through both halves of a block,
    which theory follows by itself. Where the step is m alone, v is the mean of the parameter's g², forgotten as m is.
    So large coordinates count more, and no step counts more than another.
    """

    def __init__(self, lags: int, count: int = 64) -> None:
        self.lags, self.count = lags, count
        self.length = 4 * lags
        self._betas: list[tuple[float, ...] | None] = []
        self._places: list[torch.Tensor] = []
        self._block: list[torch.Tensor] = []
        self._averages: torch.Tensor | None = None  # m and v at the end of the last block
        self._filled = 0  # steps in them
        self._blocks, self._quarters = _Spans(), _Spans()
        self._steps = 0

    def begin(self, step: int) -> None:
        """Count steps from those of an earlier recorder on.

        Parameters
        ----------
        step : int
            >= 0.
        """
        self._steps = step

    def add(
        self,
        gradients: Sequence[torch.Tensor | None],
        shapes: Sequence[torch.Size],
        betas: Sequence[tuple[float, ...] | None],
        device: torch.device,
    ) -> None:
        """Read one step; parameters may be appended between steps, never removed.

        Parameters
        ----------
        gradients : sequence of Tensor or None
            One per parameter. None was not in the step.
        shapes : sequence of torch.Size
        betas : sequence of (float, float) or None
            Adam's, for the mean square of m/√v. With β2 = 1, as for SGDM, for that of m over those of g.
        device : torch.device
            Where steps are held until a block is full.
        """
        self._betas += betas[len(self._betas) :]
        for shape in shapes[len(self._places) :]:
            places = np.linspace(0, shape.numel() - 1, min(self.count, shape.numel())).astype(np.int64)
            self._places.append(torch.from_numpy(places))
            # a block holds the same parameters throughout
            self._block, self._averages, self._filled = [], None, 0
        parts = []
        for i, gradient in enumerate(gradients):
            if gradient is None:
                parts.append(torch.zeros(len(self._places[i]), dtype=torch.float32, device=device))
                continue
            if self._places[i].device != gradient.device:
                self._places[i] = self._places[i].to(gradient.device)
            dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
            parts.append(dense.reshape(-1)[self._places[i]].to(device, torch.float32))
        self._block.append(torch.cat(parts))
        self._steps += 1
        if len(self._block) == self.length:
            self._averages = self._reduce(self._blocks, self._quarters)
            self._filled += self.length
            self._block = []

    def _reduce(self, blocks: _Spans, quarters: _Spans) -> torch.Tensor:
        """Append what the block holds, and return m and v at its end."""
        block = torch.stack(self._block)
        length = len(block)
        # zero-padded, so that the correlation does not wrap around
        power = torch.fft.rfft(block, n=length + self.lags, dim=0).abs().square()
        products = torch.fft.irfft(power, n=length + self.lags, dim=0)[: self.lags + 1]
        products /= torch.arange(length, length - self.lags - 1, -1, device=block.device)[:, None]
        table = products.cpu().double().numpy()
        ends = self.lags * np.arange(1, length // self.lags + 1)
        ends[-1] = length
        steps, averages = self._square_steps(block, ends)
        correlation = np.full((len(self._places), self.lags + 1), np.nan)
        square_steps = np.full((len(ends), len(self._places), 1), np.nan)
        for i, place in enumerate(self._slices()):
            part, step = table[:, place], steps[:, place]
            if (part[0] > 0).any() and np.isfinite(part).all():
                live = part[:, part[0] > 0]
                correlation[i] = (live / live[0]).mean(axis=1)
                square_steps[:, i, 0] = step.mean(axis=1)
        blocks.add(_Span.of(correlation, self._steps))
        for values, end in zip(square_steps, ends.tolist(), strict=True):
            quarters.add(_Span.of(values, self._steps - length + end))
        return averages

    def _slices(self) -> list[slice]:
        """Where each parameter's coordinates are."""
        bounds = np.cumsum([0, *(len(places) for places in self._places)]).tolist()
        return [slice(*pair) for pair in itertools.pairwise(bounds)]

    def _pace(self, block: torch.Tensor) -> torch.Tensor:
        """Change of the logarithm of every parameter's squared size in a step.

        The trend is that of the median coordinate: one that bursts would give all of them its own.
        """
        half = len(block) // 2
        halves = torch.stack([block[:half].square().mean(0), block[half:].square().mean(0)])
        early, late = halves.cpu().double().numpy()
        alive = (early > 0) & (late > 0) & np.isfinite(early + late)
        change = np.log(np.where(alive, late, 1.0) / np.where(alive, early, 1.0))
        pace = np.zeros(len(change))
        for place in self._slices():
            if alive[place].any():
                pace[place] = np.median(change[place][alive[place]]) / half
        return torch.from_numpy(pace).to(block)

    def _square_steps(self, block: torch.Tensor, ends: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
        """Mean squares of m/√v up to each of `ends`, shape (parts, coordinates), and the last m and v.

        They are 0 where there is no gradient, and NaN without betas.
        """
        pace, least = self._pace(block), torch.finfo(block.dtype).tiny
        block = block * torch.exp(-torch.arange(len(block), device=block.device)[:, None] * pace / 2)
        square = block.square()
        pairs = [pair or (torch.nan, torch.nan) for pair in self._betas]
        for place, (_, beta2) in zip(self._slices(), pairs, strict=True):
            if beta2 == 1:  # the step is m alone
                square[:, place] = square[:, place].mean(dim=1, keepdim=True)
        counts = torch.tensor([len(places) for places in self._places])
        table = torch.tensor([(one, one if two == 1 else two) for one, two in pairs], dtype=block.dtype)
        beta1, beta2 = table.repeat_interleave(counts, dim=0).T.to(block.device)
        m, v = torch.zeros_like(block[:2]) if self._averages is None else self._averages
        total, before, found = torch.zeros_like(m), 0, []
        for t in range(len(block)):
            m, v = torch.lerp(block[t], m, beta1), torch.lerp(square[t], v, beta2)
            filled = self._filled + t + 1
            total += m.square() * (1 - beta2**filled) / (1 - beta1 ** (2 * filled)) / v.clamp(min=least)
            if t + 1 in ends:
                found.append(total / (t + 1 - before))
                total, before = torch.zeros_like(m), t + 1
        ahead = torch.exp(len(block) * pace / 2)
        last = torch.nan_to_num(torch.stack([m * ahead, v * ahead.square()]), 0.0, 0.0, 0.0)
        return torch.stack(found).cpu().double().numpy(), last

    def _so_far(self) -> tuple[_Spans, _Spans]:
        """All that was read, with the unfinished block if it is long enough."""
        if len(self._block) < _LEAST_SHARE * self.length or len(self._block) <= self.lags:
            return self._blocks, self._quarters
        blocks, quarters = self._blocks.copy(), self._quarters.copy()
        self._reduce(blocks, quarters)
        return blocks, quarters

    def autocorrelation(self) -> np.ndarray:
        """Mean over the last half of the blocks, shape (parameters, lags + 1); NaN for a parameter without one."""
        return self._so_far()[0].late(len(self._places), self.lags + 1)

    def square_step(self) -> np.ndarray:
        """E(m/√v)², or E m²/E g², of the measured gradients, shape (parameters,); NaN without betas or a block."""
        return self._so_far()[1].late(len(self._places), 1)[:, 0]

    def eras(self) -> tuple[np.ndarray, np.ndarray]:
        """The autocorrelation era by era.

        Returns
        -------
        steps : ndarray of int, shape (eras,)
            Steps read by the end of each; none before the first block is half full.
        autocorrelation : ndarray, shape (parameters, eras, lags + 1)
        """
        blocks = self._so_far()[0]
        return blocks.grouped(np.array_split(np.arange(len(blocks)), ERAS), len(self._places), self.lags + 1)

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean square of steps part by part: the first quarter of the first block, and at most 15 more.

        Returns
        -------
        steps : ndarray of int, shape (parts,)
            Steps read by the end of each.
        square_step : ndarray, shape (parameters, parts)
        """
        quarters = self._so_far()[1]
        first, *rest = np.split(np.arange(len(quarters)), [1])
        steps, table = quarters.grouped([first, *np.array_split(rest[0], ERAS - 1)], len(self._places), 1)
        return steps, table[..., 0]


class _Spans:
    """Sums over blocks: when there are too many, neighbours become one, and later ones are as long."""

    def __init__(self, spans: Sequence[_Span] = (), per_span: int = 1) -> None:
        self._spans, self._per_span = list(spans), per_span

    def __len__(self) -> int:
        return len(self._spans)

    def copy(self) -> _Spans:
        """Another that holds the same."""
        return _Spans(self._spans, self._per_span)

    def add(self, new: _Span) -> None:
        """Append a block."""
        if self._spans and self._spans[-1].blocks < self._per_span:
            self._spans[-1] = self._spans[-1] + new
            return
        if len(self._spans) == MOST_SPANS:
            self._spans = [one + two for one, two in zip(self._spans[::2], self._spans[1::2], strict=True)]
            self._per_span *= 2
        self._spans.append(new)

    def late(self, parameters: int, columns: int) -> np.ndarray:
        """Mean over the last half."""
        return _means(self._spans[len(self) // 2 :], parameters, columns)

    def grouped(self, parts: Sequence[np.ndarray], parameters: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Ends and means of the spans that each part numbers, those without any left out."""
        chosen = [[self._spans[i] for i in part] for part in parts if len(part)]
        means = [_means(spans, parameters, columns) for spans in chosen]
        table = np.stack(means, axis=1) if means else np.empty((parameters, 0, columns))
        return np.array([spans[-1].end for spans in chosen], dtype=np.int64), table


def _means(spans: Sequence[_Span], parameters: int, columns: int) -> np.ndarray:
    total, count = np.zeros((parameters, columns)), np.zeros(parameters)
    for span in spans:
        total[: len(span.total)] += span.total
        count[: len(span.count)] += span.count
    return np.where(count > 0, total.T / np.maximum(count, 1), np.nan).T


@dataclass(frozen=True, eq=False)
class _Span:
    """Sums over blocks, and of how many they are for each parameter: those with a gradient that is finite."""

    total: np.ndarray
    count: np.ndarray
    blocks: int
    end: int

    @classmethod
    def of(cls, values: np.ndarray, end: int) -> _Span:
        """One block, whose values are NaN where they are not known."""
        seen = np.isfinite(values).all(axis=1)
        return cls(np.where(seen[:, None], values, 0.0).astype(np.float32), seen.astype(int), 1, end)

    def __add__(self, later: _Span) -> _Span:
        total, count = later.total.astype(np.float64), later.count.copy()  # it has no fewer parameters
        total[: len(self.total)] += self.total
        count[: len(self.count)] += self.count
        return _Span(total, count, self.blocks + later.blocks, later.end)
