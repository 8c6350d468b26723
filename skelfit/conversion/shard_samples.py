"""The rows and samples of a shard, from the labels, their fits and their statuses."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from skelfit.bodies.angle_continuity import make_continuous
from skelfit.conversion.fitted_rows import RowFits, fitted_rates
from skelfit.conversion.row_judgement import Judgement, judge_rows
from skelfit.conversion.run_plan import LabelFile, ShardTask
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.images.image_bytes import ShardImage
from skelfit.images.image_source import open_images, read_images
from skelfit.images.square_crop import CropBox
from skelfit.labels.filters import FilterResult
from skelfit.labels.image_names import image_path
from skelfit.labels.label_batch import LabelBatch
from skelfit.shards.label_vector import LAYOUT_VERSION, FloatArray, pack
from skelfit.shards.row_statistics import round_mm
from skelfit.shards.shard_schema import ShardRow, ShardSample

BETAS_STEPS = ("transferred", "refined")


@dataclass(frozen=True)
class FittedBatch:
    """The rows of a shard, screened and fitted."""

    task: ShardTask
    labels: LabelBatch
    screening: FilterResult
    fits: RowFits
    labels_sha256: str = ""  # of the label rows as they came in

    def entries(self, stopwatch: Stopwatch) -> Iterator[tuple[ShardRow, ShardSample | None]]:
        """Every row, and the sample of those that are published: they are judged, and images are read on the way."""
        return shard_entries(self, stopwatch)


def shard_entries(batch: FittedBatch, stopwatch: Stopwatch) -> Iterator[tuple[ShardRow, ShardSample | None]]:
    """Every row of a shard, and the sample of those that are published. Images are read on the way."""
    task, labels, fits = batch.task, batch.labels, batch.fits
    judgements = judge_rows(labels, fits, task.run.pipeline, batch.screening)
    published = [judgement.published for judgement in judgements]
    keypoints, origins = _keypoints3d(labels, fits)
    fits = replace(fits, poses=without_jumps(labels, fits.poses, published))
    vectors = _label_vectors(labels, fits, keypoints)
    facts = _row_facts(batch)
    with closing(_pictures(task, labels, published)) as pictures:
        for i, judgement in enumerate(judgements):
            if not published[i]:
                yield ShardRow(status=judgement.status, reason=judgement.reason, image=None, **facts[i]), None
                continue
            picture = None
            if task.run.images is not None:
                with stopwatch.phase("images"):
                    picture = next(pictures)
            row = _published_row(judgement, facts[i], picture)
            picture = picture or ShardImage(None)
            meta = _meta(batch, row, i, origins[i], picture)
            yield row, ShardSample(row.key, vectors[i], meta, picture.data, picture.ending)


def _pictures(
    task: ShardTask, labels: LabelBatch, published: Sequence[bool]
) -> Generator[ShardImage, None, None]:
    """The pictures of a shard's published people, in order. To be closed."""
    run = task.run
    people = zip(images_of_people(labels, run.labels[task.file_index]), published, strict=True)
    wanted = [person for person, good in people if good]
    if run.images is not None:
        with closing(open_images(run.images)) as source:
            yield from read_images(source, wanted, run.pipeline.images)


def images_of_people(labels: LabelBatch, file: LabelFile) -> list[tuple[str, CropBox]]:
    """The path of each person's image, '' where there is none, and the box in it."""
    sides = 200.0 * labels.scale.max(axis=1)
    boxes = np.column_stack([labels.center, sides]).astype(float).tolist()
    return [
        (image_path(name, file.path_rule, file.path_prefix), CropBox(*box))
        for name, box in zip(labels.imgname, boxes, strict=True)
    ]


def without_jumps(labels: LabelBatch, poses: FloatArray, published: Sequence[bool]) -> FloatArray:
    """Angles (N,46) rad that do not jump between the published neighbouring frames of a sequence."""
    poses, good = poses.copy(), np.array(published, bool)
    for sequence in labels.sequences:
        frames = labels.frames_of(sequence)
        rows = frames.start + np.flatnonzero(good[frames])
        poses[rows] = make_continuous(poses[rows])
    return poses


def _keypoints3d(labels: LabelBatch, fits: RowFits) -> tuple[FloatArray, list[str]]:
    """3D keypoints (N,44,4), of the fitted skin where the labels have none; and their N origins."""
    keypoints = labels.keypoints3d.copy()
    unlabelled = ~(keypoints[..., 3] > 0).any(axis=1)
    regressed = unlabelled & np.isfinite(fits.keypoints3d).all(axis=(1, 2))
    keypoints[regressed, :, :3] = fits.keypoints3d[regressed]
    keypoints[regressed, :, 3] = 1
    return keypoints, np.where(regressed, "skel", np.where(unlabelled, "none", "labels")).tolist()


