"""The body parts that the start of a mesh fit aligns with a mesh, as tables for `kernels/mesh_alignment.py`."""

# Warp reads the annotations of a struct, so they cannot be postponed here.
import numpy as np
import warp as wp

from skelfit.bodies.dofs import NUM_JOINTS
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.start.angle_tables import table

# The rotation of a part relative to the part before it becomes that of SMPL's joint:
# (SKEL joint of the part, SKEL joint of the part before it, SMPL joint)
PARTS: tuple[tuple[int, int, int], ...] = (
    (0, -1, 0),  # pelvis
    (1, 0, 2), (2, 1, 5), (4, 2, 8), (5, 4, 11),  # right leg: femur, tibia, calcn, toes
    (6, 0, 1), (7, 6, 4), (9, 7, 7), (10, 9, 10),
    (11, 0, 3), (12, 11, 6), (13, 12, 12),  # lumbar, thorax, head
    (15, 12, 17), (16, 15, 19), (18, 16, 21),  # right arm: humerus, ulna, hand
    (20, 12, 16), (21, 20, 18), (23, 21, 20),
)  # fmt: skip
# A part is the vertices with at least this share of its joint's largest skinning weight. They count by a power of it.
_SHARE, _POWER = 0.75, 4
_ENOUGH = 64  # vertices are enough for a rotation; of more, every second or third or so is used


@wp.struct
class BodyParts:
    """N vertices of P rigid parts, one part after the other; a vertex may be of several."""

    before: wp.array(dtype=int)  # (P,) the part before each; -1: none
    part: wp.array(dtype=int)  # (24,) the part that rotates each of SMPL's joints; -1: none
    first: wp.array(dtype=int)  # (P + 1,) where a part's vertices start
    vertices: wp.array(dtype=int)  # (N,) of the mesh
    weights: wp.array(dtype=float)  # (N,) they sum to 1 in each part
    rest: wp.array2d(dtype=float)  # (N, 3) m, at rest, of betas 0
    speeds: wp.array3d(dtype=float)  # (N, 3, K) m per beta


def part_weights(model: SkelModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """The vertices (n,) of each part and their weights (n,), which sum to 1."""
    parts = []
    for joint, _, _ in PARTS:
        weight = model.weights[:, joint].double().cpu().numpy()
        chosen = np.flatnonzero(weight >= _SHARE * weight.max())
        chosen = chosen[:: max(len(chosen) // _ENOUGH, 1)]
        power = weight[chosen] ** _POWER
        parts.append((chosen, power / power.sum()))
    return parts


def make_parts(model: SkelModel, device: str) -> BodyParts:
    """The parts of a SKEL body, on a device of Warp."""
    index = {joint: k for k, (joint, _, _) in enumerate(PARTS)}
    chosen, weights = zip(*part_weights(model), strict=True)
    vertices = np.concatenate(chosen)
    part = np.full(NUM_JOINTS, -1)
    for joint, _, smpl_joint in PARTS[1:]:
        part[smpl_joint] = index[joint]
    tables = {
        "before": [index.get(before, -1) for _, before, _ in PARTS],
        "part": part,
        "first": np.cumsum([0, *map(len, chosen)]),
        "vertices": vertices,
        "weights": np.concatenate(weights),
        "rest": model.v_template.double().cpu().numpy()[vertices],
        "speeds": model.shapedirs.double().cpu().numpy()[vertices],
    }
    parts = BodyParts()
    for name, values in tables.items():
        setattr(parts, name, table(values, device))
    return parts
