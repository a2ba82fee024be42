"""`rotsim convert`: the rates of one optimizer as those of another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from rotsim.cli.specs import PerOptimizer, form_of, gradients_of
from rotsim.cli.values import WHOLE, Named, Shape
from rotsim.errors import InvalidInput

# of rotsim.theory.conversion, named here so that importing this module needs no theory
CONVENTION_NAMES = ("decoupled", "independent", "corrected", "relative", "l2")


def _convert(
    optimizer: Any,
    dim: int,
    gradient: Any,
    to: str,
    keep: str | None,
    given: Sequence[str],
    shape: tuple[int, int] | None,
    to_dim: int | None,
    convention: str | None,
    max_lr: float | None,
    steps_per_epoch: float | None,
    tokens_per_step: float | None,
    output: str | None,
) -> None:
    from rotsim.dataset import provenance
    from rotsim.errors import positive
    from rotsim.files import check_writable, to_json, write_atomically
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import conversion_table
    from rotsim.theory.conversion import convert

    if output is not None:
        check_writable(output, "JSON")
    units = {
        name: positive(option, value)
        for name, option, value in (
            ("epochs", "steps_per_epoch", steps_per_epoch), ("tokens", "tokens_per_step", tokens_per_step)
        )
        if value is not None
    }  # fmt: skip
    rows, dim = shape or (None, dim)
    found = convert(
        optimizer,
        to.replace("-", "_"),
        keep=None if keep is None else [name.strip().replace("-", "_") for name in keep.split(",")],
        convention=convention,
        max_lr=max_lr,
        dim=dim,
        to_dim=to_dim,
        gradient=gradient,
        rows=rows,
        **hyperparameters(given),
    )
    console().print(conversion_table(found, units, assumed(found, gradient, dim, to_dim or dim, rows)))
    if output is not None:
        content = {**found.to_dict(), "rows": rows, "dim": dim, "to_dim": to_dim or dim, "gradient": gradient.to_dict()}
        for name, per_step in units.items():
            steps = (found.before.ema_steps, found.after.ema_steps)
            content[f"ema_{name}"] = [n / per_step if name == "epochs" else n * per_step for n in steps]
        write_atomically(output, to_json({**content, "provenance": provenance()}))
        click.echo(f"saved {output}")


def assumed(found: Any, gradient: Any, dim: int, to_dim: int, rows: int | None) -> str:
    """What the rates depend on beside the settings: the shape of the weights and the size of the gradients."""
    specs = (found.source, found.target)
    matrix = next((spec for spec in specs if spec.acts_on == "matrix"), found.source)
    form = form_of(matrix, dim, rows) + ("" if to_dim == dim else f" → dim {to_dim}")
    scale = gradient.to_dict().get("scale")
    return f"{form}, {gradients_of(gradient)}" + ("" if scale is None else f" of scale {scale:g}")


def hyperparameters(given: Sequence[str]) -> dict[str, Any]:
    """Hyperparameters written as ``name=value``; several numbers stand one after the other, with commas."""
    values: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        try:
            parsed = json.loads(f"[{value}]")
        except json.JSONDecodeError:
            parsed = [value.strip()]
        if not (equals and name and value.strip()):
            raise InvalidInput(f"`--set` takes NAME=VALUE, as in --set betas=0.9,0.99; got {one!r}")
        values[name.strip().replace("-", "_")] = parsed[0] if len(parsed) == 1 else tuple(parsed)
    return values


convert = PerOptimizer(
    _convert,
    [
        click.Option(
            ["--to"], type=str, required=True,
            help="The other optimizer; or the same, changed by --set; or hyperball: at a norm that is held.",
        ),
        click.Option(
            ["--keep"],
            type=str,
            default=None,
            help="What both share, as many as rates are free: rotation, time, norm, rms, lr, weight-decay.  "
            "[default: rotation,norm]",
        ),
        click.Option(
            ["--set", "given"], multiple=True, metavar="NAME=VALUE",
            help="A hyperparameter of the other optimizer: betas=0.9,0.98, lr=1e-4.",
        ),
        click.Option(
            ["--shape"],
            type=Shape(),
            metavar="ROWSxCOLUMNS",
            default=None,
            help="Neurons and fan-in of the layer, where one of both is Muon; in place of --dim.  [default: square]",
        ),
        click.Option(["--to-dim"], type=WHOLE, default=None, help="Fan-in of the other.  [default: that of --dim]"),
        click.Option(
            ["--convention"],
            type=Named(CONVENTION_NAMES),
            default=None,
            help="What --weight-decay means. A step takes lr·wd of the weights (decoupled, PyTorch's AdamW), wd "
            "(independent), lr·wd·lr/max (corrected), wd·lr/max (relative); or wd·w is added to the gradient (l2).",
        ),
        click.Option(["--max-lr"], type=float, default=None, help="Largest lr of the schedule.  [default: --lr]"),
        click.Option(["--steps-per-epoch"], type=float, default=None, help="Say memory in epochs as well."),
        click.Option(["--tokens-per-step"], type=float, default=None, help="Say memory in tokens as well."),
        click.Option(["--output"], type=str, default=None, help="Also write the numbers to this JSON file."),
    ],
    name="convert",
    help="Convert learning rate and weight decay to those of another optimizer.\n\n"
    "Two rates keep two things: rotation and norm, or those of --keep. --keep rotation,time finds a momentum, too.\n\n"
    "Example: rotsim convert adamw --lr 3e-4 --weight-decay 0.1 --to lion",
)  # fmt: skip
