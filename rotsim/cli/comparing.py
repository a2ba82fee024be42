"""`rotsim compare` and `rotsim verify`: do prediction, simulation and measurement agree?"""

from __future__ import annotations

import click

from rotsim.cli.tracing import trace_report
from rotsim.cli.values import WHOLE


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def compare(context: click.Context, file: str, as_json: bool) -> None:
    """Compare a saved simulation with theory; exit code 1 if they disagree. A trace gets its `trace report`."""
    from rotsim import dataset, files
    from rotsim.comparison import compare_with_theory
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import report_table

    data = dataset.load(file)
    if data.attrs["source"] == "trace":
        context.invoke(trace_report, file=file, output=None, as_json=as_json)
        return
    report = compare_with_theory(data)
    if as_json:
        click.echo(files.to_json(report.to_dict()), nl=False)
    else:
        title = f"{file}: {data.attrs['source']}, {dataset.optimizer_of(data).describe()}"
        console().print(report_table(report, title, "measured"))
    if not report.passed:
        raise SystemExit(1)


@click.command()
@click.option("--quick", is_flag=True, help="A smaller version: fewer walks, networks and proofs.")
@click.option("--output", type=str, default=None, help="Folder for verify.json and verify.png (created if absent).")
@click.option("--seed", type=WHOLE, default=0, help="Seed of the simulations.")
def verify(quick: bool, output: str | None, seed: int) -> None:
    """Derive, simulate, compare, and validate on real networks; exit code 1 on any disagreement."""
    from rotsim.verify import run

    if not run(quick=quick, output=output, seed=seed):
        raise SystemExit(1)
