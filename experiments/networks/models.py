"""The image networks, with batch normalisation after every layer but the last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isqrt

import torch
from torch import nn
from torch.nn import functional as F


def bn_mlp(widths: Sequence[int]) -> nn.Sequential:
    """A multilayer perceptron, of inputs, hidden widths and classes, whose hidden rows are scale-invariant.

    Batch normalisation follows each hidden linear layer, so multiplying a row by c > 0 changes nothing
    (but for BatchNorm's eps): its gradient is orthogonal to it and scales as 1/c. The last layer, ``head``,
    is not normalised: it is the scale-sensitive contrast.
    """
    model = nn.Sequential()
    for i, (inputs, outputs) in enumerate(pairwise(widths[:-1])):
        model.add_module(f"hidden{i}", nn.Linear(inputs, outputs, bias=False))
        model.add_module(f"norm{i}", nn.BatchNorm1d(outputs))
        model.add_module(f"relu{i}", nn.ReLU())
    model.add_module("head", nn.Linear(widths[-2], widths[-1]))
    return model


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation; the shortcut has no parameters (He et al. 2016, option A)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.conv1, self.norm1 = _conv(inputs, outputs, self.stride), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(short, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1])))


class ResNet(nn.Module):
    """The residual network for small images of He et al. (2016): 6 · blocks + 2 layers for three stages.

    Every filter is followed by batch normalisation, so its weights are scale-invariant; ``head`` is not.

    Parameters
    ----------
    widths : sequence of int
        Channels of the (square) images, channels of each stage, classes. Every stage after the first halves the image.
    blocks : int
        Residual blocks per stage.
    """

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        channels, *stages, classes = widths
        self.channels = channels
        self.stem, self.norm = _conv(channels, stages[0]), nn.BatchNorm2d(stages[0])
        body = []
        for inputs, outputs in pairwise([stages[0], *stages]):
            body += [ResidualBlock(inputs, outputs), *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1))]
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(stages[-1], classes)

    def forward(self, flat: torch.Tensor) -> torch.Tensor:
        side = isqrt(flat.shape[1] // self.channels)
        x = flat.unflatten(1, (self.channels, side, side))
        return self.head(self.body(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


def image_network(widths: Sequence[int], blocks: int) -> nn.Module:
    """A `bn_mlp` if `blocks` is 0, else a `ResNet`."""
    return ResNet(widths, blocks) if blocks else bn_mlp(widths)


def describe(widths: Sequence[int], blocks: int) -> str:
    """Its name, for a report."""
    sizes = "-".join(map(str, widths))
    return f"ResNet-{2 * blocks * (len(widths) - 2) + 2} {sizes}" if blocks else f"BN-MLP {sizes}"


def scale_invariant_layers(model: nn.Module) -> list[str]:
    """Names of the weights of an `image_network` whose rows are scale-invariant: all matrices but the head."""
    return [name for name, p in model.named_parameters() if p.ndim >= 2 and not name.startswith("head")]


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
