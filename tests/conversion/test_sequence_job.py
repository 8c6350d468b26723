"""Sequences through a job: frames of one person are fitted as one problem, by any executor, unless it is turned off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from job_fakes import FakeFitter, hashes, write_labels
from label_files import write

from skelfit.bodies.angle_continuity import canonical_angles
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.config.fit_settings import TemporalConfig
from skelfit.config.manifest import Filters, LabelSource
from skelfit.config.pipeline import load_pipeline
from skelfit.conversion.fitted_rows import RowFits, RowsToFit, fitted_rates, frames_of, joined
from skelfit.conversion.row_fits import fit_rows, labels_fit
from skelfit.conversion.run_plan import LabelFile
from skelfit.conversion.subject_shapes import subject_shapes
from skelfit.fitting.fitter import Fitter
from skelfit.labels.label_batch import LabelBatch, MotionSequence, empty_fields
from skelfit.labels.label_store import build_store, read_rows
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_json, read_samples
from skelfit.shards.shard_reader import read_rows as read_sidecar
from tools.studies.motions import Motion, make_motion

PIPELINES = Path(__file__).parents[2] / "pipelines"
BAD_FRAME = 12  # of the kick


def amass_file(motion: Motion, first: int, frames: int, gender: str) -> dict[str, Any]:
    """Some frames of a motion as AMASS has them."""
    rows = slice(first, first + frames)
    return {
        "poses": motion.pose[rows].reshape(frames, 72).astype(np.float64),
        "betas": motion.betas[0].astype(np.float64),
        "trans": motion.transl[rows].astype(np.float64),
        "gender": np.array(gender),
        "mocap_framerate": np.array(motion.frame_rate),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of a man, with a bad frame in the middle of one and no frame rate in the other; and three of
    neutral labels, of which two are of one shape."""
    top = tmp_path_factory.mktemp("sequences") / "amass"
    kick = amass_file(make_motion("kick"), 75, 24, "male")
    kick["poses"][BAD_FRAME, 7] = np.nan
    write(top / "a" / "kick.npz", kick)
    dance = amass_file(make_motion("dance"), 0, 20, "male")
    del dance["mocap_framerate"]
    write(top / "a" / "dance.npz", dance)
    arms, sit = (amass_file(make_motion(name), 60, 18, "neutral") for name in ("arm circles", "sit"))
    write(top / "b" / "arms.npz", arms)
    write(top / "b" / "other.npz", {k: v[:6] if k in ("poses", "trans") else v for k, v in sit.items()})
    write(top / "b" / "sit.npz", sit | {"betas": arms["betas"]})
    return top


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)


def convert(labels: Path, *options: object, out: str = "out") -> Result:
    words = ["convert", "--labels", labels, "--out", out, "--shard-size", 25, *options]
    if "--workers" not in options:
        words += ["--workers", 0]
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def converted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """The folder in this process, to `out`, and each frame by itself, to `alone`; both beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("converted"))
        patch.delenv("SKELFIT_MODELS", raising=False)
        results = {"out": convert(folder), "alone": convert(folder, "--independent-frames", out="alone")}
        for name, result in results.items():
            assert result.exit_code == 0, result.output
            shutil.copytree(name, folder.parent / name)
    return results


def published(out: str | Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Metadata and label of every sample, in order."""
    for tar in sorted(Path(out).glob("*.tar")):
        for _, label, meta in read_samples(tar):
            yield meta, label


def sidecar(out: str | Path) -> list[dict[str, Any]]:
    return [row for path in sorted(Path(out).glob("*.rows.jsonl")) for row in read_sidecar(path)]


# What the fit is told.


def made_up_batch(rates: tuple[float | None, ...] = (50.0, None)) -> LabelBatch:
    """Rows 100 to 111 of a file: the last 4 of a sequence of 10 frames, one of 6, and two by themselves."""
    n = 12
    sequences = (MotionSequence("one", "s", rates[0], 94, 10), MotionSequence("two", "s", rates[1], 104, 6))
    gender, bad = ["male"] * n, [""] * n
    bad[5] = "non_finite: pose"
    return LabelBatch(
        row=np.arange(100, 100 + n),
        imgname=[""] * n,
        gender=gender,
        bad=bad,
        sequences=sequences,
        **empty_fields(n),
    )


def test_rows_become_frames_at_their_times() -> None:
    frames = frames_of(made_up_batch(), TemporalConfig(frame_rate=25.0))
    assert frames is not None
    assert frames.sequence.tolist() == [0] * 4 + [1] * 6 + [-1] * 2
    np.testing.assert_allclose(frames.time[:4], np.arange(6, 10) / 50)
    np.testing.assert_allclose(frames.time[4:10], np.arange(6) / 25)
    assert frames_of(made_up_batch(), None) is None


