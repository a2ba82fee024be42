"""What the timings share: the parameters of a small GPT, without a forward pass, and where results go."""

import json
from pathlib import Path
from typing import Any

import torch

from rotsim.dataset import provenance
from rotsim.files import to_json, write_atomically


def gpt_parameters(
    layers: int = 4, width: int = 256, vocabulary: int = 1024, context: int = 128, device: str = "cpu", seed: int = 0
) -> list[torch.nn.Parameter]:
    """Embeddings, separate q, k, v, attention output, two MLP matrices, norms and biases, with gradients."""
    shapes: list[tuple[int, ...]] = [(vocabulary, width), (context, width)]
    for _ in range(layers):
        shapes += [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
        shapes += [(width,)] * 4
    return parameters_of(shapes, device, seed)


def resnet_parameters(width: int = 16, blocks: int = 3, device: str = "cpu", seed: int = 0) -> list[torch.nn.Parameter]:
    """Convolutions, gains and biases of a CIFAR ResNet of 6 · `blocks` + 2 layers, with gradients."""
    shapes: list[tuple[int, ...]] = [(width, 3, 3, 3), (width,), (width,)]
    channels = width
    for out in (width, 2 * width, 4 * width):
        for _ in range(blocks):
            shapes += [(out, channels, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            channels = out
    return parameters_of([*shapes, (10, channels), (10,)], device, seed)


def parameters_of(shapes: list[tuple[int, ...]], device: str = "cpu", seed: int = 0) -> list[torch.nn.Parameter]:
    """Normal weights of standard deviation 0.02 and normal gradients."""
    draw = torch.Generator().manual_seed(seed)
    parameters = [torch.nn.Parameter(0.02 * torch.randn(shape, generator=draw).to(device)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=draw).to(device)
    return parameters


def append_result(path: Path, measurement: dict[str, Any]) -> None:
    """Add a measurement, with its provenance, to a JSON list."""
    known = json.loads(path.read_text()) if path.exists() else []
    text = to_json([*known, {**measurement, "provenance": provenance()}])
    write_atomically(path, text)
