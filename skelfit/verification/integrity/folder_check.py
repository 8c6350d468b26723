"""Whether a folder of shards is whole: all shards together, and the files beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from skelfit.config.identity import difference, identities_of, mapping_hash
from skelfit.shards.content_seal import SEAL, is_broken
from skelfit.shards.label_vector import schema
from skelfit.shards.row_statistics import Summary
from skelfit.shards.shard_files import SCHEMA_NAME, SUMMARY_NAME, ShardError, ShardFiles, shard_name
from skelfit.shards.shard_reader import read_json
from skelfit.storage.locations import Location
from skelfit.verification.integrity.damage import Damage, Kind
from skelfit.verification.integrity.run_folder import SHARD_FILE, RunFolder
from skelfit.verification.integrity.shard_check import ShardCheck

_SHOWN = 5  # differences of two configurations in a message


@dataclass(frozen=True)
class Integrity:
    """The state of a folder. Counts are of the shards, never from summary.json."""

    folder: Location
    subset: str
    damage: tuple[Damage, ...]
    shards: int
    rows_in: int  # rows of the sidecars
    people: int  # samples that are whole
    statuses: Mapping[str, int]
    rejected: Mapping[str, int]
    bytes: int  # of the tars
    identity_sha256: str | None  # of most shards
    identity: Mapping[str, Any] | None

    @property
    def whole(self) -> bool:
        """Whether there is no damage."""
        return not self.damage

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "folder": str(self.folder),
            "subset": self.subset,
            "whole": self.whole,
            "shards": self.shards,
            "rows_in": self.rows_in,
            "people": self.people,
            "statuses": dict(self.statuses),
            "rejected": dict(self.rejected),
            "bytes": self.bytes,
            "identity_sha256": self.identity_sha256,
            "models_sha256": (self.identity or {}).get("models_sha256"),
            "damaged": dict(sorted(Counter(d.kind for d in self.damage).items())),
            "damage": [d.to_json() for d in self.damage],
        }


def check_run(run: RunFolder, shards: Sequence[ShardCheck]) -> Integrity:
    """Check all shards of a run together; `shards` in the order of their names."""
    check = _FolderCheck(run, shards)
    check.check_identities()
    check.check_rows()
    if run.unfinished is not None:
        check.damage.append(run.unfinished.damage(run.path, check.rows.rows_in, check.rows_expected))
    else:
        check.check_names()
        check.check_schema()
        check.check_summary()
    damage = (*(d for shard in shards for d in shard.damage), *check.damage)
    return Integrity(
        folder=run.path,
        subset=run.subset,
        damage=damage,
        shards=len(shards),
        rows_in=check.rows.rows_in,
        people=sum(shard.people for shard in shards),
        statuses=dict(sorted(check.rows.statuses.items())),
        rejected=add_counts(shard.reasons for shard in shards),
        bytes=sum(shard.marker.tar.bytes for shard in shards if shard.marker is not None),
        identity_sha256=None if check.identity is None else mapping_hash(check.identity),
        identity=check.identity,
    )


class _FolderCheck:
    """Compares the shards of a folder with each other and with the files beside them."""

    def __init__(self, run: RunFolder, shards: Sequence[ShardCheck]) -> None:
        self.folder, self.subset, self.shards = run.path, run.subset, shards
        self.finished = run.unfinished is None
        self.damage: list[Damage] = []
        self.rows = _merge_pairwise([shard.rows for shard in shards])
        self.identity = self._identity()
        self.steps = identities_of(self.identity or {})
        self.step_hashes = [mapping_hash(step) for step in self.steps]

    def _add(self, kind: Kind, message: str, shard: str | None = None) -> None:
        self.damage.append(Damage(shard, None, kind, message))

    def _identity(self) -> Mapping[str, Any] | None:
        """The identity of most shards; of a run without shards, that of its summary."""
        if not self.shards and self.finished:
            with suppress(ShardError):
                identity = read_json(self.folder / SUMMARY_NAME).get("identity")
                return identity if isinstance(identity, Mapping) else None
        identities = [s.marker.identity for s in self.shards if s.marker is not None]
        hashes = Counter(map(mapping_hash, identities))
        by_hash = {mapping_hash(identity): identity for identity in identities}
        covered = {
            key: sum(hashes[h] for h in {mapping_hash(step) for step in identities_of(identity)})
            for key, identity in by_hash.items()
        }
        # That of an extended run covers the shards from before. Of equal ones, the first in the order of the shards.
        return by_hash[max(covered, key=lambda key: covered[key])] if covered else None

    def _step_of(self, shard: ShardCheck) -> int:
        """Which of the run's identities a shard has: before an extension, or the last; that also where it has none."""
        identity = None if shard.marker is None else mapping_hash(shard.marker.identity)
        return self.step_hashes.index(identity) if identity in self.step_hashes else len(self.steps) - 1

    def _rows_of_step(self, step: int, file: int) -> tuple[int, int]:
        """The first row of a label file, and one past the last, that an extension added; or those of a run before."""

        def rows(labels: Sequence[Mapping[str, Any]]) -> int:
            return labels[file]["rows"] if file < len(labels) else 0

        return rows(self.steps[step - 1]["labels"]) if step else 0, rows(self.steps[step]["labels"])

    @property
    def rows_expected(self) -> int | None:
        """How many rows the label files have, by the identity; None where it is not known."""
        rows = [file.get("rows") for file in (self.identity or {}).get("labels", ())]
        return sum(rows) if rows and all(isinstance(n, int) for n in rows) else None

    def check_identities(self) -> None:
        """All shards have one subset and one configuration, or that from before an extension."""
        for shard in self.shards:
            if self.identity is None or shard.marker is None:
                continue
            if changed := difference(shard.marker.identity, self.steps[self._step_of(shard)]):
                text = "; ".join(changed[:_SHOWN]) + (" ..." if len(changed) > _SHOWN else "")
                path = ShardFiles(self.folder, shard.name).marker
                self._add("configuration", f"{path}: of another configuration than most: {text}", shard.name)
        others = {m[1] for p in self.folder.iterdir() if (m := SHARD_FILE.fullmatch(p.name))} - {self.subset}
        for name in sorted(others):
            self._add(
                "foreign", f"{self.folder}: shards of another subset, {name}, beside those of {self.subset}"
            )

    def check_names(self) -> None:
        """Shards are numbered from 0 on, without gaps."""
        names = {shard.name for shard in self.shards}
        last = max((int(name[-6:]) for name in names), default=-1)
        for name in (shard_name(self.subset, i) for i in range(last)):
            if name not in names:
                self._add("missing", f"{self.folder}: {name}: no file of this shard", name)

    def check_rows(self) -> None:
        """Every row of every label file is in exactly one shard, and the shards are in the order of the rows.

        Those that an extension added begin again with the first label file, behind its earlier rows. In an unfinished
        run, rows may be in no shard.
        """
        files = (self.identity or {}).get("labels", [])
        names = [f"{file.get('name')}" for file in files]
        ends = [0] * len(names)
        last_file = last_step = 0
        for shard in self.shards:
            step = self._step_of(shard)
            if step != last_step:
                last_file = 0
            if step < last_step:
                text = "of the run before an extension, behind shards that it added"
                self._add("foreign", f"{self.folder}: {shard.name}: {text}", shard.name)
            last_step = step
            file = last_file if shard.label_file is None else shard.label_file
            if shard.span is None or not file < len(names):
                continue
            start, stop = shard.span
            first, end = self._rows_of_step(step, file)
            if not first <= start <= stop <= end:
                text = f"rows {start} to {stop - 1} of {names[file]}, expected some of {first} to {end - 1}"
                self._add(
                    "configuration", f"{self.folder}: {shard.name}: {text}, by its configuration", shard.name
                )
            if file < last_file:
                text = f"rows of {names[file]}, behind those of {names[last_file]}"
                self._add("foreign", f"{self.folder}: {shard.name}: {text}", shard.name)
            last_file = max(last_file, file)
            if start < ends[file] or (start > ends[file] and self.finished):
                gap = f"rows {ends[file]} to {start - 1} are in no shard before it"
                twice = f"rows {start} to {min(ends[file], stop) - 1} are in a shard before it"
                text = gap if start > ends[file] else twice
                self._add("rows", f"{self.folder}: {shard.name}: {names[file]}: {text}", shard.name)
            ends[file] = max(ends[file], stop)
        for file, (name, end) in enumerate(zip(names, ends, strict=True)):
            if self.finished and (rows := files[file].get("rows")) != end:
                self._add(
                    "rows", f"{self.folder}: {name}: {rows} rows, of which the shards account for {end}"
                )

    def check_schema(self) -> None:
        """schema.json is that of the label vector."""
        path = self.folder / SCHEMA_NAME
        try:
            content = read_json(path)
            if not _is_as_written(path, content) or content != json.loads(json.dumps(schema())):
                self._add("schema", f"{path}: not the schema of the label vector, as skelfit writes it")
        except ShardError as error:
            self._add("schema" if path.exists() else "missing", str(error))

    def check_summary(self) -> None:
        """summary.json agrees with the rows of all shards."""
        path = self.folder / SUMMARY_NAME
        try:
            summary = read_json(path)
        except ShardError as error:
            return self._add("summary", str(error))
        if not _is_as_written(path, summary) or SEAL not in summary or is_broken(summary):
            self._add("summary", f"{path}: '{SEAL}': it is not the hash of the rest, as skelfit writes it")
        expected = {
            "subset": self.subset,
            **self.rows.to_json(),
            "rejected": add_counts(shard.reasons for shard in self.shards),
            "shards": len(self.shards),
            "identity": self.identity,
            "identity_sha256": None if self.identity is None else mapping_hash(self.identity),
        }
        expected = json.loads(json.dumps(expected))
        for key in expected:
            if summary.get(key) != expected[key]:
                text = (
                    f"expected {_short(expected[key])}, as the shards have, found {_short(summary.get(key))}"
                )
                self._add("summary", f"{path}: '{key}': {text}")


def _is_as_written(path: Location, content: Mapping[str, Any]) -> bool:
    return path.read_bytes() == (json.dumps(content, indent=2) + "\n").encode()


def _merge_pairwise(parts: list[Summary]) -> Summary:
    """Merge in pairs, and pairs of pairs: one after another would copy the first ones again and again."""
    while len(parts) > 1:
        parts = [a.merge(b) for a, b in zip_longest(parts[::2], parts[1::2], fillvalue=Summary())]
    return parts[0] if parts else Summary()


def add_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums of counts by name, sorted by name."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
