"""What a person sees in the terminal: tables of predictions and verdicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from rotsim.dataset import layer_name
from rotsim.show.streams import readable

if TYPE_CHECKING:
    import xarray as xr

    from rotsim.balance import Balance
    from rotsim.checks import Report
    from rotsim.decay import DecayUsed
    from rotsim.diagnosis import Diagnosis
    from rotsim.evidence import Evidence
    from rotsim.optimizers.base import Optimizer
    from rotsim.overview import Group
    from rotsim.theory.conversion import Conversion
    from rotsim.theory.equilibrium import Equilibrium

_STYLE = {"PASS": "green", "FAIL": "bold red", "NOT EQUILIBRATED": "yellow", "UNRESOLVED": "yellow"}
QUANTITY = {"norm": "norm", "rotation": "rotation", "update_rms": "update"}


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

MIN_WIDTH = 20  # columns; a terminal that says it is narrower is taken for this
_NAME_WIDTH = 12  # columns; names are folded to them before a table gives up its form
_WIDEST_COLUMNS = 10_000  # columns: more than any table takes

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def verdict_text(verdict: str) -> str:
    """A verdict in its colour."""
    return f"[{_STYLE.get(verdict, 'white')}]{verdict}[/]"


def plus_minus(value: float, error: float) -> str:
    """Value to the digit its standard error reaches, and the error to one digit: 5.038 ±0.005."""
    if not (np.isfinite(error) and error > 0 and value > 0):
        return f"{value:.5g} ±{error:.1g}"
    digits = int(np.clip(np.floor(np.log10(value)) - np.floor(np.log10(error)) + 1, 2, 7))
    return f"{value:.{digits}g} ±{error:.0e}" if error < 1e-3 else f"{value:.{digits}g} ±{error:.1g}"


MOST_ROWS = 24  # rows of the table of a sweep, so that it fits a screen


class _Readable(Console):
    """A console that spells what its terminal cannot show before it lays out a table, so that columns stay straight."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(readable(text, self.encoding), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command's entry point answers it; rich would exit with the code of a disagreement


def console(stderr: bool = False, **options: Any) -> Console:
    """Where commands print: on any terminal, of at least `MIN_WIDTH` columns.

    Parameters
    ----------
    stderr : bool
        Print to standard error, as progress does.
    **options
        Of `rich.console.Console`.

    Returns
    -------
    Console
    """
    made = _Readable(stderr=stderr, **options)
    if made.width < MIN_WIDTH:
        made.width = MIN_WIDTH
    return made


