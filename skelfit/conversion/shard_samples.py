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


def shard_entries(batch: FittedBatch, stopwatch: Stopwatch) -> Iterator[tuple[ShardRow, ShardSample | None]]:
    """Every row of a shard, and the sample of those that are published. Images are read on the way."""
    task, labels, fits = batch.task, batch.labels, batch.fits
    judgements = judge_rows(labels, fits, task.run.pipeline, batch.screening)
    published = [judgement.published for judgement in judgements]
    keypoints, origins = _keypoints3d(labels, fits)
    fits = replace(fits, poses=without_jumps(labels, fits.poses, published))
    vectors = _label_vectors(labels, fits, keypoints)
    rates = fitted_rates(labels, task.run.pipeline.temporal, batch.screening.reasons, fits.finite)
    with closing(_pictures(task, labels, published)) as pictures:
        for i, judgement in enumerate(judgements):
            picture = None
            if published[i] and task.run.images is not None:
                with stopwatch.phase("images"):
                    picture = next(pictures)
            row = _row(batch, i, judgement, picture, rates[i])
            sample = None
            if published[i]:
                picture = picture or ShardImage(None)
                meta = _meta(batch, row, i) | {"keypoints3d": origins[i]} | _image_meta(picture)
                sample = ShardSample(
                    row.key, vectors[i], {**meta, "layout": LAYOUT_VERSION}, picture.data, picture.ending
                )
            yield row, sample


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
    poses = poses.copy()
    for sequence in labels.sequences:
        frames = (labels.row >= sequence.start) & (labels.row < sequence.start + sequence.frames)
        frames &= np.array(published, bool)
        poses[frames] = make_continuous(poses[frames])
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


def _row(
    batch: FittedBatch, i: int, judgement: Judgement, picture: ShardImage | None, fitted_rate: float | None
) -> ShardRow:
    """The sidecar row of row i of a shard; its picture is None where none was wanted."""
    task, labels, fits = batch.task, batch.labels, batch.fits
    stages = [stage.name for stage in task.run.pipeline.fit.stages]
    row, skel_gender = int(labels.row[i]), _skel_gender(fits, i)
    return ShardRow(
        key=f"{task.run.subset}-{task.file_index}-{row:08d}",
        row=row,
        status=judgement.status,
        reason="; ".join(filter(None, (judgement.reason, picture.why if picture else ""))),
        pve_mm=round_mm(fits.pve_mm[i]),
        max_vertex_mm=round_mm(fits.max_vertex_mm[i]),
        stage_pve_mm=dict(zip(stages, map(round_mm, fits.stage_pve_mm[i]), strict=True)),
        skel_gender=skel_gender,
        target_gender=_target_gender(batch, i, skel_gender),
        root=None if skel_gender is None else task.run.pipeline.fit.root_of(labels.about.has_smpl),
        betas_mm=dict(zip(BETAS_STEPS, map(round_mm, fits.betas_mm[i]), strict=True)),
        unseen_keypoints=int(batch.screening.unseen[i]),
        image=None if picture is None else picture.data is not None,
        fitted_rate=fitted_rate,
        **_frame(labels, row),
    )


def _frame(labels: LabelBatch, row: int) -> dict[str, Any]:
    """Which frame of which sequence a row is; all None where it is none."""
    sequence = labels.sequence_of(row)
    if sequence is None:
        return dict.fromkeys(("sequence", "frame", "frame_rate", "subject"))
    return {
        "sequence": sequence.name,
        "frame": row - sequence.start,
        "frame_rate": sequence.frame_rate,
        "subject": sequence.subject,
    }


def _skel_gender(fits: RowFits, i: int) -> str | None:
    """The gender of the SKEL body that row i was fitted with; None where there is no finite fit."""
    return ("female" if fits.female[i] else "male") if fits.finite[i] else None


def _target_gender(batch: FittedBatch, i: int, skel_gender: str | None) -> str | None:
    """The gender of the SMPL body that row i was fitted to; None without a finite fit, or without SMPL."""
    if skel_gender is None or not batch.labels.about.has_smpl:
        return None
    return batch.task.run.pipeline.fit.target_gender(batch.labels.gender[i], skel_gender)


def _meta(batch: FittedBatch, row: ShardRow, i: int) -> dict[str, Any]:
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
    }


def _image_meta(picture: ShardImage) -> dict[str, Any]:
    """What a sample's metadata says of its image."""
    return {"image": picture.data is not None, "image_size": picture.size, "affine": picture.affine}
