"""How far networks that the tests train scatter over seeds and processors: `python -m tests.scatter` measures it.

Training amplifies rounding: after some hundred steps, two instruction sets are as far apart as two seeds. A gate on
a trained network must therefore come from this scatter: `gate` makes it. `scatter.jsonl`, beside this file, has one
line a training; lines that are there are not measured again, so a run that was cut off goes on. `tests.test_scatter`
holds the thresholds of tests against them.

PyTorch reads its instruction set when it starts, so every line is a process of its own. Trainings with one thread are
measured first: those of the suite use one whatever the machine has, and repeat all digits with two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from tests import chance

FILE = Path(__file__).with_name("scatter.jsonl")
SOURCES = {"suite": "tests.test_suite", "mixed": "tests.test_diagnosis", "small": "tests.test_heldout"}
SEEDS = range(5)
DIGITS = 4


@cache
def lines() -> list[dict]:
    """Every training that was measured."""
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()] if FILE.exists() else []


def values(source: str, key: str) -> np.ndarray:
    """One number of each training whose bits differ from those of all others."""
    distinct = {json.dumps(line["found"]): line["found"][key] for line in lines() if line["source"] == source}
    return np.array(list(distinct.values()))


def gate(source: str, *keys: str) -> tuple[float, float]:
    """Bounds that the next training leaves as seldom as `tests.chance` allows, if its numbers are normal.

    Trainings on one seed with several instruction sets are about half as far apart as those on several seeds: each
    seed counts once. The margin is Student's t for so many, times the deviation of all trainings.

    Parameters
    ----------
    source : str
        One of `SOURCES`.
    *keys : str
        Numbers that the source's `measured` returns, of one deviation: the bounds hold for every one of them.

    Returns
    -------
    (float, float)
        NaN, which no training passes, where nothing has been measured: remove `scatter.jsonl` to measure all anew.
    """
    if not lines():
        return np.nan, np.nan
    seen = np.array([values(source, key) for key in keys])
    seeds = len({line["seed"] for line in lines() if line["source"] == source})
    deviation = np.sqrt(seen.var(axis=1, ddof=1).mean() * (1 + 1 / seeds))
    margin = chance.errors(len(keys) * (seeds - 1) + 1, len(keys)) * deviation
    return float(seen.mean(axis=1).min() - margin), float(seen.mean(axis=1).max() + margin)


def cells() -> list[dict]:
    """What to measure on this machine: every instruction set that PyTorch can be told to use, and its own choice."""
    import torch

    own = torch.backends.cpu.get_cpu_capability().lower()
    sets = [name for name in dict.fromkeys(["default", "avx2", own]) if name == own or own.startswith("avx")]
    return [
        dict(source=source, instructions=name, threads=threads, seed=seed)
        for threads in (1, 2)
        for seed in SEEDS
        for name in sets
        for source in SOURCES
    ]


def measure(cell: dict) -> dict[str, float]:
    """The numbers of one training, by a new process."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": cell["instructions"], "OMP_NUM_THREADS": str(cell["threads"])}
    command = [sys.executable, "-m", "tests.scatter", cell["source"], str(cell["seed"])]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def table() -> str:
    """Mean, deviation and range of every number, as Markdown."""
    rows = ["| network | number | trainings | mean | deviation | least | greatest |", "|---|---|---|---|---|---|---|"]
    for source in SOURCES:
        for key in next((line["found"] for line in lines() if line["source"] == source), {}):
            seen = values(source, key)
            numbers = seen.mean(), seen.std(ddof=1) if len(seen) > 1 else np.nan, seen.min(), seen.max()
            rows.append(f"| {source} | {key} | {len(seen)} | " + " | ".join(f"{x:.4g}" for x in numbers) + " |")
    return "\n".join(rows)


def main() -> None:
    if len(sys.argv) == 3:
        source, seed = sys.argv[1:]
        found = import_module(SOURCES[source]).measured(int(seed))
        print(json.dumps({key: float(f"{value:.{DIGITS}g}") for key, value in found.items()}))
        return
    done = [{key: line[key] for key in line if key != "found"} for line in lines()]
    for cell in cells():
        if cell not in done:
            line = cell | {"found": measure(cell)}
            with FILE.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    lines.cache_clear()
    print(table())


if __name__ == "__main__":
    main()
