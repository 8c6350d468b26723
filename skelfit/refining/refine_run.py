"""The run that refines the shards of another run: what its results depend on, and which shards it has.

A refined shard has the name, the rows and the keys of the one that it is made of, and the identity of that one with a
part `refined` beside it. Without this part, the identity is that of the shards where the old parameters are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from skelfit.config.identity import mapping_hash
from skelfit.config.manifest import Filters, Origin
from skelfit.config.refine_job import RefineJob
from skelfit.config.yaml_dataclasses import build
from skelfit.conversion.planned_shard import RunPlan
from skelfit.conversion.run_plan import read_identities
from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.label_vector import LAYOUT_VERSION
from skelfit.shards.shard_files import SUMMARY_NAME, ShardError, ShardFiles
from skelfit.storage.locations import address_of, location_of

# The version of all that turns a sample into a refined one: raise it as ALGORITHM_VERSION of a conversion.
REFINEMENT_VERSION = 2
REFINED = "refined"  # the part of an identity that names the refinement


@dataclass(frozen=True)
class RefineRun:
    """What refined shards share. Those of an extended run have one for each extension."""

    subset: str
    source: str  # folder of the shards that are refined
    out: str
    models: str | None  # folder; None is the open body
    models_sha256: str
    device: str
    job: RefineJob
    source_identity: str  # of the shards that are refined, as JSON
    description: str = ""  # as the source has it; no result depends on it, nor on the next
    origins: tuple[Origin, ...] = ()
    filters: Filters = Filters()
    version: int = REFINEMENT_VERSION

    @property
    def made(self) -> str:
        """What is done with the rows, as a message says it."""
        return "refined"

    def identity(self) -> dict[str, Any]:
        """What the results depend on, without places."""
        refined = {**asdict(self.job), "version": self.version}
        return {**json.loads(self.source_identity), REFINED: refined}

    @property
    def identity_sha256(self) -> str:
        """One hash of the identity."""
        return mapping_hash(self.identity())


@dataclass(frozen=True)
class RefineTask:
    """One shard to refine."""

    run: RefineRun
    name: str
    start: int
    stop: int

    @property
    def files(self) -> ShardFiles:
        """Where the refined shard goes."""
        return ShardFiles(location_of(self.run.out), self.name)

    @property
    def source(self) -> ShardFiles:
        """The shard that is refined."""
        return ShardFiles(location_of(self.run.source), self.name)


def source_identity(identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The identity of the shards that refined ones were made of; None where these are not refined."""
    if REFINED not in identity:
        return None
    return {key: value for key, value in identity.items() if key != REFINED}


def plan_refinement(
    source: FinishedRun, out: str, models: str | None, models_sha256: str, device: str, job: RefineJob
) -> RunPlan:
    """The shards of a refinement. Raises ShardError for shards that cannot be refined."""
    path = source.folder / SUMMARY_NAME
    if REFINED in source.identity:
        raise ShardError(path, "identity", "shards that are not refined yet", "refined ones")
    if source.identity.get("layout") != LAYOUT_VERSION:
        found = repr(source.identity.get("layout"))
        raise ShardError(path, "identity.layout", LAYOUT_VERSION, found)
    runs: dict[str, RefineRun] = {}

    def run_of(identity: Mapping[str, Any]) -> RefineRun:
        text = json.dumps(identity)
        if text not in runs:
            runs[text] = RefineRun(
                subset=source.subset,
                source=address_of(source.folder),
                out=out,
                models=models,
                models_sha256=models_sha256,
                device=device,
                job=job,
                source_identity=text,
                description=str(source.summary.get("description", "")),
                origins=tuple(build(Origin, one, str(path)) for one in source.summary.get("origins", ())),
                filters=build(Filters, identity.get("filters", {}), str(path)),
            )
        return runs[text]

    tasks = [
        RefineTask(run_of(marker.identity), marker.name, marker.start, marker.stop)
        for _, marker in source.shards
    ]
    return RunPlan(run_of(source.identity), tasks, read_identities(location_of(out), source.subset))
