"""Recording norm, rotation and update of every neuron while a PyTorch model trains.

The recorder only reads: it hangs on the optimizer's step hooks, copies the weights before a sampled
step and compares after it. It draws no random numbers and writes to no tensor of the training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
import xarray as xr

from rotsim.dataset import build, save
from rotsim.errors import InvalidInput, integer
from rotsim.measure.spec import optimizer_spec
from rotsim.optimizers.base import Optimizer

#: Per-neuron results of a window, in the order of the rows of the running sums.
VARIABLES = ("norm", "rotation", "update_rms", "gradient_norm", "gradient_scale", "active")

Selection = Iterable[str] | Callable[[str, torch.nn.Parameter], bool] | None


@dataclass
class _Entry:
    """One recorded parameter, with the hyperparameters last seen in force for it."""

    name: str
    parameter: torch.nn.Parameter
    group: int
    lr: float
    weight_decay: float

    @property
    def neurons(self) -> int:
        return self.parameter.shape[0]


class Recorder:
    """Record what a training loop does to every neuron; training is bit-identical with and without it.

    Use it as a context manager around the loop, or call `start` and `close`. It works with every
    `torch.optim.Optimizer`, with any number of parameter groups, on CPU and CUDA.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
        Its ``step`` is what counts as a step; steps count from 1.
    interval : int
        Every `interval`-th step is sampled.
    window : int
        Steps per record, a multiple of `interval`.
    parameters : iterable of str, or callable, optional
        Names to record, or ``f(name, parameter) -> bool``. By default every parameter with at least two
        dimensions that requires a gradient and that the optimizer updates.
    spec : Optimizer, optional
        The rotsim spec that stands for the optimizer in the dataset; read off the optimizer by default.
    note : str or mapping, optional
        Anything else that determines the numbers (network, data, seed, ...). A mapping is merged into the
        dataset's spec, a string is kept there under ``note``; JSON-serialisable.

    Raises
    ------
    InvalidInput
        If an argument is out of range, a name is unknown, nothing is left to record, or no spec follows
        the optimizer's recurrence and none was given.

    Notes
    -----
    A neuron is a row of the weight viewed as (shape[0], -1): an output feature of a linear layer, an
    output channel of a convolution, a row of an embedding. (Transposed convolutions store input channels
    first: their rows are input channels.) A weight shared by several modules is one entry.

    Angles come from ``2·atan2(‖u - v‖, ‖u + v‖)`` of the rows, scaled to equal length, in float64, so
    1e-6 rad between float32 weights keeps its digits. All sums are float64 on the parameter's device; per
    window and neuron six float32 numbers are kept.

    With ``step(closure)`` gradients are read after the step, since the closure computes them. A gradient
    that a GradScaler leaves to a fused optimizer to unscale is recorded unscaled.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        interval: int = 10,
        window: int = 100,
        parameters: Selection = None,
        *,
        spec: Optimizer | None = None,
        note: str | Mapping[str, Any] | None = None,
    ) -> None:
        self.interval = integer("interval", interval, low=1)
        self.window = integer("window", window, low=1)
        if self.window % self.interval:
            raise InvalidInput(
                f"`window` must be a multiple of `interval` ({self.interval}); got {self.window}. "
                f"Use {-(-self.window // self.interval) * self.interval}"
            )
        if not isinstance(model, torch.nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module; got {type(model).__name__}")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InvalidInput(f"`optimizer` must be a torch.optim.Optimizer; got {type(optimizer).__name__}")
        if spec is not None and not isinstance(spec, Optimizer):
            raise InvalidInput(f"`spec` must be a rotsim optimizer, e.g. rotsim.SGDM(...); got {spec!r}")
        self.optimizer = optimizer
        self._note = _checked_note(note)
        self._entries = _select(model, optimizer, parameters)
        self._given_spec = spec
        first = self._entries[0]
        if spec is None:  # say now, not after the training, that there is none; a warm-up may start at lr 0
            optimizer_spec(optimizer, first.group, lr=first.lr or 1e-12)
        self._changed = {"lr": False, "weight_decay": False}
        self._seen_step = 0
        self._sampled_step = 0
        self._samples = 0
        self._before: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        self._sums: list[torch.Tensor] = []
        self._window_ends: list[int] = []
        self._records: list[np.ndarray] = []
        self._handles: list[Any] = []

    @property
    def steps(self) -> int:
        """Completed optimizer steps seen so far."""
        return self._seen_step

    def start(self) -> Recorder:
        """Attach to the optimizer; does nothing if attached already."""
        if not self._handles:
            self._handles = [
                self.optimizer.register_step_pre_hook(self._before_step),
                self.optimizer.register_step_post_hook(self._after_step),
            ]
        return self

    def close(self) -> None:
        """Detach from the optimizer; the records stay, and `start` resumes."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before = []

    def __enter__(self) -> Recorder:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._before = []  # a step that raised may have left its copies
        if (self._seen_step + 1) % self.interval:
            return
        self._note_hyperparameters()
        # torch counts the optimizer itself among `args`
        closure = kwargs.get("closure", next((argument for argument in args if argument is not optimizer), None))
        for entry in self._entries:
            # read before the step: some foreach and fused kernels reuse the gradient's memory
            gradient_norm = None if closure is not None else self._gradient_norm(entry.parameter)
            self._before.append((entry.parameter.detach().clone(), gradient_norm))

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._seen_step += 1
        if self._before:
            if not self._sums:
                self._sums = [
                    torch.zeros(len(VARIABLES), entry.neurons, dtype=torch.float64, device=entry.parameter.device)
                    for entry in self._entries
                ]
            for entry, (before, gradient_norm), sums in zip(self._entries, self._before, self._sums, strict=True):
                if gradient_norm is None:
                    gradient_norm = self._gradient_norm(entry.parameter)
                sums += _squares(_rows(before), _rows(entry.parameter.detach()), gradient_norm)
            self._before = []
            self._samples += 1
            self._sampled_step = self._seen_step
        if self._samples and self._seen_step % self.window == 0:
            self._window_ends.append(self._seen_step)
            self._records.append(self._window_record())
            self._sums, self._samples = [], 0

    def _gradient_norm(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        gradient = parameter.grad
        if gradient is None:
            return torch.zeros(parameter.shape[0], dtype=torch.float64, device=parameter.device)
        dense = gradient.detach() if gradient.layout is torch.strided else gradient.detach().to_dense()
        norm = torch.linalg.vector_norm(_rows(dense), dim=1)
        scale = getattr(self.optimizer, "grad_scale", None)  # set by GradScaler around a fused step
        return norm if scale is None else norm / scale

    def _note_hyperparameters(self) -> None:
        for entry in self._entries:
            lr, weight_decay = _hyperparameters(self.optimizer.param_groups[entry.group])
            self._changed["lr"] |= lr != entry.lr
            self._changed["weight_decay"] |= weight_decay != entry.weight_decay
            entry.lr = lr or entry.lr  # at lr 0 nothing moves: keep the last one that moved the weights
            entry.weight_decay = weight_decay

    def _window_record(self) -> np.ndarray:
        """The running window as float32, shape (len(VARIABLES), neurons)."""
        means = torch.cat([sums.cpu() for sums in self._sums], dim=1) / self._samples
        means[:-1] = means[:-1].sqrt()
        return means.numpy().astype(np.float32)

    def dataset(self, **provenance: Any) -> xr.Dataset:
        """What was recorded so far, in the schema of `rotsim.dataset`.

        A window that is not complete yet is included if it has a sample; its ``step`` is the last sampled
        step. May be called while training goes on, and after training raised.

        Parameters
        ----------
        **provenance
            Kept with the versions and the device (for example ``command=...``); JSON-serialisable.

        Returns
        -------
        Dataset
            Dimensions (neuron, step), source ``"trace"``. Beside ``layer`` (parameter name) and ``fan_in`` the
            coordinates ``lr`` and ``weight_decay`` (neuron,) hold what was in force at the last sampled step
            (the last with lr > 0); ``spec["lr_changed"]`` and ``spec["weight_decay_changed"]`` tell whether
            that was constant. ``optimizer`` is the spec of the first recorded parameter's group.

        Raises
        ------
        InvalidInput
            If no step was sampled.
        """
        records, ends = list(self._records), list(self._window_ends)
        if self._samples:
            records.append(self._window_record())
            ends.append(self._sampled_step)
        if not records:
            raise InvalidInput(
                f"nothing was recorded: {self._seen_step} optimizer steps were seen and the first sample is step "
                f"{self.interval}; train longer or use a smaller `interval`"
            )
        values = np.stack(records, axis=-1)
        first, counts = self._entries[0], [entry.neurons for entry in self._entries]

        def per_neuron(what: Callable[[_Entry], Any]) -> np.ndarray:
            return np.repeat([what(entry) for entry in self._entries], counts)

        spec = self._given_spec or optimizer_spec(
            self.optimizer, first.group, lr=first.lr, weight_decay=first.weight_decay
        )
        device = first.parameter.device
        return build(
            "trace",
            step=np.array(ends),
            variables=dict(zip(VARIABLES, values, strict=True)),
            optimizer=spec,
            layer=per_neuron(lambda entry: entry.name),
            fan_in=per_neuron(lambda entry: entry.parameter[0].numel()),
            spec={
                **self._note,
                "interval": self.interval,
                "window": self.window,
                "steps": self._seen_step,
                "layers": {entry.name: list(entry.parameter.shape) for entry in self._entries},
                **{f"{name}_changed": changed for name, changed in self._changed.items()},
            },
            provenance_extra={
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
                "torch_optimizer": type(self.optimizer).__name__,
                **provenance,
            },
        ).assign_coords(
            lr=("neuron", per_neuron(lambda entry: entry.lr)),
            weight_decay=("neuron", per_neuron(lambda entry: entry.weight_decay)),
        )

    def save(self, path: str | os.PathLike[str], **provenance: Any) -> Path:
        """Write `dataset` as one NetCDF-4 file, atomically; return its path."""
        return save(self.dataset(**provenance), path)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(tensor.shape[0], -1).to(torch.float64)


def _squares(before: torch.Tensor, after: torch.Tensor, gradient_norm: torch.Tensor) -> torch.Tensor:
    """What one sample adds to the sums: squares of the first five `VARIABLES`, then the activity."""
    norm_before = torch.linalg.vector_norm(before, dim=1)
    norm = torch.linalg.vector_norm(after, dim=1)
    update = torch.linalg.vector_norm(after - before, dim=1)
    # scaled to equal length; a zero row gives atan2(0, 0) = 0, where the angle has no meaning
    u, v = before * norm[:, None], after * norm_before[:, None]
    rotation = 2 * torch.atan2(torch.linalg.vector_norm(v - u, dim=1), torch.linalg.vector_norm(u + v, dim=1))
    quantities = torch.stack([norm, rotation, update, gradient_norm, gradient_norm * norm_before])
    return torch.cat([quantities**2, (gradient_norm != 0).to(torch.float64)[None]])


def _hyperparameters(group: Mapping[str, Any]) -> tuple[float, float]:
    return float(group.get("lr", 0.0)), float(group.get("weight_decay", 0.0))


def _select(model: torch.nn.Module, optimizer: torch.optim.Optimizer, selection: Selection) -> list[_Entry]:
    group_of = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    candidates = {
        name: parameter
        for name, parameter in model.named_parameters()  # a tied weight appears once
        if parameter.ndim >= 2
        and parameter.requires_grad
        and parameter.is_floating_point()
        and id(parameter) in group_of
    }
    if not candidates:
        raise InvalidInput(
            "nothing to record: `model` and `optimizer` share no trainable parameter with 2 or more dimensions; "
            "pass the optimizer that trains this model"
        )
    if selection is None:
        names = list(candidates)
    elif callable(selection):
        names = [name for name, parameter in candidates.items() if selection(name, parameter)]
    else:
        wanted = [selection] if isinstance(selection, str) else list(selection)
        unknown = [name for name in wanted if name not in candidates]
        if unknown:
            raise InvalidInput(
                f"`parameters` names {', '.join(map(repr, unknown))}, which cannot be recorded; "
                f"choose from {', '.join(candidates)}"
            )
        names = [name for name in candidates if name in wanted]
    if not names:
        raise InvalidInput(f"`parameters` selects nothing; choose from {', '.join(candidates)}")
    entries = []
    for name in names:
        group = group_of[id(candidates[name])]
        values = optimizer.param_groups[group]
        entries.append(_Entry(name, candidates[name], group, *_hyperparameters(values)))
    return entries


def _checked_note(note: str | Mapping[str, Any] | None) -> dict[str, Any]:
    entries = {} if note is None else {"note": note} if isinstance(note, str) else dict(note)
    reserved = {"interval", "window", "steps", "layers", "lr_changed", "weight_decay_changed"} & set(entries)
    if reserved:
        raise InvalidInput(f"`note` may not set {', '.join(sorted(reserved))}, which the recorder writes; rename it")
    try:
        json.dumps(entries)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"`note` must be JSON-serialisable ({error}); use strings, numbers, lists") from None
    return entries
