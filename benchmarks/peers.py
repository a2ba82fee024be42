"""How far is the walk from what else one would write, and from what the hardware allows?

The same work everywhere: four optimizers, plain and scale-invariant noise, float32, norm and angle
recorded at every step. Every program runs in each round, what is fast several times, so that a busy
machine slows all alike; the best run counts. Several processes measure. A whole one is slower where
the system happens to put what it uses all the time onto the same cache lines. The floor draws
the walk's normals and does one square root and one division per coordinate. What a call of rotsim
costs whatever its length, for checks, start and dataset, is measured beside it: a walk of one step.

    python -m benchmarks.peers [--quick] [--one-core] [--avx2] [--output benchmarks/results/peers_avx2.json]
    python -m benchmarks.peers --table

--quick measures AdamW under scale-invariant noise alone. --table writes the tables in docs/speed.md from
the committed results, one for each kind of processor.

With --one-core every program has one thread and its CPU time counts, not the wall's: a fair
comparison on a machine that others use too.

With --avx2 no program uses vectors of more than 256 bits, on a processor that has them.

JAX and PyTorch take part where they are installed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy._core._multiarray_umath import __cpu_dispatch__

import rotsim
from benchmarks import page, rules
from benchmarks.processor import processor
from rotsim import noise
from rotsim.compiled import wide_vectors
from rotsim.dataset import provenance
from rotsim.files import to_json, write_atomically
from rotsim.gradients.base import fill_normals
from rotsim.jit import njit

NEURONS, DIM = 16, 1024
CORES = os.cpu_count() or 1
RESULTS = [Path(__file__).parent / "results" / f"peers_{vectors}.json" for vectors in ("avx512", "avx2")]
GRADIENTS = {"scale-invariant": rotsim.ScaleInvariant(), "isotropic": rotsim.Isotropic()}
FIRST = ("AdamW", "scale-invariant")

#: What keeps numba, PyTorch, JAX and NumPy from wider vectors.
AVX2_ALONE = {
    "NUMBA_CPU_NAME": "x86-64-v3",
    "NUMBA_CPU_FEATURES": "",
    "ATEN_CPU_CAPABILITY": "avx2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in __cpu_dispatch__ if "V4" in name or "AVX512" in name),
}

SLOW_STEPS, FAST_STEPS = 300, 50_000  # of programs in a round: what is paid once is little beside them
OFTEN = 2  # times that a fast program runs in a round

Program = Callable[[int], object]  # runs so many steps
Case = tuple[str, str]  # optimizer and gradient


@njit(nogil=True, fastmath={"contract", "nsz", "reassoc", "arcp"}, error_model="numpy")
def _floor(key0, key1, dim, constants, steps, arithmetic):
    wide_vectors()
    z, u = np.empty(dim, np.float32), np.ones(dim, np.float32)
    words = np.empty(dim // 2, np.uint32)
    for step in range(steps):
        noise.draw_words(words, key0, key1, step)
        fill_normals(z, (words, constants))
        if arithmetic:
            for j in range(dim):
                u[j] = (z[j] + np.float32(1)) / (np.sqrt(u[j]) + np.float32(1))
    return z[0] + u[0]


def on_all_cores(arithmetic: bool, cores: int) -> Program:
    """The floor: one neuron after the other on every core."""
    keys = noise.neuron_keys(0, NEURONS, noise.GRADIENT_STREAM)

    def run(steps: int) -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda key: _floor(key[0], key[1], DIM, noise.CONSTANTS, steps, arithmetic), keys))

    return run


def rotsim_walk(case: Case, cores: int) -> Program:
    optimizer, gradient = rules.OPTIMIZERS[case[0]], GRADIENTS[case[1]]
    options: Any = dict(gradient=gradient, dim=DIM, neurons=NEURONS, record_every=1, threads=cores, engine="numba")
    return lambda steps: rotsim.simulate(optimizer, steps=steps, **options)


def numpy_walk(case: Case) -> Program:
    step = rules.step(case[0], case[1] == "scale-invariant", np)

    def run(steps: int) -> object:
        rng = np.random.default_rng(0)
        w = rng.standard_normal((NEURONS, DIM), np.float32)
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        m, v, norm, records = np.zeros_like(w), np.zeros_like(w), np.ones(NEURONS, np.float32), []
        for size, root in zip(*rules.factors(case[0], steps), strict=True):
            z = rng.standard_normal((NEURONS, DIM), np.float32)
            w, m, v, norm, angle = step(w, m, v, norm, z, size, root)
            records.append((norm, angle))
        return records

    return run


def torch_walk(case: Case, compiled: bool, cores: int) -> Program:
    import torch

    torch.set_num_threads(cores)
    torch._dynamo.reset()  # it compiles one function a few times only
    step = rules.step(case[0], case[1] == "scale-invariant", torch)
    one = torch.compile(step) if compiled else step

    @torch.no_grad()
    def run(steps: int) -> object:
        w = torch.nn.functional.normalize(torch.randn(NEURONS, DIM))
        m, v, norm, records = torch.zeros_like(w), torch.zeros_like(w), torch.ones(NEURONS), []
        # tensors, not numbers: torch.compile would compile anew for every value
        for size, root in zip(*map(torch.from_numpy, rules.factors(case[0], steps)), strict=True):
            # drawn outside: the compiled randn is slower than the eager one on a CPU
            w, m, v, norm, angle = one(w, m, v, norm, torch.randn(NEURONS, DIM), size, root)
            records.append((norm, angle))
        return records

    return run


def jax_walk(case: Case) -> Program:
    import jax
    import jax.numpy as jnp

    one = rules.step(case[0], case[1] == "scale-invariant", jnp)

    @jax.jit
    def walk(key, sizes, roots):
        def step(carry, now):
            t, size, root = now
            z = jax.random.normal(jax.random.fold_in(key, t), (NEURONS, DIM), jnp.float32)
            *carry, angle = one(*carry, z, size, root)
            return tuple(carry), (carry[3], angle)

        w = jax.random.normal(key, (NEURONS, DIM))
        w = w / jnp.linalg.norm(w, axis=1, keepdims=True)
        start = w, jnp.zeros_like(w), jnp.zeros_like(w), jnp.ones(NEURONS)
        return jax.lax.scan(step, start, (jnp.arange(1, len(sizes) + 1), sizes, roots))

    return lambda steps: jax.block_until_ready(walk(jax.random.PRNGKey(0), *rules.factors(case[0], steps)))


def programs(case: Case, cores: int) -> dict[str, tuple[Program, int]]:
    """Name -> (program, steps per round)."""
    found: dict[str, tuple[Program, int]] = {
        "normals only": (on_all_cores(False, cores), FAST_STEPS),
        "floor": (on_all_cores(True, cores), FAST_STEPS),
        "rotsim": (rotsim_walk(case, cores), FAST_STEPS),
        "NumPy": (numpy_walk(case), SLOW_STEPS),
    }
    makers: dict[str, Callable[[], Program]] = {
        "PyTorch eager": lambda: torch_walk(case, False, cores),
        "torch.compile": lambda: torch_walk(case, True, cores),
        "JAX jit + scan": lambda: jax_walk(case),
    }
    for name, make in makers.items():
        try:
            found[name] = make(), SLOW_STEPS
        except ImportError as error:
            print(f"{name}: left out ({error})")
    return found


def measure(case: Case, rounds: int, cores: int, clock: Callable[[], float]) -> dict[str, float]:
    """Best ns per coordinate-step of each program."""
    best: dict[str, float] = {}
    chosen = programs(case, cores)
    for program, steps in chosen.values():
        program(steps)  # compile
    for _ in range(rounds):
        for name, (program, steps) in chosen.items():
            for _ in range(1 if steps < FAST_STEPS else OFTEN):
                start = clock()
                program(steps)
                cost = (clock() - start) / (steps * NEURONS * DIM) * 1e9
                best[name] = min(cost, best.get(name, np.inf))
    return best


def measure_case(case: Case, rounds: int, cores: int, clock: Callable[[], float]) -> tuple[dict[str, float], float]:
    """What `measure` and `measure_call` find."""
    return measure(case, rounds, cores, clock), measure_call(case, rounds, cores, clock)


def best_of_processes(
    case: Case, processes: int, rounds: int, cores: int, clock: Callable[[], float]
) -> tuple[dict[str, float], float]:
    """The least that `measure_case` finds in any of so many processes, one after the other."""
    best, call = {}, np.inf
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for found, its_call in pool.map(measure_case, *([each] * processes for each in (case, rounds, cores, clock))):
            best = {name: min(cost, best.get(name, np.inf)) for name, cost in found.items()}
            call = min(call, its_call)
    return best, call


def measure_call(case: Case, rounds: int, cores: int, clock: Callable[[], float]) -> float:
    """Least time of a walk of one step, ms."""
    program, costs = rotsim_walk(case, cores), []
    for _ in range(rounds):  # compiled by `measure`
        start = clock()
        program(1)
        costs.append(1e3 * (clock() - start))
    return min(costs)


def table(result: dict[str, Any]) -> str:
    """The table in docs/speed.md from a result that `main` wrote: what each program takes, over what rotsim takes."""
    cases = result["ns_per_coordinate_step"]
    shown = [name for name in next(iter(cases.values())) if name not in ("normals only", "rotsim")]
    where = f"{result['processor']}, {result['cores']} cores, {result['provenance']['created'][:10]}"
    rows = [f"| time over rotsim's ({where}) | rotsim, ns | a call, ms | {' | '.join(shown)} |"]
    rows.append("|---" * (len(shown) + 3) + "|")
    for case, best in cases.items():
        shares = " | ".join(f"{best[name] / best['rotsim']:.2f}" for name in shown)
        rows.append(f"| {case} | {best['rotsim']:.2f} | {result['ms_per_call'][case]:.1f} | {shares} |")
    return "\n".join(rows)


def tables() -> list[str]:
    """The tables of the committed results."""
    return [table(json.loads(path.read_text())) for path in RESULTS if path.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5, help="one after the other")
    parser.add_argument("--rounds", type=int, default=3, help="of every program in each process")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", action="store_true")
    chosen = parser.parse_args()
    if chosen.avx2:  # libraries read it when they are loaded
        rest = [word for word in sys.argv[1:] if word != "--avx2"]
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.peers", *rest], os.environ | AVX2_ALONE)
    if chosen.table:
        return page.write("peers", "\n\n".join(tables()))
    # PyTorch would serve what it compiled for other vectors, which can end the process; children inherit the folder
    cache = TemporaryDirectory(prefix="rotsim-peers-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    cores, clock = (1, time.process_time) if chosen.one_core else (CORES, time.perf_counter)
    if chosen.one_core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # binds libraries with threads of their own too
    cases = [FIRST] if chosen.quick else [(name, gradient) for gradient in GRADIENTS for name in rules.OPTIMIZERS]
    print(f"{processor()}: {NEURONS} neurons, dim {DIM}, float32, {cores} cores, best of {chosen.processes} processes")
    found, calls = {}, {}
    for case in cases:
        title = ", ".join(case)
        found[title], calls[title] = best_of_processes(case, chosen.processes, chosen.rounds, cores, clock)
        best = found[title]
        print(f"\n{title:<26}{'ns / coordinate-step':>22}{'/ rotsim':>10}{'/ floor':>10}")
        for name, cost in best.items():
            print(f"{name:<26}{cost:>22.3f}{cost / best['rotsim']:>10.2f}{cost / best['floor']:>10.2f}", flush=True)
        print(f"{'a call of rotsim, ms':<26}{calls[title]:>22.1f}", flush=True)
    if chosen.output:
        peers = {}
        for package in ("torch", "jax"):
            try:
                peers[package] = version(package)
            except ModuleNotFoundError:
                continue
        content = {
            "ns_per_coordinate_step": found,
            "ms_per_call": calls,
            "cores": cores,
            "clock": clock.__name__,
            "peers": peers,
            "processor": processor(),
            "provenance": provenance(),
        }
        write_atomically(chosen.output, to_json(content))


if __name__ == "__main__":
    main()
