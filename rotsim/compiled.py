"""What kernels are made of, without numba.

`kernel_part` tags what kernels may call, which stays plain Python. A `Recipe` is what `rotsim.jit` compiles, at the
first call of what `rotsim.kernels` makes of it. A kernel is named with a digest of all it is made of, since numba's
cache on disk looks at one file only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

#: What kernels may call, and the options that numba compiles it with.
PARTS: dict[Callable[..., Any], dict[str, Any]] = {}
_PACKAGE = Path(__file__).resolve().parent


def interpreted() -> bool:
    """Whether numba was told not to compile: kernels then run as Python does."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0").strip() not in ("", "0")


def kernel_part(**options: Any) -> Callable[[F], F]:
    """Tag a function as one that kernels may call; it stays as it is.

    Parameters
    ----------
    **options
        Of `numba.extending.register_jitable`, such as ``inline`` and ``fastmath``.

    Returns
    -------
    callable
        A decorator.
    """

    def tag(function: F) -> F:
        PARTS[function] = options
        return function

    return tag


def all_kernel_parts(module: dict[str, Any]) -> None:
    """Tag every function that a module defines, given its ``globals()``."""
    for value in list(module.values()):
        if isinstance(value, FunctionType) and value.__module__ == module["__name__"]:
            kernel_part()(value)


@kernel_part(inline="always")
def wide_vectors() -> None:
    """Let LLVM use 512-bit vectors in the calling kernel where the processor has them; in Python nothing.

    For Intel's it prefers 256 bits, against the lower clock of early AVX-512 code; for a loop that is
    arithmetic alone that costs a third.
    """


def specialised(function: Callable[..., Any], name: str, bound: dict[str, Any]) -> Callable[..., Any]:
    """`function` under a new name, with the global names in `bound` replaced."""
    scope = {**function.__globals__, **bound}
    special = FunctionType(function.__code__, scope, name)
    special.__qualname__ = name
    return special


@dataclass(eq=False)
class Recipe:
    """A kernel, or an inlined part of one, before numba has seen it.

    Attributes
    ----------
    function : callable
        As it was written.
    name : str
    bound : dict
        Values of global names of `function`.
    options : dict
        Of `numba.njit`.
    kernel : bool
        Kept on disk; otherwise a part of the kernels that call it.
    interleave : int or None
        Vectors that its loops take at a time; None leaves it to LLVM.
    """

    function: Callable[..., Any]
    name: str
    bound: dict[str, Any]
    options: dict[str, Any]
    kernel: bool
    interleave: int | None = None


def digest(kernel: Recipe) -> str:
    """Of all that a kernel is made of, its sources, options and constants: 12 hexadecimal digits."""
    files, facts = ingredients(kernel)
    text = sha256("\n".join(facts).encode())
    for path in files:
        text.update(_content(path))
    return text.hexdigest()[:12]


def ingredients(kernel: Recipe) -> tuple[list[Path], list[str]]:
    """The files of all functions that a kernel calls, and their options and constants as text, both sorted."""
    files: set[Path] = {_PACKAGE / "compiled.py", _PACKAGE / "jit.py"}
    facts: set[str] = set()
    seen: set[int] = set()

    def visit(name: str, value: Any, used: tuple[str, ...]) -> None:
        if isinstance(value, ModuleType):
            if value.__name__.startswith("rotsim."):
                for attribute in used:
                    if hasattr(value, attribute):
                        visit(attribute, getattr(value, attribute), ())
        elif isinstance(value, Recipe | FunctionType):
            if id(value) not in seen:
                seen.add(id(value))
                follow(value)
        elif isinstance(value, bool | int | float | complex | str | tuple | type | None) or hasattr(value, "dtype"):
            facts.add(f"{name} = {value!r}")

    def follow(value: Recipe | Callable[..., Any]) -> None:
        if isinstance(value, Recipe):
            facts.add(f"{value.name}: {_sorted(value.options)}, {value.interleave}")
            function, bound = value.function, value.bound
        else:
            facts.add(f"{value.__qualname__}: {_sorted(PARTS.get(value, {}))}")
            function, bound = value, {}
        files.add(Path(function.__code__.co_filename))
        names = _names(function.__code__)
        for name in names:
            if name in bound or name in function.__globals__:
                visit(name, bound[name] if name in bound else function.__globals__[name], names)

    follow(kernel)
    return sorted(files), sorted(facts)


def _names(code: CodeType) -> tuple[str, ...]:
    """Global names and attributes that a function and those inside it mention."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return sum(inner, code.co_names)


def _sorted(options: dict[str, Any]) -> list[tuple[str, Any]]:
    """Options in an order that is the same in every process, as that of a set is not."""
    return sorted((key, sorted(value) if isinstance(value, set) else value) for key, value in options.items())


@cache
def _content(path: Path) -> bytes:
    return path.read_bytes()
