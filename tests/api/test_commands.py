"""`skelfit.convert`, `verify`, `export`, `evaluate`: what the commands do, with the same options, without a word."""

from __future__ import annotations

import inspect
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from job_fakes import FakeFitter, hashes, write_labels

import skelfit.api.convert_dataset
from skelfit.api.convert_dataset import convert
from skelfit.api.run_shards import ShardsFailedError
from skelfit.cli import main
from skelfit.cli.convert import convert_command
from skelfit.cli.evaluate import evaluate_command
from skelfit.cli.export import export_command
from skelfit.cli.verify import verify_command
from skelfit.conversion.batch_fit import convert_batch
from skelfit.errors import ArgumentError, LabelError, OutputError, SkelfitError
from skelfit.exports.export_run import export
from skelfit.protocols.evaluation_run import evaluate
from skelfit.shards.keep_list import read_keep
from skelfit.verification.verify_folders import verify


@pytest.mark.parametrize(("command", "function", "least"), [
    (convert_command, convert, ["--out", "o"]),
    (verify_command, verify, ["d"]),
    (export_command, export, ["d", "--format", "hsmr", "--out", "o"]),
    (evaluate_command, evaluate, ["p.npz", "--protocol", "emdb", "--labels", "l.npz"]),
], ids=["convert", "verify", "export", "evaluate"])  # fmt: skip
def test_options_have_one_name(
    command: click.Command, function: Callable[..., Any], least: list[str]
) -> None:
    """Of the command line and of Python; and what holds where one is left out is the same."""
    parameters = inspect.signature(function).parameters
    given = command.make_context("skelfit", least).params
    assert sorted(parameters) == sorted([*given, "progress"])
    for option in command.params:
        assert option.name is not None
        if isinstance(option, click.Option) and not option.required:
            assert option.opts == [f"--{option.name.replace('_', '-')}"]
            value, default = given[option.name], parameters[option.name].default
            assert value == default or (option.name == "pipeline" and value.stem == default), option.name


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A label file of 20 rows, in a folder without models, and a fake fitter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    monkeypatch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: FakeFitter(stages=3))
    return write_labels(Path("people.npz"))


