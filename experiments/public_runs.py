"""Public runs on a GPU: the noise walk with the size of steps that was logged follows the norms of their matrices.

Claim (ours): six small GPTs, which others trained with AdamW and logged matrix by matrix, follow the course of white
noise in norm and rotation. For this one number is put in: the RMS of the update, which the log has. White noise alone
has 0.2294 for it; in these runs it is 0.07 to 0.25 at peak rates and comes back as the rate falls. That it is not the
data's signal shows where all tokens were replaced by random ones: there it is smallest.

What would refute it:

- with the logged update size, norm or rotation 10 % off in more than a tenth of a run's matrices, after 100 steps;
- without it, norms and rotations as good: then the size explains nothing;
- norms of the ladder of decays that the noise walk alone misses by more than 25 %.

What cannot be said: why updates are small. The log has no gradients. Gradients that fall while v remembers larger ones,
and successive gradients that cancel in the average, both make them small.

Where the size does not explain a norm, the logged cosine between weights and update says how much more
they grow along themselves: by gradients that last, or that have a radial part. With both, norms must agree within 5 %
in nine of ten matrices of each run, or the log does not describe AdamW.

The data are T. Ding's, from tiexinding/NPM-Weibull-public (CC BY 4.0; arXiv 2605.18898 and 2606.19367), reduced to CSV.
They are not part of this project: give the folder that holds them. The intervals were set after a first look at sizes
of updates and norms at a few steps.
"""

import sys
from collections.abc import Iterator
from functools import partial
from math import nan
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import rotsim
from experiments.harness import markdown
from experiments.harness.claim import RESULTS, Finding, claimed, conduct
from rotsim.checks import Check
from rotsim.errors import InvalidInput
from rotsim.measure import read_log
from rotsim.schedules import named
from rotsim.show.plotting import style
from rotsim.theory.base import required_theory

WARMUP, FINAL = 200, 0.1  # steps; factor on the rate at the end, of all runs
BETAS = (0.9, 0.999)
EARLY = 100  # steps in which the logged size of updates changes too fast to be joined by lines
WITHIN, MOST_OFF = 0.1, 0.1
CLOSE = 0.05  # of norms rebuilt from all that the log has
LADDER, LADDER_WITHIN = "decay_ladder.csv", 0.25
LADDER_LR, LADDER_SIZE = 1e-3, 512 * 512
QUANTITIES = ("norm", "rotation")
ERRORS = ("norm_white", "rotation_white", "norm_told", "rotation_told", "norm_kept")
SHOWN = (200, 1000, 4000, 8000)


def rates(peak: float, steps: int) -> np.ndarray:
    """lr at every step."""
    return peak * named("cosine", steps, WARMUP, FINAL)(np.arange(1, steps + 1))


def white_update(optimizer: rotsim.AdamW, steps: int) -> np.ndarray:
    """RMS of a coordinate of AdamW's update under white noise, at every step from a fresh state."""
    theory, law = required_theory(optimizer), rotsim.ScaleInvariant().power(3)
    return np.sqrt(theory.filling(3, law, steps).power * theory.updates(3, law, 1.0).lag_0)


def examine_run(path: Path) -> list[dict[str, Any]]:
    """Of every matrix: measured norm and rotation over white noise's, without and with the logged size of updates."""
    table = pd.read_csv(path)
    steps, peak, decay = int(table["step"].max()), float(table["lr"].max()), float(table["weight_decay"].iloc[0])
    optimizer = rotsim.AdamW(peak, decay, betas=BETAS)
    trace = read_log(path, optimizer, {"update_rms": ""})  # which is of u there, without lr
    factor, white = rates(peak, steps) / peak, white_update(optimizer, steps)
    step = trace["step"].values
    found = []
    for neuron, layer in enumerate(trace["layer"].values.tolist()):
        own = table[table["layer"] == layer].sort_values("step")
        size = own["update_rms"].to_numpy()
        told = np.interp(np.arange(1, steps + 1), own["step"], size / white[own["step"].to_numpy() - 1])
        measured = {name: trace[name].values[neuron] for name in QUANTITIES}
        row: dict[str, Any] = {"layer": layer, "weights": int(trace["fan_in"][neuron]), "update_rms": size.tolist()}
        own_lr, cosine = own["lr"].to_numpy(), own["cos_weight_update"].to_numpy()
        grown = growth(measured["norm"], own_lr, size * row["weights"] ** 0.5, cosine)
        kept = factor * peak * np.interp(np.arange(1, steps + 1), step, grown / own_lr)
        total = np.cumsum(kept + 2 * np.log1p(-decay * factor * peak)) / 2
        row["norm_kept"] = (measured["norm"] / measured["norm"][0] / np.exp(total - total[0])[step - 1]).tolist()
        for kind, share in (("white", np.ones(steps)), ("told", told)):
            course = rotsim.predict(
                optimizer, row["weights"], None, steps, measured["norm"][0], factor * share, 1 / share, record_every=1
            )
            for name in QUANTITIES:
                row[f"{name}_{kind}"] = (measured[name] / course[name].values[0][step - 1]).tolist()
        found.append({**row, "step": step.tolist()})
    return found


