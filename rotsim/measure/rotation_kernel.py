"""`rotate_` compiled, on CPU: one call for all weights of a group, one pass over memory, optimizer's averages included.

PyTorch would take a pass over memory for every operation and some microseconds for every call. Here a row stays in
the cache from its update to its turn. Weights are found by address, which costs a network of small layers
nothing per layer. `rotation_triton` does the same on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numba import carray, types
from numba.extending import intrinsic

from rotsim.compiled import kernel_part, wide_vectors
from rotsim.kernels import compiled, inlined
from rotsim.measure import gpu, rotation_triton
from rotsim.measure.rotation_triton import ROUNDING as ROUNDING
from rotsim.optimizers import AdamW
from rotsim.optimizers.base import N_COEFFICIENTS

_PLAIN = {torch.Tensor, torch.nn.Parameter}  # other kinds may not have their numbers at `data_ptr`
_REAL = {torch.float32: np.float32, torch.float64: np.float64}
_SPREAD = 1 << 16  # elements from which further threads pay
_BLOCK = 2048  # elements to take at a time
_SMALL = 0.25

_FASTMATH = {"contract", "nsz", "reassoc", "arcp"}  # not nnan, ninf: a diverging run must show as NaN

_update = _averages = _restore = _real = None  # what `_kernel` binds


def fits(parameter: torch.Tensor, *others: torch.Tensor) -> bool:
    """True if a kernel can take a parameter, its gradient and averages, on a CPU or a GPU for which Triton compiles.

    They have to be of one shape and precision, with rows one after the other in memory.
    """
    dtype, layout = parameter.dtype, torch.contiguous_format
    if dtype not in _REAL or parameter.layout is not torch.strided:
        return False
    if not parameter.is_contiguous():
        if parameter.ndim != 4:
            return False
        layout = torch.channels_last
    device = parameter.device
    if not (device.type == "cpu" or (gpu.available(device) and _turns_right(device))):
        return False
    return all(
        x.device == device
        and x.dtype == dtype
        and x.shape == parameter.shape
        and type(x) in _PLAIN
        and x.is_contiguous(memory_format=layout)
        for x in (parameter, *others)
    )


@cache
def _turns_right(device: torch.device) -> bool:
    """Whether the first turn on a GPU is that of the CPU; it is checked once, on three small vectors."""
    spec, draw = AdamW(1.0, 0.0), torch.Generator().manual_seed(0)
    start, gradient = torch.randn(2, 3, 40, generator=draw)

    def turned(turn: Callable[..., None], place: torch.device) -> torch.Tensor:
        weights = start.to(place, copy=True)
        state = {"norm": weights.norm(dim=1), "update_norm_squared": torch.zeros(3, device=place), "rotation_step": 0}
        averages = [torch.zeros_like(weights), torch.zeros_like(weights)]
        turn(
            spec.update, [weights], [gradient.to(place)], [averages], [state],
            spec.coefficient_table(np.ones(1), np.ones(1), np.zeros(1)), 0.1,
            per_neuron=True, zero_mean=True, update_norm_decay=0.9,
        )  # fmt: skip
        return weights

    here = turned(turn_, torch.device("cpu"))
    return gpu.agrees("a rotational optimizer", device, lambda: turned(rotation_triton.turn_, device), here)


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
    """Advance `moments` by the gradients `given`, and turn `parameters` by the formula of `rotate_`.

    Parameters
    ----------
    update : callable
        Jitted, ``update(w, m, v, g, c) -> (change, m, v)``, as `rotsim.optimizers` have it.
    parameters, given : sequences of Tensor
        Of one precision, on one device; all that `fits`.
    moments : sequence of sequences of Tensor
        Per parameter at most two, m and v.
    states : sequence of dict
        Per parameter, begun by `rotation_step.begin`.
    coefficients : ndarray, shape (parameters, N_COEFFICIENTS)
        c of each, as ``coefficients`` of the optimizer's spec gives it.
    rotation, per_neuron, zero_mean, update_norm_decay, factors
        As `rotate_` takes them.
    restore : bool
        Take `given` for the weights before the step, to be turned in their place.
    """
    if parameters[0].is_cuda:
        return rotation_triton.turn_(
            update, parameters, given, moments, states, coefficients, rotation, per_neuron=per_neuron,
            zero_mean=zero_mean, update_norm_decay=update_norm_decay, factors=factors, restore=restore,
        )  # fmt: skip
    jobs, numbers = [], np.empty((len(parameters), N_COEFFICIENTS + 2))
    for i, (w, g, averages, state) in enumerate(zip(parameters, given, moments, states, strict=True)):
        state["rotation_step"] = age = state["rotation_step"] + 1
        numbers[i, :-2], numbers[i, -2:] = coefficients[i], (rotation, 1 - update_norm_decay**age)
        rows = len(w) if per_neuron else 1
        tensors = [w, g, *averages, *[None] * (2 - len(averages)), state["norm"], state["update_norm_squared"]]
        tensors.append(None if factors is None else factors[i])
        jobs.append([i, rows, w.numel() // rows, *(0 if x is None else x.data_ptr() for x in tensors)])
    run = partial(_kernel(update, len(moments[0]), restore, _REAL[parameters[0].dtype]), zero_mean, update_norm_decay)
    table = np.array(jobs, dtype=np.int64)
    threads = torch.get_num_threads() if int(table[:, 1] @ table[:, 2]) >= _SPREAD else 1
    if threads == 1:
        run(table, numbers)
    else:
        parts = _shared(table, parameters[0].element_size(), threads)
        list(_pool(threads).map(lambda part: run(part, numbers), parts))
    for parameter in parameters:
        torch.autograd.graph.increment_version(parameter)  # so that a stale graph is noticed, as after any step


def _shared(jobs: np.ndarray, size: int, threads: int) -> list[np.ndarray]:
    """`jobs` in as many parts of about equal work, cut between rows of numbers of `size` bytes."""
    work = jobs[:, 1] * jobs[:, 2]
    piece = -(-int(work.sum()) // threads)
    parts: list[list[np.ndarray]] = [[]]
    room = piece
    for job in jobs:
        done = 0
        while done < job[1]:
            if room <= 0:
                parts.append([])
                room = piece
            rows = min(int(job[1]) - done, max(1, room // int(job[2])))
            cut = job.copy()
            cut[1] = rows
            cut[3:7] += np.where(job[3:7] > 0, done * job[2] * size, 0)
            cut[7:] += np.where(job[7:] > 0, done * size, 0)
            parts[-1].append(cut)
            done, room = done + rows, room - rows * int(job[2])
    return [np.array(part) for part in parts]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "rotate")


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive it


@cache
def _kernel(update: Callable[..., Any], averages: int, restore: bool, real: type) -> Callable[..., None]:
    name = f"{update.__module__.rsplit('.', 1)[-1]}_{averages}_{int(restore)}_{real.__name__}"
    bound: dict[str, Any] = {"_update": update, "_averages": averages, "_restore": restore, "_real": real}
    for part in (_advance, _plan, _write):
        bound[part.__name__] = inlined(part, f"rotate{part.__name__}_{name}", bound, fastmath=_FASTMATH)
    return compiled(_turn, f"rotate_{name}", bound, fastmath=_FASTMATH)


@intrinsic
def _address(typing_context, number):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@kernel_part()
def difference(w, m, v, g, c):  # type: ignore[no-untyped-def]
    """An update for `restore`: what another optimizer has already done, times c[0].

    Parameters
    ----------
    w, m, v, g : float
        One coordinate of the weights after the step, averages, and weights before it; any number.
    c : tuple of float
        Its first entry finite.

    Returns
    -------
    change, m, v : float
    """
    return c[0] * (w - g), m, v


@kernel_part()
def _series(x):  # type: ignore[no-untyped-def]
    """sin x and cos x for |x| < _SMALL, to 4e-15: unlike a call, a vector's worth at a time."""
    y = x * x
    sine = x * (1 - y / 6 * (1 - y / 20 * (1 - y / 42 * (1 - y / 72))))
    return sine, 1 - y / 2 * (1 - y / 12 * (1 - y / 30 * (1 - y / 56 * (1 - y / 90))))


