"""Meshes of single people for viewing, and their photos with the projected skeleton."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.dofs import SKEL_PARENTS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.bodies.world_axes import Y_UP_FROM_Z_UP
from skelfit.images.decoding import open_image, to_rgb
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardError, list_shards, list_subsets
from skelfit.shards.shard_reader import read_rows
from skelfit.storage.locations import Location

Array = NDArray[np.float64]

PHOTO_SIDE = 480  # px; the longer side of a photo after cropping
_BONE_CELL_M = 0.010  # of the cubes in which one bone vertex is kept

# Rotations from the coordinates of a label to those of the viewer: y up, z towards the viewer.
_CAMERA_TO_VIEW = np.diag([1.0, -1.0, -1.0])
_WORLD_TO_VIEW = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])  # from a world with y up, seen along its -x
_TO_VIEW: dict[str, Array] = {
    "world_y_up": _WORLD_TO_VIEW,
    "world_z_up": _WORLD_TO_VIEW @ Y_UP_FROM_Z_UP,
    "unknown": np.eye(3),
}


def to_view(coordinates: str) -> Array:
    """The rotation (3,3) from the coordinates of a label to those of a viewer: y up, z towards the viewer."""
    return _TO_VIEW.get(coordinates, _CAMERA_TO_VIEW)


@dataclass(frozen=True)
class StoredPerson:
    """The sample of a person, decoded."""

    fields: Mapping[str, FloatArray]
    meta: Mapping[str, Any]
    image: bytes | None


@dataclass(frozen=True)
class PersonPhoto:
    """The photo of a person, cropped and scaled; points are in its pixels."""

    jpeg: bytes
    size: tuple[int, int]
    joints: Array  # (24,2) of the fitted skeleton
    before: Array | None  # (24,2) of the one in other shards; None where there is none, or it is the same
    keypoints: Array  # (K,2) of the label, those with a confidence above 0


@dataclass(frozen=True)
class PersonDrawing:
    """A person's meshes; points in metres, y up, centred on the skin."""

    key: str
    gender: str  # of SKEL
    target: Array | None  # (V,3) SMPL's skin that was fitted; None without SMPL parameters
    skin: Array  # (V,3) SKEL's
    bones: Array  # (B,3)
    photo: PersonPhoto | None


@dataclass(frozen=True)
class ThinBones:
    """A bone mesh with fewer vertices."""

    vertices: NDArray[np.int64]  # (B,) indices into the whole mesh
    faces: NDArray[np.int32]  # (F,3)


