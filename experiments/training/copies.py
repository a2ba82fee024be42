"""Copies of a network that are trained at once: their weights lie one below the other in one set of tensors.

A parameter (rows, ...) of S copies is one tensor (S · rows, ...). What an optimizer does to coordinates or to rows it
does to every copy, as if it were alone. That holds for AdamW, SGDM, Lion, and for the rotational variants by neuron.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from itertools import chain

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.training.loop import seeded


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
        models = [seeded(make, seed, device) for seed in seeds]
        self.count = len(models)
        self.model = deepcopy(models[0])
        self.shapes: dict[str, torch.Size] = {}
        tensors = zip(*(chain(m.named_parameters(), m.named_buffers()) for m in (self.model, *models)), strict=True)
        for (name, joined), *single in tensors:
            self.shapes[name] = joined.shape
            joined.data = torch.cat([tensor.data.reshape(joined.shape or (1,)) for _, tensor in single])
        kinds = (nn.Linear, nn.BatchNorm1d, nn.ReLU)
        self._plain = isinstance(self.model, nn.Sequential) and all(
            type(part) in kinds for part in self.model.children()
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (copies, batch, ..., classes) of inputs (copies, batch, ...), or of (batch, ...) that all share."""
        return self._side_by_side(x) if self._plain else self._mapped(x)

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
            return torch.vmap(lambda own, x: functional_call(self.model, own, (x,)), (0, None if x.ndim == 2 else 0))(
                tensors, x
            )

    def _side_by_side(self, x: torch.Tensor) -> torch.Tensor:
        """Of linear layers with batch normalisation: as (copies, features, batch), no layer has to move its input."""
        h = x.expand(self.count, *x.shape[-2:]).transpose(1, 2)
        for part in self.model.children():
            if isinstance(part, nn.Linear):
                w = part.weight.view(self.count, -1, h.shape[1])
                h = w @ h if part.bias is None else torch.baddbmm(part.bias.view(self.count, -1, 1), w, h)
            elif isinstance(part, nn.BatchNorm1d):
                flat = h.reshape(1, -1, h.shape[2])
                of_part = (part.running_mean, part.running_var, part.weight, part.bias, self.model.training)
                h = F.batch_norm(flat, *of_part, part.momentum, part.eps).view_as(h)  # type: ignore[arg-type]
            else:
                h = F.relu(h)
        return h.transpose(1, 2)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none")
