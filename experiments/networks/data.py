"""Two image sets that need no network access: digits and Fashion-MNIST.

digits (1797 images, 8×8) comes with scikit-learn. Fashion-MNIST (70 000 images, 28×28, MIT licence) is
Debian's package ``dataset-fashion-mnist``. Its files are looked for, in this order, in a given folder, in
``$ROTSIM_DATA`` and where the package installs them. The folder may also hold the ``.deb`` itself.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rotsim.errors import InvalidInput

INSTALLED = Path("/usr/share/datasets/fashion-mnist")
SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
HOW_TO_GET = (
    "install Debian's package with `apt-get install dataset-fashion-mnist`, or fetch it with "
    "`apt-get download dataset-fashion-mnist` and pass --data the folder that holds the .deb or its unpacked files"
)


@dataclass(frozen=True)
class Images:
    """Standardised images and labels, flattened: ``train_x`` (n, pixels) float32, ``train_y`` (n,) int64."""

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor

    def to(self, device: torch.device) -> Images:
        """The same images on another device."""
        return Images(self.name, *(t.to(device) for t in (self.train_x, self.train_y, self.test_x, self.test_y)))

    def batch(self, size: int, noise: float, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Training images drawn with replacement, under fresh Gaussian noise, and their labels."""
        chosen = torch.randint(len(self.train_x), (size,), generator=draw).to(self.train_x.device)
        return noisy(self.train_x[chosen], noise, draw), self.train_y[chosen]


def noisy(x: torch.Tensor, noise: float, draw: torch.Generator) -> torch.Tensor:
    """Fresh Gaussian noise of standard deviation `noise` on every pixel; with 0, nothing is drawn."""
    return x + noise * torch.randn(x.shape, generator=draw).to(x.device) if noise else x


def load_images(name: str, folder: Path | None = None) -> Images:
    """Load ``"digits"`` or ``"fashion"``; `folder` is where to look for Fashion-MNIST first.

    Raises
    ------
    InvalidInput
        If the set is unknown, its files are missing, or they are not the published ones.
    """
    if name == "digits":
        return _digits()
    if name == "fashion":
        return _fashion(folder)
    raise InvalidInput(f"image set {name!r} is unknown; choose from digits, fashion")


def _digits() -> Images:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return _standardised("digits", images[:1500], labels[:1500], images[1500:], labels[1500:])


def _fashion(folder: Path | None) -> Images:
    with tempfile.TemporaryDirectory() as scratch:
        source = _find_fashion(folder, Path(scratch))
        train_x, train_y, test_x, test_y = (_read_idx(source / file, digest) for file, digest in SHA256.items())
    return _standardised("fashion", train_x, train_y, test_x, test_y)


def _find_fashion(folder: Path | None, scratch: Path) -> Path:
    """The first folder that holds the idx files; a .deb found on the way is unpacked into `scratch`."""
    named = os.environ.get("ROTSIM_DATA")
    places = [place for place in (folder, Path(named) if named else None, INSTALLED) if place is not None]
    for place in places:
        for inside in (place, place / "fashion-mnist", place / INSTALLED.relative_to("/")):
            if all((inside / file).is_file() for file in SHA256):
                return inside
        packages = [place] if place.suffix == ".deb" else sorted(place.glob("dataset-fashion-mnist_*.deb"))
        if packages and packages[-1].is_file():
            subprocess.run(["dpkg-deb", "-x", str(packages[-1]), str(scratch)], check=True)
            return scratch / INSTALLED.relative_to("/")
    raise InvalidInput(f"Fashion-MNIST is not in {', '.join(map(str, places))}; {HOW_TO_GET}")


def _read_idx(path: Path, digest: str) -> np.ndarray:
    """Read one idx file of unsigned bytes as (n, values per item), after checking its SHA-256."""
    if not path.is_file():
        raise InvalidInput(f"{path.name} is missing; {HOW_TO_GET}")
    packed = path.read_bytes()
    found = hashlib.sha256(packed).hexdigest()
    if found != digest:
        raise InvalidInput(f"{path.name} has SHA-256 {found[:12]}…, not {digest[:12]}…; {HOW_TO_GET}")
    raw = gzip.decompress(packed)
    dimensions = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4)
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions)
    return values.reshape(int(shape[0]), -1)


def _standardised(
    name: str, train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> Images:
    """One mean and one standard deviation for all pixels, from the training images."""
    mean, std = train_x.mean(), train_x.std()

    def images(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(((x - mean) / std).astype(np.float32))

    def labels(y: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(y.reshape(-1).astype(np.int64))

    return Images(name, images(train_x), labels(train_y), images(test_x), labels(test_y))
