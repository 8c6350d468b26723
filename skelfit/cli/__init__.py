"""The command line: `skelfit COMMAND`. An error that the user can fix is one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from skelfit.cli.console import Console
from skelfit.cli.manners import manners, with_manners
from skelfit.cli.version_option import version_option
from skelfit.errors import ArgumentError, SkelfitError

# In the order of use: where a command is, and what the list of commands says of it. A command is imported when it is
# called, since torch and Warp take seconds, which help need not wait for.
COMMANDS = {
    "models": ("models:models_group", "Import the official body models, or write the open body."),
    "tar-labels": ("tar_labels:tar_labels_command", "Collect the SMPL labels of 4D-Humans' tars."),
    "convert": ("convert:convert_command", "Fit SKEL to SMPL labels and write WebDataset shards."),
    "refine": ("refine:refine_command", "Refine the people of finished shards against their keypoints."),
    "status": ("status:status_command", "How far a run is, also one on another machine."),
    "verify": ("verify:verify_command", "Check finished shards: whole, accurate, anatomical?"),
    "compare": (
        "compare:compare_command",
        "Shards beside a label file with SKEL's parameters, person by person.",
    ),
    "view": ("view:view_command", "One person of the shards in the browser, with sliders."),
    "export": ("export:export_command", "Write the people of a run in the form that others read."),
    "card": ("card:card_command", "Write the dataset card of finished runs."),
    "publish": ("publish:publish_command", "A run as a dataset of the Hugging Face Hub, with tables."),
    "train": ("train:train_command", "Train a network on finished shards."),
    "predict": ("predict:predict_command", "People in photos, by a trained network."),
    "evaluate": ("evaluate:evaluate_command", "Measure a network or predictions by a published protocol."),
    "bench": ("bench:bench_command", "Measure the fit on this machine, beside a baseline."),
    "completion": ("completion:completion_command", "Print the script that completes words in a shell."),
}


class Fault(click.ClickException):
    """A SkelfitError as click shows it."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print it."""
        Console().error(self.format_message())  # in the log file already


class Commands(click.Group):
    """A group that imports its commands when they are called; they may raise SkelfitError."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        return with_manners(getattr(import_module(f"{__name__}.{module}"), name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command without importing any; options as click does."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        names = (name for name in COMMANDS if name.startswith(incomplete))
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in names]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the options before the command."""
        with _shown_as_faults():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a SkelfitError becomes its message."""
        console = ctx.ensure_object(Console)
        with _shown_as_faults(), console.listening():
            try:
                with _shown_as_faults():
                    return super().invoke(ctx)
            except click.ClickException as error:
                console.record_error(error.format_message())
                raise
            except (click.exceptions.Exit, click.Abort):
                raise
            except Exception:
                console.record_bug()
                raise


@contextmanager
def _shown_as_faults() -> Iterator[None]:
    """Make a SkelfitError the one line that click prints; an argument is an option here."""
    try:
        yield
    except ArgumentError as error:
        option = f"--{error.argument.replace('_', '-')}"
        raise Fault(f"{option}: expected {error.expected}, found {error.found}") from error
    except SkelfitError as error:
        raise Fault(" ".join(str(error).split())) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Where it was stdout, what it still holds would fail once more at the end of the process.
        if sys.stdout is sys.__stdout__:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise Fault(f"{error.filename or 'the output'}: cannot be written: {error.strerror}") from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=[*manners(hidden=False), version_option()],
    epilog="--quiet, --verbose and --log-file may also stand after the command.",
)
def main() -> None:
    """SMPL labels in, SKEL-fitted WebDataset shards out."""
