"""The engine for an NVIDIA GPU (extra ``rotsim[cuda]``): compiles `cuda_walks`, and moves state there and back.

State travels once per chunk. Results agree with the CPU engine's up to the rounding of sums and of fused multiply-adds.
Without a GPU the kernels run in numba's CUDA simulator, where NUMBA_ENABLE_CUDASIM=1 was set before Python started.
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
from rotsim.simulation.engines import cuda_walks as walks
from rotsim.simulation.engines.base import Problem, WeightEngine, drawn_bytes

_COORDINATE_STEPS_PER_CHUNK = 3e10  # a large GPU takes some tenths of a second for them

_WARP = 32  # threads that a GPU runs together
_REGISTERS = 1 << 16  # of 32 bits, of a block
_ROW_BYTES = 1 << 11  # of an eighth of a row of state, at most, if registers are to hold the neuron


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


_cuda: Any = None  # `_on_device` binds it


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


def _simulated() -> bool:
    import numba

    return bool(numba.config.ENABLE_CUDASIM)  # type: ignore[attr-defined]


def _launched(dim: int, dtype: np.dtype[Any]) -> tuple[int, bool]:
    """Threads for a neuron, a power of two, and whether they hold it in their registers."""
    simulated = _simulated()  # the simulator starts a Python thread for each
    threads = max(1 if simulated else _WARP, 1 << (noise.counters(dim) - 1).bit_length())
    if threads * dtype.itemsize <= _ROW_BYTES:
        return threads, True
    return (4 if simulated else 256), False


@cache
def _kernel(optimizer: type[Optimizer], real: str, threads: int, in_registers: bool) -> Any:
    """The compiled kernel for so many threads."""
    import numba

    cuda = _toolkit()
    simulated = _simulated()
    scalar = {
        "_update": optimizer.update, "_angle": squared_angle, "_chord": squared_chord, "_words": noise.random_words,
        "_normals": noise.box_muller, "_counters": noise.counters,
    }  # fmt: skip
    bound: dict[str, Any] = {
        "_cuda": cuda, "_real": getattr(numba, real), "_double": numba.float64, "_threads": threads,
        "_groups": 1 << (threads.bit_length() // 2),
    }  # fmt: skip
    if not simulated:
        scalar = {name: _on_device(function) for name, function in scalar.items()}
        bound["np"] = _numpy()
    bound |= scalar
    parts: dict[str, Callable[..., Any]] = {  # each may call those before it
        "_moved": walks.moved_with_more if optimizer.memory_slots else walks.moved, "_room": walks.room,
        "_block_sums": walks.block_sums, "_total": walks.total, "_factors": walks.factors,
        "_coefficients": walks.coefficients_of, "_recorded": walks.recorded, "_done": walks.done,
    }  # fmt: skip
    for name, part in parts.items():
        bound[name] = cuda.jit(device=True)(specialised(part, part.__name__, bound))
    walk = walks.walk_in_registers if in_registers else walks.walk_in_memory
    # without a limit a thread may take more registers than a block of so many has
    options = {} if simulated else {"max_registers": min(255, _REGISTERS // threads)}
    return cuda.jit(**options)(specialised(walk, f"{walk.__name__}_{optimizer.name}_{real}_{threads}", bound))


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
            count, _rows, dim = neurons.state.shape
            threads, in_registers = _launched(dim, neurons.state.dtype)
            compiled = _kernel(type(problem.optimizer), neurons.state.dtype.name, threads, in_registers)
            last = (steps.first + len(steps.coefficients) - 2) // records.length - records.first
            first = (steps.first - 1) // records.length - records.first
            touched = np.ascontiguousarray(records.sums[:, :, first : last + 1])
            back = [cuda.to_device(array) for array in (neurons.state, neurons.norm_squared, touched)]
            there = [cuda.to_device(array) for array in (neurons.keys, steps.coefficients, neurons.parameters)]
            z = cuda.device_array((1 if in_registers else count, noise.places(dim)), neurons.state.dtype)
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
