"""The SMPL labels inside 4D-Humans' tars, as one npz in 4D-Humans' layout, which `skelfit convert` reads.

Beside each image, KEY.jpg, such a tar has KEY.data.pyd: a pickled list with a dictionary for each person. The pickles
are read without being run (`skelfit.storage.unpickle`); one that names anything but arrays is an error.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import LabelError, ModelError, StoreError
from skelfit.images.tar_index import tar_members
from skelfit.labels.files.file_signatures import describe_file
from skelfit.labels.files.foreign_files import describe_global
from skelfit.storage.locations import Location
from skelfit.storage.path_checks import require_regular_file
from skelfit.storage.unpickle import GlobalError, as_array, as_key, kind_of, read_pickle

ENDING = ".data.pyd"
OPENPOSE = 25  # keypoints; the extra ones follow
# The fields of each person, and their shapes.
_FIELDS: dict[str, tuple[int, ...]] = {
    "center": (2,),  # px
    "scale": (2,),  # px / 200
    "body_pose": (72,),  # rad, axis-angle
    "betas": (10,),
    "has_body_pose": (),
    "has_betas": (),
    "keypoints_2d": (44, 3),
    "keypoints_3d": (44, 4),
}
Array = NDArray[Any]


def read_tar_labels(
    tars: Sequence[Location], progress: Callable[[Location], None] | None = None
) -> dict[str, Array]:
    """All people of the tars, in order, as arrays of 4D-Humans' npz layout (boxes in px); see docs/labels.md.

    progress: called with each tar done. Raises LabelError, which names the member, for a damaged tar or person.
    """
    parts = []
    for tar in tars:
        parts.append(_stacked(*_people(tar)))
        if progress is not None:
            progress(tar)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if len(arrays["imgname"]) == 0:
        raise LabelError(tars[0], None, f"members KEY{ENDING} in it or in {len(tars) - 1} more tars", "none")
    points2d, points3d = arrays.pop("keypoints_2d"), arrays.pop("keypoints_3d")
    return arrays | {
        "scale": arrays["scale"] * np.float32(200),
        "body_keypoints_2d": points2d[:, :OPENPOSE],
        "extra_keypoints_2d": points2d[:, OPENPOSE:],
        "body_keypoints_3d": points3d[:, :OPENPOSE],
        "extra_keypoints_3d": points3d[:, OPENPOSE:],
    }


def _people(tar: Location) -> tuple[list[str], list[dict[str, Array]]]:
    """The image keys (one for each person) and the people of a tar."""
    names: list[str] = []
    people: list[dict[str, Array]] = []
    require_regular_file(tar, "a tar that can be read", LabelError)
    try:
        with tar.open("rb") as stream, tar.open("rb") as content:
            for member in tar_members(stream):
                if member.isreg() and member.name.endswith(ENDING):
                    content.seek(member.offset_data)
                    image_people = _read(tar, member.name, content.read(member.size))
                    people += image_people
                    names += [member.name.removesuffix(ENDING).removeprefix("./")] * len(image_people)
    except (LabelError, StoreError):
        raise
    except OSError as error:
        raise LabelError(tar, None, "a tar that can be read", error.strerror or str(error)) from None
    except Exception as error:  # tarfile may raise anything on damaged bytes
        kind = describe_file(tar, but="tar") if isinstance(tar, Path) else ""
        raise LabelError(tar, None, "a whole tar, not compressed", kind or str(error)) from None
    return names, people


def _read(tar: Location, name: str, data: bytes) -> list[dict[str, Array]]:
    """The people of one pickle."""
    try:
        content = read_pickle(io.BytesIO(data), Path(tar.name), name)
    except GlobalError as error:
        raise LabelError(tar, name, error.expected, describe_global(error.name, Path(name))) from None
    except ModelError as error:
        raise LabelError(tar, name, error.expected, error.found) from None
    if not isinstance(content, list) or not all(isinstance(person, dict) for person in content):
        raise LabelError(tar, name, "a list with a dictionary for each person", f"a {kind_of(content)}")
    return [_person(tar, f"{name}[{i}]", person) for i, person in enumerate(content)]


def _person(tar: Location, key_path: str, person: dict[Any, Any]) -> dict[str, Array]:
    fields = {}
    for key, shape in _FIELDS.items():
        if key not in person:
            actual = "no such key; there is " + ", ".join(sorted(map(as_key, person)))
            raise LabelError(tar, f"{key_path}.{key}", f"numbers of shape {shape}", actual)
        try:
            value = as_array(person[key])
        except ValueError as error:
            raise LabelError(tar, f"{key_path}.{key}", f"numbers of shape {shape}", str(error)) from None
        if value.dtype.kind not in "fiub" or value.size != int(np.prod(shape)):
            actual = f"shape {value.shape}, dtype {value.dtype}"
            raise LabelError(tar, f"{key_path}.{key}", f"numbers of shape {shape}", actual)
        with np.errstate(over="ignore"):  # beyond float32 becomes inf, and `convert` reports the row
            fields[key] = value.reshape(shape).astype(np.float32)
    return fields


def _stacked(names: Iterable[str], people: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Arrays (N, ...) of N people."""
    arrays: dict[str, Array] = {"imgname": np.array(list(names), dtype=np.str_)}
    for key, shape in _FIELDS.items():
        rows = [person[key] for person in people]
        arrays[key] = np.stack(rows) if rows else np.zeros((0, *shape), np.float32)
    return arrays
