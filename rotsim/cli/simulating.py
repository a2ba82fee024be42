"""`rotsim simulate`."""

from __future__ import annotations

from typing import Any

import click

from rotsim.cli.specs import PerOptimizer, form_of, gradients_of
from rotsim.cli.values import WHOLE, Named
from rotsim.errors import InvalidInput, NoEquilibrium


def _simulate(
    optimizer: Any,
    dim: int,
    gradient: Any,
    output: str | None,
    resume: str | None,
    keep_state: bool,
    checkpoint_seconds: float | None,
    rows: int | None = None,
    **run: Any,
) -> None:
    from rotsim import dataset, files
    from rotsim.comparison import compare
    from rotsim.show.progress import progress_bar
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import report_table
    from rotsim.simulation import Interrupted, simulate
    from rotsim.theory.equilibrium import equilibrium

    if output is not None:
        files.check_writable(output, "NetCDF")
    elif keep_state or checkpoint_seconds is not None:
        option = "--keep-state" if keep_state else "--checkpoint-seconds"
        raise InvalidInput(f"`{option}` needs --output FILE, the file to keep the state in")
    if checkpoint_seconds is not None:
        run.update(checkpoint=output, checkpoint_seconds=checkpoint_seconds)
    earlier = dataset.load(resume) if resume is not None else None
    screen = console()
    with progress_bar(console(stderr=True), f"{optimizer.label} walk, steps") as progress:
        try:
            result = simulate(
                optimizer, dim=dim, gradient=gradient, resume=earlier, keep_state=keep_state, progress=progress,
                rows=rows, **run,
            )  # fmt: skip
        except Interrupted as stopped:
            if output is not None:
                stopped.saved_in = dataset.save(stopped.dataset, output)
            raise
    try:
        if output is not None:
            dataset.save(result, output)
    finally:  # where the disk is full, the result is shown all the same
        try:
            rows = dataset.spec_of(result).get("rows")
            report = compare(result, equilibrium(optimizer, dim, gradient, rows=rows))
            title = f"{optimizer.describe()}, {form_of(optimizer, dim, rows)}, {gradients_of(gradient)}"
            screen.print(report_table(report, title))
        except (InvalidInput, NoEquilibrium) as reason:
            final = float((result["norm"].values[:, -1] ** 2).mean() ** 0.5)
            click.echo(f"RMS norm after {run['steps']} steps: {final:.6g}. No prediction to compare with: {reason}")
    if output is not None:
        click.echo(f"saved {output}")


class _EngineName(Named):
    """A name of an engine. The engines are imported when the names are read, not with the command line."""

    def __init__(self) -> None:
        super().__init__(())

    @property
    def choices(self) -> tuple[str, ...]:
        from rotsim.simulation.engines import NAMES

        return NAMES

    @choices.setter
    def choices(self, _: Any) -> None:
        """Click sets it once."""


simulate = PerOptimizer(
    _simulate,
    [
        click.Option(["--neurons"], type=WHOLE, default=64, help="Independent neurons."),
        click.Option(["--steps"], type=WHOLE, default=20_000, help="Optimizer steps in all."),
        click.Option(["--seed"], type=WHOLE, default=0, help="Seed of the noise and the initial weights."),
        click.Option(["--initial-norm"], type=float, default=1.0, help="Norm of the initial weights."),
        click.Option(["--record-every"], type=WHOLE, default=100, help="Steps per record window."),
        click.Option(["--dtype"], type=Named(["float32", "float64"]), default="float32"),
        click.Option(["--threads"], type=WHOLE, default=None, help="Worker threads; changes no number. [default: all]"),
        click.Option(
            ["--engine"],
            type=_EngineName(),
            default="auto",
            help="numba: the walk; numpy: its readable twin; cuda: the walk on a GPU; gram: SGDM, also at a norm "
            "that is held, reduced exactly to a few numbers per neuron. auto: gram where it can, else numba.",
        ),
        click.Option(["--output"], type=str, default=None, help="Save the dataset to this NetCDF file."),
        click.Option(["--keep-state"], is_flag=True, help="Keep weights and optimizer state in the file."),
        click.Option(
            ["--checkpoint-seconds"], type=float, default=None, help="Save to --output so often while running."
        ),
        click.Option(
            ["--resume"], type=str, default=None, help="Continue from a file with state: --keep-state, Ctrl-C."
        ),
    ],
    name="simulate",
    help="Simulate the random walk and hold it against the prediction.\n\n"
    "Example: rotsim simulate lion --lr 1e-3 --weight-decay 1 --steps 20000 --output lion.nc",
)
