r"""What the size of a neuron's own gradients makes of its course, beside that of a typical neuron of the layer.

Neurons come to life, burst and die, each at its time. A course of the layer has squared norm W and rotation θ. A
neuron whose gradients are d times as large as there has z times that squared norm:

.. math::
    \frac{d \ln W}{dt} = κθ^2 - 2δ, \qquad
    \frac{d \ln z}{dt} = κθ^2 \left( \frac{G}{z^p} - 1 \right) - 2δ (D - 1), \qquad \frac{θ_n^2}{θ^2} = \frac{G}{z^p}

A step across the weights of squared length a² lengthens them by κa², which is what decay 2δ takes at rest. Under SGDM,
whose step is the gradient's own length, p = 2 and G = d². Under Adam p = 1. With g = d/√z, what v remembers of g² is
ν, and G = d²/ν. Decay inside the gradient is divided by the root of ν: D = 1/√ν. Otherwise D = 1. Steps by signs know
no size. All of this is to leading order, and multiplies a course that is exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rotsim.optimizers.base import Optimizer
from rotsim.statistics import running_mean
from rotsim.theory.spans import at_rest

_LEAST = 1e-6  # of G: a neuron without a gradient still turns by what its averages hold
_SMOOTHED = 8  # parts of a run over which the size of a neuron's gradients, known from few samples, is averaged


@lru_cache(maxsize=1024)
def growth_per_turn(spec: Optimizer, dim: int, rows: int | None = None) -> float:
    """κ: what noise adds to ‖w‖² over the squared length of its steps across the weights, 2δ/θ² at rest.

    It is about (1+β1)/(1-β1) for AdamW, Adam+L2 and SGDM. For an average it does not depend on the memory of gradients:
    S of `derivations.autocorrelated`. The fan-in is > 2, and `rows` are as in `rotsim.predict`.
    """
    _, theory, law = at_rest(spec.plain, dim, rows)
    state = theory.white(dim, law, "exact")
    return float(theory.decay_of(dim, law, state) / state.one_minus_cosine)


def own_factors(
    spec: Optimizer,
    dim: int,
    relative: np.ndarray,
    sizes: np.ndarray,
    norm: np.ndarray,
    rotation: np.ndarray,
    steps: np.ndarray,
    decay: np.ndarray,
    rows: int | None = None,
) -> np.ndarray:
    """Factors of norm, rotation and update of each neuron in each window.

    Parameters
    ----------
    spec : Optimizer
    dim : int
        Fan-in C > 2.
    relative : ndarray, shape (neurons, windows)
        d > 0, the RMS of a window; NaN where it is not known.
    sizes : ndarray, shape (neurons, windows)
        ‖g‖‖w‖ of the course; NaN where it is not known.
    norm, rotation : ndarray, shape (neurons, windows)
        Of the course, the RMS of each window.
    steps, decay : ndarray, shape (windows,)
        Steps in each window and the sum of lr·weight_decay over them, >= 0.
    rows : int, optional
        As in `growth_per_turn`.

    Returns
    -------
    ndarray, shape (3, neurons, windows)
        In the order of `rotsim.dataset.QUANTITIES`.

    Notes
    -----
    Growth and loss are those of `derivations.sgdm`, `derivations.adamw` and `derivations.adam_l2`.
    """
    found = np.ones((3, *relative.shape))
    divided = spec.plain.shape == "inverse root"
    if spec.decay not in ("coupled", "decoupled") or not (divided or spec.plain.shape == "identity"):
        return found
    square = running_mean(np.where(np.isfinite(relative), relative, 1.0) ** 2, relative.shape[1] // _SMOOTHED)
    typical = np.where(np.isfinite(sizes), sizes, np.sqrt(np.nanmean(sizes**2, axis=1, keepdims=True)))
    power = 1 if divided else 2
    growth = growth_per_turn(spec, dim, rows) * rotation**2 * steps  # of a window, over W
    base = typical**2 / norm**2  # ‖g‖², as v of the course has it
    beta2 = spec.averages[1] if divided else 0.0
    left = beta2**steps
    held = (1 - left) / (-np.log(beta2) * np.maximum(steps, 1)) if beta2 > 0 else np.zeros(len(steps))
    y = np.ones(len(relative))
    own, course, filled = np.zeros(len(y)), np.zeros(len(y)), 0.0  # averages of ‖g‖² that v holds, and its weights
    for w in np.flatnonzero(steps):
        gain, pace = square[:, w], growth[:, w]
        if divided:
            gradient = gain * base[:, w] / y
            v, typical_v = (
                held[w] * before + (1 - held[w]) * now for before, now in ((own, gradient), (course, base[:, w]))
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = np.where(base[:, w] > 0, np.where(v > 0, gradient * typical_v / base[:, w] / v, 0.0), 1.0)
            if spec.decay == "coupled":
                taken = 2 * decay[w] * np.sqrt(dim * (held[w] * filled + 1 - held[w]))
                pace = pace + taken * (np.maximum(v, _LEAST * typical_v) ** -0.5 - typical_v**-0.5)
            own, course = left[w] * own + (1 - left[w]) * gradient, left[w] * course + (1 - left[w]) * base[:, w]
            filled = left[w] * filled + 1 - left[w]
        gain, pace = np.maximum(gain, _LEAST), np.maximum(pace, _LEAST)
        rest, moved = growth[:, w] * gain / pace, power * pace
        fades = np.exp(-moved)
        mean, y = rest + (y - rest) * (1 - fades) / moved, rest + (y - rest) * fades
        found[:2, :, w] = mean ** (0.5 / power), np.sqrt(gain / mean)
    found[2] = found[0] * found[1]
    return found
