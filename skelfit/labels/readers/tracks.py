"""Reader of tracks: people over the frames of a video, as estimators and multi-camera data sets have them.

What a layout calls its keys, and what they mean, is in `track_layouts`. A person is a sequence. Frames in which a
person is not seen are rows with the reason `no_label`, so that times stay exact; after a longer absence, a new sequence
of the person begins. Parameters are used, and vertices beside them are not.
"""

from __future__ import annotations

from dataclasses import replace
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
    LabelBatch,
    LabelProperties,
    empty_fields,
)
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import parse_gender, read_shared_betas
from skelfit.labels.readers.joined_tracks import Track, joined_tracks
from skelfit.labels.readers.track_layouts import TrackLayout, TrackView
from skelfit.labels.readers.track_people import People, Person, TrackFault
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import (
    matrices_to_axis_angle,
    note_fast_translation,
    read_rotations,
    to_float32,
)
from skelfit.labels.world_up import infer_up, infer_world, note_head_down, notes_on_up, trunk_over_limbs

_FRAME_LIMIT = 2**53  # up to which all whole numbers are exact
# From the root joint to the middle of SMPL's hip joints at rest, in m: the mean body's, as the layout has no model.
_HIPS = np.array([0.0, -0.09, -0.01])
# Joints that a pose may have, of layouts whose model is known.
_WHOLE: dict[str, tuple[int, ...]] = {"SMPL": (24, 22), "SMPL+H": (22, 52), "SMPL-X": (22, 55)}


