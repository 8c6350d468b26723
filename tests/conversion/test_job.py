"""One shard end to end, and runs that are cut short, continued, changed and replaced."""

from __future__ import annotations

import dataclasses
import gc
import json
import signal
import tarfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import webdataset
from cluster_by_hand import wait_until
from job_fakes import (
    BENT_ROW,
    CAMERA_META,
    DIVERGED_ROW,
    FAR_ROW,
    NAN_ROW,
    NO_IMAGE_ROW,
    PIPELINE,
    FakeFitter,
    failing_work,
    hashes,
    in_tars,
    make_run,
    picture,
)
from PIL import Image

from skelfit.api.run_shards import ShardsFailedError, convert_run
from skelfit.api.run_time import this_time
from skelfit.cli.convert import GO_ON
from skelfit.cli.interrupts import interruptible
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import GateConfig, ImageConfig
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import Run, pending, plan_shards
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.shard_outcome import ShardResult
from skelfit.conversion.shard_samples import _pictures
from skelfit.conversion.stopwatch import PHASES
from skelfit.errors import OutputError
from skelfit.labels.label_store import build_store
from skelfit.labels.label_store import read_rows as read_label_rows
from skelfit.shards.content_seal import unsealed
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_json, read_marker, read_rows, read_samples
from skelfit.storage.hashed_write import write_json


def convert(run: Run, fitter: FakeFitter | None = None, *, overwrite: bool = False) -> FakeFitter:
    """Convert with a fake fitter; returns it."""
    fitter = fitter or FakeFitter()
    with writing(Path(run.out), run.subset):
        convert_run(run, work=partial(convert_batch, fitter=fitter), overwrite=overwrite)
    return fitter


def with_pipeline(run: Run, **changes: Any) -> Run:
    return dataclasses.replace(run, pipeline=dataclasses.replace(run.pipeline, **changes))


def all_rows(run: Run) -> list[dict[str, Any]]:
    return [row for task in plan_shards(run) for row in read_rows(task.files.sidecar)]


def all_samples(run: Run) -> dict[str, tuple[FloatArray, dict[str, Any]]]:
    samples = [s for task in plan_shards(run) for s in read_samples(task.files.tar)]
    assert len({key for key, _, _ in samples}) == len(samples)
    return {key: (label, meta) for key, label, meta in samples}


def test_the_plan_covers_every_row_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    file = run.labels[0]
    run = dataclasses.replace(run, labels=(file, dataclasses.replace(file, rows=9)))
    spans = [(t.name, t.file_index, t.start, t.stop) for t in plan_shards(run)]
    assert spans == [
        ("fake-000000", 0, 0, 8),
        ("fake-000001", 0, 8, 16),
        ("fake-000002", 0, 16, 20),
        ("fake-000003", 1, 0, 8),
        ("fake-000004", 1, 8, 9),
    ]