def test_bad_and_filtered_rows_are_gaps_in_time() -> None:
    batch, fitter, temporal = made_up_batch(), FakeFitter(), TemporalConfig(frame_rate=25.0)
    left_out = [""] * 12
    left_out[2] = left_out[8] = left_out[9] = "large_betas: 4 > 3"
    rows = RowsToFit.of(batch, left_out, frames_of(batch, temporal))
    fitted = fit_rows(rows, labels_fit(rows, fitter), 2)
    (frames,) = fitter.frames
    assert frames is not None
    assert frames.sequence.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    np.testing.assert_allclose(frames.time[:6], [6 / 50, 7 / 50, 9 / 50, 0, 2 / 25, 3 / 25])
    assert isinstance(fitted, RowFits) and fitted.finite.sum() == 8  # every row keeps its place
    rates = fitted_rates(batch, temporal, left_out)
    assert rates == [50.0, 50.0, None, 50.0, 25.0, None, 25.0, 25.0, None, None, None, None]
    finite = np.ones(12, bool)
    finite[[1, 4, 6]] = False
    rates = fitted_rates(batch, temporal, left_out, finite)
    # Of the second sequence one frame is left, which is fitted by itself.
    assert rates == [50.0, None, None, 50.0, *[None] * 8]


def test_genders_and_single_frames_are_problems_of_their_own() -> None:
    batch, temporal = made_up_batch(), TemporalConfig(frame_rate=25.0)
    batch.gender[0] = "female"  # the only such frame
    assert fitted_rates(batch, temporal)[:4] == [None, 50.0, 50.0, 50.0]
    assert fitted_rates(batch, None) == [None] * 12
    fitter = FakeFitter()
    rows = RowsToFit.of(batch, frames=frames_of(batch, temporal))
    fit_rows(rows, labels_fit(rows, fitter), 2)
    assert [len(frames.sequence) for frames in fitter.frames if frames] == [1, 10]


def test_sequences_of_several_shards_stay_apart() -> None:
    batch = made_up_batch()
    rows = RowsToFit.of(batch, frames=frames_of(batch, TemporalConfig(frame_rate=25.0)))
    frames = joined([rows, rows]).frames
    assert frames is not None
    assert frames.sequence.tolist() == [*[0] * 4, *[1] * 6, -1, -1, *[2] * 4, *[3] * 6, -1, -1]


# What tells a subject's shape.


def shapes_of(store: Path, start: int, stop: int, rows: int = 86, count: int = 7) -> dict[str, Any]:
    """By name of a sequence of some rows."""
    file = LabelFile(str(store), "amass", "", rows, "amass", "neutral", "none")
    batch = read_rows(store, start, stop)
    found = subject_shapes(batch, file, Filters(), count)
    return {batch.sequences[k].name: shape for k, shape in found.items()}


def test_a_subjects_sequences_tell_its_shape(folder: Path) -> None:
    """Whatever rows a batch has: seven frames over the two sequences that are of one shape."""
    store = build_store(LabelSource("amass"), folder, Path("stores"))
    whole = shapes_of(store, 0, 86)
    assert list(whole) == ["b/arms", "b/sit"] and whole["b/arms"] is whole["b/sit"]
    shape = whole["b/arms"]
    expected = [*range(44, 62), *range(68, 86)]
    picked = [expected[k] for k in (0, 6, 12, 18, 23, 29, 35)]
    np.testing.assert_array_equal(shape.pose, read_rows(store, 0, 86).pose[picked])
    (part,) = shapes_of(store, 50, 60).values()
    np.testing.assert_array_equal(part.pose, shape.pose)
    (part,) = shapes_of(store, 62, 86).values()
    np.testing.assert_array_equal(part.pose, shape.pose)
    assert shapes_of(store, 0, 44) == {}  # men's betas are the labels'
    assert shapes_of(store, 44, 68, rows=68) == {}  # the run takes one sequence of this shape only


# A folder, converted.


def test_frames_are_fitted_as_one_problem_and_rows_say_so(folder: Path, converted: dict[str, Result]) -> None:
    result, alone = converted["out"], converted["alone"]
    for name in converted:
        shutil.copytree(folder.parent / name, name)
    assert "amass: 5 sequences; frames are fitted as one problem (--independent-frames: each" in result.output
    assert "  1 of them without a frame rate: 30 Hz assumed (fit.temporal.frame_rate" in result.output
    assert "next: skelfit export out --format opensim --frame-rate 30 --out amass-opensim" in result.output
    assert "next: skelfit export alone --format opensim --out amass-opensim" in alone.output
    rows = sidecar("out")
    assert [row["row"] for row in rows] == list(range(86))
    bad = [row for row in rows if row["status"] == "bad_input"]
    assert [(row["sequence"], row["frame"], row["fitted_rate"]) for row in bad] == [
        ("a/kick", BAD_FRAME, None)
    ]
    said = {(r["sequence"], r["frame_rate"], r["fitted_rate"]) for r in rows if r not in bad}
    of_b = {("b/arms", 60.0, 60.0), ("b/other", 30.0, 30.0), ("b/sit", 30.0, 30.0)}
    assert said == of_b | {("a/kick", 120.0, 120.0), ("a/dance", None, 30.0)}
    people = list(published("out"))
    assert len(people) >= 80
    for meta, _ in people:
        assert meta["fitted_rate"] == rows[meta["row"]]["fitted_rate"]
    shapes: dict[str, set[bytes]] = {}
    for meta, label in people:
        shapes.setdefault(meta["sequence"], set()).add(unpack(label)["skel_betas"].tobytes())
    assert {len(found) for found in shapes.values()} == {1}  # a sequence has one shape
    assert (
        shapes["b/arms"] == shapes["b/sit"] != shapes["b/other"]
    )  # and a subject, where labels say the same of it
    identity = read_json(Path("out/summary.json"))["identity"]["pipeline"]["fit"]["temporal"]
    assert identity["frame_rate"] == 30.0

    assert "amass: 5 sequences; frames are fitted each by itself" in alone.output
    assert "assumed" not in alone.output
    assert {row["fitted_rate"] for row in sidecar("alone")} == {None}
    one, other = ({m["row"]: unpack(x) for m, x in published(out)} for out in ("out", "alone"))
    changed = [np.abs(one[k]["skel_poses"] - other[k]["skel_poses"]).max() for k in one.keys() & other.keys()]
    assert np.median(changed) > 1e-4  # rad
    by_itself = np.array([x["skel_betas"] for row, x in other.items() if 44 <= row < 62])
    assert by_itself.std(0).max() > 1e-3  # without the sequence every frame has a shape of its own
    # The other way is another configuration.
    refused = convert(folder, "--independent-frames")
    assert refused.exit_code == 2 and "fit.temporal" in refused.stderr


