"""Small networks under schedules: does every layer that the report claims follow its predicted course?

Four kinds of networks, four optimizers, five schedules. Each run is judged from its own trace. For two wrong courses,
with a multiple of the learning rate or of the decay that was in force, the report must fail. The multiple is the
smallest power of 1.5 that it notices. Adam+L2's rotation goes as the cube root of its decay, and not before many
relaxations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.stats import norm
from torch import nn
from torch.nn import functional as F

from experiments.harness import markdown
from experiments.networks.data import load_images
from experiments.networks.models import ResNet, bn_mlp
from experiments.networks.record import compressible, some_rows
from experiments.training import loop
from experiments.training.optimizers import make_optimizer
from rotsim.dataset import load, save
from rotsim.diagnosis import TOLERANCE, Diagnosis, LayerDiagnosis, diagnose
from rotsim.facts import INVARIANT
from rotsim.measure import Recorder
from rotsim.optimizers import AdamL2
from rotsim.schedules import Factors, constant, cosine, warmup, wsd

STEPS, BATCH, NOISE = 1600, 64, 1.0
RATES = {"adamw": (4e-3, 0.5), "adam_l2": (4e-3, 2e-3), "sgdm": (0.1, 4e-3), "lion": (4e-4, 5.0)}
WRONG = 1.5  # times what was in force, or a power of it
MOST_POWER = 5


class NormalisedRows(nn.Linear):
    """A linear layer whose rows have unit length, times a gain."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(torch.full((outputs,), 2**0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, F.normalize(self.weight, dim=1) * self.gain[:, None], self.bias)


def _stack(linear: type[nn.Linear]) -> nn.Sequential:
    return nn.Sequential(linear(64, 64), nn.ReLU(), linear(64, 64), nn.ReLU(), linear(64, 10))


