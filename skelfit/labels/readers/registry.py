"""All readers, and the choice among them: by the keys of a file, or by the layout that the user names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

from skelfit.config.manifest import LabelLayout
from skelfit.labels.body_family import refuse_hands_and_heads
from skelfit.labels.files.array_files import LabelArrays, open_label_file
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.read_settings import ReadSettings, check_options
from skelfit.labels.readers.amass import AmassReader
from skelfit.labels.readers.bare_meshes import MeshReader
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.bedlam import BedlamReader
from skelfit.labels.readers.camerahmr import CameraHmrReader
from skelfit.labels.readers.fourdhumans import FourDHumansReader
from skelfit.labels.readers.hmr2 import Hmr2Reader
from skelfit.labels.readers.spin import SpinReader
from skelfit.labels.readers.track_layouts import TRACK_LAYOUTS
from skelfit.labels.readers.tracks import TrackReader

NO_ROWS = "warning: 0 rows, so there is nothing to convert"

READERS: dict[LabelLayout, LabelReader] = {
    reader.layout: reader
    for reader in (
        CameraHmrReader(),
        FourDHumansReader(),
        SpinReader(),
        AmassReader(),
        Hmr2Reader(),
        MeshReader(),
        BedlamReader(),
        *map(TrackReader, TRACK_LAYOUTS),
    )
}
assert set(READERS) == set(get_args(LabelLayout))


def detect_layout(path: str | Path) -> tuple[LabelLayout, str]:
    """The layout of a label file, and the keys that tell it. Raises LabelError."""
    with open_label_file(path) as arrays:
        reader = _matching_reader(arrays)
        return reader.layout, reader.matching_keys(arrays)


def read_label_file(
    path: str | Path, layout: LabelLayout | None = None, settings: ReadSettings | None = None
) -> LabelBatch:
    """Read and check a whole label file. layout None: the one that its keys tell.

    Raises LabelError for a fault of the file; a fault of a row is in the batch's `bad`. A file without rows is no
    fault: a note says so.
    """
    settings = settings or ReadSettings()
    with open_label_file(path) as arrays:
        return read_arrays(arrays, READERS[layout] if layout else _matching_reader(arrays), settings)


def read_arrays(arrays: LabelArrays, reader: LabelReader, settings: ReadSettings) -> LabelBatch:
    """The same of an open file, by one reader."""
    if reader.layout != "mesh":
        refuse_hands_and_heads(arrays)
    batch = reader.read(arrays, settings)
    check_options(arrays, reader.layout, settings.options)
    if len(batch) == 0:
        batch = replace(batch, about=replace(batch.about, notes=(*batch.about.notes, NO_ROWS)))
    return batch


def _matching_reader(arrays: LabelArrays) -> LabelReader:
    """The reader whose layout the keys of a file fit. Raises LabelError when none or several fit."""
    fitting = [reader for reader in READERS.values() if not reader.mismatches(arrays)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [reader.layout for reader in fitting]
        actual = f"keys that fit {' and '.join(names)}; say which with --source {' or '.join(names)}"
        raise arrays.error(None, "the keys of one kind of labels", actual)
    refuse_hands_and_heads(arrays)
    expected = f"the keys of labels of one of these kinds: {', '.join(READERS)}"
    if contents := arrays.describe_contents():
        raise arrays.error(None, expected, contents)
    actual = arrays.describe_keys()
    nearest = min(READERS.values(), key=lambda r: len(r.mismatches(arrays)) / len(r.required_keys))
    mismatches = nearest.mismatches(arrays)
    if len(mismatches) < len(nearest.required_keys):
        actual += f" (nearest is {nearest.layout}, which also has {', '.join(mismatches)})"
    raise arrays.error(None, expected, actual)
