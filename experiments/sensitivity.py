"""The rotational variants' own hyperparameters matter little, but for turning whole tensors under SGDM.

Claim (Kosson et al. 2024, appendix on the variants' hyperparameters): the variants add three choices, and none of them
decides how well a network trains. The first is the decay of the running update norm, 0.9 by default. The second is
whether the mean of each row is kept, which it is by default. The third is whether neurons, the default, or whole
tensors are rotated.

The variants of AdamW, SGDM and Lion on a BN-MLP, digits under noise. One choice is changed at a time; each setting is
judged at the learning rate that a pilot finds best.

What matters is a test loss 5 % above or below the default's: that would refute the claim. The margin was set before the
seeds that are judged were trained.
"""

from typing import Any

import rotsim
from experiments.harness.answers import Question, ratio
from experiments.harness.claim import main
from experiments.training.arms import Turned
from experiments.training.blocks import Trial
from experiments.training.contest import Contest, of_contests
from experiments.training.problems import ImageProblem

MARGIN = 0.05
DEFAULT = "default"
#: options that differ from the defaults
VARIATIONS: dict[str, tuple[tuple[str, Any], ...]] = {
    DEFAULT: (),
    "update-norm decay 0": (("update_norm_decay", 0.0),),
    "update-norm decay 0.5": (("update_norm_decay", 0.5),),
    "update-norm decay 0.99": (("update_norm_decay", 0.99),),
    "means free": (("zero_mean", False),),
    "per tensor": (("per_neuron", False),),
}
#: weight decay, and learning rates
GRIDS: dict[str, tuple[float, tuple[float, ...]]] = {
    "adamw": (0.05, (0.016, 0.064, 0.256)),
    "sgdm": (1e-3, (0.1, 0.4, 1.6)),
    "lion": (0.5, (0.004, 0.016, 0.064)),
}


def contest(optimizer: str, problem: ImageProblem, steps: int, most: int, pilot: int = 16) -> Contest:
    """The default and every variation, each at every learning rate."""
    decay, rates = GRIDS[optimizer]
    arms = {
        name: [Trial(problem, Turned(optimizer, lr, decay, options), steps) for lr in rates]
        for name, options in VARIATIONS.items()
    }
    label = f"Rotational {rotsim.OPTIMIZERS[optimizer].label}"
    questions = [
        Question(f"{label}: {name}, loss over default", (name, DEFAULT), ratio(name, DEFAULT), MARGIN, "equal")
        for name in VARIATIONS
        if name != DEFAULT
    ]
    return Contest(label, arms, questions, most, pilot)


CONTESTS = [contest(optimizer, ImageProblem(noise=0.5), 300, 512) for optimizer in GRIDS]
QUICK = [contest("sgdm", ImageProblem(shape=(32, 32), noise=0.5), 40, 8, 4)]
MESSAGE = "One choice of the rotational variants changed\n(intervals after all looks; grey: what does not matter)"
examine = of_contests(CONTESTS, QUICK, MESSAGE)


if __name__ == "__main__":
    main("sensitivity", __doc__, examine)
