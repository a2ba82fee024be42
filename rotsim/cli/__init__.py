"""The `rotsim` command: thin; every command parses, calls one public function, prints."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys

import click

from rotsim.cli.comparing import compare, verify
from rotsim.cli.converting import convert
from rotsim.cli.exploring import animate, explore
from rotsim.cli.hints import called, error_line
from rotsim.cli.importing import checkpoints
from rotsim.cli.predicting import derive, equilibrium, plan, predict, transfer
from rotsim.cli.simulating import simulate
from rotsim.cli.specs import HELP_SETTINGS
from rotsim.cli.sweeping import map_command, sweep
from rotsim.cli.tracing import trace
from rotsim.errors import DatasetError, InvalidInput, NoEquilibrium
from rotsim.show import streams

_SIGPIPE = 13  # number of the signal; a command that it ends has 128 more as its exit code
_VERSION_HELP = "Show the version and exit."


def _print_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from rotsim import __version__

        click.echo(f"rotsim, version {__version__}")
        context.exit()


@click.group(context_settings=HELP_SETTINGS)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help=_VERSION_HELP)
def cli() -> None:
    """Rotational equilibrium under weight decay.

    Weight decay and gradient noise push a neuron's weights to a steady state: their norm settles
    and they turn by the same angle every step. rotsim predicts that state, simulates it,
    measures it in real networks and says whether the three agree.

    \b
    Start with:
      rotsim verify --quick
      rotsim equilibrium adamw --lr 1e-3 --weight-decay 0.1 --dim 1024
      rotsim explore
      rotsim animate adamw sgdm
      rotsim predict adamw --lr 1e-3 --weight-decay 0.1 --schedule cosine
      rotsim plan adamw --rotation 0.01 --norm 1
      rotsim transfer adamw --lr 1e-3 --weight-decay 0.1 --batch-factor 4
      rotsim convert adamw --lr 3e-4 --weight-decay 0.1 --to lion
      rotsim sweep adamw --lr 1e-4:1e-2:9 --weight-decay 0.01:1:5
      rotsim simulate adamw --lr 1e-2 --weight-decay 0.1 --output walk.nc
      rotsim compare walk.nc
      rotsim trace report trace.nc
      rotsim checkpoints FOLDER --optimizer adamw --lr 1e-3 --weight-decay 0.1 --steps-from-name
      rotsim derive adamw
    """  # noqa: D301 - click's own mark for lines that are not filled


for command in (
    equilibrium,
    predict,
    plan,
    transfer,
    convert,
    sweep,
    map_command,
    simulate,
    compare,
    trace,
    checkpoints,
    explore,
    animate,
    derive,
    verify,
):
    cli.add_command(command)


def _after_interrupt(stopped: BaseException, arguments: list[str]) -> str:
    """What was saved and the command that goes on from it."""
    if (store := getattr(stopped, "kept_in", None)) is not None:
        return f"{stopped}; they are kept in {store}. Continue with:\n{shlex.join(['rotsim', *arguments])}"
    saved = getattr(stopped, "saved_in", None)
    if saved is None:
        return "interrupted; nothing was written"
    given = [a for i, a in enumerate(arguments) if a != "--resume" and arguments[i - 1 : i] != ["--resume"]]
    command = shlex.join(["rotsim", *(a for a in given if not a.startswith("--resume=")), "--resume", str(saved)])
    return f"{stopped}; saved {saved}. Continue with:\n{command}"


def _answer(arguments: list[str]) -> int:
    """Run the command; everything that can go wrong is one line and an exit code."""
    try:
        with cli.make_context("rotsim", list(arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        print(f"rotsim: {error_line(error, arguments)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        return 128 + _SIGPIPE
    except MemoryError as error:
        print(f"rotsim: not enough memory: {error or 'lower --dim or --neurons'}", file=sys.stderr)
        return 2
    except (InvalidInput, NoEquilibrium) as error:
        print(f"rotsim: {str(error).removesuffix('.')} (see {called(arguments)[1]} --help)", file=sys.stderr)
        return 2
    except (DatasetError, ArithmeticError, OSError) as error:
        print(f"rotsim: {error}", file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt) as stopped:
        print(f"rotsim: {_after_interrupt(stopped, arguments)}", file=sys.stderr)
        return 130
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point: exit code 0, 1 for a disagreement, 2 for bad input, 130 for Ctrl-C, 141 if nobody reads on."""
    streams.prepare()
    code = _answer(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.stdout.flush()
    except OSError:  # the rest cannot be written; at its end Python would try again, and show a traceback
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code
