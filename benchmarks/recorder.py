"""Training time with the recorder over training time without it: `python -m benchmarks.recorder`."""

import time
from pathlib import Path

import click
import torch
from torch.nn import functional as F

from benchmarks.parameters import append_result
from experiments.networks.gpt import GPT, GPTSize
from experiments.training.loop import train
from rotsim.measure import Lion, Recorder

OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    "lion": lambda p: Lion(p, lr=1e-4, weight_decay=1.0),  # whose gradient norms are kept at every step besides
}


class Trainer:
    """One GPT, trained on random bytes; what they are makes no difference to the time."""

    def __init__(self, size: GPTSize, batch: int, device: str, optimizer: str, interval: int | None, lags: int) -> None:
        torch.manual_seed(0)
        self.model = GPT(size, normalised=False).to(device)
        self.model.head.weight = self.model.token.weight  # as GPT-2 has it
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.tokens = torch.randint(size.vocabulary, (batch, size.context + 1), device=device)
        self.device = device
        if interval is not None:
            self.recorder = Recorder(self.model, self.optimizer, interval, 10 * interval, lags=lags).start()

    def _loss(self) -> torch.Tensor:
        return F.cross_entropy(self.model(self.tokens[:, :-1]).flatten(0, 1), self.tokens[:, 1:].flatten())

    def seconds(self, steps: int) -> float:
        """Seconds per step over a block: CPU time on a CPU, which other work disturbs less."""
        on_gpu = self.device.startswith("cuda")
        wait, clock = (torch.cuda.synchronize, time.perf_counter) if on_gpu else (lambda: None, time.process_time)
        wait()
        start = clock()
        for _ in train(self.optimizer, self._loss, steps):
            pass
        wait()
        return (clock() - start) / steps


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--optimizer", default="adamw", show_default=True, type=click.Choice(list(OPTIMIZERS)))
@click.option("--width", default=64, show_default=True)
@click.option("--layers", default=2, show_default=True)
@click.option("--heads", default=4, show_default=True)
@click.option("--context", default=64, show_default=True)
@click.option("--vocabulary", default=128, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--steps", default=50, show_default=True, help="Steps per block.")
@click.option("--blocks", default=7, show_default=True, help="Blocks, taken in turn; the median counts.")
@click.option("--threads", default=1, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to add the measurement to.")
def main(
    device: str,
    optimizer: str,
    width: int,
    layers: int,
    heads: int,
    context: int,
    vocabulary: int,
    batch: int,
    steps: int,
    blocks: int,
    threads: int,
    output: Path | None,
) -> None:
    """Print milliseconds per step and the overhead: medians over blocks, ratios taken block by block."""
    torch.set_num_threads(threads)
    size = GPTSize(layers, width, heads, context, vocabulary)
    settings = {
        "no recorder": (None, 0),
        "interval 10": (10, 128),
        "interval 10, lags 0": (10, 0),
        "interval 1": (1, 128),
    }
    trainers = {name: Trainer(size, batch, device, optimizer, *setting) for name, setting in settings.items()}
    parameters = sum(p.numel() for p in trainers["no recorder"].model.parameters())
    print(f"GPT of {parameters / 1e6:.1f} M parameters: {size}")
    print(f"batch {batch}, {optimizer}, {device}, torch {torch.__version__}")
    for trainer in trainers.values():
        trainer.seconds(5)
    times = [[trainer.seconds(steps) for trainer in trainers.values()] for _ in range(blocks)]
    table = torch.tensor(times)
    medians, ratios = table.median(dim=0).values, (table / table[:, :1]).median(dim=0).values
    rows = {}
    for name, seconds, ratio in zip(trainers, medians.tolist(), ratios.tolist(), strict=True):
        print(f"{name:22s} {1e3 * seconds:8.2f} ms/step   {ratio - 1:+7.1%}")
        rows[name] = {"milliseconds": round(1e3 * seconds, 3), "overhead": round(ratio - 1, 4)}
    if output:
        setting = {
            "optimizer": optimizer,
            "layers": layers,
            "width": width,
            "context": context,
            "vocabulary": vocabulary,
            "batch": batch,
            "device": device,
            "threads": threads,
        }
        append_result(output, {**setting, "blocks": blocks, "settings": rows})


if __name__ == "__main__":
    main()
