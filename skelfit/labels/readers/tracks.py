"""Reader of tracks: people over the frames of a video, as estimators and multi-camera data sets have them.

What a layout calls its keys, and what they mean, is in `track_layouts`. A person is a sequence. Frames in which a
person is not seen are rows with the reason `no_label`, so that times stay exact; after a longer absence, a new sequence
of the person begins. Parameters are used, and vertices beside them are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.labels.body_family import (
    BODY_JOINTS,
    MODEL_OF_JOINTS,
    BodyModel,
    infer_body_model,
    note_dropped_translation,
    note_shifted_translation,
    note_stated_model,
)
from skelfit.labels.files.array_files import LabelArrays, load_array
from skelfit.labels.label_batch import (
    Coordinates,
    FloatArray,
    LabelBatch,
    LabelProperties,
    MotionSequence,
    empty_fields,
)
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import parse_gender, read_shared_betas
from skelfit.labels.readers.track_layouts import TrackLayout, TrackView
from skelfit.labels.readers.track_people import Person
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import matrices_to_axis_angle, read_rotations, to_float32
from skelfit.labels.world_up import infer_up, infer_world, notes_on_up, trunk_over_limbs

_LONG_GAP = 30  # frames; behind a longer one, a new sequence begins
# From the root joint to the middle of SMPL's hip joints at rest, in m: the mean body's, as the layout has no model.
_HIPS = np.array([0.0, -0.09, -0.01])


@dataclass(frozen=True)
class _Track:
    """The frames of one person in a file."""

    name: str
    numbers: dict[str, Any]
    keys: dict[str, str]  # field -> key of the file
    faults: RowFaults
    frames: NDArray[np.int64] | None  # ascending numbers; None: people of images, not frames of a motion
    gender: str
    imgname: list[str]


class TrackReader(LabelReader):
    """Reads the files of one layout of tracks."""

    has_sequences = True

    def __init__(self, spec: TrackLayout, version: int = 1) -> None:
        self.spec, self.layout = spec, spec.layout
        self.version = f"{spec.layout}-{version}"
        self.required_keys = tuple((key,) for key in spec.needs)

    def mismatches(self, arrays: LabelArrays) -> list[str]:
        """The keys that the first person of a file lacks for this layout, or must not have, in words."""
        person = next(iter(self._people(arrays).values()), {})
        missing = [f"'{key}'" for key in self.spec.needs if key not in person]
        return missing + [f"no '{key}'" for key in self.spec.lacks if key in person]

    def matching_keys(self, arrays: LabelArrays) -> str:
        """The keys that tell the layout, for a message."""
        return ", ".join(f"'{key}'" for key in self.spec.needs)

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """The frames of all people of a file, checked. Raises LabelError for a fault of the file."""
        people = self._people(arrays)
        if not people:
            raise arrays.error(None, f"people with {self.matching_keys(arrays)}", arrays.describe_contents() or
                               f"the keys {arrays.list_keys()}")  # fmt: skip
        settings = replace(settings, name=settings.name or arrays.path.stem)
        notes: list[str] = list(self.spec.notes)
        view = self._view(arrays, settings, next(iter(people.values())), notes)
        tracks = [
            track
            for name, person in people.items()
            if (track := self._track(arrays, name, person, view, settings, notes)) is not None
        ]
        coordinates, about = self._place(arrays, view, tracks, settings, notes)
        for track in tracks:
            track.faults.check(track.numbers, track.keys, coordinates, settings.max_abs_beta)
        return _joined(tracks, about, settings, self.spec.frame_rate)

    def _people(self, arrays: LabelArrays) -> dict[str, Person]:
        try:
            return self.spec.find(arrays.tree)
        except Exception:  # a file of another layout may hold anything where people should be
            return {}

    def _view(
        self, arrays: LabelArrays, settings: ReadSettings, person: Person, notes: list[str]
    ) -> TrackView:
        """The coordinates that are read: of both kinds in a file those asked for."""
        there = {n: v for n, v in self.spec.views.items() if any(key in person for key in v.pose)}
        views = there or self.spec.views
        usual = next(iter(views))
        if len(views) == 1:
            return views[usual]
        name = arrays.use_option("coordinates", settings.options.coordinates) or usual
        (other,) = set(views) - {name}
        where = {"world": "in the world", "camera": "before the camera"}
        notes.append(f"people {where[name]} are read; --coordinates {other} reads them {where[other]}")
        return views[name]

    def _track(
        self,
        arrays: LabelArrays,
        name: str,
        person: Person,
        view: TrackView,
        settings: ReadSettings,
        notes: list[str],
    ) -> _Track | None:
        """One person, whose translation is not placed yet; None for one without a frame."""
        prefix = f"{name}." if name else ""
        try:
            part = arrays.part(person | self.spec.adds(person), prefix)
        except Exception as error:  # a damaged file may hold anything where numbers should be
            raise arrays.error(f"{prefix}{view.pose[0]}", "numbers", " ".join(str(error).split())) from None
        said: list[str] = []
        pose_key = part.first_key(*view.pose) or view.pose[0]
        faults, pose, model = self._pose(part, pose_key, view, settings, said)
        if not len(pose):
            return None
        n = len(pose)
        numbers, keys = empty_fields(n), {"pose": pose_key, "betas": pose_key}
        numbers["root_shift"] = np.zeros((n, 3, 3), np.float32)
        if self.spec.betas:
            keys["betas"] = part.first_key(*self.spec.betas) or self.spec.betas[0]
            numbers["betas"][:] = read_shared_betas(part, keys["betas"], model == "SMPL-X", said)
        _fill_image(part, numbers, keys, n)
        transl = np.zeros((n, 3))
        if view.trans:
            keys["transl"] = part.first_key(*view.trans) or view.trans[0]
            transl = part.numbers(keys["transl"], (3,), (1, 3), dtype=np.float64).reshape(n, 3)
        if view.scale:
            with np.errstate(divide="ignore", invalid="ignore"):  # which makes bad rows
                transl = transl / part.number(view.scale)
        pose, transl = _placed(part, view, pose, transl, numbers, faults)
        if view.turned:
            keys.setdefault("transl", "shift")
        if model == "SMPL-X" and keys.get("transl") and view.coordinates == "camera":
            said.append(note_dropped_translation(keys.pop("transl")))
            transl, numbers["root_shift"] = np.zeros((n, 3)), np.zeros((n, 3, 3), np.float32)
        elif model == "SMPL-X" and keys.get("transl"):
            said.append(note_shifted_translation(keys["transl"]))
        numbers["pose"], numbers["transl"] = to_float32(pose), to_float32(transl)
        if self.spec.flag and self.spec.flag in part and view.coordinates == "camera":
            faults.check_flag(part, self.spec.flag)
        notes += [note for note in said if note not in notes]
        return _Track(
            name,
            numbers,
            keys,
            faults,
            self._frames(part, n),
            self._gender(part, settings),
            part.texts("imgname") if "imgname" in part else [""] * n,
        )

    def _pose(
        self, part: LabelArrays, key: str, view: TrackView, settings: ReadSettings, notes: list[str]
    ) -> tuple[RowFaults, NDArray[np.float64], BodyModel]:
        """Axis-angles (N,24,3) rad, and the model that they are of."""
        root_key = part.first_key(*view.root) or view.root[0] if view.root else key
        first = part.raw(root_key, "rotations of the frames")
        faults = RowFaults(len(first) if first.ndim else 0)
        if view.root:
            root, _ = read_rotations(part, root_key, (1,), settings, faults, notes)
            others, joints = read_rotations(part, key, (23, 21), settings, faults, notes)
            angles, joints = np.concatenate([root, others], axis=1), joints + 1
        else:
            whole = (24, BODY_JOINTS, *MODEL_OF_JOINTS)
            angles, joints = read_rotations(part, key, whole, settings, faults, notes)
        model = self.spec.model or infer_body_model(part, key, joints, notes)
        if self.spec.model is not None and model != "SMPL":
            notes.append(note_stated_model(model, self.layout))
        kept = BODY_JOINTS if model != "SMPL" else min(joints, 24)
        pose = np.zeros((len(angles), 24, 3))
        pose[:, :kept] = angles[:, :kept]
        return faults, pose, model

    def _frames(self, part: LabelArrays, rows: int) -> NDArray[np.int64] | None:
        key = part.first_key(*self.spec.frames)
        if key is None:
            return None if self.spec.frames else np.arange(rows)
        frames = part.numbers(key, (), (1,), dtype=np.float64).reshape(-1)
        if not np.isfinite(frames).all() or (np.diff(frames) < 1).any():
            raise part.error(key, "numbers of frames in ascending order", "others")
        return frames.astype(np.int64)

    def _gender(self, part: LabelArrays, settings: ReadSettings) -> str:
        if self.spec.gender is not None:
            return self.spec.gender
        if "gender" not in part:
            return settings.gender
        gender = parse_gender(part.text("gender"))
        if gender is None:
            raise part.error("gender", "neutral, male or female", repr(part.text("gender")))
        return gender

    def _place(
        self,
        arrays: LabelArrays,
        view: TrackView,
        tracks: list[_Track],
        settings: ReadSettings,
        notes: list[str],
    ) -> tuple[Coordinates, LabelProperties]:
        """The coordinates of a file's people, and what is said of all of them."""
        has_camera = any(track.numbers["cam_int"].any() for track in tracks)
        if view.coordinates in ("camera", "camera_axes"):
            placed = any("transl" in track.keys for track in tracks)
            coordinates: Coordinates = "camera" if placed else "camera_axes"
            if not placed and view.coordinates == "camera_axes":
                notes.append("no translation: every body stands where SMPL puts it without one")
            return coordinates, LabelProperties(coordinates, has_camera, notes=tuple(notes))
        for track in tracks:  # the camera does not belong to these coordinates
            track.numbers["cam_int"][:] = 0
            track.keys.pop("cam_int", None)
        given = arrays.use_option("labels_up", settings.options.labels_up)
        arrays.use_option("up", settings.options.up)  # applied by the job
        poses = [track.numbers["pose"] for track in tracks]
        directions = trunk_over_limbs(np.concatenate(poses) if poses else np.zeros((0, 24, 3), np.float32))
        rows = len(directions)
        x, y, z = directions.sum(0).tolist() if view.coordinates == "unknown" else (0.0, float(rows), 0.0)
        telling = int(directions.any(1).sum()) if view.coordinates == "unknown" else rows
        if view.coordinates == "unknown":
            notes += notes_on_up((x, y, z), telling or rows, settings.options)
        told = infer_up((x, y, z), telling)
        about = LabelProperties(
            infer_world((x, y, z), telling, given),
            has_camera=False,
            notes=tuple(notes),
            upright=(x, y, z),
            telling=telling,
            told_up=(int(told == "y"), int(told == "z")),
            first_up=(settings.name if told == "y" else "", settings.name if told == "z" else ""),
        )
        return about.coordinates, about


