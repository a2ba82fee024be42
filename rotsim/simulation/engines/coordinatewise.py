"""The jitted walk of update rules that act on a coordinate at a time (`rotsim.simulation.walk`)."""

from __future__ import annotations

from rotsim.simulation import walk
from rotsim.simulation.arguments import Kernel
from rotsim.simulation.engines.base import Problem, WeightEngine


class Coordinatewise(WeightEngine):
    """Draw, update and sum in one pass over a neuron."""

    name = "numba"
    acts_on = "coordinate"
    needs = "an optimizer that acts on coordinates, neurons or matrices"
    automatic = True

    def kernel(self, problem: Problem) -> Kernel:
        return walk.kernel(type(problem.optimizer.plain), type(problem.gradient), problem.optimizer.cautious)
