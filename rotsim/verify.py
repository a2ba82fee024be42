"""`rotsim verify`: derivation, simulation and real networks held against one theory, with a verdict.

The closed forms are derived again and compared with the code in use. The random walk is simulated,
and compared with them. So are recorded traces of real networks. The outcome is a table, a figure and JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rotsim import dataset, files
from rotsim.checks import Check, Report
from rotsim.comparison import compare
from rotsim.diagnosis import TOLERANCE, Diagnosis, diagnose
from rotsim.errors import integer
from rotsim.gradients import Gradient, Isotropic, ScaleInvariant
from rotsim.optimizers import OPTIMIZERS
from rotsim.optimizers.base import Optimizer
from rotsim.show.terminal import QUANTITY, plain_table, plus_minus, verdict_text
from rotsim.show.terminal import console as terminal_console
from rotsim.simulation import simulate
from rotsim.theory.equilibrium import Equilibrium, equilibrium

if TYPE_CHECKING:
    import xarray as xr

# Six standard errors: about 50 checks are made, and a right theory should fail one run in 10^7.
K = 6.0
QUICK_TRACES = ("digits_adamw", "digits_sgdm")  # the others take longest to follow
_SHORT_NAMES = {"scale_invariant": "scale-inv."}
MOST_COLUMNS = 128  # of a matrix: its products take most of the time
_RELAXATIONS = 14  # from twice the equilibrium norm: the second half, which counts, is 2e-4 too large


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
    """One recorded network and its diagnosis, which says what the prediction claims of it."""

    name: str
    data: xr.Dataset
    diagnosis: Diagnosis

    @property
    def device(self) -> str:
        """What trained it, as the trace says."""
        return str(json.loads(self.data.attrs["provenance"]).get("device", "unknown"))


def run(
    quick: bool = False,
    output: str | os.PathLike[str] | None = None,
    seed: int = 0,
    predict: Callable[..., Equilibrium] = equilibrium,
    console: Console | None = None,
) -> bool:
    """Run every stage; True if all agree.

    Parameters
    ----------
    quick : bool
        One noise model, smaller walks, two networks and a declared part of the proofs only.
    output : str or Path, optional
        Folder for ``verify.json`` and ``verify.png``; created if absent.
    seed : int
        Seed of the simulated walks.
    predict : callable
        Stands in for `rotsim.equilibrium`; the negative controls pass a wrong one.
    console : rich Console, optional
    """
    console = console or terminal_console()
    seed = integer("seed", seed, low=0)
    folder = None if output is None else files.output_folder(output, "verify.json", "verify.png")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        _derivations(bar, quick) as proved,
    ):
        traces = _networks(bar, quick)  # on one core, while proofs have the others; walks take all that are free
        cases = _simulations(bar, quick, seed, predict)
        console.print(_simulation_table(cases))
        console.print(_network_table(traces))
        proofs = proved()
        console.print(_derivation_line(proofs, quick))
    passed = verdict(proofs, cases, traces)
    if folder is not None:
        from rotsim.show.plotting import save_figure, verify_figure

        text = _json(passed, seed, proofs, cases, traces)
        files.write_atomically(folder / "verify.json", text)
        walks = [(case.data, case.exact) for case in cases]
        networks = {trace.name: (trace.data, trace.diagnosis) for trace in traces}
        save_figure(verify_figure(walks, networks), folder / "verify.png")
        console.print(f"wrote {folder / 'verify.json'} and {folder / 'verify.png'}")
    console.print(_summary(passed, proofs, cases, traces))
    return passed


def verdict(proofs: list[Check], cases: list[Case], traces: list[TraceCase]) -> bool:
    """All proofs hold, all simulations pass, and every layer of a network agrees where the diagnosis claims it does.

    What is claimed is decided before agreement is looked at (`rotsim.diagnosis`). A layer without a claim says
    nothing about the theory, nor does one that is unresolved. But every optimizer must have one that agrees.
    """
    optimizers = {trace.diagnosis.optimizer.name for trace in traces}
    return (
        all(check.passed for check in proofs)
        and all(case.report.passed for case in cases)
        and not any(trace.diagnosis.refuted for trace in traces)
        and {trace.diagnosis.optimizer.name for trace in traces if trace.diagnosis.passed} == optimizers
    )


def proof(statement: str, holds: bool) -> Check:
    """A statement that sympy proved, or did not."""
    return Check.of(statement, verdict="PASS" if holds else "FAIL")


@contextmanager
def _derivations(bar: Progress, quick: bool) -> Iterator[Callable[[], list[Check]]]:
    """Begin the proofs in other processes; gives a function that waits for their statements."""
    import derivations
    from derivations.workers import Proofs

    names = derivations.QUICK if quick else tuple(derivations.DERIVATIONS)
    task = bar.add_task("proving with sympy", total=len(names))
    with Proofs(names, progress=lambda proved, _: bar.update(task, completed=proved)) as proofs:
        yield lambda: [proof(*found) for found in derivations.verdicts(proofs.results())]
    bar.remove_task(task)


def _simulations(bar: Progress, quick: bool, seed: int, predict: Callable[..., Equilibrium]) -> list[Case]:
    dim, neurons, least = (128, 32, 4_000) if quick else (512, 40, 8_000)
    models: list[Gradient] = [ScaleInvariant()] if quick else [ScaleInvariant(), Isotropic(0.05)]
    settings = [(o, g) for spec in OPTIMIZERS.values() for g in models for o in spec.examples()]
    task = bar.add_task("simulating", total=len(settings))
    cases = []
    for index, (optimizer, gradient) in enumerate(settings):
        bar.update(task, description=f"simulating {optimizer.label}, {gradient.name}")
        matrix = optimizer.acts_on == "matrix"
        form = {"rows": neurons} if matrix else {}  # all make one matrix
        columns = min(dim, MOST_COLUMNS) if matrix else dim
        exact, leading = (predict(optimizer, columns, gradient, method, **form) for method in ("exact", "leading"))
        steps = 100 * round(max(least, _RELAXATIONS * exact.relaxation_steps) / 100)
        data = simulate(
            optimizer,
            dim=columns,
            neurons=neurons,
            steps=steps,
            gradient=gradient,
            seed=seed + index,
            initial_norm=2.0 * exact.norm,
            record_every=int(np.clip(exact.relaxation_steps / 10, 1, 100)),
            progress=lambda done, total, index=index: bar.update(task, completed=index + done / total),  # type: ignore[misc]
            engine="numba",  # the walk itself, also where `simulate` would take a shortcut
        )
        cases.append(Case(optimizer, gradient, data, exact, leading, compare(data, exact, k=K)))
    bar.remove_task(task)
    return cases


def _networks(bar: Progress, quick: bool) -> list[TraceCase]:
    from rotsim.measure.shipped import gpu_traces, shipped_traces

    found = {name: path for name, path in shipped_traces().items() if not quick or name in QUICK_TRACES}
    found |= {} if quick else gpu_traces()
    task = bar.add_task("reading real networks", total=len(found))
    traces = []
    for name, path in found.items():
        data = dataset.load(path)
        traces.append(TraceCase(name, data, diagnose(data)))
        bar.advance(task)
    bar.remove_task(task)
    return traces


def _derivation_line(proofs: list[Check], quick: bool) -> str:
    wrong = [check.statement for check in proofs if not check.passed]
    if wrong:
        return "[bold red]FAIL[/] derivations: " + "; ".join(wrong)
    if quick:
        import derivations

        which = f"of {len(derivations.QUICK)} of {len(derivations.DERIVATIONS)} derivations"
        return f"[green]PASS[/] {len(proofs)} statements {which} hold by sympy (all: python -m derivations --check)"
    return f"[green]PASS[/] {len(proofs)} statements derived by sympy hold (python -m derivations --check lists them)"


def _simulation_table(cases: list[Case]) -> Table:
    numbers = ("predicted", "simulated ±SE", "error", "paper")
    table = plain_table("Theory against simulation", "walk", "quantity", *numbers, "verdict", numbers=numbers)
    for case in cases:
        decay = case.optimizer.lr * case.optimizer.weight_decay
        walk = (case.optimizer.label, f"lr·wd {decay:.2g}", _SHORT_NAMES.get(case.gradient.name, case.gradient.name))
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
    numbers = ("predicted", "measured ±SE", "rotation", "norm")
    table = plain_table("Theory against real networks", "network", *numbers, "verdict", numbers=numbers)
    for trace in traces:
        table.add_row(f"{trace.name.replace('_', ' ', 1)}, {trace.device}")
        for layer in trace.diagnosis.layers:
            claims = layer.claims
            table.add_row(
                "  " + layer.layer.removesuffix(".weight"),
                f"{layer.predicted_rotation:.3g}",
                plus_minus(layer.measured_rotation, layer.rotation_error),
                *(f"{layer.error(q):+.1%}" if q in claims else f"[dim]{layer.error(q):+.0%}[/]" for q in TOLERANCE),
                verdict_text(layer.outcome) if layer.outcome else f"[dim]{layer.verdict}[/]",
                end_section=layer is trace.diagnosis.layers[-1],
            )
    allowed = " and ".join(f"{QUANTITY[name]} {share:.0%}" for name, share in TOLERANCE.items())
    table.caption = (
        "Rotation in rad per step, medians over neurons; errors of rotation and norm: of the quarter furthest off. "
        f"PASS: the prediction applies, by a diagnosis made before, and agrees to {allowed}. "
        "UNRESOLVED: noise of the measurement could explain a miss, or hide one. "
        "Other words: why nothing is claimed; `rotsim trace report` gives the reasons."
    )
    return table


def _summary(passed: bool, proofs: list[Check], cases: list[Case], traces: list[TraceCase]) -> str:
    simulated = [check for case in cases for check in case.report]
    claimed = [layer for trace in traces for layer in trace.diagnosis.claimed]
    layers = sum(len(trace.diagnosis.layers) for trace in traces)
    return (
        f"{verdict_text('PASS' if passed else 'FAIL')} "
        f"{sum(check.passed for check in proofs)}/{len(proofs)} proofs, "
        f"{sum(check.passed for check in simulated)}/{len(simulated)} simulated quantities "
        f"(largest error {_worst([check.relative_error for check in simulated]):.2%}), "
        f"{sum(layer.agrees for layer in claimed)}/{len(claimed)} real layers of {layers} that theory claims "
        f"(largest error: rotation {_worst([layer.error('rotation') for layer in claimed]):.1%}, "
        f"norm {_worst([layer.error('norm') for layer in claimed if 'norm' in layer.claims]):.1%})"
    )


def _worst(errors: list[float]) -> float:
    return float(np.max(np.abs(errors))) if errors else 0.0


def _json(passed: bool, seed: int, proofs: list[Check], cases: list[Case], traces: list[TraceCase]) -> str:
    content: dict[str, Any] = {
        "passed": passed,
        "seed": seed,
        "standard_errors_allowed": K,
        "derivations": [check.to_dict() for check in proofs],
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
                "device": trace.device,
                "spec": dataset.spec_of(trace.data),
                **trace.diagnosis.to_dict(),
                **trace.diagnosis.report().to_dict(),
            }
            for trace in traces
        ],
        "provenance": dataset.provenance(),
    }
    return files.to_json(content)
