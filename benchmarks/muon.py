"""Milliseconds of a step of Muon, in a loop of torch.optim.Muon and in the walk: `python -m benchmarks.muon`.

Both draw white gradients, take the step, and record norm and angle of every row. CPU time on one thread.
"""

import time
from collections.abc import Callable

import click
import torch

import rotsim

SIZES = ((64, 64), (64, 256), (128, 128), (256, 256), (512, 512))
SETTING = {"lr": 0.02, "weight_decay": 0.1}


def by_torch(rows: int, columns: int) -> Callable[[int], None]:
    """Steps of torch.optim.Muon, with the records of a walk."""
    weights = torch.randn(rows, columns, requires_grad=True)
    optimizer = torch.optim.Muon([weights], **SETTING)
    total = torch.zeros(2, rows)

    def walk(steps: int) -> None:
        for _ in range(steps):
            weights.grad = torch.randn(rows, columns)
            before = weights.detach().clone()
            optimizer.step()
            with torch.no_grad():
                norm = weights.norm(dim=1)
                total[0] += norm**2
                total[1] += torch.arccos(((weights * before).sum(1) / norm / before.norm(dim=1)).clamp(max=1)) ** 2

    return walk


def by_rotsim(rows: int, columns: int) -> Callable[[int], None]:
    """The same steps by `rotsim.simulate`."""

    def walk(steps: int) -> None:
        rotsim.simulate(rotsim.Muon(**SETTING), columns, rows, steps, rotsim.Isotropic(), record_every=steps, threads=1)

    return walk


def milliseconds(walk: Callable[[int], None], seconds: float) -> float:
    """CPU time of a step, over so many steps as take about so long, after one that compiles."""
    walk(1)
    steps, taken = 1, 0.0
    while taken < seconds / 3:
        start = time.process_time()
        walk(steps)
        taken = time.process_time() - start
        found, steps = taken / steps, 2 * steps
    return 1e3 * found


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Of each measurement.")
def main(seconds: float) -> None:
    """Print milliseconds of a step of one matrix, and the ratio."""
    torch.set_num_threads(1)
    click.echo(f"{'matrix':>10} {'torch.optim.Muon, ms':>22} {'rotsim, ms':>12} {'ratio':>7}")
    for rows, columns in SIZES:
        one, other = (milliseconds(make(rows, columns), seconds) for make in (by_torch, by_rotsim))
        click.echo(f"{f'{rows}x{columns}':>10} {one:22.3g} {other:12.3g} {one / other:7.1f}")


if __name__ == "__main__":
    main()
