"""Tars in the layout of HSMR's training data: an image with a pickled list of its people.

The layout (documented by HSMR's loader, which is that of 4D-Humans with other keys): `KEY.jpg` (or jpeg, png) and
`KEY.data.pyd`, a list with a dict per person: keypoints_2d (44,3) px + confidence, keypoints_3d (44,4) m + confidence,
center (2,) px, scale (2,) px/200, extra_info, and for each side `orig` and `flip` (the mirrored image)
SIDE_poses (46,) rad, SIDE_betas (10,), SIDE_has_poses and SIDE_has_betas (1 or 0), SIDE_pve_max (m). Tars are numbered
from 000000.tar on.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from skelfit.bodies.mirrored_dofs import mirrored_poses
from skelfit.errors import OutputError
from skelfit.exports.exporter import Exporter, ExportOptions, ExportResult
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.sample_tar import sample_tar
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_members
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

_IMAGE_ENDINGS = ("jpg", "jpeg", "png")  # what HSMR's loader takes


@dataclass(frozen=True)
class _HsmrPerson:
    """A person as HSMR's loader takes it, with its image."""

    key: str
    record: dict[str, Any]
    imgname: str
    ending: str  # of the image; '' where there is none that HSMR's loader takes
    image: bytes


class HsmrExporter(Exporter):
    """A tar for each shard that has images."""

    name = "hsmr"
    endings = (".tar",)
    summary = "tars with images"

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the tars into the folder `out`. Raises OutputError also when no person has an image.

        People without an image, or with one that HSMR's loader does not take, are left out. Neighbours in a shard
        that share an image share a sample.
        """
        prepare_folder(out, options.overwrite)
        files: list[str] = []
        written = 0
        for shard, marker in run.shards:
            people = [person for person in _people(shard) if person.ending and run.keeps(person.key)]
            if people:
                files.append(f"{len(files):06d}.tar")
                _write_tar(out / files[-1], people)
                written += len(people)
            options.step(marker.rows_out)
        if not written:
            raise OutputError(
                f"{run.folder}: no person has an image (jpg, jpeg or png), and HSMR's tars hold images; "
                "convert with images first"
            )
        left_out = run.rows_out - written
        write_record(out, run, self.name, files, people=written, left_out=left_out)
        notes = [f"{written} people in {out} ({self.name})"]
        if left_out:
            notes.append(f"{left_out} people are left out: they have no image that HSMR's loader takes")
        notes.append(f"next: name the tars in HSMR's dataset configuration: urls: {out}/{{000000..N}}.tar")
        return ExportResult(written, tuple(files), tuple(notes), left_out)


def _people(shard: ShardFiles) -> Iterator[_HsmrPerson]:
    """All people of a shard. Raises ShardError."""
    for key, members in read_members(shard.tar):
        meta = json.loads(members["meta.json"])
        label = np.load(io.BytesIO(members["label.npy"]), allow_pickle=False)
        ending = next((ending for ending in _IMAGE_ENDINGS if ending in members), "")
        record = _record(unpack(label), meta)
        yield _HsmrPerson(key, record, meta["imgname"], ending, members.get(ending, b""))


def _record(fields: dict[str, FloatArray], meta: dict[str, Any]) -> dict[str, Any]:
    """A person as HSMR's loader takes it."""
    present = np.array(1.0)
    sides: dict[str, Any] = {}
    for side, poses in (("orig", fields["skel_poses"]), ("flip", mirrored_poses(fields["skel_poses"]))):
        sides |= {
            f"{side}_poses": poses.copy(),
            f"{side}_betas": fields["skel_betas"].copy(),
            f"{side}_has_poses": present,
            f"{side}_has_betas": present,
            f"{side}_pve_max": float(fields["errors"][1]) / 1000,
        }
    pixels = _in_image(fields, meta["affine"])
    origin = {key: meta[key] for key in ("key", "label_file", "row", "skel_gender")}
    return {**pixels, "keypoints_3d": fields["keypoints3d"].copy(), **sides, "extra_info": origin}


def _in_image(fields: dict[str, FloatArray], affine: list[list[float]] | None) -> dict[str, FloatArray]:
    """What is in pixels, for the image in the shard. `affine` (2,3) maps the original image to a crop."""
    points, center, scale = fields["gtkps"].copy(), fields["center"].copy(), fields["scale"].copy()
    if affine is not None:
        matrix = np.array(affine, np.float32)
        points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        center = matrix[:, :2] @ center + matrix[:, 2]
        scale = scale * np.linalg.norm(matrix[:, :2], axis=0)
    return {"keypoints_2d": points, "center": center, "scale": scale}


def _write_tar(path: Location, people: Sequence[_HsmrPerson]) -> None:
    def write(stream: Any) -> None:
        with sample_tar(stream) as tar:
            # Same name and same bytes: crops of one picture have the same name.
            for _, same_image in groupby(people, lambda person: (person.imgname, person.image)):
                first, *others = same_image
                records = pickle.dumps([person.record for person in (first, *others)], protocol=4)
                tar.write(first.key, {first.ending: first.image, "data.pyd": records})

    write_atomically(path, write)
