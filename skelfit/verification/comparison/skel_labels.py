"""The other side: a label file with SKEL's parameters, in the keys of SKEL-CF's `X-release-skel.npz`.

Nothing is unpickled. A key that is missing, or of another shape, is an error; a row of numbers that cannot be is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.errors import LabelError
from skelfit.labels.files.array_files import LabelArrays, open_label_file
from skelfit.labels.files.file_signatures import describe_file
from skelfit.shards.label_vector import FloatArray
from skelfit.storage.path_checks import require_regular_file
from skelfit.verification.comparison.source_frame import SourceFrame

EXPECTED = "an .npz file, such as SKEL-CF's X-release-skel.npz"
_GIVEN_TWICE = "whose betas each row has; drop --gender"
# Published betas are below 10, and no joint turns by more than a few turns: above, a number means nothing.
_MOST_BETA, _MOST_RAD = 1e3, 1e3
# rad; the largest angle of half of all people stays below this by far, whole turns included.
_TYPICAL_RAD = 10.0


@dataclass(frozen=True)
class SkelLabels:
    """M rows of a label file."""

    path: Path
    imgname: list[str]  # (M,)
    poses: FloatArray  # (M,46) rad
    betas: FloatArray  # (M,10)
    trans: FloatArray | None  # (M,3) m; None: the file does not say where people are
    center: FloatArray | None  # (M,2) px of the box
    row: NDArray[np.int64] | None  # (M,) of another label file, as exports of skelfit have it
    places: list[
        SourceFrame | None
    ]  # (M,) of rows without an image's name; None: of others, and where the file does not say
    coordinates: list[str] | None  # (M,) that they stand in; None: the file does not say
    female: NDArray[np.bool_]  # (M,) of the SKEL body
    says_gender: bool  # whether the file itself says it
    bad: NDArray[np.bool_]  # (M,) its numbers are none

    def __len__(self) -> int:
        return len(self.imgname)


def read_skel_labels(path: Path, gender: str | None) -> SkelLabels:
    """Read a file. gender: of the SKEL whose betas these are, None: as the file says, or else male, as in SKEL-CF.

    Raises LabelError: also for a gender that is given although the file says it.
    """
    _expect_npz(path)
    with open_label_file(path) as columns:
        poses = columns.numbers("skel_poses", (NUM_DOFS,))
        betas = columns.numbers("skel_betas", ("10+",))[:, :10]
        names = columns.texts("imgname")
        trans = columns.numbers("skel_trans", (3,)) if "skel_trans" in columns else None
        center = columns.numbers("center", (2,)) if "center" in columns else None
        row = _integers(columns, "row")
        places = _places(columns, names, row)
        coordinates = columns.texts("coordinates") if "coordinates" in columns else None
        genders = _genders(columns, gender, len(poses))
    if not len(poses):
        raise LabelError(path, "skel_poses", "at least one row", "none")
    faults = [_bad(poses, _MOST_RAD), _bad(betas, _MOST_BETA), ~np.isin(genders, ("male", "female"))]
    faults += [] if trans is None else [_bad(trans, np.inf)]
    bad = np.asarray(np.stack(faults).any(0), bool)
    if bad.all():
        raise LabelError(path, "skel_poses", "a row of finite numbers", "none")
    if (typical := float(np.median(np.abs(poses[~bad]).max(1)))) > _TYPICAL_RAD:
        found = f"angles up to {typical:.0f} in half of the rows: degrees?"
        raise LabelError(path, "skel_poses", "angles in radians", found)
    return SkelLabels(
        path, names, poses, betas, trans, center, row, places, coordinates, genders == "female",
        "skel_gender" in columns, bad,
    )  # fmt: skip


def _expect_npz(path: Path) -> None:
    """Raise LabelError for a file of another kind: pickles, above all, are not even read with care."""
    require_regular_file(path, EXPECTED, LabelError)
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except FileNotFoundError:
        raise LabelError(path, None, EXPECTED, "no such file") from None
    except OSError as error:
        raise LabelError(path, None, EXPECTED, error.strerror or str(error)) from None
    if not head.startswith(b"PK"):
        found = f"a file of another kind (it begins with {head!r})" if head else "an empty file"
        raise LabelError(path, None, EXPECTED, describe_file(path) or found)


def _genders(columns: LabelArrays, given: str | None, rows: int) -> NDArray[np.str_]:
    if "skel_gender" not in columns:
        return np.full(rows, given or "male")
    if given is not None:
        raise columns.error("skel_gender", f"no such key, for --gender {given}", _GIVEN_TWICE)
    return np.array(columns.texts("skel_gender"), np.str_)


def _bad(numbers: FloatArray, most: float) -> NDArray[np.bool_]:
    """Which rows (M,) have a number that is none, or more than any of its kind is."""
    return np.asarray(~(np.isfinite(numbers) & (np.abs(numbers) <= most)).all(1), bool)


def _places(
    columns: LabelArrays, names: list[str], row: NDArray[np.int64] | None
) -> list[SourceFrame | None]:
    """Where rows without an image's name come from, as far as the file says it."""
    files = columns.texts("label_file") if "label_file" in columns and row is not None else None
    frames = _integers(columns, "frame") if "sequence" in columns else None
    motions = columns.texts("sequence") if frames is not None else None
    subjects = columns.texts("subject") if "subject" in columns else None
    places: list[SourceFrame | None] = [None] * len(names)
    for i in (i for i, name in enumerate(names) if not name):
        if motions is not None and frames is not None and motions[i] and frames[i] >= 0:
            places[i] = SourceFrame(subjects[i] if subjects else "", motions[i], int(frames[i]))
        elif files is not None and row is not None and files[i] and row[i] >= 0:
            places[i] = SourceFrame(None, files[i], int(row[i]))
    return places


def _integers(columns: LabelArrays, key: str) -> NDArray[np.int64] | None:
    """Whole numbers of a file's rows; None where it has no such key."""
    return _whole(columns.numbers(key, (), dtype=np.float64)) if key in columns else None


def _whole(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows as whole numbers; -1 where they are none."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(numbers) & (numbers >= 0) & (numbers < 2**53)
    return np.where(known, numbers, -1).astype(np.int64)
