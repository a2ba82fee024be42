"""A callback that records a training by Hugging Face's Trainer. Needs the package ``transformers``."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rotsim.measure.recorder import Recorder


class RotationCallback(TrainerCallback):
    """Record a training by ``transformers.Trainer``.

    It saves with every checkpoint of the Trainer, and when `Recorder` does by itself. A training that goes on by
    ``resume_from_checkpoint`` goes on recording at the checkpoint's step.

    Parameters
    ----------
    path : str or Path, optional
        Where to save.
    **options
        Passed on to `Recorder`: interval, window, parameters, spec, split, lags, log, note, ...

    Attributes
    ----------
    recorder : Recorder or None
        From the start of training on.

    Raises
    ------
    InvalidInput
        At the start of training, if an argument is out of range or nothing is left to record.

    Notes
    -----
    The Trainer tells its callbacks nothing of an exception. One that ends the program saves the trace on its way. Where
    it is caught, in a notebook too, ``callback.recorder.close()`` saves.

    Examples
    --------
    ``Trainer(model, arguments, train_dataset=data, callbacks=[RotationCallback("trace.nc")])``
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, **options: Any) -> None:
        self.path = path
        self.options = options
        self.recorder: Recorder | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Attach to the optimizer."""
        options = {"resume": state.global_step or False, **self.options}
        self.recorder = Recorder(kwargs["model"], kwargs["optimizer"], path=self.path, **options).start()
        self._excepthook, sys.excepthook = sys.excepthook, self._raised

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save beside a checkpoint."""
        if self.path is not None and self.recorder is not None and self.recorder.saves and self.recorder.latest():
            self.recorder.save(self.path)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save, and leave the optimizer."""
        self._close()

    def _close(self) -> None:
        if sys.excepthook == self._raised:
            sys.excepthook = self._excepthook
        if self.recorder is not None:
            self.recorder.close()

    def _raised(self, kind: type[BaseException], raised: BaseException, where: TracebackType | None) -> None:
        before = self._excepthook
        self._close()
        before(kind, raised, where)
