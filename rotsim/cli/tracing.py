"""`rotsim trace`: what recorded training runs show."""

from __future__ import annotations

from math import isfinite

import click

from rotsim.cli.importing import trace_import
from rotsim.cli.watching import trace_watch


@click.group()
def trace() -> None:
    """Look at recorded training runs (rotsim.measure.Recorder)."""


trace.add_command(trace_import)
trace.add_command(trace_watch)


@trace.command("report")
@click.argument("file")
@click.option("--output", type=str, default=None, help="Folder for report.json and report.png (created if absent).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--all", "every", is_flag=True, help="Show every layer and its reason, also of 20 layers or more.")
def trace_report(file: str, output: str | None, as_json: bool, every: bool) -> None:
    """Say for each layer whether theory applies and why; exit code 1 if it applies and does not agree.

    Of other layers it foresees the second half of the run from the first, where that can be, and judges that too. Of 20
    layers or more it shows their kinds and blocks, worst first.
    """
    from rotsim import dataset, files
    from rotsim.diagnosis import diagnose, to_json
    from rotsim.overview import MANY, advice, blocks, kinds
    from rotsim.show import terminal, trace_tables

    folder = files.output_folder(output, "report.json", "report.png") if output is not None else None
    data = dataset.load(file)
    diagnosis = diagnose(data)
    if as_json:
        click.echo(to_json(diagnosis, data), nl=False)
    else:
        screen, title, spec = terminal.console(), f"{file}: {diagnosis.rates()}", dataset.spec_of(data)
        grouped = len(diagnosis.layers) >= MANY and not every
        if grouped:
            screen.print(trace_tables.overview_table(kinds(diagnosis), title, "kind of layer"))
            screen.print(trace_tables.overview_table(blocks(diagnosis), "The same layers by block", "block"))
        else:
            screen.print(trace_tables.diagnosis_table(diagnosis, title))
            if any(isfinite(layer.predicted_norm) for layer in diagnosis.layers):
                screen.print(trace_tables.norm_table(diagnosis))
            if any(layer.rest and layer.rest.quarters for layer in diagnosis.layers):
                screen.print(trace_tables.forecast_table(diagnosis))
            if reasons := trace_tables.diagnosis_reasons(diagnosis):
                screen.print(reasons)
        if sampled := trace_tables.sampled_text(diagnosis, spec.get("sampled_rows", {})):
            screen.print(f"Some neurons, evenly spaced or of one process, stand for all: {sampled}.", markup=False)
        if skipped := trace_tables.skipped_text(spec.get("skipped", {})):
            screen.print(f"Not recorded: {skipped}.", markup=False)
        screen.print(advice(diagnosis, int(data["step"].values[-1])) if grouped else diagnosis.summary())
    if folder is not None:
        from rotsim.show.plotting import save_figure, trace_figure

        files.write_atomically(folder / "report.json", to_json(diagnosis, data))
        save_figure(trace_figure(data, diagnosis), folder / "report.png")
        if not as_json:
            click.echo(f"wrote {folder / 'report.json'} and {folder / 'report.png'}")
    if diagnosis.refuted or diagnosis.unforeseen:
        raise SystemExit(1)


@trace.command("compare")
@click.argument("first")
@click.argument("second")
def trace_compare(first: str, second: str) -> None:
    """Compare how evenly two runs rotate: across layers and across neurons."""
    from rotsim import dataset
    from rotsim.balance import balance
    from rotsim.show.terminal import console
    from rotsim.show.trace_tables import balance_table

    one, two = dataset.load(first), dataset.load(second)
    labels = (dataset.optimizer_of(one).label, dataset.optimizer_of(two).label)
    names = labels if labels[0] != labels[1] else (f"{labels[0]} A", f"{labels[1]} B")
    console().print(balance_table(balance(one), balance(two), names, f"{first} and {second}"))


@trace.command("join")
@click.argument("first")
@click.argument("second")
@click.option("--output", type=str, required=True, help="File for the joined trace.")
@click.option("--at", type=int, default=None, help="Steps of the training before SECOND; what FIRST has after is lost.")
def trace_join(first: str, second: str, output: str, at: int | None) -> None:
    """Make one trace of a training that was interrupted: SECOND goes on where FIRST ends."""
    from rotsim import dataset, files
    from rotsim.measure import join

    files.check_writable(output, "NetCDF")
    joined = join(dataset.load(first), dataset.load(second), at)
    written = dataset.save(joined, output)
    click.echo(f"wrote {written}: steps up to {int(joined['step'][-1])} in {joined.sizes['step']} windows")
