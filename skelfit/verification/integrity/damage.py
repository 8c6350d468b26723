"""Kinds of damage to shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "missing",  # a file is not there
    "marker",  # a done marker that skelfit did not write, or that contradicts the files
    "sidecar",  # a sidecar that differs from its marker
    "row",  # a row of a sidecar that is damaged
    "tar",  # a tar that differs from its marker, or is broken between its samples
    "sample",  # a sample that is damaged, or does not agree with its row
    "parameters",  # numbers that are not finite
    "lost",  # a published row without a sample in the tar
    "duplicate",  # a sample or row that occurs twice
    "foreign",  # a sample or row of another shard
    "rows",  # input rows that no shard accounts for, or more than one shard
    "configuration",  # shards of different configurations
    "summary",  # summary.json contradicts the shards
    "schema",  # schema.json is not that of the label vector
    "errors",  # the stored errors are not those of the stored parameters
    "unfinished",  # no damage: the run is still going, or was interrupted
]


@dataclass(frozen=True)
class Damage:
    """One fault of a shard or of the folder; with the sample, where it is known."""

    shard: str | None  # its name; None: of the folder
    sample: str | None  # its key
    kind: Kind
    message: str  # names the file

    def to_json(self) -> dict[str, str | None]:
        """Plain data."""
        return {"shard": self.shard, "sample": self.sample, "kind": self.kind, "message": self.message}
