"""`skelfit.export`: finished shards to the files of other trainers, of viewers and of OpenSim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from skelfit.bodies.model_set import find_models
from skelfit.errors import ArgumentError
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.exports.exporter import ExportOptions, ExportResult
from skelfit.exports.formats import EXPORTERS
from skelfit.exports.predicted_people import is_prediction, predicted_count
from skelfit.shards.finished_run import open_run
from skelfit.storage.checked_arguments import (
    location_argument,
    location_or_none,
    number_of,
    texts_of,
    whole_number,
)
from skelfit.storage.locations import Place, text_of


def export(
    folder: Place,
    *,
    format: str,
    out: Place,
    models: Place | None = None,
    key: str | Sequence[str] = (),
    limit: int | None = None,
    keep: Place | None = None,
    frame_rate: float | None = None,
    overwrite: bool = False,
    progress: bool | Count | Reporter = False,
) -> ExportResult:
    """Write the people of a finished run in the form that others read.

    The options are those of `skelfit export`, which docs/exports.md explains.

    Args:
        folder: the shards of a finished run; for smpl also a folder of `skelfit predict`.
        format: skel-cf, one label file; smpl, one with SMPL bodies; parquet, one table; hsmr, tars with images;
            opensim, scaled models and motions; glb, skinned people in motion; bvh, their skeletons alone; obj or ply,
            skin and bones.
        out: a file (skel-cf, smpl, parquet), else a folder.
        models: for smpl, opensim, glb, bvh, obj and ply: the models of the run. None: as for `convert`.
        key: for opensim, glb, bvh, obj and ply: these people, one by one; or else
        limit: the first people. None, where no key is given: for obj and ply 10; for opensim all, by sequence or shard;
            for glb and bvh all sequences, and 10 people of those in none.
        keep: a keep-list of `verify`: only the people that it keeps.
        frame_rate: for opensim, glb and bvh: Hz of sequences whose labels do not say it. None: what the fit assumed.
        overwrite: whether to replace what an earlier export wrote there.
        progress: True shows a bar; a function is called with the people done and the people there are.

    Returns:
        The files that were written, how many people they hold, and how many the format cannot hold.

    Raises:
        ArgumentError: for an option that cannot be used.
        ShardError, InputError, ModelError, OutputError: for files and places of that kind.
    """
    exporter = EXPORTERS.get(format)
    if exporter is None:
        raise ArgumentError("format", f"one of {', '.join(EXPORTERS)}", repr(format))
    source, target = location_argument("folder", folder), location_argument("out", out, writing=True)
    keep_list, keys = location_or_none("keep", keep), texts_of("key", key)
    if not exporter.selects_people and (keys or limit is not None):
        option = "key" if keys else "limit"
        selecting = _listed(name for name, other in EXPORTERS.items() if other.selects_people)
        raise ArgumentError(option, f"none, except for the formats {selecting}", f"the format {format}")
    if keys and limit is not None:
        raise ArgumentError("limit", "either key or limit", "both")
    if frame_rate is not None:
        expected = "a number above 0 (Hz)"
        frame_rate = number_of("frame_rate", frame_rate, expected)
        if not exporter.in_time:
            timed = _listed(name for name, other in EXPORTERS.items() if other.in_time)
            raise ArgumentError("frame_rate", f"none, except for the formats {timed}", f"the format {format}")
        if not 0 < frame_rate < math.inf:
            raise ArgumentError("frame_rate", expected, str(frame_rate))
    if limit is not None:
        limit = whole_number("limit", limit, 1)
    # Before the run is read: an option that cannot be used is said at once.
    location_or_none("models", models)
    reporter = reporter_of(progress)
    run = None if is_prediction(source) else open_run(source)
    if run is None and not exporter.takes_predictions:
        taking = ", ".join(name for name, other in EXPORTERS.items() if other.takes_predictions)
        raise ArgumentError("format", f"{taking}, for a folder of skelfit predict", repr(format))
    if keep_list is not None:
        if run is None:
            raise ArgumentError("keep", "none, for a folder of skelfit predict", text_of(keep_list))
        run = run.only(keep_list)
    body_models = find_models(models) if exporter.needs_models else None
    if body_models is not None:
        reporter.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    options = ExportOptions(body_models, keys, limit, frame_rate, overwrite)
    total = predicted_count(source) if run is None else exporter.count(run, options)
    with reporter.counting(total) as counter:
        counted = replace(options, step=counter.update)
        if run is None:
            result = exporter.write_prediction(source, target, counted)
        else:
            result = exporter.write(run, target, counted)
    for line in result.notes:
        reporter.say(line)
    return result


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
