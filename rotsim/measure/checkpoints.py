"""What a training's checkpoints tell of its weights: norms, and angles over the steps between two of them.

safetensors files hold numbers alone. Of PyTorch's files only numbers are read, and no code in them is run
(``weights_only=True``). Two checkpoints are in memory at a time, layer by layer.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rotsim.dataset import layer_name
from rotsim.errors import DatasetError, InvalidInput, is_a, shown_error
from rotsim.files import quoted
from rotsim.measure.imported import Hyperparameters, Series, trace_of
from rotsim.measure.sample import rows
from rotsim.optimizers.base import Optimizer

if TYPE_CHECKING:
    import xarray as xr

ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_WEIGHTS = ("model", "state_dict", "model_state_dict", "module")  # where a file keeps them, beside an optimizer's state
_STEPS = ("step", "global_step", "iteration", "iter_num", "iter")
_PREFIX = re.compile(r"^(_orig_mod\.|module\.)+")  # of torch.compile and of DDP


def read_checkpoints(
    folder: str | os.PathLike[str],
    optimizer: Optimizer,
    *,
    schedule: str = "constant",
    steps: int | None = None,
    warmup_steps: int = 0,
    final: float = 0.0,
    steps_from_name: bool = False,
    scale_invariant: Iterable[str] = (),
) -> xr.Dataset:
    """A trace of a training that nobody recorded, from the checkpoints that it left.

    Parameters
    ----------
    folder : str or Path
        Holds safetensors or PyTorch files, or folders with one such file each: a checkpoint a step, at least two.
    optimizer : Optimizer
        The spec of what trained, with the largest learning rate of the schedule.
    schedule : {"constant", "linear", "cosine", "wsd"}
        Of the learning rate, after warm-up.
    steps : int, optional
        Of the whole run, >= 1; by default up to the last checkpoint.
    warmup_steps : int
        Steps of linear warm-up, >= 0.
    final : float
        Factor on the learning rate at the last step, >= 0.
    steps_from_name : bool
        Take the step of a checkpoint from the last number in its name. Else the file says it, under ``step``,
        ``global_step``, ``iteration``, ``iter_num`` or ``iter``.
    scale_invariant : iterable of str
        Names or patterns, such as ``"*.mlp.*"``, of layers that a normalisation follows. The report then claims them.

    Returns
    -------
    Dataset
        Source ``"trace"``. ``rotation`` is the angle in radians of each row between two checkpoints, ``span`` the steps
        between them, ``norm`` that at the later one. Every parameter of two dimensions or more that all checkpoints
        have in one shape is a layer.

    Raises
    ------
    DatasetError
        If a file is damaged, holds code or no weights, or there are not two steps.
    InvalidInput
        If the folder is none, or a hyperparameter is out of range.
    """
    given = Hyperparameters(optimizer, schedule, steps, warmup_steps, final)
    found = _in_order(folder, steps_from_name)
    order = [step for step, _ in found]
    given.described(order[-1])  # say what is wrong with it before gigabytes are read
    norms: dict[str, list[np.ndarray]] = {}
    angles: dict[str, list[np.ndarray]] = {}
    ways: dict[str, list[np.ndarray]] = {}
    fan_in: dict[str, int] = {}
    before: dict[str, torch.Tensor] = {}
    for place, (_, path) in enumerate(found):
        now = _weights(path)
        if place == 0:
            fan_in = {name: w.numel() // w.shape[0] for name, w in now.items()}
        for name in [name for name in fan_in if name not in now or (place and now[name].shape != before[name].shape)]:
            for kept in (fan_in, norms, angles, ways):
                kept.pop(name, None)
        for name in fan_in:
            new = rows(now[name])
            length = torch.linalg.vector_norm(new, dim=1)
            length[~length.isfinite()] = torch.nan
            norms.setdefault(name, []).append(length.numpy())
            if place:
                angle, way = _between(rows(before[name]), new)
                angles.setdefault(name, []).append(angle)
                ways.setdefault(name, []).append(way)
        before = {name: now[name] for name in fan_in}
    if not fan_in:
        raise DatasetError(f"the checkpoints in {quoted(folder)} share no parameter of two dimensions and one shape")
    layers = [
        Series(
            layer_name(name),
            size,
            {
                "norm": np.stack(norms[name][1:], axis=1),
                "rotation": np.stack(angles[name], axis=1),
                "update_rms": np.stack(ways[name], axis=1),
            },
            norms[name][0],
        )
        for name, size in fan_in.items()
    ]
    spec = {"from": "checkpoints", "layers": {layer_name(name): list(before[name].shape) for name in fan_in}}
    span = np.diff(order)
    return trace_of(layers, np.array(order[1:]), span, given, scale_invariant, order[0], spec)


def _between(old: torch.Tensor, new: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Angle and distance of rows, as `rotsim.measure.sample` takes them; NaN of rows that are zero or not finite."""
    way = torch.linalg.vector_norm(new - old, dim=1)
    unit = [w / torch.linalg.vector_norm(w, dim=1, keepdim=True) for w in (old, new)]
    apart, along = (torch.linalg.vector_norm(x, dim=1) for x in (unit[0] - unit[1], unit[0] + unit[1]))
    angle = 2 * torch.atan2(apart, along)
    angle[~way.isfinite()] = torch.nan
    way[~way.isfinite()] = torch.nan
    return angle.numpy(), way.numpy()


