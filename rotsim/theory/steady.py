"""A walk at rest: one type for every optimizer, every law of gradients and every way to compute it."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True)
class SteadyState:
    """Steady state of a random walk: of the weights of a neuron, or of one coordinate; or of many, in arrays.

    Attributes
    ----------
    norm_squared : float
        E‖w‖²; infinite where the walk diverges.
    one_minus_cosine : float
        1 - E⟨w_{t-1}, w_t⟩ / E‖w‖², computed without cancellation.
    relaxation_steps : float
        Steps in which a small deviation of ‖w‖² shrinks by a factor e; NaN where it was not asked for.
    model_error : float
        Declared relative error of norm and rotation, without that of a finite fan-in (`Theory.few_weights`).
    update_squared : float or None
        E‖w_t - w_{t-1}‖² where ‖w‖ moves too much for it to be 2(1 - ρ)E‖w‖².
    angle_factor : float
        What rare large updates leave of the RMS angle that 1 - ρ stands for, in (0, 1].
    decay : float
        Weight decay in units of a lasting gradient; NaN where no such gradient is compared with it.
    overlap : float
        E[w_t z_{t+1}], what correlated noise z repeats along a coordinate.
    """

    norm_squared: float
    one_minus_cosine: float
    relaxation_steps: float = nan
    model_error: float = 0.0
    update_squared: float | None = None
    angle_factor: float = 1.0
    decay: float = nan
    overlap: float = 0.0
