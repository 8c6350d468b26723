"""Small twins of the six datasets of HMR-SKEL: their keys, dtypes, image names, folders and tars, with made-up people.

What a name looks like before and after its path rule is written out here a second time, on purpose: a rule that is
wrong finds no image.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, Any]
UNLABELLED = 7  # the row of a file in 4D-Humans' layout that has no SMPL label


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


@dataclass(frozen=True)
class Miniature:
    """How a subset looks on the disk, below the data root."""

    labels: tuple[str, ...]  # label files; the people are dealt out to them in order
    images: str  # folder of images, or of tars
    in_tars: bool
    imgname: Callable[[int], str]  # of person i, in the label file
    place: Callable[[int], str]  # of the image, in the folder or tar
    layout: Callable[[Columns], Columns]


def camerahmr(people: Columns) -> Columns:
    """The columns of the CameraHMR release."""
    return {
        **{key: people[key] for key in ("imgname", "pose_cam", "shape", "trans_cam", "cam_int")},
        "center": people["center"].astype(np.float64),
        "scale": people["scale"].astype(np.float64),
        "gtkps": people["gtkps"].astype(np.float64),
    }


def fourdhumans(people: Columns) -> Columns:
    """The columns of 4D-Humans' layout: scale in px, no camera, flags for what is there."""
    count = len(people["imgname"])
    has = np.ones(count, np.float32)
    has[UNLABELLED] = 0
    return {
        "imgname": people["imgname"],
        "center": people["center"],
        "scale": people["scale"] * 200,
        "body_pose": people["pose_cam"],
        "betas": people["shape"],
        "has_body_pose": has,
        "has_betas": has,
        "body_keypoints_2d": people["gtkps"][:, :25],
        "extra_keypoints_2d": people["gtkps"][:, 25:],
        "body_keypoints_3d": people["keypoints3d"][:, :25],
        "extra_keypoints_3d": people["keypoints3d"][:, 25:],
    }


def _hash(i: int) -> str:
    return hashlib.sha1(str(i).encode()).hexdigest()


MINIATURES = {
    "coco": Miniature(
        ("coco/coco-release.npz",),
        "coco/train2014",
        False,
        # Some people are in one image.
        lambda i: f"train2014/COCO_train2014_{max(i, 3):012d}.jpg",
        lambda i: f"COCO_train2014_{max(i, 3):012d}.jpg",
        camerahmr,
    ),
    "mpii": Miniature(
        ("mpii/mpii-release.npz",),
        "mpii/images",
        False,
        lambda i: f"images/{15601864 + i:09d}.jpg",
        lambda i: f"{15601864 + i:09d}.jpg",
        camerahmr,
    ),
    "aic": Miniature(
        ("aic/aic-release.npz",),
        "aic/aic-train-vitpose",
        True,
        lambda i: f"aic-train/{_hash(i)}.jpg",
        lambda i: f"{_hash(i)}.jpg",
        camerahmr,
    ),
    "insta": Miniature(
        ("insta/insta1-release.npz", "insta/insta2-release.npz"),
        "insta/insta-train-vitpose-replicate",
        True,
        lambda i: f"insta-train/{i // 50}/user_2018-07-{i:02d}_12-00_clip_{i}/{i}.jpg",
        lambda i: f"{i // 50}/user_20_12_{i}/{i:04d}.jpg",
        camerahmr,
    ),
    "h36m": Miniature(
        ("h36m/h36m_train.npz",),
        "h36m/h36m-train",
        True,
        lambda i: f"S1/S1_Directions_1_54138969/S1_Directions_1_54138969_{i:06d}",
        lambda i: f"S1/S1_Directions_1_54138969/S1_Directions_1_54138969_{i:06d}.jpg",
        fourdhumans,
    ),
    "mpi-inf-3dhp": Miniature(
        ("mpi-inf-3dhp/mpi_inf_3dhp_train.npz",),
        "mpi-inf-3dhp/mpi-inf-train-pruned",
        True,
        lambda i: f"S{1 + i % 8}/Seq1/imageFrames/video_{i % 14}/frame_{i:06d}",
        lambda i: f"S{1 + i % 8}/Seq1/imageFrames/video_{i % 14}/frame_{i:06d}.jpg",
        fourdhumans,
    ),
}


def write_miniature(name: str, root: Path, people: Columns, pictures: list[bytes], trap: bytes) -> None:
    """Write a subset below the data root. Tars of datasets in 4D-Humans' layout hold its labels, too.

    people: columns of the CameraHMR schema, all of a length; pictures: the JPEG of each person; trap: what stands in
    the place of a pickle.
    """
    mini, count = MINIATURES[name], len(pictures)
    names = np.array([mini.imgname(i) for i in range(count)])
    columns = mini.layout(people | {"imgname": names})
    for path, rows in zip(mini.labels, np.array_split(np.arange(count), len(mini.labels)), strict=True):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        np.savez(root / path, **{key: column[rows] for key, column in columns.items()})
    images = {mini.place(i): pictures[i] for i in range(count)}
    if mini.in_tars:
        pickles = [trap] * count
        if mini.layout is fourdhumans:
            pickles = [pickle.dumps([person(columns, i)]) for i in range(count)]
        write_tars(root / mini.images, images.items(), pickles)
        return
    for name, data in images.items():
        target = root / mini.images / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def person(columns: Columns, i: int) -> dict[str, Any]:
    """A person of columns in 4D-Humans' layout, as its tars have them: scale in px / 200, keypoints together."""
    parts = ("body_keypoints", "extra_keypoints")
    return {
        **{key: columns[key][i] for key in ("center", "body_pose", "betas", "has_body_pose", "has_betas")},
        "scale": np.repeat(columns["scale"][i] / 200, 2),
        "keypoints_2d": np.concatenate([columns[f"{part}_2d"][i] for part in parts]),
        "keypoints_3d": np.concatenate([columns[f"{part}_3d"][i] for part in parts]),
        "personid": i,
        "extra_info": {"fitting_loss": np.array({"reprojection_loss": 3.5})},
    }


def write_tars(
    folder: Path, images: Iterable[tuple[str, bytes]], pickles: list[bytes], per_tar: int = 90
) -> None:
    """Tars as 4D-Humans has them: KEY.jpg and KEY.data.pyd, the same number in each."""
    folder.mkdir(parents=True)
    members = list(zip(images, pickles, strict=False))
    for number, start in enumerate(range(0, len(members), per_tar)):
        with tarfile.open(folder / f"{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for (place, data), labels in members[start : start + per_tar]:
                for member, content in ((place, data), (f"{place.removesuffix('.jpg')}.data.pyd", labels)):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
