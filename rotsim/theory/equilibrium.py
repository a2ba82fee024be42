"""`equilibrium`: where the random walk of one neuron settles, and how fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import numpy as np

from rotsim.angle import spread_out
from rotsim.errors import NoEquilibrium, choice, instance, integer
from rotsim.gradients import Gradient, GradientPower, ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import Method, Theory, required_theory
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
        Steps in which a small deviation of ‖w‖² shrinks by a factor e, while v follows it. Momentum and the slow
        average of AdEMAMix are taken as short. 0 for a rotational variant, whose norm never deviates.
    model_error : float
        Declared relative error of the formulas: an estimate of what they neglect, by its causes. At the settings of
        ``tests/declared.csv`` it is at least the error that walks show. Above a few per cent it is at most five
        times that. `rotsim.compare` allows for it beside the statistical error. Infinite where nothing bounds what is
        neglected.
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
    optimizer: Optimizer,
    dim: int = 1024,
    gradient: Gradient | None = None,
    method: Method = "exact",
    rows: int | None = None,
) -> Equilibrium:
    """Predict norm, rotation and update size in equilibrium.

    Parameters
    ----------
    optimizer : Optimizer
        With ``weight_decay`` > 0; without decay the norm grows for ever.
    dim : int
        Fan-in C >= 2 of the neuron (>= 3 for isotropic noise).
    gradient : Gradient
        ScaleInvariant (default, the paper's setting) or Isotropic. Or one of Signal, Autocorrelated and Radial, reduced
        to those (`rotsim.theory.departures`). For Lion also Bursts, averaged over the second half of its series.
    method : {"exact", "leading"}
        "exact": finite-step second moments of the random walk. "leading": the paper's formulas,
        the limit of lr·weight_decay → 0 (Kosson, Messmer, Jaggi 2024, table 1). For Muon the published formula, by
        which successive updates are correlated as AdamW's.
    rows : int, optional
        For Muon: how many neurons make one matrix, >= 2; default as many as `dim`, a square matrix. Norm and rotation
        are those of a neuron.

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
    required_theory(optimizer)
    choice("method", method, ("exact", "leading"))
    dim, gradient, law = checked_law(dim, gradient)
    theory = required_theory(optimizer, rows, dim)
    if not optimizer.settles:
        raise NoEquilibrium(
            "`weight_decay` must be > 0 for an equilibrium to exist; with 0.0 the norm grows without bound"
        )
    found, sound = quantities(theory, dim, law, gradient.angle_spread(dim) if method == "exact" else 1.0, method)
    if not sound:
        raise FloatingPointError  # which `within_floats` puts into words
    return Equilibrium(**{name: float(value) for name, value in found.items()}, method=method)


def quantities(
    theory: Theory[Any], dim: Any, law: GradientPower, spread: Any, method: Method
) -> tuple[dict[str, Any], Any]:
    """Fields of `Equilibrium`, and whether they are sound; elementwise where `Theory.elementwise` is.

    `spread` is `Gradient.angle_spread` at this `dim`, >= 1. The chord is that of
    `derivations.sgdm.exact_one_minus_cosine`; what spreads angles, `derivations.finite_dim`.
    """
    theory.check_size(dim)
    state = theory.at_rest(dim, law, method)
    half_chord, norm = np.sqrt(state.one_minus_cosine / 2), np.sqrt(state.norm_squared)
    has_norm = theory.spec.decay != "none"  # else it keeps any norm, and turns by an angle whatever gradients do
    if method == "leading" and has_norm:
        rotation = 2 * half_chord
    else:
        rotation = 2 * np.arcsin(np.minimum(1.0, half_chord))
        if has_norm:
            rotation = spread_out(rotation, spread) * state.angle_factor
    moved = 2 * half_chord * norm if state.update_squared is None else np.sqrt(state.update_squared)
    relaxation, error = state.relaxation_steps, state.model_error + theory.few_weights(dim, law, method, state)
    if has_norm:  # signs that never change bring the weights to rest: then nothing moves
        sound = (norm > 0) & (norm < inf) & (relaxation > 0) & (relaxation < inf)
        sound = sound & (rotation >= 0) & (rotation < inf) & (moved >= 0) & (moved < inf)
    else:
        sound = (rotation > 0) & (rotation < inf)
    names = ("norm", "rotation", "update_rms", "relaxation_steps", "model_error")
    return dict(zip(names, (norm, rotation, moved, relaxation, error), strict=True)), sound & ~np.isnan(error)


def checked_law(dim: int, gradient: Gradient | None) -> tuple[int, Gradient, GradientPower]:
    """The fan-in, the gradient (scale-invariant if None) and its law, or `InvalidInput` that says which is wrong."""
    gradient = ScaleInvariant() if gradient is None else gradient
    gradient = instance("gradient", gradient, Gradient, "a spec such as rotsim.ScaleInvariant()")
    dim = integer("dim", dim, low=2)
    return dim, gradient, gradient.power(dim)
