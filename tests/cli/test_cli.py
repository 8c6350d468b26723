"""The command line: its contract, its one-line errors and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from job_fakes import FakeFitter, hashes, write_images, write_labels
from PIL import Image

import skelfit.api.convert_dataset
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import COMMANDS, main
from skelfit.fitting.backends import backend
from skelfit.fitting.fit_result import FitResult
from skelfit.labels.demo_people import write_demo
from skelfit.shards.shard_reader import read_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder without a checkout, models or data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    monkeypatch.delenv("SKELFIT_DATA", raising=False)


@pytest.fixture
def fake_fitter(monkeypatch: pytest.MonkeyPatch, models: ModelSet) -> FakeFitter:
    """Commands that find the open body at once and fit with a fake."""
    fitter = FakeFitter(stages=3)
    monkeypatch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: fitter)
    monkeypatch.setattr(skelfit.api.convert_dataset, "find_models", lambda _: models)
    return fitter


def skelfit_(*args: object) -> Result:
    """Run a command; convert stays in this process unless a test says otherwise."""
    if args[0] == "convert" and "--workers" not in args:
        args = (*args, "--workers", 0)
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    # Only an error that the user can fix, or an exit, may end a command.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def error_line(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    return lines[0]


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_waits_for_no_heavy_module(word: str) -> None:
    """Whatever is imported beyond what a bare import of click needs, torch and Warp are not among it."""
    code = (
        "import sys; from skelfit.cli import main; main(standalone_mode=False); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'warp', 'numpy', 'scipy', 'dask'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, word], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_commands_do_without_the_compiler_of_torch() -> None:
    """roma brings it along: more than a second, which a command without a fit need not take."""
    code = "import sys, skelfit.cli.convert; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_program_from_nothing_ends_with_its_code() -> None:
    """Nothing of it is faked or forked: what a shell sees of `python -m skelfit`, here and after Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "skelfit",
        "convert",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--out",
        "out",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--labels", "none.npz", "--source", "camerahmr"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "Error: none.npz: expected a label file, found no such file\n"
    write_labels(Path("people.npz"), 2000)
    with subprocess.Popen(
        [*command, "--labels", "people.npz", "--source", "camerahmr", "--shard-size", "5"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # A suite that runs in the background of a shell hands on that Ctrl-C is to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 200
        while not list(Path("out").glob("*.done.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; the same command goes on from the finished shards"


def test_help_lists_every_command() -> None:
    listed = skelfit_("--help").stdout
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None and command.name == name and f"  {name} " in listed
    parts = {module for module, _ in (path.split(":") for path, _ in COMMANDS.values())}
    cli = ROOT / "skelfit" / "cli"
    assert parts == {path.stem for path in cli.glob("*.py") if "@click.command(" in path.read_text()} | {
        "models"
    }


def test_convert_writes_what_it_promises(fake_fitter: FakeFitter) -> None:
    labels, images = write_labels(Path("coco.v2-release.npz")), write_images(Path("images"))
    arguments = ["convert", "--labels", labels, "--source", "camerahmr", "--out", "out"]
    arguments += ["--images", images, "--shard-size", 8, "--device", "cpu"]
    result = skelfit_(*arguments)
    assert result.exit_code == 0, result.output
    assert "open body" in result.stdout and "20 rows in, 18 people out" in result.stdout
    for command in ("verify out", "card out", "export out --format skel-cf --out coco-v2-release-skel.npz"):
        assert f"next: skelfit {command}\n" in result.stdout
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["rows_in"] == sum(summary["statuses"].values()) == 20
    assert set(summary["pve_mm"]) == {"mean", "p50", "p95", "max"}
    names = {p.name for p in Path("out").iterdir()}
    shards = [f"coco-v2-release-{i:06d}" for i in range(3)]
    expected = {f"{name}.{end}" for name in shards for end in ("tar", "rows.jsonl", "done.json")}
    assert names == expected | {"schema.json", "summary.json", ".stores", ".run.lock", ".run.json"}

    assert "3 shards are finished already" in skelfit_(*arguments).stdout
    assert fake_fitter.calls == 3
    refused = error_line(skelfit_(*arguments, "--skel-gender", "female"))
    assert "pipeline.fit.skel_gender" in refused and "male" in refused
    assert skelfit_(*arguments, "--skel-gender", "female", "--overwrite").exit_code == 0

    result = skelfit_("export", "out", "--format", "skel-cf", "--out", "out.npz")
    assert result.exit_code == 0 and "18 people in out.npz" in result.stdout
    assert "exists already" in error_line(
        skelfit_("export", "out", "--format", "skel-cf", "--out", "out.npz")
    )


def tar_of(path: Path, folder: Path) -> Path:
    """The files below a folder in a tar."""
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*.jpg")):
            tar.add(file, file.relative_to(folder))
    return path


def test_images_from_tars(fake_fitter: FakeFitter) -> None:
    labels, images = write_labels(Path("people.npz")), write_images(Path("images"))
    arguments = ["convert", "--labels", labels, "--source", "camerahmr", "--shard-size", 8]
    assert skelfit_(*arguments, "--images", images, "--out", "from-folder").exit_code == 0
    tar = tar_of(Path("000000.tar"), images)
    result = skelfit_(*arguments, "--images", "{000000..000002}.tar", "--out", "from-tars")
    assert result.exit_code == 0, result.output
    assert "000001.tar and 1 more: their images will be missing" in result.stdout
    assert "images: 19 in 1 tar; tars read again: 1" in result.stdout
    assert hashes(Path("from-tars")) == hashes(Path("from-folder"))
    result = skelfit_(*arguments, "--images", "*.tar", "--out", "from-tars")
    assert "tars read again: 0" in result.stdout and "3 shards are finished already" in result.stdout
    # Cut short: one line, and the rows say so.
    tar.write_bytes(tar.read_bytes()[:9000])
    result = skelfit_(*arguments, "--images", tar, "--out", "from-cut")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("000000.tar: expected a whole tar, not compressed, found") == 1
    images_of_rows = json.loads(Path("from-cut/summary.json").read_text())["images"]
    assert images_of_rows["found"] == 3 and images_of_rows["missing"] > 9
    tar.write_bytes(b"404 not found")
    said = error_line(skelfit_(*arguments, "--images", tar, "--out", "from-nothing"))
    assert "000000.tar: expected a tar of images, found" in said


def test_what_of_the_images_is_wanted(fake_fitter: FakeFitter) -> None:
    labels, images = write_labels(Path("people.npz")), write_images(Path("images"), side=256)
    arguments = ["convert", "--labels", labels, "--source", "camerahmr", "--images", images, "--out", "out"]
    result = skelfit_(*arguments, "--image-mode", "crop", "--crop-size", 96, "--crop-margin", 1)
    assert result.exit_code == 0, result.output
    chosen = json.loads(Path("out/summary.json").read_text())["identity"]["pipeline"]["images"]
    assert chosen == {"mode": "crop", "size": 96, "margin": 1.0, "quality": 90}
    with tarfile.open("out/people-000000.tar") as tar:
        stream = tar.extractfile("people-0-00000000.jpg")
        assert stream is not None and Image.open(stream).size == (96, 96)
    refused = error_line(skelfit_(*arguments))
    assert (
        'pipeline.images.mode: "crop" against "bytes"' in refused and "images.size: 96 against 384" in refused
    )
    result = skelfit_(*arguments, "--image-mode", "none", "--overwrite")
    assert result.exit_code == 0, result.output
    with tarfile.open("out/people-000000.tar") as tar:
        assert {name.split(".", 1)[1] for name in tar.getnames()} == {"label.npy", "meta.json"}
    assert skelfit_(*arguments, "--crop-size", 8).exit_code == 2


def test_every_export_says_where_it_is_and_what_to_do_next(fake_fitter: FakeFitter) -> None:
    labels, images = write_labels(Path("people.npz"), 12), write_images(Path("images"), 12)
    skelfit_("convert", "--labels", labels, "--images", images, "--out", "out", "--device", "cpu")
    for form, out, said in (
        ("hsmr", "tars", "next: name the tars"),
        ("opensim", "motions", "next: plot a .mot"),
        ("ply", "meshes", "skin and bones of 10 people in meshes"),
        ("obj", "others", "next: open a skin"),
        ("bvh", "skeletons", "next: open people-0-00000000.bvh in Blender"),
    ):
        result = skelfit_("export", "out", "--format", form, "--out", out)
        assert result.exit_code == 0 and said in result.stdout, result.output
        assert "holds files already" in error_line(skelfit_("export", "out", "--format", form, "--out", out))
    result = skelfit_("export", "out", "--format", "skel-cf", "--out", "x.npz", "--limit", 2)
    assert (
        result.exit_code == 2
        and "--limit: expected none, except for the formats opensim, glb, bvh, obj and ply" in result.stderr
    )
    said = skelfit_("card", "out").stdout
    assert "card of 10 people in out/README.md" in said and "next: publish the shards with README.md" in said
    assert "next: skelfit verify out" in skelfit_("status", "out").stdout


def test_limit_takes_the_first_rows(fake_fitter: FakeFitter) -> None:
    labels = write_labels(Path("people.npz"))
    result = skelfit_("convert", "--labels", labels, "--source", "camerahmr", "--out", "out", "--limit", 3)
    assert "3 rows in, 3 people out" in result.stdout


def test_a_manifest_with_two_files_limits_and_checks_both(fake_fitter: FakeFitter, tmp_path: Path) -> None:
    Path("data").mkdir()
    write_labels(Path("data/one.npz"), 10)
    write_labels(Path("data/two.npz"), 20)
    files = "[{path: one.npz, source: camerahmr}, {path: two.npz, source: camerahmr, expected_rows: 20}]"
    Path("both.yaml").write_text(f"name: both\nimages: pictures\nlabels: {files}\n")
    result = skelfit_("convert", "--manifest", "both.yaml", "--out", "out", "--limit", 15, "--shard-size", 8)
    assert result.exit_code == 0, result.output
    assert "15 rows in" in result.stdout
    assert "no images data/pictures: the shards will hold labels without images" in result.stdout
    lines = Path("out/both-000002.rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [f"both-1-{i:08d}" for i in range(5)]
    assert "sha256 of data/two.npz recorded in two.npz.sha256" in result.stdout
    write_labels(Path("data/two.npz"), 19)
    assert "remove data/two.npz.sha256" in error_line(
        skelfit_("convert", "--manifest", "both.yaml", "--out", "out2")
    )
    Path("data/two.npz.sha256").unlink()
    said = error_line(skelfit_("convert", "--manifest", "both.yaml", "--out", "out2"))
    assert "two.npz" in said and "20 rows" in said and "19 rows" in said


MISSING = """
name: gone
labels: [{path: gone/a.npz, source: camerahmr}, {path: gone/b.npz, source: camerahmr}]
images: gone/images
origins:
  - {of: labels, name: The Project, url: https://project.example, get: "a.npz and b.npz"}
  - {of: images, name: Other, get: images.zip}
"""


def test_missing_files_are_one_message_that_says_what_to_do(fake_fitter: FakeFitter) -> None:
    Path("gone.yaml").write_text(MISSING)
    Path("data/gone").mkdir(parents=True)
    assert error_line(skelfit_("convert", "--manifest", "gone.yaml", "--out", "out")) == (
        "Error: data/gone/a.npz and data/gone/b.npz: expected label files of the subset gone, found no such files. "
        "They come from The Project (https://project.example): a.npz and b.npz. "
        "Put them there (the folder for data is ./data, or $SKELFIT_DATA). "
        "The images, data/gone/images, come from Other: images.zip"
    )
    write_labels(Path("data/gone/a.npz"))
    line = error_line(skelfit_("convert", "--manifest", "gone.yaml", "--out", "out"))
    assert (
        "Error: data/gone/b.npz: expected the label file of the subset gone, found no such file. It" in line
    )
    write_labels(Path("data/gone/b.npz"))
    result = skelfit_("convert", "--manifest", "gone.yaml", "--out", "out")
    assert result.exit_code == 0, result.output
    assert (
        "no images data/gone/images: the shards will hold labels without images\n  to have them"
        in result.stdout
    )
    assert "they come from Other: images.zip" in result.stdout
    summary = json.loads(Path("out/summary.json").read_text())
    assert [origin["name"] for origin in summary["origins"]] == ["The Project", "Other"]


def test_a_path_rule_that_finds_nothing_is_noticed(fake_fitter: FakeFitter) -> None:
    """And with the prefix that the message names, everything is found."""
    Path("data/x").mkdir(parents=True)
    write_labels(Path("data/x/x.npz"))
    write_images(Path("data/x/unpacked"))
    with tarfile.open("data/x/0.tar", "w") as tar:
        tar.add("data/x/unpacked/train", "images/train")
    rule = "{path: x/x.npz, path_rule: basename}"
    Path("x.yaml").write_text(f"name: x\nimages: x/*.tar\nlabels: [{rule}]\n")
    arguments = ["convert", "--manifest", "x.yaml", "--out", "out"]
    said = skelfit_(*arguments).stdout
    assert "x.npz: none of the images of its first 20 rows is there" in said
    assert "'train/000000.jpg' is looked for as '000000.jpg' (path_rule: basename)" in said
    assert "the images have 'images/train/000000.jpg': path_rule or path_prefix" in said
    said = skelfit_(*arguments, "--images", "data/x/unpacked", "--overwrite").stdout
    assert "none of the images" in said and "the images have" not in said
    Path("x.yaml").write_text(
        f"name: x\nimages: x/*.tar\nlabels: [{rule.replace('}', ', path_prefix: images/train/}')}]\n"
    )
    assert "labels[0].path_prefix" in error_line(skelfit_(*arguments))
    said = skelfit_(*arguments, "--overwrite").stdout
    assert "none of the images" not in said
    assert json.loads(Path("out/summary.json").read_text())["images"]["found"] == 17


def test_a_folder_of_manifests(fake_fitter: FakeFitter) -> None:
    """Each subset that has its files is converted; the others are named, and do not stop the others."""
    Path("all").mkdir()
    Path("all/gone.yaml").write_text(MISSING)
    demo = "name: demo\nlabels: [{path: demo/x.npz, source: camerahmr}]\ndemo: {people: 3}\n"
    Path("all/demo.yaml").write_text(demo)
    arguments = ["convert", "--manifest", "./all", "--out", "out"]
    result = skelfit_(*arguments)
    assert result.exit_code == 2 and "found no such files. They come from The Project" in result.stdout
    Path("data").mkdir()
    for name in ("one", "two"):
        write_labels(Path(f"data/{name}.npz"))
        Path(f"all/{name}.yaml").write_text(
            f"name: {name}\nlabels: [{{path: {name}.npz, source: camerahmr}}]\n"
        )
    result = skelfit_(*arguments)
    assert result.exit_code == 0, result.output
    table = [line.split() for line in result.stdout.split("result\n")[1].splitlines()[:3]]
    assert table[0] == ["gone", "-", "-", "-", "not", "there,", "see", "below"]
    assert [row[:3] + row[4:] for row in table[1:]] == [
        [name, "20", "18", f"out/{name}"] for name in ("one", "two")
    ]
    assert not Path("data/demo").exists()  # the demo is not asked for
    Path("data/one.npz").write_bytes(b"damaged")
    result = skelfit_(*arguments)
    assert result.exit_code == 1 and "Error: data/one.npz: expected" in result.stderr
    assert "failed, see above" in result.stdout and json.loads(Path("out/two/summary.json").read_text())
    Path("none").mkdir()
    assert "none: expected a folder of manifests (*.yaml), found none" in error_line(
        skelfit_("convert", "--manifest", "none", "--out", "out")
    )
    assert "--images: expected one manifest" in skelfit_(*arguments, "--images", "data").stderr


def test_one_of_a_folder_fails_or_is_interrupted(
    fake_fitter: FakeFitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure stops only its own subset, an interruption everything."""
    for folder in ("data", "all"):
        Path(folder).mkdir()
    for name in ("one", "two"):
        write_labels(Path(f"data/{name}.npz"))
        Path(f"all/{name}.yaml").write_text(f"name: {name}\nlabels: [{{path: {name}.npz}}]\n")
    fit = fake_fitter.fit
    fault: BaseException = RuntimeError("no such luck")

    def fit_or_fail(*people: Any) -> FitResult:
        if fake_fitter.calls == 0:
            fake_fitter.calls += 1
            raise fault
        return fit(*people)

    monkeypatch.setattr(fake_fitter, "fit", fit_or_fail)
    arguments = ["convert", "--manifest", "./all", "--out", "out"]
    result = skelfit_(*arguments)
    assert result.exit_code == 1 and "no such luck" in result.stderr
    assert "some shards failed, see above" in result.stdout and Path("out/two/summary.json").exists()
    assert not Path("out/one/summary.json").exists()
    fake_fitter.calls, fault = 0, KeyboardInterrupt()
    result = skelfit_(*arguments, "--overwrite")
    assert result.exit_code == 130 and "goes on from the finished shards" in result.stderr
    assert "== two" not in result.stdout
    assert skelfit_(*arguments).exit_code == 0


def test_filters_from_manifest_and_command_line(fake_fitter: FakeFitter) -> None:
    Path("data").mkdir()
    write_labels(Path("data/x.npz"))
    labels = "labels: [{path: x.npz, source: camerahmr}]\n"
    Path("x.yaml").write_text(f"name: x\n{labels}filters: {{vertex_error: 60}}\n")
    arguments = ["convert", "--manifest", "x.yaml", "--out", "out"]

    def filters(*options: str) -> dict[str, dict[str, float]]:
        result = skelfit_(*arguments, *options, "--overwrite")
        assert result.exit_code == 0, result.output
        return json.loads(Path("out/summary.json").read_text())["filters"]

    assert filters() == {"vertex_error": {"value": 60.0, "rows": 1}}
    assert filters("--no-filter", "vertex_error") == {}
    assert filters("--no-filter", "all", "--filter", "large_betas=0.9")["large_betas"]["value"] == 0.9
    assert set(filters("--filter", "4dhumans")) == {
        "low_confidence",
        "few_keypoints",
        "large_betas",
        "vertex_error",
    }
    refused = error_line(skelfit_(*arguments))
    assert "filters.few_keypoints: 4 against null" in refused
    for text in ("betas", "all=3", "large_betas=much", "large_betas=-1", "large_betas=nan", "large_betas="):
        result = skelfit_(*arguments, "--filter", text)
        assert result.exit_code == 2 and f"found {text!r}" in result.stderr.replace("\n", " "), text


def test_the_demo_is_made_once(fake_fitter: FakeFitter) -> None:
    fields = "labels: [{path: demo/demo-release.npz, source: camerahmr}]\nimages: demo/images\n"
    Path("demo.yaml").write_text(f"name: demo\n{fields}demo: {{people: 3}}\n")
    arguments = ["convert", "--manifest", "demo.yaml", "--out", "out"]
    result = skelfit_(*arguments)
    assert result.exit_code == 0, result.output
    assert "making 3 people in data/demo" in result.stdout and "3 rows in" in result.stdout
    assert json.loads(Path("out/summary.json").read_text())["images"]["missing"] == 0
    assert "making" not in skelfit_(*arguments).stdout
    Path("demo.yaml").write_text(f"name: demo\n{fields}demo: {{people: 4}}\n")
    assert "making 4 people" in skelfit_(*arguments, "--overwrite").stdout


def test_a_bad_label_file_is_one_line(fake_fitter: FakeFitter) -> None:
    with np.load(write_labels(Path("good.npz"))) as source:
        columns = dict(source)
    del columns["trans_cam"]
    np.savez("bad.npz", **columns)
    for name, said in (("bad.npz", "trans_cam"), ("missing.npz", "no such file")):
        line = error_line(skelfit_("convert", "--labels", name, "--source", "camerahmr", "--out", "out"))
        assert name in line and said in line and "expected" in line
    assert not list(Path("out").glob("[!.]*"))


def test_usage(tmp_path: Path) -> None:
    for arguments in (
        ["convert", "--out", "out"],
        ["convert", "--out", "out", "--manifest", "demo", "--labels", "a.npz", "--source", "camerahmr"],
    ):
        result = skelfit_(*arguments)
        assert result.exit_code == 2 and "--manifest: expected either a manifest, or labels" in result.stderr
    result = skelfit_("convert", "--out", "out", "--manifest", "demo", "--images", "none")
    assert result.exit_code == 2 and "no such folder or tar: none" in result.stderr
    assert skelfit_("--version").stdout.startswith("skelfit, version")
    line = error_line(skelfit_("convert", "--out", "out", "--manifest", "none.yaml"))
    assert "none.yaml: expected a manifest" in line and "found no such name or file" in line
    assert "no-such-folder" in error_line(
        skelfit_("convert", "--out", "o", "--manifest", "demo", "--models", "no-such-folder")
    )


def test_the_open_body_goes_out_and_comes_in(models: ModelSet) -> None:
    result = skelfit_("models", "open-body", "--out", "official", "--official")
    assert result.exit_code == 0, result.output
    assert {p.name for p in Path("official").iterdir()} == {
        *(f"SMPL_{g}.pkl" for g in ("NEUTRAL", "MALE", "FEMALE")),
        *(f"skel_{g}.pkl" for g in ("male", "female")),
    }
    assert "exists already" in error_line(skelfit_("models", "open-body", "--out", "official", "--official"))
    result = skelfit_("models", "import", "--smpl", "official", "--skel", "official", "--out", "imported")
    assert result.exit_code == 0, result.output
    assert "skel female, version 1.1.1" in result.stdout and "sha256" in result.stdout
    assert Path("imported/models.json").exists() and Path("imported/smpl_neutral.npz").exists()
    assert "no keypoint regressor" in result.stdout
    assert models.keypoints44 is not None
    np.save("J_regressor_extra.npy", models.keypoints44[25:])
    result = skelfit_("models", "import", "--keypoints", "J_regressor_extra.npy", "--out", "imported")
    assert result.exit_code == 0 and "note: 19 extra joints" in result.stdout, result.output
    assert Path("imported/keypoints44.npz").exists()
    assert "skel_male.pkl" not in error_line(skelfit_("models", "import", "--skel", "none", "--out", "x"))


def test_converts_for_real() -> None:
    """No fakes: the open body, the shipped pipeline and the fit, on four people."""
    labels = write_labels(Path("people.npz"), 4)
    pipeline = ROOT / "pipelines" / "hmr-skel.yaml"
    arguments = ["convert", "--labels", labels, "--source", "camerahmr", "--out", "out"]
    result = skelfit_(*arguments, "--pipeline", pipeline, "--device", "cpu")
    assert result.exit_code == 0, result.output
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["statuses"] == {"bad_input": 1, "ok": 3}
    assert 1 < summary["pve_mm"]["mean"] < 25
    assert list(summary["stage_pve_mm"]) == ["lower_body", "upper_body", "full"]
    assert summary["skel_genders"] == {"male": 3}
    assert 5 < summary["betas_mm"]["transferred"]["mean"] < 15

    assert skelfit_(*arguments, "--pipeline", pipeline, "--skel-gender", "best", "--overwrite").exit_code == 0
    best = json.loads(Path("out/summary.json").read_text())
    assert sum(best["skel_genders"].values()) == 3
    assert best["pve_mm"]["mean"] <= summary["pve_mm"]["mean"] + 0.2
    genders = [row["skel_gender"] for row in read_rows(Path("out/people-000000.rows.jsonl"))]
    assert genders.count(None) == 1 and len(genders) == 4


def test_one_and_two_workers_give_the_same_people(models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real fit by Dask workers that have two threads or one: the same bytes. Before the first, it is compiled."""
    write_demo(Path("demo"), 48, seed=3, images=False, models=models)
    arguments = ["convert", "--labels", "demo/demo-release.npz", "--source", "camerahmr", "--shard-size", 24]
    arguments += ["--pipeline", ROOT / "pipelines" / "hmr-skel.yaml", "--device", "cpu"]
    marker, wrong = backend._marker, Path("not-compiled")
    for workers, known in ((1, False), (2, True)):
        monkeypatch.setattr(backend, "_marker", marker if known else lambda *_: wrong)
        result = skelfit_(*arguments, "--workers", workers, "--out", f"out{workers}")
        assert result.exit_code == 0, result.output
        assert ("compiling the kernels" in result.output) is not known
    assert wrong.exists() and marker(backend.make_backend(), backend.FIT).exists()
    shards = sorted(Path("out1").glob("*.tar"))
    assert len(shards) == 2
    for one in shards:
        assert one.read_bytes() == Path("out2", one.name).read_bytes()
