"""`rotsim trace watch`: a recording while it grows, in the terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console
    from rich.table import Table

    from rotsim.diagnosis import Diagnosis

_LOOK_SECONDS = 0.5  # between two looks at whether the file was saved anew


def _fitting(screen: Console, found: Diagnosis, trace: xr.Dataset, title: str) -> Table:
    """The table with as many layers as the terminal has lines for, at least one."""
    from rotsim.show.trace_tables import watch_table

    most = len(found.layers)
    while True:
        table = watch_table(found, trace, title, most)
        over = len(screen.render_lines(table)) - screen.height
        if not screen.is_terminal or over <= 0 or most <= 1:
            return table
        most = max(1, most - over)


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
                found = diagnose(data)
                view.update(_fitting(screen, found, data, file), refresh=True)
            time.sleep(_LOOK_SECONDS)
