"""The GPU tables of docs/speed.md, from the committed results of `python -m experiments.gpu`.

`python -m benchmarks.gpu --table` writes them; without the option they are printed. Nothing is measured here.
"""

import json
from pathlib import Path
from typing import Any

import click

from benchmarks import page
from experiments.harness import markdown

RESULTS = Path(__file__).parents[1] / "experiments" / "results" / "gpu"


def _read(part: str) -> Any:
    return json.loads((RESULTS / f"{part}.json").read_text(encoding="utf-8"))


def _device(part: str) -> str:
    return str(_read(f"{part}.done")["device"])


def engine() -> str:
    """The largest difference between the CUDA engine and the CPU engine, by format."""
    found = _read("engine")
    rows = []
    for dtype in ("float32", "float64"):
        each = [row for row in found["deviations"] if row["dtype"] == dtype]
        worst = max(each, key=lambda row: row["deviation"])
        where = f"{worst['optimizer']}, {worst['gradient']}"
        rows.append((dtype, f"{len(each)}", f"{worst['deviation']:.1e}", where, f"{worst['allowed']:.0e}"))
    head = (f"CUDA against CPU engine, 1000 steps ({_device('engine')})", "settings", "worst", "where", "allowed")
    return markdown.table(head, rows)


def walk() -> str:
    """Coordinate-steps a second, and how many times as many the CUDA engine takes."""
    rates = _read("walk")["coordinate_steps_per_second"]
    rows = [(name, f"{rate:.2e}", f"{rates['rotsim, cuda'] / rate:.1f}") for name, rate in rates.items()]
    cores = _read("walk")["provenance"]["cores"]
    head = (
        f"AdamW, scale-invariant ({_device('walk')}, {cores} CPU cores)",
        "coordinate-steps / s",
        "CUDA engine over it",
    )
    return markdown.table(head, rows)


def rotational() -> str:
    """Milliseconds of a step, and the ratio to AdamW(foreach=True), a row for each optimizer."""
    results = _read("rotational")
    rows = [
        (
            name,
            *(f"{r['optimizers'][name]['milliseconds']:.2f} ({r['optimizers'][name]['ratio']:.2f})" for r in results),
        )
        for name in results[0]["optimizers"]
    ]
    return markdown.table((f"step, ms (ratio) ({_device('rotational')})", *(r["network"] for r in results)), rows)


def recorder() -> str:
    """Milliseconds of a training step, and what the recorder adds."""
    (result,) = _read("recorder")
    size = f"GPT {result['layers']}x{result['width']}, context {result['context']}, batch {result['batch']}"
    rows = [(name, f"{row['milliseconds']:.1f}", f"{row['overhead']:+.1%}") for name, row in result["settings"].items()]
    return markdown.table((f"{size} ({_device('recorder')})", "ms / step", "overhead"), rows)


def tables() -> str:
    """All of them."""
    return "\n\n".join(part() for part in (engine, walk, rotational, recorder))


@click.command()
@click.option("--table", "write", is_flag=True, help="Write them into docs/speed.md.")
def main(write: bool) -> None:
    """Print the GPU tables from the committed results."""
    if write:
        page.write("gpu", tables())
    else:
        click.echo(tables())


if __name__ == "__main__":
    main()
