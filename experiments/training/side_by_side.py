"""Forward passes of many copies of a network at once, where one that is written out beats `torch.vmap`.

A weight is (copies · rows, ...), or (copies, all of it) where whole tensors turn.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from experiments.networks.gpt import GPT
from experiments.networks.variants import ResNet
from experiments.training.rectified import Rectified

#: Logits (copies, batch, ..., classes) of inputs (copies, batch, ...), or of (1, batch, ...) that all share.
Forward = Callable[[torch.Tensor], torch.Tensor]


def side_by_side(model: nn.Module, copies: int) -> Forward | None:
    """The pass of a model that has the weights of all copies; None for a network that has none here."""
    if isinstance(model, GPT):
        return lambda tokens: _gpt(model, tokens, copies)
    if isinstance(model, ResNet):
        return lambda x: _resnet(model, x, copies)
    if isinstance(model, nn.Sequential):
        parts = list(model.children())
        kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (len(parts) // 3) + [nn.Linear]
        if [type(part) for part in parts] == kinds:
            return lambda x: _mlp(parts, x, copies)
    return None


def _mlp(parts: list[nn.Module], x: torch.Tensor, copies: int) -> torch.Tensor:
    """Of linear layers with batch normalisation: as (copies, features, batch), no layer has to move its input."""
    h = x.expand(copies, *x.shape[1:]).transpose(1, 2)
    for part in parts:
        if isinstance(part, nn.Linear):
            w = part.weight.view(copies, -1, h.shape[1])
            h = w @ h if part.bias is None else torch.baddbmm(part.bias.view(copies, -1, 1), w, h)
        elif isinstance(part, nn.BatchNorm1d):
            h = _rectified(part, h.flatten(0, 1)).view_as(h)
    return h.transpose(1, 2)


def _rectified(part: nn.BatchNorm1d, h: torch.Tensor) -> torch.Tensor:
    """Batch normalisation and ReLU of (features, batch)."""
    if not part.training or h.device.type != "cpu":
        return F.relu(_batch_norm(part, h[None])[0])
    mean, variance = part.running_mean, part.running_var
    assert mean is not None and variance is not None and part.momentum is not None
    out, means, scales = Rectified.apply(h, part.weight, part.bias, part.eps)
    batch = h.shape[1]
    mean.lerp_(means, part.momentum)
    variance.lerp_((scales**-2 - part.eps) * (batch / (batch - 1)), part.momentum)
    return out


def _resnet(model: ResNet, x: torch.Tensor, copies: int) -> torch.Tensor:
    """As (batch, copies · channels, side, side): convolutions in groups, and normalisations of more channels."""
    x = x.expand(copies, *x.shape[1:]).transpose(0, 1).reshape(-1, copies, model.side, model.side)
    h = F.relu(_convolved(model.conv, model.norm, x, copies))
    block: Any
    for block in model.blocks:
        inside = F.relu(_convolved(block.conv1, block.norm1, h, copies))
        inside = _convolved(block.conv2, block.norm2, inside, copies)
        beside = F.avg_pool2d(h, block.stride) if block.stride > 1 else h
        if block.grown:
            beside = F.pad(beside.unflatten(1, (copies, -1)), (0, 0, 0, 0, 0, block.grown)).flatten(1, 2)
        h = F.relu(inside + beside)
    features = h.mean((2, 3)).view(len(h), copies, -1).transpose(0, 1)
    return torch.baddbmm(model.head.bias.view(copies, 1, -1), features, _rows(model.head, copies, features.shape[2]).mT)


def _convolved(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor, copies: int) -> torch.Tensor:
    """A convolution with its normalisation."""
    w = conv.weight.view(-1, conv.in_channels, *conv.kernel_size)
    h = F.conv2d(x, w, None, conv.stride, conv.padding, groups=copies)
    return _batch_norm(norm, h)


def _batch_norm(part: nn.BatchNorm1d | nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    assert part.momentum is not None
    of_part = (part.running_mean, part.running_var, part.weight, part.bias, part.training, part.momentum, part.eps)
    return F.batch_norm(x, *of_part)


def _gpt(model: GPT, tokens: torch.Tensor, copies: int) -> torch.Tensor:
    """A layer normalisation's gains and biases go into the weights after it, which are smaller than its output."""
    batch, context = tokens.shape[1:]
    width = model.norm.normalized_shape[0]
    each = torch.arange(copies, device=tokens.device)[:, None, None]
    x = _rows(model.token, copies, width)[each, tokens]
    x = (x + _rows(model.position, copies, width)[:, None, :context]).view(copies, batch * context, width)
    block: Any  # mypy knows a module's parts as tensors or modules
    for block in model.blocks:
        q, k, v = (
            part.view(copies * batch, context, block.heads, -1).transpose(1, 2)
            for part in _normalised(block.norm1, (block.q, block.k, block.v), x).chunk(3, 2)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = torch.baddbmm(x, attended.transpose(1, 2).reshape(x.shape), _rows(block.o, copies, width).mT)
        hidden = F.gelu(_normalised(block.norm2, (block.up,), x))
        x = torch.baddbmm(x, hidden, _rows(block.down, copies, hidden.shape[2]).mT)
    return _normalised(model.norm, (model.head,), x).view(copies, batch, context, -1)


def _normalised(norm: nn.LayerNorm, layers: tuple[Any, ...], x: torch.Tensor) -> torch.Tensor:
    """Linear layers of one normalised input (copies, positions, width): their outputs one after the other."""
    copies, _, width = x.shape
    w = torch.cat([_rows(layer, copies, width) for layer in layers], 1)
    gain, bias = norm.weight.view(copies, 1, width), norm.bias.view(copies, width, 1)
    return torch.baddbmm((w @ bias).mT, F.layer_norm(x, (width,), eps=norm.eps), (w * gain).mT)


def _rows(layer: Any, copies: int, inputs: int) -> torch.Tensor:
    """Weights (copies, rows, inputs) of a linear layer or an embedding."""
    w: torch.Tensor = layer.weight.view(-1, inputs)
    if hasattr(layer, "gain"):
        w = w * (layer.gain / w.norm(dim=1).clamp_min(1e-12))[:, None]
    return w.view(copies, -1, inputs)
