"""Networks under Muon and AdamW groups: every layer beside its prediction, and one group beside the other.

Inner matrices follow Muon, the first and last AdamW. Both groups once have the same product of learning rate and decay,
as is common. Then Muon has the decay at which `rotsim.convert` says that its matrices turn as AdamW's do. Muon's
prediction is for white noise, which gradients of networks are not: it is shown here, and not claimed. Queries and keys
are shorter than it says, and turn faster. `python -m experiments.networks tilt` measures a cause of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn
from torch.nn import functional as F

import rotsim
from experiments.harness import markdown
from experiments.networks.corpus import load_corpus, windows
from experiments.networks.data import load_images
from experiments.networks.gpt import GPT, GPTSize
from experiments.networks.models import bn_mlp
from experiments.training import loop
from experiments.training.optimizers import muon_and_adamw
from rotsim.dataset import layer_name
from rotsim.diagnosis import Diagnosis, diagnose
from rotsim.measure import Recorder

NOISE = 1.0  # on images, as in `experiments.networks.train.Run`
MUON = (2e-2, 5e-2)  # lr and weight decay, with the product of AdamW's
ADAMW = (2e-3, 0.5)
BETA2 = 0.99
PAIRINGS = ("same product", "same rotation")
Made = tuple[nn.Module, Callable[[], torch.Tensor]]


@dataclass(frozen=True)
class Network:
    """How it is made from a seed, how long it is trained, its most frequent Muon matrix, and what follows AdamW."""

    make: Callable[[int], Made]
    steps: int
    rows: int
    dim: int
    outer: tuple[str, ...]


def _images(name: str, widths: tuple[int, ...], batch: int) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        model = loop.seeded(lambda: bn_mlp(widths), seed, torch.device("cpu"))
        images, draw = load_images(name, None), torch.Generator().manual_seed(seed)

        def loss() -> torch.Tensor:
            x, y = images.batch(batch, NOISE, draw)
            return F.cross_entropy(model(x), y)

        return model, loss

    return make


def _gpt(seed: int) -> Made:
    size, text, draw = GPTSize(), load_corpus(), torch.Generator().manual_seed(seed)
    model = loop.seeded(lambda: GPT(size, True), seed, torch.device("cpu"))

    def loss() -> torch.Tensor:
        tokens, following = windows(text.train, 16, size.context, draw)
        return F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())

    return model, loss


NETWORKS = {
    "digits": Network(_images("digits", (64, 128, 128, 128, 10), 64), 4000, 128, 128, ("hidden0", "head")),
    "fashion": Network(_images("fashion", (784, 256, 256, 256, 10), 128), 3000, 256, 256, ("hidden0", "head")),
    "wngpt": Network(_gpt, 3000, 64, 64, ("token", "position", "head")),
}


@dataclass(frozen=True)
class Layer:
    """What a run shows of one layer; rotation in radians per step."""

    layer: str
    optimizer: str
    verdict: str
    rows: int
    dim: int
    predicted: float
    measured: float
    norm_ratio: float
    stable_rank: float
    white_rank: float


@dataclass(frozen=True)
class Grouped:
    """One run."""

    network: str
    pairing: str
    muon: str
    adamw: str
    layers: tuple[Layer, ...]

    def rotation(self, optimizer: str, what: str) -> float:
        """Median of what is "predicted" or "measured" over the layers of a group that are not scale-sensitive."""
        found = [layer for layer in self.layers if layer.optimizer == optimizer and layer.verdict != "scale-sensitive"]
        return median(getattr(layer, what) for layer in found) if found else float("nan")


def decay_of_muon(pairing: str, network: Network) -> float:
    """Muon's weight decay: that of the same product, or that at which its matrices turn as AdamW's."""
    lr, decay = MUON
    if pairing == "same product":
        return decay
    adamw = rotsim.AdamW(*ADAMW, betas=(0.9, BETA2))
    found = rotsim.convert(adamw, "muon", keep=["rotation"], lr=lr, dim=network.dim, rows=network.rows)
    return float(f"{found.target.weight_decay:.4g}")


def train(name: str, pairing: str, steps: int | None = None, seed: int = 0) -> Grouped:
    """Train one of `NETWORKS` in one of `PAIRINGS` at constant rates, by default for its own steps; read its report."""
    network = NETWORKS[name]
    steps = steps or network.steps
    with loop.one_thread():
        model, loss = network.make(seed)
        optimizer = muon_and_adamw(model, MUON[0], decay_of_muon(pairing, network), BETA2, ADAMW, network.outer)
        with Recorder(model, optimizer, 5, max(5, steps // 24 // 5 * 5)) as recorder:
            for _ in loop.train(optimizer, loss, steps):
                pass
    diagnosis = diagnose(recorder.dataset())
    specs = dict(zip((spec.name for spec in diagnosis.optimizers), diagnosis.optimizers, strict=True))
    return Grouped(name, pairing, specs["muon"].describe(), specs["adamw"].describe(), tuple(_layers(diagnosis, model)))


def _layers(diagnosis: Diagnosis, model: nn.Module) -> Iterator[Layer]:
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for layer, spec in zip(diagnosis.layers, diagnosis.optimizers, strict=True):
        yield Layer(
            layer_name(layer.layer), spec.name, layer.verdict, shapes[layer.layer][0], shapes[layer.layer][1],
            layer.predicted_rotation, layer.measured_rotation, layer.norm_ratio, layer.stable_rank, layer.white_rank,
        )  # fmt: skip


def table(found: list[Grouped], command: str) -> str:
    """Markdown: groups beside each other, then every layer."""
    groups = [
        [
            run.network, run.pairing,
            *(f"{run.rotation(one, what):.4g}" for one in ("muon", "adamw") for what in ("predicted", "measured")),
            *(f"{run.rotation('muon', what) / run.rotation('adamw', what):.3f}" for what in ("predicted", "measured")),
        ]
        for run in found
    ]  # fmt: skip
    layers = [
        [
            run.network, run.pairing, layer.layer, layer.optimizer, f"{layer.rows} x {layer.dim}", layer.verdict,
            f"{layer.predicted:.4g}", f"{layer.measured:.4g}", f"{layer.measured / layer.predicted:.3f}",
            f"{layer.norm_ratio:.3f}",
            f"{layer.stable_rank:.3g} of {layer.white_rank:.3g}" if layer.optimizer == "muon" else "-",
        ]
        for run in found
        for layer in run.layers
    ]  # fmt: skip
    of_groups = ("network", "pairing", "Muon, predicted", "measured", "AdamW, predicted", "measured ",
                 "Muon / AdamW, predicted", "measured  ")  # fmt: skip
    of_layers = ("network", "pairing", "layer", "optimizer", "shape", "verdict", "predicted", "measured",
                 "rotation ratio", "norm ratio", "stable rank")  # fmt: skip
    title, _, about = (__doc__ or "").strip().partition("\n\n")
    return "\n".join([
        f"# {title}\n\n{about}\n\nCommand: `{command}`. Rotation in radians per step: medians over neurons, RMS over "
        "the run, beside the course that the rates set. Of a group: medians over layers that are not scale-sensitive. "
        "Stable rank: of Muon's averages, beside that of white noise. One run each.\n",
        *dict.fromkeys(f"- {run.network}, {run.pairing}: {run.muon}; {run.adamw}" for run in found),
        "\n## Groups\n", markdown.table(of_groups, groups), "\n## Layers\n", markdown.table(of_layers, layers),
    ]) + "\n"  # fmt: skip
