"""What a command costs before and after it computes: processor time and wall time, each in a process of its own.

`python -m benchmarks.startup` times the commands that print a prediction and every `--help`, with kernels on disk.
`verify` times `rotsim verify --quick` and `rotsim verify`. `compile` times the first prediction in time, with no kernel
on disk. `proofs` times the proofs of each derivation, one after the other.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.processor import processor

RATES = {
    "adamw": ["--lr", "1e-3", "--weight-decay", "0.1"],
    "adam_l2": ["--lr", "1e-3", "--weight-decay", "0.1"],
    "sgdm": ["--lr", "0.1", "--weight-decay", "1e-3"],
    "lion": ["--lr", "1e-3", "--weight-decay", "1"],
}
TARGETS = {"adamw": ["--rotation", "0.01", "--norm", "1"]}
VERBS = ("equilibrium", "predict", "plan", "transfer", "simulate", "compare", "trace", "derive", "verify")


def timed(command: list[str], **environment: str) -> tuple[float, float]:
    """Processor and wall seconds of `python -m rotsim` with these arguments, workers included."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "rotsim", *command], env={**os.environ, **environment}, stdout=subprocess.DEVNULL,
        check=True,
    )  # fmt: skip
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, time.perf_counter() - start


def _print(command: list[str], rounds: int) -> None:
    timed(command)  # reads the program from disk, and compiles what is missing
    processor_time, wall = (min(column) for column in zip(*(timed(command) for _ in range(rounds)), strict=True))
    print(f"{processor_time:7.2f} s of processor, {wall:6.2f} s: rotsim {' '.join(command)}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("what", choices=["commands", "verify", "compile", "proofs"], nargs="?", default="commands")
    parser.add_argument("--rounds", type=int, default=3, help="times each command is run; the least is printed")
    chosen = parser.parse_args(arguments)
    print(f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if chosen.what == "commands":
        for name, rates in RATES.items():
            _print(["equilibrium", name, *rates], chosen.rounds)
        _print(["plan", "adamw", *TARGETS["adamw"]], chosen.rounds)
        _print(["transfer", "adamw", *RATES["adamw"], "--batch-factor", "4"], chosen.rounds)
        for verb in VERBS:
            _print([verb, "--help"], chosen.rounds)
    elif chosen.what == "verify":
        _print(["verify", "--quick"], chosen.rounds)
        _print(["verify"], chosen.rounds)
    elif chosen.what == "compile":
        for name, rates in RATES.items():
            with tempfile.TemporaryDirectory() as folder:
                command = ["predict", name, *rates]
                spent, wall = timed(command, NUMBA_CACHE_DIR=folder)
                print(f"{spent:7.2f} s of processor, {wall:6.2f} s: rotsim {' '.join(command)}, nothing compiled yet")
    else:
        _proofs()


def _proofs() -> None:
    import derivations

    for name in derivations.DERIVATIONS:
        start = time.process_time()
        proof = derivations.prove(name)
        print(f"{time.process_time() - start:7.2f} s of processor: {name}, {len(proof.statements)} statements")


if __name__ == "__main__":
    main()
