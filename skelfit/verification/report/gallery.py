"""The people that a report shows: their meshes, and their photos with the skeleton drawn in."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
from skelfit.shards.shard_files import ShardError

Array = NDArray[np.float64]

PHOTO_SIDE = 480  # px; photos are cut to the person and made this small
_BONE_CELL_M = 0.010  # bones are thinned to one vertex in a cube of this side

# From the coordinates of a label to those of the viewer, whose y is up and whose z is towards whoever looks.
_CAMERA_TO_VIEW = np.diag([1.0, -1.0, -1.0])
_WORLD_TO_VIEW = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])  # of a world with y up, seen along its -x
_TO_VIEW: dict[str, Array] = {
    "world_y_up": _WORLD_TO_VIEW,
    "world_z_up": _WORLD_TO_VIEW @ Y_UP_FROM_Z_UP,
    "unknown": np.eye(3),
}


def to_view(coordinates: str) -> Array:
    """From the coordinates of a label to those of a viewer: (3,3), whose rows are the viewer's axes."""
    return _TO_VIEW.get(coordinates, _CAMERA_TO_VIEW)


@dataclass(frozen=True)
class StoredPerson:
    """What a tar holds of a person."""

    fields: Mapping[str, FloatArray]
    meta: Mapping[str, Any]
    image: bytes | None


@dataclass(frozen=True)
class PersonPhoto:
    """A person's photo; points are in its pixels."""

    jpeg: bytes
    size: tuple[int, int]
    joints: Array  # (24,2) of the fitted skeleton
    keypoints: Array  # (K,2) those given with some confidence


@dataclass(frozen=True)
class PersonDrawing:
    """A person to look at; points in metres about the person's middle, y up."""

    key: str
    gender: str  # of SKEL
    target: (
        Array | None
    )  # (V,3) SMPL's skin that was fitted; None where the shards do not hold SMPL's parameters
    skin: Array  # (V,3) SKEL's
    bones: Array  # (B,3)
    photo: PersonPhoto | None


@dataclass(frozen=True)
class ThinBones:
    """Fewer vertices of a bone mesh, and their faces."""

    vertices: NDArray[np.int64]  # (B,) which of the mesh
    faces: NDArray[np.int32]  # (F,3)


