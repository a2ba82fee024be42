"""Where theory meets its callers: overflow and endless work are errors of one line, not warnings, NaN or hours."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from rotsim.errors import DatasetError, InvalidInput, NoEquilibrium, shown
from rotsim.kernels import compilation

F = TypeVar("F", bound=Callable[..., Any])

MAX_SECONDS = 15.0  # of processor time that a call may take; what it then begins is not begun
_began: ContextVar[float | None] = ContextVar("_began", default=None)  # when the outermost call of a thread did


class _OutOfTime(Exception):
    """No error of one setting, which a search would pass over."""


class _OutOfRange(InvalidInput):
    """Of a public function inside another, whose own arguments the caller knows."""


def check_time() -> None:
    """Stop a call that has taken too long, where its work has short parts: equilibria, steps of a search or course.

    Only public functions set the clock; inside none of them nothing is stopped. It stands still while numba compiles.
    """
    if (began := _began.get()) is not None and _clock() - began > MAX_SECONDS:
        raise _OutOfTime


def _clock() -> float:
    return time.thread_time() - compilation.seconds


def within_floats(function: F) -> F:
    """A public function that may overflow, find no root, fill memory or take minutes: `InvalidInput` in each case.

    Sizes from 1e-30 to 1e30 are allowed one by one. Where their products are not, a formula fails somewhere inside, or
    a search for a root meets NaN. No warning reaches the caller: results are checked where they are made. One such
    function may call others; the first of them has the clock that all share.
    """

    @wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        if _began.get() is not None:
            check_time()
            return bounded(given, named)
        token = _began.set(_clock())
        try:
            return bounded(given, named)
        except _OutOfRange as error:
            raise InvalidInput(
                f"`{function.__name__}` leaves the range of floating-point numbers at ({_listed(given, named)}); "
                "use values nearer to those of a real training"
            ) from error
        except _OutOfTime:
            raise InvalidInput(
                f"`{function.__name__}` takes more than {MAX_SECONDS:g} s of processor time at "
                f"({_listed(given, named)}); fewer settings or steps, shorter memories, and a gradient without any "
                "take less"
            ) from None
        finally:
            _began.reset(token)

    def bounded(given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return function(*given, **named)
        except (InvalidInput, NoEquilibrium, DatasetError):
            raise
        except (ArithmeticError, ValueError) as error:  # LinAlgError and what solvers raise are ValueErrors
            raise _OutOfRange(f"`{function.__name__}` leaves the range of floating-point numbers") from error
        except MemoryError as error:
            raise InvalidInput(f"`{function.__name__}` needs more memory than there is: {error}") from error

    return checked  # type: ignore[return-value]


def _listed(given: tuple[Any, ...], named: dict[str, Any]) -> str:
    return ", ".join([*map(_brief, given), *(f"{name}={_brief(value)}" for name, value in named.items())])


def _brief(value: Any) -> str:
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) and value.ndim else shown(value)
