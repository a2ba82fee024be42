"""Recording norm, rotation and update of every neuron while a PyTorch model trains.

The recorder only reads: it hangs on the optimizer's step hooks, copies the weights before a sampled
step and compares after it. It draws no random numbers and writes to no tensor of the training.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
import xarray as xr

from rotsim.dataset import PER_OCTAVE, build, json_text, save
from rotsim.errors import InvalidInput, instance, integer, is_a, mapping, positive, require, shown
from rotsim.files import check_writable
from rotsim.measure.coordinates import CoordinateSampler
from rotsim.measure.recorded import RATES, WINDOW_RATES, Entry, Recorded, Specs
from rotsim.measure.sample import VARIABLES, rows, sample, window_means
from rotsim.measure.scales import ScaleSampler
from rotsim.measure.selection import Selection, Split
from rotsim.measure.spec import state_of
from rotsim.measure.windows import Windows
from rotsim.optimizers.base import Optimizer

_SCALES = {"long_name": "log2 of the gradient norm of sampled rows", "units": f"1/{PER_OCTAVE}"}
_AUTOCORRELATION = {"long_name": "autocorrelation of sampled gradient coordinates", "units": "1"}
_SQUARE_STEP = {
    "long_name": "mean square of m/sqrt(v), or of m over that of g, over sampled gradient coordinates",
    "units": "1",
}


class Recorder:
    """Record what a training loop does to every neuron; training is bit-identical with and without it.

    Use it as a context manager around the loop, or call `start` and `close`. It works with every
    `torch.optim.Optimizer`, with any number of parameter groups, on CPU and CUDA. One that rotsim has no theory for
    is measured, and reports say so.

    Parameters
    ----------
    model : torch.nn.Module, or mapping of str to Tensor
        Where parameters have their names from.
    optimizer : torch.optim.Optimizer
        Its ``step`` is what counts as a step; steps count from 1. Of a wrapper that passes ``step`` on without
        hooks of its own, as Accelerate's, the optimizer inside is taken.
    interval : int
        Every `interval`-th step is sampled, >= 1.
    window : int
        Steps per record, a multiple of `interval` >= 1.
    parameters : iterable of str, or callable, optional
        Names to record, or ``f(name, parameter) -> bool``. By default every parameter with at least two
        dimensions that requires a gradient and that the optimizer updates.
    spec : Optimizer or sequence of Optimizer, optional
        The rotsim spec that stands for the optimizer in the dataset, or one for each parameter group (None to have it
        read off). By default they are read off the optimizer, group by group. Where none follows its recurrence,
        `rotsim.optimizers.Unmodelled` stands there, and nothing is predicted.
    split : mapping, optional
        How rows of fused weights fall into layers of their own: ``{"attn.qkv.weight": ("q", "k", "v")}`` for
        equal blocks, ``{"attn.qkv.weight": {"q": 64, "k": 16, "v": 16}}`` for unequal ones. A key stands for every
        parameter whose name ends in it; the blocks are called ``name[q]``.
    lags : int
        Longest lag >= 0, in steps, of the gradients' autocorrelation; 0 turns it off. It reads 64 coordinates per
        parameter at every step, and needs 4 · lags steps.
    path : str or Path, optional
        Where to `save` when the ``with`` block ends, also if training raised. It is saved every `save_seconds` too, at
        the end of a window, for what no block survives.
    note : str or mapping, optional
        Anything else that determines the numbers (network, data, seed, ...). A mapping is merged into the
        dataset's spec, a string is kept there under ``note``; JSON-serialisable.
    windows : int
        Most windows to keep, ≥ 16 and even. When there are so many, neighbours are merged and `window` doubles.
    save_seconds : float
        Seconds between two saves to `path` in training, > 0.

    Raises
    ------
    InvalidInput
        If an argument is out of range, a name is unknown, or nothing is left to record.

    Notes
    -----
    A neuron is a row of the weight viewed as (shape[0], -1): an output feature of a linear layer, an
    output channel of a convolution, a row of an embedding. (Transposed convolutions store input channels
    first: their rows are input channels.) A weight shared by several modules is one entry. Parameters with fewer
    dimensions, frozen ones and those of other optimizers are left out; `skipped` says which and why. A parameter
    that joins later (unfrozen, or `add_param_group`) is recorded from the next window on; before, it is NaN. So is
    one that left the optimizer or changed its shape, from then on; what takes its name is recorded as ``NAME (2)``.
    Weights that change between steps (clipped, averaged, normalised, loaded) are noticed after sampled steps, and
    the share is kept in ``spec["changed_outside"]``: the recorded rotation is the optimizer's alone.

    Angles come from ``2·atan2(‖u - v‖, ‖u + v‖)`` of the rows, scaled to equal length, in float64, so
    1e-6 rad between float32 weights keeps its digits. All sums are float64 on the parameter's device; per
    window and neuron nine float32 numbers are kept, of at most `windows` windows. A sample with a NaN or infinity
    counts for nothing in its neurons; a window without any other is NaN. Lion's rotation depends on how gradients
    burst. For it the gradient norms of eight rows per layer are kept besides, at every one of the last 32768 steps.

    Of a model whose optimizer moves float32 master copies, pass these: a mapping of names to tensors.

    With ``step(closure)`` gradients are read after the step, since the closure computes them. A gradient
    that a GradScaler leaves to a fused optimizer to unscale is recorded unscaled.
    """

    def __init__(
        self,
        model: torch.nn.Module | Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        interval: int = 10,
        window: int = 100,
        parameters: Selection = None,
        *,
        spec: Specs = None,
        split: Split | None = None,
        lags: int = 128,
        path: str | os.PathLike[str] | None = None,
        note: str | Mapping[str, Any] | None = None,
        windows: int = 512,
        save_seconds: float = 60.0,
    ) -> None:
        self.interval = integer("interval", interval, low=1)
        window = integer("window", window, low=1)
        if window % self.interval:
            raise InvalidInput(
                f"`window` must be a multiple of `interval` ({self.interval}); got {window}. "
                f"Use {-(-window // self.interval) * self.interval}"
            )
        require(integer("windows", windows, low=16) % 2 == 0, "windows", "be even, since pairs are merged", windows)
        self._windows = Windows(window, windows)
        self._save_seconds = positive("save_seconds", save_seconds)
        self._saved_at = monotonic()
        if not isinstance(model, torch.nn.Module | Mapping):
            raise InvalidInput(
                f"`model` must be a torch.nn.Module or a mapping of names to tensors; got {type(model).__name__}"
            )
        optimizer = _with_hooks(optimizer)
        instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
        spec = _checked_spec(spec, optimizer)
        split = {} if split is None else mapping("split", split)
        self.optimizer = optimizer
        self._note = _checked_note(note)
        self._path = None if path is None else check_writable(path)
        self._recorded = Recorded(model, optimizer, parameters, split, spec)
        self._sampler = CoordinateSampler(lags) if integer("lags", lags, low=0) else None
        self._scales = ScaleSampler()
        self._seen_step = 0
        self._passed_by = 0
        self._stepping: FrameType | None = None  # the call of a step that has begun and not ended
        self._sampled_step = 0
        self._last_tick = 0
        self._samples = 0
        self._has_closure = False
        self._before: list[tuple[torch.Tensor, torch.Tensor | None] | None] = []
        self._lengths: list[torch.Tensor | None] = []
        self._sums: list[torch.Tensor] = []
        self._handles: list[Any] = []

    @property
    def window(self) -> int:
        """Steps per window now."""
        return self._windows.window

    @property
    def skipped(self) -> dict[str, str]:
        """Parameters that are not recorded, and why."""
        return self._recorded.skipped

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
            if (inner := _inside(self.optimizer)) is not None:
                self._handles.append(inner[1].register_step_post_hook(self._after_inner_step))
        return self

    def close(self) -> None:
        """Detach from the optimizer; the records stay, and `start` resumes."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._before = []
        self._lengths = []

    def __enter__(self) -> Recorder:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._path is None:
            return
        if self._samples or self._windows.ends:
            try:
                self.save(self._path)
            except (OSError, InvalidInput) as failure:
                if error is None:
                    raise
                warnings.warn(f"the trace is lost: {failure}", stacklevel=2)  # what training raised matters more
        elif error is None:
            warnings.warn(f"{self._path} is not written: {self._nothing()}", stacklevel=2)

    @torch.no_grad()
    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._stepping is not None and self._stepping in _callers():
            return  # super().step() inside step, both of which PyTorch hooks
        self._stepping = next(_callers())
        self._before = []  # a step that raised may have left its copies
        self._look_again()
        # torch counts the optimizer itself among `args`
        closure = kwargs.get("closure", next((argument for argument in args if argument is not optimizer), None))
        self._has_closure = closure is not None
        self._recorded.begin(self._seen_step + 1)
        if not self._has_closure:  # with one, gradients exist after the step only
            self._sample_coordinates()
        if (self._seen_step + 1) % self.interval:
            return
        if not self._sums:
            with contextlib.suppress(InvalidInput):  # all may have left; that is no reason to stop a training
                self._recorded.select()  # parameters may have joined; a window holds the same ones throughout
            self._recorded.begin(self._seen_step + 1)
        for entry in self._recorded.look(self._seen_step + 1):
            if entry is None:
                self._before.append(None)
                continue
            # copied before the step: some foreach and fused kernels reuse the gradient's memory
            gradient = None if self._has_closure else self._gradient(entry.parameter)
            self._before.append((entry.parameter.detach().clone(), gradient))

    @torch.no_grad()
    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if next(_callers()) is not self._stepping:
            return
        self._stepping = None
        self._seen_step += 1
        if self._has_closure:
            self._sample_coordinates()
        if self._before:
            if not self._sums:
                self._sums = [
                    torch.zeros(len(VARIABLES) + 1, entry.neurons, dtype=torch.float64, device=entry.parameter.device)
                    for entry in self._recorded.entries
                ]
            for entry, copied, sums in zip(self._recorded.entries, self._before, self._sums, strict=True):
                if copied is None:
                    continue
                before, gradient = copied
                if self._has_closure:
                    gradient = self._gradient(entry.parameter)
                entry.sampled += 1
                entry.absent += gradient is None
                sums += sample(
                    rows(before),
                    rows(entry.parameter.detach()),
                    None if gradient is None else rows(gradient),
                    state_of(self.optimizer, entry.parameter),
                    self.optimizer.param_groups[entry.group],
                    entry.rule,
                )
            self._lengths = [
                None if copied is None else _length(entry.parameter)
                for entry, copied in zip(self._recorded.entries, self._before, strict=True)
            ]
            self._before = []
            self._samples += 1
            self._sampled_step = self._seen_step
        if self._samples and self._seen_step % self.window == 0:
            self._windows.add(self._seen_step, self._window_record(), self._recorded.rates())
            self._sums, self._samples = [], 0
            self._recorded.next_window()
            self._save_now_and_then()

    def _after_inner_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._passed_by += 1
        if self._passed_by == _UNSEEN and not self._seen_step and (inner := _inside(self.optimizer)) is not None:
            kind, name = type(self.optimizer).__name__, inner[0]
            warnings.warn(
                f"nothing is recorded: {kind}.{name} has stepped, {kind} itself has not, as in SAM's first_step and "
                f"second_step. Record the one that steps: Recorder(model, optimizer.{name})",
                stacklevel=2,
            )

    def _look_again(self) -> None:
        """Count the parameters that have changed since the sampled step that was the last one."""
        for entry, length in zip(self._recorded.entries, self._lengths, strict=False):
            if length is not None and length.device == entry.parameter.device:
                entry.looked += 1
                # NaN is no change; the comparison stays on the device
                entry.touched = entry.touched + ((_length(entry.parameter) - length).abs() > 0)
        self._lengths = []

    def _save_now_and_then(self) -> None:
        if self._path is None or monotonic() < self._saved_at + self._save_seconds:
            return
        try:
            self.save(self._path)
        except (OSError, InvalidInput) as error:  # a full disk, a folder that is gone: no reason to stop a training
            warnings.warn(f"{error}; training goes on", stacklevel=2)
        self._saved_at = monotonic()

    def _gradient(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """A copy of what the optimizer takes for the gradient."""
        if parameter.grad is None:
            return None
        gradient = parameter.grad.detach()
        scale = getattr(self.optimizer, "grad_scale", None)  # set by GradScaler around a fused step
        return gradient.clone() if scale is None else gradient / scale

    def _sample_coordinates(self) -> None:
        """Read what is read at every step."""
        entries = self._recorded.entries
        device = entries[0].parameter.device
        signed = [i for i, entry in enumerate(entries) if entry.rule.shape == "sign"]
        if self._sampler is None and not signed:
            return
        gradients = [_dense(e.parameter.grad) if e.parameter.shape == e.shape else None for e in entries]
        if self._sampler is not None:
            betas = [_averaging(entry.rule) for entry in entries]
            self._sampler.add(gradients, [entry.shape for entry in entries], betas, device)
        if signed:
            self._scales.add([gradients[i] for i in signed], [entries[i].labels for i in signed], device)
            self._last_tick = self._seen_step + (not self._has_closure)

    def _window_record(self) -> np.ndarray:
        """The running window as float32, shape (len(VARIABLES), neurons)."""
        means = window_means(torch.cat([sums.cpu() for sums in self._sums], dim=1))
        with np.errstate(over="ignore"):
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
            Dimensions (neuron, step), source ``"trace"``. ``layer`` is the parameter's name. The
            coordinates ``lr`` and ``weight_decay`` (neuron,) hold what was in force at the last sampled step
            (the last with lr > 0). ``initial_norm`` (neuron,) is ‖w‖ before the first step seen, after ``initial_step``
            steps. Of each window and parameter, (parameter, step), ``window_lr``, ``window_weight_decay``,
            ``window_beta1`` and ``window_beta2`` are what was in force last. ``window_lr_start`` and
            ``window_weight_decay_start`` are that at the first look. ``spec["lr_changed"]``,
            ``spec["weight_decay_changed"]`` and ``spec["momentum_changed"]`` (momentum or betas) tell whether that was
            constant. ``spec["changed"]`` tells until which step it was not, by layer.
            ``optimizer`` is the spec of the first recorded group with weight decay; ``spec["optimizers"]`` holds those
            of the parameters that follow another one.

        Raises
        ------
        InvalidInput
            If no step was sampled.
        """
        windows = self._windows
        if self._samples:
            windows = windows.with_one_more(self._sampled_step, self._window_record(), self._recorded.rates())
        if not windows.ends:
            raise InvalidInput(self._nothing())
        values, rates = windows.stacked()
        neurons = values.shape[1]
        entries = self._recorded.entries[
            : np.searchsorted(np.cumsum([entry.neurons for entry in self._recorded.entries]), neurons) + 1
        ]
        counts = [entry.neurons for entry in entries]

        def per_neuron(what: Callable[[Entry], Any]) -> np.ndarray:
            return np.repeat([what(entry) for entry in entries], counts)

        device = entries[0].parameter.device
        specs = self._recorded.specs()
        main = specs[self._recorded.main().name]
        others = {e.name: specs[e.name] for e in entries if not _differs_in_rates_alone(specs[e.name], main)}
        result = build(
            "trace",
            step=np.array(windows.ends),
            variables=dict(zip(VARIABLES, values, strict=True)),
            optimizer=main,
            layer=np.concatenate([entry.labels for entry in entries]),
            fan_in=per_neuron(lambda entry: entry.shape[1:].numel()),
            spec={
                **self._note,
                "interval": self.interval,
                "window": self.window,
                "steps": self._seen_step,
                "layers": {entry.name: list(entry.shape) for entry in entries},
                "dtypes": {entry.name: str(entry.parameter.dtype).removeprefix("torch.") for entry in entries},
                "optimizers": {name: spec.to_dict() for name, spec in others.items()},
                "skipped": self.skipped,
                "left": self._recorded.left,
                "changed_outside": {e.name: float(e.touched) / e.looked for e in entries if e.touched},
                "absent": {e.name: e.absent / e.sampled for e in entries if e.absent},
                "changed": {entry.name: entry.changed for entry in entries if entry.changed},
                **{f"{name}_changed": any(name in e.changed for e in entries) for name in RATES},
            },
            provenance_extra={
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
                "torch_optimizer": type(self.optimizer).__name__,
                **provenance,
            },
        ).assign_coords(
            initial_norm=("neuron", np.concatenate([_numbers(entry.initial_norm) for entry in entries])),
            initial_step=("neuron", per_neuron(lambda entry: entry.initial_step)),
            lr=("neuron", per_neuron(lambda entry: entry.lr)),
            weight_decay=("neuron", per_neuron(lambda entry: entry.weight_decay)),
            parameter=[entry.name for entry in entries],
        )
        result = result.assign(
            {
                f"window_{name}": (("parameter", "step"), values[: len(entries)], {"long_name": words, "units": "1"})
                for (name, words), values in zip(WINDOW_RATES.items(), rates, strict=True)
            }
        )
        if self._scales.layers:
            codes = self._scales.series()
            result = result.assign_coords(
                row_layer=("row", np.array(self._scales.layers, dtype=str)),
                tick=np.arange(self._last_tick - codes.shape[1] + 1, self._last_tick + 1),
            ).assign(gradient_log2=(("row", "tick"), codes, _SCALES), gradient_overlap=("row", self._scales.overlap()))
        if self._sampler is None:
            return result
        correlation = self._sampler.autocorrelation()[: len(entries)].astype(np.float32)
        steps, *means = self._sampler.eras()
        of_eras, squares = (part[: len(entries)].astype(np.float32) for part in means)
        result = result.assign_coords(lag=np.arange(correlation.shape[1]), era=steps).assign(
            gradient_autocorrelation=(("parameter", "lag"), correlation, _AUTOCORRELATION),
            era_autocorrelation=(("parameter", "era", "lag"), of_eras, _AUTOCORRELATION),
        )
        if not any(_averaging(entry.rule) for entry in entries):
            return result
        square_step = self._sampler.square_step()[: len(entries)].astype(np.float32)
        return result.assign(
            square_step=(("parameter",), square_step, _SQUARE_STEP),
            era_square_step=(("parameter", "era"), squares, _SQUARE_STEP),
        )

    def _nothing(self) -> str:
        return (
            f"nothing was recorded: {self._seen_step} optimizer steps were seen and the first sample is step "
            f"{self.interval}; train longer or use a smaller `interval`"
        )

    def save(self, path: str | os.PathLike[str], **provenance: Any) -> Path:
        """Write `dataset` as one NetCDF-4 file, atomically; return its path."""
        return save(self.dataset(**provenance), path)


_WRITTEN = {f"{name}_changed" for name in RATES} | {
    "interval", "window", "steps", "layers", "optimizers", "skipped", "left", "changed", "changed_outside",
    "dtypes", "absent",
}  # fmt: skip
_DECORATED = torch.utils._contextlib.__file__
_UNSEEN = 2  # steps of an optimizer inside the recorded one, without one of that, until it is said


def _with_hooks(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer whose hooks `step` calls: a wrapper that never initialised its base class has none."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and isinstance(
        inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer
    ):
        optimizer = inner
    return optimizer


def _callers() -> Iterator[FrameType]:
    """The calls that led to a hook, the innermost first, without those of decorators around it."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in (__file__, _DECORATED):
        frame = frame.f_back  # type: ignore[assignment]
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _inside(optimizer: torch.optim.Optimizer) -> tuple[str, torch.optim.Optimizer] | None:
    """An optimizer that this one holds, by name: what it does may pass by this one's own step, as in SAM."""
    found = ((name, value) for name, value in vars(optimizer).items() if isinstance(value, torch.optim.Optimizer))
    return next(((name, value) for name, value in found if hasattr(value, "_optimizer_step_pre_hooks")), None)


def _differs_in_rates_alone(one: Optimizer, other: Optimizer) -> bool:
    try:
        return one.with_rates(other.lr, other.weight_decay) == other
    except InvalidInput:  # a rule that these rates are no rates of
        return False


def _numbers(norm: torch.Tensor | None) -> np.ndarray:
    assert norm is not None  # a window with an entry in it began before
    return norm.cpu().numpy()


def _length(parameter: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(parameter.detach(), dtype=torch.float64)


def _averaging(rule: Optimizer) -> tuple[float, ...] | None:
    """β1 and β2 by which m and v average; β2 = 1 where the step is m alone, None where it is neither."""
    return {"inverse root": rule.averages, "identity": (rule.beta1, 1.0)}.get(rule.shape)


def _dense(gradient: torch.Tensor | None) -> torch.Tensor | None:
    return gradient if gradient is None or gradient.layout is torch.strided else gradient.to_dense()


def _checked_spec(spec: Any, optimizer: torch.optim.Optimizer) -> Specs:
    if spec is None or isinstance(spec, Optimizer):
        return spec
    if not is_a(spec, list, tuple) or not all(one is None or isinstance(one, Optimizer) for one in spec):
        raise InvalidInput(
            f"`spec` must be a rotsim optimizer, e.g. rotsim.SGDM(...), or a list of them; got {shown(spec)}"
        )
    groups = len(optimizer.param_groups)
    require(len(spec) == groups, "spec", f"hold one spec or None for each of the {groups} parameter groups", spec)
    return spec


def _checked_note(note: str | Mapping[str, Any] | None) -> dict[str, Any]:
    entries = {} if note is None else {"note": note} if isinstance(note, str) else mapping("note", note)
    if reserved := _WRITTEN & set(entries):
        raise InvalidInput(f"`note` may not set {', '.join(sorted(reserved))}, which the recorder writes; rename it")
    json_text("note", entries)
    return entries
