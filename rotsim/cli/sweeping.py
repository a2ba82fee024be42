"""`rotsim sweep`: a quantity over ranges of hyperparameters, kept cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from math import isfinite
from typing import Any

import click

from rotsim.cli.specs import GRADIENT_NAMES, HELP_SETTINGS, HYPERPARAMETER_HELP, PerOptimizer, gradient_model
from rotsim.cli.values import WHOLE, Named
from rotsim.errors import InvalidInput

MOST_POINTS = 100_000  # values of one range
MAP_POINTS = 41  # values of a range that does not say how many
RANGE_HELP = "one value, a list 0.1,0.3, a range 1e-4:1e-2:25 of 25 values at equal ratios, or lin:0:1:11"
_SETTINGS: dict[str, tuple[type, str]] = {
    "dim": (int, "Fan-in C."),
    "rows": (int, "Neurons of one matrix, for Muon.  [default: as many as --dim; in a simulation all]"),
    "steps": (int, "Optimizer steps of a run (predict, simulate, error)."),
    "neurons": (int, "Independent neurons of a walk (simulate, error)."),
    "seed": (int, "Seed of a walk (simulate, error)."),
    "initial_norm": (float, "Norm of the initial weights (predict, simulate)."),
    "schedule": (str, "constant, linear, cosine or wsd (predict, simulate)."),
    "warmup": (int, "Steps of linear warm-up (predict, simulate)."),
    "final": (float, "Share of the learning rate at the last step (predict, simulate)."),
    "windows": (int, "Parts of a run that are kept (predict)."),
    "of": (str, "leading or simulation: whose error is taken (error)."),
}


def values(name: str, given: str, kind: Callable[[str], Any]) -> list[Any]:
    """The values that a range, a list or a single value on the command line stands for."""
    import numpy as np

    option = "--" + name.replace("_", "-")
    try:
        if ":" not in given:
            return [kind(part) if kind is not int else _whole(float(part)) for part in given.split(",")]
        first, last, count, *more = (*given.removeprefix("lin:").split(":"), str(MAP_POINTS))
        if len(more) > 1:
            raise ValueError
        ends, many = (float(first), float(last)), int(count)
        if (
            not 1 <= many <= MOST_POINTS
            or not all(map(isfinite, ends))
            or (not given.startswith("lin:") and min(ends) <= 0)
        ):
            raise ValueError
        spaced = (np.linspace if given.startswith("lin:") else np.geomspace)(*ends, many).tolist()
        return list(dict.fromkeys(round(x) for x in spaced)) if kind is int else spaced
    except ValueError:
        way_out = " (ratios cannot begin at 0: use lin:)" if given.startswith(("0:", "0.0:")) else ""
        raise InvalidInput(f"`{option}` takes {RANGE_HELP}; got {given!r}{way_out}") from None


def _kind(default: Any) -> Callable[[str], Any]:
    """What makes a value of a hyperparameter, by the default of its field; `MISSING` stands for a number."""
    if isinstance(default, bool):
        return _switch
    if isinstance(default, int):
        return int
    return str if isinstance(default, str | None) else float


def _switch(text: str) -> bool:
    if (spelled := text.strip().lower()) not in ("true", "false"):
        raise ValueError
    return spelled == "true"


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError
    return int(number)


class _Swept(PerOptimizer):
    """One subcommand per optimizer; every hyperparameter and setting takes a range."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        from rotsim.optimizers import optimizer_class
        from rotsim.sweeps.grid import hyperparameters

        spec = optimizer_class(name.replace("-", "_"))
        default = {field.name: field.default for field in fields(spec)}
        own = {name: (_kind(default.get(name, MISSING)), "") for name in hyperparameters(spec)}
        settings = {name: one for name, one in _SETTINGS.items() if name != "rows" or spec.acts_on == "matrix"}
        ranges: dict[str, tuple[Callable[[str], Any], str]] = {**own, **settings}
        options: list[click.Parameter] = [
            click.Option(["--" + key.replace("_", "-")], metavar="RANGE", help=HYPERPARAMETER_HELP.get(key, text))
            for key, (_, text) in ranges.items()
        ]

        def callback(**given: Any) -> None:
            swept = {
                key: values(key, text, kind)
                for key, (kind, _) in ranges.items()
                if (text := given.pop(key)) is not None
            }
            self.run(spec, swept, **given)

        return click.Command(
            name,
            callback=callback,
            params=[*options, *self.options],
            help=f"Sweep {spec.label}. A RANGE is {RANGE_HELP}.",
            short_help=(spec.__doc__ or "").strip().splitlines()[0],
            context_settings={**HELP_SETTINGS, "show_default": False},
        )


