"""What the course of `rotsim.theory.adam_in_time` is off by, carried from step to step beside it.

Weights that are not Gaussian have a fourth cumulant. Neurons differ in their norms. Both follow the linear response of
the mean's map (`derivations.damped.neurons_differ`).
"""

from __future__ import annotations

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.theory.adam_parts import MM, WEIGHT, WM, WW, M
from rotsim.theory.damped import SPACING


@kernel_part()
def fourth_moments(rows, count, zeta, centre, squared):  # type: ignore[no-untyped-def]
    """E[m⁴/v²] = ∫ ζ E[m⁴ e^(-ζv)] dζ; the same and E[m²/v] for m about its mean. m is Gaussian under every weight."""
    total, central, power = 0.0, 0.0, 0.0
    for k in range(1, count + 1):
        weight, mean = rows[WEIGHT, k], rows[M, k] / rows[WEIGHT, k]
        square = max(rows[squared, k] / weight - mean**2, 0.0)
        mean += centre[1]
        area = zeta[k] * weight * SPACING
        total += zeta[k] * area * (3 * square**2 + 6 * square * mean**2 + mean**4)
        central += zeta[k] * area * 3 * square**2
        power += area * square
    return total, central, power


@kernel_part()
def leaves_normal(rows, count, zeta, step, across, power):  # type: ignore[no-untyped-def]
    """E w⁴ - 3 (E w²)² that a step from Gaussian weights makes."""
    ww0 = rows[WW, 0]
    c_31, c_22, c_13, c_04 = 0.0, -ww0 * power - 2 * across**2, -3 * across * power, -3 * power**2
    for k in range(1, count + 1):
        weight, root = rows[WEIGHT, k], np.sqrt(zeta[k] / np.pi)
        ww, wm, mm = rows[WW, k], rows[WM, k], rows[MM, k]
        c_31 += SPACING * root * 3 * (ww / weight - ww0) * wm
        c_22 += SPACING * zeta[k] * (ww * mm + 2 * wm**2) / weight
        c_13 += SPACING * zeta[k] * root * 6 * wm * mm / weight
        c_04 += SPACING * zeta[k] ** 2 * 3 * mm**2 / weight
    return closed_forms.fourth_cumulant(step, c_31, c_22, c_13, c_04)


@kernel_part()
def respond(matrix, old, new_m, new_v, m_left, v_left):  # type: ignore[no-untyped-def]
    """The map of relative deviations of (‖w‖², m², v) in a step that leaves the shares `old`, `m_left`, `v_left`."""
    new = 1 - old
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = (
        closed_forms.norm_response(old, new_m, new_v),
        new * m_left,
        -new * v_left,
    )
    matrix[1, 0], matrix[1, 1] = new_m, m_left
    matrix[2, 0], matrix[2, 2] = new_v, v_left


@kernel_part()
def carry(matrix, error, covariance, half):  # type: ignore[no-untyped-def]
    """Deviations L e and their covariance L Σ Lᵀ, in place."""
    x, a, b = error[0], error[1], error[2]
    for i in range(3):
        error[i] = matrix[i, 0] * x + matrix[i, 1] * a + matrix[i, 2] * b
        for j in range(3):
            half[i, j] = 0.0
            for k in range(3):
                half[i, j] += matrix[i, k] * covariance[k, j]
    for i in range(3):
        for j in range(3):
            covariance[i, j] = half[i, 0] * matrix[j, 0] + half[i, 1] * matrix[j, 1] + half[i, 2] * matrix[j, 2]
