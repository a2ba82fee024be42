"""Step time of the rotational optimizers over torch.optim.AdamW(foreach=True): `python -m benchmarks.rotational`.

--table writes the table in docs/speed.md from the committed results, and measures nothing. On CPU it is CPU time,
which other work on the machine disturbs less than wall time.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

from benchmarks import page
from benchmarks.parameters import append_result, gpt_parameters, parameters_of, resnet_parameters
from rotsim.measure import Rotated, RotationalAdamW, RotationalLion, RotationalSGDM

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW(foreach=True)": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1, foreach=True),
    "AdamW(fused=True)": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1, fused=True),
    "RotationalAdamW": lambda p: RotationalAdamW(p, lr=1e-3, weight_decay=0.1),
    "RotationalAdamW, zero_mean=False": lambda p: RotationalAdamW(p, lr=1e-3, weight_decay=0.1, zero_mean=False),
    "RotationalAdamW, per_neuron=False": lambda p: RotationalAdamW(p, lr=1e-3, weight_decay=0.1, per_neuron=False),
    "RotationalSGDM": lambda p: RotationalSGDM(p, lr=1e-1, weight_decay=1e-3),
    "RotationalLion": lambda p: RotationalLion(p, lr=1e-4, weight_decay=1.0),
    "Rotated(AdamW(foreach=True))": lambda p: Rotated(
        torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1, foreach=True), 0.003
    ),
}


NETWORKS: dict[str, Callable[[str], list[torch.nn.Parameter]]] = {
    "GPT 4x256": lambda device: gpt_parameters(4, 256, device=device),
    "GPT 6x128": lambda device: gpt_parameters(6, 128, device=device),
    "GPT 4x512": lambda device: gpt_parameters(4, 512, device=device),
    "GPT 2x64": lambda device: gpt_parameters(2, 64, vocabulary=128, context=64, device=device),
    "GPT 12x768": lambda device: gpt_parameters(12, 768, device=device),
    "ResNet-20": lambda device: resnet_parameters(device=device),
    "one 2048x2048": lambda device: parameters_of([(2048, 2048)], device),
    "one 65536x16": lambda device: parameters_of([(65536, 16)], device),
    "200 of 16x16": lambda device: parameters_of([(16, 16)] * 200, device),
    "MLP 64-128-128-128-10": lambda device: parameters_of(
        [(128, 64), (128,), (128, 128), (128,), (128, 128), (128,), (10, 128), (10,)], device
    ),
}

RESULTS = Path(__file__).parent / "results" / "rotational.json"
#: The optimizers of the table in docs/speed.md.
COLUMNS = ("RotationalAdamW", "RotationalSGDM", "RotationalLion", "Rotated(AdamW(foreach=True))")


def committed_table() -> str:
    """The committed ratios to AdamW(foreach=True), a row for each network."""
    rows = [f"| network | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for result in json.loads(RESULTS.read_text(encoding="utf-8")):
        ratios = (f"{result['optimizers'][name]['ratio']:.2f}" for name in COLUMNS)
        rows.append(f"| {result['network']} | {' | '.join(ratios)} |")
    return "\n".join(rows)


def step_seconds(optimizer: torch.optim.Optimizer, steps: int, device: str) -> float:
    """Seconds per step over one block of `steps`."""
    on_gpu = device.startswith("cuda")
    wait, clock = (torch.cuda.synchronize, time.perf_counter) if on_gpu else (lambda: None, time.process_time)
    wait()
    start = clock()
    for _ in range(steps):
        optimizer.step()
    wait()
    return (clock() - start) / steps


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Default: all.")
@click.option("--steps", default=10, show_default=True, help="Steps per block.")
@click.option("--blocks", default=9, show_default=True, help="Blocks, taken in turn; the median counts.")
@click.option("--threads", default=1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to add the measurement to.")
@click.option(
    "--table", "only_table", is_flag=True, help="Write the table in docs/speed.md from the committed results."
)
def main(
    device: str, networks: tuple[str, ...], steps: int, blocks: int, threads: int, output: Path | None, only_table: bool
) -> None:
    """Print milliseconds per step and the ratio to AdamW: medians over blocks, ratios taken block by block."""
    if only_table:
        return page.write("rotational", committed_table())
    torch.set_num_threads(threads)
    for network in networks or tuple(NETWORKS):
        optimizers = {name: make(NETWORKS[network](device)) for name, make in OPTIMIZERS.items()}
        parameters = sum(p.numel() for group in next(iter(optimizers.values())).param_groups for p in group["params"])
        print(f"{network}, {parameters / 1e6:.2f} M parameters, {device}, torch {torch.__version__}")
        for optimizer in optimizers.values():
            step_seconds(optimizer, 3, device)
        # in turn, so that a machine that slows down for a while slows all of them
        times = [[step_seconds(optimizer, steps, device) for optimizer in optimizers.values()] for _ in range(blocks)]
        table = torch.tensor(times)
        medians, ratios = table.median(dim=0).values, (table / table[:, :1]).median(dim=0).values
        rows = {}
        for name, seconds, ratio in zip(optimizers, medians.tolist(), ratios.tolist(), strict=True):
            print(f"{name:34s} {1e3 * seconds:8.2f} ms/step   {ratio:5.2f} x")
            rows[name] = {"milliseconds": round(1e3 * seconds, 3), "ratio": round(ratio, 3)}
        if output:
            setting = {"network": network, "device": device, "threads": threads, "blocks": blocks}
            append_result(output, {**setting, "optimizers": rows})


if __name__ == "__main__":
    main()
