"""A callback that records a training by Lightning. Needs the package ``lightning``."""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rotsim.errors import InvalidInput, flag, integer
from rotsim.measure.recorder import Recorder


class RotationCallback(Callback):
    """Record a training by ``lightning.Trainer``, and save also if it raises.

    The record goes into Lightning's checkpoints. A training that goes on from one goes on recording.

    Parameters
    ----------
    path : str or Path, optional
        Where to save.
    optimizer : int
        Which of the module's optimizers to record, >= 0, where ``configure_optimizers`` returns several.
    log : bool
        Whether Lightning's loggers get `Recorder.latest` after each window.
    **options
        Passed on to `Recorder`: interval, window, parameters, spec, split, lags, note, ...

    Attributes
    ----------
    recorder : Recorder or None
        From the start of training on.

    Raises
    ------
    InvalidInput
        At the start of training, if an argument is out of range or nothing is left to record.

    Examples
    --------
    ``Trainer(callbacks=[RotationCallback("trace.nc")])``
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, optimizer: int = 0, log: bool = False, **options: Any
    ) -> None:
        self.path = path
        self.optimizer = integer("optimizer", optimizer, low=0)
        self.log = flag("log", log)
        self.options = options
        self.recorder: Recorder | None = None
        self._earlier: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the optimizer, whose state has been loaded by now."""
        if self.optimizer >= len(trainer.optimizers):
            raise InvalidInput(
                f"`optimizer` must be less than {len(trainer.optimizers)}, the number that "
                f"configure_optimizers returned; got {self.optimizer}"
            )
        options = {"resume": bool(self._earlier), **self.options}
        if self.log:
            options["log"] = [
                lambda metrics, step, logger=logger: logger.log_metrics(metrics, step) for logger in trainer.loggers
            ]
        self.recorder = Recorder(pl_module, trainer.optimizers[self.optimizer], path=self.path, **options)
        if self._earlier:
            self.recorder.load_state_dict(self._earlier)
        self.recorder.start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and leave the optimizer."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what was recorded; what training raised goes on."""
        self._close()

    def _close(self) -> None:
        if self.recorder is not None:
            self.recorder.close()

    def state_dict(self) -> dict[str, Any]:
        """What goes into a checkpoint."""
        return {} if self.recorder is None else self.recorder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What comes out of one, for the start of training."""
        self._earlier = state_dict
