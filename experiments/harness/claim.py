"""What every claim script shares: a verdict with its numbers, a figure, provenance, one command line.

The docstring of a claim script begins with what is found. Then come the claim, its section in parentheses, and what
would refute it. The script has a function ``examine(quick) -> Finding``, and its last line is ``main(NAME, __doc__,
examine)``. One line in `experiments.__main__` lets the runner find it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import signature
from math import fsum, inf, isfinite, nan
from pathlib import Path
from typing import Any

import click
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import rotsim
from experiments.harness.pictures import save_picture
from rotsim.checks import Check, Report, Verdict
from rotsim.dataset import provenance
from rotsim.files import output_folder, to_json, write_atomically
from rotsim.gradients import Gradient
from rotsim.noise import GRADIENT_STREAM, neuron_keys
from rotsim.optimizers.base import Optimizer
from rotsim.show.terminal import console, verdict_text
from rotsim.tasks import Ledger
from rotsim.windows import bonferroni

RESULTS = Path(__file__).parents[1] / "results"
#: Those whose neurons know nothing of each other; Muon has claims of its own.
PAPER = ("adamw", "adam_l2", "sgdm", "lion")  # the optimizers of Kosson et al. 2024, which its claims are about
OPTIMIZERS = {name: spec.label for name, spec in rotsim.OPTIMIZERS.items() if name in PAPER}
_DIGITS = 5


def claimed(
    statement: str,
    value: float,
    standard_error: float,
    low: float = -inf,
    high: float = inf,
    because: str = "",
) -> Check:
    """One statement with the numbers that decide it: it passes if ``low <= value <= high``.

    The interval is part of the claim, fixed before the numbers are seen. `standard_error` says how well
    the value is known (NaN for a single recorded network).
    `because` says why it does not pass, where that is known; it stands beside the verdict.
    """
    verdict: Verdict = "PASS" if low <= value <= high else "FAIL"
    return Check.of(
        statement, measured=value, standard_error=standard_error, low=low, high=high, verdict=verdict,
        note="" if verdict == "PASS" else because,
    )  # fmt: skip


def line(check: Check) -> str:
    """One line for the terminal."""
    noise = f" ±{check.standard_error:.1g}" if isfinite(check.standard_error) else ""
    reason = f"; {check.note}" if check.note else ""
    return (
        f"{verdict_text(check.verdict)} {check.statement}: {check.measured:.4g}{noise} (claimed: {check.interval()})"
        f"{reason}"
    )


@dataclass(frozen=True)
class Finding:
    """What one script found.

    `result` is the sentence with numbers that stands in the table of claims; `document`, if any, is Markdown that
    is written beside figure and JSON. `answers` are those of `experiments.harness.answers`, whose checks stand first.
    """

    checks: list[Check]
    figure: Figure
    numbers: dict[str, Any] = field(default_factory=dict)
    result: str = ""
    document: str = ""
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """The checks, with their verdict."""
        return Report(tuple(self.checks))


#: ``examine(quick)``, and with trainings ``examine(quick, store)``, where finished trials are kept.
Examine = Callable[..., Finding]


def course_checks(label: str, walk: xr.Dataset, course: xr.Dataset, k: float = 4.0) -> Iterator[Check]:
    """Norm and rotation of simulated neurons against `rotsim.predict`, every record window, transients included.

    The value is how far the worst window lies beyond the declared model error, in standard errors. The bound
    makes a false alarm among all windows as rare as one of `k` standard errors for a single number.
    """
    allowed = bonferroni(k, walk.sizes["step"], walk.sizes["neuron"])
    for found in rotsim.compare(walk, course, quantities=("norm", "rotation"), k=k).checks:
        beyond = abs(found.measured - found.predicted) - found.tolerance * found.predicted
        statement = f"{label}: {found.quantity}, standard errors beyond the declared error, worst window"
        yield claimed(statement, max(0.0, beyond / found.standard_error), 1.0, high=allowed)


def momentum_decay(optimizer: Optimizer) -> float:
    """Decay of the optimizer's momentum: its first β, but Lion's second."""
    return optimizer.averages[optimizer.shape == "sign"]


def memory_steps(optimizer: Optimizer) -> int:
    """Steps over which that momentum remembers a gradient."""
    return round(1 / (1 - momentum_decay(optimizer)))


def gradient_scale(gradient: Gradient, dim: int, draws: int = 20_000) -> float:
    """RMS of ‖g‖ at ‖w‖ = 1 over uniform directions of w, by Monte Carlo: the `scale` that a prediction needs."""
    w = np.random.default_rng(0).standard_normal((draws, dim))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    keys, parameters = neuron_keys(0, draws, GRADIENT_STREAM), np.repeat(gradient.parameters()[:1], draws, axis=0)
    g = gradient.at(w, keys, 1, parameters, np.zeros((draws, gradient.memory_slots, dim)), np.zeros((0, 0, 0)))
    return float(np.sqrt((g**2).sum(axis=1).mean()))


def conduct(name: str, documentation: str, examine: Examine, quick: bool, folder: Path | None) -> Finding:
    """Examine a claim, print its checks, and write ``name.json`` and ``name.png`` into `folder` if one is given.

    Trials that a run into the same folder had finished when it was cut off are not run again: they are in a ledger
    beside the results, which goes when the result is written. Provenance counts them.
    """
    if folder is not None:
        folder = output_folder(folder, f"{name}.json", f"{name}.png")
    ledger = Ledger(folder and folder / f"{name}{'.quick' * quick}.trials.jsonl")
    started = _cpu_seconds()
    finding = examine(quick, store=ledger) if "store" in signature(examine).parameters else examine(quick)
    seconds = _cpu_seconds() - started + ledger.reused_seconds
    screen = console(soft_wrap=True)
    if ledger.reused:
        screen.print(
            f"took up {len(ledger.reused)} trials ({ledger.reused_seconds:.0f} CPU s) of a run that was cut off"
        )
    for check in finding.checks:
        screen.print(line(check))
    if folder is not None:
        write(name, documentation, finding, folder, quick, seconds, **_trials(ledger))
        if ledger.path is not None:
            ledger.path.unlink(missing_ok=True)
        screen.print(f"wrote {folder / name}.json and .png")
    return finding


def _trials(ledger: Ledger) -> dict[str, Any]:
    """How many trials ran and how many were taken up, for provenance; empty if the claim has none."""
    found: dict[str, Any] = {"run": len(ledger.run), "cpu_seconds": round(fsum(e.cpu_seconds for e in ledger.run), 1)}
    if ledger.reused:
        found["reused_from_a_run_cut_off"] = {
            "trials": len(ledger.reused),
            "cpu_seconds": round(ledger.reused_seconds, 1),
            "finished_from": min(entry.finished for entry in ledger.reused),
            "finished_to": max(entry.finished for entry in ledger.reused),
        }
    return {"trials": found} if ledger.run or ledger.reused else {}


def _cpu_seconds() -> float:
    """Of this process and of those it started and waited for."""
    return sum(os.times()[:4])


def write(
    name: str,
    documentation: str,
    finding: Finding,
    folder: Path,
    quick: bool,
    seconds: float = nan,
    **extra: Any,
) -> None:
    """Write ``name.json``, ``name.png`` and what `finding` has of a document into `folder`, atomically.

    `seconds` of CPU time include the processes started and the trials taken over; `extra` goes into provenance.
    """
    command = f"python -m experiments.{name}{' --quick' if quick else ''}"
    content = {
        "claim": documentation.strip().splitlines()[0],
        "verdict": finding.report.summary(),
        "result": finding.result,
        "quick": quick,
        "checks": [check.to_dict() for check in finding.checks],
        **({"answers": finding.answers} if finding.answers else {}),
        "numbers": finding.numbers,
        "cpu_seconds": round(seconds, 1),
        "provenance": provenance(command=command, **extra),
    }
    write_atomically(folder / f"{name}.json", to_json(content, _DIGITS))
    if finding.document:
        write_atomically(folder / f"{name}.md", finding.document)
    save_picture(finding.figure, folder / f"{name}.png")


def main(name: str, documentation: str | None, examine: Examine) -> None:
    """Command line of a claim script; exit code 1 unless every statement passes."""
    text = documentation or ""

    @click.command(help=text, context_settings={"help_option_names": ["-h", "--help"]})
    @click.option("--quick", is_flag=True, help="Smaller version, seconds; written to --output only if that is given.")
    @click.option("--output", type=click.Path(path_type=Path), help="Folder for JSON and figure.  [default: results/]")
    def command(quick: bool, output: Path | None) -> None:
        finding = conduct(name, text, examine, quick, output or (None if quick else RESULTS))
        sys.exit(0 if finding.report.passed else 1)

    command()
