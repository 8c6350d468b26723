"""One shard, read once: every fault with its location, and the people whose samples are whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skelfit.config.identity import mapping_hash
from skelfit.shards.content_seal import SEAL, is_broken
from skelfit.shards.label_vector import LABEL_SIZE, FloatArray
from skelfit.shards.row_statistics import Summary
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import marker_of, read_json
from skelfit.shards.shard_schema import ShardMarker
from skelfit.shards.shard_writer import reason_kind, row_digest
from skelfit.storage.hashed_write import FileRecord
from skelfit.storage.path_checks import describe_non_file
from skelfit.verification.integrity.damage import Damage, Kind
from skelfit.verification.integrity.sample_check import (
    SampleOrigin,
    image_faults,
    label_faults,
    meta_faults,
    pair_faults,
    read_label,
    read_meta,
    row_fault,
)
from skelfit.verification.integrity.tar_walk import HashedReader, TarFault, walk
from skelfit.verification.measures.decoded_samples import DecodedPeople

Row = dict[str, Any]
_KEY = re.compile(r"(.+)-(\d+)-(\d{8,})")


@dataclass(frozen=True)
class ShardCheck:
    """The state of one shard."""

    name: str
    damage: tuple[Damage, ...]
    people: int  # samples that are whole
    marker: ShardMarker | None  # None: it cannot be read
    label_file: int | None  # index of the label file of its rows; None: not known
    span: tuple[int, int] | None  # rows [start, stop) of that file, by the marker, else by the rows
    rows: Summary  # statistics of the rows that are whole
    reasons: Mapping[str, int]  # counts of the reasons why rows are not published


@dataclass
class _DamageLog:
    """Gathers the damage of a shard while it is checked."""

    files: ShardFiles
    damage: list[Damage] = field(default_factory=list)

    @property
    def subset(self) -> str:
        return self.files.name.rpartition("-")[0]

    @property
    def located(self) -> bool:
        """Whether some damage has a location: a sample, a row, a missing file or a byte of the tar."""
        return any(d.sample is not None or d.kind == "missing" or "byte" in d.message for d in self.damage)

    def add(self, kind: Kind, message: str, sample: str | None = None) -> None:
        self.damage.append(Damage(self.files.name, sample or None, kind, message))


def check_shard(files: ShardFiles) -> tuple[ShardCheck, DecodedPeople]:
    """Read the three files of a shard once each and compare them; also returns the samples that are whole.

    Content of the files raises no exception.
    """
    log = _DamageLog(files)
    marker = _read_marker(log)
    rows, sidecar_matches = _read_rows(log, marker)
    people, tar_matches = _read_tar(log, marker, rows, sidecar_matches)
    published = [row for row in rows.values() if row["status"] in PUBLISHED]
    summary, reasons = Summary.of_rows(rows.values()), _reasons(rows.values())
    if marker is not None:
        _check_counts(log, marker, len(rows), len(published), summary, reasons)
        if not (tar_matches and sidecar_matches) and rows and not log.located:
            log.add("marker", f"{files.marker}: of another time: every sample agrees with its row")
    file_indices = Counter(int(match[2]) for row in rows.values() if (match := _KEY.fullmatch(row["key"])))
    result = ShardCheck(
        name=files.name,
        damage=tuple(log.damage),
        people=len(people),
        marker=marker,
        label_file=file_indices.most_common(1)[0][0] if file_indices else None,
        span=_span(marker, rows),
        rows=summary,
        reasons=reasons,
    )
    return result, people


def _span(marker: ShardMarker | None, rows: Mapping[str, Row]) -> tuple[int, int] | None:
    if marker is not None:
        return marker.start, marker.stop
    numbers = [row["row"] for row in rows.values()]
    return (min(numbers), max(numbers) + 1) if numbers else None


def _reasons(rows: Any) -> dict[str, int]:
    kinds = Counter(
        f"{row['status']}: {reason_kind(row['reason'])}" for row in rows if row["status"] not in PUBLISHED
    )
    return dict(sorted(kinds.items()))


def _read_marker(log: _DamageLog) -> ShardMarker | None:
    path = log.files.marker
    if not path.exists():
        log.add("missing", f"{path}: no such file: the shard is not finished, or the marker was removed")
        return None
    try:
        content = read_json(path)
        if is_broken(content):
            log.add("marker", f"{path}: '{SEAL}': it is not the hash of the rest of the marker")
        marker = marker_of(log.files, content)
        text = path.read_bytes()
        if text != (json.dumps(json.loads(text), indent=2) + "\n").encode():
            log.add("marker", f"{path}: not written as skelfit writes it")
        if mapping_hash(marker.identity) != marker.identity_sha256:
            log.add("marker", f"{path}: 'identity_sha256': it is not the hash of the identity")
        if not all(isinstance(n, int) for n in (marker.start, marker.stop, marker.rows_in, marker.rows_out)):
            raise ShardError(path, "start, stop, rows_in, rows_out", "numbers", "something else")
    except (ShardError, ValueError, OSError) as error:
        log.add("marker", str(error))
        return None
    return marker


def _read_rows(log: _DamageLog, marker: ShardMarker | None) -> tuple[dict[str, Row], bool]:
    """The whole rows by key, and whether the sidecar is that of the marker."""
    path = log.files.sidecar
    try:
        content = path.read_bytes()
    except OSError as error:
        log.add("missing", f"{path}: {error.strerror}")
        return {}, False
    matches_marker = True
    if marker is not None:
        actual = FileRecord(len(content), hashlib.sha256(content).hexdigest())
        matches_marker = _compare_files(log, "sidecar", path, marker.sidecar, actual)
    rows: dict[str, Row] = {}
    file = _label_file(content)
    number = marker.start if marker is not None else None
    refined = None if marker is None else "refined" in marker.identity
    for line in content.splitlines(keepends=True):
        row, fault = _read_row(line, refined)
        key_number = -1 if row is None else _number(row["key"], f"{log.subset}-{file}-")
        if number is None:  # without a marker, the shard begins with its first row
            number = max(key_number, 0)
        key = f"{log.subset}-{file}-{number:08d}"
        if row is None:
            log.add("row", f"{path}: line {line[:40]!r}: {fault}", key)
        elif row["key"] in rows:
            log.add("duplicate", f"{path}: {row['key']} occurs twice", row["key"])
            continue
        elif key_number != row["row"]:
            log.add(
                "row", f"{path}: {row['key']}: expected row {key_number} of {key}, found {row['row']}", key
            )
        elif key_number != number:
            log.add("foreign", f"{path}: expected {key}, found {row['key']}", row["key"])
            number = key_number
        if row is not None:
            if row["status"] not in PUBLISHED and row_digest(row, {}) != row["digest"]:
                log.add("row", f"{path}: {row['key']}: its digest is not that of the row", row["key"])
            rows[row["key"]] = row
        number += 1
    if content and not content.endswith(b"\n"):
        log.add("sidecar", f"{path}: cut off in its last line")
    return rows, matches_marker


def _number(key: str, head: str) -> int:
    """The row number in a key that starts with `head`; -1 for other keys."""
    digits = key[len(head) :]
    return int(digits) if key.startswith(head) and re.fullmatch(r"\d{8,}", digits, re.ASCII) else -1


def _label_file(content: bytes) -> int:
    """The index of the label file in most keys of a sidecar."""
    indices = Counter(re.findall(rb'^\{"key": "[^"]*-(\d+)-\d{8,}"', content, re.MULTILINE))
    return int(indices.most_common(1)[0][0]) if indices else 0


def _read_row(line: bytes, refined: bool | None) -> tuple[Row | None, str]:
    try:
        row = json.loads(line)
        if fault := row_fault(row, refined):
            return None, fault
        if (json.dumps(row, allow_nan=False) + "\n").encode() != line:
            return None, "not written as skelfit writes it"
    except ValueError as error:
        return None, f"expected JSON, found {error}"
    return row, ""


def _compare_files(log: _DamageLog, kind: Kind, path: Any, expected: FileRecord, actual: FileRecord) -> bool:
    if actual.bytes != expected.bytes:
        log.add(kind, f"{path}: expected {expected.bytes} bytes, found {actual.bytes}")
    elif actual.sha256 != expected.sha256:
        log.add(kind, f"{path}: expected sha256 {expected.sha256}, found {actual.sha256}")
    return actual == expected


def _read_tar(
    log: _DamageLog, marker: ShardMarker | None, rows: Mapping[str, Row], sidecar_matches: bool
) -> tuple[DecodedPeople, bool]:
    """The people of the tar, and whether the tar is that of the marker."""
    path = log.files.tar
    order = {key: i for i, key in enumerate(k for k, row in rows.items() if row["status"] in PUBLISHED)}
    checker = _SampleChecker(log, rows, _origin(log, marker, rows))
    matches_marker = True
    if other := describe_non_file(path):  # to open a named pipe would block
        log.add("missing", f"{path}: {other}, not a regular file")
        return checker.people(), False
    try:
        with path.open("rb") as stream:
            reader = HashedReader(stream)
            position: dict[str, int] = {}
            for key, members in _samples(log, reader, rows):
                if key in position:
                    log.add("duplicate", f"{path}: {key}: a second sample of this key", key)
                elif key in order and position and order[key] < max(position.values()):
                    log.add("foreign", f"{path}: {key}: not in the order of the rows", key)
                checker.check(key, members, first=key not in position)
                position[key] = order.get(key, -1)
            actual = FileRecord(reader.count, reader.finish())
        if marker is not None:
            actual = FileRecord(reader.count, actual.sha256)
            matches_marker = _compare_files(log, "tar", path, marker.tar, actual)
    except OSError as error:
        log.add("missing", f"{path}: {error.strerror}")
        return checker.people(), False
    for key in order:
        if key not in position:
            log.add("lost", f"{path}: {key}: its row is published, and the tar has no sample of it", key)
    # A digest covers row and sample. The hashes of the two files tell which of them is damaged.
    for key in checker.digest_mismatches:
        row_only = matches_marker and not sidecar_matches
        kind: Kind = "row" if row_only else "sample"
        damaged_file = log.files.sidecar if row_only else path
        log.add(kind, f"{damaged_file}: {key}: the digest in its row is not that of row and sample", key)
    return checker.people(), matches_marker


def _samples(
    log: _DamageLog, reader: HashedReader, rows: Mapping[str, Row]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of each sample; logs faults of the tar."""
    path, key = log.files.tar, ""
    members: dict[str, bytes] = {}
    for item in walk(reader):
        name, _, ending = item.name.partition(".")
        if isinstance(item, TarFault):
            # The name in a damaged header may be damaged, too.
            log.add("tar", f"{path}: {item.message}", name if name in rows or not rows else None)
            continue
        if item.fault:
            log.add("tar", f"{path}: {item.name}: {item.fault}", name)
        if name != key or ending in members:
            if members:
                yield key, members
            key, members = name, {}
        members[ending] = item.data
    if members:
        yield key, members


