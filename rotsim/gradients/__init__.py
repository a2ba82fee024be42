"""Idealised gradients: the registry. A new model is one file and one line here."""

from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from typing import Any

from rotsim.errors import InvalidInput
from rotsim.gradients.autocorrelated import Autocorrelated
from rotsim.gradients.base import Gradient, GradientPower
from rotsim.gradients.bursts import Bursts
from rotsim.gradients.isotropic import Isotropic
from rotsim.gradients.layer_invariant import LayerInvariant
from rotsim.gradients.radial import Radial
from rotsim.gradients.replay import Replay
from rotsim.gradients.scale_invariant import ScaleInvariant
from rotsim.gradients.signal import Signal
from rotsim.gradients.simple_system import SimpleSystem
from rotsim.gradients.student_t import StudentT

GRADIENTS: dict[str, type[Gradient]] = {
    model.name: model
    for model in (
        Isotropic,
        ScaleInvariant,
        Signal,
        Autocorrelated,
        Bursts,
        StudentT,
        Radial,
        LayerInvariant,
        SimpleSystem,
        Replay,
    )
}


def gradient_from_dict(fields: Mapping[str, Any]) -> Gradient:
    """Rebuild a spec from `Gradient.to_dict`; `InvalidInput` for one that was made from an array of data."""
    values = dict(fields)
    name = str(values.pop("name"))
    if name not in GRADIENTS:
        raise InvalidInput(f"gradient {name!r} is unknown; choose from {', '.join(GRADIENTS)}")
    model = GRADIENTS[name]
    known = [field.name for field in dataclass_fields(model)]
    if unknown := [key for key in values if key not in known]:
        raise InvalidInput(f"gradient {name!r} takes {', '.join(known)}; got {', '.join(unknown)}")
    try:
        return model(**values)
    except TypeError:
        missing = [f.name for f in dataclass_fields(model) if f.default is MISSING and f.name not in values]
        raise InvalidInput(f"gradient {name!r} needs a value for {', '.join(missing)}") from None


__all__ = [
    "GRADIENTS",
    "Autocorrelated",
    "Bursts",
    "Gradient",
    "GradientPower",
    "Isotropic",
    "LayerInvariant",
    "Radial",
    "Replay",
    "ScaleInvariant",
    "Signal",
    "SimpleSystem",
    "StudentT",
    "gradient_from_dict",
]
