"""The report on folders of shards, as plain data with a version."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skelfit import __version__
from skelfit.verification.gates import KeepCounts
from skelfit.verification.integrity.damage import Damage
from skelfit.verification.integrity.folder_check import Integrity, add_counts, check_run
from skelfit.verification.integrity.run_folder import RunFolder
from skelfit.verification.integrity.shard_check import ShardCheck
from skelfit.verification.measures.ground_rows import GroundRow
from skelfit.verification.report.aggregate import Aggregate
from skelfit.verification.report.ground_table import ground_to_json
from skelfit.verification.report.tables import tables
from skelfit.verification.verify_shard import ShardReport

VERSION = "skelfit-verify-2"
GOOD, BELOW_GATE, UNFINISHED, DAMAGED = "good", "below_gate", "unfinished", "damaged"
EXIT_CODES: Mapping[str, int] = {GOOD: 0, BELOW_GATE: 1, UNFINISHED: 2, DAMAGED: 2}
Report = dict[str, Any]


@dataclass
class ReportBuilder:
    """Gathers the results of shards, which are added in the order of their folders and names."""

    runs: Sequence[RunFolder]
    checks: dict[str, list[ShardCheck]] = field(default_factory=lambda: defaultdict(list))  # by folder
    measured: int = 0
    aggregate: Aggregate = field(default_factory=Aggregate)
    counts: KeepCounts = field(default_factory=KeepCounts)
    ground: list[GroundRow] | None = None  # of all sequences; None: not measured

    def add(self, shard: ShardReport) -> None:
        """Add a shard. Measures of single people are not kept."""
        self.checks[shard.folder].append(shard.check)
        self.measured += shard.measured
        self.aggregate = self.aggregate.merge(shard.aggregate)
        self.counts = self.counts.merge(shard.counts)
        if shard.ground is not None:
            self.ground = [*(self.ground or ()), *shard.ground]

    def report(
        self, limits: Mapping[str, float], max_pve: float | None, failures: Iterable[Damage] = ()
    ) -> Report:
        """The report; limits: of the gates; failures: shards that could not be verified."""
        runs = [check_run(run, self.checks[str(run.path)]) for run in self.runs]
        integrity = _integrity(runs, [*_duplicate_subsets(runs), *failures])
        measures = tables(self.aggregate) if self.measured else {}
        kinds = set(integrity["damaged"])
        verdict = GOOD if not kinds else UNFINISHED if kinds == {UNFINISHED} else DAMAGED
        pve = (measures.get("accuracy") or {}).get("pve_mm") or {}
        if verdict == GOOD and max_pve is not None and not (pve.get("mean") or float("inf")) <= max_pve:
            verdict = BELOW_GATE
        return {
            "version": VERSION,
            "skelfit": __version__,
            "verdict": verdict,
            "gate": {"max_pve_mm": max_pve, "pve_mm": pve.get("mean")},
            "people": {"whole": integrity["people"], "measured": self.measured},
            "integrity": integrity,
            **measures,
            **({"ground": ground_to_json(self.ground)} if self.ground else {}),
            "keep": self.counts.to_json(limits) if self.measured else None,
        }


def _integrity(runs: Sequence[Integrity], other_damage: Sequence[Damage]) -> dict[str, Any]:
    """The integrity of all folders together, and of each."""
    identities = {run.identity_sha256 for run in runs}
    damage = [d for run in runs for d in run.damage] + list(other_damage)
    return {
        "whole": not damage,
        "unfinished": any(d.kind == UNFINISHED for d in damage),
        "faults": sum(d.kind != UNFINISHED for d in damage),
        "subset": ", ".join(run.subset for run in runs),
        **{
            name: sum(getattr(run, name) for run in runs) for name in ("shards", "rows_in", "people", "bytes")
        },
        **{name: add_counts(getattr(run, name) for run in runs) for name in ("statuses", "rejected")},
        "identity_sha256": identities.pop() if len(identities) == 1 else None,
        "damaged": dict(sorted(Counter(d.kind for d in damage).items())),
        "damage": [d.to_json() for d in damage],
        "folders": [replace(run, damage=()).to_json() | {"faults": len(run.damage)} for run in runs],
    }


def _duplicate_subsets(runs: Sequence[Integrity]) -> list[Damage]:
    """Folders of the same subset, whose keys are the same."""
    counts = Counter(run.subset for run in runs)
    folders = {name: ", ".join(str(r.folder) for r in runs if r.subset == name) for name in counts}
    return [
        Damage(
            None, None, "duplicate", f"{folders[name]}: the same subset, {name}, so that keys are not unique"
        )
        for name, count in counts.items()
        if count > 1
    ]
