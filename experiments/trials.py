"""Many short training runs, compared pairwise: a task, an arm (optimizer), a warm-up and a seed.

A seed sets the initial weights and the batches in every arm alike. A result depends on the `Trial` alone.
"""

from __future__ import annotations

import inspect
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from math import cos, isfinite, log, pi
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

import rotsim
from experiments import ledger, networks
from experiments.networks.corpus import Text, load_corpus
from experiments.networks.data import Images, load_images
from experiments.networks.gpt import GPT, GPTSize
from experiments.networks.train import make_optimizer
from experiments.networks.variants import ResNet, normalised_mlp
from rotsim import measure
from rotsim.balance import balance
from rotsim.errors import InvalidInput
from rotsim.measure import Recorder, RotationalAdamW, RotationalLion, RotationalSGDM
from rotsim.optimizers.base import Optimizer

BETA2 = 0.95  # of both Adams: the runs are shorter than the memory of 0.999
INTERVAL = 5  # of the recorder

_ROTATIONAL = {"adamw": RotationalAdamW, "sgdm": RotationalSGDM, "lion": RotationalLion}


class Task(Protocol):
    """A network with its data. `chance` is the loss of guessing."""

    chance: float

    def model(self) -> nn.Module: ...
    def loss(self, model: nn.Module, draw: torch.Generator, device: torch.device) -> torch.Tensor: ...
    def evaluate(self, model: nn.Module, device: torch.device) -> tuple[float, float]: ...


