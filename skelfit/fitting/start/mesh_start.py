"""Where the fit of a bare mesh starts: each body part is aligned with the target by itself, and gives joint angles.

A part is the skin that mostly follows one joint. Weighted Procrustes gives the rigid motion from rest to the target,
and with it the joint's global rotation. Rotations relative to the parents give the angles, as SMPL's rotations do.
Talus, scapula and radius are too small or too blended to be parts: the ankle is between shin and foot, the arm between
thorax and upper arm, pronation between ulna and hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.backends.retraction_tables import make_balls
from skelfit.fitting.passes import whole_groups
from skelfit.fitting.start.angle_tables import angle_tables
from skelfit.fitting.start.mesh_parts import PARTS, make_parts


@dataclass(frozen=True)
class MeshStartTables:
    """What the starts of all meshes share, on a device."""

    parts: Any
    angles: Any
    balls: Any
    body: Any


@dataclass(frozen=True)
class MeshStart:
    """Where the fit of B meshes starts, and the pelvis' motion y = turn (x - rest) + position, which is taken off."""

    target: Any  # (blocks of L meshes, V, 3) lane vectors, m: the meshes without that motion
    q: Tensor  # (B, 46) rad on the device, the root's zero
    turn: Tensor  # (B, 3, 3), on the host like the next two
    rest: Tensor  # (B, 3) m
    position: Tensor  # (B, 3) m


def mesh_start_tables(model: SkelModel, body: Any, device: str, limits: np.ndarray) -> MeshStartTables:
    """The tables of a SKEL body; body: its `body_tables`; limits (46, 2) rad of the joints."""
    balls = make_balls(range(NUM_JOINTS), range(NUM_DOFS), device, limits)
    return MeshStartTables(make_parts(model, device), angle_tables(model, device, limits), balls, body)


def mesh_start(backend: Backend, tables: MeshStartTables, mesh: Tensor, betas: Tensor) -> MeshStart:
    """The start of meshes (B, V, 3) m in the model's topology, and of SKEL's betas (B, 10)."""
    k, count = backend.kernels, len(mesh)
    rows = whole_groups(np.arange(count), backend.lanes)
    groups, device = len(rows), backend.device
    target = backend.target_skins(groups, mesh.shape[1])
    q, motion = (torch.zeros(count, n, device=device) for n in (NUM_DOFS, 15))
    inputs = [backend.array(x.to(device, torch.float32).contiguous()) for x in (mesh, betas)]
    backend.launch(
        k.mesh_alignment.align_parts,
        groups,
        [
            *inputs, backend.ints(rows), tables.parts, tables.angles, tables.body, tables.balls,
            backend.scratch(k.joint_frames.make_joint_frames, groups),
            backend.scratch(k.mesh_alignment.make_alignment_scratch, groups, len(PARTS)),
            target, backend.array(q), backend.array(motion),
        ],
    )  # fmt: skip
    turn, rest, position = backend.read(motion).split((9, 3, 3), 1)
    return MeshStart(target, q, turn.unflatten(1, (3, 3)), rest, position)
