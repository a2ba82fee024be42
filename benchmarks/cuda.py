"""Coordinate-steps per second on a GPU: the CUDA engine, the CPU engine on all cores, PyTorch on the same GPU.

    python -m benchmarks.cuda [--output benchmarks/results/cuda.json]

AdamW, scale-invariant noise, dim 1024, float32, norm and angle recorded at every step, as in
`benchmarks.peers`, with enough neurons to fill the GPU. Runs take turns; the median counts.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numba import cuda

import rotsim
from benchmarks import rules
from rotsim.dataset import provenance
from rotsim.files import to_json, write_atomically


def walk(engine: Any, dim: int) -> Callable[[int, int], object]:
    options = dict(dim=dim, record_every=1, engine=engine)
    return lambda neurons, steps: rotsim.simulate(rules.OPTIMIZERS["AdamW"], neurons=neurons, steps=steps, **options)


def torch_walk(dim: int, compiled: bool) -> Callable[[int, int], object]:
    import torch

    step = rules.step("AdamW", True, torch)
    one = torch.compile(step) if compiled else step

    @torch.no_grad()
    def run(neurons: int, steps: int) -> None:
        w = torch.nn.functional.normalize(torch.randn(neurons, dim, device="cuda"))
        m, v, norm = torch.zeros_like(w), torch.zeros_like(w), torch.ones(neurons, device="cuda")
        records = torch.empty(steps, 2, neurons, device="cuda")
        size, root = (torch.from_numpy(factor).cuda() for factor in rules.factors("AdamW", steps))
        for k in range(steps):
            w, m, v, norm, records[k, 1] = one(w, m, v, norm, torch.randn_like(w), size[k], root[k])
            records[k, 0] = norm
        records.cpu()

    return run


@click.command()
@click.option("--dim", default=1024, show_default=True)
@click.option("--neurons", default=1024, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(dim: int, neurons: int, rounds: int, output: Path | None) -> None:
    """Print coordinate-steps per second of each program, and its share of the CUDA engine's."""
    if not cuda.is_available():
        raise click.ClickException("numba finds no GPU: nothing to measure")
    programs = {"rotsim, cuda": (walk("cuda", dim), 10_000), "rotsim, CPU": (walk("numba", dim), 200)}
    try:
        programs["PyTorch eager"] = torch_walk(dim, False), 500
        programs["torch.compile"] = torch_walk(dim, True), 500
    except ImportError as error:
        print(f"PyTorch: left out ({error})")
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program, steps in programs.values():
        program(neurons, steps)  # compile
    for _ in range(rounds):
        for name, (program, steps) in programs.items():
            start = time.perf_counter()
            program(neurons, steps)
            seconds[name].append((time.perf_counter() - start) / steps)
    rate = {name: dim * neurons / float(np.median(each)) for name, each in seconds.items()}
    device = cuda.get_current_device().name
    device = device.decode() if isinstance(device, bytes) else device
    print(f"{device}, {os.cpu_count()} CPU cores; {neurons} neurons, dim {dim}, float32, median of {rounds}")
    for name, value in rate.items():
        print(f"{name:<16}{value:>12.3g} coordinate-steps / s {value / rate['rotsim, cuda']:>8.4f}")
    if output:
        content = {
            "coordinate_steps_per_second": rate,
            "device": device,
            "provenance": provenance(cores=os.cpu_count()),
        }
        write_atomically(output, to_json(content))


if __name__ == "__main__":
    main()
