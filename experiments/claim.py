"""What every claim script shares: a verdict with its numbers, a figure, provenance, one command line.

A claim script has a docstring (the claim, its section, what would refute it) and a function
``examine(quick) -> Finding``; its last line is ``main(__doc__, examine)``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure
from rich.console import Console

from rotsim.dataset import check_writable, provenance, write_atomically
from rotsim.plotting import save_figure

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Check:
    """One statement with the numbers that decide it: it holds if ``low <= value <= high``.

    The interval is part of the claim, fixed before the numbers are seen; `standard_error` says how well
    the value is known (NaN for a single recorded network). `established` is False where a test finds that
    noise may have put the value on its side of the bound (`experiments.paired`): nothing is shown then.
    """

    statement: str
    value: float
    standard_error: float
    low: float
    high: float = inf
    established: bool = True

    @property
    def holds(self) -> bool:
        """Whether the value lies in the claimed interval, and not by chance."""
        return self.established and self.low <= self.value <= self.high

    def line(self) -> str:
        """One line for the terminal."""
        verdict = "[green]holds  [/]" if self.holds else "[bold red]REFUTED[/]"
        if not self.established:
            verdict = "[yellow]not established[/]"
        claimed = f"at least {self.low:.3g}" if self.high == inf else f"{self.low:.3g} to {self.high:.3g}"
        if self.low == -inf:
            claimed = f"at most {self.high:.3g}"
        noise = f" ±{self.standard_error:.1g}" if isfinite(self.standard_error) else ""
        return f"{verdict} {self.statement}: {self.value:.4g}{noise} (claimed: {claimed})"


@dataclass(frozen=True)
class Finding:
    """What one script found."""

    checks: list[Check]
    figure: Figure
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every statement does."""
        return bool(self.checks) and all(check.holds for check in self.checks)


def write(name: str, claim: str, finding: Finding, folder: Path, quick: bool, large: str | None = None) -> None:
    """Write ``name.json`` and ``name.png`` (``name_large``, with a device in `large`) into `folder`, atomically."""
    option = " --quick" if quick else f" --large {large}" if large else ""
    content = {
        "claim": claim,
        "holds": finding.holds,
        "quick": quick,
        "checks": [_record(check) for check in finding.checks],
        "numbers": finding.numbers,
        "provenance": provenance(command=f"python -m experiments.{name}{option}"),
    }
    stem = _stem(name, large)
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(folder / f"{stem}.json", lambda path: path.write_text(text))
    save_figure(finding.figure, folder / f"{stem}.png")


def _stem(name: str, large: str | None) -> str:
    return f"{name}_large" if large else name


def _record(check: Check) -> dict[str, Any]:
    # JSON has no infinity or NaN
    numbers = {
        key: value if not isinstance(value, float) or isfinite(value) else None for key, value in vars(check).items()
    }
    return {**numbers, "holds": check.holds}


def main(
    name: str,
    documentation: str | None,
    examine: Callable[[bool], Finding],
    large: Callable[[str], Finding] | None = None,
) -> None:
    """Command line of a claim script; exit code 1 if the claim is refuted or not established.

    `large` is a version for an accelerator, given the device; it writes ``name_large``.
    """

    @click.option("--quick", is_flag=True, help="Smaller version, seconds; written to --output only if that is given.")
    @click.option("--output", type=click.Path(path_type=Path), help="Folder for JSON and figure.  [default: results/]")
    def command(quick: bool, output: Path | None, device: str | None = None) -> None:
        stem = _stem(name, device)
        folder = output or (None if quick else RESULTS)
        if folder is not None:
            check_writable(folder / f"{stem}.json")
        finding = examine(quick) if device is None or large is None else large(device)
        console = Console(soft_wrap=True)
        for check in finding.checks:
            console.print(check.line())
        if folder is not None:
            write(name, (documentation or "").strip().splitlines()[0], finding, folder, quick, device)
            console.print(f"wrote {folder / stem}.json and .png")
        sys.exit(0 if finding.holds else 1)

    if large is not None:
        command = click.option("--large", "device", metavar="DEVICE", help="Larger version, on cuda or cpu.")(command)
    click.command(help=documentation, context_settings={"help_option_names": ["-h", "--help"]})(command)()
