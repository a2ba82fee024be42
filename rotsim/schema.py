"""The schema that predictions, simulations and traces of real networks share, and whether a dataset follows it.

An `xarray.Dataset` with dimensions ``(neuron, step)``; ``step`` is the last step of a record
window (steps count from 1: step t turns w_{t-1} into w_t).

========================  ==================  =====================================================
name                      dims                meaning
========================  ==================  =====================================================
``norm``                  (neuron, step)      RMS of ‖w_t‖ over the window
``rotation``              (neuron, step)      RMS of the angle between w_{t-1} and w_t, radians
``update_rms``            (neuron, step)      RMS of ‖w_t - w_{t-1}‖ over the window
``gradient_norm``         (neuron, step)      RMS of ‖g_t‖ (traces)
``gradient_scale``        (neuron, step)      RMS of ‖g_t‖·‖w_{t-1}‖, i.e. ‖g̃‖ at unit norm (traces)
``gradient_cosine``       (neuron, step)      RMS of ⟨w, g⟩/(‖w‖‖g‖), 0 for scale-invariant weights (traces)
``gradient_burst``        (neuron, step)      mean of ‖g̃‖⁴ over the square of the mean of ‖g̃‖², at least 1 (traces)
``active``                (neuron, step)      share of sampled steps with a nonzero gradient (traces)
``radial``                (neuron, step)      mean ⟨w, ĝ⟩ over mean ‖w‖², ĝ the gradient as the optimizer scales it
``stable_rank``           (neuron, step)      mean ‖m‖²_F/‖m‖²_2 of the matrix of averages, in each of its rows (traces
                                              of Muon)
``gradient_autocorrelation``  (parameter, lag)  of sampled gradient coordinates, ``lag`` in steps (traces)
``window_lr``, ``window_weight_decay``  (parameter, step)  last in force in each window (traces); likewise
                                              ``window_beta1``, ``window_beta2``, NaN where there is none
``window_lr_start``, ``window_weight_decay_start``  (parameter, step)  in force at the first look in each window
``window_lr_mean``, ``window_weight_decay_mean``  (parameter, step)  mean over the looks in each window;
                                              likewise ``_rms``
``initial_norm``, ``initial_step``  (neuron,)  ‖w‖ before the first step seen, and how many steps came before (traces)
``square_step``           (parameter,)        mean (m/√v)² of those coordinates (AdamW), or mean m² over mean g² (SGDM);
                                              the attribute ``weights`` says what each step counts with
``era_autocorrelation``, ``era_square_step``  (parameter, era, ...)  both in each part of the run that ends at ``era``
``gradient_log2``         (row, tick)         log2 of ‖g_t‖ of some rows of ``row_layer`` at every step ``tick``, in
                                              eighths, 16-bit; `gradient_series` reads it (traces of Lion)
``gradient_overlap``      (row,)              mean squared cosine of their gradients some steps apart
``span``                  (step,)             steps between the weights that ``rotation`` and ``update_rms`` compare;
                                              where it is, a window is one look, at its end (checkpoints, logs)
``layer``, ``fan_in``     (neuron,)           coordinates: parameter name, length of the weight vector
========================  ==================  =====================================================
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.errors import DatasetError, is_a, shown

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 1
PER_OCTAVE = 8  # of gradient_log2: norms to within 4.4 %
#: Attribute "weights" of the mean squares of m/√v: what each step counts with. Older traces have none.
STEP_WEIGHTS = "squared learning rate"
NO_GRADIENT, UNKNOWN = -(1 << 15), (1 << 15) - 1  # its values for a norm of 0, and for none
SOURCES = ("prediction", "simulation", "trace")
QUANTITIES = ("norm", "rotation", "update_rms")
LABELS = {
    "norm": ("RMS weight norm", "1"),
    "rotation": ("RMS angle between consecutive weights", "rad"),
    "update_rms": ("RMS norm of the weight change", "1"),
    "gradient_norm": ("RMS gradient norm", "1"),
    "gradient_scale": ("RMS gradient norm times weight norm", "1"),
    "gradient_cosine": ("RMS cosine of the angle between gradient and weights", "1"),
    "gradient_burst": ("mean fourth power of the gradient scale over its squared mean square", "1"),
    "radial": ("radial projection of the preconditioned gradient", "1"),
    "stable_rank": ("stable rank of the average of gradients, as a matrix", "1"),
    "active": ("share of sampled steps with a nonzero gradient", "1"),
}

_PER_WINDOW, _PER_NEURON = ("neuron", "step"), ("neuron",)
# dimensions and type of every variable that rotsim knows, if it is there; a dataset may hold others
FORMS: dict[str, tuple[tuple[str, ...], type]] = {
    **dict.fromkeys(LABELS, (_PER_WINDOW, float)),
    "neuron": (_PER_NEURON, int),
    "step": (("step",), int),
    "fan_in": (_PER_NEURON, int),
    "layer": (_PER_NEURON, str),
    "lr": (_PER_NEURON, float),
    "weight_decay": (_PER_NEURON, float),
    "parameter": (("parameter",), str),
    "initial_norm": (_PER_NEURON, float),
    "initial_step": (_PER_NEURON, int),
    **{
        f"window_{name}": (("parameter", "step"), float)
        for name in (
            *(f"{rate}{of}" for rate in ("lr", "weight_decay") for of in ("", "_start", "_mean", "_rms")),
            "beta1",
            "beta2",
        )
    },
    "square_step": (("parameter",), float),
    "span": (("step",), int),
    "era": (("era",), int),
    "era_autocorrelation": (("parameter", "era", "lag"), float),
    "era_square_step": (("parameter", "era"), float),
    "gradient_autocorrelation": (("parameter", "lag"), float),
    "row_layer": (("row",), str),
    "tick": (("tick",), int),
    "gradient_log2": (("row", "tick"), int),
    "gradient_overlap": (("row",), float),
    "state": (("neuron", "slot", "coordinate"), float),
    "norm_squared": (_PER_NEURON, float),
    "open_window": (("neuron", "quantity"), float),
}
# likewise of the entries of `spec`: the type of each, and of what it holds
_SPEC_TYPES: dict[str, tuple[type, type | tuple[type, ...]]] = {
    "dim": (int, ()),
    "neurons": (int, ()),
    "rows": (int, ()),
    "steps": (int, ()),
    "gradient": (dict, object),
    "engine": (str, ()),
    "layers": (dict, list),
    "optimizers": (dict, dict),
    "dtypes": (dict, str),
    "skipped": (dict, str),
    "left": (dict, int),
    "changed": (dict, dict),
    "changed_outside": (dict, (int, float)),
    "absent": (dict, (int, float)),
    "sampled_rows": (dict, int),
    "scale_invariant_layers": (list, str),
    "schedule": (dict, (str, int, float)),
}


def validate(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset if it follows the schema.

    Raises
    ------
    DatasetError
        If a variable or attribute that every dataset has is absent. If one that rotsim knows has other dimensions,
        another kind of values or another type. If steps do not increase, or there are none.
    """
    _check_schema(_attributes(dataset).get("rotsim_schema"))
    missing = [name for name in QUANTITIES if name not in dataset] + [
        name for name in ("neuron", "step", "fan_in") if name not in dataset.coords
    ]
    if missing:
        raise DatasetError(f"the dataset lacks {', '.join(missing)}; a rotsim dataset has them all")
    source = dataset.attrs.get("source")
    if not isinstance(source, str) or source not in SOURCES:
        raise DatasetError(f"`source` must be one of {', '.join(SOURCES)}; got {shown(source)}")
    for name, (dims, kind) in FORMS.items():
        if name not in dataset.variables:
            continue
        variable = dataset.variables[name]
        if variable.dims != dims:
            raise DatasetError(f"`{name}` must have dimensions {dims}; got {variable.dims}")
        if not _is_of(kind, variable.values):
            raise DatasetError(f"`{name}` must hold values of type {kind.__name__}; got {variable.dtype}")
    if not all(dataset.sizes[dim] for dim in _PER_WINDOW):
        raise DatasetError(f"a dataset must have neurons and steps; got {dict(dataset.sizes)}")
    step = dataset["step"].values
    if step[0] < 1 or not (step[1:] > step[:-1]).all():
        raise DatasetError(f"`step` must be >= 1 and increase; got {shown(step.tolist())}")
    if not (dataset["fan_in"].values >= 1).all():
        raise DatasetError(f"`fan_in` must be >= 1; got {dataset['fan_in'].values.min()}")
    spec = json_of(dataset, "spec")
    for name, (outer, inner) in _SPEC_TYPES.items():
        value = spec.get(name, outer())
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if type(value) is not outer or not all(isinstance(entry, inner) for entry in entries):
            raise DatasetError(f"`{name}` in attribute `spec` is damaged: {shown(value)}")
    json_of(dataset, "optimizer")
    json_of(dataset, "provenance")
    return dataset