def thin_bones(asset: SkelAsset) -> ThinBones:
    """The bone mesh with one vertex in each small cube, never of two bones; for looking at, not for measuring."""
    bone = asset.bone_weights_rigid.argmax(1)
    cells = np.floor(asset.bone_v_template / _BONE_CELL_M).astype(np.int64)
    _, first, cell = np.unique(np.column_stack([bone, cells]), axis=0, return_index=True, return_inverse=True)
    faces = cell.ravel()[asset.bone_faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return ThinBones(first, faces[whole].astype(np.int32))


def read_people(tar: Path, keys: Iterable[str]) -> dict[str, StoredPerson]:
    """The samples of these keys; those that the tar does not have are left out. Raises ShardError."""
    wanted, members_of = set(keys), dict[str, dict[str, bytes]]()
    try:
        with tarfile.open(tar) as stream:
            for member in stream:
                key, _, ending = member.name.partition(".")
                if key in wanted and (content := stream.extractfile(member)):
                    members_of.setdefault(key, {})[ending] = content.read()
        return {key: _sample(members) for key, members in members_of.items()}
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise ShardError(tar, None, "a tar of skelfit samples", repr(error)) from None


def _sample(members: dict[str, bytes]) -> StoredPerson:
    label = np.load(io.BytesIO(members.pop("label.npy")), allow_pickle=False)
    meta = json.loads(members.pop("meta.json"))
    return StoredPerson(unpack(label), meta, next(iter(members.values()), None))


class PersonDrawer:
    """Draws people with a set of body models; a model is made when it is first needed."""

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

    def draw(self, key: str, sample: StoredPerson) -> PersonDrawing:
        """The person's meshes, and the photo where there is one. Raises ModelError."""
        figure = PosableFigure(self, sample)
        posed = figure.pose(figure.stored)
        thin = self.skel(figure.gender)[1]
        photo = photograph(sample, posed.joints_m)
        return PersonDrawing(key, figure.gender, figure.target, posed.skin, posed.bones[thin.vertices], photo)

    @torch.no_grad()
    def standing(self) -> tuple[Array, NDArray[np.int32]]:
        """A body that stands with its arms lowered, to paint on: skin (V,3) m and faces (F,3)."""
        asset = next(iter(self._models.smpl.values()))
        pose = torch.zeros(1, 24, 3)
        pose[0, 16, 2], pose[0, 17, 2] = -0.9, 0.9  # SMPL's shoulders
        skin = SmplModel(asset).vertices(pose, torch.zeros(1, 10))[0].double().numpy()
        return skin - (skin.max(0) + skin.min(0)) / 2, asset.faces


@dataclass(frozen=True)
class PosedMeshes:
    """Skin (V,3) and bones (Vs,3) in metres as they are looked at; joints (24,3) m as the label has them."""

    skin: Array
    bones: Array
    joints_m: Array


class PosableFigure:
    """A person to be posed. Raises ModelError when the models lack the person's gender."""

    @torch.no_grad()
    def __init__(self, artist: PersonDrawer, sample: StoredPerson) -> None:
        self._part = {name: torch.tensor(value) for name, value in sample.fields.items()}
        self.gender = str(sample.meta["skel_gender"])
        self.model = artist.skel(self.gender)[0]
        self._shape = self.model.shape(self._part["skel_betas"])
        self.stored: NDArray[np.float32] = sample.fields["skel_poses"]  # (46,) rad
        self._turn = to_view(sample.meta["coordinates"])
        self._middle = np.zeros(3)
        skin = self.pose(self.stored).skin @ self._turn
        self._middle = (skin.max(0) + skin.min(0)) / 2
        self.target: Array | None = None  # (V,3) m, of the SMPL label; None where it is not known
        if sample.meta["smpl"]:
            smpl, part = artist.smpl(sample.meta["target_gender"]), self._part
            skin = smpl.vertices(part["smpl_pose"], part["smpl_betas"], part["smpl_trans"]).double().numpy()
            self.target = self._seen(skin)

    def _seen(self, points: Array) -> Array:
        seen: Array = (points - self._middle) @ self._turn.T
        return seen

    @torch.no_grad()
    def pose(self, angles: NDArray[np.floating[Any]]) -> PosedMeshes:
        """The person in another pose, angles (46,) rad; the middle stays that of the stored pose."""
        q, trans = torch.tensor(angles, dtype=torch.float32), self._part["skel_trans"]
        posed = self.model.forward(self._shape, q, trans)
        skin, bones = (
            posed.vertices.double().numpy(),
            self.model.bones(self._shape, q, trans).double().numpy(),
        )
        return PosedMeshes(self._seen(skin), self._seen(bones), posed.joints.double().numpy())


def photograph(sample: StoredPerson, joints_m: Array) -> PersonPhoto | None:
    """The photo cut to the person, with joints (24,3) m of the camera projected; None without image or camera."""
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
    except Exception:  # a decoder may raise anything on bytes that anyone may have made
        return None
    projected = joints_m @ sample.fields["cam_int"].astype(np.float64).T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = projected[:, :2] / projected[:, 2:]
    given = sample.fields["gtkps"].astype(np.float64)
    affine = np.array(meta["affine"], np.float64)
    joints, keypoints = (p @ affine[:, :2].T + affine[:, 2] for p in (pixels, given[given[:, 2] > 0, :2]))
    if not np.isfinite(joints).all():
        return None
    box = _frame(joints, picture.size)
    if box is None:
        return None
    scale = min(PHOTO_SIDE / max(box[2] - box[0], box[3] - box[1]), 2.0)
    size = (max(round((box[2] - box[0]) * scale), 1), max(round((box[3] - box[1]) * scale), 1))
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS, box).save(stream, "JPEG", quality=82)
    corner = np.array(box[:2])
    return PersonPhoto(stream.getvalue(), size, (joints - corner) * scale, (keypoints - corner) * scale)


def _frame(joints: Array, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The part of the picture to show: about the skeleton, with a margin; None where that misses the picture."""
    low, high = joints.min(0), joints.max(0)
    margin = 0.2 * float((high - low).max()) + 4
    left, top = np.maximum(np.floor(low - margin), 0).tolist()
    right, bottom = np.minimum(np.ceil(high + margin), size).tolist()
    return (left, top, right, bottom) if right - left >= 8 and bottom - top >= 8 else None


def lines_of(photo: PersonPhoto) -> list[list[float]]:
    """The skeleton on the photo: [x, y, x, y] px of each joint's line to its parent."""
    ends = [(photo.joints[parent], photo.joints[j]) for j, parent in enumerate(SKEL_PARENTS) if parent >= 0]
    return [[round(float(v), 1) for v in (*a, *b)] for a, b in ends]


def data_uri(jpeg: bytes) -> str:
    """A JPEG as it stands in a page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def draw_people(
    wanted: Sequence[tuple[Path, str]], artist: PersonDrawer, skip: Callable[[str, str], object]
) -> list[PersonDrawing]:
    """People given by tar and key, in this order; who cannot be drawn is told to `skip` as key and reason."""
    keys: dict[Path, list[str]] = {}
    for tar, key in wanted:
        keys.setdefault(tar, []).append(key)
    samples: dict[str, StoredPerson] = {}
    for tar, some in keys.items():
        try:
            samples |= read_people(tar, some)
        except ShardError as error:
            for key in some:
                skip(key, str(error))
            continue
        for key in some:
            if key not in samples:
                skip(key, f"{tar}: no such sample")
    return [artist.draw(key, samples[key]) for _, key in wanted if key in samples]
