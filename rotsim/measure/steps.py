"""Which calls are steps of an optimizer: wrappers, nested steps, and compiled ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import _getframe
from types import FrameType
from typing import Any

import torch

_PASSED_BY = (__file__, torch.utils._contextlib.__file__)  # frames of ours, and of decorators around a hook
_COMPILER = str(Path(torch.__file__).parent / "_dynamo")
_UNSEEN = 2  # steps of an optimizer inside the recorded one, without one of that, until it is said


class Steps:
    """Calls `before` and `after` around each step of an optimizer, and counts them.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    before : callable
        ``before(has_closure)``.
    after : callable
        ``after()``; by then the step counts as done.

    Attributes
    ----------
    done : int
        Steps, those of an earlier recorder included.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, before: Callable[[bool], None], after: Callable[[], None]
    ) -> None:
        self.optimizer = optimizer
        self.done = 0
        self.seen = 0
        self._run_before, self._run_after = before, after
        self._passed_by = 0
        self._call: FrameType | None = None  # of a step that has begun and not ended
        self._depth = 0  # of steps inside it
        self._handles: list[Any] = []

    @property
    def attached(self) -> bool:
        """True between `attach` and `detach`."""
        return bool(self._handles)

    def attach(self) -> None:
        """Hang on the optimizer; hooks are no part of what `torch.compile` makes of a step."""
        outside: Any = torch.compiler.disable
        self._handles = [
            self.optimizer.register_step_pre_hook(outside(self._before)),
            self.optimizer.register_step_post_hook(outside(self._after)),
        ]
        if (inner := _inside(self.optimizer)) is not None:
            self._handles.append(inner[1].register_step_post_hook(outside(self._after_inner)))

    def detach(self) -> None:
        """Leave the optimizer as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._call, self._depth = None, 0

    @torch.no_grad()
    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is not None and self._call in _callers():
            self._depth += 1
            return  # super().step() inside step, both of which PyTorch hooks
        self._call, self._depth = next(_callers()), 0
        # torch counts the optimizer itself among `args`
        closure = kwargs.get("closure", next((argument for argument in args if argument is not optimizer), None))
        self._run_before(closure is not None)

    @torch.no_grad()
    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._call is None or self._call not in _callers():
            return
        if self._depth:
            self._depth -= 1
            return
        self._call = None
        self.done += 1
        self.seen += 1
        self._run_after()

    def _after_inner(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._passed_by += 1
        if self._passed_by == _UNSEEN and not self.seen and (inner := _inside(self.optimizer)) is not None:
            kind, name = type(self.optimizer).__name__, inner[0]
            warnings.warn(
                f"nothing is recorded: {kind}.{name} has stepped, {kind} itself has not, as in SAM's first_step and "
                f"second_step. Record the one that steps: Recorder(model, optimizer.{name})",
                stacklevel=2,
            )


def with_hooks(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer whose hooks `step` calls: a wrapper that never initialised its base class has none."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and isinstance(
        inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer
    ):
        optimizer = inner
    return optimizer


def counter(optimizer: torch.optim.Optimizer, parameters: list[torch.Tensor]) -> int:
    """Steps that the optimizer itself has counted, as Adam does; 0 if it counts none."""
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    return max((int(state["step"]) for state in states if "step" in state), default=0)


def _callers() -> Iterator[FrameType]:
    """The calls that led to a hook, the innermost first, without those of decorators around it."""
    frame: FrameType | None = _getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name not in _PASSED_BY and not name.startswith(_COMPILER):
            yield frame
        frame = frame.f_back


def _inside(optimizer: torch.optim.Optimizer) -> tuple[str, torch.optim.Optimizer] | None:
    """An optimizer that this one holds, by name: what it does may pass by this one's own step, as in SAM."""
    found = ((name, value) for name, value in vars(optimizer).items() if isinstance(value, torch.optim.Optimizer))
    return next(((name, value) for name, value in found if hasattr(value, "_optimizer_step_pre_hooks")), None)
