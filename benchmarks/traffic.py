"""What rotational optimizers and recorders ask of a GPU: operations and memory traffic of a step, counted, not timed.

    python -m benchmarks.traffic [--table]

The ways that a GPU takes run on the CPU, under a mode that sees every operation of PyTorch: each reads its inputs and
writes its results once. On a GPU an operation is a launch or two, and traffic is what a step of a large network waits
for. One way is by Triton kernels (`rotation_triton`, `sample_triton`), which are counted here and not run. The other is
plain PyTorch (`rotation_step`, `sample`).
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import click
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import page
from benchmarks.rotational import NETWORKS, OPTIMIZERS
from experiments.harness import markdown
from experiments.networks.gpt import GPT, GPTSize
from rotsim.measure import (
    Recorder,
    gpu,
    rotated,
    rotation_loop,
    rotation_step,
    rotation_triton,
    rotational,
    sample_triton,
)

SHOWN = ("AdamW(foreach=True)", "RotationalAdamW", "RotationalSGDM", "RotationalLion", "Rotated(AdamW(foreach=True))")
RECORDED = GPTSize(6, 128, 4, 32, 1024)
COUNTED = ("GPT 6x128", "ResNet-20")
FREE = {  # views, allocations and questions, which move nothing
    "view", "_unsafe_view", "split", "split_with_sizes", "slice", "select", "unsqueeze", "unbind", "as_strided",
    "detach", "alias", "expand", "permute", "t", "empty", "empty_like", "lift_fresh", "promote_types",
    "_local_scalar_dense", "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip
WRITTEN_ONLY = {"zero_", "copy_", "_foreach_copy_"}  # which do not read what they overwrite


class Traffic(TorchDispatchMode):
    """Counts the operations and the bytes that they read and write."""

    operations, moved = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.__name__.split(".")[0]
        if name in FREE:
            return result
        self.operations += 1
        read, written = [], []
        for place, argument in enumerate(function._schema.arguments):
            value = args[place] if place < len(args) else (kwargs or {}).get(argument.name)
            overwritten = argument.alias_info is not None and argument.alias_info.is_write
            if overwritten:
                written.append(value)
            if not argument.is_out and not (overwritten and name in WRITTEN_ONLY):
                read.append(value)
        self.moved += _bytes(read, once=True) + _bytes(written or result)
        return result


def _bytes(values: Any, once: bool = False) -> int:
    tensors = [x for x in tree_leaves(values) if isinstance(x, torch.Tensor)]
    return sum(x.numel() * x.element_size() for x in ({id(x): x for x in tensors}.values() if once else tensors))


def _norm_of_a_gpu(x: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(x, dim=1).square()


class Launch:
    """Stands for a Triton kernel: each launch counts as an operation that moves so many numbers."""

    def __init__(self, traffic: Traffic, numbers: int) -> None:
        self.traffic, self.numbers = traffic, numbers

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self

    def __call__(self, *_arguments: Any, **_options: Any) -> None:
        self.traffic.operations += 1
        self.traffic.moved += 4 * self.numbers


def count(
    make: Callable[..., torch.optim.Optimizer], parameters: list[torch.nn.Parameter], triton: bool = False
) -> tuple[int, float]:
    """Operations of a step, and numbers moved for each weight, by way of Triton or of plain PyTorch."""
    traffic = Traffic()
    turning = sum(p.numel() for p in parameters if p.ndim > 1)
    if triton:
        way = {"turn_": rotation_triton.turn_}

        def both(update: Any, averages: int, *_: Any) -> tuple[Launch, Launch]:
            """Weights, gradients and averages are read; then all but the gradients are written, too."""
            return Launch(traffic, (2 + averages) * turning), Launch(traffic, (3 + 2 * averages) * turning)

        kernels = mock.patch.object(rotation_triton, "_kernels", both)
    else:
        way = {"fits": lambda *tensors: False}
        kernels = mock.patch.object(rotation_step, "_squared", _norm_of_a_gpu)
    multi = mock.patch.object(rotational, "kernel_for", lambda *tensors: {"fused": False, "foreach": True})
    with mock.patch.multiple(rotation_loop, **way), mock.patch.multiple(rotated, **way), kernels, multi:
        optimizer = make(parameters)
        optimizer.step()
        traffic.operations, traffic.moved = 0, 0
        with traffic:
            optimizer.step()
    return traffic.operations, traffic.moved / _bytes(parameters)


def table() -> str:
    """Operations of a step of each optimizer on each network, and numbers moved for each weight."""
    rows = []
    for network in COUNTED:
        for name in SHOWN:
            operations, moved = count(OPTIMIZERS[name], NETWORKS[network]("cpu"), triton=True)
            others, more = count(OPTIMIZERS[name], NETWORKS[network]("cpu"))
            rows.append((network, name, f"{operations}", f"{moved:.0f}", f"{others}", f"{more:.0f}"))
    (operations, moved), (others, more) = count_sample(triton=True), count_sample(triton=False)
    what = "sample of a recorder", f"{operations}", f"{moved:.0f}", f"{others}", f"{more:.0f}"
    rows.append((f"GPT {RECORDED.layers}x{RECORDED.width}", *what))
    head = ("network", "step", "operations", "numbers per weight", "in plain PyTorch: operations", "numbers")
    return markdown.table(head, rows)


def count_sample(triton: bool) -> tuple[int, float]:
    """Operations of a recorder's sample, and numbers that it moves for each weight, lags apart.

    Of the Triton kernel they are weights before and after, gradients and v, once.
    """
    traffic = Traffic()
    model = GPT(RECORDED, normalised=False)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, foreach=True)
    read = 4 * sum(p.numel() for p in model.parameters() if p.ndim > 1)

    def two_steps() -> np.ndarray:
        traffic.operations, traffic.moved = 0, 0
        with traffic:
            optimizer.step()
            optimizer.step()  # which looks again at what was sampled
        return np.array([traffic.operations, traffic.moved])

    with (
        mock.patch.object(gpu, "available", lambda device: triton),
        mock.patch.object(sample_triton, "_measures_right", lambda device: True),
        mock.patch.object(sample_triton, "_kernel", lambda dtype, block: Launch(traffic, read)),
        Recorder(model, optimizer, interval=2, window=100, lags=0),
    ):
        for _ in range(3):
            optimizer.step()
        recorded = two_steps()
    operations, moved = recorded - two_steps()
    return int(operations), float(moved / _bytes(list(model.parameters())))


@click.command(help=__doc__)
@click.option("--table", "write", is_flag=True, help="Write the table into docs/speed.md.")
def main(write: bool) -> None:
    if write:
        page.write("traffic", table())
    else:
        click.echo(table())


if __name__ == "__main__":
    main()
