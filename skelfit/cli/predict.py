"""`skelfit predict`: what a trained network says of people in photos."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import click
from tqdm import tqdm

from skelfit import __version__
from skelfit.bodies.model_set import find_models
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FOLDER, PATH
from skelfit.cli.shared_options import (
    COUNT,
    FiniteRange,
    device_option,
    limit_option,
    models_option,
    out_option,
    overwrite_option,
)
from skelfit.executors.report_table import table_of_counts
from skelfit.exports.predicted_people import PEOPLE_NAME, RECORD_NAME
from skelfit.fitting.backends.compute_device import find_device
from skelfit.learning.inference.detector import detector
from skelfit.learning.inference.given_images import GivenImages, find_images
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
from skelfit.learning.inference.photo_results import OK
from skelfit.learning.inference.photos import PhotoSettings, predict_photos
from skelfit.learning.inference.prediction_files import (
    ROWS_NAME,
    Parts,
    PredictionOutputs,
    PredictionWriter,
)
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.inference.step_times import StepTimes
from skelfit.learning.inference.video_frames import require_pyav
from skelfit.learning.training.checkpoint import load_network
from skelfit.storage.locations import Location

PARTS = get_args(Parts)
_AROUND_BOX, _AROUND_PHOTO = 1.2, 1.0  # margins
_MIN_SCORE = 0.5


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
@click.option("--detector", "detect", metavar="MODULE:CALLABLE", help="Your own detector of people.")
@click.option(
    "--min-score",
    type=FiniteRange(0),
    help="Of boxes with a score, by --boxes or --detector  [default: 0.5].",
)
@click.option(
    "--margin",
    type=FiniteRange(0.5, 5),
    help="Side of the square that is looked at, in a box's longer side  [default: 1.2; of whole photos 1].",
)
@click.option("--fov", type=FiniteRange(1, 170), help="Vertical field of view, in degrees.")
@click.option("--intrinsics", metavar="FX,FY,CX,CY", callback=_as_intrinsics, help="In px.")
@click.option(
    "--intrinsics-from",
    "source",
    metavar="exif|diagonal|MODULE:CALLABLE",
    help="exif: focal length by EXIF, else the diagonal; or your own predictor  [default: exif].",
)
@click.option("--every", type=COUNT, default=1, show_default=True, help="Of videos: take every n-th frame.")
@click.option(
    "--frame-rate",
    type=FiniteRange(0, min_open=True),
    help="In Hz: the photos of each folder are the frames of a video.",
)
@click.option(
    "--meshes",
    type=click.Choice(PARTS),
    help="all: bones, too  [default: skin; of videos none].",
)
@click.option("--mesh-format", type=click.Choice(["ply", "obj"]), default="ply", show_default=True)
@click.option(
    "--overlays",
    type=click.Choice(PARTS),
    default="all",
    show_default=True,
    help="Each photo, or video, with its people; all: the bones beside the skin.",
)
@click.option("--layers", is_flag=True, help="A picture of the estimates of each of the network's layers.")
@click.option("--angles/--no-angles", default=True, help="Of videos: the angles of each person over time.")
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
    detect: str | None,
    min_score: float | None,
    margin: float | None,
    fov: float | None,
    intrinsics: tuple[float, ...] | None,
    source: str | None,
    every: int,
    frame_rate: float | None,
    meshes: Parts | None,
    mesh_format: Literal["ply", "obj"],
    overlays: Parts,
    layers: bool,
    angles: bool,
    models: Location | None,
    device: str,
    batch_size: int,
    held_out: bool,
    limit: int | None,
    overwrite: bool,
) -> None:
    """People in photos and videos as SKEL bodies, by a CHECKPOINT of `skelfit train` (or the training's folder).

    IMAGE: photos, videos, and folders of them; or shards (.tar), whose boxes, cameras and labels are used. Photos
    without boxes are read as a whole, as of one person. Exits with 1 when there are no people at all.
    """
    shards = [path.suffix == ".tar" for path in images]
    _refuse_what_does_not_apply(
        shards,
        {"--boxes": boxes, "--box": boxes_given or None, "--detector": detect},
        {"--fov": fov, "--intrinsics": intrinsics, "--intrinsics-from": source},
        {
            "--every": every if every > 1 else None,
            "--frame-rate": frame_rate,
            "--margin": margin,
            "--min-score": min_score,
        },
        held_out=held_out,
    )
    if min_score is not None and boxes is None and detect is None:
        raise click.UsageError("--min-score is for --boxes and --detector, which give scores")
    body = find_models(models)
    trained = load_network(checkpoint)
    network, config = trained.network, trained.config
    predictor = Predictor(network, body, config.skel_gender, find_device(device), every_layer=layers)
    outputs, times = PredictionOutputs(meshes, mesh_format, overlays, layers, angles), StepTimes()
    find_boxes, total = _boxes(boxes, boxes_given, detect), limit
    if any(shards):
        people = islice(people_of_shards(images, config.data.held_out if held_out else None), limit)
        stream = predict_people(
            people, predictor, batch_size, times, widen=config.data.widen, pictures=outputs.pictures
        )
    else:
        whole = boxes is None and not boxes_given and detect is None
        settings = PhotoSettings(
            find_boxes,
            _camera(fov, intrinsics, source),
            margin or (_AROUND_PHOTO if whole else _AROUND_BOX),
            _MIN_SCORE if min_score is None else min_score,
            network.backbone.crop,
            config.data.widen,
            outputs.pictures,
            times,
        )
        given = find_images(images, console.warn, frame_rate=frame_rate, every=every)
        if given.videos or frame_rate is not None and overlays != "none":
            require_pyav()
        if every > 1 and frame_rate is None and not given.videos:
            raise click.UsageError("--every is for videos, and for photos with --frame-rate")
        stream = predict_photos(islice(given.images(times), limit), settings, predictor, batch_size)
        total = _total(given, limit)
    console.say(f"models: {body.source} (sha256 {body.sha256[:12]})")
    if (warning := trained.unlike(body)) is not None:
        console.warn(warning)
    console.say(f"{config.name}: {config.network.backbone}, {config.skel_gender} SKEL, on {predictor.device}")
    with PredictionWriter(out, overwrite, outputs, predictor, times) as writer:
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


def _refuse_what_does_not_apply(
    shards: Sequence[bool],
    boxes: Mapping[str, object],
    cameras: Mapping[str, object],
    photos: Mapping[str, object],
    *,
    held_out: bool,
) -> None:
    """Raise UsageError for options of which one makes another useless: None is one that was not given.

    photos: options that shards do not have, but for those of boxes and cameras.
    """
    for alike in (boxes, cameras):
        given = [name for name, value in alike.items() if value is not None]
        if len(given) > 1:
            raise click.UsageError(f"{' and '.join(given)} say the same: give one of them")
    options = [name for name, value in {**boxes, **cameras, **photos}.items() if value is not None]
    if any(shards) and (options or not all(shards)):
        raise click.UsageError("give either photos or shards (.tar), which have their own boxes and cameras")
    if held_out and not any(shards):
        raise click.UsageError("--held-out is for shards (.tar)")


def _total(given: GivenImages, limit: int | None) -> int | None:
    """How many images there are, for the bar; None where that is not known."""
    count = given.count()
    return count if limit is None or count is None else min(count, limit)


def _boxes(path: Path | None, given: Sequence[tuple[float, ...]], detect: str | None) -> FindBoxes:
    if path is not None:
        return BoxFile(path)
    if detect is not None:
        return detector(detect)
    boxes = [PersonBox(x, y, width, height) for x, y, width, height in given]
    return (lambda _path, _image: boxes) if boxes else whole_photo


def _camera(fov: float | None, intrinsics: tuple[float, ...] | None, source: str | None) -> CameraSource:
    """What the options say of cameras."""
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
    if seconds := writer.times.per_image(writer.photos):
        steps = ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())
        console.say(f"seconds per image: {steps}")
    console.say(f"{writer.out}: {PEOPLE_NAME}, {ROWS_NAME}, {RECORD_NAME}{writer.folders}")
