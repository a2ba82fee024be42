"""Optimizers and gradient models as options of a command, read off their specs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from inspect import signature
from typing import Any

import click

from rotsim.cli.values import WHOLE, Named
from rotsim.errors import InvalidInput

HELP_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 110}
HYPERPARAMETER_HELP = {
    "lr": "Learning rate.",
    "weight_decay": "Weight decay λ (multiplied by lr, as PyTorch has it).",
    "momentum": "Momentum α in [0, 1).",
    "betas": "β1 and β2, each in [0, 1); of AdEMAMix β3 as well.",
    "alpha": "α: what AdEMAMix's slow average counts.",
    "beta1": "β1 in [0, 1).",
    "beta2": "β2 in [0, 1).",
    "beta3": "β3 of AdEMAMix's slow average, in [0, 1).",
    "dampening": "Share of a gradient that does not enter the momentum, in [0, 1).",
    "nesterov": "Nesterov momentum, as in torch.optim.SGD.",
    "eps": "ε in the denominator.",
    "momentum_decay": "ψ of NAdam's schedule, by which its momentum grows from β1/2 to β1; in torch.optim.NAdam, too.",
    "ns_coefficients": "a, b, c of the polynomial of Newton and Schulz's iteration.",
    "ns_steps": "Iterations, from 1 to 99.",
    "adjust_lr_fn": "Factor of the update: original, match_rms_adamw or spectral.  [default: original]",
}
# The models of rotsim.gradients that need no array of data. They are named here, so that importing this needs no numba.
GRADIENT_NAMES = (
    "scale-invariant", "isotropic", "signal", "autocorrelated", "student-t", "radial", "layer-invariant",
    "simple-system",
)  # fmt: skip


class PerOptimizer(click.Group):
    """A group with one subcommand per registered optimizer, with options for all that its spec and gradients have."""

    def __init__(self, run: Callable[..., None], options: list[click.Parameter], **keywords: Any) -> None:
        super().__init__(**keywords)
        self.run, self.options = run, options

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the optimizers."""
        from rotsim.optimizers import OPTIMIZERS

        return list(OPTIMIZERS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of one optimizer, with an option for each of its hyperparameters."""
        from rotsim.optimizers import optimizer_class

        spec = optimizer_class(name.replace("-", "_"))
        names = [field.name for field in fields(spec)]

        def callback(**values: Any) -> None:
            from rotsim import optimizers

            optimizer: Any = spec(**{name: values.pop(name) for name in names})
            for kind in _VARIANTS:
                if values.pop(kind.lower()):
                    optimizer = getattr(optimizers, kind)(optimizer)
            given = values.pop("gradient"), values.pop("scale"), values.pop("parameters")
            self.run(optimizer, gradient=gradient_model(*given), **values)

        hyperparameters: list[click.Parameter] = [_option(field) for field in fields(spec)]
        if spec.acts_on == "matrix" and "rows" in signature(self.run).parameters:
            hyperparameters.append(_ROWS)
        variants = [click.Option([f"--{kind.lower()}"], is_flag=True, help=about) for kind, about in _VARIANTS.items()]
        help_text = (spec.__doc__ or "").strip().splitlines()[0]
        return click.Command(
            name,
            callback=callback,
            params=[*hyperparameters, *variants, *GRADIENT_OPTIONS, *self.options],
            help=help_text,
            short_help=help_text,
            context_settings=HELP_SETTINGS,
        )


def _option(field: Field[Any]) -> click.Option:
    """The option of one hyperparameter, of the type of its default."""
    name, default = "--" + field.name.replace("_", "-"), field.default
    about = HYPERPARAMETER_HELP.get(field.name, "")
    if default is MISSING:
        return click.Option([name], type=float, required=True, help=about)
    if isinstance(default, bool):
        return click.Option([f"{name}/--no-{name[2:]}"], default=default, help=about)
    kinds: tuple[tuple[type, Any], ...] = ((int, WHOLE), (str | None, str))  # type: ignore[assignment]
    kind = next((found for known, found in kinds if isinstance(default, known)), float)
    return click.Option(
        [name], type=kind, nargs=len(default) if isinstance(default, tuple) else 1, default=default, help=about
    )


_ROWS = click.Option(
    ["--rows"],
    type=WHOLE,
    default=None,
    help="Neurons that make one matrix.  [default: as many as --dim; in a simulation all]",
)
GRADIENT_OPTIONS: list[click.Parameter] = [
    click.Option(["--dim"], type=WHOLE, default=1024, help="Fan-in C: length of the neuron's weight vector."),
    click.Option(
        ["--gradient"],
        type=Named(GRADIENT_NAMES),
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
#: Classes that stand around a spec, in this order, and what their options say.
_VARIANTS = {
    "Cautious": "Cautious decay: of the weights that the update, too, makes smaller, alone.",
    "Hyperball": "Hyperball: every step has the length lr times the norm, which is held. It needs --weight-decay 0.",
    "Rotational": "The rotational variant: equilibrium rotation at any norm, which it keeps.",
}


def gradient_model(name: str, scale: float | None, parameters: tuple[str, ...]) -> Any:
    """The gradient of that name, with its scale and with parameters given as ``name=value``."""
    from rotsim.gradients import gradient_from_dict

    values: dict[str, Any] = {"name": name.replace("-", "_")}
    if scale is not None:
        values["scale"] = scale
    for given in parameters:
        key, _, value = given.partition("=")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, int | float) or key == "name":  # true and false count as ints
            raise InvalidInput(
                f"`--with` takes NAME=VALUE with a number, true or false, as in --with correlation=0.5; got {given!r}"
            )
        values[key] = parsed
    return gradient_from_dict(values)


def gradients_of(gradient: Any) -> str:
    """A model as a title names it: "scale-invariant gradients"."""
    return f"{gradient.name.replace('_', '-')} gradients"


def form_of(optimizer: Any, dim: int, rows: int | None) -> str:
    """The fan-in as a title names it, with the rows where neurons make a matrix: "matrices of 64 x 256"."""
    return f"matrices of {rows or dim} x {dim}" if optimizer.acts_on == "matrix" else f"dim {dim}"
