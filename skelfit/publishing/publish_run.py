"""`skelfit.publish`: a finished run as a dataset of the Hugging Face Hub."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from skelfit.config.identity import identities_of, mapping_hash
from skelfit.errors import ArgumentError
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.exports.dataset_card.markdown import CARD_NAME
from skelfit.exports.parquet import require_packages
from skelfit.publishing.dry_run_folder import complete_dry_run, prepare_dry_run
from skelfit.publishing.hub_address import HubAddress, parse_address
from skelfit.publishing.publication import Publication, check_size, size_text
from skelfit.publishing.publication_record import RECORD_NAME
from skelfit.shards.finished_run import FinishedRun, open_run
from skelfit.shards.shard_files import SUMMARY_NAME, ShardError
from skelfit.shards.shard_reader import read_json
from skelfit.storage.checked_arguments import local_path_or_none, location_argument, location_or_none
from skelfit.storage.command_lines import command, next_command
from skelfit.storage.hashed_write import FileRecord
from skelfit.storage.locations import Location, Place
from skelfit.verification.report.report_data import GOOD
from skelfit.verification.verify_folders import verify

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedDataset:
    """The result: where the dataset is, and its files."""

    place: str  # the address of the repository; of a dry run, the folder
    people: int
    files: dict[str, FileRecord]  # size and sha256 of each file, by its path in the dataset
    sent: tuple[str, ...] = ()  # those that were not there; of a dry run none
    removed: tuple[str, ...] = ()  # files of an earlier publication that this one has not


def publish(
    folder: Place,
    to: str,
    *,
    private: bool = True,
    revision: str | None = None,
    license: str | None = None,
    title: str | None = None,
    keep: Place | None = None,
    dry_run: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool | Count | Reporter = False,
) -> PublishedDataset:
    """Publish a finished run as a dataset of the Hugging Face Hub: tables beside the tars, and the card.

    The options are those of `skelfit publish`, which docs/publish.md explains.

    Args:
        folder: the shards of a finished run. Every byte is checked before anything is sent.
        to: the repository, as hf://datasets/OWNER/NAME. It is made where it is not there.
        private: whether only its owners see it; of a repository that is there, what it must be.
        revision: the branch, made from main where it is not there. None: main.
        license: an identifier of the Hub, such as cc-by-nc-4.0. None: none is claimed.
        title: of the card.
        keep: a keep-list of `verify`: the tables have only the people that it keeps, and it is published too.
        dry_run: nothing is sent; all that would be is written to `out`.
        overwrite: replace what another run, or something else, has in the repository.
        workers: processes that check the shards. None: one for each core.
        progress: True shows a bar; a function is called with the people done and the people there are.

    Returns:
        The place, and what was sent. A call that was interrupted goes on where it was when it is called again.

    Raises:
        ArgumentError: for an option that cannot be used.
        HubError: for a repository that cannot be reached, or that holds something else.
        ShardError, InputError, OutputError: for a run that is not finished and whole, and for other files.
    """
    source, address = location_argument("folder", folder), parse_address(to)
    keep_list, target = location_or_none("keep", keep), local_path_or_none("out", out)
    if dry_run and target is None:
        raise ArgumentError("out", "a folder for what a dry run writes", "none")
    if target is not None and not dry_run:
        raise ArgumentError("out", "none, except with dry_run", str(target))
    if license is not None and not _LICENCE.fullmatch(license):
        raise ArgumentError(
            "license", "an identifier of the Hub, such as cc-by-nc-4.0 or other", repr(license)
        )
    require_packages("publishing", "pyarrow", *(() if dry_run else ("huggingface_hub",)))
    job = _Job(source, address, title, license, keep_list, workers, reporter_of(progress))
    if target is not None:
        return _dry_run(job, target, overwrite)
    return _send(job, revision, private, overwrite)


@dataclass(frozen=True)
class _Job:
    """The options that a dry run has, too."""

    folder: Location
    address: HubAddress
    title: str | None
    licence: str | None
    keep: Location | None
    workers: int | None
    reporter: Reporter


def _checked_run(job: _Job) -> FinishedRun:
    """The run, of which every byte is as it was written. Raises ShardError for another one."""
    folder, quiet = job.folder, replace(job.reporter, say=_log.info)
    job.reporter.say(f"checking every byte of {folder}")
    report = verify(folder, sample=0, workers=job.workers, progress=quiet).report
    if report["verdict"] != GOOD:
        damage = report["integrity"]["damage"]
        more = (
            ""
            if len(damage) == 1
            else f"; {len(damage) - 1} more: {command('verify', folder, '--sample', 0)}"
        )
        raise ShardError(folder, None, "a finished run that is whole", f"{damage[0]['message']}{more}")
    run = open_run(folder)
    check_size(run)
    return run if job.keep is None else run.only(job.keep)


def _made(job: _Job, run: FinishedRun, folder: Path, repository: str) -> Publication:
    """The files of the dataset; those beside the shards are written to a folder."""
    # Imported here because pyarrow is no requirement of skelfit.
    from skelfit.publishing.make_publication import make_publication

    job.reporter.say("writing tables and card")
    with job.reporter.counting(run.rows_out) as counter:
        made = make_publication(
            run,
            folder,
            repository,
            title=job.title,
            licence=job.licence,
            keep=job.keep,
            step=counter.update,
        )
    if job.keep is not None:
        job.reporter.say(f"the tables have the {run.rows_out} people of {job.keep}; the tars hold all")
    if job.licence is None:
        job.reporter.say("no licence is claimed: --license gives the dataset one")
    return made


def _dry_run(job: _Job, out: Path, overwrite: bool) -> PublishedDataset:
    prepare_dry_run(out, overwrite)
    run = _checked_run(job)
    made = _made(job, run, out, job.address.repository)
    complete_dry_run(made, out)
    result = _result(made, str(out))
    for line in _listing(made):
        job.reporter.say(line)
    job.reporter.say(f"{result.people} people in {len(result.files)} files in {out}; nothing was sent")
    job.reporter.say(next_command("publish", job.folder, job.address))
    return result


def _send(job: _Job, revision: str | None, private: bool, overwrite: bool) -> PublishedDataset:
    # Imported here because huggingface_hub is no requirement of skelfit.
    from skelfit.publishing.hub_repository import HubRepository
    from skelfit.publishing.upload import check_target, upload

    repository = HubRepository(job.address, revision)
    state = repository.state()
    summary = job.folder / SUMMARY_NAME
    if summary.exists():  # else the check of the run says what is the matter
        identity = read_json(summary).get("identity")
        known = {mapping_hash(step) for step in identities_of(identity if isinstance(identity, dict) else {})}
        check_target(repository.address, state, known, private=private, overwrite=overwrite)
    run = _checked_run(job)
    with tempfile.TemporaryDirectory(prefix="skelfit-publish-") as folder:
        made = _made(job, run, Path(folder), repository.address.repository)
        repository.check_card((Path(folder) / CARD_NAME).read_text("utf-8"))
        repository.create(state, private)
        job.reporter.say(f"sending to {repository.address}")
        with job.reporter.counting(sum(file.people for file in made.files)) as counter:
            done = upload(repository, state, made, counter.update)
    result = replace(_result(made, str(repository.address)), sent=done.sent, removed=done.removed)
    size = size_text(sum(result.files[name].bytes for name in done.sent if name in result.files))
    there = len(result.files) - len(done.sent)
    removed = f", {len(done.removed)} removed" if done.removed else ""
    job.reporter.say(f"{len(done.sent)} files ({size}) sent, {there} were there{removed}: {repository.page}")
    if revision is not None:
        job.reporter.say(f"they are in the branch {revision}")
    job.reporter.say(f'next: datasets.load_dataset("{repository.address.repository}")')
    return result


def _result(made: Publication, place: str) -> PublishedDataset:
    files = {file.name: file.record for file in made.files} | {RECORD_NAME: made.record_file()}
    return PublishedDataset(place, made.run.rows_out, files)


def _listing(made: Publication) -> Iterator[str]:
    """What a dry run would send, with sizes; shards in one line."""
    size = sum(file.record.bytes for file in made.shards)
    yield f"{made.shards[0].name} ... {made.shards[-1].name}: {len(made.shards)} files, {size_text(size)}"
    for file in made.beside:
        yield f"{file.name}: {size_text(file.record.bytes)}"
