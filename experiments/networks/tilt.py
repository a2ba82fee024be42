"""Matrices of a small GPT under Muon: their norms, and what Muon makes of gradients along the weights.

Every row of the GPT is normalised, so that gradients are orthogonal to it. Muon's update need not be: it lifts small
singular values. The pull P is the part along the weights of what Muon makes of a new gradient. That is added to
averages of 60 steps before, which know nothing of it. It acts as weight decay λ + P. Under white noise there is none.
Queries and keys have a pull inwards, and the other matrices little or none. It accounts for half or more of what their
norms are too short by. The rest is not explained here: P is measured in one run, where it changes with time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
import torch

import rotsim
from experiments.harness import markdown
from experiments.networks.groups import ADAMW, BETA2, MUON, NETWORKS
from experiments.training import loop
from experiments.training.optimizers import muon_and_adamw
from rotsim.dataset import layer_name

LAG = 60  # steps after which an average of momentum 0.95 has forgotten a gradient
EVERY = 4  # steps between two looks
_BLOCKS = 20  # of looks, between which the error of a mean is seen
_NUDGE = 1e-4  # of a singular value, for a slope


@dataclass
class Probe:
    """Looks at one matrix after each step of `torch.optim.Muon`.

    Parameters
    ----------
    spec : Muon
        With the rates that it has, constant.
    matrix : Parameter
    lag, every : int
        As `LAG` and `EVERY`.
    """

    spec: rotsim.Muon
    matrix: torch.nn.Parameter
    lag: int = LAG
    every: int = EVERY
    pulls: list[float] = field(init=False, default_factory=list)
    squares: list[float] = field(init=False, default_factory=list)
    _directions: deque[torch.Tensor] = field(init=False)
    _before: torch.Tensor = field(init=False)
    _steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._directions = deque(maxlen=self.lag)
        self._before = self.matrix.detach().clone()

    def look(self, average: torch.Tensor) -> None:
        """After a step, which left this average of gradients. A look adds P/λ to `pulls`, and ‖w‖² to `squares`."""
        o, before = self.spec, self._before.double()
        assert self.matrix.grad is not None
        self._before, gradient = self.matrix.detach().clone(), self.matrix.grad.double()
        self._steps += 1
        if self._steps % self.every == 0 and len(self._directions) == self.lag:
            made = o.update_factor(*before.shape) * derivative(self._directions[0].double(), gradient, o)
            self.squares.append(float(before.square().sum()))
            self.pulls.append(float((before * made).sum() / before.square().sum()) / o.weight_decay)
        mixed = o.momentum if o.nesterov else 1.0
        self._directions.append((mixed * average.double() + (1 - mixed) * gradient).float())

    def pull(self) -> tuple[float, float]:
        """P/λ and its standard error; NaN before the first look."""
        if not self.pulls:
            return float("nan"), float("nan")
        blocks = [part.mean() for part in np.array_split(np.array(self.pulls), min(_BLOCKS, len(self.pulls)))]
        return float(np.mean(self.pulls)), float(np.std(blocks) / sqrt(len(blocks)))


def derivative(at: torch.Tensor, along: torch.Tensor, spec: rotsim.Muon) -> torch.Tensor:
    """How Muon's update changes with the matrix that it shapes, in one direction; its length stays as it is.

    Singular values s become φ(s). A change with the parts X between singular vectors is multiplied by divided
    differences: (φ_i - φ_j)/(s_i - s_j) where it is symmetric, (φ_i + φ_j)/(s_i + s_j) where it is not, φ/s elsewhere.
    """
    length = torch.linalg.norm(at)
    left, s, right = torch.linalg.svd(at / length, full_matrices=False)
    shaped = shape(s, spec)
    apart = s[:, None] - s
    equal = apart.abs() < 1e-9
    even = torch.where(equal, 0.0, (shaped[:, None] - shaped) / torch.where(equal, 1.0, apart))
    even += torch.diag((shape(s + _NUDGE, spec) - shape(s - _NUDGE, spec)) / (2 * _NUDGE))
    odd = (shaped[:, None] + shaped) / (s[:, None] + s)
    along = along / length
    inside = left.T @ along @ right.T
    changed = even * (inside + inside.T) / 2 + odd * (inside - inside.T) / 2
    beside, ratio = along - left @ inside @ right, shaped / s
    return left @ changed @ right + left @ (ratio[:, None] * (left.T @ beside)) + (beside @ right.T * ratio) @ right


def shape(s: torch.Tensor, spec: rotsim.Muon) -> torch.Tensor:
    """Singular values after the spec's polynomials."""
    for a, b, c in spec.polynomials:
        square = s**2
        s = s * (a + square * (b + square * c))
    return s


@dataclass(frozen=True)
class Tilt:
    """What a run shows of one matrix in its last two thirds: RMS norms are over that of the course of white noise.

    ``norm`` is measured, ``pulled_norm`` is that of the course with λ + P.
    """

    layer: str
    rows: int
    dim: int
    pull: float
    pull_error: float
    norm: float
    pulled_norm: float


def train(steps: int | None = None, seed: int = 0) -> list[Tilt]:
    """Train the normalised GPT at the same product of rates in both groups, and read every matrix under Muon."""
    network = NETWORKS["wngpt"]
    steps, spec = steps or network.steps, rotsim.Muon(*MUON)
    with loop.one_thread():
        model, loss = network.make(seed)
        optimizer = muon_and_adamw(model, *MUON, BETA2, ADAMW, network.outer)
        names = {p: name for name, p in model.named_parameters()}
        matrices = optimizer.param_groups[0]["params"]
        starts = {names[p]: float(p.detach().norm(dim=1).square().mean().sqrt()) for p in matrices}
        probes: list[Probe] = []
        for step, _ in enumerate(loop.train(optimizer, loss, steps)):
            for probe in probes:
                probe.look(optimizer.state[probe.matrix]["momentum_buffer"])
            if step == steps // 3:
                probes = [Probe(spec, p) for p in matrices]
    return [_of(probe, name, starts[name], steps) for probe in probes for name in [names[probe.matrix]]]


def _of(probe: Probe, name: str, start: float, steps: int) -> Tilt:
    (rows, dim), (pull, error), o = probe.matrix.shape, probe.pull(), probe.spec

    def square(decay: float) -> float:
        """Mean E‖w‖² of a row in the steps of all looks."""
        spec, every = o.with_rates(o.lr, decay), probe.every
        found = rotsim.predict(spec, dim, steps=steps, initial_norm=start, rows=rows, record_every=every)["norm"]
        return float((found.values[0, -len(probe.squares) :] ** 2).mean())

    white, pulled = square(o.weight_decay), square(o.weight_decay * max(0.0, 1 + pull))
    measured = float(np.mean(probe.squares)) / rows
    return Tilt(layer_name(name), rows, dim, pull, error, sqrt(measured / white), sqrt(pulled / white))


def table(found: list[Tilt], command: str) -> str:
    """Markdown: a row for each matrix."""
    rows = [
        [
            one.layer, f"{one.rows} x {one.dim}", f"{one.pull:.2f} ± {one.pull_error:.2f}", f"{one.norm:.3f}",
            f"{one.pulled_norm:.3f}",
        ]
        for one in found
    ]  # fmt: skip
    heads = ("layer", "shape", "P/λ", "norm, measured", "with λ + P")
    title, _, about = (__doc__ or "").strip().partition("\n\n")
    return (
        f"# {title}\n\n{about}\n\nCommand: `{command}`. All is of the last two thirds of the run. Norms are over those "
        f"of the course of white noise.\n\n{markdown.table(heads, rows)}\n"
    )
