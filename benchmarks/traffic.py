"""What the rotational optimizers would ask of a GPU: operations and memory traffic of a step, counted, not timed.

    python -m benchmarks.traffic

The path that GPUs take (`rotsim.measure.rotation_step`) runs on the CPU, under a mode that sees every operation of
PyTorch: each reads its inputs and writes its results once. On a GPU an operation is a launch or two, and traffic is
what a step of a large network waits for.
"""

from collections.abc import Callable
from typing import Any
from unittest import mock

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.rotational import NETWORKS, OPTIMIZERS
from rotsim.measure import rotation_loop, rotation_step

SHOWN = ("AdamW(foreach=True)", "RotationalAdamW", "RotationalSGDM", "RotationalLion")
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


def count(make: Callable[..., torch.optim.Optimizer], parameters: list[torch.nn.Parameter]) -> tuple[int, float]:
    """Operations of a step, and numbers moved for each weight."""
    with (
        mock.patch.object(rotation_loop, "fits", lambda *tensors: False),
        mock.patch.object(rotation_step, "_squared", _norm_of_a_gpu),
    ):
        optimizer = make(parameters)
        optimizer.step()
        with Traffic() as traffic:
            optimizer.step()
    return traffic.operations, traffic.moved / _bytes(parameters)


@click.command(help=__doc__)
def main() -> None:
    for network in ("GPT 4x512", "GPT 6x128", "ResNet-20"):
        print(f"{network:<32}{'operations':>12}{'numbers moved per weight':>26}")
        for name in SHOWN:
            operations, moved = count(OPTIMIZERS[name], NETWORKS[network]("cpu"))
            print(f"  {name:<30}{operations:>12}{moved:>26.1f}")


if __name__ == "__main__":
    main()
