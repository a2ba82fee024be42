"""Rotational variants train on par with their optimizers and have less use for warm-up.

Claim (Kosson et al. 2024, sections 5 and 6, on rotational variants and on the need for learning rate warm-up): fixing
the angle per step at its equilibrium value trains as well as weight decay does. Since the excess rotation of the
first steps is gone, warm-up gains less.

Three statements for each of AdamW, SGDM and Lion on a BN-MLP, digits under noise:

1. at its best setting the rotational variant's test loss is that of its optimizer, within 5 %;
2. so it is without any warm-up, against its optimizer with warm-up;
3. warm-up over 10 % of the steps gains more for the optimizer than for the variant: the ratio of losses without and
   with it is larger. What matters is 2 %.

Each arm is judged at the learning rate, and where it may choose at the warm-up, that a pilot finds best. The bounds
were set before the seeds that are judged were trained. What would refute the claim: a loss that differs by more, in
either direction, or a warm-up that gains the variant no less. Larger networks: `experiments.warmup_large`. Where the
weights have neither gains nor a good initial norm the first statement fails: `experiments.frozen`.
"""

import numpy as np

import rotsim
from experiments.harness.answers import Outcomes, Question, ratio
from experiments.harness.claim import main
from experiments.training.arms import Plain, Turned
from experiments.training.blocks import Trial
from experiments.training.contest import UNSEEN, Contest, of_contests
from experiments.training.problems import ImageProblem, Problem

ON_PAR, GAIN = 0.05, 0.02
PLAIN, TURNED, WITHOUT, WITH = "plain", "rotational", "without warm-up", "with warm-up"


def gain(found: Outcomes, arm: str) -> np.ndarray:
    """Logarithm of an arm's loss without warm-up over that with it."""
    return ratio(f"{arm} {WITHOUT}", f"{arm} {WITH}")(found)


def contest(
    name: str, problem: Problem, optimizer: str, weight_decay: float, rates: tuple[float, ...], steps: int, most: int,
    pilot: int = 16, device: str = "cpu",
) -> Contest:  # fmt: skip
    """An optimizer and its variant, without and with warm-up, each at every learning rate."""
    arms = {
        f"{arm} {when}": [
            Trial(problem, make(optimizer, lr, weight_decay), steps, warmup, device=device) for lr in rates
        ]
        for arm, make in ((PLAIN, Plain), (TURNED, Turned))
        for when, warmup in ((WITHOUT, 0), (WITH, steps // 10))
    }
    apart = tuple(arms)
    arms |= {arm: [*arms[f"{arm} {WITHOUT}"], *arms[f"{arm} {WITH}"]] for arm in (PLAIN, TURNED)}
    without, label = (f"{TURNED} {WITHOUT}", f"{PLAIN} {WITH}"), f"{rotsim.OPTIMIZERS[optimizer].label}, {name}"
    questions = [
        Question(f"{label}: rotational over plain", (TURNED, PLAIN), ratio(TURNED, PLAIN), ON_PAR, "equal"),
        Question(f"{label}: rotational without warm-up over plain with", without, ratio(*without), ON_PAR, "equal"),
        Question(
            f"{label}: warm-up's gain, plain over rotational", apart, lambda x: gain(x, PLAIN) - gain(x, TURNED), GAIN,
            "more",
        ),
    ]  # fmt: skip
    return Contest(label, arms, questions, most, pilot, UNSEEN)


_MLP = "BN-MLP, digits", ImageProblem(noise=0.5)
ADAMW, SGDM = (0.004, 0.016, 0.064, 0.256), (0.1, 0.4, 1.6, 6.4)
CONTESTS = [
    contest(*_MLP, "adamw", 0.05, ADAMW, 300, 512),
    contest(*_MLP, "sgdm", 1e-3, SGDM, 300, 512),
    contest(*_MLP, "lion", 0.5, (0.001, 0.004, 0.016, 0.064), 300, 512),
]
_FAST = ImageProblem(shape=(32, 32), noise=0.5)
QUICK = [contest("MLP, digits", _FAST, "adamw", 0.05, (0.016, 0.256), 40, 8, 4)]
MESSAGE = (
    "Optimizers and their rotational variants, and what warm-up gains them\n"
    "(each at its best; intervals after all looks; grey: what does not matter)"
)
examine = of_contests(CONTESTS, QUICK, MESSAGE)


if __name__ == "__main__":
    main("warmup", __doc__, examine)