def _origin(log: _DamageLog, marker: ShardMarker | None, rows: Mapping[str, Row]) -> SampleOrigin:
    """The subset and label file of the samples, by the marker."""
    try:
        assert marker is not None
        file = next(int(match[2]) for key in rows if (match := _KEY.fullmatch(key)))
        return SampleOrigin(log.subset, marker.identity["labels"][file]["name"])
    except (AssertionError, StopIteration, LookupError, TypeError):
        return SampleOrigin(log.subset, None)


class _SampleChecker:
    """Checks samples of a shard one by one, and keeps those that can be measured."""

    def __init__(self, log: _DamageLog, rows: Mapping[str, Row], origin: SampleOrigin) -> None:
        self.log, self.rows, self.origin = log, rows, origin
        self.digest_mismatches: list[str] = []  # keys whose digest is not that of row and sample
        self.decoded: list[tuple[str, FloatArray, dict[str, Any]]] = []

    def check(self, key: str, members: Mapping[str, bytes], *, first: bool) -> None:
        """Check a sample against its row."""
        row = self.rows.get(key)
        if row is None and self.rows:
            self._add(key, "foreign", "the sidecar has no row of it")
        elif row is not None and row["status"] not in PUBLISHED:
            self._add(key, "foreign", f"its row says {row['status']}: not published")
        elif row is not None and row_digest(row, members) != row["digest"]:
            self.digest_mismatches.append(key)
        label, fault = read_label(members)
        meta, meta_fault = read_meta(members)
        for text in filter(None, (fault, meta_fault)):
            self._add(key, "sample", text)
        if label is None or meta is None:
            return
        faults = [
            *label_faults(label),
            *meta_faults(meta, label, self.origin),
            *image_faults(meta, members),
            *(pair_faults(row, meta, label) if row is not None and row["status"] in PUBLISHED else ()),
        ]
        for kind, text in faults:
            self._add(key, kind, text)
        if first and not faults and meta["key"] == key:
            self.decoded.append((key, label, meta))

    def _add(self, key: str, kind: Kind, text: str) -> None:
        self.log.add(kind, f"{self.log.files.tar}: {key}: {text}", key)

    def people(self) -> DecodedPeople:
        """The people who can be measured."""
        keys, labels, metas = zip(*self.decoded, strict=True) if self.decoded else ((), (), ())
        array = np.array(labels, np.float32).reshape(-1, LABEL_SIZE)
        return DecodedPeople(self.log.files.name, tuple(keys), array, tuple(metas))


def _check_counts(
    log: _DamageLog, marker: ShardMarker, rows: int, people: int, summary: Summary, reasons: Mapping[str, int]
) -> None:
    """The counts of the marker against the rows."""
    counts: Sequence[tuple[str, Any, Any]] = (
        ("rows_in", marker.rows_in, rows),
        ("stop - start", marker.stop - marker.start, rows),
        ("rows_out", marker.rows_out, people),
        ("statuses", dict(marker.statuses), dict(sorted(summary.statuses.items()))),
        ("rejected", dict(marker.rejected), dict(reasons)),
    )
    for name, stated, actual in counts:
        if stated != actual:
            log.add(
                "marker",
                f"{log.files.marker}: '{name}': expected {actual}, as the sidecar has, found {stated}",
            )
