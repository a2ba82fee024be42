"""What every gradient model provides: a frozen spec, a jitted sampler, its readable twin, and the power theory needs.

A sampler fills ``z`` with raw noise (or data) and returns two numbers ``(a, b)``; the gradient is
``g = a·z + b·w``. That form covers white noise, its projection orthogonal to w, and replayed
data. The kernel applies it inside the update loop, without a pass of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part, wide_vectors
from rotsim.errors import InvalidInput, array, flag, is_a, positive, real, require
from rotsim.kernels import inlined
from rotsim.noise import normals, pair_of_normals, places

PerNeuron = float | tuple[float, ...]

# Inlined into the walk: a call per step, with its reference counting, costs a third of a walk at dim 64.
INLINED: dict[str, Any] = {"fastmath": {"contract", "nsz", "reassoc"}, "inline": "always"}


def _fill(near, far, words, constants):  # type: ignore[no-untyped-def]
    wide_vectors()
    for p in range(words.size):
        near[p], far[p] = pair_of_normals(words[p], constants)


# Two vectors at a time: a processor then has work while the one waits for its root.
_fill_halves: Any = inlined(_fill, "fill_normals", {}, interleave=2, fastmath=False, _nrt=False)


@kernel_part(**INLINED)
def fill_normals(z, draws):  # type: ignore[no-untyped-def]
    """Turn words (n,) into the first 2n normals of z: word p into those at p and n + p; draws = (words, constants).

    Words and normals in two loops, not one: each chain of dependent instructions is then short
    enough for the processor to overlap several.
    """
    words, constants = draws
    _fill_halves(z[: words.size], z[words.size : 2 * words.size], words, constants)


@dataclass(frozen=True)
class GradientPower:
    """The gradient as the theory sees it: noise with E‖g‖² = scale_squared · (E‖w‖²)^homogeneity, and what else it has.

    Attributes
    ----------
    scale_squared : float
    homogeneity : int
        0 for noise that does not depend on w; -1 for noise orthogonal to w and shrinking as it grows.
    signal : float
        Mean of a coordinate over its standard deviation.
    correlation : float
        φ in R_k = φ^k, the autocorrelation of a coordinate.
    radial : float
        Gradient along w, per unit of w.
    series : ndarray of float, shape (steps,), or None
        Factor of the noise at each step; `scale_squared` is the mean over them.
    """

    scale_squared: float
    homogeneity: int
    signal: float = 0.0
    correlation: float = 0.0
    radial: float = 0.0
    series: np.ndarray | None = None

    @property
    def white(self) -> bool:
        """Nothing but noise that is new in every step, and of one size."""
        return not (self.signal or self.correlation or self.radial) and self.series is None

    def __str__(self) -> str:
        """What it has besides white noise, in words."""
        parts = {"a mean of": self.signal, "a memory of": self.correlation, "a radial part of": self.radial}
        found = [f"{name} {value:g}" for name, value in parts.items() if value]
        return " and ".join(found + ["bursts"] * (self.series is not None)) or "white noise"


class Neuron(NamedTuple):
    """What a sampler knows of the neuron whose gradient it draws, and of the step.

    Attributes
    ----------
    w : ndarray, shape (places,)
        Its weights, zero from dim on.
    dim : int
    norm_squared : float
        ‖w‖².
    key0, key1 : uint32
        Of its noise.
    step : int
        Counted from 1.
    parameters : ndarray of float64, shape (count,)
        Its row of `Gradient.parameters`.
    memory : ndarray, shape (memory_slots, places)
        Kept from step to step, zero at the start.
    given : ndarray, shape (count,)
        What `Gradient.given` supplies for it at this step; not to be read where that is nothing.
    """

    w: np.ndarray
    dim: int
    norm_squared: float
    key0: int
    key1: int
    step: int
    parameters: np.ndarray
    memory: np.ndarray
    given: np.ndarray


@dataclass(frozen=True)
class Gradient(ABC):
    """A gradient model; a subclass is one file and one line in `rotsim.gradients`.

    ``sample(z, draws, neuron) -> (a, b)`` is the jitted sampler. ``z`` is scratch of `scratch` numbers whose first dim
    it fills; ``draws`` are for `fill_normals`; ``neuron`` is a `Neuron`.
    """

    name: ClassVar[str]
    sample: ClassVar[Callable[..., Any]]
    memory_slots: ClassVar[int] = 0
    #: Independent normals of one scale, or their part across w over ‖w‖: its law depends on inner products alone.
    plain_noise: ClassVar[bool] = False
    #: Neurons see each other: `given` is asked before every step, with the weights of all.
    coupled: ClassVar[bool] = False

    @abstractmethod
    def parameters(self) -> np.ndarray:
        """The numbers the sampler takes, shape (1, count), or (neurons, count) where they differ."""

    @abstractmethod
    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        """What `sample` computes, in NumPy, for all neurons: g, shape (neurons, dim). Updates `memory` in place."""

    @property
    def extent(self) -> tuple[int | None, int | None, int | None]:
        """(steps, neurons, dim) that the model is made for; None where any will do."""
        neurons = len(self.parameters())
        return None, (neurons if neurons > 1 else None), None

    def sizes(self) -> np.ndarray:
        """Sizes of the gradient whose squares a floating-point format has to hold, shape (count,)."""
        return np.abs(np.atleast_1d(self.scale))  # type: ignore[attr-defined]

    def scratch(self, dim: int) -> int:
        """Length of the sampler's scratch ``z``, at least `rotsim.noise.places`."""
        return places(dim)

    def given(self, step: np.ndarray, dtype: np.dtype[Any], weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Data for these steps, shape (len(step), neurons or 1, count); empty for noise models."""
        return np.zeros((len(step), 1, 0), dtype)

    def power(self, dim: int) -> GradientPower:
        """E‖g‖² as a function of E‖w‖²; raises `InvalidInput` if the model has no such law."""
        raise InvalidInput(
            "`gradient` must be Isotropic, ScaleInvariant, Signal, Autocorrelated, Radial or, for Lion, Bursts to "
            "predict an equilibrium; "
            f"got {type(self).__name__}, whose gradients follow no law. Simulate it instead"
        )

    def averaged(self, factor: float) -> Gradient:
        """The gradient of a batch `factor` times as large: means stay, noise falls with its root."""
        raise InvalidInput(
            f"the gradient of another batch size is not known for {type(self).__name__}; "
            "give one whose noise has a scale, such as ScaleInvariant"
        )

    def angle_spread(self, dim: int) -> float:
        """Factor between E[angle²] and 2(1 - ρ) that comes from fluctuations of ‖w‖ at finite `dim`."""
        return 1.0

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, JSON-serialisable."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"name": self.name, **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}

    def _set(self, name: str, value: Any) -> None:
        """Store a normalised value during ``__post_init__`` of a frozen dataclass."""
        object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Noise(Gradient):
    """What the two plain noise models share: one scale > 0, or one per neuron."""

    plain_noise = True
    scale_invariant: ClassVar[bool]

    scale: PerNeuron = 1.0

    def __post_init__(self) -> None:
        self._set("scale", per_neuron("scale", self.scale, positive))

    def parameters(self) -> np.ndarray:
        return np.atleast_1d(self.scale)[:, None]

    def averaged(self, factor: float) -> Noise:
        return replace(self, scale=scaled(self.scale, factor**-0.5))

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        z = normals(keys, step, w.shape[1]).astype(w.dtype)
        return shape_noise(z, w, parameters[:, 0], self.scale_invariant)


@dataclass(frozen=True, kw_only=True)
class Structured(Gradient):
    """Noise with a structure of its own, before it is shaped: isotropic as it is, or as scale invariance makes it.

    A subclass adds its parameters after those two in `parameters`, and draws in `_raw`.
    """

    scale: PerNeuron = 1.0
    scale_invariant: bool = True

    def __post_init__(self) -> None:
        self._set("scale", per_neuron("scale", self.scale, positive))
        self._set("scale_invariant", flag("scale_invariant", self.scale_invariant))

    def _columns(self, *extra: PerNeuron) -> np.ndarray:
        """`parameters` made of the shape and `extra`, each a number or one per neuron."""
        columns = [np.atleast_1d(column) for column in (self.scale, float(self.scale_invariant), *extra)]
        return np.stack(broadcast(columns), axis=1)

    def _noise_power(self, dim: int, **departure: Any) -> GradientPower:
        """The law of the noise, shaped, with what makes it differ from white noise."""
        squared = one_scale(self.scale) ** 2
        if self.scale_invariant:
            return GradientPower(squared * (1 - 1 / dim), -1, **departure)
        return GradientPower(dim * squared, 0, **departure)

    def averaged(self, factor: float) -> Structured:
        return replace(self, scale=scaled(self.scale, factor**-0.5))

    def angle_spread(self, dim: int) -> float:
        return 1.0 if self.scale_invariant else isotropic_spread(dim)

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        raw = self._raw(normals(keys, step, w.shape[1]).astype(w.dtype), keys, step, parameters, memory, data)
        return shape_noise(raw, w, parameters[:, 0], self.scale_invariant)

    def _raw(
        self, z: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        """The noise before shaping, from the standard normals `z` of the step; shape (neurons, dim)."""
        return z


@kernel_part(**INLINED)
def shaped(z, neuron):  # type: ignore[no-untyped-def]
    """(a, b) of noise z: scale·z, or its part across w over ‖w‖ with scale/√dim, as scale invariance makes it.

    Scale and scale invariance, 1 or 0, are the first parameters.
    """
    w, scale = neuron.w, neuron.parameters[0]
    if neuron.parameters[1] == 0.0:
        return scale, 0.0
    overlap = z[0] * w[0]
    for j in range(1, neuron.dim):
        overlap += z[j] * w[j]
    return across(overlap, neuron.dim, neuron.norm_squared, scale)


@kernel_part(**INLINED)
def across(overlap, dim, norm_squared, scale):  # type: ignore[no-untyped-def]
    """(a, b) of the part of z across w over ‖w‖, with scale/√dim; ``overlap`` is ⟨z, w⟩."""
    a = scale / np.sqrt(dim * norm_squared)
    return a, -a / norm_squared * overlap  # in this order the product alone has to wait for the overlap


def shape_noise(z: np.ndarray, w: np.ndarray, scale: np.ndarray, scale_invariant: bool) -> np.ndarray:
    """`shaped` for all neurons in NumPy: the gradient, shape (neurons, dim)."""
    size = scale[:, None].astype(w.dtype)
    if not scale_invariant:
        return z * size
    norm = np.linalg.norm(w, axis=1, keepdims=True)
    direction = w / norm
    across: np.ndarray = z - (z * direction).sum(axis=1, keepdims=True) * direction
    return across * (size / w.dtype.type(np.sqrt(w.shape[1]))) / norm


def per_neuron(name: str, value: Any, check: Callable[[str, Any], float]) -> PerNeuron:
    """One checked number, or a tuple of them, one per neuron."""
    if is_a(value, Real, str):
        return check(name, value)
    numbers = array(name, value, "be one number or one per neuron")
    if numbers.ndim == 0:
        return check(name, numbers.item())
    if numbers.ndim != 1 or numbers.size == 0:
        raise InvalidInput(f"`{name}` must be one number or one per neuron; got shape {numbers.shape}")
    return tuple(check(f"{name}[{i}]", number) for i, number in enumerate(numbers.tolist()))


def scaled(value: PerNeuron, factor: float) -> PerNeuron:
    """`factor` times one number, or each neuron's."""
    return tuple(factor * one for one in value) if isinstance(value, tuple) else factor * value


def one_scale(scale: PerNeuron, name: str = "scale") -> float:
    """The one scale (or other parameter called `name`) that a prediction is for."""
    if isinstance(scale, tuple):
        raise InvalidInput(
            f"`{name}` must be one number to be predicted; got {len(scale)}. Predict each neuron by itself"
        )
    return scale


def isotropic_spread(dim: int) -> float:
    """`Gradient.angle_spread` of noise that is independent of w (derivations.finite_dim)."""
    require(dim >= 3, "dim", "be >= 3 for isotropic noise, where E[1/‖w‖²] diverges at 2", dim)
    return float(closed_forms.isotropic_angle_spread(dim))


def finite(name: str, value: Any) -> float:
    """Return `value` as a float after checking that it is finite."""
    return real(name, value, "be finite")


def broadcast(columns: list[np.ndarray]) -> list[np.ndarray]:
    """`columns` of one length, each given once or per neuron."""
    try:
        return list(np.broadcast_arrays(*columns))
    except ValueError:
        lengths = sorted({len(column) for column in columns if len(column) > 1})
        raise InvalidInput(f"parameters given per neuron must have one length; got {lengths}") from None