def test_a_dataset_without_a_command(labels: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"shard_size": 8, "workers": 0, "device": "cpu"}
    converted = convert("out", labels=labels, progress=lambda *counts: seen.append(counts), **options)
    assert seen == [(8, 20), (16, 20), (20, 20)]
    assert json.loads(json.dumps(converted.summary)) == json.loads(Path("out/summary.json").read_text())
    (subset,) = converted.subsets
    assert (subset.name, subset.folder, subset.problem) == ("people", Path("out"), "")
    checked = verify("out", json="report.json", html="page.html", keep="keep.csv", workers=0)
    assert json.loads(json.dumps(checked.report)) == json.loads(Path("report.json").read_text())
    assert Path("page.html").exists()
    assert checked.verdict == checked.report["verdict"]
    kept = sum(read_keep(Path("keep.csv")).values())
    exported = export("out", format="skel-cf", out="skel.npz")
    with np.load("skel.npz") as arrays:
        assert exported.people == len(arrays["skel_poses"]) == converted.summary["rows_out"] >= kept
    assert exported.files == ("skel.npz",)
    assert capfd.readouterr() == ("", ""), "a library is silent"
    # The command makes the same files.
    words = [
        "convert",
        "--labels",
        str(labels),
        "--out",
        "again",
        "--shard-size",
        "8",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    result = CliRunner().invoke(main, [*words, "--device", "cpu"])
    assert result.exit_code == 0 and hashes(Path("again")) == hashes(Path("out"))
    assert convert("out", labels=str(labels), **options).summary["rows_in"] == 20, "finished shards are kept"


def test_progress_as_a_bar(labels: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert("out", labels=labels, workers=0, device="cpu", progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "20/20 people" in err


def test_shards_that_fail_are_an_error(labels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(task: Any, **_: Any) -> Any:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(skelfit.api.convert_dataset, "convert_batch", fail)
    with pytest.raises(ShardsFailedError, match="1 of 1 shards failed; the same command tries them again"):
        convert("out", labels=labels, workers=0, device="cpu")
    monkeypatch.setattr(skelfit.api.convert_dataset, "convert_batch", convert_batch)
    assert convert("out", labels=labels, workers=0, device="cpu").summary["rows_in"] == 20


def test_a_folder_of_manifests_tells_each(labels: Path) -> None:
    Path("all").mkdir()
    Path("data").mkdir()
    labels.rename("data/there.npz")
    for name in ("there", "gone"):
        Path(f"all/{name}.yaml").write_text(f"name: {name}\nlabels: [{{path: {name}.npz}}]\n")
    converted = convert("out", manifest=Path("all"), workers=0, device="cpu")
    gone, there = converted.subsets
    assert gone.missing and gone.summary is None and "gone.npz: expected the label file" in gone.problem
    assert there.summary is not None and there.summary["rows_in"] == 20 and not there.problem
    with pytest.raises(ValueError, match="expected one converted subset, found 2"):
        _ = converted.summary


@pytest.mark.parametrize(("options", "said"), [
    ({}, "manifest: expected either a manifest, or labels, found neither"),
    ({"manifest": "demo", "labels": "a.npz"}, "manifest: expected either a manifest, or labels, found both"),
    ({"manifest": "demo", "up": "y"}, "up: expected none with a manifest"),
    ({"labels": "a.npz", "source": "coco"}, "source: expected one of camerahmr, .* found 'coco'"),
    ({"labels": "a.npz", "scale_unit": "cm"}, "scale_unit: expected .*px/200.* found 'cm'"),
    ({"labels": "a.npz", "crop_size": 8}, "crop_size: expected .*64.* found 8"),
    ({"labels": "a.npz", "image_mode": "jpeg"}, "image_mode: expected .*crop.* found 'jpeg'"),
    ({"labels": "a.npz", "limit": 0}, "limit: expected a whole number, 1 or more, found 0"),
    ({"labels": "a.npz", "filter": ["best=1"]}, "filter: expected one of low_confidence, .* found 'best=1'"),
    ({"labels": "a.npz", "no_filter": ["best"]}, "no_filter: expected one of low_confidence, .* found 'best'"),
    ({"labels": "a.npz", "images": "none"}, "images: expected a folder or tars, found no such folder or tar: none"),
    ({"labels": "a.npz", "workers": -1}, "workers: expected a whole number, 0 or more, found -1"),
    ({"labels": "a.npz", "scheduler": "tcp://h:1", "workers": 2}, "workers: expected none beside a scheduler"),
    ({"labels": "a.npz", "tls_ca": "ca.pem"}, "tls_ca: expected a scheduler, whose certificate it is, found none"),
    ({"labels": "a.npz", "workers": 0, "dashboard": True}, "dashboard: expected workers, which it watches"),
    ({"labels": "a.npz", "limit": "3"}, "limit: expected a whole number, 1 or more, found '3'"),
    ({"labels": "a.npz", "limit": 3.5}, "limit: expected a whole number, 1 or more, found 3.5"),
    ({"labels": "a.npz", "shard_size": 2.5}, "shard_size: expected a whole number"),
    ({"labels": "a.npz", "workers": "2"}, "workers: expected a whole number, 0 or more, found '2'"),
    ({"labels": "a.npz", "dry_run": True, "people_per_second": "3"}, "people_per_second: expected a number above 0"),
    ({"labels": "a.npz", "people_per_second": 3.0}, "people_per_second: expected none, except for a dry run"),
    ({"labels": "a.npz", "pipeline": 3}, "pipeline: expected a path, or an address .*, found 3"),
    ({"labels": 3, "workers": 0}, "labels: expected a path, or an address .*, found 3"),
    ({"labels": "a.npz", "skel_gender": "x"}, "skel_gender: expected male, female or best, found 'x'"),
    ({"labels": "a.npz", "filter": "few"}, "filter: expected one of .*, found 'few'"),
    ({"labels": "a.npz", "no_filter": "few"}, "no_filter: expected one of .*, found 'few'"),
    ({"labels": "a.npz", "device": "gpu"}, "device: expected auto, cpu or cuda, found 'gpu'"),
    ({"labels": "ftp:/x://b/a.npz"}, "labels: expected a path, or an address"),
])  # fmt: skip
def test_a_fault_names_the_option(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        convert(tmp_path / "out", **{"device": "cpu", **options})
    assert not (tmp_path / "out").exists()


def test_out_is_where_files_can_be_written(labels: Path) -> None:
    for out in (3, "https://b/out", "hf://datasets/a/b"):
        with pytest.raises(
            ArgumentError, match=r"out: expected a path, or an address \(s3://, gs://, file://\)"
        ):
            convert(out, labels=labels, workers=0, device="cpu")  # type: ignore[arg-type]


def test_one_filter_may_be_a_text(labels: Path) -> None:
    summary = convert("out", labels=labels, filter="few_keypoints", workers=0, device="cpu").summary
    assert list(summary["filters"]) == ["few_keypoints"]


def test_a_summary_that_no_run_wrote_stays(labels: Path) -> None:
    Path("mine").mkdir()
    Path("mine/summary.json").write_text('{"mine": 1}')
    for dry in (True, False):
        with pytest.raises(OutputError, match="summary.json: expected the summary of a run"):
            convert("mine", labels=labels, workers=0, device="cpu", dry_run=dry)
    assert [path.name for path in Path("mine").iterdir()] == ["summary.json"]
    assert Path("mine/summary.json").read_text() == '{"mine": 1}'


def test_a_child_that_imports_its_parents_script_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    for call in (lambda: convert("out", labels="people.npz", workers=2, device="cpu"), lambda: verify("out")):
        with pytest.raises(SystemExit, match='under `if __name__ == "__main__":`'):
            call()
    assert not Path("out").exists()


def test_faults_of_files_and_of_the_others(labels: Path) -> None:
    with pytest.raises(LabelError, match="gone.npz: expected a label file, found no such file"):
        convert("out", labels="gone.npz", workers=0, device="cpu")
    with pytest.raises(ArgumentError, match="sample: expected none with all or keep"):
        verify("out", sample=3, all=True)
    with pytest.raises(ArgumentError, match="html: expected people who are measured, found sample 0"):
        verify("out", sample=0, html="page.html")
    with pytest.raises(ArgumentError, match="format: expected one of skel-cf, .* found 'fbx'"):
        export("out", format="fbx", out="x")
    with pytest.raises(
        ArgumentError,
        match="key: expected none, except for the formats opensim, glb, bvh, obj and ply, found the format hsmr",
    ):
        export("out", format="hsmr", out="x", key=["a"])
    with pytest.raises(
        ArgumentError, match="frame_rate: expected none, except for the formats opensim, glb and bvh"
    ):
        export("out", format="hsmr", out="x", frame_rate=30)
    with pytest.raises(ArgumentError, match="frame_rate: expected a number above 0"):
        export("out", format="opensim", out="x", frame_rate=0)
    with pytest.raises(SkelfitError, match="out"):
        export("out", format="hsmr", out="x")


def test_paths_of_verify_and_export_are_paths_or_addresses() -> None:
    address, expected = "ftp://bucket/x", ": expected a path, or an address"
    for name in ("folders", "models", "json", "html", "keep", "against"):
        with pytest.raises(ArgumentError, match=name + expected):
            verify(**{"folders": "gone", name: address})  # type: ignore[arg-type]
    for name in ("folder", "out", "models", "keep"):
        with pytest.raises(ArgumentError, match=name + expected):
            export(**{"folder": "gone", "out": "x", "format": "obj", name: address})  # type: ignore[arg-type]
    for wrong in (3, [3]):
        with pytest.raises(ArgumentError, match="folders: expected"):
            verify(wrong)  # type: ignore[arg-type]


def test_verify_needs_a_folder() -> None:
    for options in ({}, {"keep": "keep.csv"}):
        with pytest.raises(ArgumentError, match="folders: expected at least one folder, found none"):
            verify([], **options)  # type: ignore[arg-type]


def test_numbers_of_verify_and_export() -> None:
    with pytest.raises(ArgumentError, match="sample: expected a whole number, 0 or more, found '3'"):
        verify("gone", sample="3")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_pve: expected a number of mm, found '3'"):
        verify("gone", max_pve="3")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="limit: expected a whole number, 1 or more, found 3.5"):
        export("gone", format="obj", out="x", limit=3.5)  # type: ignore[arg-type]
