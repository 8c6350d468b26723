"""Made-up people: a label file in exactly the CameraHMR layout, with pictures, for any SMPL body.

Person i follows from (seed, i) alone, so a larger demo begins with the people of a smaller one. Joint angles are
written as rotations about SMPL's axes (x to the person's left, y up, z forward), applied in the order y, z, x.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.assets import write_npz
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.smpl import SMPL_JOINT_NAMES, SmplModel
from skelfit.errors import ModelError, OutputError
from skelfit.labels.demo_pictures import draw_person, make_surface

Array = NDArray[np.float32]
LABELS_NAME = "demo-release.npz"
_SPEC_NAME = "demo.json"
_VERSION = 1  # raise it when the same seed gives other people
_SIZE = 256  # px, width and height of a picture
_FOCAL = 1.2 * _SIZE
# People are always posed in blocks of this size: rounding in a matrix product depends on the size.
_BLOCK = 32

_JOINT = {name: i for i, name in enumerate(SMPL_JOINT_NAMES)}
# Spread (rad) and range of the angles about x, y, z, for the left side; the right side mirrors y and z.
_JOINTS: dict[str, tuple[tuple[float, float, float], tuple[float, ...]]] = {
    "hip": ((0.18, 0.15, 0.10), (-2.0, 0.6, -0.6, 0.6, -0.3, 0.7)),
    "knee": ((0.15, 0.03, 0.02), (0.0, 2.3, -0.1, 0.1, -0.1, 0.1)),
    "ankle": ((0.12, 0.08, 0.05), (-0.4, 0.6, -0.3, 0.3, -0.2, 0.2)),
    "foot": ((0.05, 0.0, 0.0), (-0.5, 0.2, 0.0, 0.0, 0.0, 0.0)),
    "collar": ((0.03, 0.06, 0.06), (-0.1, 0.1, -0.25, 0.25, -0.15, 0.3)),
    "shoulder": ((0.22, 0.20, 0.18), (-1.6, 0.9, -1.6, 0.5, -1.4, 1.1)),
    "elbow": ((0.15, 0.30, 0.0), (-0.8, 0.8, -2.3, 0.0, 0.0, 0.0)),
    "wrist": ((0.20, 0.12, 0.15), (-0.8, 0.8, -0.4, 0.4, -0.8, 0.8)),
    "hand": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
    "spine1": ((0.06, 0.05, 0.04), (-0.2, 0.5, -0.3, 0.3, -0.25, 0.25)),
    "spine2": ((0.06, 0.05, 0.04), (-0.2, 0.4, -0.3, 0.3, -0.25, 0.25)),
    "spine3": ((0.05, 0.05, 0.04), (-0.2, 0.3, -0.3, 0.3, -0.2, 0.2)),
    "neck": ((0.10, 0.12, 0.06), (-0.4, 0.5, -0.6, 0.6, -0.3, 0.3)),
    "head": ((0.08, 0.12, 0.06), (-0.4, 0.4, -0.5, 0.5, -0.3, 0.3)),
}


@dataclass(frozen=True)
class _Person:
    """The parameters of one person, and the generator for the random numbers of their picture."""

    pose: Array  # (24,3) rad, axis-angle
    betas: Array  # (10,)
    pelvis: Array  # (3,) m, root joint in the camera frame
    up: Array  # (3,) the up direction of the room, in the camera frame
    kept: NDArray[np.bool_]  # (44,) keypoints that an annotator saw
    rng: np.random.Generator


def write_demo(
    folder: str | Path,
    people: int = 2000,
    seed: int = 0,
    images: bool = True,
    *,
    models: ModelSet,
    extreme: float = 0.1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write `folder/demo-release.npz` and `folder/images/*.jpg`; returns the label file.

    Args:
        people: how many; person i is the same in a demo of any size.
        images: whether to draw the pictures (the labels are the same without).
        models: needs the neutral SMPL and the 44-keypoint regressor.
        extreme: share of people with a pose anywhere in the joints' ranges.
        progress: called with the number of people done.

    Raises:
        ModelError: when the models lack the neutral SMPL or the keypoint regressor.
        OutputError: when the folder cannot be written to.
    """
    folder = Path(folder)
    asset = models.smpl_of("neutral")
    if models.keypoints44 is None:
        raise ModelError(models.source, "keypoints44", "a (44, V) keypoint regressor", "none")
    surface = make_surface(asset)
    camera = np.array([[_FOCAL, 0, _SIZE / 2], [0, _FOCAL, _SIZE / 2], [0, 0, 1]], np.float32)
    rows_by_key: dict[str, list[Array]] = {}
    names = [f"{i:012d}.jpg" for i in range(people)]
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / _SPEC_NAME).unlink(missing_ok=True)  # written again when everything else is
        posed = _posed(SmplModel(asset), seed, extreme)
        for done, (name, (person, transl, vertices)) in enumerate(zip(names, posed, strict=False), 1):
            keypoints = models.keypoints44 @ vertices
            for key, value in _labels(person, transl, vertices, keypoints, camera).items():
                rows_by_key.setdefault(key, []).append(value)
            if images:
                picture = draw_person(surface, vertices, camera, person.up, _SIZE, person.rng)
                picture.save(folder / "images" / name, quality=85)
            if progress is not None:
                progress(done)
        arrays = {key: np.stack(rows) for key, rows in rows_by_key.items()}
        write_npz(folder / LABELS_NAME, {"imgname": np.array(names), **arrays})
        spec = _spec(people, seed, images, models, extreme)
        (folder / _SPEC_NAME).write_text(
            json.dumps(spec, indent=1) + "\n"
        )  # last: it marks the demo as whole
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error}") from error
    return folder / LABELS_NAME


