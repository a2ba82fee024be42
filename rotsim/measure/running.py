"""The running window of a recorder: weights copied before a sampled step, and the sums of what the steps did."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from rotsim.measure.quantities import VARIABLES
from rotsim.measure.recorded import Entry, Recorded
from rotsim.measure.sample import LENGTHS, Look, averaged, contribution, partial_sums, whole_lengths, window_means
from rotsim.measure.sample_triton import all_lengths
from rotsim.measure.sharding import added, local
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
        self._lengths: list[tuple[list[Entry], torch.Tensor]] = []
        self._sums: list[tuple[list[int], torch.Tensor]] = []

    def copy(self, step: int, has_closure: bool) -> None:
        """Copy weights, and gradients unless a closure is to compute them, before a step that is sampled."""
        looked = self._recorded.look(step)
        here = [i for i, entry in enumerate(looked) if entry is not None]
        entries = [self._recorded.entries[i] for i in here]
        for entry in entries:
            entry.count()
        # copied before the step: some foreach and fused kernels reuse the gradient's memory
        gradients = [None if has_closure else self._gradient(entry) for entry in entries]
        given = [k for k, gradient in enumerate(gradients) if gradient is not None]
        weights = _copies([entry.weights() for entry in entries])
        copied = dict(zip(given, _copies([g for g in gradients if g is not None]), strict=True))
        self._before = [None] * len(looked)
        for k, i in enumerate(here):
            self._before[i] = weights[k], copied.get(k)

    def add(self, step: int, has_closure: bool) -> None:
        """Add what the step has done to the sums, if it was copied before."""
        if not self._before:
            return
        entries = self._recorded.entries
        if not self._sums:
            for device in dict.fromkeys(entry.parameter.device for entry in entries):
                members = [i for i, entry in enumerate(entries) if entry.parameter.device == device]
                shape = len(VARIABLES) + 1, sum(entries[i].neurons for i in members)
                self._sums.append((members, torch.zeros(shape, dtype=torch.float64, device=device)))
        here = [i for i, copied in enumerate(self._before) if copied is not None]
        spread = [i for i in here if entries[i].groups]
        whole = [i for i in here if not entries[i].groups]
        found = dict(zip(whole, all_lengths(self._looks(whole, has_closure)), strict=True))
        parts = [partial_sums(*look) for look in self._looks(spread, has_closure)]
        sums_of_all = added(parts, [entries[i].groups for i in spread])
        found |= {i: whole_lengths(part) for i, part in zip(spread, sums_of_all, strict=True)}
        self._before = []
        for members, sums in self._sums:
            sums += contribution(torch.cat([found[i] if i in found else _nothing(entries[i]) for i in members], dim=1))
        moved = [entries[i] for i in here]
        for device in dict.fromkeys(entry.parameter.device for entry in moved):
            alike = [entry for entry in moved if entry.parameter.device == device]
            self._lengths.append((alike, _lengths(alike)))
        self.samples += 1
        self.last = step

    def _looks(self, here: list[int], has_closure: bool) -> Iterator[Look]:
        """What the step has done to each entry that was copied."""
        for i in here:
            entry, copied = self._recorded.entries[i], self._before[i]
            assert copied is not None
            before, gradient = copied
            if has_closure:
                gradient = self._gradient(entry)
            entry.sampled += 1
            entry.absent += gradient is None
            state, group = state_of(self._optimizer, entry.parameter), self._optimizer.param_groups[entry.group]
            scaled = averaged(gradient, state, group, entry.rule, entry.layout.rows)
            yield before, entry.weights(), gradient, scaled
            self._before[i] = None

    def look_again(self) -> None:
        """Count the parameters that have changed since the step that was sampled last."""
        self._before = []  # a step that raised may have left its copies
        for entries, lengths in self._lengths:
            same = [k for k, entry in enumerate(entries) if entry.parameter.device == lengths.device]
            if not same:
                continue
            entries, lengths = [entries[k] for k in same], lengths[same]
            # NaN is no change; the comparison stays on the device
            changed = ((_lengths(entries) - lengths).abs() > 0).to(torch.float32)
            before = [torch.as_tensor(entry.touched, dtype=torch.float32, device=lengths.device) for entry in entries]
            for entry, touched in zip(entries, torch._foreach_add(before, list(changed.unbind())), strict=True):
                entry.looked += 1
                entry.touched = touched
        self._lengths = []

    def record(self) -> np.ndarray:
        """The window's means as float32, shape (len(VARIABLES), neurons)."""
        neurons = [entry.neurons for entry in self._recorded.entries]
        of_all: list[torch.Tensor] = [torch.empty(0)] * len(neurons)
        for members, sums in self._sums:
            for i, part in zip(members, sums.cpu().split([neurons[i] for i in members], dim=1), strict=True):
                of_all[i] = part
        means = window_means(torch.cat(of_all, dim=1))
        with np.errstate(over="ignore"):
            return means.numpy().astype(np.float32)

    def next(self) -> None:
        """Begin the next window."""
        self._sums, self.samples = [], 0

    def let_go(self) -> None:
        """Forget the copies, which are as large as the parameters."""
        self._before, self._lengths = [], []

    def _gradient(self, entry: Entry) -> torch.Tensor | None:
        """What the optimizer takes for the gradient, of the recorded neurons; perhaps a view of it."""
        gradient = entry.gradient()
        if gradient is None:
            return None
        scale = getattr(self._optimizer, "grad_scale", None)  # set by GradScaler around a fused step
        return gradient if scale is None else gradient / scale


def _copies(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Of all tensors, in a few launches."""
    copies = [torch.empty_like(x) for x in tensors]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return copies


def _nothing(entry: Entry) -> torch.Tensor:
    """In place of the lengths of an entry that was not in the step: it adds nothing."""
    return torch.full((LENGTHS, entry.neurons), torch.nan, dtype=torch.float64, device=entry.parameter.device)


def _lengths(entries: list[Entry]) -> torch.Tensor:
    """Of whole parameters, on one device."""
    return torch.stack(torch._foreach_norm([local(e.parameter.detach()) for e in entries], 2, dtype=torch.float64))
