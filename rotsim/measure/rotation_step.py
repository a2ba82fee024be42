"""Turning weight vectors by a set angle: the step that all rotational optimizers share.

Only the part of an update that is orthogonal to the weights turns them; the radial part is what weight
decay balances in ordinary training. Here the norm is fixed by hand and the radial part is dropped. The
orthogonal part is scaled so that its RMS turns the weights by the angle of equilibrium
(Kosson, Messmer, Jaggi 2024, section 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rotsim.errors import InvalidInput
from rotsim.measure.rotation_kernel import ROUNDING
from rotsim.optimizers.base import filled

_EVEN = 1e-3  # of the norm: a smaller part beside the mean is what equal weights have by rounding


def can_rotate(parameter: torch.Tensor, per_neuron: bool, zero_mean: bool) -> bool:
    """True if the weight vectors keep a direction to turn in once radius (and mean) are fixed."""
    if parameter.ndim < 2 or not parameter.numel():
        return False
    return parameter.numel() // (parameter.shape[0] if per_neuron else 1) > 1 + zero_mean


def rotates(group: Mapping[str, Any], otherwise: bool = False) -> bool:
    """True if the vectors of a parameter group turn: it says so, or it has weight decay, or else `otherwise`."""
    chosen = group.get("rotational")
    return bool(group.get("weight_decay", 0.0) > 0 or otherwise) if chosen is None else bool(chosen)


def called(group: Mapping[str, Any], parameter: torch.Tensor) -> str:
    """A parameter in an error: its name, where it was given with one, and its shape."""
    names = group.get("param_names") or [None] * len(group["params"])
    name = next((n for n, p in zip(names, group["params"], strict=False) if p is parameter), None)
    return f"the parameter {name!r}" if name else "a parameter"


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
    This is the form for what `rotation_kernel.fits` refuses (half precision, odd memory, a GPU without Triton).
    Vectors of equal length on one device are stacked. A network then costs a dozen operations on weights and updates
    for each length, and one set of operations on numbers per vector. Arithmetic is in float32 (float64 for float64
    weights) whatever the weights' type. The RMS of θ_t over time is θ where ‖u⊥‖ is steady. s contains the latest
    update. So it is about 2 % less where ‖u⊥‖² varies by 80 % about its mean, as where few coordinates dominate. s
    lags behind where the update's average still fills up. The norm is measured anew at every step, so rounding does
    not accumulate.
    A vector of zeros among others (a padding row) stays where it is. So does one whose update is zero, or parallel to
    the weights but for rounding.
    """
    alike: dict[Any, list[int]] = {}  # on one device, of one type and age: one bias correction serves all
    for index, (parameter, state) in enumerate(zip(parameters, states, strict=True)):
        alike.setdefault((parameter.device, parameter.dtype, state["rotation_step"]), []).append(index)
    for (_, _, age), members in alike.items():
        stacks = _stacks([parameters[i] for i in members], per_neuron)
        stacks = [[members[k] for k in stack] for stack in stacks]
        order = [i for stack in stacks for i in stack]
        pairs = [
            tuple(_stack([_precise(_rows(tensors[i], per_neuron)) for i in stack]) for tensors in (parameters, updates))
            for stack in stacks
        ]
        lengths = [len(w) for w, _ in pairs]
        rooms = [torch.empty_like(w) for w, _ in pairs]
        sums = [_sums(w, u, room, zero_mean) for (w, u), room in zip(pairs, rooms, strict=True)]
        squared, along, mean, removed = _radial(torch.cat(sums, dim=1))
        for (w, u), of_w, of_one in zip(pairs, along.split(lengths), mean.split(lengths), strict=True):
            u.addcmul_(w, of_w[:, None], value=-1)
            if zero_mean:
                u.sub_(of_one[:, None] * w.shape[1] ** -0.5)
        across = torch.cat([_squared(u, room) for (_, u), room in zip(pairs, rooms, strict=True)])
        *shares, power = _shares(
            torch.where(across > ROUNDING * removed, across, 0.0),
            squared,
            _stack([states[i]["norm"] for i in order]),
            _stack([states[i]["update_norm_squared"] for i in order]),
            rotation if factors is None else rotation * _stack([factors[i] for i in order]),
            update_norm_decay,
            age + 1,
        )
        split = zip(*(share[:, None].split(lengths) for share in shares), strict=True)
        for stack, (w, u), (of_w, of_u) in zip(stacks, pairs, split, strict=True):
            w.mul_(of_w).addcmul_(u, of_u)
            if w.data_ptr() != parameters[stack[0]].data_ptr():  # else float32 weights that were not copied together
                _scatter(w, [parameters[i] for i in stack])
        for i, part in zip(order, power.split([len(states[i]["norm"]) for i in order]), strict=True):
            states[i]["update_norm_squared"], states[i]["rotation_step"] = part, age + 1


