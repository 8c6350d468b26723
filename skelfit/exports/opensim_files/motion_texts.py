"""The tables of a motion as text: `.mot`, `.trc`, `.sto` and `.csv`.

OpenSim's documentation calls the formats "Motion (.mot) files", "Marker (.trc) files" and "Storage (.sto) files".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np

from skelfit.exports.exported_bodies import GROUND_TEXT, Array, gravity_text
from skelfit.exports.opensim_files.clinical_angles import CLINICAL_NAMES
from skelfit.exports.opensim_files.motion import COORDINATES, OpenSimMotion
from skelfit.shards.finished_run import Person
from skelfit.verification.measures.sequence_ground import STATUSES

_PERSON_COLUMNS = (
    "label_file",
    "row",
    "imgname",
    "sequence",
    "subject",
    "skel_gender",
)  # of the metadata, in the CSV


def mot_text(motion: OpenSimMotion) -> str:
    """The text of a `.mot`: degrees and metres."""
    degrees = np.degrees(motion.angles)
    columns = np.column_stack([degrees[:, :3], motion.pelvis, degrees[:, 3:]])
    notes = [f"Ground: {GROUND_TEXT[motion.coordinates]}."]
    notes.append(f"Gravity: {gravity_text(motion.coordinates)}.")
    if motion.sole_contact is not None:
        floor = motion.sole_contact.floor
        where = "not known" if floor is None else f"y = {floor.height:.4f} m"
        notes.append(f"Floor: {where} ({STATUSES[motion.sole_contact.status]}).")
    return _storage(motion, COORDINATES, columns, "\n".join(notes))


def sto_text(motion: OpenSimMotion) -> str:
    """The text of a `.sto` with clinical angles in degrees. Raises ValueError for a motion without them."""
    if motion.clinical is None:
        raise ValueError(f"{motion.name}: expected clinical angles, found none")
    note = "Clinical angles after the ISB; docs/opensim.md of skelfit has their definitions."
    return _storage(motion, CLINICAL_NAMES, np.degrees(motion.clinical), note)


def _storage(motion: OpenSimMotion, names: Sequence[str], columns: Array, note: str) -> str:
    header = (
        f"{motion.name}\nversion=1\nnRows={len(columns)}\nnColumns={columns.shape[1] + 1}\ninDegrees=yes\n\n"
        f"Units are S.I. units (second, meters, Newtons, ...)\nAngles are in degrees.\n{note}\n\nendheader\n"
    )
    return header + "\t".join(["time", *names]) + "\n" + _rows(np.column_stack([motion.times, columns]))


def trc_text(motion: OpenSimMotion) -> str:
    """The text of a `.trc`: metres. Joint centres end in `_jc`, points on axes of joint frames in `_x` and `_y`."""
    count, rate = len(motion.times), f"{motion.rate:.10g}"
    values = (rate, rate, count, len(motion.marker_names), "m", rate, 1, count)
    names = (
        "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame OrigNumFrames".split()
    )
    axes = "\t".join(f"X{i}\tY{i}\tZ{i}" for i in range(1, len(motion.marker_names) + 1))
    head = [
        f"PathFileType\t4\t(X/Y/Z)\t{motion.name}.trc",
        "\t".join(names),
        "\t".join(map(str, values)),
        "Frame#\tTime\t" + "\t\t\t".join(motion.marker_names) + "\t\t",
        f"\t\t{axes}",
        "",
    ]
    numbers = _rows(np.column_stack([motion.times, motion.markers.reshape(count, -1)]))
    # Frames of this format count from 1 on.
    lines = [f"{f + 1}\t{row}" for f, row in zip(motion.frames, numbers.splitlines(), strict=True)]
    return "\n".join([*head, *lines]) + "\n"


def people_text(motion: OpenSimMotion, people: Sequence[Person]) -> str:
    """Which person is which row, as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["time", "frame", "key", *_PERSON_COLUMNS])
    for time, frame, person in zip(motion.times, motion.frames, people, strict=True):
        columns = [person.meta[name] for name in _PERSON_COLUMNS]
        writer.writerow([f"{time:.8f}", frame, person.key, *columns])
    return stream.getvalue()


def _rows(columns: Array) -> str:
    stream = io.StringIO()
    np.savetxt(stream, columns, fmt="%.8f", delimiter="\t")
    return stream.getvalue()
