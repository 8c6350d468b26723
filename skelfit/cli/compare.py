"""`skelfit compare`: finished shards beside a label file that holds SKEL's parameters, person by person."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from skelfit.bodies.model_set import find_models
from skelfit.cli.console import Console, pass_console
from skelfit.cli.interrupts import interruptible
from skelfit.cli.path_types import FILE_PLACE, FOLDER_PLACE, OUT_FILE
from skelfit.cli.shared_options import FiniteRange, json_option, keep_option, models_option
from skelfit.errors import OutputError
from skelfit.exports.exported_bodies import check_models
from skelfit.shards.finished_run import open_run
from skelfit.storage.command_lines import next_command
from skelfit.storage.hashed_write import write_atomically, write_json
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import Location
from skelfit.verification.comparison.compare_run import compare
from skelfit.verification.comparison.comparison_picture import draw_worst
from skelfit.verification.comparison.comparison_report import Report, make_report, report_lines
from skelfit.verification.comparison.skel_labels import read_skel_labels
from skelfit.verification.measures.posed_bodies import BodyModels

WITHIN_PX = 1.0


@click.command("compare")
@click.argument("folder", metavar="DIR", type=FOLDER_PLACE)
@click.argument("file", metavar="FILE", type=FILE_PLACE)
@models_option
@click.option(
    "--gender",
    type=click.Choice(["male", "female"]),
    help="Of FILE's SKEL, where it does not say it  [default: male, as SKEL-CF's].",
)
@click.option(
    "--within",
    type=FiniteRange(min=0),
    default=WITHIN_PX,
    show_default=True,
    help="px; so near are two centres of one person's box.",
)
@keep_option
@json_option()
@click.option("--picture", type=OUT_FILE, help="Draw here the people who differ most, side by side (JPEG).")
@pass_console
def compare_command(
    console: Console,
    folder: Location,
    file: Location,
    models: Location | None,
    gender: str | None,
    within: float,
    keep: Location | None,
    json_file: Location | None,
    picture: Location | None,
) -> None:
    """Set the people of a finished run beside FILE, an .npz as SKEL-CF's trainer reads it (X-release-skel.npz).

    Tells how many are the same person, and how far angles, joints, skins, limits and betas are apart.
    """
    for path in (json_file, picture):  # said before minutes are spent, not after
        if isinstance(path, Path) and not path.parent.is_dir():
            raise OutputError(f"{path}: cannot be written: no such folder")
    run = open_run(folder)
    if keep is not None:
        run = run.only(keep)
    body_models = find_models(models)
    check_models(run, body_models)
    labels = read_skel_labels(fetched(file, "a label file"), gender)
    console.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    bodies = BodyModels(body_models)
    with (
        interruptible("interrupted: nothing was written"),
        console.reporter().counting(run.rows_out) as progress,
    ):
        comparison = compare(run, labels, bodies, within, progress.update)
    report = make_report(run, labels, body_models, comparison)
    for line in report_lines(report):
        console.say(line)
    console.in_short(f"compared: {report['compared']} people, of {len(labels)} rows of {file}")
    if json_file is not None:
        write_json(json_file, report)
        console.say(f"all of it, for programs: {json_file}")
    worst = comparison.tally.worst
    if picture is not None and worst:
        jpeg = draw_worst(worst, next(iter(body_models.skel.values())).faces)
        write_atomically(picture, lambda stream: stream.write(jpeg))
        console.say(f"the {len(worst)} people who differ most: {picture}")
    for line in _next(report, folder, file, picture):
        console.say(line)


def _next(report: Report, folder: Location, file: Location, picture: Location | None) -> Iterator[str]:
    """The next commands, by what differs."""
    if not report["compared"]:
        yield f"next: is {file} of this subset? The shards have, for example, {report['shards']['example']};"
        yield f"  the file has {report['file']['example']}"
        return
    if not report["worst"]:
        yield "next: nothing; the file holds what the shards hold"
        return
    if picture is None:
        yield next_command("compare", folder, file, "--picture", "worst.jpg")
    yield next_command("view", folder, report["worst"][0]["key"])
