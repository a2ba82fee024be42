"""What the networks are made of: data, optimizers, a training step, and the register of all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.corpus import load_corpus, windows
from experiments.networks.data import load_images
from experiments.training.loop import train
from experiments.training.optimizers import make_optimizer

Made = tuple[nn.Module, torch.optim.Optimizer, Callable[[], object]]
NETWORKS: dict[str, Callable[[], Made]] = {}


def network(make: Callable[[], Made]) -> Callable[[], Made]:
    NETWORKS[make.__name__] = make
    return make


def images(batch: int = 64, noise: float = 0.5) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Batches of digits (batch, 1, 8, 8) with fresh noise on every pixel, and their labels."""
    digits, draw = load_images("digits"), torch.Generator().manual_seed(0)

    def next_batch() -> tuple[torch.Tensor, torch.Tensor]:
        x, y = digits.batch(batch, noise, draw)
        return x.view(-1, 1, 8, 8), y

    return next_batch


def text(batch: int = 16, length: int = 32) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Windows of the corpus and the bytes that follow."""
    tokens, draw = load_corpus().train, torch.Generator().manual_seed(0)
    return lambda: windows(tokens, batch, length, draw)


def adamw(model: nn.Module, lr: float = 4e-3, decay: float = 1.0, beta2: float = 0.95) -> torch.optim.Optimizer:
    return make_optimizer("adamw", model, lr, decay, beta2)


def adam(model: nn.Module, lr: float = 4e-3, decay: float = 1e-2) -> torch.optim.Optimizer:
    return make_optimizer("adam_l2", model, lr, decay, 0.95)


def sgdm(model: nn.Module, lr: float = 0.1, decay: float = 5e-3) -> torch.optim.Optimizer:
    return make_optimizer("sgdm", model, lr, decay, 0.95)


def lion(model: nn.Module, lr: float = 4e-4, decay: float = 10.0) -> torch.optim.Optimizer:
    return make_optimizer("lion", model, lr, decay, 0.95)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> Made:
    return model, optimizer, partial(next, train(optimizer, loss))


def classifier(
    model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Made:
    data = images()

    def loss() -> torch.Tensor:
        x, y = data()
        return F.cross_entropy((forward or model)(x), y)

    return trained(model, optimizer, loss)


def language(model: nn.Module, optimizer: torch.optim.Optimizer) -> Made:
    data = text()

    def loss() -> torch.Tensor:
        x, y = data()
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    return trained(model, optimizer, loss)


def bn_mlp(*widths: int) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten())
    for i, o in pairwise(widths[:-1]):
        model.extend([nn.Linear(i, o, bias=False), nn.BatchNorm1d(o), nn.ReLU()])
    model.append(nn.Linear(widths[-2], widths[-1]))
    return model
