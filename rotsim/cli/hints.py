"""What a mistaken command line meant, and where its help is: one line for every error of a command."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import click

from rotsim.cli.specs import PerOptimizer
from rotsim.errors import InvalidInput

# What other programs call an option, and its names here. The first that the command has is meant.
_SYNONYMS = {
    "--wd": ["--weight-decay"],
    "--decay": ["--weight-decay"],
    "--l2": ["--weight-decay"],
    "--learning-rate": ["--lr"],
    "--beta": ["--betas", "--momentum"],
    "--beta1": ["--betas", "--momentum"],
    "--beta2": ["--betas"],
    "--betas": ["--momentum"],
    "--momentum": ["--betas"],
    "--epsilon": ["--eps"],
    "--fan-in": ["--dim"],
    "--width": ["--dim"],
    "--num-steps": ["--steps"],
    "--iterations": ["--steps"],
    "--epochs": ["--steps"],
    "--out": ["--output"],
    "-o": ["--output"],
    "--plot": ["--figure"],
    "--angle": ["--rotation"],
    "--fast": ["--quick"],
    "--format": ["--style"],
    "-v": ["--version"],
    "--batch": ["--batch-factor", "--with"],
    "--batch-size": ["--batch-factor"],
    **{f"--{name}": ["--with"] for name in ("ratio", "correlation", "degrees", "strength", "scale-invariant")},
}
_LEAST_SIMILARITY = 0.7  # similarity by `difflib` below which an option is another one
_LEAST_PREFIX_LETTERS = 2  # letters that an abbreviation has


def error_line(error: click.ClickException, arguments: list[str]) -> str:
    """An error of click's in one line, with what was meant and the help of the very command that `arguments` call."""
    message = " ".join(error.format_message().split())
    command, path = called(arguments)
    if isinstance(error, click.NoSuchOption):
        given = next((a for a in arguments if a.startswith(error.option_name)), error.option_name).partition("=")[0]
        message = f"No such option {given!r}"
        if isinstance(command, PerOptimizer):
            leaf = command.get_command(
                click.Context(command), example := command.list_commands(click.Context(command))[0]
            )
            meant = leaf and meant_option(given, leaf)
            message += f". Name an optimizer first, as in {path} {example}{f' {meant}' if meant else ''}"
        elif meant := meant_option(given, command):
            message += f". Did you mean {meant}?"
    elif message.startswith("No such command") and isinstance(command, click.Group):
        known = command.list_commands(click.Context(command))
        given = next((a for a in arguments if repr(a) in message), "")
        message = f"No such command {given!r}; choose from {', '.join(known)}"
        if near := _nearest(given, known):
            message += f". Did you mean {near!r}?"
    elif isinstance(error, click.BadOptionUsage) and " 2 arguments" in message:
        message = f"{message.removesuffix('.')}, one after the other: {error.option_name} 0.9 0.999"
    elif isinstance(error, click.MissingParameter):
        bare = (a for a in arguments if "=" in a and not a.startswith("-"))
        meant = next((f"{m} {a.partition('=')[2]}" for a in bare if (m := meant_option(a, command))), None)
        message = f"{message.removesuffix('.')}{f'. Did you mean {meant}?' if meant else ''}"
    elif message.startswith("Got unexpected extra argument"):
        meant = next((m for a in arguments if f"({a}" in message and (m := meant_option(a, command))), None)
        message = f"{message.removesuffix('.')}{f'. Did you mean {meant}?' if meant else ''}"
    message = message.replace("a valid float", "a number").removesuffix(".")
    return f"{message} (see {path} --help)"


def called(arguments: list[str]) -> tuple[click.Command, str]:
    """The command that these arguments call, as far as it exists, and its name: ``rotsim predict adamw``."""
    from rotsim.cli import cli

    command: click.Command = cli
    words = ["rotsim"]
    for word in arguments:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        try:
            found = command.get_command(click.Context(command), word)
        except InvalidInput:
            break
        if found is None:
            break
        command = found
        words.append(word)
    return command, " ".join(words)


def meant_option(given: str, command: click.Command) -> str | None:
    """The option of `command` that an unknown one stands for, with how many values it takes; None if there is none."""
    options = {name: option for option in command.params for name in option.opts if isinstance(option, click.Option)}
    spelled = "--" + given.partition("=")[0].lstrip("-").replace("_", "-").lower()
    known = (name for name in (spelled, *_SYNONYMS.get(spelled, _SYNONYMS.get(given, []))) if name in options)
    meant = next(known, None) or _nearest(spelled, options)
    if meant is None:
        return None
    if meant == "--with" and spelled != meant:
        return f"--with {spelled[2:].replace('-', '_')}=VALUE"
    values = options[meant].nargs
    return f"{meant}, which takes {values} values" if values > 1 else meant


def _nearest(given: str, known: Iterable[str]) -> str | None:
    """A name that begins as `given` does and is spelled much alike, or that one of them abbreviates."""
    word = given.lstrip("-")
    bare = {name.lstrip("-"): name for name in known}
    for name in bare:
        short, long = sorted((name, word), key=len)
        if len(short) >= _LEAST_PREFIX_LETTERS and long.startswith(short):
            return bare[name]
    near = [name for name in get_close_matches(word, bare, 3, _LEAST_SIMILARITY) if name[:1] == word[:1]]
    return bare[near[0]] if near else None
