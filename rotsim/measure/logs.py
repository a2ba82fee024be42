"""What other programs logged of norms and angles: CSV, JSON lines, and the pickle of the paper's authors."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.dataset import layer_name
from rotsim.errors import DatasetError, InvalidInput, integer, is_a, mapping, registered, shown, shown_error
from rotsim.files import quoted, reason
from rotsim.measure.arrays import read_arrays
from rotsim.measure.imported import Hyperparameters, Series, trace_of
from rotsim.optimizers.base import Optimizer

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

#: What a column may hold. A pattern with {layer} in it stands for a column of each layer.
QUANTITIES = (
    "step", "layer", "neuron", "norm", "rms", "rotation", "update_rms", "relative_update", "gradient_norm", "fan_in",
    "rows", "columns", "lr", "weight_decay",
)  # fmt: skip
MOST_BYTES = 1 << 30  # of a table, unpacked
_NUMBERS = [name for name in QUANTITIES if name != "layer"]
_PACKED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
# of the authors' logger, by what of a weight it is about
_DYNAMICS = {
    "norm": "norm",
    "angular_update": "rotation",
    "relative_update": "relative_update",
    "grad_norm": "gradient_norm",
}


def read_log(
    path: str | os.PathLike[str],
    optimizer: Optimizer,
    columns: Mapping[str, str] | None = None,
    *,
    interval: int = 1,
    fan_in: int | Mapping[str, int] | None = None,
    schedule: str = "constant",
    steps: int | None = None,
    warmup_steps: int = 0,
    final: float = 0.0,
    scale_invariant: Iterable[str] = (),
) -> xr.Dataset:
    """A trace from what another program logged.

    Parameters
    ----------
    path : str or Path
        A table, ``.csv`` or ``.jsonl``, also packed (``.gz``, ``.xz``). Or ``.pkl``, the dynamics.pkl that the logger
        of Kosson, Messmer and Jaggi writes.
    optimizer : Optimizer
        The spec of what trained, with the largest learning rate. A column ``lr`` or ``weight_decay`` counts more.
    columns : mapping of str to str, optional
        From a quantity to the column that holds it, where it has another name. Quantities are ``step``, ``layer``,
        ``neuron``, ``norm`` or ``rms`` of the weights, ``rotation`` (radians, of one step), ``lr``, ``weight_decay``.
        Also ``update_rms`` or ``relative_update``, and ``gradient_norm``. ``fan_in`` may be ``rows`` and ``columns``
        of a matrix that is taken as one vector. ``"{layer}/norm"`` stands for a column of each layer,
        and ``""`` for none, where a column of that name holds something else.
    interval : int
        Of a pickle: steps between two of its values, >= 1.
    fan_in : int or mapping of str to int, optional
        Weights per neuron, >= 1, of all layers or by name, where no column has it.
    schedule, steps, warmup_steps, final, scale_invariant
        As `rotsim.measure.read_checkpoints` takes them.

    Returns
    -------
    Dataset
        Source ``"trace"``. Rows of step 0 are the norms before the first step. A pickle has norms before each step.

    Raises
    ------
    DatasetError
        If the file is damaged, holds code, or lacks a quantity; two rows are of one step and neuron; a number is wrong.
    InvalidInput
        If an argument is out of range.
    """
    given = Hyperparameters(optimizer, schedule, steps, warmup_steps, final)
    given.described(steps or 1 << 50)
    ending = Path(path).suffix if is_a(path, str) or isinstance(path, os.PathLike) else None
    if ending is None:
        raise InvalidInput(f"`path` must be the path of a file; got {shown(path)}")
    if ending in (".pkl", ".pickle"):
        layers, step = _dynamics(path, integer("interval", interval, low=1), fan_in)
    else:
        table = _renamed(_table(path), mapping("columns", columns or {}, QUANTITIES), path)
        layers, step = _series(table, fan_in, path)
    spec = {"from": f"log {Path(path).name}"}
    return trace_of(layers, step, np.ones(len(step)), given, scale_invariant, 0, spec)


def _table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A table as it is in the file."""
    import pandas as pd

    file = Path(path)
    endings = [ending for ending in file.suffixes if ending not in _PACKED][-1:]
    if endings not in ([".csv"], [".jsonl"]):
        raise InvalidInput(
            f"a log must be a .csv, .jsonl or .pkl file, or one of the first two packed; got {quoted(path)}"
        )
    try:
        with _PACKED.get(file.suffix, open)(file, "rb") as source:
            content = source.read(MOST_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError) as error:
        why = reason(error) if isinstance(error, OSError) and error.strerror else shown_error(error)
        raise DatasetError(f"{quoted(path)} cannot be read ({why}); check the path") from None
    if len(content) > MOST_BYTES:
        raise DatasetError(f"{quoted(path)} holds more than {MOST_BYTES >> 30} GiB of text; log less often")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if endings == [".csv"]:
                table = pd.read_csv(io.BytesIO(content), low_memory=False)
            else:
                table = pd.json_normalize([json.loads(row) for row in content.splitlines() if row.strip()])
    except Exception as error:  # pandas raises many kinds for what is no table
        raise DatasetError(f"{quoted(path)} is no table ({shown_error(error)})") from None
    table.columns = [str(name) for name in table.columns]
    if not len(table):
        raise DatasetError(f"{quoted(path)} has no rows")
    return table


