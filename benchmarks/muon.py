"""Milliseconds of a step of Muon, in a loop of torch.optim.Muon and in the walk: `python -m benchmarks.muon`.

All draw white gradients, take the step, and record norm and angle of every row. CPU time on one thread, in one run.
PyTorch's iteration is in bfloat16, for which few processors have instructions. So a loop of PyTorch in float32 stands
beside it, which multiplies three times in every iteration as that does.

The flops: an iteration of a square matrix of side p takes 6p³ in PyTorch's loop, 30p³ for five. The walk takes 20p³, as
what is symmetric is computed by halves.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

import rotsim
from benchmarks import page
from benchmarks.processor import processor
from rotsim.files import to_json, write_atomically
from rotsim.optimizers.muon import JORDAN

SIZES = ((64, 64), (64, 256), (128, 128), (256, 256), (512, 512))
SETTING = {"lr": 0.02, "weight_decay": 0.1}
RESULT = Path(__file__).parent / "results" / "muon.json"
LOOPS = ("torch.optim.Muon", "PyTorch, float32")


class Float32(torch.optim.Optimizer):
    """torch.optim.Muon of a matrix that is not tall, without its bfloat16."""

    def __init__(self, params: list[torch.Tensor], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step, with Nesterov's momentum."""
        [group] = self.param_groups
        [weight] = group["params"]
        average = self.state[weight].setdefault("average", torch.zeros_like(weight))
        average.lerp_(weight.grad, 1 - group["momentum"])
        x = weight.grad.lerp(average, group["momentum"])
        x = x / x.norm()
        a, b, c = JORDAN
        for _ in range(5):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(x, alpha=-group["lr"])


def by_torch(rows: int, columns: int, make: Callable[..., torch.optim.Optimizer]) -> Callable[[int], None]:
    """Steps of PyTorch, with the records of a walk."""
    weights = torch.randn(rows, columns, requires_grad=True)
    optimizer = make([weights], **SETTING)
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


def table(result: dict[str, object]) -> str:
    """Markdown, from a result."""
    head = f"| matrix ({result['processor']}) | rotsim, ms | {' | '.join(f'{name}, ms | ratio' for name in LOOPS)} |"
    lines = [head, "|" + "---|" * (2 + 2 * len(LOOPS))]
    for row in result["sizes"]:  # type: ignore[attr-defined]
        cells = [f"{row[name]:.3g} | {row[name] / row['rotsim']:.1f}" for name in LOOPS]
        lines.append(f"| {row['matrix']} | {row['rotsim']:.3g} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Of each measurement.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the result.")
@click.option("--table", "only_table", is_flag=True, help="Write the table in docs/speed.md from the committed result.")
def main(seconds: float, output: Path | None, only_table: bool) -> None:
    """Print milliseconds of a step of one matrix, and the ratios."""
    if only_table:
        return page.write("muon", table(json.loads(RESULT.read_text())))
    torch.set_num_threads(1)
    sizes = []
    for rows, columns in SIZES:
        walks = [by_rotsim(rows, columns), *(by_torch(rows, columns, make) for make in (torch.optim.Muon, Float32))]
        found = (round(milliseconds(walk, seconds), 4) for walk in walks)
        sizes.append({"matrix": f"{rows} x {columns}", **dict(zip(("rotsim", *LOOPS), found, strict=True))})
    result = {"processor": processor(), "torch": torch.__version__, "sizes": sizes}
    click.echo(table(result))
    if output:
        write_atomically(output, to_json(result))


if __name__ == "__main__":
    main()
