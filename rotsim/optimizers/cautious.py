"""Cautious decay: weights decay only where the update shortens them (Chen et al. 2025)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rotsim.compiled import specialised
from rotsim.errors import InvalidInput, shown
from rotsim.optimizers.base import ActsOn, Optimizer

_plain: Any = None  # what `rule` binds to the optimizer's own update


def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    change, m, v = _plain(w, m, v, g, (0 * c[0], c[1], c[2], c[3], c[4], c[5], c[6]))
    return change - c[0] * w * (change * w <= 0), m, v


def _update_with_more(w, m, v, g, c, more):  # type: ignore[no-untyped-def]
    change, m, v, more = _plain(w, m, v, g, (0 * c[0], c[1], c[2], c[3], c[4], c[5], c[6]), more)
    return change - c[0] * w * (change * w <= 0), m, v, more


def _update_of_matrix(w, m, v, g, c):  # type: ignore[no-untyped-def]
    plain = c.copy()
    plain[0] = 0
    change, m, v = _plain(w, m, v, g, plain)
    return change - c[0] * w * (change * w <= 0), m, v


def masked(optimizer: type[Optimizer]) -> Callable[..., Any]:
    """The rule with cautious decay of each coordinate, which calls `_plain`: the plain one without decay, c[0]."""
    if optimizer.acts_on == "matrix":
        return _update_of_matrix
    return _update_with_more if optimizer.memory_slots else _update


@dataclass(frozen=True)
class Cautious(Optimizer):
    r"""Cautious weight decay: only coordinates decay whose update, too, points towards 0, or not at all.

    u_t is the update of the optimizer without decay, which it subtracts times η. For each coordinate:

    .. math::
        w_t = w_{t-1} - \eta\, u_t - \eta\lambda\, w_{t-1}\, [u_t w_{t-1} \ge 0]

    Parameters
    ----------
    inner : Optimizer
        One whose decay is beside its update: AdamW, NAdamW, AdEMAMix, Lion, Signum or Muon.

    Raises
    ------
    InvalidInput
        If `inner` is another.

    Notes
    -----
    About half of the coordinates decay in a step. To leading order the norm is √2 times that of the plain optimizer,
    and rotation is 1/√2 times (derivations.cautious).
    """

    name = "cautious"
    label = "Cautious"
    cautious = True

    lr: float = field(init=False, repr=False)
    weight_decay: float = field(init=False, repr=False)
    inner: Optimizer

    def __post_init__(self) -> None:
        fits = isinstance(self.inner, Optimizer) and self.inner.acts_on in ("coordinate", "matrix")
        if not fits or self.inner.decay != "decoupled" or isinstance(self.inner, Cautious):
            inside = isinstance(self.inner, Optimizer) and self.inner.decay == "coupled"
            raise InvalidInput(
                "`inner` must be a spec whose decay is beside its update, such as rotsim.AdamW(...); "
                f"got {shown(self.inner)}" + (", whose gradient holds its decay" if inside else "")
            )
        self._set("lr", self.inner.lr)
        self._set("weight_decay", self.inner.weight_decay)

    @classmethod
    def examples(cls) -> tuple[Cautious, Cautious]:
        from rotsim.optimizers.adamw import AdamW

        gentle, strong = AdamW.examples()
        return cls(gentle), cls(strong)

    @property
    def plain(self) -> Optimizer:
        return self.inner

    @property
    def acts_on(self) -> ActsOn:  # type: ignore[override]
        return self.inner.acts_on

    @property
    def shape(self) -> Any:  # type: ignore[override]
        return self.inner.shape

    @property
    def decay(self) -> Any:  # type: ignore[override]
        return self.inner.decay

    def update_factor(self, rows: int, columns: int) -> float:
        """That of the inner optimizer, by which the form of its matrices multiplies updates."""
        rule = getattr(self.inner, "update_factor", None)
        return 1.0 if rule is None else float(rule(rows, columns))

    @property
    def memory_slots(self) -> int:  # type: ignore[override]
        return self.inner.memory_slots

    @property
    def memory_steps(self) -> float:
        return self.inner.memory_steps

    @property
    def update(self) -> Callable[..., Any]:  # type: ignore[override]
        """The rule in NumPy; walks compile their own."""
        kind = type(self.inner)
        return specialised(masked(kind), f"cautious_{kind.name}", {"_plain": kind.update, "np": np})

    def with_rates(self, lr: float, weight_decay: float) -> Cautious:
        return replace(self, inner=self.inner.with_rates(lr, weight_decay))

    def with_beta1(self, beta1: float) -> Cautious:
        return replace(self, inner=self.inner.with_beta1(beta1))

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        return self.inner.coefficients(step, lr, weight_decay)

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        raise InvalidInput("a rotational variant knows no decay, so cautious decay has none; use its inner optimizer")

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "inner": self.inner.to_dict()}

    def describe(self) -> str:
        return f"{self.label}({self.inner.describe()})"
