"""The trace that a recorder goes on from: of a file, or of a checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from rotsim import netcdf
from rotsim.dataset import load, spec_of, validate
from rotsim.errors import DatasetError, InvalidInput, integer
from rotsim.measure.joining import check_joinable, until
from rotsim.measure.recorded import Entry


class Earlier:
    """What was recorded before, up to the step at which training goes on.

    Parameters
    ----------
    resume : bool or int
        As `rotsim.measure.Recorder` takes it.
    """

    def __init__(self, resume: bool | int) -> None:
        self._wanted = resume is not False
        self._at = None if isinstance(resume, bool) else integer("resume", resume, low=1)
        self.trace: xr.Dataset | None = None

    def find(self, path: Path, entries: Sequence[Entry], label: str) -> None:
        """Take the trace at a path, if there is one that `entries` go on from, under an optimizer of that label."""
        if not path.exists():
            return
        if not self._wanted:
            raise InvalidInput(
                f"`path` must not exist yet, so that no trace is lost; {str(path)!r} does. Pass resume=True to go on "
                "from it, name another file, or remove it"
            )
        self._take(load(path), entries, label)

    def take_state(self, state: Mapping[str, Any], entries: Sequence[Entry], label: str) -> None:
        """Take what `state_of` returned, in place of what was found."""
        held, steps = state.get("trace"), state.get("steps")
        if not isinstance(held, torch.Tensor) or held.dtype != torch.uint8 or type(steps) is not int:
            raise InvalidInput("`state_dict` must be what Recorder.state_dict returned: a trace and its steps")
        if held.numel():
            try:
                self._take(netcdf.decode(BytesIO(held.cpu().numpy().tobytes())), entries, label)
            except DatasetError as error:
                raise InvalidInput(f"`state_dict` holds no trace: {error}") from None
        self._at = steps

    def _take(self, trace: xr.Dataset, entries: Sequence[Entry], label: str) -> None:
        if validate(trace).attrs["source"] != "trace":
            raise InvalidInput(f"`resume` needs a recorded trace; got a {trace.attrs['source']}. Name another file")
        layers: dict[str, tuple[int, int]] = {}
        for entry in entries:
            for name in dict.fromkeys(entry.labels):
                layers[name] = entry.labels.count(name), entry.fan_in
        check_joinable(trace, layers, label)
        self.trace = trace

    def begin(self, counted: int) -> tuple[int, int]:
        """Settle at which step training goes on; what was recorded after it was lost with the run.

        Parameters
        ----------
        counted : int
            Steps by the optimizer's own count, 0 if it has none.

        Returns
        -------
        tuple of int
            Steps done, and the least length of a window, 1 if it is free.
        """
        window = 1
        if self.trace is not None:
            spec = spec_of(self.trace)
            if self._at is None:
                self._at = int(spec["steps"])
                if counted and spec.get("counted"):
                    self._at = max(0, self._at + counted - int(spec["counted"]))
                else:
                    warnings.warn(
                        f"the optimizer's state counts no steps, so the recording goes on at step {self._at}, where "
                        "the trace ends; if the checkpoint is an earlier one, pass resume=N, the steps done there",
                        stacklevel=2,
                    )
            fits = self._at >= int(self.trace["step"][0])
            self.trace = until(self.trace, self._at) if fits else None
            window = int(spec["window"])
        return self._at or 0, window


def state_of(trace: xr.Dataset | None, steps: int) -> dict[str, Any]:
    """A trace, as the bytes of a file in a uint8 tensor, and its steps; for `torch.load` with ``weights_only=True``."""
    content = bytearray() if trace is None else bytearray(netcdf.encode(trace))
    held = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
    return {"trace": held, "steps": steps}
