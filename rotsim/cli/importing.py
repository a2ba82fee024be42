"""`rotsim trace import` and `rotsim checkpoints`: runs that somebody else recorded, or nobody."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from rotsim.cli.specs import HELP_SETTINGS, HYPERPARAMETER_HELP
from rotsim.cli.values import WHOLE, Named
from rotsim.errors import InvalidInput

if TYPE_CHECKING:
    from rotsim.optimizers.base import Optimizer

_OPTIONS = (
    click.option("--optimizer", "name", required=True, help="What trained: adamw, adam-l2, sgdm, lion, ..."),
    click.option("--lr", type=float, default=None, help="Largest learning rate of the schedule."),
    click.option("--weight-decay", type=float, default=None, help=HYPERPARAMETER_HELP["weight_decay"]),
    click.option("--betas", type=float, nargs=2, default=None, help=HYPERPARAMETER_HELP["betas"]),
    click.option("--momentum", type=float, default=None, help=HYPERPARAMETER_HELP["momentum"]),
    click.option(
        "--schedule", type=Named(["constant", "linear", "cosine", "wsd"]), default="constant",
        help="Of the learning rate after warm-up.",
    ),
    click.option("--steps", type=WHOLE, default=None, help="Steps of the whole run.  [default: the last recorded]"),
    click.option("--warmup", "warmup_steps", type=WHOLE, default=0, help="Steps of linear warm-up."),
    click.option("--final", type=float, default=0.0, help="Share of --lr at the last step."),
    click.option(
        "--scale-invariant", multiple=True, metavar="PATTERN",
        help="Layers that a normalisation follows, which the report then claims: '*.mlp.*'. May be repeated.",
    ),
)  # fmt: skip


def _of_an_optimizer(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes the optimizer, and the schedule, that `_OPTIONS` say."""

    @wraps(command)
    def with_spec(
        name: str, lr: float | None, weight_decay: float | None, betas: Any, momentum: float | None, **others: Any
    ) -> None:
        command(optimizer=_spec(name, lr=lr, weight_decay=weight_decay, betas=betas, momentum=momentum), **others)

    for option in reversed(_OPTIONS):
        with_spec = option(with_spec)
    return with_spec


def _spec(name: str, **given: Any) -> Optimizer:
    """The optimizer with the hyperparameters given; the others are PyTorch's defaults."""
    from dataclasses import MISSING, fields

    from rotsim.optimizers import optimizer_class

    kind = optimizer_class(name.replace("-", "_"))
    values = {key: value for key, value in given.items() if value is not None}
    known = {field.name: field for field in fields(kind) if field.init}
    for key in values:
        if key not in known:
            raise InvalidInput(f"`--{key.replace('_', '-')}` is no hyperparameter of {kind.label}; leave it out")
    for key, field in known.items():
        if field.default is MISSING and field.default_factory is MISSING and key not in values:
            raise InvalidInput(f"`--{key.replace('_', '-')}` must be given for {kind.label}")
    return kind(**values)


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(item.partition("=")[::2] for item in given)
    if any("=" not in item or item.startswith("=") for item in given):
        raise InvalidInput(f"`{option}` takes NAME=VALUE; got {' '.join(given)}")
    return pairs


@click.command("import", context_settings=HELP_SETTINGS)
@click.argument("file")
@click.option("--output", type=str, required=True, help="The trace to write, NetCDF.")
@click.option(
    "--column", "columns", multiple=True, metavar="QUANTITY=NAME",
    help="Which column holds step, layer, norm, rotation, ...: norm=weight_norm, or 'norm={layer}/norm'. Repeatable.",
)  # fmt: skip
@click.option("--fan-in", multiple=True, metavar="[LAYER=]N", help="Weights per neuron, of all layers or of one.")
@click.option("--interval", type=WHOLE, default=1, help="Of a .pkl: steps between two of its values.")
@_of_an_optimizer
def trace_import(
    file: str,
    output: str,
    columns: tuple[str, ...],
    fan_in: tuple[str, ...],
    interval: int,
    optimizer: Optimizer,
    **schedule: Any,
) -> None:
    """Make a trace of a log: .csv, .jsonl (also .gz, .xz), or dynamics.pkl of the paper's authors.

    `rotsim trace report` and `rotsim trace compare` then take it.

    Example: rotsim trace import log.csv --output trace.nc --optimizer adamw --lr 1e-3 --weight-decay 0.1 --column
    norm=weight_norm --fan-in 768
    """
    from rotsim import dataset, files
    from rotsim.measure import read_log

    files.check_writable(output, "NetCDF")
    sizes: int | dict[str, int] | None = None
    if fan_in:
        try:
            sizes = (
                int(fan_in[0])
                if len(fan_in) == 1 and "=" not in fan_in[0]
                else {key: int(value) for key, value in _pairs("--fan-in", fan_in).items()}
            )
        except ValueError:
            raise InvalidInput(f"`--fan-in` takes a whole number, or LAYER=N; got {' '.join(fan_in)}") from None
    trace = read_log(file, optimizer, _pairs("--column", columns), interval=interval, fan_in=sizes, **schedule)
    dataset.save(trace, output)
    layers = len(set(trace["layer"].values.tolist()))
    click.echo(
        f"saved {output}: {layers} layers, {trace.sizes['neuron']} neurons, {trace.sizes['step']} looks up to step "
        f"{int(trace['step'][-1])}"
    )


@click.command("checkpoints", context_settings=HELP_SETTINGS)
@click.argument("folder")
@_of_an_optimizer
@click.option("--steps-from-name", is_flag=True, help="The last number in a checkpoint's name is its step.")
@click.option("--output", type=str, default=None, help="Also save the trace, for `rotsim trace report`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def checkpoints(folder: str, optimizer: Optimizer, output: str | None, as_json: bool, **options: Any) -> None:
    """Read norms and angles off saved weights, hold them against theory, and say which decay was really used.

    safetensors and PyTorch files are read, numbers alone. Exit code 1 if the decay is not the one given.

    Example: rotsim checkpoints runs/gpt --steps-from-name --optimizer adamw --lr 6e-4 --weight-decay 0.1 --betas 0.9
    0.95 --schedule cosine --warmup 2000 --steps 100000
    """
    from rotsim import dataset, files
    from rotsim.decay import decay_used
    from rotsim.evidence import gather
    from rotsim.measure import read_checkpoints
    from rotsim.show.terminal import console
    from rotsim.show.trace_tables import checkpoints_table

    if output is not None:
        files.check_writable(output, "NetCDF")
    trace = read_checkpoints(folder, optimizer, **options)
    if output is not None:
        dataset.save(trace, output)
    used = decay_used(trace)
    if as_json:
        click.echo(json.dumps(used.to_dict()))
    else:
        console().print(checkpoints_table(tuple(gather(trace)), used, f"{folder}: {optimizer.describe()}"))
        click.echo(used.sentence())
        if output is not None:
            click.echo(f"saved {output}")
    if used.verdict == "FAIL":
        raise SystemExit(1)
