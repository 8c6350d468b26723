"""`skelfit predict`: what a trained network says of people in photos."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import click
from tqdm import tqdm

from skelfit import __version__
from skelfit.bodies.model_set import find_models
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FOLDER, PATH
from skelfit.cli.shared_options import (
    COUNT,
    device_option,
    limit_option,
    models_option,
    out_option,
    overwrite_option,
)
from skelfit.executors.report_table import table_of_counts
from skelfit.fitting.backends.compute_device import find_device
from skelfit.learning.inference.intrinsics import (
    CameraSource,
    PhotoCamera,
    from_diagonal,
    from_exif,
    given_camera,
    of_view,
    plugged_in,
)
from skelfit.learning.inference.labelled_people import people_of_shards, predict_people
from skelfit.learning.inference.person_boxes import BoxFile, FindBoxes, PersonBox, whole_photo
from skelfit.learning.inference.photos import OK, PhotoSettings, find_photos, predict_photos
from skelfit.learning.inference.prediction_files import (
    PEOPLE_NAME,
    RECORD_NAME,
    ROWS_NAME,
    PredictionOutputs,
    PredictionWriter,
)
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.training.checkpoint import load_network
from skelfit.storage.locations import Location

_AROUND_BOX, _AROUND_PHOTO = 1.2, 1.0  # margins


def _numbers(name: str, text: str, sizes: slice) -> tuple[float, ...]:
    """Four numbers, separated by commas; `sizes` are above 0."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[sizes]) <= 0:
        raise click.BadParameter(f"expected {name}, four numbers in px, found {text!r}")
    return tuple(numbers)


def _as_boxes(_ctx: object, _option: object, texts: Sequence[str]) -> list[tuple[float, ...]]:
    return [_numbers("x,y,w,h", text, slice(2, 4)) for text in texts]


def _as_intrinsics(_ctx: object, _option: object, text: str | None) -> tuple[float, ...] | None:
    return None if text is None else _numbers("fx,fy,cx,cy", text, slice(0, 2))


