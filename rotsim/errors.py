"""Errors that name the value, the rule and the way out, in one line; and the rules that every argument is held to.

A rule takes the argument's name and value, and returns the value as rotsim computes with it. It asks for the type
before it touches the value, so that an object with methods of its own cannot raise anything else.
"""

from __future__ import annotations

import difflib
import inspect
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Name = TypeVar("Name", bound=str)

INT64 = 1 << 63  # whole numbers are below: arrays and kernels count in 64 bits
# Sizes are between these, so that no square of one, nor a product of a few, leaves the range of a float64.
SMALLEST_SIZE, LARGEST_SIZE = 1e-30, 1e30
LONGEST_LAZY_SEQUENCE = 1 << 24  # entries of a sequence that is not in memory yet, such as a range
_LEAST_SIMILARITY = 0.7  # of `difflib`, that a second hint has at least

_NUMBERS = (Real, complex, np.ndarray, np.generic, range)
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 300, 200, 60


class InvalidInput(ValueError):
    """A value outside the range in which rotsim's answers mean something."""


class DatasetError(ValueError):
    """A file that is not a complete rotsim dataset, or not of the expected kind."""


class NoEquilibrium(ValueError):
    """The hyperparameters admit no steady state, so none can be predicted."""


def shown(value: Any) -> str:
    """`value` as an error prints it: one line of bounded length, whatever its own ``repr`` does."""
    try:
        return " ".join(_REPR.repr(value).split())
    except Exception:  # a whole number of too many digits, an object whose repr raises
        return f"a value of type {type(value).__name__}"


def is_a(value: Any, *kinds: type) -> bool:
    """`isinstance` by type alone, which an object cannot answer for itself."""
    return issubclass(type(value), kinds)


def require(condition: bool, name: str, rule: str, value: Any, way_out: str = "") -> None:
    """Raise `InvalidInput` saying "`name` must rule; got value. way_out"."""
    if not condition:
        text = f"`{name}` must {rule}; got {shown(value)}"
        raise InvalidInput(f"{text}. {way_out}" if way_out else text)


