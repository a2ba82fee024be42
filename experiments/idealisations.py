"""What the theory idealises, each given up by itself, little by little: the axes of `experiments.validity`."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import rotsim
from experiments.radial import pull
from rotsim.gradients import Gradient
from rotsim.optimizers.base import Optimizer

DIM = 128
ROTATION = 0.02
INVARIANT, WHITE = rotsim.ScaleInvariant(), rotsim.Isotropic()


@dataclass(frozen=True)
class Setting:
    """What is simulated, and the gradient model that the prediction is made for."""

    optimizer: Optimizer
    gradient: Gradient
    assumed: Gradient = INVARIANT
    dim: int = DIM
    neurons: int = 32
    steps: int = 6000  # at least
    independent: bool = True


@dataclass(frozen=True)
class Axis:
    """One idealisation, given up along `values` from harmless to harsh; `severity` puts them on an increasing scale."""

    title: str
    symbol: str
    values: tuple[float, ...]
    setting: Callable[[str, float], Setting | None]
    severity: Callable[[float], float] = lambda value: value
    text: Callable[[float], str] = lambda value: f"{float(f'{value:.2g}'):g}"


def planned(name: str, dim: int = DIM, gradient: Gradient = INVARIANT) -> Optimizer:
    """An optimizer that has this rotation at norm 1 in equilibrium."""
    return rotsim.plan(name, rotation=ROTATION, norm=1.0, dim=dim, gradient=gradient).optimizer


def _of_gradient(model: Callable[[float], Gradient], assumed: Gradient = INVARIANT) -> Callable[[str, float], Setting]:
    return lambda name, value: Setting(planned(name, gradient=assumed), model(value), assumed)


def _bursts(name: str, spread: float) -> Setting:
    """Log-normal factors of mean square 1, anew at each step; all neurons have the same, so only time averages."""
    factors = np.exp(spread * np.random.default_rng(7).standard_normal(200_000) - spread**2)
    return Setting(planned(name), rotsim.Bursts(factors), neurons=8, steps=120_000, independent=False)


def simple_system(name: str, batch: float) -> Setting:
    """Outputs of a batch of B have B-1 degrees of freedom, and the gradient B-2 times C-1, so E‖g̃‖² is known."""
    b, dim = int(batch), 32
    scale = np.sqrt((b - 2) * dim / (b * (b - 3)))
    return Setting(planned(name, dim), rotsim.SimpleSystem(b), rotsim.ScaleInvariant(scale), dim, neurons=24)


def _narrow(name: str, fan_in: float) -> Setting:
    dim = int(fan_in)
    return Setting(planned(name, dim), INVARIANT, dim=dim, neurons=32 * max(1, DIM // dim))


def _pulled(name: str, share: float) -> Setting:
    optimizer = planned(name)
    return Setting(optimizer, rotsim.Radial(share * optimizer.weight_decay / pull(optimizer, DIM, 1.0)))


def _second_moment(name: str, beta2: float) -> Setting | None:
    if name == "sgdm":
        return None
    optimizer = planned(name)
    return Setting(replace(optimizer, betas=(optimizer.betas[0], beta2)), INVARIANT)  # type: ignore[attr-defined,call-arg]


def _stabilised(name: str, eps: float) -> Setting | None:
    if name not in ("adamw", "adam_l2"):
        return None
    return Setting(replace(planned(name, gradient=WHITE), eps=eps), WHITE, WHITE)  # type: ignore[call-arg]


def _decayed(name: str, decay: float) -> Setting:
    lr = 0.1 if name == "sgdm" else 0.01
    return Setting(rotsim.OPTIMIZERS[name](lr=lr, weight_decay=decay / lr), WHITE, WHITE)


AXES = (
    Axis("persistent mean, scale-invariant", "mean / std of a gradient",
         (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 4), _of_gradient(lambda ratio: rotsim.Signal(ratio))),
    Axis("persistent mean, not scale-invariant", "mean / std of a gradient",
         (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.1, 0.3, 1),
         _of_gradient(lambda ratio: rotsim.Signal(ratio, scale_invariant=False), WHITE)),
    Axis("radial gradient", "P / weight decay", (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2), _pulled),
    Axis("positive autocorrelation", "correlation of neighbours",
         (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9), _of_gradient(lambda c: rotsim.Autocorrelated(c))),
    Axis("negative autocorrelation", "correlation of neighbours",
         (-0.01, -0.03, -0.05, -0.1, -0.2, -0.3, -0.5, -0.7, -0.9),
         _of_gradient(lambda c: rotsim.Autocorrelated(c)), abs),
    Axis("bursts", "std of log gradient scale", (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.4), _bursts),
    Axis("heavy tails", "Student's degrees of freedom", (100, 50, 30, 20, 10, 6, 4, 3, 2.5),
         _of_gradient(lambda nu: rotsim.StudentT(nu)), lambda nu: 1 / nu),
    Axis("small fan-in", "fan-in C", (512, 256, 128, 64, 32, 16, 8, 4, 3), _narrow, lambda dim: 1 / dim),
    Axis("small batch, simple system", "batch size B", (64, 32, 24, 16, 12, 8, 6, 5, 4),
         simple_system, lambda b: 1 / b),
    Axis("fast second moment", "β2", (0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.5), _second_moment,
         lambda beta2: 1 - beta2, lambda beta2: f"{1 - float(f'{1 - beta2:.2g}'):g}"),
    Axis("large ε", "ε / std of a gradient", (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 10), _stabilised),
    Axis("strong decay", "lr · wd", (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.2, 0.3), _decayed),
)  # fmt: skip
