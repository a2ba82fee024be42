"""`rotsim trace watch`: a recording while it grows, in the terminal."""

from __future__ import annotations

import time
from pathlib import Path

import click

_LOOK_SECONDS = 0.5  # between two looks at whether the file was saved anew
_OTHER_LINES = 8  # of the terminal that the rows of layers do not take


@click.command("watch")
@click.argument("file")
@click.option("--once", is_flag=True, help="Show the file as it is now, and end.")
def trace_watch(file: str, once: bool) -> None:
    """Follow a training that is being recorded: the table changes with every save, until Ctrl-C.

    A recorder saves every minute, or every `save_seconds`. A file that is not there yet is waited for.
    """
    from rich.live import Live

    from rotsim import dataset, files
    from rotsim.diagnosis import diagnose
    from rotsim.show.terminal import console
    from rotsim.show.trace_tables import watch_table

    screen, path = console(), Path(file)
    if once:
        data = dataset.load(file)
        screen.print(watch_table(diagnose(data), data, file))
        return
    with Live(f"waiting for {files.quoted(file)}", console=screen, auto_refresh=False) as view:
        seen = -1
        while True:
            saved = path.stat().st_mtime_ns if path.exists() else -1
            if saved != seen:
                data, seen = dataset.load(file), saved  # a save replaces the file at once, never half of it
                most = max(1, screen.height - _OTHER_LINES) if screen.is_terminal else None
                view.update(watch_table(diagnose(data), data, file, most), refresh=True)
            time.sleep(_LOOK_SECONDS)