def zeros_to_stack(parameters: Sequence[torch.Tensor], per_neuron: bool) -> list[torch.Tensor]:
    """Zeros shaped like `parameters`, in memory one behind another where `rotate_` would stack them."""
    zeros: dict[int, torch.Tensor] = {}
    for stack in _stacks(parameters, per_neuron):
        like = [parameters[i] for i in stack]
        if any(p.dtype != like[0].dtype or p.device != like[0].device or not p.is_contiguous() for p in like):
            zeros.update((i, torch.zeros_like(parameters[i])) for i in stack)
            continue
        parts = torch.zeros(sum(p.numel() for p in like), dtype=like[0].dtype, device=like[0].device)
        split = parts.split([p.numel() for p in like])
        zeros.update((i, part.view(p.shape)) for i, p, part in zip(stack, like, split, strict=True))
    return [zeros[i] for i in range(len(parameters))]


def _stacks(parameters: Sequence[torch.Tensor], per_neuron: bool) -> list[list[int]]:
    """Indices of the parameters whose vectors have one length, for each length."""
    found: dict[int, list[int]] = {}
    for index, parameter in enumerate(parameters):
        found.setdefault(parameter.numel() // (parameter.shape[0] if per_neuron else 1), []).append(index)
    return list(found.values())


def _squared(x: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """‖x‖² of each row, perhaps by way of `room`: on a CPU the norm, unlike a sum, loses digits of long rows."""
    return torch.linalg.vector_norm(x, dim=1).square() if x.is_cuda else torch.mul(x, x, out=room).sum(1)


def _sums(w: torch.Tensor, u: torch.Tensor, room: torch.Tensor, zero_mean: bool) -> torch.Tensor:
    """‖w‖² and ⟨w, u⟩ of each row, and the sums of w and u over √dim, or zeros; shape (4, rows)."""
    overlap = torch.mul(w, u, out=room).sum(1)
    means = [x.sum(1) * w.shape[1] ** -0.5 if zero_mean else torch.zeros_like(overlap) for x in (w, u)]
    return torch.stack([_squared(w, room), overlap, *means])


def _radial(sums: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """‖w‖², and of what does not turn in u: the shares of w and of 1/√dim, and the squared length."""
    squared, overlap, sum_w, sum_u = sums
    # off the span of 1 and w, that is off 1 and the centred w; of equal weights nothing is left when centred
    overlap = overlap.addcmul(sum_w, sum_u, value=-1)
    centred = torch.maximum(squared.addcmul(sum_w, sum_w, value=-1), 1e-6 * squared)
    along = overlap / _nonzero(centred)
    return squared, along, sum_u.addcmul(along, sum_w, value=-1), (along * overlap).addcmul_(sum_u, sum_u)


def _shares(
    across: torch.Tensor,
    squared: torch.Tensor,
    norm: torch.Tensor,
    power: torch.Tensor,
    rotation: float | torch.Tensor,
    decay: float,
    age: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Shares of w and of what turns in u, of squared length `across`, in the turned vector; the new running power."""
    power = torch.lerp(power, across, 1 - decay)  # not the other way round: in float32 a decay near 1 is 1
    angle = (across / _nonzero(power)).sqrt_() * (rotation * filled(decay, age) ** 0.5)
    of_w = angle.cos() * norm / _nonzero(squared).sqrt_()
    of_u = -angle.sin() * norm / _nonzero(across).sqrt_()
    return of_w, of_u, power


def _scatter(stacked: torch.Tensor, targets: list[torch.Tensor]) -> None:
    """Copy the rows of `stacked` to the weights that they belong to."""
    rows = [target.numel() // stacked.shape[1] for target in targets]
    parts = [part.view(target.shape) for part, target in zip(stacked.split(rows), targets, strict=True)]
    torch._foreach_copy_(targets, parts)


def begin(parameter: torch.Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> None:
    """Note the norms at which a `parameter` of a `group` is to be kept, at its first step.

    With the group's option ``zero_mean`` it loses its mean there, at these norms, but for vectors of equal weights:
    they have no other part.

    Raises
    ------
    InvalidInput
        If every weight is zero: there is no direction to turn from. If it has another number of vectors than before.
    """
    kind = torch.promote_types(parameter.dtype, torch.float32)
    per_neuron = group["per_neuron"]
    if "norm" in state:
        if len(state["norm"]) != (vectors := parameter.shape[0] if per_neuron else 1):
            raise InvalidInput(
                f"{called(group, parameter)} of shape {tuple(parameter.shape)} had {len(state['norm'])} vectors when "
                f"it was first rotated and has {vectors} now; make a new optimizer"
            )
        if state["norm"].dtype != kind:  # the model changed its type
            state.update({name: state[name].to(kind) for name in ("norm", "update_norm_squared")})
        return
    rows = _rows(parameter, per_neuron)
    # over millions of elements float32 loses the fourth digit
    exact = torch.float64 if parameter.device.type in ("cpu", "cuda") else None
    norm = torch.linalg.vector_norm(rows, dim=1, dtype=exact).to(kind)
    if not norm.any():
        raise InvalidInput(
            f"{called(group, parameter)} of shape {tuple(parameter.shape)} is all zeros and has no direction to "
            "rotate; initialise it with noise, or put it into a parameter group with rotational=False"
        )
    state["norm"], state["update_norm_squared"], state["rotation_step"] = norm, torch.zeros_like(norm), 0
    if group["zero_mean"]:
        rows = rows.to(exact or kind)
        centred = rows - rows.mean(dim=1, keepdim=True)
        length = torch.linalg.vector_norm(centred, dim=1)
        uneven = length > _EVEN * norm
        centred *= (norm / torch.where(uneven, length, 1.0))[:, None]
        parameter.copy_(torch.where(uneven[:, None], centred, rows).view(parameter.shape))


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


def _nonzero(x: torch.Tensor) -> torch.Tensor:
    """`x` >= 0 made safe to divide by, also times 1e-6: where it is zero the quotients of this file are zero."""
    return x.clamp_min(1e6 * torch.finfo(x.dtype).tiny)


def _stack(tensors: list[torch.Tensor]) -> torch.Tensor:
    """One tensor of all rows: without a copy where they lie one behind another already."""
    first = tensors[0]
    ends = [t.data_ptr() + t.numel() * t.element_size() for t in tensors]
    if len(tensors) == 1:
        return first
    if (
        first.ndim == 2
        and all(t.is_contiguous() and t.dtype == first.dtype for t in tensors)
        and all(t.untyped_storage().data_ptr() == first.untyped_storage().data_ptr() for t in tensors)
        and ends[:-1] == [t.data_ptr() for t in tensors[1:]]
    ):
        return first.as_strided((sum(len(t) for t in tensors), first.shape[1]), (first.shape[1], 1))
    return torch.cat(tensors)
