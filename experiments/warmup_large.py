"""Rotational variants and warm-up, on larger networks: a version of `experiments.warmup` for a GPU.

Claim (Kosson et al. 2024, sections 5 and 6): that of `experiments.warmup`, with its statements, bounds and tests.
ResNet-20 on Fashion-MNIST and a weight-normalised GPT of 6 layers of width 384. It takes a GPU if there is
one; on a CPU only --quick is practical. It has not been run on a GPU yet.

What would refute it: what would refute `experiments.warmup`.
"""

import torch

from experiments.harness.claim import Finding, main
from experiments.networks.gpt import GPTSize
from experiments.training.trials import ImageProblem, TextProblem
from experiments.warmup import QUICK, Case, examine_cases
from rotsim.tasks import Ledger

_RESNET = ImageProblem("fashion", "resnet", (16, 3, 3), batch=128, noise=0.0)
_GPT = TextProblem(GPTSize(layers=6, width=384, heads=6, context=256), batch=32)
CASES = [
    Case("ResNet-20, Fashion-MNIST", _RESNET, "adamw", 0.05, (0.004, 0.016, 0.064, 0.256), 2000, 3),
    Case("ResNet-20, Fashion-MNIST", _RESNET, "sgdm", 1e-3, (0.1, 0.4, 1.6, 6.4), 2000, 3),
    Case("WN-GPT 6x384, text", _GPT, "adamw", 0.1, (0.004, 0.016, 0.064), 1500, 3),
]


def examine(quick: bool, store: Ledger | None = None) -> Finding:
    """Train every case on a GPU if there is one."""
    return examine_cases(QUICK if quick else CASES, 1, store, "cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main("warmup_large", __doc__, examine)