@dataclass(frozen=True)
class ImageTask:
    """Classify images under fresh Gaussian noise of standard deviation `noise` on every standardised pixel.

    ``network`` is "resnet" or the normalisation of a `normalised_mlp` ("bn", "ln", "ws+ln"), ``shape`` the
    (width, stages, blocks) of the ResNet or the hidden widths. Tests see noise too, the same in every trial.
    """

    images: str = "digits"
    network: str = "bn"
    shape: tuple[int, ...] = (64, 64, 64)
    batch: int = 64
    noise: float = 1.0
    chance: float = log(10)

    def model(self) -> nn.Module:
        pixels = _images(self.images, "cpu").train_x.shape[1]
        if self.network == "resnet":
            return ResNet(round(pixels**0.5), *self.shape)
        return normalised_mlp((pixels, *self.shape, 10), self.network)

    def loss(self, model: nn.Module, draw: torch.Generator, device: torch.device) -> torch.Tensor:
        images = _images(self.images, str(device))
        chosen = torch.randint(len(images.train_x), (self.batch,), generator=draw).to(device)
        return F.cross_entropy(model(self._noisy(images.train_x[chosen], draw)), images.train_y[chosen])

    def evaluate(self, model: nn.Module, device: torch.device) -> tuple[float, float]:
        images, draw = _images(self.images, str(device)), torch.Generator().manual_seed(0)
        copies = -(-3000 // len(images.test_x))
        logits = torch.cat([model(self._noisy(images.test_x, draw)) for _ in range(copies)])
        labels = images.test_y.repeat(copies)
        return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item()

    def _noisy(self, x: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        return x + self.noise * torch.randn(x.shape, generator=draw).to(x.device)


@dataclass(frozen=True)
class TextTask:
    """Predict the next byte with a `GPT`, weight-normalised or plain; every test is on the same 40 batches."""

    size: GPTSize = field(default_factory=lambda: GPTSize(context=32))
    normalised: bool = True
    batch: int = 8
    chance: float = log(128)

    def model(self) -> nn.Module:
        return GPT(self.size, self.normalised)

    def loss(self, model: nn.Module, draw: torch.Generator, device: torch.device) -> torch.Tensor:
        return self._loss(model, _text(str(device)).train, self.batch, draw)[0]

    def evaluate(self, model: nn.Module, device: torch.device) -> tuple[float, float]:
        draw, text = torch.Generator().manual_seed(0), _text(str(device)).validation
        found = torch.tensor([[x.item() for x in self._loss(model, text, 32, draw)] for _ in range(40)])
        return tuple(found.double().mean(0).tolist())  # type: ignore[return-value]

    def _loss(
        self, model: nn.Module, text: torch.Tensor, batch: int, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy, and the share of bytes guessed right."""
        start = torch.randint(len(text) - self.size.context - 1, (batch, 1), generator=draw)
        tokens = text[(start + torch.arange(self.size.context + 1)).to(text.device)]
        logits, labels = model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).double().mean()


class Arm(Protocol):
    """An optimizer with its hyperparameters; `spec` is what a recorder notes for it."""

    @property
    def spec(self) -> Optimizer: ...
    def build(self, model: nn.Module) -> torch.optim.Optimizer: ...


@dataclass(frozen=True)
class Plain:
    """adamw, adam_l2, sgdm or lion; matrices are decayed, vectors are not."""

    optimizer: str
    lr: float
    weight_decay: float

    @property
    def spec(self) -> Optimizer:
        betas = {"betas": (0.9, BETA2)} if self.optimizer.startswith("adam") else {}
        return rotsim.OPTIMIZERS[self.optimizer](lr=self.lr, weight_decay=self.weight_decay, **betas)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        return make_optimizer(self, model, BETA2)


@dataclass(frozen=True)
class Turned(Plain):
    """The rotational variant of adamw, sgdm or lion, with `options` that differ from its defaults."""

    options: tuple[tuple[str, Any], ...] = ()

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in super().build(model).param_groups
        ]
        betas = {"betas": (0.9, BETA2)} if self.optimizer == "adamw" else {}
        return _ROTATIONAL[self.optimizer](groups, lr=self.lr, **betas, **dict(self.options))


@dataclass(frozen=True)
class Trial:
    """Everything that determines a run: lr warms up linearly over `warmup` steps, then follows a cosine to 0.

    ``constant`` keeps lr at its peak instead. ``record`` measures over the last half how evenly the network turns,
    which slows the run.
    """

    task: Task
    arm: Arm
    steps: int
    seed: int
    warmup: int = 0
    constant: bool = False
    record: bool = False


@dataclass(frozen=True)
class Outcome:
    """Test loss and accuracy; a loss worse than guessing, or none, counts as guessing.

    ``rotation`` (by layer, radians per step), ``across_layers`` and ``within_layers`` are those of
    `rotsim.balance`, if recorded; so is ``undecayed_step``, the RMS step of one coordinate of gains and biases.
    """

    loss: float
    accuracy: float
    rotation: dict[str, float] = field(default_factory=dict)
    across_layers: float = float("nan")
    within_layers: float = float("nan")
    undecayed_step: float = float("nan")


def run_trial(trial: Trial, device: str = "cpu") -> Outcome:
    """Train and test once, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums split over threads round differently: one thread repeats everywhere
    try:
        return _run(trial, torch.device(device))
    finally:
        torch.set_num_threads(threads)


def run_trials(trials: Sequence[Trial], processes: int = 2, device: str = "cpu") -> list[Outcome]:
    """Outcomes in the order of `trials`; their order and `processes` change nothing else.

    Trials that `experiments.ledger` has from a run that was cut off are taken from there; the others are added to it.
    """
    book = ledger.current()
    keys = [key(trial, device) for trial in trials]
    found = {k: Outcome(**kept) for k in keys if (kept := book.find(k)) is not None}
    todo = {k: trial for k, trial in zip(keys, trials, strict=True) if k not in found}
    if found:
        print(
            f"took up {len(found)} trials ({book.reused_seconds:.0f} CPU s) of a run that was cut off, "
            f"from {book.path}; delete it to run them again"
        )
    for k, (outcome, seconds) in zip(todo, _outcomes(list(todo.values()), processes, device), strict=True):
        book.add(k, asdict(outcome), seconds)
        found[k] = outcome
    return [found[k] for k in keys]


def _outcomes(trials: list[Trial], processes: int, device: str) -> Iterator[tuple[Outcome, float]]:
    """Outcomes and CPU seconds, each as soon as it and those before it are there."""
    if processes == 1 or not trials:
        yield from (_timed(trial, device) for trial in trials)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_ignore_interrupts)
    try:
        yield from pool.map(_timed, trials, [device] * len(trials))
    finally:  # on Ctrl-C too: what has begun is finished, what has not is not begun
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to every process of a terminal; the one that started the others answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _timed(trial: Trial, device: str) -> tuple[Outcome, float]:
    started = time.process_time()
    return run_trial(trial, device), time.process_time() - started


def key(trial: Trial, device: str) -> str:
    """A digest of all that decides the outcome of `trial`: itself, the device, PyTorch, the code it runs through."""
    text = f"{trial!r} {device} {torch.__version__} {_code(type(trial.arm))}"
    return sha256(text.encode()).hexdigest()


@cache
def _code(arm: type) -> str:
    """Digest of this file, the networks, the measuring optimizers, and the file that defines the arm."""
    folders = [Path(inspect.getfile(package)).parent for package in (networks, measure)]
    files = [Path(__file__), Path(inspect.getfile(arm)), *(path for f in folders for path in sorted(f.glob("*.py")))]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _run(trial: Trial, device: torch.device) -> Outcome:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        model = trial.task.model().to(device)
    draw = torch.Generator().manual_seed(trial.seed)
    optimizer = trial.arm.build(model)
    peaks = [group["lr"] for group in optimizer.param_groups]
    recorder = None
    if trial.record:
        window = INTERVAL * max(1, trial.steps // (20 * INTERVAL))
        recorder = Recorder(model, optimizer, INTERVAL, window, _is_recorded, spec=trial.arm.spec, lags=0).start()
    vectors = [p for p in model.parameters() if p.ndim < 2]
    squares = []
    for step in range(trial.steps):
        factor = 1.0 if trial.constant else lr_factor(step, trial.steps, trial.warmup)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        loss = trial.task.loss(model, draw, device)
        optimizer.zero_grad()
        loss.backward()
        sampled = trial.record and step >= trial.steps // 2 and step % INTERVAL == 0
        before = torch.cat([p.detach().flatten() for p in vectors]) if sampled else None
        optimizer.step()
        if before is not None:
            after = torch.cat([p.detach().flatten() for p in vectors])
            squares.append((after - before).square().mean().item())
    model.eval()
    with torch.no_grad():
        loss_value, accuracy = trial.task.evaluate(model, device)
    loss_value = min(loss_value, trial.task.chance) if isfinite(loss_value) else trial.task.chance
    if recorder is None:
        return Outcome(loss_value, accuracy)
    recorder.close()
    try:
        found = balance(recorder.dataset())
    except InvalidInput:  # diverged, or all neurons dead: there is no rotation to speak of
        return Outcome(loss_value, accuracy)
    step_size = (sum(squares) / len(squares)) ** 0.5
    return Outcome(loss_value, accuracy, found.rotation, found.across_layers, found.within_layers, step_size)


def _is_recorded(name: str, parameter: torch.Tensor) -> bool:
    """All matrices but an image network's head, whose rows no normalisation follows."""
    return parameter.ndim >= 2 and name not in ("head.weight",)


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine to zero: lr over its peak at `step`, counted from 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + cos(pi * (step - warmup) / (steps - warmup)))


@cache
def _images(name: str, device: str) -> Images:
    return load_images(name).to(torch.device(device))


@cache
def _text(device: str) -> Text:
    return load_corpus().to(torch.device(device))
