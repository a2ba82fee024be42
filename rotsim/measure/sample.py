"""What one recorded step says about every neuron."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rotsim.measure.quantities import VARIABLES
from rotsim.optimizers.base import Optimizer

_NORM, _SCALE, _COSINE, _BURST, _ACTIVE, _RADIAL = (
    VARIABLES.index(name)
    for name in ("norm", "gradient_scale", "gradient_cosine", "gradient_burst", "active", "radial")
)
#: Numbers of a row that a sample measures.
LENGTHS = 9
_FREE = 3  # last rows that may be NaN by themselves, but for the ones
_POWERS = 30  # multiplications by a matrix and its transpose, which bring out its largest singular value


def rows(tensor: torch.Tensor) -> torch.Tensor:
    """A weight or gradient as float64 rows, one per neuron."""
    dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return dense.reshape(dense.shape[0], -1).to(torch.float64)


def sample(
    before: torch.Tensor,
    after: torch.Tensor,
    gradient: torch.Tensor | None,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    rule: Optimizer,
    read: Callable[[torch.Tensor], torch.Tensor] = rows,
) -> torch.Tensor:
    """What one step adds to the sums of one parameter, as `contribution` has it.

    Parameters
    ----------
    before, after : Tensor, shape (neurons, dim)
        Rows of the weight around the step.
    gradient : Tensor, shape (neurons, dim), or None
    state : mapping
        The optimizer's state of the parameter, after the step.
    group : mapping
        Its parameter group.
    rule : Optimizer
        The spec that the optimizer follows, the inner one of a rotational variant.
    read : callable
        Gives the rows of a tensor in the state.

    Returns
    -------
    Tensor, shape (len(VARIABLES) + 1, neurons)
    """
    return contribution(lengths(before, after, gradient, averaged(gradient, state, group, rule, read)))


@dataclass(frozen=True)
class Averaged:
    r"""The gradient that an optimizer averages, from g, in three numbers and Adam's v.

    .. math::
        \hat g = \frac{g + \text{decay}\, w}{\sqrt{v_t / \text{filled}} + \epsilon}

    Attributes
    ----------
    square : Tensor, shape (neurons, dim), or None
        v, after the step; without it ĝ is g.
    decay, filled, eps : float
    known : float
        1, or NaN for optimizers that take the sign, as Lion: their steps are not linear in g. NaN, too, where rotsim
        does not know how the optimizer scales g.
    rank : Tensor of one number, or float
        The stable rank of what a spectral update is made of; NaN for other updates.
    """

    square: torch.Tensor | None = None
    decay: float = 0.0
    filled: float = 1.0
    eps: float = 0.0
    known: float = 1.0
    rank: torch.Tensor | float = float("nan")


#: Rows of a weight before and after a step, those of the gradient, and how it is averaged.
Look = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, Averaged]


def averaged(
    gradient: torch.Tensor | None,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    rule: Optimizer,
    read: Callable[[torch.Tensor], torch.Tensor],
) -> Averaged:
    """How a parameter's gradient is averaged; arguments are those of `sample`."""
    rank = _stable_rank(state.get("momentum_buffer", gradient), rule)
    if gradient is None:
        return Averaged(rank=rank)
    if rule.shape == "inverse root" and "exp_avg_sq" in state:
        decay = float(group["weight_decay"]) if rule.decay == "coupled" else 0.0
        filled = 1 - float(group["betas"][1]) ** float(state["step"])
        return Averaged(read(state["exp_avg_sq"]), decay, filled, float(group["eps"]), rank=rank)
    return Averaged(known=1.0 if rule.shape == "identity" else float("nan"), rank=rank)


def lengths(before: torch.Tensor, after: torch.Tensor, gradient: torch.Tensor | None, scaled: Averaged) -> torch.Tensor:
    """What a sample knows of every row, float64; `sample_triton` gives the same.

    Parameters
    ----------
    before, after : Tensor, shape (neurons, dim)
    gradient : Tensor, shape (neurons, dim), or None
    scaled : Averaged

    Returns
    -------
    Tensor, shape (LENGTHS, neurons)
        ‖w‖ before and after, and ‖Δw‖. The lengths of difference and sum of both, scaled to equal length. ‖g‖, ⟨w, g⟩
        and ⟨w, ĝ⟩, which are 0 without a gradient. Last the stable rank. A step that averages ĝ feels E⟨w, ĝ⟩/E‖w‖² as
        additional weight decay.
    """
    before, after = before.to(torch.float64), after.to(torch.float64)
    norm_before, norm = torch.linalg.vector_norm(before, dim=1), torch.linalg.vector_norm(after, dim=1)
    update = torch.linalg.vector_norm(after - before, dim=1)
    # a zero row gives atan2(0, 0) = 0, where the angle has no meaning
    u, v = before * norm[:, None], after * norm_before[:, None]
    turned = [torch.linalg.vector_norm(v - u, dim=1), torch.linalg.vector_norm(u + v, dim=1)]
    of_gradient = [torch.zeros_like(norm)] * 3
    if gradient is not None:
        gradient = gradient.to(torch.float64)
        overlap = torch.linalg.vecdot(before, gradient)
        of_gradient = [torch.linalg.vector_norm(gradient, dim=1), overlap, overlap * scaled.known]
        if scaled.square is not None:
            if scaled.decay:
                gradient = gradient + scaled.decay * before
            root = (scaled.square.to(torch.float64) / scaled.filled).sqrt_().add_(scaled.eps)
            of_gradient[2] = torch.linalg.vecdot(before, gradient / root)
    return torch.stack([norm_before, norm, update, *turned, *of_gradient, torch.ones_like(norm) * scaled.rank])


