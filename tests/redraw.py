"""`pytest --redraw 1` draws all noise anew, 2 again: what fails then hangs on its seed, or on a false alarm's chance.

What is seeded in a process of its own is left as it is, and so are tests with the marker `draws`, which are about
stored draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

SHIFT = 40  # bits: other draws than those of small seeds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--redraw", type=int, default=0, metavar="N", help="Draw all noise of the tests anew.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "draws: compares stored draws, which --redraw changes")
    if n := config.getoption("--redraw"):
        _walks(n)
        _numpy(n)
        _torch(n)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--redraw"):
        for item in items:
            if item.get_closest_marker("draws"):
                item.add_marker(pytest.mark.skip("is about stored draws"))


def _replace(old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """In every module that has the function by its name, and those that import it later."""
    for module in list(sys.modules.values()):
        if vars(module).get(old.__name__) is old:
            setattr(module, old.__name__, new)


def _walks(n: int) -> None:
    import rotsim.noise

    keys = rotsim.noise.neuron_keys
    _replace(keys, lambda seed, neurons, stream: keys(seed ^ n << SHIFT, neurons, stream))


def _numpy(n: int) -> None:
    rng = np.random.default_rng

    def default_rng(seed: Any = None) -> np.random.Generator:
        return rng([*np.atleast_1d(seed), n] if isinstance(seed, int | list) else seed)

    np.random.default_rng = default_rng


def _torch(n: int) -> None:
    try:
        import torch
    except ImportError:
        return
    seeded = torch.manual_seed

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            super().manual_seed(seed ^ n << SHIFT)
            return self

    torch.Generator = Generator
    _replace(seeded, lambda seed: seeded(seed ^ n << SHIFT))
