"""What every optimizer does with the closure of ``step``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rotsim.errors import function


def evaluate(closure: Callable[[], Any] | None) -> Any:
    """Loss of a closure, computed with gradients on; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return function("closure", closure, "without arguments", 0)()
