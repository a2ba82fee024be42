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

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.harness import markdown
from experiments.networks import claims
from experiments.networks.claims import Tally
from experiments.networks.zoo import NETWORKS, later
from experiments.training.loop import one_thread
from rotsim.dataset import provenance
from rotsim.diagnosis import Diagnosis, diagnose
from rotsim.errors import InvalidInput
from rotsim.files import to_json, write_atomically
from rotsim.measure import Recorder

STEPS = 2000
_HEAD = (
    "network", "optimizer", "half", "bit-identical", "live layers", "claimed", "agree", "foreseen", "claims that hold",
    "refuted", "without",
)  # fmt: skip
LATER = frozenset(name for name, make in NETWORKS.items() if make.__module__ == later.__name__)
#: Every second of the others by name.
LOOKED_AT = frozenset(sorted(NETWORKS.keys() - LATER)[::2])
HALVES = ("to look at", "judged alone", "judged alone, joined later")
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
                        "foreseen": layer.foreseen_outcome,
                        "holds": claims.holds(layer),
                        "would_hold": claims.within(layer),
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


def _half(name: str) -> str:
    return HALVES[2 if name in LATER else 0 if name in LOOKED_AT else 1]


def tallies(content: Mapping[str, Any]) -> dict[str, Tally]:
    """Of both halves, from ``heldout.json``."""
    halves = {half: Tally() for half in HALVES}
    for name, network in content["networks"].items():
        for layer in network["layers"]:
            held = layer["holds"], layer["would_hold"]
            halves[_half(name)].count(layer["verdict"], bool(layer["claims"]), *held)
    return halves


def table(found: dict[str, tuple[Diagnosis, bool]], command: str) -> str:
    """Markdown: what is claimed and what holds, of all networks and of both halves; then one line per network."""
    halves = {half: Tally() for half in (*HALVES, "all")}
    rows = []
    for name, (diagnosis, same) in found.items():
        own, half = Tally(), _half(name)
        for tally in (own, halves[half], halves["all"]):
            tally.add(diagnosis)
        agree = sum(layer.agrees for layer in diagnosis.claimed)
        refuted = len(diagnosis.refuted) + len(diagnosis.unforeseen)
        _, live, claimed, foreseen, _, holding, _, _, without = own.row(name)
        rows.append([
            name, diagnosis.optimizer.label, half, "yes" if same else "**no**", live, claimed, agree, foreseen, holding,
            refuted, without,
        ])  # fmt: skip
    about = (
        f"`{command}`: {len(found)} networks. Every second one, by name, may be looked at while rules are made. The "
        "others are judged alone, and those that joined later apart from them. Agree: claimed layers of which rotation "
        "is shown to be within 10 % and the norm within 15 % in each quarter. Foreseen: layers whose second half is "
        "predicted from the first. Refuted: beyond its tolerance and the noise."
    )
    return f"# Held-out networks\n\n{about}\n\n{claims.table(halves)}\n{markdown.table(_HEAD, rows)}\n"
