"""The walk on an NVIDIA GPU (extra ``rotsim[cuda]``): one neuron per block, its coordinates dealt to its threads.

Noise, update rules and angles are the very functions of the CPU engine, so the draws come from the same
counters. Results agree with it up to the rounding of sums and of fused multiply-adds. State travels to
the GPU and back once per chunk. Without a GPU the kernel runs in numba's CUDA simulator, where
NUMBA_ENABLE_CUDASIM=1 was set before Python started.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, cast

import numpy as np

from rotsim import noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import specialised
from rotsim.errors import InvalidInput
from rotsim.gradients.base import Gradient, Noise
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.arguments import Kernel, Neurons, Steps, Windows
from rotsim.simulation.engines.base import Problem, WeightEngine, drawn_bytes

_COORDINATE_STEPS_PER_CHUNK = 3e10  # a large GPU takes some tenths of a second for them

# `_kernel` binds these
_cuda = _real = _threads = _groups = _update = _move = _words = _normals = _angle = _chord = _block_sums = None


def _toolkit() -> ModuleType:
    """`numba.cuda`, after checking that it finds a GPU; imported late, since it takes long."""
    try:
        from numba import cuda
    except ImportError:
        raise InvalidInput(
            "`engine='cuda'` needs numba-cuda: pip install 'rotsim[cuda]'. Or use engine='numba'"
        ) from None
    if not cuda.is_available():
        raise InvalidInput(
            "`engine='cuda'` needs an NVIDIA GPU with its driver and toolkit; numba finds none "
            "(pip install 'rotsim[cuda]' brings the toolkit). Use engine='numba'"
        )
    return cuda


def _sum_over_block(sums, partial, me, a, b, c):  # type: ignore[no-untyped-def]
    """Sums of a, b and c over the block's threads, in every thread; two barriers, always the same order."""
    sums[0, me], sums[1, me], sums[2, me] = a, b, c
    _cuda.syncthreads()
    if me < _groups:
        for k in range(3):
            total = sums[k, me]
            for g in range(1, _groups):
                total += sums[k, me + _groups * g]
            partial[k, me] = total
    _cuda.syncthreads()
    a, b, c = partial[0, 0], partial[1, 0], partial[2, 0]
    for g in range(1, _groups):
        a += partial[0, g]
        b += partial[1, g]
        c += partial[2, g]
    return a, b, c


def _moved(w, m, v, more, j, g, c):  # type: ignore[no-untyped-def]
    """The change of one coordinate, whose moments are moved."""
    change, m[j], v[j] = _update(w[j], m[j], v[j], g, c)
    return change


def _moved_with_more(w, m, v, more, j, g, c):  # type: ignore[no-untyped-def]
    """The same for an update that keeps one more average."""
    change, m[j], v[j], more[j] = _update(w[j], m[j], v[j], g, c, more[j])
    return change


