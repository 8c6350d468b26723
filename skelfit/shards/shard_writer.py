"""Write a shard: a WebDataset tar, a sidecar with every input row, and the done marker.

Equal samples give byte-identical tars and sidecars: no clock, user or host enters them. Each file is written
under a temporary name and renamed, so a file under its own name is whole. The marker is written last and says
that the three belong together.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from skelfit.config.identity import mapping_hash
from skelfit.shards.content_seal import sealed
from skelfit.shards.label_vector import label_to_npy
from skelfit.shards.sample_tar import sample_tar
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_schema import ShardMarker, ShardRow, ShardSample
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.hashed_write import write_atomically, write_json

# Made once: making an encoder takes as long as a row's JSON.
_to_json = json.JSONEncoder(allow_nan=False, check_circular=False).encode
_NO_DIGEST = ', "digest": ""}'  # the end of a row's JSON before it has its digest


def write_shard(
    files: ShardFiles,
    entries: Iterable[tuple[ShardRow, ShardSample | None]],
    identity: Mapping[str, Any],
    span: tuple[int, int],
    labels_sha256: str = "",
) -> ShardMarker:
    """Write tar, sidecar and, last, the marker. Raises OutputError.

    entries: every input row, in order, and its sample, None where the row is not published; taken one by one.
    span: first row of the label file, and one past the last; the rows must be exactly these.
    labels_sha256: hash of the label rows that came in, for the marker.
    """
    # A marker of an earlier attempt must not stand beside files that are being replaced.
    remove_file(files.marker)
    numbers: list[int] = []
    lines: list[bytes] = []
    statuses: Counter[str] = Counter()
    rejected: Counter[str] = Counter()

    def write_tar(stream: io.RawIOBase) -> None:
        with sample_tar(stream) as tar:
            for row, sample in entries:
                members = {} if sample is None else _members(sample)
                numbers.append(row.row)
                lines.append(_line(row, members))
                statuses[row.status] += 1
                if sample is not None:
                    tar.write(sample.key, members)
                else:
                    rejected[f"{row.status}: {reason_kind(row.reason)}"] += 1
        if numbers != list(range(*span)):
            raise ValueError(f"{files.name}: the sidecar rows are not those of {span}")

    tar_record = write_atomically(files.tar, write_tar)
    sidecar_record = write_atomically(files.sidecar, lambda stream: stream.write(b"".join(lines)))
    marker = ShardMarker(
        name=files.name,
        start=span[0],
        stop=span[1],
        rows_in=len(lines),
        rows_out=len(lines) - rejected.total(),
        statuses=dict(sorted(statuses.items())),
        rejected=dict(sorted(rejected.items())),
        tar=tar_record,
        sidecar=sidecar_record,
        identity_sha256=mapping_hash(identity),
        identity=identity,
        labels_sha256=labels_sha256,
    )
    write_json(files.marker, sealed(asdict(marker)))
    return marker


def reason_kind(reason: str) -> str:
    """The first of a row's reasons, without its numbers: 'pve_mm 25.00 > 20' is a case of 'pve_mm'."""
    return re.split(r"; |: | -?\d", reason, maxsplit=1)[0]


def row_digest(row: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    """A digest that tells which row or sample of a damaged shard is the damaged one.

    The first 16 hex digits of the sha256 of the row's JSON without its digest, and of the name and bytes of each
    member of its sample, in the order of the tar.
    """
    return _digest(_to_json({key: value for key, value in row.items() if key != "digest"}), members)


def _digest(line: str, members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(line.encode())
    for name in sorted(members):
        digest.update(name.encode())
        digest.update(members[name])
    return digest.hexdigest()[:16]


def _line(row: ShardRow, members: Mapping[str, bytes]) -> bytes:
    """The line of a row in the sidecar. The digest is its last key, so that its JSON is made once."""
    content = vars(row)
    if row.refinement is None:
        content = {key: value for key, value in content.items() if key != "refinement"}
    text = _to_json(content).removesuffix(_NO_DIGEST)
    return f'{text}, "digest": "{_digest(text + "}", members)}"}}\n'.encode()


def _members(sample: ShardSample) -> dict[str, bytes]:
    if "." in sample.key or "/" in sample.key:
        raise ValueError(f"{sample.key}: a WebDataset key must not contain a dot or a slash")
    members = {
        "label.npy": label_to_npy(sample.label),
        "meta.json": _to_json(sample.meta).encode(),
    }
    if sample.image is not None:
        members[sample.extension] = sample.image
    return members
