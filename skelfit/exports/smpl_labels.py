"""SMPL people in one label file: the fitted SKEL people, brought back to SMPL."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import OutputError
from skelfit.exports.exported_bodies import check_models
from skelfit.exports.exporter import Exporter, ExportOptions, ExportResult
from skelfit.exports.label_columns import label_columns, without_what_is_not_known
from skelfit.exports.predicted_people import predicted_columns
from skelfit.fitting.backends.compute_device import find_device
from skelfit.fitting.smpl_fitter import SmplFitter
from skelfit.shards.finished_run import FinishedRun, Step, no_step
from skelfit.storage.command_lines import command
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

_SKEL = ("skel_poses", "skel_betas", "skel_trans")
_PARTS = {name: name for name in (*_SKEL, "center", "scale", "gtkps", "keypoints3d", "cam_int")}
_CHUNK = 4096  # people per call: how often a bar moves


class SmplExporter(Exporter):
    """One npz, with the arrays of SMPL people.

    Where all people stand in a known camera, under the names of a CameraHMR release: pose_cam (N,24,3) rad,
    shape (N,10), trans_cam (N,3) m, cam_int (N,3,3) px. Else under those of the package smplx: global_orient (N,1,3)
    and body_pose (N,23,3) rad, betas (N,10), transl (N,3) m; and of people with images, as HMR2 has them, box_center
    (N,2) px, box_size (N,) px and keypoints_2d (N,44,3). In both, gender (N,), pve_mm (N,) to SKEL's skin, and the
    keys of `skel-cf` that say who a person is.
    """

    name = "smpl"
    endings = (".npz",)
    summary = "one label file with SMPL bodies that have SKEL's skin; of a prediction too"
    needs_models = True
    takes_predictions = True

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the file `out`. Raises OutputError also for a name that does not end in .npz."""
        models = options.required_models()
        _check_place(out, options)
        check_models(run, models)
        columns = label_columns(run, _PARTS, no_step)
        for key in ("smpl", "smpl_gender"):  # of the labels that came in
            del columns[key]
        return _write(without_what_is_not_known(columns), models, out, options)

    def write_prediction(self, folder: Location, out: Location, options: ExportOptions) -> ExportResult:
        """The same of a folder of `skelfit predict`."""
        models = options.required_models()
        _check_place(out, options)
        return _write(predicted_columns(folder, models), models, out, options)


def _check_place(out: Location, options: ExportOptions) -> None:
    if out.suffix != ".npz":
        raise OutputError(f"{out}: expected a file name that ends in .npz")
    if out.exists() and not options.overwrite:
        raise OutputError(f"{out}: exists already; choose another name or --overwrite")


def _write(columns: dict[str, Any], models: ModelSet, out: Location, options: ExportOptions) -> ExportResult:
    skel = {key: columns.pop(key) for key in _SKEL}
    gender = columns.pop("skel_gender")
    fitted = _fitted(skel, gender, models, options.step)
    finite = fitted.pop("finite")
    seen = bool((columns.pop("camera") & (columns["coordinates"] == "camera")).all())
    named = _camera_names(columns, fitted) if seen else _plain_names(columns, fitted)
    arrays = named | {"gender": gender, "pve_mm": fitted["pve_mm"]}
    arrays = {key: column[finite] for key, column in arrays.items()}
    write_atomically(out, lambda stream: np.savez(stream, **arrays))
    people, pve = int(finite.sum()), fitted["pve_mm"][finite]
    left = len(finite) - people
    notes = [f"{people} people in {out} (smpl), SMPL's skin {np.mean(pve):.2f} mm from SKEL's in the mean"]
    if left:
        notes.append(f"{left} people are left out: their numbers are not finite")
    if seen:
        notes.append(
            f"next: give it to a trainer as a CameraHMR release, or: {command('convert', '--labels', out)}"
        )
    else:
        notes.append("next: smplx.create(...)(global_orient, body_pose, betas, transl) with these arrays")
    return ExportResult(people, (out.name,), tuple(notes), left)


def _fitted(
    skel: dict[str, NDArray[np.float32]], gender: NDArray[np.str_], models: ModelSet, step: Step
) -> dict[str, NDArray[Any]]:
    """The fits of N people, by field."""
    fitter, parts, order = SmplFitter(models, device=find_device("auto")), [], []
    for name in sorted(set(gender.tolist())):
        rows = np.flatnonzero(gender == name)
        for start in range(0, len(rows), _CHUNK):
            few = rows[start : start + _CHUNK]
            parts.append(fitter.fit(name, *(torch.from_numpy(skel[key][few]) for key in _SKEL)))
            order.append(few)
            step(len(few))
    back = np.argsort(np.concatenate(order))
    names = ("pose", "betas", "transl", "pve_mm", "finite")
    return {name: np.concatenate([getattr(part, name).numpy() for part in parts])[back] for name in names}


def _camera_names(columns: dict[str, Any], fitted: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The columns and the fits under the names of a CameraHMR release."""
    names = {"pose_cam": "pose", "shape": "betas", "trans_cam": "transl"}
    return columns | {key: fitted[name] for key, name in names.items()}


def _plain_names(columns: dict[str, Any], fitted: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The same under the names of smplx and HMR2, without a camera, and without boxes where no person has an image."""
    plain = {key: column for key, column in columns.items() if key != "cam_int"}
    center, scale, points = (plain.pop(key) for key in ("center", "scale", "gtkps"))
    if (plain["imgname"] != "").any():
        plain |= {"box_center": center, "box_size": 200 * scale, "keypoints_2d": points}
    pose = {"global_orient": fitted["pose"][:, :1], "body_pose": fitted["pose"][:, 1:]}
    return plain | pose | {key: fitted[key] for key in ("betas", "transl")}
