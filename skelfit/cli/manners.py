"""The options that every command takes, before or after its name: --quiet, --verbose and --log-file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import click

from skelfit.cli.console import Console
from skelfit.cli.path_types import FILE

QUIET_HELP = "Print problems and the result only, in one line."
VERBOSE_HELP = "Also print what skelfit's modules log, with times, on stderr."
LOG_HELP = "Append everything that is printed to this file, with times."


def with_manners(command: click.Command) -> click.Command:
    """A copy of a command, and of those in a group, that takes these options, too. Its help does not repeat them."""
    polite = copy.copy(command)
    polite.params = [*command.params, *manners(hidden=True)]
    if isinstance(polite, click.Group):
        polite.commands = {name: with_manners(each) for name, each in polite.commands.items()}
    return polite


def manners(*, hidden: bool) -> list[click.Option]:
    """The options; they set up the Console of the context."""
    shared: dict[str, Any] = {"expose_value": False, "hidden": hidden}
    early = shared | {"is_flag": True, "is_eager": True}
    return [
        click.Option(["-q", "--quiet"], callback=_quiet, help=QUIET_HELP, **early),
        click.Option(["-v", "--verbose"], callback=_verbose, help=VERBOSE_HELP, **early),
        click.Option(["--log-file"], type=FILE, callback=_log_file, help=LOG_HELP, **shared),
    ]


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    console = context.ensure_object(Console)
    console.quiet = console.quiet or value
    _check(console)


def _verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    console = context.ensure_object(Console)
    console.verbose = console.verbose or value
    _check(console)


def _check(console: Console) -> None:
    if console.quiet and console.verbose:
        raise click.UsageError("--quiet prints less, --verbose prints more: give one of them")


def _log_file(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    if file is not None:
        context.ensure_object(Console).log_to(file)
