"""Finished runs, and functions that damage them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from job_fakes import FakeFitter, make_run

from skelfit.api.run_shards import convert_run
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import Run
from skelfit.shards.content_seal import sealed, unsealed
from skelfit.shards.label_vector import FloatArray
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_json
from skelfit.shards.shard_writer import row_digest
from skelfit.storage.hashed_write import FileRecord, write_json
from skelfit.storage.locations import Location
from skelfit.verification.integrity.damage import Damage
from skelfit.verification.integrity.folder_check import Integrity, check_run
from skelfit.verification.integrity.run_folder import open_run_folder
from skelfit.verification.integrity.shard_check import check_shard


def convert(run: Run) -> Path:
    """Convert a run with the fake fitter; returns the folder of its shards."""
    with writing(Path(run.out), run.subset):
        convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))
    return Path(run.out)


def make_shards(folder: Path, people: int = 20, **options: Any) -> Path:
    """Three shards of 20 rows with images, of which 17 are published."""
    return convert(make_run(folder, people, images=True, **options))


def check_folder(folder: Path) -> Integrity:
    """The integrity of a run. Raises ShardError where there are no shards."""
    run = open_run_folder(folder)
    return check_run(run, [check_shard(files)[0] for files in run.shards])


def damage_of(folder: Path) -> tuple[Damage, ...]:
    """The damage of a run."""
    return check_folder(folder).damage


def damage_kinds(folder: Path) -> set[tuple[str | None, str | None, str]]:
    """Shard, sample and kind of the damage of a run."""
    return {(d.shard, d.sample, d.kind) for d in damage_of(folder)}


def fake_key(row: int) -> str:
    """The key of a row."""
    return f"fake-0-{row:08d}"


def files_of(folder: Path) -> list[Path]:
    """The files that a run publishes."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def member_spans(tar: Path) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and one past the last of each member, header and padding included."""
    with tar.open("rb") as stream, tarfile.open(fileobj=stream) as opened:
        for member in opened:
            yield member.name, member.offset, member.offset_data + -(-member.size // 512) * 512


def owner(path: Path, at: int) -> str | None:
    """The key of the sample or row with byte `at` of a tar or sidecar; None for the end of a tar."""
    if path.suffix == ".tar":
        return next(
            (name.split(".")[0] for name, start, stop in member_spans(path) if start <= at < stop), None
        )
    line = path.read_bytes()[:at].count(b"\n")
    return str(json.loads(path.read_text().splitlines()[line])["key"])


def read_tar(tar: Location) -> list[tuple[str, bytes]]:
    """Names and contents of the members."""
    with tar.open("rb") as stream, tarfile.open(fileobj=stream) as opened:
        return [(m.name, opened.extractfile(m).read()) for m in opened]  # type: ignore[union-attr]


def write_tar(tar: Location, members: list[tuple[str, bytes]]) -> None:
    """Write a tar as skelfit writes it."""
    with tarfile.open(str(tar), "w|") as opened:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o444
            opened.addfile(info, io.BytesIO(data))


def edit_labels(tar: Location, edit: Callable[[str, FloatArray], FloatArray]) -> None:
    """Change label vectors; `edit` gets a key and a vector."""

    def changed(name: str, data: bytes) -> bytes:
        if not name.endswith(".label.npy"):
            return data
        stream = io.BytesIO()
        np.save(stream, edit(name.split(".")[0], np.load(io.BytesIO(data))))
        return stream.getvalue()

    write_tar(tar, [(name, changed(name, data)) for name, data in read_tar(tar)])


def make_consistent(files: ShardFiles) -> None:
    """Hide a change: new digests, a new sidecar, a new marker."""
    samples: dict[str, dict[str, bytes]] = {}
    for name, data in read_tar(files.tar):
        key, _, ending = name.partition(".")
        samples.setdefault(key, {})[ending] = data
    rows = [json.loads(line) for line in files.sidecar.read_text().splitlines()]
    rows = [{**row, "digest": row_digest(row, samples.get(row["key"], {}))} for row in rows]
    files.sidecar.write_text("".join(json.dumps(row) + "\n" for row in rows))
    marker = read_json(files.marker)
    marker |= {name: record(path) for name, path in (("tar", files.tar), ("sidecar", files.sidecar))}
    write_json(files.marker, sealed(unsealed(marker)))


def record(path: Location) -> dict[str, Any]:
    """Size and hash, as markers have them."""
    data = path.read_bytes()
    return vars(FileRecord(len(data), hashlib.sha256(data).hexdigest()))


def edit_json(path: Location, *, seal: bool = False, **changes: Any) -> None:
    """Change values of a JSON file, written as skelfit writes it."""
    content = {**read_json(path), **changes}
    if seal:
        content = sealed(unsealed(content))
    write_json(path, content)


def other_subset(run: Run, name: str) -> Run:
    """The same run under another name."""
    assert re.fullmatch(r"[\w-]+", name)
    return replace(run, subset=name)