class TrackReader(LabelReader):
    """Reads the files of one layout of tracks."""

    has_sequences = True

    def __init__(self, spec: TrackLayout, version: int = 2) -> None:
        self.spec, self.layout = spec, spec.layout
        self.version = f"{spec.layout}-{version}"
        self.required_keys = tuple((key,) for key in spec.needs)

    def mismatches(self, arrays: LabelArrays) -> list[str]:
        """The keys that the first person of a file lacks for this layout, or must not have, in words."""
        try:
            people = self._people(arrays)
        except TrackFault:  # only of a file of this layout, and reported when it is read
            return [f"no '{key}'" for key in self.spec.lacks if key in arrays]
        if people == {}:
            return []
        person = next(iter((people or {"": {}}).values()))
        missing = [f"'{key}'" for key in self.spec.needs if key not in person]
        return missing + [f"no '{key}'" for key in self.spec.lacks if key in person]

    def matching_keys(self, arrays: LabelArrays) -> str:
        """The keys that tell the layout, for a message."""
        return ", ".join(f"'{key}'" for key in self.spec.needs)

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """The frames of all people of a file, checked. Raises LabelError for a fault of the file."""
        try:
            people = self._people(arrays)
        except TrackFault as fault:
            raise arrays.error(fault.key, fault.expected, fault.found) from None
        if people is None:
            found = arrays.describe_contents() or arrays.describe_keys()
            raise arrays.error(None, f"people with {self.matching_keys(arrays)}", found)
        settings = replace(settings, name=settings.name or arrays.path.stem)
        notes: list[str] = list(self.spec.notes)
        view = self._view(arrays, settings, next(iter(people.values()), {}), notes)
        tracks = [
            track
            for name, person in people.items()
            if (track := self._track(arrays, name, person, view, settings, notes)) is not None
        ]
        coordinates, about = self._place(arrays, view, tracks, settings, notes)
        notes = list(about.notes)
        for track in tracks:
            if "transl" in track.keys and track.frames is not None:
                rate = self.spec.frame_rate
                notes += note_fast_translation(
                    track.keys["transl"], track.numbers["transl"], track.frames, rate
                )
        about = replace(about, notes=tuple(dict.fromkeys(notes)))
        for track in tracks:
            track.faults.check(track.numbers, track.keys, coordinates, settings.max_abs_beta)
        return joined_tracks(tracks, about, settings, self.spec.frame_rate)

    def _people(self, arrays: LabelArrays) -> People | None:
        """The people of a file of this layout, None for another's. Raises TrackFault."""
        try:
            return self.spec.find(arrays.tree)
        except TrackFault:
            raise
        except Exception:  # a file of another layout may hold anything where people should be
            return None

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
    ) -> Track | None:
        """One person, whose translation is not placed yet; None for one without a frame."""
        prefix = f"{name}." if name else ""
        try:
            part = arrays.part(person | self.spec.adds(person), prefix, self.spec.shown)
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
            keys.setdefault("transl", part.shown("shift"))
        if model == "SMPL-X" and keys.get("transl") and view.coordinates == "camera":
            said.append(note_dropped_translation(keys.pop("transl")))
            transl, numbers["root_shift"] = np.zeros((n, 3)), np.zeros((n, 3, 3), np.float32)
        elif model == "SMPL-X" and keys.get("transl"):
            said.append(note_shifted_translation(keys["transl"]))
        numbers["pose"], numbers["transl"] = to_float32(pose), to_float32(transl)
        if self.spec.flag and self.spec.flag in part and view.coordinates == "camera":
            faults.check_flag(part, self.spec.flag)
        notes += [note for note in said if note not in notes]
        return Track(
            name,
            numbers,
            keys,
            faults,
            self._frames(part, n, notes),
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
            whole = _WHOLE.get(self.spec.model or "", (24, BODY_JOINTS, *MODEL_OF_JOINTS))
            angles, joints = read_rotations(part, key, whole, settings, faults, notes)
        model = self.spec.model or infer_body_model(part, key, joints, notes)
        if self.spec.model is not None and model != "SMPL":
            notes.append(note_stated_model(model, self.layout))
        kept = BODY_JOINTS if model != "SMPL" else min(joints, 24)
        pose = np.zeros((len(angles), 24, 3))
        pose[:, :kept] = angles[:, :kept]
        return faults, pose, model

    def _frames(self, part: LabelArrays, rows: int, notes: list[str]) -> NDArray[np.int64] | None:
        """Ascending numbers of the frames of a person; None for people of images."""
        key = part.first_key(*self.spec.frames)
        if key is None:
            if self.spec.images:
                return None
            note = f"no '{' or '.join(self.spec.frames)}': every row is taken as the next frame of the video"
            notes += [note] * (bool(self.spec.frames) and note not in notes)
            return np.arange(rows)
        frames = part.numbers(key, (), (1,), dtype=np.float64).reshape(-1)
        whole = np.isfinite(frames) & (frames == np.round(frames)) & (np.abs(frames) < _FRAME_LIMIT)
        for row in np.flatnonzero(~whole)[:1]:
            raise part.error(key, "whole numbers of frames", f"{frames[row]:g} in row {row}")
        for row in np.flatnonzero(np.diff(frames) < 1)[:1]:
            found = f"{frames[row + 1]:.0f} after {frames[row]:.0f} (row {row + 1})"
            raise part.error(key, "numbers of frames in ascending order", found)
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
        tracks: list[Track],
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
        if view.coordinates == "world_y_up" and poses:
            notes += note_head_down(np.concatenate(poses), view.pose[0])
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
        numbers["cam_int"][:], keys["cam_int"] = camera, part.shown("cam_int")
    if "box" in part:
        box = part.numbers("box", (4,), (5,))
        numbers["center"], numbers["scale"] = box[:, :2].copy(), box[:, 2:4] / np.float32(200)
        keys |= dict.fromkeys(("center", "scale"), part.shown("box"))


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
        turns = matrices_to_axis_angle(part.shown("turn"), turns[:, None], faults)[:, 0]
    shift = part.numbers("shift", (3,), (1, 3), (3, 1), dtype=np.float64).reshape(rows, 3)
    good = np.isfinite(turns).all(axis=1) & np.isfinite(pose[:, 0]).all(axis=1)
    faults.report(~np.isfinite(turns).all(axis=1), f"non_finite:{part.shown('turn')}")
    rotation = Rotation.from_rotvec(turns[good])
    pose, transl = pose.copy(), transl.copy()
    pose[good, 0] = (rotation * Rotation.from_rotvec(pose[good, 0])).as_rotvec()
    transl[good] = rotation.apply(transl[good])
    numbers["root_shift"][good] = rotation.as_matrix() - np.eye(3)
    return pose, transl + shift
