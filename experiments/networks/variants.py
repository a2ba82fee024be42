"""Networks that differ in what is scale-invariant: each neuron, the layer as a whole, or neither."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class StandardisedLinear(nn.Linear):
    """Weight Standardization: each row is used with mean 0 and variance 1/fan-in, so each is scale-invariant."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, F.normalize(row, dim=1), self.bias)


def normalised_mlp(widths: tuple[int, ...], norm: str) -> nn.Sequential:
    """A multilayer perceptron, of inputs, hidden widths and classes, with `norm` after every hidden layer.

    Batch normalisation ("bn") makes each neuron scale-invariant. Layer normalisation ("ln") divides by one number for
    all neurons: only the whole layer is. Weight Standardization before it ("ws+ln") makes each neuron so again.
    """
    linear = StandardisedLinear if norm == "ws+ln" else nn.Linear
    normalisation = nn.BatchNorm1d if norm == "bn" else nn.LayerNorm
    model = nn.Sequential()
    for i, (inputs, outputs) in enumerate(pairwise(widths[:-1])):
        model.add_module(f"hidden{i}", linear(inputs, outputs, bias=False))
        model.add_module(f"norm{i}", normalisation(outputs))
        model.add_module(f"relu{i}", nn.ReLU())
    model.add_module("head", nn.Linear(widths[-2], widths[-1]))
    return model


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, each with batch normalisation, beside the identity (or its strided average)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.stride, self.grown = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        beside = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        return F.relu(inside + F.pad(beside, (0, 0, 0, 0, 0, self.grown)))


class ResNet(nn.Module):
    """A residual network for square grey images given as vectors; all its convolutions are scale-invariant.

    Parameters
    ----------
    side : int
        Pixels of an edge; divisible by 2^(stages - 1).
    width : int
        Channels of the first stage, doubled at every stage.
    stages, blocks : int
        `blocks` residual blocks in each of `stages` stages: depth 2 · stages · blocks + 2.
    """

    def __init__(self, side: int, width: int, stages: int, blocks: int) -> None:
        super().__init__()
        self.side = side
        self.conv = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        channels = [width] + [width * 2 ** (i // blocks) for i in range(stages * blocks)]
        strides = [2 if after > before else 1 for before, after in pairwise(channels)]
        sizes = zip(channels[:-1], channels[1:], strides, strict=True)
        self.blocks = nn.Sequential(*(ResidualBlock(*size) for size in sizes))
        self.head = nn.Linear(channels[-1], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x.view(-1, 1, self.side, self.side))))
        return self.head(self.blocks(x).mean((2, 3)))
