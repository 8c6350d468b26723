"""The body model that a file's parameters belong to: SMPL, or a relative with the same body joints.

SMPL-X was trained separately: its betas and the position of its root joint are not SMPL's. SMPL+H is SMPL with fingers:
its body pose and its first ten betas are SMPL's. MANO is a hand and FLAME a head: there is no body to fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from skelfit.errors import LabelError
from skelfit.labels.files.array_files import LabelArrays
from skelfit.storage.surface_files import count_meshes

BodyModel = Literal["SMPL", "SMPL+H", "SMPL-X"]
BODY_JOINTS = 22  # joints that all three have, first and in the same order
MODEL_OF_JOINTS: dict[int, BodyModel] = {52: "SMPL+H", 55: "SMPL-X"}
# By the number of vertices; 18439 is the finest of MHR's levels that SAM 3D Body puts out.
_MESHES = {10475: "SMPL-X", 18439: "MHR (SAM 3D Body)", 5023: "FLAME", 778: "MANO"}
_NO_BODY = ("FLAME", "MANO")

_FACE = frozenset(
    {"jaw_pose", "leye_pose", "reye_pose", "left_eye_pose", "right_eye_pose", "expression"}
    | {"pose_jaw", "pose_eye"}  # as AMASS calls them
)
_HANDS = frozenset({"left_hand_pose", "right_hand_pose", "pose_hand", "hand_pose"})
_POSES = ("body_pose", "pose_body", "poses", "pose", "pose_cam", "full_pose")
_STATED = ("model_type", "surface_model_type", "body_model_type")
_MODELS: tuple[tuple[str, BodyModel], ...] = (("smplx", "SMPL-X"), ("smplh", "SMPL+H"), ("smpl", "SMPL"))
_OTHER_MODELS = ("star", "supr", "ghum", "smil", "skel", "mano", "flame", "anny", "mhr", "adam")


def infer_body_model(arrays: LabelArrays, key: str, joints: int, notes: list[str]) -> BodyModel:
    """The model whose parameters a file has; `key` holds the pose of so many joints, the root included.

    A note says what told the model, and which parameters are used. Raises LabelError where the file names a model that
    is none of the three.
    """
    stated = _stated(arrays)
    face, hands = _among(arrays, _FACE), _among(arrays, _HANDS)
    counted = [f"'{key}' of {joints} joints"] if joints in MODEL_OF_JOINTS else []
    if face or MODEL_OF_JOINTS.get(joints) == "SMPL-X" or "SMPL-X" in stated:
        why = face + (counted if joints == 55 else []) + stated.get("SMPL-X", [])
        notes.append(_note_model("SMPL-X", f"told by {', '.join(why)}"))
        return "SMPL-X"
    if why := counted + hands + stated.get("SMPL+H", []):
        notes.append(_note_model("SMPL+H", f"told by {', '.join(why)}, and nothing of a face"))
        return "SMPL+H"
    if joints == BODY_JOINTS and not stated:
        notes.append(
            f"'{key}': no hands; the betas are taken as SMPL's, though SMPL-X's without hands and face look alike"
        )
    return "SMPL"


def note_stated_model(model: BodyModel, layout: str) -> str:
    """The note on a layout whose parameters are always those of a relative of SMPL."""
    return _note_model(model, f"as {layout} has them")


def _note_model(model: BodyModel, why: str) -> str:
    taken = f"{model} parameters ({why}): the pose's {BODY_JOINTS} joints of the body are taken; "
    if model == "SMPL-X":
        return taken + (
            "hands, jaw, eyes and expression are dropped; betas are not SMPL's and not taken, every body has betas of 0"
        )
    return taken + "the hands are dropped; betas and translations are taken as SMPL's"


def note_dropped_translation(key: str) -> str:
    """The note on an SMPL-X translation in a camera's frame, which is dropped because it must be exact there."""
    return (
        f"'{key}': not taken, every translation is 0; it places SMPL-X's root joint, which is elsewhere in the body "
        "than SMPL's, and how far off only SMPL-X's model and betas tell"
    )


def note_shifted_translation(key: str) -> str:
    """The note on an SMPL-X translation with an arbitrary origin, which is kept."""
    return (
        f"'{key}': kept; it places SMPL-X's root joint, so that SMPL's body is off by the distance of the two root "
        "joints, which is the same in all frames of a person"
    )


def refuse_hands_and_heads(arrays: LabelArrays) -> None:
    """Raise LabelError for a file of hands (MANO) or heads (FLAME) that has no pose of a body."""
    if arrays.first_key(*_POSES) is not None:
        return
    expected = "the pose of a body ('body_pose', 'poses' or 'pose')"
    face = _among(arrays, _FACE)
    if not (keys := face + _among(arrays, _HANDS)):
        return
    kind = "of a head, as of FLAME" if face else "of hands, as of MANO"
    raise arrays.error(None, expected, f"parameters {kind} ({', '.join(keys)}), and none of a body")


def explain_mesh_error(arrays: LabelArrays, error: LabelError, key: str) -> LabelError:
    """The error about a key of meshes, with the name of the model that has this number of vertices, where known."""
    shape = arrays.raw(key, error.expected).shape
    if len(shape) != 3 or shape[2] != 3:
        return error
    if parts := count_meshes(arrays.path):
        return arrays.error(key, error.expected, f"{error.found}: {parts}; export the person's skin alone")
    model = _MESHES.get(shape[1], "another topology")
    actual = f"{error.found}: meshes of {model}, which have to be brought into SMPL's topology first"
    if model not in _NO_BODY:
        actual += ", by --vertex-map FILE; 'skelfit models map' makes that file"
    return arrays.error(key, error.expected, actual)


def _among(arrays: LabelArrays, keys: Iterable[str]) -> list[str]:
    """Which of the names a file has as keys, for any person and at any depth, quoted."""
    return [f"'{name}'" for name in sorted({n.rsplit(".", 1)[-1] for n in arrays.names} & set(keys))]


def _stated(arrays: LabelArrays) -> dict[str, list[str]]:
    """The models that the file itself names, and where."""
    stated: dict[str, list[str]] = {}
    for key in filter(arrays.__contains__, _STATED):
        try:
            value = arrays.raw(key, "the name of a model")
        except LabelError:
            continue  # it holds no text
        if value.dtype.kind not in "US":
            continue
        for text in np.unique(value.astype(np.str_)).tolist():
            plain = "".join(c for c in text.lower().replace("+", "") if c.isalnum())
            model = next((model for start, model in _MODELS if plain.startswith(start)), None)
            if model is None and plain.startswith(_OTHER_MODELS):
                raise arrays.error(key, "parameters of SMPL, SMPL+H or SMPL-X", f"those of {text!r}")
            if model is not None:
                stated.setdefault(model, []).append(f"'{key}' {text!r}")
    return stated
