"""Every kind of damage is detected and located; whole shards give no false alarm."""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fakes import make_fields, make_metas, write_run
from job_fakes import in_tars, make_run
from verify_fakes import (
    check_folder,
    convert,
    damage_kinds,
    damage_of,
    edit_json,
    edit_labels,
    fake_key,
    files_of,
    make_consistent,
    make_shards,
    member_spans,
    other_subset,
    owner,
    read_tar,
    write_tar,
)

from skelfit.config.manifest import Filters
from skelfit.config.pipeline import ImageConfig
from skelfit.conversion.run_plan import Run
from skelfit.shards.content_seal import unsealed
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import read_json
from skelfit.storage.hashed_write import write_json
from skelfit.verification.integrity.folder_check import Integrity

MIDDLE = "fake-000001"  # rows 8 to 15, all published


# Whole shards.


def test_a_whole_run_is_whole_and_counted(made: Path) -> None:
    integrity = check_folder(made)
    summary = read_json(made / "summary.json")
    assert integrity.damage == () and integrity.whole
    assert (integrity.shards, integrity.rows_in, integrity.people) == (3, 20, 17)
    assert dict(integrity.statuses) == summary["statuses"] and dict(integrity.rejected) == summary["rejected"]
    assert integrity.identity_sha256 == summary["identity_sha256"]


def _plain(folder: Path) -> Run:
    return make_run(folder)


def _crops(folder: Path) -> Run:
    run = make_run(folder, images=True, side=256)
    pipeline = dataclasses.replace(run.pipeline, images=ImageConfig(mode="crop", size=64))
    return in_tars(dataclasses.replace(run, pipeline=pipeline), folder / "tars")


def _filtered(folder: Path) -> Run:
    return dataclasses.replace(make_run(folder), filters=Filters(low_confidence=0.5, few_keypoints=20))


def _one_row(folder: Path) -> Run:
    return make_run(folder, people=1)


def _no_person_published(folder: Path) -> Run:
    run = make_run(folder, people=9)
    gates = dataclasses.replace(run.pipeline.gates, max_pve_mm=1.0)
    return dataclasses.replace(run, pipeline=dataclasses.replace(run.pipeline, gates=gates))


def _long_name(folder: Path) -> Run:
    return other_subset(make_run(folder), "a-name-0-of-" + 100 * "x")


@pytest.mark.parametrize("make", [_plain, _crops, _filtered, _one_row, _no_person_published, _long_name])
def test_whole_shards_give_no_alarm(make: Callable[[Path], Run], tmp_path: Path) -> None:
    assert damage_of(convert(make(tmp_path))) == ()


def test_sequences_and_other_files_give_no_alarm(tmp_path: Path) -> None:
    names = ["walk"] * 12 + ["run"] * 8
    frames = [*range(12), *range(8)]
    metas = make_metas(
        20,
        sequence=names,
        frame=frames,
        frame_rate=[30.0] * 20,
        subject=["s1"] * 20,
        angles=["continuous"] * 20,
    )
    folder = write_run(tmp_path / "shards", make_fields(20), metas)
    for name in ("README.md", "notes.txt", ".people-000000.tar.0123.tmp"):
        (folder / name).write_text("not of the run")
    (folder / "card").mkdir()
    assert damage_of(folder) == ()


def test_the_root_of_a_row_must_be_a_known_one(tmp_path: Path) -> None:
    roots, smpl = ["frozen", "turn", "free", "loose", "free", "frozen"], [True] * 4 + [False] * 2
    fields = make_fields(6)
    for name in ("smpl_pose", "smpl_betas", "smpl_trans"):
        fields[name][4:] = 0
    target = ["neutral"] * 4 + [None] * 2
    metas = make_metas(6, root=roots, smpl=smpl, target_gender=target)
    damage = damage_of(write_run(tmp_path / "shards", fields, metas))
    messages = ["root: expected frozen or turn or free, found 'loose'", "root: expected free, found 'frozen'"]
    assert [d.sample for d in damage] == [metas[3]["key"], metas[5]["key"]]
    assert [d.message.split("meta.json: ")[1] for d in damage] == messages


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ShardError, match="expected a folder of shards"):
            check_folder(path)


