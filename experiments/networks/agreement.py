"""How well a recorded network agrees with the paper's leading-order formulas, layer by layer.

The formulas are written out here rather than taken from `rotsim.theory`, so that theory and traces can
be checked against each other (Kosson et al. 2024, table 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import numpy as np
import xarray as xr

from rotsim.dataset import optimizer_of, spec_of
from rotsim.errors import InvalidInput
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion, Optimizer


@dataclass(frozen=True)
class LayerAgreement:
    """Measured over predicted for the active neurons of one layer.

    ``rotation``, ``norm`` are medians of the ratio. ``within_5``, ``within_10`` are the shares of neurons whose
    rotation is within 5 % and 10 % of the prediction. ``spread`` is std/mean of the measured rotation.
    """

    layer: str
    scale_invariant: bool
    neurons: int
    inactive: int
    rotation: float
    within_5: float
    within_10: float
    norm: float
    spread: float


def leading_equilibrium(
    optimizer: Optimizer, fan_in: np.ndarray, gradient_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (radians) and norm at equilibrium, per neuron, for scale-invariant weights.

    Parameters
    ----------
    optimizer : Optimizer
    fan_in : ndarray, shape (neurons,)
    gradient_scale : ndarray, shape (neurons,)
        RMS of ‖g‖‖w‖; SGDM's norm and all of Adam+L2 depend on it.
    """
    lr, decay = optimizer.lr, optimizer.weight_decay
    if isinstance(optimizer, AdamW):
        beta = optimizer.betas[0]
        return _all(sqrt(2 * lr * decay * (1 - beta) / (1 + beta)), fan_in), np.sqrt(lr * fan_in / (2 * decay))
    if isinstance(optimizer, SGDM):
        momentum = optimizer.momentum
        norm = (lr * gradient_scale**2 / (2 * decay * (1 - momentum))) ** 0.25
        return _all(sqrt(2 * lr * decay / (1 + momentum)), fan_in), norm
    if isinstance(optimizer, Lion):
        beta1, beta2 = optimizer.betas
        smoothing = sqrt((1 - beta1) ** 2 + beta1**2 * (1 - beta2) / (1 + beta2))
        return _all(sqrt(pi * lr * decay) * smoothing, fan_in), np.sqrt(lr * fan_in / (pi * decay)) / smoothing
    if isinstance(optimizer, AdamL2):
        beta = optimizer.betas[0]
        norm = (lr * np.sqrt(fan_in) * gradient_scale / (2 * decay)) ** (1 / 3)
        return lr * np.sqrt(fan_in) / norm * sqrt((1 - beta) / (1 + beta)), norm
    raise InvalidInput(f"no leading-order formula is written out here for {optimizer.describe()}")


def agreement(trace: xr.Dataset, last: float = 0.5) -> list[LayerAgreement]:
    """Compare the last part of a trace, layer by layer, with `leading_equilibrium`.

    Parameters
    ----------
    trace : Dataset
        With source ``"trace"`` and constant hyperparameters.
    last : float
        Share of the windows that is averaged.
    """
    invariant = spec_of(trace).get("scale_invariant_layers", [])
    windows = trace.sizes["step"]
    settled = trace.isel(step=slice(windows - max(1, round(last * windows)), None))
    rms: Any = np.sqrt((settled[["norm", "rotation", "gradient_scale"]] ** 2).mean("step"))
    active = (settled["active"] > 0).any("step").values
    rotation, norm = leading_equilibrium(optimizer_of(trace), trace["fan_in"].values, rms["gradient_scale"].values)
    layers = []
    for layer in dict.fromkeys(trace["layer"].values.tolist()):
        here = trace["layer"].values == layer
        chosen = here & active
        measured = rms["rotation"].values[chosen].astype(float)
        ratio = measured / rotation[chosen]
        layers.append(
            LayerAgreement(
                layer=layer,
                scale_invariant=layer in invariant,
                neurons=int(here.sum()),
                inactive=int((here & ~active).sum()),
                rotation=float(np.median(ratio)),
                within_5=float(np.mean(np.abs(ratio - 1) < 0.05)),
                within_10=float(np.mean(np.abs(ratio - 1) < 0.1)),
                norm=float(np.median(rms["norm"].values[chosen] / norm[chosen])),
                spread=float(measured.std() / measured.mean()),
            )
        )
    return layers


def _all(value: float, like: np.ndarray) -> np.ndarray:
    return np.full(like.shape, value)
