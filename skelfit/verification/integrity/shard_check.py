"""One shard, read once from its files: all that is wrong with it, each fault where it is, and its people."""

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
from skelfit.shards.label_vector import LABEL_SIZE, FloatArray
from skelfit.shards.row_statistics import Summary
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import read_marker
from skelfit.shards.shard_schema import ShardMarker
from skelfit.shards.shard_writer import reason_kind, row_digest
from skelfit.storage.hashed_write import FileRecord
from skelfit.storage.path_checks import describe_non_file
from skelfit.verification.integrity.damage import Damage, Kind
from skelfit.verification.integrity.sample_check import (
    Place,
    image_faults,
    label_faults,
    meta_faults,
    pair_faults,
    read_label,
    read_meta,
    row_fault,
)
from skelfit.verification.integrity.tar_walk import Fault, HashedReader, walk
from skelfit.verification.measures.decoded_samples import People

Row = dict[str, Any]
_KEY = re.compile(r"(.+)-(\d+)-(\d{8,})")


@dataclass(frozen=True)
class ShardCheck:
    """What was found in a shard."""

    name: str
    damage: tuple[Damage, ...]
    people: int  # samples that are whole
    marker: ShardMarker | None  # None: there is none that can be read
    label_file: int | None  # index of the label file that its rows are of
    span: tuple[int, int] | None  # rows [start, stop) of it, by the marker, or else by the rows
    rows: Summary  # of the rows that are whole
    reasons: Mapping[str, int]  # of the rows that are not published, as in the marker


@dataclass
class _Check:
    """A shard that is being checked."""

    files: ShardFiles
    damage: list[Damage] = field(default_factory=list)

    @property
    def subset(self) -> str:
        return self.files.name.rpartition("-")[0]

    @property
    def located(self) -> bool:
        """Whether a sample, a row or a place in the tar is known to be damaged."""
        return any(d.sample is not None or d.kind == "missing" or "byte" in d.message for d in self.damage)

    def say(self, kind: Kind, message: str, sample: str | None = None) -> None:
        self.damage.append(Damage(self.files.name, sample or None, kind, message))


def check_shard(files: ShardFiles) -> tuple[ShardCheck, People]:
    """Read a shard's three files, once each, and compare them; also gives the samples that are whole.

    Never raises for what is in them.
    """
    check = _Check(files)
    marker = _read_marker(check)
    rows, sidecar_good = _read_rows(check, marker)
    people, tar_good = _read_tar(check, marker, rows, sidecar_good)
    published = [row for row in rows.values() if row["status"] in PUBLISHED]
    summary, reasons = Summary.of_rows(rows.values()), _reasons(rows.values())
    if marker is not None:
        _check_counts(check, marker, len(rows), len(published), summary, reasons)
        if not (tar_good and sidecar_good) and rows and not check.located:
            check.say("marker", f"{files.marker}: of another time: every sample agrees with its row")
    files_of = Counter(int(match[2]) for row in rows.values() if (match := _KEY.fullmatch(row["key"])))
    found = ShardCheck(
        name=files.name,
        damage=tuple(check.damage),
        people=len(people),
        marker=marker,
        label_file=files_of.most_common(1)[0][0] if files_of else None,
        span=_span(marker, rows),
        rows=summary,
        reasons=reasons,
    )
    return found, people


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


def _read_marker(check: _Check) -> ShardMarker | None:
    path = check.files.marker
    if not path.exists():
        check.say("missing", f"{path}: no such file: the shard is not finished, or the marker was removed")
        return None
    try:
        marker = read_marker(check.files)
        text = path.read_bytes()
        if text != (json.dumps(json.loads(text), indent=2) + "\n").encode():
            check.say("marker", f"{path}: not written as skelfit writes it")
        if mapping_hash(marker.identity) != marker.identity_sha256:
            check.say("marker", f"{path}: 'identity_sha256': it is not the hash of the identity")
        if not all(isinstance(n, int) for n in (marker.start, marker.stop, marker.rows_in, marker.rows_out)):
            raise ShardError(path, "start, stop, rows_in, rows_out", "numbers", "something else")
    except (ShardError, ValueError, OSError) as error:
        check.say("marker", str(error))
        return None
    return marker


