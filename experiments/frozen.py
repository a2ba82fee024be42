"""Rotational variants keep a norm that is too small, where nothing else sets the scale: then they fall behind.

Claim (Kosson et al. 2024, section 5, on rotational variants, and where they fail): a rotational variant freezes every
norm at its initial value. Behind a normalisation, or with gains, that costs nothing (`experiments.warmup`). In a GPT
with neither, its weights cannot grow as training wants, and it is not on par.

A plain GPT (bytes of source text) begins with GPT-2's initial deviation of 0.02, or with four times those norms. AdamW
and its variant train it with warm-up, each at its best learning rate chosen on the other seeds. Test losses are
compared by t-tests, paired over seeds, with Holm's correction.

What would refute it:

- a variant whose loss, from the initial norms, is not above AdamW's;
- a variant that from four times the norm is more than 5 % above AdamW from there: the norm would not be the cause.

A pilot on another seed had shown both before the bounds were set. It also showed that training of this length is
needed: after 300 steps of warm-up and cosine the two are even, since AdamW's norms grow only with time.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from experiments.harness.claim import Finding, main
from experiments.harness.paired import Comparison, checks, tuned
from experiments.harness.panels import finish, loss_axis, seed_curve, setting_axis
from experiments.networks.gpt import GPTSize
from experiments.training.arms import Plain, Turned
from experiments.training.trials import TextProblem, Trial, run_trials
from rotsim.checks import Check
from rotsim.show.plotting import style
from rotsim.tasks import Ledger

WEIGHT_DECAY = 0.5
NORM_FACTOR = 4.0  # times the initial norm
MARGIN = 0.05


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
class GrownTurned(Turned):
    """Its rotational variant, which keeps the norm from which it starts."""

    times: float = 1.0

    def build(self, model: nn.Module, copies: int) -> torch.optim.Optimizer:
        _grow(model, self.times)
        return super().build(model, copies)


ARMS = {
    "AdamW": (Grown, 1.0),
    "rotational": (GrownTurned, 1.0),
    f"AdamW, {NORM_FACTOR:g} × norm": (Grown, NORM_FACTOR),
    f"rotational, {NORM_FACTOR:g} × norm": (GrownTurned, NORM_FACTOR),
}


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Train every arm at every learning rate."""
    task = TextProblem(GPTSize(1, 16, 2, 16), normalised=False) if quick else TextProblem(batch=16, normalised=False)
    rates, steps, seeds = ((0.016,), 30, 3) if quick else ((0.004, 0.016), 800, 5)
    outcomes = run_trials(
        [
            Trial(task, arm("adamw", lr, WEIGHT_DECAY, times=times), steps, seed, warmup=steps // 10)
            for arm, times in ARMS.values()
            for lr in rates
            for seed in range(seeds)
        ],
        1 if quick else 2,
        store,
    )
    loss = np.reshape([outcome.loss for outcome in outcomes], (len(ARMS), len(rates), seeds))
    numbers = {
        "arms": list(ARMS),
        "lr": rates,
        "weight_decay": WEIGHT_DECAY,
        "loss[arm][lr][seed]": loss.round(5).tolist(),
    }
    found = judge(f"GPT {task.size.layers}x{task.size.width}", loss)
    small, grown = (f"{c.measured:+.1%} ± {c.standard_error:.1%}" for c in found)
    result = f"loss against AdamW {small} at the initial norm, {grown} from {NORM_FACTOR:g} times it"
    return Finding(found, _figure(numbers), numbers, result)


def judge(name: str, loss: np.ndarray) -> list[Check]:
    """The two checks; `loss` is (arm, lr, seed)."""
    adamw, turned, adamw_grown, turned_grown = (tuned(arm)[0] for arm in loss)
    return checks(
        [
            Comparison(f"plain {name}: rotational / AdamW - 1, initial norm", turned / adamw - 1, 0.0, inf),
            Comparison(
                f"plain {name}: rotational / AdamW - 1, {NORM_FACTOR:g} times the norm",
                turned_grown / adamw_grown - 1,
                -inf,
                MARGIN,
            ),
        ]
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    loss = np.array(numbers["loss[arm][lr][seed]"])
    with style():
        figure, (sweep, best) = plt.subplots(1, 2, figsize=(13, 5.4), width_ratios=(1.2, 1))
        for index, (name, values) in enumerate(zip(numbers["arms"], loss, strict=True)):
            look = {"color": f"C{index % 2}", "marker": "os^D"[index], "linestyle": "--" if index > 1 else "-"}
            seed_curve(sweep, numbers["lr"], values, label=name, **look)
        setting_axis(sweep, numbers["lr"], "peak lr")
        loss_axis(sweep)
        sweep.set(ylabel="test loss, nats", title="Plain GPT, text (mean ± SE over seeds)")
        sweep.legend()
        for row, start in enumerate((0, 2)):
            excess = 100 * (tuned(loss[start + 1])[0] / tuned(loss[start])[0] - 1)
            best.plot(excess, np.full(len(excess), row), "o", color="C1", alpha=0.5)
            error = excess.std(ddof=1) / np.sqrt(len(excess))
            best.errorbar(excess.mean(), row, xerr=error, color="k", marker="D", capsize=5)
        best.axvline(0, color="k", lw=1)
        best.axvline(100 * MARGIN, color="k", ls="--", lw=1)
        best.set_yticks([0, 1], ["initial norm", f"{NORM_FACTOR:g} times\nthe norm"])
        best.set(
            ylim=(1.6, -0.6),
            xlabel="loss of rotational above AdamW's, %",
            title="Each at its best (dots: seeds, dashed: 5 %)",
        )
        best.grid(axis="y", visible=False)
    return finish(figure, "A rotational variant frozen at too small a norm falls behind; at a larger one it does not")


if __name__ == "__main__":
    main("frozen", __doc__, examine)
