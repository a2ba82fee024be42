"""Tasks: equal work has one id, is done once, and gives the same bits wherever it is done."""

import doctest
import json
import multiprocessing.pool
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import rotsim
from rotsim import tasks
from rotsim.errors import InvalidInput
from rotsim.optimizers.base import Optimizer
from rotsim.tasks import Ledger, Task, collect, digest, processes, raw

DONE = []  # what was run in this process


@dataclass(frozen=True)
class Square(Task):
    value: float
    note: str = field(default="", compare=False)  # takes no part in the result

    def run(self):
        DONE.append(self.value)
        if self.value < 0:
            raise ValueError("negative")
        return {"square": self.value**2, "parts": (1, np.float64(0.1), np.arange(2))}


@dataclass(frozen=True)
class Walk(Task):
    optimizer: Optimizer
    seed: int

    def run(self):
        data = rotsim.simulate(self.optimizer, dim=16, neurons=2, steps=50, seed=self.seed, threads=1)
        return data["norm"].values


@pytest.fixture(autouse=True)
def nothing_done():
    DONE.clear()


def test_the_example_is_true():
    found = doctest.testmod(tasks)
    assert found.attempted and not found.failed


def test_an_id_depends_on_every_value_and_on_nothing_else():
    values = [1.0, 2.0, np.float64(3.0), 1, True, float("nan")]
    assert len({Square(value).strong_id() for value in values}) == len(values)
    assert Square(1.0, "x").strong_id() == Square(1.0).strong_id() == Square(np.float64(1.0)).strong_id()
    walks = [Walk(rotsim.AdamW(0.01, 0.1), 0), Walk(rotsim.AdamL2(0.01, 0.1), 0), Walk(rotsim.AdamW(0.01, 0.1), 1)]
    walks += [Walk(rotsim.AdamW(0.01, 0.1, betas=(0.9, 0.99)), 0)]
    assert len({walk.strong_id() for walk in walks}) == 4
    assert Square(1.0).strong_id_value()["rotsim"] == rotsim.__version__
    array = np.arange(6.0).reshape(2, 3)
    others = [array.T, array.astype("f4"), array + 1, array.ravel(), array.tolist()]
    assert len({digest(x) for x in (array, *others)}) == 6 and digest(array) == digest(np.asfortranarray(array))
    assert digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1}) and digest(np.sin) != digest("sin")


def test_ids_are_those_of_other_processes_and_of_earlier_versions():
    """Ledgers outlive a process: the digest of given values is a constant."""
    assert raw(rotsim.Lion(0.5, 0.25, (0.5, 0.0))) == {
        "type": "Lion", "lr": 0.5, "weight_decay": 0.25, "betas": [0.5, 0.0]
    }  # fmt: skip
    code = "from tests.test_tasks import *; print(Walk(rotsim.Lion(1e-3, 1.0), 3).strong_id())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == Walk(rotsim.Lion(1e-3, 1.0), 3).strong_id()
    assert digest({"a": 1, "b": [0.1, "x", None]})[:16] == "97449a1e74117079"


@pytest.mark.parametrize("value", [object(), lambda: 0, {1: 2}, {1, 2}, 1j, b"x", np.array([object()])])
def test_what_has_no_raw_values_is_refused(value):
    with pytest.raises(InvalidInput, match="a task's value must be a number, text"):
        digest([value])


def test_only_what_is_missing_is_run(tmp_path):
    path = tmp_path / "x.jsonl"
    first = collect([Square(1.0), Square(2.0)], store=path)
    assert DONE == [1.0, 2.0] and first[1] == {"square": 4.0, "parts": [1, 0.1, [0, 1]]}
    seen = []
    again = collect([Square(v) for v in (2.0, 3.0, 1.0, 3.0)], store=path, progress=lambda *at: seen.append(at))
    assert DONE == [1.0, 2.0, 3.0] and again == [first[1], again[1], first[0], again[1]]
    assert seen == [(2, 3), (3, 3)]
    entry = json.loads(path.read_text().splitlines()[0])
    assert (
        entry["task"]["value"] == 1.0 and entry["task"]["task"] == "Square" and entry["id"] == Square(1.0).strong_id()
    )
    assert collect([], store=path) == [] and collect([Square(5.0)]) == collect([Square(5.0)])


def test_a_failure_keeps_what_was_finished(tmp_path):
    path = tmp_path / "x.jsonl"
    with pytest.raises(ValueError, match="negative"):
        collect([Square(1.0), Square(-1.0), Square(2.0)], store=path)
    collect([Square(1.0), Square(2.0)], store=path)
    assert DONE == [1.0, -1.0, 2.0]