NETWORKS = {
    "batch normalisation": lambda: bn_mlp((64, 64, 64, 10)),
    "convolutions, batch normalisation": lambda: ResNet((1, 8, 16, 10), 1),
    "normalised rows": lambda: _stack(NormalisedRows),
    "plain": lambda: _stack(nn.Linear),
}
SCHEDULES: dict[str, Factors] = {
    "constant": constant(),
    "warm-up, cosine": warmup(160, cosine(STEPS - 160)),
    "warm-up, stable, decay": wsd(STEPS, 160, 480),
    "steps": lambda step: np.where(step <= STEPS // 2, 1.0, np.where(step <= 3 * STEPS // 4, 0.3, 0.1)),
    "restarts": lambda step: 0.525 + 0.475 * np.cos(np.pi * (step % 400) / 400),
}


@dataclass(frozen=True)
class Judged:
    """One run and its report, and what the report makes of wrong courses."""

    network: str
    optimizer: str
    schedule: str
    seed: int
    diagnosis: Diagnosis
    invariant: frozenset[str]
    noticed: tuple[float, ...]


def runs(seeds: int, networks: tuple[str, ...] = tuple(NETWORKS), traces: Path | None = None) -> Iterator[Judged]:
    """Train and judge every combination; a trace that is in the folder `traces` is judged again, others go there."""
    for seed, network, optimizer, schedule in product(range(seeds), networks, RATES, SCHEDULES):
        path = traces and traces / f"{network}__{optimizer}__{schedule}__{seed}.nc".replace(" ", "_")
        trace = load(path) if path and path.exists() else record(network, optimizer, schedule, seed)
        if path and not path.exists():
            save(trace, path)
        diagnosis = diagnose(trace)
        invariant = frozenset(layer.layer for layer in diagnosis.layers if layer.cosine < INVARIANT)
        yield Judged(network, optimizer, schedule, seed, diagnosis, invariant, tuple(_noticed(trace, diagnosis)))


def record(network: str, optimizer: str, schedule: str, seed: int) -> xr.Dataset:
    """The trace of one run."""
    with loop.one_thread():
        model = loop.seeded(NETWORKS[network], seed, torch.device("cpu"))
        images, draw = load_images("digits", None), torch.Generator().manual_seed(seed)
        chosen = make_optimizer(optimizer, model, *RATES[optimizer], 0.99)

        def loss() -> torch.Tensor:
            x, y = images.batch(BATCH, NOISE, draw)
            return F.cross_entropy(model(x), y)

        factors = SCHEDULES[schedule](np.arange(1, STEPS + 1))
        with Recorder(model, chosen, interval=1, window=40, lags=64) as recorder:
            for _ in loop.train(chosen, loss, STEPS, factors):
                pass
    return recorder.dataset()


def example(folder: Path, command: str) -> Path:
    """Write the trace of one run under warm-up and cosine, of some neurons, which docs/measure.md reports."""
    trace = record("batch normalisation", "adamw", "warm-up, cosine", 0)
    trace.attrs["provenance"] = json.dumps({**json.loads(trace.attrs["provenance"]), "command": command})
    return save(compressible(some_rows(trace, 16)), folder / "cosine_adamw.nc")


def _noticed(trace: xr.Dataset, diagnosis: Diagnosis) -> Iterator[float]:
    """For each rate the smallest power of `WRONG` that the report notices if the rate was wrong by it, or infinity."""
    for name in ("window_lr", "window_weight_decay") if diagnosis.claimed else ():
        names = [str(key) for key in trace if str(key).startswith(name)]
        if name == "window_weight_decay" and isinstance(diagnosis.optimizer, AdamL2):
            names = [*names, "radial"]  # the decay in force is a part of it
        factors = (WRONG**power for power in range(1, MOST_POWER + 1))
        yield next(
            (x for x in factors if diagnose(trace.assign({key: trace[key] * x for key in names})).refuted), np.inf
        )


def _quarters(claimed: list[LayerDiagnosis], quantity: str) -> tuple[int, int, float]:
    """Quarters of claims, those within what is allowed, and how many more noise alone would put beyond it."""
    misses = [
        (each.error(quantity), each.noise(quantity)) for y in claimed if quantity in y.claims for each in y.quarters
    ]
    error, noise = np.abs(np.array(misses).reshape(-1, 2).T)
    return (
        len(misses),
        int(np.sum(error <= TOLERANCE[quantity])),
        float(np.sum(2 * norm.sf(TOLERANCE[quantity] / noise))),
    )


def _without(found: list[Judged]) -> str:
    """Why other scale-invariant layers have no claim."""
    verdicts = Counter(y.verdict for run in found for y in run.diagnosis.layers if y.layer in run.invariant)
    del verdicts["applies"]
    return ", ".join(f"{verdict} ({count})" for verdict, count in verdicts.most_common()) or "-"


def table(found: list[Judged], command: str) -> str:
    """Markdown: claims and agreement by optimizer and kind of network."""
    rows: list[list[object]] = []
    for network, optimizer in product(dict.fromkeys(run.network for run in found), RATES):
        some = [run for run in found if (run.network, run.optimizer) == (network, optimizer)]
        claimed = [layer for run in some for layer in run.diagnosis.claimed]
        invariant = [name for run in some for name in run.invariant]
        of_them = sum(layer.layer in run.invariant for run in some for layer in run.diagnosis.claimed)
        worst = [max((abs(y.error(q)) for y in claimed if q in y.claims), default=np.nan) for q in ("rotation", "norm")]
        factors = np.array([factor for run in some for factor in run.noticed])
        noticed = factors[np.isfinite(factors)]
        rows.append([
            network, optimizer, len(some), sum(len(run.diagnosis.layers) for run in some),
            f"{of_them} of {len(invariant)}", _without(some), len(claimed) - of_them,
            *(sum(layer.outcome == outcome for layer in claimed) for outcome in ("PASS", "UNRESOLVED", "FAIL")),
            *("-" if np.isnan(error) else f"{error:.0%}" for error in worst),
            f"{len(noticed)} of {len(factors)}", f"{np.sum(noticed == WRONG)} of {len(factors)}",
            f"{max(noticed):.2g}" if len(noticed) else "-",
        ])  # fmt: skip
    head = ("network", "optimizer", "runs", "layers", "scale-invariant claimed", "without a claim", "others claimed",
            "agree", "unresolved", "fail", "rotation, worst quarter", "norm, worst quarter", "wrong rates noticed",
            f"at {WRONG:g} times", "largest factor")  # fmt: skip
    claimed = [layer for run in found for layer in run.diagnosis.claimed]
    within = "; ".join(
        f"{part} of {of} within {TOLERANCE[quantity]:.0%} in {quantity}, where noise alone puts {by_chance:.1f} beyond"
        for quantity in TOLERANCE
        for of, part, by_chance in [_quarters(claimed, quantity)]
    )
    return (
        f"# Courses of small networks under schedules\n\n`{command}`: {len(found)} runs of {STEPS} steps on digits, "
        f"{len(SCHEDULES)} schedules ({'; '.join(SCHEDULES)}). {sum(y.agrees for y in claimed)} of {len(claimed)} "
        "claimed layers agree in every quarter, rotation within 10 % and norm within 15 %, and "
        f"{sum(y.outcome == 'FAIL' for y in claimed)} fail. The others are unresolved: noise may explain a miss, or "
        f"could hide one. Claimed are {sum(y.layer in run.invariant for run in found for y in run.diagnosis.claimed)} "
        f"of {sum(len(run.invariant) for run in found)} scale-invariant layers; the others are {_without(found)}. "
        f"Their quarters one by one: {within}. Wrong rates: the learning rate or the decay that was in force times the "
        f"smallest power of {WRONG:g} that the report notices, at most the {MOST_POWER}th.\n\n"
        + markdown.table(head, rows)
        + "\n"
    )