def sample_labels(people: int, seed: int, extreme: float) -> tuple[Array, Array, Array]:
    """The people of a demo without files: pose (N,24,3) rad axis-angle, betas (N,10), pelvis (N,3) m.

    The pelvis is the root joint's position in the camera frame; it needs no body model.
    """
    sampled = [_person(seed, i, extreme) for i in range(people)]
    pose, betas, pelvis = (
        np.stack([getattr(p, name) for p in sampled]) for name in ("pose", "betas", "pelvis")
    )
    return pose, betas, pelvis


def extreme_labels(people: int, seed: int, beyond: float) -> tuple[Array, Array, Array]:
    """People in extreme poses: pose (N,24,3) rad axis-angle, betas (N,10), transl (N,3) m.

    Joints are uniform in their ranges, widened at both ends by `beyond` times the width; global rotations are random.
    """
    _, low, high = _ranges()
    margin = beyond * (high - low)
    poses, betas, transl = [], [], []
    for index in range(people):
        rng = np.random.default_rng([seed, index])
        angles = rng.uniform(low - margin, high + margin)
        rotvec = Rotation.from_euler("yzx", angles[:, [1, 2, 0]]).as_rotvec()
        rotvec[0] = Rotation.random(random_state=rng).as_rotvec()
        poses.append(rotvec)
        betas.append(rng.standard_normal(10).clip(-2.5, 2.5))
        transl.append(rng.normal(0, 1, 3) + [0.0, 0.0, 4.0])
    pose, shape, translation = (np.stack(rows).astype(np.float32) for rows in (poses, betas, transl))
    return pose, shape, translation


def demo_is_current(
    folder: str | Path, people: int, seed: int, images: bool, *, models: ModelSet, extreme: float = 0.1
) -> bool:
    """Whether `write_demo` has finished in this folder with these arguments."""
    folder = Path(folder)
    try:
        spec = json.loads((folder / _SPEC_NAME).read_text())
    except (OSError, ValueError):
        return False
    return bool(spec == _spec(people, seed, images, models, extreme)) and (folder / LABELS_NAME).is_file()


def _spec(people: int, seed: int, images: bool, models: ModelSet, extreme: float) -> dict[str, object]:
    return {
        "version": _VERSION,
        "people": people,
        "seed": seed,
        "images": images,
        "extreme": extreme,
        "models_sha256": models.sha256,
    }


def _posed(model: SmplModel, seed: int, extreme: float) -> Iterator[tuple[_Person, Array, Array]]:
    """An endless sequence of person, translation (3,) m and skin (V,3) m in the camera frame."""
    start = 0
    while True:
        persons = [_person(seed, i, extreme) for i in range(start, start + _BLOCK)]
        # torch.tensor copies to aligned memory: rounding in a matrix product depends on the alignment.
        pose, betas, pelvis = (
            torch.tensor(np.stack([getattr(p, name) for p in persons]))
            for name in ("pose", "betas", "pelvis")
        )
        with torch.no_grad():
            # SMPL rotates the body about its root joint, then translates it.
            transl = pelvis - model.root_joint(betas)
            vertices = model.vertices(pose, betas, transl)
        yield from zip(persons, transl.numpy(), vertices.numpy(), strict=True)
        start += _BLOCK


def _labels(
    person: _Person, transl: Array, vertices: Array, keypoints: Array, camera: Array
) -> dict[str, Array]:
    """The fields of one row. vertices (V,3) and keypoints (44,3) m in the camera frame."""
    points = _project(keypoints, camera)
    seen = person.kept & ((points >= 0) & (points < _SIZE)).all(axis=1)
    corners = _project(vertices, camera)
    low, high = corners.min(axis=0), corners.max(axis=0)
    confidence = np.ones((len(keypoints), 1), np.float32)
    return {
        "center": (low + high) / 2,
        "scale": np.float32(1.2 * (high - low).max() / 200),
        "pose_cam": person.pose.reshape(72),
        "shape": person.betas,
        "trans_cam": transl,
        "cam_int": camera,
        # Unseen keypoints are zeros, as in COCO.
        "gtkps": np.concatenate([points, confidence], axis=1) * seen[:, None],
        "keypoints3d": np.concatenate([keypoints, confidence], axis=1),
    }


def _project(points: Array, camera: Array) -> Array:
    image = points @ camera.T
    return image[:, :2] / image[:, 2:]