def _renamed(table: pd.DataFrame, columns: Mapping[str, str], path: Any) -> pd.DataFrame:
    """A row for each step, layer and neuron, with quantities for columns."""
    import pandas as pd

    names = {name: columns.get(name, name) for name in QUANTITIES}
    wide = {name: column for name, column in names.items() if "{layer}" in column}
    plain = {name: column for name, column in names.items() if column in table.columns and name not in wide}
    for name in columns:
        if (
            columns[name]
            and name not in plain
            and not any(_wide(columns[name]).fullmatch(column) for column in table.columns)
        ):
            raise DatasetError(
                f"{quoted(path)} has no column {columns[name]!r} for {name}; it has {', '.join(table.columns[:8])}"
            )
    base = pd.DataFrame({name: table[column] for name, column in plain.items()})
    if wide:
        layers: dict[str, dict[str, str]] = {}
        for name, column in wide.items():
            for found in table.columns:
                if match := _wide(column).fullmatch(found):
                    layers.setdefault(match[1], {})[name] = found
        parts = [
            base.assign(layer=layer, **{name: table[column] for name, column in own.items()})
            for layer, own in layers.items()
        ]
        base = pd.concat(parts, ignore_index=True)
    listed = [name for name in base.columns if base[name].map(lambda value: isinstance(value, list)).any()]
    if listed:  # a number for each neuron in one cell
        base = base.dropna(subset=listed)
        try:
            base["neuron"] = [list(range(len(value))) for value in base[listed[0]]]
            base = base.explode([*listed, "neuron"], ignore_index=True)
        except (ValueError, TypeError):
            raise DatasetError(f"{quoted(path)}: lists of {' and '.join(listed)} in a row differ in length") from None
    for name in base.columns:
        if name != "layer":
            numbers = pd.to_numeric(base[name], errors="coerce")
            if (wrong := base[name][numbers.isna() & base[name].notna()]).size and not _is_nan(wrong).all():
                raise DatasetError(f"{quoted(path)}: {name} must be numbers; got {shown(wrong.iloc[0])}")
            base[name] = numbers
    return base


def _wide(pattern: str) -> re.Pattern[str]:
    return re.compile("(.+)".join(map(re.escape, pattern.split("{layer}"))))


def _is_nan(values: pd.Series) -> Any:
    return values.astype(str).str.lower().isin(["nan", "inf", "-inf", "infinity", "-infinity"])


