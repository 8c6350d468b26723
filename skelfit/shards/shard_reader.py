"""Read a shard and check it against its marker. Other readers of the tar need nothing of skelfit."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby, islice
from typing import IO, Any

import numpy as np

from skelfit.shards.content_seal import SEAL, is_broken, unsealed
from skelfit.shards.label_vector import FloatArray
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.hashed_write import FileRecord
from skelfit.storage.locations import Location
from skelfit.storage.path_checks import require_regular_file

_ROWS_AT_A_TIME = 1000


def read_json(path: Location) -> dict[str, Any]:
    """Read a JSON object. Raises ShardError."""
    require_regular_file(path, "a JSON file", ShardError)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ShardError(path, None, "a JSON file", "no such file") from None
    except (OSError, ValueError) as error:
        raise ShardError(path, None, "a readable JSON file", str(error)) from None
    if not isinstance(content, dict):
        raise ShardError(path, None, "a JSON object", type(content).__name__)
    return content


def read_marker(files: ShardFiles) -> ShardMarker:
    """The marker of a shard. Raises ShardError when it is missing or damaged."""
    content = read_json(files.marker)
    if is_broken(content):
        raise ShardError(files.marker, SEAL, "the hash of the rest of the marker", "another one")
    return marker_of(files, content)


def marker_of(files: ShardFiles, content: Mapping[str, Any]) -> ShardMarker:
    """The marker of a shard by what its file holds, whatever its seal says. Raises ShardError."""
    content = unsealed(content)
    try:
        records = {key: FileRecord(**content[key]) for key in ("tar", "sidecar")}
        marker = ShardMarker(**{**content, **records})
    except (KeyError, TypeError) as error:
        raise ShardError(files.marker, None, "a done marker of skelfit", repr(error)) from None
    if marker.name != files.name or not isinstance(marker.identity, dict):
        raise ShardError(files.marker, "name", files.name, repr(marker.name))
    return marker


def check_shard(files: ShardFiles, marker: ShardMarker, *, hash_tar: bool = False) -> None:
    """Raise ShardError unless the files are those that the marker tells of.

    The tar is compared by size, and by content only with `hash_tar`, which reads all images.
    """
    for path, record in ((files.tar, marker.tar), (files.sidecar, marker.sidecar)):
        try:
            size: int | None = path.stat().st_size
        except FileNotFoundError:
            size = None
        except OSError as error:
            raise ShardError(path, None, f"{record.bytes} bytes", str(error)) from None
        if size != record.bytes:
            raise ShardError(
                path, None, f"{record.bytes} bytes", "no such file" if size is None else f"{size}"
            )
        if path == files.sidecar or hash_tar:
            with path.open("rb") as stream:
                sha256 = _sha256(stream)
            if sha256 != record.sha256:
                raise ShardError(path, "sha256", record.sha256, sha256)


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_rows(path: Location) -> Iterator[dict[str, Any]]:
    """The rows of a sidecar as plain data. Raises ShardError."""
    require_regular_file(path, "a readable sidecar", ShardError)
    try:
        with path.open(encoding="utf-8") as stream:
            first = 1
            while lines := list(islice(stream, _ROWS_AT_A_TIME)):
                yield from _parsed(path, lines, first)
                first += len(lines)
    except OSError as error:
        raise ShardError(path, None, "a readable sidecar", str(error)) from None


def _parsed(path: Location, lines: list[str], first: int) -> list[dict[str, Any]]:
    """The rows of lines, of which the first has this number. Many together take half the time of each by itself."""
    with suppress(ValueError):
        rows: list[dict[str, Any]] = json.loads(f"[{','.join(lines)}]")
        if len(rows) == len(lines):
            return rows
    rows = []
    for number, line in enumerate(lines, first):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ShardError(path, f"line {number}", "a JSON object", str(error)) from None
    return rows


def read_samples(path: Location) -> Iterator[tuple[str, FloatArray, dict[str, Any]]]:
    """Key, label vector (LABEL_SIZE,) and metadata of each sample; skips images. Raises ShardError."""
    labels: dict[str, FloatArray] = {}
    require_regular_file(path, "a tar of skelfit samples", ShardError)
    try:
        with path.open("rb") as content_of_tar, tarfile.open(fileobj=content_of_tar) as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                if ending not in ("label.npy", "meta.json"):
                    continue
                stream = tar.extractfile(member)
                content = stream.read() if stream is not None else b""
                if ending == "label.npy":
                    labels[key] = np.load(io.BytesIO(content), allow_pickle=False)
                else:  # the members of a sample stand in alphabetical order, so its label was before
                    yield key, labels.pop(key), json.loads(content)
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise ShardError(path, None, "a tar of skelfit samples", repr(error)) from None
    if labels:
        raise ShardError(path, next(iter(labels)), "a meta.json beside each label.npy", "none")


def read_members(path: Location) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and all members of each sample, by their endings, images too. Raises ShardError."""
    require_regular_file(path, "a tar of skelfit samples", ShardError)
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream) as tar:
            for key, group in groupby(tar, lambda member: member.name.partition(".")[0]):
                streams = {member.name.partition(".")[2]: tar.extractfile(member) for member in group}
                yield key, {ending: stream.read() for ending, stream in streams.items() if stream}
    except (OSError, tarfile.TarError) as error:
        raise ShardError(path, None, "a tar of skelfit samples", repr(error)) from None
