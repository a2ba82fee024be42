"""Statistics of sampled gradient coordinates, per parameter, in bounded memory.

Lion's rotation and every norm depend on how gradients of successive steps are correlated, Adam's norms also on
how single coordinates burst: those behind a rectifier are 0 in many steps. A few coordinates per parameter are
read at every step into a block of fixed length. A full block is reduced to one autocorrelation per parameter and to
the mean square of m/√v, and forgotten. Gradients of the first steps are correlated otherwise than later ones, by enough
to turn a correction of 40 % into none. They are again where a learning rate goes to zero. So the blocks are short, and
averaged era by era, and over the last half. What is left at the end of a run is a block of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rotsim.measure.quantities import ERAS

MOST_SPANS = 8 * ERAS  # sums that are kept of a run, of one block or of more each


class CoordinateSampler:
    """Autocorrelation up to `lags`, and mean square of m/√v, of `count` evenly spread gradient coordinates each.

    Parameters
    ----------
    lags : int
        Longest lag, in steps, ≥ 1. Blocks are 2 · lags steps long; the last one at least 3/4 of that.
    count : int
        Coordinates per parameter, ≥ 1 (all, if it has fewer).
    least : int
        Steps that a block has at least: of fewer the mean square of m/√v is noise.

    Notes
    -----
    Each coordinate is normalised by its own mean square in the block, so that large ones do not speak for
    all. Its mean is kept: a persistent gradient shows as correlation that does not decay. Coordinates
    with a gradient of zero throughout a block are left out, blocks with a value that is not finite too.

    The mean square of m/√v is of gradients without their trend, an exponential through both halves of the block.
    The averages m and v go on from block to block, in proportion to its size. While they fill up from 0, m² is over
    1 - β1^{2t}, v over 1 - β2^t: m²/v of white noise is then at once as large as ever. Where the step is m alone, v is
    of all coordinates together, and forgotten as m is. So large coordinates count more, and large steps do not. A step
    counts with its squared rate, as it turns weights. The first of a warm-up hardly do.
    """

    def __init__(self, lags: int, count: int = 64, least: int = 0) -> None:
        self.lags, self.count = lags, count
        self.length = max(2 * lags, least)
        self.shortest = max(2, 3 * self.length // 4)
        self._betas: list[tuple[float, ...] | None] = []
        self._places: list[torch.Tensor] = []
        self._block: list[torch.Tensor] = []
        self._rates: list[Sequence[float]] = []
        self._averages: _Averages | None = None
        self._spans: list[_Span] = []
        self._rest: _Span | None = None
        self._per_span = 1
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
        rates: Sequence[float],
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
        rates : sequence of float
            Learning rates in force; NaN where they are not known.
        device : torch.device
            Where steps are held until a block is full.
        """
        self._betas += betas[len(self._betas) :]
        for shape in shapes[len(self._places) :]:
            places = np.linspace(0, shape.numel() - 1, min(self.count, shape.numel())).astype(np.int64)
            self._places.append(torch.from_numpy(places))
            self._block, self._rates, self._averages = [], [], None  # a block holds the same parameters throughout
        parts = []
        for i, gradient in enumerate(gradients):
            if gradient is None:
                parts.append(torch.zeros(len(self._places[i]), dtype=torch.float32, device=device))
                continue
            if self._places[i].device != gradient.device:
                self._places[i] = self._places[i].to(gradient.device)
            parts.append(_at(gradient, self._places[i]).to(device, torch.float32))
        self._block.append(torch.cat(parts))
        self._rates.append(rates)
        self._steps += 1
        if len(self._block) == self.length:
            span, self._averages = self._reduced()
            self._block, self._rates = [], []
            self._keep(span)

    def _reduced(self) -> tuple[_Span, _Averages | None]:
        """The block so far, and the averages at its end."""
        block = torch.stack(self._block)
        length = len(block)
        # zero-padded, so that the correlation does not wrap around
        power = torch.fft.rfft(block, n=length + self.lags, dim=0).abs().square()
        products = torch.fft.irfft(power, n=length + self.lags, dim=0)[: self.lags + 1]
        products /= torch.arange(length, length - self.lags - 1, -1, device=block.device)[:, None]
        table = products.cpu().double().numpy()
        half = length // 2
        pace = self._growth(block[:half].square().mean(0), block[half:].square().mean(0)) / half
        steady = block * torch.exp(-(torch.arange(length, device=block.device) - half)[:, None] * pace / 2)
        mean_steps, averages = self._square_steps(steady)
        steps = mean_steps.cpu().double().numpy()
        # the last column is the mean square of m/√v
        result = np.full((len(self._places), self.lags + 2), np.nan, dtype=np.float32)
        start = 0
        for i, places in enumerate(self._places):
            part, step = (values[..., start : start + len(places)] for values in (table, steps))
            start += len(places)
            if (part[0] > 0).any() and np.isfinite(part).all():
                live = part[:, part[0] > 0]
                result[i] = np.append((live / live[0]).mean(axis=1), step.mean())
        seen = np.isfinite(result[:, 0])
        return _Span(np.where(seen[:, None], result, 0.0), seen.astype(int), 1, self._steps), averages

    def _keep(self, new: _Span) -> None:
        """Add a block to the spans; when there are too many, neighbours become one, and later spans are as long."""
        if self._spans and self._spans[-1].blocks < self._per_span:
            self._spans[-1] = self._spans[-1] + new
            return
        if len(self._spans) == MOST_SPANS:
            self._spans = [one + two for one, two in zip(self._spans[::2], self._spans[1::2], strict=True)]
            self._per_span *= 2
        self._spans.append(new)

    def _growth(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Logarithm of what each parameter's mean squares grow by, for all coordinates of one.

        It is no memory: theory follows it by itself. It is that of the median coordinate: one that bursts would give
        all of them its own.
        """
        early, late = torch.stack([before, after]).cpu().double().numpy()
        alive, start = (early > 0) & (late > 0) & np.isfinite(early + late), 0
        change = np.log(np.where(alive, late, 1.0) / np.where(alive, early, 1.0))
        growth = np.zeros(len(change))
        for places in self._places:
            part = slice(start, start + len(places))
            start += len(places)
            if alive[part].any():
                growth[part] = np.median(change[part][alive[part]])
        return torch.from_numpy(growth).to(before)

    def _square_steps(self, block: torch.Tensor) -> tuple[torch.Tensor, _Averages | None]:
        """Mean square of m/√v of every coordinate, or of m alone; 0 where it has no gradient; NaN without betas."""
        square, pairs = block.square(), [pair or (torch.nan, torch.nan) for pair in self._betas]
        start = 0
        for places, (_, forgotten) in zip(self._places, pairs, strict=True):
            part = slice(start, start + len(places))
            start += len(places)
            if forgotten == 1:  # the step is m alone
                square[:, part] = square[:, part].mean(dim=1, keepdim=True)
        counts = torch.tensor([len(places) for places in self._places])
        table = torch.tensor([(one, one if two == 1 else two) for one, two in pairs], dtype=block.dtype)
        beta1, beta2 = table.repeat_interleave(counts, dim=0).T.to(block.device)
        weights = self._weights().repeat_interleave(counts, dim=1).to(block)
        mean, total = block.square().mean(0), torch.zeros_like(block[0])
        m, v, filled = torch.zeros_like(mean), torch.zeros_like(mean), 0
        if self._averages is not None:
            growth = self._growth(self._averages.square, mean)
            m, v = self._averages.m * torch.exp(growth / 2), self._averages.v * torch.exp(growth)
            filled = self._averages.filled
        least = torch.finfo(block.dtype).tiny  # 0/0 where there is no gradient
        for t in range(len(block)):
            m = torch.lerp(block[t], m, beta1)
            v = torch.lerp(square[t], v, beta2)
            filled += 1
            full = (1 - beta2**filled) / (1 - beta1 ** (2 * filled))
            total += weights[t] * full * m.square() / v.clamp(min=least)
        whole = bool((m + v).isfinite().all())  # else the next block begins anew
        return total, _Averages(m, v, mean, filled) if whole else None

    def _weights(self) -> torch.Tensor:
        """What each step of the block counts for each parameter, shape (steps, parameters): they add up to 1."""
        square = torch.nan_to_num(torch.tensor(self._rates, dtype=torch.float64)).square()
        moved = square.sum(0) > 0
        square[:, ~moved] = 1.0
        return square / square.sum(0)

    def autocorrelation(self) -> np.ndarray:
        """Mean over the last half of the blocks, shape (parameters, lags + 1); NaN for a parameter without one."""
        return self._means(self._late())[:, :-1]

    def square_step(self) -> np.ndarray:
        """E(m/√v)², or E m²/E g², of the measured gradients, shape (parameters,); NaN without betas or a block."""
        return self._means(self._late())[:, -1]

    def eras(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same era by era.

        Returns
        -------
        steps : ndarray of int, shape (eras,)
            Steps read by the end of each; none before a block is long enough.
        autocorrelation : ndarray, shape (parameters, eras, lags + 1)
        square_step : ndarray, shape (parameters, eras)
        """
        spans = self._all()
        parts = [part for part in np.array_split(np.arange(len(spans)), ERAS) if len(part)]
        means = [self._means([spans[i] for i in part]) for part in parts]
        table = np.stack(means, axis=1) if means else np.empty((len(self._places), 0, self.lags + 2))
        steps = np.array([spans[part[-1]].end for part in parts], dtype=np.int64)
        return steps, table[..., :-1], table[..., -1]

    def _all(self) -> list[_Span]:
        """All spans, the block that has begun among them once it is long enough."""
        if len(self._block) < self.shortest:
            return self._spans
        if self._rest is None or self._rest.end != self._steps:  # asked for thrice by each saved trace
            self._rest = self._reduced()[0]
        return [*self._spans, self._rest]

    def _late(self) -> list[_Span]:
        spans = self._all()
        return spans[len(spans) // 2 :]

    def _means(self, spans: list[_Span]) -> np.ndarray:
        total, count = np.zeros((len(self._places), self.lags + 2)), np.zeros(len(self._places))
        for span in spans:
            total[: len(span.total)] += span.total
            count[: len(span.count)] += span.count
        return np.where(count > 0, total.T / np.maximum(count, 1), np.nan).T


def _at(gradient: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The coordinates at some places of the flattened gradient."""
    if gradient.layout is not torch.sparse_coo:
        dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
        return dense.reshape(-1)[places]
    # of an embedding the whole would be as large as its table, at every step; here entries that share a place add up
    indices, values = gradient._indices(), gradient._values()
    inner = gradient.shape[len(indices) :].numel()
    rows = torch.zeros(indices.shape[1], dtype=places.dtype, device=places.device)
    for size, index in zip(gradient.shape, indices, strict=False):
        rows = rows * size + index
    there = values.reshape(len(rows), inner)[:, places % inner]
    return torch.where(rows[:, None] == places // inner, there, 0.0).sum(dim=0)


@dataclass(frozen=True, eq=False)
class _Averages:
    """m and v of every coordinate where a block ends, its mean square, and the steps that are in them."""

    m: torch.Tensor
    v: torch.Tensor
    square: torch.Tensor
    filled: int


@dataclass(frozen=True, eq=False)
class _Span:
    """Sums over blocks, and of how many they are for each parameter: those with a gradient that is finite."""

    total: np.ndarray
    count: np.ndarray
    blocks: int
    end: int

    def __add__(self, later: _Span) -> _Span:
        total, count = later.total.astype(np.float64), later.count.copy()  # it has no fewer parameters
        total[: len(self.total)] += self.total
        count[: len(self.count)] += self.count
        return _Span(total, count, self.blocks + later.blocks, later.end)