@click.command("predict")
@click.argument("checkpoint", type=PATH)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@out_option(FOLDER)
@click.option(
    "--boxes", type=PATH, help="People's boxes (JSON): COCO's detections or annotations, or by name."
)
@click.option(
    "--box",
    "boxes_given",
    metavar="X,Y,W,H",
    callback=_as_boxes,
    multiple=True,
    help="A box in px, in each photo; repeatable.",
)
@click.option(
    "--min-score", type=click.FloatRange(0), default=0.5, show_default=True, help="Of boxes with a score."
)
@click.option(
    "--margin",
    type=click.FloatRange(0.5, 5),
    help="Side of the square that is looked at, in a box's longer side  [default: 1.2; of whole photos 1].",
)
@click.option("--fov", type=click.FloatRange(1, 170), help="Vertical field of view, in degrees.")
@click.option("--intrinsics", metavar="FX,FY,CX,CY", callback=_as_intrinsics, help="In px.")
@click.option(
    "--intrinsics-from",
    "source",
    metavar="exif|diagonal|MODULE:CALLABLE",
    help="exif: focal length by EXIF, else the diagonal; or your own predictor  [default: exif].",
)
@click.option(
    "--meshes",
    type=click.Choice(["none", "skin", "all"]),
    default="skin",
    show_default=True,
    help="all: bones, too.",
)
@click.option("--mesh-format", type=click.Choice(["ply", "obj"]), default="ply", show_default=True)
@click.option("--overlays/--no-overlays", default=True, help="A picture of each photo with its people.")
@models_option
@device_option
@click.option("--batch-size", type=COUNT, default=32, show_default=True)
@click.option("--held-out", is_flag=True, help="Of shards: only people that the training held out.")
@limit_option()
@overwrite_option
@pass_console
def predict_command(
    console: Console,
    checkpoint: Path,
    images: tuple[Path, ...],
    out: Path,
    boxes: Path | None,
    boxes_given: list[tuple[float, ...]],
    min_score: float,
    margin: float | None,
    fov: float | None,
    intrinsics: tuple[float, ...] | None,
    source: str | None,
    meshes: Literal["none", "skin", "all"],
    mesh_format: Literal["ply", "obj"],
    overlays: bool,
    models: Location | None,
    device: str,
    batch_size: int,
    held_out: bool,
    limit: int | None,
    overwrite: bool,
) -> None:
    """People in photos as SKEL bodies, by a CHECKPOINT of `skelfit train` (or the training's folder).

    IMAGE: files and folders of photos; or shards (.tar), whose boxes, cameras and labels are used. Photos without
    boxes are read as a whole, as of one person. Exits with 1 when there are no people at all.
    """
    if boxes is not None and boxes_given:
        raise click.UsageError("--boxes has them by photo, --box gives one for all: leave one of them out")
    shards = [path.suffix == ".tar" for path in images]
    if any(shards) and not (all(shards) and {boxes, fov, intrinsics, source} == {None} and not boxes_given):
        raise click.UsageError("give either photos or shards (.tar), which have their own boxes and cameras")
    if held_out and not any(shards):
        raise click.UsageError("--held-out is for shards (.tar)")
    body = find_models(models)
    trained = load_network(checkpoint)
    network, config = trained.network, trained.config
    predictor = Predictor(network, body, config.skel_gender, find_device(device))
    find_boxes, total = _boxes(boxes, boxes_given), limit
    if any(shards):
        people = people_of_shards(images, config.data.held_out if held_out else None)
        stream = predict_people(islice(people, limit), predictor, batch_size, widen=config.data.widen)
    else:
        margin = margin or (_AROUND_PHOTO if boxes is None and not boxes_given else _AROUND_BOX)
        crop, widen = network.backbone.crop, config.data.widen
        settings = PhotoSettings(find_boxes, _camera(fov, intrinsics, source), margin, min_score, crop, widen)
        photos = find_photos(images, console.warn)[:limit]
        stream, total = predict_photos(photos, settings, predictor, batch_size), len(photos)
    writer = PredictionWriter(out, overwrite, PredictionOutputs(meshes, mesh_format, overlays), predictor)
    console.say(f"models: {body.source} (sha256 {body.sha256[:12]})")
    if (warning := trained.unlike(body)) is not None:
        console.warn(warning)
    console.say(f"{config.name}: {config.network.backbone}, {config.skel_gender} SKEL, on {predictor.device}")
    with tqdm(total=total, unit="photo", disable=console.quiet or None) as bar:
        for result in stream:
            for box in result.boxes:
                if box.status != OK:
                    console.warn(f"{box.photo}: {box.status}: {box.reason}")
            writer.add(result)
            bar.update()
    about = {
        "skelfit": __version__,
        "checkpoint": str(checkpoint),
        "training": config.name,
        "skel_gender": config.skel_gender,
        "models": {"source": body.source, "sha256": body.sha256, "of_training": trained.models},
        "boxes_of_other_photos": getattr(find_boxes, "unused", 0),
    }
    writer.finish(about)
    _tell(console, writer, about)
    sys.exit(0 if writer.statuses.get(OK) else 1)


def _boxes(path: Path | None, given: Sequence[tuple[float, ...]]) -> FindBoxes:
    if path is not None:
        return BoxFile(path)
    boxes = [PersonBox(x, y, width, height) for x, y, width, height in given]
    return (lambda _path, _size: boxes) if boxes else whole_photo


def _camera(fov: float | None, intrinsics: tuple[float, ...] | None, source: str | None) -> CameraSource:
    """What the options say of cameras; at most one of them may."""
    if sum(option is not None for option in (fov, intrinsics, source)) > 1:
        raise click.UsageError("--fov, --intrinsics and --intrinsics-from say the same: give one of them")
    if fov is not None:
        return of_view(fov)
    if intrinsics is not None:
        return given_camera(PhotoCamera(*intrinsics))
    if source in (None, "exif"):
        return from_exif
    return from_diagonal if source == "diagonal" else plugged_in(str(source))


def _tell(console: Console, writer: PredictionWriter, about: Mapping[str, Any]) -> None:
    """What became of everything, and where it is."""
    console.result(f"{writer.photos} photos in, {writer.statuses.get('ok', 0)} people out")
    counts = list(writer.statuses.items())
    if others := about["boxes_of_other_photos"]:
        counts.append(("boxes of photos that were not given", others))
    if counts:
        console.say(table_of_counts(("status", "people"), counts))
    console.say(f"{writer.out}: {PEOPLE_NAME}, {ROWS_NAME}, {RECORD_NAME}{writer.folders}")
