"""What a trace holds of a window, by name and in order; known without PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Per-neuron results of a window, in the order of the rows of the running sums.
VARIABLES = (
    "norm",
    "rotation",
    "update_rms",
    "gradient_norm",
    "gradient_scale",
    "gradient_cosine",
    "gradient_burst",
    "active",
    "radial",
    "stable_rank",
)
#: What is kept of a window's rates, in this order, and in words.
WINDOW_RATES = {
    "lr_start": "learning rate at the first look in the window",
    "weight_decay_start": "weight decay at the first look in the window",
    "lr": "learning rate last in force",
    "weight_decay": "weight decay last in force",
    "beta1": "momentum or first beta last in force",
    "beta2": "second beta last in force",
    "lr_mean": "mean learning rate over the looks in the window",
    "weight_decay_mean": "mean weight decay over the looks in the window",
    "lr_rms": "root mean square of the learning rate over the looks in the window",
    "weight_decay_rms": "root mean square of the weight decay over the looks in the window",
}
STARTS, MEANS = slice(0, 2), slice(6, 8)  # those of the first look, and means over looks; the rest after them are RMS
ERAS = 16  # parts of a run, at most, in which sampled gradients are averaged


def variables_of(values: np.ndarray) -> dict[str, np.ndarray]:
    """By name, what windows (len(VARIABLES), ...) hold; the stable rank where a spectral update has one."""
    found = dict(zip(VARIABLES, values, strict=True))
    return {name: value for name, value in found.items() if name != "stable_rank" or np.isfinite(value).any()}


def window_rates(rates: np.ndarray) -> dict[str, Any]:
    """What was in force in each window, (len(WINDOW_RATES), parameters, windows), as variables of a trace."""
    return {
        f"window_{name}": (("parameter", "step"), values, {"long_name": words, "units": "1"})
        for (name, words), values in zip(WINDOW_RATES.items(), rates, strict=True)
    }