def _in_order(folder: str | os.PathLike[str], steps_from_name: bool) -> list[tuple[int, Path]]:
    """Checkpoints by rising step."""
    if not is_a(folder, str) and not isinstance(folder, os.PathLike):
        raise InvalidInput(f"`folder` must be the path of a folder; got {folder!r}")
    root = Path(folder)
    if not root.is_dir():
        raise InvalidInput(f"no folder at {quoted(folder)}; name the folder that holds the checkpoints")
    files = [path for path in sorted(root.iterdir()) if path.suffix in ENDINGS and path.is_file()]
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        own = [path for path in sorted(inner.iterdir()) if path.suffix in ENDINGS and path.is_file()]
        own = [path for path in own if not re.search(r"optim|sched|rng|training_args|scaler", path.name)]
        if len(own) > 1:
            names = ", ".join(path.name for path in own[:4])
            raise DatasetError(f"{quoted(inner)} holds several files ({names}); merge its parts into one file first")
        files += own
    found: dict[int, Path] = {}
    for path in files:
        step = _step_in_name(path, root) if steps_from_name else _step_inside(path)
        if step in found:
            raise DatasetError(f"{quoted(found[step])} and {quoted(path)} are both of step {step}; remove one of them")
        found[step] = path
    if len(found) < 2:
        raise DatasetError(
            f"{quoted(folder)} must hold at least two checkpoints ({', '.join(ENDINGS)}); it holds {len(found)}"
        )
    return sorted(found.items())


def _step_in_name(path: Path, root: Path) -> int:
    parts = path.relative_to(root).with_suffix("").parts
    for part in reversed(parts):
        if numbers := re.findall(r"\d{1,15}", part):
            return int(numbers[-1])
    raise DatasetError(f"{quoted(path)} has no number in its name that could be its step; rename it as step_100.pt")


def _step_inside(path: Path) -> int:
    content: Mapping[str, Any] = _opened(path)[1] if path.suffix == ".safetensors" else _loaded(path)
    for name in _STEPS:
        value = content.get(name)
        try:
            step = int(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError, RuntimeError):
            continue
        if 0 <= step < 1 << 53:
            return step
    raise DatasetError(
        f"{quoted(path)} does not say of which step it is; if its name does, use steps_from_name (--steps-from-name)"
    )


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """Parameters of two dimensions or more, by name."""
    content: Mapping[str, Any] = _opened(path)[0] if path.suffix == ".safetensors" else _loaded(path)
    for _ in range(3):  # lightning and DDP wrap what others have wrapped
        inner = next((content[name] for name in _WEIGHTS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {
        _PREFIX.sub("", name): value
        for name, value in content.items()
        if is_a(name, str) and isinstance(value, torch.Tensor) and value.layout is torch.strided
    }
    kept = {name: w for name, w in tensors.items() if w.ndim >= 2 and w.numel() and w.is_floating_point()}
    for name, w in kept.items():
        if w.numel() * w.element_size() > w.untyped_storage().nbytes():  # one number that stands for a petabyte
            raise DatasetError(f"{quoted(path)} is damaged: {name!r} has shape {tuple(w.shape)} and fewer numbers")
    if not kept:
        raise DatasetError(f"{quoted(path)} holds no weights of two dimensions; is it a checkpoint of the model?")
    return kept


def _opened(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError:
        raise InvalidInput("reading safetensors needs the package safetensors; install rotsim[torch]") from None
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise DatasetError(f"{quoted(path)} is no whole safetensors file ({shown_error(error)})") from None


def _loaded(path: Path) -> Mapping[str, Any]:
    """The content of a PyTorch file, numbers alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {found[1]}, which is code" if found else "is no PyTorch file, or holds more than numbers"
        raise DatasetError(
            f"{quoted(path)} {what}; nothing in it was run. Save the model's state_dict alone, or as safetensors"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DatasetError(f"{quoted(path)} is no whole PyTorch file ({shown_error(error)})") from None
    if not isinstance(content, Mapping):
        raise DatasetError(f"{quoted(path)} holds a {type(content).__name__}, not a state_dict of named weights")
    return content


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
