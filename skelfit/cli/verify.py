"""`skelfit verify`: are finished shards whole, accurate and anatomical, and whom should one leave out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from skelfit.bodies.model_set import OPEN_BODY, ModelSet, find_models
from skelfit.cli.interrupts import interruptible
from skelfit.cli.path_types import FILE, FOLDER
from skelfit.cli.progress_bars import Progress
from skelfit.cli.worker_options import PlaceOptions, place_options
from skelfit.errors import ModelError
from skelfit.executors.dask_tasks import ShardFailure, run_tasks
from skelfit.executors.executor import HERE, Place
from skelfit.shards.keep_list import Kept, write_keep
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_marker
from skelfit.storage.hashed_write import write_json
from skelfit.verification.gates import GATES, parse_gates
from skelfit.verification.integrity.damage import Damage
from skelfit.verification.integrity.run_folder import RunFolder, open_run
from skelfit.verification.report.html_page import write_html
from skelfit.verification.report.report_comparison import compare
from skelfit.verification.report.report_data import EXIT_CODES, Findings, Report
from skelfit.verification.report.terminal import comparison_lines, summary_lines
from skelfit.verification.verify_shard import ShardReport, VerifyTask, plan_verify, verify_shard

FEW = 4000  # people who are verified before worker processes have started
SAMPLE = 20_000  # people who are measured unless more are asked for: about half a minute


@dataclass(frozen=True)
class Orders:
    """What the options ask for, whatever the folders."""

    models: ModelSet
    sample: int | None
    limits: Mapping[str, float]
    max_pve: float | None
    place: Place


@click.command("verify")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER)
@click.option("--models", type=FOLDER, help="The models of the run  [default: as convert].")
@click.option("--json", "json_file", type=FILE, help="Write the whole report for programs.")
@click.option("--html", "html_file", type=FILE, help="Write it as one page for the browser, with pictures.")
@click.option("--max-pve", type=float, help="Exit with 1 when the mean PVE is above so many mm.")
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    help=f"Measure so many people, evenly from all shards; 0: integrity only  [default: {SAMPLE}].",
)
@click.option("--all", "everybody", is_flag=True, help="Measure everybody.")
@click.option(
    "--keep", "keep_file", type=FILE, help="Write who passes the gates and who not (CSV); measures everybody."
)
@click.option(
    "--gate",
    "gates",
    metavar="NAME[=LIMIT]",
    multiple=True,
    help=f"A gate; may be given several times: {', '.join(GATES)}  [default: max_vertex=60].",
)
@click.option("--against", type=FOLDER, help="Compare with the shards in another folder.")
@place_options
def verify_command(
    folders: tuple[Path, ...],
    models: Path | None,
    json_file: Path | None,
    html_file: Path | None,
    max_pve: float | None,
    sample: int | None,
    everybody: bool,
    keep_file: Path | None,
    gates: tuple[str, ...],
    against: Path | None,
    place_options: PlaceOptions,
) -> None:
    """Check finished shards: are they whole, accurate and anatomical? Trusts nothing that is stored.

    Exits with 0 when all is good, with 1 below the gate (--max-pve), with 2 when something is damaged or missing.
    """
    if sample is not None and (everybody or keep_file is not None):
        raise click.UsageError("--all and --keep measure everybody: leave --sample out")
    if sample == 0 and (max_pve is not None or html_file is not None):
        raise click.UsageError("--max-pve and --html need people who are measured: leave --sample 0 out")
    everybody = everybody or keep_file is not None
    orders = Orders(
        models=find_models(models),
        sample=None if everybody else SAMPLE if sample is None else sample,
        limits=parse_gates(gates),
        max_pve=max_pve,
        place=_place(place_options),
    )
    click.echo(f"models: {orders.models.source} (sha256 {orders.models.sha256[:12]})")
    with interruptible("interrupted: nothing was changed; reports are written at the end"):
        verdict = _report(folders, against, orders, json_file, html_file, keep_file)
    sys.exit(EXIT_CODES[verdict])


def _report(
    folders: Sequence[Path],
    against: Path | None,
    orders: Orders,
    json_file: Path | None,
    html_file: Path | None,
    keep_file: Path | None,
) -> str:
    """Verify, print and write what was found; returns the verdict."""
    keep: list[Kept] | None = None if keep_file is None else []
    report = _verify(folders, orders, keep)
    other = None if against is None else _verify((against,), orders, None)
    if other is None:
        lines = summary_lines(report)
    else:
        comparison = compare(report, other)
        lines = comparison_lines(report, other, comparison)
        report |= {"against": other, "comparison": comparison}
    for line in lines:
        click.echo(line)
    if keep_file is not None:
        write_keep(keep_file, keep or [])
        click.echo(f"who is kept, and why the others not: {keep_file}")
    if html_file is not None:
        write_html(report, folders, orders.models, html_file)
        click.echo(f"a page to look at: {html_file}")
    if json_file is not None:
        write_json(json_file, report)
        click.echo(f"all of it, for programs: {json_file}")
    where = " ".join(map(str, folders))
    if keep_file is None:
        click.echo(f"next: skelfit verify {where} --html report.html --keep keep.csv")
    else:
        click.echo(f"next: skelfit export {folders[0]} --format skel-cf --keep {keep_file} --out kept.npz")
    return str(report["verdict"])


def _place(options: PlaceOptions) -> Place:
    """One process more than this one would not be faster."""
    place = options.place()
    return HERE if place.scheduler is None and place.workers == 1 else place


def _verify(folders: Sequence[Path], orders: Orders, keep: list[Kept] | None) -> Report:
    """The report on some folders; whoever is kept or not is added to `keep`."""
    models = orders.models
    if orders.place.scheduler is not None:
        folders = [folder.absolute() for folder in folders]
    runs = [open_run(folder) for folder in dict.fromkeys(folders)]
    if orders.sample != 0:
        for run in runs:
            _check_models(run, models)
    source = None if models.source == OPEN_BODY else str(Path(models.source).absolute())
    tasks = plan_verify(runs, source, models.sha256, orders.sample, orders.limits, keep is not None)
    findings, failures = Findings(runs), []
    people = tasks[0].sampling.total if tasks else 0
    place = orders.place if len(tasks) > 1 and people > FEW else HERE
    with (
        Progress(people, 0) as progress,
        closing(run_tasks(tasks, place, verify_shard, progress.say)) as results,
    ):
        for result in _in_order(tasks, results):
            if isinstance(result, ShardFailure):
                failures.append(Damage(result.name, None, "tar", f"{result.name}: {result.error}"))
                continue
            findings.add(result)
            progress.update(result.check.people)
            if keep is not None:
                keep += result.keep
    return findings.report(orders.limits, orders.max_pve, failures)


def _in_order(
    tasks: Sequence[VerifyTask], results: Iterator[ShardReport | ShardFailure]
) -> Iterator[ShardReport | ShardFailure]:
    """The results in the order of their tasks: sums of floats depend on it, and a report must not."""
    waiting: dict[str, ShardReport | ShardFailure] = {}
    names = iter([task.name for task in tasks])
    name = next(names, None)
    for result in results:
        waiting[result.name] = result
        while name is not None and name in waiting:
            yield waiting.pop(name)
            name = next(names, None)


def _check_models(run: RunFolder, models: ModelSet) -> None:
    """Raise ModelError unless these are the models of the run, as far as its first marker tells."""
    for files in run.shards:
        try:
            expected = read_marker(files).identity.get("models_sha256")
        except ShardError:
            continue
        if expected != models.sha256:
            raise ModelError(
                models.source,
                "sha256",
                f"the models of {run.path}, {expected} (--models DIR; or --sample 0)",
                models.sha256,
            )
        return
