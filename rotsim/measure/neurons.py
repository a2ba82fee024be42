"""Which numbers of a parameter are the weights of one neuron, and which of its neurons are recorded.

A linear layer keeps a neuron in each row. Others do not: GPT-2's ``Conv1D`` keeps them in columns, a transposed
convolution in its second axis, and experts are a stack of matrices. The axes that number the neurons say it all. Only
the groups of a transposed convolution are parts of the first axis besides, with neurons of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rotsim.errors import InvalidInput, is_a, shown
from rotsim.measure.sharding import local

Axes = Mapping[str, int | Sequence[int]]
_TRANSPOSED = torch.nn.modules.conv._ConvTransposeNd
_NO_STACKS = torch.nn.modules.conv._ConvNd, torch.nn.Bilinear  # whatever dimensions their weights have
_STACK_DIMS = 3  # dimensions of a stack of matrices
_FUSED = ("in_proj_weight", "c_attn.weight", "qkv.weight", "Wqkv.weight")  # a third each of query, key and value


@dataclass(frozen=True)
class Neurons:
    """The neurons of one parameter.

    Attributes
    ----------
    shape : torch.Size
        Of the parameter.
    axes : tuple of int
        Whose indices number the neurons; the other axes are the weights of one.
    most : int
        Neurons that are recorded, at most: evenly spaced ones of more.
    groups : int
        Parts of the first axis whose neurons are different ones; each has as many.
    """

    shape: torch.Size
    axes: tuple[int, ...] = (0,)
    most: int = 1 << 62
    groups: int = 1
    chosen: np.ndarray | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        some = np.linspace(0, self.total - 1, self.most).astype(np.int64) if self.total > self.most else None
        object.__setattr__(self, "chosen", some)

    @property
    def total(self) -> int:
        """Neurons of the parameter."""
        return self.groups * int(np.prod([self.shape[axis] for axis in self.axes]))

    @property
    def dim(self) -> int:
        """Weights per neuron."""
        return self.shape.numel() // max(1, self.total)

    @property
    def count(self) -> int:
        """Neurons that are recorded."""
        return self.total if self.chosen is None else len(self.chosen)

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the parameter's shape as one row per recorded neuron; a view where that can be.

        Parameters
        ----------
        tensor : Tensor
            Of the parameter's shape, sparse or dense.

        Returns
        -------
        Tensor, shape (count, dim)
        """
        tensor = local(tensor)
        dense = tensor if tensor.layout is torch.strided else tensor.to_dense()
        parts, axes = dense.unflatten(0, (self.groups, -1)), (0, *(axis + 1 for axis in self.axes))
        table = parts.movedim(axes, tuple(range(len(axes)))).reshape(self.total, self.dim)
        return table if self.chosen is None else table[torch.from_numpy(self.chosen).to(table.device)]

    def labels(self, of_all: Sequence[str]) -> list[str]:
        """The names of the recorded neurons, from those of all."""
        return list(of_all) if self.chosen is None else [of_all[i] for i in self.chosen]


def numbering_of(model: torch.nn.Module | Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], int]]:
    """The axes that number the neurons of each parameter, and its groups, by name, where the first axis alone does not.

    Tensors without modules say nothing.
    """
    if isinstance(model, Mapping):
        return {}
    modules = dict(model.named_modules())
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    for name, parameter in model.named_parameters():
        owner = modules[name.partition(".parametrizations.")[0] if ".parametrizations." in name else _parent(name)]
        if isinstance(owner, _TRANSPOSED):
            found[name] = (1,), owner.groups
        elif parameter.ndim == _STACK_DIMS and not isinstance(owner, _NO_STACKS):
            found[name] = (0, 1), 1  # experts; positions, of which a batch of one is kept
        elif parameter.ndim == 2 and type(owner).__name__ == "Conv1D" and hasattr(owner, "nf"):  # of transformers
            found[name] = (1,), 1
    return found


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def checked_axes(name: str, given: int | Sequence[int], shape: torch.Size) -> tuple[int, ...]:
    """The axes that the caller gave for a parameter of that name.

    Raises
    ------
    InvalidInput
        If they are no axes of it, or leave no weights.
    """
    axes = (given,) if isinstance(given, int) else tuple(given) if is_a(given, list, tuple) else ()
    whole = all(type(axis) is int and 0 <= axis < len(shape) for axis in axes)
    if not whole or not 0 < len(set(axes)) == len(axes) < len(shape):
        raise InvalidInput(
            f"`axes[{name!r}]` must be one axis of shape {tuple(shape)} or some, and leave one for the weights; "
            f"got {shown(given)}. Rows are axis 0, columns axis 1"
        )
    return axes


def fused(name: str, neurons: int, dim: int) -> tuple[str, ...] | None:
    """The blocks of a weight that is known by name to hold queries, keys and values of equal number."""
    known = any(name == end or name.endswith(f".{end}") for end in _FUSED)
    return ("q", "k", "v") if known and neurons == 3 * dim else None
