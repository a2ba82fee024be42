"""A radial part of the gradient acts as extra weight decay: λ_eff = λ + P restores the prediction.

Claim (Kosson et al. 2024, section 3.4): weights that are not scale-invariant get gradients with a part P·w along
themselves, once the optimizer has scaled them. To norm and rotation it is weight decay under another name.

What would refute it: simulated norm or rotation that differs by more than 1 % from the prediction at λ + P while P goes
from -λ/4 to 4 λ, at a strong decay (0.02 rad a step) or a gentle one (0.005); a plain GPT, none of whose layers is
scale-invariant, with a layer whose rotation is not within 20 % of the prediction at λ + P, as its gradients give P,
or layers that are not, in the median, 3 times nearer to it than to that at λ (the network had been looked at before).

Adam+L2 and SGDM add decay to the gradient, so for them the walk is a check of the code. Under AdamW and Lion the
pull goes through the momentum and decay does not: it acts on where the weights were, which matters once
they turn within the momentum's memory. The strong decay was there first, and shows that; the gentle one was added.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.claim import OPTIMIZERS, RESULTS, Check, Finding, main, memory_steps
from rotsim.diagnosis import diagnose
from rotsim.evidence import balance_factor
from rotsim.optimizers.base import Optimizer
from rotsim.plotting import style
from rotsim.statistics import root_mean_square
from rotsim.theory import closed_forms
from rotsim.theory.second_moment import mean_response

DIM = 128
ROTATIONS = {"strong": 0.02, "gentle": 0.005}
NETWORK = RESULTS / "suite_cpu" / "gpt_adamw.nc"


def pull(optimizer: Optimizer, dim: int, norm: float) -> float:
    """P for g = noise + w, with scale-invariant noise of scale 1 and weights of this norm.

    The radial part is too small beside the noise of a coordinate, of standard deviation σ, to change how the noise is
    scaled; AdamW divides it by √v, Lion's sign responds to it with its mean slope, √(2/π)/σ_c.
    """
    deviation = 1 / (np.sqrt(dim) * norm)
    if isinstance(optimizer, rotsim.AdamW):
        return mean_response(*optimizer.betas)[0] / deviation
    if isinstance(optimizer, rotsim.Lion):
        return float(np.sqrt(2 / np.pi / closed_forms.lion_variance(*optimizer.betas)) / deviation)
    return 1.0


def with_pull(optimizer: Optimizer, dim: int, strength: float) -> rotsim.Equilibrium:
    """Equilibrium at λ + P, where P depends on the norm that it leads to.

    Under AdamW and Lion P grows with the norm: outwards, beyond about 0.38 λ, there is no equilibrium (AdamW: the
    largest s for which w² - s w³ reaches 1).
    """
    norm = rotsim.equilibrium(optimizer, dim).norm
    for _ in range(200):
        decay = optimizer.weight_decay + strength * pull(optimizer, dim, norm)
        settled = rotsim.equilibrium(replace(optimizer, weight_decay=decay), dim)
        if abs(settled.norm / norm - 1) < 1e-12:
            break
        norm = float(np.sqrt(norm * settled.norm))  # damped: a stronger pull shortens w, and so weakens itself
    return settled


def examine(quick: bool) -> Finding:
    """Walks under pulls from outwards to strong, and the layers of a plain GPT."""
    checks = []
    shares = np.array([-0.25, 4.0]) if quick else np.array([-0.25, 0.0, 0.5, 1.0, 2.0, 4.0])
    numbers: dict[str, Any] = {"pull_over_decay": shares.tolist()}
    for name, label in OPTIMIZERS.items():
        for decay, rotation in ROTATIONS.items():
            numbers[f"{name}, {decay}"] = found = _walks(name, rotation, shares, quick)
            for quantity in ("rotation", "norm"):
                off, error = max(found[f"{quantity}_error"], key=lambda pair: abs(pair[0]))
                statement = f"{label}, {decay} decay: {quantity} over the prediction at λ + P, minus 1"
                checks.append(Check(statement, off, error, -0.01 - 4 * error, 0.01 + 4 * error))
    diagnosis = diagnose(rotsim.load(NETWORK))
    layers = [layer for layer in diagnosis.layers if layer.radial > -1]
    # the radial part alone: the report's own correction also has what growth of the norm adds
    at_lambda_eff = [balance_factor(diagnosis.optimizer, y.radial) * float(np.sqrt(1 - y.along)) for y in layers]
    ratio = np.array([[y.ratio, y.ratio / factor] for y, factor in zip(layers, at_lambda_eff, strict=True)])
    off = np.abs(np.log(ratio))
    unknown = float("nan")
    checks += [
        Check(
            "plain GPT: largest |log| of rotation over the prediction at λ + P",
            float(off[:, 1].max()),
            unknown,
            high=np.log(1.2),
        ),
        Check(
            "plain GPT: median |log| error at λ, over that at λ + P",
            float(np.median(off[:, 0]) / np.median(off[:, 1])),
            unknown,
            3.0,
        ),
    ]
    numbers["network"] = {y.layer: r.tolist() for y, r in zip(layers, ratio, strict=True)}
    walks = checks[:-2]
    within = max(abs(check.value) for check in walks if check.holds)
    beyond = [c.statement.split(" over")[0].replace(":", ",") + f" {abs(c.value):.0%}" for c in walks if not c.holds]
    at_decay, with_radial = (f"{column.min():.2f} to {column.max():.2f}" for column in ratio.T)
    result = (
        f"walks within {within:.1%} of the prediction at λ + P, P from -λ/4 to 4 λ"
        + (f" (except {'; '.join(beyond)}); " if beyond else "; ")
        + f"{len(layers)} layers of a plain GPT turn at {at_decay} of the prediction at λ, {with_radial} of that at λ+P"
    )
    return Finding(checks, _figure(numbers), numbers, result)


def _walks(name: str, rotation: float, shares: np.ndarray, quick: bool) -> dict[str, Any]:
    """Rotation and norm at each pull, and their predictions, over those without pull; relative errors."""
    optimizer = rotsim.plan(name, rotation=rotation, norm=1.0, dim=DIM).optimizer
    plain = rotsim.equilibrium(optimizer, DIM)
    keys = [f"{quantity}{suffix}" for quantity in ("rotation", "norm") for suffix in ("", "_predicted", "_error")]
    found: dict[str, Any] = {key: [] for key in keys}
    for seed, share in enumerate(shares):
        strength = float(share) * optimizer.weight_decay / pull(optimizer, DIM, 1.0)
        predicted = with_pull(optimizer, DIM, strength)
        window = int(predicted.relaxation_steps + memory_steps(optimizer))
        walk = rotsim.simulate(
            optimizer, DIM, 16 if quick else 64, (6 if quick else 12) * window, rotsim.Radial(strength),
            initial_norm=predicted.norm, record_every=window, seed=seed,
        )  # fmt: skip
        for quantity in ("rotation", "norm"):
            value = root_mean_square(walk[quantity].values[:, walk.sizes["step"] // 3 :], independent=True)
            expected, unit = getattr(predicted, quantity), getattr(plain, quantity)
            found[quantity].append(value.value / unit)
            found[f"{quantity}_predicted"].append(expected / unit)
            found[f"{quantity}_error"].append((value.value / expected - 1, value.standard_error / expected))
    return found


def _figure(numbers: dict[str, Any]) -> Figure:
    shares, network = np.array(numbers["pull_over_decay"]), numbers["network"]
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(14, 5), width_ratios=(1, 1, 1.35))
        for ax, quantity in zip(axes, ("rotation", "norm"), strict=False):
            for index, (name, label) in enumerate(OPTIMIZERS.items()):
                found = numbers[f"{name}, gentle"]
                ax.plot(1 + shares, found[f"{quantity}_predicted"], "--", color=f"C{index}")
                ax.plot(
                    1 + shares,
                    found[quantity],
                    "os^D"[index],
                    color=f"C{index}",
                    mfc="none",
                    ms=13 - 2 * index,
                    mew=1.6,
                    label=label,
                )
                ax.plot(1 + shares, numbers[f"{name}, strong"][quantity], "x", color=f"C{index}", ms=6)
            ax.set(
                xscale="log",
                yscale="log",
                xlabel="1 + P/λ, P at the norm without pull",
                ylabel=f"{quantity} / its value without pull",
            )
            ax.set_xticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"])
            ax.set_yticks([0.5, 0.7, 1, 1.5, 2], ["0.5", "0.7", "1", "1.5", "2"])
            ax.minorticks_off()
            ax.set_title(f"Random walk: {quantity}")
        axes[0].legend()
        ax, rows = axes[2], np.arange(len(network))[::-1]
        ratio = np.array(list(network.values()))
        ax.axvspan(1 / 1.1, 1.1, color="0.9", zorder=0)
        ax.hlines(rows, ratio.min(axis=1), ratio.max(axis=1), color="0.7", lw=1.5, zorder=1)
        ax.plot(ratio[:, 0], rows, "o", color="C1", mfc="none", mew=1.8, ms=9, label="prediction at λ")
        ax.plot(ratio[:, 1], rows, "o", color="C0", ms=9, label="prediction at λ + P")
        ax.axvline(1, color="k", ls="--", lw=1.3)
        ax.set_yticks(rows, [name.removesuffix(".weight") for name in network], fontsize=10)
        ax.set(
            xscale="log", xlabel="rotation measured / predicted", title="Plain GPT, AdamW: every layer (grey: ± 10 %)"
        )
        ax.set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        ax.minorticks_off()
        ax.legend(loc="lower right", fontsize=10)
        figure.suptitle(
            "A gradient along the weights acts as weight decay\n"
            "(symbols: measured at gentle decay, crosses: at strong decay; dashed: predicted at λ + P, gentle decay)"
        )
        plt.close(figure)
    return figure


if __name__ == "__main__":
    main("radial", __doc__, examine)
