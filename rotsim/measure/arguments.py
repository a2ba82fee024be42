"""Arguments that PyTorch takes: parameters, their groups and saved states, held to rules before a step needs them."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rotsim.errors import InvalidInput, mapping, shown_error

_PARAMETERS = "be tensors, (name, tensor) pairs or parameter groups as torch.optim takes them"
STATE_RULE = "be what `state_dict` of such an optimizer returned, for parameters of the same shapes"
_TWICE = ".*duplicate parameters"  # of which PyTorch warns; each would be moved twice a step


#: What may stand in a parameter group beside an optimizer's hyperparameters: names, what schedulers and other packages
#: leave there, and the options of torch's optimizers, of which `rotation_step.refuse` takes some for errors.
_ALSO_IN_GROUPS = (
    "params", "param_names", "name", "group_name", "initial_lr", "max_lr", "min_lr", "lr_scale", "max_momentum",
    "base_momentum", "foreach", "fused", "capturable", "differentiable", "maximize", "amsgrad", "nesterov", "dampening",
)  # fmt: skip


@contextmanager
def taken_by_torch(name: str, rule: str = _PARAMETERS) -> Iterator[None]:
    """Turn an exception of PyTorch about the argument `name`, or its warning of duplicates, into `InvalidInput`."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", _TWICE, UserWarning)
            yield
    except InvalidInput:
        raise
    except Exception as error:  # TypeError, ValueError, KeyError, or what an object of the caller raises
        raise InvalidInput(f"`{name}` must {rule}: {shown_error(error)}") from error


class CheckedOptimizer(torch.optim.Optimizer):
    """A PyTorch optimizer that checks each parameter group when it is added or loaded, and each state when loaded."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        with taken_by_torch("params"):
            super().__init__(params, defaults)

    @abstractmethod
    def check(self, group: dict[str, Any]) -> None:
        """Raise `InvalidInput` if a hyperparameter of a group is out of range."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; what it does not set comes from the constructor.

        Parameters
        ----------
        param_group : dict
            With ``params``, and any hyperparameter of the constructor.

        Raises
        ------
        InvalidInput
            If it is no group, or a hyperparameter is out of range.
        """
        with taken_by_torch("params"):
            known = (*self.defaults, *_ALSO_IN_GROUPS)
            self.check({**self.defaults, **mapping("param_group", param_group, known)})
            super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; nothing is changed if it does not fit.

        Raises
        ------
        InvalidInput
            If it is no state of such an optimizer, a hyperparameter is out of range, or a shape is another.
        """
        with taken_by_torch("state_dict", STATE_RULE):
            check_state(self, state_dict)
            for group in state_dict["param_groups"]:
                if missing := sorted(self.defaults.keys() - group.keys()):
                    raise ValueError(f"a group lacks {', '.join(missing)}; it is of another optimizer")
                self.check(group)
            super().load_state_dict(state_dict)


def check_state(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
    """Raise an exception if a saved state holds tensors of other shapes than the parameters need, or no tensors.

    Kernels find averages by their address, so that a shape that is wrong would be read beyond its end.
    """
    groups = mapping("state_dict", state_dict)["param_groups"]
    if len(groups) != len(optimizer.param_groups):
        raise ValueError(f"it has {len(groups)} parameter groups, the optimizer has {len(optimizer.param_groups)}")
    for saved, own in zip(groups, optimizer.param_groups, strict=True):
        if len(saved["params"]) != len(own["params"]):
            raise ValueError(f"a group has {len(saved['params'])} parameters, the optimizer's has {len(own['params'])}")
        for index, parameter in zip(saved["params"], own["params"], strict=True):
            for name, part in state_dict["state"].get(index, {}).items():
                _check_part(name, part, parameter)


def _check_part(name: str, part: Any, parameter: torch.Tensor) -> None:
    if name == "rotation_step":
        fits = type(part) is int and part >= 0
    elif name in ("norm", "update_norm_squared"):  # one for each row, or one for the whole weight
        fits = isinstance(part, torch.Tensor) and part.shape in ((1,), parameter.shape[:1]) and not part.is_complex()
    elif name.startswith("exp_avg") or name == "momentum_buffer":
        fits = isinstance(part, torch.Tensor) and part.shape == parameter.shape
    elif name == "step":
        fits = isinstance(part, int | float | torch.Tensor) and float(part) >= 0
    else:  # of another optimizer; nothing here reads it
        fits = True
    if not fits:
        shape = tuple(part.shape) if isinstance(part, torch.Tensor) else type(part).__name__
        raise ValueError(f"its {name!r}, {shape}, does not belong to a parameter of shape {tuple(parameter.shape)}")
