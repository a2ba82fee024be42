"""A walk that starts where theory says that it settles, and stays there."""

import numpy as np

import rotsim


def held_to_a_walk(spec, gradient, seed, eq, steps, left_out, bar, errors):
    """Norm and rotation of 32 neurons of 256 weights, but for the first tenths `left_out`, within `bar` of `eq`.

    `errors` standard errors more are allowed.
    """
    steps = int(steps) // 10 * 10
    walk = rotsim.simulate(
        spec, 256, 32, steps, gradient, seed=seed, initial_norm=eq.norm, record_every=steps // 10, engine="numba"
    )
    for name in ("norm", "rotation"):
        square = (walk[name].values[:, left_out:] ** 2).mean(axis=1)
        found, error = np.sqrt(square.mean()), square.std() / np.sqrt(len(square)) / 2 / square.mean()
        assert abs(found / getattr(eq, name) - 1) < bar + errors * error, (spec, name)