def _check_schema(schema: Any) -> None:
    if schema is None:
        raise DatasetError(
            "this is not a rotsim dataset: it has no `rotsim_schema` attribute; "
            "write datasets with rotsim.save, rotsim simulate --output or Recorder.save"
        )
    number = schema.item() if is_a(schema, np.ndarray, np.generic) and schema.size == 1 else schema
    if type(number) is not int or number < 1:
        raise DatasetError(f"attribute `rotsim_schema` must be a whole number >= 1; got {shown(schema)}")
    if number > SCHEMA:
        raise DatasetError(f"the dataset has schema {number}, this rotsim reads up to {SCHEMA}; upgrade rotsim")


def _is_of(kind: type, values: np.ndarray) -> bool:
    if kind is str:
        return values.dtype.kind in "UT" or all(isinstance(entry, str) for entry in values.ravel())
    return values.dtype.kind in ("iu" if kind is int else "f")


def _attributes(dataset: Any) -> dict[Any, Any]:
    import xarray as xr

    if not is_a(dataset, xr.Dataset):
        raise DatasetError(f"{shown(dataset)} is no dataset; give one from rotsim.simulate, predict or load")
    attributes: dict[Any, Any] = dataset.attrs
    return attributes


def json_of(dataset: xr.Dataset, name: str) -> dict[str, Any]:
    """An attribute that holds a JSON object."""
    text = _attributes(dataset).get(name)
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise DatasetError(f"attribute `{name}` must be a JSON object; got {shown(text)}")
    return content
