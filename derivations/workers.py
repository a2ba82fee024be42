"""Proofs in processes of their own, on all cores, while the caller does something else.

A worker is `python -m derivations.workers`: it reads names of derivations, a line each, and answers each with a line of
JSON. It imports nothing of the caller's program, so that it starts alike from a script, a notebook or a test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any

import derivations
from derivations import Proof
from rotsim.tasks import cores

#: Derivations that take longest, by `python -m benchmarks.startup proofs`: they are begun first.
LONGEST_FIRST = (
    "adam_l2", "second_moment", "lion_autocorrelated", "ademamix", "muon", "radial", "damped", "autocorrelated",
    "finite_dim", "lion", "nadamw", "adamw", "transient", "cautious", "shapes",
)  # fmt: skip


class Proofs:
    """Proofs under way, from the start of a ``with`` block; at its end the workers are gone.

    Parameters
    ----------
    names : sequence of str
        Names of derivations.
    processes : int, optional
        Workers, >= 1; default one per core.
    progress : callable, optional
        ``progress(proved, of)``, called from other threads.
    """

    def __init__(
        self, names: Sequence[str], processes: int | None = None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.names, self.progress = list(names), progress
        self.processes = max(1, min(len(self.names), processes or cores()))
        self._workers: list[_Worker] = []
        self._lock, self._own = threading.Lock(), threading.local()
        self._ended, self._proved = False, 0

    def __enter__(self) -> Proofs:
        rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
        self._pool = ThreadPoolExecutor(self.processes, "proofs")
        self._found: dict[str, Future[Proof]] = {
            name: self._pool.submit(self._prove, name)
            for name in sorted(self.names, key=lambda name: rank.get(name, len(rank)))
        }
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._ended = True
            for worker in self._workers:
                worker.process.kill()
        self._pool.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def results(self) -> list[Proof]:
        """Wait for all proofs, in the order of `names`; a proof that broke off has one statement, which is false."""
        return [self._found[name].result() for name in self.names]

    def _prove(self, name: str) -> Proof:
        worker = getattr(self._own, "worker", None)
        if worker is None or worker.process.poll() is not None:
            with self._lock:
                if self._ended:
                    return _broken(name, "not begun")
                worker = self._own.worker = _Worker()
                self._workers.append(worker)
        proof = worker.prove(name)
        with self._lock:
            self._proved += 1
            if self.progress is not None and not self._ended:
                self.progress(self._proved, len(self.names))
        return proof


class _Worker:
    """One process; it is not in the terminal's group, so that Ctrl-C reaches the caller alone."""

    def __init__(self) -> None:
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "derivations.workers"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}, start_new_session=True,
        )  # fmt: skip

    def prove(self, name: str) -> Proof:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except OSError:  # a pipe without a process at its end
            answer = ""
        if not answer.endswith("\n"):
            return _broken(name, self._end())
        found: dict[str, Any] = json.loads(answer)
        if "error" in found:
            return _broken(name, found["error"])
        return Proof(name, [(statement, holds) for statement, holds in found["statements"]], found["sources"])

    def _end(self) -> str:
        """How the process came to its end."""
        self.process.kill()
        code = self.process.wait()
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        return f"its process ended with code {code}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with suppress(OSError):  # what was still to be written has no reader
                    pipe.close()


def _broken(name: str, reason: str) -> Proof:
    return Proof(name, [(f"{name}: no proof, {reason}", False)], None)


def main() -> None:
    """Answer names on the standard input with proofs on the standard output, until there are no more."""
    for line in sys.stdin:
        try:
            proof = derivations.prove(line.strip())
            answer: dict[str, Any] = {"statements": proof.statements, "sources": proof.sources}
        except Exception as error:  # whatever sympy raises: the caller says which derivation it was
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
