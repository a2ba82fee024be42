"""Suites of runs: `python -m experiments.networks --suite ci|cpu|gpu`. One compact trace per run, one report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from experiments.harness import markdown
from experiments.harness.pictures import save_picture
from experiments.networks.gpt import GPTSize
from experiments.networks.record import INPUT_NOISE, SHIPPED, AnyRun, record
from experiments.networks.train import CosineRun, Run
from experiments.networks.train_text import TextRun
from rotsim import dataset, files
from rotsim.diagnosis import Diagnosis, diagnose
from rotsim.errors import DatasetError, InvalidInput
from rotsim.measure.shipped import shipped_traces
from rotsim.show.plotting import trace_figure
from rotsim.tasks import Entry, Task, digest

# lr and weight decay: the norm relaxes in 125 (ci) and about 500 steps (the others)
_CI = {"adamw": (4e-3, 1.0), "sgdm": (0.1, 4e-3), "adam_l2": (4e-3, 4e-3), "lion": (4e-4, 10.0)}
_CONV = {"adamw": (2e-3, 1.0), "sgdm": (0.1, 2e-3), "adam_l2": (2e-3, 2e-3), "lion": (2e-4, 10.0)}
_GPT = {"adamw": (2e-3, 0.5), "sgdm": (0.3, 1e-3), "adam_l2": (2e-3, 4e-3), "lion": (2e-4, 5.0)}
_MUON = {"muon": (2e-2, 5e-2)}
_WARMUPS = (0.0, 0.1)
_RATES = (4e-3, 1.6e-2, 6.4e-2)


def _ci() -> dict[str, AnyRun]:
    """Digits in 1500 steps: Adam forgets in 100 steps rather than 1000, and decay is faster."""
    base = Run((64, 128, 128, 128, 10), 64, 1500, "", 0.0, 0.0, input_noise=INPUT_NOISE, beta2=0.99)
    return {f"digits_{name}": replace(base, optimizer=name, lr=lr, weight_decay=wd) for name, (lr, wd) in _CI.items()}


def _resnets(blocks: int, widths: tuple[int, ...], batch: int, steps: int) -> dict[str, AnyRun]:
    base = Run(widths, batch, steps, "", 0.0, 0.0, input_noise=INPUT_NOISE, blocks=blocks, beta2=0.99)
    depth = 6 * blocks + 2
    return {
        f"resnet{depth}_{name}": replace(base, optimizer=name, lr=lr, weight_decay=wd)
        for name, (lr, wd) in _CONV.items()
    }


def _falling(runs: dict[str, AnyRun]) -> dict[str, AnyRun]:
    """The same under a learning rate that rises over a tenth of the steps, and falls to zero."""
    return {f"{name}_cosine": CosineRun(**asdict(run)) for name, run in runs.items()}


def _gpts(size: GPTSize, batch: int, steps: int) -> dict[str, AnyRun]:
    """The weight-normalised GPT under every optimizer, and the plain one, where λ_eff explains AdamW."""
    runs: dict[str, AnyRun] = {
        f"wngpt_{name}": TextRun(name, *hyper, steps=steps, size=size, batch=batch) for name, hyper in _GPT.items()
    }
    return runs | {"gpt_adamw": TextRun("adamw", *_GPT["adamw"], steps, normalised=False, size=size, batch=batch)}


def _cosines(size: GPTSize, batch: int, steps: int) -> dict[str, AnyRun]:
    """The weight-normalised GPT under every optimizer while the rate falls to zero, after a warm-up of a tenth."""
    return {
        f"wngpt_{name}_cosine": TextRun(name, *hyper, steps=steps, size=size, batch=batch, warmup=0.1)
        for name, hyper in (_GPT | _MUON).items()
    }


def _muons(size: GPTSize, batch: int, steps: int) -> dict[str, AnyRun]:
    """Muon for the inner matrices of both GPTs, and AdamW for the outer ones."""
    return {
        f"{network}_muon": TextRun("muon", *_MUON["muon"], steps, network == "wngpt", size=size, batch=batch)
        for network in ("wngpt", "gpt")
    }


def _warmups(size: GPTSize, batch: int, steps: int) -> dict[str, AnyRun]:
    """AdamW and its rotational variant with and without warm-up, three learning rates, cosine to zero."""
    return {
        f"warmup_{name}_{lr:g}_{share:g}": TextRun(name, lr, 0.5, steps, size=size, batch=batch, warmup=share)
        for name in ("adamw", "rotational_adamw")
        for lr in _RATES
        for share in _WARMUPS
    }


_LARGE = GPTSize(layers=6, width=384, heads=6, context=256)

SUITES: dict[str, dict[str, AnyRun]] = {
    "ci": _ci(),
    "cpu": {
        **{name: run for name, run in SHIPPED.items() if name.startswith("fashion")},
        **_resnets(1, (1, 8, 16, 32, 10), batch=32, steps=3000),
        **_gpts(GPTSize(), batch=16, steps=3000),
    },
    "gpu": {
        **(resnets := _resnets(3, (1, 16, 32, 64, 10), batch=128, steps=4000)),
        **_falling(resnets),
        **_gpts(_LARGE, batch=32, steps=2500),
        **_muons(_LARGE, batch=32, steps=2500),
        **_cosines(_LARGE, batch=32, steps=2500),
        **_warmups(_LARGE, batch=32, steps=500),
    },
}


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA if there is one; another name must exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InvalidInput(f"`--device {name}` is not available: torch sees no CUDA device; use --device auto or cpu")
    return torch.device(name)


@dataclass(frozen=True)
class Recording(Task):
    """One run of a suite; its result says where the trace is, or why there is none."""

    name: str
    settings: AnyRun
    folder: Path
    device: torch.device
    data: Path | None
    command: str
    on_step: Callable[[], object]

    def strong_id_value(self) -> Any:
        """What a trace says about its run: where it lies and where it is trained do not count."""
        return asdict(self.settings)

    def run(self) -> dict[str, str]:
        """Train and record; a run whose data are missing is skipped."""
        try:
            trace = record(
                self.name, self.settings, self.folder,
                device=self.device, data=self.data, command=self.command, on_step=self.on_step,
            )  # fmt: skip
            return {"trace": str(trace)}
        except InvalidInput as error:
            return {"skipped": str(error)}


class Traces:
    """Traces as a store of tasks: each says which run it holds. The runs that ship with the package are there too."""

    def find(self, task: Task) -> Entry | None:
        """The trace of this very run, completed: a suite that was interrupted goes on with the next."""
        if not isinstance(task, Recording):
            return None
        for path in (task.folder / f"{task.name}.nc", shipped_traces().get(task.name)):
            with suppress(DatasetError):
                if path is not None:
                    provenance = json.loads(dataset.load(path).attrs["provenance"])
                    if digest(provenance.get("run")) == task.strong_id():
                        return Entry({"trace": str(path)}, provenance["seconds"], provenance["created"])
        return None

    def add(self, task: Task, result: Any, cpu_seconds: float) -> Entry:
        """The trace is written already."""
        return Entry(result, cpu_seconds, "")


def runs_of(suite: str, only: tuple[str, ...], seed: int, steps: int | None) -> dict[str, AnyRun]:
    """The runs of a suite, with another seed or fewer steps if asked for."""
    runs = SUITES[suite]
    if unknown := [name for name in only if name not in runs]:
        raise InvalidInput(f"`--only` names {', '.join(unknown)}; suite {suite} has {', '.join(runs)}")
    changes: dict[str, Any] = {"seed": seed, **({} if steps is None else {"steps": steps})}
    return {name: replace(run, **changes) for name, run in runs.items() if not only or name in only}


def write_report(suite: str, folder: Path, paths: Mapping[str, str], command: str) -> Path:
    """``folder/README.md`` and one figure per run at constant rates, from the traces at `paths`, by name."""
    traces = {name: dataset.load(path) for name, path in paths.items()}
    scheduled = {name: trace for name, trace in traces.items() if name.startswith("warmup")}
    parts, rows = [], []
    for name, trace in traces.items():
        if name in scheduled:
            continue
        diagnosis = diagnose(trace)
        parts.append(_section(name, trace, diagnosis))
        if any(layer.measured_rotation > 0 for layer in diagnosis.layers):  # a run that diverged has nothing to draw
            save_picture(trace_figure(trace, diagnosis), folder / f"{name}.png", dpi=60)
            parts.append(f"![{name}]({name}.png)\n")
        rows.append(_overview(name, trace, diagnosis))
    if rows:
        head = ("run", "device", "layers claimed", "agree", "too noisy to tell", "fail", "rotation, worst error",
                "norm, worst error")  # fmt: skip
        parts.insert(0, markdown.table(head, rows) + "\n")
    if scheduled:
        parts.append(_warmup_table(scheduled))
    text = (
        f"# Suite {suite}: predicted against measured\n\nCommand: `{command}`. "
        "Verdicts are decided from each layer's diagnostics, before agreement; only layers marked **applies** "
        "are claimed, in each quarter of the run. Rotation in radians per step: medians over neurons, RMS over the "
        "run, beside the course that the rates set; `corrected` uses the measured radial part of the gradient "
        "(λ_eff = λ + P).\n\n" + "\n".join(parts)
    )
    return files.write_atomically(folder / "README.md", text)


def _device(source: dict[str, Any]) -> str:
    """Where a run was made, in words."""
    return str(source["device"]) if source["device"] != "cpu" else f"CPU ({source['machine']})"


def _overview(name: str, trace: xr.Dataset, diagnosis: Diagnosis) -> list[object]:
    claimed = diagnosis.claimed

    def worst(quantity: str) -> str:
        errors = [abs(layer.error(quantity)) for layer in claimed if quantity in layer.claims]
        return f"{max(errors):.1%}" if errors else "-"

    device = _device(json.loads(trace.attrs["provenance"]))
    counts = Counter(layer.outcome for layer in claimed)
    outcomes = [counts[outcome] for outcome in ("PASS", "UNRESOLVED", "FAIL")]
    return [name, device, f"{len(claimed)} of {len(diagnosis.layers)}", *outcomes, worst("rotation"), worst("norm")]


def _warmup_table(traces: dict[str, xr.Dataset]) -> str:
    """Validation loss of every run with a schedule, with and without warm-up."""
    losses: dict[tuple[str, float], dict[float, float]] = {}
    for trace in traces.values():
        source = json.loads(trace.attrs["provenance"])
        run = source["run"]
        losses.setdefault((run["optimizer"], run["lr"]), {})[run["warmup"]] = source["validation_loss"]
    spec = dataset.spec_of(next(iter(traces.values())))
    about = (
        f"{spec['network']} on {spec['data']}, {spec['steps']} steps, cosine to zero, weight decay 0.5, seed "
        f"{spec['seed']}; {_device(source)}. Final validation loss, nats per byte; one seed, so differences of a few "
        "hundredths are noise."
    )
    rows = [
        [optimizer, f"{lr:g}", *(f"{found[w]:.3f}" if w in found else "-" for w in _WARMUPS)]
        for (optimizer, lr), found in losses.items()
    ]
    head = ["optimizer", "lr", *("no warm-up" if not w else f"warm-up {w:.0%}" for w in _WARMUPS)]
    return f"## Warm-up\n\n{about}\n\n{markdown.table(head, rows)}\n"


def _section(name: str, trace: xr.Dataset, diagnosis: Diagnosis) -> str:
    source, spec = json.loads(trace.attrs["provenance"]), dataset.spec_of(trace)
    about = (
        f"{spec['network']} on {spec['data']}, {diagnosis.rates()}, {spec['steps']} steps, seed "
        f"{spec['seed']}; {_device(source)}, torch {source['versions']['torch']}, {source['seconds']:.0f} s. "
        f"{diagnosis.summary()}"
    )
    rows = [
        [
            dataset.layer_name(layer.layer), f"**{layer.verdict}**" if layer.applies else layer.verdict,
            f"{layer.predicted_rotation:.4g}", f"{layer.measured_rotation:.4g}", f"{layer.ratio:.3f}",
            f"{layer.measured_rotation / layer.corrected_rotation:.3f}", f"{layer.within:.0%}",
            f"{layer.norm_ratio:.3f}", f"{1 + layer.error('rotation'):.3f}", f"{1 + layer.error('norm'):.3f}",
        ]
        for layer in diagnosis.layers
    ]  # fmt: skip
    rows = [["-" if cell in ("nan", "nan%") else cell for cell in row] for row in rows]
    reasons = dict.fromkeys(f"* {layer.layer}: {layer.reason}" for layer in diagnosis.layers if not layer.applies)
    head = ("layer", "verdict", "predicted", "measured", "ratio", "measured / corrected", "neurons ±10 %", "norm ratio",
            "rotation, worst quarter", "norm, worst quarter")  # fmt: skip
    parts = [f"## {name}\n\n{about}\n", markdown.table(head, rows), "", *reasons, ""]
    return "\n".join(parts)
