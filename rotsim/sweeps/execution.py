"""Cells on one core, on all cores of this machine, or wherever an executor runs them; each in the order it likes.

A cell's numbers depend on the cell alone, so it does not matter where it runs, with which others, or how often.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

from rotsim.errors import InvalidInput, shown
from rotsim.optimizers import Optimizer
from rotsim.sweeps.grid import Recipe
from rotsim.sweeps.measures import Measure, described, settings_of
from rotsim.tasks import cores

LEAD_SECONDS = 0.5  # so long this process computes cells, before it starts others
BATCH_SECONDS = 0.5  # work of the cells that go to a process together
WORTH_PROCESSES_SECONDS = 2.0  # work that must be left to start processes, which takes about as long
MOST_ATTEMPTS = 4  # how often a batch is given out whose worker was lost

Answer = dict[str, Any]
Numbered = tuple[int, Recipe]


def evaluate(measure: Measure, recipes: Sequence[Recipe], attempt: int = 0) -> list[Answer]:
    """The results of some cells: ``values`` as `described` makes them, and a ``reason``, empty where there are values.

    `attempt` tells an executor that keeps results apart.
    """
    takes_gradient = "gradient" in settings_of(measure)
    answers: dict[int, Answer] = {}
    cells: dict[int, tuple[Optimizer, dict[str, Any]]] = {}
    for number, recipe in enumerate(recipes):
        try:
            optimizer, gradient, settings = recipe.specs()
            cells[number] = optimizer, settings | ({"gradient": gradient} if takes_gradient else {})
        except InvalidInput as error:
            answers[number] = {"values": {}, "reason": str(error)}
    together = getattr(measure, "together", None)
    found = dict(zip(cells, together(list(cells.values())), strict=True)) if together and cells else {}
    for number, (optimizer, settings) in cells.items():
        try:
            values = described(found.get(number) or measure(optimizer, **settings))
            answers[number] = {"values": values, "reason": ""}
        except Exception as error:  # the caller's own measure may raise anything, and no cell ends a sweep
            name = "" if isinstance(error, ValueError) and type(error).__module__ == "rotsim.errors" else (
                f"{type(error).__name__}: "
            )  # fmt: skip
            answers[number] = {"values": {}, "reason": name + " ".join(str(error).split())}
    return [answers[number] for number in range(len(recipes))]


def run(
    measure: Measure, cells: Sequence[Numbered], executor: Any, workers: int | None
) -> Iterator[list[tuple[int, Answer]]]:
    """Compute cells and yield them by number, some at a time, as they are finished.

    An executor has `submit` or `map`. Without one, `workers` processes do it, by default one per core.
    """
    processes = min(workers or cores(), max(1, len(cells)))
    done, seconds = 0, 0.0
    if executor is None:
        for here in _lead(measure, cells, alone=processes == 1):
            done, seconds = done + len(here), here[-1][2]  # the time of the latest cell: the first compiles
            yield [(number, answer) for number, answer, _ in here]
        if done == len(cells):
            return
    rest = cells[done:]
    batches = _batches(rest, seconds, processes)
    if executor is None:
        yield from _submitted(measure, batches, _Processes(processes))
    elif hasattr(executor, "submit"):
        yield from _submitted(measure, batches, executor)
    else:
        lazily = getattr(executor, "imap", executor.map)
        answers = lazily(partial(evaluate, measure), [[recipe for _, recipe in batch] for batch in batches])
        for batch, found in zip(batches, answers, strict=True):
            yield [(number, answer) for (number, _), answer in zip(batch, found, strict=True)]


class _Processes:
    """Processes of this machine. A new set is started where one of them was killed."""

    def __init__(self, count: int) -> None:
        self.count = count

    def submit(self, *work: Any) -> Any:
        from loky import get_reusable_executor

        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return get_reusable_executor(self.count, timeout=30, env=one_thread).submit(*work)

    def stop(self) -> None:
        from loky import get_reusable_executor

        get_reusable_executor(self.count).shutdown(wait=False, kill_workers=True)


def _lead(measure: Measure, cells: Sequence[Numbered], alone: bool) -> Iterator[list[tuple[int, Answer, float]]]:
    """Cells computed in this process: all of them where that is quick or there is one core, else the first few."""
    started, done, each = time.perf_counter(), 0, 0.0
    while done < len(cells):
        spent = time.perf_counter() - started
        if not alone and spent > LEAD_SECONDS and done > 1 and each * (len(cells) - done) > WORTH_PROCESSES_SECONDS:
            return
        take = 1 if done < 4 or each == 0 else max(1, min(len(cells) - done, round(BATCH_SECONDS / 4 / each)))
        batch = cells[done : done + take]
        before = time.perf_counter()
        answers = evaluate(measure, [recipe for _, recipe in batch])
        each = (time.perf_counter() - before) / take
        done += take
        yield [(number, answer, each) for (number, _), answer in zip(batch, answers, strict=True)]


def _batches(cells: Sequence[Numbered], seconds: float, workers: int) -> list[Sequence[Numbered]]:
    """Cells that are sent together, of about equal time, and several sets for each worker."""
    fitting = round(BATCH_SECONDS / seconds) if seconds > 0 else 1 + len(cells) // (16 * workers)
    size = max(1, min(fitting, -(-len(cells) // (4 * workers))))
    return [cells[start : start + size] for start in range(0, len(cells), size)]


def _submitted(
    measure: Measure, batches: Iterable[Sequence[Numbered]], executor: Any
) -> Iterator[list[tuple[int, Answer]]]:
    """Answers as they come from an executor; a batch whose worker was lost is given out again."""
    finished: SimpleQueue[Any] = SimpleQueue()
    running: dict[int, tuple[Any, Sequence[Numbered], int]] = {}
    tickets = count()

    def start(batch: Sequence[Numbered], attempt: int) -> None:
        ticket = next(tickets)
        future = executor.submit(evaluate, measure, [recipe for _, recipe in batch], ticket)
        running[ticket] = future, batch, attempt
        future.add_done_callback(lambda _: finished.put(ticket))

    try:
        for batch in batches:
            start(batch, 1)
        while running:
            future, batch, attempt = running.pop(finished.get())
            try:
                answers = future.result()
            except Exception as lost:  # the worker was lost, or its connection: what a cell raises is an answer
                if attempt == MOST_ATTEMPTS:
                    raise InvalidInput(
                        f"`executor` lost a cell {MOST_ATTEMPTS} times ({type(lost).__name__}: {shown(str(lost))}); "
                        "see its own log, or sweep with fewer workers"
                    ) from lost
                start(batch, attempt + 1)
                continue
            yield [(number, answer) for (number, _), answer in zip(batch, answers, strict=True)]
    finally:
        for future, _, _ in running.values():
            with suppress(Exception):
                future.cancel()
        if running and isinstance(executor, _Processes):
            executor.stop()
