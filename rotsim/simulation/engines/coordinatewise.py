"""The jitted walk of update rules that act on a coordinate at a time (`rotsim.simulation.walk`)."""

from __future__ import annotations

from rotsim.simulation import walk
from rotsim.simulation.arguments import Kernel, Neurons, Steps, Windows
from rotsim.simulation.engines.base import Problem, WeightEngine
from rotsim.simulation.workspace import Workspace


def by_position(kernel: Kernel) -> Kernel:
    """A kernel whose arguments have names, of one whose arguments have places."""

    def walk(block: tuple[int, int], neurons: Neurons, steps: Steps, room: Workspace, records: Windows) -> None:
        kernel(
            block, neurons.state, neurons.norm_squared, neurons.keys, steps.first, steps.coefficients,
            neurons.parameters, steps.data, records.length, records.first, room, records.sums,
        )  # fmt: skip

    return walk


class Coordinatewise(WeightEngine):
    """Draw, update and sum in one pass over a neuron."""

    name = "numba"
    acts_on = "coordinate"
    needs = "an optimizer that acts on coordinates or neurons"
    automatic = True

    def kernel(self, problem: Problem) -> Kernel:
        return by_position(walk.kernel(type(problem.optimizer), type(problem.gradient)))
