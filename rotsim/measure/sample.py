"""What one recorded step says about every neuron of one parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rotsim.measure.quantities import VARIABLES
from rotsim.optimizers.base import Optimizer

_NORM, _SCALE, _COSINE, _BURST, _ACTIVE, _RADIAL = (
    VARIABLES.index(name)
    for name in ("norm", "gradient_scale", "gradient_cosine", "gradient_burst", "active", "radial")
)
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
    """What one step adds to the sums, shape (len(VARIABLES) + 1, neurons), float64.

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
        Gives the rows of a tensor in the state, as float64.

    Returns
    -------
    Tensor
        The first six `VARIABLES` squared, ‖g̃‖⁴, the activity, ⟨w, ĝ⟩, the stable rank, and last a one. A neuron with
        any other number that is not finite adds zeros alone, so that the ones count what is averaged.
    """
    norm_before = torch.linalg.vector_norm(before, dim=1)
    norm = torch.linalg.vector_norm(after, dim=1)
    update = torch.linalg.vector_norm(after - before, dim=1)
    # scaled to equal length; a zero row gives atan2(0, 0) = 0, where the angle has no meaning
    u, v = before * norm[:, None], after * norm_before[:, None]
    rotation = 2 * torch.atan2(torch.linalg.vector_norm(v - u, dim=1), torch.linalg.vector_norm(u + v, dim=1))
    if gradient is None:
        gradient_norm = overlap = radial = torch.zeros_like(norm)
    else:
        gradient_norm = torch.linalg.vector_norm(gradient, dim=1)
        overlap = torch.linalg.vecdot(before, gradient)
        radial = _radial(before, gradient, state, group, rule, read)
    scale = gradient_norm * norm_before
    cosine = torch.where(scale > 0, overlap / scale, 0.0)
    sums = torch.stack(
        [
            *(x**2 for x in (norm, rotation, update, gradient_norm, scale, cosine)),
            scale**4,
            (gradient_norm != 0).to(torch.float64),
            radial,
            _stable_rank(state.get("momentum_buffer", gradient), norm, rule),
            torch.ones_like(norm),
        ]
    )
    return torch.where(torch.isfinite(sums[:-_FREE]).all(0), sums, 0.0)


def _stable_rank(average: torch.Tensor | None, norm: torch.Tensor, rule: Optimizer) -> torch.Tensor:
    """‖m‖²_F/‖m‖²_2 of what a spectral update is made of, once for every row of the matrix; NaN for other updates.

    Power iteration from the longest row draws no random numbers, and may fall short by a few per cent in a flat
    spectrum.
    """
    if rule.acts_on != "matrix" or average is None:
        return torch.full_like(norm, torch.nan)
    matrix = rows(average)
    length = torch.linalg.vector_norm(matrix, dim=1)
    vector = matrix[length.argmax()]
    for _ in range(_POWERS):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / torch.linalg.vector_norm(vector)
    return torch.full_like(norm, 1.0) * length.square().sum() / torch.linalg.vector_norm(matrix @ vector) ** 2


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


def _radial(
    w: torch.Tensor,
    gradient: torch.Tensor,
    state: Mapping[str, Any],
    group: Mapping[str, Any],
    rule: Optimizer,
    read: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    r"""Radial part ⟨w, ĝ⟩ of the gradient that the optimizer averages.

    .. math::
        \hat g = \frac{g}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} \ \text{(Adam, AdamW)}, \qquad
        \hat g = g \ \text{(SGD)}

    For Adam+L2, g includes λw. NaN for optimizers that take the sign, Lion: their steps are not linear in g; and
    where rotsim does not know how the optimizer scales g. A step that averages ĝ feels P = E⟨w, ĝ⟩/E‖w‖² as additional
    weight decay.
    """
    if rule.shape == "inverse root" and "exp_avg_sq" in state:
        if rule.decay == "coupled" and group["weight_decay"]:
            gradient = gradient + group["weight_decay"] * w
        correction = 1 - group["betas"][1] ** float(state["step"])
        gradient = gradient / ((read(state["exp_avg_sq"]) / correction).sqrt() + group["eps"])
    elif rule.shape != "identity":
        return w.new_full((len(w),), torch.nan)
    return torch.linalg.vecdot(w, gradient)
