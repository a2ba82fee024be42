"""The `rotsim` command: thin; every command parses, calls one public function, prints."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

from rotsim import __version__
from rotsim.errors import DatasetError, InvalidInput, NoEquilibrium

_HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
_HYPERPARAMETER_HELP = {
    "lr": "Learning rate.",
    "weight_decay": "Weight decay λ (multiplied by lr, as PyTorch has it).",
    "momentum": "Momentum α in [0, 1).",
    "betas": "β1 and β2, each in [0, 1).",
    "eps": "ε in the denominator.",
}
# of rotsim.gradients, those without an array of data; named here so that importing this module needs no numba
_GRADIENTS = (
    "scale-invariant", "isotropic", "signal", "autocorrelated", "student-t", "radial", "layer-invariant",
    "simple-system",
)  # fmt: skip
_EXAMPLES = {
    "equilibrium": "rotsim equilibrium adamw --lr 1e-3 --weight-decay 0.1 --dim 1024",
    "simulate": "rotsim simulate lion --lr 1e-3 --weight-decay 1 --steps 20000 --output lion.nc",
}


@click.group(context_settings=_HELP_SETTINGS)
@click.version_option(__version__, prog_name="rotsim")
def cli() -> None:
    """Rotational equilibrium under weight decay.

    Weight decay and gradient noise push a neuron's weights to a steady state: their norm settles
    and they turn by the same angle every step. rotsim predicts that state, simulates it,
    measures it in real networks and says whether the three agree.

    \b
    Start with:
      rotsim verify --quick
      rotsim equilibrium adamw --lr 1e-3 --weight-decay 0.1 --dim 1024
      rotsim simulate adamw --lr 1e-2 --weight-decay 0.1 --output walk.nc
      rotsim compare walk.nc
      rotsim trace report trace.nc
      rotsim derive adamw
    """


class PerOptimizer(click.Group):
    """A group with one subcommand per registered optimizer, its options read off the spec's fields."""

    def __init__(self, run: Callable[..., None], options: list[click.Parameter], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.run, self.options = run, options

    def list_commands(self, context: click.Context) -> list[str]:
        from rotsim.optimizers import OPTIMIZERS

        return list(OPTIMIZERS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        from rotsim.optimizers import optimizer_class

        spec = optimizer_class(name.replace("-", "_"))
        names = [field.name for field in fields(spec)]

        def callback(rotational: bool, **values: Any) -> None:
            optimizer: Any = spec(**{name: values.pop(name) for name in names})
            if rotational:
                from rotsim.optimizers import Rotational

                optimizer = Rotational(optimizer)
            self.run(optimizer, **values)

        hyperparameters: list[click.Parameter] = []
        for field in fields(spec):
            default = {"required": True} if field.default is MISSING else {"default": field.default}
            pair = isinstance(field.default, tuple)
            hyperparameters.append(
                click.Option(
                    ["--" + field.name.replace("_", "-")],
                    type=float,
                    nargs=2 if pair else 1,
                    **default,
                    help=_HYPERPARAMETER_HELP.get(field.name, ""),
                )
            )
        help_text = (spec.__doc__ or "").strip().splitlines()[0]
        return click.Command(
            name,
            callback=callback,
            params=[*hyperparameters, _ROTATIONAL, *self.options],
            help=help_text,
            short_help=help_text,
            context_settings=_HELP_SETTINGS,
        )


_GRADIENT_OPTIONS: list[click.Parameter] = [
    click.Option(["--dim"], type=int, default=1024, help="Fan-in C: length of the neuron's weight vector."),
    click.Option(
        ["--gradient"],
        type=click.Choice(_GRADIENTS),
        default="scale-invariant",
        help="Noise orthogonal to w and scaled by 1/‖w‖, as normalisation layers make it; white noise; "
        "or another model of rotsim.gradients, whose parameters --with sets.",
    ),
    click.Option(["--scale"], type=float, default=None, help="Gradient scale: see rotsim.Isotropic, ScaleInvariant."),
    click.Option(
        ["--with", "parameters"],
        multiple=True,
        metavar="NAME=VALUE",
        help="Parameter of the gradient model: correlation=0.5 (autocorrelated), ratio=0.1 (signal), "
        "degrees=5 (student-t), strength=0.01 (radial), batch=32 (simple-system), scale_invariant=false.",
    ),
]
_ROTATIONAL = click.Option(
    ["--rotational"], is_flag=True, help="The rotational variant: equilibrium rotation at any norm, which it keeps."
)


def _gradient(name: str, scale: float | None, parameters: tuple[str, ...]) -> Any:
    from rotsim.gradients import gradient_from_dict

    values: dict[str, Any] = {"name": name.replace("-", "_")}
    if scale is not None:
        values["scale"] = scale
    for given in parameters:
        key, _, value = given.partition("=")
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            raise InvalidInput(f"`--with` takes NAME=VALUE, as in --with correlation=0.5; got {given!r}") from None
    return gradient_from_dict(values)


def _equilibrium(
    optimizer: Any, dim: int, gradient: str, scale: float | None, parameters: tuple[str, ...], output: str | None
) -> None:
    from rich.console import Console

    from rotsim.dataset import check_writable, provenance, write_atomically
    from rotsim.terminal import equilibrium_table
    from rotsim.theory.equilibrium import equilibrium

    if output:
        check_writable(output)
    model = _gradient(gradient, scale, parameters)
    exact, leading = (equilibrium(optimizer, dim, model, method) for method in ("exact", "leading"))
    Console().print(
        equilibrium_table(optimizer, exact, leading, f"{optimizer.describe()}, dim {dim}, {gradient} gradients")
    )
    if output:
        content = {
            "optimizer": optimizer.to_dict(),
            "dim": dim,
            "gradient": model.to_dict(),
            "exact": exact.to_dict(),
            "leading": leading.to_dict(),
            "provenance": provenance(),
        }
        write_atomically(output, lambda path: path.write_text(json.dumps(content, indent=2) + "\n"))
        click.echo(f"saved {output}")


def _simulate(
    optimizer: Any,
    dim: int,
    gradient: str,
    scale: float | None,
    parameters: tuple[str, ...],
    output: str | None,
    resume: str | None,
    keep_state: bool,
    checkpoint_seconds: float | None,
    **run: Any,
) -> None:
    from rich.console import Console

    from rotsim import dataset
    from rotsim.comparison import compare
    from rotsim.simulation import Interrupted, simulate
    from rotsim.terminal import progress_bar, report_table
    from rotsim.theory.equilibrium import equilibrium

    if output:
        dataset.check_writable(output)
    elif keep_state or checkpoint_seconds is not None:
        option = "--keep-state" if keep_state else "--checkpoint-seconds"
        raise InvalidInput(f"`{option}` needs --output FILE, the file to keep the state in")
    if checkpoint_seconds is not None:
        run.update(checkpoint=output, checkpoint_seconds=checkpoint_seconds)
    earlier = dataset.load(resume) if resume else None
    model = _gradient(gradient, scale, parameters)
    console = Console()
    with progress_bar(Console(stderr=True), f"{optimizer.label} walk, steps") as progress:
        try:
            result = simulate(
                optimizer, dim=dim, gradient=model, resume=earlier, keep_state=keep_state, progress=progress, **run
            )
        except Interrupted as stopped:
            if output:
                stopped.saved_in = dataset.save(stopped.dataset, output)
            raise
    if output:
        dataset.save(result, output)
    try:
        report = compare(result, equilibrium(optimizer, dim, model))
        console.print(report_table(report, f"{optimizer.describe()}, dim {dim}, {gradient} gradients"))
    except (InvalidInput, NoEquilibrium) as reason:
        final = float((result["norm"].values[:, -1] ** 2).mean() ** 0.5)
        click.echo(f"RMS norm after {run['steps']} steps: {final:.6g}. No prediction to compare with: {reason}")
    if output:
        console.print(f"saved {output}")


_OUTPUT_JSON = click.Option(["--output"], type=str, default=None, help="Also write the numbers to this JSON file.")

cli.add_command(
    PerOptimizer(
        _equilibrium,
        [*_GRADIENT_OPTIONS, _OUTPUT_JSON],
        name="equilibrium",
        help=f"Predict norm, rotation, time scale: exact and the paper's.\n\nExample: {_EXAMPLES['equilibrium']}",
    )
)
cli.add_command(
    PerOptimizer(
        _simulate,
        [
            *_GRADIENT_OPTIONS,
            click.Option(["--neurons"], type=int, default=64, help="Independent neurons."),
            click.Option(["--steps"], type=int, default=20_000, help="Optimizer steps in all."),
            click.Option(["--seed"], type=int, default=0, help="Seed of the noise and the initial weights."),
            click.Option(["--initial-norm"], type=float, default=1.0, help="Norm of the initial weights."),
            click.Option(["--record-every"], type=int, default=100, help="Steps per record window."),
            click.Option(["--dtype"], type=click.Choice(["float32", "float64"]), default="float32"),
            click.Option(
                ["--threads"], type=int, default=None, help="Worker threads; changes no number. [default: all]"
            ),
            click.Option(
                ["--engine"],
                type=click.Choice(["auto", "numba", "numpy", "gram"]),
                default="auto",
                help="gram: SGDM, rotational or not, reduced exactly to a few numbers per neuron, for any dim.",
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
        help=f"Simulate the random walk and hold it against the prediction.\n\nExample: {_EXAMPLES['simulate']}",
    )
)


@cli.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def compare(context: click.Context, file: str, as_json: bool) -> None:
    """Compare a saved simulation with theory; exit code 1 if they disagree. A trace gets its `trace report`."""
    from rich.console import Console

    from rotsim import dataset
    from rotsim.terminal import report_table
    from rotsim.theory.traces import compare_with_theory

    data = dataset.load(file)
    if data.attrs["source"] == "trace":
        context.invoke(trace_report, file=file, output=None, as_json=as_json)
        return
    report = compare_with_theory(data)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        title = f"{file}: {data.attrs['source']}, {dataset.optimizer_of(data).describe()}"
        Console().print(report_table(report, title, "measured"))
    if not report.passed:
        raise SystemExit(1)


@cli.group()
def trace() -> None:
    """Look at recorded training runs (rotsim.measure.Recorder)."""


@trace.command("report")
@click.argument("file")
@click.option("--output", type=str, default=None, help="Folder for report.json and report.png (created if absent).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def trace_report(file: str, output: str | None, as_json: bool) -> None:
    """Say for each layer whether theory applies and why; exit code 1 if it applies and does not agree."""
    from rich.console import Console

    from rotsim import dataset
    from rotsim.diagnosis import diagnose, to_json
    from rotsim.terminal import diagnosis_reasons, diagnosis_table

    folder = dataset.output_folder(output, "report.json") if output else None
    data = dataset.load(file)
    diagnosis = diagnose(data)
    if as_json:
        click.echo(to_json(diagnosis, data), nl=False)
    else:
        console = Console()
        console.print(diagnosis_table(diagnosis, f"{file}: {diagnosis.optimizer.describe()}"))
        if reasons := diagnosis_reasons(diagnosis):
            console.print(reasons)
        console.print(diagnosis.summary())
    if folder is not None:
        from rotsim.plotting import save_figure, trace_figure

        dataset.write_atomically(folder / "report.json", lambda p: p.write_text(to_json(diagnosis, data)))
        save_figure(trace_figure(data, diagnosis), folder / "report.png")
        if not as_json:
            click.echo(f"wrote {folder / 'report.json'} and {folder / 'report.png'}")
    if any(layer.applies for layer in diagnosis.layers) and not diagnosis.passed:
        raise SystemExit(1)


@trace.command("compare")
@click.argument("first")
@click.argument("second")
def trace_compare(first: str, second: str) -> None:
    """Compare how evenly two runs rotate: across layers and across neurons."""
    from rich.console import Console

    from rotsim import dataset
    from rotsim.balance import balance
    from rotsim.terminal import balance_table

    one, two = dataset.load(first), dataset.load(second)
    labels = (dataset.optimizer_of(one).label, dataset.optimizer_of(two).label)
    names = labels if labels[0] != labels[1] else (f"{labels[0]} A", f"{labels[1]} B")
    Console().print(balance_table(balance(one), balance(two), names, f"{first} and {second}"))


@cli.command()
@click.argument("names", nargs=-1)
@click.option(
    "--style", type=click.Choice(["text", "markdown"]), default="text", help="Terminal text or LaTeX Markdown."
)
def derive(names: tuple[str, ...], style: str) -> None:
    """Print the derivation of the closed forms, step by step (default: all optimizers)."""
    import derivations

    for name in names or tuple(derivations.DERIVATIONS):
        if name not in derivations.DERIVATIONS:
            raise InvalidInput(f"derivation {name!r} is unknown; choose from {', '.join(derivations.DERIVATIONS)}")
        click.echo(derivations.render(name, style))


@cli.command()
@click.option("--quick", is_flag=True, help="A smaller version, about ten seconds.")
@click.option("--output", type=str, default=None, help="Folder for verify.json and verify.png (created if absent).")
@click.option("--seed", type=int, default=0, help="Seed of the simulations.")
def verify(quick: bool, output: str | None, seed: int) -> None:
    """Derive, simulate, compare, and validate on real networks; exit code 1 on any disagreement."""
    from rotsim.verify import run

    if not run(quick=quick, output=Path(output) if output else None, seed=seed):
        raise SystemExit(1)


def _after_interrupt(stopped: BaseException, arguments: list[str]) -> str:
    """What was saved and the command that goes on from it."""
    saved = getattr(stopped, "saved_in", None)
    if saved is None:
        return "interrupted; nothing was written"
    given = [a for i, a in enumerate(arguments) if a != "--resume" and arguments[i - 1 : i] != ["--resume"]]
    command = shlex.join(["rotsim", *(a for a in given if not a.startswith("--resume=")), "--resume", str(saved)])
    return f"{stopped}; saved {saved}. Continue with:\n{command}"


def main(arguments: list[str] | None = None) -> int:
    """Entry point: exit code 0, 1 for a disagreement, 2 for bad input, 130 for Ctrl-C."""
    try:
        cli.main(args=arguments, prog_name="rotsim", standalone_mode=False)
    except click.ClickException as error:
        print(f"rotsim: {error.format_message()} (see rotsim --help)", file=sys.stderr)
        return 2
    except (InvalidInput, DatasetError, NoEquilibrium, ArithmeticError) as error:
        print(f"rotsim: {error}", file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt) as stopped:
        cause = stopped.__cause__ or stopped  # click turns KeyboardInterrupt into Abort
        print(f"rotsim: {_after_interrupt(cause, sys.argv[1:] if arguments is None else arguments)}", file=sys.stderr)
        return 130
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