def _label_vectors(labels: LabelBatch, fits: RowFits, keypoints: FloatArray) -> FloatArray:
    """The label vectors (N, LABEL_SIZE) of a shard."""
    return pack(
        {
            "skel_poses": fits.poses,
            "skel_betas": fits.betas,
            "skel_trans": fits.trans,
            "smpl_pose": labels.pose,
            "smpl_betas": labels.betas,
            "smpl_trans": labels.transl,
            "center": labels.center,
            "scale": labels.scale,
            "cam_int": labels.cam_int,
            "gtkps": labels.gtkps,
            "keypoints3d": keypoints,
            "errors": np.stack([fits.pve_mm, fits.max_vertex_mm], axis=1),
        }
    )


def _row_facts(batch: FittedBatch) -> list[dict[str, Any]]:
    """What the sidecar says of each row of a shard, besides its status and its image."""
    task, labels, fits = batch.task, batch.labels, batch.fits
    fit, smpl, rows = task.run.pipeline.fit, labels.about.has_smpl, labels.row.tolist()
    stages, root = [stage.name for stage in fit.stages], fit.root_of(smpl)
    bodies = [
        ("female" if female else "male") if finite else None
        for finite, female in zip(fits.finite.tolist(), fits.female.tolist(), strict=True)
    ]
    targets = [
        fit.target_gender(gender, body) if body and smpl else None
        for gender, body in zip(labels.gender, bodies, strict=True)
    ]
    columns: dict[str, list[Any]] = {
        "key": [f"{task.run.subset}-{task.file_index}-{row:08d}" for row in rows],
        "row": rows,
        "pve_mm": round_mm(fits.pve_mm),
        "max_vertex_mm": round_mm(fits.max_vertex_mm),
        "stage_pve_mm": [dict(zip(stages, mm, strict=True)) for mm in round_mm(fits.stage_pve_mm)],
        "skel_gender": bodies,
        "target_gender": targets,
        "root": [root if body else None for body in bodies],
        "betas_mm": [dict(zip(BETAS_STEPS, mm, strict=True)) for mm in round_mm(fits.betas_mm)],
        "unseen_keypoints": batch.screening.unseen.tolist(),
        "fitted_rate": fitted_rates(labels, task.run.pipeline.temporal, batch.screening.reasons, fits.finite),
        **_frames(labels),
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _frames(labels: LabelBatch) -> dict[str, list[Any]]:
    """Which frame of which sequence each row is, by key of the sidecar; None where it is none."""
    keys = ("sequence", "frame", "frame_rate", "subject")
    columns: dict[str, list[Any]] = {key: [None] * len(labels) for key in keys}
    for sequence in labels.sequences:
        frames = labels.frames_of(sequence)
        numbers = (labels.row[frames] - sequence.start).tolist()
        columns["sequence"][frames] = [sequence.name] * len(numbers)
        columns["frame"][frames] = numbers
        columns["frame_rate"][frames] = [sequence.frame_rate] * len(numbers)
        columns["subject"][frames] = [sequence.subject] * len(numbers)
    return columns


def _published_row(judgement: Judgement, facts: dict[str, Any], picture: ShardImage | None) -> ShardRow:
    """The sidecar row of a published person; the picture is None where none was wanted."""
    if picture is None:
        return ShardRow(status=judgement.status, reason=judgement.reason, image=None, **facts)
    reason = "; ".join(filter(None, (judgement.reason, picture.why)))
    return ShardRow(status=judgement.status, reason=reason, image=picture.data is not None, **facts)


def _meta(batch: FittedBatch, row: ShardRow, i: int, keypoints3d: str, picture: ShardImage) -> dict[str, Any]:
    """What a sample's metadata says of where it comes from."""
    task, labels = batch.task, batch.labels
    return {
        "key": row.key,
        "subset": task.run.subset,
        "label_file": task.run.labels[task.file_index].name,
        "row": row.row,
        "imgname": labels.imgname[i],
        "smpl_gender": labels.gender[i],
        "skel_gender": row.skel_gender,
        "target_gender": row.target_gender,
        "root": row.root,
        "status": row.status,
        "coordinates": labels.about.coordinates,
        "camera": labels.about.has_camera,
        "smpl": labels.about.has_smpl,
        "sequence": row.sequence,
        "frame": row.frame,
        "frame_rate": row.frame_rate,
        "fitted_rate": row.fitted_rate,
        "subject": row.subject,
        "angles": "canonical" if row.sequence is None else "continuous",
        "keypoints3d": keypoints3d,
        "image": picture.data is not None,
        "image_size": picture.size,
        "affine": picture.affine,
        "layout": LAYOUT_VERSION,
    }
