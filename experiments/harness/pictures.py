"""Figures that are committed: PNG files of at most 256 colours, a third as large as they would be."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from rotsim.files import write_atomically
from rotsim.show.plotting import save_figure

COLOURS = 256


def save_picture(figure: Figure, path: Path, dpi: float | None = None) -> Path:
    """Write a figure as `rotsim.show.plotting.save_figure` does, in fewer colours."""
    save_figure(figure, path, dpi)
    return write_atomically(path, in_few_colours(path.read_bytes()))


def in_few_colours(png: bytes) -> bytes:
    """The same picture with a palette."""
    small = BytesIO()
    picture = Image.open(BytesIO(png)).convert("RGB")
    few = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    return small.getvalue()
