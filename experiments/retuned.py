"""In a small ResNet a rotational variant needs a learning rate of its own where a run is short in relaxations.

Claim (Kosson et al. 2024, sections 5 and 6, zero-shot and few-shot use of rotational variants): a variant trains on par
with its optimizer at the same hyperparameters, or after the learning rate is tuned anew.

AdamW and its variant train a small ResNet on digits under noise. AdamW's own weights turn faster than in equilibrium
as long as they are shorter than there. A variant never does. So at one learning rate it learns less in a run that ends
before norms have settled. The number of relaxation times 1/(2 · lr · weight_decay) in a run says how far that goes.
`experiments.restored` takes what differs apart: that is one thing of three.
Both are compared at five learning rates, at one of them in a run four times as long, and each at its best rate. What
matters is a loss that differs by 5 %.

What would refute it:

- at the learning rate of AdamW, and in a run of several relaxations, a variant whose loss differs by more;
- the same where each has the learning rate that a pilot finds best.

A run of less than a relaxation in which they are on par would refute our reason for what differs.
"""

from experiments.harness.answers import Question, ratio
from experiments.harness.claim import main
from experiments.training.arms import Plain, Turned
from experiments.training.blocks import Trial
from experiments.training.contest import Contest, of_contests
from experiments.training.problems import ImageProblem

WEIGHT_DECAY = 0.05
MARGIN = 0.05
LONGER = 4  # times the steps


def contest(problem: ImageProblem, rates: tuple[float, ...], steps: int, most: int, pilot: int) -> Contest:
    """Both at every learning rate, at the second of them in a longer run, and each at its best."""
    arms: dict[str, list[Trial]] = {}
    questions: list[Question] = []

    def compare(label: str, *trials: list[Trial]) -> None:
        """The variant over AdamW, each at the best of its settings."""
        turned, plain = (f"{name}, {label}" for name in ("rotational", "AdamW"))
        arms.update({turned: trials[0], plain: trials[1]})
        statement = f"ResNet: rotational over AdamW, {label}"
        questions.append(Question(statement, (turned, plain), ratio(turned, plain), MARGIN, "equal"))

    def trials(lr: float, length: int) -> list[list[Trial]]:
        return [[Trial(problem, make("adamw", lr, WEIGHT_DECAY), length, length // 10)] for make in (Turned, Plain)]

    for lr, length in [
        (rates[0], steps),
        (rates[1], steps),
        (rates[1], LONGER * steps),
        *((r, steps) for r in rates[2:]),
    ]:
        compare(f"lr {lr:g}, {length} steps: {2 * lr * WEIGHT_DECAY * length:.2g} relaxations", *trials(lr, length))
    all_rates = [trials(lr, steps) for lr in rates]
    compare(
        f"each at its best lr, {steps} steps", *([one[0] for one in of_arm] for of_arm in zip(*all_rates, strict=True))
    )
    return Contest("ResNet, digits", arms, questions, most, pilot)


CONTESTS = [
    contest(ImageProblem(network="resnet", shape=(8, 2, 1), noise=0.5), (0.004, 0.016, 0.064, 0.256, 1.024), 300, 64, 8)
]
QUICK = [contest(ImageProblem(shape=(32, 32), noise=0.5), (0.016, 0.256), 40, 8, 4)]
MESSAGE = "At AdamW's learning rate its rotational variant loses\nas far as the run is short in relaxations"
examine = of_contests(CONTESTS, QUICK, MESSAGE, columns=1)


if __name__ == "__main__":
    main("retuned", __doc__, examine)
