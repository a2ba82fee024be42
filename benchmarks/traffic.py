"""What the rotational optimizers would ask of a GPU: operations and memory traffic of a step, counted, not timed.

    python -m benchmarks.traffic [--table]

The ways that a GPU takes run on the CPU, under a mode that sees every operation of PyTorch: each reads its inputs and
writes its results once. On a GPU an operation is a launch or two, and traffic is what a step of a large network waits
for. One way is two Triton kernels (`rotsim.measure.rotation_triton`), which are counted here and not run. The other is
plain PyTorch (`rotsim.measure.rotation_step`).
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import page
from benchmarks.rotational import NETWORKS, OPTIMIZERS
from experiments.harness import markdown
from rotsim.measure import rotated, rotation_loop, rotation_step, rotation_triton, rotational

SHOWN = ("AdamW(foreach=True)", "RotationalAdamW", "RotationalSGDM", "RotationalLion", "Rotated(AdamW(foreach=True))")
COUNTED = ("GPT 6x128", "ResNet-20")
FREE = {  # views, allocations and questions, which move nothing
    "view", "_unsafe_view", "split", "split_with_sizes", "slice", "select", "unsqueeze", "unbind", "as_strided",
    "detach", "alias", "expand", "empty", "empty_like", "lift_fresh", "promote_types", "_local_scalar_dense",
    "_record_function_enter_new", "_record_function_exit",
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
    head = ("network", "optimizer", "operations", "numbers per weight", "in plain PyTorch: operations", "numbers")
    return markdown.table(head, rows)


@click.command(help=__doc__)
@click.option("--table", "write", is_flag=True, help="Write the table into docs/speed.md.")
def main(write: bool) -> None:
    if write:
        page.write("traffic", table())
    else:
        click.echo(table())


if __name__ == "__main__":
    main()
