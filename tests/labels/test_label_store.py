"""The label store: any slice equals what the reader gave, and building it is safe."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from camerahmr_file import camerahmr_arrays, with_value, write_camerahmr

from skelfit.config.manifest import LabelSource
from skelfit.errors import LabelError, OutputError
from skelfit.labels import label_store as store
from skelfit.labels.label_batch import FIELD_SHAPES, TEXT_FIELDS, LabelBatch
from skelfit.labels.label_store import StoreInfo, build_store, read_rows, store_info
from skelfit.labels.readers.registry import read_label_file

SOURCE = LabelSource("x-release.npz", "camerahmr")


def assert_same(a: LabelBatch, b: LabelBatch) -> None:
    for field in dataclasses.fields(LabelBatch):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if not isinstance(left, np.ndarray):
            assert left == right, field.name
        else:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right, err_msg=field.name)


def test_any_slice_equals_the_reader(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path, **with_value("pose_cam", 3, np.nan))
    built = build_store(SOURCE, path, tmp_path / "store")
    batch = read_label_file(path)
    for start in range(6):
        for stop in range(start, 6):
            assert_same(read_rows(built, start, stop), batch.rows(start, stop))


def test_info_names_the_source(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path)
    built = build_store(SOURCE, path, tmp_path / "store")
    info = store_info(built)
    assert info.rows == 5
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.source_path == str(path)
    assert info.reader == "camerahmr-4"
    assert built.name.startswith(f"camerahmr-4-{info.sha256[:16]}-")


def test_an_empty_file_makes_an_empty_store(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path, **{k: v[:0] for k, v in camerahmr_arrays().items()})
    assert len(read_rows(build_store(SOURCE, path, tmp_path), 0, 0)) == 0


def test_a_range_beyond_the_rows_is_refused(tmp_path: Path) -> None:
    built = build_store(SOURCE, write_camerahmr(tmp_path), tmp_path)
    with pytest.raises(LabelError, match="expected a range within its 5 rows, found 3 to 6"):
        read_rows(built, 3, 6)


def test_reused_when_valid_and_rebuilt_when_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_camerahmr(tmp_path)
    built = build_store(SOURCE, path, tmp_path / "store")
    whole = built.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", lambda *_: pytest.fail("a valid store was built again"))
        assert build_store(SOURCE, path, tmp_path / "store") == built
    built.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabelError, match="expected a label store"):
        read_rows(built, 0, 1)
    assert build_store(SOURCE, path, tmp_path / "store") == built
    assert_same(read_rows(built, 0, 5), read_label_file(path))


def test_a_changed_source_or_option_makes_another_store(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path)
    first = build_store(SOURCE, path, tmp_path / "store")
    male = build_store(dataclasses.replace(SOURCE, gender="male"), path, tmp_path / "store")
    strict = build_store(SOURCE, path, tmp_path / "store", max_abs_beta=0.01)
    write_camerahmr(tmp_path, **with_value("shape", 0, 0.5))
    second = build_store(SOURCE, path, tmp_path / "store")
    assert len({first, male, strict, second}) == 4
    assert (read_rows(second, 0, 1).betas == 0.5).all()
    assert not (read_rows(first, 0, 1).betas == 0.5).any()
    assert read_rows(male, 0, 5).gender == ["male"] * 5
    assert read_rows(strict, 0, 1).bad[0].startswith("absurd_betas")


def test_the_manifest_is_checked(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path)
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    build_store(dataclasses.replace(SOURCE, sha256=good.upper(), expected_rows=5), path, tmp_path)
    with pytest.raises(LabelError, match=f"expected sha256 {'0' * 64} .by the manifest., found {good}"):
        build_store(dataclasses.replace(SOURCE, sha256="0" * 64), path, tmp_path)
    # With a store in place, too: its being there must not hide a manifest that does not fit.
    with pytest.raises(LabelError, match="expected 6 rows .by the manifest., found 5 rows"):
        build_store(dataclasses.replace(SOURCE, expected_rows=6), path, tmp_path)
    with pytest.raises(LabelError, match=r"gone\.npz: expected a label file, found no such file"):
        build_store(SOURCE, tmp_path / "gone.npz", tmp_path)


def test_another_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w"):
        pass
    with pytest.raises(LabelError, match="an HDF5 file of another kind"):
        store_info(tmp_path / "a.h5")


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="cannot be written: disk full"):
        build_store(SOURCE, write_camerahmr(tmp_path), tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_two_processes_may_build_at_once(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    folder = tmp_path / "store"
    workers = [context.Process(target=_build_once, args=(path, folder, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (built,) = folder.iterdir()
    assert_same(read_rows(built, 0, 5), read_label_file(path))


def _build_once(path: Path, folder: Path, start: multiprocessing.synchronize.Barrier) -> None:
    # Both hold the finished batch before either moves its file into place: the worst case.
    write_store = store._write

    def together(path: Path, pieces: Iterable[LabelBatch], info: StoreInfo) -> int:
        ready = list(pieces)
        start.wait(50)
        return write_store(path, ready, info)

    store._write = together
    assert len(read_rows(build_store(SOURCE, path, folder), 0, 5)) == 5


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hash would be that of the old content, and the rows those of the new."""
    path = write_camerahmr(tmp_path)

    def replaced(*asked: Any) -> LabelBatch:
        write_camerahmr(tmp_path, **with_value("shape", 0, 0.5))
        return read_label_file(*asked)

    monkeypatch.setattr(store, "read_label_file", replaced)
    with pytest.raises(LabelError, match="expected a file that stays the same"):
        build_store(SOURCE, path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_any_damaged_byte_of_the_data_is_noticed(tmp_path: Path) -> None:
    path = write_camerahmr(tmp_path)
    built = build_store(SOURCE, path, tmp_path / "store")
    whole = built.read_bytes()
    with h5py.File(built) as file:
        places = []
        for name in file:
            assert file[name].chunks is not None and file[name].fletcher32
            if file[name].id.get_num_chunks():  # a column of zeros has none
                chunk = file[name].id.get_chunk_info(0)
                places.append((chunk.byte_offset, chunk.size))
    assert len(places) == len({"row", "extra", *TEXT_FIELDS, *FIELD_SHAPES}) - 1  # without keypoints3d
    for offset, size in places:
        for place in (offset, offset + size // 2):
            built.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            with pytest.raises(LabelError, match="expected a whole label store .remove it and start again"):
                read_rows(built, 0, 5)
    built.write_bytes(whole)
    assert_same(read_rows(built, 0, 5), read_label_file(path))


def test_killed_builders_leave_nothing_for_long(tmp_path: Path) -> None:
    built = build_store(SOURCE, write_camerahmr(tmp_path), tmp_path / "store")
    left = built.with_name(f".{built.name}.0123456789ab.tmp")
    left.write_bytes(b"half")
    (tmp_path / "store" / "notes.tmp").touch()
    store.clear_temporaries(tmp_path / "store")
    assert {path.name for path in (tmp_path / "store").iterdir()} == {built.name, "notes.tmp"}