def test_every_row_has_one_status_and_its_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=True)
    convert(run)
    rows = all_rows(run)
    assert [row["row"] for row in rows] == list(range(20))
    faults = {row["row"]: (row["status"], row["reason"]) for row in rows if row["reason"]}
    assert faults == {
        NAN_ROW: ("bad_input", "non_finite:pose_cam"),
        DIVERGED_ROW: ("not_converged", "gain 1.50 % of the objective in one more step"),
        FAR_ROW: ("residual_above_gate", "pve_mm 25.00 > 20"),
        BENT_ROW: ("limit_violation", "knee_angle_r 28.6 deg beyond its limit"),
        NO_IMAGE_ROW: ("ok", "image_missing"),
    }
    assert rows[NAN_ROW]["pve_mm"] is None and rows[NAN_ROW]["stage_pve_mm"] == {"lower": None, "full": None}
    assert rows[FAR_ROW]["stage_pve_mm"] == {"lower": 50.0, "full": 25.0}
    assert rows[FAR_ROW]["betas_mm"] == {"transferred": 25.0, "refined": 12.5}
    assert rows[NAN_ROW]["betas_mm"] == {"transferred": None, "refined": None}
    genders = {row["row"]: row["skel_gender"] for row in rows}
    assert rows[NAN_ROW]["root"] is None and rows[FAR_ROW]["root"] == "frozen"
    assert genders[NAN_ROW] is None and set(genders.values()) == {None, "male", "female"}
    assert [rows[i]["image"] for i in (0, NO_IMAGE_ROW, NAN_ROW)] == [True, False, None]
    published = {row["key"] for row in rows if row["status"] in ("ok", "limit_violation")}
    samples = all_samples(run)
    assert set(samples) == published and len(published) == 17
    assert not any("." in row["key"] for row in rows)
    summary = read_json(Path(run.out) / "summary.json")
    assert summary["rows_in"] == 20 == sum(summary["statuses"].values())
    assert (summary["rows_out"], summary["shards"]) == (17, 3)
    assert summary["statuses"]["ok"] == 16
    assert summary["images"] == {
        "found": 16,
        "missing": 1,
        "unreadable": 0,
        "damaged": 0,
        "too_large": 0,
        "no_crop": 0,
        "unknown_pixels": 0,
    }
    assert summary["rejected"] == {
        "bad_input: non_finite:pose_cam": 1,
        "not_converged: gain": 1,
        "residual_above_gate: pve_mm": 1,
    }
    assert sum(summary["skel_genders"].values()) == 17
    assert summary["betas_mm"]["transferred"] == summary["pve_mm"]
    assert summary["people_per_second"] > 0


def test_a_sample_holds_what_came_in_and_what_was_found(tmp_path: Path) -> None:
    run = make_run(tmp_path, images=True)
    convert(run)
    label, meta = all_samples(run)[f"fake-0-{BENT_ROW:08d}"]
    with np.load(tmp_path / "people.npz") as source:
        part = unpack(label)
        np.testing.assert_array_equal(part["smpl_pose"].ravel(), source["pose_cam"][BENT_ROW])
        source_shape = source["shape"][BENT_ROW]
        np.testing.assert_array_equal(part["skel_betas"], 2 * source_shape)
        np.testing.assert_array_equal(part["skel_trans"], source["trans_cam"][BENT_ROW] + 1)
        np.testing.assert_array_equal(part["gtkps"], source["gtkps"][BENT_ROW])
        np.testing.assert_array_equal(part["scale"], np.repeat(source["scale"][BENT_ROW], 2))
    np.testing.assert_array_equal(part["errors"], [5, 15])
    # The labels have no 3D keypoints, so those of the fit stand in.
    np.testing.assert_array_equal(part["keypoints3d"], np.ones((44, 4)))
    assert meta == {
        "key": "fake-0-00000009",
        "subset": "fake",
        "label_file": "people.npz",
        "row": 9,
        "imgname": "train/000009.jpg",
        "smpl_gender": "neutral",
        "skel_gender": "male" if source_shape[3] <= 0 else "female",  # the fake fitter's choice
        "status": "limit_violation",
        "keypoints3d": "skel",
        "image": True,
        "image_size": [16, 16],
        "affine": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        **CAMERA_META,
    }
    with tarfile.open(Path(run.out) / "fake-000001.tar") as tar:
        stream = tar.extractfile("fake-0-00000009.jpg")
        assert stream is not None and stream.read() == picture(9)


@pytest.mark.parametrize(
    "name", ["../people.npz", "/etc/hostname", "train/000001.npz", "../secret.jpg", "train/empty.jpg", ""]
)
def test_only_images_of_the_folder_are_taken(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, images=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "images" / "train" / "000001.npz").write_bytes(b"not an image")
    (tmp_path / "images" / "train" / "empty.jpg").touch()
    task = plan_shards(run)[0]
    batch = read_label_rows(run.labels[0].store, 0, 2)
    pictures = _pictures(task, dataclasses.replace(batch, imgname=["train/000001.jpg", name]), [True, True])
    assert [p.data for p in pictures] == [picture(1), None]


def test_equal_runs_write_equal_bytes_wherever_they_are(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "a", images=True), make_run(tmp_path / "b", images=True)
    convert(one)
    convert(other)
    assert hashes(Path(one.out)) == hashes(Path(other.out))


