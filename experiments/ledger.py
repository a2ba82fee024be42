"""What the trials of a claim cost, kept as they finish, so that a claim that was cut off can be taken up.

The file lies beside the results while a claim runs and goes when its result is written: only a run that was cut off
leaves one. What is taken from it is counted, and provenance says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass
class Ledger:
    """Trials by key. Without a `path` they are counted and not kept.

    A key must say everything that a trial's result depends on, code included.
    """

    path: Path | None = None
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    run: list[float] = field(default_factory=list)  # CPU seconds of each trial that ran
    reused: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            for line in self.path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                    self.kept[entry["key"]] = entry
                except (ValueError, KeyError, TypeError):  # the line that was being written
                    continue

    def find(self, key: str) -> Any | None:
        """The result kept under `key`, which then counts as reused; None if there is none."""
        entry = self.kept.get(key)
        if entry is None:
            return None
        self.reused.append(entry)
        return entry["result"]

    def add(self, key: str, result: Any, seconds: float) -> None:
        """A trial that has just run, and its CPU seconds."""
        self.run.append(seconds)
        if self.path is not None:
            finished = datetime.now(UTC).isoformat(timespec="seconds")
            line = json.dumps({"key": key, "finished": finished, "cpu_seconds": seconds, "result": result})
            with self.path.open("a") as file:
                file.write(line + "\n")

    @property
    def reused_seconds(self) -> float:
        """CPU seconds that the reused trials took when they ran."""
        return float(sum(entry["cpu_seconds"] for entry in self.reused))

    def summary(self) -> dict[str, Any]:
        """For provenance; empty if the claim has no trials."""
        if not self.run and not self.reused:
            return {}
        found: dict[str, Any] = {"run": len(self.run), "cpu_seconds": round(sum(self.run), 1)}
        if self.reused:
            found["reused_from_a_run_cut_off"] = {
                "trials": len(self.reused),
                "cpu_seconds": round(self.reused_seconds, 1),
                "finished_from": min(entry["finished"] for entry in self.reused),
                "finished_to": max(entry["finished"] for entry in self.reused),
            }
        return {"trials": found}

    def close(self) -> None:
        """The result is written: nothing is left to take up."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


_CURRENT: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def opened(path: Path | None) -> Iterator[Ledger]:
    """The ledger of what runs inside; it is closed by whoever has written the result."""
    ledger = Ledger(path)
    token = _CURRENT.set(ledger)
    try:
        yield ledger
    finally:
        _CURRENT.reset(token)


def current() -> Ledger:
    """The open ledger, or one that nobody reads."""
    return _CURRENT.get() or Ledger()
