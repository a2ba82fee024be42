"""A rotational variant in a small ResNet lacks three things of AdamW: its transient, a head's own norm, rows' means.

Claim (Kosson et al. 2024, sections 5 and 6, rotational variants): a variant trains on par with its optimizer. In
`experiments.retuned` it does not, not even at its best learning rate. Here is why.

Three things of AdamW are given back to its variant, without a look at any run of AdamW:

- its course: every layer turns by AdamW's predicted angle, step by step (`rotsim.predict`, with the schedule, from the
  initial norm). It is larger than in equilibrium while norms are short. At the end it falls with lr, not with √lr;
- its head: AdamW itself trains the last layer, whose norm matters, since no normalisation follows it;
- its mean: rows keep the mean of their weights. The variant removes it by default.

The network, its data, schedule and decay are those of `experiments.retuned`, at two of its learning rates. At 0.016 a
run has 0.48 relaxations. 0.256 is the best of five rates for both optimizers. At each rate there are five questions:

1. the variant's loss is above AdamW's;
2. with all three it is AdamW's;
3. to 5. what is left when one of them is taken away again, over all three. At 0.016 course and head are to matter,
   the mean is not. At 0.256 head and mean are to matter, the course is not.

What matters is a ratio of 5 %. A pilot on other seeds led to these statements. They were set before the seeds that are
judged were trained. What would refute them: another verdict on any. The second question is the one that counts: were
the loss with all three not AdamW's, something else would be missing.

With all three the loss is AdamW's, at both rates. What tuning leaves of the gap is the mean's: without the mean the
loss is larger by nearly as much as the variant's. One reason may be that a filter of mean zero does not see the level
that its inputs share. Whether the mean would do without the other two was not asked.

In a run too short for norms to settle, the course and the head matter most. The mean matters at both rates, which the
pilot had not shown. At the larger rate the head does not, as long as the other two are there.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import rotsim
from experiments.harness.answers import Question, ratio
from experiments.harness.claim import main
from experiments.training.arms import BETA2, Plain, Turned
from experiments.training.blocks import Trial
from experiments.training.contest import UNSEEN, Contest, of_contests
from experiments.training.loop import rise_and_fall
from experiments.training.problems import ImageProblem
from rotsim.measure import Rotated, RotationalAdamW

WEIGHT_DECAY = 0.05
MARGIN = 0.05
NORM = 3**-0.5  # of a row at first, in RMS: PyTorch draws weights evenly from ±1/√fan-in
COURSE, HEAD, MEAN = THINGS = ("course", "head", "mean")
ADAMW, VARIANT, ALL = "AdamW", "variant", "all three"


@dataclass(frozen=True)
class Restored(Plain):
    """The rotational variant of AdamW with some of `THINGS` given back, in a run of `steps`, of which `warmup` rise."""

    things: tuple[str, ...] = THINGS
    steps: int = 300
    warmup: int = 30

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        """A group for every matrix, since each has an angle of its own."""
        named = list(model.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p], "rotational": not (HEAD in self.things and name.startswith("head"))}
            for name, p in named
            if p.ndim >= 2
        ]
        groups.append({"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0})
        options: dict[str, Any] = {"lr": self.lr, "betas": (0.9, BETA2), "weight_decay": self.weight_decay}
        inner = torch.optim.AdamW(groups, fused=copies > 1, **options)

        def angle(group: dict[str, Any]) -> float:
            if COURSE not in self.things:
                return RotationalAdamW.rotation(group)
            [parameter] = group["params"]
            taken = int(inner.state[parameter]["step"])  # this step included
            course = predicted(self.lr, self.weight_decay, parameter[0].numel(), self.steps, self.warmup)
            return float(course[taken - 1])

        return Rotated(inner, angle, zero_mean=MEAN not in self.things)


@cache
def predicted(lr: float, weight_decay: float, dim: int, steps: int, warmup: int) -> np.ndarray:
    """AdamW's rotation (steps,) of a row of `dim`, radians per step."""
    course = rotsim.predict(
        rotsim.AdamW(lr, weight_decay, (0.9, BETA2)), dim=dim, steps=steps, initial_norm=NORM,
        lr_schedule=rise_and_fall(steps, warmup), record_every=1,
    )  # fmt: skip
    return course["rotation"].to_numpy()[0]


def contest(problem: ImageProblem, lr: float, needless: str, steps: int, most: int, pilot: int) -> Contest:
    """All arms at one learning rate, at which one of the `THINGS` is said to be `needless`."""
    warmup = steps // 10

    def trial(arm: Plain) -> list[Trial]:
        return [Trial(problem, arm, steps, warmup)]

    def restored(*things: str) -> list[Trial]:
        return trial(Restored("adamw", lr, WEIGHT_DECAY, things, steps, warmup))

    setting = ("adamw", lr, WEIGHT_DECAY)
    arms = {ADAMW: trial(Plain(*setting)), VARIANT: trial(Turned(*setting)), ALL: restored(*THINGS)}
    arms.update({f"without {one}": restored(*(x for x in THINGS if x != one)) for one in THINGS})
    name = f"ResNet, lr {lr:g}"
    questions = [
        Question(f"{name}: {VARIANT} over {ADAMW}", (VARIANT, ADAMW), ratio(VARIANT, ADAMW), MARGIN, "more"),
        Question(f"{name}: with {ALL} over {ADAMW}", (ALL, ADAMW), ratio(ALL, ADAMW), MARGIN, "equal"),
    ]
    for one in THINGS:
        pair = (f"without {one}", ALL)
        claimed: Literal["more", "equal"] = "equal" if one == needless else "more"
        questions.append(Question(f"{name}: {pair[0]} over {ALL}", pair, ratio(*pair), MARGIN, claimed))
    return Contest(name, arms, questions, most, pilot, UNSEEN)


_RESNET = ImageProblem(network="resnet", shape=(8, 2, 1), noise=0.5)
CONTESTS = [contest(_RESNET, 0.016, MEAN, 300, 64, 8), contest(_RESNET, 0.256, COURSE, 300, 184, 8)]
QUICK = [contest(ImageProblem(shape=(32, 32), noise=0.5), 0.016, MEAN, 40, 8, 4)]
MESSAGE = "What a rotational variant lacks of AdamW in a small ResNet\n(loss ratios; grey: what does not matter)"
examine = of_contests(CONTESTS, QUICK, MESSAGE, processes=1)


if __name__ == "__main__":
    main("restored", __doc__, examine)
