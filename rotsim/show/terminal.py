"""The terminal: a console that any terminal can show, and tables that fit it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rotsim.show.streams import readable

_STYLE = {"PASS": "green", "FAIL": "bold red", "NOT EQUILIBRATED": "yellow", "UNRESOLVED": "yellow"}
QUANTITY = {"norm": "norm", "rotation": "rotation", "update_rms": "update"}
MIN_WIDTH = 20  # columns; a terminal that says it is narrower is taken for this
_NAME_WIDTH = 12  # columns; names are folded to them before a table gives up its form
_WIDEST_COLUMNS = 10_000  # columns: more than any table takes

#: A number as tables print it.
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def verdict_text(verdict: str) -> str:
    """A verdict in its colour."""
    return f"[{_STYLE.get(verdict, 'white')}]{verdict}[/]"


def plus_minus(value: float, error: float) -> str:
    """Value to the digit its standard error reaches, and the error to one digit: 5.038 ±0.005."""
    if not (np.isfinite(error) and error > 0 and value > 0):
        return f"{value:.5g} ±{error:.1g}"
    digits = int(np.clip(np.floor(np.log10(value)) - np.floor(np.log10(error)) + 1, 2, 7))
    return f"{value:.{digits}g} ±{error:.0e}" if error < 1e-3 else f"{value:.{digits}g} ±{error:.1g}"


class _Readable(Console):
    """A console that spells what its terminal cannot show before it lays out a table, so that columns stay straight."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(readable(text, self.encoding), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command's entry point answers it; rich would exit with the code of a disagreement


def console(stderr: bool = False, **options: Any) -> Console:
    """Where commands print: on any terminal, of at least `MIN_WIDTH` columns.

    Parameters
    ----------
    stderr : bool
        Print to standard error, as progress does.
    **options
        Of `rich.console.Console`.
    """
    made = _Readable(stderr=stderr, **options)
    if made.width < MIN_WIDTH:
        made.width = MIN_WIDTH
    return made


class _Table(Table):
    """A table that becomes a list of its rows where its numbers do not fit side by side."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for column in self.columns:
            if column.header == "verdict" and column.min_width is None:  # a verdict wraps between its words only
                words = " ".join(console.render_str(str(cell)).plain for cell in (column.header, *column.cells)).split()
                column.min_width = max(map(len, words))
        if self._needed(console, options) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield f"[bold]{self.title}[/]\n"
        headers = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            first, *others = map(str, row)
            if self.columns[0].justify == "right":  # a number alone does not say what it is
                first = f"{headers[0]}: {first}"
            yield f"[bold]{first}[/]" if first else ""
            yield from (f"  {header}: {cell}" for header, cell in zip(headers[1:], others, strict=True) if cell)
        if self.caption:
            yield ""
            yield self.caption

    def _needed(self, console: Console, options: ConsoleOptions) -> int:
        """Columns that the table takes with its names folded and its numbers whole."""
        width = Measurement.get(console, options.update(width=_WIDEST_COLUMNS), self).maximum
        for column in self.columns:
            if not column.no_wrap:
                longest = max(console.render_str(str(cell)).cell_len for cell in (column.header, *column.cells))
                width -= max(0, longest - (column.min_width or _NAME_WIDTH))
        return width


def plain_table(title: str, *columns: str, numbers: tuple[str, ...] = (), caption: str = "") -> Table:
    """A table that fits 80 columns: few rules, numbers right-aligned."""
    table = _Table(
        title=escape(title), title_justify="left", title_style="bold", caption=caption, caption_justify="left",
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in columns:
        right = column in numbers
        wrap = column == "verdict"  # a verdict wraps between its words only
        table.add_column(
            column, justify="right" if right else "left", no_wrap=not wrap, overflow="fold",
        )  # fmt: skip
    return table


def give_way(table: Table) -> None:
    """Fold the first column, of names, over several lines before any number is cut."""
    table.columns[0].no_wrap = False
    for column in table.columns[1:]:
        column.no_wrap, column.min_width = True, len(str(column.header))


def or_dash(value: float, form: str) -> str:
    """A number in its form, or a dash where there is none."""
    return format(value, form) if np.isfinite(value) else "-"
