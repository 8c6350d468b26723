"""`skelfit.convert`: a dataset from label files to shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from skelfit.api.conversion_lines import (
    table_of_subsets,
)
from skelfit.api.conversion_options import (
    check_at_least_one,
    check_extension,
    check_skel_gender,
    check_speed,
    filter_names,
    has_images,
    images_at,
    images_of,
    rank_of,
    watched_executor,
    what_to_read,
)
from skelfit.api.conversion_result import Conversion, ConvertedSubset
from skelfit.api.dry_run import plan_conversion
from skelfit.api.fit_arrays import check_device
from skelfit.api.refused_options import GivenOptions, check_image_options
from skelfit.api.run_making import STORES, RunOptions, make_run
from skelfit.api.run_shards import ShardsFailedError, convert_rank, convert_run
from skelfit.api.subsets import (
    MissingError,
    Subset,
    file_subset,
    filter_rules,
    manifest_subset,
    manifests_of,
    next_commands,
)
from skelfit.bodies.model_set import OPEN_BODY, ModelSet, find_models
from skelfit.config.manifest import load_manifest
from skelfit.config.pipeline import Pipeline
from skelfit.config.pipeline_choice import DEFAULT_PIPELINE, chosen_pipeline
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_fitter import make_fitter, run_kernels
from skelfit.conversion.run_lock import sharing, writing
from skelfit.conversion.run_plan import check_summary
from skelfit.errors import ArgumentError, SkelfitError
from skelfit.executors.executor import Work, chosen_executor, visible_gpus
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.fitting.backends.backend import compile_once
from skelfit.fitting.backends.compute_device import find_device
from skelfit.labels.label_store import clear_temporaries
from skelfit.storage.checked_arguments import location_argument, whole_number
from skelfit.storage.command_lines import next_command
from skelfit.storage.locations import Location, Place, address_of, protocol_of


def convert(
    out: Place,
    *,
    manifest: Place | None = None,
    labels: Place | None = None,
    source: str | None = None,
    scale_unit: str | None = None,
    angle_unit: str | None = None,
    rot6d: str | None = None,
    length_unit: str | None = None,
    vertex_map: str | Path | None = None,
    coordinates: str | None = None,
    labels_up: str | None = None,
    up: str | None = None,
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    models: Place | None = None,
    images: Place | None = None,
    image_mode: str | None = None,
    crop_size: int | None = None,
    crop_margin: float | None = None,
    skel_gender: str | None = None,
    independent_frames: bool = False,
    filter: str | Sequence[str] = (),
    no_filter: str | Sequence[str] = (),
    limit: int | None = None,
    shard_size: int | None = None,
    device: str = "auto",
    fit_batch: int | None = None,
    writers: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    max_wait: float | None = None,
    dashboard: bool = False,
    performance_report: str | Path | None = None,
    rank: int | None = None,
    world: int | None = None,
    overwrite: bool = False,
    extend: bool = False,
    dry_run: bool = False,
    people_per_second: float | None = None,
    progress: bool | Count | Reporter = False,
) -> Conversion:
    """Fit SKEL to SMPL labels and write WebDataset shards. A run that was cut short goes on where it was.

    The options are those of `skelfit convert`, which `skelfit convert --help` and docs/labels.md explain. Where workers
    are processes of this machine, a script needs `if __name__ == "__main__":` around the call; workers=0 needs none.

    Args:
        out: folder for the shards.
        manifest: what to convert: a name that comes with skelfit, a file, or a folder of them. Or else:
        labels: one label file, or a folder of sequences; `source` to `up` say how to read it.
        rank, world: make every world-th shard only, from shard `rank` on; other processes make the others. The one
            that finishes the last shard writes the summary.
        extend: add rows to a run: those behind a raised limit, at the end of a label file, or of further label files.
        dry_run: read the labels, say what a run would do, and write nothing; the subsets have a `plan` then.
        people_per_second: of a dry run: how fast one worker fits. None: the last run in the folder tells the time.
        filter, no_filter: rules to switch on ("few_keypoints", "few_keypoints=6") and off.
        progress: True shows a bar; a function is called with the people done and the people there are. What a command
            prints on its way goes to the log, unless a Reporter is given.

    Returns:
        What became of each subset, with its summary.

    Raises:
        ArgumentError: for an option that cannot be used.
        ShardsFailedError: when some shards failed; the same call tries them again.
        LabelError, ModelError, ConfigError, OutputError, DeviceError, ClusterError: for files and places of that kind.
        Of a folder of manifests, a subset that fails does not stop the others, and raises nothing.
    """
    reporter, folder = reporter_of(progress), location_argument("out", out, writing=True)
    reading = {"scale_unit": scale_unit, "angle_unit": angle_unit, "rot6d": rot6d, "length_unit": length_unit}
    reading |= {"vertex_map": None if vertex_map is None else str(vertex_map), "coordinates": coordinates}
    reading |= {"labels_up": labels_up, "up": up}
    file, layout, read = what_to_read(manifest, labels, source, reading)
    picture = {"image_mode": image_mode, "crop_size": crop_size, "crop_margin": crop_margin}
    found_images = images_at(images, file)
    check_at_least_one(limit=limit, shard_size=shard_size, fit_batch=fit_batch)
    if writers is not None:
        writers = whole_number("writers", writers, 0)
    check_speed(people_per_second, dry_run)
    check_device(device)
    check_skel_gender(skel_gender)
    of_ranks = rank_of(rank, world, scheduler=scheduler, dry_run=dry_run)
    check_extension(extend, overwrite)
    settings = chosen_pipeline(pipeline, skel_gender, shard_size, independent_frames)
    settings = replace(settings, images=images_of(settings.images, picture))
    rules = filter_rules(filter)
    given = GivenOptions(
        skel_gender=skel_gender,
        images=images is not None,
        image_mode=None if image_mode is None else settings.images.mode,
        crop_options=tuple(
            f"--{n.replace('_', '-')}" for n in ("crop_size", "crop_margin") if picture[n] is not None
        ),
        filters=tuple(name for name, _ in rules),
        independent_frames=independent_frames,
    )
    check_image_options(given, settings.images.mode, has_images=given.images or has_images(file))
    # A dry run plans for a GPU also where there is none.
    elsewhere = scheduler is not None or (dry_run and device != "auto")
    kind = device if elsewhere else find_device(device)
    gpus = visible_gpus(max(torch.cuda.device_count(), dry_run)) if kind == "cuda" else ()
    executor = chosen_executor(workers, scheduler, tls_ca, tls_cert, tls_key, max_wait, gpus)
    if not executor.is_here and protocol_of(address_of(folder)) == "memory":
        raise ArgumentError("out", "what other processes see too, or workers: 0", f"the address {folder}")
    body_models = _said_models(models, reporter)
    options = RunOptions(
        pipeline=settings,
        models=body_models,
        device=kind,
        executor=watched_executor(replace(executor, writers=writers), dashboard, performance_report),
        fit_batch=fit_batch,
        limit=limit,
        filters_on=rules,
        filters_off=filter_names(no_filter),
        overwrite=overwrite,
        extend=extend,
        rank=of_ranks,
        given=given,
        reporter=reporter,
    )
    if dry_run:
        labelled = (
            None
            if labels is None
            else file_subset(location_argument("labels", labels), layout, read, found_images)
        )
        return plan_conversion(labelled or file, found_images, folder, options, people_per_second)
    if file is not None and file.is_dir():
        return convert_all(file, folder, options)
    if file is None:
        subset = file_subset(location_argument("labels", labels or ""), layout, read, found_images)
    else:
        subset = manifest_subset(file, found_images, body_models, reporter)
    return Conversion((convert_subset(subset, folder, options),))


def _said_models(models: Place | None, reporter: Reporter) -> ModelSet:
    """The models of a run, and whether they are a stand-in."""
    body_models = find_models(models)
    reporter.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    if body_models.source == OPEN_BODY:
        reporter.say("  a free stand-in, not SMPL and SKEL; import those with: skelfit models import")
    return body_models


def convert_subset(subset: Subset, out: Location, options: RunOptions) -> ConvertedSubset:
    """Convert one subset. Raises ShardsFailedError when a shard failed."""
    models, say, rank = options.models, options.reporter.say, options.rank
    check_summary(out)
    with writing(out, subset.name, rank):
        with sharing(out, rank, say):
            clear_temporaries(out / STORES)
            run = make_run(subset, out, out / STORES, options)
        if options.executor.scheduler is None:
            compile_once(run.device, run_kernels(run), say)
        work: Work = convert_batch
        if options.executor.is_here:
            work = partial(convert_batch, fitter=make_fitter(models, run.pipeline, run.device))
        more: dict[str, Any] = {
            "overwrite": options.overwrite,
            "extend": options.extend,
            "fit_batch": options.fit_batch,
            "reporter": options.reporter,
        }
        summary: dict[str, Any] | None
        if rank is None:
            summary = convert_run(run, options.executor, work=work, **more)
        else:
            summary = convert_rank(run, rank, options.executor, work=work, **more)
    if summary is None:
        say(next_command("status", out))
        return ConvertedSubset(subset.name, out, None, waits=True)
    for line in next_commands(run, out):
        say(line)
    return ConvertedSubset(subset.name, out, summary)


def convert_all(folder: Path, out: Location, options: RunOptions) -> Conversion:
    """Convert every manifest of a folder, each to its own folder in `out`, and say a table of them.

    A subset without label files is named with what to do; one that fails does not stop the others.
    """
    say, warn = options.reporter.say, options.reporter.warn
    subsets: list[ConvertedSubset] = []
    ends: list[str] = []
    for path in manifests_of(folder):
        name = load_manifest(path).name
        say(f"== {name}")
        try:
            subset = manifest_subset(path, None, options.models, options.reporter)
            subsets.append(convert_subset(subset, out / name, options))
            ends.append(str(out / name))
            continue
        except MissingError as error:
            problem, missing = str(error), True
            ends.append("not there, see below")
            say("its label files are not there")
        except ShardsFailedError as error:
            problem, missing = str(error), False
            ends.append("some shards failed, see above")
            warn(problem)
        except SkelfitError as error:
            problem, missing = str(error), False
            ends.append("failed, see above")
            warn(f"Error: {error}")
        subsets.append(ConvertedSubset(name, out / name, None, problem, missing))
    say(table_of_subsets((s.name, s.summary, end) for s, end in zip(subsets, ends, strict=True)))
    for subset_ in subsets:
        if subset_.missing:
            say(subset_.problem)
    return Conversion(tuple(subsets))
