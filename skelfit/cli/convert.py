"""`skelfit convert`: a dataset from label files to shards."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from tqdm import tqdm

from skelfit.body.models import OPEN_BODY, ModelSet, find_models
from skelfit.cluster.place import HERE, Place, Tls, cores, visible_gpus
from skelfit.cluster.tasks import ShardFailure, run_tasks
from skelfit.cluster.worker import Work
from skelfit.config import DemoSpec, LabelSource, Pipeline, load_manifest, load_pipeline
from skelfit.job import ShardResult, find_device, make_fitter, run_shard
from skelfit.labels.store import build_store, store_info
from skelfit.plan import LabelFile, Run, ShardTask, finish, pending, plan_shards, writing

DEFAULT_PIPELINE = Path("pipelines/hmr-skel.yaml")
STORES = ".stores"  # beside the shards: all workers can read what they write to
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
COUNT = click.IntRange(min=1)
INTERRUPTED = 130  # what a shell reports after Ctrl-C
PLAIN_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Subset:
    """What is converted: a manifest, or one label file given by hand."""

    name: str
    sources: tuple[LabelSource, ...]
    paths: tuple[Path, ...]  # of the label files
    images: Path | None


@click.command("convert")
@click.option("--manifest", type=FILE, help="What to convert: manifests/*.yaml.")
@click.option("--labels", type=FILE, help="Or one label file...")
@click.option("--source", type=click.Choice(["camerahmr"]), help="...and its kind.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the shards.")
@click.option("--pipeline", type=FILE, help="How to convert  [default: pipelines/hmr-skel.yaml].")
@click.option("--models", type=FOLDER, help="Assets  [default: $SKELFIT_MODELS, ./models, the open body].")
@click.option("--images", type=FOLDER, help="Folder of the images, in place of the manifest's.")
@click.option(
    "--skel-gender",
    type=click.Choice(["male", "female", "best"]),
    help="SKEL for neutral labels; best: whichever fits a person better.",
)
@click.option("--limit", type=COUNT, help="Take the first rows only.")
@click.option("--shard-size", type=COUNT, help="Label rows per shard.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes on this machine  [default: one per GPU, or else per core]; 0: no other than this.",
)
@click.option("--scheduler", help="In place of them: address or scheduler file of a running Dask cluster.")
@click.option("--tls-ca", type=FILE, help="For --scheduler: the certificate authority of the cluster,")
@click.option("--tls-cert", type=FILE, help="a certificate signed by it,")
@click.option("--tls-key", type=FILE, help="and its key, where it is not in the same file.")
@click.option(
    "--max-wait",
    type=click.FloatRange(min=0),
    help="Minutes to wait while the cluster has no worker  [default: for ever; own processes: 1].",
)
@click.option("--overwrite", is_flag=True, help="Replace finished shards of another configuration.")
def convert_command(
    manifest: Path | None,
    labels: Path | None,
    source: str | None,
    out: Path,
    pipeline: Path | None,
    models: Path | None,
    images: Path | None,
    skel_gender: str | None,
    limit: int | None,
    shard_size: int | None,
    device: str,
    workers: int | None,
    scheduler: str | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    max_wait: float | None,
    overwrite: bool,
) -> None:
    """Fit SKEL to SMPL labels and write WebDataset shards. A run that was cut short goes on where it was."""
    if (manifest is None) == (labels is None) or (labels is None) != (source is None):
        raise click.UsageError("give either --manifest FILE, or --labels FILE and --source KIND")
    tls = _chosen_tls(scheduler, tls_ca, tls_cert, tls_key)
    if images is not None and not images.is_dir():
        raise click.BadParameter(f"no such folder: {images}", param_hint="--images")
    settings = chosen_pipeline(pipeline, skel_gender, shard_size)
    found = find_models(models)
    click.echo(f"models: {found.source} (sha256 {found.sha256[:12]})")
    if found.source == OPEN_BODY:
        click.echo("  a free stand-in, not SMPL and SKEL; import those with: skelfit models import")
    if manifest is not None:
        subset = _manifest_subset(manifest, images, found)
    else:
        assert labels is not None
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", labels.stem)
        subset = Subset(name, (LabelSource(str(labels), "camerahmr"),), (labels,), images)
    run = Run(
        subset=subset.name,
        out=str(out.absolute()),
        images=None if subset.images is None else str(subset.images.absolute()),
        models=None if found.source == OPEN_BODY else str(Path(found.source).absolute()),
        models_sha256=found.sha256,
        pipeline=settings,
        device=device if scheduler is not None else find_device(device),
        labels=_label_files(subset, out / STORES, settings.gates.max_abs_beta, limit),
    )
    place = _chosen_place(workers, run.device, scheduler, tls, max_wait)
    work = run_shard
    if place == HERE:
        work = partial(run_shard, fitter=make_fitter(found, settings, run.device))
    convert_run(run, place, overwrite=overwrite, work=work)
    click.echo(f"next: skelfit export {out} --format skel-cf --out {subset.name}-skel.npz")


def convert_run(run: Run, place: Place = HERE, *, overwrite: bool = False, work: Work = run_shard) -> None:
    """Do what is left of a run and write its summary; exits with 1 when a shard failed, with 130 on Ctrl-C."""
    out, tasks = Path(run.out), plan_shards(run)
    device = run.device if run.device != "auto" else "the workers' devices"
    rows = sum(task.stop - task.start for task in tasks)
    click.echo(
        f"{run.subset}: {rows} rows in {len(tasks)} shards, fitted on {device}, to {os.path.relpath(out)}"
    )
    with writing(out, run.subset):
        todo = pending(run, tasks, overwrite=overwrite)
        if len(todo) < len(tasks):
            click.echo(f"{len(tasks) - len(todo)} shards are finished already")
        started = time.perf_counter()
        try:
            done, failures = _work_off(todo, rows, place, work)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on from the finished shards", err=True)
            sys.exit(INTERRUPTED)
        for failure in failures:
            click.echo(f"{failure.trace}shard {failure.name} failed: {failure.error}", err=True)
        if failures:
            click.echo(
                f"{len(failures)} of {len(tasks)} shards failed; the same command tries them again", err=True
            )
            sys.exit(1)
        seconds = time.perf_counter() - started
        _report(finish(run, tasks, done / seconds if done else None))


def chosen_pipeline(
    path: Path | None, skel_gender: str | None = None, shard_size: int | None = None
) -> Pipeline:
    """The pipeline with what the command line changes of it."""
    pipeline = load_pipeline(path or shipped(DEFAULT_PIPELINE))
    if skel_gender is not None:
        gender: Any = skel_gender
        pipeline = replace(pipeline, fit=replace(pipeline.fit, skel_gender=gender))
    return pipeline if shard_size is None else replace(pipeline, shard_size=shard_size)


def shipped(path: Path) -> Path:
    """A file that comes with skelfit: of the working folder or, outside of a checkout, of where this package lies."""
    beside = Path(__file__).parents[2] / path
    return beside if not path.exists() and beside.exists() else path


def _data_root() -> Path:
    return Path(os.environ.get("SKELFIT_DATA") or "data")


def _manifest_subset(path: Path, images: Path | None, models: ModelSet) -> Subset:
    """The subset of a manifest; the demo's people are made when they are not there."""
    manifest, root = load_manifest(path), _data_root()
    paths = tuple(root / source.path for source in manifest.labels)
    demo = manifest.demo
    if demo is not None:
        _make_demo(paths[0].parent, demo, models)
    if images is None and manifest.images is not None:
        images = root / manifest.images
        if not images.is_dir():
            click.echo(f"no folder {images}: the shards will hold labels without images")
            images = None
    return Subset(manifest.name, manifest.labels, paths, images)


