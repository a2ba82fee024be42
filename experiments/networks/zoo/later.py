"""Networks that joined when the rules were made: all are judged alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.zoo.parts import (
    Made,
    adam,
    adamw,
    classifier,
    images,
    language,
    lion,
    network,
    sgdm,
    trained,
)  # fmt: skip


class RotaryBlock(nn.Module):
    """RMS norms before attention with rotary positions, and before a gated linear unit; no biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[-2])[:, None] * 100.0 ** -(torch.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


@network
def rotary_gpt() -> Made:
    body = (RotaryBlock(48, 4), RotaryBlock(48, 4))
    model = nn.Sequential(nn.Embedding(128, 48), *body, nn.RMSNorm(48), nn.Linear(48, 128, bias=False))
    return language(model, adamw(model, lr=2e-3, decay=1.0))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, width), nn.GroupNorm(4, width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x):
        return x + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


@network
def group_norm_resnet() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), Residual(16), nn.MaxPool2d(2), Residual(16), nn.GroupNorm(4, 16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    return classifier(model, sgdm(model))


class Columns(nn.Module):
    """Every pixel is a column of a table: a token of its own embedding, for a transformer over columns."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.slope, self.offset = (nn.Parameter(0.1 * torch.randn(16, width)) for _ in range(2))
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, x):
        pixels = F.avg_pool2d(x, 2).flatten(1)[:, :, None]
        return self.head(self.body(pixels * self.slope + self.offset).mean(1))


@network
def table_transformer() -> Made:
    model = Columns()
    return classifier(model, adamw(model, lr=2e-3, decay=1.0))


@network
def contrastive() -> Made:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32),
    )  # fmt: skip
    data, draw = images(64, 0.0), torch.Generator().manual_seed(1)

    def loss():
        x, _ = data()
        views = (x + 0.5 * torch.randn(x.shape, generator=draw) for _ in range(2))
        first, second = (F.normalize(model(view), dim=1) for view in views)
        return F.cross_entropy(first @ second.T / 0.2, torch.arange(len(x)))

    return trained(model, adamw(model, lr=2e-3, decay=1.0), loss)


@network
def denoiser() -> Made:
    model = nn.Sequential(
        nn.Linear(65, 128), nn.SiLU(), nn.LayerNorm(128), nn.Linear(128, 128), nn.SiLU(), nn.LayerNorm(128),
        nn.Linear(128, 64),
    )  # fmt: skip
    data, draw = images(64, 0.0), torch.Generator().manual_seed(1)

    def loss():
        x = data()[0].flatten(1)
        share, noise = torch.rand(len(x), 1, generator=draw), torch.randn(x.shape, generator=draw)
        seen = share.sqrt() * x + (1 - share).sqrt() * noise
        return F.mse_loss(model(torch.cat([seen, share], 1)), noise)

    return trained(model, adamw(model, lr=2e-3, decay=1.0), loss)


class Shifted(nn.Conv1d):
    """A convolution that sees the past alone, between layer norm and a sum with its input."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__(width, width, 3, dilation=dilation)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        y = F.pad(self.norm(x).transpose(1, 2), (2 * self.dilation[0], 0))
        return x + F.gelu(super().forward(y)).transpose(1, 2)


@network
def causal_convolutions() -> Made:
    body = (Shifted(48, dilation) for dilation in (1, 2, 4))
    model = nn.Sequential(nn.Embedding(128, 48), *body, nn.LayerNorm(48), nn.Linear(48, 128))
    return language(model, lion(model))


class Points(nn.Module):
    """A set of bright pixels: the same layers for each, then the largest of every feature."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Conv1d(i, o, 1, bias=False) for i, o in ((3, 32), (32, 64)))
        self.norms = nn.ModuleList((nn.BatchNorm1d(32), nn.BatchNorm1d(64)))
        self.head = nn.Sequential(nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        value, place = x.flatten(1).topk(16)
        points = torch.stack([value, place % 8 / 4 - 1, place // 8 / 4 - 1], 1)
        for layer, norm in zip(self.each, self.norms, strict=True):
            points = F.relu(norm(layer(points)))
        return self.head(points.amax(2))


@network
def point_set() -> Made:
    model = Points()
    return classifier(model, sgdm(model))


@network
def layer_norm_mlp() -> Made:
    model = nn.Sequential(nn.Flatten())
    for inputs in (64, 96):
        model.extend([nn.Linear(inputs, 96), nn.LayerNorm(96), nn.GELU(), nn.Dropout(0.1)])
    model.append(nn.Linear(96, 10))
    return classifier(model, adam(model))
