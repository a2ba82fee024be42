"""Copies of a network that are trained at once: their weights lie one below the other in one set of tensors.

A parameter (rows, ...) of S copies is one tensor (S · rows, ...). What an optimizer does to coordinates or to rows it
does to every copy, as if it were alone. That holds for AdamW, SGDM, Lion, and for the rotational variants by neuron.
"""

import ctypes
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cache
from itertools import chain

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.training.loop import seeded
from experiments.training.side_by_side import side_by_side


class Copies:
    """One network for every seed.

    Attributes
    ----------
    model : nn.Module
        Its parameters and buffers are those of all copies, (copies · rows, ...): what an optimizer is given.
    count : int
    shapes : dict of str to torch.Size
        Of a single copy's parameters and buffers, by name.
    """

    def __init__(self, make: Callable[[], nn.Module], seeds: Sequence[int], device: torch.device) -> None:
        _keep_memory()
        models = [seeded(make, seed, device) for seed in seeds]
        self.count = len(models)
        self.model = deepcopy(models[0])
        self.shapes: dict[str, torch.Size] = {}
        tensors = zip(*(chain(m.named_parameters(), m.named_buffers()) for m in (self.model, *models)), strict=True)
        for (name, joined), *single in tensors:
            self.shapes[name] = joined.shape
            joined.data = torch.cat([tensor.data.reshape(joined.shape or (1,)) for _, tensor in single])
        self._forward = side_by_side(self.model, self.count) or self._mapped

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (copies, batch, ..., classes) of inputs (copies, batch, ...), or of (batch, ...) that all share."""
        return self._forward(x if x.ndim == 3 else x[None])

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy (copies,) of labels (copies, batch, ...); its sum has every copy's own gradient."""
        return self._mean(_cross_entropy(self(x), y))

    def test(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy and share of right answers, each (copies,), where all copies see the same."""
        logits, labels = self(x), y.expand(self.count, *y.shape)
        return self._mean(_cross_entropy(logits, labels)), self._mean((logits.argmax(-1) == labels).double())

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        return values.reshape(self.count, -1).mean(1)

    def _mapped(self, x: torch.Tensor) -> torch.Tensor:
        """Of any network."""
        tensors = {
            name: tensor.view(self.count, *self.shapes[name])
            for name, tensor in chain(self.model.named_parameters(), self.model.named_buffers())
        }
        with sdpa_kernel(SDPBackend.MATH):  # the others are looped over copies
            return torch.vmap(lambda own, x: functional_call(self.model, own, (x,)), (0, 0))(
                tensors, x.expand(self.count, *x.shape[1:])
            )


@cache
def _keep_memory() -> None:
    """Let freed memory stay with the process: to get a megabyte from the kernel takes longer than to fill it."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # only glibc is known to need it
        return
    for threshold in (-1, -3):  # of what is given back, and of what is never kept
        mallopt(threshold, 1 << 25)  # bytes; it takes no more


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of images as (copies, classes, batch), since PyTorch is slow at rows of few classes."""
    if logits.ndim == 3:
        return F.cross_entropy(logits.mT, labels, reduction="none")
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
