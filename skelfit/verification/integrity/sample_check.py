"""One sample and its row: is each whole, and do they agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np

from skelfit.config.fit_settings import RootMode
from skelfit.images.image_bytes import IDENTITY, check_image
from skelfit.shards.label_vector import (
    COORDINATES,
    LABEL_SIZE,
    LAYOUT_VERSION,
    META,
    FloatArray,
    label_from_npy,
    unpack,
)
from skelfit.shards.row_status import CAMERAS, NO_PERSON, PAIRED_MEASURES, PUBLISHED, REFINEMENTS
from skelfit.shards.shard_schema import ShardRow
from skelfit.verification.integrity.damage import Kind

Faults = Iterator[tuple[Kind, str]]  # kind and message of each

KEYPOINT_ORIGINS = ("labels", "skel", "none")  # of 3D keypoints
GENDERS = ("neutral", "male", "female")
_NAMED = ("key", "subset", "label_file", "row", "imgname", "smpl_gender", "skel_gender", "status", "layout")
_META_KEYS = frozenset((*META, *_NAMED, "keypoints3d"))
_ROW_KEYS = frozenset(field.name for field in fields(ShardRow))
_REFINEMENT = "refinement"  # the key of the rows of refined shards
_REFINEMENT_KEYS = ("status", "reason", "seen", "camera", "before", "after", "moved_mm", "shift")
# Keys that are in both the metadata of a sample and its row.
_SHARED = (
    "key row skel_gender target_gender root status sequence frame frame_rate fitted_rate subject".split()
)
_SAME_MM = 2e-4  # lengths are stored to 1e-4 mm in rows, and as float32 in labels


@dataclass(frozen=True)
class SampleOrigin:
    """The subset and label file that a sample must be of."""

    subset: str
    label_file: str | None  # its name; None where the marker does not say


def read_label(members: Mapping[str, bytes]) -> tuple[FloatArray | None, str]:
    """The label vector (LABEL_SIZE,) of a sample; or None, and what is wrong with it."""
    data = members.get("label.npy")
    if data is None:
        return None, "label.npy: no such member"
    label = label_from_npy(data)
    expected = f"{LABEL_SIZE} float32 numbers as numpy writes them"
    return label, "" if label is not None else f"label.npy: expected {expected}, found another file"


def read_meta(members: Mapping[str, bytes]) -> tuple[dict[str, Any] | None, str]:
    """The metadata of a sample; or None, and what is wrong with them."""
    data = members.get("meta.json")
    if data is None:
        return None, "meta.json: no such member"
    try:
        meta = json.loads(data)
    except ValueError as error:
        return None, f"meta.json: expected JSON, found {error}"
    if not isinstance(meta, dict):
        return None, f"meta.json: expected an object, found {type(meta).__name__}"
    if missing := sorted(_META_KEYS - meta.keys()):
        return None, f"meta.json: expected the key {missing[0]!r}, found none"
    return meta, ""


def label_faults(label: FloatArray) -> Faults:
    """The parts of the label vector with numbers that are not finite."""
    if not np.isfinite(label).all():
        for name, part in unpack(label).items():
            if wrong := int((~np.isfinite(part)).sum()):
                yield "parameters", f"label.npy: {name}: {wrong} of {part.size} numbers are not finite"


def meta_faults(meta: Mapping[str, Any], label: FloatArray, origin: SampleOrigin) -> Faults:
    """Metadata with values that they cannot have."""
    expected: dict[str, tuple[Any, ...]] = {
        "subset": (origin.subset,),
        "layout": (LAYOUT_VERSION,),
        "smpl_gender": GENDERS,
        "skel_gender": GENDERS[1:],
        "target_gender": (None,) if meta["smpl"] is False else _targets(meta),
        "root": ("free",) if meta["smpl"] is False else get_args(RootMode),
        "status": PUBLISHED,
        "keypoints3d": KEYPOINT_ORIGINS,
        "coordinates": tuple(COORDINATES),
        "angles": ("canonical" if meta["sequence"] is None else "continuous",),
        **dict.fromkeys(("camera", "smpl", "image"), (True, False)),
    }
    if origin.label_file is not None:
        expected["label_file"] = (origin.label_file,)
    for name, allowed in expected.items():
        if meta[name] not in allowed:
            yield (
                "sample",
                f"meta.json: {name}: expected {' or '.join(map(str, allowed))}, found {meta[name]!r}",
            )
    parts = unpack(label)
    if meta["camera"] is False and parts["cam_int"].any():
        yield "sample", "camera is false, and cam_int is not 0"
    if meta["smpl"] is False and any(parts[name].any() for name in ("smpl_pose", "smpl_betas", "smpl_trans")):
        yield "sample", "smpl is false, and the SMPL parameters are not 0"


def _targets(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """SMPL genders that may have been fitted: the label's own, and for neutral labels also the gender of the SKEL."""
    own, other = str(meta["smpl_gender"]), str(meta["skel_gender"])
    return (own, other) if own == "neutral" else (own,)


