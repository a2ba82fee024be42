"""`python -m experiments.networks record` makes the shipped traces; `table` compares traces with theory."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from experiments.networks.agreement import agreement
from experiments.networks.record import SHIPPED, record
from rotsim.dataset import load
from rotsim.errors import DatasetError, InvalidInput
from rotsim.measure.shipped import TRACES

Folder = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train small real networks with the recorder attached."""


@main.command("record")
@click.option("--only", type=click.Choice(list(SHIPPED)), multiple=True, help="This trace alone; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=Folder, default=TRACES, help="Folder for the .nc files.  [default: the package's]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder (or .deb) that holds Fashion-MNIST.")
def record_command(only: tuple[str, ...], seed: int, output: Path, data: Path | None) -> None:
    """Record the traces that ship with rotsim (two minutes on one core)."""
    output.mkdir(parents=True, exist_ok=True)
    names = only or tuple(SHIPPED)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for name in names:
            bar = progress.add_task(name, total=SHIPPED[name].steps)
            record(name, output, seed=seed, data=data, on_step=lambda bar=bar: progress.advance(bar))


@main.command("table")
@click.argument("traces", nargs=-1, type=click.Path(path_type=Path))
def table_command(traces: tuple[Path, ...]) -> None:
    """Measured over predicted, per layer, for the files TRACES (default: the shipped ones)."""
    table = Table("trace", "layer", "scale-inv.", "rotation", "±5 %", "±10 %", "norm", "spread", "inactive")
    for path in traces or tuple(sorted(TRACES.glob("*.nc"))):
        for row in agreement(load(path)):
            table.add_row(
                path.stem,
                row.layer.removesuffix(".weight"),
                "yes" if row.scale_invariant else "no",
                f"{row.rotation:.3f}",
                f"{row.within_5:.0%}",
                f"{row.within_10:.0%}",
                f"{row.norm:.3f}",
                f"{row.spread:.3f}",
                f"{row.inactive}/{row.neurons}",
            )
    Console().print(table)


if __name__ == "__main__":
    try:
        main()
    except (InvalidInput, DatasetError) as error:
        raise SystemExit(f"error: {error}") from None