def _sweep(
    spec: Any,
    swept: dict[str, list[Any]],
    gradient: str,
    parameters: tuple[str, ...],
    measure: str,
    output: str | None,
    figure: str | None,
    store: str | None,
    resume: bool,
    workers: int | None,
    dask: str | None,
    dry_run: bool,
) -> None:
    from contextlib import ExitStack

    from rotsim import files
    from rotsim.show.progress import progress_bar
    from rotsim.show.terminal import console
    from rotsim.show.theory_tables import sweep_table
    from rotsim.sweeps import sweep

    if output is not None:
        files.check_writable(output, "NetCDF")
    if figure is not None:
        from rotsim.show.plotting import check_figure

        check_figure(figure)
    if resume and store is None:
        if output is None:
            raise InvalidInput("`--resume` needs `--output` or `--store`, beside or in which finished cells are kept")
        store = str(files.resolved(output).with_suffix(".zarr"))
    noise: dict[str, list[Any]] = {}
    for given in parameters:
        key, equals, text = given.partition("=")
        if not equals:
            raise InvalidInput(f"`--with` takes NAME=RANGE, as in --with correlation=lin:0:0.9:10; got {given!r}")
        noise[key] = values(key, text, float)
    model = gradient_model(gradient, None, tuple(f"{key}={found[0]}" for key, found in noise.items()))
    swept |= noise
    over = {key: found for key, found in swept.items() if len(found) > 1}
    fixed = {key: found[0] for key, found in swept.items() if len(found) == 1}
    with ExitStack() as stack:
        client = stack.enter_context(_dask(dask)) if dask else None
        arguments: dict[str, Any] = dict(measure=measure, store=store, executor=client, workers=workers, gradient=model)
        if dry_run:
            click.echo(str(sweep(spec, over, dry_run=True, **arguments, **fixed)))
            return
        progress = stack.enter_context(progress_bar(console(stderr=True), f"{spec.label} sweep, cells"))
        result = sweep(spec, over, progress=progress, **arguments, **fixed)
    if output is not None:
        files.write_atomically(output, bytes(result.to_netcdf(engine="h5netcdf")))
    console().print(sweep_table(result))
    if output is not None:
        click.echo(f"saved {output}")
    if figure is not None:
        from rotsim.show.plotting import save_figure
        from rotsim.sweeps.map import plot_sweep

        save_figure(plot_sweep(result), figure)
        click.echo(f"wrote {figure}")


def _dask(address: str) -> Any:
    try:
        from dask.distributed import Client
    except ImportError:
        raise InvalidInput('`--dask` needs dask: pip install "rotsim[cluster]"') from None
    try:
        return Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"no scheduler answers at `--dask` {address!r}: {error}") from None