def thin_bones(asset: SkelAsset) -> ThinBones:
    """The bone mesh with one vertex of a bone in each small cube; for viewing, not for measuring."""
    bone = asset.bone_weights_rigid.argmax(1)
    cells = np.floor(asset.bone_v_template / _BONE_CELL_M).astype(np.int64)
    _, first, cell = np.unique(np.column_stack([bone, cells]), axis=0, return_index=True, return_inverse=True)
    faces = cell.ravel()[asset.bone_faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return ThinBones(first, faces[whole].astype(np.int32))


def read_people(tar: Location, keys: Iterable[str]) -> dict[str, StoredPerson]:
    """The samples with these keys, without those that the tar does not have. Raises ShardError."""
    wanted, members_of = set(keys), dict[str, dict[str, bytes]]()
    try:
        with tar.open("rb") as content_of_tar, tarfile.open(fileobj=content_of_tar) as stream:
            for member in stream:
                key, _, ending = member.name.partition(".")
                if key in wanted and (content := stream.extractfile(member)):
                    members_of.setdefault(key, {})[ending] = content.read()
        return {key: _sample(members) for key, members in members_of.items()}
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise ShardError(tar, None, "a tar of skelfit samples", repr(error)) from None


def find_person(folder: Location, key: str) -> StoredPerson:
    """The sample with this key in a folder of shards. Raises ShardError where there is none, with the reason."""
    shards = [files for subset in list_subsets(folder) for files in list_shards(folder, subset)]
    if not shards:
        raise ShardError(folder, None, "a folder with finished shards", "none")
    for files in shards:
        # Reading a sidecar as text is much faster than row by row.
        if files.sidecar.exists() and f'"{key}"'.encode() in files.sidecar.read_bytes():
            if person := read_people(files.tar, [key]).get(key):
                return person
            row = next((row for row in read_rows(files.sidecar) if row["key"] == key), {})
            status = (
                f"a row that is not published: {row.get('status')}, {row.get('reason') or 'no reason given'}"
            )
            raise ShardError(files.tar, key, "a sample", status)
    raise ShardError(folder, key, "a key of one of the shards, such as those in *.rows.jsonl", "no such key")


def _sample(members: dict[str, bytes]) -> StoredPerson:
    label = np.load(io.BytesIO(members.pop("label.npy")), allow_pickle=False)
    meta = json.loads(members.pop("meta.json"))
    return StoredPerson(unpack(label), meta, next(iter(members.values()), None))


class PersonDrawer:
    """Poses people for viewing; a body model is made when it is first needed."""

    def __init__(self, models: ModelSet) -> None:
        self._models = models
        self._smpl: dict[str, SmplModel] = {}
        self._skel: dict[str, tuple[SkelModel, ThinBones]] = {}

    def smpl(self, gender: str) -> SmplModel:
        """SMPL of a gender. Raises ModelError when there is none."""
        if gender not in self._smpl:
            self._smpl[gender] = SmplModel(self._models.smpl_of(gender))
        return self._smpl[gender]

    def skel(self, gender: str) -> tuple[SkelModel, ThinBones]:
        """SKEL of a gender, and its bones for drawing. Raises ModelError when there is none."""
        if gender not in self._skel:
            asset = self._models.skel_of(gender)
            self._skel[gender] = SkelModel(asset), thin_bones(asset)
        return self._skel[gender]

    def draw(self, key: str, sample: StoredPerson, before: StoredPerson | None = None) -> PersonDrawing:
        """The meshes of a person, and the photo where there is one; `before`: the same person in other shards.

        Raises ModelError.
        """
        figure = PosableFigure(self, sample)
        posed = figure.pose(figure.stored)
        thin = self.skel(figure.gender)[1]
        other = None
        if before is not None:
            old = PosableFigure(self, before)
            other = old.pose(old.stored).joints_m
        photo = crop_photo(sample, posed.joints_m, other)
        return PersonDrawing(key, figure.gender, figure.target, posed.skin, posed.bones[thin.vertices], photo)

    @torch.no_grad()
    def standing(self) -> tuple[Array, NDArray[np.int32]]:
        """A body that stands with its arms lowered: skin (V,3) m and faces (F,3)."""
        asset = next(iter(self._models.smpl.values()))
        pose = torch.zeros(1, 24, 3)
        pose[0, 16, 2], pose[0, 17, 2] = -0.9, 0.9  # SMPL's shoulders
        skin = SmplModel(asset).vertices(pose, torch.zeros(1, 10))[0].double().numpy()
        return skin - (skin.max(0) + skin.min(0)) / 2, asset.faces


@dataclass(frozen=True)
class PosedMeshes:
    """Skin (V,3) m and bones (Vs,3) m in the viewer's coordinates; joints (24,3) m in the label's."""

    skin: Array
    bones: Array
    joints_m: Array


class PosableFigure:
    """A person whose pose can be changed. Raises ModelError when the models lack the person's gender."""

    @torch.no_grad()
    def __init__(self, artist: PersonDrawer, sample: StoredPerson) -> None:
        self._part = {name: torch.tensor(value) for name, value in sample.fields.items()}
        self.gender = str(sample.meta["skel_gender"])
        self.model = artist.skel(self.gender)[0]
        self._shape = self.model.shape(self._part["skel_betas"])
        self.stored: NDArray[np.float32] = sample.fields["skel_poses"]  # (46,) rad
        self._view = to_view(sample.meta["coordinates"])
        self._center = np.zeros(3)
        skin = self.pose(self.stored).skin @ self._view
        self._center = (skin.max(0) + skin.min(0)) / 2
        self.target: Array | None = None  # (V,3) m, of the SMPL label; None where it is not known
        if sample.meta["smpl"]:
            smpl, part = artist.smpl(sample.meta["target_gender"]), self._part
            skin = smpl.vertices(part["smpl_pose"], part["smpl_betas"], part["smpl_trans"]).double().numpy()
            self.target = self._in_view(skin)

    def _in_view(self, points: Array) -> Array:
        in_view: Array = (points - self._center) @ self._view.T
        return in_view

    def in_label(self, points: Array) -> Array:
        """Points (...,3) m of the viewer's coordinates in those of the label."""
        in_label: Array = points @ self._view + self._center
        return in_label

    @torch.no_grad()
    def pose(self, angles: NDArray[np.floating[Any]]) -> PosedMeshes:
        """The person in a pose, angles (46,) rad; the centre stays that of the stored pose."""
        q, trans = torch.tensor(angles, dtype=torch.float32), self._part["skel_trans"]
        posed = self.model.forward(self._shape, q, trans)
        skin, bones = (
            posed.vertices.double().numpy(),
            self.model.bones(self._shape, q, trans).double().numpy(),
        )
        return PosedMeshes(self._in_view(skin), self._in_view(bones), posed.joints.double().numpy())


def crop_photo(sample: StoredPerson, joints_m: Array, before_m: Array | None = None) -> PersonPhoto | None:
    """The photo cropped to the person, with projected joints (24,3) m, now and before; None without image or camera."""
    photo = photo_in_camera(sample)
    if photo is None:
        return None
    picture, camera = photo
    affine = np.asarray(sample.meta["affine"], np.float64)

    given = sample.fields["gtkps"].astype(np.float64)
    keypoints = given[given[:, 2] > 0, :2] @ affine[:, :2].T + affine[:, 2]
    joints = _pixels(joints_m, camera)
    before = None if before_m is None else _pixels(before_m, camera)
    if not np.isfinite(joints).all():
        return None
    if before is not None and not np.isfinite(before).all():
        before = None
    box = _crop_box(joints if before is None else np.concatenate((joints, before)), picture.size)
    if box is None:
        return None
    scale = min(PHOTO_SIDE / max(box[2] - box[0], box[3] - box[1]), 2.0)
    size = (max(round((box[2] - box[0]) * scale), 1), max(round((box[3] - box[1]) * scale), 1))
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS, box).save(stream, "JPEG", quality=82)
    corner = np.array(box[:2])
    joints, keypoints = ((points - corner) * scale for points in (joints, keypoints))
    if before is not None:
        before = (before - corner) * scale
    return PersonPhoto(stream.getvalue(), size, joints, before, keypoints)


