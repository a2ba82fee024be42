"""What the modes of an update share with the direction of weights whose norm is held (`rotsim.theory.base.Filling`)."""

from __future__ import annotations

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.theory.record import kernel


@kernel_part()
def along_the_weights(overlap, seen, odd, roots):  # type: ignore[no-untyped-def]
    """E[u_t·ŵ_{t-1}]: older updates have moved the weights against what they share with this one."""
    found = 0.0
    for n in range(len(roots)):
        found += roots[n] * seen ** odd[n] * overlap[n]
    return found


@kernel_part()
def turn_overlap(overlap, rate, kept, entered, newest, faded, odd, weights, alone, roots):  # type: ignore[no-untyped-def]
    """The overlap of ŵ with each mode, one step on."""
    for n in range(len(roots)):
        weight, root = weights[n] * entered ** odd[n] + alone[n] * newest, roots[n] * faded ** odd[n]
        overlap[n] = closed_forms.rotational_mode_overlap(rate, overlap[n], weight, root, kept)


@kernel
def see_as(met, overlap, seen, entered, newest, odd, weights, alone, roots):  # type: ignore[no-untyped-def]
    """Change `seen` so that weights which keep all updates meet the next one as `met` says, step by step.

    What an update shares with older ones is then a factor of either. What enters of it changes by the inverse.
    """
    factor = 1.0
    for t in range(len(seen)):
        if t < len(met):
            along = along_the_weights(overlap, seen[t], odd, roots)
            if along < 0.0:
                factor = met[t] / along
        seen[t], entered[t], newest[t] = seen[t] * factor, entered[t] / factor, newest[t] / factor
        if t < len(met):
            turn_overlap(overlap, 1.0, 1.0, entered[t], newest[t], 1.0, odd, weights, alone, roots)
