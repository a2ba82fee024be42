"""`python -m experiments.gpu [PARTS]`: every run that needs a GPU, one after the other, resumable."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import click

from experiments.gpu.parts import PARTS, Part
from rotsim.dataset import provenance
from rotsim.files import output_folder, to_json, write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "gpu"


def device() -> str:
    """What the parts will run on, in words; a sentence that refuses where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        raise click.ClickException(
            "torch sees no CUDA device; run this where there is one, or add --anyway to see how each part fails"
        )
    return torch.cuda.get_device_name()


def run(part: Part, folder: Path, seconds: float) -> dict[str, object]:
    """Run one part, at most `seconds` long; its output goes to ``NAME.log`` and its end is the answer."""
    start = time.monotonic()
    command = part.command(folder)
    with (folder / f"{part.name}.log").open("w") as log:
        try:
            code: int | str = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {seconds:.0f} s"
    return {"exit": code, "seconds": round(time.monotonic() - start, 1), "command": " ".join(command[1:])}


def marker(part: Part, folder: Path) -> Path:
    """The file that says that a part has ended well."""
    return folder / f"{part.name}.done.json"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[PARTS]...")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=RESULTS, show_default="results/gpu")
@click.option("--minutes", default=9.0, show_default=True, help="In all: no part starts later; the last is stopped.")
@click.option("--list", "list_parts", is_flag=True, help="Print the parts and their commands, and run nothing.")
@click.option("--again", is_flag=True, help="Forget what these parts have measured, and run them again.")
@click.option("--anyway", is_flag=True, help="Run where there is no GPU, too: every part then says what it misses.")
def main(names: tuple[str, ...], output: Path, minutes: float, list_parts: bool, again: bool, anyway: bool) -> None:
    """Run PARTS (default: all, in order) on this machine's GPU.

    A part that has ended well is not run again, so that the same command goes on where time ran out. A part that fails
    leaves its log, and the others follow. Exit code 1 if a part that ran did not end well.
    """
    if unknown := [name for name in names if name not in PARTS]:
        raise click.BadParameter(f"{unknown[0]!r} is no part; there are {', '.join(PARTS)}")
    chosen = [PARTS[name] for name in names or PARTS]
    if list_parts:
        for part in chosen:
            click.echo(f"{part.name:<40} {part.shows}\n    {' '.join(part.command(output)[1:])}")
        return
    where = "no GPU" if anyway else device()
    folder = output_folder(output)
    if again:
        for part in chosen:
            for old in (marker(part, folder), folder / part.result):
                if old.is_file():  # traces lie in a folder, and say themselves what they are of
                    old.unlink()
    deadline, failed = time.monotonic() + 60 * minutes, []
    for part in chosen:
        if marker(part, folder).exists():
            click.echo(f"{part.name}: done before")
            continue
        if (left := deadline - time.monotonic()) <= 0:
            click.echo(f"{part.name}: no time left; the same command goes on here")
            continue
        ended = run(part, folder, left)
        click.echo(f"{part.name}: exit {ended['exit']} after {ended['seconds']} s")
        if ended["exit"] == 0:
            write_atomically(marker(part, folder), to_json({**ended, "device": where, "provenance": provenance()}))
        else:
            failed.append(part.name)
    if failed:
        raise SystemExit(f"did not end well: {', '.join(failed)}; see the .log files in {folder}")


if __name__ == "__main__":
    main()
