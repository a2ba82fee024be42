"""Weights that start below their equilibrium norm turn too fast at first, and learning-rate warm-up holds that down.

Claim (Kosson et al. 2024, on transients and the need for warm-up): the usual initial norm lies below equilibrium.
There the same update turns the weights further, so that rotation early in training exceeds what the schedule asks for.
Warm-up hides that transient, and a variant without it has less need of warm-up.

What would refute it, in trainings from a quarter of the equilibrium norm or from that norm:

- from the quarter and without warm-up, an early rotation below 1.5 times that of equilibrium;
- a warm-up that leaves more than half of the peak;
- from the equilibrium norm, an excess of more than 20 %: the norm would then not be the cause;
- courses that the random walk does not predict;
- a rotational variant whose early rotation is more than 5 % off that of equilibrium, without warm-up.

Lion's variant turns too slowly by more than that, and by as much as theory says. It is set to the paper's leading-order
rotation, which is 0.940 of that of equilibrium at this lr·wd of 2e-3: 1/(lr·wd) = 500 steps are not many beside the 100
of its momentum. That is the variant as published. `rotsim.equilibrium` has the exact angle.
"""

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness.claim import OPTIMIZERS, Finding, claimed, course_checks, main
from experiments.harness.panels import finish, plain_ticks
from rotsim.checks import Check
from rotsim.optimizers.base import Optimizer
from rotsim.show.plotting import style
from rotsim.statistics import Estimate, root_mean_square
from rotsim.theory.schedules import cosine, warmup

DIM = 256
ROTATION = 0.01  # in equilibrium at the peak learning rate; the weights' norm is then 1
STEPS = 4000
WARMUP_STEPS = STEPS // 10  # the warm-up, where there is one
WINDOW = 10
VARIANT = "rotational variant, quarter norm, no warm-up"
INITIAL_NORM = 0.25
RUNS = {  # label: (initial norm, schedule, colour)
    "quarter norm, no warm-up": (INITIAL_NORM, cosine(STEPS, 0.1), "C1"),
    "quarter norm, warm-up": (INITIAL_NORM, warmup(WARMUP_STEPS, cosine(STEPS - WARMUP_STEPS, 0.1)), "C0"),
    "equilibrium norm, no warm-up": (1.0, cosine(STEPS, 0.1), "C2"),
}