def photo_in_camera(sample: StoredPerson) -> tuple[Image.Image, Array] | None:
    """The stored photo (RGB) of a person, and its camera (3,3) px; None where one of them is missing or damaged."""
    meta = sample.meta
    if (
        sample.image is None
        or meta["coordinates"] != "camera"
        or not meta["camera"]
        or meta["affine"] is None
    ):
        return None
    try:
        with open_image(sample.image) as image:
            picture = to_rgb(image)
    except Exception:  # a decoder may raise anything on damaged bytes
        return None
    camera, affine = (np.asarray(x, np.float64) for x in (sample.fields["cam_int"], meta["affine"]))
    return picture, np.vstack([affine, [0.0, 0.0, 1.0]]) @ camera


def _pixels(points: Array, camera: Array) -> Array:
    """Pixels (K,2) of points (K,3) m by intrinsics (3,3); not finite in the plane of the camera."""
    projected = points @ camera.T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels: Array = projected[:, :2] / projected[:, 2:]
    return pixels


def _crop_box(joints: Array, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom px around the skeleton with a margin; None where that is outside of the image."""
    low, high = joints.min(0), joints.max(0)
    margin = 0.2 * float((high - low).max()) + 4
    left, top = np.maximum(np.floor(low - margin), 0).tolist()
    right, bottom = np.minimum(np.ceil(high + margin), size).tolist()
    return (left, top, right, bottom) if right - left >= 8 and bottom - top >= 8 else None


def skeleton_lines(joints: Array) -> list[list[float]]:
    """Lines of a skeleton of joints (24,2) px in a photo: [x, y, x, y] from each joint's parent to the joint."""
    ends = [(joints[parent], joints[j]) for j, parent in enumerate(SKEL_PARENTS) if parent >= 0]
    return [[round(float(v), 1) for v in (*a, *b)] for a, b in ends]


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the source of an image in a page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def draw_people(
    wanted: Sequence[tuple[Location, str]],
    artist: PersonDrawer,
    skip: Callable[[str, str], object],
    before: Mapping[str, StoredPerson] = MappingProxyType({}),
) -> list[PersonDrawing]:
    """The people with these tars and keys, in order. `skip` gets key and reason of people who cannot be drawn.

    before: the same people in other shards, by key.
    """
    samples = read_samples_of(wanted, skip)
    return [artist.draw(key, samples[key], before.get(key)) for _, key in wanted if key in samples]


def read_samples_of(
    wanted: Sequence[tuple[Location, str]], skip: Callable[[str, str], object]
) -> dict[str, StoredPerson]:
    """The samples with these tars and keys, by key. `skip` gets key and reason of those that cannot be read."""
    keys: dict[Location, list[str]] = {}
    for tar, key in wanted:
        keys.setdefault(tar, []).append(key)
    samples: dict[str, StoredPerson] = {}
    for tar, keys_of_tar in keys.items():
        try:
            samples |= read_people(tar, keys_of_tar)
        except ShardError as error:
            for key in keys_of_tar:
                skip(key, str(error))
            continue
        for key in keys_of_tar:
            if key not in samples:
                skip(key, f"{tar}: no such sample")
    return samples