def _read_rows(check: _Check, marker: ShardMarker | None) -> tuple[dict[str, Row], bool]:
    """The rows that are whole, by their keys, and whether the sidecar is the one of the marker."""
    path = check.files.sidecar
    try:
        content = path.read_bytes()
    except OSError as error:
        check.say("missing", f"{path}: {error.strerror}")
        return {}, False
    good = True
    if marker is not None:
        found = FileRecord(len(content), hashlib.sha256(content).hexdigest())
        good = _compare_files(check, "sidecar", path, marker.sidecar, found)
    rows: dict[str, Row] = {}
    file = _label_file(content)
    number = marker.start if marker is not None else None
    for line in content.splitlines(keepends=True):
        row, fault = _read_row(line)
        named = -1 if row is None else _number(row["key"], f"{check.subset}-{file}-")
        if number is None:  # without a marker, the first row says where a shard begins
            number = max(named, 0)
        key = f"{check.subset}-{file}-{number:08d}"
        if row is None:
            check.say("row", f"{path}: line {line[:40]!r}: {fault}", key)
        elif row["key"] in rows:
            check.say("duplicate", f"{path}: {row['key']} stands in it twice", row["key"])
            continue
        elif named != row["row"]:
            check.say("row", f"{path}: {row['key']}: expected row {named} of {key}, found {row['row']}", key)
        elif named != number:
            check.say("foreign", f"{path}: expected {key}, found {row['key']}", row["key"])
            number = named
        if row is not None:
            if row["status"] not in PUBLISHED and row_digest(row, {}) != row["digest"]:
                check.say("row", f"{path}: {row['key']}: its digest is not that of the row", row["key"])
            rows[row["key"]] = row
        number += 1
    if content and not content.endswith(b"\n"):
        check.say("sidecar", f"{path}: cut off in its last line")
    return rows, good


def _number(key: str, head: str) -> int:
    """The row that a key names, behind its head; -1 for a key of another form."""
    digits = key[len(head) :]
    return int(digits) if key.startswith(head) and re.fullmatch(r"\d{8,}", digits, re.ASCII) else -1


def _label_file(content: bytes) -> int:
    """The index of the label file that most keys of a sidecar name."""
    found = Counter(re.findall(rb'^\{"key": "[^"]*-(\d+)-\d{8,}"', content, re.MULTILINE))
    return int(found.most_common(1)[0][0]) if found else 0


def _read_row(line: bytes) -> tuple[Row | None, str]:
    try:
        row = json.loads(line)
        if fault := row_fault(row):
            return None, fault
        if (json.dumps(row, allow_nan=False) + "\n").encode() != line:
            return None, "not written as skelfit writes it"
    except ValueError as error:
        return None, f"expected JSON, found {error}"
    return row, ""


def _compare_files(check: _Check, kind: Kind, path: Any, told: FileRecord, found: FileRecord) -> bool:
    if found.bytes != told.bytes:
        check.say(kind, f"{path}: expected {told.bytes} bytes, found {found.bytes}")
    elif found.sha256 != told.sha256:
        check.say(kind, f"{path}: expected sha256 {told.sha256}, found {found.sha256}")
    return found == told


def _read_tar(
    check: _Check, marker: ShardMarker | None, rows: Mapping[str, Row], sidecar_good: bool
) -> tuple[People, bool]:
    """The people of the tar, and whether it is the one of the marker."""
    path = check.files.tar
    order = {key: i for i, key in enumerate(k for k, row in rows.items() if row["status"] in PUBLISHED)}
    judge = _Judge(check, rows, _place(check, marker, rows))
    good = True
    if other := describe_non_file(path):  # to open a named pipe would block
        check.say("missing", f"{path}: {other}, not a regular file")
        return judge.people(), False
    try:
        with open(path, "rb") as stream:
            reader = HashedReader(stream)
            seen: dict[str, int] = {}
            for key, members in _samples(check, reader, rows):
                if key in seen:
                    check.say("duplicate", f"{path}: {key}: a second sample of this key", key)
                elif key in order and seen and order[key] < max(seen.values()):
                    check.say("foreign", f"{path}: {key}: not in the order of the rows", key)
                judge.take(key, members, first=key not in seen)
                seen[key] = order.get(key, -1)
            found = FileRecord(reader.count, reader.finish())
        if marker is not None:
            found = FileRecord(reader.count, found.sha256)
            good = _compare_files(check, "tar", path, marker.tar, found)
    except OSError as error:
        check.say("missing", f"{path}: {error.strerror}")
        return judge.people(), False
    for key in order:
        if key not in seen:
            check.say("lost", f"{path}: {key}: published, says its row; no sample in the tar", key)
    # Row and sample share a digest; which of them is damaged, the hashes of the two files tell.
    for key in judge.strangers:
        row_only = good and not sidecar_good
        kind: Kind = "row" if row_only else "sample"
        where = check.files.sidecar if row_only else path
        check.say(kind, f"{where}: {key}: the digest in its row is not that of row and sample", key)
    return judge.people(), good


