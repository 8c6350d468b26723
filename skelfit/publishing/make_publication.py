"""Make what lies beside the shards of a published dataset: tables, card, and how to read the tars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from skelfit.publishing.dataset_features import tar_features
from skelfit.publishing.dataset_tables import write_tables
from skelfit.publishing.hub_card import TAR_FEATURES, write_hub_card
from skelfit.publishing.publication import Publication, PublishedFile, published_file
from skelfit.shards.finished_run import FinishedRun, Step
from skelfit.shards.shard_files import SCHEMA_NAME, SUMMARY_NAME
from skelfit.storage.hashed_write import write_atomically, write_json
from skelfit.storage.locations import Location

KEEP_NAME = "keep.csv"


def make_publication(
    run: FinishedRun,
    folder: Path,
    repository: str,
    *,
    title: str | None,
    licence: str | None,
    keep: Location | None,
    step: Step,
) -> Publication:
    """Make the files that lie beside the shards, in a folder. Raises ShardError, OutputError.

    run: without the people that the keep-list `keep` drops; step: called with how many more people are done.
    """
    written = write_tables(run, folder, step)
    tables = [path for table in written.tables for path in table.written.files]
    write_json(folder / TAR_FEATURES, tar_features(written.image_endings))
    others = [folder / TAR_FEATURES]
    if keep is not None:
        others.append(folder / KEEP_NAME)
        write_atomically(others[-1], lambda stream: stream.write(keep.read_bytes()))
    card, *pictures = write_hub_card(
        run,
        written.tables,
        repository,
        folder,
        title=title,
        licence=licence,
        keep_list=None if keep is None else KEEP_NAME,
    )
    made = [published_file(path, folder) for path in (*tables, *others, *pictures)]
    schema, summary = (published_file(run.folder / name, run.folder) for name in (SCHEMA_NAME, SUMMARY_NAME))
    return Publication(run, tuple(_shard_files(run)), (*made, schema, summary, published_file(card, folder)))


def _shard_files(run: FinishedRun) -> Iterator[PublishedFile]:
    for files, marker in run.shards:
        yield PublishedFile(files.tar.name, files.tar, marker.tar, marker.rows_out)
        yield PublishedFile(files.sidecar.name, files.sidecar, marker.sidecar)
        yield published_file(files.marker, run.folder)
