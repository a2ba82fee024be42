"""Tables and sentences of what was measured in training: diagnoses, forecasts, checkpoints, balance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from rotsim.dataset import layer_name
from rotsim.show.terminal import NUMBER, give_way, or_dash, plain_table, verdict_text

if TYPE_CHECKING:
    import xarray as xr

    from rotsim.balance import Balance
    from rotsim.decay import DecayUsed
    from rotsim.diagnosis import Diagnosis, LayerDiagnosis
    from rotsim.evidence import Evidence
    from rotsim.overview import Group

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARK_COLUMNS = 16
_STEPS = re.compile(r"(steps \d+ to \d+)")


def diagnosis_table(diagnosis: Diagnosis, title: str) -> Table:
    """One row per layer."""
    numbers = ("theory", "measured", "ratio", "worst", "corr.", "±10 %")
    table = plain_table(title, "layer", "verdict", *numbers, numbers=numbers)
    give_way(table)
    table.columns[1].min_width = max(len(layer.verdict) for layer in diagnosis.layers)
    for layer in diagnosis.layers:
        table.add_row(
            escape(layer_name(layer.layer)),
            _verdict(layer),
            or_dash(layer.predicted_rotation, ".3g"),
            or_dash(layer.measured_rotation if layer.fan_in > 1 else np.nan, ".3g"),
            or_dash(layer.ratio, ".2f"),
            or_dash(1 + layer.error("rotation"), ".2f"),
            or_dash(layer.measured_rotation / layer.corrected_rotation, ".2f"),
            or_dash(layer.within, ".0%"),
        )
    table.caption = (
        "Rotation, rad per step: median over neurons, RMS over the run. theory: the course that the rates set. ratio: "
        "measured / predicted. worst: the same in the quarter of the run where it is furthest from 1, which is judged. "
        "corr.: measured / prediction with the gradient's radial part (λ_eff), which explains and does not predict. "
        "±10 %: share of neurons within 10 %."
    )
    return table


def _verdict(layer: LayerDiagnosis) -> str:
    """What is said of a layer; of one that the prediction applies to, too, whether it fails or cannot be told."""
    if layer.outcome is not None and layer.outcome != "PASS":
        return verdict_text(layer.outcome)
    return f"[{'green' if layer.applies else 'yellow'}]{layer.verdict}[/]"


def overview_table(groups: Sequence[Group], title: str, first: str) -> Table:
    """One row per group of layers, worst first."""
    numbers = ("layers", "theory", "measured", "ratio", "norm", "pace")
    table = plain_table(title, first, "verdict", *numbers, "furthest off", numbers=numbers)
    give_way(table)
    for group in groups:
        worst = group.worst
        table.add_row(
            escape(group.name), group.verdicts, str(len(group.layers)),
            or_dash(group.median("predicted_rotation"), ".3g"), or_dash(group.median("measured_rotation"), ".3g"),
            or_dash(group.median("ratio"), ".2f"), or_dash(group.median("norm_ratio"), ".2f"),
            or_dash(group.pace, ".2f"), f"{escape(layer_name(worst.layer))} {or_dash(worst.ratio, '.2f')}",
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
    give_way(table)
    names = {layer.layer: row for row, layer in enumerate(diagnosis.layers)}
    far = sorted(diagnosis.layers, key=lambda layer: np.nan_to_num(abs(np.log(layer.ratio)), nan=-1.0), reverse=True)
    shown = sorted(far[:most], key=lambda layer: names[layer.layer])
    for layer in shown:
        curves = layer.curves
        last = [curves.measured["rotation"], curves.predicted["rotation"], curves.measured["norm"],
                curves.predicted["norm"]] if curves else [np.array([np.nan])] * 4  # fmt: skip
        rotation, theory, norm, settled = (float(values[-1]) for values in last)
        table.add_row(
            escape(layer_name(layer.layer)), _verdict(layer), or_dash(rotation, ".3g"), or_dash(theory, ".3g"),
            or_dash(rotation / theory if theory else np.nan, ".2f"), or_dash(norm, ".3g"), or_dash(settled, ".3g"),
            _sparkline(curves.ratio["rotation"]) if curves else "",
        )  # fmt: skip
    left = len(diagnosis.layers) - len(shown)
    table.caption = (
        f"{diagnosis.rates()}, step {int(trace['step'].values[-1])}. Last window: rotation in rad per step and norm, "
        f"medians over neurons, and the course that the rates set. so far: ratio over the run, from {_SPARKS[0]} = 1/2 "
        f"to {_SPARKS[-1]} = 2." + (f" {left} layers nearer to theory are not shown." if left else "")
    )
    return table


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
    give_way(table)
    for layer in diagnosis.layers:
        if not np.isfinite(layer.predicted_norm):
            continue
        factor = max((quarter.remembered_norm for quarter in layer.quarters), key=lambda x: abs(x - 1), default=np.nan)
        table.add_row(
            escape(layer_name(layer.layer)), "yes" if "norm" in layer.claims else "no", f"{layer.predicted_norm:.3g}",
            f"{layer.measured_norm:.3g}", f"{layer.norm_ratio:.2f}", or_dash(1 + layer.error("norm"), ".2f"),
            or_dash(factor, ".2f"),
        )  # fmt: skip
    table.caption = (
        "gradients: what of the prediction the measured gradients make, correlated or uneven as they are, where white "
        "noise would give 1. A norm is claimed where that is within 10 % of 1 in each quarter."
    )
    return table


def forecast_table(diagnosis: Diagnosis) -> Table:
    """The second half of the run of layers without a claim, from the first."""
    numbers = ("rotation", "worst", "±", "norm", "worst ", "± ")
    table = plain_table(
        "Second half of the run, foreseen from the first", "layer", "verdict", *numbers, numbers=numbers
    )
    give_way(table)
    for layer in diagnosis.layers:
        if layer.rest is None or not layer.rest.quarters:
            continue
        last, cells = layer.rest.quarters[-1], []
        for quantity in ("rotation", "norm"):
            worst = max((each.error(quantity) for each in layer.rest.quarters), key=abs)
            declared = or_dash(layer.rest.declared(quantity), ".0%")
            cells += [f"{last.predicted(quantity):.3g}", f"{1 + worst:.2f}", declared]
        verdict = verdict_text(layer.foreseen_outcome) if layer.foreseen_outcome else "[dim]not claimed[/]"
        table.add_row(escape(layer_name(layer.layer)), verdict, *cells)
    table.caption = (
        "Medians over neurons, as foreseen of the last quarter. worst: measured / foreseen in the quarter that is "
        "further off. The first half shows what gradients add to the norm and how far they step across the "
        "weights. ±: declared error, from what the third eighth of the run misses of the fourth, and what a rate that "
        "changes later leaves open; not claimed where that is too large. A rate that was wrong throughout the run is "
        "in what gradients showed, and is not noticed."
    )
    return table


def checkpoints_table(layers: Sequence[Evidence], used: DecayUsed, title: str) -> Table:
    """Of saved weights: norm, angle between two checkpoints, and decay, each beside what was predicted or given."""
    numbers = ("norm", "theory", "angle", "theory ", "decay used/given")
    table = plain_table(title, "layer", *numbers, numbers=numbers)
    give_way(table)
    for layer, decay in zip(layers, used.layers, strict=True):
        table.add_row(
            escape(layer_name(layer.layer)),
            or_dash(layer.measured_norm, ".3g"), or_dash(layer.predicted_norm, ".3g"),
            or_dash(layer.measured_rotation, ".3g"), or_dash(layer.predicted_rotation, ".3g"),
            f"{decay.ratio:.3g} ± {decay.standard_error:.1g}" if np.isfinite(decay.ratio) else "-",
        )  # fmt: skip
    table.caption = (
        "Medians over neurons of the RMS over checkpoints. angle: rad, from one checkpoint to the next. theory: the "
        "course that the rates set. decay: lr·weight_decay, from how much of earlier weights is left in later ones."
    )
    return table


def balance_table(first: Balance, second: Balance, names: tuple[str, str], title: str) -> Table:
    """Two runs side by side: rotation by layer, and how evenly it is spread."""
    numbers = (*names, "ratio")
    table = plain_table(title, "median rotation, rad", *numbers, numbers=numbers)
    give_way(table)
    for layer in dict.fromkeys([*first.rotation, *second.rotation]):
        a, b = first.rotation.get(layer, np.nan), second.rotation.get(layer, np.nan)
        cells = (or_dash(a, ".4g"), or_dash(b, ".4g"), or_dash(b / a, ".2f"))
        table.add_row(escape(layer_name(layer)), *cells)
    table.add_section()
    for label, key in (("fastest / slowest layer", "across_layers"), ("spread over neurons", "within_layers")):
        a, b = getattr(first, key), getattr(second, key)
        table.add_row(label, f"{a:.3g}", f"{b:.3g}", f"{b / a:.2f}" if a else "-")
    table.caption = "Spread: standard deviation over mean inside a layer, averaged over layers. Dead neurons left out."
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
            found.setdefault(_form(reason), []).append((layer_name(layer.layer), reason))
    return "\n".join(
        f"[bold]{escape(', '.join(name for name, _ in group))}[/]: {escape(_merged([reason for _, reason in group]))}"
        for group in found.values()
    )


def _form(sentence: str) -> str:
    """A sentence without its numbers, but for the steps that it is about."""
    parts = _STEPS.split(sentence)
    return "".join(part if place % 2 else NUMBER.sub("#", part) for place, part in enumerate(parts))


def _merged(sentences: Sequence[str]) -> str:
    """Sentences that differ in numbers alone as one, which gives their range."""
    columns = zip(*(NUMBER.findall(sentence) for sentence in sentences), strict=True)
    ranges = iter([" to ".join(dict.fromkeys([min(c, key=float), max(c, key=float)])) for c in columns])
    return NUMBER.sub(lambda _: next(ranges), sentences[0])


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
