"""Long work in parts: tasks that say what their result depends on, a ledger of results, and `collect`.

A task's id is a digest of all values that affect its result. What a ledger holds is never computed again, wherever it
was computed; a run that was cut off goes on where it stopped.

>>> from dataclasses import dataclass
>>> import rotsim
>>> @dataclass(frozen=True)
... class Rotation(Task):
...     optimizer: rotsim.SGDM
...     dim: int
...
...     def run(self):
...         return rotsim.equilibrium(self.optimizer, self.dim).rotation
>>> tasks = [Rotation(rotsim.SGDM(lr=0.1, weight_decay=decay), dim=128) for decay in (0.01, 0.04)]
>>> [round(rotation, 4) for rotation in collect(tasks)]  # collect(tasks, map=pool, store="rotations.jsonl")
[0.0324, 0.0649]
"""

from __future__ import annotations

import builtins
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from rotsim.errors import InvalidInput, integer, shown
from rotsim.files import append_lines, check_writable, quoted, read_lines

_BEGIN = b'{"id": "'  # every line of a ledger starts so


class Task:
    """A piece of work. Subclass it as a frozen dataclass whose fields are all that the result depends on.

    Fields may hold None, booleans, numbers, text, NumPy arrays and functions at the top of a module. They may hold
    dataclasses, as optimizers and gradients are, and tuples, lists and mappings of all these.
    """

    def run(self) -> Any:
        """The result: what JSON can hold, and NumPy's arrays and scalars, which come back as lists and numbers."""
        raise NotImplementedError

    def strong_id_value(self) -> Any:
        """All raw values that affect the result.

        Returns
        -------
        dict
            The class, its fields and rotsim's version. A task that depends on more extends it.
        """
        return {"task": type(self).__qualname__, **_fields(self), "rotsim": _version()}

    def strong_id(self) -> str:
        """SHA-256 of `strong_id_value`: equal tasks have equal ids, in every process and on every machine.

        Raises
        ------
        InvalidInput
            If a field holds what has no raw values.
        """
        return digest(self.strong_id_value())


def digest(value: Any) -> str:
    """SHA-256 of raw values, as 64 hexadecimal digits; see `Task` for what they may be.

    Raises
    ------
    InvalidInput
        If it holds anything else.
    """
    return sha256(json.dumps(raw(value), sort_keys=True).encode()).hexdigest()


