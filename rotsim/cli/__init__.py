"""The `rotsim` command: thin; every command parses, calls one public function, prints."""

from __future__ import annotations

import shlex
import sys

import click

from rotsim import __version__
from rotsim.cli.comparing import compare, verify
from rotsim.cli.predicting import derive, equilibrium, plan, predict, transfer
from rotsim.cli.simulating import simulate
from rotsim.cli.specs import HELP_SETTINGS
from rotsim.cli.tracing import trace
from rotsim.errors import DatasetError, InvalidInput, NoEquilibrium


@click.group(context_settings=HELP_SETTINGS)
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
      rotsim predict adamw --lr 1e-3 --weight-decay 0.1 --schedule cosine
      rotsim plan adamw --rotation 0.01 --norm 1
      rotsim transfer adamw --lr 1e-3 --weight-decay 0.1 --batch-factor 4
      rotsim simulate adamw --lr 1e-2 --weight-decay 0.1 --output walk.nc
      rotsim compare walk.nc
      rotsim trace report trace.nc
      rotsim derive adamw
    """


for command in (equilibrium, predict, plan, transfer, simulate, compare, trace, derive, verify):
    cli.add_command(command)


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
    except (InvalidInput, DatasetError, NoEquilibrium, ArithmeticError, OSError) as error:
        print(f"rotsim: {error}", file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt) as stopped:
        cause = stopped.__cause__ or stopped  # click turns KeyboardInterrupt into Abort
        print(f"rotsim: {_after_interrupt(cause, sys.argv[1:] if arguments is None else arguments)}", file=sys.stderr)
        return 130
    except SystemExit as end:
        return int(end.code or 0)
    return 0