def _advance(w, m, v, g, u, c):  # type: ignore[no-untyped-def]
    """One row through the optimizer; u : its change. Return ‖w‖², ⟨w, u⟩, ‖u‖² and the sums of w and u.

    In float64: what is left of the update across the weights is then known without forming it.
    """
    squared, overlap, total, sum_w, sum_u = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(w.size):
        old_m, old_v = _real(0), _real(0)
        if _averages > 0:
            old_m = m[j]
        if _averages > 1:
            old_v = v[j]
        change, new_m, new_v = _update(w[j], old_m, old_v, g[j], c)
        if _averages > 0:
            m[j] = new_m
        if _averages > 1:
            v[j] = new_v
        u[j] = change
        x, y = np.float64(g[j] if _restore else w[j]), np.float64(change)
        squared += x * x
        overlap += x * y
        total += y * y
        sum_w += x
        sum_u += y
    return squared, overlap, total, sum_w, sum_u


def _write(w, g, u, of_w, of_u, of_one):  # type: ignore[no-untyped-def]
    """The turned row in place of `w`; return its ‖w‖²."""
    after = 0.0
    for j in range(w.size):
        x = of_w * (g[j] if _restore else w[j]) + of_u * u[j] + of_one
        w[j] = x
        after += np.float64(x) * np.float64(x)
    return after