def test_a_second_run_fits_nothing_and_says_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert convert(run).calls == 3
    before, summary = hashes(Path(run.out)), read_json(Path(run.out) / "summary.json")
    assert convert(run).calls == 0
    assert hashes(Path(run.out)) == before
    again = read_json(Path(run.out) / "summary.json")
    assert again["people_per_second"] is None and again["time"] is None
    of_that_time = dict.fromkeys(("people_per_second", "time", "content_sha256"))
    assert {**summary, **of_that_time} == {**again, "content_sha256": None}


def with_images(run: Run, **changes: Any) -> Run:
    return with_pipeline(run, images=ImageConfig(**changes))


@pytest.mark.parametrize("mode", ["bytes", "crop"])
def test_tars_and_the_folder_they_stand_for_give_the_same_bytes(tmp_path: Path, mode: str) -> None:
    run = with_images(make_run(tmp_path, images=True, side=256), mode=mode, size=64)
    convert(run)
    expected = hashes(Path(run.out))
    assert convert(in_tars(run, tmp_path / "tars")).calls == 0, "the same run, from another place"
    again = dataclasses.replace(in_tars(run, tmp_path / "more"), out=str(tmp_path / "again"))
    convert(again)
    assert hashes(tmp_path / "again") == expected
    assert read_json(Path(run.out) / "summary.json")["images"]["found"] == 16