def image_faults(meta: Mapping[str, Any], members: Mapping[str, bytes]) -> Faults:
    """An image that is missing, cannot be decoded, or contradicts the metadata."""
    endings = [name for name in members if name not in ("label.npy", "meta.json")]
    if len(endings) != int(meta["image"] is True):
        yield "sample", f"image is {json.dumps(meta['image'])}, and there are {len(endings)} images"
    for ending in endings:
        picture = check_image(members[ending], ending)
        if picture.data is None:
            yield "sample", f"{ending}: {picture.why}"
        elif (
            meta["affine"] == [list(line) for line in IDENTITY]
            and list(picture.size or ()) != meta["image_size"]
        ):
            yield "sample", f"{ending}: expected {meta['image_size']} px, found {list(picture.size or ())}"


def pair_faults(row: Mapping[str, Any], meta: Mapping[str, Any], label: FloatArray) -> Faults:
    """Differences between a sample and its row."""
    for name in _SHARED:
        if meta[name] != row[name]:
            yield "sample", f"{name}: {row[name]!r} in its row, {meta[name]!r} in meta.json"
    if meta.get("refinement") != row.get("refinement"):
        yield "sample", "refinement: that of its row is not that in meta.json"
    if row["image"] not in (None, meta["image"]):
        yield "sample", f"image: {row['image']!r} in its row, {meta['image']!r} in meta.json"
    for name, stored in zip(("pve_mm", "max_vertex_mm"), unpack(label)["errors"].tolist(), strict=True):
        if not abs(stored - row[name]) <= _SAME_MM + 1e-6 * abs(stored):
            yield "sample", f"{name}: {row[name]:.4f} in its row, {stored:.4f} in label.npy"


def row_fault(row: Any, refined: bool | None = None) -> str:
    """What is wrong with the keys and types of a row; '' for nothing.

    refined: whether it is of a refined shard; None: that is not known.
    """
    if not isinstance(row, dict):
        return f"expected a JSON object, found {type(row).__name__}"
    if refined is None:
        refined = _REFINEMENT in row
    if wrong := sorted((_ROW_KEYS if refined else _ROW_KEYS - {_REFINEMENT}) ^ row.keys()):
        return f"expected the keys of a row, found {'no' if wrong[0] in _ROW_KEYS else 'also'} {wrong[0]!r}"
    for names, kinds in (
        (("key", "status", "reason", "digest"), (str,)),
        (("row", "unseen_keypoints"), (int,)),
        (("stage_pve_mm", "betas_mm"), (dict,)),
        (("skel_gender", "target_gender", "root", "sequence", "subject"), (str, type(None))),
        (("image",), (bool, type(None))),
        (("frame",), (int, type(None))),
        (("frame_rate", "fitted_rate"), (int, float, type(None))),
        (("pve_mm", "max_vertex_mm"), (int, float, *(() if row["status"] in PUBLISHED else (type(None),)))),
    ):
        for name in names:
            if not isinstance(row[name], kinds):
                return f"{name}: expected {' or '.join(kind.__name__ for kind in kinds)}, found {row[name]!r}"
    lengths = (*row["stage_pve_mm"].values(), *row["betas_mm"].values())
    if not all(value is None or isinstance(value, (int, float)) for value in lengths):
        return "stage_pve_mm, betas_mm: expected numbers"
    return _refinement_fault(row) if refined else ""


def _refinement_fault(row: Mapping[str, Any]) -> str:
    """What is wrong with what a row of a refined shard says of its refinement."""
    one = row[_REFINEMENT]
    if not isinstance(one, dict) or tuple(one) != _REFINEMENT_KEYS or one["status"] not in REFINEMENTS:
        return f"{_REFINEMENT}: expected {', '.join(_REFINEMENT_KEYS)}, with a status that there is"
    if one["camera"] not in (None, *CAMERAS):
        return f"{_REFINEMENT}: camera: expected null, {' or '.join(CAMERAS)}, found {one['camera']!r}"
    if (one["status"] == NO_PERSON) != (row["status"] not in PUBLISHED):
        return f"{_REFINEMENT}: {one['status']} of a row that is {row['status']}"
    measures = [one[when] for when in ("before", "after")]
    if one["status"] == NO_PERSON:
        return "" if measures == [None, None] else f"{_REFINEMENT}: measures of a row without a person"
    if not all(
        isinstance(part, dict)
        and tuple(part) == PAIRED_MEASURES
        and all(value is None or isinstance(value, (int, float)) for value in part.values())
        for part in measures
    ):
        return f"{_REFINEMENT}: expected {', '.join(PAIRED_MEASURES)} before and after"
    return ""
