"""Finished cells of a sweep in a folder, so that a sweep that was cut off goes on and a larger one adds to it.

A cell is named by a digest of everything that it depends on. Every process appends to a file of its own, a line a
cell: processes on one store do no harm to each other, and a process that is killed loses the line it was writing. The
arrays that `xarray.open_zarr` reads are made of the cells when a sweep ends.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import files
from rotsim.errors import DatasetError, InvalidInput, shown

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 1
_MARK, _CELLS = "rotsim-sweep.json", "cells"


class Store:
    """A folder of finished cells.

    Parameters
    ----------
    path : path
        New, empty, or the store of an earlier sweep of the same kind.
    kind : dict
        What all cells have in common: the measure and the optimizer.

    Raises
    ------
    InvalidInput
        If zarr is not installed.
    DatasetError
        If there is something else, or a store of another kind.
    OSError
        If it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], kind: dict[str, Any]) -> None:
        if find_spec("zarr") is None:
            raise InvalidInput('`store` needs zarr: pip install "rotsim[sweep]"')
        self.path = files.resolved(path)
        mark = self.path / _MARK
        wanted = {"schema": SCHEMA, **kind}
        if self.path.exists() and not self.path.is_dir():
            raise DatasetError(f"{files.quoted(self.path)} is no folder; name a new folder, such as sweep.zarr")
        if mark.is_file():
            found = _description(mark)
            if found != wanted:
                raise DatasetError(
                    f"{files.quoted(self.path)} holds another sweep: {_differences(found, wanted)}. Name another store"
                )
        elif self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise DatasetError(f"{files.quoted(self.path)} is not empty and holds no sweep; name a new folder")
        if not mark.is_file():  # the mark comes first, so that no other process takes the folder for foreign
            self.path.mkdir(parents=True, exist_ok=True)
            files.write_atomically(mark, json.dumps(wanted, indent=2) + "\n")
        (self.path / _CELLS).mkdir(exist_ok=True)
        self._own = self.path / _CELLS / f"{os.getpid()}-{uuid.uuid4().hex}.jsonl"

    def finished(self) -> dict[str, dict[str, Any]]:
        """The cells by key. Lines that are no cell are passed over: one was being written when a process ended."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted((self.path / _CELLS).glob("*.jsonl")):
            for _, cell in files.read_lines(path):
                if isinstance(cell, dict) and isinstance(cell.get("key"), str) and _sound(cell.get("values")):
                    found[cell["key"]] = cell
        return found

    def add(self, cells: Iterable[dict[str, Any]]) -> None:
        """Append finished cells, all of them or, on an error, up to some whole line."""
        files.append_lines(self._own, cells)

    def publish(self, result: xr.Dataset) -> None:
        """Put the arrays of `result` in place of earlier ones, for `xarray.open_zarr`; one process at a time."""
        import warnings

        try:
            with files.alone(self.path / _MARK), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zarr's specification has no strings of variable length yet
                for entry in self.path.iterdir():
                    if entry.name not in (_MARK, _CELLS):
                        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                result.to_zarr(self.path, mode="a", consolidated=True)
        except OSError as error:
            raise OSError(
                f"the arrays of {files.quoted(self.path)} cannot be written ({files.reason(error)}); its finished "
                "cells are kept, and the same sweep goes on from them"
            ) from None


def _description(mark: Path) -> Any:
    """What a store says that it holds; None if that is damaged."""
    try:
        return json.loads(mark.read_bytes())
    except ValueError:
        return None


def _sound(values: Any) -> bool:
    """Whether these are arrays by name, each with its dimensions, or nothing."""
    if not isinstance(values, dict):
        return False
    for entry in values.values():
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], list)):
            return False
        try:
            if np.asarray(entry[1]).ndim != len(entry[0]):
                return False
        except ValueError:
            return False
    return True


def _differences(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "its description is damaged"
    names = [name for name in wanted if found.get(name) != wanted[name]]
    return ", ".join(f"{name} {shown(found.get(name))} instead of {shown(wanted[name])}" for name in names)
