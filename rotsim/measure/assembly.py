"""What a recorder has gathered, as a dataset in the schema of `rotsim.dataset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from rotsim.dataset import PER_OCTAVE, build, json_text
from rotsim.errors import InvalidInput, mapping
from rotsim.measure.coordinates import CoordinateSampler
from rotsim.measure.quantities import variables_of, window_rates
from rotsim.measure.recorded import RATES, Entry, Recorded
from rotsim.measure.scales import ScaleSampler
from rotsim.measure.windows import Windows
from rotsim.optimizers.base import Optimizer
from rotsim.schema import STEP_WEIGHTS

_SCALES = {"long_name": "log2 of the gradient norm of sampled rows", "units": f"1/{PER_OCTAVE}"}
_AUTOCORRELATION = {"long_name": "autocorrelation of sampled gradient coordinates", "units": "1"}
_SQUARE_STEP = {
    "long_name": "mean square of m/sqrt(v), or of m over that of g, over sampled gradient coordinates",
    "units": "1",
    "weights": STEP_WEIGHTS,
}
#: What `assemble` writes into the spec by itself; a note may not.
WRITTEN = {f"{name}_changed" for name in RATES} | {
    "interval", "window", "steps", "counted", "layers", "optimizers", "skipped", "left", "changed", "changed_outside",
    "dtypes", "absent", "sampled_rows", "products",
}  # fmt: skip


def assemble(
    recorded: Recorded, windows: Windows, spec: Mapping[str, Any], torch_optimizer: str, provenance: Mapping[str, Any]
) -> xr.Dataset:
    """Norm, rotation and the rest of a window, the rates in force, and what became of each parameter.

    Parameters
    ----------
    recorded : Recorded
    windows : Windows
        At least one.
    spec : mapping
        What the entries do not know: interval, window, steps, the note.
    torch_optimizer : str
        Name of the optimizer's class.
    provenance : mapping
    """
    values, rates = windows.stacked()
    entries = entries_of(recorded, windows)
    counts = [entry.neurons for entry in entries]

    def per_neuron(what: Callable[[Entry], Any]) -> np.ndarray:
        return np.repeat([what(entry) for entry in entries], counts)

    device = entries[0].parameter.device
    specs = recorded.specs()
    main = specs[recorded.main().name]
    others = {e.name: specs[e.name] for e in entries if not _differ_in_rates_alone(specs[e.name], main)}
    result = build(
        "trace",
        step=np.array(windows.ends),
        variables=variables_of(values),
        optimizer=main,
        layer=np.concatenate([entry.labels for entry in entries]),
        fan_in=per_neuron(lambda entry: entry.fan_in),
        spec={
            **spec,
            "layers": {entry.name: list(entry.shape) for entry in entries},
            "dtypes": {entry.name: str(entry.parameter.dtype).removeprefix("torch.") for entry in entries},
            "optimizers": {name: other.to_dict() for name, other in others.items()},
            "skipped": recorded.skipped,
            "sampled_rows": {e.name: e.of_all for e in entries if e.neurons < e.of_all},
            "left": recorded.left,
            "changed_outside": {e.name: float(e.touched) / e.looked for e in entries if e.touched},
            "absent": {e.name: e.absent / e.sampled for e in entries if e.absent},
            "products": [entry.name for entry in entries if entry.factors],
            "changed": {entry.name: entry.changed for entry in entries if entry.changed},
            **{f"{name}_changed": any(name in e.changed for e in entries) for name in RATES},
        },
        provenance_extra={
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "torch_optimizer": torch_optimizer,
            **provenance,
        },
    ).assign_coords(
        initial_norm=("neuron", np.concatenate([_numbers(entry.initial_norm) for entry in entries])),
        initial_step=("neuron", per_neuron(lambda entry: entry.initial_step)),
        lr=("neuron", per_neuron(lambda entry: entry.lr)),
        weight_decay=("neuron", per_neuron(lambda entry: entry.weight_decay)),
        parameter=[entry.name for entry in entries],
    )
    return result.assign(window_rates(rates))


def entries_of(recorded: Recorded, windows: Windows) -> list[Entry]:
    """The entries that the windows hold; others have joined since."""
    sizes = np.cumsum([entry.neurons for entry in recorded.entries])
    return recorded.entries[: np.searchsorted(sizes, windows.neurons) + 1]


def with_series(trace: xr.Dataset, scales: ScaleSampler, last_tick: int) -> xr.Dataset:
    """The trace, and the gradient norms of sampled rows at every step up to `last_tick`."""
    if not scales.layers:
        return trace
    codes = scales.series()
    return trace.assign_coords(
        row_layer=("row", np.array(scales.layers, dtype=str)),
        tick=np.arange(last_tick - codes.shape[1] + 1, last_tick + 1),
    ).assign(gradient_log2=(("row", "tick"), codes, _SCALES), gradient_overlap=("row", scales.overlap()))


def with_samples(trace: xr.Dataset, sampler: CoordinateSampler, entries: Sequence[Entry]) -> xr.Dataset:
    """The trace, and what sampled gradient coordinates of its entries tell."""
    correlation = sampler.autocorrelation()[: len(entries)].astype(np.float32)
    steps, *means = sampler.eras()
    of_eras, squares = (part[: len(entries)].astype(np.float32) for part in means)
    result = trace.assign_coords(lag=np.arange(correlation.shape[1]), era=steps).assign(
        gradient_autocorrelation=(("parameter", "lag"), correlation, _AUTOCORRELATION),
        era_autocorrelation=(("parameter", "era", "lag"), of_eras, _AUTOCORRELATION),
    )
    if not any(averaging(entry.rule) for entry in entries):
        return result
    square_step = sampler.square_step()[: len(entries)].astype(np.float32)
    return result.assign(
        square_step=(("parameter",), square_step, _SQUARE_STEP),
        era_square_step=(("parameter", "era"), squares, _SQUARE_STEP),
    )


def averaging(rule: Optimizer) -> tuple[float, ...] | None:
    """β1 and β2 by which m and v average; β2 = 1 where the step is m alone, None where it is neither."""
    return {"inverse root": rule.averages[:2], "identity": (rule.beta1, 1.0)}.get(rule.shape)


def _differ_in_rates_alone(one: Optimizer, other: Optimizer) -> bool:
    try:
        return one.with_rates(other.lr, other.weight_decay) == other
    except InvalidInput:  # a rule that these rates are no rates of
        return False


def _numbers(norm: torch.Tensor | None) -> np.ndarray:
    assert norm is not None  # a window with an entry in it began before
    return norm.cpu().numpy()


def checked_note(note: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """A note as entries of the dataset's spec; raise `InvalidInput` if it cannot be kept."""
    entries = {} if note is None else {"note": note} if isinstance(note, str) else mapping("note", note)
    if reserved := WRITTEN & set(entries):
        raise InvalidInput(f"`note` may not set {', '.join(sorted(reserved))}, which the recorder writes; rename it")
    json_text("note", entries)
    return entries
