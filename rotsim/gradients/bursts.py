"""Noise whose size changes from step to step in a given way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput, array, positive
from rotsim.gradients.base import INLINED, GradientPower, Structured, fill_normals, shaped


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    fill_normals(z, draws)
    factor = neuron.given[0]
    for j in range(neuron.dim):
        z[j] *= factor
    return shaped(z, neuron)


@dataclass(frozen=True, eq=False)
class Bursts(Structured):
    """Noise times a given factor at each step, the same for all neurons: the gradient scales of a real run.

    Parameters
    ----------
    series : array_like of float, shape (steps,)
        Factors >= 0, not all zero; step t of the walk uses ``series[t - 1]``.
    scale : float or sequence of float, one per neuron
        As in `Isotropic` or `ScaleInvariant`, from 1e-30 to 1e30.
    scale_invariant : bool
        Shape the noise as `ScaleInvariant` does (True) or as `Isotropic`.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """

    name = "bursts"
    sample = staticmethod(_sample)

    series: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "be finite factors >= 0 of shape (steps,), not all zero"
        series = array("series", self.series, rule)
        sound = np.isfinite(series) & (series >= 0)
        if series.ndim != 1 or not (sound.all() and series.any()):
            raise InvalidInput(f"`series` must {rule}; got shape {series.shape}")
        positive("max(series)", series.max())
        self._set("series", series)

    @property
    def extent(self) -> tuple[int | None, int | None, int | None]:
        return len(self.series), *super().extent[1:]

    def sizes(self) -> np.ndarray:
        return super().sizes() * self.series.max()

    def power(self, dim: int) -> GradientPower:
        law = self._noise_power(dim, series=self.series)
        return replace(law, scale_squared=law.scale_squared * float((self.series**2).mean()))

    def parameters(self) -> np.ndarray:
        return self._columns()

    def given(self, step: np.ndarray, dtype: np.dtype[Any], weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return self.series[step[0] - 1 : step[-1], None, None].astype(dtype)

    def _raw(
        self, z: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        return z * data[0, 0]

    def to_dict(self) -> dict[str, Any]:
        digest = sha256(np.ascontiguousarray(self.series).tobytes()).hexdigest()
        return {**super().to_dict(), "series": {"steps": len(self.series), "sha256": digest}}
