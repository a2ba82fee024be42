"""When a recorder saves: after a few seconds, at intervals, at the end, and when the process is asked to end."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from rotsim.errors import InvalidInput

FIRST_SECONDS = 5.0  # to the first save: what is wrong with a path or a trace shows at once


class Saving:
    """Saves by calling ``save(path)``; a full disk is no reason to stop a training.

    Parameters
    ----------
    path : Path or None
        Nothing is saved without one.
    seconds : float
        Between two saves, > 0: what a process that is killed loses at most, beside the step that runs.
    save : callable
        Raises `OSError` or `InvalidInput`.
    """

    def __init__(self, path: Path | None, seconds: float, save: Callable[[Path], object]) -> None:
        self.path, self.seconds = path, seconds
        self._save = save
        self._due = monotonic() + min(seconds, FIRST_SECONDS)
        self._busy = 0
        self._asked: tuple[int, FrameType | None] | None = None
        self._before: Any = None
        self._watching = False
        self._process = 0  # that watches; what it forks, such as a data loader, has no trace to save

    def now_and_then(self) -> None:
        """Save if it is time to."""
        if self.path is None or monotonic() < self._due:
            return
        self._try("training goes on")
        self._due = monotonic() + self.seconds

    def _try(self, otherwise: str) -> None:
        assert self.path is not None
        try:
            self._save(self.path)
        except (OSError, InvalidInput) as error:  # a full disk, a folder that is gone
            warnings.warn(f"{error}; {otherwise}", stacklevel=2)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block that no signal interrupts: one that arrives is answered at its end."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy and self._asked is not None:
                (number, frame), self._asked = self._asked, None
                self._end(number, frame)

    def watch(self) -> None:
        """Save when the process is asked to end by SIGTERM, then do what was done without a recorder."""
        if self.path is None or self._watching or threading.current_thread() is not threading.main_thread():
            return  # Python lets the main thread alone handle signals
        self._before = signal.getsignal(signal.SIGTERM)
        if self._before is None:  # a handler that is not of Python, and cannot be called or put back
            return
        signal.signal(signal.SIGTERM, self._answer)
        self._watching, self._process = True, os.getpid()

    def unwatch(self) -> None:
        """Give the signal back, unless another handler was set meanwhile: that one may call ours, which passes on."""
        mine = self._watching and threading.current_thread() is threading.main_thread()
        if mine and signal.getsignal(signal.SIGTERM) == self._answer:
            signal.signal(signal.SIGTERM, self._before)
        self._watching = False

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            self._asked = (number, frame)
        else:
            self._end(number, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self._watching and self._process == os.getpid():
            with self.whole():
                self._try("the process ends without it")
        if callable(self._before):
            self._before(number, frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