# Bytes.


def located(integrity: Integrity, path: Path, at: int) -> bool:
    """Whether the damage names the place of byte `at` of a file."""
    shard = path.name.split(".")[0]
    if path.suffix not in (".tar", ".jsonl"):
        return any(str(path) in d.message for d in integrity.damage)
    key = owner(path, at)
    in_shard = [d for d in integrity.damage if d.shard == shard]
    return any(d.sample == key for d in in_shard) if key else any("byte" in d.message for d in in_shard)


def test_flipped_bits_are_located(made: Path, folder: Path) -> None:
    choose = random.Random(0)
    for path in files_of(folder):
        good = path.read_bytes()
        # The hash of the label rows is told nowhere else; a wrong one makes `--extend` refuse the labels.
        before, name, _ = good.partition(b'"labels_sha256": "')
        untold = range(len(before + name), len(before + name) + 64) if name else range(0)
        for at in choose.sample(range(len(good)), 10):
            if at in untold:
                continue
            bad = bytearray(good)
            bad[at] ^= 1 << choose.randrange(8)
            path.write_bytes(bad)
            integrity = check_folder(folder)
            assert integrity.damage, f"{path.name}, byte {at}: not found"
            path.write_bytes(good)
            assert located(integrity, path, at), f"{path.name}, byte {at}: {integrity.damage}"
    assert damage_of(folder) == ()


def test_each_byte_of_a_header_and_its_padding(folder: Path) -> None:
    tar = folder / f"{MIDDLE}.tar"
    good = tar.read_bytes()
    spans = [span for span in member_spans(tar) if span[0].startswith(fake_key(10))]
    offsets = [start + at for _, start, _ in spans[:1] for at in range(0, 512, 7)]
    offsets += [stop - 1 for _, _, stop in spans] + [len(good) - 1]
    for at in offsets:
        bad = bytearray(good)
        bad[at] ^= 0x20
        tar.write_bytes(bad)
        integrity = check_folder(folder)
        tar.write_bytes(good)
        assert integrity.damage and located(integrity, tar, at), at
        others = {d.sample for d in integrity.damage} - {owner(tar, at), None}
        assert not others, f"byte {at} concerns no other sample: {others}"