def _make_demo(folder: Path, demo: DemoSpec, models: ModelSet) -> None:
    """Make the demo's people, unless they are there as asked for."""
    # Imported here because only the demo draws people.
    from skelfit.labels.demo import demo_is_current, write_demo

    people, seed, images = demo.people, demo.seed, demo.images
    if demo_is_current(folder, people, seed, images, models=models):
        return
    click.echo(f"making {people} people in {folder}")
    with _Progress(people, 0) as progress:
        write_demo(folder, people, seed, images, models=models, progress=lambda _: progress.update(1))


def _label_files(
    subset: Subset, folder: Path, max_abs_beta: float, limit: int | None
) -> tuple[LabelFile, ...]:
    """The validated stores of the label files, in a folder; `limit` counts rows through all of them."""
    files = []
    left = limit
    for source, path in zip(subset.sources, subset.paths, strict=True):
        store = build_store(source, path, folder, max_abs_beta)
        info = store_info(store)
        rows = info.rows if left is None else min(info.rows, left)
        left = None if left is None else left - rows
        files.append(
            LabelFile(
                store=str(store.absolute()),
                name=path.name,
                sha256=info.sha256,
                rows=rows,
                source=source.source,
                gender=source.gender,
                path_rule=source.path_rule,
            )
        )
    return tuple(files)


