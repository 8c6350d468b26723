"""The files of a finished shard: a WebDataset tar, a sidecar with every input row, and a done marker.

Equal samples give byte-identical tars and sidecars: no clock, user or host enters them. Each file is written
under a temporary name and renamed, so a file under its own name is whole; the marker, written last, says that
they belong together. To read the tar, nothing of skelfit is needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import webdataset

from skelfit.config import mapping_hash
from skelfit.errors import InputError
from skelfit.files import regular_file, remove, replacing
from skelfit.layout import FloatArray

SCHEMA_NAME = "schema.json"
SUMMARY_NAME = "summary.json"

# Made once: making an encoder takes as long as a row's JSON.
_to_json = json.JSONEncoder(allow_nan=False).encode


class ShardError(InputError):
    """A shard, sidecar or marker that cannot be used."""


@dataclass(frozen=True)
class Sample:
    """One person of a tar; `extension` is that of the image's own file, without a dot."""

    key: str
    label: FloatArray  # (LABEL_SIZE,)
    meta: Mapping[str, Any]
    image: bytes | None = None
    extension: str = ""


@dataclass(frozen=True)
class Row:
    """One input row of a sidecar. Errors are None where there was no finite fit."""

    key: str  # key of the person's sample
    row: int  # index in the label file
    status: str  # what became of the row
    reason: str  # why, where the status or the image needs a reason
    pve_mm: float | None  # mean vertex error
    max_vertex_mm: float | None  # largest vertex error
    stage_pve_mm: Mapping[str, float | None]  # mean vertex error after each stage
    skel_gender: str | None  # gender of the SKEL body that was fitted
    # RMS distance of SKEL's skin at rest to SMPL's, with betas transferred and refined
    betas_mm: Mapping[str, float | None]
    unseen_keypoints: int  # 2D keypoints whose confidence a filter set to 0
    image: bool | None  # whether the image is there; null: no image was asked for
    sequence: str | None = None  # name of the sequence; null: the row is no frame of a sequence
    frame: int | None = None  # number of the frame, from 0
    frame_rate: float | None = None  # Hz; null also where the file does not say
    # Hz, at which the frame was fitted as one problem with its sequence; null: it was fitted by itself
    fitted_rate: float | None = None
    subject: str | None = None  # whose motion it is
    # gender of the SMPL body whose mesh was fitted; null: no finite fit, or a mesh came in
    target_gender: str | None = None
    root: str | None = None  # frozen, turn or free, in this fit; null: no finite fit
    digest: str = ""  # hash of this row and its sample (row_digest), set when it is written


@dataclass(frozen=True)
class ShardFiles:
    """The three files of the shard `name` in `folder`."""

    folder: Path
    name: str

    @property
    def tar(self) -> Path:
        """The samples."""
        return self.folder / f"{self.name}.tar"

    @property
    def sidecar(self) -> Path:
        """Every input row, as JSON Lines."""
        return self.folder / f"{self.name}.rows.jsonl"

    @property
    def marker(self) -> Path:
        """What was done, written when the other two are in place."""
        return self.folder / f"{self.name}.done.json"

    @property
    def started(self) -> Path:
        """There while the shard is being made, for those who watch, and left behind by a kill."""
        return self.folder / f".{self.name}.started.json"


