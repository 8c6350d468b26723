"""A folder of label files of one layout: AMASS's motions, tracks, results of images, meshes, frames.

A file that cannot be used becomes one row with a reason; the other files are read. EasyMocap's frames, a file each, are
read together, folder by folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from skelfit.config.manifest import LabelLayout
from skelfit.errors import LabelError
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.files.content_trees import is_motion_json, json_tree
from skelfit.labels.label_batch import LabelBatch, LabelProperties, MotionSequence, empty_fields
from skelfit.labels.read_settings import OptionError, ReadSettings
from skelfit.labels.readers.registry import READERS, detect_layout, read_arrays, read_label_file
from skelfit.labels.readers.track_people import unused
from skelfit.storage.path_checks import count_endings, describe_skipped
from skelfit.storage.surface_files import ENDINGS as SURFACES

BAD_FILE = "bad_file"  # the reason of the row that stands for an unusable file begins with it
_DEFAULT: LabelLayout = "amass"  # of a folder whose files do not tell
_ENDINGS = frozenset({".npz", ".h5", ".hdf5", ".pkl"})
_FRAMES: LabelLayout = "easymocap"
# What files of other layouts are called.
_OTHER_ENDINGS: dict[LabelLayout, frozenset[str]] = {
    "gvhmr": frozenset({".pt"}),
    "tram": frozenset({".npy"}),
    _FRAMES: frozenset({".json"}),
    "mesh": frozenset({*SURFACES, ".npz", ".npy"}),
}
_LOOKED_AT = 20  # files, at most, to tell a folder's layout
_log = logging.getLogger(__name__)
_NO_MOTION = "shape.npz"  # AMASS keeps a subject's betas in this file, beside the motions


def folder_layout(folder: Path, given: LabelLayout | None) -> LabelLayout:
    """The layout of a folder's files: as given, or that of the first file that tells it. Raises LabelError."""
    if given is not None:
        return given
    for endings in (_ENDINGS, *_OTHER_ENDINGS.values()):
        for path in _with_endings(folder, endings)[:_LOOKED_AT]:
            try:
                return detect_layout(path)[0]
            except LabelError:
                continue
    return _DEFAULT


def list_label_files(folder: Path, layout: LabelLayout = _DEFAULT) -> list[Path]:
    """The files in and below a folder that may hold labels of a layout, sorted by path. Raises LabelError."""
    endings = _OTHER_ENDINGS.get(layout, _ENDINGS)
    try:
        files = _with_endings(folder, endings)
    except OSError as error:
        raise LabelError(folder, None, "a readable folder of label files", str(error)) from None
    if layout == _FRAMES:
        files = [path for path in files if is_motion_json(path)]
    if not files:
        actual = describe_skipped_files(folder, layout) or "none in it"
        expected = f"a folder of {layout} labels ({', '.join(sorted(endings))})"
        raise LabelError(folder, None, expected, actual)
    return files


def _with_endings(folder: Path, endings: frozenset[str]) -> list[Path]:
    files = [
        path
        for path in _shown(folder)
        if path.suffix.lower() in endings and not path.is_dir() and path.name != _NO_MOTION
    ]
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _shown(folder: Path) -> Iterator[Path]:
    """All that is in and below a folder, but for hidden files and folders."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def describe_skipped_files(folder: Path, layout: LabelLayout = _DEFAULT) -> str:
    """How many files of a folder are not read, by ending; '' when there are none."""
    endings = _OTHER_ENDINGS.get(layout, _ENDINGS)
    others = (path for path in _shown(folder) if path.suffix.lower() not in endings and not path.is_dir())
    return describe_skipped(count_endings(others), f"{layout} labels")


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


def read_folder(
    folder: Path, files: list[Path], settings: ReadSettings, layout: LabelLayout = _DEFAULT
) -> Iterator[LabelBatch]:
    """The rows of each file in turn, numbered across files. Raises LabelError when no file can be used."""
    start, errors, used = 0, list[LabelError](), set[str]()
    parts = _folders_of(files) if layout == _FRAMES else {path: [path] for path in files}
    for path, frames in parts.items():
        file_settings = _settings_of(settings, path, folder)
        try:
            if layout == _FRAMES:
                batch = _read_frames(path, frames, file_settings)
            else:
                batch = read_label_file(path, layout, file_settings)
        except OptionError:
            raise  # a wrong option concerns all files
        except LabelError as error:
            errors.append(error)
            if len(parts) == 1 and layout == _FRAMES:
                raise
            if len(errors) == len(parts):
                what = "a sequence" if READERS[layout].has_sequences else "labels"
                kind = "folders" if layout == _FRAMES else "files"
                expected = f"{what} in at least one of {len(parts)} {kind}"
                raise LabelError(folder, None, expected, f"none; the first: {errors[0]}") from None
            batch = _bad_file_batch(file_settings, error, READERS[layout].has_sequences)
        batch = replace(batch, row=batch.row + start, sequences=_renamed(batch.sequences, start, used))
        if len(batch) == 0:
            _log.warning("%s: 0 rows, so there is nothing to convert; the other files are", path)
        start += len(batch)
        yield batch


def _renamed(sequences: tuple[MotionSequence, ...], start: int, used: set[str]) -> tuple[MotionSequence, ...]:
    """The sequences of a file behind `start` rows of others, under names that no other file has used."""
    found = []
    for sequence in sequences:
        name = unused(sequence.name, used)
        used.add(name)
        found.append(replace(sequence, name=name, start=sequence.start + start))
    return tuple(found)


def _folders_of(files: list[Path]) -> dict[Path, list[Path]]:
    """The files of each folder, as EasyMocap writes one for a video."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    return folders


def _settings_of(settings: ReadSettings, path: Path, folder: Path) -> ReadSettings:
    """The settings for a file of a folder, or for the folder itself."""
    if path == folder:
        return replace(settings, name=folder.resolve().name)
    if path.is_dir():
        return replace(settings, name=path.relative_to(folder).as_posix())
    return name_sequence(settings, path, folder)


def _read_frames(folder: Path, files: list[Path], settings: ReadSettings) -> LabelBatch:
    """The people over the frames of a folder, whose files are named by the frames' numbers."""
    frames = {}
    for path in files:
        try:
            frames[path.stem] = json_tree(path)
        except (OSError, ValueError) as error:
            raise LabelError(path, None, "a JSON file", " ".join(str(error).split())) from None
    arrays = LabelArrays(folder, "json", {}, lambda: "", tree={"frames": frames})
    return read_arrays(arrays, READERS[_FRAMES], settings)


def _bad_file_batch(settings: ReadSettings, error: LabelError, in_sequence: bool) -> LabelBatch:
    """The one row that stands for an unusable file. Its coordinates are unknown."""
    prefix = f"'{error.key}': " if error.key else ""
    reason = f"{BAD_FILE}: {prefix}expected {error.expected}, found {error.found}"
    motion = (MotionSequence(settings.name, settings.subject, None, 0, 1),)
    return LabelBatch(
        row=np.zeros(1, np.int64),
        imgname=[""],
        gender=[settings.gender],
        bad=[reason],
        sequences=motion if in_sequence else (),
        about=LabelProperties("unknown", has_camera=False),
        **empty_fields(1),
    )
