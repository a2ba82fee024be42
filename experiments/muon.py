"""Predicted from the iteration's own singular values, Muon's norm and rotation are those of walks, in any shape.

Claim (ours, beside the published formula for Muon): the published one takes singular values as 1, and successive
updates as correlated by the momentum alone, as AdamW's are. Matrices that are nearly square lose much of that
correlation, and Newton and Schulz's iteration ends below 1.

What would refute it:

- a prediction further than 1 % + 1/p from a walk, p being the shorter side;
- a published norm within 5 % of that of square matrices with Nesterov's step.
"""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rotsim
from experiments.harness.claim import Finding, claimed, main
from rotsim.show.plotting import style
from rotsim.statistics import root_mean_square

SHORTER = 48
LONGER = (48, 64, 96, 192, 384)
MOMENTA = ((0.95, True), (0.95, False), (0.8, True))
DECAY, LR = 0.01, 0.02
RELAXATIONS = 40
QUANTITIES = ("norm", "rotation")


def measure(momentum: float, nesterov: bool, rows: int, dim: int, seed: int, relaxations: int) -> dict[str, Any]:
    """Predicted and published over walked, less 1, with standard errors."""
    optimizer, gradient = rotsim.Muon(LR, DECAY / LR, momentum, nesterov), rotsim.ScaleInvariant()
    exact, published = (rotsim.equilibrium(optimizer, dim, gradient, method, rows) for method in ("exact", "leading"))
    steps = round(relaxations * exact.relaxation_steps / 20) * 20
    walk = rotsim.simulate(optimizer, dim, rows, steps, gradient, seed, exact.norm, record_every=steps // 20)
    found: dict[str, Any] = {"rows": rows, "dim": dim, "momentum": momentum, "nesterov": nesterov}
    for quantity in QUANTITIES:
        estimate = root_mean_square(walk[quantity].values[:, 4:], True)
        found[quantity] = {
            "predicted": getattr(exact, quantity) / estimate.value - 1,
            "published": getattr(published, quantity) / estimate.value - 1,
            "standard_error": estimate.standard_error / estimate.value,
        }
    return found


def examine(quick: bool) -> Finding:
    """A row of matrices from square to long, at three momenta."""
    longer, relaxations = (LONGER[::2], RELAXATIONS // 4) if quick else (LONGER, RELAXATIONS)
    rows = [
        measure(*momentum, SHORTER, dim, 10 * place + number, relaxations)
        for place, momentum in enumerate(MOMENTA)
        for number, dim in enumerate(longer)
    ]
    allowed, checks = 0.01 + 1 / SHORTER, []
    for quantity in QUANTITIES:
        worst = max(rows, key=lambda row: abs(row[quantity]["predicted"]))[quantity]
        statement = f"{quantity}: prediction over walk, less 1, furthest of {len(rows)}"
        checks.append(claimed(statement, worst["predicted"], worst["standard_error"], -allowed, allowed))
    for row in rows:
        if row["dim"] == SHORTER and row["nesterov"]:
            error = row["norm"]
            statement = f"square, momentum {row['momentum']:g} with Nesterov: published norm over walk, less 1"
            checks.append(claimed(statement, error["published"], error["standard_error"], 0.05))
    furthest = max(abs(row[quantity]["predicted"]) for row in rows for quantity in QUANTITIES)
    off = [row["norm"]["published"] for row in rows]
    turned = [row["rotation"]["published"] for row in rows]
    result = (
        f"{len(rows)} walks of matrices with a shorter side of {SHORTER}: predictions at most {furthest:.1%} off; the "
        f"published formula {min(off):+.0%} to {max(off):+.0%} in norm and {min(turned):+.0%} to {max(turned):+.0%} in "
        "rotation"
    )
    return Finding(checks, _figure(rows), {"settings": rows}, result)


def _figure(rows: list[dict[str, Any]]) -> Figure:
    """Over the form of the matrix: what formulas give for norm and rotation over what walks do."""
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
        for ax, quantity in zip(axes, QUANTITIES, strict=True):
            for color, (momentum, nesterov) in enumerate(MOMENTA):
                chosen = [row for row in rows if (row["momentum"], row["nesterov"]) == (momentum, nesterov)]
                form = [row["dim"] / row["rows"] for row in chosen]
                predicted, published, error = (
                    100 * np.array([row[quantity][key] for row in chosen])
                    for key in ("predicted", "published", "standard_error")
                )
                label = f"momentum {momentum:g}{', Nesterov' if nesterov else ''}"
                ax.plot(form, published, "x--", color=f"C{color}", label=f"published, {label}")
                ax.errorbar(form, predicted, 2 * error, fmt="o-", ms=4, color=f"C{color}", label=f"rotsim, {label}")
            ax.axhline(0, color="k", lw=0.8)
            ax.set_xscale("log", base=2)
            ax.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
            ax.set(title=quantity, xlabel="longer over shorter side of the matrix", ylabel="formula over walk - 1, %")
        axes[0].legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 0.08))
        plt.close(figure)
    return figure


if __name__ == "__main__":
    main("muon", __doc__, examine)
