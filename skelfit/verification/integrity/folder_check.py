"""Is a folder of shards whole: each shard by itself, and all of them together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from skelfit.config.identity import difference, mapping_hash
from skelfit.shards.label_vector import schema
from skelfit.shards.row_statistics import Summary
from skelfit.shards.shard_files import SCHEMA_NAME, SUMMARY_NAME, ShardError, ShardFiles, shard_name
from skelfit.shards.shard_reader import read_json
from skelfit.shards.shard_writer import sealed
from skelfit.verification.integrity.damage import Damage, Kind
from skelfit.verification.integrity.run_folder import SHARD_FILE, RunFolder, open_run
from skelfit.verification.integrity.shard_check import ShardCheck, check_shard

_SHOWN = 5  # differences of two configurations that are named


@dataclass(frozen=True)
class Integrity:
    """What was found in a folder: nothing is taken from what it says of itself but for comparison."""

    folder: Path
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
        """Whether nothing is wrong."""
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


def check_folder(folder: Path) -> Integrity:
    """Check a finished run in this process, shard by shard. Raises ShardError where there is none at all."""
    run = open_run(folder)
    return check_run(run, [check_shard(files)[0] for files in run.shards])


def check_run(run: RunFolder, shards: Sequence[ShardCheck]) -> Integrity:
    """What holds of all shards of a run together; `shards` in the order of their names."""
    found = _Run(run, shards)
    found.check_identities()
    found.check_rows()
    if run.unfinished is not None:
        found.damage.append(run.unfinished.damage(run.path, found.rows.rows_in, found.rows_wanted))
    else:
        found.check_names()
        found.check_schema()
        found.check_summary()
    damage = (*(d for shard in shards for d in shard.damage), *found.damage)
    return Integrity(
        folder=run.path,
        subset=run.subset,
        damage=damage,
        shards=len(shards),
        rows_in=found.rows.rows_in,
        people=sum(shard.people for shard in shards),
        statuses=dict(sorted(found.rows.statuses.items())),
        rejected=_added(shard.reasons for shard in shards),
        bytes=sum(shard.marker.tar.bytes for shard in shards if shard.marker is not None),
        identity_sha256=None if found.identity is None else mapping_hash(found.identity),
        identity=found.identity,
    )


class _Run:
    """The shards of a folder, compared with each other and with what stands beside them."""

    def __init__(self, run: RunFolder, shards: Sequence[ShardCheck]) -> None:
        self.folder, self.subset, self.shards = run.path, run.subset, shards
        self.finished = run.unfinished is None
        self.damage: list[Damage] = []
        self.rows = _merged([shard.rows for shard in shards])
        self.identity = self._identity()

    def _say(self, kind: Kind, message: str, shard: str | None = None) -> None:
        self.damage.append(Damage(shard, None, kind, message))

    def _identity(self) -> Mapping[str, Any] | None:
        """That of most shards; of a run without any, that of its summary."""
        if not self.shards and self.finished:
            with suppress(ShardError):
                said = read_json(self.folder / SUMMARY_NAME).get("identity")
                return said if isinstance(said, Mapping) else None
        identities = [s.marker.identity for s in self.shards if s.marker is not None]
        hashes = Counter(map(mapping_hash, identities))
        wanted = hashes.most_common(1)[0][0] if hashes else None
        return next((i for i in identities if mapping_hash(i) == wanted), None)

    @property
    def rows_wanted(self) -> int | None:
        """How many rows the label files have, as the shards tell; None where none of them can be read."""
        rows = [file.get("rows") for file in (self.identity or {}).get("labels", ())]
        return sum(rows) if rows and all(isinstance(n, int) for n in rows) else None

    def check_identities(self) -> None:
        """One configuration, and one subset, for all shards."""
        for shard in self.shards:
            if self.identity is None or shard.marker is None:
                continue
            if changed := difference(shard.marker.identity, self.identity):
                text = "; ".join(changed[:_SHOWN]) + (" ..." if len(changed) > _SHOWN else "")
                path = ShardFiles(self.folder, shard.name).marker
                self._say("configuration", f"{path}: of another configuration than most: {text}", shard.name)
        others = {m[1] for p in self.folder.iterdir() if (m := SHARD_FILE.fullmatch(p.name))} - {self.subset}
        for name in sorted(others):
            self._say(
                "foreign", f"{self.folder}: shards of another subset, {name}, beside those of {self.subset}"
            )

    def check_names(self) -> None:
        """Shards are numbered from 0 on, without gaps."""
        there = {shard.name for shard in self.shards}
        last = max((int(name[-6:]) for name in there), default=-1)
        for name in (shard_name(self.subset, i) for i in range(last)):
            if name not in there:
                self._say("missing", f"{self.folder}: {name}: no file of this shard", name)

    def check_rows(self) -> None:
        """Every row of every label file in exactly one shard, and the shards in the order of the rows.

        Of an unfinished run rows may be in no shard.
        """
        files = (self.identity or {}).get("labels", [])
        names = [f"{file.get('name')}" for file in files]
        ends = [0] * len(names)
        before = 0
        for shard in self.shards:
            file = before if shard.label_file is None else shard.label_file
            if shard.span is None or not file < len(names):
                continue
            start, stop = shard.span
            if file < before:
                text = f"rows of {names[file]}, behind those of {names[before]}"
                self._say("foreign", f"{self.folder}: {shard.name}: {text}", shard.name)
            before = max(before, file)
            if start < ends[file] or (start > ends[file] and self.finished):
                gap = f"rows {ends[file]} to {start - 1} are in no shard before it"
                twice = f"rows {start} to {min(ends[file], stop) - 1} are in a shard before it"
                text = gap if start > ends[file] else twice
                self._say("rows", f"{self.folder}: {shard.name}: {names[file]}: {text}", shard.name)
            ends[file] = max(ends[file], stop)
        for file, (name, end) in enumerate(zip(names, ends, strict=True)):
            if self.finished and (rows := files[file].get("rows")) != end:
                self._say(
                    "rows", f"{self.folder}: {name}: {rows} rows, of which the shards account for {end}"
                )

    def check_schema(self) -> None:
        """schema.json, which readers without skelfit rely on."""
        path = self.folder / SCHEMA_NAME
        try:
            if not self._written(path, read_json(path)) or read_json(path) != json.loads(
                json.dumps(schema())
            ):
                self._say("schema", f"{path}: not the schema of the label vector, as skelfit writes it")
        except ShardError as error:
            self._say("schema" if path.exists() else "missing", str(error))

    def check_summary(self) -> None:
        """summary.json against the rows of all shards."""
        path = self.folder / SUMMARY_NAME
        try:
            told = read_json(path)
        except ShardError as error:
            return self._say("summary", str(error))
        content = {key: value for key, value in told.items() if key != "content_sha256"}
        if not self._written(path, told) or told != sealed(content):
            self._say(
                "summary", f"{path}: 'content_sha256': it is not the hash of the rest, as skelfit writes it"
            )
        expected = {
            "subset": self.subset,
            **self.rows.to_json(),
            "rejected": _added(shard.reasons for shard in self.shards),
            "shards": len(self.shards),
            "identity": self.identity,
            "identity_sha256": None if self.identity is None else mapping_hash(self.identity),
        }
        expected = json.loads(json.dumps(expected))
        for key in expected:
            if told.get(key) != expected[key]:
                text = f"expected {_short(expected[key])}, as the shards have, found {_short(told.get(key))}"
                self._say("summary", f"{path}: '{key}': {text}")

    def _written(self, path: Path, content: Mapping[str, Any]) -> bool:
        return path.read_bytes() == (json.dumps(content, indent=2) + "\n").encode()


def _merged(parts: list[Summary]) -> Summary:
    """In pairs, and pairs of pairs: one after another would copy the first ones over and over."""
    while len(parts) > 1:
        parts = [a.merge(b) for a, b in zip_longest(parts[::2], parts[1::2], fillvalue=Summary())]
    return parts[0] if parts else Summary()


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
