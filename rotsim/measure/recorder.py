"""Recording norm, rotation and update of every neuron while a PyTorch model trains.

The recorder only reads: it hangs on the optimizer's step hooks, copies the weights before a sampled
step and compares after it. It draws no random numbers and writes to no tensor of the training.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import xarray as xr

from rotsim.dataset import save
from rotsim.errors import InvalidInput, instance, integer, mapping, positive, require
from rotsim.files import check_writable
from rotsim.measure.assembly import assemble, checked_note, entries_of
from rotsim.measure.earlier import Earlier, state_of
from rotsim.measure.every_step import MOST_LAGS, EveryStep
from rotsim.measure.joining import join
from rotsim.measure.metrics import metrics
from rotsim.measure.neurons import Axes
from rotsim.measure.recorded import Recorded, Specs, checked_spec
from rotsim.measure.running import Running
from rotsim.measure.saving import Saving
from rotsim.measure.selection import Selection, Split
from rotsim.measure.sharding import rank
from rotsim.measure.sinks import sinks
from rotsim.measure.steps import Steps, counter, with_hooks
from rotsim.measure.windows import Windows


class Recorder:
    """Record what a training loop does to every neuron; training is bit-identical with and without it.

    Use it as a context manager around the loop, or call `start` and `close`, which saves. It works with every
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
        parameter whose name ends in it; the blocks are called ``name[q]``. Queries, keys and values of equal number are
        split by default in weights called ``in_proj_weight``, ``c_attn``, ``qkv`` or ``Wqkv``.
    axes : mapping, optional
        Which axes of a parameter number its neurons, ``{"experts.w1": (0, 2)}``, where that is not known; see Notes.
    rows : int
        Most neurons of a parameter to record, >= 1: of an embedding with more, so many that are evenly spaced.
    lags : int
        Longest lag >= 0 and < 65536, in steps, of the gradients' autocorrelation; 0 turns it off. It reads 64
        coordinates per parameter at every step, and needs 1.5 · lags steps, or 96 if that is more.
    path : str or Path, optional
        Where to save: after a few seconds, then every `save_seconds`, and at `close`, also if training raised.
        When SIGTERM asks the process to end, it is saved before your own handler is called. Of several processes of
        `torch.distributed` the first alone saves. Where they share rows, each has a recorder with the same options.
    resume : bool or int
        What to do with a trace that is at `path`. False refuses to replace it. True goes on from it: steps are counted
        on, from the optimizer's own counter if it has one. What was recorded after that is left out, as it was lost
        with the run. A number says how many steps, >= 1, came before. Without a file, recording starts anew.
    log : callable or tracker, or list of them, optional
        Gets `latest` after each window: ``f(metrics, step)``, or W&B, TensorBoard's ``SummaryWriter``, ``mlflow``,
        ``trackio``.
    note : str or mapping, optional
        Anything else that determines the numbers (network, data, seed, ...). A mapping is merged into the
        dataset's spec, a string is kept there under ``note``; JSON-serialisable.
    windows : int
        Most windows to keep, ≥ 16 and even. When there are so many, neighbours are merged and `window` doubles.
    save_seconds : float
        Seconds between two saves to `path` in training, > 0: a process that is killed loses no more than this.

    Raises
    ------
    InvalidInput
        If an argument is out of range, a name is unknown, or nothing is left to record.

    Notes
    -----
    A neuron is a row of the weight viewed as (shape[0], -1): an output feature of a linear layer, an
    output channel of a convolution, a row of an embedding. It is a column of the ``Conv1D`` of transformers, and the
    second axis of a transposed convolution, in each group. Of three dimensions, but for convolutions and ``Bilinear``,
    is a stack of matrices, one for each expert, with a neuron in every row. A weight shared by modules is one entry.
    Parameters with fewer dimensions, frozen ones and those of other optimizers are left out; `skipped` says which and
    why. A parameter that joins later (unfrozen, or `add_param_group`) is recorded from the next window on; before, it
    is NaN. So is one that left the optimizer or changed its shape, from then on; what takes its name is recorded as
    ``NAME (2)``.
    Weights that change between steps (clipped, averaged, normalised, loaded) are noticed after sampled steps, and
    the share is kept in ``spec["changed_outside"]``: the recorded rotation is the optimizer's alone.

    Angles come from ``2·atan2(‖u - v‖, ‖u + v‖)`` of the rows, scaled to equal length, in float64, so
    1e-6 rad between float32 weights keeps its digits. All sums are float64 on the parameter's device; per
    window and neuron ten float32 numbers are kept, of at most `windows` windows. A sample with a NaN or infinity
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
        axes: Axes | None = None,
        rows: int = 4096,
        lags: int = 128,
        path: str | os.PathLike[str] | None = None,
        resume: bool | int = False,
        log: Any = None,
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
        save_seconds = positive("save_seconds", save_seconds)
        if not isinstance(model, torch.nn.Module | Mapping):
            raise InvalidInput(
                f"`model` must be a torch.nn.Module or a mapping of names to tensors; got {type(model).__name__}"
            )
        optimizer = with_hooks(optimizer)
        instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
        spec, split = checked_spec(spec, optimizer), {} if split is None else mapping("split", split)
        self.optimizer = optimizer
        self._note, self._log = checked_note(note), sinks(log)
        axes, rows = {} if axes is None else mapping("axes", axes), integer("rows", rows, low=1)
        self._recorded = Recorded(model, optimizer, parameters, split, spec, axes, rows)
        self._shared = any(entry.groups for entry in self._recorded.entries)
        self._running = Running(self._recorded, optimizer)
        self._every_step = EveryStep(integer("lags", lags, low=0, high=MOST_LAGS))
        self._spare = path is not None and rank() > 0
        target = None if path is None or self._spare else check_writable(path)
        self._earlier = Earlier(resume)
        if target is not None:
            self._earlier.find(target, self._recorded.entries, self._recorded.main().spec.label)
        self._saving = Saving(target, save_seconds, lambda path: self.save(path))
        self._steps = Steps(optimizer, self._before_step, self._after_step)
        self._unsaved = self._has_closure = False

    @property
    def window(self) -> int:
        """Steps per window now."""
        return self._windows.window

    @property
    def skipped(self) -> dict[str, str]:
        """Parameters that are not recorded, and why."""
        return self._recorded.skipped

    @property
    def saves(self) -> bool:
        """True if there is a path, and this is the process that writes to it."""
        return self._saving.path is not None

    @property
    def steps(self) -> int:
        """Completed optimizer steps: those seen, and those before them in a training that goes on."""
        return self._steps.done

    def start(self) -> Recorder:
        """Attach to the optimizer; does nothing if attached already."""
        if not self._steps.attached and (not self._spare or self._shared):
            self._steps.attach()
            self._saving.watch()
        return self

    def close(self) -> None:
        """Detach from the optimizer, and save if there is a `path`; the records stay, and `start` goes on.

        Raises
        ------
        InvalidInput, OSError
            If the trace cannot be saved.
        """
        self._detach()
        if self._saving.path is None:
            return
        if self._running.samples or self._windows.ends:
            if self._unsaved:
                self.save(self._saving.path)
        elif self._earlier.trace is None:
            warnings.warn(f"{self._saving.path} is not written: {self._nothing()}", stacklevel=2)

    def _detach(self) -> None:
        self._steps.detach()
        self._saving.unwatch()
        self._running.let_go()

    def __enter__(self) -> Recorder:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self._detach()
        if self._saving.path is not None and (self._running.samples or self._windows.ends):
            try:
                self.save(self._saving.path)
            except (OSError, InvalidInput) as failure:  # what training raised matters more
                warnings.warn(f"the trace is lost: {failure}", stacklevel=2)

    def _before_step(self, has_closure: bool) -> None:
        with self._saving.whole():
            if not self._steps.seen:
                self._begin()
            self._running.look_again()
            self._has_closure = has_closure
            step = self.steps + 1
            self._recorded.begin(step)
            if not has_closure:  # with one, gradients exist after the step only
                self._every_step.read(self._recorded.entries, step)
            if step % self.interval:
                return
            if not self._running.samples:
                with contextlib.suppress(InvalidInput):  # all may have left; that is no reason to stop a training
                    self._recorded.select()  # parameters may have joined; a window holds the same ones throughout
                self._recorded.begin(step)
            self._running.copy(step, has_closure)

    def _begin(self) -> None:
        """Count on from an earlier trace; optimizers have loaded their state by the first step."""
        counted = counter(self.optimizer, [entry.parameter for entry in self._recorded.entries])
        at: list[int] = [*self._earlier.begin(counted)]
        if self._shared:  # sums of rows meet at the same steps of all processes
            torch.distributed.broadcast_object_list(at, src=0)
        self._steps.done, window = at
        self._windows.window = max(self._windows.window, window)
        self._every_step.begin(self._steps.done)

    def _after_step(self) -> None:
        with self._saving.whole():
            if self._has_closure:
                self._every_step.read(self._recorded.entries, self.steps)
            self._running.add(self.steps, self._has_closure)
            if self._running.samples and self.steps % self.window == 0:
                self._windows.add(self.steps, self._running.record(), self._recorded.rates())
                self._running.next()
                self._recorded.next_window()
                self._send()
            if self._running.samples or self._windows.ends:
                self._unsaved = True
                self._saving.now_and_then()

    def latest(self) -> dict[str, float]:
        """Rotation, norm and update of each layer in the window that ended last, for a chart.

        Returns
        -------
        dict of float
            By `rotsim.measure.metrics.metrics`; empty before the first window ends.
        """
        return metrics(self._recorded, self._windows)

    def _send(self) -> None:
        if not self._log or self._spare:
            return
        latest = self.latest()
        for sink in self._log:
            try:
                sink(latest, self.steps)
            except Exception as error:  # a tracker that is not reachable is no reason to stop a training
                warnings.warn(f"`log` failed ({type(error).__name__}: {error}); training goes on", stacklevel=2)

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
            ``window_weight_decay_start`` are that at the first look, with ``_mean`` and ``_rms`` those over all.
            ``spec["lr_changed"]``, ``spec["weight_decay_changed"]`` and ``spec["momentum_changed"]`` (momentum or
            betas) tell whether that was constant. ``spec["changed"]`` tells until which step it was not, by layer.
            ``optimizer`` is the spec of the first recorded group with weight decay; ``spec["optimizers"]`` holds those
            of the parameters that follow another one.

        Raises
        ------
        InvalidInput
            If no step was sampled.
        """
        windows = self._windows
        if self._running.samples:
            windows = windows.with_one_more(self._running.last, self._running.record(), self._recorded.rates())
        if not windows.ends:
            if self._earlier.trace is not None:
                return self._earlier.trace
            raise InvalidInput(self._nothing())
        counted = counter(self.optimizer, [entry.parameter for entry in self._recorded.entries])
        spec = {
            **self._note,
            "interval": self.interval,
            "window": self.window,
            "steps": self.steps,
            "counted": counted,
        }
        result = assemble(self._recorded, windows, spec, type(self.optimizer).__name__, provenance)
        result = self._every_step.onto(result, entries_of(self._recorded, windows))
        if self._earlier.trace is None:
            return result
        return join(self._earlier.trace, result, windows=self._windows.most)

    def _nothing(self) -> str:
        if self._spare:
            return "nothing was recorded: with torch.distributed the first process alone records; ask that of rank 0"
        return (
            f"nothing was recorded: {self.steps} optimizer steps were seen and the first sample is step "
            f"{self.interval}; train longer or use a smaller `interval`"
        )

    def save(self, path: str | os.PathLike[str], **provenance: Any) -> Path:
        """Write `dataset` as one NetCDF-4 file, atomically; return its path."""
        with self._saving.whole():
            written = save(self.dataset(**provenance), path)
            self._unsaved = False
            return written

    def state_dict(self) -> dict[str, Any]:
        """What was recorded so far, to keep in a checkpoint.

        Returns
        -------
        dict
            The trace as the bytes of a file in a uint8 tensor, and the steps; `torch.load` reads both with
            ``weights_only=True``.
        """
        recorded = self._running.samples or self._windows.ends or self._earlier.trace is not None
        return state_of(self.dataset() if recorded else None, self.steps)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, in place of what a file at `path` holds.

        Parameters
        ----------
        state_dict : mapping

        Raises
        ------
        InvalidInput
            If a step was recorded already, or it is no such state, or of other layers.
        """
        state = mapping("state_dict", state_dict)
        if self._steps.seen:
            raise InvalidInput(f"`load_state_dict` must come before the first step; {self._steps.seen} were seen")
        if self._spare:  # the state is of the first process, which has other rows, and says where the steps begin
            return
        self._earlier.take_state(state, self._recorded.entries, self._recorded.main().spec.label)
