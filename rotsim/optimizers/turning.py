"""What turns weights at a norm that stays, along the updates of another optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from rotsim.errors import InvalidInput, shown
from rotsim.optimizers.base import N_COEFFICIENTS, ActsOn, Optimizer

HOLDING = 4  # coefficients besides those of the inner optimizer


@dataclass(frozen=True)
class Turning(Optimizer):
    """An optimizer's update direction u, and an angle by which a neuron turns along it, or a whole matrix.

    A subclass sets `turn` and gives `holding`.
    """

    decay = "none"
    memory_slots: ClassVar[int] = 1  # a row for the running mean of ‖u⊥‖² and ‖w_0‖
    #: ``turn(rate, size, along, mean) -> angle`` from ‖u⊥‖², from the component of -u along the weights, and from the
    #: running mean of ‖u⊥‖²; works on floats in the kernel, on arrays in the NumPy twin.
    turn: ClassVar[Callable[..., Any]]

    lr: float = field(init=False, repr=False)
    weight_decay: float = field(init=False, repr=False)
    inner: Optimizer

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Optimizer) or isinstance(self.inner, Turning):
            raise InvalidInput(f"`inner` must be a spec such as rotsim.AdamW(...); got {shown(self.inner)}")
        self._set("lr", self.inner.lr)
        self._set("weight_decay", self.inner.weight_decay)

    @property
    def acts_on(self) -> ActsOn:  # type: ignore[override]
        return "matrix" if self.inner.acts_on == "matrix" else "neuron"

    @property
    def plain(self) -> Optimizer:
        return self.inner

    def with_rates(self, lr: float, weight_decay: float) -> Self:
        return replace(self, inner=self.inner.with_rates(lr, weight_decay))

    def with_beta1(self, beta1: float) -> Self:
        return replace(self, inner=self.inner.with_beta1(beta1))

    def holding(self, step: Any, lr: Any, weight_decay: Any) -> tuple[Any, Any, Any, float]:
        """Rate, γ of the running mean, 1 - γ^t, and whether the mean is taken out of the update."""
        raise NotImplementedError

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        """Those of the inner optimizer for a step of size 1 without decay, then the `HOLDING` of `holding`."""
        plain = self.inner.coefficients(step, np.ones(len(step)), np.zeros(len(step)))
        plain += (0.0,) * (N_COEFFICIENTS - len(plain))
        return *plain, *self.holding(step, lr, weight_decay)

    def to_dict(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init and f.name != "inner"}
        return {"name": self.name, "inner": self.inner.to_dict(), **own}
