"""The angle of one step from its squared lengths: what walks record, and what theory predicts of a record."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotsim.compiled import kernel_part


@kernel_part(fastmath=False)
def squared_angle(chord_squared):  # type: ignore[no-untyped-def]
    """Square of the angle whose chord on the unit circle has this squared length."""
    if chord_squared < 1e-3:  # series of (2 asin(c/2))², next term c¹⁰/3150
        c = chord_squared
        return c * (1.0 + c * (1.0 / 12.0 + c * (1.0 / 90.0 + c / 560.0)))
    sine = 0.5 * np.sqrt(chord_squared)
    angle = 2.0 * np.arcsin(1.0 if sine > 1.0 else sine)
    return angle * angle


@kernel_part(fastmath=False)
def squared_chord(before, after, along, moved):  # type: ignore[no-untyped-def]
    """Squared chord between the directions of w and w + Δw, from ‖w‖², ‖w + Δw‖², ⟨w, Δw⟩ and ‖Δw‖²."""
    norm_before, norm_after = np.sqrt(before), np.sqrt(after)
    # the radial part from the sums, not from norm_after - norm_before, which cancels
    radial = (2.0 * along + moved) / (norm_before + norm_after)
    across = moved - radial * radial
    return (across if across > 0.0 else 0.0) / (norm_before * norm_after)


def spread_out(angle: Any, spread: Any) -> Any:
    """RMS of an angle in [0, π] beside norms that waver, elementwise; `spread` is E[angle²] over its square if small.

    The cosine wavers with the norms, and a wide angle follows it less (`derivations.finite_dim.wide_angle`).
    """
    return np.sqrt(angle**2 + (spread - 1) * np.sin(angle) ** 2)
