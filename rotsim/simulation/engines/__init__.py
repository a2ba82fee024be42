"""Engines: ways to walk. A new engine is one file here and one entry in `ENGINES`."""

from __future__ import annotations

from rotsim.errors import InvalidInput
from rotsim.gradients import Gradient
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.engines.base import Engine
from rotsim.simulation.engines.coordinatewise import Coordinatewise
from rotsim.simulation.engines.cuda import Cuda
from rotsim.simulation.engines.gram import Gram
from rotsim.simulation.engines.gram_matrix import GramMatrix
from rotsim.simulation.engines.gram_rotational import GramRotational
from rotsim.simulation.engines.matrixwise import Matrixwise
from rotsim.simulation.engines.neuronwise import Neuronwise
from rotsim.simulation.engines.readable import Readable, ReadableMatrixwise, ReadableNeuronwise

#: In the order in which "auto" asks them.
ENGINES: tuple[Engine, ...] = (
    Gram(), GramRotational(), GramMatrix(), Coordinatewise(), Neuronwise(), Matrixwise(), Readable(),
    ReadableNeuronwise(), ReadableMatrixwise(), Cuda(),
)  # fmt: skip
AUTO = "auto"
#: What `engine=` may be.
NAMES = (AUTO, *dict.fromkeys(one.name for one in ENGINES))


def engine_for(
    name: str,
    optimizer: Optimizer,
    gradient: Gradient,
    form: tuple[int, int] = (1, 1024),
    *,
    keep_weights: bool = False,
) -> Engine:
    """The engine called `name` for this optimizer and gradient model, or what "auto" takes there.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    optimizer : Optimizer
    gradient : Gradient
    form : (int, int)
        Neurons of a matrix, and dim.
    keep_weights : bool
        "auto" then takes an engine whose state has them.

    Raises
    ------
    InvalidInput
        If none has both, or the machine lacks what it runs on.
    """
    if name == AUTO:
        asked = [one for one in ENGINES if one.automatic and (one.keeps_weights or not keep_weights)]
    else:
        asked = [one for one in ENGINES if one.name == name]
    found = next((one for one in asked if one.accepts(optimizer, gradient) and one.fits(*form)), None)
    if found is None:
        others = (one for one in ENGINES if one.automatic and one.keeps_weights and one.accepts(optimizer, gradient))
        other = next(others, None)
        of_form = f" of {form[0]} x {form[1]}" if optimizer.acts_on == "matrix" else ""
        raise InvalidInput(
            f"`engine={name!r}` needs {asked[0].needs}; got {optimizer.describe()}{of_form} under {gradient.name}. "
            + (f"Use engine={other.name!r}" if other else f"No engine has what acts on a {optimizer.acts_on}")
        )
    found.check_device()
    return found


def hint_of_reduced(optimizer: Optimizer, gradient: Gradient, form: tuple[int, int]) -> str:
    """A way out for a run that is too large, where an engine needs no weights; else nothing."""
    fitting = (one for one in ENGINES if not one.keeps_weights and one.fits(*form))
    reduced = (one for one in fitting if one.accepts(optimizer, gradient))
    return next((f", or take engine={one.name!r}" for one in reduced), "")
