"""Files in OpenSim's formats: `.mot` with SKEL's 46 angles by name, `.trc` with joints and skin markers.

A sequence gives one pair of files, a row for each frame. Unrelated people give one pair for each shard, a row for each
person. OpenSim's documentation calls the formats "Motion (.mot) files" and "Marker (.trc) files". No OpenSim model
has SKEL's coordinates: docs/opensim.md.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from scipy.spatial.transform import Rotation

from skelfit.bodies.angle_continuity import make_continuous
from skelfit.bodies.dofs import DOF_NAMES, ROOT_DOFS, SKEL_JOINT_NAMES
from skelfit.exports.exported_bodies import (
    GROUND_AXES,
    GROUND_TEXT,
    Array,
    ExportedBodies,
    PosedPoints,
    check_models,
    coordinates_of,
)
from skelfit.exports.exporter import Exporter, ExportOptions, ExportResult
from skelfit.exports.output_folder import prepare_folder, write_record
from skelfit.shards.finished_run import FinishedRun, Person
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

TIME_STEP = 1.0  # s from one row to the next, where people are not frames of a sequence
TRANSLATIONS = ("pelvis_tx", "pelvis_ty", "pelvis_tz")
COORDINATES = (*DOF_NAMES[:3], *TRANSLATIONS, *DOF_NAMES[3:])
# Skin markers, as vertices of SMPL's topology in their usual public definition.
MARKERS: dict[str, int] = {
    "NOSE": 332, "R_EAR": 4071, "L_EAR": 583, "CHEST": 3506, "BACK": 3027,
    "R_THUMB": 6191, "R_INDEX": 5782, "R_PINKY": 6133, "L_THUMB": 2746, "L_INDEX": 2319, "L_PINKY": 2673,
    "R_HEEL": 6787, "R_BIG_TOE": 6617, "R_SMALL_TOE": 6624, "L_HEEL": 3387, "L_BIG_TOE": 3216, "L_SMALL_TOE": 3226,
}  # fmt: skip
_PERSON_COLUMNS = (
    "label_file",
    "row",
    "imgname",
    "sequence",
    "subject",
    "skel_gender",
)  # of the metadata, in the CSV
MARKER_NAMES = (*(f"{name}_jc" for name in SKEL_JOINT_NAMES), *MARKERS)


@dataclass(frozen=True)
class OpenSimMotion:
    """People in time, in OpenSim's ground: x forward, y up, z right; metres and radians."""

    name: str
    times: Array  # (T,) s
    frames: list[int]  # (T,) of the sequence; counted from 0 where there is none
    rate: float  # Hz
    angles: Array  # (T,46) rad, in SKEL's order; the first three are those of the pelvis in the ground
    pelvis: Array  # (T,3) m, where the pelvis joint is
    markers: Array  # (T,M,3) m, of MARKER_NAMES
    coordinates: str  # of the labels, one of GROUND_AXES


class OpenSimExporter(Exporter):
    """A `.mot`, `.trc` and `.csv` (which person is which row) for each sequence or shard."""

    name = "opensim"
    endings = (".mot", ".trc", ".csv")
    summary = ".mot and .trc"
    needs_models = True

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the files into the folder `out`."""
        models = options.required_models()
        check_models(run, models)
        prepare_folder(out, options.overwrite)
        bodies, files, used_names = ExportedBodies(models), list[str](), set[str]()
        for name, people in _motions_of(run):
            name = _unused_name(name, used_names)
            motion = make_motion(name, people, bodies)
            for ending, text in zip(
                self.endings, (mot_text(motion), trc_text(motion), _people_text(motion, people)), strict=True
            ):
                _write(out / (name + ending), text)
                files.append(name + ending)
            options.step(len(people))
        write_record(out, run, self.name, files, time_step=TIME_STEP, ground=GROUND_TEXT)
        notes = (
            f"{run.rows_out} people in {len(used_names)} motions in {out} (.mot, .trc; .csv says who is which row)",
            "next: plot a .mot, or scale a model with markers of your own to a .trc (docs/opensim.md);",
            "  no OpenSim model has SKEL's coordinates, so none plays a .mot",
        )
        return ExportResult(run.rows_out, tuple(files), notes)


def _motions_of(run: FinishedRun) -> Iterator[tuple[str, list[Person]]]:
    """The people of each sequence, or else of each shard, with its name."""

    def key(person: Person) -> tuple[str, ...]:
        meta = person.meta
        if meta["sequence"] is None:
            return "", person.shard, coordinates_of(person)
        return meta["label_file"], meta["sequence"], coordinates_of(person)

    for (_, name, _), people in groupby(run.people(), key):
        yield name, list(people)


def _unused_name(wanted: str, used: set[str]) -> str:
    """A file name for a sequence, not among those that are used; adds it to them."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("._") or "sequence"
    name, number = plain, 2
    while name.lower() in used:
        name, number = f"{plain}-{number}", number + 1
    used.add(name.lower())
    return name


