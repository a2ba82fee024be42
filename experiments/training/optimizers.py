"""PyTorch's optimizers by rotsim's names, with one rule for what is decayed."""

from typing import Any

import torch
from torch import nn

from rotsim.errors import InvalidInput
from rotsim.measure import Lion, RotationalAdamW, RotationalLion, RotationalSGDM

_CLASSES: dict[str, Any] = {
    "adamw": torch.optim.AdamW,
    "adam_l2": torch.optim.Adam,
    "sgdm": torch.optim.SGD,
    "lion": Lion,
    "rotational_adamw": RotationalAdamW,
    "rotational_sgdm": RotationalSGDM,
    "rotational_lion": RotationalLion,
}
NAMES = tuple(_CLASSES)


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, beta2: float, **options: Any
) -> torch.optim.Optimizer:
    """One of `NAMES`; matrices are decayed, biases, gains and norms are not.

    `beta2` is the Adams', whose first β is 0.9, as is the momentum of SGDM; Lion has its defaults.
    """
    if name not in _CLASSES:
        raise InvalidInput(f"optimizer {name!r} is unknown; choose from {', '.join(NAMES)}")
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    if "adam" in name:
        options["betas"] = (0.9, beta2)
    if name == "sgdm":
        options["momentum"] = 0.9
    return _CLASSES[name](groups, lr=lr, **options)
