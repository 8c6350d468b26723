"""Shards: the layout, byte-reproducible files, atomic writing, markers, and reading without skelfit."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelfit.bodies.dofs import dof_limits
from skelfit.bodies.limit_excess import limit_excess
from skelfit.errors import OutputError
from skelfit.shards.label_vector import FIELDS, LABEL_SIZE, pack, schema, unpack
from skelfit.shards.row_statistics import Distribution, Summary, round_mm
from skelfit.shards.shard_files import (
    ShardError,
    ShardFiles,
    list_shards,
    remove_shared_temporaries,
    remove_temporaries,
)
from skelfit.shards.shard_reader import check_shard, read_marker, read_members, read_rows, read_samples
from skelfit.shards.shard_schema import ShardRow, ShardSample
from skelfit.shards.shard_writer import row_digest, write_shard
from skelfit.storage.hashed_write import write_atomically

IDENTITY = {"subset": "s", "pipeline": {"shard_size": 2}}


def a_label(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=LABEL_SIZE).astype(np.float32)


def a_row(i: int, status: str = "ok", pve: float | None = 1.5) -> ShardRow:
    return ShardRow(f"s-0-{i:08d}", i, status, "", pve, pve, {"full": pve}, "male", {"refined": pve}, 0, None)


def a_shard(folder: Path, rows: int = 3) -> ShardFiles:
    files = ShardFiles(folder, "s-000000")
    samples = [ShardSample(f"s-0-{i:08d}", a_label(i), {"row": i}, b"picture", "jpg") for i in range(rows)]
    write_shard(files, zip(map(a_row, range(rows)), samples, strict=True), IDENTITY, (0, rows))
    return files


def test_pack_and_unpack_are_inverse() -> None:
    rng = np.random.default_rng(0)
    values = {f.name: rng.normal(size=(5, *f.shape)).astype(np.float32) for f in FIELDS}
    labels = pack(values)
    assert labels.shape == (5, LABEL_SIZE) and labels.dtype == np.float32
    for name, part in unpack(labels).items():
        np.testing.assert_array_equal(part, values[name])
    assert unpack(labels[0])["cam_int"].shape == (3, 3)


def test_pack_names_a_wrong_shape() -> None:
    values = {f.name: np.zeros((2, *f.shape), np.float32) for f in FIELDS}
    values["gtkps"] = np.zeros((2, 44, 2), np.float32)
    with pytest.raises(ValueError, match=r"gtkps: expected shape \(2, 44, 3\), found \(2, 44, 2\)"):
        pack(values)


def test_the_schema_tiles_the_vector_and_is_the_documented_one() -> None:
    fields = schema()["fields"]
    ends = [f["offset"] + f["size"] for f in fields]
    assert [f["offset"] for f in fields] == [0, *ends[:-1]] and ends[-1] == LABEL_SIZE == 467
    readme = (Path(__file__).parents[2] / "shards" / "README.md").read_text()
    for f in fields:
        shape = " x ".join(map(str, f["shape"]))
        assert f"| `{f['name']}` | {f['offset']} | {shape} | {f['unit']} |" in readme


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = a_shard(tmp_path / "a"), a_shard(tmp_path / "b")
    for path, twin in ((one.tar, other.tar), (one.sidecar, other.sidecar), (one.marker, other.marker)):
        assert path.read_bytes() == twin.read_bytes()
    with tarfile.open(tmp_path / "a" / one.tar.name) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o444)}


def test_a_shard_is_read_back(tmp_path: Path) -> None:
    files = a_shard(tmp_path)
    marker = read_marker(files)
    check_shard(files, marker, hash_tar=True)
    assert (marker.rows_in, marker.rows_out, marker.statuses) == (3, 3, {"ok": 3})
    rows = list(read_rows(files.sidecar))
    assert all("refinement" not in row for row in rows)  # of refined shards alone
    assert [asdict(a_row(i)) for i in range(3)] == [{**row, "refinement": None, "digest": ""} for row in rows]
    assert [row["digest"] for row in rows] == [
        row_digest(row, m) for row, (_, m) in zip(rows, read_members(files.tar), strict=True)
    ]
    samples = list(read_samples(files.tar))
    assert [(key, meta["row"]) for key, _, meta in samples] == [(f"s-0-{i:08d}", i) for i in range(3)]
    np.testing.assert_array_equal(samples[1][1], a_label(1))


def test_plain_webdataset_reads_a_shard(tmp_path: Path) -> None:
    files = a_shard(tmp_path)
    script = """
