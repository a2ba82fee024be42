"""Kernels and the functions they are made of, without numba: that is imported when the first kernel is called.

`kernel_part` tags what kernels may call, which stays plain Python. `compiled` and `inlined` return objects that
`rotsim.jit` compiles at their first call. A kernel is named with a digest of all it is made of, since numba's cache
on disk looks at one file only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

#: What kernels may call, and the options that numba compiles it with.
PARTS: dict[Callable[..., Any], dict[str, Any]] = {}
_PACKAGE = Path(__file__).resolve().parent
_BUILDING = threading.RLock()


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


class Compiled:
    """A function that numba compiles when it is first called, by Python or by a kernel.

    Attributes
    ----------
    function : callable
        As it was written.
    name : str
    bound : dict
        Values of global names of `function`.
    options : dict
        Of `numba.njit`.
    interleave : int or None
        Vectors that its loops take at a time; None leaves it to LLVM.
    kernel : bool
        Kept on disk; otherwise a part of the kernels that call it.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        bound: dict[str, Any],
        options: dict[str, Any],
        *,
        kernel: bool,
        interleave: int | None = None,
    ) -> None:
        self.function, self.name, self.bound, self.options = function, name, bound, options
        self.kernel, self.interleave = kernel, interleave
        self._dispatcher: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it, compiled when it is first called."""
        return (self._dispatcher or self.dispatcher)(*arguments)

    @property
    def dispatcher(self) -> Any:
        """What numba makes of it."""
        with _BUILDING:
            if self._dispatcher is None:
                from rotsim.jit import build

                self._dispatcher = build(self)
        return self._dispatcher

    @property
    def _numba_type_(self) -> Any:
        """How numba takes this object for its dispatcher where a kernel calls it."""
        return self.dispatcher._numba_type_


def inlined(
    function: Callable[..., Any], name: str, bound: dict[str, Any], interleave: int | None = None, **options: Any
) -> Compiled:
    """`function` as part of a kernel that calls it: specialised like `compiled`; its arrays must not overlap.

    Its loops take `interleave` vectors at a time. What LLVM chooses unless told, two or four, can leave a neuron of
    dim 64 without a single pass of the vectorised loop.
    """
    options = {"nogil": True, "error_model": "numpy", "forceinline": True, **options}
    return Compiled(function, name, bound, options, kernel=False, interleave=interleave)


def compiled(function: Callable[..., None], name: str, bound: dict[str, Any], **options: Any) -> Compiled:
    """`function` as a kernel with the global names in `bound` replaced, compiled at its first call."""
    return Compiled(function, name, bound, {"nogil": True, "error_model": "numpy", **options}, kernel=True)


def digest(kernel: Compiled) -> str:
    """Of all that a kernel is made of: its sources, options and constants.

    Parameters
    ----------
    kernel : Compiled

    Returns
    -------
    str
        12 hexadecimal digits.
    """
    files, facts = ingredients(kernel)
    text = sha256("\n".join(facts).encode())
    for path in files:
        text.update(_content(path))
    return text.hexdigest()[:12]


def ingredients(kernel: Compiled) -> tuple[list[Path], list[str]]:
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
        elif isinstance(value, Compiled | FunctionType):
            if id(value) not in seen:
                seen.add(id(value))
                follow(value)
        elif isinstance(value, bool | int | float | complex | str | tuple | type | None) or hasattr(value, "dtype"):
            facts.add(f"{name} = {value!r}")

    def follow(value: Compiled | Callable[..., Any]) -> None:
        if isinstance(value, Compiled):
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
