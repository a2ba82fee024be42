"""Image classifiers trained with the recorder attached, reproducible from a seed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from experiments.networks.data import Images
from experiments.networks.models import describe, image_network, scale_invariant_layers
from experiments.training import loop
from experiments.training.loop import one_thread, seeded
from experiments.training.optimizers import make_optimizer
from rotsim.measure import Recorder


@dataclass(frozen=True)
class Run:
    """Everything that determines a run besides the images.

    ``optimizer`` is one of `experiments.training.optimizers.NAMES`. ``widths`` and ``blocks`` are those of
    `image_network`. ``input_noise`` is the standard deviation of fresh Gaussian noise on every standardised pixel of
    every batch. A network that memorises its images has gradients that vanish and burst; noise on the images keeps
    them stationary. ``beta2`` is the Adams'.
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


@dataclass(frozen=True)
class CosineRun(Run):
    """A run whose learning rate rises over the share `warmup` of its steps, and then falls to 0 as a cosine."""

    warmup: float = 0.1


def train(
    run: Run,
    images: Images,
    *,
    interval: int = 10,
    window: int = 100,
    device: str | torch.device = "cpu",
    on_step: Callable[[], object] = lambda: None,
) -> tuple[Recorder, dict[str, float]]:
    """Train at the run's learning rate, batches drawn with replacement, on one thread: a closed recorder, and results.

    `interval` and `window` are the recorder's. `on_step` is called after every step, for a progress bar. Results are
    ``train_loss``, a mean over the last 100 steps, and ``test_accuracy``.
    """
    device = torch.device(device)
    with one_thread():
        model = seeded(lambda: image_network(run.widths, run.blocks), run.seed, device)
        draw = torch.Generator().manual_seed(run.seed)
        images = images.to(device)
        optimizer = make_optimizer(run.optimizer, model, run.lr, run.weight_decay, run.beta2)

        def loss() -> torch.Tensor:
            x, y = images.batch(run.batch, run.input_noise, draw)
            return nn.functional.cross_entropy(model(x), y)

        factors = None
        if isinstance(run, CosineRun):
            factors = loop.rise_and_fall(run.steps, round(run.warmup * run.steps))
        recorder = Recorder(model, optimizer, interval, window, note=_note(run, images, model))
        with recorder:
            train_loss = mean_of_last(loop.train(optimizer, loss, run.steps, factors), on_step)
        model.eval()
        with torch.no_grad():
            right = [
                (model(x).argmax(1) == y).double()
                for x, y in zip(images.test_x.split(1000), images.test_y.split(1000), strict=True)
            ]
    return recorder, {"train_loss": train_loss, "test_accuracy": torch.cat(right).mean().item()}


def mean_of_last(losses: Iterable[torch.Tensor], on_step: Callable[[], object], last: int = 100) -> float:
    """Run through a training and return the mean of its last losses; `on_step` is called after every step."""
    kept: deque[torch.Tensor] = deque(maxlen=last)
    for value in losses:
        kept.append(value)
        on_step()
    return torch.stack(list(kept)).mean().item()


def _note(run: Run, images: Images, model: nn.Module) -> dict[str, object]:
    return {
        "network": describe(run.widths, run.blocks),
        "data": images.name,
        "batch": run.batch,
        "input_noise": run.input_noise,
        "seed": run.seed,
        "scale_invariant_layers": scale_invariant_layers(model),
    }
