"""Layer normalisation balances layers, not neurons; Weight Standardization brings the balance of neurons back.

Claim (Kosson et al. 2024, section 6, on poor normalisation): batch normalisation makes every neuron scale-invariant,
so all rotate alike. Layer normalisation makes only the layer invariant: a neuron has a radial gradient, and
neurons of a layer settle at different rotations. Weight Standardization before layer normalisation makes every
neuron invariant again: rotation is balanced as with batch normalisation, and training is no worse.

AdamW and SGDM train MLPs with each normalisation on digits under noise. Each is judged at the learning rate that a
pilot finds best. Spread is the standard deviation over the mean of the neurons' rotation, averaged over hidden layers.

Three statements for each optimizer, with what matters, set before the seeds that are judged were trained:

1. the spread is larger under LN than under WS+LN, by a half;
2. under WS+LN it is that under BN, within a half;
3. the test loss is larger under LN than under WS+LN, by 2 %.

What would refute the claim: the other verdict on any of them.
"""

import rotsim
from experiments.harness.answers import Question, ratio
from experiments.harness.claim import main
from experiments.training.arms import Plain
from experiments.training.blocks import Trial
from experiments.training.contest import Contest, of_contests
from experiments.training.problems import ImageProblem

BN, LN, WS = "BN", "LN", "WS+LN"
SPREAD = "within_layers"
#: weight decay and learning rates; lr·wd relaxes the norm well within the run
GRIDS: dict[str, tuple[float, tuple[float, ...]]] = {
    "adamw": (0.5, (0.004, 0.016, 0.064)),
    "sgdm": (0.005, (0.1, 0.4, 1.6)),
}


def contest(optimizer: str, shape: tuple[int, ...], steps: int, most: int, pilot: int = 16) -> Contest:
    """Every normalisation at every learning rate."""
    decay, rates = GRIDS[optimizer]
    arms = {
        norm: [
            Trial(ImageProblem(network=norm.lower(), shape=shape), Plain(optimizer, lr, decay), steps, record=True)
            for lr in rates
        ]
        for norm in (BN, LN, WS)
    }
    label = rotsim.OPTIMIZERS[optimizer].label
    questions = [
        Question(f"{label}: spread of rotation, LN over WS+LN", (LN, WS), ratio(LN, WS, SPREAD), 0.5, "more"),
        Question(f"{label}: spread of rotation, WS+LN over BN", (WS, BN), ratio(WS, BN, SPREAD), 0.5, "equal"),
        Question(f"{label}: test loss, LN over WS+LN", (LN, WS), ratio(LN, WS), 0.02, "more"),
    ]
    return Contest(label, arms, questions, most, pilot)


CONTESTS = [contest(optimizer, (64, 64, 64), 800, 128) for optimizer in GRIDS]
QUICK = [contest("adamw", (32, 32), 60, 8, 4)]
MESSAGE = (
    "Layer normalisation lets a layer's neurons turn apart; Weight Standardization brings them together\n"
    "(each at its best; intervals after all looks; grey: what does not matter)"
)
examine = of_contests(CONTESTS, QUICK, MESSAGE)


if __name__ == "__main__":
    main("invariance", __doc__, examine)
