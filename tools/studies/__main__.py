"""`python -m tools.studies`: measurements of the fit that anyone can repeat, as a table and JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import torch

from skelfit import __version__
from skelfit.benchmark.fit_speed import describe_device
from skelfit.bodies.model_set import find_models
from skelfit.cli.path_types import FILE, FOLDER
from skelfit.cli.shared_options import COUNT, device_option, json_option, models_option, pipeline_option
from skelfit.config.pipeline_choice import chosen_pipeline
from skelfit.errors import OutputError, SkelfitError
from skelfit.fitting.backends.compute_device import find_device
from tools.studies import STUDIES
from tools.studies.setup import Setup

REPORT_VERSION = 1
_NAMES = "\n\n".join(f"\b\n{name}: {study.help}" for name, study in STUDIES.items())


@click.command(
    "python -m tools.studies",
    help=f"Measure a property of the fit on made-up people, the same every time.\n\n{_NAMES}",
)
@click.argument("name", type=click.Choice(list(STUDIES)))
@click.option("--people", type=COUNT, help="Of each kind  [default: the study's].")
@click.option(
    "--gender",
    "genders",
    type=click.Choice(["neutral", "male", "female"]),
    multiple=True,
    help="Of the labels; may be repeated  [default: the study's].",
)
@json_option()
@click.option(
    "--picture", type=FILE, help="Draw here the worst people, target beside fit (JPEG), or curves (PNG)."
)
@click.option("--shards", type=FOLDER, help="Finished shards to train on, in place of made-up people.")
@click.option("--trained", type=FOLDER, help="A train-tiny whose detector is used, in place of learning one.")
@device_option
@models_option
@pipeline_option
@click.option("--threads", type=COUNT, help="CPU threads  [default: all cores].")
def study_command(
    name: str,
    people: int | None,
    genders: tuple[Any, ...],
    json_file: Path | None,
    picture: Path | None,
    shards: Path | None,
    trained: Path | None,
    device: str,
    models: Path | None,
    pipeline: Path,
    threads: int | None,
) -> None:
    """Run one study (its help is made from the list of studies)."""
    study = STUDIES[name]
    if picture is not None and not study.draws:
        raise click.BadParameter(f"the study {name} draws nothing", param_hint="--picture")
    for hint, given in (("--shards", shards), ("--trained", trained)):
        if given is not None and not study.trains:
            raise click.BadParameter(f"the study {name} trains nothing", param_hint=hint)
    for path in (json_file, picture):  # said before minutes are spent, not after
        if path is not None and not path.parent.is_dir():
            raise click.UsageError(f"{path}: cannot be written: no such folder")
    if threads is not None:
        torch.set_num_threads(threads)
    setup = Setup(
        models=find_models(models),
        pipeline=chosen_pipeline(pipeline),
        device=find_device(device),
        people=people or study.people,
        genders=genders or study.genders,
        picture=picture,
        say=lambda text: click.echo(f"... {text}", err=True),
        shards=None if shards is None else str(shards),
        trained=trained,
    )
    records = study.run(setup)
    report = {
        "version": REPORT_VERSION,
        "skelfit": __version__,
        "study": name,
        "device": describe_device(setup.device),
        "models": {"source": setup.models.source, "sha256": setup.models.sha256},
        "pipeline": setup.pipeline.name,
        "records": records,
    }
    click.echo(
        f"skelfit {__version__}, study {name}, {setup.device}; models: {setup.models.source}; "
        f"pipeline {setup.pipeline.name}"
    )
    click.echo("\n".join(study.text(records)))
    if picture is not None:
        click.echo(f"picture: {picture}")
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{json_file}: cannot be written: {error}") from None
        click.echo(f"all of it, for programs: {json_file}")


def main() -> None:
    """Run the command; an error of skelfit is one line and exit code 2."""
    try:
        study_command()
    except SkelfitError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
