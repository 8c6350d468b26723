"""`skelfit predict` of videos and of folders of frames."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import Result
from made_videos import damage_frame, write_video
from PIL import Image
from prediction_runs import parameters_of, rows_of, run_predict

from skelfit.bodies.model_set import ModelSet
from skelfit.exports.exported_bodies import ExportedBodies
from skelfit.exports.opensim_files.motion import make_motion
from skelfit.exports.opensim_files.motion_texts import mot_text
from skelfit.learning.inference.given_images import find_images
from skelfit.learning.inference.intrinsics import of_view
from skelfit.learning.inference.person_boxes import whole_photo
from skelfit.learning.inference.photos import PhotoSettings, predict_photos
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.inference.step_times import StepTimes
from skelfit.shards.finished_run import Person

TIMES = (0.0, 0.04, 0.08, 0.2, 0.25, 0.5, 0.54)  # at no constant rate
DAMAGED, FAILED = 3, 5  # frames
DETECTOR = """
import numpy as np

def find(photo):
    assert photo.mode == "RGB"
    shade = int(np.asarray(photo)[2, -2, 0])
    if abs(shade - {shade}) < 6:
        raise RuntimeError("no idea")
    boxes = [[4, 4, 90, 90, 0.9], [100, 4, 80, 90]]
    return boxes if shade % 2 else np.array([box[:4] for box in boxes[::-1]])

def fails(photo):
    return 7

def ends(photo):
    raise SystemExit("no weights")
