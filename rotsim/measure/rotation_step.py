"""Turning weight vectors by a set angle: the step that all rotational optimizers share.

Only the part of an update that is orthogonal to the weights turns them; the radial part is what weight
decay balances in ordinary training. Here the norm is fixed by hand, the radial part is dropped, and the
orthogonal part is scaled so that its RMS turns the weights by the angle of equilibrium
(Kosson, Messmer, Jaggi 2024, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from rotsim.errors import InvalidInput
from rotsim.measure.rotation_kernel import ROUNDING


def can_rotate(parameter: torch.Tensor, per_neuron: bool, zero_mean: bool) -> bool:
    """True if the weight vectors keep a direction to turn in once radius (and mean) are fixed."""
    if parameter.ndim < 2 or not parameter.numel():
        return False
    return parameter.numel() // (parameter.shape[0] if per_neuron else 1) > 1 + zero_mean


@torch.no_grad()
def rotate_(
    parameters: Sequence[torch.Tensor],
    updates: Sequence[torch.Tensor],
    states: Sequence[dict[str, Any]],
    rotation: float,
    *,
    per_neuron: bool,
    zero_mean: bool,
    update_norm_decay: float,
    factors: Sequence[torch.Tensor] | None = None,
) -> None:
    r"""Turn `parameters` in place against `updates`, by `rotation` in RMS, at constant norm.

    With u⊥ the part of a row's update orthogonal to its weights (and to its mean, if `zero_mean`):

    .. math::
        s_t = \gamma s_{t-1} + (1-\gamma) \|u_\perp\|^2, \qquad
        \theta_t = \theta\,\frac{\|u_\perp\|}{\sqrt{s_t / (1-\gamma^t)}}, \qquad
        w_t = \|w_0\| \left(\frac{w_{t-1}}{\|w_{t-1}\|}\cos\theta_t - \frac{u_\perp}{\|u_\perp\|}\sin\theta_t\right)

    Parameters
    ----------
    parameters : sequence of Tensor
        Weights; rows of the view (shape[0], -1) are the vectors, or each whole tensor if not `per_neuron`.
    updates : sequence of Tensor, shaped like `parameters`
        Descent directions; only their direction and relative size over time matter. Overwritten.
    states : sequence of dict
        Per parameter, from `begin`: ``norm`` ‖w_0‖, ``update_norm_squared`` s and ``rotation_step`` t.
    rotation : float
        θ ≥ 0 in radians.
    per_neuron, zero_mean : bool
    update_norm_decay : float
        γ in [0, 1).
    factors : sequence of Tensor, each (vectors,), optional
        Each vector turns by its factor times `rotation`.

    Notes
    -----
    This is the form for GPUs and for what `rotation_kernel.fits` refuses (half precision, odd memory): vectors of
    equal length on one device are stacked, so that a network costs a handful of kernels per layer width. Arithmetic
    is in float32 (float64 for float64 weights) whatever the weights' type. The RMS of θ_t over time is θ where
    ‖u⊥‖ is steady; s contains the latest update, so where ‖u⊥‖² varies by 80 % about its mean (few
    coordinates dominate) it is about 2 % less, and where the update's average still fills up s lags behind. The
    norm is measured anew at every step, so rounding does not accumulate. A vector of zeros among others
    (a padding row) stays where it is; so does one whose update is zero, or parallel to the weights but for rounding.
    """
    for members in _stacks(parameters, states, per_neuron):
        age = states[members[0]]["rotation_step"]
        weights = [_rows(parameters[i], per_neuron) for i in members]
        turn = rotation if factors is None else rotation * _stack([factors[i] for i in members])
        stacked = _stack([_precise(w) for w in weights])
        power = _turn_(
            stacked,
            _stack([_precise(_rows(updates[i], per_neuron)) for i in members]),
            _stack([states[i]["norm"] for i in members]),
            _stack([states[i]["update_norm_squared"] for i in members]),
            turn,
            zero_mean,
            update_norm_decay,
            age + 1,
        )
        counts = [len(w) for w in weights]
        if stacked.data_ptr() != parameters[members[0]].data_ptr():  # a lone float32 weight was turned itself
            targets = [parameters[i] for i in members]
            parts = [part.view(target.shape) for part, target in zip(stacked.split(counts), targets, strict=True)]
            torch._foreach_copy_(targets, parts)
        for i, part in zip(members, power.split(counts), strict=True):
            states[i]["update_norm_squared"] = part
            states[i]["rotation_step"] = age + 1


def _stacks(
    parameters: Sequence[torch.Tensor], states: Sequence[dict[str, Any]], per_neuron: bool
) -> Iterable[list[int]]:
    """Indices of what to turn together: of one width, device, type and age (one bias correction serves all)."""
    found: dict[Any, list[int]] = {}
    for index, (parameter, state) in enumerate(zip(parameters, states, strict=True)):
        width = parameter.numel() // (parameter.shape[0] if per_neuron else 1)
        key = width, parameter.device, parameter.dtype, state["rotation_step"]
        found.setdefault(key, []).append(index)
    return found.values()


def _turn_(
    w: torch.Tensor,
    u: torch.Tensor,
    norm: torch.Tensor,
    power: torch.Tensor,
    rotation: float | torch.Tensor,
    zero_mean: bool,
    decay: float,
    age: int,
) -> torch.Tensor:
    """Turn the rows of `w` (rows, dim) in place, using up `u`; return the new running power (rows,) of the updates."""
    dim = w.shape[1]
    product = w * u
    overlap, squared = product.sum(1), _nonzero(torch.mul(w, w, out=product).sum(1))
    if zero_mean:  # project off the span of 1 and w, that is off 1 and the centred w
        sum_w, sum_u = w.sum(1), u.sum(1)
        # a row of equal weights has nothing left when centred: the floor keeps rounding from being divided by it
        centred = torch.maximum(squared.addcmul(sum_w, sum_w, value=-1 / dim), 1e-6 * squared)
        overlap.addcmul_(sum_w, sum_u, value=-1 / dim).div_(centred)
        removed = (centred * overlap).mul_(overlap).addcmul_(sum_u, sum_u, value=1 / dim)
        mean = sum_u.addcmul_(overlap, sum_w, value=-1).div_(dim)
        u.addcmul_(w, overlap[:, None], value=-1).sub_(mean[:, None])
    else:
        overlap.div_(squared)
        removed = (squared * overlap).mul_(overlap)
        u.addcmul_(w, overlap[:, None], value=-1)
    size_squared = torch.mul(u, u, out=product).sum(1)
    size_squared = torch.where(size_squared > ROUNDING * removed, size_squared, 0.0)
    size = size_squared.sqrt()
    power = torch.lerp(size_squared, power, decay)
    angle = size.div(_nonzero(power).sqrt_()).mul_(rotation * (1 - decay**age) ** 0.5)
    w.mul_(angle.cos().mul_(norm).div_(squared.sqrt_())[:, None])
    w.addcmul_(u, angle.sin_().mul_(norm).div_(_nonzero(size))[:, None], value=-1)
    return power


def begin(parameter: torch.Tensor, state: dict[str, Any], per_neuron: bool) -> None:
    """Note the norms at which `parameter` is to be kept, at its first step.

    Raises
    ------
    InvalidInput
        If every weight is zero: there is no direction to turn from.
    """
    kind = torch.promote_types(parameter.dtype, torch.float32)
    if "norm" in state:
        if state["norm"].dtype != kind:  # the model changed its type
            state.update({name: state[name].to(kind) for name in ("norm", "update_norm_squared")})
        return
    rows = _rows(parameter, per_neuron)
    # over millions of elements float32 loses the fourth digit
    exact = torch.float64 if parameter.device.type in ("cpu", "cuda") else None
    norm = torch.linalg.vector_norm(rows, dim=1, dtype=exact).to(kind)
    if not norm.any():
        raise InvalidInput(
            f"a parameter of shape {tuple(rows.shape)} is all zeros and has no direction to rotate; "
            "initialise it with noise, or put it into a parameter group with weight_decay=0"
        )
    state["norm"], state["update_norm_squared"], state["rotation_step"] = norm, torch.zeros_like(norm), 0


def refuse(group: Mapping[str, Any], *options: str) -> None:
    """Raise `InvalidInput` if a parameter group asks for one of `options` of torch's optimizers."""
    reasons = {
        "capturable": "; it counts steps in Python, which a CUDA graph would not repeat",
        "differentiable": "; gradients do not pass through the turn",
    }
    for option in options:
        if group.get(option):
            raise InvalidInput(
                f"`{option}={group[option]!r}` is not supported by rotational optimizers{reasons.get(option, '')}; "
                "leave it out"
            )


def keep_precision(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Put back what ``load_state_dict`` rounded: torch casts every state to the type of its parameter."""
    saved = (i for group in state_dict["param_groups"] for i in group["params"])
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    for index, parameter in zip(saved, parameters, strict=True):
        for name in ("norm", "update_norm_squared"):
            if name in (state := state_dict["state"].get(index, {})):
                optimizer.state[parameter][name] = state[name].to(parameter.device, copy=True)


def _rows(tensor: torch.Tensor, per_neuron: bool) -> torch.Tensor:
    """The vectors as rows (vectors, dim): a view where the memory format allows one, for reading only."""
    return tensor.reshape(tensor.shape[0] if per_neuron else 1, -1)


def _precise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _nonzero(x: torch.Tensor) -> torch.Tensor:
    """`x` >= 0 made safe to divide by, also times 1e-6: where it is zero the quotients of this file are zero."""
    return x.clamp_min(1e6 * torch.finfo(x.dtype).tiny)
