"""The CUDA engine against the CPU engine under every optimizer and noise model: `python -m experiments.gpu.engine`.

Both draw the same noise from the same counters, so the walks differ by the rounding of sums and fused multiply-adds
alone. A negative control, on another seed, must differ by far more.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np

import rotsim
from rotsim.dataset import QUANTITIES, provenance
from rotsim.files import to_json, write_atomically
from rotsim.gradients import Gradient
from rotsim.optimizers.base import Optimizer

#: Largest relative deviation of a record that rounding explains over 1000 steps.
ALLOWED = {"float32": 1e-3, "float64": 1e-9}
DIMS = 333, 6000  # of neurons that the GPU keeps in registers, and in its memory
GRADIENTS = {"isotropic": rotsim.Isotropic(0.7), "scale invariant": rotsim.ScaleInvariant(1.3)}


def deviation(
    optimizer: Optimizer,
    gradient: Gradient,
    dtype: str,
    *,
    engines: tuple[str, str] = ("cuda", "numba"),
    seeds: tuple[int, int] = (0, 0),
    dim: int = DIMS[0],
    neurons: int = 20,
    steps: int = 1000,
) -> float:
    """Largest relative difference between the records of two engines, over all quantities, neurons and windows."""
    options: dict[str, Any] = {"dim": dim, "neurons": neurons, "steps": steps, "gradient": gradient, "dtype": dtype}
    one, other = (
        rotsim.simulate(optimizer, engine=engine, seed=seed, **options)
        for engine, seed in zip(engines, seeds, strict=True)
    )
    return max(float(np.abs(one[name].values / other[name].values - 1).max()) for name in QUANTITIES)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the deviations.")
def main(output: Path | None) -> None:
    """Print every deviation; exit code 1 if one is more than rounding, or the control is not."""
    rows, wrong = [], []
    for name, spec in rotsim.OPTIMIZERS.items():
        if spec.acts_on == "matrix":  # which the engine does not have
            continue
        optimizer = spec.examples()[0]
        for noise, gradient in GRADIENTS.items():
            for (dtype, allowed), dim in product(ALLOWED.items(), DIMS):
                found = deviation(optimizer, gradient, dtype, dim=dim)
                setting = {"optimizer": name, "gradient": noise, "dtype": dtype, "dim": dim}
                rows.append({**setting, "deviation": found, "allowed": allowed})
                click.echo(f"{name:<10}{noise:<16}{dtype:<9}{dim:<6}{found:>10.2g}  (at most {allowed:g})")
                if not found <= allowed:
                    wrong.append(f"{name} {noise} {dtype} {dim}")
    control = deviation(rotsim.AdamW(1e-2, 0.1), GRADIENTS["isotropic"], "float32", seeds=(0, 1))
    click.echo(f"{'another seed':<41}{control:>10.2g}  (must be more)")
    if not control > ALLOWED["float32"]:
        wrong.append("another seed")
    if output:
        write_atomically(output, to_json({"deviations": rows, "another_seed": control, "provenance": provenance()}))
    if wrong:
        raise SystemExit(f"more than rounding: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
