"""`rotsim verify`: derivation, simulation and real networks held against one theory, with a verdict.

Four stages, each independent of the last: the closed forms are derived again and compared with
the code in use; the random walk is simulated and compared with them; recorded traces of real
networks are compared with them; the outcome is written as a table, a figure and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rotsim import dataset
from rotsim.comparison import Check, Report, compare
from rotsim.errors import InvalidInput
from rotsim.gradients import Gradient, Isotropic, ScaleInvariant
from rotsim.optimizers import OPTIMIZERS
from rotsim.optimizers.base import Optimizer
from rotsim.simulation import simulate
from rotsim.terminal import QUANTITY, verdict_text
from rotsim.theory.equilibrium import Equilibrium, equilibrium
from rotsim.theory.traces import compare_with_theory

# Six standard errors: about 50 checks are made, and a right theory should fail one run in 10^7.
K = 6.0


@dataclass(frozen=True)
class Case:
    """One simulated walk beside its predictions."""

    optimizer: Optimizer
    gradient: Gradient
    data: xr.Dataset
    exact: Equilibrium
    leading: Equilibrium
    report: Report


@dataclass(frozen=True)
class TraceCase:
    """One recorded network beside its prediction; only `gated` layers decide the verdict."""

    name: str
    data: xr.Dataset
    report: Report
    gated: tuple[bool, ...]
    reasons: tuple[str, ...]


def run(
    quick: bool = False,
    output: Path | None = None,
    seed: int = 0,
    predict: Callable[..., Equilibrium] = equilibrium,
    console: Console | None = None,
) -> bool:
    """Run every stage; True if all agree.

    Parameters
    ----------
    quick : bool
        One noise model, smaller walks, digits networks only.
    output : Path, optional
        Folder for ``verify.json`` and ``verify.png``; created if absent.
    seed : int
        Seed of the simulated walks.
    predict : callable
        Stands in for `rotsim.equilibrium`; the negative controls pass a wrong one.
    console : rich Console, optional
    """
    console = console or Console()
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(f"output folder {str(output)!r} cannot be created ({error.strerror})") from None
        dataset.check_writable(output / "verify.json")
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    with bar:
        proofs = _derivations(bar)
        console.print(_derivation_line(proofs))
        cases = _simulations(bar, quick, seed, predict)
        console.print(_simulation_table(cases))
        traces = _networks(bar, quick)
        console.print(_network_table(traces))
    passed = verdict(proofs, cases, traces)
    if output is not None:
        from rotsim.plotting import verify_figure

        dataset.write_atomically(
            output / "verify.json", lambda p: p.write_text(_json(passed, seed, proofs, cases, traces))
        )
        dataset.write_atomically(output / "verify.png", lambda p: verify_figure(cases, traces).savefig(p, format="png"))
        console.print(f"wrote {output / 'verify.json'} and {output / 'verify.png'}")
    console.print(_summary(passed, proofs, cases, traces))
    return passed


def verdict(proofs: list[tuple[str, bool]], cases: list[Case], traces: list[TraceCase]) -> bool:
    """All proofs hold, all simulations pass, all gated layers of all networks pass."""
    return (
        all(ok for _, ok in proofs)
        and all(case.report.passed for case in cases)
        and all(check.verdict == "PASS" for check in _gated(traces))
    )


def _gated(traces: list[TraceCase]) -> list[Check]:
    return [check for trace in traces for check, gate in zip(trace.report, trace.gated, strict=True) if gate]


def _derivations(bar: Progress) -> list[tuple[str, bool]]:
    import derivations

    task = bar.add_task("deriving the closed forms with sympy", total=None)
    proofs = derivations.check()
    bar.remove_task(task)
    return proofs


def _simulations(bar: Progress, quick: bool, seed: int, predict: Callable[..., Equilibrium]) -> list[Case]:
    dim, neurons, steps = (256, 32, 10_000) if quick else (512, 64, 20_000)
    models: list[Gradient] = [ScaleInvariant()] if quick else [ScaleInvariant(), Isotropic(0.05)]
    settings = [(o, g) for spec in OPTIMIZERS.values() for g in models for o in spec.examples()]
    task = bar.add_task("simulating", total=len(settings) * steps)
    cases = []
    for index, (optimizer, gradient) in enumerate(settings):
        bar.update(task, description=f"simulating {optimizer.label}, {gradient.name}")
        data = simulate(
            optimizer,
            dim=dim,
            neurons=neurons,
            steps=steps,
            gradient=gradient,
            seed=seed + index,
            initial_norm=2.0 * predict(optimizer, dim, gradient, "exact").norm,
            progress=lambda done, _, base=index * steps: bar.update(task, completed=base + done),  # type: ignore[misc]
        )
        exact, leading = (predict(optimizer, dim, gradient, method) for method in ("exact", "leading"))
        cases.append(Case(optimizer, gradient, data, exact, leading, compare(data, exact, k=K)))
    bar.remove_task(task)
    return cases


def _networks(bar: Progress, quick: bool) -> list[TraceCase]:
    from rotsim.measure.shipped import load_shipped, shipped_traces

    names = [name for name in shipped_traces() if not quick or name.startswith("digits")]
    task = bar.add_task("reading real networks", total=len(names))
    traces = []
    for name in names:
        data = load_shipped(name)
        report = compare_with_theory(data)
        invariant = set(dataset.spec_of(data)["scale_invariant_layers"])
        white = dataset.optimizer_of(data).needs_white_gradients
        reasons = tuple(
            "scale-sensitive weights"
            if check.group not in invariant
            else "needs uncorrelated gradients"
            if white
            else ""
            for check in report
        )
        traces.append(TraceCase(name, data, report, tuple(not reason for reason in reasons), reasons))
        bar.advance(task)
    bar.remove_task(task)
    return traces


def _derivation_line(proofs: list[tuple[str, bool]]) -> str:
    wrong = [statement for statement, ok in proofs if not ok]
    if wrong:
        return "[bold red]FAIL[/] derivations: " + "; ".join(wrong)
    return f"[green]PASS[/] {len(proofs)} statements derived by sympy hold (python -m derivations --check lists them)"


def _simulation_table(cases: list[Case]) -> Table:
    table = Table(title="Theory against simulation", title_justify="left", caption_justify="left")
    for column in ("optimizer", "lr·wd", "gradient", "quantity"):
        table.add_column(column)
    for column in ("predicted", "simulated ± SE", "z", "error", "paper's error"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for case in cases:
        for row, check in enumerate(case.report):
            paper = getattr(case.leading, check.quantity) / check.measured - 1
            table.add_row(
                case.optimizer.label if row == 0 else "",
                f"{case.optimizer.lr * case.optimizer.weight_decay:.2g}" if row == 0 else "",
                case.gradient.name if row == 0 else "",
                QUANTITY[check.quantity],
                f"{check.predicted:.5g}",
                f"{check.measured:.5g} ± {check.standard_error:.1g}",
                f"{check.z:+.1f}",
                f"{check.relative_error:+.2%}",
                f"{paper:+.1%}",
                verdict_text(check.verdict),
                end_section=row == len(case.report.checks) - 1,
            )
    table.caption = f"PASS: within {K:g} standard errors plus the declared model error of the exact formula."
    return table


def _network_table(traces: list[TraceCase]) -> Table:
    table = Table(title="Theory against real networks", title_justify="left", caption_justify="left")
    for column in ("network", "layer", "quantity"):
        table.add_column(column)
    for column in ("predicted", "measured ± SE", "error", "allowed"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for trace in traces:
        for row, (check, reason) in enumerate(zip(trace.report, trace.reasons, strict=True)):
            table.add_row(
                trace.name if row == 0 else "",
                check.group,
                QUANTITY[check.quantity],
                f"{check.predicted:.4g}",
                f"{check.measured:.4g} ± {check.standard_error:.1g}",
                f"{check.relative_error:+.1%}",
                "" if reason else f"{check.tolerance:.0%}",
                f"[dim]outside: {reason}[/]" if reason else verdict_text(check.verdict),
                end_section=row == len(trace.report.checks) - 1,
            )
    table.caption = (
        "Median over the neurons of a layer, last half of training. Outside: the theory makes no claim there."
    )
    return table


def _summary(passed: bool, proofs: list[tuple[str, bool]], cases: list[Case], traces: list[TraceCase]) -> str:
    simulated = [check for case in cases for check in case.report]
    measured = _gated(traces)

    def worst(checks: list[Check]) -> float:
        return float(np.max(np.abs([check.relative_error for check in checks]))) if checks else 0.0

    return (
        f"{verdict_text('PASS' if passed else 'FAIL')} "
        f"{sum(ok for _, ok in proofs)}/{len(proofs)} proofs, "
        f"{sum(c.verdict == 'PASS' for c in simulated)}/{len(simulated)} simulated quantities "
        f"(largest error {worst(simulated):.2%}), "
        f"{sum(c.verdict == 'PASS' for c in measured)}/{len(measured)} quantities of real layers "
        f"(largest error {worst(measured):.1%})"
    )


def _json(passed: bool, seed: int, proofs: list[tuple[str, bool]], cases: list[Case], traces: list[TraceCase]) -> str:
    content: dict[str, Any] = {
        "passed": passed,
        "seed": seed,
        "standard_errors_allowed": K,
        "derivations": [{"statement": statement, "holds": ok} for statement, ok in proofs],
        "simulations": [
            {
                "optimizer": case.optimizer.to_dict(),
                "spec": dataset.spec_of(case.data),
                "exact": case.exact.to_dict(),
                "leading": case.leading.to_dict(),
                **case.report.to_dict(),
            }
            for case in cases
        ],
        "networks": [
            {
                "name": trace.name,
                "optimizer": dataset.optimizer_of(trace.data).to_dict(),
                "spec": dataset.spec_of(trace.data),
                "outside": list(trace.reasons),
                **trace.report.to_dict(),
            }
            for trace in traces
        ],
        "provenance": dataset.provenance(),
    }
    return json.dumps(content, indent=1) + "\n"
