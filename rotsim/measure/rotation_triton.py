"""`rotate_` on a GPU: two Triton kernels for all weights of a group, optimizer's averages included.

PyTorch would launch some hundred kernels, which takes longer than what they do for a small network. Here the first
kernel measures every vector, the second turns it. Both compute the update, by the very function of the CPU's kernel, so
that no more than five sums is kept between them. Weights are found by address. Long vectors are cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from rotsim.measure import gpu
from rotsim.optimizers.base import N_COEFFICIENTS

#: Share of a squared update, across the weights, that is no more than rounding.
ROUNDING = 1e-12
_PIECE = 1 << 14  # weights that one program takes
_BLOCK = 1 << 10  # weights that it takes at a time
_SUMS = 5  # of a piece
_LANES = 64  # pieces of a vector that are summed at a time

# `_kernels` binds these. A parameter has 8 addresses and sizes, 11 numbers; a piece has 6 numbers
tl: Any = None
_update = _averages = _restore = _real = _block = _piece = _lanes = _tiny = _rounding = None


def turn_(
    update: Callable[..., Any],
    parameters: Sequence[torch.Tensor],
    given: Sequence[torch.Tensor],
    moments: Sequence[Sequence[torch.Tensor]],
    states: Sequence[dict[str, Any]],
    coefficients: np.ndarray,
    rotation: float,
    *,
    per_neuron: bool,
    zero_mean: bool,
    update_norm_decay: float,
    factors: Sequence[torch.Tensor] | None = None,
    restore: bool = False,
) -> None:
    """As `rotation_kernel.turn_`, of weights on one GPU."""
    device, dtype = parameters[0].device, parameters[0].dtype
    rows = [len(p) if per_neuron else 1 for p in parameters]
    dims = [p.numel() // count for p, count in zip(parameters, rows, strict=True)]
    pieces = _pieces(tuple(zip(rows, dims, strict=True)), device)
    jobs = np.zeros((len(parameters), 8), dtype=np.int64)
    numbers = np.empty((len(parameters), N_COEFFICIENTS + 4))
    for i, (w, g, averages, state) in enumerate(zip(parameters, given, moments, states, strict=True)):
        state["rotation_step"] = age = state["rotation_step"] + 1
        numbers[i, :-4] = coefficients[i]
        numbers[i, -4:] = rotation, 1 - update_norm_decay**age, update_norm_decay, zero_mean
        tensors = [w, g, *averages, *[None] * (2 - len(averages)), state["norm"], state["update_norm_squared"]]
        tensors.append(None if factors is None else factors[i])
        jobs[i] = [dims[i], *(0 if x is None else x.data_ptr() for x in tensors)]
    jobs_there, numbers_there = gpu.there([jobs, numbers], device)
    sums = torch.empty(len(pieces), _SUMS, dtype=torch.float64, device=device)
    power = torch.empty(sum(rows), dtype=dtype, device=device)
    block = min(_BLOCK, 1 << max(4, (max(dims) - 1).bit_length()))
    measure, turn = _kernels(update, len(moments[0]), restore, dtype, block)
    options = {"num_warps": max(1, min(4, block // 256))}
    with torch.cuda.device_of(parameters[0]):
        measure[(len(pieces),)](jobs_there, numbers_there, pieces, sums, **options)
        turn[(len(pieces),)](jobs_there, numbers_there, pieces, sums, power, **options)
    for parameter, state, part in zip(parameters, states, power.split(rows), strict=True):
        state["update_norm_squared"] = part
        torch.autograd.graph.increment_version(parameter)


@lru_cache(maxsize=64)
def _pieces(shapes: tuple[tuple[int, int], ...], device: torch.device) -> torch.Tensor:
    """Of each piece: parameter, vector in it, first weight; the vector's first piece, its pieces, and its number."""
    found, before, vectors = [], 0, 0
    for index, (rows, dim) in enumerate(shapes):
        each = -(-dim // _PIECE)
        row, part = np.divmod(np.arange(rows * each), each)
        of, count = np.full(rows * each, index), np.full(rows * each, each)
        found.append(np.stack([of, row, part * _PIECE, before + row * each, count, vectors + row], axis=1))
        before, vectors = before + rows * each, vectors + rows
    return torch.from_numpy(np.concatenate(found).astype(np.int64)).to(device)


@cache
def _kernels(
    update: Callable[..., Any], averages: int, restore: bool, dtype: torch.dtype, block: int
) -> tuple[Any, Any]:
    real = getattr(gpu.language(), str(dtype).rpartition(".")[2])
    bound = {"_update": update} | gpu.constants(
        _averages=averages,
        _restore=restore,
        _real=real,
        _block=block,
        _piece=_PIECE,
        _lanes=_LANES,
        _tiny=torch.finfo(dtype).tiny * 1e6,
        _rounding=ROUNDING,
    )
    return gpu.jitted(_measure, bound), gpu.jitted(_turn, bound)


def _address(job, column):  # type: ignore[no-untyped-def]
    return tl.load(job + column).to(tl.pointer_type(_real))


def _coefficients(row):  # type: ignore[no-untyped-def]
    return (
        tl.load(row).to(_real), tl.load(row + 1).to(_real), tl.load(row + 2).to(_real), tl.load(row + 3).to(_real),
        tl.load(row + 4).to(_real), tl.load(row + 5).to(_real), tl.load(row + 6).to(_real),
    )  # fmt: skip


def _read(job, places, inside):  # type: ignore[no-untyped-def]
    """Some weights, averages and gradients; 0 for averages that the optimizer does not have, and outside."""
    w = tl.load(_address(job, 1) + places, mask=inside, other=0)
    g = tl.load(_address(job, 2) + places, mask=inside, other=0)
    m, v = tl.zeros_like(w), tl.zeros_like(w)
    if _averages > 0:
        m = tl.load(_address(job, 3) + places, mask=inside, other=0)
    if _averages > 1:
        v = tl.load(_address(job, 4) + places, mask=inside, other=0)
    return w, m, v, g


def _measure(jobs, numbers, pieces, sums):  # type: ignore[no-untyped-def]
    """Of one piece ‖w‖², ⟨w, u⟩, ‖u‖² and the sums of w and of its update u, in float64."""
    piece = pieces + tl.program_id(0) * 6
    of, row, start = tl.load(piece), tl.load(piece + 1), tl.load(piece + 2)
    job, c = jobs + of * 8, _coefficients(numbers + of * 11)
    dim = tl.load(job)
    squared = tl.zeros((_block,), tl.float64)
    overlap, total, sum_w, sum_u = squared, squared, squared, squared
    for offset in range(0, tl.minimum(dim - start, _piece), _block):
        j = start + offset + tl.arange(0, _block)
        w, m, v, g = _read(job, row * dim + j, j < dim)
        change, m, v = _update(w, m, v, g, c)
        x, y = w.to(tl.float64), tl.where(j < dim, change, 0).to(tl.float64)
        if _restore:
            x = g.to(tl.float64)
        squared += x * x
        overlap += x * y
        total += y * y
        sum_w += x
        sum_u += y
    place = sums + tl.program_id(0) * 5
    tl.store(place, tl.sum(squared))
    tl.store(place + 1, tl.sum(overlap))
    tl.store(place + 2, tl.sum(total))
    tl.store(place + 3, tl.sum(sum_w))
    tl.store(place + 4, tl.sum(sum_u))


def _total(column, count):  # type: ignore[no-untyped-def]
    """The sum over the pieces of a vector."""
    found = tl.zeros((_lanes,), tl.float64)
    for offset in range(0, count, _lanes):
        k = offset + tl.arange(0, _lanes)
        found += tl.load(column + 5 * k, mask=k < count, other=0)
    return tl.sum(found)


def _turn(jobs, numbers, pieces, sums, powers):  # type: ignore[no-untyped-def]
    """Turn one piece, whose averages move: `rotation_kernel._plan`, and what is made of it."""
    piece = pieces + tl.program_id(0) * 6
    of, row, start = tl.load(piece), tl.load(piece + 1), tl.load(piece + 2)
    own, count = sums + 5 * tl.load(piece + 3), tl.load(piece + 4)
    job, given = jobs + of * 8, numbers + of * 11
    dim, c = tl.load(job), _coefficients(given)
    angle, age, decay, zero_mean = tl.load(given + 7), tl.load(given + 8), tl.load(given + 9), tl.load(given + 10)
    squared, overlap, total = _total(own, count), _total(own + 1, count), _total(own + 2, count)
    sum_w, sum_u = zero_mean * _total(own + 3, count), zero_mean * _total(own + 4, count)
    norm = tl.load(_address(job, 5) + row).to(tl.float64)
    factor = tl.load(_address(job, 7) + row, mask=tl.load(job + 7) != 0, other=1).to(tl.float64)
    # off the span of 1 and w, that is off 1 and the centred w; of equal weights nothing is left when centred
    mean_w = sum_w / dim
    overlap -= mean_w * sum_u
    along = overlap / tl.maximum(tl.maximum(squared - mean_w * sum_w, 1e-6 * squared), _tiny)
    across = total - along * overlap - sum_u * sum_u / dim
    across = tl.where(across > _rounding * total, across, 0)
    power = decay * tl.load(_address(job, 6) + row).to(tl.float64) + (1 - decay) * across
    tl.store(powers + tl.load(piece + 5), power, mask=start == 0)
    angle *= factor * tl.sqrt(across / tl.maximum(power / age, _tiny))
    push = tl.sin(angle) * norm / tl.sqrt(tl.maximum(across, _tiny))
    of_w = tl.cos(angle) * norm / tl.sqrt(tl.maximum(squared, _tiny)) - push * along
    of_one = push * (along * mean_w - sum_u / dim)
    for offset in range(0, tl.minimum(dim - start, _piece), _block):
        j = start + offset + tl.arange(0, _block)
        places = row * dim + j
        w, m, v, g = _read(job, places, j < dim)
        change, m, v = _update(w, m, v, g, c)
        x = w.to(tl.float64)
        if _restore:
            x = g.to(tl.float64)
        tl.store(_address(job, 1) + places, of_w * x + push * change.to(tl.float64) + of_one, mask=j < dim)
        if _averages > 0:
            tl.store(_address(job, 3) + places, m, mask=j < dim)
        if _averages > 1:
            tl.store(_address(job, 4) + places, v, mask=j < dim)