def test_keypoints_find_their_place_in_a_crop(tmp_path: Path) -> None:
    """With nothing but webdataset and the metadata, as the documentation says."""
    run = with_images(make_run(tmp_path, images=True), mode="crop", size=200, margin=1.25)
    rng = np.random.default_rng(1)
    points = rng.uniform(90, 166, (20, 2)).astype(np.float32)
    for i, (x, y) in enumerate(points):
        across, down = np.arange(256) + 0.5 - x, np.arange(256) + 0.5 - y
        spot = (255 * np.exp(-(across**2 + down[:, None] ** 2) / 50)).astype(np.uint8)
        Image.fromarray(spot).save(tmp_path / "images" / "train" / f"{i:06d}.jpg", quality=95)
    with np.load(tmp_path / "people.npz") as archive:
        columns = dict(archive)
    columns["gtkps"][:, 0] = np.column_stack([points, np.ones(20)])
    np.savez(tmp_path / "people.npz", **columns)
    store = build_store(LabelSource("people.npz", "camerahmr"), tmp_path / "people.npz", tmp_path / "stores")
    run = dataclasses.replace(run, labels=(dataclasses.replace(run.labels[0], store=str(store)),))
    convert(run)
    parts = {f["name"]: f for f in read_json(Path(run.out) / "schema.json")["fields"]}
    part = parts["gtkps"]
    shards = [str(path) for path in sorted(Path(run.out).glob("*.tar"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the garbage collector
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
        gc.collect()
    assert len(samples) == 17
    for sample in samples:
        label, meta = sample["label.npy"], sample["meta.json"]
        keypoints = label[part["offset"] : part["offset"] + part["size"]].reshape(part["shape"])
        affine = np.array(meta["affine"])
        mapped = keypoints[:, :2] @ affine[:, :2].T + affine[:, 2]
        light = np.clip(np.asarray(sample["jpg"].convert("L"), float) - 50, 0, None)
        middles = np.arange(200) + 0.5
        found = np.array([light.sum(0) @ middles, light.sum(1) @ middles]) / light.sum()
        assert np.abs(found - mapped[0]).max() < 0.25
        assert meta["image_size"] == [256, 256]


def test_labels_only(tmp_path: Path) -> None:
    run = dataclasses.replace(make_run(tmp_path, images=True), images=None)
    convert(run)
    assert all(row["image"] is None for row in all_rows(run))
    _, meta = next(iter(all_samples(run).values()))
    assert (meta["image"], meta["image_size"], meta["affine"]) == (False, None, None)


def test_a_crop_that_shows_nothing_is_a_reason(tmp_path: Path) -> None:
    """The images of this run are far from the boxes of its people."""
    run = with_images(make_run(tmp_path, images=True), mode="crop")
    convert(run)
    rows = all_rows(run)
    assert rows[0]["reason"] == "image_no_crop" and rows[0]["status"] == "ok" and rows[0]["image"] is False
    summary = read_json(Path(run.out) / "summary.json")
    assert summary["images"]["no_crop"] == 16 and summary["images"]["missing"] == 1
    _, meta = all_samples(run)[rows[0]["key"]]
    assert (meta["image"], meta["image_size"], meta["affine"]) == (False, [16, 16], None)


def test_a_tar_that_changes_during_a_run_costs_its_shards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = in_tars(make_run(tmp_path, images=True), tmp_path / "tars")
    with open(tmp_path / "tars" / "000000.tar", "ab") as tar:
        tar.write(bytes(10240))
    with pytest.raises(ShardsFailedError):
        convert(run)
    assert "000000.tar: expected the tar that was indexed" in caplog.text
    assert not list(Path(run.out).glob("*.tar"))


@pytest.mark.parametrize(
    "damage", ["no marker", "cut marker", "changed marker", "cut tar", "changed sidecar", "no tar"]
)
def test_a_damaged_shard_alone_is_done_again(tmp_path: Path, damage: str) -> None:
    run = make_run(tmp_path)
    convert(run)
    before = hashes(Path(run.out))
    files = ShardFiles(Path(run.out), "fake-000001")
    path = {"marker": files.marker, "tar": files.tar, "sidecar": files.sidecar}[damage.split()[1]]
    if damage.startswith("no"):
        path.unlink()
    elif damage.startswith("cut"):
        path.write_bytes(path.read_bytes()[:-600])
    else:
        path.write_bytes(path.read_bytes().replace(b"ok", b"OK"))
    assert convert(run).calls == 1
    assert hashes(Path(run.out)) == before


@pytest.mark.parametrize("what", ["identity", "labels_sha256"])
def test_a_shard_whose_marker_is_not_as_sealed_is_done_again(tmp_path: Path, what: str) -> None:
    """A damaged identity is none of another configuration; nothing else repeats the hash of the labels."""
    run = make_run(tmp_path)
    convert(run)
    before = hashes(Path(run.out))
    marker = ShardFiles(Path(run.out), "fake-000001").marker
    content = read_json(marker)
    damaged = {**content["identity"], "models_sha256": "1" * 64} if what == "identity" else "1" * 64
    write_json(marker, {**content, what: damaged})
    assert convert(run).calls == 1
    assert hashes(Path(run.out)) == before


def test_shards_of_earlier_versions_whose_markers_have_no_seal_stay_finished(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    for task in plan_shards(run):
        write_json(task.files.marker, unsealed(read_json(task.files.marker)))
    assert convert(run).calls == 0


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    before = hashes(Path(run.out))
    changed = with_pipeline(run, gates=GateConfig(max_pve_mm=10.0, limit_deg=5.0))
    with pytest.raises(OutputError, match=r"pipeline\.gates\.max_pve_mm: 20 against 10"):
        convert(changed)
    with pytest.raises(OutputError, match="shard_size: 8 against 5"):
        convert(with_pipeline(run, shard_size=5))
    with pytest.raises(OutputError, match=r"models_sha256: .*1111"):
        convert(dataclasses.replace(run, models_sha256="1" * 64))
    fewer = dataclasses.replace(run, labels=(dataclasses.replace(run.labels[0], rows=8),))
    with pytest.raises(OutputError, match=r"labels\[0\]\.rows: 20 against 8"):
        convert(fewer)
    assert hashes(Path(run.out)) == before
    # A run in another place, on another device, is the same run.
    assert convert(dataclasses.replace(run, device="cuda")).calls == 0


def test_overwrite_replaces_shards_and_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path, shard_size=2)
    convert(run)
    notes = Path(run.out) / "fake-notes.txt"
    notes.write_text("mine")
    larger = with_pipeline(run, shard_size=12)
    assert convert(larger, overwrite=True).calls == 2
    assert sorted(p.name for p in Path(run.out).glob("*.tar")) == ["fake-000000.tar", "fake-000001.tar"]
    assert notes.read_text() == "mine"


def test_one_subset_a_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    with pytest.raises(OutputError, match=r"another subset \(fake\)"):
        convert(dataclasses.replace(run, subset="fa"), overwrite=True)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        writing(tmp_path, "fake"),
        pytest.raises(OutputError, match="another run is writing here"),
        writing(tmp_path, "fake"),
    ):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written to"), writing(tmp_path / "file", "fake"):
        pass


def test_a_failed_shard_stops_no_other_and_leaves_no_summary(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run(tmp_path)
    convert(run)
    (Path(run.out) / "fake-000001.done.json").unlink()
    with pytest.raises(ShardsFailedError, match="1 of 3 shards failed"):
        convert_run(run, work=failing_work)
    assert "shard fake-000001 failed: RuntimeError: no such luck" in caplog.text
    assert [t.name for t in pending(run, plan_shards(run))] == ["fake-000001"]
    assert not (Path(run.out) / "summary.json").exists()
    assert convert(run).calls == 1
    assert read_json(Path(run.out) / "summary.json")["rows_in"] == 20


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)

    def work(batch: ShardBatch) -> BatchJob:
        if batch.name == "fake-000002":
            wait_until((Path(run.out) / "fake-000000.done.json").exists)
            raise KeyboardInterrupt
        return convert_batch(batch, FakeFitter())

    Path(run.out).mkdir()
    with pytest.raises(SystemExit) as exit_, interruptible(GO_ON):
        convert_run(run, work=work)
    assert exit_.value.code == 130
    assert "goes on from the finished shards" in capsys.readouterr().err
    assert convert(run).calls == 2


def test_a_killed_run_is_finished_by_the_next(tmp_path: Path) -> None:
    reference = make_run(tmp_path / "reference", people=48)
    convert(reference)
    run = make_run(tmp_path / "killed", people=48)
    script = (
        "import sys; from pathlib import Path; from job_fakes import endless_work, make_run\n"
        "from skelfit.api.run_shards import convert_run\n"
        "run = make_run(Path(sys.argv[1]), people=48); Path(run.out).mkdir()\n"
        "convert_run(run, work=endless_work)"
    )
    child = programs.start("-c", script, tmp_path / "killed", log=tmp_path / "log")
    out = Path(run.out)
    deadline = time.monotonic() + 60
    while not (out / "fake-000001.done.json").exists():
        assert child.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    finished = len(list(out.glob("*.done.json")))
    assert finished == 2 and not (out / "summary.json").exists()
    # What a kill in the middle of a write leaves: a temporary file, and a tar without its marker.
    (out / ".fake-000004.tar.0123456789ab.tmp").write_bytes(b"half")
    (out / "fake-000005.tar").write_bytes(b"whole, but no marker says so")
    assert convert(run).calls == 6 - finished
    assert hashes(out) == hashes(Path(reference.out))


def test_markers_tell_what_was_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    marker = read_marker(ShardFiles(Path(run.out), "fake-000001"))
    assert (marker.start, marker.stop, marker.rows_in, marker.rows_out) == (8, 16, 8, 8)
    assert marker.identity == json.loads(json.dumps(run.identity()))
    assert marker.identity["pipeline"]["name"] == PIPELINE.name


def test_where_the_time_went() -> None:
    """Two workers, one of them replaced: the time in which a process was not there counts for none."""

    def result(process: str, span: tuple[float, float], fit: float) -> ShardResult:
        seconds = dict.fromkeys(PHASES, 0.0) | {"fit": fit, "writing": 1.0}
        return ShardResult("x", 10, 9, {"ok": 9}, {}, seconds, process, 1, span)

    results = [result("a", (0, 4), 3.0), result("a", (3, 7), 3.0), result("b", (5, 9), 3.0)]
    found = this_time(results, 10.0)
    assert found["people_per_second"] == 3.0
    assert found["time"]["worker_seconds"] == 7 + 4
    assert found["time"]["fitting"] == pytest.approx(9 / 11, abs=1e-4)
    assert found["time"]["shares"]["fit"] == 0.75 and sum(found["time"]["shares"].values()) == 1
    assert this_time([], 10.0) == {"people_per_second": None, "time": None}
