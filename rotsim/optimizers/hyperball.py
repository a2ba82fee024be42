"""Hyperball: a step of a fixed relative length, and back to the norm that the weights had (Wen et al. 2026)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput, require, shown
from rotsim.optimizers.turning import Turning


@kernel_part()
def _turn(rate, size, along, mean):  # type: ignore[no-untyped-def]
    # sine and cosine of the turn, both times ‖u‖ and the length that the step leads to
    return np.arctan2(rate * np.sqrt(size), np.sqrt(size + along * along) + rate * along)


@dataclass(frozen=True)
class Hyperball(Turning):
    r"""Hyperball: updates and weights have fixed norms, so that the learning rate is a relative one.

    u_t is the update of the optimizer without decay, which it subtracts. R = ‖w_0‖:

    .. math::
        w_t = R\, \operatorname{normalize}\!\left(w_{t-1} - \eta R\, \operatorname{normalize}(u_t)\right), \qquad
        \operatorname{normalize}(x) = x / \|x\|

    Parameters
    ----------
    inner : Optimizer
        One that keeps two averages at most, without decay: AdamW, SGDM, Lion, Signum, Muon, NAdamW or AdamL2 with
        ``weight_decay`` 0. Its ``lr`` is η, the length of a step over that of the weights.

    Raises
    ------
    InvalidInput
        If `inner` is another, or has decay.

    Notes
    -----
    The published recurrence holds the norm of a matrix, as is done here under Muon. Under the others the norm of a
    neuron is held. A matrix is then one long neuron with all of its entries, as their updates do not know rows. Without
    momentum u is across w, and η the tangent of the angle (derivations.hyperball).
    """

    name = "hyperball"
    label = "Hyperball"
    needs_decay = False
    turn = staticmethod(_turn)

    def __post_init__(self) -> None:
        super().__post_init__()
        plain = self.inner.plain is self.inner and hasattr(self.inner, "update")
        if not plain or self.inner.memory_slots:
            raise InvalidInput(
                "`inner` must be a spec that keeps two averages at most and wraps no other, such as rotsim.AdamW(...); "
                f"got {shown(self.inner)}"
            )
        way_out = "A hyperball keeps the norm without decay: use weight_decay = 0"
        require(self.weight_decay == 0, "weight_decay", "be 0", self.weight_decay, way_out)

    @classmethod
    def examples(cls) -> tuple[Hyperball, Hyperball]:
        from rotsim.optimizers.adamw import AdamW

        return cls(AdamW(lr=3e-3, weight_decay=0.0)), cls(AdamW(lr=3e-2, weight_decay=0.0))

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        return np.minimum(lr, np.pi)

    def holding(self, step: Any, lr: Any, weight_decay: Any) -> tuple[Any, Any, Any, float]:
        return lr, 0.0, 1.0, 0.0

    def describe(self) -> str:
        return f"{self.label}({self.inner.describe()})"