def examine(quick: bool) -> Finding:
    """Three training runs an optimizer: the rotation of each against the equilibrium at the learning rate in force."""
    checks: list[Check] = []
    numbers: dict[str, Any] = {}
    for name, label in OPTIMIZERS.items():
        optimizer = rotsim.plan(name, rotation=ROTATION, norm=1.0, dim=DIM).optimizer
        found: dict[str, Any] = {"optimizer": optimizer.to_dict()}
        early, peak = {}, {}
        for seed, (case, (start, schedule, _)) in enumerate(RUNS.items()):
            run: dict[str, Any] = dict(
                dim=DIM, steps=STEPS, lr_schedule=schedule, initial_norm=start, record_every=WINDOW
            )
            walk = rotsim.simulate(optimizer, neurons=24 if quick else 128, seed=seed, **run, engine="numba")
            course = rotsim.predict(optimizer, **run)
            checks += course_checks(f"{label}, {case}", walk, course)
            rotation = walk["rotation"].values
            early[case] = _over(root_mean_square(rotation[:, : WARMUP_STEPS // WINDOW], independent=True), ROTATION)
            peak[case] = _peak(rotation)
            found[case] = {
                "rotation": np.sqrt((rotation**2).mean(axis=0)).tolist(),
                "predicted": course["rotation"].values[0].tolist(),
                "equilibrium": _equilibrium_rotation(optimizer, schedule(walk.step.values - (WINDOW - 1) / 2)).tolist(),
                "early": early[case].value,
                "peak": peak[case].value,
            }
        if name != "adam_l2":  # whose rotation depends on the gradient
            rotation = rotsim.simulate(
                rotsim.Rotational(optimizer), DIM, 24 if quick else 128, STEPS, lr_schedule=cosine(STEPS, 0.1),
                initial_norm=INITIAL_NORM, record_every=WINDOW, engine="numba",
            )["rotation"].values  # fmt: skip
            steady = _over(root_mean_square(rotation[:, : WARMUP_STEPS // WINDOW], independent=True), ROTATION)
            found[VARIANT] = {"rotation": np.sqrt((rotation**2).mean(axis=0)).tolist(), "early": steady.value}
            statement = f"{label}, rotational variant, quarter norm, no warm-up: early rotation / equilibrium"
            paper = rotsim.equilibrium(optimizer, DIM, method="leading").rotation / ROTATION
            why = f"it is set to the paper's rotation, {paper:.3f} of equilibrium's at this lr·wd"
            checks.append(claimed(statement, steady.value, steady.standard_error, 0.95, 1.05, because=why))
        low, warm, settled = RUNS
        checks += [
            claimed(f"{label}, {low}: early rotation / equilibrium", early[low].value, early[low].standard_error, 1.5),
            claimed(
                f"{label}, {settled}: early rotation / equilibrium",
                early[settled].value,
                early[settled].standard_error,
                high=1.2,
            ),
            _ratio(f"{label}: peak rotation with warm-up / without", peak[warm], peak[low]),
        ]
        numbers[name] = found
    low, warm, settled = RUNS

    def span(case: str) -> str:
        values = [numbers[name][case]["early"] for name in OPTIMIZERS]
        return f"{min(values):.2f} to {max(values):.2f}"

    turning = [numbers[name][VARIANT]["early"] for name in OPTIMIZERS if VARIANT in numbers[name]]
    peaks = [check.measured for check in checks if "peak" in check.statement]
    result = (
        f"early rotation over that of equilibrium: {span(low)} from a quarter of the norm, {span(settled)} from the "
        f"norm itself; warm-up leaves {min(peaks):.2f} to {max(peaks):.2f} of the peak, and {span(warm)} "
        f"on the whole; rotational variants turn at {min(turning):.3f} to {max(turning):.3f} "
        f"over the first {WARMUP_STEPS} steps"
    )
    return Finding(checks, _figure(numbers), numbers, result)


def _over(estimate: Estimate, unit: float) -> Estimate:
    return Estimate(estimate.value / unit, estimate.standard_error / unit)


def _peak(rotation: np.ndarray) -> Estimate:
    """RMS over neurons in the window where it is largest."""
    window = int((rotation**2).mean(axis=0).argmax())
    return _over(root_mean_square(rotation[:, window, None], independent=True), ROTATION)


def _ratio(statement: str, above: Estimate, below: Estimate) -> Check:
    value = above.value / below.value
    relative = np.hypot(above.standard_error / above.value, below.standard_error / below.value)
    return claimed(statement, value, float(value * relative), high=0.5)


def _equilibrium_rotation(optimizer: Optimizer, factor: np.ndarray) -> np.ndarray:
    """Rotation of the equilibrium that the learning rate in force would lead to."""
    grid = np.geomspace(factor.min(), factor.max(), 30)
    rotation = [rotsim.equilibrium(replace(optimizer, lr=optimizer.lr * f), DIM).rotation for f in grid]
    return np.exp(np.interp(np.log(factor), np.log(grid), np.log(rotation)))


def _figure(numbers: dict[str, Any]) -> Figure:
    step = np.arange(1, STEPS // WINDOW + 1) * WINDOW
    with style():
        figure, axes = plt.subplots(2, 4, figsize=(14, 7.6), sharex=True, sharey="row")
        for column, (name, label) in enumerate(OPTIMIZERS.items()):
            above, below = axes[:, column]
            for case, (_, _, color) in RUNS.items():
                found = {key: np.array(value) for key, value in numbers[name][case].items()}
                above.plot(step, found["rotation"], color=color, lw=3.5, alpha=0.55, label=case)
                above.plot(step, found["predicted"], "k--", lw=1.2)
                below.plot(step, found["rotation"] / found["equilibrium"], color=color, lw=3.5, alpha=0.55)
                below.plot(step, found["predicted"] / found["equilibrium"], "k--", lw=1.2)
                if "equilibrium" not in case:
                    above.plot(step, found["equilibrium"], ":", color=color, lw=2)
            if VARIANT in numbers[name]:
                steady = np.array(numbers[name][VARIANT]["rotation"])
                above.plot(step, steady, color="C3", lw=2.2, label=VARIANT)
                below.plot(step, steady / np.array(numbers[name][case]["equilibrium"]), color="C3", lw=2.2)
            above.set(title=label, xscale="log", yscale="log")
            below.set(xlabel="step", yscale="log")
            below.axhline(1, color="0.6", lw=1, zorder=0)
            plain_ticks(above.yaxis, [0.001, 0.003, 0.01, 0.03, 0.1])
            plain_ticks(below.yaxis, [0.5, 1, 2, 5, 10])
            for ax in (above, below):
                ax.axvspan(step[0], WARMUP_STEPS, color="0.9", zorder=0)
                plain_ticks(ax.xaxis, [10, 100, 1000])
        axes[0, 0].set_ylabel("rotation, rad per step")
        axes[1, 0].set_ylabel("rotation / equilibrium\nat the lr in force")
    message = (
        "Below their equilibrium norm weights turn too fast; warm-up (grey) holds them back\n"
        "(colour: simulated, dashed: predicted, dotted: equilibrium at the learning rate in force)"
    )
    return finish(figure, message, axes[0, 0], 2)


if __name__ == "__main__":
    main("early", __doc__, examine)
