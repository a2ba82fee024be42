"""Equilibria a second of `rotsim.equilibria` against one after the other, and what a cell of a sweep costs.

`python -m benchmarks.batched` prints both for this machine, in CPU time. `--efficiency` also says how two workers share
cells of a second. That is time on the clock, which means something on an idle machine only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import rotsim
from benchmarks.processor import processor

SETTINGS = 20_000
ONE_BY_ONE = 20
CELLS = 400
SLOW_CELLS, SLOW_SECONDS = 16, 1.0


def settings(count: int) -> dict[str, np.ndarray]:
    """Rates of real trainings, at equal ratios."""
    draw = np.random.default_rng(0)
    return {"lr": 10 ** draw.uniform(-5, -1, count), "weight_decay": 10 ** draw.uniform(-4, 0.5, count)}


def seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of a call, those of its threads included."""
    started = time.process_time()
    call()
    return time.process_time() - started


def theory(label: str, kind: Any, count: int = SETTINGS, **more: Any) -> None:
    """One line: the rate in arrays, that of single calls, and how far apart the numbers are."""
    given = settings(count) | more
    if "betas" not in more:
        rotsim.equilibria(kind, lr=1e-3, weight_decay=0.1)  # what depends on betas alone is kept
    found: list[Any] = []
    together = seconds(lambda: found.append(rotsim.equilibria(kind, **given)))
    apart, alone = 0.0, 0.0
    for place in range(0, count, count // ONE_BY_ONE):
        betas = {"betas": tuple(np.broadcast_to(b, count)[place] for b in more["betas"])} if more else {}
        spec = kind(given["lr"][place], given["weight_decay"][place], **betas)
        one: list[Any] = []
        alone += seconds(lambda spec=spec, one=one: one.append(rotsim.equilibrium(spec)))
        apart = max(
            apart, abs(found[0].norm[place] / one[0].norm - 1), abs(found[0].rotation[place] / one[0].rotation - 1)
        )
    print(f"{label:<28} {count / together:>12,.0f} {ONE_BY_ONE / alone:>12,.0f} {apart:>10.1e}")


def quick(spec: Any, k: int = 0) -> float:
    """A cell that takes no time."""
    return spec.lr * k


def slow(spec: Any, k: int = 0) -> float:
    """A cell that works for a second of its own CPU time."""
    ends = time.process_time() + SLOW_SECONDS
    while time.process_time() < ends:
        k += 0
    return spec.lr * k


def main() -> None:
    """Print the tables."""
    print(processor())
    print(f"{'equilibria a second':<28} {'in arrays':>12} {'one by one':>12} {'apart':>10}")
    theory("SGDM", rotsim.SGDM)
    theory("Lion", rotsim.Lion)
    theory("AdamW", rotsim.AdamW)
    theory("AdamW over 10 000 β2", rotsim.AdamW, 10_000, betas=(0.9, 1 - np.geomspace(1e-1, 1e-3, 10_000)))
    theory("Adam+L2", rotsim.AdamL2, 10_000)
    base, over = rotsim.SGDM(0.1, 0.1), {"k": range(CELLS)}
    rotsim.sweep(base, {"k": range(2)}, quick, workers=1)  # imports
    cost = seconds(lambda: rotsim.sweep(base, over, quick, workers=1))
    print(f"a cell of a sweep: {1e3 * cost / CELLS:.2f} ms beside its own work")
    if "--efficiency" in sys.argv:
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(2) as pool:
            list(pool.map(abs, range(2)))
            started = time.perf_counter()
            rotsim.sweep(base, {"k": range(SLOW_CELLS)}, slow, executor=pool)
            took = time.perf_counter() - started
        print(
            f"two workers: {SLOW_CELLS * SLOW_SECONDS / took:.2f} times one, {SLOW_CELLS} cells of {SLOW_SECONDS:g} s"
        )


if __name__ == "__main__":
    main()
