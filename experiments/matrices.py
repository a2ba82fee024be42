"""Muon's predicted norm and rotation hold within 1 % + 1/p over settings drawn at random, up to matrices of 256 x 4096.

Claim (ours): rows from 16 to 256, columns from 16 to 4096, momentum from 0 to 0.98, with Nesterov's step and without.
lr·wd from 1e-4 to 0.05, and noise that is white or scale-invariant. The shorter side is p.

What would refute it:

- a setting in which norm or rotation of a walk differ by more than 1 % + 1/p;
- as many settings in which the published formula stays within that.

Walks start at the predicted norm and last three relaxations of it, of which the last is judged. So a tenth of an error
of the norm may stay hidden. Where rows are long, walks are those of the Gram chain.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness.claim import Finding, claimed, main
from rotsim.show.plotting import style

SETTINGS, SEED = 60, 1
QUANTITIES = ("norm", "rotation")
LR = 0.02
LARGEST = (256, 4096)  # rows and columns of the last setting; the first is the smallest, 16 x 16
LEAST_STEPS, WINDOWS = 300, 30


def settings(count: int) -> list[tuple[rotsim.Muon, int, int, int]]:
    """(optimizer, rows, dim, number), the corners of the range among them."""
    draw, found = np.random.default_rng(SEED), []
    for number in range(count):
        rows, dim = round(2 ** draw.uniform(4, 8)), round(2 ** draw.uniform(4, 12))
        decay = 10 ** draw.uniform(-4, np.log10(0.05))
        momentum = 0.0 if draw.uniform() < 0.1 else draw.uniform(0, 0.98)
        if number in (0, count - 1):
            rows, dim = (16, 16) if number == 0 else LARGEST
            decay = 0.01
        found.append((rotsim.Muon(LR, decay / LR, float(momentum), number % 2 == 0), rows, dim, number))
    return found


def measure(optimizer: rotsim.Muon, rows: int, dim: int, number: int) -> dict[str, Any]:
    """Walked over predicted and over published, less 1."""
    gradient = rotsim.Isotropic() if number % 4 < 2 else rotsim.ScaleInvariant()
    exact, published = (rotsim.equilibrium(optimizer, dim, gradient, method, rows) for method in ("exact", "leading"))
    decay = optimizer.lr * optimizer.weight_decay
    every = -(-round(max(LEAST_STEPS, 1.5 / decay)) // WINDOWS)
    walk = rotsim.simulate(
        optimizer, dim, rows, every * WINDOWS, gradient, SEED + number, exact.norm, record_every=every
    )
    late = walk.isel(step=slice(2 * WINDOWS // 3, None))
    found: dict[str, Any] = {
        "rows": rows, "dim": dim, "momentum": optimizer.momentum, "nesterov": optimizer.nesterov, "lr_wd": decay,
        "gradient": gradient.name, "engine": rotsim.dataset.spec_of(walk)["engine"],
        "allowed": 0.01 + 1 / min(rows, dim), "declared": exact.model_error,
    }  # fmt: skip
    for quantity in QUANTITIES:
        value = float(np.sqrt((late[quantity] ** 2).mean()))
        windows = np.sqrt((late[quantity] ** 2).mean("neuron").values)
        found[quantity] = {
            "predicted": value / getattr(exact, quantity) - 1,
            "published": value / getattr(published, quantity) - 1,
            "scatter": float(windows.std(ddof=1) / value),
        }
    return found


def examine(quick: bool) -> Finding:
    """All settings, or the smallest dozen of them."""
    chosen = settings(SETTINGS)
    if quick:
        chosen = sorted(chosen, key=lambda s: min(s[1:3]) ** 2 * s[2] / s[0].weight_decay)[:12]
    rows = [measure(*setting) for setting in chosen]
    checks = []
    for quantity in QUANTITIES:
        worst = max(rows, key=lambda row: abs(row[quantity]["predicted"]) / row["allowed"])
        error, allowed = worst[quantity]["predicted"], worst["allowed"]
        statement = f"{quantity}: walk over prediction, less 1, furthest of {len(rows)}, over 1 % + 1/p"
        checks.append(claimed(statement, error / allowed, worst[quantity]["scatter"] / allowed, -1, 1))
    outside = sum(any(abs(row[q]["published"]) > row["allowed"] for q in QUANTITIES) for row in rows)
    checks.append(claimed("share of settings outside for the published formula", outside / len(rows), 0.0, 0.5))
    typical = {q: float(np.median([abs(row[q]["predicted"]) for row in rows])) for q in QUANTITIES}
    furthest = {q: max(abs(row[q]["predicted"]) for row in rows) for q in QUANTITIES}
    result = (
        f"{len(rows)} settings: walks within {furthest['norm']:.1%} of the predicted norm and "
        f"{furthest['rotation']:.1%} of the rotation (median {typical['norm']:.2%} and {typical['rotation']:.2%}); the "
        f"published formula is outside 1 % + 1/p in {outside}"
    )
    return Finding(checks, _figure(rows), {"settings": rows}, result)


def _figure(rows: list[dict[str, Any]]) -> Figure:
    """Errors against the shorter side, and what is allowed."""
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
        shorter = np.array([min(row["rows"], row["dim"]) for row in rows])
        grid = np.geomspace(16, shorter.max(), 50)
        for ax, quantity in zip(axes, QUANTITIES, strict=True):
            for which, marker in (("published", "x"), ("predicted", "o")):
                ax.plot(shorter, [100 * row[quantity][which] for row in rows], marker, ms=4, label=which)
            for sign in (1, -1):
                ax.plot(grid, sign * (1 + 100 / grid), "k-", lw=0.8, label="1 % + 1/p" if sign == 1 else None)
            ax.set_xscale("log", base=2)
            ax.set(title=quantity, xlabel="shorter side p of the matrix", ylabel="walk over formula - 1, %")
        axes[0].legend(fontsize=8)
        figure.suptitle(f"Muon on {len(rows)} random matrices: walks over the predicted and over the published formula")
        plt.close(figure)
    return figure


if __name__ == "__main__":
    main("matrices", __doc__, examine)
