"""Run the claims of this folder, all or some, and keep the table in README.md in step with their results.

A claim is in `CLAIMS` and nowhere else; its text comes from its docstring, its result from results/NAME.json.
"""

import sys
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.console import Console

from experiments.harness import table
from experiments.harness.claim import RESULTS, Finding, conduct
from rotsim.show import terminal
from rotsim.show.terminal import plain_table

CLAIMS = (
    "convergence",
    "balance",
    "early",
    "special",
    "product",
    "warmup",
    "frozen",
    "retuned",
    "restored",
    "invariance",
    "imbalance",
    "sensitivity",
    "schedules",
    "radial",
    "layerwise",
    "validity",
    "exactness",
    "muon",
    "matrices",
    "settings",
)


@dataclass(frozen=True)
class Outcome:
    """What became of one claim in this run: as committed, something new, or no verdict at all."""

    name: str
    verdict: str
    as_committed: bool
    seconds: float


def module_of(name: str) -> ModuleType:
    """The script of a claim."""
    return import_module(f"experiments.{name}")


def judge(finding: Finding, committed: dict[str, Any] | None, quick: bool = False) -> tuple[str, bool]:
    """(verdict, whether the statements that fail are those that did when the result was committed).

    A refutation is a result like any other; what must not happen is that it comes or goes unnoticed. A quick version
    may be too small to see one, though it must not find more.
    """
    failed = {check.statement for check in finding.checks if check.failed}
    passed = {check.statement for check in finding.checks if check.passed}
    before = {check.statement: check for check in table.report_of(committed)} if committed else {}
    verdict = finding.report.summary()
    if quick:  # what a small version answers is about smaller networks
        failed -= {answer["statement"] for answer in finding.answers}
    new = {s for s in failed if (before[s].passed if s in before else committed is None)}
    gone = {s for s in passed if not quick and s in before and before[s].failed}
    if new or gone:
        verdict += "; " + "; ".join([*(f"newly failed: {s}" for s in new), *(f"no longer failed: {s}" for s in gone)])
    return verdict, not new and not gone


def run(name: str, quick: bool, folder: Path | None, console: Console) -> Outcome:
    """Conduct one claim; whatever goes wrong in it is reported, not raised."""
    started = time.perf_counter()
    try:
        script = module_of(name)
        committed = table.committed(name)  # before the run replaces it
        finding = conduct(name, script.__doc__ or "", script.examine, quick, folder)
        verdict, as_committed = judge(finding, committed, quick)
    except Exception as error:
        console.print(traceback.format_exc(), style="red", markup=False)
        verdict, as_committed = f"failed: {type(error).__name__}: {error}", False
    return Outcome(name, verdict, as_committed, time.perf_counter() - started)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--quick", is_flag=True, help="Small versions, minutes in all; written to --output only if that is given."
)
@click.option("--all", "everything", is_flag=True, help="Regenerate every committed result, and the table.")
@click.option("--skip", multiple=True, metavar="NAME", help="Leave out this claim; may be given more than once.")
@click.option(
    "--from",
    "first",
    metavar="NAME",
    help="Take up an interrupted run at this claim, and within it at its unfinished trials.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Folder for JSON and figures.  [default: results/]")
@click.option("--table", "only_table", is_flag=True, help="Write the table in README.md from the committed results.")
def main(
    names: tuple[str, ...],
    quick: bool,
    everything: bool,
    skip: tuple[str, ...],
    first: str | None,
    output: Path | None,
    only_table: bool,
) -> None:
    """Examine the claims NAME, or with --quick or --all every one of them, one after the other.

    The exit code is 1 if a claim fails to run or its verdict is not the committed one, 130 after Ctrl-C.
    """
    console = terminal.console(soft_wrap=True)
    chosen = choose(names, skip, first) if names or quick or everything else []
    if not chosen and not only_table:
        raise click.UsageError(f"name some of {', '.join(CLAIMS)}, or give --quick or --all")
    outcomes, stopped = [], False
    for index, name in enumerate(chosen, start=1):
        console.print(f"[bold]{index}/{len(chosen)} {name}[/]")
        try:
            outcomes.append(run(name, quick, output or (None if quick else RESULTS), console))
        except KeyboardInterrupt:
            console.print(f"[yellow]interrupted in {name}[/]; what was finished is kept: `--from {name}` goes on\n")
            stopped = True
            break
        console.print(f"{outcomes[-1].verdict} ({outcomes[-1].seconds:.0f} s)\n", markup=False)
    if outcomes:
        console.print(summary(outcomes))
    if stopped:
        sys.exit(130)
    if only_table or (everything and output is None and not quick):
        table.update(CLAIMS)
    sys.exit(0 if all(outcome.as_committed for outcome in outcomes) else 1)


def choose(names: tuple[str, ...], skip: tuple[str, ...], first: str | None) -> list[str]:
    """The claims to run, in the order of `CLAIMS`."""
    for name in (*names, *skip, *([first] if first else [])):
        if name not in CLAIMS:
            raise click.UsageError(f"no claim is called {name!r}; choose from {', '.join(CLAIMS)}")
    start = CLAIMS.index(first) if first else 0
    return [name for name in CLAIMS[start:] if name not in skip and (not names or name in names)]


def summary(outcomes: list[Outcome]) -> Any:
    """One line per claim."""
    shown = plain_table("Claims", "claim", "as committed", "verdict", "seconds", numbers=("seconds",))
    for outcome in outcomes:
        shown.add_row(
            outcome.name,
            "yes" if outcome.as_committed else "[bold red]NO[/]",
            outcome.verdict,
            f"{outcome.seconds:.0f}",
        )
    return shown


if __name__ == "__main__":
    main()
