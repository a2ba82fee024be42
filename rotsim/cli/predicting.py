"""`rotsim equilibrium`, `predict`, `plan`, `transfer` and `derive`: theory, nothing simulated."""

from __future__ import annotations

from math import isnan
from typing import Any

import click

from rotsim.cli.specs import HELP_SETTINGS, PerOptimizer, form_of, gradients_of
from rotsim.cli.values import WHOLE, Named
from rotsim.errors import InvalidInput, registered
from rotsim.show.streams import shows


def _equilibrium(optimizer: Any, dim: int, gradient: Any, output: str | None, rows: int | None = None) -> None:
    from rotsim.dataset import provenance
    from rotsim.files import check_writable, to_json, write_atomically
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import equilibrium_table
    from rotsim.theory.equilibrium import equilibrium

    if output is not None:
        check_writable(output, "JSON")
    exact, leading = (equilibrium(optimizer, dim, gradient, method, rows) for method in ("exact", "leading"))
    title = f"{optimizer.describe()}, {form_of(optimizer, dim, rows)}, {gradients_of(gradient)}"
    console().print(equilibrium_table(optimizer, exact, leading, title))
    if output is not None:
        content = {
            "optimizer": optimizer.to_dict(),
            "dim": dim,
            **({"rows": rows or dim} if optimizer.acts_on == "matrix" else {}),
            "gradient": gradient.to_dict(),
            "exact": exact.to_dict(),
            "leading": leading.to_dict(),
            "provenance": provenance(),
        }
        write_atomically(output, to_json(content))
        click.echo(f"saved {output}")


equilibrium = PerOptimizer(
    _equilibrium,
    [click.Option(["--output"], type=str, default=None, help="Also write the numbers to this JSON file.")],
    name="equilibrium",
    help="Predict norm, rotation, time scale: exact and the paper's.\n\n"
    "Example: rotsim equilibrium adamw --lr 1e-3 --weight-decay 0.1 --dim 1024",
)


