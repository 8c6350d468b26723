"""Finished shards to the files that other trainers read. Reads tars and markers only, never a body model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skelfit.errors import OutputError
from skelfit.layout import unpack
from skelfit.shards import (
    SUMMARY_NAME,
    ShardError,
    check_shard,
    list_shards,
    read_json,
    read_marker,
    read_samples,
    write_atomically,
)

# The keys of SKEL-CF's `X-release-skel.npz`, and besides them skel_trans; all are fields of a label vector.
_SKEL_CF = ("center", "skel_poses", "skel_betas", "gtkps", "keypoints3d", "cam_int", "skel_trans")


def export_skel_cf(folder: Path, out: Path, *, overwrite: bool = False) -> int:
    """Write the npz that SKEL-CF's trainer reads; returns the number of people.

    Keys: imgname (N,) unicode; scale (N,) px/200, or (N,2) where a box is not square; center (N,2) px;
    skel_poses (N,46) rad; skel_betas (N,10); skel_trans (N,3) m; gtkps (N,44,3) px + confidence; keypoints3d
    (N,44,4) m + confidence; cam_int (N,3,3) px; row (N,) int64, index in the label file. Raises ShardError when the
    folder is not a complete run, OutputError when `out` exists and `overwrite` is not set.
    """
    if out.suffix != ".npz":
        raise OutputError(f"{out}: expected a file name that ends in .npz")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or --overwrite")
    labels, metas = _read_run(folder)
    if not labels:
        raise ShardError(folder, None, "at least one person in the shards", "none")
    fields = unpack(np.array(labels, np.float32))
    scale = fields["scale"]
    arrays: dict[str, Any] = {
        "imgname": np.array([meta["imgname"] for meta in metas], dtype=np.str_),
        "scale": scale[:, 0] if (scale[:, 0] == scale[:, 1]).all() else scale,
        **{name: fields[name] for name in _SKEL_CF},
        "row": np.array([meta["row"] for meta in metas], dtype=np.int64),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda stream: np.savez(stream, **arrays))
    return len(labels)


def _read_run(folder: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    """Labels and metadata of all people of a complete run, in the order of the shards."""
    summary = read_json(folder / SUMMARY_NAME)
    try:
        subset, shards, rows_out = summary["subset"], summary["shards"], summary["rows_out"]
    except KeyError as error:
        raise ShardError(folder / SUMMARY_NAME, error.args[0], "a value", "no such key") from None
    found = list_shards(folder, subset)
    if len(found) != shards:
        raise ShardError(folder, None, f"the {shards} shards of the summary", f"{len(found)}")
    labels: list[Any] = []
    metas: list[dict[str, Any]] = []
    for files in found:
        marker = read_marker(files)
        check_shard(files, marker)
        before = len(labels)
        for _, label, meta in read_samples(files.tar):
            labels.append(label)
            metas.append(meta)
        if len(labels) - before != marker.rows_out:
            raise ShardError(files.tar, None, f"{marker.rows_out} samples", f"{len(labels) - before}")
    if len(labels) != rows_out:
        raise ShardError(
            folder / SUMMARY_NAME, "rows_out", f"{len(labels)}, as the shards have", str(rows_out)
        )
    return labels, metas
