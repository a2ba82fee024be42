"""`equilibrium`: where the random walk of one neuron settles, and how fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import asin, inf, isnan, sqrt
from typing import Any

from rotsim.errors import NoEquilibrium, choice, instance, integer
from rotsim.gradients import Gradient, GradientPower, ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import Method, required_theory
from rotsim.theory.boundary import within_floats


@dataclass(frozen=True)
class Equilibrium:
    """Predicted steady state of a neuron's weight vector.

    Attributes
    ----------
    norm : float
        RMS of ‖w‖; NaN for a rotational variant, which keeps the norm it starts with.
    rotation : float
        RMS angle between consecutive weights, radians per step.
    update_rms : float
        RMS of ‖w_t - w_{t-1}‖, decay included; NaN for a rotational variant.
    relaxation_steps : float
        Steps in which a small deviation of ‖w‖² shrinks by a factor e;
        0 for a rotational variant, whose norm never deviates.
    model_error : float
        Declared relative error of the formulas: what they neglect, in order of magnitude. It is
        kept apart from any statistical error. Infinite where nothing bounds it.
    method : {"exact", "leading"}
    """

    norm: float
    rotation: float
    update_rms: float
    relaxation_steps: float
    model_error: float
    method: Method

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, JSON-serialisable."""
        return asdict(self)


@within_floats
def equilibrium(
    optimizer: Optimizer, dim: int = 1024, gradient: Gradient | None = None, method: Method = "exact"
) -> Equilibrium:
    """Predict norm, rotation and update size in equilibrium.

    Parameters
    ----------
    optimizer : Optimizer
        With ``weight_decay`` > 0; without decay the norm grows for ever.
    dim : int
        Fan-in C >= 2 of the neuron (>= 3 for isotropic noise).
    gradient : Gradient
        ScaleInvariant (default, the paper's setting) or Isotropic; or one of Signal, Autocorrelated, Radial and, for
        Lion, Bursts (averaged over the second half of its series), reduced to those (`rotsim.theory.departures`).
    method : {"exact", "leading"}
        "exact": finite-step second moments of the random walk. "leading": the paper's formulas,
        the limit of lr·weight_decay → 0 (Kosson, Messmer, Jaggi 2024, table 1).

    Returns
    -------
    Equilibrium

    Raises
    ------
    InvalidInput
        If an argument is out of range.
    NoEquilibrium
        If ``weight_decay`` is 0, or a radial gradient pushes outwards more strongly than it pulls.

    Examples
    --------
    >>> import rotsim
    >>> eq = rotsim.equilibrium(rotsim.AdamW(lr=1e-3, weight_decay=0.1), dim=1024, method="leading")
    >>> f"{eq.norm:.4f} {eq.rotation:.6f}"
    '2.2627 0.003244'
    """
    theory = required_theory(optimizer)
    choice("method", method, ("exact", "leading"))
    dim, gradient, law = checked_law(dim, gradient)
    if optimizer.weight_decay == 0:
        raise NoEquilibrium(
            "`weight_decay` must be > 0 for an equilibrium to exist; with 0.0 the norm grows without bound"
        )
    state = theory.at_rest(dim, law, method)
    half_chord = sqrt(state.one_minus_cosine / 2)
    has_norm = optimizer.decay != "none"  # else it keeps any norm, and turns by an angle whatever gradients do
    if method == "leading" and has_norm:
        rotation = 2 * half_chord
    else:
        rotation = 2 * asin(min(1.0, half_chord))
        if has_norm:
            rotation = rotation * sqrt(gradient.angle_spread(dim)) * state.angle_factor
    moved = state.update_squared
    found = Equilibrium(
        norm=sqrt(state.norm_squared),
        rotation=float(rotation),
        update_rms=2 * half_chord * sqrt(state.norm_squared) if moved is None else sqrt(moved),
        relaxation_steps=float(state.relaxation_steps),
        model_error=float(state.model_error + 1 / dim),
        method=method,
    )
    if has_norm:  # signs that never change bring the weights to rest: then nothing moves
        sound = all(0 < size < inf for size in (found.norm, found.relaxation_steps))
        sound = sound and all(0 <= motion < inf for motion in (found.rotation, found.update_rms))
    else:
        sound = 0 < found.rotation < inf
    if not sound or isnan(found.model_error):
        raise FloatingPointError  # which `within_floats` puts into words
    return found


def checked_law(dim: int, gradient: Gradient | None) -> tuple[int, Gradient, GradientPower]:
    """The fan-in, the gradient (scale-invariant if None) and its law, or `InvalidInput` that says which is wrong."""
    gradient = ScaleInvariant() if gradient is None else gradient
    gradient = instance("gradient", gradient, Gradient, "a spec such as rotsim.ScaleInvariant()")
    dim = integer("dim", dim, low=2)
    return dim, gradient, gradient.power(dim)
