r"""Pairs of matrices that are used as their product, as in LoRA: W + BA, of which B and A are trained.

What turns and grows then is BA. To first order a gradient step changes it along

.. math:: \frac{\partial L}{\partial B} A + B \frac{\partial L}{\partial A},

which stands for its gradient: that of BA itself is never computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from rotsim.measure.neurons import Neurons

_FIRST, _SECOND, _BOTH = "lora_A", "lora_B", "lora_BA"  # in the names of the first and second factor, and of BA


@dataclass(frozen=True, eq=False)
class Factors:
    """The factors of a product.

    Attributes
    ----------
    second, first : Tensor
        B of shape (outputs, rank, ...), whose further axes have length 1, and A of shape (rank, ...).
    """

    second: torch.Tensor
    first: torch.Tensor

    @property
    def shape(self) -> torch.Size:
        """Of the product, (outputs, inputs)."""
        return torch.Size((self.second.shape[0], self.first[0].numel()))

    @property
    def fits(self) -> bool:
        """True if every number of A meets one of B."""
        outputs, rank = self.second.shape[:2]
        return self.second.numel() == outputs * rank and self.first.shape[0] == rank

    def weights(self, layout: Neurons) -> torch.Tensor:
        """The rows of BA that are recorded, (neurons, inputs); `layout` is that of BA."""
        return self._rows(layout, self.second.detach()) @ self.first.detach().flatten(1)

    def gradient(self, layout: Neurons) -> torch.Tensor | None:
        """What a gradient step changes them along; None without a gradient of both factors."""
        if self.second.grad is None or self.first.grad is None:
            return None
        of_second = self._rows(layout, self.second.grad.detach()) @ self.first.detach().flatten(1)
        return of_second + self._rows(layout, self.second.detach()) @ self.first.grad.detach().flatten(1)

    def _rows(self, layout: Neurons, tensor: torch.Tensor) -> torch.Tensor:
        table = tensor.flatten(1)
        return table if layout.chosen is None else table[torch.from_numpy(layout.chosen).to(table.device)]


def products_of(found: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Factors]]:
    """The products among parameters, by the names that LoRA's packages give their factors.

    Parameters
    ----------
    found : mapping of str to Tensor
        Parameters of two or more dimensions.

    Yields
    ------
    str, Factors
        ``layer.lora_BA.weight`` of ``layer.lora_B.weight`` and ``layer.lora_A.weight``.
    """
    for name, first in found.items():
        second = found.get(name.replace(_FIRST, _SECOND)) if _FIRST in name else None
        if second is not None and not any(hasattr(part, "to_local") for part in (first, second)):
            factors = Factors(second, first)
            if factors.fits:
                yield name.replace(_FIRST, _BOTH), factors