def _predict(
    optimizer: Any,
    dim: int,
    gradient: Any,
    steps: int,
    initial_norm: float,
    schedule: str,
    warmup_steps: int,
    final: float | None,
    convention: str,
    output: str | None,
    figure: str | None,
    rows: int | None = None,
) -> None:
    from rotsim import dataset, files
    from rotsim.errors import integer
    from rotsim.schedules import named
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import course_table, settled_note
    from rotsim.theory.approach import CLOSE, steps_to_equilibrium
    from rotsim.theory.prediction import predict, settling

    if output is not None:
        files.check_writable(output, "NetCDF")
    if figure is not None:
        from rotsim.show.plotting import check_figure, course_figure, save_figure

        check_figure(figure)
    steps = integer("steps", steps, low=1)
    if schedule == "constant" and final is not None:
        raise InvalidInput("`--final` needs --schedule linear, cosine or wsd; a constant one does not end elsewhere")
    factors = named(schedule, steps, warmup_steps, final or 0.0)
    every = max(1, steps // 200)
    with console(stderr=True).status("1 of 3: the course") as progress:  # each may take some seconds
        course = predict(
            optimizer, dim, gradient, steps, initial_norm, factors, convention, record_every=every, rows=rows
        )  # fmt: skip
        progress.update("2 of 3: the equilibria of the rates in force")
        in_force = settling(optimizer, dim, gradient, course["step"].values, factors, convention, rows)
        progress.update("3 of 3: the steps to equilibrium")
        note, near = "", f"{100 * CLOSE:g} %"
        if optimizer.settles:
            try:
                first = steps_to_equilibrium(optimizer, dim, gradient, initial_norm, CLOSE, rows)
                note = f"At a constant learning rate it comes within {near} of equilibrium after {first} steps."
            except InvalidInput as unknown:  # only the time to equilibrium is unknown, not the course
                note = f"When it comes within {near} of equilibrium is not known: {unknown}"
            if schedule != "constant" or warmup_steps:
                note = f"{note} {settled_note(course, in_force, CLOSE)}"
    form = form_of(optimizer, dim, rows)
    rise = f" after {warmup_steps} steps of warm-up" if warmup_steps else ""
    title = f"{optimizer.describe()}, {form}, {gradients_of(gradient)}, {schedule} schedule{rise}"
    console().print(course_table(course, in_force, title, note))
    if output is not None:
        dataset.save(course, output)
        click.echo(f"saved {output}")
    if figure is not None:
        save_figure(course_figure(course, in_force, title), figure)
        click.echo(f"wrote {figure}")


predict = PerOptimizer(
    _predict,
    [
        click.Option(["--steps"], type=WHOLE, default=20_000, help="Optimizer steps in all."),
        click.Option(["--initial-norm"], type=float, default=1.0, help="Norm of the initial weights."),
        click.Option(
            ["--schedule"],
            type=Named(["constant", "linear", "cosine", "wsd"]),
            default="constant",
            help="Of the learning rate after warm-up; wsd: constant, then a straight line over the last fifth.",
        ),
        click.Option(["--warmup", "warmup_steps"], type=WHOLE, default=0, help="Steps of linear warm-up."),
        click.Option(["--final"], type=float, default=None, help="Share of --lr at the last step.  [default: 0]"),
        click.Option(
            ["--convention"],
            type=Named(["decoupled", "corrected", "independent"]),
            default="decoupled",
            help="What the schedule does to --weight-decay: nothing, as in PyTorch; corrected: it follows the learning "
            "rate (AdamC); independent: a step takes the same share of the weights all along.",
        ),
        click.Option(["--output"], type=str, default=None, help="Save the course to this NetCDF file."),
        click.Option(["--figure"], type=str, default=None, help="Draw the course into this file: .png, .pdf or .svg."),
    ],
    name="predict",
    help="Predict norm and rotation in time, under a schedule and from any initial norm.\n\n"
    "Example: rotsim predict adamw --lr 1e-3 --weight-decay 0.1 --schedule cosine --warmup 1000 --figure course.png",
)


@click.command(context_settings=HELP_SETTINGS)
@click.argument("family")
@click.option("--rotation", type=float, default=None, help="Wanted RMS angle per step, radians.")
@click.option("--relaxation-steps", type=float, default=None, help="Wanted time scale of ‖w‖², steps.")
@click.option("--norm", type=float, default=None, help="Wanted RMS norm.")
@click.option("--lr", type=float, default=None, help="Hold the learning rate at this value.")
@click.option("--weight-decay", type=float, default=None, help="Hold the weight decay at this value.")
@click.option("--betas", type=float, nargs=2, default=None, help="β1 and β2, where the optimizer has them.")
@click.option("--momentum", type=float, default=None, help="Momentum of SGDM and Muon.")
@click.option("--dim", type=WHOLE, default=1024, help="Fan-in C.")
@click.option("--rows", type=WHOLE, default=None, help="Neurons of one matrix, for Muon.  [default: as many as --dim]")
@click.option("--cautious", is_flag=True, help="Decay only where the update, too, shortens weights.")
def plan(family: str, betas: tuple[float, float] | None, momentum: float | None, **targets: Any) -> None:
    """Find the learning rate and weight decay that give a wanted equilibrium.

    Give as many of --rotation, --relaxation-steps and --norm as there are unknowns: lr and weight decay, and
    momentum when both rotation and relaxation are wanted.

    Example: rotsim plan adamw --rotation 0.01 --norm 1 --dim 1024
    """
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import equilibrium_table
    from rotsim.theory.equilibrium import equilibrium
    from rotsim.theory.planning import plan

    fixed: dict[str, Any] = {
        name: value for name, value in (("betas", betas), ("momentum", momentum)) if value is not None
    }
    found = plan(family.replace("-", "_"), **targets, **fixed)
    dim, rows = targets["dim"], targets["rows"]
    leading = equilibrium(found.optimizer, dim, method="leading", rows=rows)
    title = f"{found.optimizer.describe()}, {form_of(found.optimizer, dim, rows)}"
    console().print(equilibrium_table(found.optimizer, found.equilibrium, leading, title))


def _transfer(
    optimizer: Any,
    dim: int,
    gradient: Any,
    new_momentum: float | None,
    batch_factor: float,
    steps_factor: float,
    rows: int | None = None,
) -> None:
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import equilibrium_table
    from rotsim.theory.equilibrium import equilibrium
    from rotsim.theory.planning import transfer

    found = transfer(
        optimizer,
        momentum=new_momentum,
        batch_factor=batch_factor,
        steps_factor=steps_factor,
        dim=dim,
        gradient=gradient,
        rows=rows,
    )
    new = found.optimizer
    before = equilibrium(optimizer, dim, gradient, rows=rows)
    leading = equilibrium(new, dim, gradient.averaged(batch_factor), "leading", rows)
    console().print(equilibrium_table(new, found.equilibrium, leading, f"{new.describe()}, {form_of(new, dim, rows)}"))
    pairs = [("lr", optimizer.lr, new.lr), ("weight decay", optimizer.weight_decay, new.weight_decay)]
    click.echo(", ".join(f"{name} {old:g} → {to:.4g} (x {to / old:.4g})" for name, old, to in pairs if old))
    pairs = [("rotation per step", before.rotation, found.equilibrium.rotation)]
    if not isnan(before.norm):  # a hyperball has none
        pairs.append(("norm", before.norm, found.equilibrium.norm))
    click.echo(", ".join(f"{name} {old:.4g} → {to:.4g}" for name, old, to in pairs))


transfer = PerOptimizer(
    _transfer,
    [
        click.Option(["--new-momentum"], type=float, default=None, help="New momentum (β1)."),
        click.Option(["--batch-factor"], type=float, default=1.0, help="New batch size over old, on the same samples."),
        click.Option(["--steps-factor"], type=float, default=1.0, help="New length of the training over old."),
    ],
    name="transfer",
    help="Change batch size, length of training or momentum, and turn as much: the new lr and weight decay.\n\n"
    "Example: rotsim transfer adamw --lr 1e-3 --weight-decay 0.1 --batch-factor 4",
)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--style", type=Named(["text", "markdown"]), default="text", help="Terminal text or LaTeX Markdown.")
def derive(names: tuple[str, ...], style: str) -> None:
    """Print the derivation of the closed forms, step by step (default: all optimizers)."""
    import derivations

    if style == "text" and not shows("λ√─"):
        style = "ascii"
    for name in names or tuple(derivations.DERIVATIONS):
        registered("derivation", name, derivations.DERIVATIONS)
        click.echo(derivations.render(name, style))
