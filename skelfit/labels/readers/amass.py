"""Reader of AMASS sequences: one file is one motion, one row is one frame.

`poses` are those of SMPL, SMPL+H or SMPL-X. The 22 joints of the body are used; hands and face are dropped. The
coordinates are those of the file: a room, mostly with z up, which is inferred from the poses. SMPL+H shares SMPL's
betas; those of SMPL-X belong to another body.
"""

from __future__ import annotations

import math

import numpy as np

from skelfit.labels.body_family import (
    BODY_JOINTS,
    MODEL_OF_JOINTS,
    infer_body_model,
    note_shifted_translation,
)
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.impossible_values import LIMITS
from skelfit.labels.label_batch import LabelBatch, LabelProperties, MotionSequence, empty_fields
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import parse_gender, read_shared_betas
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import angle_unit, note_fast_translation, to_float32
from skelfit.labels.world_up import infer_up, infer_world, notes_on_up, trunk_over_limbs

RATES = ("mocap_framerate", "mocap_frame_rate", "fps")
_JOINTS = (BODY_JOINTS, 24, *MODEL_OF_JOINTS)


class AmassReader(LabelReader):
    """The layout of AMASS: one motion a file."""

    layout = "amass"
    version = "amass-4"
    required_keys = (("poses",), ("betas",), ("trans",))
    excluded_keys = ("cam_poses",)
    has_sequences = True

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """All frames of a sequence, checked. Raises LabelError for a fault of the file."""
        notes: list[str] = []
        shapes = [shape for j in _JOINTS for shape in ((3 * j,), (j, 3))]
        poses = arrays.numbers("poses", *shapes, dtype=np.float64)
        n = len(poses)
        joints = math.prod(poses.shape[1:]) // 3
        angles = poses.reshape(n, joints, 3)
        numbers = empty_fields(n)
        model = infer_body_model(arrays, "poses", joints, notes)
        kept = 24 if joints == 24 and model == "SMPL" else BODY_JOINTS
        turned = angles[:, :kept] * angle_unit(arrays, "poses", angles[:, :kept], settings, notes)
        numbers["pose"][:, :kept] = to_float32(turned)
        numbers["betas"][:] = read_shared_betas(arrays, "betas", model == "SMPL-X", notes)
        numbers["transl"] = arrays.numbers("trans", (3,))
        if model == "SMPL-X":
            notes.append(note_shifted_translation("trans"))
        faults = RowFaults(n)
        keys = {"pose": "poses", "betas": "betas", "transl": "trans"}
        given = arrays.use_option("labels_up", settings.options.labels_up)
        # Applied by the job, which has the positions of the bodies' root joints.
        arrays.use_option("up", settings.options.up)
        directions = trunk_over_limbs(numbers["pose"])
        x, y, z = directions.sum(0).tolist()
        telling = int(directions.any(1).sum())
        coordinates = infer_world((x, y, z), telling, given)
        told = infer_up((x, y, z), telling)
        notes += notes_on_up((x, y, z), telling or n, settings.options)
        faults.check(numbers, keys, coordinates, settings.max_abs_beta)
        name, rate = settings.name or arrays.path.stem, _frame_rate(arrays, notes)
        notes += note_fast_translation("trans", numbers["transl"].astype(np.float64), np.arange(n), rate)
        subject = settings.subject
        if (key := arrays.first_key("subject", "subject_id")) is not None:
            subject = arrays.text(key)
        return LabelBatch(
            row=np.arange(n, dtype=np.int64),
            imgname=[""] * n,
            gender=[_gender(arrays, settings)] * n,
            bad=faults.texts(),
            sequences=(MotionSequence(name, subject, rate, 0, n),) if n else (),
            about=LabelProperties(
                coordinates,
                has_camera=False,
                notes=tuple(notes),
                upright=(x, y, z),
                telling=telling,
                told_up=(int(told == "y"), int(told == "z")),
                first_up=(name if told == "y" else "", name if told == "z" else ""),
            ),
            **numbers,
        )


def _gender(arrays: LabelArrays, settings: ReadSettings) -> str:
    if "gender" not in arrays:
        return settings.gender
    text = arrays.text("gender")
    gender = parse_gender(text.removeprefix("b'").removesuffix("'"))
    if gender is None:
        raise arrays.error("gender", "neutral, male or female", repr(text))
    return gender


def _frame_rate(arrays: LabelArrays, notes: list[str]) -> float | None:
    """Frames per second (Hz)."""
    key = arrays.first_key(*RATES)
    if key is None:
        notes.append("no frame rate: the frames have an order, but no times")
        return None
    rate = arrays.number(key)
    low, high = LIMITS.frame_rate_hz
    if not low <= rate <= high:
        raise arrays.error(key, f"frames per second, {low:g} to {high:g}", f"{rate:g}")
    return rate
