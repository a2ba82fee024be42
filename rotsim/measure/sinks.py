"""Where numbers of a running training go: a function, or an experiment tracker, known by its methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rotsim.errors import InvalidInput, is_a, shown

Sink = Callable[[Mapping[str, float], int], object]
STEP = "optimizer_step"  # the axis of W&B's charts: its own step is that of the caller's log calls


def sinks(log: Any) -> list[Sink]:
    """The functions ``f(metrics, step)`` that stand for the argument `log` of a recorder.

    Parameters
    ----------
    log : callable, tracker or list of such, or None
        A function ``f(metrics, step)``; W&B (``wandb`` or a run), TensorBoard's ``SummaryWriter``, ``mlflow``,
        ``trackio``, or a logger of Lightning.

    Returns
    -------
    list of callable

    Raises
    ------
    InvalidInput
        If one of them is no such object.
    """
    given = [] if log is None else list(log) if is_a(log, list, tuple) else [log]
    return [_sink(one) for one in given]


def _sink(target: Any) -> Sink:
    if hasattr(target, "add_scalar"):  # TensorBoard
        return lambda metrics, step: [target.add_scalar(name, value, step) for name, value in metrics.items()]
    if hasattr(target, "log_metrics"):  # MLflow, Lightning
        return lambda metrics, step: target.log_metrics(dict(metrics), step=step)
    if hasattr(target, "define_metric"):  # W&B
        return _WandB(target)
    if hasattr(target, "log"):  # trackio
        return lambda metrics, step: target.log(dict(metrics), step=step)
    if callable(target):
        return lambda metrics, step: target(dict(metrics), step)
    raise InvalidInput(
        f"`log` must be a function of metrics and step, or a tracker (W&B, TensorBoard, MLflow, trackio); "
        f"got {shown(target)}"
    )


class _WandB:
    """W&B refuses steps that are not those of its own counter, so that the step is a metric of its own."""

    def __init__(self, target: Any) -> None:
        self._target, self._defined = target, False

    def __call__(self, metrics: Mapping[str, float], step: int) -> object:
        if not self._defined:
            for group in groups(metrics):
                self._target.define_metric(f"{group}/*", step_metric=STEP)
            self._defined = True
        return self._target.log({**metrics, STEP: step})


def groups(names: Iterable[str]) -> list[str]:
    """What metrics' names begin with, up to the layer: ``rotation/measured``."""
    return list(dict.fromkeys(name.rsplit("/", 1)[0] for name in names))