@pytest.mark.parametrize("ending", [".tar", ".rows.jsonl", ".done.json"])
def test_truncated_files(folder: Path, ending: str) -> None:
    path = folder / f"{MIDDLE}{ending}"
    good = path.read_bytes()
    offsets = [0, 1, len(good) // 3, len(good) - 1]
    if ending == ".tar":
        spans = list(member_spans(path))
        offsets = [cut for name, start, stop in spans[::5] for cut in (start, start + 512, stop - 7, stop)]
        offsets += [spans[-1][2], spans[-1][2] + 512, spans[-1][2] + 1024, len(good) - 512]
    for cut in offsets:
        path.write_bytes(good[:cut])
        damage = damage_kinds(folder)
        path.write_bytes(good)
        assert damage, f"cut at {cut}"
        assert {shard for shard, _, _ in damage} - {None} == {MIDDLE}
        if ending == ".tar":
            gone = {name.split(".")[0] for name, start, _ in spans if start >= cut and name.endswith("json")}
            lost_samples = {sample for _, sample, kind in damage if kind == "lost"}
            assert gone <= lost_samples | {sample for _, sample, kind in damage if kind == "sample"}


def test_bytes_after_the_end_of_a_tar(folder: Path) -> None:
    tar = folder / f"{MIDDLE}.tar"
    tar.write_bytes(tar.read_bytes() + (folder / "fake-000000.tar").read_bytes())
    damage = damage_kinds(folder)
    assert (MIDDLE, None, "tar") in damage and (MIDDLE, fake_key(0), "foreign") in damage


# Files.


@pytest.mark.parametrize("ending", [".tar", ".rows.jsonl", ".done.json"])
@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_missing_file_is_named(folder: Path, shard: int, ending: str) -> None:
    name = f"fake-{shard:06d}"
    (folder / f"{name}{ending}").unlink()
    missing = [d for d in damage_of(folder) if d.kind == "missing"]
    assert [(d.shard, d.message.split(":")[0]) for d in missing] == [(name, str(folder / f"{name}{ending}"))]


@pytest.mark.parametrize(("name", "kind"), [("summary.json", "unfinished"), ("schema.json", "missing")])
def test_a_missing_file_of_the_folder_is_named(folder: Path, name: str, kind: str) -> None:
    (folder / name).unlink()
    (fault,) = damage_of(folder)
    assert (fault.shard, fault.kind) == (None, kind) and name in fault.message


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_missing_shard_and_its_rows_are_named(folder: Path, shard: int) -> None:
    for path in folder.glob(f"fake-{shard:06d}.*"):
        path.unlink()
    damage = damage_of(folder)
    assert any(d.kind == "rows" and "people.npz" in d.message for d in damage)
    assert any(d.kind == "summary" and "'shards': expected 2" in d.message for d in damage)
    if shard < 2:
        assert any(d.kind == "missing" and d.shard == f"fake-{shard:06d}" for d in damage)


@pytest.mark.parametrize("endings", [(".tar",), (".rows.jsonl",), (".tar", ".rows.jsonl", ".done.json")])
def test_swapped_shards(folder: Path, endings: tuple[str, ...]) -> None:
    for ending in endings:
        one, other = (folder / f"fake-{i:06d}{ending}" for i in (0, 1))
        one.rename(folder / "aside")
        other.rename(one)
        (folder / "aside").rename(other)
    assert {shard for shard, _, _ in damage_kinds(folder)} >= {"fake-000000", MIDDLE}


def test_swapped_shards_whose_markers_were_changed_too(folder: Path) -> None:
    test_swapped_shards(folder, (".tar", ".rows.jsonl", ".done.json"))
    for i in (0, 1):
        edit_json(folder / f"fake-{i:06d}.done.json", seal=True, name=f"fake-{i:06d}")
    damage = [d for d in damage_of(folder) if d.kind == "rows"]
    assert {d.shard for d in damage} == {"fake-000000", MIDDLE}


def test_a_shard_of_another_run(folder: Path, tmp_path: Path) -> None:
    other = make_shards(tmp_path / "other", people=24)
    for path in other.glob(f"{MIDDLE}.*"):
        shutil.copy(path, folder)
    damage = [d for d in damage_of(folder) if d.kind == "configuration"]
    assert [d.shard for d in damage] == [MIDDLE] and "labels[0].rows: 24 against 20" in damage[0].message


def test_a_stale_marker(folder: Path) -> None:
    """The marker of an earlier attempt, beside files that are whole."""
    files = ShardFiles(folder, MIDDLE)
    marker = read_json(files.marker)
    edit_json(files.marker, seal=True, tar={**marker["tar"], "sha256": "0" * 64})
    assert (MIDDLE, None, "marker") in damage_kinds(folder)
    assert not any(sample for _, sample, _ in damage_kinds(folder)), "no sample is to blame"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rows_in", 9),
        ("rows_out", 7),
        ("start", 7),
        ("stop", 17),
        ("statuses", {"ok": 8}),
        ("rejected", {"bad_input: x": 1}),
        ("identity_sha256", "0" * 64),
        ("identity", {}),
        ("name", "fake-000002"),
    ],
)
def test_a_marker_that_contradicts_the_files(folder: Path, name: str, value: Any) -> None:
    path = folder / f"{MIDDLE}.done.json"
    assert read_json(path)[name] != value
    edit_json(path, seal=True, **{name: value})
    assert any(d.shard == MIDDLE and str(path) in d.message for d in damage_of(folder))


@pytest.mark.parametrize("value", ['"0000"', "NaN"])
def test_a_marker_of_which_nothing_else_repeats_what_has_changed(folder: Path, value: str) -> None:
    path = folder / f"{MIDDLE}.done.json"
    path.write_text(re.sub(r'(?<="labels_sha256": )"\w+"', value, path.read_text()))
    (damage,) = damage_of(folder)
    assert (damage.shard, damage.kind) == (MIDDLE, "marker") and "'content_sha256'" in damage.message


