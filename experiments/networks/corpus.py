"""A frozen text corpus: 8 MB of Python standard-library source, CPython 3.11, as bytes.

`python -m experiments.networks.corpus` freezes it anew from the running interpreter's library: other versions
give other bytes, so the file is committed, with its SHA-256 here. Licence: PSF-2.0 (data/LICENSE.md).
"""

from __future__ import annotations

import hashlib
import lzma
import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rotsim.errors import InvalidInput
from rotsim.files import output_folder, write_atomically

FILE = Path(__file__).parent / "data" / "corpus.xz"
SHA256 = "c1e5b98afd40e1d96c2bd95092735ed4b5369622cc39deb1d5ec5eb79bee81f1"
SIZE = 8_000_000
LAST_BYTE = 127  # other bytes (0.02 %) are clamped to it, so that the vocabulary is 128
VALIDATION = 0.05


@dataclass(frozen=True)
class Text:
    """Bytes as int64 tokens in [0, 128): the first 95 % to train on, the rest to validate."""

    name: str
    train: torch.Tensor
    validation: torch.Tensor

    def to(self, device: torch.device) -> Text:
        """The same text on another device."""
        return Text(self.name, self.train.to(device), self.validation.to(device))


def windows(tokens: torch.Tensor, batch: int, length: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of a text drawn with replacement, (batch, length), and the tokens that follow each of theirs."""
    start = torch.randint(len(tokens) - length - 1, (batch, 1), generator=draw)
    rows = tokens[(start + torch.arange(length + 1)).to(tokens.device)]
    return rows[:, :-1], rows[:, 1:]


def load_corpus(file: Path = FILE) -> Text:
    """Read the committed corpus.

    Raises
    ------
    InvalidInput
        If the file is missing or not the frozen one.
    """
    if not file.is_file():
        raise InvalidInput(f"the corpus {str(file)!r} is missing; restore it with git checkout")
    packed = file.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        raise InvalidInput(f"{file.name} has SHA-256 {found[:12]}…, not {SHA256[:12]}…; restore it with git checkout")
    values = np.frombuffer(lzma.decompress(packed), dtype=np.uint8)
    tokens = torch.from_numpy(np.minimum(values, LAST_BYTE).astype(np.int64))
    split = int((1 - VALIDATION) * len(tokens))
    return Text("stdlib", tokens[:split], tokens[split:])


def freeze() -> bytes:
    """The first `SIZE` bytes of the library's sources, tests left out, in an order fixed by seed 0."""
    library = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    files = sorted(p for p in library.rglob("*.py") if not left_out & set(p.relative_to(library).parts))
    random.Random(0).shuffle(files)
    return b"".join(p.read_bytes() for p in files)[:SIZE]


if __name__ == "__main__":
    packed = lzma.compress(freeze(), preset=9 | lzma.PRESET_EXTREME)
    write_atomically(output_folder(FILE.parent) / FILE.name, packed)
    print(f"{FILE}: {len(packed)} bytes, SHA-256 {hashlib.sha256(packed).hexdigest()}")
