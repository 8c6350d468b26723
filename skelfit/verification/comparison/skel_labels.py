"""A label file with SKEL's parameters, in the keys of SKEL-CF's `X-release-skel.npz`.

Nothing is unpickled. A missing key or another shape is an error; a row with impossible numbers is marked as bad.
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
# Published betas are below 10, and angles are a few turns at most: larger numbers are damaged.
_MAX_BETA, _MAX_RAD = 1e3, 1e3
# In files in radians, the median person's largest angle is far below this, whole turns included.
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
    sources: list[SourceFrame | None]  # (M,) of rows without an image's name; None for others, or not known
    coordinates: list[str] | None  # (M,) names; None: the file does not say
    female: NDArray[np.bool_]  # (M,) of the SKEL body
    says_gender: bool  # whether the file has the gender of the SKEL body
    bad: NDArray[np.bool_]  # (M,) rows with numbers that are not finite, or impossible

    def __len__(self) -> int:
        return len(self.imgname)


def read_skel_labels(path: Path, gender: str | None) -> SkelLabels:
    """Read a file. gender: of the SKEL body of all rows; None: as in the file, or else male, as in SKEL-CF.

    Raises LabelError, also for a gender that is given although the file has one.
    """
    _expect_npz(path)
    with open_label_file(path) as columns:
        poses = columns.numbers("skel_poses", (NUM_DOFS,))
        betas = columns.numbers("skel_betas", ("10+",))[:, :10]
        names = columns.texts("imgname")
        trans = columns.numbers("skel_trans", (3,)) if "skel_trans" in columns else None
        center = columns.numbers("center", (2,)) if "center" in columns else None
        row = _integers(columns, "row")
        sources = _sources(columns, names, row)
        coordinates = columns.texts("coordinates") if "coordinates" in columns else None
        genders = _genders(columns, gender, len(poses))
    if not len(poses):
        raise LabelError(path, "skel_poses", "at least one row", "none")
    faults = [_bad(poses, _MAX_RAD), _bad(betas, _MAX_BETA), ~np.isin(genders, ("male", "female"))]
    faults += [] if trans is None else [_bad(trans, np.inf)]
    bad = np.asarray(np.stack(faults).any(0), bool)
    if bad.all():
        raise LabelError(path, "skel_poses", "a row of finite numbers", "none")
    if (typical := float(np.median(np.abs(poses[~bad]).max(1)))) > _TYPICAL_RAD:
        problem = f"angles up to {typical:.0f} in half of the rows: degrees?"
        raise LabelError(path, "skel_poses", "angles in radians", problem)
    return SkelLabels(
        path, names, poses, betas, trans, center, row, sources, coordinates, genders == "female",
        "skel_gender" in columns, bad,
    )  # fmt: skip


def _expect_npz(path: Path) -> None:
    """Raise LabelError for a file of another kind; pickles are not read."""
    require_regular_file(path, EXPECTED, LabelError)
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except FileNotFoundError:
        raise LabelError(path, None, EXPECTED, "no such file") from None
    except OSError as error:
        raise LabelError(path, None, EXPECTED, error.strerror or str(error)) from None
    if not head.startswith(b"PK"):
        other_kind = f"a file of another kind (it begins with {head!r})" if head else "an empty file"
        raise LabelError(path, None, EXPECTED, describe_file(path) or other_kind)


def _genders(columns: LabelArrays, given: str | None, rows: int) -> NDArray[np.str_]:
    if "skel_gender" not in columns:
        return np.full(rows, given or "male")
    if given is not None:
        raise columns.error("skel_gender", f"no such key, for --gender {given}", _GIVEN_TWICE)
    return np.array(columns.texts("skel_gender"), np.str_)


def _bad(numbers: FloatArray, most: float) -> NDArray[np.bool_]:
    """Rows (M,) with a number that is not finite, or larger than `most`."""
    return np.asarray(~(np.isfinite(numbers) & (np.abs(numbers) <= most)).all(1), bool)


def _sources(
    columns: LabelArrays, names: list[str], row: NDArray[np.int64] | None
) -> list[SourceFrame | None]:
    """The sources of rows without an image's name, as far as the file has them."""
    files = columns.texts("label_file") if "label_file" in columns and row is not None else None
    frames = _integers(columns, "frame") if "sequence" in columns else None
    motions = columns.texts("sequence") if frames is not None else None
    subjects = columns.texts("subject") if "subject" in columns else None
    sources: list[SourceFrame | None] = [None] * len(names)
    for i in (i for i, name in enumerate(names) if not name):
        if motions is not None and frames is not None and motions[i] and frames[i] >= 0:
            sources[i] = SourceFrame(subjects[i] if subjects else "", motions[i], int(frames[i]))
        elif files is not None and row is not None and files[i] and row[i] >= 0:
            sources[i] = SourceFrame(None, files[i], int(row[i]))
    return sources


def _integers(columns: LabelArrays, key: str) -> NDArray[np.int64] | None:
    """A column as whole numbers; None where the file has no such key."""
    return _whole(columns.numbers(key, (), dtype=np.float64)) if key in columns else None


def _whole(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers; -1 where a number is not finite, negative or too large."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(numbers) & (numbers >= 0) & (numbers < 2**53)
    return np.where(known, numbers, -1).astype(np.int64)