def real(
    name: str,
    value: Any,
    rule: str = "be a number from -1e30 to 1e30",
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> float:
    """Return `value` as a float after checking that it is a finite real in [low, high), of at most 1e30 in size."""
    if is_a(value, bool) or not is_a(value, Real):
        raise InvalidInput(f"`{name}` must be a number; got {shown(value)} ({type(value).__name__})")
    try:
        number = float(value)
    except Exception:  # a whole number or fraction beyond the range of a float, a subclass with a __float__ of its own
        raise InvalidInput(f"`{name}` must be a number that a float can hold; got {shown(value)}") from None
    require(math.isfinite(number) and low <= number < high, name, rule, number)
    require(abs(number) <= LARGEST_SIZE, name, f"be at most {LARGEST_SIZE:g} in size", number)
    return number


def positive(name: str, value: Any) -> float:
    """Return `value` as a float after checking that it is > 0, and between 1e-30 and 1e30."""
    number = real(name, value, "be finite and > 0")
    require(number > 0, name, "be finite and > 0", number)
    require(number >= SMALLEST_SIZE, name, f"be at least {SMALLEST_SIZE:g}", number)
    return number


def nonnegative(name: str, value: Any) -> float:
    """Return `value` as a float after checking that it is 0, or between 1e-30 and 1e30."""
    number = real(name, value, "be finite and >= 0", low=0.0)
    require(number == 0 or number >= SMALLEST_SIZE, name, f"be 0 or at least {SMALLEST_SIZE:g}", number)
    return number


def share(name: str, value: Any) -> float:
    """Return `value` as a float after checking that it is in [0, 1)."""
    return real(name, value, "be in [0, 1)", low=0.0, high=1.0)


def integer(name: str, value: Any, *, low: int, high: int = INT64) -> int:
    """Return `value` as an int after checking that it is a whole number in [low, high)."""
    if is_a(value, bool) or not is_a(value, Integral):
        raise InvalidInput(f"`{name}` must be a whole number; got {shown(value)} ({type(value).__name__})")
    try:
        number = int(value)
    except Exception:  # a subclass with an __int__ of its own
        raise InvalidInput(f"`{name}` must be a whole number; got {shown(value)}") from None
    require(number >= low, name, f"be >= {low}", number)
    power = high.bit_length() - 1
    require(number < high, name, f"be < {f'2**{power}' if high == 1 << power and power > 9 else high}", number)
    return number


def flag(name: str, value: Any) -> bool:
    """Return `value` after checking that it is True or False."""
    require(is_a(value, bool), name, "be True or False", value)
    return bool(value)


def text(name: str, value: Any) -> str:
    """Return `value` after checking that it is a string."""
    require(is_a(value, str), name, "be a string", value)
    return str.__str__(value)


def choice(name: str, value: Any, options: Iterable[Name]) -> Name:
    """Return `value` after checking that it is one of `options`; the error names the nearest one."""
    known = list(options)
    if is_a(value, str) and (given := str.__str__(value)) in known:
        return known[known.index(given)]
    quoted = [repr(option) for option in known]
    listed = f"{', '.join(quoted[:-1])} or {quoted[-1]}" if len(known) > 1 else "".join(quoted)
    raise InvalidInput(f"`{name}` must be {listed}; got {shown(value)}{_nearest(value, known)}")


def instance(name: str, value: Any, kind: Any, example: str) -> Any:
    """Return `value` after checking that it is a `kind`, of which `example` is one in words."""
    if not is_a(value, kind):
        raise InvalidInput(f"`{name}` must be {example}; got {shown(value)}")
    return value


def function(name: str, value: Any, signature: str, arguments: int) -> Callable[..., Any]:
    """Return `value` after checking that it can be called with so many `arguments`; `signature` says which."""
    if not callable(value):
        raise InvalidInput(f"`{name}` must be a function {signature}; got {shown(value)} ({type(value).__name__})")
    try:
        inspect.signature(value).bind(*range(arguments))
    except TypeError:
        raise InvalidInput(f"`{name}` must be a function {signature}; {shown(value)} does not take that") from None
    except ValueError:
        pass  # written in C, which may not say what it takes
    return value


def answer(name: str, given: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the caller returns; `InvalidInput` that says what it raised, if it did."""
    try:
        return given(*arguments)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"`{name}` must return; it raised {type(error).__name__}: {shown_error(error)}") from error


def shown_error(error: BaseException) -> str:
    """What an exception of another package says, in one line of bounded length."""
    try:
        return " ".join(str(error).split())[:200] or type(error).__name__
    except Exception:  # one of the caller's, that cannot be printed
        return type(error).__name__


def mapping(name: str, value: Any, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """Return `value` as a dict after checking that it is a mapping with string keys, all among `keys` if given."""
    if not is_a(value, Mapping):
        raise InvalidInput(f"`{name}` must be a mapping; got {shown(value)} ({type(value).__name__})")
    try:
        entries = dict(value)
    except Exception:  # a mapping with methods of its own
        raise InvalidInput(f"`{name}` must be a mapping; got {shown(value)}, whose entries cannot be read") from None
    for key in entries:
        require(is_a(key, str), name, "have strings as keys", key)
    if keys is not None:
        _only(entries, list(keys), f"`{name}`")
    return entries


def sequence(name: str, value: Any, rule: str = "be a sequence") -> list[Any]:
    """Return the entries of a list, tuple, array or other sequence that is no string."""
    if is_a(value, np.ndarray):
        require(value.ndim == 1, name, rule, value)
        _in_memory(name, value)
        return value.tolist()
    require(is_a(value, Sequence) and not is_a(value, str, bytes), name, rule, value)
    _bounded(name, value)
    try:
        return list(value)
    except Exception:  # a sequence with methods of its own
        raise InvalidInput(f"`{name}` must {rule}; got {shown(value)}, whose entries cannot be read") from None


def names(name: str, value: Any, options: Iterable[str]) -> tuple[str, ...]:
    """Return a sequence of names, each one of `options`, without repetition."""
    known = list(options)
    entries = sequence(name, value, f"be a sequence of names among {', '.join(known)}")
    return tuple(dict.fromkeys(choice(f"{name}[{i}]", entry, known) for i, entry in enumerate(entries)))


def array(name: str, value: Any, rule: str) -> np.ndarray:
    """Return `value` as a float64 array after checking that it holds real numbers and nothing else.

    The rule says what it must be, with the shape, for the message. Shape and range are the caller's to check.
    """
    if not _holds_numbers(value):
        raise InvalidInput(f"`{name}` must {rule}; got {shown(value)} ({type(value).__name__})")
    if is_a(value, Sequence):
        _bounded(name, value)
    try:
        found = np.asarray(value)
        _in_memory(name, found)
        kind = found.dtype.kind
        with np.errstate(over="ignore"):  # longer floats become infinite, which the caller refuses
            numbers = found.astype(np.float64, copy=False) if kind in "iuf" else None
    except InvalidInput:
        raise
    except Exception:  # ragged lists, objects with an __array__ of their own, more than memory holds
        raise InvalidInput(f"`{name}` must {rule}; got {shown(value)}, which is no array of numbers") from None
    if numbers is None:
        held = {"O": "objects", "b": "truth values", "c": "complex numbers", "U": "text", "S": "bytes"}
        raise InvalidInput(f"`{name}` must {rule}; got an array of {held.get(kind, found.dtype.name)}: {shown(value)}")
    return numbers


def registered(kind: str, name: Any, table: Mapping[str, T]) -> T:
    """The entry of a registry of `kind` under `name`; the error lists the choices."""
    known = list(table)
    if is_a(name, str) and name in known:
        return table[name]
    raise InvalidInput(f"{kind} {shown(name)} is unknown; choose from {', '.join(known)}{_nearest(name, known)}")


def described(kind: str, description: Any) -> tuple[Any, dict[str, Any]]:
    """The name in the description of a spec, such as ``to_dict`` makes, and its other fields."""
    values = mapping(kind, description)
    if "name" not in values:
        raise InvalidInput(f"`{kind}` must have a 'name' among its fields; got {shown(description)}")
    return values.pop("name"), values


def constructed(model: type[T], values: Mapping[str, Any], what: str) -> T:
    """The dataclass `model` made of `values` by name; `InvalidInput` for names that it lacks or that are missing."""
    known = [field for field in fields(model) if field.init]  # type: ignore[arg-type]
    _only(values, [field.name for field in known], what)
    missing = [field.name for field in known if field.default is MISSING and field.name not in values]
    if missing:
        raise InvalidInput(f"{what} needs a value for {', '.join(missing)}")
    return model(**values)


def _only(entries: Mapping[str, Any], known: list[str], what: str) -> None:
    """Refuse keys that are not known, naming the nearest one."""
    if unknown := [key for key in entries if key not in known]:
        got = f"got {', '.join(map(_shortened, unknown))}"
        raise InvalidInput(f"{what} takes {', '.join(known)}; {got}{_nearest(unknown[0], known)}")


def _shortened(key: str) -> str:
    return key if len(key) <= 40 and key.isprintable() else shown(key)


def _nearest(value: Any, known: Sequence[str]) -> str:
    """A hint at the option that `value` may be a misspelling of, or at two that are near."""
    given = value.lower() if is_a(value, str) and len(value) < 100 else ""
    near = [given] if given in known else difflib.get_close_matches(given, known, 1)
    others = difflib.get_close_matches(given, known, 4, _LEAST_SIMILARITY)[1:] if given not in known else []
    near += [name for name in others if name[0] == given[0]][:1]
    return f". Did you mean {' or '.join(map(repr, near))}?" if near else ""


def _holds_numbers(value: Any, deepest: int = 8) -> bool:
    """Whether NumPy may be asked to read it: numbers and arrays, and lists of such, but no object that only says so.

    Nor masked entries: NumPy would take what is under the mask.
    """
    if is_a(value, list, tuple):
        kinds = set(map(type, value))
        if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
            return False
        nested = deepest > 0 and all(_holds_numbers(x, deepest - 1) for x in value if is_a(x, list, tuple))
        return nested and all(
            issubclass(kind, (*_NUMBERS, list, tuple)) or hasattr(kind, "__array__") for kind in kinds
        )
    if is_a(value, np.ma.MaskedArray):
        return not np.ma.is_masked(value)
    return is_a(value, *_NUMBERS) or hasattr(type(value), "__array__")


def _in_memory(name: str, value: np.ndarray) -> None:
    """Refuse an array that repeats few numbers so often that it would fill memory when something is done with it."""
    whole = 0 not in value.strides or value.size <= LONGEST_LAZY_SEQUENCE
    require(whole, name, f"have at most {LONGEST_LAZY_SEQUENCE} entries unless all are in memory", value.shape)


def _bounded(name: str, value: Sequence[Any]) -> None:
    """Refuse a sequence that would fill memory when it is read; a list or tuple is in memory already."""
    if is_a(value, list, tuple):
        return
    try:
        length = len(value)
    except Exception:  # longer than a machine word, or a __len__ of its own
        length = INT64
    require(length <= LONGEST_LAZY_SEQUENCE, name, f"have at most {LONGEST_LAZY_SEQUENCE} entries", value,
            "Give a NumPy array")  # fmt: skip
