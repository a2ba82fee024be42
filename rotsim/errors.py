"""Errors that name the value, the rule and the way out, in one line."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


class InvalidInput(ValueError):
    """A value outside the range in which rotsim's answers mean something."""


class DatasetError(ValueError):
    """A file that is not a complete rotsim dataset, or not of the expected kind."""


class NoEquilibrium(ValueError):
    """The hyperparameters admit no steady state, so none can be predicted."""


def require(condition: bool, name: str, rule: str, value: Any, way_out: str = "") -> None:
    """Raise `InvalidInput` saying "`name` must rule; got value. way_out"."""
    if not condition:
        text = f"`{name}` must {rule}; got {value!r}"
        raise InvalidInput(f"{text}. {way_out}" if way_out else text)


def real(name: str, value: Any, rule: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a float after checking that it is a finite real in [low, high)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidInput(f"`{name}` must be a number; got {value!r} ({type(value).__name__})")
    number = float(value)
    require(math.isfinite(number) and low <= number < high, name, rule, number)
    return number


def positive(name: str, value: Any) -> float:
    """Return `value` as a float after checking that it is finite and > 0."""
    number = real(name, value, "be finite and > 0")
    require(number > 0, name, "be finite and > 0", number)
    return number


def integer(name: str, value: Any, *, low: int) -> int:
    """Return `value` as an int after checking that it is a whole number >= low."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidInput(f"`{name}` must be a whole number; got {value!r} ({type(value).__name__})")
    number = int(value)
    require(number >= low, name, f"be >= {low}", number)
    return number