@pytest.mark.usefixtures("converted")
def test_without_the_sequence_every_row_is_fitted_as_it_always_was(folder: Path, models: ModelSet) -> None:
    """Bit by bit what a fitter gives that knows of no frames."""
    fitter = Fitter(models, load_pipeline(PIPELINES / "hmr-skel.yaml").fit)
    people = list(published(folder.parent / "alone"))
    for gender in ("male", "neutral"):
        label = unpack(np.array([label for meta, label in people if meta["smpl_gender"] == gender]))
        pose, betas, transl = (
            torch.tensor(label[name]) for name in ("smpl_pose", "smpl_betas", "smpl_trans")
        )
        found = fitter.fit(gender, pose, betas, transl)
        np.testing.assert_array_equal(label["skel_betas"], found.betas.numpy())
        np.testing.assert_array_equal(label["skel_trans"], found.trans.numpy())
        np.testing.assert_array_equal(label["errors"][:, 0], found.pve_mm.numpy())
        np.testing.assert_allclose(
            canonical_angles(label["skel_poses"]), canonical_angles(found.poses.numpy()), atol=1e-6
        )


@pytest.mark.usefixtures("converted")
def test_every_worker_count_and_shard_size_gives_the_same_people(folder: Path) -> None:
    """No worker, or two with a thread each; sequences in one shard or each in its own, fitted together or not."""
    out = folder.parent / "out"
    assert convert(folder, "--fit-batch", 100, out="out1").exit_code == 0
    assert convert(folder, "--workers", 2, out="out2").exit_code == 0
    one = hashes(out)
    assert len(one) >= 10 and one == hashes(Path("out1")) == hashes(Path("out2"))
    assert convert(folder, "--shard-size", 100, out="whole").exit_code == 0
    assert len(list(Path("whole").glob("*.tar"))) == 1 < len(list(out.glob("*.tar")))
    for (meta, label), (other_meta, other) in zip(published(out), published("whole"), strict=True):
        assert meta == other_meta
        np.testing.assert_array_equal(label, other)


@pytest.mark.usefixtures("converted")
def test_a_run_that_was_cut_short_goes_on_with_the_same_bytes(folder: Path) -> None:
    before = hashes(folder.parent / "out")
    shutil.copytree(folder.parent / "out", "cut")
    tars = sorted(Path("cut").glob("*.tar"))
    tars[1].with_name(tars[1].stem + ".done.json").unlink()
    tars[2].unlink()
    result = convert(folder, out="cut")
    assert result.exit_code == 0 and f"{len(tars) - 2} shards are finished already" in result.output
    assert hashes(Path("cut")) == before


def test_independent_frames_without_a_use_are_refused(folder: Path) -> None:
    write_labels(Path("people.npz"))
    result = convert(Path("people.npz"), "--independent-frames")
    assert result.exit_code == 2
    expected = "expected sequences, for --independent-frames, found none in these camerahmr labels; drop "
    assert f"{expected}--independent-frames" in result.stderr
    result = convert(folder, "--independent-frames", "--pipeline", PIPELINES / "first-order.yaml")
    assert result.exit_code == 2
    assert (
        "'fit.temporal': expected a pipeline that fits frames of a sequence as one problem" in result.stderr
    )
    assert "found each fitted by itself (first_order); drop --independent-frames" in result.stderr


def test_the_baseline_takes_no_frames(folder: Path, models: ModelSet) -> None:
    """It has no term between frames: a job gives it none, and says so."""
    text = (PIPELINES / "first-order.yaml").read_text().replace("steps: 200", "steps: 1")
    Path("short.yaml").write_text(text)
    result = convert(folder / "a" / "dance.npz", "--pipeline", "short.yaml", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "dance.npz: 1 sequence; frames are fitted each by itself" in result.output
    assert {row["fitted_rate"] for row in sidecar("out")} == {None}
