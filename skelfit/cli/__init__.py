"""The command line: `skelfit COMMAND`. What a user can mend is one line on stderr and exit code 2."""

from __future__ import annotations

from typing import Any

import click

from skelfit import __version__
from skelfit.cli.bench import bench_command
from skelfit.cli.card import card_command
from skelfit.cli.convert import convert_command
from skelfit.cli.export import export_command
from skelfit.cli.models import models_group
from skelfit.cli.status import status_command
from skelfit.cli.study import study_command
from skelfit.cli.tar_labels import tar_labels_command
from skelfit.cli.train import train_command
from skelfit.cli.verify import verify_command
from skelfit.cli.view import view_command
from skelfit.errors import SkelfitError


class Fault(click.ClickException):
    """A SkelfitError as click shows it."""

    exit_code = 2


class Commands(click.Group):
    """A group whose commands may raise SkelfitError."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a SkelfitError becomes its message."""
        try:
            return super().invoke(ctx)
        except SkelfitError as error:
            raise Fault(" ".join(str(error).split())) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="skelfit")
def main() -> None:
    """SMPL labels in, SKEL-fitted WebDataset shards out."""


main.add_command(models_group)
main.add_command(tar_labels_command)
main.add_command(convert_command)
main.add_command(status_command)
main.add_command(verify_command)
main.add_command(export_command)
main.add_command(card_command)
main.add_command(bench_command)
main.add_command(study_command)
main.add_command(train_command)
main.add_command(view_command)
