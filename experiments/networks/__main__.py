"""`python -m experiments.networks --suite ci|cpu|gpu` runs a suite; `record` makes the shipped traces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import click
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from experiments.networks import claims, courses, groups, heldout, tilt
from experiments.networks.record import SHIPPED, AnyRun, record
from experiments.networks.suite import SUITES, Recording, Traces, choose_device, runs_of, write_report
from rotsim.errors import DatasetError, InvalidInput
from rotsim.files import output_folder, to_json, write_atomically
from rotsim.measure.shipped import TRACES
from rotsim.show.terminal import console
from rotsim.tasks import collect

RESULTS = Path(__file__).parents[1] / "results"
Folder = click.Path(file_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--suite", type=click.Choice(list(SUITES)), help="Run this suite and write its report.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--only", multiple=True, help="This run of the suite alone; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(min=50), help="Steps per run.  [default: the suite's]")
@click.option("--output", type=Folder, help="Folder for traces and report.  [default: experiments/results/suite_SUITE]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder (or .deb) that holds Fashion-MNIST.")
@click.pass_context
def main(
    context: click.Context,
    suite: str | None,
    device: str,
    only: tuple[str, ...],
    seed: int,
    steps: int | None,
    output: Path | None,
    data: Path | None,
) -> None:
    """Train small real networks with the recorder attached.

    A suite resumes: runs whose traces are complete are not repeated. Runs whose data are missing are skipped.
    """
    if context.invoked_subcommand is not None:
        return
    if suite is None:
        click.echo(context.get_help())
        return
    chosen = choose_device(device)
    runs = runs_of(suite, only, seed, steps)
    folder = output_folder(output or RESULTS / f"suite_{suite}", "README.md")
    words = ["python -m experiments.networks", f"--suite {suite}", f"--device {device}", f"--seed {seed}"]
    words += [f"--steps {steps}"] if steps else []
    screen = console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:

        def recording(name: str, run: AnyRun) -> Recording:
            bar = progress.add_task(name, total=run.steps)
            command = f"{' '.join(words)} --only {name}"
            return Recording(name, run, folder, chosen, data, command, lambda: progress.advance(bar))

        found = collect([recording(name, run) for name, run in runs.items()], store=Traces())
    results = dict(zip(runs, found, strict=True))
    for name, result in results.items():
        if "skipped" in result:
            screen.print(f"skipped {name}: {result['skipped']}", markup=False)
    done = {name: result["trace"] for name, result in results.items() if "trace" in result}
    if not done:
        raise InvalidInput("no run of the suite could be made; see the reasons above")
    click.echo(f"wrote {write_report(suite, folder, done, ' '.join(words + [f'--only {name}' for name in only]))}")


@main.command("record")
@click.option("--only", type=click.Choice(list(SHIPPED)), multiple=True, help="This trace alone; may be repeated.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=Folder, default=TRACES, help="Folder for the .nc files.  [default: the package's]")
@click.option("--data", type=click.Path(path_type=Path), help="Folder (or .deb) that holds Fashion-MNIST.")
def record_command(only: tuple[str, ...], seed: int, output: Path, data: Path | None) -> None:
    """Record the traces that ship with rotsim (about six minutes on one core)."""
    output = output_folder(output)
    names = only or tuple(SHIPPED)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as progress:
        for name in names:
            bar = progress.add_task(name, total=SHIPPED[name].steps)
            record(
                name,
                replace(SHIPPED[name], seed=seed),
                output,
                data=data,
                command=f"python -m experiments.networks record --only {name} --seed {seed}",
                on_step=partial(progress.advance, bar),
            )


@main.command("heldout")
@click.argument("networks", nargs=-1)
@click.option("--steps", type=click.IntRange(min=50), default=heldout.STEPS, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=Folder, help="Folder for heldout.md and heldout.json.  [default: print the table]")
def heldout_command(networks: tuple[str, ...], steps: int, seed: int, output: Path | None) -> None:
    """Train NETWORKS (default: all) that no rule was made on; exit code 1 if a claimed layer does not agree."""
    names = networks or tuple(heldout.NETWORKS)
    if output is not None:
        output = output_folder(output, "heldout.json", "heldout.md")
    found = {}
    with Progress(console=console(stderr=True)) as progress:
        for name in progress.track(names, description="held-out networks"):
            found[name] = heldout.train(name, steps, seed)
    command = " ".join(["python -m experiments.networks heldout", *networks, f"--steps {steps} --seed {seed}"])
    if output is None:
        click.echo(heldout.table(found, command), nl=False)
    else:
        heldout.write(found, output, command)
        click.echo(f"wrote {output / 'heldout.md'} and {output / 'heldout.json'}")
    if any(diagnosis.refuted or not same for diagnosis, same in found.values()):
        raise SystemExit(1)


@main.command("courses")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--network", type=click.Choice(list(courses.NETWORKS)), multiple=True, help="This kind alone.")
@click.option("--traces", type=Folder, help="Keep all traces in this folder, and judge anew those that are there.")
@click.option("--output", type=Folder, help="Folder for courses.md and a trace.  [default: print the table]")
def courses_command(seeds: int, network: tuple[str, ...], traces: Path | None, output: Path | None) -> None:
    """Train small networks under schedules (a few seconds each); exit code 1 if a claimed layer leaves its course."""
    chosen = network or tuple(courses.NETWORKS)
    with Progress(console=console(stderr=True)) as progress:
        total = seeds * len(chosen) * len(courses.RATES) * len(courses.SCHEDULES)
        judged = courses.runs(seeds, chosen, traces and output_folder(traces))
        found = list(progress.track(judged, total=total, description="runs"))
    only = [f"--network {name!r}" for name in network]
    command = " ".join(["python -m experiments.networks courses", f"--seeds {seeds}", *only])
    text = courses.table(found, command)
    if output is None:
        click.echo(text, nl=False)
    else:
        folder = output_folder(output, "courses.md", "cosine_adamw.nc")
        written = write_atomically(folder / "courses.md", text), courses.example(folder, command)
        click.echo(f"wrote {written[0]} and {written[1]}")
    if any(run.diagnosis.refuted for run in found):
        raise SystemExit(1)


@main.command("groups")
@click.option("--network", type=click.Choice(list(groups.NETWORKS)), multiple=True, help="This network alone.")
@click.option("--steps", type=click.IntRange(min=50), help="Steps per run.  [default: the network's]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=Folder, help="Folder for groups.md and groups.json.  [default: print the tables]")
def groups_command(network: tuple[str, ...], steps: int | None, seed: int, output: Path | None) -> None:
    """Train networks whose inner matrices follow Muon and the others AdamW, and compare both with theory."""
    folder = output and output_folder(output, "groups.md", "groups.json")
    pairs = list(product(network or groups.NETWORKS, groups.PAIRINGS))
    with Progress(console=console(stderr=True)) as progress:
        found = [groups.train(*pair, steps, seed) for pair in progress.track(pairs, description="runs")]
    words = ["python -m experiments.networks groups", *(f"--network {name}" for name in network)]
    text = groups.table(found, " ".join([*words, *([f"--steps {steps}"] if steps else []), f"--seed {seed}"]))
    _print_or_write(folder, "groups", text, found)


@main.command("tilt")
@click.option("--steps", type=click.IntRange(min=250), help="Steps of the run.  [default: 3000]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=Folder, help="Folder for tilt.md and tilt.json.  [default: print the table]")
def tilt_command(steps: int | None, seed: int, output: Path | None) -> None:
    """Train a small GPT under Muon, and measure how far its updates pull the weights inwards."""
    folder = output and output_folder(output, "tilt.md", "tilt.json")
    found = tilt.train(steps, seed)
    words = ["python -m experiments.networks tilt", *([f"--steps {steps}"] if steps else []), f"--seed {seed}"]
    text = tilt.table(found, " ".join(words))
    _print_or_write(folder, "tilt", text, found)


def _print_or_write(folder: Path | None, name: str, table: str, found: Sequence[Any]) -> None:
    """A table, in a folder beside its numbers."""
    if folder is None:
        click.echo(table, nl=False)
        return
    content = to_json([asdict(one) for one in found], 5)
    written = write_atomically(folder / f"{name}.md", table), write_atomically(folder / f"{name}.json", content)
    click.echo(f"wrote {written[0]} and {written[1]}")


@main.command("claims")
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--zoo", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="heldout.json, to count too.")
def claims_command(folders: tuple[Path, ...], zoo: Path | None) -> None:
    """Judge all traces in FOLDERS: how many live layers carry a claim, and how many claims hold."""
    beside = heldout.tallies(json.loads(zoo.read_text())) if zoo else {}
    click.echo(claims.table(claims.tallies(folders, beside)), nl=False)


if __name__ == "__main__":
    try:
        main()
    except (InvalidInput, DatasetError) as error:
        raise SystemExit(f"error: {error}") from None
