"""How evenly every copy of a network turns over the last half of its training, and how far its gains step."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from experiments.training.copies import Copies

INTERVAL = 5  # steps from one sample to the next


class Turning:
    """Samples of the angle per step of every row, but the head's, whose rows no normalisation follows.

    Parameters
    ----------
    copies : Copies
    """

    def __init__(self, copies: Copies) -> None:
        named = list(copies.model.named_parameters())
        rows = {n: copies.count * copies.shapes[n][0] for n, p in named if p.ndim >= 2 and n != "head.weight"}
        self._parameters = {name: parameter for name, parameter in named if name in rows}
        self._vectors = [p for name, p in named if len(copies.shapes[name]) < 2]
        self._rows, self._copies = rows, copies.count
        self._squares = {name: torch.zeros(count, dtype=torch.float64) for name, count in rows.items()}
        self._moved = {name: torch.zeros(count) for name, count in rows.items()}
        self._steps: list[torch.Tensor] = []

    @contextmanager
    def sample(self) -> Iterator[None]:
        """Measure the step that is taken inside."""
        before = {name: self._of(name) for name in self._parameters}
        vectors = [p.detach().clone() for p in self._vectors]
        yield
        for name, parameter in self._parameters.items():
            old, new = (w / w.norm(dim=1, keepdim=True) for w in (before[name], self._of(name)))
            angle = 2 * torch.atan2((new - old).norm(dim=1), (new + old).norm(dim=1))
            self._squares[name] += angle.double().cpu() ** 2
            gradient = parameter.grad
            assert gradient is not None
            self._moved[name] += (gradient.reshape(self._rows[name], -1) != 0).any(1).cpu()
        after = [p.detach() for p in self._vectors]
        squares = [(b - a).view(self._copies, -1).square() for a, b in zip(vectors, after, strict=True)]
        self._steps.append(torch.cat(squares, 1).double().mean(1).cpu())

    def _of(self, name: str) -> torch.Tensor:
        return self._parameters[name].detach().reshape(self._rows[name], -1).clone()

    def summary(self) -> dict[str, list[float]]:
        """As `rotsim.balance` has it, for every copy; NaN where none of a layer's neurons is alive.

        Returns
        -------
        dict of str to list of float
            ``rotation``, the mean over layers of the median over neurons, radians per step. ``across_layers``, the
            largest of these medians over the smallest. ``within_layers``, the standard deviation of neurons over their
            mean, averaged over layers. ``undecayed_step``, the RMS step of one gain or bias.
        """
        samples = len(self._steps)
        medians, spreads = [], []
        for name, total in self._squares.items():
            rotation = (total / samples).sqrt().view(self._copies, -1).numpy().copy()
            alive = self._moved[name].view(self._copies, -1).numpy() >= samples / 2
            rotation[~(alive & np.isfinite(rotation) & (rotation > 0))] = np.nan
            counts = np.isfinite(rotation).any(axis=1)
            middle, spread = np.full(self._copies, np.nan), np.full(self._copies, np.nan)
            middle[counts] = np.nanmedian(rotation[counts], axis=1)
            spread[counts] = np.nanstd(rotation[counts], axis=1) / np.nanmean(rotation[counts], axis=1)
            medians.append(middle)
            spreads.append(spread)
        layers = np.array(medians)
        return {
            "rotation": layers.mean(axis=0).tolist(),
            "across_layers": (layers.max(axis=0) / layers.min(axis=0)).tolist(),
            "within_layers": np.mean(spreads, axis=0).tolist(),
            "undecayed_step": torch.stack(self._steps).mean(0).sqrt().tolist(),
        }
