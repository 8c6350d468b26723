"""`skelfit.verify`: are finished shards whole, accurate and anatomical, and which people to leave out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from skelfit.bodies.model_set import OPEN_BODY, ModelSet, find_models
from skelfit.conversion.shard_outcome import ShardFailure
from skelfit.errors import ArgumentError, ModelError
from skelfit.executors.dask_tasks import run_tasks
from skelfit.executors.executor import THIS_PROCESS, Executor, chosen_executor
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.shards.keep_list import Kept, write_keep
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_marker
from skelfit.storage.checked_arguments import location_argument, location_or_none, number_of, whole_number
from skelfit.storage.command_lines import next_command
from skelfit.storage.hashed_write import write_atomically, write_json
from skelfit.storage.locations import Location, Place, address_of, location_of
from skelfit.verification.gates import parse_gates
from skelfit.verification.integrity.damage import Damage
from skelfit.verification.integrity.run_folder import RunFolder, open_run_folder
from skelfit.verification.report.ground_table import write_ground
from skelfit.verification.report.html_page import write_html
from skelfit.verification.report.refined_picture import draw_pairs
from skelfit.verification.report.report_comparison import compare_reports
from skelfit.verification.report.report_data import Report, ReportBuilder
from skelfit.verification.report.terminal import comparison_lines, summary_lines
from skelfit.verification.report_files import ReportFiles, report_files
from skelfit.verification.verify_shard import ShardReport, VerifyTask, plan_verify, verify_shard

FEW = 4000  # people who are verified before worker processes have started
SAMPLE = 20_000  # people who are measured unless more are asked for: about half a minute


@dataclass(frozen=True)
class Verification:
    """The result: the report, as `--json` writes it."""

    report: Report

    @property
    def verdict(self) -> str:
        """good, below the gate, or damaged, in the words of the report."""
        return str(self.report["verdict"])


@dataclass(frozen=True)
class _Checks:
    """The options that hold for every folder."""

    models: ModelSet
    sample: int | None
    limits: Mapping[str, float]
    max_pve: float | None
    executor: Executor
    reporter: Reporter


def verify(
    folders: Place | Sequence[Place],
    *,
    models: Place | None = None,
    json: Place | None = None,
    html: Place | None = None,
    max_pve: float | None = None,
    sample: int | None = None,
    all: bool = False,
    keep: Place | None = None,
    gate: str | Sequence[str] = (),
    against: Place | None = None,
    picture: Place | None = None,
    ground: Place | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    max_wait: float | None = None,
    progress: bool | Count | Reporter = False,
) -> Verification:
    """Check finished shards: are they whole, accurate and anatomical? Trusts nothing that is stored.

    The options are those of `skelfit verify`, which docs/verify.md explains.

    Args:
        folders: one folder of shards, or several.
        max_pve: mm; the verdict is below the gate when the mean PVE is above it.
        sample: how many people are measured, evenly from all shards; 0: integrity only. None: 20,000.
        all: all people are measured, as always with `keep`.
        keep: where to write the keep-list (CSV). json, html: where to write the report.
        gate: gates of the keep-list, such as "max_vertex=60".
        against: another folder of shards, with which these are compared.
        ground: where to write floor and foot contact of each sequence (CSV), from all frames, whatever the sample.
        picture: where to draw people who differ from those of `against`: photos with both skeletons (JPEG).
        progress: True shows a bar; a function is called with the people done and the people there are.

    Returns:
        The report, as `json` writes it.

    Raises:
        ArgumentError: for options that cannot be used together.
        ShardError, ModelError, OutputError, ClusterError: for files and places of that kind. What is damaged in a shard
            raises nothing: it is in the report.
    """
    if sample is not None:
        sample = whole_number("sample", sample, 0)
    if max_pve is not None:
        max_pve = number_of("max_pve", max_pve, "a number of mm")
    if sample is not None and (all or keep is not None):
        raise ArgumentError("sample", "none with all or keep, which measure all people", str(sample))
    if sample == 0:
        measured = {"max_pve": max_pve, "html": html, "ground": ground}
        for name in (name for name, given in measured.items() if given is not None):
            raise ArgumentError(name, "people who are measured", "sample 0")
    if picture is not None and (against is None or sample == 0):
        found = "none" if against is None else "sample 0"
        raise ArgumentError("picture", "shards to compare with (against), and people who are measured", found)
    given = folders if isinstance(folders, (list, tuple)) else [folders]
    if not given:
        raise ArgumentError("folders", "at least one folder", "none")
    paths = [location_argument("folders", folder) for folder in given]
    other = location_or_none("against", against)
    files = report_files(json, html, keep, picture, ground)
    all_people = all or keep is not None
    executor = chosen_executor(workers, scheduler, tls_ca, tls_cert, tls_key, max_wait)
    checks = _Checks(
        models=find_models(models),
        sample=None if all_people else SAMPLE if sample is None else sample,
        limits=parse_gates(gate),
        max_pve=max_pve,
        executor=_executor(executor),
        reporter=reporter_of(progress),
    )
    checks.reporter.say(f"models: {checks.models.source} (sha256 {checks.models.sha256[:12]})")
    return Verification(_report(paths, other, checks, files))


def _report(
    folders: Sequence[Location], against: Location | None, checks: _Checks, files: ReportFiles
) -> Report:
    """Verify, and write the reports."""
    say = checks.reporter.say
    keep: list[Kept] | None = None if files.keep is None else []
    builder, failures = _verified(folders, checks, keep, files.ground is not None)
    report = builder.report(checks.limits, checks.max_pve, failures)
    other = None
    if against is not None:
        others, failed = _verified((against,), checks, None, files.ground is not None)
        other = others.report(checks.limits, checks.max_pve, failed)
    if other is None:
        lines = summary_lines(report)
    else:
        comparison = compare_reports(report, other)
        lines = comparison_lines(report, other, comparison)
        report |= {"against": other, "comparison": comparison}
    for line in lines:
        say(line)
    if files.keep is not None:
        write_keep(files.keep, keep or [])
        say(f"who is kept, and why the others not: {files.keep}")
    if files.ground is not None:
        write_ground(files.ground, builder.ground or ())
        say(f"floor and foot contact of each sequence: {files.ground}")
    if files.html is not None:
        write_html(report, folders, checks.models, files.html, against)
        say(f"a page to look at: {files.html}")
    if files.picture is not None and against is not None:
        _draw(report, folders, against, checks, files.picture)
    if files.json is not None:
        write_json(files.json, report)
        say(f"all of it, for programs: {files.json}")
    if files.keep is None:
        say(next_command("verify", *folders, "--html", "report.html", "--keep", "keep.csv"))
    else:
        options = ("--format", "skel-cf", "--keep", files.keep, "--out", "kept.npz")
        say(next_command("export", folders[0], *options))
    return report


def _draw(
    report: Report, folders: Sequence[Location], against: Location, checks: _Checks, path: Location
) -> None:
    """Write the picture, unless there is nothing to see."""
    picture = draw_pairs(report, folders, against, checks.models)
    if picture is None:
        checks.reporter.warn(f"{path}: no picture: none of the people listed differs there and has a photo")
        return
    write_atomically(path, lambda stream: stream.write(picture))
    checks.reporter.say(f"a picture of both: {path}")


def _executor(executor: Executor) -> Executor:
    """In this process instead of in one worker, which would not be faster."""
    return THIS_PROCESS if executor.scheduler is None and executor.workers == 1 else executor


def _verified(
    folders: Sequence[Location], checks: _Checks, keep: list[Kept] | None, ground: bool
) -> tuple[ReportBuilder, list[Damage]]:
    """What was measured in these folders, and shards that could not be; each person is added to `keep`."""
    models = checks.models
    if checks.executor.scheduler is not None:
        folders = [location_of(address_of(folder)) for folder in folders]
    runs = [open_run_folder(folder) for folder in dict.fromkeys(folders)]
    if checks.sample != 0:
        for run in runs:
            _check_models(run, models)
    source = None if models.source == OPEN_BODY else address_of(location_of(models.source))
    tasks = plan_verify(runs, source, models.sha256, checks.sample, checks.limits, keep is not None, ground)
    builder, failures = ReportBuilder(runs), list[Damage]()
    people = tasks[0].sampling.total if tasks else 0
    executor = checks.executor if len(tasks) > 1 and people > FEW else THIS_PROCESS
    with (
        checks.reporter.counting(people) as progress,
        closing(run_tasks(tasks, executor, verify_shard, progress.say)) as results,
    ):
        for result in _in_order(tasks, results):
            if isinstance(result, ShardFailure):
                failures.append(Damage(result.name, None, "tar", f"{result.name}: {result.error}"))
                continue
            builder.add(result)
            progress.update(result.check.people)
            if keep is not None:
                keep += result.keep
    return builder, failures


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