def _person(seed: int, index: int, extreme: float) -> _Person:
    rng = np.random.default_rng([seed, index])
    angles = _angles(rng, extreme)
    pose = Rotation.from_euler("yzx", angles[:, [1, 2, 0]])
    yaw = Rotation.from_euler("y", rng.uniform(-np.pi, np.pi))
    tilt = Rotation.from_euler("xz", rng.normal(0, [0.08, 0.05]))
    if rng.random() < 0.04:  # a few people lie down
        tilt = Rotation.from_euler("xz", [rng.choice([-1, 1]) * rng.normal(1.5, 0.1), rng.normal(0, 0.2)])
    # SMPL's y points up and its z forward; the camera's y points down and its z away from it.
    room_to_camera = Rotation.from_euler("x", rng.normal(0.12, 0.1)) * Rotation.from_euler("x", np.pi)
    root = room_to_camera * yaw * tilt * pose[0]
    rotvec = pose.as_rotvec()
    rotvec[0] = root.as_rotvec()
    distance = 3.0 + 5.0 * rng.random() ** 2.5  # m; most people are near
    aside = rng.uniform(-0.5, 0.5, 2) * np.array([0.5, 0.2]) * _SIZE / _FOCAL
    pelvis = distance * np.array([aside[0], aside[1] - 0.02, 1.0])
    return _Person(
        pose=rotvec.astype(np.float32),
        betas=rng.standard_normal(10).clip(-2.5, 2.5).astype(np.float32),
        pelvis=pelvis.astype(np.float32),
        up=room_to_camera.apply([0.0, 1.0, 0.0]).astype(np.float32),
        kept=rng.random(44) > 0.06,
        rng=rng,
    )


def _angles(rng: np.random.Generator, extreme: float) -> NDArray[np.float64]:
    """(24,3) rad about x, y, z of one person, within the joints' ranges."""
    spread, low, high = _ranges()
    if rng.random() < extreme:
        return rng.uniform(low, high)
    activity = rng.choice(["stand", "walk", "sit", "reach", "crouch"], p=[0.3, 0.25, 0.15, 0.2, 0.1])
    turns = _posture(str(activity), rng) + rng.normal(0, 1, (24, 3)) * spread
    return np.clip(turns, low, high)


def _ranges() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Spread and lower and upper bound (24,3), rad, of every joint."""
    spread, low, high = (np.zeros((24, 3)) for _ in range(3))
    for name, joint in _JOINT.items():
        if name == "pelvis":
            continue
        spread[joint], bounds = _JOINTS[name.removeprefix("l_").removeprefix("r_")]
        low[joint], high[joint] = bounds[0::2], bounds[1::2]
        if name.startswith("r_"):
            low[joint, 1:], high[joint, 1:] = -high[joint, 1:], -low[joint, 1:]
    return spread, low, high


def _posture(activity: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """(24,3) rad, mean angles of an activity. Negative x swings a hip or a hanging arm forward, bends an ankle up."""
    turns = np.zeros((24, 3))

    def set_both(
        part: str, left: tuple[float, float, float], right: tuple[float, float, float] | None = None
    ) -> None:
        turns[_JOINT[f"l_{part}"]] = left
        turns[_JOINT[f"r_{part}"]] = np.array(right or left) * [1, -1, -1]

    set_both("shoulder", (-0.05, -0.1, -1.2))
    set_both("elbow", (0.0, -0.35, 0.0))
    set_both("hip", (-0.05, 0.08, 0.05))
    set_both("knee", (0.12, 0.0, 0.0))
    if activity == "walk":
        swing = rng.uniform(-0.6, 0.6)
        set_both("hip", (-swing - 0.1, 0, 0.02), (swing - 0.1, 0, 0.02))
        set_both("knee", (0.25 + max(-swing, 0), 0, 0), (0.25 + max(swing, 0), 0, 0))
        set_both("shoulder", (swing * 0.8, -0.1, -1.25), (-swing * 0.8, -0.1, -1.25))
        set_both("elbow", (0, -0.5 - max(-swing, 0), 0), (0, -0.5 - max(swing, 0), 0))
    elif activity == "sit":
        set_both("hip", (-1.45, 0.15, 0.15))
        set_both("knee", (1.5, 0, 0))
        set_both("shoulder", (-0.5, -0.2, -1.15))
        set_both("elbow", (0, -0.9, 0))
        turns[_JOINT["spine1"], 0] = 0.15
    elif activity == "reach":
        reaching = (rng.uniform(-0.5, 0.2), rng.uniform(-1.4, 0.0), rng.uniform(-0.7, 0.9))
        resting = (-0.1, -0.1, -1.2)
        other = reaching if rng.random() < 0.4 else resting
        set_both("shoulder", reaching, other)
        if rng.random() < 0.5:
            set_both("shoulder", other, reaching)
    elif activity == "crouch":
        depth = rng.uniform(0.4, 1.0)
        set_both("hip", (-1.7 * depth, 0.2, 0.25))
        set_both("knee", (2.0 * depth, 0, 0))
        set_both("ankle", (-0.35 * depth, 0, 0))
        set_both("shoulder", (-0.9 * depth, -0.2, -1.0))
        turns[[_JOINT["spine1"], _JOINT["spine2"]], 0] = 0.25 * depth
    return turns
