"""AdEMAMix's slow average s beside the fast one m, under the weights of `damped`: what one step does to their moments.

Rows 8, 9 and 10 are E w·s, E m·s and E s² under e^(-ζv), as 3 and 5 are E w·m and E m². The update is made of
n = m + α' s, whose E n·m, E n² and E n·s are rows 6, 7 and 11. All are Gaussian under every weight, as m is
(`derivations.ademamix`, `derivations.damped.gaussian_under_every_weight`).

All functions take `rows` (12, points), the moments, which they change in place. `zeta` (points,) rises from 0. `count`
is the index of the last point in use. `tables` are those of `damped`.
"""

from __future__ import annotations

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.theory.damped import beside_eps, beyond, flatten, integral

_WEIGHT, _WM, _MM, _NM, _NN, _WS, _MS, _SS, _NS = 0, 4, 5, 6, 7, 8, 9, 10, 11


@kernel_part()
def entered(rows, count, zeta, beta1, beta2, beta3, pull) -> None:  # type: ignore[no-untyped-def]
    """Take a new gradient of variance `pull` into the slow average, before the fast one and v take it.

    It is `derivations.damped.momentum`.
    """
    for k in range(count + 1):
        left = closed_forms.damped_share(beta2, zeta[k], pull)
        square = rows[_WEIGHT, k] * closed_forms.damped_momentum_square(0.0, 0.0, beta2, 0.0, 0.0, zeta[k], pull)
        rows[_WS, k] *= left * beta3
        rows[_MS, k] = left * (beta1 * beta3 * rows[_MS, k] + (1 - beta1) * (1 - beta3) * square)
        rows[_SS, k] = left * (beta3 * beta3 * rows[_SS, k] + (1 - beta3) ** 2 * square)


@kernel_part()
def blend(rows, count, ahead) -> None:  # type: ignore[no-untyped-def]
    """E n·m, E n² and E n·s of n = m + ahead·s (`derivations.ademamix.random_walk`)."""
    for k in range(count + 1):
        rows[_NM, k] = rows[_MM, k] + ahead * rows[_MS, k]
        rows[_NS, k] = rows[_MS, k] + ahead * rows[_SS, k]
        rows[_NN, k] = rows[_NM, k] + ahead * rows[_NS, k]


@kernel_part()
def overlap(rows, zeta, count, tables, eps):  # type: ignore[no-untyped-def]
    """E w·s/(√v + ε) (`derivations.damped.damped_moments`)."""
    if eps > 0.0:
        return beside_eps(rows[_WS], zeta, count, True, eps)
    return integral(rows[_WS], zeta, count, True, tables.root_tail)


@kernel_part()
def move(rows, count, zeta, lr, decay, step, felt, evenly, eps, tables, scratch, room) -> None:  # type: ignore[no-untyped-def]
    """E w·s after a step of so much n/√v (`derivations.damped.overlap_after_the_step`).

    ε takes the share `evenly` of it, and of m²/√v it leaves `felt`, which `step` has already. `scratch`
    (points + GHOSTS,) and `room` (points,) are overwritten.
    """
    room[0] = integral(rows[_NS], zeta, count, True, tables.root_tail)
    beyond(rows[_NS], zeta, count, True, tables.root, tables.ghosts, scratch, room)
    if evenly > 0.0:
        step *= beside_eps(rows[_NS], zeta, count, True, eps) / (room[0] * felt)
        flatten(rows[_NS], count, evenly, room)
    for k in range(count + 1):
        rows[_WS, k] = closed_forms.moved_overlap(lr, decay, step, rows[_WS, k], room[k])
