"""The people of a folder of `skelfit predict`, as the columns of a label file."""

from __future__ import annotations

from typing import Any

import numpy as np

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import LabelError, ModelError
from skelfit.labels.files.array_files import open_label_file
from skelfit.shards.shard_files import SUMMARY_NAME, ShardError
from skelfit.shards.shard_reader import read_json
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import Location

PEOPLE_NAME, RECORD_NAME = "people.npz", "predict.json"


def is_prediction(folder: Location) -> bool:
    """Whether a folder is one of `skelfit predict`, and not a run."""
    return bool((folder / RECORD_NAME).exists() and not (folder / SUMMARY_NAME).exists())


def predicted_count(folder: Location) -> int:
    """How many people a prediction has, by its record. Raises ShardError."""
    people = read_json(folder / RECORD_NAME).get("people")
    if not isinstance(people, int):
        raise ShardError(folder / RECORD_NAME, "people", "a whole number", repr(people))
    return people


def predicted_columns(folder: Location, models: ModelSet) -> dict[str, Any]:
    """All people of a prediction, in memory, by the keys of `label_columns` that a prediction has.

    Raises ShardError, LabelError for damaged files, and ModelError where the models are not those of the prediction.
    """
    record = read_json(folder / RECORD_NAME)
    gender, of_models = record.get("skel_gender"), record.get("models")
    if gender not in ("male", "female"):
        raise ShardError(folder / RECORD_NAME, "skel_gender", "male or female", repr(gender))
    expected = of_models.get("sha256") if isinstance(of_models, dict) else None
    if expected != models.sha256:
        raise ModelError(models.source, "sha256", f"the models of the prediction, {expected}", models.sha256)
    path = fetched(folder / PEOPLE_NAME, "the people of a prediction", LabelError)
    with open_label_file(path) as arrays:
        photos = arrays.texts("photo")
        box = arrays.numbers("box", (4,), dtype=np.float64)
        numbers = {
            "skel_poses": arrays.numbers("skel_poses", (46,)),
            "skel_betas": arrays.numbers("skel_betas", (10,)),
            "skel_trans": arrays.numbers("skel_trans", (3,)),
            "cam_int": arrays.numbers("cam_int", (3, 3)),
        }
        named = {"sequence": arrays.texts("sequence")} if "sequence" in arrays else {}
        counted = {
            key: arrays.numbers(key, (), dtype=np.float64).astype(np.int64)
            for key in ("person", "frame", "track")
            if key in arrays
        }
    count = len(photos)
    return {
        **numbers,
        **{key: np.array(texts, np.str_) for key, texts in named.items()},
        **counted,
        "imgname": np.array(photos, np.str_),
        "center": (box[:, :2] + box[:, 2:] / 2).astype(np.float32),
        "scale": (box[:, 2:] / 200).astype(np.float32),
        "skel_gender": np.full(count, gender),
        "coordinates": np.full(count, "camera"),
        "camera": np.ones(count, bool),
    }
