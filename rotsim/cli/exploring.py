"""`rotsim explore`: the page with live random walks. `rotsim animate`: a movie of them for a slide."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from rotsim.cli.specs import GRADIENT_NAMES, HELP_SETTINGS, gradient_model
from rotsim.cli.sweeping import assignment
from rotsim.cli.values import WHOLE, Named
from rotsim.errors import InvalidInput

DEFAULT_NAME = "rotsim-explore.html"


@click.command(context_settings=HELP_SETTINGS)
@click.option(
    "--output", type=str, default=None, help=f"Write the page here and open nothing.  [default: {DEFAULT_NAME}, opened]"
)
def explore(output: str | None) -> None:
    """Write a page with live random walks beside their predictions, and open it in the browser.

    The page is one HTML file. It needs no network and no server, and runs on a tablet as well. AdamW, Adam+L2, SGDM,
    Lion, Signum, Muon, NAdamW and AdEMAMix walk side by side on the noise of `rotsim simulate`. The dashed lines are
    those of `rotsim predict`.

    Move a slider: the dashed line goes to its new place at once, and the walk drifts to it. The switches under
    "Break it" take away one assumption each. Its link, picture, numbers and Python call can be saved.

    Example: rotsim explore --output lecture/page.html
    """
    from rotsim.files import check_writable, write_atomically

    target = check_writable(output or DEFAULT_NAME)
    from rotsim.page.assemble import page

    written = write_atomically(target, page())
    click.echo(f"wrote {output or DEFAULT_NAME}")
    if output is None and _has_display():
        import webbrowser

        webbrowser.open(written.as_uri())


def _has_display() -> bool:
    """Whether a browser would have somewhere to show itself."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@click.command(context_settings=HELP_SETTINGS)
@click.argument("optimizers", nargs=-1, required=True)
@click.option("--lr", type=float, default=1e-2, help="Learning rate of all.")
@click.option("--weight-decay", type=float, default=0.1, help="Weight decay of all.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="Another hyperparameter: beta2=0.99.")
@click.option("--rotational", is_flag=True, help="The rotational variants.")
@click.option("--dim", type=WHOLE, default=128, help="Fan-in C.")
@click.option("--neurons", type=WHOLE, default=64, help="Neurons behind the curves; three are on the sphere.")
@click.option("--rows", type=WHOLE, default=None, help="Neurons of one matrix, under Muon.  [default: all]")
@click.option("--steps", type=WHOLE, default=2000, help="Optimizer steps.")
@click.option("--frames", type=WHOLE, default=120, help="Pictures.")
@click.option("--fps", type=WHOLE, default=15, help="Pictures per second.")
@click.option("--initial-norm", type=float, default=1.0, help="Norm of the initial weights.")
@click.option("--schedule", type=Named(["constant", "linear", "cosine", "wsd"]), default="constant")
@click.option("--warmup", type=WHOLE, default=0, help="Steps of linear warm-up.")
@click.option("--gradient", type=Named(GRADIENT_NAMES), default="scale-invariant", help="Gradient model.")
@click.option("--with", "parameters", multiple=True, metavar="NAME=VALUE", help="Parameter of the gradient model.")
@click.option("--seed", type=WHOLE, default=0, help="Seed of the walk.")
@click.option("--output", default="walk.gif", help="The movie: .gif, or .mp4 where ffmpeg is.")
def animate(
    optimizers: tuple[str, ...],
    lr: float,
    weight_decay: float,
    fixed: tuple[str, ...],
    rotational: bool,
    schedule: str,
    warmup: int,
    gradient: str,
    parameters: tuple[str, ...],
    output: str,
    steps: int,
    **run: Any,
) -> None:
    """Write a movie of weight vectors that walk on their spheres, for a slide.

    One to four optimizers walk side by side. A sphere's radius is the norm, and a path keeps the angle of every step.
    Curves of norm and angle grow along their predictions, which are dashed.

    Example: rotsim animate adamw adam-l2 sgdm lion --set beta2=0.99 --output walk.gif
    """
    from rotsim.optimizers import Rotational, optimizer_class
    from rotsim.schedules import named
    from rotsim.show.animation import animate as write
    from rotsim.show.movies import check_movie
    from rotsim.show.progress import progress_bar
    from rotsim.show.terminal import console
    from rotsim.sweeps.grid import hyperparameters, with_values

    check_movie(output)
    once = {name: found[0] for name, found in (assignment("--set", given) for given in fixed)}
    kinds = [optimizer_class(name.replace("-", "_")) for name in optimizers]
    own = [set(hyperparameters(kind)) for kind in kinds]
    if unknown := set(once).difference(*own):
        raise InvalidInput(f"`--set` takes {', '.join(sorted(set().union(*own)))}; got {min(unknown)}")
    given = {**once, "lr": lr, "weight_decay": weight_decay}
    specs: list[Any] = [
        with_values(kind, None, {name: value for name, value in given.items() if name in names})
        for kind, names in zip(kinds, own, strict=True)
    ]
    factors = None if schedule == "constant" and warmup == 0 else named(schedule, steps, warmup)
    with progress_bar(console(stderr=True), "steps and pictures") as progress:
        write(
            [Rotational(spec) for spec in specs] if rotational else specs, output, steps=steps,
            gradient=gradient_model(gradient, None, parameters), lr_schedule=factors, progress=progress, **run,
        )  # fmt: skip
    click.echo(f"wrote {output}")
