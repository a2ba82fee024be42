"""Norm and rotation converge to the predicted equilibrium from any initial norm, along the predicted course.

Claim (Kosson et al. 2024, sections 3.1 and 3.2): noise makes the weights grow, the more so the shorter they are. Decay
shrinks them in proportion to their length. The two balance at one norm, where the rotation per step is steady. Neither
depends on where the weights started.

What would refute it:

- a simulated norm or rotation further from the predicted course in any window than declared error and noise allow;
- walks from different norms that end apart;
- growth and decay, each measured by itself, that do not cross at the predicted norm.
"""

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness.claim import OPTIMIZERS, Finding, claimed, course_checks, main, memory_steps
from experiments.harness.panels import finish, plain_ticks
from rotsim.checks import Check
from rotsim.optimizers.base import Optimizer
from rotsim.show.plotting import style
from rotsim.statistics import root_mean_square

DIM = 256
STARTS = (1 / 3, 1.0, 3.0)  # initial norm over that of equilibrium
RELAXATIONS = 8
DECAY_DIVISOR = 100
BALANCE_STARTS = np.geomspace(0.6, 1.6, 9)
POWERS = {
    "adamw": (0, 2),
    "adam_l2": (0, 3),
    "sgdm": (-2, 2),
    "lion": (0, 2),
}  # of ‖w‖: noise's share of d‖w‖², decay's


def examine(quick: bool) -> Finding:
    """Courses from three initial norms, and growth and decay measured apart at nine."""
    checks: list[Check] = []
    numbers: dict[str, Any] = {}
    for name, label in OPTIMIZERS.items():
        optimizer = rotsim.OPTIMIZERS[name].examples()[1 if quick else 0]
        eq = rotsim.equilibrium(optimizer, DIM)
        window = max(10, int(eq.relaxation_steps / 10))
        run: dict[str, Any] = dict(dim=DIM, steps=window * 10 * RELAXATIONS, record_every=window)
        found: dict[str, Any] = {"norm": eq.norm, "rotation": eq.rotation, "relaxation_steps": eq.relaxation_steps}
        courses, ends = [], []
        for seed, start in enumerate(STARTS):
            walk = rotsim.simulate(
                optimizer, neurons=32 if quick else 64, initial_norm=start * eq.norm, seed=seed, **run, engine="numba"
            )
            course = rotsim.predict(optimizer, initial_norm=start * eq.norm, **run)
            checks += course_checks(f"{label} from {start:.2g} of the equilibrium norm", walk, course)
            ends.append(root_mean_square(walk["norm"].values[:, -2 * RELAXATIONS :] / eq.norm, independent=True))
            courses.append(_drawable(walk, course, eq))
        apart = max(ends, key=lambda e: e.value).value - min(ends, key=lambda e: e.value).value
        _, second, third = sorted(e.standard_error for e in ends)
        noise = float(np.hypot(second, third))
        checks.append(
            claimed(f"{label}: final norms apart, in units of the prediction", apart, noise, high=4 * noise + 1 / DIM)
        )
        balance = _balance(
            rotsim.OPTIMIZERS[name].examples()[0],
            POWERS[name],
            BALANCE_STARTS[:: 4 if quick else 1],
            32 if quick else 256,
        )
        crossing, error = balance["crossing"], balance["crossing_error"]
        # to leading order in the decay per relaxation: growth is taken as if momentum were instantaneous
        checks.append(
            claimed(f"{label}: measured growth and decay cross at norm / prediction", crossing, error, 0.97, 1.03)
        )
        numbers[name] = {**found, "courses": courses, "balance": balance}
    worst = max(check.measured for check in checks if "worst window" in check.statement)
    crossings = [numbers[name]["balance"]["crossing"] for name in OPTIMIZERS]
    result = (
        f"three initial norms: every window of 8 relaxation times at most {worst:.1f} standard errors beyond the "
        f"declared error; growth and decay, measured apart, cross at {min(crossings):.3f} to {max(crossings):.3f} of "
        "the predicted norm"
    )
    return Finding(checks, _figure(numbers), numbers, result)


def _drawable(walk: Any, course: Any, eq: rotsim.Equilibrium) -> dict[str, list[float]]:
    """RMS over neurons, its 5 to 95 % band, and the prediction, over equilibrium; time in relaxation steps."""
    drawn = {"time": (walk.step.values / eq.relaxation_steps).tolist()}
    for quantity in ("norm", "rotation"):
        unit = getattr(eq, quantity)
        values = walk[quantity].values / unit
        drawn[quantity] = np.sqrt((values**2).mean(axis=0)).tolist()
        drawn[f"{quantity}_low"], drawn[f"{quantity}_high"] = np.quantile(values, [0.05, 0.95], axis=0).tolist()
        drawn[f"{quantity}_predicted"] = (course[quantity].values[0] / unit).tolist()
    return drawn


