"""People in time, in OpenSim's ground: angles, joint centres, markers and clinical angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from skelfit.bodies.angle_continuity import make_continuous
from skelfit.bodies.dofs import DOF_NAMES, ROOT_DOFS, SKEL_JOINT_NAMES
from skelfit.exports.exported_bodies import (
    GROUND_AXES,
    Array,
    ExportedBodies,
    PosedPoints,
    coordinates_of,
    parameters_of,
)
from skelfit.exports.opensim_files.clinical_angles import anatomical_frames, clinical_angles
from skelfit.exports.opensim_files.osim_text import ROOT_TRANSLATIONS
from skelfit.shards.finished_run import Person
from skelfit.verification.measures.sequence_ground import SequenceGround

COORDINATES = (*DOF_NAMES[:3], *ROOT_TRANSLATIONS, *DOF_NAMES[3:])
# Skin markers, as vertices of SMPL's topology in their usual public definition.
MARKERS: dict[str, int] = {
    "NOSE": 332, "R_EAR": 4071, "L_EAR": 583, "CHEST": 3506, "BACK": 3027,
    "R_THUMB": 6191, "R_INDEX": 5782, "R_PINKY": 6133, "L_THUMB": 2746, "L_INDEX": 2319, "L_PINKY": 2673,
    "R_HEEL": 6787, "R_BIG_TOE": 6617, "R_SMALL_TOE": 6624, "L_HEEL": 3387, "L_BIG_TOE": 3216, "L_SMALL_TOE": 3226,
}  # fmt: skip
CENTER_NAMES = tuple(f"{name}_jc" for name in SKEL_JOINT_NAMES)
# Points on the axes of each joint frame: with its centre they give the segment's orientation, which the skin does not.
AXIS_LENGTH = 0.1  # m
AXIS_NAMES = tuple(f"{name}_{axis}" for name in SKEL_JOINT_NAMES for axis in "xy")
MARKER_NAMES = (*CENTER_NAMES, *MARKERS, *AXIS_NAMES)


@dataclass(frozen=True)
class OpenSimMotion:
    """People in time, in OpenSim's ground: x forward, y up, z right; metres and radians."""

    name: str
    times: Array  # (T,) s
    frames: list[int]  # (T,) of the sequence; counted from 0 where there is none
    rate: float  # Hz
    in_time: bool  # whether the rows are frames of one sequence
    angles: Array  # (T,46) rad, in SKEL's order; the first three are those of the pelvis in the ground
    pelvis: Array  # (T,3) m, where the pelvis joint is
    markers: Array  # (T,M,3) m
    marker_names: tuple[str, ...]  # (M,)
    coordinates: str  # of the labels, one of GROUND_AXES
    clinical: Array | None = None  # (T,27) rad of CLINICAL_NAMES; None: not known
    sole_contact: SequenceGround | None = None  # the ground; None: the rows are no sequence of one body


def make_motion(name: str, people: Sequence[Person], bodies: ExportedBodies, rate: float) -> OpenSimMotion:
    """The motion of people who are the frames of one sequence, or of people who are no frames; rate in Hz."""
    coordinates, meta = coordinates_of(people[0]), people[0].meta
    in_time = meta["sequence"] is not None
    frames = [int(p.meta["frame"]) for p in people] if in_time else list(range(len(people)))
    points = bodies.points(people, tuple(MARKERS.values()))
    angles = np.array([person.fields["skel_poses"] for person in people], np.float64)
    ground = GROUND_AXES[coordinates]
    angles[:, list(ROOT_DOFS)] = root_angles(points.orientations[:, 0], ground)
    clinical = _clinical(people, points.orientations, bodies)
    return OpenSimMotion(
        name=name,
        times=np.array(frames) / rate,
        frames=frames,
        rate=rate,
        in_time=in_time,
        angles=make_continuous(angles) if in_time else angles,
        clinical=np.unwrap(clinical, axis=0) if in_time else clinical,
        pelvis=points.joints[:, 0] @ ground.T,
        markers=_markers(points) @ ground.T,
        marker_names=MARKER_NAMES,
        coordinates=coordinates,
    )


def _markers(points: PosedPoints) -> Array:
    """(N,M,3) m of MARKER_NAMES."""
    axes = np.swapaxes(points.orientations, -1, -2)[:, :, :2]  # rows: x and y
    tips = points.joints[:, :, None] + AXIS_LENGTH * axes
    return np.concatenate([points.joints, points.markers, tips.reshape(len(tips), -1, 3)], axis=1)


@torch.no_grad()
def _clinical(people: Sequence[Person], orientations: Array, bodies: ExportedBodies) -> Array:
    rows, parts = [], []
    for own, model in bodies.by_gender(people):
        betas, _, _ = parameters_of([people[i] for i in own])
        segments = anatomical_frames(model.rig, model.frames(betas))
        rows += own
        parts.append(clinical_angles(orientations[own], segments))
    return np.concatenate(parts)[np.argsort(rows)]


def root_angles(pelvis: Array, ground: Array) -> Array:
    """Tilt, list and rotation (N,3) rad of pelvis orientations (N,3,3) in a ground (3,3) of GROUND_AXES.

    They are Euler angles about z (tilt), x (list) and y (rotation), in this order, as in SKEL and in OpenSim's models.
    """
    return Rotation.from_matrix(ground @ pelvis).as_euler("YXZ")[:, ::-1]
