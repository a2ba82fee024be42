r"""How a neuron of few weights answers to its own norm through two averages over one √v, as under AdEMAMix.

A neuron whose norm is x too long for a while has gradients that are x too short. Its averages hold them, and v forgets
them. To first order in x that is a filter of x: `derivations.ademamix.answer_to_its_own_norm`. What the norm wavers by
itself, times what this filter makes of it, is how much it wavers. F is the ratio of both.

Below some number of weights single neurons run away: the slow average still holds large gradients when v has forgotten
them. That number was read off walks of 6 to 90 weights at 92 settings: α from 1 to 8, lr·weight_decay from 0.003 to
0.1, β2 from 0.9, β3 to 0.999. It is above all at which neurons ran away, and at most 3.3 times as large.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from rotsim import closed_forms

RUNAWAY = 6.5  # weights
BY_RATIO, BY_DECAY = 0.3, 0.1  # powers of (1-β2)/(1-β3), and of lr·weight_decay/(1-β3)
_FREQUENCIES = np.append(0.0, np.geomspace(1e-3, 1.0, 1200))  # of the slowest memory; then up to π
_APART = 1e-6  # relative, between roots that would be divided by their difference

Averages = tuple[tuple[float, float], ...]  # size and root of each


def met_twice(averages: Averages, decay: Any) -> Any:
    """How alike the weights are that one gradient moves in two of its steps; elementwise in decay.

    It is `derivations.ademamix.met_twice`; of one average `rotsim.theory.few_weights.met_twice`.
    """
    whole = sum(size for size, _ in averages)
    return sum(
        size * other / whole**2 * closed_forms.ademamix_met_twice(root, kept, *held)
        for size, root in averages
        for other, kept in averages
        for held in [[closed_forms.decoupled_held(1.0, decay, each) for each in (root, kept)]]
    )


def met_and_fed_back(averages: Averages, second: float, decay: Any) -> tuple[Any, Any]:
    """Q of `rotsim.theory.few_weights` beside decay, and F: how much more ‖w‖² wavers since the gradient follows it.

    Elementwise in decay, in (0, 1) (`derivations.ademamix.met_again_beside_decay`, `answer_to_its_own_norm`).
    """
    found = [_of_one(averages, second, float(each)) for each in np.ravel(decay)]
    met, late = np.array(found).T.reshape(2, *np.shape(decay))
    return met[()], late[()]


@lru_cache(maxsize=256)
def _of_one(averages: Averages, second: float, decay: float) -> tuple[float, float]:
    kept = 1 - decay
    roots = [root if abs(root - kept) > _APART * kept else root - _APART * kept for _, root in averages]
    sizes = [size * (1 - root) for (size, _), root in zip(averages, roots, strict=True)]
    poles = np.array([kept, *roots])
    parts = [size / (kept - root) for size, root in zip(sizes, roots, strict=True)]
    impulse = np.array([kept * sum(parts), *(-root * part for root, part in zip(roots, parts, strict=True))])
    pairs, products = np.outer(impulse, impulse), np.outer(poles, poles)
    square = float((pairs / (1 - products)).sum())
    shared = (np.array(sizes) / (1 - np.outer(poles, roots))).sum(axis=1)
    slowest = min(1 - poles.max(), 1 - second)
    frequency = np.unique(np.append(slowest * _FREQUENCIES, np.geomspace(slowest, np.pi, 1200)))
    z = np.exp(-1j * frequency)

    def geometric(weights: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        return np.asarray((weights.ravel() / (1 - ratios.ravel() * z[:, None])).sum(axis=1))

    held = geometric(impulse * shared, kept * poles) * (1 - second) / (1 - second * z)
    answer = z * (held - geometric(pairs, products)) / square
    alike = (pairs / (1 - products)).sum(axis=0) / square  # of the weights' autocorrelation, by pole
    wavers = 2 * geometric(np.outer(alike, alike), products).real - 1
    late = float(np.trapezoid(wavers / abs(1 - answer) ** 2, frequency) / np.trapezoid(wavers, frequency))
    again = sum(
        size * (1 - second) * (impulse * root / (1 - root * poles)).sum() * (alike / (1 - second * root * poles)).sum()
        for size, root in zip(sizes, roots, strict=True)
    )
    return float(again / ((1 - kept**2) * square)), late


def runaway(averages: Averages, second: float, decay: Any, late: Any) -> Any:
    """Weights below which neurons may run away; elementwise in decay and `late`, which is F."""
    (fast, _), (slow, root) = averages
    patience = 1 - root
    ratio, lasting = (1 - second) / patience, decay / patience
    return RUNAWAY * late * slow / (fast + slow) * ratio**BY_RATIO * lasting**BY_DECAY