def test_a_marker_without_a_seal_as_earlier_versions_wrote_it(folder: Path) -> None:
    path = folder / f"{MIDDLE}.done.json"
    write_json(path, unsealed(read_json(path)))
    assert damage_of(folder) == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("rows_in", 21), ("rows_out", 16), ("statuses", {}), ("shards", 2), ("identity", {}), ("subset", "x")],
)
def test_a_summary_that_contradicts_the_shards(folder: Path, name: str, value: Any) -> None:
    edit_json(folder / "summary.json", seal=True, **{name: value})
    damage = damage_of(folder)
    assert [d.kind for d in damage] == ["summary"] and f"'{name}'" in damage[0].message


def test_a_summary_without_a_seal(folder: Path) -> None:
    path = folder / "summary.json"
    write_json(path, unsealed(read_json(path)))
    (damage,) = damage_of(folder)
    assert damage.kind == "summary" and "'content_sha256'" in damage.message


# Samples.


def test_a_duplicate_sample(folder: Path) -> None:
    files = ShardFiles(folder, MIDDLE)
    members = read_tar(files.tar)
    write_tar(files.tar, [*members, *members[:3]])
    make_consistent(files)
    assert damage_kinds(folder) == {(MIDDLE, fake_key(8), "duplicate")}


def test_a_sample_of_another_shard(folder: Path) -> None:
    files = ShardFiles(folder, MIDDLE)
    write_tar(files.tar, [*read_tar(files.tar), *read_tar(folder / "fake-000000.tar")[:3]])
    make_consistent(files)
    assert damage_kinds(folder) == {(MIDDLE, fake_key(0), "foreign")}


def test_a_duplicate_row_and_a_missing_row(folder: Path) -> None:
    files = ShardFiles(folder, MIDDLE)
    lines = files.sidecar.read_text().splitlines(keepends=True)
    files.sidecar.write_text("".join(lines[:3] + lines[2:]))
    assert (MIDDLE, fake_key(10), "duplicate") in damage_kinds(folder)
    files.sidecar.write_text("".join(lines[:2] + lines[3:]))
    damage = damage_kinds(folder)
    assert (MIDDLE, fake_key(10), "foreign") in damage
    assert {sample for _, sample, _ in damage} <= {None, fake_key(10), fake_key(11)}


def test_a_lost_sample_and_a_foreign_one(folder: Path) -> None:
    files = ShardFiles(folder, MIDDLE)
    members = read_tar(files.tar)
    write_tar(files.tar, [m for m in members if not m[0].startswith(fake_key(12))])
    make_consistent(files)
    assert damage_kinds(folder) == {(MIDDLE, fake_key(12), "lost")}


def test_samples_in_another_order(folder: Path) -> None:
    files = ShardFiles(folder, MIDDLE)
    members = read_tar(files.tar)
    write_tar(files.tar, members[3:] + members[:3])
    make_consistent(files)
    assert damage_kinds(folder) == {(MIDDLE, fake_key(8), "foreign")}


def test_edited_parameters(folder: Path) -> None:
    files = ShardFiles(folder, MIDDLE)

    def edit(name: str, label: np.ndarray) -> np.ndarray:
        return label + np.float32(0.01) * (np.arange(len(label)) == 6) if name == fake_key(9) else label

    edit_labels(files.tar, edit)
    assert {(MIDDLE, fake_key(9), "sample"), (MIDDLE, None, "tar")} == damage_kinds(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_with_consistent_hashes(folder: Path, value: float) -> None:
    files = ShardFiles(folder, MIDDLE)
    edit_labels(
        files.tar, lambda name, x: np.where(np.arange(467) == 50, value, x) if name == fake_key(9) else x
    )
    make_consistent(files)
    (only,) = damage_of(folder)
    assert (only.shard, only.sample, only.kind) == (MIDDLE, fake_key(9), "parameters")
    assert "skel_betas: 1 of 10 numbers are not finite" in only.message
