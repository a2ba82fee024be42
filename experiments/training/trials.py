"""Many short training runs, compared pairwise: a problem, an arm (optimizer), a warm-up and a seed.

A seed sets the initial weights and the batches in every arm alike. A result depends on the `Trial` alone.
"""

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from math import isfinite, log
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from experiments import networks, training
from experiments.networks.corpus import Text, load_corpus, windows
from experiments.networks.data import Images, load_images, noisy
from experiments.networks.gpt import GPT, GPTSize
from experiments.networks.variants import ResNet, normalised_mlp
from experiments.training.arms import Arm
from experiments.training.loop import one_thread, rise_and_fall, seeded, train
from rotsim import measure
from rotsim.balance import balance
from rotsim.errors import InvalidInput
from rotsim.measure import Recorder
from rotsim.tasks import Ledger, Task, collect, processes

INTERVAL = 5  # of the recorder


class Problem(Protocol):
    """A network with its data. `chance` is the loss of guessing."""

    @property
    def chance(self) -> float: ...
    def model(self) -> nn.Module: ...
    def loss(self, model: nn.Module, draw: torch.Generator, device: torch.device) -> torch.Tensor: ...
    def evaluate(self, model: nn.Module, device: torch.device) -> tuple[float, float]: ...


@dataclass(frozen=True)
class ImageProblem:
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
        x, y = _images(self.images, str(device)).batch(self.batch, self.noise, draw)
        return F.cross_entropy(model(x), y)

    def evaluate(self, model: nn.Module, device: torch.device) -> tuple[float, float]:
        images, draw = _images(self.images, str(device)), torch.Generator().manual_seed(0)
        copies = -(-3000 // len(images.test_x))
        logits = torch.cat([model(noisy(images.test_x, self.noise, draw)) for _ in range(copies)])
        labels = images.test_y.repeat(copies)
        return F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).double().mean().item()


@dataclass(frozen=True)
class TextProblem:
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
        return tuple(found.double().mean(0).tolist())

    def _loss(
        self, model: nn.Module, text: torch.Tensor, batch: int, draw: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy, and the share of bytes guessed right."""
        tokens, following = windows(text, batch, self.size.context, draw)
        logits, labels = model(tokens).flatten(0, 1), following.flatten()
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).double().mean()


@dataclass(frozen=True)
class Trial(Task):
    """Everything that determines a run: lr warms up linearly over `warmup` steps, then follows a cosine to 0.

    ``constant`` keeps lr at its peak instead. ``record`` measures over the last half how evenly the network turns,
    which slows the run.
    """

    problem: Problem
    arm: Arm
    steps: int
    seed: int
    warmup: int = 0
    constant: bool = False
    record: bool = False
    device: str = "cpu"

    def strong_id_value(self) -> Any:
        """Besides the fields: PyTorch and the code that a trial runs through."""
        return {**super().strong_id_value(), "torch": torch.__version__, "code": _code(type(self.arm))}

    def run(self) -> dict[str, Any]:
        """Train and test once, on one thread; the fields of an `Outcome`."""
        with one_thread():
            return asdict(_outcome(self, torch.device(self.device)))


@dataclass(frozen=True)
class Outcome:
    """Test loss and accuracy; a loss worse than guessing, or none, counts as guessing.

    ``rotation`` (by layer, radians per step), ``across_layers`` and ``within_layers`` are those of
    `rotsim.balance`, if recorded. So is ``undecayed_step``, the RMS step of one coordinate of gains and biases.
    """

    loss: float
    accuracy: float
    rotation: dict[str, float] = field(default_factory=dict)
    across_layers: float = float("nan")
    within_layers: float = float("nan")
    undecayed_step: float = float("nan")


def run_trials(trials: Sequence[Trial], count: int = 1, store: Ledger | None = None) -> list[Outcome]:
    """Outcomes in the order of `trials`, run in `count` processes; what `store` has is taken from there."""
    with processes(count) as spread:
        return [Outcome(**found) for found in collect(trials, map=spread, store=store)]


@cache
def _code(arm: type) -> str:
    """Digest of the training code, the networks, the measuring optimizers, and the file that defines the arm."""
    folders = [Path(inspect.getfile(package)).parent for package in (training, networks, measure)]
    files = [Path(inspect.getfile(arm)), *(path for f in folders for path in sorted(f.glob("*.py")))]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _outcome(trial: Trial, device: torch.device) -> Outcome:
    model = seeded(trial.problem.model, trial.seed, device)
    draw = torch.Generator().manual_seed(trial.seed)
    optimizer = trial.arm.build(model, 1)
    recorder = None
    if trial.record:
        window = INTERVAL * max(1, trial.steps // (20 * INTERVAL))
        recorder = Recorder(
            model,
            optimizer,
            INTERVAL,
            window,
            _is_recorded,
            spec=getattr(trial.arm, "spec"),  # noqa: B009
            lags=0,
        ).start()
    factors = None if trial.constant else rise_and_fall(trial.steps, trial.warmup)
    steps = train(optimizer, lambda: trial.problem.loss(model, draw, device), trial.steps, factors)
    vectors = [p for p in model.parameters() if p.ndim < 2]
    squares = []
    for step in range(trial.steps):
        sampled = trial.record and step >= trial.steps // 2 and step % INTERVAL == 0
        before = torch.cat([p.detach().flatten() for p in vectors]) if sampled else None
        next(steps)
        if before is not None:
            after = torch.cat([p.detach().flatten() for p in vectors])
            squares.append((after - before).square().mean().item())
    model.eval()
    with torch.no_grad():
        loss_value, accuracy = trial.problem.evaluate(model, device)
    loss_value = min(loss_value, trial.problem.chance) if isfinite(loss_value) else trial.problem.chance
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


@cache
def _images(name: str, device: str) -> Images:
    return load_images(name).to(torch.device(device))


@cache
def _text(device: str) -> Text:
    return load_corpus().to(torch.device(device))
