"""The table of some people with their images inside, which the Hub's viewer shows as pictures."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from skelfit.exports.parquet_tables.column_arrays import table_schema
from skelfit.exports.parquet_tables.people_table import TablePerson, people_batch, people_schema, reasons_of
from skelfit.exports.parquet_tables.table_columns import PEOPLE, Column
from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import read_rows, read_samples

PEOPLE_SHOWN = 256
GROUP = 16  # people in a row group: a viewer reads one to show a page
_LARGEST = 4 << 20  # bytes of an image; larger ones would make the viewer slow
IMAGE = Column("image", "image", "", "the image of the sample, as it is in the tar")
COLUMNS: tuple[Column, ...] = (IMAGE, *PEOPLE)
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def preview_schema(run: FinishedRun) -> Any:
    """The Arrow schema; the key `huggingface` of its metadata says that the first column holds images."""
    schema = table_schema(COLUMNS[1:], run)
    image = pa.field(IMAGE.name, _IMAGE_TYPE, metadata={"unit": IMAGE.unit, "meaning": IMAGE.meaning})
    features = {"info": {"features": {IMAGE.name: {"_type": "Image"}}}}
    metadata = {**schema.metadata, b"huggingface": json.dumps(features).encode()}
    return pa.schema([image, *schema], metadata=metadata)


def preview_batches(run: FinishedRun, people: int = PEOPLE_SHOWN) -> Iterator[Any]:
    """The table in batches of GROUP people with an image, from shards evenly spread. Raises ShardError."""
    schema, plain = preview_schema(run), people_schema(run)
    shown = list(_people(run, people))
    for start in range(0, len(shown), GROUP):
        group = shown[start : start + GROUP]
        images = pa.array([image for image, _ in group], type=_IMAGE_TYPE)
        columns = people_batch(plain, [person for _, person in group]).columns
        yield pa.RecordBatch.from_arrays([images, *columns], schema=schema)


def _people(run: FinishedRun, people: int) -> Iterator[tuple[dict[str, Any], TablePerson]]:
    """At most `people` people and their images; as many of each shard as the others leave to it."""
    shards = _evenly(run.shards, people)
    left = people
    for number, (files, _) in enumerate(shards):
        share = -(-left // (len(shards) - number))
        rows = (row for row in read_rows(files.sidecar) if row["status"] in PUBLISHED and row["image"])
        keys = {row["key"] for row in rows if run.keeps(row["key"])}
        images = _images(files, _evenly(sorted(keys), share))
        reasons = reasons_of(files) if images else {}
        for key, label, meta in read_samples(files.tar) if images else ():
            if key in images:
                yield images[key], TablePerson(key, files.name, label, meta, reasons.get(key, ""))
        left -= len(images)


def _evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread, in their order."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int).tolist()]


def _images(files: ShardFiles, keys: Collection[str]) -> Mapping[str, dict[str, Any]]:
    """The images of these samples, as the column has them; without those that are too large. Raises ShardError."""
    images = {}
    wanted = set(keys)
    try:
        with files.tar.open("rb") as content, tarfile.open(fileobj=content) as tar:
            for member in tar if wanted else ():
                key, _, ending = member.name.partition(".")
                is_image = ending not in ("label.npy", "meta.json") and member.size <= _LARGEST
                if key in wanted and is_image and (stream := tar.extractfile(member)) is not None:
                    images[key] = {"bytes": stream.read(), "path": member.name}
    except (OSError, tarfile.TarError) as error:
        raise ShardError(files.tar, None, "a tar of skelfit samples", repr(error)) from None
    return images
