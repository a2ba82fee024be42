"""The theory of Signum: that of Lion, whose two averages are one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rotsim.optimizers import Signum
from rotsim.theory.base import Course, theory_for
from rotsim.theory.lion import LionTheory, follow_modes
from rotsim.theory.sign import arcsine_modes

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@theory_for(Signum)
class SignumTheory(LionTheory):
    """Nothing is neglected under white noise but a finite fan-in (`derivations.signum`)."""

    def advance(self, dim: int, law: GradientPower, course: Course) -> float:
        beta = self.spec.momentum  # type: ignore[attr-defined]
        follow_modes(beta, beta, *arcsine_modes(), self.cautious, True, float(dim), float(dim), law, course)
        return 0.0
