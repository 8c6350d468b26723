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
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from skelfit.bodies.dofs import DOF_NAMES, dof_index
from skelfit.errors import OutputError
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun, Step, no_step
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_members
from skelfit.storage.hashed_write import write_atomically

_IMAGES = ("jpg", "jpeg", "png")  # what HSMR's loader takes
# DoFs that turn the other way in a mirror. The others keep their sign, and all change sides.
_SIGN_CHANGES = (
    "pelvis_list", "pelvis_rotation", "lumbar_bending", "lumbar_twist", "thorax_bending", "thorax_twist",
    "head_bending", "head_twist",
    *(f"scapula_{motion}_{side}" for motion in ("abduction", "elevation") for side in "rl"),
    *(f"shoulder_{side}_{axis}" for side in "rl" for axis in "xy"),
)  # fmt: skip


def _other_side(name: str) -> str:
    parts = [{"r": "l", "l": "r"}.get(part, part) for part in name.split("_")]
    return "_".join(parts)


_PARTNER = [dof_index(_other_side(name)) for name in DOF_NAMES]
_SIGN = np.array([-1.0 if name in _SIGN_CHANGES else 1.0 for name in DOF_NAMES], np.float32)


def mirrored(poses: FloatArray) -> FloatArray:
    """Poses (...,46) rad of the same people in a mirrored image.

    The mirrored skin, up to the ankles: SKEL gives both the same axis, so that a foot is off by up to a few cm.
    """
    flipped: FloatArray = poses[..., _PARTNER] * _SIGN
    return flipped


@dataclass(frozen=True)
class _Item:
    """A person, and the image that goes with them."""

    key: str
    record: dict[str, Any]
    imgname: str
    ending: str  # of the image; '' where there is none that HSMR's loader takes
    image: bytes


def export_hsmr(
    run: FinishedRun, out: Path, *, overwrite: bool = False, step: Step = no_step
) -> tuple[int, int]:
    """Write the tars into the folder `out`, one for each shard that has images.

    People without an image, or with one that HSMR's loader does not take, are left out. Neighbours in a shard that
    share an image share an item. Returns how many people were written, and how many left out. Raises ShardError,
    OutputError also when nobody has an image.
    """
    prepare_folder(out, overwrite)
    files: list[str] = []
    written = 0
    for shard, marker in run.shards:
        kept = [item for item in _items(shard) if item.ending and run.keeps(item.key)]
        if kept:
            files.append(f"{len(files):06d}.tar")
            _write_tar(out / files[-1], kept)
            written += len(kept)
        step(marker.rows_out)
    if not written:
        raise OutputError(
            f"{run.folder}: nobody has an image (jpg, jpeg or png), and HSMR's tars hold images; "
            "convert with images first"
        )
    left_out = run.rows_out - written
    write_record(out, run, "hsmr", files, people=written, left_out=left_out)
    return written, left_out


def _items(shard: ShardFiles) -> Iterator[_Item]:
    """Everybody in a shard. Raises ShardError."""
    for key, members in read_members(shard.tar):
        meta = json.loads(members["meta.json"])
        label = np.load(io.BytesIO(members["label.npy"]), allow_pickle=False)
        ending = next((ending for ending in _IMAGES if ending in members), "")
        record = _record(unpack(label), meta)
        yield _Item(key, record, meta["imgname"], ending, members.get(ending, b""))


def _record(fields: dict[str, FloatArray], meta: dict[str, Any]) -> dict[str, Any]:
    """A person as HSMR's loader wants it."""
    yes = np.array(1.0)
    sides: dict[str, Any] = {}
    for side, poses in (("orig", fields["skel_poses"]), ("flip", mirrored(fields["skel_poses"]))):
        sides |= {
            f"{side}_poses": poses.copy(),
            f"{side}_betas": fields["skel_betas"].copy(),
            f"{side}_has_poses": yes,
            f"{side}_has_betas": yes,
            f"{side}_pve_max": float(fields["errors"][1]) / 1000,
        }
    seen = _in_image(fields, meta["affine"])
    about = {key: meta[key] for key in ("key", "label_file", "row", "skel_gender")}
    return {**seen, "keypoints_3d": fields["keypoints3d"].copy(), **sides, "extra_info": about}


def _in_image(fields: dict[str, FloatArray], affine: list[list[float]] | None) -> dict[str, FloatArray]:
    """What is in pixels, of the image in the shard: where that is a crop, `affine` (2,3) leads to it."""
    points, center, scale = fields["gtkps"].copy(), fields["center"].copy(), fields["scale"].copy()
    if affine is not None:
        turn = np.array(affine, np.float32)
        points[:, :2] = points[:, :2] @ turn[:, :2].T + turn[:, 2]
        center = turn[:, :2] @ center + turn[:, 2]
        scale = scale * np.linalg.norm(turn[:, :2], axis=0)
    return {"keypoints_2d": points, "center": center, "scale": scale}


def _write_tar(path: Path, items: Sequence[_Item]) -> None:
    def write(stream: Any) -> None:
        with webdataset.TarWriter(stream, user="", group="", mtime=0, encoder=False) as tar:
            # An image is told by its name and bytes: crops of one picture differ.
            for _, group in groupby(items, lambda item: (item.imgname, item.image)):
                people = list(group)
                first, records = people[0], pickle.dumps([item.record for item in people], protocol=4)
                tar.write({"__key__": first.key, first.ending: first.image, "data.pyd": records})

    write_atomically(path, write)
