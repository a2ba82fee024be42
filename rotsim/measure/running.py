"""The running window of a recorder: weights copied before a sampled step, and the sums of what the steps did."""

from __future__ import annotations

import numpy as np
import torch

from rotsim.measure.neurons import local
from rotsim.measure.quantities import VARIABLES
from rotsim.measure.recorded import Entry, Recorded
from rotsim.measure.sample import sample, window_means
from rotsim.measure.spec import state_of


class Running:
    """Sums over the sampled steps of one window; all stay on the parameters' devices until the window ends.

    Parameters
    ----------
    recorded : Recorded
        What is recorded. A window holds the same entries throughout.
    optimizer : torch.optim.Optimizer

    Attributes
    ----------
    samples : int
        Sampled steps of the window so far.
    last : int
        The step sampled last; 0 before the first.
    """

    def __init__(self, recorded: Recorded, optimizer: torch.optim.Optimizer) -> None:
        self._recorded, self._optimizer = recorded, optimizer
        self.samples = self.last = 0
        self._before: list[tuple[torch.Tensor, torch.Tensor | None] | None] = []
        self._lengths: list[torch.Tensor | None] = []
        self._sums: list[torch.Tensor] = []

    def copy(self, step: int, has_closure: bool) -> None:
        """Copy weights and gradients before a step that is sampled.

        Parameters
        ----------
        step : int
        has_closure : bool
            The step computes the gradients itself.
        """
        self._before = []
        for entry in self._recorded.look(step):
            if entry is None:
                self._before.append(None)
                continue
            entry.count()
            # copied before the step: some foreach and fused kernels reuse the gradient's memory
            gradient = None if has_closure else self._gradient(entry)
            self._before.append((entry.weights().clone(), gradient))

    def add(self, step: int, has_closure: bool) -> None:
        """Add what the step has done to the sums, if it was copied before.

        Parameters
        ----------
        step : int
        has_closure : bool
        """
        if not self._before:
            return
        if not self._sums:
            self._sums = [
                torch.zeros(len(VARIABLES) + 1, entry.neurons, dtype=torch.float64, device=entry.parameter.device)
                for entry in self._recorded.entries
            ]
        for entry, copied, sums in zip(self._recorded.entries, self._before, self._sums, strict=True):
            if copied is None:
                continue
            before, gradient = copied
            if has_closure:
                gradient = self._gradient(entry)
            entry.sampled += 1
            entry.absent += gradient is None
            sums += sample(
                before.to(torch.float64),
                entry.weights().to(torch.float64),
                None if gradient is None else gradient.to(torch.float64),
                state_of(self._optimizer, entry.parameter),
                self._optimizer.param_groups[entry.group],
                entry.rule,
                entry.rows,
            )
        self._lengths = [
            None if copied is None else _length(entry.parameter)
            for entry, copied in zip(self._recorded.entries, self._before, strict=True)
        ]
        self._before = []
        self.samples += 1
        self.last = step

    def look_again(self) -> None:
        """Count the parameters that have changed since the step that was sampled last."""
        self._before = []  # a step that raised may have left its copies
        for entry, length in zip(self._recorded.entries, self._lengths, strict=False):
            if length is not None and length.device == entry.parameter.device:
                entry.looked += 1
                # NaN is no change; the comparison stays on the device
                entry.touched = entry.touched + ((_length(entry.parameter) - length).abs() > 0)
        self._lengths = []

    def record(self) -> np.ndarray:
        """The window's means as float32, shape (len(VARIABLES), neurons)."""
        means = window_means(torch.cat([sums.cpu() for sums in self._sums], dim=1))
        with np.errstate(over="ignore"):
            return means.numpy().astype(np.float32)

    def next(self) -> None:
        """Begin the next window."""
        self._sums, self.samples = [], 0

    def let_go(self) -> None:
        """Forget the copies, which are as large as the parameters."""
        self._before, self._lengths = [], []

    def _gradient(self, entry: Entry) -> torch.Tensor | None:
        """A copy of what the optimizer takes for the gradient, of the recorded neurons."""
        gradient = entry.gradient()
        if gradient is None:
            return None
        scale = getattr(self._optimizer, "grad_scale", None)  # set by GradScaler around a fused step
        return gradient.clone() if scale is None else gradient / scale


def _length(parameter: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(local(parameter.detach()), dtype=torch.float64)
