"""Run by a test in a process of its own: an OpenSim model of a person's pelvis and legs, driven by a motion file.

    python opensim_model.py RIG.npz MOTION.mot OUT.npz

RIG.npz has, for each joint, its `name`, `parent` (-1: the ground), `position` (3,) m and `turn` (3,3) in the frame of
the parent; and, for each coordinate, its `dof_name`, `dof_joint` and `dof_axis`, in their order of rotation. OUT.npz
has the positions of the bodies' origins in the ground, for each row of the motion.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import opensim
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation


def transform(rig: dict[str, NDArray[Any]], joint: int) -> opensim.SpatialTransform:
    """The coordinates of a joint. OpenSim applies its first axis last."""
    spatial = opensim.SpatialTransform()
    own_dofs = [i for i in range(len(rig["dof_name"])) if rig["dof_joint"][i] == joint][::-1]
    axes = [rig["dof_axis"][i] for i in own_dofs]
    while len(axes) < 3:  # axes without a coordinate; they have to differ from the others
        axes.append(np.linalg.svd(np.array(axes))[2][-1])
    for k, axis in enumerate(axes):
        slot = spatial.updTransformAxis(k)
        slot.setAxis(opensim.Vec3(*axis))
        if k < len(own_dofs):
            slot.setCoordinateNames(opensim.ArrayStr(str(rig["dof_name"][own_dofs[k]]), 1))
        slot.set_function(opensim.LinearFunction(1, 0) if k < len(own_dofs) else opensim.Constant(0))
    if rig["parent"][joint] < 0:
        for k, axis in enumerate("xyz"):
            slot = spatial.updTransformAxis(3 + k)
            slot.setCoordinateNames(opensim.ArrayStr(f"pelvis_t{axis}", 1))
            slot.set_function(opensim.LinearFunction(1, 0))
    return spatial


def main(rig_path: str, motion_path: str, out_path: str) -> None:
    rig = dict(np.load(rig_path))
    model, bodies = opensim.Model(), []
    for j, name in enumerate(rig["name"].tolist()):
        bodies.append(opensim.Body(name, 1.0, opensim.Vec3(0), opensim.Inertia(1)))
        model.addBody(bodies[-1])
        parent = model.getGround() if rig["parent"][j] < 0 else bodies[rig["parent"][j]]
        turn = Rotation.from_matrix(rig["turn"][j]).as_euler("XYZ")
        position = opensim.Vec3(*rig["position"][j])
        zero = opensim.Vec3(0)
        rest = (position, opensim.Vec3(*turn), bodies[-1], zero, zero, transform(rig, j))
        model.addJoint(opensim.CustomJoint(f"{name}_joint", parent, *rest))
    state = model.initSystem()
    table = opensim.TimeSeriesTable(motion_path)
    values = dict(zip(table.getColumnLabels(), table.getMatrix().to_numpy().T, strict=True))
    coordinates = model.getCoordinateSet()
    names = [coordinates.get(i).getName() for i in range(coordinates.getSize())]
    assert len(names) == len(rig["dof_name"]) + 3, names
    positions = np.empty((table.getNumRows(), len(bodies), 3))
    for row in range(len(positions)):
        for name in names:
            value = values[name][row]
            value = value if name.startswith("pelvis_t") and name[-1] in "xyz" else np.radians(value)
            coordinates.get(name).setValue(state, float(value), False)
        model.realizePosition(state)
        for j, body in enumerate(bodies):
            at = body.getPositionInGround(state)
            positions[row, j] = [at.get(0), at.get(1), at.get(2)]
    np.savez(out_path, positions=positions)


if __name__ == "__main__":
    main(*sys.argv[1:])
