"""Is the cost of the walk flat in dim and linear in neurons, steps and cores? One figure, one JSON.

    python -m benchmarks.scaling [--output benchmarks/results]

Each point is the best of several runs of the public `simulate`, which take turns. The first three
panels show CPU time on one thread, which other users of the machine cannot bend. The last shows
wall time, which they can.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import rotsim
from benchmarks.processor import processor
from rotsim.dataset import provenance
from rotsim.files import output_folder, to_json, write_atomically
from rotsim.show.plotting import save_figure

OPTIMIZERS = {
    "AdamW": rotsim.AdamW(1e-2, 0.1),
    "Adam+L2": rotsim.AdamL2(1e-3, 0.05),
    "SGDM": rotsim.SGDM(0.1, 1e-2),
    "Lion": rotsim.Lion(1e-3, 1.0),
}
CORES = os.cpu_count() or 1
WORK = 1 << 26  # coordinate-steps of one run: some 50 ms
PANELS: dict[str, list[int]] = {
    "dim": [64, 256, 1024, 4096, 16384],
    "neurons": [CORES, 4 * CORES, 16 * CORES, 64 * CORES],
    "steps": [2000, 8000, 32_000],
    "threads": list(range(1, CORES + 1)),
}


def run(panel: str, value: int, optimizer: Any) -> float:
    """Nanoseconds per coordinate-step of one run."""
    options = {"dim": 1024, "neurons": 16, "threads": 1, panel: value}
    work = WORK * (4 if panel == "threads" else 1)  # the start of a run takes milliseconds of one thread
    options.setdefault("steps", max(100, work // (options["dim"] * options["neurons"])))
    clock = time.perf_counter if panel == "threads" else time.process_time
    start = clock()
    rotsim.simulate(optimizer, engine="numba", **options)
    return (clock() - start) / (options["dim"] * options["neurons"] * options["steps"]) * 1e9


def measure(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Best cost of every point: panel -> optimizer -> one value per point."""
    result: dict[str, dict[str, list[float]]] = {}
    for panel, values in PANELS.items():
        best = {name: np.full(len(values), np.inf) for name in OPTIMIZERS}
        for _ in range(rounds):
            for name, optimizer in OPTIMIZERS.items():
                for k, value in enumerate(values):
                    best[name][k] = min(best[name][k], run(panel, value, optimizer))
        result[panel] = {name: costs.round(4).tolist() for name, costs in best.items()}
    return result


def figure(result: dict[str, dict[str, list[float]]], where: str) -> plt.Figure:
    """Cost per coordinate-step against each quantity, on the processor called `where`."""
    fig, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.4), sharey=True, layout="constrained")
    fig.suptitle(f"A step of one weight in float32, {where}: 16 neurons of 1024 weights unless the axis says otherwise")
    for ax, (panel, values) in zip(axes, PANELS.items(), strict=True):
        ax.set_title("wall time" if panel == "threads" else "CPU time of one thread", fontsize="medium")
        for name, costs in result[panel].items():
            ax.plot(values, costs, "o-", label=name)
        ax.set(xscale="log", xlabel=panel, xticks=values, xticklabels=values)
        ax.minorticks_off()
    axes[0].set(ylabel="ns per coordinate-step", ylim=(0, None))
    axes[0].legend()
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    folder = output_folder(chosen.output, "scaling.json", "scaling.png")
    result = measure(chosen.rounds)
    for panel, values in PANELS.items():
        print(f"{panel:<10}" + "".join(f"{value:>9}" for value in values))
        for name, costs in result[panel].items():
            print(f"  {name:<8}" + "".join(f"{cost:>9.3f}" for cost in costs))
    machine = provenance(cores=CORES, processor=processor())
    content = {"ns_per_coordinate_step": result, "points": PANELS, "provenance": machine}
    write_atomically(folder / "scaling.json", to_json(content))
    save_figure(figure(result, machine["processor"]), folder / "scaling.png", dpi=150)


if __name__ == "__main__":
    main()
