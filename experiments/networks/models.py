"""The network of the shipped traces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def bn_mlp(widths: Sequence[int]) -> nn.Sequential:
    """A multilayer perceptron whose hidden weight rows are scale-invariant by construction.

    Batch normalisation follows each hidden linear layer, so multiplying a row by c > 0 changes nothing
    (but for BatchNorm's eps): its gradient is orthogonal to it and scales as 1/c. The last layer, ``head``,
    is not normalised: it is the scale-sensitive contrast.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden widths, classes.
    """
    model = nn.Sequential()
    for i, (inputs, outputs) in enumerate(pairwise(widths[:-1])):
        model.add_module(f"hidden{i}", nn.Linear(inputs, outputs, bias=False))
        model.add_module(f"norm{i}", nn.BatchNorm1d(outputs))
        model.add_module(f"relu{i}", nn.ReLU())
    model.add_module("head", nn.Linear(widths[-2], widths[-1]))
    return model


def scale_invariant_layers(model: nn.Module) -> list[str]:
    """Names of the weights of a `bn_mlp` whose rows are scale-invariant."""
    return [name for name, _ in model.named_parameters() if name.startswith("hidden")]
