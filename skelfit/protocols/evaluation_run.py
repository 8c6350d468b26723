"""`skelfit.evaluate`: estimates of a network or of a file, measured by a published protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet, find_models
from skelfit.config.pipeline import Pipeline
from skelfit.config.pipeline_choice import DEFAULT_PIPELINE, chosen_pipeline
from skelfit.errors import ArgumentError, InputError, LabelError, found_text
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.exports.predicted_people import PEOPLE_NAME
from skelfit.fitting.backends.compute_device import find_device
from skelfit.learning.inference.intrinsics import CameraSource, from_diagonal, from_exif, plugged_in
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.training.checkpoint import load_network
from skelfit.protocols.estimates import Estimates
from skelfit.protocols.evaluated_bodies import EvaluatedBodies
from skelfit.protocols.evaluation_files import evaluation_files, write_reports
from skelfit.protocols.evaluation_lines import report_lines
from skelfit.protocols.evaluation_page import make_page
from skelfit.protocols.evaluation_report import Report, make_report
from skelfit.protocols.file_estimates import FittedEstimates, SkelEstimates
from skelfit.protocols.network_estimates import CropRule, NetworkEstimates
from skelfit.protocols.prediction_reader import SkelPredictions, SmplPredictions, read_predictions
from skelfit.protocols.protocol import Protocol
from skelfit.protocols.protocol_table import PROTOCOLS
from skelfit.protocols.published_labels import PublishedLabels, read_labels, rows_outside
from skelfit.protocols.row_matching import match_rows
from skelfit.protocols.row_scores import BAD_LABEL, OK, RowScores, Scorer
from skelfit.storage.checked_arguments import local_path_of, location_argument, whole_number
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import Place

_CHECKPOINTS = (".pt", ".pth", ".ckpt")
_BATCH = 32
_ROW_STATUSES_OF_LABELS = (OK, "not_in_protocol", BAD_LABEL, "beyond_limit")


@dataclass(frozen=True)
class ProtocolEvaluation:
    """The result: the report, as `json` writes it."""

    report: Report

    @property
    def complete(self) -> bool:
        """Whether every row of the protocol with a usable label has scores: else the figures are of fewer people."""
        statuses = self.report["rows"]["statuses"]
        return bool(statuses.get(OK)) and set(statuses) <= set(_ROW_STATUSES_OF_LABELS)


@dataclass(frozen=True)
class _Options:
    """Options that some kinds of estimates take, by the names of arguments; None: not given."""

    images: Place | None
    intrinsics_from: str | None
    batch_size: int | None
    pipeline: Place | Pipeline | None
    skel_gender: str | None

    def refuse(self, names: tuple[str, ...], expected: str, found: str) -> None:
        """Raise ArgumentError for an option that does not apply."""
        for name in names:
            if getattr(self, name) is not None:
                raise ArgumentError(name, f"{expected}, for {name}", found)


@dataclass(frozen=True)
class _Source:
    """Estimates, what rows have one, and what the report says of them."""

    estimates: Estimates
    about: dict[str, Any]
    status: tuple[str, ...] | None = None  # (N,) '' where a row has an estimate; None: all have
    reason: tuple[str, ...] = ()


def evaluate(
    predictions: Place,
    *,
    protocol: str,
    labels: Place,
    images: Place | None = None,
    models: Place | ModelSet | None = None,
    intrinsics_from: str | None = None,
    batch_size: int | None = None,
    pipeline: Place | Pipeline | None = None,
    skel_gender: str | None = None,
    device: str = "auto",
    limit: int | None = None,
    json: Place | None = None,
    html: Place | None = None,
    rows: Place | None = None,
    progress: bool | Count | Reporter = False,
) -> ProtocolEvaluation:
    """Measure estimates of people by a published protocol.

    The options are those of `skelfit evaluate`, which docs/evaluation.md explains.

    Args:
        predictions: a checkpoint, or the folder of a training; or predictions: those of `skelfit predict` or others
            (npz), SKEL's or SMPL's. SKEL is fitted to SMPL's, and both are measured.
        protocol: the name of a protocol, such as "camerahmr-3dpw".
        labels: the label file that the protocol was published with.
        models: a set of `load_models`, or a folder; None: $SKELFIT_MODELS, else ./models, else the open body.
        images: the folder below which the images of the labels are; for a checkpoint.
        intrinsics_from: "exif", "diagonal", "label", or "module:callable"; for a checkpoint. None: exif.
        batch_size: of the network. None: 32.
        pipeline, skel_gender: how to fit SKEL to SMPL predictions, as for `fit`.
        limit: only so many rows, the first ones.
        json, html: where to write the report. rows: where to write the status and the errors of every row (CSV).
        progress: True shows a bar; a function is called with the rows done and the rows there are.

    Returns:
        The report, as `json` writes it.

    Raises:
        ArgumentError: for an unknown protocol, and options that do not apply.
        InputError, LabelError, ModelError, OutputError: for files of that kind.
    """
    chosen = _protocol(protocol)
    files = evaluation_files(json, html, rows)
    options = _Options(images, intrinsics_from, batch_size, pipeline, skel_gender)
    label_path = fetched(location_argument("labels", labels), "a label file", LabelError)
    path = fetched(location_argument("predictions", predictions), "predictions or a checkpoint", InputError)
    reporter = reporter_of(progress)
    kind = find_device(device)
    body_models = models if isinstance(models, ModelSet) else find_models(models)
    people = read_labels(label_path, chosen)
    scorer = Scorer(chosen, people, _bodies(body_models, kind))
    states = _row_states(people, chosen, label_path, limit)
    source = _source(path, np.array([status == OK for status in states[0]]), scorer, options, reporter)
    scores = _scored(scorer, source, *states, reporter)
    about = {
        "labels": {"path": str(labels)},
        "predictions": {"path": str(predictions), **source.about},
        "models": {"source": body_models.source, "sha256": body_models.sha256},
        "fit": _fit_of(source.estimates),
    }
    report = make_report(chosen, source.estimates.stages, scores, people.imgname, about)
    for line in report_lines(report):
        reporter.say(line)
    page = partial(make_page, report, scorer, source.estimates)
    write_reports(files, report, chosen, people.imgname, scores, page, reporter)
    return ProtocolEvaluation(report)


@lru_cache(maxsize=1)
def _bodies(models: ModelSet, device: str) -> EvaluatedBodies:
    """The bodies, kept for the next evaluation."""
    return EvaluatedBodies(models, device)


def _protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise ArgumentError("protocol", " or ".join(PROTOCOLS), found_text(name))
    return PROTOCOLS[name]


def _row_states(
    people: PublishedLabels, protocol: Protocol, path: Path, limit: int | None
) -> tuple[list[str], list[str]]:
    """The status of each row before predictions are looked at, and the reason. Raises LabelError."""
    outside = rows_outside(people, protocol, path)
    status, reason = [], []
    left = len(people) if limit is None else whole_number("limit", limit, 1)
    for fault, elsewhere in zip(people.faults, outside, strict=True):
        if elsewhere:
            status.append("not_in_protocol")
        elif left == 0:
            status.append("beyond_limit")
        else:
            status.append(BAD_LABEL if fault else OK)
            left -= 1
        reason.append(elsewhere or fault if status[-1] != "beyond_limit" else "")
    return status, reason


def _scored(
    scorer: Scorer, source: _Source, status: list[str], reason: list[str], reporter: Reporter
) -> RowScores:
    """The scores of all rows. Raises InputError, ModelError."""
    for row, failed in enumerate(source.status or ()):
        if failed and status[row] == OK:
            status[row], reason[row] = failed, source.reason[row]
    scores = RowScores.unknown(scorer.protocol, len(source.estimates.stages), status, reason)
    with reporter.counting(len(scores.ok)) as counted:
        scorer.score(source.estimates, scores, counted.update)
    return scores


def _source(
    path: Path, wanted: NDArray[np.bool_], scorer: Scorer, options: _Options, reporter: Reporter
) -> _Source:
    """The estimates of a path; wanted: (N,) the rows to be scored. Raises ArgumentError, InputError, ModelError."""
    people, of_predict = scorer.labels, path / PEOPLE_NAME
    if path.is_dir() and of_predict.is_file():
        path = of_predict
    if path.is_dir() or path.suffix.lower() in _CHECKPOINTS:
        return _network(path, people, scorer, options, reporter)
    options.refuse(("images", "intrinsics_from", "batch_size"), "a checkpoint", "predictions")
    predictions = read_predictions(path)
    _check_camera(predictions, scorer.protocol)
    matches = match_rows(people, predictions.keys)
    prediction = np.where(wanted, matches.prediction, -1)
    about: dict[str, Any] = {"count": len(predictions.keys), "unused": matches.unused}
    estimates: Estimates
    if isinstance(predictions, SkelPredictions):
        options.refuse(("pipeline", "skel_gender"), "SMPL predictions, to which SKEL is fitted", "SKEL's")
        estimates = SkelEstimates(scorer.bodies, predictions, prediction)
        return _Source(estimates, {"kind": "skel", **about}, matches.status, matches.reason)
    how = chosen_pipeline(options.pipeline or DEFAULT_PIPELINE, options.skel_gender)
    reporter.note(f"fitting SKEL to {int((prediction >= 0).sum())} SMPL predictions")
    estimates = FittedEstimates(scorer.bodies, predictions, prediction, how, scorer.bodies.device)
    about |= {"kind": "smpl", "pipeline": how.name, "notes": list(predictions.people.about.notes)}
    return _Source(estimates, about, matches.status, matches.reason)


def _check_camera(predictions: SkelPredictions | SmplPredictions, protocol: Protocol) -> None:
    """Raise InputError where a protocol measures in the image, and the predictions do not say where people are."""
    if not protocol.pck_at:
        return
    path, key = predictions.keys.path, "cam_int"
    if isinstance(predictions, SmplPredictions):
        if not predictions.has_camera:
            expected = f"SMPL's translation and intrinsics in the whole image's camera, for {protocol.name}"
            raise InputError(path, key, expected, "none")
    elif predictions.trans is None or predictions.cam_int is None:
        raise InputError(path, key, f"skel_trans and cam_int, for {protocol.name}", "not both")


def _network(
    path: Path, people: PublishedLabels, scorer: Scorer, options: _Options, reporter: Reporter
) -> _Source:
    options.refuse(("pipeline", "skel_gender"), "SMPL predictions, to which SKEL is fitted", "a checkpoint")
    if options.images is None:
        raise ArgumentError("images", "the folder of the labels' images, for a checkpoint", "none")
    folder = local_path_of("images", options.images)
    if not folder.is_dir():
        raise InputError(
            folder, None, "a folder of images", "a file" if folder.exists() else "no such folder"
        )
    trained, models = load_network(path), scorer.bodies.models
    if (warning := trained.unlike(models)) is not None:
        reporter.warn(warning)
    network, config = trained.network, trained.config
    predictor = Predictor(network, models, config.skel_gender, scorer.bodies.device, every_layer=True)
    size = _BATCH if options.batch_size is None else whole_number("batch_size", options.batch_size, 1)
    camera = _camera(options.intrinsics_from)
    if camera is None and people.cam_int is None:
        raise InputError("labels", "cam_int", "intrinsics, for intrinsics_from 'label'", "no such key")
    widen = config.data.widen
    crops = CropRule(True, False) if scorer.protocol.widened_crops else CropRule(widen, widen)
    estimates = NetworkEstimates(predictor, people, folder, camera, crops, size)
    about = {
        "kind": "checkpoint",
        "training": config.name,
        "skel_gender": config.skel_gender,
        "models_of_training": trained.models,
        "images": str(folder),
        "intrinsics_from": options.intrinsics_from or "exif",
    }
    return _Source(estimates, about)


def _camera(source: str | None) -> CameraSource | None:
    """Where intrinsics come from; None: from the labels. Raises InputError."""
    if source == "label":
        return None
    if source in (None, "exif"):
        return from_exif
    return from_diagonal if source == "diagonal" else plugged_in(str(source))


def _fit_of(estimates: Estimates) -> Mapping[str, Any] | None:
    return asdict(estimates.time) if isinstance(estimates, FittedEstimates) else None
