"""Finished runs of made-up people, written without a fit, and exports of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from job_fakes import CAMERA_META
from numpy.typing import NDArray

from skelfit.bodies.dofs import dof_limits
from skelfit.config.identity import mapping_hash
from skelfit.exports.exporter import ExportOptions, ExportResult
from skelfit.exports.formats import EXPORTERS
from skelfit.shards.content_seal import sealed
from skelfit.shards.finished_run import open_run
from skelfit.shards.label_vector import FIELDS, pack, schema, unpack
from skelfit.shards.row_statistics import Summary
from skelfit.shards.shard_files import SCHEMA_NAME, SUMMARY_NAME, ShardFiles, list_shards, shard_name
from skelfit.shards.shard_reader import read_rows
from skelfit.shards.shard_schema import ShardRow, ShardSample
from skelfit.shards.shard_writer import write_shard
from skelfit.storage.hashed_write import write_json

SUBSET = "people"
Fields = dict[str, NDArray[np.float32]]


def make_fields(people: int, seed: int = 0) -> Fields:
    """Poses within the limits; everything else random numbers of the right shape."""
    rng = np.random.default_rng(seed)
    fields = {f.name: rng.normal(size=(people, *f.shape)).astype(np.float32) for f in FIELDS}
    low, high = np.clip(dof_limits(), -1.0, 1.0).T
    fields["skel_poses"] = rng.uniform(low, high, (people, 46)).astype(np.float32)
    fields["skel_trans"][:] += [0, 0, 5]
    fields["scale"] = np.repeat(rng.uniform(1, 2, (people, 1)), 2, axis=1).astype(np.float32)
    fields["errors"] = rng.uniform(5, 50, (people, 2)).astype(np.float32)
    fields["keypoints3d"][..., 3] = 1
    return unpack(pack(fields))


def make_metas(people: int, **changes: Sequence[Any]) -> list[dict[str, Any]]:
    """Metadata as a conversion writes it; `changes` give a value for each person."""
    return [
        {
            "key": f"{SUBSET}-0-{i:08d}",
            "subset": SUBSET,
            "label_file": "people.npz",
            "row": i,
            "imgname": f"train/{i:06d}.jpg",
            "smpl_gender": "neutral",
            "skel_gender": "female" if i % 3 == 0 else "male",
            "status": "ok",
            "keypoints3d": "labels",
            "image": False,
            "image_size": None,
            "affine": None,
            **CAMERA_META,
            **{key: values[i] for key, values in changes.items()},
        }
        for i in range(people)
    ]


def write_run(
    folder: Path,
    fields: Fields,
    metas: Sequence[Mapping[str, Any]],
    *,
    models_sha256: str = "0" * 64,
    images: Mapping[int, tuple[str, bytes]] | None = None,
    shard_size: int = 8,
    origins: Sequence[Mapping[str, str]] = (),
    subset: str = SUBSET,
) -> Path:
    """Write these people as a finished run of one label file; `images` are ending and bytes, by row."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = pack(fields)
    source = {"name": "people.npz", "sha256": "1" * 64, "rows": len(metas), "source": "camerahmr"}
    identity: dict[str, Any] = {"subset": subset, "labels": [source], "models_sha256": models_sha256}
    identity |= {"pipeline": {"name": "fake"}, "algorithm": 1, "limits": "hsmr"}
    for start in range(0, len(metas), shard_size):
        stop = min(start + shard_size, len(metas))
        entries = [_entry(i, labels[i], metas[i], (images or {}).get(i)) for i in range(start, stop)]
        files = ShardFiles(folder, shard_name(subset, start // shard_size))
        write_shard(files, entries, identity, (start, stop))
    shards = list_shards(folder, subset)
    rows = [row for files in shards for row in read_rows(files.sidecar)]
    summary = {
        "subset": subset,
        **Summary.of_rows(rows).to_json(),
        "shards": len(shards),
        "identity": identity,
    }
    summary |= {
        "identity_sha256": mapping_hash(identity),
        "filters": {},
        "rejected": {},
        "origins": list(origins),
    }
    write_json(folder / SCHEMA_NAME, schema())
    write_json(folder / SUMMARY_NAME, sealed(summary))
    return folder


def export(name: str, run_folder: Path, out: Path, options: ExportOptions | None = None) -> ExportResult:
    """Export a finished run in the format of this name."""
    return EXPORTERS[name].write(open_run(run_folder), out, options or ExportOptions())


def _entry(
    i: int, label: NDArray[np.float32], meta: Mapping[str, Any], image: tuple[str, bytes] | None
) -> tuple[ShardRow, ShardSample]:
    ending, data = image or ("", None)
    errors = unpack(label)["errors"].tolist()
    row = ShardRow(
        key=meta["key"],
        row=i,
        status=meta["status"],
        reason="",
        pve_mm=round(errors[0], 4),
        max_vertex_mm=round(errors[1], 4),
        stage_pve_mm={"full": round(errors[0], 4)},
        skel_gender=meta["skel_gender"],
        target_gender=meta["target_gender"],
        root=meta["root"],
        betas_mm={"transferred": 9.0, "refined": 10.0},
        unseen_keypoints=0,
        image=None,
        sequence=meta["sequence"],
        frame=meta["frame"],
        frame_rate=meta["frame_rate"],
        fitted_rate=meta["fitted_rate"],
        subject=meta["subject"],
    )
    return row, ShardSample(meta["key"], label, meta, data, ending)
