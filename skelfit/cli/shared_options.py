"""The options that several commands take: each has one text, wherever it stands."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from skelfit.cli.path_types import FILE_PLACE, FOLDER_PLACE, OUT_FILE, PIPELINE
from skelfit.config.pipeline_choice import DEFAULT_PIPELINE

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

COUNT = click.IntRange(min=1)


class FiniteRange(click.FloatRange):
    """Numbers in a range. `nan` and `inf` are numbers to Python, and in no range here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def options_of(*options: Decorator) -> Decorator:
    """A decorator that gives a command several options, in this order."""

    def give(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return give


JSON_HELP = "Everything as JSON, for programs."

models_option = click.option(
    "--models",
    type=FOLDER_PLACE,
    help="Body models  [default: $SKELFIT_MODELS, ./models, the open body].",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto: on a GPU if there is one.",
)
pipeline_option = click.option(
    "--pipeline",
    type=PIPELINE,
    default=DEFAULT_PIPELINE,
    show_default=True,
    help="How to fit: a name or a file.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace earlier results.")
keep_option = click.option(
    "--keep", type=FILE_PLACE, help="Take only people that this list of verify keeps (CSV)."
)


def out_option(path: click.Path, default: str | None = None) -> Decorator:
    """--out; default: the text for one that a command chooses itself."""
    text = "Where to write the results" + (f"  [default: {default}]." if default else ".")
    return click.option("--out", type=path, required=default is None, help=text)


def json_option(name: str = "json_file") -> Decorator:
    """--json FILE."""
    return click.option("--json", name, type=OUT_FILE, help=JSON_HELP)


def limit_option(default: str = "") -> Decorator:
    """--limit; default: the text for one that a command chooses itself."""
    text = "Take only so many, the first ones" + (f"  [default: {default}]." if default else ".")
    return click.option("--limit", type=COUNT, help=text)