def partial_sums(
    before: torch.Tensor, after: torch.Tensor, gradient: torch.Tensor | None, scaled: Averaged
) -> torch.Tensor:
    """What a process knows of rows of which it has a part; arguments are those of `lengths`.

    Returns
    -------
    Tensor, shape (6, neurons)
        The squares of ‖w‖ before and after, of ‖Δw‖ and of ‖g‖, ⟨w, g⟩, and ⟨w, ĝ⟩. They are added over processes.
    """
    found = lengths(before, after, gradient, scaled)
    return torch.cat([found[:3].square(), found[5:6].square(), found[6:8]])


def whole_lengths(sums: torch.Tensor) -> torch.Tensor:
    """The `lengths` of rows from all their `partial_sums`; a matrix of which one has a part has no stable rank.

    The difference of both weights, scaled to equal length, is ‖w‖‖w'‖(‖Δw‖² - (‖w'‖ - ‖w‖)²) when squared.
    """
    squares, overlaps = sums[:4], sums[4:]
    before, after, update, gradient = squares.sqrt()
    product = before * after
    difference = (product * (squares[2] - (after - before) ** 2)).clamp(min=0)
    total = (4 * product**2 - difference).clamp(min=0)
    unknown = torch.full_like(before, torch.nan)
    return torch.stack([before, after, update, difference.sqrt(), total.sqrt(), gradient, *overlaps, unknown])


def contribution(found: torch.Tensor) -> torch.Tensor:
    """What one step adds to the sums, from the `lengths` of any number of neurons.

    Parameters
    ----------
    found : Tensor, shape (LENGTHS, neurons)

    Returns
    -------
    Tensor, shape (len(VARIABLES) + 1, neurons)
        The first six `VARIABLES` squared, ‖g̃‖⁴, the activity, ⟨w, ĝ⟩, the stable rank, and last a one. A neuron with
        any other number that is not finite adds zeros alone, so that the ones count what is averaged.
    """
    norm_before, norm, update, difference, total, gradient_norm, overlap, radial, rank = found
    rotation, scale = 2 * torch.atan2(difference, total), gradient_norm * norm_before
    cosine = torch.where(scale > 0, overlap / scale, 0.0)
    squares = torch.stack([norm, rotation, update, gradient_norm, scale, cosine]).square_()
    active = (gradient_norm != 0).to(torch.float64)
    sums = torch.cat([squares, torch.stack([scale**4, active, radial, rank, torch.ones_like(norm)])])
    return torch.where(torch.isfinite(sums[:-_FREE]).all(0), sums, 0.0)


def _stable_rank(average: torch.Tensor | None, rule: Optimizer) -> torch.Tensor | float:
    """‖m‖²_F/‖m‖²_2 of what a spectral update is made of, one number for a matrix; NaN for other updates.

    Power iteration from the longest row draws no random numbers, and may fall short by a few per cent in a flat
    spectrum.
    """
    if rule.acts_on != "matrix" or average is None or hasattr(average, "to_local"):
        return float("nan")
    matrix = rows(average)
    length = torch.linalg.vector_norm(matrix, dim=1)
    vector = matrix[length.argmax()]
    for _ in range(_POWERS):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / torch.linalg.vector_norm(vector)
    rank: torch.Tensor = length.square().sum() / torch.linalg.vector_norm(matrix @ vector) ** 2
    return rank


def window_means(sums: torch.Tensor) -> torch.Tensor:
    """From the sums of a window to its `VARIABLES`, shape (len(VARIABLES), neurons); NaN where nothing was finite."""
    means = sums[:-1] / sums[-1]
    means[_COSINE] /= means[_ACTIVE]  # over the samples that have a gradient; NaN without any
    square = means[_SCALE]
    means[_BURST] /= torch.where(square > 0, square**2, torch.nan)
    # a mean of ratios would not balance the decay of ‖w‖²: where steps jitter the norm, it is off by their share
    means[_RADIAL] /= torch.where(means[_NORM] > 0, means[_NORM], torch.nan)
    means[:_BURST] = means[:_BURST].sqrt()
    return means