@dataclass(frozen=True)
class FileRecord:
    """Size and hash of a finished file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Marker:
    """The done marker of a shard."""

    name: str  # name of the shard
    start: int  # first row of the label file
    stop: int  # row after the last
    rows_in: int  # number of input rows
    rows_out: int  # number of people in the tar
    statuses: Mapping[str, int]  # rows by status
    rejected: Mapping[str, int]  # rows that are not in the tar, by 'status: kind of reason'
    tar: FileRecord  # size and sha256 of the tar
    sidecar: FileRecord  # size and sha256 of the sidecar
    identity_sha256: str  # hash of the identity
    # what the run's results depend on: labels, pipeline, models, layout, algorithm
    identity: Mapping[str, Any]


def write_shard(
    files: ShardFiles,
    entries: Iterable[tuple[Row, Sample | None]],
    identity: Mapping[str, Any],
    span: tuple[int, int],
) -> Marker:
    """Write tar, sidecar and, last, the marker. Raises OutputError.

    entries: every input row, in order, and its sample, None where the row is not published; taken one by one.
    span: first row of the label file, and one past the last; the rows must be exactly these.
    """
    # A marker of an earlier attempt must not stand beside files that are being replaced.
    remove(files.marker)
    rows: list[Row] = []
    rejected: Counter[str] = Counter()

    def write_tar(stream: io.RawIOBase) -> None:
        # An integer mtime and no user make the tar reproducible; the defaults are the clock and a name.
        with webdataset.TarWriter(stream, user="", group="", mtime=0, encoder=False) as tar:
            for row, sample in entries:
                members = {} if sample is None else _members(sample)
                rows.append(replace(row, digest=row_digest(vars(row), members)))
                if sample is not None:
                    tar.write({"__key__": sample.key, **members})
                else:
                    rejected[f"{row.status}: {reason_kind(row.reason)}"] += 1
        if [row.row for row in rows] != list(range(*span)):
            raise ValueError(f"{files.name}: the sidecar rows are not those of {span}")

    tar_record = write_atomically(files.tar, write_tar)
    lines = "".join(_to_json(vars(row)) + "\n" for row in rows).encode()
    sidecar_record = write_atomically(files.sidecar, lambda stream: stream.write(lines))
    statuses = Counter(row.status for row in rows)
    marker = Marker(
        name=files.name,
        start=span[0],
        stop=span[1],
        rows_in=len(rows),
        rows_out=len(rows) - rejected.total(),
        statuses=dict(sorted(statuses.items())),
        rejected=dict(sorted(rejected.items())),
        tar=tar_record,
        sidecar=sidecar_record,
        identity_sha256=mapping_hash(identity),
        identity=identity,
    )
    write_json(files.marker, asdict(marker))
    return marker


def reason_kind(reason: str) -> str:
    """The first of a row's reasons, without its numbers: 'pve_mm 25.00 > 20' is a case of 'pve_mm'."""
    return re.split(r"; |: | -?\d", reason, maxsplit=1)[0]


