"""Small networks under schedules: does every layer that the report claims follow its predicted course?

Four kinds of networks, four optimizers, five schedules. Each run is judged from its own trace. For two wrong courses,
with 1.5 times the learning rate or the decay that was in force, the report must fail. Where that moves no predicted
rotation by twice what is allowed, the rate is wrong by more. Adam+L2's rotation goes as the cube root of its decay, and
not before many relaxations.
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
from torch import nn
from torch.nn import functional as F

from experiments.harness import markdown
from experiments.networks.data import load_images
from experiments.networks.models import ResNet, bn_mlp
from experiments.networks.record import compressible, some_rows
from experiments.training import loop
from experiments.training.optimizers import make_optimizer
from rotsim.checks import Verdict
from rotsim.dataset import load, save
from rotsim.diagnosis import Diagnosis, diagnose
from rotsim.facts import INVARIANT
from rotsim.measure import Recorder
from rotsim.optimizers import AdamL2
from rotsim.schedules import Factors, constant, cosine, warmup, wsd

STEPS, BATCH, NOISE = 1600, 64, 1.0
RATES = {"adamw": (4e-3, 0.5), "adam_l2": (4e-3, 2e-3), "sgdm": (0.1, 4e-3), "lion": (4e-4, 5.0)}
WRONG = 1.5  # times what was in force, or a power of it
MOST_WRONG = WRONG**5
MOVED = 0.2  # of a layer's predicted rotation in a quarter, by which a wrong rate moves it: twice the error allowed


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
    wrong: tuple[tuple[Verdict, float], ...]


def runs(seeds: int, networks: tuple[str, ...] = tuple(NETWORKS), traces: Path | None = None) -> Iterator[Judged]:
    """Train and judge every combination; a trace that is in the folder `traces` is judged again, others go there."""
    for seed, network, optimizer, schedule in product(range(seeds), networks, RATES, SCHEDULES):
        path = traces and traces / f"{network}__{optimizer}__{schedule}__{seed}.nc".replace(" ", "_")
        trace = load(path) if path and path.exists() else record(network, optimizer, schedule, seed)
        if path and not path.exists():
            save(trace, path)
        diagnosis = diagnose(trace)
        invariant = frozenset(layer.layer for layer in diagnosis.layers if layer.cosine < INVARIANT)
        yield Judged(network, optimizer, schedule, seed, diagnosis, invariant, tuple(_wrong(trace, diagnosis)))


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


def _wrong(trace: xr.Dataset, diagnosis: Diagnosis) -> Iterator[tuple[Verdict, float]]:
    """What the report says where the rates in force were others than it is told, and by what factor."""
    for name in ("window_lr", "window_weight_decay") if diagnosis.claimed else ():
        names, factor = [str(key) for key in trace if str(key).startswith(name)], WRONG
        if name == "window_weight_decay" and isinstance(diagnosis.optimizer, AdamL2):
            names = [*names, "radial"]  # the decay in force is a part of it
        while True:
            found = diagnose(trace.assign({key: trace[key] * factor for key in names}))
            if _moved(diagnosis, found) >= MOVED or factor >= MOST_WRONG:
                break
            factor *= WRONG
        yield "FAIL" if found.refuted else "PASS" if found.passed else "UNRESOLVED", factor


def _moved(right: Diagnosis, wrong: Diagnosis) -> float:
    """By how much another prediction of a claimed layer's rotation differs, in the quarter where it does so most."""
    pairs = [pair for pair in zip(right.layers, wrong.layers, strict=True) if pair[0].applies]
    quarters = (quarter for one, other in pairs for quarter in zip(one.quarters, other.quarters, strict=True))
    return max(abs(other.predicted_rotation / one.predicted_rotation - 1) for one, other in quarters)


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
        verdicts = [verdict for run in some for verdict, _ in run.wrong]
        rows.append([
            network, optimizer, len(some), sum(len(run.diagnosis.layers) for run in some),
            f"{of_them} of {len(invariant)}", _without(some), len(claimed) - of_them,
            *(sum(layer.outcome == outcome for layer in claimed) for outcome in ("PASS", "UNRESOLVED", "FAIL")),
            *("-" if np.isnan(error) else f"{error:.0%}" for error in worst),
            f"{verdicts.count('FAIL')} of {len(verdicts)}", verdicts.count("PASS"),
            f"{max(factor for run in some for _, factor in run.wrong):.2g}" if verdicts else "-",
        ])  # fmt: skip
    head = ("network", "optimizer", "runs", "layers", "scale-invariant claimed", "without a claim", "others claimed",
            "agree", "unresolved", "fail", "rotation, worst quarter", "norm, worst quarter", "wrong rates noticed",
            "taken for right", "largest factor")  # fmt: skip
    claimed = [layer for run in found for layer in run.diagnosis.claimed]
    return (
        f"# Courses of small networks under schedules\n\n`{command}`: {len(found)} runs of {STEPS} steps on digits, "
        f"{len(SCHEDULES)} schedules ({'; '.join(SCHEDULES)}). {sum(y.agrees for y in claimed)} of {len(claimed)} "
        "claimed layers agree in every quarter, rotation within 10 % and norm within 15 %, and "
        f"{sum(y.outcome == 'FAIL' for y in claimed)} fail. The others are unresolved: noise may explain a miss, or "
        f"could hide one. Claimed are {sum(y.layer in run.invariant for run in found for y in run.diagnosis.claimed)} "
        f"of {sum(len(run.invariant) for run in found)} scale-invariant layers; the others are {_without(found)}. "
        f"Wrong rates: {WRONG:g} times the learning rate, or the decay, that was in force. Where that moves no "
        f"predicted rotation by {MOVED:.0%}, a power of it; the largest factor is in the last column. Taken for right: "
        "runs in which a claim agrees and none fails. The rest are unresolved.\n\n" + markdown.table(head, rows) + "\n"
    )
