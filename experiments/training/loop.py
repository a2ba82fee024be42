"""The training loop that all runs share, what makes it repeat, and its schedules."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np
import torch
from torch import nn

from rotsim.theory.schedules import cosine, warmup


def train(
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], torch.Tensor],
    steps: int | None = None,
    factors: np.ndarray | None = None,
) -> Iterator[torch.Tensor]:
    """Take a step whenever the next value is asked for: the loss that it began with, of a new batch, detached.

    Without `steps` there is no end. `factors` (steps,) are on every group's learning rate.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    for step in count() if steps is None else range(steps):
        if factors is not None:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * float(factors[step])
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        yield value.detach()


def rise_and_fall(steps: int, rise: int) -> np.ndarray:
    """Factors of `steps` steps: linear over `rise` and one more, which has the peak, then a cosine to zero."""
    return warmup(rise + 1, cosine(steps - rise))(np.arange(1, steps + 1))


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums split over threads round differently: one thread repeats everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def seeded(make: Callable[[], nn.Module], seed: int, device: torch.device) -> nn.Module:
    """A model initialised from `seed`; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(device)
