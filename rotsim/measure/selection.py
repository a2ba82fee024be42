"""Which parameters a recorder takes, and what it calls their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch

from rotsim.errors import InvalidInput, answer, is_a, shown
from rotsim.measure.sharding import axes_by_level

Selection = Iterable[str] | Callable[[str, torch.Tensor], bool] | None
Split = Mapping[str, Sequence[str] | Mapping[str, int]]
_STACKED = 3  # dimensions from which a lone vector is no row of a matrix


def select(
    model: torch.nn.Module | Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer, selection: Selection
) -> tuple[dict[str, tuple[torch.Tensor, int]], dict[str, str]]:
    """Parameters to record by name, with their group; and what is left out, with the reason."""
    group_of = groups_of(optimizer)
    candidates: dict[str, tuple[torch.Tensor, int]] = {}
    skipped: dict[str, str] = {}
    named: Mapping[str, torch.Tensor] = (
        model if isinstance(model, Mapping) else dict(unwrapped(model).named_parameters())
    )
    if others := len(group_of.keys() - {id(parameter) for parameter in named.values()}):
        skipped[f"{others} parameter{'s' if others > 1 else ''} of the optimizer"] = "not in `model`"
    for name, parameter in named.items():
        if not is_a(name, str) or not is_a(parameter, torch.Tensor):
            raise InvalidInput(f"`model` must map names to tensors; got {shown(name)}: {shown(parameter)}")
    for name, parameter in named.items():  # a tied weight of a module appears once
        # tensors given by name need no autograd: their gradients may come from elsewhere
        trained = parameter.requires_grad or isinstance(model, Mapping)
        if reason := _unfit(parameter, trained, id(parameter) in group_of):
            skipped[name] = reason
        else:
            candidates[name] = parameter, group_of[id(parameter)]
    if not candidates:
        raise nothing_to_record(skipped)
    if selection is None:
        names = list(candidates)
    elif callable(selection):
        names = [
            name
            for name, (parameter, _) in candidates.items()
            if answer("parameters", lambda *given: bool(selection(*given)), name, parameter)
        ]
    elif not isinstance(selection, Iterable):
        raise InvalidInput(f"`parameters` must be names or a function of name and parameter; got {shown(selection)}")
    else:
        wanted = [selection] if isinstance(selection, str) else _names(selection)
        unknown = [name for name in wanted if name not in candidates]
        if unknown:
            raise InvalidInput(
                f"`parameters` names {', '.join(map(repr, unknown))}, which cannot be recorded; "
                f"choose from {', '.join(candidates)}"
            )
        names = [name for name in candidates if name in wanted]
    if not names:
        raise InvalidInput(f"`parameters` selects nothing; choose from {', '.join(candidates)}")
    return {name: candidates[name] for name in names}, skipped


def nothing_to_record(skipped: Mapping[str, str]) -> InvalidInput:
    """The error of a recorder that has left out everything, with some of the reasons."""
    why = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
    return InvalidInput(
        "nothing to record: `model` and `optimizer` share no trainable parameter with 2 or more dimensions"
        + (f" ({why}{'; ...' if len(skipped) > 3 else ''})" if why else "")
        + "; pass the optimizer that trains this model"
    )


def _names(selection: Iterable[str]) -> list[str]:
    found: list[Any] = [None]
    with suppress(Exception):  # an iterable of the caller's
        found = list(selection)
    if not all(is_a(name, str) for name in found):
        raise InvalidInput(f"`parameters` must be names of parameters; got {shown(selection)}")
    return found


def groups_of(optimizer: torch.optim.Optimizer) -> dict[int, int]:
    """The parameter group, by index, of every parameter, by id, that the optimizer now updates."""
    return {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}


def unwrapped(model: Any) -> Any:
    """The module inside ``torch.compile`` and data parallelism, whose parameters have the names it gave them."""
    while isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        model = model.module
    inner = getattr(model, "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, torch.nn.Module) else model


def _unfit(parameter: torch.Tensor, trained: bool, optimized: bool) -> str:
    """Why a parameter cannot be recorded, or an empty string."""
    if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
        return "lazy: has no shape before the first batch"
    if parameter.is_meta:
        return "on the meta device: has no values"
    if parameter.ndim < 2:
        return f"{parameter.ndim}-D: not a weight of neurons"
    if axes_by_level(parameter) is None:
        return "sharded (DTensor) in parts that are no blocks of it"
    if not parameter.numel():
        return "empty"
    if parameter.ndim >= _STACKED and parameter.shape[:-1].numel() == 1:
        return "one vector: not a weight of neurons"  # a cls token
    if not parameter.is_floating_point():
        return "complex" if parameter.is_complex() else "not floating point"
    if not trained:
        return "frozen"
    return "" if optimized else "not updated by this optimizer"


def ends_in(name: str, key: str) -> bool:
    """True if `key` is the whole dotted name, or its end from a dot on."""
    return name == key or name.endswith(f".{key}")


def row_labels(name: str, neurons: int, split: Split) -> list[str]:
    """The layer name of every row."""
    for key, blocks in split.items():
        if not ends_in(name, key):
            continue
        if not is_a(blocks, Mapping, Sequence):
            raise InvalidInput(f"`split[{key!r}]` must list blocks, e.g. ('q', 'k', 'v'); got {shown(blocks)}")
        counts = blocks if isinstance(blocks, Mapping) else {block: neurons // max(1, len(blocks)) for block in blocks}
        whole = bool(counts) and all(isinstance(count, int) and count >= 1 for count in counts.values())
        if not whole or sum(counts.values()) != neurons:
            raise InvalidInput(
                f"`split[{key!r}]` must add up to the {neurons} rows of {name}; got {shown(blocks)}. "
                "Give the rows of each block: {'q': ..., 'k': ..., 'v': ...}"
            )
        return [f"{name}[{block}]" for block, count in counts.items() for _ in range(count)]
    return [name] * neurons
