"""Imbalanced rotation hurts in proportion to the variance of log rotation over neurons: half of them more than a tenth.

Claim (Kosson et al. 2024, section 6 and the appendix on imbalanced rotation): balance between neurons is what
makes AdamW train well. If a tenth of the neurons turns ten times faster than the others, the result is worse,
whatever the overall speed.

The network is a BN-MLP, digits under noise. Every neuron inside turns by a set angle per step along AdamW's direction.
The fast ones turn f times as far as the slow ones, with the mean over neurons held. The mean is swept by weight decay
alone, and each arm is judged at the mean that a pilot finds best. So neither a wrong learning rate nor the step of
gains and biases is taken for imbalance.

Of two networks of equal mean rotation the one that is more uneven should be worse. How uneven is measured by the
variance of log rotation over neurons. The last question is the slope of log loss on it, over all arms, seed by seed.

What matters is a test loss 2 % above that of balanced rotation; less is called equivalent. This was set before the
seeds that are judged were trained. What would refute the claim: an arm that is equivalent, or better. The paper's
networks are larger. In one with 64 neurons a layer, more than digits need, nine tenths of them can do the work.
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from experiments.harness.answers import Answer, Outcomes, Question, ratio
from experiments.harness.claim import Finding, main
from experiments.harness.forest import answered, forest
from experiments.harness.panels import finish, plain_ticks
from experiments.training.arms import Plain
from experiments.training.blocks import Trial
from experiments.training.contest import Contest
from experiments.training.problems import ImageProblem, Problem
from rotsim.measure import Rotated, RotationalAdamW
from rotsim.show.plotting import style
from rotsim.tasks import Ledger

LR = 0.016  # of the gains and biases, the same for all
MARGIN = 0.02
SLOPE_MARGIN = 0.01  # of the loss, for a variance of log rotation of 1
BALANCED = "balanced"
#: fraction of fast neurons, and how many times faster
DOSES = ((0.1, 3.0), (0.1, 10.0), (0.1, 30.0), (0.5, 3.0), (0.5, 10.0), (0.5, 30.0))


@dataclass(frozen=True)
class Imbalanced(Plain):
    """AdamW's directions; a `fraction` of each inner layer's rows turns `times` as far as the rest."""

    fraction: float = 0.0
    times: float = 1.0

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        inner = [p for name, p in model.named_parameters() if p.ndim >= 2 and name.startswith(("hidden", "blocks"))]
        factors: dict[torch.Tensor, torch.Tensor] = {
            p: row_factors(len(p) // copies, self.fraction, self.times).repeat(copies) for p in inner
        }
        return Rotated(super().build(model, copies), RotationalAdamW.rotation, factors=factors)


def row_factors(rows: int, fraction: float, times: float) -> torch.Tensor:
    """Factors (rows,) with mean 1: the first rows `times` those of the others (neurons are exchangeable)."""
    factors = torch.ones(rows)
    factors[: round(fraction * rows)] = times
    return factors / factors.mean()


def contest(
    name: str, problem: Problem, rotations: tuple[float, ...], steps: int, most: int, pilot: int = 16
) -> Contest:
    """Balanced rotation and every dose, each at every mean rotation."""
    arms = {
        label(*dose): [Trial(problem, Imbalanced("adamw", LR, _weight_decay(x), *dose), steps) for x in rotations]
        for dose in ((0.0, 1.0), *DOSES)
    }
    questions = [
        Question(f"{name}: {arm}, loss over balanced", (arm, BALANCED), ratio(arm, BALANCED), MARGIN, "more")
        for arm in arms
        if arm != BALANCED
    ]
    words = f"{name}: loss for a variance of log rotation of 1, over all arms"
    questions.append(Question(words, tuple(arms), _slope, SLOPE_MARGIN, "more"))
    return Contest(name, arms, questions, most, pilot)


def unevenness(fraction: float, times: float) -> float:
    """Variance over neurons of log rotation."""
    return fraction * (1 - fraction) * float(np.log(times)) ** 2


def _slope(found: Outcomes) -> np.ndarray:
    """Of log loss over that of balanced rotation on `unevenness`, by least squares through the origin; (seeds,)."""
    x = np.array([unevenness(*dose) for dose in DOSES])
    y = np.array([ratio(label(*dose), BALANCED)(found) for dose in DOSES])
    slope: np.ndarray = x @ y / (x @ x)
    return slope


def label(fraction: float, times: float) -> str:
    """An arm in words."""
    return f"{fraction:.0%} of neurons {times:g} times faster" if fraction else BALANCED


def _weight_decay(rotation: float) -> float:
    """The decay that gives AdamW this leading-order rotation at `LR`."""
    at_one = RotationalAdamW.rotation({"lr": LR, "weight_decay": 1.0, "betas": (0.9, 0.999)})
    return (rotation / at_one) ** 2


CONTESTS = [
    contest("BN-MLP, digits", ImageProblem(noise=0.5), (0.01, 0.02, 0.04, 0.08, 0.16), 400, 1024),
]
QUICK = [contest("BN-MLP, digits", ImageProblem(shape=(32, 32), noise=0.5), (0.04, 0.08), 60, 8, 4)]


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Answer for every network."""
    contests = QUICK if quick else CONTESTS
    found = {contest.name: contest.settle(1 if quick else 2, store) for contest in contests}
    return answered(found, figure(contests, {name: answers for name, (answers, _) in found.items()}))


