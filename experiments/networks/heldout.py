"""Networks that no rule of the diagnosis was made on: is what it claims true?

`python -m experiments.networks heldout` trains the networks of `experiments.networks.zoo` twice, with and without the
recorder, and writes which layers are claimed, and which of these agree. Refuted: a claimed layer that does not agree.

Three disagreements were found when they first ran, and their causes became rules of the diagnosis:

- rounding takes the place of decay where weights are kept in bfloat16 (`pure_bfloat16`, rotation 14 % off);
- coordinates behind rectifiers have no gradient in most steps, which shortens Adam's update (`weight_norm`, norm 17 %);
- large coordinates that alternate more than small ones shorten the momentum of SGDM (`unet`, norm 16 %).

`conv1d_grouped` and
`graph` were in transient under Adam+L2 and got five times the decay and twice the learning rate; most of their layers
still are.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from experiments.harness import markdown
from experiments.networks.zoo import NETWORKS
from experiments.training.loop import one_thread
from rotsim.dataset import provenance
from rotsim.diagnosis import Diagnosis, diagnose
from rotsim.errors import InvalidInput
from rotsim.files import to_json, write_atomically
from rotsim.measure import Recorder

STEPS = 2000
_HEAD = (
    "network", "optimizer", "bit-identical", "layers", "claimed", "agree", "worst rotation", "worst norm", "others",
)  # fmt: skip
_COMPARED = 60  # steps after which the weights with and without the recorder are compared


def train(name: str, steps: int = STEPS, seed: int = 0) -> tuple[Diagnosis, bool]:
    """One network's diagnosis, and whether the recorder left its training bit for bit what it is without."""
    if name not in NETWORKS:
        raise InvalidInput(f"network {name!r} is unknown; choose from {', '.join(NETWORKS)}")
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, _, step = NETWORKS[name]()
        for _ in range(min(steps, _COMPARED)):
            step()
        bare = model.state_dict()
        torch.manual_seed(seed)
        model, optimizer, step = NETWORKS[name]()
        same = False
        with Recorder(model, optimizer, window=50, lags=64, note={"network": name, "seed": seed}) as recorder:
            for taken in range(1, steps + 1):
                step()
                if taken == min(steps, _COMPARED):
                    same = all(torch.equal(value, bare[key]) for key, value in model.state_dict().items())
    return diagnose(recorder.dataset()), same


def write(found: dict[str, tuple[Diagnosis, bool]], folder: Path, command: str) -> None:
    """``heldout.json`` with every layer, and ``heldout.md`` with one line per network."""
    content = {
        "networks": {
            name: {
                "optimizer": diagnosis.optimizer.describe(),
                "bit_identical": same,
                "layers": [
                    {
                        "layer": layer.layer,
                        "verdict": layer.verdict,
                        "rotation": round(layer.ratio, 4),
                        "norm": round(layer.norm_ratio, 4),
                        "claims": list(layer.claims),
                        "agrees": layer.agrees if layer.applies else None,
                    }
                    for layer in diagnosis.layers
                ],
            }
            for name, (diagnosis, same) in found.items()
        },
        "provenance": provenance(command=command),
    }
    write_atomically(folder / "heldout.json", to_json(content))
    write_atomically(folder / "heldout.md", table(found, command))


def table(found: dict[str, tuple[Diagnosis, bool]], command: str) -> str:
    """Markdown."""
    claimed = [layer for diagnosis, _ in found.values() for layer in diagnosis.claimed]
    layers = sum(len(diagnosis.layers) for diagnosis, _ in found.values())
    agree = sum(layer.agrees for layer in claimed)
    rows = []
    about = (
        f"{len(found)} networks, {layers} layers, {len(claimed)} claimed, {agree} of them agree. `{command}`. Worst: "
        "over the claimed layers of a network, measured over predicted rotation, and norm where that is claimed too."
    )
    for name, (diagnosis, same) in found.items():
        others = Counter(layer.verdict for layer in diagnosis.layers if not layer.applies)
        worst = {
            quantity: max(
                (1 + layer.error(quantity) for layer in diagnosis.claimed if quantity in layer.claims),
                key=lambda ratio: abs(ratio - 1),
                default=None,
            )
            for quantity in ("rotation", "norm")
        }
        cells = [
            name, diagnosis.optimizer.label, "yes" if same else "**no**", len(diagnosis.layers), len(diagnosis.claimed),
            sum(layer.agrees for layer in diagnosis.claimed),
            *("-" if ratio is None else f"{ratio:.3f}" for ratio in worst.values()),
            ", ".join(f"{count} {verdict}" for verdict, count in others.items()) or "-",
        ]  # fmt: skip
        rows.append(cells)
    return f"# Held-out networks\n\n{about}\n\n{markdown.table(_HEAD, rows)}\n"