def _series(table: pd.DataFrame, fan_in: Any, path: Any) -> tuple[list[Series], np.ndarray]:
    if missing := [name for name in ("step", "rotation") if name not in table]:
        raise DatasetError(
            f"{quoted(path)} has no column {' and no '.join(missing)}; say which one it is: columns="
            f"{{{missing[0]!r}: 'NAME'}} (--column {missing[0]}=NAME)"
        )
    if "norm" not in table and "rms" not in table:
        raise DatasetError(f"{quoted(path)} has no column norm or rms; say which one it is (--column norm=NAME)")
    table = table.assign(**{name: 0 for name in ["neuron"] if name not in table})
    table = table.assign(layer=table["layer"].astype(str) if "layer" in table else "all").dropna(subset=["step"])
    if not ((table["step"] >= 0) & (table["step"] < 1 << 53) & (table["step"] % 1 == 0)).all():
        raise DatasetError(f"{quoted(path)}: step must be whole numbers >= 0")
    if (twice := table.duplicated(["layer", "neuron", "step"])).any():
        row = table[twice].iloc[0]
        raise DatasetError(
            f"{quoted(path)} has two rows for step {row['step']:g} of layer {row['layer']!r}, neuron {row['neuron']:g}"
            "; leave one"
        )
    step = np.unique(table["step"].to_numpy())
    step = step[step >= 1].astype(np.int64)
    layers = []
    for name, own in table.groupby("layer", sort=False):
        if "fan_in" in own:
            size = _one(own["fan_in"], "fan_in", name, path)
        elif "rows" in own and "columns" in own:
            size = _one(own["rows"] * own["columns"], "rows and columns", name, path)
        else:
            size = _size(fan_in, str(name))

        def grid(quantity: str, own: pd.DataFrame = own) -> np.ndarray:
            return own.pivot(index="neuron", columns="step", values=quantity).reindex(columns=step).to_numpy(float)

        start = own[own["step"] == 0].sort_values("neuron")
        if "norm" not in own:
            own, start = (part.assign(norm=part["rms"] * size**0.5) for part in (own, start))
        values = {key: grid(key, own) for key in ("norm", "rotation", "update_rms", "gradient_norm") if key in own}
        if "relative_update" in own and "update_rms" not in values:
            values["update_rms"] = grid("relative_update") * values["norm"]
        rates = {
            key: own.groupby("step")[key].first().reindex(step).to_numpy(float)
            for key in ("lr", "weight_decay")
            if key in own
        }
        initial = start["norm"].to_numpy(float) if len(start) == len(values["norm"]) else None
        layers.append(Series(layer_name(str(name)), size, values, initial, rates))
    return layers, step


def _one(values: pd.Series, what: str, name: Any, path: Any) -> int:
    size = float(values.iloc[0])
    if not (1 <= size < 1 << 53) or size % 1 or not (values == values.iloc[0]).all():
        raise DatasetError(f"{quoted(path)}: {what} of layer {name!r} must be one whole number >= 1; got {size:g}")
    return int(size)


def _size(fan_in: Any, name: str) -> int:
    if fan_in is None:
        raise InvalidInput(
            f"the fan-in of layer {name!r} is not in the log; give fan_in={{{name!r}: 768}} (--fan-in {name}=768), "
            "on which the norm depends"
        )
    return integer("fan_in", registered("layer", name, fan_in) if is_a(fan_in, Mapping) else fan_in, low=1)


def _dynamics(path: str | os.PathLike[str], interval: int, fan_in: Any) -> tuple[list[Series], np.ndarray]:
    """Of the authors' logger, whose file is one mapping after the other: statistic, parameter, (looks, neurons)."""
    parts = read_arrays(path)
    found: dict[str, dict[str, np.ndarray]] = {}
    for of in ("neuron", "layer"):
        for key, quantity in _DYNAMICS.items():
            for name in parts[0].get(f"{of}_{key}", {}) if is_a(parts[0], dict) else ():
                pieces = [_piece(part, f"{of}_{key}", name, path) for part in parts]
                if len({piece.shape[1] for piece in pieces}) > 1:
                    raise DatasetError(f"{quoted(path)}: {name!r} has another number of neurons in a later part")
                found.setdefault(name, {}).setdefault(quantity, np.concatenate(pieces).T)
        found = {name: values for name, values in found.items() if {"norm", "rotation"} <= values.keys()}
        if found:
            break
    if not found:
        raise DatasetError(
            f"{quoted(path)} holds no neuron_norm with neuron_angular_update, nor layer_norm with layer_angular_update"
        )
    looks = min(value.shape[1] for values in found.values() for value in values.values())
    layers = []
    for name, values in found.items():
        neurons = len(values["norm"])
        if any(len(value) != neurons for value in values.values()):
            raise DatasetError(f"{quoted(path)}: statistics of {name!r} are of different numbers of neurons")
        own = {key: value[:, :looks] for key, value in values.items()}
        if "relative_update" in own:
            own["update_rms"] = own.pop("relative_update") * own["norm"]
        layers.append(Series(layer_name(name), _size(fan_in, layer_name(name)), own, own["norm"][:, 0]))
    return layers, 1 + interval * np.arange(looks)  # it looks at the first step, then at every interval-th


def _piece(part: Any, statistic: str, name: str, path: Any) -> np.ndarray:
    value = part.get(statistic, {}).get(name) if is_a(part, dict) and is_a(part.get(statistic, {}), dict) else None
    if not isinstance(value, np.ndarray) or value.ndim not in (1, 2) or not value.size:
        raise DatasetError(f"{quoted(path)}: {statistic} of {name!r} must be an array (looks, neurons) in every part")
    return value.reshape(len(value), -1).astype(float)