def _plan(sums, zero_mean, decay, dim, norm, power, factor, angle, age):  # type: ignore[no-untyped-def]
    """From the sums of some rows, overwritten, to what each is made of: shares of w, u and one. Advances `power`."""
    tiny = np.finfo(_real).tiny * 1e6
    for r in range(sums.shape[1]):
        squared, overlap, total, sum_w, sum_u = sums[0, r], sums[1, r], sums[2, r], sums[3, r], sums[4, r]
        sum_w, sum_u = zero_mean * sum_w, zero_mean * sum_u
        # off the span of 1 and w, that is off 1 and the centred w; of equal weights nothing is left when centred
        mean_w = sum_w / dim
        overlap -= mean_w * sum_u
        along = overlap / max(squared - mean_w * sum_w, 1e-6 * squared, tiny)
        across = total - along * overlap - sum_u * sum_u / dim
        across = across if across > ROUNDING * total else 0.0
        power[r] = decay * power[r] + (1 - decay) * across
        sums[0, r] = angle * factor[r] * np.sqrt(across / max(power[r] / age, tiny))
        sums[1, r] = norm[r] / np.sqrt(max(squared, tiny))
        sums[2, r] = norm[r] / np.sqrt(max(across, tiny))
        sums[3, r] = along
        sums[4, r] = along * mean_w - sum_u / dim
    small = sums[0].max() < _SMALL
    for r in range(sums.shape[1]):
        x = sums[0, r]
        sine, cosine = _series(x) if small else (np.sin(x), np.cos(x))
        push = sine * sums[2, r]
        sums[0, r] = cosine * sums[1, r] - push * sums[3, r]
        sums[1, r] = push
        sums[2, r] = push * sums[4, r]


def _turn(zero_mean, decay, jobs, numbers):  # type: ignore[no-untyped-def]
    """jobs : (jobs, 10) of parameter, rows, dim and addresses; numbers : (parameters, 8) of c, angle, 1 - γ^t."""
    wide_vectors()
    longest = _BLOCK
    for i in range(len(jobs)):
        longest = max(longest, jobs[i, 2])
    scratch, numerals, ones = np.empty(longest, _real), np.empty((5, _BLOCK)), np.ones(_BLOCK, _real)
    for i in range(len(jobs)):
        of, rows, dim = jobs[i, 0], jobs[i, 1], jobs[i, 2]
        w = carray(_address(jobs[i, 3]), (rows, dim), _real)
        g = carray(_address(jobs[i, 4]), (rows, dim), _real)
        m = carray(_address(jobs[i, 5]), (rows, dim), _real)
        v = carray(_address(jobs[i, 6]), (rows, dim), _real)
        norm = carray(_address(jobs[i, 7]), (rows,), _real)
        power = carray(_address(jobs[i, 8]), (rows,), _real)
        factor = carray(_address(jobs[i, 9]), (rows,), _real)
        c = numbers[of]
        rotation, age = c[-2], c[-1]
        c = (_real(c[0]), _real(c[1]), _real(c[2]), _real(c[3]), _real(c[4]), _real(c[5]), _real(c[6]))
        height = max(1, _BLOCK // dim)  # rows whose quotients and roots are taken together
        for start in range(0, rows, height):
            stop = min(start + height, rows)
            sums = numerals[:, : stop - start]
            for r in range(start, stop):
                u = scratch[(r - start) * dim : (r - start + 1) * dim]
                found = _advance(w[r], m[r], v[r], g[r], u, c)
                for k in range(5):
                    sums[k, r - start] = found[k]
            own = factor[start:stop] if jobs[i, 9] else ones[: stop - start]
            _plan(sums, zero_mean, decay, dim, norm[start:stop], power[start:stop], own, rotation, age)
            for r in range(start, stop):
                u = scratch[(r - start) * dim : (r - start + 1) * dim]
                shares = sums[:, r - start]
                after = _write(w[r], g[r], u, _real(shares[0]), _real(shares[1]), _real(shares[2]))
                off = norm[r] / np.sqrt(after) if after > 0 else 1.0
                if abs(off - 1) > 2e-7:  # an update nearly along the weights leaves rounding
                    for j in range(dim):
                        w[r, j] *= _real(off)
