"""Runs whose labels grew: `--extend` adds rows behind those of finished shards, and leaves these as they are.

A shard's marker says what the labels were before each extension (`extends` in its identity), so the markers alone tell
which rows go into which shards, in any process and after any interruption.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from skelfit.config.identity import difference
from skelfit.conversion.planned_shard import RunPlan, rows_of
from skelfit.conversion.run_plan import (
    LabelFile,
    Run,
    ShardTask,
    plan_shards,
    read_identities,
)
from skelfit.errors import OutputError
from skelfit.labels.label_store import read_rows, store_sequences
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_marker
from skelfit.storage.locations import location_of

# What may change of a label file that grew: its content is another, and so may be what is said of its values.
_GROWING = ("sha256", "rows", "notes")


@dataclass(frozen=True)
class LabelPlan(RunPlan):
    """A run that makes shards of label rows, as it goes on in its folder."""

    run: Run  # with its extensions
    tasks: Sequence[ShardTask]


def plan_run(run: Run, *, overwrite: bool = False, extend: bool = False) -> LabelPlan:
    """The shards of a run, with regard to those that its folder has. Raises OutputError as `continued` does."""
    starts = {i: [s.start for s in store_sequences(file.store)] for i, file in enumerate(run.labels)}
    identities = read_identities(location_of(run.out), run.subset)
    if not overwrite:
        run = continued(run, identities, starts, extend=extend)
    tasks = plan_shards(run, starts)
    new = [task for task in tasks if task.run.earlier and task.run.earlier == run.earlier]
    return LabelPlan(run, tasks, identities, rows_of(new))


def continued(
    run: Run,
    identities: Mapping[str, Mapping[str, Any]],
    starts: Mapping[int, Sequence[int]] = MappingProxyType({}),
    *,
    extend: bool,
) -> Run:
    """The run with its extensions so far, as the markers of its folder have them, and with a new one if `extend`.

    identities: as `read_identities` has them; starts: first rows of sequences, as for `plan_shards`. Raises OutputError
    when the run has more rows than the folder and not `extend`, and when it is no extension of what the folder has.
    Other differences are for `finished_shards` to name.
    """
    wanted = json.loads(json.dumps(run.identity()))
    known = [identity for identity in identities.values() if _are_like(identity, wanted)]
    found = max(known, key=lambda identity: len(identity.get("extends", ())), default=None)
    if found is None:
        return run
    before, now = found["labels"], wanted["labels"]
    steps = found.get("extends", [])
    if before != now:
        problem = _not_grown(before, now)
        if not extend and problem is None:
            raise OutputError(
                f"{run.out}: has shards of {_counted(before)}, and these labels have {_counted(now)}. "
                "Give --extend to add the others to it, choose another --out, or --overwrite"
            )
        if problem is not None:
            if extend:
                raise _refusal(run.out, problem)
            return _with_steps(run, steps)
        without = replace(_with_steps(run, steps), labels=_as_then(run.labels, before))
        _check_rows(without, run, identities, starts)
        steps = [*steps, before]
    return _with_steps(run, steps)


def _with_steps(run: Run, steps: Sequence[Sequence[Mapping[str, Any]]]) -> Run:
    return replace(run, earlier=tuple(_as_then(run.labels, labels) for labels in steps))


def _are_like(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two identities differ in nothing but their labels, which have the same keys."""
    first, second = (
        {key: value for key, value in identity.items() if key not in ("labels", "extends")}
        for identity in (found, wanted)
    )
    keys = {tuple(file) for labels in (found, wanted) for file in labels.get("labels", ())}
    return not difference(first, second) and len(keys) <= 1


def _counted(labels: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(file['rows'] for file in labels)} rows of {len(labels)} label file{'s'[: len(labels) != 1]}"


def _as_then(labels: Sequence[LabelFile], then: Sequence[Mapping[str, Any]]) -> tuple[LabelFile, ...]:
    """Label files with as many rows as before an extension; their stores are those of today, which begin the same."""
    return tuple(
        replace(file, sha256=old["sha256"], rows=old["rows"], notes=tuple(old["notes"]))
        for file, old in zip(labels, then, strict=False)
    )


def _not_grown(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> str | None:
    """Why label files are not the earlier ones with more rows, by their identities; None where they are."""
    if len(now) < len(before):
        return f"it has {len(before)} label files, and now there are {len(now)}"
    for i, (old, new) in enumerate(zip(before, now, strict=False)):
        same = [key for key in {**old, **new} if key not in _GROWING]
        if changed := difference({key: old.get(key) for key in same}, {key: new.get(key) for key in same}):
            return f"labels[{i}].{changed[0]} (found against wanted)"
        if new["rows"] < old["rows"]:
            return f"labels[{i}].rows: {old['rows']} are in its shards, and now there are {new['rows']}"
    if sum(file["rows"] for file in now) == sum(file["rows"] for file in before):
        return f"no row is new ({_counted(before)}, {_counted(now)} now)"
    return None


def _check_rows(before: Run, now: Run, finished: Iterable[str], starts: Mapping[int, Sequence[int]]) -> None:
    """Raise OutputError unless the rows of finished shards are what they were, and no sequence is cut.

    before: the run without the new rows; finished: names of its finished shards.
    """
    grown = [old.sha256 != file.sha256 for old, file in zip(before.labels, now.labels, strict=False)]
    for task in plan_shards(before, starts) if any(grown) else ():
        if grown[task.file_index] and task.name in finished:
            _check_same(task)
    for old, file in zip(before.labels, now.labels, strict=False):
        for motion in store_sequences(file.store) if file.rows > old.rows else ():
            if motion.start < old.rows < motion.start + motion.frames:
                where = f"its {old.rows} rows of {file.name} end inside of the sequence {motion.name}"
                raise _refusal(now.out, f"{where}, which would be cut")


def _check_same(task: ShardTask) -> None:
    """Raise OutputError unless a label file of today begins with the rows of a finished shard."""
    file = task.run.labels[task.file_index]
    try:
        marker = read_marker(task.files)
    except ShardError:  # it is made again, of the rows as they are now
        return
    if not marker.labels_sha256:
        raise _refusal(
            task.run.out,
            f"{file.name} is another file than that of its shards, and {task.files.marker.name} has no hash of the "
            "label rows to compare with (an older skelfit wrote it)",
        )
    # Of another file, the sequences may begin elsewhere.
    span = task.start, task.stop
    if span != (marker.start, marker.stop) or read_rows(file.store, *span).sha256() != marker.labels_sha256:
        raise _refusal(
            task.run.out,
            f"rows {marker.start} to {marker.stop - 1} of {file.name}, or their coordinates, are not those of the "
            f"finished shard {task.name}",
        )


def _refusal(out: str, problem: str) -> OutputError:
    return OutputError(f"{out}: cannot be extended: {problem}. Choose another --out, or --overwrite")
