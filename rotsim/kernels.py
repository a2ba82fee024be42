"""Kernels that numba compiles when they are first called; until then it is not imported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from rotsim.compiled import Recipe

_BUILDING = threading.RLock()


class Compilation(threading.local):
    """What the compilation of kernels has taken of a thread.

    Attributes
    ----------
    seconds : float
        Of processor time, of compilations that have ended.
    depth : int
        Compilations that go on: that of a kernel has those of its parts inside.
    began : float
        Processor time at which the outermost of these began, seconds.
    """

    seconds = 0.0
    depth = 0
    began = 0.0

    def notify(self, event: Any) -> None:
        """What numba calls before and after it compiles."""
        if event.is_start:
            self.began = self.began if self.depth else time.thread_time()
            self.depth += 1
        else:
            self.depth -= 1
            self.seconds += 0.0 if self.depth else time.thread_time() - self.began


compilation = Compilation()


@cache
def _counted() -> None:
    from numba.core import event

    event.Listener.register(Compilation)
    event.register("numba:compile", compilation)


class Compiled(Recipe):
    """A function that numba compiles when it is first called, by Python or by a kernel."""

    _dispatcher: Any = None

    def __call__(self, *arguments: Any) -> Any:
        """Run it, compiled when it is first called."""
        return (self._dispatcher or self.dispatcher)(*arguments)

    @property
    def dispatcher(self) -> Any:
        """What numba makes of it."""
        with _BUILDING:
            if self._dispatcher is None:
                from rotsim.jit import build

                _counted()
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

    Its loops take `interleave` vectors at a time, and are not unrolled. What LLVM chooses unless told, two or four, can
    leave a neuron of dim 64 without a single pass of the vectorised loop.
    """
    options = {"nogil": True, "error_model": "numpy", "forceinline": True, **options}
    return Compiled(function, name, bound, options, kernel=False, interleave=interleave)


def compiled(function: Callable[..., None], name: str, bound: dict[str, Any], **options: Any) -> Compiled:
    """`function` as a kernel with the global names in `bound` replaced, compiled at its first call."""
    return Compiled(function, name, bound, {"nogil": True, "error_model": "numpy", **options}, kernel=True)
