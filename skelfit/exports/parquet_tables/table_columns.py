"""The columns of the tables: names, types, units and meanings. Needs no pyarrow, so a card can list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.shards.label_vector import FIELDS, META

TABLE_VERSION = "skelfit-table-1"


@dataclass(frozen=True)
class Column:
    """One column. A value is null where it is not known or does not apply."""

    name: str
    kind: str  # string, bool, int64, float32 or float64, as Arrow names them
    unit: str  # '' for texts, flags and counts
    meaning: str
    shape: tuple[int, ...] = ()  # of each value: () is a number or text, (10,) a list, (3, 3) a list of lists

    def about(self) -> dict[str, Any]:
        """Plain data, for a file's metadata."""
        return {"name": self.name, "unit": self.unit, "shape": list(self.shape), "meaning": self.meaning}


_FIELDS = {field.name: field for field in FIELDS}


def _vector(name: str, meaning: str = "") -> Column:
    """A part of the label vector, as it is."""
    field = _FIELDS[name]
    return Column(name, "float32", field.unit, meaning or field.meaning, field.shape)


def _frame_columns() -> tuple[Column, ...]:
    """Which frame of which motion a person is."""
    return (
        Column("sequence", "string", "", META["sequence"]),
        Column("frame", "int64", "", META["frame"]),
        Column("frame_rate", "float64", "Hz", META["frame_rate"]),
        Column("fitted_rate", "float64", "Hz", META["fitted_rate"]),
        Column("subject", "string", "", META["subject"]),
    )


# What a row or a person names itself by, and what became of it.
NAMING: tuple[Column, ...] = (
    Column("key", "string", "", "key of the sample in its tar: SUBSET-FILE-ROW"),
    Column("subset", "string", "", "name of the subset"),
    Column("shard", "string", "", "the shard: SHARD.tar holds the sample, SHARD.rows.jsonl the row"),
    Column("label_file", "string", "", "name of the label file"),
    Column("row", "int64", "", "index in the label file, from 0 on"),
    Column("status", "string", "", "what became of the row: ok and limit_violation are published"),
    Column("reason", "string", "", "why, where the status or a missing image needs a reason"),
)
# Columns of a person that stand in the metadata of the sample, and their names there.
OF_METADATA: Mapping[str, Column] = {
    "imgname": Column("imgname", "string", "", "name of the image, as the label file has it"),
    "image": Column("has_image", "bool", "", META["image"]),
    "image_size": Column("image_size", "int64", "px", META["image_size"], (2,)),
    "affine": Column(
        "affine",
        "float64",
        "px",
        "from px of the source image, whose numbers the label holds, to px of the image",
        (2, 3),
    ),
    "smpl_gender": Column("smpl_gender", "string", "", "gender of the SMPL label"),
    "skel_gender": Column("skel_gender", "string", "", "gender of the SKEL body that was fitted"),
    "target_gender": Column("target_gender", "string", "", META["target_gender"]),
    "root": Column("root", "string", "", META["root"]),
    "coordinates": Column("coordinates", "string", "", "what poses, translations and points are relative to"),
    "camera": Column("has_camera", "bool", "", "whether cam_int is known"),
    "smpl": Column(
        "has_smpl", "bool", "", "whether SMPL parameters are known; false: SKEL was fitted to a mesh"
    ),
    "keypoints3d": Column(
        "keypoints3d", "string", "", "where the 3D keypoints in the tar are from: labels, skel or none"
    ),
    "angles": Column("angles", "string", "", META["angles"]),
    **{column.name: column for column in _frame_columns()},
}
ANGLES: tuple[Column, ...] = tuple(
    Column(name, "float32", "rad", f"SKEL's degree of freedom {i} of {len(DOF_NAMES)}: skel_poses[{i}]")
    for i, name in enumerate(DOF_NAMES)
)
# Parts of the label vector, by what the metadata must say for them to be known; '' for nothing.
VECTORS: Mapping[str, tuple[Column, ...]] = {
    "": tuple(_vector(name) for name in ("skel_betas", "skel_trans", "center", "scale")),
    "smpl": tuple(_vector(name) for name in ("smpl_pose", "smpl_betas", "smpl_trans")),
    "camera": (_vector("cam_int", "intrinsic matrix of the camera, row by row"),),
}
ERRORS: tuple[Column, ...] = (
    Column("pve_mm", "float32", "mm", "mean distance of SKEL's skin vertices to SMPL's, of target_gender"),
    Column("max_vertex_mm", "float32", "mm", "the largest of these distances"),
)
PEOPLE: tuple[Column, ...] = (
    *NAMING, *OF_METADATA.values(), *ERRORS, *ANGLES, *(column for part in VECTORS.values() for column in part),
)  # fmt: skip


def row_columns(stages: Sequence[str], betas_steps: Sequence[str]) -> tuple[Column, ...]:
    """The columns of the table of all input rows; stages and steps: as the rows of the run name them."""
    distance = "as in the people's table, rounded to 0.1 micrometre; null: no finite fit"
    return (
        *NAMING,
        Column("published", "bool", "", "whether a sample and a line in the people's table are there"),
        Column("pve_mm", "float64", "mm", distance),
        Column("max_vertex_mm", "float64", "mm", distance),
        *(Column(f"pve_mm_{name}", "float64", "mm", f"pve_mm after the stage {name}") for name in stages),
        *(
            Column(f"betas_mm_{name}", "float64", "mm", f"RMS distance of the skins at rest, betas {name}")
            for name in betas_steps
        ),
        Column("unseen_keypoints", "int64", "", "2D keypoints whose confidence a filter set to 0"),
        Column("has_image", "bool", "", "whether the image is there; null: no image was asked for"),
        OF_METADATA["skel_gender"],
        OF_METADATA["target_gender"],
        OF_METADATA["root"],
        *_frame_columns(),
    )
