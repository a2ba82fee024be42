"""The rotational optimizers on a GPU against the same on the CPU: `python -m experiments.gpu.turn`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from rotsim.dataset import provenance
from rotsim.files import to_json, write_atomically
from rotsim.measure import Rotated, RotationalAdamW, RotationalLion, RotationalSGDM

#: Largest difference of a weight, over its size, that rounding explains over some steps.
ALLOWED = {torch.float32: 3e-5, torch.float64: 1e-11}
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"per_neuron": False}, {"zero_mean": False})
_SHAPES = ((3, 8), (5, 8), (2, 9), (6, 4, 3, 3), (2, 20_000), (7,))


def _rotated(parameters: list[torch.nn.Parameter], **options: Any) -> Rotated:
    first: torch.Tensor = parameters[0]
    factors = {first: torch.arange(float(len(first)))} if options.get("per_neuron", True) else None
    inner = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)
    return Rotated(inner, 0.4, factors=factors, **options)  # beyond the series of sine and cosine


MAKE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "RotationalAdamW": lambda p, **o: RotationalAdamW(p, lr=1e-2, weight_decay=0.5, **o),
    "RotationalSGDM": lambda p, **o: RotationalSGDM(p, lr=0.1, weight_decay=0.1, **o),
    "RotationalSGDM, Nesterov": lambda p, **o: RotationalSGDM(p, lr=0.1, weight_decay=0.1, nesterov=True, **o),
    "RotationalSGDM, no momentum": lambda p, **o: RotationalSGDM(p, lr=0.1, weight_decay=0.1, momentum=0.0, **o),
    "RotationalLion": lambda p, **o: RotationalLion(p, lr=1e-3, weight_decay=1.0, **o),
    "Rotated(SGD)": _rotated,
}
KINDS = tuple(MAKE)


def course(
    name: str, dtype: torch.dtype, options: dict[str, Any], steps: int, device: str = "cpu"
) -> list[torch.Tensor]:
    """Weights after so many steps on white noise, and the running means of their updates."""
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draw).to(device, dtype) for shape in _SHAPES]
    start[3] = start[3].to(memory_format=torch.channels_last)
    parameters = [torch.nn.Parameter(weights) for weights in start]
    optimizer = MAKE[name](parameters, **options)
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=draw).to(parameter)
        optimizer.step()
    means = [optimizer.state[p]["update_norm_squared"] for p in parameters[:-1]]
    return [x.detach().cpu() for x in (*parameters, *means)]


def difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest between two courses, of each tensor over its RMS."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max() / a.square().mean().sqrt()) for a, b in pairs)


def deviations(device: str, steps: int = 20) -> list[dict[str, Any]]:
    """That between a device and the CPU, for every optimizer, option and format."""
    rows = []
    for name in KINDS:
        for options in OPTIONS:
            for dtype, allowed in ALLOWED.items():
                found = difference(course(name, dtype, options, steps), course(name, dtype, options, steps, device))
                kind = {"optimizer": name, **options, "dtype": str(dtype).rpartition(".")[2]}
                rows.append({**kind, "deviation": found, "allowed": allowed})
    return rows


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the deviations.")
def main(device: str, output: Path | None) -> None:
    """Print every deviation; exit code 1 if one is more than rounding, or Triton does not work here."""
    from rotsim.measure.gpu import available

    rows = deviations(device)
    for row in rows:
        click.echo("  ".join(f"{value:.2g}" if isinstance(value, float) else f"{value}" for value in row.values()))
    if output:
        write_atomically(output, to_json({"deviations": rows, "provenance": provenance()}))
    if wrong := [row for row in rows if not row["deviation"] <= row["allowed"]]:
        raise SystemExit(f"more than rounding: {wrong}")
    if not available(torch.device(device)):
        raise SystemExit("Triton does not work here; the turn was that of plain PyTorch")


if __name__ == "__main__":
    main()