sweep = _Swept(
    _sweep,
    [
        click.Option(
            ["--gradient"], type=Named(GRADIENT_NAMES), default="scale-invariant", show_default=True,
            help="Gradient model: see rotsim simulate.",
        ),
        click.Option(["--with", "parameters"], multiple=True, metavar="NAME=RANGE", help="Parameter of the gradient."),
        click.Option(
            ["--measure"], type=Named(["equilibrium", "leading", "predict", "simulate", "error"]),
            default="equilibrium", show_default=True, help="What is computed in each cell.",
        ),
        click.Option(["--output"], help="Save the result to this NetCDF file."),
        click.Option(["--figure"], help="Draw the result: .png, .pdf or .svg."),
        click.Option(["--resume"], is_flag=True, help="Keep finished cells beside --output and go on from there."),
        click.Option(["--store"], help="Keep finished cells in this folder (sweep.zarr) and go on from it."),
        click.Option(["--workers"], type=WHOLE, help="Processes here; changes no number. [default: all cores]"),
        click.Option(["--dask"], metavar="ADDRESS", help="Scheduler of a cluster: tcp://host:8786."),
        click.Option(["--dry-run"], is_flag=True, help="Say how many cells and how long, from a few that are timed."),
    ],
    name="sweep",
    help="Compute a quantity over ranges of hyperparameters.\n\n"
    "Example: rotsim sweep adamw --lr 1e-4:1e-2:25 --weight-decay 1e-3:1:25 --beta2 0.95,0.99 --output map.nc",
)  # fmt: skip


def assignment(option: str, given: str) -> tuple[str, list[Any]]:
    """The name and the values of NAME=RANGE."""
    name, equals, text = given.partition("=")
    if not equals:
        raise InvalidInput(f"`{option}` takes NAME=RANGE, as in {option} lr=1e-5:1e-1; got {given!r}")
    kind = _SETTINGS.get(name, (float, ""))[0]
    return name.replace("-", "_"), values(name, text, kind)


@click.command("map", context_settings=HELP_SETTINGS)
@click.argument("optimizers", nargs=-1, required=True)
@click.option("--x", "x", default="lr=1e-5:1e-1", metavar="NAME=RANGE", help="Horizontal axis.")
@click.option("--y", "y", default="weight_decay=1e-4:10", metavar="NAME=RANGE", help="Vertical axis.")
@click.option("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="Another hyperparameter: beta2=0.95.")
@click.option("--quantity", type=Named(["all", "rotation", "norm", "relaxation-steps"]), default="all")
@click.option("--steps", type=WHOLE, default=None, help="Length of a run: shade where it does not reach equilibrium.")
@click.option("--point", "points", multiple=True, metavar="X,Y", help="Your settings, marked: 3e-4,0.1.")
@click.option("--dim", type=WHOLE, default=1024, help="Fan-in C.")
@click.option("--rows", type=WHOLE, default=None, help="Neurons of one matrix, for Muon.  [default: as many as --dim]")
@click.option("--gradient", type=Named(GRADIENT_NAMES), default="scale-invariant", help="Gradient model.")
@click.option("--with", "parameters", multiple=True, metavar="NAME=VALUE", help="Parameter of the gradient model.")
@click.option("--output", default="map.png", help="Figure: .png, .pdf or .svg.")
def map_command(
    optimizers: tuple[str, ...],
    x: str,
    y: str,
    fixed: tuple[str, ...],
    quantity: str,
    steps: int | None,
    points: tuple[str, ...],
    dim: int,
    rows: int | None,
    gradient: str,
    parameters: tuple[str, ...],
    output: str,
) -> None:
    """Draw where optimizers settle over two hyperparameters, and what keeps a run from it.

    A RANGE is 1e-5:1e-1 (41 values at equal ratios), 1e-5:1e-1:25, or a list.

    Example: rotsim map adamw lion --steps 10000 --point 3e-4,0.1 --output map.png
    """
    from rotsim.optimizers import optimizer_class
    from rotsim.show.plotting import check_figure, save_figure
    from rotsim.sweeps.map import plot_map

    check_figure(output)
    over = dict(assignment(option, given) for option, given in (("--x", x), ("--y", y)))
    once = {name: found[0] for name, found in (assignment("--set", given) for given in fixed)}
    marks = [tuple(values("point", point, float)) for point in points]
    figure = plot_map(
        [optimizer_class(name.replace("-", "_")) for name in optimizers], over, quantity.replace("-", "_"),
        dim=dim, gradient=gradient_model(gradient, None, parameters), steps=steps, rows=rows, points=marks,
        **once,
    )  # fmt: skip
    save_figure(figure, output)
    click.echo(f"wrote {output}")
