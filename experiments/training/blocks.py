"""Trainings of many seeds: a problem, an arm and a schedule; blocks of seeds are trained at once and kept.

A seed sets the initial weights and the batches in every arm alike, so arms are compared seed by seed.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments import networks, training
from experiments.training.arms import Arm
from experiments.training.copies import Copies
from experiments.training.loop import one_thread, rise_and_fall, train
from experiments.training.problems import Problem
from experiments.training.turning import INTERVAL, Turning
from rotsim import measure
from rotsim.tasks import Ledger, Task, collect, processes

#: What trainings run through, besides the file of their arm.
_CODE = (
    (training, ("arms", "blocks", "copies", "loop", "optimizers", "problems", "rectified", "side_by_side", "turning")),
    (networks, ("corpus", "data", "gpt", "variants")),
    (measure, ("lion", "rotated", "rotation_kernel", "rotation_step", "rotational")),
)


@dataclass(frozen=True)
class Trial:
    """All that determines a training but its seed: lr warms up linearly over `warmup` steps, then follows a cosine.

    The cosine ends at 0. ``constant`` keeps lr at its peak instead. ``record`` measures over the last half how evenly
    the network turns, which slows the run.
    """

    problem: Problem
    arm: Arm
    steps: int
    warmup: int = 0
    constant: bool = False
    record: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class Block(Task):
    """Seeds ``first`` to ``first + copies - 1`` of a trial, trained at once."""

    trial: Trial
    first: int
    copies: int

    def strong_id_value(self) -> Any:
        """Besides the fields: PyTorch and the code that a trial runs through."""
        return {**super().strong_id_value(), "torch": torch.__version__, "code": _code(type(self.trial.arm))}

    def run(self) -> dict[str, Any]:
        """Train and test once, on one thread: what was measured by name, each (copies,)."""
        with one_thread():
            return _outcomes(self)


#: By name, each (seeds,): ``loss`` and ``accuracy`` on the test, and of `Turning.summary` what was recorded.
Outcomes = dict[str, np.ndarray]


def blocks(trial: Trial, first: int, seeds: int) -> list[Block]:
    """The tasks of seeds ``first`` to ``first + seeds - 1``."""
    size = trial.problem.together
    return [Block(trial, first + i, min(size, seeds - i)) for i in range(0, seeds, size)]


def run_trials(wanted: Sequence[tuple[Trial, int, int]], count: int = 1, store: Ledger | None = None) -> list[Outcomes]:
    """Outcomes of trials, each with its first seed and its number of seeds.

    They run in `count` processes; what `store` has is taken from there.
    """
    tasks = [blocks(*part) for part in wanted]
    with processes(count) as spread:
        found = iter(collect([task for parts in tasks for task in parts], map=spread, store=store))
    outcomes = []
    for parts in tasks:
        results = [next(found) for _ in parts]
        outcomes.append({name: np.concatenate([np.array(x[name], float) for x in results]) for name in results[0]})
    return outcomes


@cache
def _code(arm: type) -> str:
    files = [Path(inspect.getfile(arm))]
    files += [Path(inspect.getfile(package)).parent / f"{name}.py" for package, names in _CODE for name in names]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _outcomes(block: Block) -> dict[str, Any]:
    trial, device = block.trial, torch.device(block.trial.device)
    seeds = range(block.first, block.first + block.copies)
    copies = Copies(trial.problem.model, seeds, device)
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    optimizer = trial.arm.build(copies.model, block.copies)
    factors = None if trial.constant else rise_and_fall(trial.steps, trial.warmup)
    losses = train(optimizer, lambda: copies.loss(*trial.problem.batch(draws, device)).sum(), trial.steps, factors)
    turning = Turning(copies) if trial.record else None
    for step in range(trial.steps):
        if turning is not None and step >= trial.steps // 2 and step % INTERVAL == 0:
            with turning.sample():
                next(losses)
        else:
            next(losses)
    found = _test(trial.problem, copies, device)
    return {**found, **(turning.summary() if turning is not None else {})}


@torch.no_grad()
def _test(problem: Problem, copies: Copies, device: torch.device) -> dict[str, list[float]]:
    """A loss worse than guessing, or none, counts as guessing."""
    copies.model.eval()
    losses, right = [], []
    for x, y in problem.tests(device):
        loss, hits = copies.test(x, y)
        losses.append(loss)
        right.append(hits)
    mean = torch.stack(losses).double().mean(0).tolist()
    accuracy = torch.stack(right).double().mean(0).tolist()
    guess = problem.chance
    return {"loss": [min(x, guess) if isfinite(x) else guess for x in mean], "accuracy": accuracy}
