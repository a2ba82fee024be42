"""How far is the walk from what else one would write, and from what the hardware allows?

The same work everywhere: AdamW, scale-invariant noise, float32, norm and angle recorded at every
step. Every program runs once in each round, so that a busy machine slows all alike; the best round
counts. The floor draws the walk's normals and does one square root and one division per coordinate.

    python -m benchmarks.peers [--one-core] [--output benchmarks/results/peers.json]
    python -m benchmarks.peers --table

The second writes the table in README.md from the committed result.

With --one-core every program has one thread and its CPU time counts, not the wall's: a fair
comparison on a machine that others use too.

JAX and PyTorch take part where they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import rotsim
from rotsim import noise
from rotsim.dataset import provenance

NEURONS, DIM = 16, 1024
LR, DECAY, BETA1, BETA2, EPS = 1e-2, 0.1, 0.9, 0.999, 1e-8
CORES = os.cpu_count() or 1
README = Path(__file__).parents[1] / "README.md"
RESULT = Path(__file__).parent / "results" / "peers.json"

Program = Callable[[int], object]  # runs so many steps


@njit(nogil=True, fastmath={"contract", "nsz", "reassoc", "arcp"}, error_model="numpy")
def _floor(key0, key1, dim, steps, arithmetic):
    z, u = np.empty(dim, np.float32), np.ones(dim, np.float32)
    words = np.empty((2, dim // 2), np.uint32)
    for step in range(steps):
        noise.draw_words(words, key0, key1, step)
        noise.fill_normals(z, words)
        if arithmetic:
            for j in range(dim):
                u[j] = (z[j] + np.float32(1)) / (np.sqrt(u[j]) + np.float32(1))
    return z[0] + u[0]


def on_all_cores(arithmetic: bool, cores: int) -> Program:
    """The floor: one neuron after the other on every core."""
    keys = noise.neuron_keys(0, NEURONS, noise.GRADIENT_STREAM)

    def run(steps: int) -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda key: _floor(key[0], key[1], DIM, steps, arithmetic), keys))

    return run


def rotsim_walk(cores: int) -> Program:
    optimizer = rotsim.AdamW(LR, DECAY, (BETA1, BETA2), EPS)
    options = dict(dim=DIM, neurons=NEURONS, record_every=1, threads=cores)
    return lambda steps: rotsim.simulate(optimizer, steps=steps, **options)


def numpy_walk(steps: int) -> object:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((NEURONS, DIM), np.float32)
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    m, v = np.zeros_like(w), np.zeros_like(w)
    records = []
    for t in range(1, steps + 1):
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        z = rng.standard_normal((NEURONS, DIM), np.float32)
        direction = w / norm
        g = (z - (z * direction).sum(1, keepdims=True) * direction) / (norm * np.float32(DIM**0.5))
        m += np.float32(1 - BETA1) * (g - m)
        v += np.float32(1 - BETA2) * (g * g - v)
        denominator = np.sqrt(v) * np.float32((1 - BETA2**t) ** -0.5) + np.float32(EPS)
        new = np.float32(1 - LR * DECAY) * w - np.float32(LR / (1 - BETA1**t)) * m / denominator
        new_norm = np.linalg.norm(new, axis=1)
        records.append((new_norm, np.arccos(np.minimum(1, (w * new).sum(1) / (norm[:, 0] * new_norm)))))
        w = new
    return records


def torch_walk(compiled: bool, cores: int) -> Program:
    import torch

    torch.set_num_threads(cores)

    def step(w, m, v, z, size, root):
        norm = w.norm(dim=1, keepdim=True)
        direction = w / norm
        g = (z - (z * direction).sum(1, keepdim=True) * direction) / (norm * DIM**0.5)
        m = m + (1 - BETA1) * (g - m)
        v = v + (1 - BETA2) * (g * g - v)
        new = (1 - LR * DECAY) * w - size * m / (v.sqrt() * root + EPS)
        new_norm = new.norm(dim=1)
        return new, m, v, new_norm, ((w * new).sum(1) / (norm[:, 0] * new_norm)).clamp(max=1).arccos()

    one = torch.compile(step) if compiled else step

    @torch.no_grad()
    def run(steps: int) -> object:
        w = torch.nn.functional.normalize(torch.randn(NEURONS, DIM))
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        records = []
        # tensors, not numbers: torch.compile would compile anew for every value
        t = torch.arange(steps + 1, dtype=torch.float64)
        size, root = (LR / (1 - BETA1**t)).float(), ((1 - BETA2**t) ** -0.5).float()
        for t in range(1, steps + 1):
            # drawn outside: the compiled randn is slower than the eager one on a CPU
            w, m, v, norm, angle = one(w, m, v, torch.randn(NEURONS, DIM), size[t], root[t])
            records.append((norm, angle))
        return records

    return run


def jax_walk() -> Program:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def walk(key, steps):
        def step(carry, t):
            w, m, v = carry
            norm = jnp.linalg.norm(w, axis=1, keepdims=True)
            z = jax.random.normal(jax.random.fold_in(key, t), (NEURONS, DIM), jnp.float32)
            direction = w / norm
            g = (z - (z * direction).sum(1, keepdims=True) * direction) / (norm * DIM**0.5)
            m = m + (1 - BETA1) * (g - m)
            v = v + (1 - BETA2) * (g * g - v)
            size, root = LR / (1 - BETA1**t), (1 - BETA2**t) ** -0.5
            new = (1 - LR * DECAY) * w - size * m / (jnp.sqrt(v) * root + EPS)
            new_norm = jnp.linalg.norm(new, axis=1)
            return (new, m, v), (new_norm, jnp.arccos(jnp.minimum(1, (w * new).sum(1) / (norm[:, 0] * new_norm))))

        w = jax.random.normal(key, (NEURONS, DIM))
        w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        zero = jnp.zeros_like(w)
        return jax.lax.scan(step, (w, zero, zero), steps)

    return lambda steps: jax.block_until_ready(walk(jax.random.PRNGKey(0), jnp.arange(1, steps + 1)))


def programs(cores: int) -> dict[str, tuple[Program, int]]:
    """Name -> (program, steps per round)."""
    found: dict[str, tuple[Program, int]] = {
        "normals only": (on_all_cores(False, cores), 10_000),
        "floor": (on_all_cores(True, cores), 10_000),
        "rotsim": (rotsim_walk(cores), 30_000),
        "NumPy": (numpy_walk, 300),
    }
    makers = {
        "PyTorch eager": lambda: torch_walk(False, cores),
        "torch.compile": lambda: torch_walk(True, cores),
        "JAX jit + scan": jax_walk,
    }
    for name, make in makers.items():
        try:
            found[name] = make(), 300
        except ImportError as error:
            print(f"{name}: left out ({error})")
    return found


def measure(rounds: int, cores: int, clock: Callable[[], float]) -> dict[str, float]:
    """Best ns per coordinate-step of each program."""
    best: dict[str, float] = {}
    chosen = programs(cores)
    for program, steps in chosen.values():
        program(steps)  # compile
    for _ in range(rounds):
        for name, (program, steps) in chosen.items():
            start = clock()
            program(steps)
            cost = (clock() - start) / (steps * NEURONS * DIM) * 1e9
            best[name] = min(cost, best.get(name, np.inf))
    return best


def table(result: dict[str, Any]) -> str:
    """The table in README.md from a result that `main` wrote."""
    best = result["ns_per_coordinate_step"]
    rows = [f"| | ns per coordinate-step, {result['cores']} cores | over rotsim |", "|---|---|---|"]
    rows += [f"| {name} | {cost:.2f} | {cost / best['rotsim']:.2f} |" for name, cost in best.items()]
    return "\n".join(rows)


def write_table() -> None:
    """Put the committed result's table in place of the one that README.md has."""
    text = README.read_text()
    head, _, rest = text.partition("| | ns per coordinate-step")
    README.write_text(head + table(json.loads(RESULT.read_text())) + "\n\n" + rest.partition("\n\n")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.table:
        return write_table()
    cores, clock = (1, time.process_time) if chosen.one_core else (CORES, time.perf_counter)
    if chosen.one_core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # binds libraries with threads of their own too
    best = measure(chosen.rounds, cores, clock)
    print(
        f"{NEURONS} neurons, dim {DIM}, AdamW, scale-invariant noise, float32, {cores} cores, best of {chosen.rounds}"
    )
    print(f"{'program':<16}{'ns / coordinate-step':>22}{'/ rotsim':>10}{'/ floor':>10}")
    for name, cost in best.items():
        print(f"{name:<16}{cost:>22.3f}{cost / best['rotsim']:>10.2f}{cost / best['floor']:>10.2f}")
    if chosen.output:
        peers = {}
        for package in ("torch", "jax"):
            try:
                peers[package] = version(package)
            except ModuleNotFoundError:
                continue
        content = {
            "ns_per_coordinate_step": best,
            "cores": cores,
            "clock": clock.__name__,
            "peers": peers,
            "provenance": provenance(),
        }
        chosen.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
