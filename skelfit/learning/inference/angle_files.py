"""The angles of one person over the time of a video: OpenSim's `.mot` and `.trc`, and a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.angle_continuity import make_continuous
from skelfit.bodies.dofs import ROOT_DOFS
from skelfit.exports.exported_bodies import GROUND_AXES
from skelfit.exports.opensim_files.motion import CENTER_NAMES, MARKERS, OpenSimMotion, root_angles
from skelfit.exports.opensim_files.motion_texts import mot_text, trc_text
from skelfit.learning.inference.predictor import PredictedPeople
from skelfit.storage.atomic_write import atomic_write

Array = NDArray[np.float64]
_COORDINATES = "camera"  # of predictions
# SKEL's pelvis at rest in the body's frame (x left, y up, z forward): its axes (x forward, y up, z right) as columns.
PELVIS_AT_REST = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])


def marked_points(people: PredictedPeople) -> NDArray[np.float32]:
    """The skin points (N,M,3) m of a `.trc`."""
    return people.skin[:, list(MARKERS.values())]


def motion_of(name: str, columns: dict[str, NDArray[np.generic]]) -> OpenSimMotion:
    """The motion of T frames of one person, at least two.

    columns: `time` (T,) s, `frame` (T,), `skel_poses` (T,46) rad, `global_orient` (T,3,3), `joints` (T,24,3) m and
    `markers` (T,M,3) m, all of the camera.
    """
    ground, times = GROUND_AXES[_COORDINATES], np.asarray(columns["time"], np.float64)
    angles = np.asarray(columns["skel_poses"], np.float64).copy()
    pelvis = np.asarray(columns["global_orient"], np.float64) @ PELVIS_AT_REST
    angles[:, list(ROOT_DOFS)] = root_angles(pelvis, ground)
    joints, markers = (np.asarray(columns[each], np.float64) @ ground.T for each in ("joints", "markers"))
    return OpenSimMotion(
        name=name,
        times=times,
        frames=columns["frame"].tolist(),
        rate=(len(times) - 1) / (times[-1] - times[0]),
        in_time=True,
        angles=make_continuous(angles),
        pelvis=joints[:, 0],
        markers=np.concatenate([joints, markers], axis=1),
        marker_names=(*CENTER_NAMES, *MARKERS),
        coordinates=_COORDINATES,
    )


def write_motion(folder: Path, motion: OpenSimMotion) -> list[str]:
    """Write NAME.mot, NAME.trc and NAME.png; returns these names. Raises OutputError."""
    for ending, text in ((".mot", mot_text(motion)), (".trc", trc_text(motion))):
        with atomic_write(folder / (motion.name + ending)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    from skelfit.learning.inference.angle_plot import plot  # matplotlib takes time to import

    with atomic_write(folder / f"{motion.name}.png") as temporary:
        plot(motion).savefig(temporary, dpi=100, format="png")
    return [motion.name + ending for ending in (".mot", ".trc", ".png")]
