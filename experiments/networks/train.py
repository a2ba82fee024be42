"""Training with the recorder attached, reproducible from a seed: the frame all runs share, and image classifiers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

import torch
from torch import nn

from experiments.networks.data import Images
from experiments.networks.models import describe, image_network, scale_invariant_layers
from rotsim.errors import InvalidInput
from rotsim.measure import Lion, Recorder, RotationalAdamW

OPTIMIZERS = ("adamw", "adam_l2", "sgdm", "lion", "rotational_adamw")


@dataclass(frozen=True)
class Run:
    """Everything that determines a run besides the images.

    ``optimizer`` is one of `OPTIMIZERS`; ``widths`` and ``blocks`` are those of `image_network`; ``input_noise`` is
    the standard deviation of fresh Gaussian noise on every standardised pixel of every batch. A network that
    memorises its images has gradients that vanish and burst; noise on the images keeps them stationary. ``beta2`` is
    the Adams'.
    """

    widths: tuple[int, ...]
    batch: int
    steps: int
    optimizer: str
    lr: float
    weight_decay: float
    input_noise: float = 0.0
    seed: int = 0
    blocks: int = 0
    beta2: float = 0.999


class AnyRun(Protocol):
    """What the frame reads off a run."""

    @property
    def optimizer(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def steps(self) -> int: ...


def make_optimizer(run: AnyRun, model: nn.Module, beta2: float = 0.999) -> torch.optim.Optimizer:
    """The run's optimizer; matrices are decayed, biases, gains and norms are not. `beta2` is the Adams'."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": run.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    if run.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=run.lr, betas=(0.9, beta2))
    if run.optimizer == "adam_l2":
        return torch.optim.Adam(groups, lr=run.lr, betas=(0.9, beta2))
    if run.optimizer == "sgdm":
        return torch.optim.SGD(groups, lr=run.lr, momentum=0.9)
    if run.optimizer == "lion":
        return Lion(groups, lr=run.lr)
    if run.optimizer == "rotational_adamw":
        return RotationalAdamW(groups, lr=run.lr, betas=(0.9, beta2))
    raise InvalidInput(f"optimizer {run.optimizer!r} is unknown; choose from {', '.join(OPTIMIZERS)}")


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


def fit(
    run: AnyRun,
    loss: Callable[[], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    recorder: Recorder,
    on_step: Callable[[], object],
    warmup: float | None = None,
) -> float:
    """Take ``run.steps`` steps with the recorder attached; the mean loss of the last 100.

    `warmup` None keeps the learning rate constant; a share of the steps raises it linearly over these, then it
    follows a cosine to 0.
    """
    schedule = None if warmup is None else _warmup_cosine(optimizer, run.steps, warmup)
    losses = []
    with recorder:
        for step in range(run.steps):
            value = loss()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
            if step >= run.steps - 100:
                losses.append(value.detach())
            on_step()
    return torch.stack(losses).mean().item()


def _warmup_cosine(optimizer: torch.optim.Optimizer, steps: int, share: float) -> torch.optim.lr_scheduler.LambdaLR:
    rising = round(share * steps)

    def factor(step: int) -> float:
        return (step + 1) / rising if step < rising else 0.5 * (1 + cos(pi * (step - rising) / (steps - rising)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train(
    run: Run,
    images: Images,
    *,
    interval: int = 10,
    window: int = 100,
    device: str | torch.device = "cpu",
    on_step: Callable[[], object] = lambda: None,
) -> tuple[Recorder, dict[str, float]]:
    """Train at constant learning rate, batches drawn with replacement, on one thread.

    Parameters
    ----------
    run : Run
    images : Images
    interval, window : int
        The recorder's.
    device : str or torch.device
    on_step : callable
        Called after every step, for a progress bar.

    Returns
    -------
    Recorder
        Closed; ask it for the dataset.
    dict
        ``train_loss`` (mean over the last 100 steps) and ``test_accuracy``.
    """
    device = torch.device(device)
    with one_thread():
        model = seeded(lambda: image_network(run.widths, run.blocks), run.seed, device)
        draw = torch.Generator().manual_seed(run.seed)
        images = images.to(device)
        optimizer = make_optimizer(run, model, run.beta2)

        def loss() -> torch.Tensor:
            chosen = torch.randint(len(images.train_x), (run.batch,), generator=draw).to(device)
            x = images.train_x[chosen]
            if run.input_noise:
                x = x + run.input_noise * torch.randn(x.shape, generator=draw).to(device)
            return nn.functional.cross_entropy(model(x), images.train_y[chosen])

        recorder = Recorder(model, optimizer, interval, window, note=_note(run, images, model))
        train_loss = fit(run, loss, optimizer, recorder, on_step)
        model.eval()
        with torch.no_grad():
            right = [
                (model(x).argmax(1) == y).double()
                for x, y in zip(images.test_x.split(1000), images.test_y.split(1000), strict=True)
            ]
    return recorder, {"train_loss": train_loss, "test_accuracy": torch.cat(right).mean().item()}


def _note(run: Run, images: Images, model: nn.Module) -> dict[str, object]:
    return {
        "network": describe(run.widths, run.blocks),
        "data": images.name,
        "batch": run.batch,
        "input_noise": run.input_noise,
        "seed": run.seed,
        "scale_invariant_layers": scale_invariant_layers(model),
    }