import json, sys
sys.modules["skelfit"] = None  # any import of it fails
import webdataset
samples = list(webdataset.WebDataset(sys.argv[1], shardshuffle=False).decode())
first = samples[0]
shape = list(first["label.npy"].shape)
print(json.dumps([len(samples), first["__key__"], shape, first["meta.json"], first["jpg"].decode()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(files.tar)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [3, "s-0-00000000", [LABEL_SIZE], {"row": 0}, "picture"]


@pytest.mark.parametrize("key", ["s.0", "s/0"])
def test_keys_without_dots_and_slashes(tmp_path: Path, key: str) -> None:
    files = ShardFiles(tmp_path, "s-000000")
    with pytest.raises(ValueError, match="must not contain"):
        write_shard(files, [(a_row(0), ShardSample(key, a_label(0), {}))], IDENTITY, (0, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_and_an_old_marker_goes_first(tmp_path: Path) -> None:
    files = a_shard(tmp_path)
    before = files.tar.read_bytes()

    def samples() -> Iterator[tuple[ShardRow, ShardSample | None]]:
        yield a_row(0), ShardSample("s-0-00000000", a_label(7), {})
        raise RuntimeError("the disk of the images is gone")

    with pytest.raises(RuntimeError, match="is gone"):
        write_shard(files, samples(), IDENTITY, (0, 1))
    assert not files.marker.exists() and files.tar.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_the_rows_of_a_sidecar_must_be_those_of_the_span(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not those of"):
        write_shard(ShardFiles(tmp_path, "s-000000"), [(a_row(0), None), (a_row(2), None)], IDENTITY, (0, 2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"name": "s-000000"', '{"tar": 1, "sidecar": 2}'], ids=range(5)
)
def test_a_damaged_marker_is_told(tmp_path: Path, content: str) -> None:
    files = a_shard(tmp_path)
    files.marker.write_text(content)
    with pytest.raises(ShardError, match=r"s-000000\.done\.json"):
        read_marker(files)


def test_a_marker_with_a_changed_bit_is_told(tmp_path: Path) -> None:
    """Also where the rest of it agrees with the files."""
    files = a_shard(tmp_path)
    content = json.loads(files.marker.read_text())
    files.marker.write_text(json.dumps(content | {"identity": {**IDENTITY, "subset": "r"}}))
    with pytest.raises(ShardError, match="content_sha256"):
        read_marker(files)


def test_changed_files_are_told(tmp_path: Path) -> None:
    files = a_shard(tmp_path)
    marker = read_marker(files)
    good = files.sidecar.read_bytes(), files.tar.read_bytes()
    files.sidecar.write_bytes(good[0].replace(b"1.5", b"1.6"))
    with pytest.raises(ShardError, match="rows.jsonl: 'sha256'"):
        check_shard(files, marker)
    files.sidecar.write_bytes(good[0])
    # A tar cut at a block reads as a whole one: only its size tells.
    files.tar.write_bytes(good[1][:-512])
    with pytest.raises(ShardError, match=r"s-000000\.tar: expected \d+ bytes"):
        check_shard(files, marker)
    files.tar.write_bytes(good[1].replace(b"picture", b"piktjur"))
    check_shard(files, marker)
    with pytest.raises(ShardError, match=r"tar: 'sha256'"):
        check_shard(files, marker, hash_tar=True)
    files.tar.unlink()
    with pytest.raises(ShardError, match="no such file"):
        check_shard(files, marker)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    a_shard(tmp_path)
    strange = [
        "s-000000.txt",
        "s-extra-000000.tar",
        ".s-extra-000000.tar.ab.tmp",
        ".notes.tmp",
        "s-1.tar",
        ".s-1.started.json",
    ]
    for name in strange:
        (tmp_path / name).touch()
    (tmp_path / ".s-000001.rows.jsonl.0123.tmp").touch()
    (tmp_path / ".summary.json.0123.tmp").touch()
    (tmp_path / ".s-000001.started.json").touch()
    remove_temporaries(tmp_path, "s")
    remove_shared_temporaries(tmp_path)
    assert {p.name for p in tmp_path.iterdir() if p.stat().st_size == 0} == set(strange)
    assert [files.name for files in list_shards(tmp_path, "s")] == ["s-000000"]


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "taken" / "file", lambda stream: stream.write(b""))


def rows_of(seed: int, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    statuses = ["ok", "limit_violation", "bad_input", "not_converged"]
    rows = []
    for i in range(count):
        status = statuses[rng.integers(4)]
        pve = None if status == "bad_input" else round_mm(rng.uniform(0, 30, 1))[0]
        rows.append(
            asdict(a_row(i, status, pve)) | {"image": bool(rng.integers(2)), "unseen_keypoints": i % 3}
        )
    return rows


def test_summaries_merge_in_any_order_to_the_same() -> None:
    parts = [rows_of(seed, 57) for seed in range(4)]
    a, b, c, d = (Summary.of_rows(part) for part in parts)
    whole = Summary.of_rows([row for part in parts for row in part]).to_json()
    assert a.merge(b).merge(c.merge(d)).to_json() == whole
    assert d.merge(c).merge(b).merge(a).to_json() == whole
    assert whole["skel_genders"] == {"male": whole["rows_out"]}
    assert whole["betas_mm"]["refined"] == whole["pve_mm"]
    assert whole["rows_in"] == 4 * 57 == sum(whole["statuses"].values())


def test_a_summary_has_the_numbers_of_numpy() -> None:
    rows = rows_of(0, 203)
    published = [row["pve_mm"] for row in rows if row["status"] in ("ok", "limit_violation")]
    summary = Summary.of_rows(rows).to_json()
    assert summary["rows_out"] == len(published)
    expected = [np.mean(published), *np.quantile(published, [0.5, 0.95, 1])]
    np.testing.assert_allclose(list(summary["pve_mm"].values()), expected, rtol=1e-12)
    np.testing.assert_allclose(summary["stage_pve_mm"]["full"], expected[0], rtol=1e-12)


def test_nothing_has_no_mean() -> None:
    assert Distribution().to_json() == {"mean": None, "p50": None, "p95": None, "max": None}


def test_lengths_are_rounded_as_python_rounds() -> None:
    given = np.array(
        [[np.nan, 1.00004999], [np.inf, -1e-6], [0.00005, 1e30], [12345.678, 2.00015]], np.float32
    )
    expected = [
        [round(float(x) * 10_000) / 10_000 if np.isfinite(x) else None for x in pair] for pair in given
    ]
    assert repr(round_mm(given)) == repr(expected)  # -0.0 is not 0.0


def test_limit_excess_names_the_worst_dof() -> None:
    poses = np.zeros((3, 46))
    poses[:, [27, 37]] = -0.2  # scapula elevation, whose range does not hold 0
    poses[0, :3] = 9.0  # the root has no limits
    poses[1, 6] = np.radians(-12.0)  # knee_angle_r in [0, 135] degrees
    poses[1, 7] = np.radians(46.0)  # ankle_angle_r in [-45, 45] degrees
    poses[2, 6] = np.radians(135.5)
    excess, names = limit_excess(poses)
    np.testing.assert_allclose(excess, [0, 12, 0.5], atol=1e-9)
    assert names[1:] == ["knee_angle_r", "knee_angle_r"]
    excess, names = limit_excess(
        poses, dof_limits({"knee_angle_r": (-0.3, 2.5), "ankle_angle_r": (-1.0, 0.5)})
    )
    np.testing.assert_allclose(excess, [0, 46 - np.degrees(0.5), 0], atol=1e-9)