def row_digest(row: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    """A digest that tells which row or sample of a damaged shard is the damaged one.

    The first 16 hex digits of the sha256 of the row's JSON without its digest, and of the name and bytes of each
    member of its sample, in the order of the tar.
    """
    line = _to_json({key: value for key, value in row.items() if key != "digest"})
    digest = hashlib.sha256(line.encode())
    for name in sorted(members):
        digest.update(name.encode())
        digest.update(members[name])
    return digest.hexdigest()[:16]


def _members(sample: Sample) -> dict[str, bytes]:
    if "." in sample.key or "/" in sample.key:
        raise ValueError(f"{sample.key}: a WebDataset key must not contain a dot or a slash")
    label = np.ascontiguousarray(sample.label, dtype="<f4")
    members = {
        "label.npy": _npy_header(label.shape) + label.tobytes(),
        "meta.json": _to_json(sample.meta).encode(),
    }
    if sample.image is not None:
        members[sample.extension] = sample.image
    return members


@lru_cache(maxsize=1)
def _npy_header(shape: tuple[int, ...]) -> bytes:
    """What `np.save` writes before the numbers of a float32 array."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


class _Hashing(io.RawIOBase):
    """Passes bytes on to a stream, hashing and counting them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest, self.count = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.count += len(data)
        return self.stream.write(data)


def write_atomically(path: Path, write: Callable[[io.RawIOBase], object]) -> FileRecord:
    """Let `write` fill the file, which is then whole or absent. Raises OutputError."""
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        hashing = _Hashing(stream)
        write(hashing)
    return FileRecord(hashing.count, hashing.digest.hexdigest())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON atomically. Raises OutputError."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode()))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a hash of all of it as its last key: a summary holds what nothing else on disk tells again."""
    return {**content, "content_sha256": mapping_hash(content)}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ShardError."""
    regular_file(path, "a JSON file", ShardError)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ShardError(path, None, "a JSON file", "no such file") from None
    except (OSError, ValueError) as error:
        raise ShardError(path, None, "a readable JSON file", str(error)) from None
    if not isinstance(content, dict):
        raise ShardError(path, None, "a JSON object", type(content).__name__)
    return content


def read_marker(files: ShardFiles) -> Marker:
    """The marker of a shard. Raises ShardError when it is missing or damaged."""
    content = read_json(files.marker)
    try:
        records = {key: FileRecord(**content[key]) for key in ("tar", "sidecar")}
        marker = Marker(**{**content, **records})
    except (KeyError, TypeError) as error:
        raise ShardError(files.marker, None, "a done marker of skelfit", repr(error)) from None
    if marker.name != files.name or not isinstance(marker.identity, dict):
        raise ShardError(files.marker, "name", files.name, repr(marker.name))
    return marker


def check_shard(files: ShardFiles, marker: Marker, *, hash_tar: bool = False) -> None:
    """Raise ShardError unless the files are those that the marker tells of.

    The tar is compared by size, and by content only with `hash_tar`, which reads all images.
    """
    for path, record in ((files.tar, marker.tar), (files.sidecar, marker.sidecar)):
        size = path.stat().st_size if path.exists() else None
        if size != record.bytes:
            raise ShardError(
                path, None, f"{record.bytes} bytes", "no such file" if size is None else f"{size}"
            )
        if path == files.sidecar or hash_tar:
            with open(path, "rb") as stream:
                found = _sha256(stream)
            if found != record.sha256:
                raise ShardError(path, "sha256", record.sha256, found)


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a sidecar as plain data. Raises ShardError."""
    regular_file(path, "a readable sidecar", ShardError)
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ShardError(path, f"line {number}", "a JSON object", str(error)) from None
    except OSError as error:
        raise ShardError(path, None, "a readable sidecar", str(error)) from None


def read_samples(path: Path) -> Iterator[tuple[str, FloatArray, dict[str, Any]]]:
    """Key, label vector (LABEL_SIZE,) and metadata of each sample; skips images. Raises ShardError."""
    labels: dict[str, FloatArray] = {}
    regular_file(path, "a tar of skelfit samples", ShardError)
    try:
        with tarfile.open(path) as tar:
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


def read_members(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and all members of each sample, by their endings, images too. Raises ShardError."""
    regular_file(path, "a tar of skelfit samples", ShardError)
    try:
        with tarfile.open(path) as tar:
            for key, group in groupby(tar, lambda member: member.name.partition(".")[0]):
                streams = {member.name.partition(".")[2]: tar.extractfile(member) for member in group}
                yield key, {ending: stream.read() for ending, stream in streams.items() if stream}
    except (OSError, tarfile.TarError) as error:
        raise ShardError(path, None, "a tar of skelfit samples", repr(error)) from None


def remove_temporaries(folder: Path, subset: str) -> None:
    """Remove what a killed run left of a subset under temporary names. Raises OutputError."""
    for path in _temporaries(folder, subset):
        remove(path)


def _temporaries(folder: Path, subset: str) -> Iterator[Path]:
    yield from (files.started for files in list_started(folder, subset))
    for path in folder.glob(".*.tmp"):
        final = path.name[1:].rsplit(".", 2)[0]
        if final in (SCHEMA_NAME, SUMMARY_NAME) or _shard_name(final, subset):
            yield path


def remove_shard(files: ShardFiles) -> None:
    """Remove a shard, its marker first. Raises OutputError."""
    for path in (files.marker, files.tar, files.sidecar):
        remove(path)


def list_shards(folder: Path, subset: str) -> list[ShardFiles]:
    """The shards of a subset of which the folder has a tar, sidecar or marker, in order."""
    names = {_shard_name(path.name, subset) for path in folder.glob(f"{subset}-*")}
    return [ShardFiles(folder, name) for name in sorted(names) if name]


def list_started(folder: Path, subset: str) -> list[ShardFiles]:
    """The shards of a subset that somebody began, in order."""
    names = {_shard_name(path.name[1:], subset) for path in folder.glob(f".{subset}-*.started.json")}
    return [ShardFiles(folder, name) for name in sorted(names) if name]


def list_subsets(folder: Path) -> list[str]:
    """The subsets of which the folder has finished shards, in order."""
    ending = "-[0-9][0-9][0-9][0-9][0-9][0-9].done.json"
    return sorted({path.name[: -len("-000000.done.json")] for path in folder.glob("*" + ending)})


def shard_name(subset: str, index: int) -> str:
    """The name of a subset's shard, without an ending."""
    return f"{subset}-{index:06d}"


def _shard_name(file_name: str, subset: str) -> str:
    """The shard that a file belongs to by its name; '' for other files."""
    match = re.fullmatch(rf"({re.escape(subset)}-\d{{6}})\.(tar|rows\.jsonl|(done|started)\.json)", file_name)
    return match[1] if match else ""
