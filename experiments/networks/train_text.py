"""One language-model run with the recorder attached, reproducible from its seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from experiments.networks.corpus import Text, windows
from experiments.networks.gpt import GPT, GPTSize
from experiments.networks.train import mean_of_last
from experiments.training import loop
from experiments.training.loop import one_thread, seeded
from experiments.training.optimizers import make_optimizer
from rotsim.measure import Recorder
from rotsim.theory.schedules import cosine, warmup


@dataclass(frozen=True)
class TextRun:
    """Everything that determines a run besides the text.

    ``optimizer`` is one of `experiments.training.optimizers.NAMES`. ``normalised`` chooses the weight-normalised
    GPT. ``warmup`` None keeps the learning rate constant. A share of the steps warms it up over these, and then
    lets it fall to 0 as a cosine.
    """

    optimizer: str
    lr: float
    weight_decay: float
    steps: int
    normalised: bool = True
    size: GPTSize = field(default_factory=GPTSize)
    batch: int = 16
    beta2: float = 0.95
    seed: int = 0
    warmup: float | None = None


def train_text(
    run: TextRun,
    text: Text,
    *,
    interval: int = 10,
    window: int = 100,
    device: str | torch.device = "cpu",
    on_step: Callable[[], object] = lambda: None,
) -> tuple[Recorder, dict[str, float]]:
    """Train on windows drawn with replacement, on one thread; arguments as those of `experiments.networks.train.train`.

    The results are ``train_loss``, a mean over the last 100 steps, and ``validation_loss``, in nats per byte.
    """
    device = torch.device(device)
    with one_thread():
        model = seeded(lambda: GPT(run.size, run.normalised), run.seed, device)
        draw = torch.Generator().manual_seed(run.seed)
        text = text.to(device)
        optimizer = make_optimizer(run.optimizer, model, run.lr, run.weight_decay, run.beta2)

        def loss(source: torch.Tensor) -> torch.Tensor:
            tokens, following = windows(source, run.batch, run.size.context, draw)
            return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

        recorder = Recorder(model, optimizer, interval, window, note=_note(run, text, model))
        factors = None if run.warmup is None else _factors(run.steps, round(run.warmup * run.steps))
        with recorder:
            train_loss = mean_of_last(loop.train(optimizer, lambda: loss(text.train), run.steps, factors), on_step)
        with torch.no_grad():
            validation = torch.stack([loss(text.validation) for _ in range(50)]).mean().item()
    return recorder, {"train_loss": train_loss, "validation_loss": validation}


def _factors(steps: int, rise: int) -> np.ndarray:
    """Linear to the peak over `rise` steps, which one more step keeps, then a cosine to zero."""
    fall = cosine(steps - rise)
    return warmup(rise, lambda step: fall(step - 1))(np.arange(1, steps + 1))


def _note(run: TextRun, text: Text, model: torch.nn.Module) -> dict[str, object]:
    matrices = [name for name, p in model.named_parameters() if p.ndim >= 2]
    return {
        "network": f"{'WN-GPT' if run.normalised else 'GPT'} {run.size.layers}x{run.size.width}",
        "data": text.name,
        "batch": run.batch,
        "context": run.size.context,
        "seed": run.seed,
        "scale_invariant_layers": matrices if run.normalised else [],
    }
