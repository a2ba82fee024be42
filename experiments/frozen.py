"""Rotational variants keep a norm that is too small, where nothing else sets the scale: then they fall behind.

Claim (Kosson et al. 2024, section 5, on rotational variants, and where they fail): a rotational variant freezes every
norm at its initial value. Behind a normalisation, or with gains, that costs nothing (`experiments.warmup`). In a GPT
with neither, its weights cannot grow as training wants, and it is not on par.

A plain GPT (bytes of source text) begins with GPT-2's initial deviation of 0.02, or with four times those norms. AdamW
and its variant train it with warm-up, each at the learning rate that a pilot finds best. What matters is a loss 2 %
above AdamW's from the initial norms, and 2 % either way from four times the norm.

What would refute it:

- a variant whose loss, from the initial norms, is not above AdamW's;
- a variant that from four times the norm is not on par with AdamW from there: the norm would not be the only cause.

Training of this length is needed: after 300 steps of warm-up and cosine the two are even, since AdamW's norms grow only
with time.
"""

from dataclasses import dataclass

import torch
from torch import nn

from experiments.harness.answers import Question, ratio
from experiments.harness.claim import main
from experiments.networks.gpt import GPTSize
from experiments.training.arms import Plain, Turned
from experiments.training.blocks import Trial
from experiments.training.contest import Contest, of_contests
from experiments.training.problems import TextProblem

WEIGHT_DECAY = 0.5
NORM_FACTOR = 4.0  # times the initial norm
MARGIN = 0.02


def _grow(model: nn.Module, times: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(times)


@dataclass(frozen=True)
class Grown(Plain):
    """AdamW from `times` the initial norm of every matrix."""

    times: float = 1.0

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        _grow(model, self.times)
        return super().build(model, copies)


@dataclass(frozen=True)
class GrownTurned(Grown, Turned):
    """Its rotational variant, which keeps the norm from which it starts."""


def contest(problem: TextProblem, rates: tuple[float, ...], steps: int, most: int, pilot: int) -> Contest:
    """Both optimizers from both norms, each at every learning rate."""
    grown = f", {NORM_FACTOR:g} × norm"
    arms: dict[str, list[Trial]] = {
        f"{name}{suffix}": [
            Trial(problem, make("adamw", lr, WEIGHT_DECAY, times=times), steps, steps // 10) for lr in rates
        ]
        for suffix, times in (("", 1.0), (grown, NORM_FACTOR))
        for name, make in (("AdamW", Grown), ("rotational", GrownTurned))
    }
    name = f"plain GPT {problem.size.layers}x{problem.size.width}"
    small, large = ("rotational", "AdamW"), (f"rotational{grown}", f"AdamW{grown}")
    questions = [
        Question(f"{name}: rotational over AdamW, initial norm", small, ratio(*small), MARGIN, "more"),
        Question(f"{name}: rotational over AdamW{grown}", large, ratio(*large), MARGIN, "equal"),
    ]
    return Contest(name, arms, questions, most, pilot)


CONTESTS = [contest(TextProblem(batch_size=16, normalised=False), (0.004, 0.016), 800, 32, 4)]
QUICK = [contest(TextProblem(GPTSize(1, 16, 2, 16), normalised=False), (0.016,), 30, 8, 4)]
MESSAGE = "A rotational variant frozen at too small a norm falls behind; at a larger one it does not"
examine = of_contests(CONTESTS, QUICK, MESSAGE, columns=1)


if __name__ == "__main__":
    main("frozen", __doc__, examine)
