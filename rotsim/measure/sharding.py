"""What this process holds of a sharded tensor (`torch.distributed.tensor.DTensor`), and sums over those with the rest.

Where whole rows are here, nothing is asked of other processes. Where the weights of a neuron are spread over processes,
each has a part of every sum. Sums of all parameters travel together, once in a sampled step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Groups = tuple[Any, ...]  # process groups, over each of which a sum goes


def rank() -> int:
    """Of this process, among those that train together."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor: of a sharded one its part."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def first_along(tensor: torch.Tensor, axis: int) -> int:
    """The index along an axis of the whole with which the part of this process begins."""
    if not hasattr(tensor, "to_local"):
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    whole: Any = tensor
    _, offset = compute_local_shape_and_global_offset(whole.shape, whole.device_mesh, whole.placements)
    return int(offset[axis])


def axes_by_level(tensor: torch.Tensor) -> dict[int, int] | None:
    """The axis that each level of a mesh cuts; None where parts are to be added, or an axis is cut twice."""
    placements = getattr(tensor, "placements", ())
    if not all(placement.is_shard() or placement.is_replicate() for placement in placements):
        return None
    sharded = {level: placement.dim for level, placement in enumerate(placements) if placement.is_shard()}
    return sharded if len(set(sharded.values())) == len(sharded) else None


def groups_of_rows(tensor: torch.Tensor, axes: tuple[int, ...]) -> Groups:
    """Over which process groups the weights of one neuron are spread: none where whole neurons are here.

    Parameters
    ----------
    tensor : Tensor
        With `axes_by_level`.
    axes : tuple of int
        Whose indices number the neurons.

    Returns
    -------
    tuple
    """
    levels: Any = axes_by_level(tensor)
    mesh = getattr(tensor, "device_mesh", None)
    return tuple(mesh.get_group(level) for level, axis in levels.items() if mesh is not None and axis not in axes)


def added(parts: Sequence[torch.Tensor], groups: Sequence[Groups]) -> list[torch.Tensor]:
    """Each part summed over its groups; all processes of a group call this with parts of the same shapes.

    Parameters
    ----------
    parts : sequence of Tensor, shape (sums, rows)
        All with the same number of sums.
    groups : sequence of tuple
        Of each part.

    Returns
    -------
    list of Tensor
    """
    found = list(parts)
    for same in dict.fromkeys(zip(groups, [part.device for part in parts], strict=True)):
        members = [i for i, part in enumerate(parts) if (groups[i], part.device) == same]
        together = torch.cat([parts[i] for i in members], dim=1)
        for group in same[0]:
            torch.distributed.all_reduce(together, group=group)
        for i, part in zip(members, together.split([parts[i].shape[1] for i in members], dim=1), strict=True):
            found[i] = part
    return found