def _chosen_tls(scheduler: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """The certificates of the options."""
    if (ca, cert, key) == (None, None, None):
        return None
    if scheduler is None:
        raise click.UsageError("certificates are for a running cluster: give --scheduler ADDRESS-OR-FILE")
    if ca is None or cert is None:
        raise click.UsageError("give --tls-ca and --tls-cert together")
    return Tls(ca, cert, key)


def _chosen_place(
    workers: int | None, device: str, scheduler: str | None, tls: Tls | None, max_wait: float | None
) -> Place:
    """Where a run of these options takes place."""
    patience = None if max_wait is None else 60 * max_wait
    if scheduler is not None:
        if workers:
            raise click.UsageError(
                "--workers starts processes here, --scheduler uses others: give one of them"
            )
        return Place(scheduler=scheduler, tls=tls, patience=patience)
    gpus = visible_gpus(torch.cuda.device_count()) if device == "cuda" else ()
    if workers is None:
        workers = len(gpus) or cores()
    return HERE if workers == 0 else Place(workers, gpus, patience=60.0 if patience is None else patience)


def _work_off(
    todo: Sequence[ShardTask], rows: int, place: Place, work: Work
) -> tuple[int, list[ShardFailure]]:
    """Run the tasks under a progress bar; returns the number of rows done, and the failures."""
    done = 0
    failures: list[ShardFailure] = []
    left = sum(task.stop - task.start for task in todo)
    with (
        _Progress(rows, rows - left) as progress,
        closing(run_tasks(todo, place, work, progress.say)) as results,
    ):
        for result in results:
            if isinstance(result, ShardResult):
                done += result.rows_in
                progress.update(result.rows_in)
            else:
                failures.append(result)
    return done, failures


class _Progress:
    """People done, people/s and time left on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int, initial: int) -> None:
        self.plain = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=initial, unit="people", smoothing=0.05, disable=self.plain)
        self.total, self.initial, self.done = total, initial, initial
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def say(self, message: str) -> None:
        """Print a line on stderr, above the bar."""
        tqdm.write(message, file=sys.stderr)

    def update(self, people: int) -> None:
        """Count people; a plain line comes at most every PLAIN_PROGRESS_SECONDS, and at the end."""
        self.bar.update(people)
        self.done += people
        now = time.monotonic()
        if self.plain and (now - self.printed > PLAIN_PROGRESS_SECONDS or self.done == self.total):
            self.printed = now
            form = "{n_fmt}/{total_fmt} people, {rate_fmt}, {remaining} left"
            elapsed = now - self.started
            click.echo(
                tqdm.format_meter(
                    self.done, self.total, elapsed, initial=self.initial, unit=" people", bar_format=form
                ),
                err=True,
            )


def _report(summary: dict[str, Any]) -> None:
    """Print what became of the rows."""
    click.echo(f"{summary['rows_in']} rows in, {summary['rows_out']} people out")
    for status, count in summary["statuses"].items():
        click.echo(f"  {status:<20} {count:>9}")
    if summary["images"]["missing"]:
        click.echo(f"  images missing       {summary['images']['missing']:>9}")
    if summary["pve_mm"]["mean"] is not None:
        stages = ", ".join(f"{name} {mean:.2f}" for name, mean in summary["stage_pve_mm"].items())
        numbers = ", ".join(f"{name} {value:.2f}" for name, value in summary["pve_mm"].items())
        click.echo(f"PVE in mm: {numbers}; after each stage: {stages}")
        numbers = ", ".join(f"{step} {d['mean']:.2f}" for step, d in summary["betas_mm"].items())
        bodies = ", ".join(f"{count} {gender}" for gender, count in summary["skel_genders"].items())
        click.echo(f"SKEL bodies: {bodies}; distance at rest in mm, betas {numbers}")
    if summary["people_per_second"] is not None:
        click.echo(f"{summary['people_per_second']:.1f} people/s")
