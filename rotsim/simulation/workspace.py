"""The memory that a kernel works in, laid out for the caches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rotsim.gradients import Gradient
from rotsim.noise import CONSTANTS, counters, places
from rotsim.simulation.state import SLOTS

BLOCK = 64  # steps whose norms and angles are computed together, several at a time
TILE = 16  # counters whose words are drawn in one go, and as many lanes of sums: no processor's vectors are longer

_WAY_BYTES = (
    4096  # addresses that so many bytes divide share a set of the first cache, which holds eight or twelve lines
)
_STAGGER_BYTES = 11 * 64  # whole cache lines, so that a vector never lies across two


class Workspace(NamedTuple):
    """What a kernel works in.

    Attributes
    ----------
    rows : ndarray, shape (slots, at least places)
        One neuron's state: as many rows as it has.
    z : ndarray, shape (gradient.scratch(dim),)
        The sampler's.
    words : ndarray of uint32, shape (places/2,)
        Of a step.
    constants : tuple of float32
        `rotsim.noise.CONSTANTS`.
    tiles, halves : int
        Tiles that the counters of a neuron fill, and 1 where half a tile is left. LLVM, which would make slower code of
        a loop that it knows to have one turn, learns neither.
    counters : ndarray of uint32, shape (places/8,)
        0, 1, 2, ...: a vector of them is loaded faster than it is made.
    lanes : tuple of three ndarray, shape (TILE,)
        Sums over the coordinates of one step.
    sums : ndarray of float64, shape (4, BLOCK)
        Of a block of steps.
    """

    rows: np.ndarray
    z: np.ndarray
    words: np.ndarray
    constants: tuple[np.float32, ...]
    tiles: int
    halves: int
    counters: np.ndarray
    lanes: tuple[np.ndarray, ...]
    sums: np.ndarray


def workspace(gradient: Gradient, dim: int, dtype: np.dtype[Any], more: int = 0) -> Workspace:
    """Zeros, for one thread, with rows for weights, two moments, the gradient's memory and `more`.

    Rows are as long as the draws of a step, which may be more than dim: a loop over them fills its vectors.
    The update reads eight places of each row at once. Where dim is a multiple of 4096 those of all rows would meet in
    one set of the cache and push each other out. Every row is therefore longer than it needs to be.
    """
    count, length = SLOTS + gradient.memory_slots + more, gradient.scratch(dim)
    row, z_row, _ = _row_sizes(gradient, dim, dtype)
    room = np.zeros(workspace_bytes(gradient, dim, dtype, more), np.uint8)
    room = room[-room.ctypes.data % _WAY_BYTES :]
    rows, room = room[: count * row], room[count * row :]
    z, words = room[: length * dtype.itemsize], room[z_row : z_row + 2 * places(dim)]
    return Workspace(
        rows.view(dtype).reshape(count, -1),
        z.view(dtype),
        words.view(np.uint32),
        CONSTANTS,
        counters(dim) // TILE,
        counters(dim) % TILE // (TILE // 2),
        np.arange(counters(dim), dtype=np.uint32),
        (np.zeros(TILE, dtype), np.zeros(TILE, dtype), np.zeros(TILE, dtype)),
        np.zeros((4, BLOCK)),
    )


def workspace_bytes(gradient: Gradient, dim: int, dtype: np.dtype[Any], more: int = 0) -> int:
    """Memory that `workspace` takes, but for the sums."""
    row, z_row, words_row = _row_sizes(gradient, dim, dtype)
    return _WAY_BYTES + (SLOTS + gradient.memory_slots + more) * row + z_row + words_row


def _row_sizes(gradient: Gradient, dim: int, dtype: np.dtype[Any]) -> tuple[int, int, int]:
    """Bytes of a row of state, of z and of the words."""
    item = dtype.itemsize
    return _staggered(places(dim) * item), _staggered(gradient.scratch(dim) * item), _staggered(2 * places(dim))


def _staggered(size: int) -> int:
    """The least number of bytes, at least `size`, after which a row begins `_STAGGER_BYTES` further in its set."""
    return size + (_STAGGER_BYTES - size) % _WAY_BYTES
