"""Arrays out of a pickle, without running what else it asks for.

A pickle is a program: it names functions and calls them. Here it gets NumPy's arrays, PyTorch's tensors on a CPU,
mappings and lists, and an error at any other name. Each array is made from bytes that are in the file, so a small file
cannot ask for much memory.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from rotsim.errors import DatasetError, shown_error
from rotsim.files import quoted, reason

MOST_BYTES = 1 << 32  # of a file that is read whole
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}


def read_arrays(path: str | os.PathLike[str]) -> list[Any]:
    """All objects that a file of pickles holds, one after the other.

    Parameters
    ----------
    path : str or Path
        Written by ``pickle.dump``, once or several times.

    Returns
    -------
    list
        Mappings, lists, numbers, texts and ndarrays; tensors as ndarrays.

    Raises
    ------
    DatasetError
        If the file is absent, truncated, asks for code or holds arrays of objects.
    """
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise DatasetError(f"{quoted(path)} has more than {MOST_BYTES >> 30} GiB; split it")
        content = Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"{quoted(path)} cannot be read ({reason(error)}); check the path") from None
    stream, found = io.BytesIO(content), []
    try:
        while stream.tell() < len(content):
            start = stream.tell()
            for operation, argument, _ in pickletools.genops(stream):  # a memo of 2**32 entries takes all memory
                if operation.name in _MEMO and int(argument or 0) > len(content):
                    raise DatasetError(f"{quoted(path)} is damaged: it asks for a memo of {argument} entries")
            stream.seek(start)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's, of the storages that its own pickles name
                found.append(_plain(_Arrays(stream).load()))
    except DatasetError:
        raise
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{quoted(path)}: {error}") from None
    except Exception as error:  # what a damaged pickle raises is of many kinds
        raise DatasetError(f"{quoted(path)} is no whole pickle of arrays ({shown_error(error)})") from None
    if not found:
        raise DatasetError(f"{quoted(path)} is empty")
    return found


def _empty(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An array to be filled: its own state says how large it is, and brings as many bytes."""
    return np.empty(0, dtype=np.int8)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """A tensor's numbers; one that repeats a number more often than its storage has numbers is refused."""
    import torch

    if prod(size) > len(storage):
        raise pickle.UnpicklingError("a tensor has more numbers than the file holds of it")
    tensor = torch.empty(0, dtype=storage.dtype).set_(storage, offset, size, stride)
    found: np.ndarray = tensor.double().numpy()
    return found


def _storage(content: bytes) -> Any:
    """As PyTorch reads a tensor's numbers, but numbers alone."""
    import torch

    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): lambda *_: defaultdict(list),
    ("builtins", "list"): list,
    ("builtins", "dict"): dict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, code: text.encode("latin1"),  # how protocol 2 writes bytes
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty for core in ("core", "_core")},
    **{
        (f"numpy.{core}.multiarray", "scalar"): lambda kind, content: np.frombuffer(content, kind)[0]
        for core in ("core", "_core")
    },
    **{
        (f"numpy.{core}.numeric", "_frombuffer"): lambda content, kind, shape, order: np.frombuffer(
            content, kind
        ).reshape(shape, order=order)
        for core in ("core", "_core")
    },
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no array of numbers; nothing in it was run"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to numbers outside the file")


def _plain(value: Any, deepest: int = 8) -> Any:
    """The same with mappings and lists of known kinds alone; arrays must be of numbers."""
    if isinstance(value, Mapping) and deepest:
        return {str(key): _plain(item, deepest - 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and deepest:
        return [_plain(item, deepest - 1) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value
    if value is None or isinstance(value, str | bool | int | float | np.generic):
        return value
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}; numbers, arrays, mappings and lists are read")