def raw(value: Any) -> Any:
    """The same as JSON can hold it, without loss but for arrays, of which it has a digest.

    Raises
    ------
    InvalidInput
        If it holds what `Task` does not take.
    """
    if hasattr(value, "tobytes") and hasattr(value, "dtype"):  # NumPy's
        if not value.shape and value.dtype.kind in "biuf":
            return value.item()
        if value.dtype.kind in "biufcSU":
            content = sha256(value.tobytes()).hexdigest()  # in C order, whatever the array's own
            return {"dtype": value.dtype.str, "shape": list(value.shape), "sha256": content}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__qualname__, **{name: raw(item) for name, item in _fields(value).items()}}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: raw(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [raw(item) for item in value]
    name = getattr(value, "__qualname__", "<")
    if callable(value) and "<" not in name:
        return f"{value.__module__}:{name}"
    raise InvalidInput(
        f"a task's value must be a number, text, an array, a dataclass, a function at the top of a module, or a tuple, "
        f"list or mapping of these; got {shown(value)}"
    )


def _fields(value: Any) -> dict[str, Any]:
    """Fields of a dataclass by name, without those that do not take part in comparisons."""
    return {field.name: getattr(value, field.name) for field in fields(value) if field.compare}


@cache
def _version() -> str:
    """As `rotsim.__version__`, which stands above this module."""
    try:
        return version("rotsim")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"


@dataclass(frozen=True)
class Entry:
    """A finished task.

    Attributes
    ----------
    result : object
        As JSON gives it back.
    cpu_seconds : float
        What it took.
    finished : str
        When, UTC.
    """

    result: Any
    cpu_seconds: float
    finished: str


class Store(Protocol):
    """Where `collect` looks for results and leaves them."""

    def find(self, task: Task) -> Entry | None:
        """What is there of a task, or None."""

    def add(self, task: Task, result: Any, cpu_seconds: float) -> Entry:
        """Keep a result."""


class Ledger:
    """Finished tasks by id, in a file of JSON lines or, without a path, in memory.

    A line is appended in one piece when its task is finished. One that was cut off is passed over in reading.

    Parameters
    ----------
    path : str or Path, optional
        Need not be there yet.

    Attributes
    ----------
    run, reused : list of Entry
        Of the tasks that were added, and of those in the file from before that were found, each once.

    Raises
    ------
    InvalidInput
        If the file cannot be written or is not a ledger.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else check_writable(path)
        self.run: list[Entry] = []
        self.reused: list[Entry] = []
        self._entries: dict[str, Entry] = {}
        self._before: set[str] = set()  # what is in the file from before and was not asked for yet
        if self.path is None or not self.path.exists():
            return
        for line, found in read_lines(self.path):
            try:
                self._entries[found["id"]] = Entry(found["result"], float(found["cpu_seconds"]), found["finished"])
            except (ValueError, KeyError, TypeError):
                if not (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
                    raise InvalidInput(f"{quoted(self.path)} is no ledger of tasks; name another file") from None
        self._before = set(self._entries)

    def find(self, task: Task) -> Entry | None:
        """What is there of a task, which counts as reused if it was there before; None if nothing is."""
        key = task.strong_id()
        entry = self._entries.get(key)
        if entry is not None and key in self._before:
            self._before.remove(key)
            self.reused.append(entry)
        return entry

    def add(self, task: Task, result: Any, cpu_seconds: float) -> Entry:
        """Keep a result, in the file too."""
        try:
            text = json.dumps(result, default=_as_json)
        except (TypeError, ValueError):
            raise InvalidInput(f"a task's result must be what JSON can hold; got {shown(result)}") from None
        entry = Entry(json.loads(text), cpu_seconds, datetime.now(UTC).isoformat(timespec="seconds"))
        key = task.strong_id()
        if self.path is not None:
            line = {"id": key, "task": raw(task.strong_id_value()), "finished": entry.finished}
            line |= {"cpu_seconds": cpu_seconds, "result": entry.result}
            append_lines(self.path, [line])
        self._entries[key] = entry
        self.run.append(entry)
        return entry

    @property
    def reused_seconds(self) -> float:
        """CPU seconds that the reused tasks took when they ran."""
        return math.fsum(entry.cpu_seconds for entry in self.reused)


def _as_json(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def collect(
    tasks: Iterable[Task],
    *,
    map: Any = map,
    store: Store | str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> list[Any]:
    """Results of tasks, of which only those are run that the store lacks; each is kept as soon as it is there.

    Parameters
    ----------
    tasks : iterable of Task
        Equal ones are run once.
    map : callable or object with a method ``map``
        As Python's own: an executor of `concurrent.futures`, a `multiprocessing.Pool`, a Dask client. Default: one
        after the other, here.
    store : Store, str or Path, optional
        A file is a `Ledger`. Default: nothing is kept.
    progress : callable
        Called with the number of finished tasks and of all.

    Returns
    -------
    list
        In the order of the tasks. The same whether a result was computed or found, in one process or in many.

    Raises
    ------
    InvalidInput
        If an argument is not of these kinds, or a result is not what JSON can hold.
    """
    wanted = list(tasks)
    if wrong := [task for task in wanted if not isinstance(task, Task)]:
        raise InvalidInput(f"`tasks` must be made of rotsim.tasks.Task; got {shown(wrong[0])}")
    spread = map if callable(map) else getattr(map, "imap", None) or getattr(map, "map", None)  # a pool's own waits
    if not callable(spread):
        raise InvalidInput(f"`map` must be a function or have a method `map`; got {shown(map)}")
    book: Store = Ledger(store) if store is None or isinstance(store, str | os.PathLike) else store
    ids = [task.strong_id() for task in wanted]
    distinct = dict(zip(ids, wanted, strict=True))
    found = {key: entry.result for key, task in distinct.items() if (entry := book.find(task)) is not None}
    missing = {key: task for key, task in distinct.items() if key not in found}
    progress(len(found), len(distinct))
    outcomes = spread(_timed, list(missing.values())) if missing else ()
    for (key, task), outcome in zip(missing.items(), outcomes, strict=True):
        result, seconds = outcome.result() if hasattr(outcome, "result") else outcome  # Dask gives futures
        found[key] = book.add(task, result, seconds).result
        progress(len(found), len(distinct))
    return [found[key] for key in ids]


def _timed(task: Task) -> tuple[Any, float]:
    """A task's result and its CPU seconds."""
    started = time.process_time()
    return task.run(), time.process_time() - started


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes(count: int) -> Iterator[Any]:
    """A ``map`` for `collect` over `count` >= 1 processes of their own; with one process, Python's.

    Raises
    ------
    InvalidInput
        If it is no whole number >= 1.
    """
    if integer("count", count, low=1) == 1:
        yield builtins.map
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # not by loky, which sweeps use: it cannot leave what has not begun
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        yield pool.map
    finally:  # on Ctrl-C too: what has begun is finished, what has not is not begun
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to every process of a terminal; the one that started the others answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
