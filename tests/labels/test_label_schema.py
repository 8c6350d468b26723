"""What is known of a label file beforehand: its keys, and a sha256 that is pinned or recorded."""

from __future__ import annotations

import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from job_fakes import write_labels

from skelfit.config.manifest import LabelSource
from skelfit.errors import LabelError
from skelfit.labels.known_hashes import file_sha256
from skelfit.labels.label_schema import check_keys, check_sha256, record_path, record_sha256
from skelfit.labels.label_store import build_store

SOURCE = LabelSource("people.npz", "camerahmr")


def test_a_record_is_as_sha256sum_has_it(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "people.npz")
    assert "recorded in people.npz.sha256" in record_sha256(path, file_sha256(path))
    assert record_sha256(path, "0" * 64) == ""  # a record is never changed
    done = subprocess.run(
        ["sha256sum", "-c", "people.npz.sha256"], cwd=tmp_path, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_not_the_recorded_one_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "people.npz")
    first = file_sha256(path)
    record_sha256(path, first)
    build_store(SOURCE, path, tmp_path / "stores")
    write_labels(path, 19)
    with pytest.raises(LabelError) as caught:
        build_store(SOURCE, path, tmp_path / "stores")
    assert str(caught.value) == (
        f"{path}: expected sha256 {first}, as recorded in people.npz.sha256 beside it, found {file_sha256(path)}. "
        f"If the file was replaced on purpose, remove {path}.sha256"
    )
    record_path(path).unlink()
    build_store(SOURCE, path, tmp_path / "stores")


def test_a_pinned_hash_counts_whatever_the_record_says(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "people.npz")
    sha256 = file_sha256(path)
    pinned = LabelSource("people.npz", "camerahmr", sha256="ab" * 32)
    with pytest.raises(LabelError, match=r"expected sha256 abab.* \(by the manifest\), found"):
        check_sha256(pinned, path, sha256)
    check_sha256(LabelSource("people.npz", "camerahmr", sha256=sha256.upper()), path, sha256)


def test_a_record_that_is_none_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "people.npz")
    record_path(path).write_text("deadbeef  people.npz\n")
    with pytest.raises(LabelError, match=r"people\.npz\.sha256: expected 64 hexadecimal digits .*'deadbeef"):
        build_store(SOURCE, path, tmp_path / "stores")
    record_path(path).unlink()
    record_path(path).mkdir()
    with pytest.raises(LabelError, match="expected a readable file"):
        check_sha256(SOURCE, path, "0" * 64)
    # No file can be written below a file.
    assert "could not be recorded" in record_sha256(path / "x.npz", "0" * 64)


def test_expected_keys(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "people.npz")
    check_keys(path, ("imgname", "gtkps"))
    with pytest.raises(LabelError) as caught:
        check_keys(path, ("imgname", "has_betas"))
    error = caught.value
    assert error.key == "has_betas" and error.expected == "a key of this file (by the manifest)"
    assert error.found.startswith("none; the file has cam_int, center, gtkps")
    with h5py.File(tmp_path / "people.h5", "w") as file:
        file["imgname"] = np.zeros(3)
    check_keys(tmp_path / "people.h5", ("imgname",))
    with pytest.raises(LabelError, match="'gtkps': expected a key"):
        check_keys(tmp_path / "people.h5", ("gtkps",))
    check_keys(tmp_path / "none.npz", ("gtkps",))  # its reader says so