def figure(contests: list[Contest], found: dict[str, list[Answer]]) -> Figure:
    """Loss against the dose, and every answer with its interval."""
    with style():
        drawn, axes = plt.subplots(
            len(contests), 3, figsize=(18, 4.6 * len(contests) + 0.6), squeeze=False, layout="constrained"
        )
        for (dose, response, rows), contest in zip(axes, contests, strict=True):
            *answers, slope = found[contest.name]
            _draw_slope(response, answers, slope)
            for index, fraction in enumerate(sorted({fraction for fraction, _ in DOSES})):
                own = [(t, a) for (f, t), a in zip(DOSES, answers, strict=True) if f == fraction]
                x = np.array([1.0, *(times for times, _ in own)])
                y = 100 * np.array([0.0, *(a.effect for _, a in own)])
                off = 100 * np.array([[0, 0], *([a.effect - a.low, a.high - a.effect] for _, a in own)]).T
                look = {"color": f"C{index}", "marker": "os"[index], "capsize": 4}
                dose.errorbar(x, y, off, label=f"{fraction:.0%} of neurons faster", **look)
            dose.set_xscale("log")
            plain_ticks(dose.xaxis, [1, 3, 10, 30])
            dose.axhspan(-100 * MARGIN, 100 * MARGIN, color="0.9", zorder=0)
            dose.set(xlabel="how many times faster", ylabel="test loss above balanced, %", title=contest.name)
            dose.legend()
            forest(rows, [*answers, slope])
    message = (
        "A part of the neurons turns faster than the rest, at equal mean rotation\n"
        "(each at its best mean; bars: intervals after all looks; grey: what does not matter)"
    )
    return finish(drawn, message)


def _draw_slope(ax: Axes, answers: list[Answer], slope: Answer) -> None:
    """Every arm's loss against how uneven its rotation is, and the line through all."""
    spread = np.array([unevenness(*dose) for dose in DOSES])
    for index, fraction in enumerate(sorted({fraction for fraction, _ in DOSES})):
        own = [(x, a) for x, a, (f, _) in zip(spread, answers, DOSES, strict=True) if f == fraction]
        off = 100 * np.array([[a.effect - a.low, a.high - a.effect] for _, a in own]).T
        x, y = [x for x, _ in own], [100 * a.effect for _, a in own]
        ax.errorbar(x, y, off, color=f"C{index}", fmt="os"[index], capsize=4)
    grid = np.linspace(0, 1.05 * spread.max(), 50)
    line, low, high = (100 * np.expm1(grid * np.log1p(by)) for by in (slope.effect, slope.low, slope.high))
    ax.plot(grid, line, "k--", label=f"{slope.effect:+.1%} for 1")
    ax.fill_between(grid, low, high, color="C2", alpha=0.15, label="its interval")
    ax.set(xlabel="variance of log rotation over neurons", ylabel="test loss above balanced, %", title="All arms")
    ax.legend()


if __name__ == "__main__":
    main("imbalance", __doc__, examine)
