"""Compile a kernel once per set of sources and keep it on disk where that is possible."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit


@cache
def _source_digest() -> str:
    """Digest of every source that kernels are built from: numba's cache looks at one file only."""
    package = Path(__file__).resolve().parents[1]
    folders = ("gradients", "optimizers", "simulation")
    files = [package / "noise.py", *(path for name in folders for path in sorted((package / name).glob("*.py")))]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def compiled(function: Callable[..., None], name: str, bound: dict[str, Any], **options: Any) -> Callable[..., None]:
    """`function` as a jitted kernel (compiled at its first call) with the global names in `bound` replaced.

    It gets a name of its own, made of `name` and the sources' digest, so that numba's on-disk cache
    keeps specialisations apart and never serves a stale one.
    """
    full_name = f"{name}_{_source_digest()}"
    scope = {**function.__globals__, **bound}
    special = types.FunctionType(function.__code__, scope, full_name)
    special.__qualname__ = full_name
    options = {"nogil": True, "error_model": "numpy", **options}
    kernel: Callable[..., None]
    try:
        kernel = njit(cache=True, **options)(special)
    except RuntimeError:  # no writable cache directory anywhere: compile in memory
        kernel = njit(**options)(special)
    return kernel
