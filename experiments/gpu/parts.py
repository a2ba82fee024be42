"""The parts of the GPU runs, in the order of their worth: what each shows, and the command that makes it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.networks.suite import SUITES

TRACES = "../suite_gpu"  # beside the other results, where those of earlier runs are
GPT_85M = ("--network", "GPT 12x768")
GPT_124M = ("--layers", "12", "--width", "768", "--heads", "12", "--context", "1024", "--vocabulary", "50257")


@dataclass(frozen=True)
class Part:
    """One command, which takes less than ten minutes on a large GPU.

    Parameters
    ----------
    name : str
        Also of its log and its result.
    shows : str
    module : str
        Run by ``python -m``.
    arguments : tuple of str
    option : str
        The option that takes the place of the result.
    result : str
        File (or folder) of the result, inside the output folder.
    """

    name: str
    shows: str
    module: str
    arguments: tuple[str, ...]
    result: str
    option: str = "--output"

    def command(self, folder: Path) -> list[str]:
        """With the running interpreter, writing into `folder`."""
        return [sys.executable, "-m", self.module, *self.arguments, self.option, str(folder / self.result)]


def _suite(name: str) -> Part:
    arguments = ("--suite", "gpu", "--device", "cuda", "--only", name)
    return Part(f"suite-{name}", f"traces of {name}", "experiments.networks", arguments, TRACES)


#: Runs whose traces were missing when the last GPU was at hand, or that have been added since; they come first.
_MISSING = ("gpt_muon", "wngpt_muon_cosine", "resnet20_adamw_cosine", "resnet20_sgdm_cosine")


def _suite_order() -> list[str]:
    """The names of the suite: those missing, other cosines of the ResNet, the grid of warm-ups, then all."""
    names = list(SUITES["gpu"])
    wanted = [*_MISSING, *(name for name in names if name.startswith(("resnet20", "warmup")) and _scheduled(name))]
    return list(dict.fromkeys([*wanted, *names]))


def _scheduled(name: str) -> bool:
    return name.startswith("warmup") or name.endswith("_cosine")


PARTS = {
    part.name: part
    for part in (
        Part("turn", "rotational optimizers turn as on the CPU", "experiments.gpu.turn", (), "turn.json"),
        Part(
            "rotational",
            "step time of rotational optimizers over AdamW",
            "benchmarks.rotational",
            ("--device", "cuda", *GPT_85M, "--network", "ResNet-20"),
            "rotational.json",
        ),
        Part("engine", "the CUDA engine follows the CPU engine", "experiments.gpu.engine", (), "engine.json"),
        Part("walk", "coordinate-steps a second against CPU and PyTorch", "benchmarks.cuda", (), "walk.json"),
        Part(
            "recorder",
            "training time with the recorder over that without, 124 M GPT",
            "benchmarks.recorder",
            ("--device", "cuda", *GPT_124M, "--batch", "8", "--steps", "20", "--blocks", "5"),
            "recorder.json",
        ),
        *(_suite(name) for name in _suite_order()),
        Part("suite", "the report of all traces", "experiments.networks", ("--suite", "gpu"), TRACES),
    )
}
