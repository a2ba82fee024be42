"""Training many seeds of a network at once over training one of them: `python -m benchmarks.copies`.

CPU time, which other work on the machine disturbs less than wall time. Two processes share the seeds on two cores, so
half of the CPU time is what they take. The one network is trained by the plain loop.
"""

import time
from collections.abc import Iterator

import click
import torch
from torch.nn import functional as F

from experiments.training.arms import Arm, Plain, Turned
from experiments.training.copies import Copies
from experiments.training.loop import one_thread, seeded, train
from experiments.training.problems import ImageProblem, Problem, TextProblem

CPU = torch.device("cpu")
CORES = 2
PROBLEMS: dict[str, Problem] = {
    "BN-MLP, digits": ImageProblem(),
    "BN-MLP, Fashion-MNIST": ImageProblem("fashion", noise=0.0),
    "ResNet, digits": ImageProblem(network="resnet", shape=(8, 2, 1)),
    "WN-GPT, text": TextProblem(batch_size=16),
}
ARMS: dict[str, Arm] = {"AdamW": Plain("adamw", 0.01, 0.1), "rotational AdamW": Turned("adamw", 0.01, 0.1)}


def of_one(problem: Problem, arm: Arm, steps: int) -> float:
    """CPU seconds a step of one network."""
    model, draw = seeded(problem.model, 0, CPU), torch.Generator().manual_seed(0)

    def loss() -> torch.Tensor:
        x, y = (part[0] for part in problem.batch([draw], CPU))
        return F.cross_entropy(model(x).flatten(0, -2), y.flatten())

    return _seconds(train(arm.build(model, 1), loss), steps)


def of_copies(problem: Problem, arm: Arm, copies: int, steps: int) -> float:
    """CPU seconds a step of one block of networks."""
    block = Copies(problem.model, range(copies), CPU)
    draws = [torch.Generator().manual_seed(seed) for seed in range(copies)]
    optimizer = arm.build(block.model, copies)
    return _seconds(train(optimizer, lambda: block.loss(*problem.batch(draws, CPU)).sum()), steps)


def _seconds(losses: Iterator[torch.Tensor], steps: int) -> float:
    """The least of three times, after a step that builds state and takes memory."""
    next(losses)
    found = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(steps):
            next(losses)
        found.append((time.process_time() - started) / steps)
    return min(found)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", default=64, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(PROBLEMS)), help="These problems alone.")
@click.option("--steps", default=20, show_default=True, help="Steps of a block; one network takes five times as many.")
def main(seeds: int, only: tuple[str, ...], steps: int) -> None:
    """Print the time of all seeds over that of one, on two cores."""
    click.echo(f"{'network':<24}{'optimizer':<20}{'one, ms':>10}{f'{seeds}, ms':>10}{'ratio':>8}{'on 2 cores':>12}")
    for name in only or PROBLEMS:
        for label, arm in ARMS.items():
            problem = PROBLEMS[name]
            together = min(problem.together, seeds)
            with one_thread():
                one = 1e3 * of_one(problem, arm, 5 * steps)
                all_of_them = 1e3 * of_copies(problem, arm, together, steps) * seeds / together
            ratio = all_of_them / one
            click.echo(f"{name:<24}{label:<20}{one:>10.2f}{all_of_them:>10.1f}{ratio:>8.1f}{ratio / CORES:>12.1f}")


if __name__ == "__main__":
    main()
