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
NAMES = (*_CLASSES, "muon")
_OUTER = ("head", "token", "position")  # matrices that Muon's authors leave to AdamW begin so
_SLOWER = 10  # times smaller is AdamW's learning rate than Muon's, and larger its decay: their product is the same


class MuonAdamW(torch.optim.Optimizer):
    """torch.optim.Muon for groups of the kind "muon" and AdamW for those of the kind "adamw", as one optimizer."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})
        kinds = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}
        self._parts = [kinds[group["kind"]]([group]) for group in self.param_groups]
        for part in self._parts:
            part.state = self.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self._parts:
            part.step()


def muon_and_adamw(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    beta2: float,
    rates: tuple[float, float] | None = None,
    left_out: tuple[str, ...] = _OUTER,
) -> MuonAdamW:
    """Muon for the inner matrices, AdamW for the rest; without decay where no matrix is.

    `lr` and `weight_decay` are Muon's. `rates` are AdamW's; None stands for the same product. Names of its
    matrices begin with one of `left_out`.
    """
    lr_of_adamw, its_decay = rates or (lr / _SLOWER, weight_decay * _SLOWER)
    named = list(model.named_parameters())
    inner = [p for name, p in named if p.ndim == 2 and not name.startswith(left_out)]
    outer = [p for name, p in named if p.ndim >= 2 and name.startswith(left_out)]
    adamw = {"kind": "adamw", "lr": lr_of_adamw, "betas": (0.9, beta2)}
    return MuonAdamW(
        [
            {"kind": "muon", "params": inner, "lr": lr, "weight_decay": weight_decay},
            {**adamw, "params": outer, "weight_decay": its_decay},
            {**adamw, "params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ]
    )


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float, beta2: float, **options: Any
) -> torch.optim.Optimizer:
    """One of `NAMES`; matrices are decayed, biases, gains and norms are not.

    `beta2` is the Adams', whose first β is 0.9, as is the momentum of SGDM; Lion has its defaults. "muon" is
    `muon_and_adamw`.
    """
    if name == "muon":
        return muon_and_adamw(model, lr, weight_decay, beta2)
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
