"""A folder of sequences in AMASS's form: one file per motion, one folder per subject.

A file that cannot be used becomes one row with a reason; the other files are read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from skelfit.config.manifest import LabelLayout
from skelfit.errors import LabelError
from skelfit.labels.label_batch import LabelBatch, LabelProperties, MotionSequence, empty_fields
from skelfit.labels.read_settings import OptionError, ReadSettings
from skelfit.labels.readers.registry import read_label_file
from skelfit.storage.path_checks import count_endings, describe_skipped

LAYOUT: LabelLayout = "amass"
BAD_FILE = "bad_file"  # the reason of the row that stands for an unusable file begins with it
_ENDINGS = frozenset({".npz", ".h5", ".hdf5", ".pkl"})
_log = logging.getLogger(__name__)
_NO_MOTION = "shape.npz"  # AMASS keeps a subject's betas in this file, beside the motions


def list_sequences(folder: Path) -> list[Path]:
    """The files in and below a folder that may hold a motion, sorted by path. Raises LabelError."""
    try:
        files = [
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in _ENDINGS
            and not path.is_dir()
            and path.name != _NO_MOTION
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    except OSError as error:
        raise LabelError(folder, None, "a readable folder of sequences", str(error)) from None
    if not files:
        actual = describe_skipped_files(folder) or "none in it"
        raise LabelError(folder, None, "a folder of sequences (.npz, .h5, .hdf5, .pkl)", actual)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def describe_skipped_files(folder: Path) -> str:
    """How many files of a folder are not read, by ending; '' when there are none."""
    others = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() not in _ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    )
    return describe_skipped(count_endings(others), "sequences")


def name_sequence(settings: ReadSettings, path: Path, folder: Path | None = None) -> ReadSettings:
    """The settings for one file, with the names of its sequence and subject from its path below the folder.

    The subject of a lone file (folder None), or of one at the top of the folder, is the name of its folder.
    """
    parent = path.resolve().parent.name
    if folder is None:
        return replace(settings, name=path.stem, subject=parent)
    inside = path.relative_to(folder)
    subject = inside.parent.as_posix() if len(inside.parts) > 1 else parent
    return replace(settings, name=inside.with_suffix("").as_posix(), subject=subject)


def read_folder(folder: Path, files: list[Path], settings: ReadSettings) -> Iterator[LabelBatch]:
    """The frames of each file in turn, with rows numbered across files. Raises LabelError when no file can be used."""
    start, errors = 0, []
    for path in files:
        file_settings = name_sequence(settings, path, folder)
        try:
            batch = read_label_file(path, LAYOUT, file_settings)
        except OptionError:
            raise  # a wrong option concerns all files
        except LabelError as error:
            errors.append(error)
            if len(errors) == len(files):
                expected = f"a sequence in at least one of {len(files)} files"
                raise LabelError(folder, None, expected, f"none; the first: {errors[0]}") from None
            batch = _bad_file_batch(file_settings, error)
        batch = replace(
            batch,
            row=batch.row + start,
            sequences=tuple(replace(s, start=s.start + start) for s in batch.sequences),
        )
        if len(batch) == 0:
            _log.warning("%s: 0 rows, so there is nothing to convert; the other sequences are", path)
        start += len(batch)
        yield batch


def _bad_file_batch(settings: ReadSettings, error: LabelError) -> LabelBatch:
    """The one row that stands for an unusable file. Its coordinates are unknown."""
    prefix = f"'{error.key}': " if error.key else ""
    reason = f"{BAD_FILE}: {prefix}expected {error.expected}, found {error.found}"
    return LabelBatch(
        row=np.zeros(1, np.int64),
        imgname=[""],
        gender=[settings.gender],
        bad=[reason],
        sequences=(MotionSequence(settings.name, settings.subject, None, 0, 1),),
        about=LabelProperties("unknown", has_camera=False),
        **empty_fields(1),
    )
