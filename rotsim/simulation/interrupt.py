"""Ctrl-C during a walk: finish the chunk, then stop with everything computed so far in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr


class Interrupted(KeyboardInterrupt):
    """A walk stopped by Ctrl-C.

    Attributes
    ----------
    dataset : Dataset
        What `simulate` would have returned for the steps done, with ``keep_state=True``: pass it
        (or a file that `rotsim.save` makes of it) as `resume` to go on bit for bit.
    saved_in : Path or None
        The file it was saved in, if it was.
    """

    saved_in: Path | None = None

    def __init__(self, dataset: xr.Dataset) -> None:
        super().__init__(f"interrupted after {int(dataset.step[-1])} steps")
        self.dataset = dataset


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one interrupts at once.

    A flag instead of the exception, which could strike between the neurons of a chunk and leave
    some a chunk ahead of the others. Only the main thread receives signals; elsewhere it stays unset, as it does
    where Ctrl-C is ignored: a shell starts its background jobs so.
    """
    event = threading.Event()
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield event
        return

    def request(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, request)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
