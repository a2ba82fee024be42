"""The parameters of a small GPT, for timing optimizers without a forward pass."""

from __future__ import annotations

import torch


def gpt_parameters(
    layers: int = 4, width: int = 256, vocabulary: int = 1024, context: int = 128, device: str = "cpu", seed: int = 0
) -> list[torch.nn.Parameter]:
    """Embeddings, separate q, k, v, attention output, two MLP matrices, norms and biases, with gradients."""
    draw = torch.Generator().manual_seed(seed)
    shapes: list[tuple[int, ...]] = [(vocabulary, width), (context, width)]
    for _ in range(layers):
        shapes += [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
        shapes += [(width,)] * 4
    parameters = [torch.nn.Parameter(0.02 * torch.randn(shape, generator=draw).to(device)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=draw).to(device)
    return parameters
