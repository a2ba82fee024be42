"""Adam+L2's directions with AdamW's rotation train like AdamW: what Adam+L2 lacks is balance.

Claim (Kosson et al. 2024, section 6, the special wrapper): AdamW does better than Adam+L2 because its rotation is
balanced between layers and neurons. Taking every direction from Adam+L2 but turning each neuron by AdamW's
equilibrium angle closes the gap in the result.

A BN-MLP, digits under noise. AdamW and Adam+L2 each over a grid of learning rate and decay; the
rotated arm takes AdamW's grid, with L2 decay 1e-3 in its directions. Each arm is judged at the setting that a pilot
finds best.

Four statements, with what matters, set before the seeds that are judged were trained:

1. layers turn further apart under Adam+L2 than under AdamW, by a half: the fastest over the slowest;
2. so do the neurons of a layer: standard deviation over mean;
3. the test loss under Adam+L2 is above AdamW's, by 2 %: else there is no gap to close;
4. the rotated arm's is AdamW's, within 2 %.

What would refute the claim: the other verdict on any of them.
"""

from dataclasses import dataclass

import torch
from torch import nn

from experiments.harness.answers import Question, ratio
from experiments.harness.claim import main
from experiments.training.arms import Plain
from experiments.training.blocks import Trial
from experiments.training.contest import Contest, of_contests
from experiments.training.problems import ImageProblem, Problem
from rotsim.measure import Rotated, RotationalAdamW

Setting = tuple[float, float]
L2 = 1e-3  # of the rotated arm's directions
ADAMW, ADAM_L2, ROTATED = "AdamW", "Adam+L2", "turned as AdamW"


@dataclass(frozen=True)
class AdamL2Turned(Plain):
    """Adam+L2 with decay `l2` for the directions; the angle is AdamW's at (lr, weight_decay)."""

    l2: float = 0.0

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        inner = Plain("adam_l2", self.lr, self.l2).build(model, copies)
        return Rotated(inner, lambda group: RotationalAdamW.rotation({**group, "weight_decay": self.weight_decay}))


def contest(
    name: str, problem: Problem, adamw: tuple[Setting, ...], adam_l2: tuple[Setting, ...], steps: int, most: int,
    pilot: int = 16,
) -> Contest:  # fmt: skip
    """The three arms, each at all its settings (learning rate, weight decay)."""
    arms: dict[str, list[Plain]] = {
        ADAMW: [Plain("adamw", *setting) for setting in adamw],
        ADAM_L2: [Plain("adam_l2", *setting) for setting in adam_l2],
        ROTATED: [AdamL2Turned("adamw", *setting, L2) for setting in adamw],
    }
    pair = (ADAM_L2, ADAMW)
    questions = [
        Question(f"{name}: layers apart, {ADAM_L2} over {ADAMW}", pair, ratio(*pair, "across_layers"), 0.5, "more"),
        Question(f"{name}: neurons apart, {ADAM_L2} over {ADAMW}", pair, ratio(*pair, "within_layers"), 0.5, "more"),
        Question(f"{name}: test loss, {ADAM_L2} over {ADAMW}", pair, ratio(*pair), 0.02, "more"),
        Question(f"{name}: test loss, {ROTATED} over {ADAMW}", (ROTATED, ADAMW), ratio(ROTATED, ADAMW), 0.02, "equal"),
    ]
    trials = {arm: [Trial(problem, setting, steps, record=True) for setting in own] for arm, own in arms.items()}
    return Contest(name, trials, questions, most, pilot)


def _grid(rates: tuple[float, ...], decays: tuple[float, ...]) -> tuple[Setting, ...]:
    return tuple((lr, decay) for lr in rates for decay in decays)


_W, _L2 = _grid((0.004, 0.016, 0.064), (0.05, 0.5)), _grid((0.004, 0.016, 0.064), (1e-4, 1e-3, 1e-2))
CONTESTS = [
    contest("BN-MLP, digits", ImageProblem(noise=0.5), _W, _L2, 400, 1024),
]
QUICK = [contest("BN-MLP, digits", ImageProblem(shape=(32, 32)), ((0.03, 0.5),), ((0.03, 1e-3),), 40, 8, 4)]
MESSAGE = (
    "Adam+L2's directions, turned by AdamW's angle: balance, and what it does to the loss\n"
    "(each at its best; intervals after all looks; grey: what does not matter)"
)
examine = of_contests(CONTESTS, QUICK, MESSAGE, columns=1)


if __name__ == "__main__":
    main("special", __doc__, examine)