def make_motion(name: str, people: Sequence[Person], bodies: ExportedBodies) -> OpenSimMotion:
    """The motion of people who are the frames of one sequence, or of people who are no frames."""
    coordinates, meta = coordinates_of(people[0]), people[0].meta
    in_time = meta["sequence"] is not None
    frames = [int(p.meta["frame"]) for p in people] if in_time else list(range(len(people)))
    rate = float(meta["frame_rate"] or 1 / TIME_STEP)
    points = bodies.points(people, tuple(MARKERS.values()))
    angles = np.array([person.fields["skel_poses"] for person in people], np.float64)
    angles[:, list(ROOT_DOFS)] = root_angles(points.pelvis, GROUND_AXES[coordinates])
    return OpenSimMotion(
        name=name,
        times=np.array(frames) / rate,
        frames=frames,
        rate=rate,
        angles=make_continuous(angles) if in_time else angles,
        pelvis=points.joints[:, 0] @ GROUND_AXES[coordinates].T,
        markers=_markers(points) @ GROUND_AXES[coordinates].T,
        coordinates=coordinates,
    )


def _markers(points: PosedPoints) -> Array:
    return np.concatenate([points.joints, points.markers], axis=1)


def root_angles(pelvis: Array, ground: Array) -> Array:
    """Tilt, list and rotation (N,3) rad of pelvis orientations (N,3,3) in a ground (3,3) of GROUND_AXES.

    They are Euler angles about z (tilt), x (list) and y (rotation), in this order, as in SKEL and in OpenSim's models.
    """
    return Rotation.from_matrix(ground @ pelvis).as_euler("YXZ")[:, ::-1]


def mot_text(motion: OpenSimMotion) -> str:
    """The text of a `.mot`: degrees and metres."""
    degrees = np.degrees(motion.angles)
    columns = np.column_stack([motion.times, degrees[:, :3], motion.pelvis, degrees[:, 3:]])
    header = (
        f"{motion.name}\nversion=1\nnRows={len(columns)}\nnColumns={columns.shape[1]}\ninDegrees=yes\n\n"
        "Units are S.I. units (second, meters, Newtons, ...)\nAngles are in degrees.\n"
        f"Ground: {GROUND_TEXT[motion.coordinates]}.\n\nendheader\n"
    )
    return header + "\t".join(["time", *COORDINATES]) + "\n" + _rows(columns)


def trc_text(motion: OpenSimMotion) -> str:
    """The text of a `.trc`: metres. Names of joint centres end in `_jc`; the other markers lie on the skin."""
    count, rate = len(motion.times), f"{motion.rate:.10g}"
    values = (rate, rate, count, len(MARKER_NAMES), "m", rate, 1, count)
    names = (
        "DataRate CameraRate NumFrames NumMarkers Units OrigDataRate OrigDataStartFrame OrigNumFrames".split()
    )
    axes = "\t".join(f"X{i}\tY{i}\tZ{i}" for i in range(1, len(MARKER_NAMES) + 1))
    head = [
        f"PathFileType\t4\t(X/Y/Z)\t{motion.name}.trc",
        "\t".join(names),
        "\t".join(map(str, values)),
        "Frame#\tTime\t" + "\t\t\t".join(MARKER_NAMES) + "\t\t",
        f"\t\t{axes}",
        "",
    ]
    numbers = _rows(np.column_stack([motion.times, motion.markers.reshape(count, -1)]))
    # Frames of this format count from 1 on.
    lines = [f"{f + 1}\t{row}" for f, row in zip(motion.frames, numbers.splitlines(), strict=True)]
    return "\n".join([*head, *lines]) + "\n"


def _rows(columns: Array) -> str:
    stream = io.StringIO()
    np.savetxt(stream, columns, fmt="%.8f", delimiter="\t")
    return stream.getvalue()


def _people_text(motion: OpenSimMotion, people: Sequence[Person]) -> str:
    """Which person is which row, as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["time", "frame", "key", *_PERSON_COLUMNS])
    for time, frame, person in zip(motion.times, motion.frames, people, strict=True):
        columns = [person.meta[name] for name in _PERSON_COLUMNS]
        writer.writerow([f"{time:.8f}", frame, person.key, *columns])
    return stream.getvalue()


def _write(path: Location, text: str) -> None:
    write_atomically(path, lambda stream: stream.write(text.encode()))
