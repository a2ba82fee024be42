"""Rotational variants and warm-up, on larger networks: a version of `experiments.warmup` for a GPU.

Claim (Kosson et al. 2024, sections 5 and 6): that of `experiments.warmup`, with its statements, bounds and tests.
A small ResNet on digits, a BN-MLP and ResNet-20 on Fashion-MNIST, and two weight-normalised GPTs. The larger has six
layers of width 384.
It takes a GPU if there is one; on a CPU only --quick is practical. It has not been run yet. Of the small ResNet
`experiments.retuned` tells more.

What would refute it: what would refute `experiments.warmup`.
"""

import torch

from experiments.harness.claim import main
from experiments.networks.gpt import GPTSize
from experiments.training.contest import of_contests
from experiments.training.problems import ImageProblem, TextProblem
from experiments.warmup import ADAMW, MESSAGE, QUICK, SGDM, contest

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_SMALL = ImageProblem(network="resnet", shape=(8, 2, 1), noise=0.5)
_RESNET = ImageProblem("fashion", "resnet", (16, 3, 3), batch_size=128, noise=0.0)
_GPT = TextProblem(GPTSize(layers=6, width=384, heads=6, context=256), batch_size=32)
CONTESTS = [
    contest("BN-MLP, Fashion", ImageProblem("fashion", noise=0.0), "adamw", 0.05, ADAMW, 300, 128, device=_DEVICE),
    contest("ResNet, digits", _SMALL, "adamw", 0.05, ADAMW, 300, 1024, device=_DEVICE),
    contest("ResNet, digits", _SMALL, "sgdm", 1e-3, SGDM, 300, 1024, device=_DEVICE),
    contest("ResNet, digits", _SMALL, "lion", 0.5, ADAMW, 300, 1024, device=_DEVICE),
    contest("WN-GPT, text", TextProblem(batch_size=16), "adamw", 0.1, (0.016, 0.064), 700, 64, 8, _DEVICE),
    contest("ResNet-20, Fashion", _RESNET, "adamw", 0.05, ADAMW, 2000, 32, 4, _DEVICE),
    contest("ResNet-20, Fashion", _RESNET, "sgdm", 1e-3, SGDM, 2000, 32, 4, _DEVICE),
    contest("WN-GPT 6x384, text", _GPT, "adamw", 0.1, (0.004, 0.016, 0.064), 1500, 16, 4, _DEVICE),
]
examine = of_contests(CONTESTS, QUICK, MESSAGE, processes=1)  # on a GPU if there is one


if __name__ == "__main__":
    main("warmup_large", __doc__, examine)