def growth(norm: np.ndarray, lr: np.ndarray, update: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """ln ‖w_t‖²/‖w_{t-1}‖² beside decay, from w_t = (1-ηλ) w_{t-1} - η u_t and the cosine of w_t and u_t."""
    before = norm**2 + 2 * lr * norm * update * cosine + (lr * update) ** 2
    return np.asarray(np.log(norm**2 / before))


def examine_ladder(path: Path) -> list[dict[str, Any]]:
    """RMS of the weights over that of the noise walk, at each decay."""
    table, found = pd.read_csv(path), []
    for decay, own in table.groupby("weight_decay"):
        steps, start = int(own["step"].max()), float(own["rms"].iloc[0])
        optimizer = rotsim.AdamW(LADDER_LR, float(decay), betas=BETAS)
        factor = rates(1.0, steps)
        norm = start * LADDER_SIZE**0.5
        course = rotsim.predict(optimizer, LADDER_SIZE, None, steps, norm, factor, record_every=1)
        ratio = own["rms"].to_numpy() * LADDER_SIZE**0.5 / course["norm"].values[0][own["step"].to_numpy() - 1]
        found.append({"weight_decay": float(decay), "step": own["step"].tolist(), "norm_white": ratio.tolist()})
    return found


def off(rows: list[dict[str, Any]], key: str) -> np.ndarray:
    """Of every matrix: the largest relative error after the first steps."""
    return np.array([np.abs(np.array(row[key])[np.array(row["step"]) > EARLY] - 1).max() for row in rows])


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """What of a matrix is kept: errors, and measured over predicted at some steps."""
    at = {step: place for place, step in enumerate(row["step"])}
    some = {f"{key}_at": {str(step): row[key][at[step]] for step in SHOWN if step in at} for key in ERRORS}
    errors = {key: float(off([row], key)[0]) for key in ERRORS}
    return {"layer": row["layer"], "weights": row["weights"], **errors, **some}


def claims(runs: dict[str, list[dict[str, Any]]], ladder: list[dict[str, Any]]) -> Iterator[Check]:
    """What the logs have to show."""
    for name, rows in runs.items():
        for quantity in QUANTITIES:
            share = float((off(rows, f"{quantity}_told") > WITHIN).mean())
            text = f"{name}: share of matrices whose {quantity} is {WITHIN:.0%} off, with the logged size of updates"
            yield claimed(text, share, nan, high=MOST_OFF)
        share = float((off(rows, "norm_kept") > CLOSE).mean())
        text = f"{name}: share of matrices whose norm is {CLOSE:.0%} off, with the logged cosine too"
        yield claimed(text, share, nan, high=MOST_OFF)
        better = float(np.median(off(rows, "rotation_told")) / np.median(off(rows, "rotation_white")))
        yield claimed(f"{name}: error of the rotation with that size over that without", better, nan, high=0.5)
    for row in ladder:
        late = np.array(row["norm_white"])[np.array(row["step"]) >= 1000]
        worst = float(np.abs(late - 1).max())
        yield claimed(
            f"decay {row['weight_decay']:g}: largest error of the norm, white noise", worst, nan, high=LADDER_WITHIN
        )


def examine(folder: Path, quick: bool) -> Finding:
    """All runs in a folder; the quick version looks at the first."""
    paths = sorted(folder.glob("*.csv.xz"))
    if not paths or not (folder / LADDER).is_file():
        raise InvalidInput(f"{folder} holds no runs (*.csv.xz) or no {LADDER}; give the folder of the public runs")
    runs = {path.name.removesuffix(".csv.xz"): examine_run(path) for path in paths[: 1 if quick else None]}
    ladder = examine_ladder(folder / LADDER)
    every = [row for rows in runs.values() for row in rows]
    worst = {key: float(np.median(off(every, key))) for key in ERRORS}
    result = (
        f"{len(every)} matrices of {len(runs)} GPTs: median of the largest error of norm and rotation "
        f"{worst['norm_white']:.0%} and {worst['rotation_white']:.0%} by white noise alone, {worst['norm_told']:.1%} "
        f"and {worst['rotation_told']:.1%} with the logged size of updates"
    )
    numbers = {
        "runs": {name: [summary(row) for row in rows] for name, rows in runs.items()},
        "ladder": ladder,
    }
    return Finding(list(claims(runs, ladder)), _figure(runs, ladder), numbers, result, document(runs, ladder))


def document(runs: dict[str, list[dict[str, Any]]], ladder: list[dict[str, Any]]) -> str:
    """Both predictions of every matrix, and what is said and not said."""
    head = [
        "run", "matrix", "update RMS, steps 200 to 2000", "norm", "rotation", "norm, size told", "rotation, size told",
        "norm, cosine told too",
    ]  # fmt: skip
    lines = []
    for name, rows in runs.items():
        errors = {key: off(rows, key) for key in ERRORS}
        for index, row in enumerate(rows):
            step, size = np.array(row["step"]), np.array(row["update_rms"])
            peak = size[(step >= WARMUP) & (step <= 2000)]
            cells = [f"{errors[key][index]:.1%}" for key in ERRORS]
            lines.append([name, row["layer"], f"{peak.min():.3f} to {peak.max():.3f}", *cells])
    steps = (1000, 5000, 20_000)
    rungs = [
        [
            f"{row['weight_decay']:g}",
            *(f"{dict(zip(row['step'], row['norm_white'], strict=True))[s] - 1:+.1%}" for s in steps),
        ]
        for row in ladder
    ]
    text = [
        "# Public runs on a GPU",
        "",
        "Data: T. Ding, tiexinding/NPM-Weibull-public, CC BY 4.0 (arXiv 2605.18898, 2606.19367). Each matrix is taken "
        f"as one vector. Errors are the largest of measured over predicted, less one, after step {EARLY}. The first "
        "two are of white noise alone. The next two are told the logged RMS of the update, 0.2294 under white noise.",
        "",
        markdown.table(head, lines),
        "",
        "Norms at a ladder of decays, measured over the noise walk, less one:",
        "",
        markdown.table(["weight decay", *(f"step {step}" for step in steps)], rungs),
        "",
        "Explained: a step of another size is another schedule of the same walk. It has lr times the size over 0.2294, "
        "and the same lr·weight_decay. Where the norm is still off, weights grow along themselves by more or less than "
        "white noise makes them: the logged cosine of weights and update says by how much.",
        "",
        "Not explained: why the size is what it is. The logs have no gradients, and two causes look alike: gradients "
        "that fall while v remembers larger ones, and successive gradients that cancel in the average. It is not the "
        "data's signal: where all tokens are random, updates are smallest.",
    ]
    return "\n".join(text) + "\n"


def _figure(runs: dict[str, list[dict[str, Any]]], ladder: list[dict[str, Any]]) -> Figure:
    """Measured over predicted rotation and norm of all matrices, by white noise alone and with the logged size."""
    titles = {"rotation_white": "rotation, white noise", "rotation_told": "rotation, logged size", "norm_white":
              "norm, white noise", "norm_told": "norm, logged size"}  # fmt: skip
    with style():
        figure, axes = plt.subplots(1, 5, figsize=(17, 4.2), sharey=True)
        for ax, (key, title) in zip(axes, titles.items(), strict=False):
            for index, (name, rows) in enumerate(runs.items()):
                for row in rows:
                    label = name if row is rows[0] else None
                    ax.plot(row["step"], row[key], color=f"C{index}", lw=0.7, alpha=0.7, label=label)
            ax.set(title=title, xscale="log", xlabel="step")
            ax.axhline(1, color="k", lw=0.8)
        for index, row in enumerate(ladder):
            axes[4].plot(row["step"], row["norm_white"], color=f"C{index}", label=f"decay {row['weight_decay']:g}")
        axes[4].set(title="norm, ladder, white noise", xscale="log", xlabel="step")
        axes[4].axhline(1, color="k", lw=0.8)
        axes[0].set(ylabel="measured / predicted", ylim=(0, 2))
        axes[3].legend(fontsize=7, loc="lower left")
        axes[4].legend(fontsize=8, loc="lower left")
        figure.suptitle(
            "GPTs that others trained (T. Ding, CC BY 4.0): told the size of updates, the noise walk follows them"
        )
        plt.close(figure)
    return figure


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="The first run alone; written to --output only if that is given.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for JSON and figure.  [default: results/]")
def main(folder: Path, quick: bool, output: Path | None) -> None:
    """Examine the runs in FOLDER; exit code 1 unless every statement passes."""
    documentation, where = __doc__ or "", output or (None if quick else RESULTS)
    finding = conduct("public_runs", documentation, partial(examine, folder), quick, where)
    sys.exit(0 if finding.report.passed else 1)


if __name__ == "__main__":
    main()