def test_what_a_pool_has_finished_is_kept_at_once(tmp_path):
    """`Pool.map` waits for the last task and would lose all of them; `imap` is taken."""
    path = tmp_path / "x.jsonl"
    with multiprocessing.pool.ThreadPool(2) as pool, pytest.raises(ValueError, match="negative"):
        collect([Square(1.0), Square(2.0), Square(-1.0)], map=pool, store=path)
    DONE.clear()
    collect([Square(1.0), Square(2.0)], store=path)
    assert not DONE


def test_a_ledger_that_was_cut_off_anywhere_goes_on(tmp_path):
    path = tmp_path / "x.jsonl"
    collect([Square(1.0), Square(2.0)], store=path)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in (*range(0, len(whole), 5), first - 1, first, len(whole) - 1):
        path.write_bytes(whole[:length])
        DONE.clear()
        collect([Square(1.0), Square(2.0), Square(3.0)], store=path)
        lost = (length < first - 1) + (length < len(whole) - 1)  # a line that lacks its end alone is whole
        assert len(DONE) == 1 + lost, length
        DONE.clear()
        collect([Square(1.0), Square(2.0), Square(3.0)], store=path)
        assert not DONE, length


@pytest.mark.parametrize("content", [b"lr,wd\n1,2\n", b"\x89HDF\r\n\xff", b'{"rotation": 1}\n', b"[]"])
def test_another_file_is_not_taken_for_a_ledger(content, tmp_path):
    path = tmp_path / "x.nc"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="is no ledger of tasks; name another file"):
        collect([Square(1.0)], store=path)
    assert path.read_bytes() == content and not DONE


class Client:
    """Gives futures, as Dask's does."""

    def map(self, function, work):
        futures = []
        for task in work:
            futures.append(Future())
            futures[-1].set_result(function(task))
        return futures


def test_the_same_bits_wherever_they_run(tmp_path):
    walks = [Walk(rotsim.AdamW(0.01, 0.1), seed) for seed in range(3)]
    expected = collect(walks)
    assert all(isinstance(x, float) for x in expected[0][0]) and expected[0] != expected[1]
    with ThreadPoolExecutor(2) as threads, multiprocessing.pool.ThreadPool(2) as pool, processes(2) as spread:
        for place in (threads, pool, pool.imap, spread, Client()):
            assert collect(walks, map=place) == expected
    collect(walks, store=tmp_path / "x.jsonl")
    assert collect(walks, store=tmp_path / "x.jsonl") == expected


def test_writers_do_not_mix(tmp_path):
    path = tmp_path / "x.jsonl"
    squares = [Square(float(v)) for v in range(40)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda part: collect(squares[part::4], store=path), range(4)))
    DONE.clear()
    collect(squares, store=path)
    assert not DONE and len(path.read_text().splitlines()) == 40


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_writer_waits_for_another_one_in_the_middle_of_a_line(tmp_path):
    import fcntl

    path = tmp_path / "x.jsonl"
    collect([Square(1.0)], store=path)
    with path.open("ab", buffering=0) as other, ThreadPoolExecutor(1) as threads:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"id": "half')
        late = threads.submit(collect, [Square(2.0)], store=path)
        assert not wait([late], timeout=0.2).done
        other.write(b' and half"}\n')
        fcntl.flock(other, fcntl.LOCK_UN)
        late.result(timeout=60)
    assert [len(line) > 0 for line in path.read_text().splitlines()] == [True] * 3


@dataclass(frozen=True)
class Strange(Task):
    def run(self):
        return {1, 2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: collect([Strange()]), "a task's result must be what JSON can hold"),
        (lambda: collect([3]), "`tasks` must be made of rotsim.tasks.Task"),
        (lambda: collect([Square(1.0)], map=3), "`map` must be a function or have a method `map`"),
        (lambda: collect([Square(1.0)], store="/no/such/folder/x"), "does not exist"),
        (lambda: processes(0).__enter__(), "`count` must be"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


def test_the_ledger_counts(tmp_path):
    book = Ledger(tmp_path / "x.jsonl")
    collect([Square(1.0), Square(2.0)], store=book)
    assert len(book.run) == 2 and not book.reused and book.reused_seconds == 0
    other = Ledger(book.path)
    collect([Square(1.0), replace(Square(3.0), note="x")], store=other)
    assert len(other.run) == 1 and other.reused == [book.run[0]]
    collect([Square(1.0), replace(Square(3.0), note="x")], store=other)  # nothing counts twice, nor as another run's
    assert len(other.run) == 1 and other.reused == [book.run[0]]
