"""What is learned: a network with its data, for many copies of the network at once.

Every copy has a generator of its own, seeded with its seed. So it sees the batches that it would see alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import log
from typing import Protocol

import torch
from torch import nn

from experiments.networks.corpus import Text, load_corpus, windows
from experiments.networks.data import Images, load_images, noisy
from experiments.networks.gpt import GPT, GPTSize
from experiments.networks.variants import ResNet, normalised_mlp

Batch = tuple[torch.Tensor, torch.Tensor]


class Problem(Protocol):
    """A network with its data.

    `chance` is the loss of guessing. `together` is how many copies are trained at once: as many as gain by it.
    """

    @property
    def chance(self) -> float: ...
    @property
    def together(self) -> int: ...
    def model(self) -> nn.Module: ...
    def batch(self, draws: Sequence[torch.Generator], device: torch.device) -> Batch: ...
    def tests(self, device: torch.device) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class ImageProblem:
    """Classify images under fresh Gaussian noise of standard deviation `noise` on every standardised pixel.

    ``network`` is "resnet" or the normalisation of a `normalised_mlp` ("bn", "ln", "ws+ln"), ``shape`` the
    (width, stages, blocks) of the ResNet or the hidden widths. Tests see noise too, the same for every copy.
    """

    images: str = "digits"
    network: str = "bn"
    shape: tuple[int, ...] = (64, 64, 64)
    batch_size: int = 64
    noise: float = 1.0
    chance: float = log(10)

    @property
    def together(self) -> int:
        """Small products of matrices gain most."""
        return 8 if self.network == "resnet" else 64

    def model(self) -> nn.Module:
        pixels = _images(self.images, "cpu").train_x.shape[1]
        if self.network == "resnet":
            return ResNet(round(pixels**0.5), *self.shape)
        return normalised_mlp((pixels, *self.shape, 10), self.network)

    def batch(self, draws: Sequence[torch.Generator], device: torch.device) -> Batch:
        """Images (copies, batch, pixels), drawn with replacement, and labels (copies, batch)."""
        images = _images(self.images, str(device))
        size, pixels = self.batch_size, images.train_x.shape[1]
        chosen, noise = torch.empty(len(draws), size, dtype=torch.int64), torch.empty(len(draws), size, pixels)
        for own, row, draw in zip(chosen, noise, draws, strict=True):
            torch.randint(len(images.train_x), (size,), generator=draw, out=own)
            if self.noise:
                row.normal_(generator=draw)
        x = images.train_x[chosen.to(device)]
        return x.add_(noise.to(device), alpha=self.noise) if self.noise else x, images.train_y[chosen.to(device)]

    def tests(self, device: torch.device) -> Iterator[Batch]:
        """The test images, 3000 or more with repetitions, each under noise of its own: (batch, pixels), (batch,)."""
        images, draw = _images(self.images, str(device)), torch.Generator().manual_seed(0)
        for _ in range(-(-3000 // len(images.test_x))):
            yield noisy(images.test_x, self.noise, draw), images.test_y


@dataclass(frozen=True)
class TextProblem:
    """Predict the next byte with a `GPT`, weight-normalised or plain; every test is on the same 40 batches."""

    size: GPTSize = field(default_factory=lambda: GPTSize(context=32))
    normalised: bool = True
    batch_size: int = 8
    chance: float = log(128)
    together: int = 8

    def model(self) -> nn.Module:
        return GPT(self.size, self.normalised)

    def batch(self, draws: Sequence[torch.Generator], device: torch.device) -> Batch:
        """Bytes (copies, batch, context), and those that follow."""
        text = _text(str(device)).train
        pairs = [windows(text, self.batch_size, self.size.context, draw) for draw in draws]
        tokens, following = (torch.stack(part) for part in zip(*pairs, strict=True))
        return tokens, following

    def tests(self, device: torch.device) -> Iterator[Batch]:
        """(batch, context) and (batch, context)."""
        draw, text = torch.Generator().manual_seed(0), _text(str(device)).validation
        for _ in range(40):
            yield windows(text, 32, self.size.context, draw)


@cache
def _images(name: str, device: str) -> Images:
    return load_images(name).to(torch.device(device))


@cache
def _text(device: str) -> Text:
    return load_corpus().to(torch.device(device))