def _balance(optimizer: Optimizer, powers: tuple[int, int], starts: np.ndarray, neurons: int) -> dict[str, Any]:
    """Change of ‖w‖² a step by noise and by decay, in units of their predicted common value at equilibrium.

    Two walks on the same noise from each norm, one without decay: what it gains is growth, what the other lacks is
    decay. Crossing: of the two power laws through the measured points.
    """
    optimizer = replace(optimizer, weight_decay=optimizer.weight_decay / DECAY_DIVISOR)  # slow beside the momentum
    eq = rotsim.equilibrium(optimizer, DIM)
    relaxation = rotsim.equilibrium(optimizer, DIM, method="leading").relaxation_steps
    unit = 2 * eq.norm**2 / relaxation / (powers[1] - powers[0])  # perturb growth = decay to see this
    settle = 5 * memory_steps(optimizer)
    steps = settle + max(200, int(relaxation / 50))
    free = replace(optimizer, weight_decay=0.0)
    found: dict[str, Any] = {"growth": [], "decay": []}  # (norm, change of ‖w‖² a step, its standard error)
    for seed, start in enumerate(starts):
        run: dict[str, Any] = dict(
            dim=DIM, neurons=neurons, initial_norm=start * eq.norm, record_every=1, steps=steps, seed=100 + seed
        )
        grown, kept = (
            rotsim.simulate(spec, **run, engine="numba")["norm"].values[:, settle:] ** 2 for spec in (free, optimizer)
        )
        growth, change = ((x[:, -1] - x[:, 0]) / (x.shape[1] - 1) / unit for x in (grown, kept))
        for key, norm, values in (("growth", grown, growth), ("decay", kept, growth - change)):
            error = float(values.std(ddof=1) / np.sqrt(neurons))
            found[key].append((float(np.sqrt(norm.mean()) / eq.norm), float(values.mean()), error))
    factors, errors = zip(
        *(_factor(np.array(found[key]), p) for key, p in zip(found, powers, strict=True)), strict=True
    )
    gap = powers[1] - powers[0]
    crossing = (factors[0] / factors[1]) ** (1 / gap)
    return {**found, "crossing": crossing, "crossing_error": crossing * float(np.hypot(*errors)) / gap}


def _factor(points: np.ndarray, power: int) -> tuple[float, float]:
    """Weighted mean of measured over law, norm^power, and its relative error."""
    norm, value, error = points.T
    weight = norm ** (2 * power) / error**2
    factor = float((weight * value / norm**power).sum() / weight.sum())
    return factor, float(weight.sum() ** -0.5) / factor


def _figure(numbers: dict[str, Any]) -> Figure:
    with style():
        figure, axes = plt.subplots(3, 4, figsize=(14, 9.6), sharey="row")
        for column, (name, label) in enumerate(OPTIMIZERS.items()):
            top, *panels = axes[:, column]
            balance, dense = numbers[name]["balance"], np.linspace(0.55, 1.7, 100)
            for key, power, color, text in zip(
                ("growth", "decay"), POWERS[name], ("C1", "C2"), ("growth by noise", "loss by decay"), strict=True
            ):
                norm, value, error = np.array(balance[key]).T
                top.errorbar(norm, value, 2 * error, fmt="o", ms=5, color=color)
                top.plot(dense, dense**power, "--", color=color, label=text)
            top.axvline(1, color="0.7", lw=1, zorder=0)
            top.set(title=label, xlabel="norm / predicted", ylim=(0, 3))
            for index, (start, course) in enumerate(zip(STARTS, numbers[name]["courses"], strict=True)):
                for ax, quantity in zip(panels, ("norm", "rotation"), strict=True):
                    ax.fill_between(
                        course["time"],
                        course[f"{quantity}_low"],
                        course[f"{quantity}_high"],
                        color=f"C{index}",
                        alpha=0.2,
                        lw=0,
                    )
                    ax.plot(course["time"], course[quantity], color=f"C{index}", lw=3, alpha=0.6, label=f"{start:.2g}")
                    ax.plot(course["time"], course[f"{quantity}_predicted"], "k--", lw=1.3)
            for ax in panels:
                ax.set(yscale="log", xlabel="steps / relaxation steps", xlim=(0, 6))
                plain_ticks(ax.yaxis, [0.1, 0.2, 0.5, 1, 2, 4])
            panels[0].set(ylim=(0.3, 3.3))
            panels[1].set(ylim=(0.08, 5))
        axes[0, 0].set_ylabel("change of ‖w‖² a step\n/ its value in balance")
        axes[1, 0].set_ylabel("norm / predicted")
        axes[2, 0].set_ylabel("rotation / predicted")
        axes[0, 0].legend(loc="upper left")
        axes[1, 1].legend(title="initial norm / predicted")
    message = (
        "Noise makes weights grow, decay shrinks them; where the two cross, norm and rotation settle\n"
        "(symbols ± 2 SE and colour: simulated, band: 5 to 95 % of neurons; dashed: predicted)"
    )
    return finish(figure, message)


if __name__ == "__main__":
    main("convergence", __doc__, examine)