"""


def shade(number: int) -> int:
    return 30 + 20 * number


@pytest.fixture(scope="module")
def frames(photos: Path) -> list[np.ndarray]:
    """Of 192 x 96 px: two people, and a gray that tells the number of the frame."""
    person = np.asarray(Image.open(photos / "000000000000.jpg").convert("RGB").resize((80, 80)))
    made = []
    for number in range(len(TIMES)):
        frame = np.full((96, 192, 3), shade(number), np.uint8)
        frame[8:88, 10:90] = person
        frame[8:88, 100 - number : 180 - number] = person[:, ::-1]
        made.append(frame)
    return made


@pytest.fixture(scope="module")
def done(
    trained: Path, frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Result]]:
    """A prediction of a video with a damaged frame, and one at which the detector fails."""
    folder = tmp_path_factory.mktemp("videos")
    damage_frame(write_video(folder / "clip.mp4", frames, TIMES), DAMAGED)
    (folder / "broken.mov").write_text("no video")
    (folder / "my_detector.py").write_text(DETECTOR.format(shade=shade(FAILED)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        options = ("--detector", "my_detector:find", "--layers", "--intrinsics", "200,200,96,48")
        result = run_predict(trained, "broken.mov", "clip.mp4", "--out", "out", *options)
        yield folder / "out", result


def test_every_frame_has_rows(done: tuple[Path, Result]) -> None:
    out, result = done
    assert result.exit_code == 0, result.output
    rows = rows_of(out)
    assert [(row["photo"], row["status"]) for row in rows[:1]] == [("broken.mov", "video_unreadable")]
    frames: dict[int, list[str]] = {}
    for row in rows[1:]:
        assert row["photo"] == f"clip.mp4/{row['frame']:06d}" and row["sequence"] == "clip"
        frames.setdefault(row["frame"], []).append(row["status"])
    alone = {DAMAGED: ["frame_damaged"], FAILED: ["detector_failed"]}
    assert frames == {number: alone.get(number, ["ok", "ok"]) for number in range(len(TIMES))}
    assert "RuntimeError('no idea')" in next(r["reason"] for r in rows if r["frame"] == FAILED)
    assert "8 photos in, 10 people out" in result.output and "seconds per image: decode 0." in result.output
    record = json.loads((out / "predict.json").read_text())
    assert set(record["seconds_per_image"]) == {
        *("decode", "camera", "detect", "network", "draw", "write", "total")
    }
    assert record["seconds_per_image"]["network"] > 0 < record["seconds_per_image"]["draw"]
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {*record["files"], "predict.json"}
    assert not (out / "meshes").exists()


def test_people_of_a_video(done: tuple[Path, Result]) -> None:
    people, rows = parameters_of(done[0]), [row for row in rows_of(done[0]) if row["status"] == "ok"]
    for name in ("photo", "sequence", "frame", "person", "track"):
        assert people[name].tolist() == [row[name] for row in rows], name
    np.testing.assert_allclose(people["time"], [TIMES[i] for i in people["frame"]], atol=2e-3)
    # The detector gives people in changing order: a track is at one place.
    left = people["box"][:, 0] < 50
    assert set(people["person"][left]) == {0, 1} and len(set(people["track"][left])) == 1
    assert set(people["track"]) == {0, 1}


def test_angles_are_those_of_the_export(done: tuple[Path, Result], models: ModelSet) -> None:
    people = parameters_of(done[0])
    for track in (0, 1):
        rows = np.flatnonzero(people["track"] == track).tolist()
        meta = {"coordinates": "camera", "sequence": "clip", "frame_rate": 1.0, "skel_gender": "male"}
        same = [Person("", "", fields_of(people, i), meta | {"frame": 0}) for i in rows]
        expected = make_motion(f"clip-{track}", same, ExportedBodies(models), 1.0)
        expected = replace(expected, times=people["time"][rows])
        found, wanted = (
            np.array([line.split("\t") for line in text.split("endheader\n")[1].splitlines()[1:]], float)
            for text in ((done[0] / f"angles/clip-{track}.mot").read_text(), mot_text(expected))
        )
        np.testing.assert_allclose(found, wanted, atol=2e-3)
        head = (done[0] / f"angles/clip-{track}.trc").read_text().splitlines()
        assert head[2].split("\t")[2] == str(len(rows)) and len(head) == 6 + len(rows)
        markers = np.array([line.split("\t")[2:] for line in head[6:]], float).reshape(len(rows), -1, 3)
        names = head[3].split("\t")[2::3]
        assert names == list(expected.marker_names[: len(names)])  # without points on axes
        np.testing.assert_allclose(markers, expected.markers[:, : len(names)], atol=1e-4)
        with Image.open(done[0] / f"angles/clip-{track}.png") as plot:
            assert plot.width > 600


def fields_of(people: dict[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
    return {name: people[name][row] for name in ("skel_poses", "skel_betas", "skel_trans")}


def test_pictures_of_a_video(done: tuple[Path, Result], frames: list[np.ndarray]) -> None:
    """Skin and bones beside each other, each frame at its time; the layers from coarse to fine."""
    with av.open(str(done[0] / "overlays/clip.mp4")) as container:
        shown = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    readable = [i for i in range(len(TIMES)) if i != DAMAGED]
    np.testing.assert_allclose([time for time, _ in shown], [TIMES[i] for i in readable], atol=2e-3)
    for (_, picture), number in zip(shown, readable, strict=True):
        assert picture.shape == (96, 384, 3)
        for panel in np.split(picture.astype(int), 2, axis=1):
            assert (np.abs(panel - shade(number)).max(-1) < 8).mean() > 0.02  # the gray is that of its frame
            changed = np.abs(panel - frames[number]).max(-1) > 40
            assert changed.mean() > 0.015 if number != FAILED else changed.mean() < 0.01, changed.mean()
    with Image.open(done[0] / "layers/clip-000000.jpg") as picture:
        assert picture.size == (4 * 192, 16 + 96)  # the photo, the first estimate, and two layers
        lines = np.split(np.asarray(picture.convert("L"), int)[:16], 4, axis=1)
    for i, line in enumerate(lines):
        assert (line < 80).sum() > 20 and (line > 200).mean() > 0.7, "text on white"
        assert all((np.abs(line - other) > 80).sum() > 5 for other in lines[:i]), "each panel has its name"
    assert len(list((done[0] / "layers").iterdir())) == 5


def test_a_folder_of_frames_is_a_video(trained: Path, frames: list[np.ndarray], tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    for i, frame in enumerate(frames[:4]):
        Image.fromarray(frame).save(folder / f"shot{8 + i}.png")  # 8, 9, 10, 11
    plain = ("--overlays", "none", "--out")
    result = run_predict(trained, folder, "--frame-rate", 50, "--every", 2, *plain, tmp_path / "out")
    assert result.exit_code == 0, result.output
    people = parameters_of(tmp_path / "out")
    assert [Path(photo).name for photo in people["photo"]] == ["shot8.png", "shot10.png"]
    assert people["sequence"].tolist() == ["walk"] * 2 and people["frame"].tolist() == [0, 2]
    np.testing.assert_allclose(people["time"], [0, 0.04])
    assert sorted(path.name for path in (tmp_path / "out/angles").iterdir()) == [
        *("walk-0.mot", "walk-0.png", "walk-0.trc")
    ]
    result = run_predict(
        trained, folder, "--limit", 1, "--no-angles", "--meshes", "none", *plain, tmp_path / "one"
    )
    people = parameters_of(tmp_path / "one")
    assert people["sequence"].tolist() == [""] and people["track"].tolist() == [-1]
    assert not (tmp_path / "one/angles").exists()


def test_a_sequence_has_one_camera(frames: list[np.ndarray], predictor: Predictor, tmp_path: Path) -> None:
    """That of its first frame that can be read; frames that are read at the same time do not compete."""
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"no image")
    seen = []

    def find(photo: Image.Image) -> object:
        seen.append(np.asarray(photo)[2, -2, 0])
        return of_view(30 + 10 * len(seen))(photo)

    given = find_images([tmp_path], frame_rate=10)
    settings = PhotoSettings(whole_photo, find)  # type: ignore[arg-type]
    results = list(predict_photos(given.images(StepTimes()), settings, predictor, 4))
    cameras = {box.camera for result in results for box in result.boxes if box.status == "ok"}
    assert seen == [shade(1)] and len(cameras) == 1 and results[0].boxes[0].status == "image_damaged"


def test_a_long_video_is_read_as_it_is_needed(predictor: Predictor, tmp_path: Path) -> None:
    frames = [np.full((32, 32, 3), 90, np.uint8)] * 60
    video = write_video(tmp_path / "long.mp4", frames, [i / 30 for i in range(60)])
    read = used = most = 0

    def watched() -> Iterator[object]:
        nonlocal read
        for each in find_images([video]).images(StepTimes()):
            read += 1
            yield each

    settings = PhotoSettings(whole_photo, of_view(60))
    for _ in predict_photos(watched(), settings, predictor, 8):  # type: ignore[arg-type]
        used += 1
        most = max(most, read - used)
    assert used == 60 and most < 30


@pytest.mark.parametrize(
    ("name", "reason"),
    [("fails", "'int' object is not iterable"), ("ends", "SystemExit('no weights')")],
)
def test_a_detector_that_fails(
    trained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "bad_detector.py").write_text(DETECTOR.format(shade=0))
    result = run_predict(
        trained, photos, "--limit", 1, "--detector", f"bad_detector:{name}", "--out", tmp_path / "out"
    )
    assert result.exit_code == 1, result.output
    (row,) = rows_of(tmp_path / "out")
    assert row["status"] == "detector_failed" and reason in row["reason"]
