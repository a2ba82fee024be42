"""Regimes: where a run settles, where the paper's formula ends, where number formats lose the decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.errors import array, integer
from rotsim.gradients import Gradient, ScaleInvariant
from rotsim.sweeps.run import sweep

if TYPE_CHECKING:
    import xarray as xr

#: A decay lr·weight_decay below it changes no weight of the format: 1 minus it rounds to 1.
LOST_DECAY = {"float32": 2.0**-25, "bfloat16": 2.0**-9}
NOTABLE = 0.05  # a map marks a rest of the transient or an error of a formula that is relatively larger


def regimes(
    spec: Any,
    over: Mapping[str, Any],
    dim: int = 1024,
    gradient: Gradient | None = None,
    steps: int | None = None,
    rows: int | None = None,
    **fixed: Any,
) -> xr.Dataset:
    """Equilibrium over a grid, and what keeps a training from it.

    Parameters
    ----------
    spec : type of Optimizer, or Optimizer
    over, fixed
        As in `rotsim.sweep`.
    dim : int
        Fan-in C >= 2.
    gradient : Gradient, optional
        Default `rotsim.ScaleInvariant()`. Where another one is given, its effect on the rotation is a variable.
    steps : int, optional
        Length of a run, >= 1.
    rows : int, optional
        Neurons of one matrix, >= 2; left out for an optimizer that acts on no matrices.

    Returns
    -------
    Dataset
        What `rotsim.sweep` gives, and

        ``decay``: share of the weights that decoupled decay takes in a step, lr·weight_decay. Decay that is part of the
        gradient is not rounded by itself.

        ``leading_error``: relative error of the paper's norm or rotation, the larger.

        ``transient``: share of a deviation of ‖w‖² that is left after `steps`.

        ``departure``: relative change of the rotation by what is not white noise in `gradient`.

    Raises
    ------
    InvalidInput
        As `rotsim.sweep` does.
    """
    import xarray as xr

    noise = ScaleInvariant() if gradient is None else gradient
    if rows is not None and "rows" not in over and spec.acts_on == "matrix":
        fixed["rows"] = rows
    found = sweep(spec, over, gradient=noise, dim=dim, **fixed)
    paper = sweep(spec, over, "leading", dim=dim, **fixed)
    if spec.decay == "decoupled":
        rates: dict[str, Any] = {name: fixed.get(name, getattr(spec, name, None)) for name in ("lr", "weight_decay")}
        for name in rates:
            if name in found.coords:
                array(f"over[{name!r}]", found[name].values, "be numbers")
                rates[name] = found[name]
        found["decay"] = (rates["lr"] * rates["weight_decay"]) + xr.zeros_like(found["norm"].fillna(0))
    plain = found if isinstance(noise, ScaleInvariant) else sweep(spec, over, dim=dim, **fixed)
    errors = [np.abs(paper[name] / plain[name] - 1) for name in ("norm", "rotation")]
    found["leading_error"] = np.fmax(*errors)
    if steps is not None:
        found["transient"] = np.exp(-integer("steps", steps, low=1) / found["relaxation_steps"])
    if plain is not found:
        found["departure"] = np.abs(found["rotation"] / plain["rotation"] - 1)
    return found
