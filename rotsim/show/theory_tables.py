"""Tables of what theory and walks say: equilibria, conversions, courses, comparisons, sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from rotsim.show.terminal import NUMBER, QUANTITY, or_dash, plain_table, plus_minus, verdict_text

if TYPE_CHECKING:
    import xarray as xr

    from rotsim.checks import Report
    from rotsim.optimizers.base import Optimizer
    from rotsim.theory.conversion import Conversion
    from rotsim.theory.equilibrium import Equilibrium

_LABEL = {
    "norm": "norm ‖w‖",
    "rotation": "rotation, rad per step",
    "update_rms": "update size ‖Δw‖",
    "relaxation_steps": "relaxation of ‖w‖², steps",
}
_PACE = {
    "rotation": "rotation, rad per step",
    "update_ratio": "update / weight",
    "norm": "norm ‖w‖",
    "rms": "RMS of an entry",
    "half_life": "half-life, steps",
    "ema_steps": "EMA time, steps",
    "relaxation_steps": "relaxation of ‖w‖², steps",
    "gradient_norm": "gradient norm",
    "relative_lr": "hyperball lr",
}
#: What the verdicts of a comparison mean. A legend shows those that its table has: any other would look like a verdict.
_MEANING = {
    "PASS": "PASS: the error is within what is allowed and the noise of the measurement.",
    "FAIL": "FAIL: the error is larger than what is allowed and the noise of the measurement.",
    "UNRESOLVED": "UNRESOLVED: noise, or the error that the prediction declares, is too large for a verdict.",
    "NOT EQUILIBRATED": "NOT EQUILIBRATED: the walk is not known to have settled, so its error says nothing.",
}
MOST_SPANS = 3  # stretches of steps that a sentence names
MOST_ROWS = 24  # rows of the table of a sweep, so that it fits a screen


def equilibrium_table(optimizer: Optimizer, exact: Equilibrium, leading: Equilibrium, title: str) -> Table:
    """Exact prediction beside the paper's leading-order one."""
    numbers = ("exact", "leading order", "leading / exact - 1")
    table = plain_table(title, "quantity", *numbers, numbers=numbers)
    for name in ("norm", "rotation", "update_rms", "relaxation_steps"):
        a, b = getattr(exact, name), getattr(leading, name)
        if isfinite(a) and a > 0:  # a rotational variant keeps its norm and has no transient
            table.add_row(_LABEL[name], f"{a:.6g}", f"{b:.6g}", f"{b / a - 1:+.2%}")
    table.caption = (
        f"Leading order: the paper's formulas. Relative error from what each neglects: "
        f"exact about {exact.model_error:.1g}, leading {leading.model_error:.1g}."
    )
    if note := optimizer.plain.schedule_note:
        table.caption += f"\n{note}"
    return table


def conversion_table(found: Conversion, units: Mapping[str, float], assumed: str) -> Table:
    """A setting beside its counterpart; `units` has steps per epoch, tokens per step; `assumed` stands in the title."""
    source, target = found.source, found.target
    labels = (source.label, target.label if target.label != source.label else f"{target.label}, new")
    kept = ", ".join(name.replace("_", " ") for name in found.kept) or "nothing"
    told = (NUMBER.sub(lambda number: f"{float(number[0]):.6g}", spec.describe()) for spec in (source, target))
    title = f"{' → '.join(told)} keeps {kept}; {assumed}"
    table = plain_table(title, "quantity", *labels, "ratio", numbers=(*labels, "ratio"))
    ours, theirs = (found.to_dict()[side]["decays"] for side in ("source", "target"))
    rows: list[tuple[str, float, float]] = [("lr", source.lr, target.lr)]
    for name in dict.fromkeys([*ours, *theirs]):
        rows.append((f"weight decay, {name}", ours.get(name, np.nan), theirs.get(name, np.nan)))
    for name, label in _PACE.items():
        a, b = getattr(found.before, name), getattr(found.after, name)
        rows.append((label, a, b))
        if name == "ema_steps":
            factors = {unit: 1 / per if unit == "epochs" else per for unit, per in units.items()}
            rows += [(f"EMA time, {unit}", a * factor, b * factor) for unit, factor in factors.items()]
    for label, a, b in rows:
        table.add_row(label, or_dash(a, ".5g"), or_dash(b, ".5g"), or_dash(b / a if a else np.nan, ".4g"))
    error = max(found.before.model_error, found.after.model_error)
    table.caption = (
        "EMA time: 1 / (share of the weights that a step's decay takes). hyperball lr: the relative learning rate at "
        "which the optimizer's hyperball turns as far. Decoupled is PyTorch's AdamW; --help explains other decays. "
        f"Relative error from what the formulas neglect: about {error:.1g}."
    )
    specs = (source.plain, target.plain)
    if any(spec.shape == "identity" or spec.decay == "coupled" for spec in specs):
        table.caption += (
            "\ngradient norm: of the gradients assumed above, at that norm. These rates depend on the gradients' scale "
            "and on dim: --scale and --dim give yours."
        )
    if any(spec.acts_on == "matrix" for spec in specs):
        table.caption += "\nMuon's rates are those of this shape: --shape gives another."
    for note in dict.fromkeys(spec.schedule_note for spec in specs):
        table.caption += f"\n{note}" if note else ""
    return table