def _samples(
    check: _Check, reader: HashedReader, rows: Mapping[str, Row]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and members of each sample; tells of what is between them."""
    path, key = check.files.tar, ""
    members: dict[str, bytes] = {}
    for item in walk(reader):
        name, _, ending = item.name.partition(".")
        if isinstance(item, Fault):
            # The name in a damaged header may be damaged too.
            check.say("tar", f"{path}: {item.message}", name if name in rows or not rows else None)
            continue
        if item.header:
            check.say("tar", f"{path}: {item.name}: {item.header}", name)
        if name != key or ending in members:
            if members:
                yield key, members
            key, members = name, {}
        members[ending] = item.data
    if members:
        yield key, members


def _place(check: _Check, marker: ShardMarker | None, rows: Mapping[str, Row]) -> Place:
    """Where samples of this shard belong, as the marker tells."""
    try:
        assert marker is not None
        file = next(int(match[2]) for key in rows if (match := _KEY.fullmatch(key)))
        return Place(check.subset, marker.identity["labels"][file]["name"])
    except (AssertionError, StopIteration, LookupError, TypeError):
        return Place(check.subset, None)


class _Judge:
    """Takes the samples of a shard one by one, and keeps those that can be measured."""

    def __init__(self, check: _Check, rows: Mapping[str, Row], place: Place) -> None:
        self.check, self.rows, self.place = check, rows, place
        self.strangers: list[str] = []  # whose digest is not that of row and sample
        self.kept: list[tuple[str, FloatArray, dict[str, Any]]] = []

    def take(self, key: str, members: Mapping[str, bytes], *, first: bool) -> None:
        """Check a sample against its row."""
        row = self.rows.get(key)
        if row is None and self.rows:
            self._say(key, "foreign", "the sidecar has no row of it")
        elif row is not None and row["status"] not in PUBLISHED:
            self._say(key, "foreign", f"its row says {row['status']}: not published")
        elif row is not None and row_digest(row, members) != row["digest"]:
            self.strangers.append(key)
        label, fault = read_label(members)
        meta, meta_fault = read_meta(members)
        for text in filter(None, (fault, meta_fault)):
            self._say(key, "sample", text)
        if label is None or meta is None:
            return
        faults = [
            *label_faults(label),
            *meta_faults(meta, label, self.place),
            *image_faults(meta, members),
            *(pair_faults(row, meta, label) if row is not None and row["status"] in PUBLISHED else ()),
        ]
        for kind, text in faults:
            self._say(key, kind, text)
        if first and not faults and meta["key"] == key:
            self.kept.append((key, label, meta))

    def _say(self, key: str, kind: Kind, text: str) -> None:
        self.check.say(kind, f"{self.check.files.tar}: {key}: {text}", key)

    def people(self) -> People:
        """Those who can be measured."""
        keys, labels, metas = zip(*self.kept, strict=True) if self.kept else ((), (), ())
        array = np.array(labels, np.float32).reshape(-1, LABEL_SIZE)
        return People(self.check.files.name, tuple(keys), array, tuple(metas))


def _check_counts(
    check: _Check, marker: ShardMarker, rows: int, people: int, summary: Summary, reasons: Mapping[str, int]
) -> None:
    """What the marker counts, against the rows."""
    told: Sequence[tuple[str, Any, Any]] = (
        ("rows_in", marker.rows_in, rows),
        ("stop - start", marker.stop - marker.start, rows),
        ("rows_out", marker.rows_out, people),
        ("statuses", dict(marker.statuses), dict(sorted(summary.statuses.items()))),
        ("rejected", dict(marker.rejected), dict(reasons)),
    )
    for name, said, found in told:
        if said != found:
            check.say(
                "marker",
                f"{check.files.marker}: '{name}': expected {found}, as the sidecar has, found {said}",
            )
