"""Where theory meets its callers: arithmetic that leaves the range of floats is an error, not a warning or a NaN."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from rotsim.errors import DatasetError, InvalidInput, NoEquilibrium, shown

F = TypeVar("F", bound=Callable[..., Any])


def within_floats(function: F) -> F:
    """A public function whose arithmetic may overflow, find no root or fill memory: `InvalidInput` in each case.

    Sizes from 1e-30 to 1e30 are allowed one by one. Where their products are not, a formula fails somewhere inside, or
    a search for a root meets NaN. No warning reaches the caller: results are checked where they are made.

    Parameters
    ----------
    function : callable

    Returns
    -------
    callable
        With the same signature and docstring.
    """

    @wraps(function)
    def checked(*given: Any, **named: Any) -> Any:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                return function(*given, **named)
        except (InvalidInput, NoEquilibrium, DatasetError):
            raise
        except (ArithmeticError, ValueError) as error:  # LinAlgError and what solvers raise are ValueErrors
            values = ", ".join([*map(shown, given), *(f"{name}={shown(value)}" for name, value in named.items())])
            raise InvalidInput(
                f"`{function.__name__}` leaves the range of floating-point numbers at ({values}); "
                "use values nearer to those of a real training"
            ) from error
        except MemoryError as error:
            raise InvalidInput(f"`{function.__name__}` needs more memory than there is: {error}") from error

    return checked  # type: ignore[return-value]
