"""`skelfit view`: one person in the browser, or as a picture."""

from __future__ import annotations

import importlib.util
import threading
import webbrowser

import click

from skelfit.bodies.model_set import ModelSet, find_models
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FOLDER_PLACE, OUT_FILE
from skelfit.cli.shared_options import FiniteRange, models_option
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location
from skelfit.verification.report.gallery import StoredPerson, find_person
from skelfit.verification.report.still_picture import TURN_DEG, draw_still
from skelfit.verification.report_files import check_replaceable, is_jpeg

_PORT = 8080


@click.command("view")
@click.argument("folder", metavar="DIR", type=FOLDER_PLACE)
@click.argument("key")
@models_option
@click.option("--port", type=click.IntRange(0, 65535), help=f"Of this machine  [default: {_PORT}].")
@click.option("--open/--no-open", "show", default=None, help="Open the page in the browser  [default: open].")
@click.option(
    "--picture",
    type=OUT_FILE,
    help="Draw the person here (JPEG) and end: label, skin and bones in the photo, from the side, angles.",
)
@click.option(
    "--turn",
    type=FiniteRange(-360, 360),
    help=f"With --picture: degrees of the view from the side  [default: {TURN_DEG:g}].",
)
@pass_console
def view_command(
    console: Console,
    folder: Location,
    key: str,
    models: Location | None,
    port: int | None,
    show: bool | None,
    picture: Location | None,
    turn: float | None,
) -> None:
    """Turn the person KEY of the shards in DIR: skin, bones, the label's mesh, and a slider for each of 46 DoFs.

    With --picture one picture of all that, without a browser.
    """
    if picture is not None and (port is not None or show is not None):
        raise click.UsageError("--port and --open are of the browser: give them without --picture")
    if picture is None and turn is not None:
        raise click.UsageError("--turn is of a picture: give it with --picture FILE")
    if picture is None and importlib.util.find_spec("viser") is None:
        raise click.UsageError("this command needs the package viser: pip install 'skelfit[view]'")
    check_replaceable(picture, "picture (JPEG)", is_jpeg)
    sample = find_person(folder, key)
    body_models = find_models(models)
    console.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    if picture is None:
        _serve(console, key, sample, body_models, _PORT if port is None else port, show is not False)
        return
    jpeg = draw_still(key, sample, body_models, TURN_DEG if turn is None else turn)
    write_atomically(picture, lambda stream: stream.write(jpeg))
    console.result(f"{key}: {picture}")


def _serve(console: Console, key: str, sample: StoredPerson, models: ModelSet, port: int, show: bool) -> None:
    """Show a person in the browser until Ctrl-C."""
    # Imported here because viser is optional.
    from skelfit.verification.report.viewer import Viewer

    viewer = Viewer(key, sample, models, port)
    console.result(f"{key} at {viewer.address}; Ctrl-C ends it")
    if show:
        webbrowser.open(viewer.address)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        viewer.stop()
