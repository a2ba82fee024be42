"""How far theory is off, measured by walks: `python -m tests.declared` writes tests/declared.csv.

The table holds what walks did, and nothing of what theory says. So it stays true when theory changes.
`tests/test_declared.py` holds the errors that theory declares to it from both sides, and walks some rows anew.
Settings of the group "tuned" were looked at while theory was made, those of the group "held out" were not. When they
were judged, eight of Lion under a memory or a radial part failed. Then "radial lion outward" was mended. What is
declared of Lion under a memory or a radial part was later fitted to all rows of both groups.
The group "kin" has optimizers that came later. What is declared of Muon, of hyperballs and of few cautious weights was
fitted to it, but for the rows "drawn". These were made afterwards, and none failed. What is declared of NAdamW and
AdEMAMix beyond white noise was fitted to other strengths than are here. What is declared of Lion beside a mean or a
long memory was mended once more, when the battery of `experiments.departures` found settings that were off.
What is declared of AdamW under a memory was fitted to other drawn settings than are here, whose walks are short.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

import rotsim
from experiments.departures import LAWS, NAMES, QUANTITIES, setting
from rotsim.gradients import Autocorrelated, Bursts, Gradient, Isotropic, Radial, ScaleInvariant, Signal
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.muon import POLAR_EXPRESS

TABLE = Path(__file__).with_suffix(".csv")
COORDINATES = 2e8  # times steps of a walk, about
FEWEST, MOST = 12, 2048  # neurons
WINDOWS, BURNED = 72, 36
SEED = 4100
FADING = 1.0  # momentum_decay of NAdamW, at which its momentum is that of the end after the steps that are burned
#: Seeds of the random settings of each.
GROUPS = {"tuned": range(9100, 9102), "held out": range(9300, 9301), "new": range(9500, 9506)}
#: Seeds of Lion's settings that the battery of `experiments.departures` found off, and of some drawn after the mend.
DRAWN = range(41000, 41005)
LATE = {"signal": (7045, 7059, 40080, *DRAWN), "autocorrelated": (7007, 40145, *DRAWN)}


@dataclass(frozen=True)
class Case:
    """A setting, and whether theory was made with a look at it."""

    group: str
    optimizer: Optimizer
    dim: int
    gradient: Gradient
    rows: int | None = None

    @property
    def together(self) -> int:
        """Neurons that walk as one matrix, and so are no independent samples."""
        return self.rows or 1


def cases() -> dict[str, Case]:
    """All settings by name: random ones of the departure battery, and corners of it that theory finds hard."""
    found = {}
    for group, seeds in GROUPS.items():
        for law in LAWS:
            for name in NAMES if group != "new" else ("lion",):
                for seed in seeds:
                    found[f"{law} {name} {seed}"] = Case(group, *setting(law, name, seed))
    for number, group in enumerate(GROUPS):
        corners = {name: case for name, case in _corners(number).items() if group != "new" or "lion" in name}
        found |= {f"{name}, {group}": Case(group, *case) for name, case in corners.items()}
    found |= _kin() | _matrices() | _departing() | _slow() | _wide()
    found |= {f"kin drawn {seed}": _drawn(seed) for seed in range(9700, 9724)}
    found |= {f"memory adamw drawn {seed}": _remembered(seed) for seed in range(9800, 9816)}
    return found | {
        f"{law} lion {seed}": Case("held out" if seed in DRAWN else "tuned", *setting(law, "lion", seed))
        for law, seeds in LATE.items()
        for seed in seeds
    }


def _corners(group: int) -> dict[str, tuple[Optimizer, int, Gradient]]:
    """Long memories, strong pulls, bursts, ε and few weights, each group by its number with numbers of its own."""
    rate, phi = (0.03, 0.017, 0.023)[group], (0.95, 0.91, 0.87)[group]
    found: dict[str, tuple[Optimizer, int, Gradient]] = {}
    for name, betas in {
        "default": (0.9, 0.99),
        "long": (0.9, 0.999),
        "short": (0.0, 0.9),
        "slow": (0.98, 0.99),
    }.items():
        lion = rotsim.Lion(2e-3, rate / 2e-3, betas)
        found[f"memory lion {name}"] = lion, 1024, Autocorrelated(phi)
        found[f"anticorrelated lion {name}"] = lion, 1024, Autocorrelated((-0.9, -0.7, -0.8)[group])
        adamw = rotsim.AdamW(0.01, rate / 0.01, betas, eps=0.0)
        found[f"memory adamw {name}"] = adamw, 1024, Autocorrelated(phi)
        adam_l2 = rotsim.AdamL2(2e-3, (0.1, 0.05, 0.07)[group], betas, eps=0.0)
        found[f"memory adam_l2 {name}"] = adam_l2, 1024, Autocorrelated(phi)
    lion = rotsim.Lion(2e-3, rate / 2e-3)
    for name, pull in {"inward": (1.3, 1.3, 0.7)[group], "outward": (-0.1, -0.1, -0.06)[group]}.items():
        strength = pull * lion.weight_decay / rotsim.equilibrium(lion, 1024).norm / np.sqrt(1024) / 1.25
        found[f"radial lion {name}"] = lion, 1024, Radial(round(float(strength), 5))
    found["signal lion"] = lion, 1024, Signal((0.1, 0.05, 0.15)[group])
    series = np.exp(np.random.default_rng(group).standard_normal(56 * WINDOWS))
    found["bursts lion"] = lion, 512, Bursts(series)
    for name, betas in {"default": (0.9, 0.99), "fast": (0.98, 0.9), "none": (0.0, 0.95)}.items():
        few = (12, 16, 20)[group]
        decay = (0.05, 0.03, 0.02)[group]
        optimizers: dict[str, Optimizer] = {
            "adamw": rotsim.AdamW(0.01, decay / 0.01, betas),
            "adam_l2": rotsim.AdamL2(0.01, decay, betas),
            "sgdm": rotsim.SGDM(0.1, decay, betas[0]),
            "lion": rotsim.Lion(0.01, decay / 0.01, betas),
        }
        for optimizer, spec in optimizers.items():
            found[f"few weights {optimizer} {name}"] = spec, few, ScaleInvariant()
            if name == "default":
                found[f"few weights, isotropic {optimizer}"] = spec, few, Isotropic()
    for name, betas in {"slow": (0.98, 0.9), "short": (0.9, 0.5)}.items():  # momentum outlasts v
        adamw = rotsim.AdamW(0.01, (1.0, 0.8, 0.6)[group], betas)
        found[f"fewest weights adamw {name}"] = adamw, (8, 10, 9)[group], ScaleInvariant()
    eps = (0.3, 0.2, 0.1)[group]
    for name in ("adamw", "adam_l2"):
        spec = rotsim.OPTIMIZERS[name](lr=2e-3, weight_decay=(10.0, 7.0, 5.0)[group], betas=(0.9, 0.95))  # type: ignore[call-arg]
        for law in (Isotropic(), Autocorrelated(0.7, scale_invariant=False), Signal(0.1, scale_invariant=False)):
            found[f"eps {name} {law.name}"] = replace(spec, eps=eps), 1024, law  # type: ignore[call-arg]
        spec = rotsim.OPTIMIZERS[name](lr=1e-2, weight_decay=(0.3, 0.1, 0.2)[group], betas=(0.9, 0.99), eps=eps / 2)  # type: ignore[call-arg]
        found[f"eps {name} projected signal"] = spec, 256, Signal((0.3, 0.2, 0.25)[group])
    return found


def _kin() -> dict[str, Case]:
    """NAdamW, AdEMAMix, hyperballs and cautious decay: few and many weights, short and long averages, weak decay."""
    settings: dict[str, tuple[Optimizer, int]] = {}
    for name, beta1, beta2 in (("default", 0.9, 0.99), ("fast", 0.95, 0.9), ("none", 0.0, 0.95)):
        settings |= {
            f"nadamw {name}": (rotsim.NAdamW(0.01, 2.0, (beta1, beta2), momentum_decay=FADING), 14),
            f"ademamix {name}": (rotsim.AdEMAMix(0.01, 3.0, (beta1, beta2, 0.99), 2.0), 32),
            f"cautious adamw {name}": (rotsim.Cautious(rotsim.AdamW(0.01, 1.0, (beta1, beta2))), 512),
            f"hyperball adamw {name}": (rotsim.Hyperball(rotsim.AdamW(0.1, 0.0, (beta1, beta2))), 16),
        }
    settings |= {
        "nadamw many": (rotsim.NAdamW(0.01, 4.0, (0.8, 0.9), momentum_decay=FADING), 1024),
        "nadamw eps": (rotsim.NAdamW(0.01, 3.0, (0.9, 0.95), eps=0.2, momentum_decay=FADING), 256),
        "ademamix many": (rotsim.AdEMAMix(0.01, 2.0, (0.8, 0.9, 0.97), 5.0), 1024),
        "ademamix slow": (rotsim.AdEMAMix(0.01, 2.0, (0.9, 0.95, 0.998), 8.0), 64),
        "ademamix eps": (rotsim.AdEMAMix(0.01, 4.0, (0.9, 0.95, 0.98), 3.0, eps=0.2), 256),
        "hyperball adamw many": (rotsim.Hyperball(rotsim.AdamW(0.05, 0.0, (0.95, 0.9))), 512),
        "hyperball adam_l2 few": (rotsim.Hyperball(rotsim.AdamL2(0.3, 0.0, (0.9, 0.99))), 12),
        "hyperball nadamw few": (rotsim.Hyperball(rotsim.NAdamW(0.1, 0.0, (0.9, 0.99), momentum_decay=FADING)), 12),
        "hyperball sgdm few": (rotsim.Hyperball(rotsim.SGDM(0.2, 0.0, 0.9)), 10),
        "hyperball lion few": (rotsim.Hyperball(rotsim.Lion(0.05, 0.0)), 24),
        "hyperball signum few": (rotsim.Hyperball(rotsim.Signum(0.1, 0.0, 0.9)), 12),
        "cautious adamw strong": (rotsim.Cautious(rotsim.AdamW(0.01, 6.0, (0.9, 0.99))), 512),
        "cautious adamw few": (rotsim.Cautious(rotsim.AdamW(0.01, 2.0, (0.9, 0.99))), 16),
        "cautious nadamw": (rotsim.Cautious(rotsim.NAdamW(0.01, 2.0, (0.9, 0.98), momentum_decay=FADING)), 512),
        "cautious ademamix": (rotsim.Cautious(rotsim.AdEMAMix(0.01, 2.0, (0.9, 0.98, 0.99), 2.0)), 512),
        "cautious lion": (rotsim.Cautious(rotsim.Lion(2e-3, 10.0)), 512),
        "cautious lion strong": (rotsim.Cautious(rotsim.Lion(2e-3, 40.0, (0.9, 0.95))), 512),
        "cautious lion few": (rotsim.Cautious(rotsim.Lion(2e-3, 20.0)), 16),
        "cautious signum": (rotsim.Cautious(rotsim.Signum(2e-3, 15.0, 0.9)), 512),
    }
    laws = {law.name: law for law in (ScaleInvariant(), Isotropic())}
    return {
        f"kin {name}, {law_name}": Case("kin", *setting, law)
        for name, setting in settings.items()
        for law_name, law in laws.items()
    }


def _matrices() -> dict[str, Case]:
    """Muon and its hyperball: square, wide and tall, small and larger, with and without momentum."""
    found = {}
    for rows, dim in ((6, 6), (8, 64), (48, 12), (16, 16), (32, 96), (64, 64)):
        for name, spec in {
            "muon": rotsim.Muon(0.02, 1.0),
            "muon heavy": rotsim.Muon(0.02, 2.0, 0.9, nesterov=False),
            "muon polar": rotsim.Muon(0.02, 1.5, 0.8, ns_coefficients=POLAR_EXPRESS, ns_steps=12),
            "muon none": rotsim.Muon(0.02, 1.0, 0.0),
            "hyperball muon": rotsim.Hyperball(rotsim.Muon(0.2, 0.0)),
            "cautious muon": rotsim.Cautious(rotsim.Muon(0.02, 1.0)),
        }.items():
            law = Isotropic() if rows == 16 else ScaleInvariant()
            found[f"kin {name} {rows}x{dim}"] = Case("kin", spec, dim, law, rows)
    return found


def _departing() -> dict[str, Case]:
    """NAdamW and AdEMAMix under gradients with a memory, a mean and a radial part."""
    found = {}
    for name, optimizer, unit in (
        ("nadamw", rotsim.NAdamW(0.01, 2.0, (0.9, 0.99), momentum_decay=FADING), 0.06),
        ("nadamw short", rotsim.NAdamW(0.01, 1.0, (0.8, 0.9), momentum_decay=FADING), 0.02),
        ("ademamix", rotsim.AdEMAMix(0.01, 2.0, (0.9, 0.99, 0.99), 2.0), 0.01),
        ("ademamix short", rotsim.AdEMAMix(0.01, 1.0, (0.5, 0.9, 0.98), 5.0), 0.002),
    ):
        for law in (
            Autocorrelated(0.7), Autocorrelated(-0.5), Autocorrelated(0.5, scale_invariant=False), Signal(0.1),
            Signal(0.15, scale_invariant=False), Radial(unit),
            Radial(0.3 * optimizer.weight_decay, scale_invariant=False),
        ):  # fmt: skip
            kind = "scale-invariant" if law.scale_invariant else "free"
            strength = getattr(law, "correlation", 0.0)
            found[f"kin {law.name} {name}, {kind}{f' {strength:g}' if strength else ''}"] = Case(
                "kin", optimizer, 512, law
            )
    return found


def _slow() -> dict[str, Case]:
    """AdEMAMix of few weights and more, whose slow average outlasts v: what is declared was not fitted to these."""
    found = {}
    for name, betas, mix, decay, dims in (
        ("brief", (0.8, 0.9, 0.97), 8.0, 0.05, (14, 24, 64)), ("long", (0.9, 0.99, 0.999), 2.0, 0.05, (14, 24, 64)),
        ("default", (0.9, 0.99, 0.99), 5.0, 0.02, (8, 14, 24, 64)), ("half", (0.5, 0.95, 0.98), 3.0, 0.01, (14, 24)),
        ("outlasting", (0.9, 0.95, 0.995), 3.0, 0.02, (40, 64)),
    ):  # fmt: skip
        for dim in dims:
            optimizer = rotsim.AdEMAMix(0.01, decay / 0.01, betas, mix)
            found[f"kin ademamix slow {name} {dim}"] = Case("kin", optimizer, dim, ScaleInvariant())
    return found


def _wide() -> dict[str, Case]:
    """Isotropic noise, few weights: wide angles, and averages that outlast v, under which long steps last."""
    settings: dict[str, tuple[Optimizer, int]] = {
        "sgdm": (rotsim.SGDM(0.1, 5.0, momentum=0.0), 32),
        "signum": (rotsim.Signum(0.1, 5.0, momentum=0.0), 12),
        "adamw even": (rotsim.AdamW(0.1, 8.0, (0.0, 0.9)), 32),
        "adamw strong": (rotsim.AdamW(0.01, 30.0, (0.95, 0.3)), 16),
        "adamw": (rotsim.AdamW(0.01, 3.0, (0.95, 0.3)), 16),
        "adamw many": (rotsim.AdamW(0.01, 3.0, (0.95, 0.3)), 64),
        "adamw long": (rotsim.AdamW(0.01, 5.0, (0.99, 0.5)), 40),
        "adamw spiky": (rotsim.AdamW(0.01, 5.0, (0.95, 0.05)), 24),
        "adamw slight": (rotsim.AdamW(0.01, 20.0, (0.9, 0.6)), 12),
        "adam_l2": (rotsim.AdamL2(0.01, 3.0, (0.95, 0.3)), 12),
        "nadamw": (rotsim.NAdamW(0.01, 10.0, (0.95, 0.4), momentum_decay=FADING), 16),
        "ademamix strong": (rotsim.AdEMAMix(0.01, 30.0, (0.95, 0.3, 0.98), 5.0), 16),
        "ademamix": (rotsim.AdEMAMix(0.01, 3.0, (0.9, 0.5, 0.99), 1.0), 16),
    }
    return {f"wide {name}": Case("kin", *setting, Isotropic()) for name, setting in settings.items()}


def _drawn(seed: int) -> Case:
    """A random hyperball, matrix or cautious decay: what is declared of them was fitted to the other rows of "kin"."""
    generator = np.random.default_rng(seed)
    beta1, beta2 = round(generator.uniform(0, 0.97), 3), round(generator.uniform(0.85, 0.998), 3)
    lr, decay = (round(float(10 ** generator.uniform(*ends)), 4) for ends in ((-2, -0.5), (-2.5, -1.3)))
    dim = int(10 ** generator.uniform(1.05, 2))
    law: Gradient = (ScaleInvariant(), Isotropic())[int(generator.integers(2))]
    inner: tuple[Optimizer, ...] = (
        rotsim.AdamW(lr, decay / lr, (beta1, beta2)), rotsim.Lion(lr, decay / lr, (beta1, beta2)),
        rotsim.Signum(lr, decay / lr, beta1), rotsim.SGDM(lr, decay / lr * (1 - beta1), beta1),
    )  # fmt: skip
    kind = seed % 3
    if kind == 0:
        return Case("kin", rotsim.Hyperball(inner[seed // 3 % 4].with_rates(lr, 0.0)), dim, law)
    if kind == 1:
        return Case("kin", rotsim.Cautious(inner[seed // 3 % 3]), dim, law)
    rows = int(10 ** generator.uniform(0.7, 1.8))
    return Case("kin", rotsim.Muon(lr, decay / lr, beta1, nesterov=seed % 2 == 0), dim, law, rows)


def _remembered(seed: int) -> Case:
    """A random AdamW under gradients of any memory, up to 50 steps."""
    generator = np.random.default_rng(seed)
    betas = float(generator.choice([0.0, 0.5, 0.8, 0.9, 0.95, 0.98])), float(generator.choice([0.9, 0.98, 0.99, 0.999]))
    phi = round(1 - float(10 ** generator.uniform(-1.7, -0.3)), 3)
    lr, decay = (round(float(10 ** generator.uniform(*ends)), 4) for ends in ((-2.7, -1.7), (-2.5, -1.3)))
    return Case("drawn", rotsim.AdamW(lr, decay / lr, betas, eps=0.0), 256, Autocorrelated(phi))


def measure(case: Case, run: dict[str, float], seed: int) -> dict[str, float]:
    """RMS of every quantity over the later windows of a walk, and its standard error over neurons."""
    neurons, every = int(run["neurons"]), int(run["record_every"])
    data = rotsim.simulate(
        case.optimizer, case.dim, neurons, WINDOWS * every, case.gradient, seed=seed,
        initial_norm=run["initial_norm"], record_every=every, engine="numba", rows=case.rows,
    )  # fmt: skip
    found = {}
    for quantity in QUANTITIES:
        square = (data[quantity].values[:, BURNED:] ** 2).mean(axis=1).reshape(-1, case.together).mean(axis=1)
        rms = float(np.sqrt(square.mean()))
        found[quantity] = rms
        found[f"{quantity}_error"] = float(square.std(ddof=1) / np.sqrt(len(square)) / (2 * rms))
    return found


def run_of(case: Case) -> dict[str, float]:
    """Neurons, steps per window and norm at the start of a walk long enough for the slowest memory."""
    state = rotsim.equilibrium(case.optimizer, case.dim, case.gradient, rows=case.rows)
    memories = [1 / (1 - beta) for beta in case.optimizer.averages]
    slowest = max(state.relaxation_steps, *memories, 1 / (1 - abs(getattr(case.gradient, "correlation", 0.0))))
    every = int(np.ceil(slowest / 3))
    neurons = int(np.clip(COORDINATES / (case.dim * case.together * every * WINDOWS), FEWEST, MOST)) * case.together
    if isinstance(case.gradient, Bursts):  # theory averages over the second half of the series
        every, neurons = int(np.ceil(len(case.gradient.series) / WINDOWS)), 64
    norm = 1.0 if np.isnan(state.norm) else state.norm  # a hyperball keeps any
    return {"neurons": neurons, "record_every": every, "initial_norm": float(f"{norm:.6g}")}


def read() -> dict[str, dict[str, float]]:
    """The table: by name of the case its run and what it found."""
    with TABLE.open(newline="") as lines:
        return {row.pop("case"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)}


@click.command(help=__doc__)
@click.argument("words", nargs=-1)
def main(words: tuple[str, ...]) -> None:
    """Measure the cases whose name has one of the words, and those that the table does not have."""
    known = read() if TABLE.exists() else {}
    rows = []
    for number, (name, case) in enumerate(cases().items()):
        row = known.get(name)
        if row is None or any(word in name for word in words):
            click.echo(name)
            run = run_of(case)
            row = {**run, "seed": SEED + number, **measure(case, run, SEED + number)}
        rows.append({"case": name, **{key: f"{value:.7g}" for key, value in row.items()}})
    with TABLE.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
