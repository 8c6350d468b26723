"""Run by tests in a process of its own, where an export lies: what OpenSim makes of a model and its motion.

    python opensim_runs.py NAME STATES.npz OUT.npz

STATES.npz has `names` of coordinates, and their `values`, `speeds` and `accelerations` (N,C) in rad and m. OUT.npz has,
of NAME.osim: `coordinates` with their `ranges` and `defaults`; `gravity` and the `floor`; `markers` (T,M,3) m of
`labels` in each row of NAME.mot; the `ik` angles (T,C) in degrees and m that NAME-ik.xml gives; `forces` (N,C) of the
states by inverse dynamics, and `id_forces` (T,C) of NAME-id.xml.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import opensim
from numpy.typing import NDArray

Array = NDArray[Any]


def table(path: str) -> dict[str, Array]:
    read = opensim.TimeSeriesTable(path)
    return dict(zip(read.getColumnLabels(), read.getMatrix().to_numpy().T, strict=True))


def is_length(name: str) -> bool:
    return name in ("pelvis_tx", "pelvis_ty", "pelvis_tz")


def half_space(model: Any) -> Array:
    """(2,3): a point of the only contact geometry, and where its inside is; NaN where there is none."""
    geometries = model.getContactGeometrySet()
    if geometries.getSize() == 0:
        return np.full((2, 3), np.nan)
    space = geometries.get(0)
    assert geometries.getSize() == 1 and space.getConcreteClassName() == "ContactHalfSpace"
    assert space.getFrame().getAbsolutePathString() == "/ground"
    where, place = space.getTransform(), space.get_location()
    inside = where.R().asMat33()  # its first column
    return np.array([[place.get(i) for i in range(3)], [inside.get(i, 0) for i in range(3)]])


def driven(model: Any, state: Any, motion: dict[str, Array], labels: list[str]) -> Array:
    """Marker positions in the ground, in each row of a motion."""
    coordinates, markers = model.getCoordinateSet(), model.getMarkerSet()
    rows = len(next(iter(motion.values())))
    positions = np.empty((rows, len(labels), 3))
    for row in range(rows):
        for name, values in motion.items():
            value = values[row] if is_length(name) else np.radians(values[row])
            coordinates.get(name).setValue(state, float(value), False)
        model.realizePosition(state)
        positions[row] = [markers.get(name).getLocationInGround(state).to_numpy() for name in labels]
    return positions


def inverse_dynamics(model: Any, state: Any, states: dict[str, Array]) -> Array:
    """Generalized forces (N,C) at states, in the order of their names."""
    coordinates, names = model.getCoordinateSet(), states["names"].tolist()
    places = []  # of each coordinate among Simbody's speeds
    for name in names:
        state.updU().setToZero()
        coordinates.get(name).setSpeedValue(state, 1.0)
        places.append(int(np.argmax(state.getU().to_numpy())))
    solver, forces = opensim.InverseDynamicsSolver(model), []
    for values, speeds, accelerations in zip(
        states["values"], states["speeds"], states["accelerations"], strict=True
    ):
        for name, value, speed in zip(names, values, speeds, strict=True):
            coordinates.get(name).setValue(state, float(value), False)
            coordinates.get(name).setSpeedValue(state, float(speed))
        model.realizeVelocity(state)
        wanted = opensim.Vector(len(names), 0.0)
        for place, acceleration in zip(places, accelerations, strict=True):
            wanted[place] = float(acceleration)
        forces.append(solver.solve(state, wanted).to_numpy()[places])
    return np.array(forces)


def main(name: str, states_path: str, out_path: str) -> None:
    model = opensim.Model(f"{name}.osim")
    state = model.initSystem()
    found = [model.getCoordinateSet().get(i) for i in range(model.getCoordinateSet().getSize())]
    names = [coordinate.getName() for coordinate in found]
    motion = table(f"{name}.mot")
    assert opensim.Storage(f"{name}.mot").isInDegrees()
    labels = list(opensim.TimeSeriesTableVec3(f"{name}.trc").getColumnLabels())
    results: dict[str, Any] = {
        "coordinates": names,
        "ranges": [[c.getRangeMin(), c.getRangeMax()] for c in found],
        "defaults": [c.getDefaultValue() for c in found],
        "mass": model.getTotalMass(state),
        "gravity": model.getGravity().to_numpy(),
        "floor": half_space(model),
        "labels": labels,
        "markers": driven(model, state, motion, labels),
        "forces": inverse_dynamics(model, state, dict(np.load(states_path))),
    }
    assert opensim.InverseKinematicsTool(f"{name}-ik.xml").run()
    ik = table(f"{name}_ik.mot")
    assert opensim.InverseDynamicsTool(f"{name}-id.xml").run()
    forces = table(f"{name}_id.sto")
    results["ik"] = np.stack([ik[n] for n in names], 1)
    results["id_forces"] = np.stack([forces[n + ("_force" if is_length(n) else "_moment")] for n in names], 1)
    np.savez(out_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
