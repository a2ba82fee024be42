"""One language-model run with the recorder attached, reproducible from its seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from experiments.networks.corpus import Text
from experiments.networks.gpt import GPT, GPTSize
from experiments.networks.train import make_optimizer
from rotsim.measure import Recorder


@dataclass(frozen=True)
class TextRun:
    """Everything that determines a run besides the text.

    ``optimizer`` is one of adamw, adam_l2, sgdm, lion; ``normalised`` chooses the weight-normalised GPT.
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


def train_text(
    run: TextRun,
    text: Text,
    *,
    interval: int = 10,
    window: int = 100,
    device: str | torch.device = "cpu",
    on_step: Callable[[], object] = lambda: None,
) -> tuple[Recorder, dict[str, float]]:
    """Train at constant learning rate on windows drawn with replacement, on one thread.

    Parameters
    ----------
    run : TextRun
    text : Text
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
        ``train_loss`` (mean over the last 100 steps) and ``validation_loss``, nats per byte.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums split over threads round differently: one thread repeats everywhere
    try:
        return _train_text(run, text, interval, window, torch.device(device), on_step)
    finally:
        torch.set_num_threads(threads)


def _train_text(
    run: TextRun, text: Text, interval: int, window: int, device: torch.device, on_step: Callable[[], object]
) -> tuple[Recorder, dict[str, float]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        model = GPT(run.size, run.normalised).to(device)
    draw = torch.Generator().manual_seed(run.seed)
    text = text.to(device)
    optimizer = make_optimizer(run, model, run.beta2)
    matrices = [name for name, p in model.named_parameters() if p.ndim >= 2]
    kind = "WN-GPT" if run.normalised else "GPT"
    note = {
        "network": f"{kind} {run.size.layers}x{run.size.width}",
        "data": text.name,
        "batch": run.batch,
        "context": run.size.context,
        "seed": run.seed,
        "scale_invariant_layers": matrices if run.normalised else [],
    }
    offsets = torch.arange(run.size.context + 1, device=device)

    def loss(source: torch.Tensor) -> torch.Tensor:
        start = torch.randint(len(source) - run.size.context - 1, (run.batch, 1), generator=draw).to(device)
        tokens = source[start + offsets]
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    losses = []
    with Recorder(model, optimizer, interval, window, note=note) as recorder:
        for step in range(run.steps):
            value = loss(text.train)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if step >= run.steps - 100:
                losses.append(value.detach())
            on_step()
    with torch.no_grad():
        validation = torch.stack([loss(text.validation) for _ in range(50)]).mean().item()
    return recorder, {"train_loss": torch.stack(losses).mean().item(), "validation_loss": validation}
