"""What Triton's kernels share: whether they run on a GPU, how they are made of plain functions, how tables travel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from rotsim.compiled import specialised

LARGEST_DIFFERENCE = 1e-5  # of the largest number, by rounding of float32
tl: Any = None  # `language` and `jitted` bind it


@cache
def available(device: torch.device) -> bool:
    """True if Triton compiles for a GPU. It comes with PyTorch on Linux, and needs a C compiler."""
    if device.type != "cuda":
        return False
    try:
        one = torch.zeros(1, device=device)
        with torch.cuda.device(device):
            jitted(_add_one, {})[(1,)](one)
        if one.item() == 1.0:
            return True
        error = "a sum is wrong"
    except Exception as raised:  # what a compiler lacks shows in many ways
        error = _first_line(raised)
    warnings.warn(
        f"rotational optimizers and recorders take a slower way on {device}: Triton does not work there ({error})",
        stacklevel=2,
    )
    return False


def agrees(what: str, device: torch.device, there: Callable[[], torch.Tensor], here: torch.Tensor) -> bool:
    """True if a kernel on a device has the numbers of the CPU, to six digits; else a warning says that it is not used.

    Parameters
    ----------
    what : str
        In words.
    device : torch.device
    there : callable
        Gives the kernel's numbers.
    here : Tensor
        The CPU's.
    """
    try:
        far = float((there().cpu() - here).abs().max() / here.abs().max())
    except Exception as raised:  # whatever a compiler refuses
        fault = f"fails there ({_first_line(raised)})"
    else:
        if far < LARGEST_DIFFERENCE:
            return True
        fault = f"is {far:.1g} off there"
    warnings.warn(f"{what} takes a slower way on {device}: a kernel of Triton {fault}", stacklevel=2)
    return False


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def language() -> Any:
    """`triton.language`."""
    return import_module("triton.language")


def constants(**values: Any) -> dict[str, Any]:
    """Values that kernels know when they are compiled, by global name."""
    return {name: language().constexpr(value) for name, value in values.items()}


def jitted(function: Callable[..., Any], bound: dict[str, Any]) -> Any:
    """A function as Triton compiles it, and so all functions that it calls.

    Parameters
    ----------
    function : callable
        Plain Python: a kernel, or an update of an optimizer.
    bound : dict
        What replaces global names, of the functions that it calls too. ``tl`` and ``np`` are bound besides, the
        latter to what updates use of it.

    Returns
    -------
    triton.JITFunction
    """
    triton, scope = import_module("triton"), {"tl": language(), **bound}
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    for name in function.__code__.co_names:
        value = scope.get(name, function.__globals__.get(name))
        if value is np:
            scope[name] = _numpy()
        elif isinstance(value, FunctionType):
            scope[name] = jitted(value, bound)
        elif isinstance(value, np.generic):  # a constant less a tensor would be a constant to Triton's interpreter
            scope[name] = value.item() if interpreted else language().constexpr(value.item())
    return triton.jit(specialised(function, function.__name__, scope))


@cache
def _numpy() -> ModuleType:
    module = ModuleType("numpy_on_gpu")
    module.__dict__.update(sqrt=jitted(_sqrt, {}), sign=jitted(_sign, {}))
    return module


def _sqrt(x):  # type: ignore[no-untyped-def]
    return tl.sqrt(x)


def _sign(x):  # type: ignore[no-untyped-def]
    return tl.where(x > 0, 1, tl.where(x < 0, -1, x))


def _add_one(place):  # type: ignore[no-untyped-def]
    tl.store(place, tl.load(place) + 1)


def there(tables: Sequence[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Tables of int64 and float64 on a device, in one journey; nobody waits for a GPU."""
    flat = np.concatenate([np.ascontiguousarray(table).view(np.int64).ravel() for table in tables])
    here = torch.from_numpy(flat)
    moved = here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here
    parts = moved.split([table.size for table in tables])
    kinds = [torch.float64 if table.dtype == np.float64 else torch.int64 for table in tables]
    return [part.view(kind) for part, kind in zip(parts, kinds, strict=True)]
