"""`skelfit view`: one person in the browser."""

from __future__ import annotations

import importlib.util
import threading
import webbrowser

import click

from skelfit.bodies.model_set import find_models
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FOLDER_PLACE
from skelfit.cli.shared_options import models_option
from skelfit.storage.locations import Location


@click.command("view")
@click.argument("folder", metavar="DIR", type=FOLDER_PLACE)
@click.argument("key")
@models_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Of this machine."
)
@click.option("--open/--no-open", "show", default=True, help="Open the page in the browser.")
@pass_console
def view_command(
    console: Console, folder: Location, key: str, models: Location | None, port: int, show: bool
) -> None:
    """Turn the person KEY of the shards in DIR: skin, bones, the label's mesh, and a slider for each of 46 DoFs."""
    if importlib.util.find_spec("viser") is None:
        raise click.UsageError("this command needs the package viser: pip install 'skelfit[view]'")
    # Imported here because viser is optional.
    from skelfit.verification.report.viewer import Viewer, find_person

    sample = find_person(folder, key)
    body_models = find_models(models)
    console.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    viewer = Viewer(key, sample, body_models, port)
    console.result(f"{key} at {viewer.address}; Ctrl-C ends it")
    if show:
        webbrowser.open(viewer.address)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        viewer.stop()
