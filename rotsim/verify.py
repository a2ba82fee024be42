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
from rotsim.errors import integer
from rotsim.gradients import Gradient, Isotropic, ScaleInvariant
from rotsim.optimizers import OPTIMIZERS
from rotsim.optimizers.base import Optimizer
from rotsim.simulation import simulate
from rotsim.terminal import QUANTITY, plain_table, plus_minus, verdict_text
from rotsim.theory.equilibrium import Equilibrium, equilibrium
from rotsim.theory.traces import TRACE_TOLERANCE, compare_with_theory

# Six standard errors: about 50 checks are made, and a right theory should fail one run in 10^7.
K = 6.0
_SHORT = {"scale_invariant": "scale-inv."}
_RELAXATIONS = 20  # from twice the equilibrium norm: 3 e^-20 of the excess is left, and half the run to average


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
    """One recorded network beside its prediction; only `gated` checks, of scale-invariant layers, decide."""

    name: str
    data: xr.Dataset
    report: Report
    gated: tuple[bool, ...]


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
    seed = integer("seed", seed, low=0)
    if output is not None:
        dataset.output_folder(output, "verify.json")
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
        from rotsim.plotting import save_figure, verify_figure

        text = _json(passed, seed, proofs, cases, traces)
        dataset.write_atomically(output / "verify.json", lambda path: path.write_text(text))
        save_figure(verify_figure(cases, traces), output / "verify.png")
        console.print(f"wrote {output / 'verify.json'} and {output / 'verify.png'}")
    console.print(_summary(passed, proofs, cases, traces))
    return passed


def verdict(proofs: list[tuple[str, bool]], cases: list[Case], traces: list[TraceCase]) -> bool:
    """All proofs hold, all simulations pass, and so does every equilibrated scale-invariant layer of every network.

    Whether a real layer is in equilibrium is decided from its own history, before agreement is looked
    at; one that is not says nothing about the theory. But every trace's optimizer must have layers that do.
    """
    judged = _gated(traces)
    settled = {trace.data.attrs["optimizer"] for trace in traces if any(c.verdict == "PASS" for c in _gated([trace]))}
    return (
        all(ok for _, ok in proofs)
        and all(case.report.passed for case in cases)
        and all(check.verdict in ("PASS", "NOT EQUILIBRATED") for check in judged)
        and settled == {trace.data.attrs["optimizer"] for trace in traces}
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
    dim, neurons = (128, 32) if quick else (512, 64)
    models: list[Gradient] = [ScaleInvariant()] if quick else [ScaleInvariant(), Isotropic(0.05)]
    settings = [(o, g) for spec in OPTIMIZERS.values() for g in models for o in spec.examples()]
    task = bar.add_task("simulating", total=len(settings))
    cases = []
    for index, (optimizer, gradient) in enumerate(settings):
        bar.update(task, description=f"simulating {optimizer.label}, {gradient.name}")
        exact, leading = (predict(optimizer, dim, gradient, method) for method in ("exact", "leading"))
        steps = 100 * round(max(8_000, _RELAXATIONS * exact.relaxation_steps) / 100)
        data = simulate(
            optimizer,
            dim=dim,
            neurons=neurons,
            steps=steps,
            gradient=gradient,
            seed=seed + index,
            initial_norm=2.0 * exact.norm,
            record_every=int(np.clip(exact.relaxation_steps / 10, 1, 100)),
            progress=lambda done, total, index=index: bar.update(task, completed=index + done / total),  # type: ignore[misc]
        )
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
        traces.append(TraceCase(name, data, report, tuple(check.group in invariant for check in report)))
        bar.advance(task)
    bar.remove_task(task)
    return traces


def _derivation_line(proofs: list[tuple[str, bool]]) -> str:
    wrong = [statement for statement, ok in proofs if not ok]
    if wrong:
        return "[bold red]FAIL[/] derivations: " + "; ".join(wrong)
    return f"[green]PASS[/] {len(proofs)} statements derived by sympy hold (python -m derivations --check lists them)"


def _simulation_table(cases: list[Case]) -> Table:
    numbers = ("predicted", "simulated ±SE", "error", "paper")
    table = plain_table("Theory against simulation", "walk", "quantity", *numbers, "verdict", numbers=numbers)
    for case in cases:
        decay = case.optimizer.lr * case.optimizer.weight_decay
        walk = (case.optimizer.label, f"lr·wd {decay:.2g}", _SHORT.get(case.gradient.name, case.gradient.name))
        for row, check in enumerate(case.report):
            paper = getattr(case.leading, check.quantity) / check.measured - 1
            table.add_row(
                walk[row],
                QUANTITY[check.quantity],
                f"{check.predicted:.5g}",
                plus_minus(check.measured, check.standard_error),
                f"{check.relative_error:+.2%}",
                f"{paper:+.1%}",
                verdict_text(check.verdict),
                end_section=row == len(case.report.checks) - 1,
            )
    table.caption = (
        f"PASS: within {K:g} standard errors plus the exact formula's declared error. "
        "paper: error of the leading-order formula."
    )
    return table


def _network_table(traces: list[TraceCase]) -> Table:
    numbers = ("predicted", "measured ±SE", "error")
    table = plain_table("Theory against real networks", "network", "quantity", *numbers, "verdict", numbers=numbers)
    for trace in traces:
        table.add_row(trace.name.replace("_", " ", 1))
        for row, (check, gate) in enumerate(zip(trace.report, trace.gated, strict=True)):
            table.add_row(
                "  " + check.group.removesuffix(".weight"),
                QUANTITY[check.quantity],
                f"{check.predicted:.4g}",
                plus_minus(check.measured, check.standard_error),
                f"{check.relative_error:+.1%}",
                verdict_text(check.verdict) if gate else "[dim]no claim[/]",
                end_section=row == len(trace.report.checks) - 1,
            )
    allowed = ", ".join(f"{QUANTITY[name]} {share:.0%}" for name, share in TRACE_TOLERANCE.items())
    table.caption = (
        f"Median over a layer's neurons, last half of training. Allowed: {allowed}. "
        "No claim: the head is not scale-invariant. Not equilibrated: still drifting when training ended."
    )
    return table


def _summary(passed: bool, proofs: list[tuple[str, bool]], cases: list[Case], traces: list[TraceCase]) -> str:
    simulated = [check for case in cases for check in case.report]
    measured = [check for check in _gated(traces) if check.verdict != "NOT EQUILIBRATED"]

    def worst(checks: list[Check]) -> float:
        return float(np.max(np.abs([check.relative_error for check in checks]))) if checks else 0.0

    return (
        f"{verdict_text('PASS' if passed else 'FAIL')} "
        f"{sum(ok for _, ok in proofs)}/{len(proofs)} proofs, "
        f"{sum(c.verdict == 'PASS' for c in simulated)}/{len(simulated)} simulated quantities "
        f"(largest error {worst(simulated):.2%}), "
        f"{sum(c.verdict == 'PASS' for c in measured)}/{len(measured)} quantities of equilibrated real layers "
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
                "gated": list(trace.gated),
                **trace.report.to_dict(),
            }
            for trace in traces
        ],
        "provenance": dataset.provenance(),
    }
    return json.dumps(content, indent=1) + "\n"
