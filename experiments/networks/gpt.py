"""A small GPT, plain or with every weight row normalised in the forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class GPTSize:
    """Layers, width, heads, context length and vocabulary."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64
    vocabulary: int = 128


class NormalisedLinear(nn.Module):
    """y = gain · (w/‖w‖) x: every row of ``weight`` is exactly scale-invariant; its size is learned in ``gain``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * 0.02)
        self.gain = nn.Parameter(torch.full((outputs,), 0.02 * inputs**0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1) * self.gain[:, None])


class NormalisedEmbedding(nn.Module):
    """Rows of a table, normalised, times a gain per row."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, width) * 0.02)
        self.gain = nn.Parameter(torch.full((rows,), 0.02 * width**0.5))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, F.normalize(self.weight, dim=1) * self.gain[:, None])


class Block(nn.Module):
    """Pre-LN attention and MLP, with separate q, k and v."""

    def __init__(self, size: GPTSize, linear: type[nn.Module]) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (linear(width, width) for _ in range(4))
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        q, k, v = (layer(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(attended.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """Logits for the next byte.

    Parameters
    ----------
    size : GPTSize
    normalised : bool
        Weight-normalised rows with gains (all weights scale-invariant), or ordinary ones (none is).
    """

    def __init__(self, size: GPTSize, normalised: bool) -> None:
        super().__init__()
        linear = NormalisedLinear if normalised else _plain_linear
        embedding = NormalisedEmbedding if normalised else _plain_embedding
        self.token = embedding(size.vocabulary, size.width)
        self.position = embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size, linear) for _ in range(size.layers)))  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(size.width)
        self.head = linear(size.width, size.vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        position = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position(position))))


def _plain_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=0.02)
    return layer


def _plain_embedding(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.normal_(table.weight, std=0.02)
    return table
