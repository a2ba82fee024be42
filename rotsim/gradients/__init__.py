"""Idealised gradients: the registry. A new model is one file and one line here."""

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

__all__ = ["GRADIENTS", "Gradient", "GradientPower", *(model.__name__ for model in GRADIENTS.values())]
