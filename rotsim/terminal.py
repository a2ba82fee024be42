"""What a person sees in the terminal: tables of predictions and verdicts, progress of long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rotsim.comparison import Report
from rotsim.optimizers.base import Optimizer
from rotsim.theory.equilibrium import Equilibrium

STYLE = {"PASS": "green", "FAIL": "bold red", "NOT EQUILIBRATED": "yellow", "UNRESOLVED": "yellow", "OUTSIDE": "dim"}
QUANTITY = {"norm": "norm", "rotation": "rotation (rad/step)", "update_rms": "update RMS"}


def verdict_text(verdict: str) -> str:
    """A verdict in its colour."""
    return f"[{STYLE.get(verdict, 'white')}]{verdict}[/]"


def equilibrium_table(optimizer: Optimizer, exact: Equilibrium, leading: Equilibrium, title: str) -> Table:
    """Exact prediction beside the paper's leading-order one."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("quantity")
    table.add_column("exact", justify="right")
    table.add_column("leading order (paper)", justify="right")
    table.add_column("paper / exact - 1", justify="right")
    for name in ("norm", "rotation", "update_rms", "relaxation_steps"):
        a, b = getattr(exact, name), getattr(leading, name)
        label = QUANTITY.get(name, "relaxation of ‖w‖² (steps)")
        table.add_row(label, f"{a:.6g}", f"{b:.6g}", f"{b / a - 1:+.2%}")
    table.caption = f"declared relative model error: exact {exact.model_error:.1g}, leading {leading.model_error:.1g}"
    return table


def report_table(report: Report, title: str, measured: str = "simulated") -> Table:
    """A comparison, one row per check."""
    table = Table(title=title, title_justify="left")
    table.add_column("group")
    table.add_column("quantity")
    for column in ("predicted", f"{measured} ± SE", "z", "error", "allowed"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    table.add_column("note", style="dim")
    for check in report:
        table.add_row(
            check.group,
            QUANTITY[check.quantity],
            f"{check.predicted:.5g}",
            f"{check.measured:.5g} ± {check.standard_error:.1g}",
            f"{check.z:+.1f}",
            f"{check.relative_error:+.2%}",
            f"{check.tolerance:.1%}",
            verdict_text(check.verdict),
            check.note,
        )
    return table


@contextmanager
def progress_bar(console: Console, label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left, driven by ``callback(done, total)``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{label} (compiling)", total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield update
