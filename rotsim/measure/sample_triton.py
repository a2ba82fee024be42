"""`sample.lengths` on a GPU: one Triton kernel for all parameters of a model, a program for each row.

PyTorch would launch some forty kernels for each parameter, and each would pass numbers of twice the size through
memory. Here every number is read once, and once more from the cache. All arithmetic is in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from rotsim.measure import gpu
from rotsim.measure.sample import LENGTHS, Averaged, Look, lengths

_BLOCK = 1 << 9  # weights that a program takes at a time
_KINDS = {torch.float32, torch.float64, torch.bfloat16, torch.float16}

# `_kernel` binds these. A parameter has its dim, and address and both strides of four tensors; and four numbers
tl: Any = None
_real = _block = None


def all_lengths(looks: Iterable[Look]) -> list[torch.Tensor]:
    """`sample.lengths` of each look: of those that Triton can take together, of others while they come."""
    found: list[torch.Tensor | None] = []
    together: dict[tuple[torch.dtype, torch.device], list[tuple[int, Look]]] = {}
    for place, look in enumerate(looks):
        device = look[0].device
        fits = gpu.available(device) and _measures_right(device) and _alike(look)
        found.append(None if fits else lengths(*look))
        if fits:
            together.setdefault((look[0].dtype, look[0].device), []).append((place, look))
    for members in together.values():
        for (place, _), part in zip(members, launched([look for _, look in members]), strict=True):
            found[place] = part
    return [part for part in found if part is not None]


@cache
def _measures_right(device: torch.device) -> bool:
    """Whether the first look on a GPU is that of the CPU; it is checked once, on three small vectors."""
    tensors = torch.randn(4, 3, 40, generator=torch.Generator().manual_seed(0)).square()

    def look(place: torch.device) -> Look:
        before, after, gradient, square = tensors.to(place)
        return before, after, gradient, Averaged(square, decay=0.1, filled=0.5, eps=1e-3, rank=1.0)

    here = lengths(*look(torch.device("cpu")))
    return gpu.agrees("a recorder", device, lambda: launched([look(device)])[0][:-1], here[:-1])


def _alike(look: Look) -> bool:
    """Whether the tensors of a look are of one type that the kernel knows, on one device."""
    tensors = _tensors(look)
    kinds = {(x.dtype, x.device, x.shape) for x in tensors if x is not None}
    return len(kinds) == 1 and look[0].dtype in _KINDS and look[0].numel() > 0


def _tensors(look: Look) -> tuple[torch.Tensor | None, ...]:
    before, after, gradient, scaled = look
    return before, after, gradient, scaled.square


def launched(looks: Sequence[Look]) -> list[torch.Tensor]:
    """The lengths by one launch; looks are of one type on one device."""
    first = looks[0][0]
    jobs, numbers = np.zeros((len(looks), 13), dtype=np.int64), np.zeros((len(looks), 4))
    for i, look in enumerate(looks):
        jobs[i, 0] = look[0].shape[1]
        for k, x in enumerate(_tensors(look)):
            if x is not None:
                jobs[i, 1 + 3 * k : 4 + 3 * k] = x.data_ptr(), *x.stride()
        scaled = look[3]
        numbers[i] = scaled.decay, scaled.filled, scaled.eps, scaled.known
    shapes = [len(look[0]) for look in looks]
    rows = _rows(tuple(shapes), first.device)
    tables = gpu.there([jobs, numbers], first.device)
    found = torch.empty(LENGTHS, len(rows), dtype=torch.float64, device=first.device)
    block = min(_BLOCK, 1 << max(4, (int(jobs[:, 0].max()) - 1).bit_length()))
    with torch.cuda.device_of(first):
        _kernel(first.dtype, block)[(len(rows),)](*tables, rows, found, num_warps=max(1, min(4, block // 128)))
    parts = list(found.split(shapes, dim=1))
    for part, (*_, scaled) in zip(parts, looks, strict=True):
        if isinstance(scaled.rank, torch.Tensor):
            part[-1] = scaled.rank
    return parts


@lru_cache(maxsize=16)
def _rows(counts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Of each row, its parameter and its place there."""
    of = np.repeat(np.arange(len(counts)), counts)
    place = np.concatenate([np.arange(count) for count in counts])
    return torch.from_numpy(np.stack([of, place], axis=1).astype(np.int64)).to(device)


@cache
def _kernel(dtype: torch.dtype, block: int) -> Any:
    real = getattr(gpu.language(), str(dtype).rpartition(".")[2])
    return gpu.jitted(_measure, gpu.constants(_real=real, _block=block))


def _load(tensor, row, j, dim):  # type: ignore[no-untyped-def]
    """Some numbers of a row in float64; `tensor` has an address, 0 for one that is not there, and two strides."""
    address, down, along = tl.load(tensor), tl.load(tensor + 1), tl.load(tensor + 2)
    places = address.to(tl.pointer_type(_real)) + row * down + j * along
    return tl.load(places, mask=j < tl.where(address != 0, dim, 0), other=0).to(tl.float64)


def _measure(jobs, numbers, rows, found):  # type: ignore[no-untyped-def]
    """`sample.lengths` of one row."""
    n, count = tl.program_id(0), tl.num_programs(0)
    of, row = tl.load(rows + 2 * n), tl.load(rows + 2 * n + 1)
    job, given = jobs + 13 * of, numbers + 4 * of
    dim = tl.load(job)
    adam = tl.where(tl.load(job + 10) != 0, dim, 0)
    decay, filled, eps, known = tl.load(given), tl.load(given + 1), tl.load(given + 2), tl.load(given + 3)
    before = tl.zeros((_block,), tl.float64)
    after, moved, square, overlap, radial = before, before, before, before, before
    for start in range(0, dim, _block):
        j = start + tl.arange(0, _block)
        x, y = _load(job + 1, row, j, dim), _load(job + 4, row, j, dim)
        g, v = _load(job + 7, row, j, dim), _load(job + 10, row, j, dim)
        before += x * x
        after += y * y
        moved += (y - x) * (y - x)
        square += g * g
        overlap += x * g
        scaled = (g + decay * x) / tl.where(j < adam, tl.sqrt(v / filled) + eps, 1)
        radial += x * scaled
    norm_before, norm_after = tl.sqrt(tl.sum(before)), tl.sqrt(tl.sum(after))
    apart = tl.zeros((_block,), tl.float64)
    joined = apart
    for start in range(0, dim, _block):
        j = start + tl.arange(0, _block)
        x, y = _load(job + 1, row, j, dim) * norm_after, _load(job + 4, row, j, dim) * norm_before
        apart += (y - x) * (y - x)
        joined += (x + y) * (x + y)
    place = found + n
    tl.store(place, norm_before)
    tl.store(place + count, norm_after)
    tl.store(place + 2 * count, tl.sqrt(tl.sum(moved)))
    tl.store(place + 3 * count, tl.sqrt(tl.sum(apart)))
    tl.store(place + 4 * count, tl.sqrt(tl.sum(joined)))
    tl.store(place + 5 * count, tl.sqrt(tl.sum(square)))
    tl.store(place + 6 * count, tl.sum(overlap))
    tl.store(place + 7 * count, tl.sum(radial) * known)
    tl.store(place + 8 * count, float("nan"))  # the stable rank, which is no business of a row
