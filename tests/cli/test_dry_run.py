"""`skelfit convert --dry-run`: says what a run would do, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from job_fakes import NO_IMAGE_ROW, FakeFitter, picture, write_images, write_labels

import skelfit
import skelfit.api.convert_dataset
from skelfit.api.conversion_result import ConversionPlan
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.errors import ArgumentError

MANIFEST = """
name: some
labels: [{path: some/a.npz, source: camerahmr}]
images: some/images
origins: [{of: labels, name: The Project, get: a.npz}]
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: ModelSet) -> Iterator[None]:
    """A working folder without data, and one for temporary files; no label store is left there."""
    folder, temporary = tmp_path / "work", tmp_path / "temporary"
    for path in (folder, temporary):
        path.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.delenv("SKELFIT_DATA", raising=False)
    monkeypatch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: FakeFitter(stages=3))
    monkeypatch.setattr(skelfit.api.convert_dataset, "find_models", lambda _: models)
    yield
    assert list(temporary.glob("skelfit-dry-run-*")) == []


def convert(*words: object) -> Result:
    result = CliRunner().invoke(main, ["convert", "--workers", "0", "--device", "cpu", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def dry_run(*words: object) -> Result:
    """A dry run, which leaves the working folder as it was."""
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    result = convert(*words, "--dry-run")
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    return result


def plan_of(**options: object) -> ConversionPlan:
    (subset,) = skelfit.convert("out", dry_run=True, device="cpu", workers=0, **options).subsets  # type: ignore[arg-type]
    assert subset.plan is not None and subset.summary is None
    return subset.plan


def write_all_images(folder: Path, people: int = 20, side: int = 16) -> Path:
    """An image file for each row."""
    write_images(folder, people, side)
    (folder / f"train/{NO_IMAGE_ROW:06d}.jpg").write_bytes(picture(NO_IMAGE_ROW, side))
    return folder


def test_before_and_after_a_run() -> None:
    words = ["--labels", write_labels(Path("people.npz"), 300), "--shard-size", 120, "--out", "out"]
    words += ["--images", write_all_images(Path("images"), 300, side=96)]
    before = dry_run(*words)
    assert before.exit_code == 0 and "300 rows in 3 shards, to out" in before.stdout
    assert "finished already" not in before.stdout and "missing: nothing" in before.stdout
    assert re.search(r"time +\? +not known: measure it with `skelfit bench`", before.stdout)
    timed = dry_run(*words, "--people-per-second", 1).stdout
    assert re.search(r"time +5 min +at 1 x 1.0 people/s \(--people-per-second\)\n +bound by +fit\n", timed)
    assert convert(*words).exit_code == 0
    plan = plan_of(labels="people.npz", images="images", shard_size=120)
    assert (plan.rows_done, plan.shards_done, plan.fit_batches, plan.hours_left) == (300, 3, 0, 0.0)
    assert plan.last_people_per_second and plan.people_per_second is None
    Path("out/people-000001.done.json").unlink()
    after = dry_run(*words)
    assert "2 shards with 180 rows are finished already" in after.stdout
    assert re.search(r"time +\d+ s +at \d+\.\d people/s \(the last run in this folder", after.stdout)
    other = dry_run(*words, "--skel-gender", "female")
    assert other.exit_code == 2 and "finished shards of another configuration" in other.stderr
    assert "finished already" not in dry_run(*words, "--skel-gender", "female", "--overwrite").stdout


@pytest.mark.parametrize(
    ("images", "batches"),
    [
        ({}, 3),
        ({"images": "images", "fit_batch": 256}, 2),
        ({"images": "images", "image_mode": "crop", "fit_batch": 300}, 1),
    ],
)
def test_the_plan_is_what_a_run_then_does(
    images: dict[str, object], batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labels(Path("people.npz"), 300)
    write_all_images(Path("images"), 300, side=96)
    options = {"labels": "people.npz", "shard_size": 120, **images}
    plan, fitter = plan_of(**options), FakeFitter(stages=3)
    monkeypatch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: fitter)
    summary = skelfit.convert("out", device="cpu", workers=0, **options).summary  # type: ignore[arg-type]
    assert (plan.rows, plan.shards, plan.fit_batches) == (300, 3, batches)
    assert (summary["rows_in"], summary["shards"], fitter.calls) == (300, 3, batches)
    shards = [path for end in ("tar", "jsonl", "done.json") for path in Path("out").glob(f"*.{end}")]
    stores = [path for path in Path("out/.stores").rglob("*") if path.is_file()]
    for planned, paths in ((plan.label_bytes + plan.image_bytes, shards), (plan.store_bytes, stores)):
        assert planned == pytest.approx(sum(path.stat().st_size for path in paths), rel=0.05)
    assert plan.label_file_bytes == Path("people.npz").stat().st_size
    sources = sum(path.stat().st_size for path in Path("images").rglob("*.jpg")) if images else 0
    assert plan.source_image_bytes == pytest.approx(sources, rel=0.05)
    assert (plan.costs.core_hours["images"] > 0) == bool(images)


def test_what_is_missing_ends_with_2() -> None:
    Path("some.yaml").write_text(MANIFEST)
    words = ["--manifest", "some.yaml", "--out", "out"]
    nothing = dry_run(*words)
    assert nothing.exit_code == 2
    assert "missing: data/some/a.npz: expected the label file of the subset some" in nothing.stdout
    Path("data/some").mkdir(parents=True)
    write_labels(Path("data/some/a.npz"))
    labels_only = dry_run(*words)  # nor does it record the file's sha256
    assert labels_only.exit_code == 2 and "missing: the images data/some/images" in labels_only.stdout
    short = "some: 20 rows in 1 shard; missing: the images data/some/images\n"
    assert dry_run(*words, "-q").stdout == short
    Path("data/some/images").mkdir()
    others = dry_run(*words)
    assert others.exit_code == 2 and "none of the 20 looked at is there" in others.stdout
    write_all_images(Path("data/some/images"))
    assert dry_run(*words).exit_code == 0
    for image in sorted(Path("data/some/images/train").iterdir())[:3]:
        image.unlink()
    some = dry_run(*words)
    assert some.exit_code == 2 and "missing: nothing" not in some.stdout
    assert "missing: images: 3 of the 20 looked at are not there" in some.stdout
    gone = dry_run("--labels", "gone.npz", "--out", "out")
    assert gone.exit_code == 2 and gone.stderr.startswith("Error: gone.npz: expected a label file")


def test_a_folder_of_manifests_ends_with_a_table() -> None:
    Path("all").mkdir()
    Path("all/some.yaml").write_text(MANIFEST)
    sha256 = "0" * 64
    Path("all/changed.yaml").write_text(f"name: changed\nlabels: [{{path: two.npz, sha256: '{sha256}'}}]\n")
    Path("all/damaged.yaml").write_text("name: damaged\nlabels: [{path: damaged.npz}]\n")
    Path("all/two.yaml").write_text("name: two\nlabels: [{path: two.npz, source: camerahmr}]\n")
    Path("data").mkdir()
    write_labels(Path("data/two.npz"))
    Path("data/damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    result = dry_run("--manifest", "./all", "--out", "out", "--people-per-second", 1)
    assert result.exit_code == 2
    assert "Error: data/two.npz" in result.stderr and "Error: data/damaged.npz" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()[-5:]]
    assert rows[0][0] == "subset" and rows[3] == ["some", *"-----", "label", "files"]
    assert [row[0] for row in rows[1:3]] == ["changed", "damaged"] and rows[1][6] == rows[2][6] == "cannot"
    rows = rows[2:]
    assert rows[2][:4] == ["two", "20", "1", "0"] and rows[2][5:] == ["0.0056", "nothing"]


def test_a_demo_is_not_made() -> None:
    result = dry_run("--manifest", "demo", "--out", "out", "--limit", 1500)
    assert result.exit_code == 0 and "2000 people are not made yet" in result.stdout
    assert "1500 rows in 2 shards" in result.stdout


def test_from_python() -> None:
    write_labels(Path("people.npz"))
    plan = plan_of(labels="people.npz", limit=15, people_per_second=3.0)
    assert [(file.rows, file.layout) for file in plan.files] == [(15, "camerahmr")]
    assert plan.hours_left and 5 / 3600 <= plan.hours_left < 8 / 3600 and plan.missing == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.rows = 1  # type: ignore[misc]
    for options in ({"people_per_second": 3.0}, {"people_per_second": -1.0, "dry_run": True}):
        with pytest.raises(ArgumentError, match="people_per_second: expected"):
            skelfit.convert("out", labels="people.npz", **options)  # type: ignore[arg-type]


def test_a_quiet_run_says_one_line_and_logs_the_rest() -> None:
    words = ["--labels", write_labels(Path("people.npz")), "--out", "out"]
    result = convert(*words, "--quiet", "--log-file", "all.log")
    assert result.exit_code == 0
    assert result.stdout == "people: 20 rows in, 18 people out, 2 rejected, in out\n" and result.stderr == ""
    log = Path("all.log").read_text()
    for line in ("people.npz: 20 rows of camerahmr labels", "bad_input", "next: skelfit verify out"):
        assert line in log
    words += ["--images", write_images(Path("images")), "--overwrite", "-q"]
    lossy = "people: 20 rows in, 18 people out, 2 rejected, 1 without an image, in out\n"
    assert convert(*words).stdout == lossy
    verdict = CliRunner().invoke(main, ["-q", "verify", "out", "--sample", "0"])
    assert verdict.stdout == "verdict: good\n" and verdict.stderr == ""
