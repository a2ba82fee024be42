"""Idealised gradients: the registry. A new model is one file and one line here."""

from collections.abc import Mapping
from typing import Any

from rotsim.errors import constructed, described, instance, registered
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


def checked_gradient(gradient: Any) -> Gradient:
    """Return an argument called `gradient` after checking that it is a spec; `ScaleInvariant` for None.

    Parameters
    ----------
    gradient : Gradient, optional
        What a user gave.

    Returns
    -------
    Gradient

    Raises
    ------
    InvalidInput
        If it is something else.
    """
    given = ScaleInvariant() if gradient is None else gradient
    found: Gradient = instance("gradient", given, Gradient, "a spec such as rotsim.ScaleInvariant()")
    return found


def gradient_from_dict(description: Mapping[str, Any]) -> Gradient:
    """Rebuild a spec from `Gradient.to_dict`.

    Parameters
    ----------
    description : mapping
        ``name``, and the values of the fields.

    Returns
    -------
    Gradient

    Raises
    ------
    InvalidInput
        If no gradient has that name or those values, or if it was made from an array of data.
    """
    name, values = described("gradient", description)
    return constructed(registered("gradient", name, GRADIENTS), values, f"gradient {name!r}")


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
    "checked_gradient",
    "gradient_from_dict",
]
