"""`rotsim explore`: the page with live random walks."""

from __future__ import annotations

import os
import sys

import click

from rotsim.cli.specs import HELP_SETTINGS

DEFAULT_NAME = "rotsim-explore.html"


@click.command(context_settings=HELP_SETTINGS)
@click.option(
    "--output", type=str, default=None, help=f"Write the page here and open nothing.  [default: {DEFAULT_NAME}, opened]"
)
def explore(output: str | None) -> None:
    """Write a page with live random walks beside their predictions, and open it in the browser.

    The page is one HTML file. It needs no network and no server, and runs on a tablet as well. AdamW, Adam+L2, SGDM
    and Lion walk side by side on the same noise as `rotsim simulate`, and the dashed lines are those of
    `rotsim predict`.

    Move a slider: the dashed line goes to its new place at once, and the walk drifts to it. The switches under
    "Break it" take away one assumption each. Its link, picture, numbers and Python call can be saved.

    Example: rotsim explore --output lecture/page.html
    """
    from rotsim.files import check_writable, write_atomically

    target = check_writable(output or DEFAULT_NAME)
    from rotsim.page.assemble import page

    written = write_atomically(target, page())
    click.echo(f"wrote {output or DEFAULT_NAME}")
    if output is None and _has_display():
        import webbrowser

        webbrowser.open(written.as_uri())


def _has_display() -> bool:
    """Whether a browser would have somewhere to show itself."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