class _Table(Table):
    """A table that becomes a list of its rows where its numbers do not fit side by side."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for column in self.columns:
            if column.header == "verdict" and column.min_width is None:  # a verdict wraps between its words only
                words = " ".join(console.render_str(str(cell)).plain for cell in (column.header, *column.cells)).split()
                column.min_width = max(map(len, words))
        if self._needed(console, options) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        if self.title:
            yield f"[bold]{self.title}[/]\n"
        headers = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            first, *others = map(str, row)
            yield f"[bold]{first}[/]" if first else ""
            yield from (f"  {header}: {cell}" for header, cell in zip(headers[1:], others, strict=True) if cell)
        if self.caption:
            yield ""
            yield self.caption

    def _needed(self, console: Console, options: ConsoleOptions) -> int:
        """Columns that the table takes with its names folded and its numbers whole."""
        width = Measurement.get(console, options.update(width=_WIDEST_COLUMNS), self).maximum
        for column in self.columns:
            if not column.no_wrap:
                longest = max(console.render_str(str(cell)).cell_len for cell in (column.header, *column.cells))
                width -= max(0, longest - (column.min_width or _NAME_WIDTH))
        return width


def plain_table(title: str, *columns: str, numbers: tuple[str, ...] = (), caption: str = "") -> Table:
    """A table that fits 80 columns: few rules, numbers right-aligned."""
    table = _Table(
        title=escape(title), title_justify="left", title_style="bold", caption=caption, caption_justify="left",
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in columns:
        right = column in numbers
        wrap = column == "verdict"  # a verdict wraps between its words only
        table.add_column(
            column, justify="right" if right else "left", no_wrap=not wrap, overflow="fold",
        )  # fmt: skip
    return table


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
    return table


def conversion_table(found: Conversion, units: Mapping[str, float], gradients: str) -> Table:
    """A setting beside its counterpart; `units` has steps per epoch, tokens per step."""
    source, target = found.source, found.target
    labels = (source.label, target.label if target.label != source.label else f"{target.label}, new")
    kept = ", ".join(name.replace("_", " ") for name in found.kept) or "nothing"
    told = (_NUMBER.sub(lambda number: f"{float(number[0]):.6g}", spec.describe()) for spec in (source, target))
    title = f"{' → '.join(told)} keeps {kept}; {gradients}"
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
        table.add_row(label, _or_dash(a, ".5g"), _or_dash(b, ".5g"), _or_dash(b / a, ".4g"))
    error = max(found.before.model_error, found.after.model_error)
    table.caption = (
        "EMA time: 1 / (share of the weights that a step's decay takes). hyperball lr: the relative learning rate of a "
        "walk at constant norm that turns as much. Decoupled is PyTorch's AdamW; --help explains the other decays. "
        f"Relative error from what the formulas neglect: about {error:.1g}."
    )
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
    table.caption = "\n".join(sorted(notes))
    return table


def _give_way(table: Table) -> None:
    """Fold the first column, of names, over several lines before any number is cut."""
    table.columns[0].no_wrap = False
    for column in table.columns[1:]:
        column.no_wrap, column.min_width = True, len(str(column.header))


def _or_dash(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "-"


def diagnosis_table(diagnosis: Diagnosis, title: str) -> Table:
    """One row per layer."""
    numbers = ("theory", "measured", "ratio", "worst", "corr.", "±10 %")
    table = plain_table(title, "layer", "verdict", *numbers, numbers=numbers)
    _give_way(table)
    table.columns[1].min_width = max(len(layer.verdict) for layer in diagnosis.layers)
    for layer in diagnosis.layers:
        doubtful = layer.outcome not in ("PASS", None)
        color = "green" if layer.applies else "yellow"
        table.add_row(
            escape(layer_name(layer.layer)),
            verdict_text(layer.outcome) if layer.outcome and doubtful else f"[{color}]{layer.verdict}[/]",
            _or_dash(layer.predicted_rotation, ".3g"),
            _or_dash(layer.measured_rotation if layer.fan_in > 1 else np.nan, ".3g"),
            _or_dash(layer.ratio, ".2f"),
            _or_dash(1 + layer.error("rotation"), ".2f"),
            _or_dash(layer.measured_rotation / layer.corrected_rotation, ".2f"),
            _or_dash(layer.within, ".0%"),
        )
    table.caption = (
        "Rotation, rad per step: median over neurons, RMS over the run. theory: the course that the rates set. ratio: "
        "measured / predicted. worst: the same in the quarter of the run where it is furthest from 1, which is judged. "
        "corr.: measured / prediction with the gradient's radial part (λ_eff), which explains and does not predict. "
        "±10 %: share of neurons within 10 %."
    )
    return table


def overview_table(groups: Sequence[Group], title: str, first: str) -> Table:
    """One row per group of layers, worst first."""
    numbers = ("layers", "theory", "measured", "ratio", "norm", "pace")
    table = plain_table(title, first, "verdict", *numbers, "furthest off", numbers=numbers)
    _give_way(table)
    for group in groups:
        worst = group.worst
        table.add_row(
            escape(group.name), group.verdicts, str(len(group.layers)),
            _or_dash(group.median("predicted_rotation"), ".3g"), _or_dash(group.median("measured_rotation"), ".3g"),
            _or_dash(group.median("ratio"), ".2f"), _or_dash(group.median("norm_ratio"), ".2f"),
            _or_dash(group.pace, ".2f"), f"{escape(layer_name(worst.layer))} {_or_dash(worst.ratio, '.2f')}",
        )  # fmt: skip
    table.caption = (
        "Medians over layers. theory, measured: rotation in rad per step. ratio, norm: measured / predicted rotation "
        "and norm. pace: rotation over that of the median layer. Worst first; --all shows every layer and its reason."
    )
    return table


def watch_table(diagnosis: Diagnosis, trace: xr.Dataset, title: str, most: int | None = None) -> Table:
    """The last window of a training that goes on, one row per layer; at most so many rows, of those furthest off."""
    numbers = ("rotation", "theory", "ratio", "norm", "theory ")
    table = plain_table(title, "layer", "verdict", *numbers, "so far", numbers=numbers)
    _give_way(table)
    names = {layer.layer: row for row, layer in enumerate(diagnosis.layers)}
    far = sorted(diagnosis.layers, key=lambda layer: np.nan_to_num(abs(np.log(layer.ratio)), nan=-1.0), reverse=True)
    shown = sorted(far[:most], key=lambda layer: names[layer.layer])
    for layer in shown:
        curves = layer.curves
        last = [curves.measured["rotation"], curves.predicted["rotation"], curves.measured["norm"],
                curves.predicted["norm"]] if curves else [np.array([np.nan])] * 4  # fmt: skip
        rotation, theory, norm, settled = (float(values[-1]) for values in last)
        table.add_row(
            escape(layer_name(layer.layer)), layer.verdict, _or_dash(rotation, ".3g"), _or_dash(theory, ".3g"),
            _or_dash(rotation / theory if theory else np.nan, ".2f"), _or_dash(norm, ".3g"), _or_dash(settled, ".3g"),
            _sparkline(curves.ratio["rotation"]) if curves else "",
        )  # fmt: skip
    left = len(diagnosis.layers) - len(shown)
    table.caption = (
        f"{diagnosis.rates()}, step {int(trace['step'].values[-1])}. Last window: rotation in rad per step and norm, "
        f"medians over neurons, and the course that the rates set. so far: ratio over the run, from {_SPARKS[0]} = 1/2 "
        f"to {_SPARKS[-1]} = 2." + (f" {left} layers nearer to theory are not shown." if left else "")
    )
    return table


_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_COLUMNS = 16


def _sparkline(ratio: np.ndarray) -> str:
    """Ratios over time as a row of bars, on a scale of logarithms from 1/2 to 2."""
    parts = np.array_split(ratio, min(_SPARK_COLUMNS, len(ratio)))
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.nan_to_num(np.log2([np.mean(part) for part in parts]), nan=-1.0, posinf=1.0, neginf=-1.0)
    return "".join(_SPARKS[round((min(max(each, -1.0), 1.0) + 1) / 2 * (len(_SPARKS) - 1))] for each in height)


def norm_table(diagnosis: Diagnosis) -> Table:
    """Predicted and measured norm of every layer that has a prediction."""
    numbers = ("theory", "measured", "ratio", "worst", "gradients")
    table = plain_table("Norm ‖w‖ of the same layers", "layer", "claimed", *numbers, numbers=numbers)
    _give_way(table)
    for layer in diagnosis.layers:
        if not np.isfinite(layer.predicted_norm):
            continue
        factor = max((quarter.remembered_norm for quarter in layer.quarters), key=lambda x: abs(x - 1), default=np.nan)
        table.add_row(
            escape(layer_name(layer.layer)), "yes" if "norm" in layer.claims else "no", f"{layer.predicted_norm:.3g}",
            f"{layer.measured_norm:.3g}", f"{layer.norm_ratio:.2f}", _or_dash(1 + layer.error("norm"), ".2f"),
            _or_dash(factor, ".2f"),
        )  # fmt: skip
    table.caption = (
        "gradients: what of the prediction the measured gradients make, correlated or uneven as they are, where white "
        "noise would give 1. A norm is claimed where that is within 10 % of 1 in each quarter."
    )
    return table


def forecast_table(diagnosis: Diagnosis) -> Table:
    """The second half of the run of layers without a claim, from the first."""
    numbers = ("rotation", "foreseen", "worst", "norm", "foreseen ", "worst ")
    table = plain_table(
        "Second half of the run, foreseen from the first", "layer", "verdict", *numbers, numbers=numbers
    )
    _give_way(table)
    for layer in diagnosis.layers:
        if layer.rest is None or not layer.rest.quarters:
            continue
        last, cells = layer.rest.quarters[-1], []
        for quantity in ("rotation", "norm"):
            worst = max((each.error(quantity) for each in layer.rest.quarters), key=abs)
            cells += [f"{last.measured(quantity):.3g}", f"{last.predicted(quantity):.3g}", f"{1 + worst:.2f}"]
        verdict = verdict_text(layer.foreseen_outcome) if layer.foreseen_outcome else "[dim]not claimed[/]"
        table.add_row(escape(layer_name(layer.layer)), verdict, *cells)
    table.caption = (
        "Medians over neurons, of the last quarter: measured and foreseen. worst: measured / foreseen in the quarter "
        "that is further off. The first half shows what gradients add to the norm and how far they step across the "
        "weights. Not claimed where that did not last from its first quarter to its second."
    )
    return table


def checkpoints_table(layers: Sequence[Evidence], used: DecayUsed, title: str) -> Table:
    """Of saved weights: norm, angle between two checkpoints, and decay, each beside what was predicted or given."""
    numbers = ("norm", "theory", "angle", "theory ", "decay used/given")
    table = plain_table(title, "layer", *numbers, numbers=numbers)
    _give_way(table)
    for layer, decay in zip(layers, used.layers, strict=True):
        table.add_row(
            escape(layer_name(layer.layer)),
            _or_dash(layer.measured_norm, ".3g"), _or_dash(layer.predicted_norm, ".3g"),
            _or_dash(layer.measured_rotation, ".3g"), _or_dash(layer.predicted_rotation, ".3g"),
            f"{decay.ratio:.3g} ± {decay.standard_error:.1g}" if np.isfinite(decay.ratio) else "-",
        )  # fmt: skip
    table.caption = (
        "Medians over neurons of the RMS over checkpoints. angle: rad, from one checkpoint to the next. theory: the "
        "course that the rates set. decay: lr·weight_decay, from how much of earlier weights is left in later ones."
    )
    return table


def diagnosis_reasons(diagnosis: Diagnosis) -> str:
    """Why the prediction is not claimed to hold, and which neurons are left out; layers with like reasons together."""
    found: dict[str, list[tuple[str, str]]] = {}
    for layer in diagnosis.layers:
        reasons = [f"{check.quantity}, {check.note}" for check in layer.checks() if not check.passed]
        reasons += [] if layer.applies else [layer.reason]
        reasons += [f"{check.quantity}, {check.note}" for check in layer.foreseen() if not check.passed]
        reasons += [f"Not foreseen: {layer.rest.forbidden}"] if layer.rest and layer.rest.forbidden else []
        if 0 < layer.dead < layer.neurons:
            reasons.append(f"{layer.dead} of {layer.neurons} neurons get no gradient in most steps; left out.")
        if 0 < layer.lost < layer.neurons:
            reasons.append(f"{layer.lost} of {layer.neurons} neurons have numbers that are not finite; left out.")
        for reason in reasons:
            found.setdefault(_NUMBER.sub("#", reason), []).append((layer_name(layer.layer), reason))
    return "\n".join(
        f"[bold]{escape(', '.join(name for name, _ in group))}[/]: {escape(_merged([reason for _, reason in group]))}"
        for group in found.values()
    )


def _merged(sentences: Sequence[str]) -> str:
    """Sentences that differ in numbers alone as one, which gives their range."""
    columns = zip(*(_NUMBER.findall(sentence) for sentence in sentences), strict=True)
    ranges = iter([" to ".join(dict.fromkeys([min(c, key=float), max(c, key=float)])) for c in columns])
    return _NUMBER.sub(lambda _: next(ranges), sentences[0])


def sampled_text(diagnosis: Diagnosis, totals: Mapping[str, int]) -> str:
    """Of which parameters not all neurons were recorded; empty if of none."""
    some: Counter[str] = Counter()
    for layer in diagnosis.layers:
        some[layer.layer.split("[")[0]] += layer.neurons
    return "; ".join(f"{layer_name(name)}: {some[name]} of {total} neurons" for name, total in totals.items())


def skipped_text(skipped: Mapping[str, str]) -> str:
    """What the recorder left out, by reason; empty if nothing."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(
        f"{', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''} ({reason})"
        for reason, found in names.items()
    )


