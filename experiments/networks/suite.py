"""Suites of runs: `python -m experiments.networks --suite ci|cpu|gpu`. One compact trace per run, one report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
import xarray as xr

from experiments.networks.corpus import load_corpus
from experiments.networks.data import load_images
from experiments.networks.gpt import GPTSize
from experiments.networks.record import SHIPPED, compressible, some_rows
from experiments.networks.train import Run, train
from experiments.networks.train_text import TextRun, train_text
from rotsim import dataset
from rotsim.diagnosis import Diagnosis, diagnose
from rotsim.errors import DatasetError, InvalidInput
from rotsim.plotting import save_figure, trace_figure

ROWS_PER_LAYER = 64
WINDOWS = 30
_GPT = {  # lr, weight decay: relaxation of the norm in about 500 steps
    "adamw": (2e-3, 0.5),
    "sgdm": (0.3, 1e-3),
    "adam_l2": (2e-3, 1e-3),
    "lion": (2e-4, 5.0),
}
_LARGE = GPTSize(layers=6, width=384, heads=6, context=256)


def _gpt_runs(steps: int, **size: object) -> dict[str, Run | TextRun]:
    runs: dict[str, Run | TextRun] = {
        f"wngpt_{name}": TextRun(name, *hyper, steps=steps, **size)  # type: ignore[arg-type]
        for name, hyper in _GPT.items()
    }
    runs["gpt_adamw"] = TextRun("adamw", *_GPT["adamw"], steps=steps, normalised=False, **size)  # type: ignore[arg-type]
    return runs


def _image_runs(images: str) -> dict[str, Run | TextRun]:
    return {name: run for name, run in SHIPPED.items() if name.startswith(images)}


SUITES: dict[str, dict[str, Run | TextRun]] = {
    "ci": _image_runs("digits"),
    "cpu": {**_image_runs("fashion"), **_gpt_runs(3000)},
    "gpu": {**_image_runs("fashion"), **_gpt_runs(2500, size=_LARGE, batch=32)},
}


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA if there is one; another name must exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidInput(f"`--device {name}` is not available: torch sees no CUDA device; use --device auto or cpu")
    return torch.device(name)


def run_one(
    name: str, run: Run | TextRun, folder: Path, device: torch.device, data: Path | None, on_step: Callable[[], object]
) -> Path:
    """Train one run and write ``folder/name.nc``."""
    window = 10 * round(run.steps / WINDOWS / 10)
    start = time.perf_counter()
    if isinstance(run, TextRun):
        recorder, results = train_text(run, load_corpus(), window=window, device=device, on_step=on_step)
    else:
        images = load_images(name.split("_")[0], data)
        recorder, results = train(run, images, window=window, device=device, on_step=on_step)
    seconds = time.perf_counter() - start
    trace = recorder.dataset(
        run=asdict(run), seconds=round(seconds, 1), **{key: round(value, 4) for key, value in results.items()}
    )
    return dataset.save(compressible(some_rows(trace, ROWS_PER_LAYER)), folder / f"{name}.nc")


def finished(path: Path, run: Run | TextRun) -> bool:
    """True if `path` holds this very run, completed: a suite that was interrupted goes on with the next."""
    try:
        provenance = json.loads(dataset.load(path).attrs["provenance"])
    except DatasetError:
        return False
    return bool(provenance.get("run") == json.loads(json.dumps(asdict(run))))


def runs_of(suite: str, only: tuple[str, ...], seed: int, steps: int | None) -> dict[str, Run | TextRun]:
    """The runs of a suite, with another seed or fewer steps if asked for."""
    runs = SUITES[suite]
    if unknown := [name for name in only if name not in runs]:
        raise InvalidInput(f"`--only` names {', '.join(unknown)}; suite {suite} has {', '.join(runs)}")
    changes = {"seed": seed, **({} if steps is None else {"steps": steps})}
    return {name: replace(run, **changes) for name, run in runs.items() if not only or name in only}


def write_report(suite: str, folder: Path, names: list[str], command: str) -> Path:
    """``folder/README.md`` and one figure per run, from the traces in `folder`."""
    sections = []
    for name in names:
        trace = dataset.load(folder / f"{name}.nc")
        diagnosis = diagnose(trace)
        save_figure(trace_figure(trace, diagnosis), folder / f"{name}.png", dpi=80)
        sections.append(_section(name, trace, diagnosis))
    text = (
        f"# Suite {suite}: predicted against measured\n\nCommand: `{command}`. Verdicts are decided from each layer's "
        "diagnostics before looking at agreement; only layers marked **applies** are claimed. Rotation in radians per "
        "step: medians over neurons, last half of training; `corrected` uses the measured radial part of the gradient "
        "(λ_eff = λ + P) or, for Lion, its autocorrelation.\n\n" + "\n".join(sections)
    )
    return dataset.write_atomically(folder / "README.md", lambda path: path.write_text(text))


def _section(name: str, trace: xr.Dataset, diagnosis: Diagnosis) -> str:
    source, spec = json.loads(trace.attrs["provenance"]), dataset.spec_of(trace)
    device = source["device"] if source["device"] != "cpu" else f"CPU ({platform.machine()})"
    lines = [
        f"## {name}\n",
        f"{spec['network']} on {spec['data']}, {diagnosis.optimizer.describe()}, {spec['steps']} steps, seed "
        f"{spec['seed']}; {device}, torch {source['versions']['torch']}, {source['seconds']:.0f} s. "
        f"{diagnosis.summary()}\n",
        "| layer | verdict | predicted | measured | ratio | measured / corrected | neurons ±10 % | norm ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for layer in diagnosis.layers:
        verdict = f"**{layer.verdict}**" if layer.applies else layer.verdict
        lines.append(
            f"| {layer.layer.replace('.weight', '')} | {verdict} | {layer.predicted_rotation:.4g} "
            f"| {layer.measured_rotation:.4g} | {layer.ratio:.3f} "
            f"| {layer.measured_rotation / layer.corrected_rotation:.3f} | {layer.within:.0%} "
            f"| {layer.measured_norm / layer.predicted_norm:.3f} |".replace("nan%", "-").replace("nan", "-")
        )
    reasons = dict.fromkeys(f"* {layer.layer}: {layer.reason}" for layer in diagnosis.layers if not layer.applies)
    return "\n".join([*lines, "", *reasons, "", f"![{name}]({name}.png)", ""])