def course_table(course: xr.Dataset, in_force: xr.Dataset, title: str, note: str) -> Table:
    """A predicted course beside the equilibrium of the rates in force, at some ten steps."""
    numbers = ("step", "lr", "norm ‖w‖", "/ settled", "rotation, rad", "/ settled")
    table = plain_table(title, *numbers, numbers=numbers)
    rows = np.unique(np.geomspace(1, course.sizes["step"], 12).round().astype(int)) - 1

    def share(name: str, row: int) -> str:
        ratio = float(course[name][0, row] / in_force[name][row])
        return f"{ratio:.2f}" if isfinite(ratio) else "-"

    for row in rows:
        norm, rotation = (float(course[name][0, row]) for name in ("norm", "rotation"))
        table.add_row(
            str(int(course["step"][row])), f"{float(in_force['lr'][row]):.3g}", f"{norm:.4g}", share("norm", row),
            f"{rotation:.4g}", share("rotation", row),
        )  # fmt: skip
    table.caption = f"/ settled: over the equilibrium of the rates in force at that step. {note}".strip()
    return table


def settled_note(course: xr.Dataset, in_force: xr.Dataset, within: float) -> str:
    """In which steps of a schedule norm and rotation are near the equilibrium of the rates in force, in a sentence."""
    near = np.ones(course.sizes["step"], dtype=bool)
    for name in ("norm", "rotation"):
        near &= abs(course[name].values[0] / in_force[name].values - 1) <= within
    ends = np.append(0, course["step"].values)
    edges = np.flatnonzero(np.diff(near, prepend=False, append=False)).reshape(-1, 2)
    spans = [f"{ends[first] + 1} to {ends[last]}" for first, last in edges[:MOST_SPANS]]
    if len(edges) > MOST_SPANS:
        spans.append("later ones")
    where = f"in steps {', '.join(spans)}" if spans else "in no step"
    return f"Under this schedule norm and rotation are within {100 * within:g} % of the equilibrium in force {where}."


def report_table(report: Report, title: str, measured: str = "simulated") -> Table:
    """A comparison, one row per check."""
    numbers = ("predicted", f"{measured} ±SE", "error", "allowed")
    notes = set()
    table = plain_table(title, "group", "quantity", *numbers, "verdict", numbers=numbers)
    for check in report:
        table.add_row(
            check.group,
            QUANTITY[check.quantity],
            f"{check.predicted:.5g}",
            plus_minus(check.measured, check.standard_error),
            f"{check.relative_error:+.2%}",
            f"{check.tolerance:.2%}",
            verdict_text(check.verdict),
        )
        notes.add(f"{check.group}: {check.note}" if len({c.group for c in report}) > 1 else check.note)
    verdicts = {check.verdict for check in report}
    explained = [meaning for verdict, meaning in _MEANING.items() if verdict in verdicts]
    table.caption = "\n".join([*sorted(notes), *explained])
    return table


def sweep_table(result: xr.Dataset) -> Table:
    """Every cell of a small sweep, or the extremes of each number; below it why cells have none.

    Of what has a dimension of its own, as the windows of a course, it shows the last.
    """
    grid = result["reason"].dims
    own = [dim for dim in result.dims if dim not in grid]
    last = result.isel({dim: -1 for dim in own})
    numbers = [str(name) for name in result.data_vars if name not in ("reason", "model_error")]
    reasons = result["reason"].values.ravel()
    without = {str(reason): int((reasons == reason).sum()) for reason in np.unique(reasons[reasons != ""])}
    cells = f"{len(reasons)} cell{'s' * (len(reasons) != 1)}"
    notes = [f"{count} of {cells}: {reason}" for reason, count in sorted(without.items())]
    axes = [str(name) for name in result.coords if set(result.coords[name].dims) <= set(grid)]
    notes += [f"{dim} {result[dim].values[-1]:g}" for dim in own if dim in result.coords]
    over = " x ".join(f"{dim} {result.sizes[dim]}" for dim in grid)
    title = f"{result.attrs['measure']}, {cells}: {over}" if grid else f"{result.attrs['measure']}, {cells}"
    if len(reasons) <= MOST_ROWS:
        table = plain_table(title, *axes, *numbers, numbers=(*axes, *numbers), caption="\n".join(notes[:3]))
        flat = {name: last[name].broadcast_like(last["reason"]).values.ravel() for name in [*axes, *numbers]}
        for place in range(len(reasons)):
            values = [
                str(flat[name][place]) if flat[name].dtype.kind in "US" else f"{flat[name][place]:.4g}" for name in axes
            ]
            table.add_row(*values, *(or_dash(flat[name][place], ".4g") for name in numbers))
        return table
    extremes = "least", "median", "greatest"
    table = plain_table(title, "quantity", *extremes, numbers=extremes, caption="\n".join(notes[:3]))
    for name in numbers:
        known = last[name].values[np.isfinite(last[name].values)]
        table.add_row(name, *(f"{np.quantile(known, q):.6g}" if known.size else "-" for q in (0, 0.5, 1)))
    return table