def balance_table(first: Balance, second: Balance, names: tuple[str, str], title: str) -> Table:
    """Two runs side by side: rotation by layer, and how evenly it is spread."""
    numbers = (*names, "ratio")
    table = plain_table(title, "median rotation, rad", *numbers, numbers=numbers)
    _give_way(table)
    for layer in dict.fromkeys([*first.rotation, *second.rotation]):
        a, b = first.rotation.get(layer, np.nan), second.rotation.get(layer, np.nan)
        cells = (_or_dash(a, ".4g"), _or_dash(b, ".4g"), _or_dash(b / a, ".2f"))
        table.add_row(escape(layer_name(layer)), *cells)
    table.add_section()
    for label, key in (("fastest / slowest layer", "across_layers"), ("spread over neurons", "within_layers")):
        a, b = getattr(first, key), getattr(second, key)
        table.add_row(label, f"{a:.3g}", f"{b:.3g}", f"{b / a:.2f}" if a else "-")
    table.caption = "Spread: standard deviation over mean inside a layer, averaged over layers. Dead neurons left out."
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
    notes = [f"{count} of {len(reasons)} cells: {reason}" for reason, count in sorted(without.items())]
    axes = [str(name) for name in result.coords if set(result.coords[name].dims) <= set(grid)]
    notes += [f"{dim} {result[dim].values[-1]:g}" for dim in own if dim in result.coords]
    title = f"{result.attrs['measure']}, {len(reasons)} cells: " + " x ".join(f"{d} {result.sizes[d]}" for d in grid)
    if len(reasons) <= MOST_ROWS:
        table = plain_table(title, *axes, *numbers, numbers=(*axes, *numbers), caption="\n".join(notes[:3]))
        flat = {name: last[name].broadcast_like(last["reason"]).values.ravel() for name in [*axes, *numbers]}
        for place in range(len(reasons)):
            cells = [
                str(flat[name][place]) if flat[name].dtype.kind in "US" else f"{flat[name][place]:.4g}" for name in axes
            ]
            table.add_row(*cells, *(_or_dash(flat[name][place], ".4g") for name in numbers))
        return table
    extremes = "least", "median", "greatest"
    table = plain_table(title, "quantity", *extremes, numbers=extremes, caption="\n".join(notes[:3]))
    for name in numbers:
        known = last[name].values[np.isfinite(last[name].values)]
        table.add_row(name, *(f"{np.quantile(known, q):.6g}" if known.size else "-" for q in (0, 0.5, 1)))
    return table
