"""Layer normalisation balances layers, not neurons; Weight Standardization brings the balance of neurons back.

Claim (Kosson et al. 2024, section 6, on poor normalisation): batch normalisation makes every neuron scale-invariant,
so all rotate alike. Layer normalisation makes only the layer invariant: a neuron has a radial gradient, and
neurons of a layer settle at different rotations. Weight Standardization before layer normalisation makes every
neuron invariant again: rotation is balanced as with batch normalisation, and training is no worse.

AdamW and SGDM train MLPs with each normalisation on digits under noise. Each is judged at its best learning rate,
chosen on the other seeds. Spread is the standard deviation over the mean of the neurons' rotation, averaged over hidden
layers.

What would refute it, by t-tests paired over seeds with Holm's correction within each optimizer:

- a spread under LN less than 1.5 times that under WS+LN;
- a spread under WS+LN more than 1.5 times that under BN;
- a test loss under WS+LN above that under LN.

The difference in loss that AdamW leaves, half a percent, would take some 100 seeds to see.
"""

from math import inf
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness.claim import Finding, main
from experiments.harness.paired import Comparison, at_best, checks
from experiments.harness.panels import finish, loss_axis, seed_curve, setting_axis
from experiments.training.arms import Plain
from experiments.training.trials import ImageProblem, Trial, run_trials
from rotsim.checks import Check
from rotsim.show.plotting import style
from rotsim.tasks import Ledger

NORMS = ("bn", "ln", "ws+ln")
#: weight decay and learning rates; lr·wd relaxes the norm well within the run
GRIDS: dict[str, tuple[float, tuple[float, ...]]] = {
    "adamw": (0.5, (0.004, 0.016, 0.064)),
    "sgdm": (0.005, (0.1, 0.4, 1.6)),
}
FACTOR = 1.5


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Train and record every normalisation under both optimizers."""
    shape = (32, 32) if quick else (64, 64, 64)
    seeds, steps = (3, 60) if quick else (6, 800)
    found: list[Check] = []
    numbers: dict[str, Any] = {}
    for optimizer, (weight_decay, rates) in GRIDS.items():
        rates = rates[1:2] if quick else rates
        trials = [
            Trial(ImageProblem(network=norm, shape=shape), Plain(optimizer, lr, weight_decay), steps, seed, record=True)
            for norm in NORMS
            for lr in rates
            for seed in range(seeds)
        ]
        outcomes = run_trials(trials, 1 if quick else 2, store)
        loss, accuracy, spread = (
            np.reshape([getattr(outcome, name) for outcome in outcomes], (len(NORMS), len(rates), seeds))
            for name in ("loss", "accuracy", "within_layers")
        )
        best_loss, best_spread = at_best(loss, loss), at_best(loss, spread)
        found += judge(rotsim.OPTIMIZERS[optimizer].label, best_loss, best_spread)
        numbers[optimizer] = {
            "weight_decay": weight_decay,
            "lr": rates,
            "norms": NORMS,
            "loss[norm][lr][seed]": loss.round(5).tolist(),
            "accuracy[norm][lr][seed]": accuracy.round(5).tolist(),
            "spread[norm][lr][seed]": spread.round(5).tolist(),
            "accuracy_at_best": at_best(loss, accuracy).mean(axis=1).tolist(),
            "spread_at_best": best_spread.mean(axis=1).tolist(),
        }
    result = "; ".join(
        f"{rotsim.OPTIMIZERS[name].label}: spread {', '.join(f'{x:.3f}' for x in of['spread_at_best'])}, accuracy "
        f"{', '.join(f'{x:.1%}' for x in of['accuracy_at_best'])} (BN, LN, WS+LN)"
        for name, of in numbers.items()
    )
    return Finding(found, _figure(numbers), numbers, result)


def judge(label: str, loss: np.ndarray, spread: np.ndarray) -> list[Check]:
    """The three checks of one optimizer; both arrays are (norm, seed) in the order of `NORMS`."""
    bn, ln, ws = spread
    return checks(
        [
            Comparison(f"{label}: spread of rotation, LN / WS+LN", ln / ws, FACTOR, inf),
            Comparison(f"{label}: spread of rotation, WS+LN / BN", ws / bn, 0.0, FACTOR),
            Comparison(f"{label}: test loss, LN / WS+LN - 1", loss[1] / loss[2] - 1, 0.0, inf),
        ]
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    names = {"bn": "BN", "ln": "LN", "ws+ln": "WS + LN"}
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(12, 8), sharex="col", layout="constrained")
        for (top, bottom), (optimizer, found) in zip(axes.T, numbers.items(), strict=True):
            for index, norm in enumerate(NORMS):
                look = {"color": f"C{index}", "marker": "os^"[index], "label": names[norm]}
                seed_curve(top, found["lr"], np.array(found["spread[norm][lr][seed]"][index]), **look)
                seed_curve(bottom, found["lr"], np.array(found["loss[norm][lr][seed]"][index]), **look)
            setting_axis(bottom, found["lr"], "peak lr")
            loss_axis(bottom)
            top.set_ylim(bottom=0)
            top.set_title(f"{rotsim.OPTIMIZERS[optimizer].label}, weight decay {found['weight_decay']:g}")
        axes[0, 0].set_ylabel("std / mean of rotation\nover a layer's neurons")
        axes[1, 0].set_ylabel("test loss, nats")
        axes[0, 0].legend()
    message = (
        "Layer normalisation lets a layer's neurons turn apart; Weight Standardization brings them together\n"
        "(mean ± SE over seeds; no point: a run diverged)"
    )
    return finish(figure, message)


if __name__ == "__main__":
    main("invariance", __doc__, examine)
