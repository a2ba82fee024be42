"""Idealised gradients. Each is a frozen spec, a jitted sampler, and the power the theory needs.

A sampler fills ``z`` with raw noise (or data) and returns two numbers ``(a, b)``; the gradient is
``g = a·z + b·w``. That form covers white noise, its projection orthogonal to w, and replayed
data, and lets the kernel apply it inside the update loop instead of in a pass of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numba.extending import register_jitable

from rotsim.errors import InvalidInput, positive, require
from rotsim.noise import fill_normals

# Inlined into the walk: a call per step, with its reference counting, costs a third of a walk at dim 64.
_OPTIONS: dict[str, Any] = {"fastmath": {"contract", "nsz", "reassoc"}, "inline": "always"}


@dataclass(frozen=True)
class GradientPower:
    """Second moment of the gradient as the theory sees it: E‖g‖² = scale_squared · (E‖w‖²)^homogeneity."""

    scale_squared: float
    homogeneity: int


@dataclass(frozen=True)
class Gradient(ABC):
    """A gradient model.

    ``sample(z, words, w, norm_squared, key0, key1, step, parameter, data, t, i) -> (a, b)`` is the jitted
    sampler; ``data[t, i]`` are the given gradients of neuron i at the t-th step of a chunk.
    """

    name: ClassVar[str]
    sample: ClassVar[Callable[..., Any]]

    @property
    @abstractmethod
    def parameter(self) -> float:
        """The one number the sampler takes."""

    def chunk(self, step: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        """Given gradients for these steps, shape (len(step), neurons, dim); empty for noise models."""
        return np.zeros((0, 0, 0), dtype)

    @abstractmethod
    def power(self, dim: int) -> GradientPower:
        """E‖g‖² as a function of E‖w‖²; raises `InvalidInput` if the model has no such law."""

    @abstractmethod
    def angle_spread(self, dim: int) -> float:
        """Factor between E[angle²] and 2(1 - ρ) that comes from fluctuations of ‖w‖ at finite `dim`."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, JSON-serialisable."""


@dataclass(frozen=True)
class _Noise(Gradient):
    """What noise models share: one scale > 0."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", positive("scale", self.scale))

    @property
    def parameter(self) -> float:
        return self.scale

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "scale": self.scale}


@register_jitable(**_OPTIONS)
def _sample_isotropic(z, words, w, norm_squared, key0, key1, step, parameter, data, t, i):  # type: ignore[no-untyped-def]
    fill_normals(z, words, key0, key1, step)
    return parameter, 0.0


@dataclass(frozen=True)
class Isotropic(_Noise):
    """White noise: g ~ N(0, scale² I).

    Parameters
    ----------
    scale : float
        Standard deviation of one coordinate, > 0.
    """

    name = "isotropic"
    sample = staticmethod(_sample_isotropic)

    def power(self, dim: int) -> GradientPower:
        return GradientPower(dim * self.scale**2, 0)

    def angle_spread(self, dim: int) -> float:
        require(dim >= 3, "dim", "be >= 3 for isotropic noise, where E[1/‖w‖²] diverges at 2", dim)
        # w and the noise across it are independent: E[χ²_{C-1}] E[1/χ²_C] = (C-1)/(C-2)
        return (dim - 1) / (dim - 2)


@register_jitable(**_OPTIONS)
def _sample_scale_invariant(z, words, w, norm_squared, key0, key1, step, parameter, data, t, i):  # type: ignore[no-untyped-def]
    fill_normals(z, words, key0, key1, step)
    overlap = z[0] * w[0]
    for j in range(1, w.size):
        overlap += z[j] * w[j]
    a = parameter / np.sqrt(w.size * norm_squared)
    return a, -a * overlap / norm_squared


@dataclass(frozen=True)
class ScaleInvariant(_Noise):
    """Noise as scale invariance shapes it: g = P_w⊥ z / ‖w‖ with z ~ N(0, scale²/C · I).

    Parameters
    ----------
    scale : float
        RMS of ‖g̃‖, the gradient norm at ‖w‖ = 1 (up to the factor √(1 - 1/C) of the projection), > 0.
    """

    name = "scale_invariant"
    sample = staticmethod(_sample_scale_invariant)

    def power(self, dim: int) -> GradientPower:
        return GradientPower(self.scale**2 * (1 - 1 / dim), -1)

    def angle_spread(self, dim: int) -> float:
        return 1.0


@register_jitable(**_OPTIONS)
def _sample_replay(z, words, w, norm_squared, key0, key1, step, parameter, data, t, i):  # type: ignore[no-untyped-def]
    for j in range(w.size):
        z[j] = data[t, i, j]
    return parameter, 0.0


@dataclass(frozen=True, eq=False)
class Replay(Gradient):
    """Gradients given in advance, e.g. recorded from a network.

    Parameters
    ----------
    gradients : array_like of float, shape (steps, neurons, dim)
        Finite values; step t of the walk uses ``gradients[t - 1]``.
    """

    name = "replay"
    sample = staticmethod(_sample_replay)

    gradients: np.ndarray

    def __post_init__(self) -> None:
        try:
            array = np.asarray(self.gradients, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidInput("`gradients` must be an array of numbers of shape (steps, neurons, dim)") from None
        if array.ndim != 3 or 0 in array.shape:
            raise InvalidInput(f"`gradients` must have shape (steps, neurons, dim), none zero; got {array.shape}")
        if not np.isfinite(array).all():
            raise InvalidInput("`gradients` must be finite; it holds NaN or infinity")
        object.__setattr__(self, "gradients", array)

    @property
    def parameter(self) -> float:
        return 1.0

    def chunk(self, step: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
        return self.gradients[step[0] - 1 : step[-1]].astype(dtype)

    def power(self, dim: int) -> GradientPower:
        raise InvalidInput(
            "`gradient` must be Isotropic or ScaleInvariant to predict an equilibrium; "
            "got Replay, whose gradients follow no law. Simulate it instead"
        )

    def angle_spread(self, dim: int) -> float:
        return 1.0

    def to_dict(self) -> dict[str, Any]:
        from hashlib import sha256

        return {
            "name": self.name,
            "shape": list(self.gradients.shape),
            "sha256": sha256(np.ascontiguousarray(self.gradients).tobytes()).hexdigest(),
        }


GRADIENTS: dict[str, type[Gradient]] = {model.name: model for model in (Isotropic, ScaleInvariant, Replay)}
