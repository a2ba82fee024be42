"""One training run with the recorder attached, reproducible from its seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from experiments.networks.data import Images
from experiments.networks.models import bn_mlp, scale_invariant_layers
from rotsim.errors import InvalidInput
from rotsim.measure import Lion, Recorder


@dataclass(frozen=True)
class Run:
    """Everything that determines a run besides the images.

    ``optimizer`` is one of adamw, adam_l2, sgdm, lion; ``widths`` are those of `bn_mlp`; ``input_noise`` is
    the standard deviation of fresh Gaussian noise on every standardised pixel of every batch. A network that
    memorises its images has gradients that vanish and burst; noise on the images keeps them stationary.
    """

    widths: tuple[int, ...]
    batch: int
    steps: int
    optimizer: str
    lr: float
    weight_decay: float
    input_noise: float = 0.0
    seed: int = 0


class OptimizerChoice(Protocol):
    """What `make_optimizer` reads off a run."""

    @property
    def optimizer(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def make_optimizer(run: OptimizerChoice, model: nn.Module, beta2: float = 0.999) -> torch.optim.Optimizer:
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
    raise InvalidInput(f"optimizer {run.optimizer!r} is unknown; choose from adamw, adam_l2, sgdm, lion")


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums split over threads round differently: one thread repeats everywhere
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            model = bn_mlp(run.widths).to(device)
        draw = torch.Generator().manual_seed(run.seed)
        images = images.to(device)
        optimizer = make_optimizer(run, model)
        recorder = Recorder(model, optimizer, interval, window, note=_note(run, images, model))
        losses = []
        with recorder:
            for step in range(run.steps):
                chosen = torch.randint(len(images.train_x), (run.batch,), generator=draw).to(device)
                x = images.train_x[chosen]
                if run.input_noise:
                    x = x + run.input_noise * torch.randn(x.shape, generator=draw).to(device)
                loss = nn.functional.cross_entropy(model(x), images.train_y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if step >= run.steps - 100:
                    losses.append(loss.detach())
                on_step()
        model.eval()
        with torch.no_grad():
            accuracy = (model(images.test_x).argmax(1) == images.test_y).double().mean().item()
    finally:
        torch.set_num_threads(threads)
    return recorder, {"train_loss": torch.stack(losses).mean().item(), "test_accuracy": accuracy}


def _note(run: Run, images: Images, model: nn.Module) -> dict[str, object]:
    return {
        "network": f"BN-MLP {'-'.join(map(str, run.widths))}",
        "data": images.name,
        "batch": run.batch,
        "input_noise": run.input_noise,
        "seed": run.seed,
        "scale_invariant_layers": scale_invariant_layers(model),
    }