def _walk(  # type: ignore[no-untyped-def]
    state, norm_squared, keys, first_step, coefficients, parameters, orthogonal, window, first_window, z, records
):
    """As `walk._walk`, for all neurons; z : (neurons, places) scratch."""
    i, me = _cuda.blockIdx.x, _cuda.threadIdx.x
    sums = _cuda.shared.array((3, _threads), _real)
    partial = _cuda.shared.array((3, _groups), _real)
    w, m, v, more = state[i, 0], state[i, 1], state[i, 2], state[i, state.shape[1] - 1]
    dim = w.size
    count = z.shape[1] // 8
    key0, key1 = keys[i, 0], keys[i, 1]
    scale, before = _real(parameters[i, 0]), _real(norm_squared[i])
    steps = coefficients.shape[0]
    start = 0
    while start < steps:
        record = records[i, :, (first_step + start - 1) // window - first_window]
        stop = start + window - (first_step + start - 1) % window
        stop = stop if stop < steps else steps
        sum_norm, sum_angle, sum_moved = record[0], record[1], record[2]
        for t in range(start, stop):
            overlap = _real(0)
            for q in range(me, count, _threads):
                words = _words(key0, key1, np.uint32(q), np.uint32(first_step + t))
                for k in range(4):
                    z[i, k * count + q], z[i, (4 + k) * count + q] = _normals(words[k])
                for j in range(q, dim, count):
                    overlap += z[i, j] * w[j]
            a, b = scale, _real(0)
            if orthogonal:
                overlap, _, _ = _block_sums(sums, partial, me, overlap, _real(0), _real(0))
                a = scale / np.sqrt(_real(dim) * before)
                b = -a * overlap / before
            c = (
                coefficients[t, 0], coefficients[t, 1], coefficients[t, 2], coefficients[t, 3], coefficients[t, 4],
                coefficients[t, 5], coefficients[t, 6],
            )  # fmt: skip
            after, along, moved = _real(0), _real(0), _real(0)
            for q in range(me, count, _threads):
                for j in range(q, dim, count):
                    old = w[j]
                    change = _move(w, m, v, more, j, a * z[i, j] + b * old, c)
                    new = old + change
                    w[j] = new
                    after += new * new
                    along += old * change
                    moved += change * change
            after, along, moved = _block_sums(sums, partial, me, after, along, moved)
            if me == 0:  # one thread counts in double precision, at which most GPUs are slow
                exact = np.float64(before), np.float64(after), np.float64(along), np.float64(moved)
                sum_norm += exact[1]
                sum_angle += _angle(_chord(exact[0], exact[1], exact[2], exact[3]))
                sum_moved += exact[3]
            before = after
        if me == 0:
            record[0], record[1], record[2] = sum_norm, sum_angle, sum_moved
        start = stop
    if me == 0:
        norm_squared[i] = np.float64(before)


def _sign(x):  # type: ignore[no-untyped-def]
    return x if x == 0 else abs(x) / x


def _fma(a, b, c):  # type: ignore[no-untyped-def]
    return _cuda.fma(a, b, c)


@cache
def _numpy() -> ModuleType:
    """The little of NumPy that device code uses, as numba has it there."""
    module = ModuleType("numpy_on_device")
    module.__dict__.update({name: getattr(np, name) for name in ("uint32", "int32", "float32", "float64")})
    module.__dict__.update(sqrt=math.sqrt, arcsin=math.asin, sign=_toolkit().jit(device=True)(_sign))
    return module


@cache
def _on_device(function: Callable[..., Any]) -> Any:
    """A scalar function of the CPU engine, and those that it calls, for kernels on the GPU."""
    bound: dict[str, Any] = {"np": _numpy()}
    for name in function.__code__.co_names:
        used = function.__globals__.get(name)
        if used is noise.fma:
            bound[name] = _toolkit().jit(device=True)(specialised(_fma, "fma", {"_cuda": _toolkit()}))
        elif isinstance(used, FunctionType):
            bound[name] = _on_device(used)
    return _toolkit().jit(device=True)(specialised(function, function.__name__, bound))


@cache
def _kernel(optimizer: type[Optimizer], real: str) -> tuple[Any, int]:
    """The compiled kernel, and the threads it is launched with."""
    import numba

    cuda = _toolkit()
    simulated = bool(numba.config.ENABLE_CUDASIM)  # type: ignore[attr-defined]
    groups = 2 if simulated else 16  # the simulator starts a Python thread for each
    functions = {
        "_update": optimizer.update, "_angle": squared_angle, "_chord": squared_chord, "_words": noise.random_words,
        "_normals": noise.box_muller,
    }  # fmt: skip
    bound: dict[str, Any] = {"_cuda": cuda, "_real": getattr(numba, real), "_threads": groups**2, "_groups": groups}
    if not simulated:
        functions = {name: _on_device(function) for name, function in functions.items()}
        bound["np"] = _numpy()
    bound |= functions
    move = _moved_with_more if optimizer.memory_slots else _moved
    bound["_move"] = cuda.jit(device=True)(specialised(move, "moved", bound))
    bound["_block_sums"] = cuda.jit(device=True)(specialised(_sum_over_block, "sum_over_block", bound))
    return cuda.jit(specialised(_walk, f"walk_{optimizer.name}_{real}", bound)), groups**2


class Cuda(WeightEngine):
    """The coordinatewise walk under plain noise."""

    name = "cuda"
    first_chunk = 1.0  # each takes its state there and back
    acts_on = "coordinate"
    needs = "an optimizer that acts on coordinates, without cautious decay, under Isotropic or ScaleInvariant gradients"

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        return super().accepts(optimizer, gradient) and gradient.plain_noise and not optimizer.cautious

    def check_device(self) -> None:
        _toolkit()

    def kernel(self, problem: Problem) -> Kernel:
        """All neurons at once, whatever the block."""
        cuda = _toolkit()
        orthogonal = cast(Noise, problem.gradient).scale_invariant

        def walk(_: tuple[int, int], neurons: Neurons, steps: Steps, __: None, records: Windows) -> None:
            compiled, threads = _kernel(type(problem.optimizer), neurons.state.dtype.name)
            count, _rows, dim = neurons.state.shape
            last = (steps.first + len(steps.coefficients) - 2) // records.length - records.first
            first = (steps.first - 1) // records.length - records.first
            touched = np.ascontiguousarray(records.sums[:, :, first : last + 1])
            back = [cuda.to_device(array) for array in (neurons.state, neurons.norm_squared, touched)]
            there = [cuda.to_device(array) for array in (neurons.keys, steps.coefficients, neurons.parameters)]
            z = cuda.device_array((count, noise.places(dim)), neurons.state.dtype)
            with warnings.catch_warnings():  # numba warns, in bold letters, if few neurons leave a GPU idle
                warnings.filterwarnings("ignore", message=".*Grid size")
                launch = compiled[count, threads]
            launch(
                back[0], back[1], there[0], steps.first, there[1], there[2], orthogonal, records.length,
                records.first + first, z, back[2],
            )  # fmt: skip
            for device, host in zip(back, (neurons.state, neurons.norm_squared, touched), strict=True):
                device.copy_to_host(host)
            records.sums[:, :, first : last + 1] = touched

        return walk

    def workspace(self, problem: Problem) -> None:
        return None

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        return drawn_bytes(problem)

    def blocks(self, workers: int) -> int:
        return 1

    def chunk_work(self, workers: int) -> float:
        return _COORDINATE_STEPS_PER_CHUNK
