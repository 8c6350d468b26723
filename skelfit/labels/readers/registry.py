"""Which reader a label file needs: its layout, told by its keys, or asked for where they fit several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from skelfit.config.manifest import LabelLayout
from skelfit.labels.body_family import refuse_hands_and_heads
from skelfit.labels.files.array_files import LabelArrays, open_label_file
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.readers import amass, bare_meshes, camerahmr, hmr2, spin_4dhumans
from skelfit.labels.readers.base import Request, check_options

NO_ROWS = "warning: 0 rows, so there is nothing to convert"


@dataclass(frozen=True)
class Reader:
    """How one layout is told and read."""

    version: str  # raise the number when the same file would be read differently
    keys: tuple[tuple[str, ...], ...]  # of each group a file of this layout has one
    never: tuple[str, ...]  # keys that make it another layout
    read: Callable[[LabelArrays, Request], LabelBatch]


READERS: dict[LabelLayout, Reader] = {
    "camerahmr": Reader(
        "camerahmr-4",
        (("imgname",), ("pose_cam", "pose"), ("shape",), ("trans_cam",), ("cam_int",)),
        (),
        camerahmr.read,
    ),
    "4dhumans": Reader(
        "4dhumans-2",
        (("imgname",), ("body_pose",), ("betas",), ("center",), ("scale",)),
        (),
        spin_4dhumans.read_fourdhumans,
    ),
    "spin": Reader(
        "spin-2",
        (("imgname",), ("pose",), ("shape",), ("center",), ("scale",)),
        ("trans_cam",),
        spin_4dhumans.read_spin,
    ),
    "amass": Reader("amass-3", (("poses",), ("betas",), ("trans",)), (), amass.read),
    "hmr2": Reader(
        "hmr2-2",
        (("global_orient",), ("body_pose",), ("betas",)),
        ("has_body_pose", "has_betas"),
        hmr2.read,
    ),
    "mesh": Reader("mesh-2", (bare_meshes.KEYS,), (), bare_meshes.read),
}
assert set(READERS) == set(get_args(LabelLayout))


def detect_layout_of(columns: LabelArrays) -> tuple[LabelLayout, str]:
    """The layout of a file, and the keys that tell it. Raises LabelError when none or several fit."""
    fitting = [name for name, reader in READERS.items() if not _missing(reader, columns)]
    if len(fitting) > 1:
        found = f"keys that fit {' and '.join(fitting)}; say which with --source {' or '.join(fitting)}"
        raise columns.error(None, "the keys of one kind of labels", found)
    if not fitting:
        refuse_hands_and_heads(columns)
        expected = f"the keys of labels of one of these kinds: {', '.join(READERS)}"
        if instead := columns.instead():
            raise columns.error(None, expected, instead)
        nearest = min(
            READERS, key=lambda name: len(_missing(READERS[name], columns)) / len(READERS[name].keys)
        )
        lacks = ", ".join(_missing(READERS[nearest], columns))
        found = f"the keys {columns.listed()}" if columns.keys else "no keys at all"
        if len(_missing(READERS[nearest], columns)) < len(READERS[nearest].keys):
            found += f" (nearest is {nearest}, which also has {lacks})"
        raise columns.error(None, expected, found)
    (name,) = fitting
    return name, ", ".join(f"'{columns.first_of(*group)}'" for group in READERS[name].keys)


def _missing(reader: Reader, columns: LabelArrays) -> list[str]:
    """What a file lacks of a layout, or has too much."""
    lacking = [" or ".join(f"'{k}'" for k in group) for group in reader.keys if not columns.first_of(*group)]
    return lacking + [f"no '{key}'" for key in reader.never if key in columns]


def detect_layout(path: str | Path) -> tuple[LabelLayout, str]:
    """The layout of a label file, and the keys that tell it. Raises LabelError."""
    with open_label_file(path) as columns:
        return detect_layout_of(columns)


def read(path: str | Path, source: LabelLayout | None = None, request: Request | None = None) -> LabelBatch:
    """Read and check a whole label file; None: of the layout that its keys tell.

    Raises LabelError for a fault of the file; a fault of a row is in the batch's `bad`. No rows are no fault: a note
    says so.
    """
    with open_label_file(path) as columns:
        source = source or detect_layout_of(columns)[0]
        if source != "mesh":
            refuse_hands_and_heads(columns)
        request = request or Request()
        batch = READERS[source].read(columns, request)
        check_options(columns, source, request.options)
    if len(batch) == 0:
        batch = replace(batch, about=replace(batch.about, notes=(*batch.about.notes, NO_ROWS)))
    return batch