def _fill_image(part: LabelArrays, numbers: dict[str, Any], keys: dict[str, str], rows: int) -> None:
    """The camera of the image and the box, where a person has them."""
    if "cam_int" in part:
        camera = load_array(part.tree["cam_int"])
        if camera.shape not in ((3, 3), (rows, 3, 3)):
            raise part.error(
                "cam_int", "an intrinsic matrix (3, 3), or one for each row", f"shape {camera.shape}"
            )
        numbers["cam_int"][:], keys["cam_int"] = camera, "cam_int"
    if "box" in part:
        box = part.numbers("box", (4,), (5,))
        numbers["center"], numbers["scale"] = box[:, :2].copy(), box[:, 2:4] / np.float32(200)
        keys |= {"center": "box", "scale": "box"}


def _placed(
    part: LabelArrays,
    view: TrackView,
    pose: NDArray[np.float64],
    transl: NDArray[np.float64],
    numbers: dict[str, Any],
    faults: RowFaults,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pose and translation, but for what depends on the root joint: `root_shift` (N,3,3) of it is added by the job.

    SMPL turns a body about its root joint J and moves it by t. A turn Q about the origin and a shift s after that are
    the global orientation Q R and the translation Q t + s + (Q - I) J.
    """
    rows = len(pose)
    if view.place == "hips":
        numbers["root_shift"][:] = -np.eye(3)
        upright = np.isfinite(pose[:, 0]).all(axis=1)
        arms = np.zeros((rows, 3))
        arms[upright] = Rotation.from_rotvec(pose[upright, 0]).apply(_HIPS)
        return pose, transl - arms
    if not view.turned or "turn" not in part:
        return pose, transl
    turns = part.numbers("turn", (3,), (3, 3), dtype=np.float64)
    if turns.ndim == 3:
        turns = matrices_to_axis_angle("turn", turns[:, None], faults)[:, 0]
    shift = part.numbers("shift", (3,), (1, 3), (3, 1), dtype=np.float64).reshape(rows, 3)
    good = np.isfinite(turns).all(axis=1) & np.isfinite(pose[:, 0]).all(axis=1)
    faults.report(~np.isfinite(turns).all(axis=1), "non_finite:turn")
    rotation = Rotation.from_rotvec(turns[good])
    pose, transl = pose.copy(), transl.copy()
    pose[good, 0] = (rotation * Rotation.from_rotvec(pose[good, 0])).as_rotvec()
    transl[good] = rotation.apply(transl[good])
    numbers["root_shift"][good] = rotation.as_matrix() - np.eye(3)
    return pose, transl + shift


def _joined(
    tracks: list[_Track], about: LabelProperties, settings: ReadSettings, rate: float | None
) -> LabelBatch:
    """All tracks one after another, with a bad row for each frame that is missing in a short gap."""
    numbers: dict[str, list[FloatArray]] = {name: [value] for name, value in _no_rows().items()}
    imgname: list[str] = []
    gender: list[str] = []
    bad: list[str] = []
    sequences: list[MotionSequence] = []
    for track in tracks:
        subject = f"{settings.name}-{track.name}" if track.name else settings.name
        for number, rows in enumerate(_pieces(track)):
            frames = rows if track.frames is None else track.frames[rows] - track.frames[rows[0]]
            first = 0 if track.frames is None else int(track.frames[rows[0]])
            count, texts = int(frames[-1]) + 1, track.faults.texts()
            reasons = [f"no_label: {subject} is not in frame {first + k}" for k in range(count)]
            names = [""] * count
            for k, row in zip(frames.tolist(), rows.tolist(), strict=True):
                reasons[k], names[k] = texts[row], track.imgname[row]
            for name, parts in numbers.items():
                given = track.numbers[name]
                column = np.zeros((count, *given.shape[1:]), np.float32)
                column[frames] = given[rows]
                parts.append(column)
            if track.frames is not None:
                title = f"{subject}-{number}" if number else subject
                sequences.append(MotionSequence(title, subject, rate, len(bad), count))
            imgname, gender, bad = imgname + names, gender + [track.gender] * count, bad + reasons
    columns: dict[str, Any] = {name: np.concatenate(parts) for name, parts in numbers.items()}
    if not columns["root_shift"].any():
        columns["root_shift"] = None
    return LabelBatch(
        row=np.arange(len(bad), dtype=np.int64),
        imgname=imgname,
        gender=gender,
        bad=bad,
        sequences=tuple(sequences),
        about=about,
        **columns,
    )


def _no_rows() -> dict[str, FloatArray]:
    return {**empty_fields(0), "root_shift": np.zeros((0, 3, 3), np.float32)}


def _pieces(track: _Track) -> list[NDArray[np.int64]]:
    """The rows of a track between long gaps."""
    rows = np.arange(len(track.imgname))
    if track.frames is None:
        return [rows]
    return np.split(rows, np.flatnonzero(np.diff(track.frames) > _LONG_GAP) + 1)
