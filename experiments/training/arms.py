"""Arms of a comparison: an optimizer with its hyperparameters, for the weights of many copies at once."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

import rotsim
from experiments.training.optimizers import make_optimizer
from rotsim.optimizers.base import Optimizer

FUSED = ("adamw", "adam_l2", "sgdm")  # PyTorch has these in one pass
BETA2 = 0.95  # of both Adams: the runs are shorter than the memory of 0.999


class Arm(Protocol):
    """What trains a network."""

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        """The optimizer of a model whose parameters are those of all copies, (copies · rows, ...)."""
        ...


@dataclass(frozen=True)
class Plain:
    """adamw, adam_l2, sgdm or lion; matrices are decayed, vectors are not."""

    optimizer: str
    lr: float
    weight_decay: float

    @property
    def spec(self) -> Optimizer:
        """The same as rotsim has it."""
        betas = {"betas": (0.9, BETA2)} if self.optimizer.startswith("adam") else {}
        return rotsim.OPTIMIZERS[self.optimizer](lr=self.lr, weight_decay=self.weight_decay, **betas)

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        """From PyTorch; of many copies in one pass over memory, which rounds otherwise."""
        options = {"fused": True} if copies > 1 and self.optimizer in FUSED else {}
        return make_optimizer(self.optimizer, model, self.lr, self.weight_decay, BETA2, **options)


@dataclass(frozen=True)
class Turned(Plain):
    """The rotational variant of adamw, sgdm or lion, with `options` that differ from its defaults."""

    options: tuple[tuple[str, Any], ...] = ()

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        """From `rotsim.measure`; a whole tensor that turns as one vector is one row of every copy."""
        options = dict(self.options)
        if not options.pop("per_neuron", True):
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.data = parameter.data.view(copies, -1)
        name = f"rotational_{self.optimizer}"
        return make_optimizer(name, model, self.lr, self.weight_decay, BETA2, **options)
