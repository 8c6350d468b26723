"""What is wrong with shards, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "missing",  # a file is not there
    "marker",  # a done marker that is not as skelfit writes it, or does not tell the truth
    "sidecar",  # a sidecar of other bytes than its marker says
    "row",  # a row of a sidecar that is damaged
    "tar",  # a tar of other bytes than its marker says, or broken between its samples
    "sample",  # a sample that is damaged, or does not agree with its row
    "parameters",  # numbers that are not finite
    "lost",  # a row says that it is published, and the tar has no sample of it
    "duplicate",  # a sample or row that is there twice
    "foreign",  # a sample or row that does not belong where it is
    "rows",  # input rows that no shard accounts for, or more than one
    "configuration",  # shards of different configurations
    "summary",  # summary.json does not agree with the shards
    "schema",  # schema.json is not that of the label vector
    "errors",  # the stored errors are not those of the stored parameters
    "unfinished",  # no damage: the run still goes on, or was cut short
]


@dataclass(frozen=True)
class Damage:
    """One fault: of a shard or of the whole folder, and of which of its samples, where one is to blame."""

    shard: str | None  # its name; None: a file of the whole folder
    sample: str | None  # its key
    kind: Kind
    message: str  # names the file

    def to_json(self) -> dict[str, str | None]:
        """Plain data."""
        return {"shard": self.shard, "sample": self.sample, "kind": self.kind, "message": self.message}
