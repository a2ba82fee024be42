"""Gradients with a memory, a mean or a radial part, on random settings that the theory was not made for.

`python -m experiments.departures` writes results/departures.md, a line for each optimizer and kind of gradient. It has
the errors of norm, rotation and update of a walk beyond 3 standard errors, and the error that `rotsim.equilibrium`
declares.
"""

from pathlib import Path

import click
import numpy as np
from rich.progress import track

import rotsim
from experiments.harness import markdown
from experiments.harness.claim import OPTIMIZERS, RESULTS
from rotsim.files import write_atomically
from rotsim.gradients import Autocorrelated, Gradient, Isotropic, Radial, ScaleInvariant, Signal
from rotsim.optimizers.base import Optimizer

NEURONS = 48
MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98)
SECOND = (0.5, 0.9, 0.95, 0.99, 0.999)
NAMES = ("adamw", "adam_l2", "sgdm", "lion")
LAWS = ("autocorrelated", "signal", "radial")
QUANTITIES = ("norm", "rotation", "update_rms")
HEAD = (
    "gradients", "optimizer", "settings", "refused", "largest error beyond 3 standard errors",
    "the same over the declared error of its setting, largest", "declared, median", "largest",
)  # fmt: skip


def setting(law: str, name: str, seed: int) -> tuple[Optimizer, int, Gradient]:
    """lr·wd from 3e-4 to 0.03 (Adam+L2 with scale-invariant gradients: what a common lr and decay lead to)."""
    generator = np.random.default_rng([seed, NAMES.index(name), LAWS.index(law)])

    def pick(choices: tuple[float, ...]) -> float:
        return choices[int(generator.integers(len(choices)))]

    shaped, dim, betas = bool(generator.random() < 0.6), int(pick((256, 1024))), (pick(MOMENTA), pick(SECOND))
    decay, rate = 10 ** generator.uniform(-3.5, -1.5), 10 ** generator.uniform(-3, -2)
    optimizer: Optimizer
    if name == "sgdm":
        optimizer = rotsim.SGDM(30 * rate, decay / (30 * rate) * (1 - betas[0]), betas[0])
    elif name == "lion":
        optimizer = rotsim.Lion(rate / 3, 3 * decay / rate, (betas[0], max(betas[1], 0.9)))
    elif name == "adam_l2" and shaped:
        optimizer = rotsim.AdamL2(rate, 10 ** generator.uniform(-2.5, -1), betas)
    else:
        optimizer = rotsim.OPTIMIZERS[name](rate, decay / rate, betas=betas)  # type: ignore[call-arg]
    if law == "autocorrelated":
        return optimizer, dim, Autocorrelated(round(float(generator.uniform(-0.9, 0.95)), 2), scale_invariant=shaped)
    if law == "signal":
        return optimizer, dim, Signal(float(10 ** generator.uniform(-2.5, -0.7)), scale_invariant=shaped)
    white = rotsim.equilibrium(optimizer, dim, ScaleInvariant() if shaped else Isotropic())
    deviation = (1 / white.norm if shaped else np.sqrt(dim)) / np.sqrt(dim)  # of a gradient coordinate
    unit = optimizer.weight_decay * {"adamw": deviation, "lion": deviation / 1.25}.get(name, 1.0)
    return optimizer, dim, Radial(float(unit * generator.uniform(-0.3, 1.5)), scale_invariant=shaped)


def measure(law: str, name: str, seed: int) -> tuple[np.ndarray, float] | None:
    """Errors and standard errors of norm, rotation and update, and what is declared; None without equilibrium."""
    optimizer, dim, gradient = setting(law, name, seed)
    try:
        eq = rotsim.equilibrium(optimizer, dim, gradient)
    except rotsim.NoEquilibrium:
        return None
    memories = [1 / (1 - beta) for beta in optimizer.averages]
    slowest = max(eq.relaxation_steps, *memories, 1 / (1 - abs(getattr(gradient, "correlation", 0.0))))
    window = max(1, int(slowest / 3))
    data = rotsim.simulate(
        optimizer,
        dim,
        NEURONS,
        70 * window,
        gradient,
        seed=seed,
        initial_norm=eq.norm,
        record_every=window,
        engine="numba",
    )
    found = []
    for quantity in QUANTITIES:
        values = np.sqrt((data[quantity].values[:, 30:] ** 2).mean(axis=1)) / getattr(eq, quantity)
        found.append((values.mean() - 1, values.std(ddof=1) / np.sqrt(NEURONS)))
    return np.array(found), eq.model_error


def row(law: str, name: str, seeds: range) -> list[str]:
    """One line of the table."""
    measured = [measure(law, name, seed) for seed in seeds]
    found = [result for result in measured if result is not None]
    beyond = np.array([np.maximum(np.abs(off[:, 0]) - 3 * off[:, 1], 0).max() for off, _ in found])
    declared = np.array([error for _, error in found])
    return [
        law, OPTIMIZERS[name], str(len(found)), str(len(measured) - len(found)), f"{beyond.max():.2%}",
        f"{(beyond / declared).max():.2f}", f"{np.median(declared):.1%}", f"{declared.max():.1%}",
    ]  # fmt: skip


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--settings", type=click.IntRange(min=1), default=60, help="Of each optimizer and kind.")
@click.option("--seed", type=click.IntRange(min=0), default=7000, help="Of the first.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS / "departures.md", help="Markdown file.")
def main(settings: int, seed: int, output: Path) -> None:
    """Measure, and write the table."""
    pairs = [(law, name) for law in LAWS for name in NAMES]
    rows = [row(*pair, range(seed, seed + settings)) for pair in track(pairs, "departures")]
    text = [
        "# Gradients that are not white noise, against simulation",
        "",
        f"`python -m experiments.departures --settings {settings} --seed {seed}`: norm, rotation and update size at "
        f"equilibrium, {NEURONS} neurons, rotsim {rotsim.__version__}. Strength: correlation from -0.9 to 0.95, mean "
        "over deviation from 0.003 to 0.2, radial part from -0.3 to 1.5 of the decay. Refused: no equilibrium.",
        "",
        markdown.table(HEAD, rows),
    ]
    write_atomically(output, "\n".join(text) + "\n")
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
