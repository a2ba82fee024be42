"""One step of the walk as one would write it, once for NumPy, PyTorch and JAX: ``xp`` is the library.

The peers of `benchmarks.peers` and `benchmarks.cuda` all run `step`, so that they do the same work.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import rotsim
from rotsim.optimizers import Optimizer
from rotsim.optimizers.base import filled

Rule = Callable[..., tuple[Any, Any, Any]]  # (xp, w, m, v, g, size, root) -> (w, m, v)

OPTIMIZERS: dict[str, Optimizer] = {
    "AdamW": rotsim.AdamW(1e-2, 0.1),
    "Adam+L2": rotsim.AdamL2(1e-3, 0.05),
    "SGDM": rotsim.SGDM(0.1, 1e-2),
    "Lion": rotsim.Lion(1e-3, 1.0),
}


def _adam(o: Any, decoupled: bool) -> Rule:
    (beta1, beta2), coupled = o.betas, 0.0 if decoupled else o.weight_decay
    kept = 1 - o.lr * o.weight_decay if decoupled else 1.0

    def rule(xp, w, m, v, g, size, root):  # type: ignore[no-untyped-def]
        if coupled:
            g = g + coupled * w
        m = m + (1 - beta1) * (g - m)
        v = v + (1 - beta2) * (g * g - v)
        return kept * w - size * m / (xp.sqrt(v) * root + o.eps), m, v

    return rule


def _sgdm(o: Any) -> Rule:
    def rule(xp, w, m, v, g, size, root):  # type: ignore[no-untyped-def]
        m = o.momentum * m + (g + o.weight_decay * w)
        return w - o.lr * m, m, v

    return rule


def _lion(o: Any) -> Rule:
    beta1, beta2 = o.betas

    def rule(xp, w, m, v, g, size, root):  # type: ignore[no-untyped-def]
        u = xp.sign(beta1 * m + (1 - beta1) * g)
        return (1 - o.lr * o.weight_decay) * w - o.lr * u, beta2 * m + (1 - beta2) * g, v

    return rule


_RULES: dict[str, Callable[[Any], Rule]] = {
    "AdamW": lambda o: _adam(o, True),
    "Adam+L2": lambda o: _adam(o, False),
    "SGDM": _sgdm,
    "Lion": _lion,
}


def step(name: str, scale_invariant: bool, xp: Any) -> Callable[..., tuple[Any, ...]]:
    """``(w, m, v, norm, z, size, root) -> (w, m, v, norm, angle)`` of the optimizer called `name`, for all neurons."""
    rule = _RULES[name](OPTIMIZERS[name])

    def one(w, m, v, norm, z, size, root):  # type: ignore[no-untyped-def]
        g = z
        if scale_invariant:
            direction = w / norm[:, None]
            g = (z - (z * direction).sum(1)[:, None] * direction) / (norm[:, None] * w.shape[1] ** 0.5)
        new, m, v = rule(xp, w, m, v, g, size, root)
        new_norm = xp.sqrt((new * new).sum(1))
        cosine = (w * new).sum(1) / (norm * new_norm)
        return new, m, v, new_norm, xp.arccos(xp.clip(cosine, -1.0, 1.0))

    return one


def factors(name: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What `step` takes as ``size`` and ``root``: Adam's step size and root with bias corrections, float32."""
    optimizer: Any = OPTIMIZERS[name]
    beta1, beta2 = getattr(optimizer, "betas", (0.0, 0.0))
    t = np.arange(1, steps + 1)
    return (optimizer.lr / filled(beta1, t)).astype("f4"), (1 / np.sqrt(filled(beta2, t))).astype("f4")
