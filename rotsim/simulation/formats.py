"""What a floating-point format can hold of a walk: what it cannot is refused before, what it lost is noticed after."""

from __future__ import annotations

from typing import Any

import numpy as np

from rotsim.errors import InvalidInput
from rotsim.gradients import Gradient
from rotsim.optimizers import Optimizer

LEAST_ROTATION = 1e-7  # change of a coordinate over its size; its square must still be a normal number
KNOWN_SHARE = 0.01  # relative error of 1 - β that rounding β may make
_DECAYS = ("betas", "momentum", "update_norm_decay")


class Diverged(InvalidInput, ArithmeticError):
    """The weights, or what the optimizer keeps of gradients, left the range of the floating-point format."""


def least_norm(dim: int, real: np.dtype[Any]) -> float:
    """The norm below which squares of changes of a coordinate lose their digits."""
    return float(np.sqrt(np.finfo(real).tiny * dim) / LEAST_ROTATION)


def check_format(
    optimizer: Optimizer, gradient: Gradient, norms: np.ndarray, dim: int, real: np.dtype[Any], source: str
) -> None:
    """Raise `InvalidInput` if rounding in `real` would change the walk's numbers; `source` gave the initial norms."""
    way_out = "" if real == np.float64 else "; use dtype='float64'"
    known = np.finfo(real)
    for spec in (optimizer, optimizer.plain):
        for name in _DECAYS:
            for decay in np.atleast_1d(getattr(spec, name, ())).tolist():
                if decay and 1 - decay < known.eps / 4 / KNOWN_SHARE:
                    raise InvalidInput(
                        f"`{name}` must differ from 1 by at least {known.eps / 4 / KNOWN_SHARE:.2g} in {real}, which "
                        f"rounds it; got {decay!r}{way_out}"
                    )
    low, high = float(known.tiny) ** 0.25, float(known.tiny) ** -0.25
    sizes = gradient.sizes()
    for what, least, values in (
        (source, max(low, least_norm(dim, real)), norms),
        ("gradient", low, sizes[sizes > 0]),
    ):
        if values.size and not (least <= values.min() and values.max() <= high):
            bad = values.min() if values.min() < least else values.max()
            noun = "norms" if what == source else "sizes"
            raise InvalidInput(
                f"`{what}` must have {noun} from {least:.2g} to {high:.2g} for {real} to hold their squares; "
                f"got {float(bad):g}{way_out}"
            )


def lost(norm_squared: np.ndarray, dim: int, real: np.dtype[Any]) -> np.ndarray:
    """Which neurons have left the range that `real` holds."""
    with np.errstate(invalid="ignore"):
        held = np.isfinite(norm_squared) & (norm_squared >= least_norm(dim, real) ** 2)
    return ~held


def check_kept(norm_squared: np.ndarray, dim: int, real: np.dtype[Any], done: int) -> None:
    """Raise `Diverged` if neurons have left the range that `real` holds by step `done`."""
    gone = lost(norm_squared, dim, real)
    if gone.any():
        what = "infinite or NaN" if not np.isfinite(norm_squared).all() else f"too small for {real}"
        raise Diverged(
            f"the weights of {gone.sum()} of {gone.size} neurons became {what} by step {done}; "
            "lower lr or weight_decay, or use dtype='float64'"
        )


def check_memory_of_gradients(optimizer: Optimizer, slots: np.ndarray) -> None:
    """Raise `Diverged` if the moments at the end of a walk overflowed, or if squares of gradients vanished.

    An infinite second moment stands still, and one of 0 makes steps of any size: weights stay finite under both.
    """
    real = slots.dtype
    least = np.finfo(real).tiny / np.finfo(real).eps if _divides_by_root(optimizer, real) else 0.0
    neurons = max(1, (1 << 20) // slots.shape[2])  # a few at a time, for little memory
    for start in range(0, len(slots), neurons):
        first, second = slots[start : start + neurons, 1], slots[start : start + neurons, 2]
        if not (np.isfinite(first).all() and np.isfinite(second).all()):
            raise Diverged(f"the gradients are too large for {real}; lower their scale, or use dtype='float64'")
        if ((second.max(axis=1) < least) & first.any(axis=1)).any():
            raise Diverged(f"the squares of the gradients are too small for {real}; raise their scale or `eps`")


def _divides_by_root(optimizer: Optimizer, real: np.dtype[Any]) -> bool:
    """Whether updates are divided by the root of the second moment where that is tiny."""
    return getattr(optimizer.plain, "eps", 1.0) < 10 * float(np.finfo(real).tiny / np.finfo(real).eps) ** 0.5
