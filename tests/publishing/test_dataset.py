"""A dataset as it would be sent: read by the library `datasets`, checked by `verify`, described by its card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from publish_fakes import finished_run, quickly

import skelfit
from skelfit.bodies.dofs import DOF_NAMES
from skelfit.errors import ArgumentError, HubError, InputError, OutputError
from skelfit.exports.parquet_tables.table_columns import PEOPLE
from skelfit.publishing.publish_run import PublishedDataset
from skelfit.shards.finished_run import open_run
from skelfit.shards.keep_list import Kept, write_keep
from skelfit.shards.shard_files import ShardError

datasets = pytest.importorskip("datasets")
pq = pytest.importorskip("pyarrow.parquet")

ADDRESS = "hf://datasets/someone/people"
Published = tuple[PublishedDataset, Path]  # the result of a dry run, and its folder
KEYS = [f"fake-0-{i:08d}" for i in range(20)]


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Iterator[None]:
    with quickly():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


def dry_run(run: Path, out: Path, **options: Any) -> PublishedDataset:
    return skelfit.publish(run, ADDRESS, dry_run=True, out=out, workers=0, **options)


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PublishedDataset, Path]:
    out = tmp_path_factory.mktemp("published") / "people"
    return dry_run(run, out), out


@pytest.fixture(scope="module")
def front(published: Published) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load((published[1] / "README.md").read_text("utf-8").split("---\n")[1])
    return matter


def load(path: Path, config: str | None, cache: Path) -> Any:
    return datasets.load_dataset(str(path), config, split="train", cache_dir=str(cache))


def test_datasets_reads_people_and_rows(published: Published, run: Path, tmp_path: Path) -> None:
    people = load(published[1], None, tmp_path)  # people is the default
    expected = list(open_run(run).people())
    assert people["key"][:] == [person.key for person in expected]
    np.testing.assert_array_equal(
        np.array([people[name][:] for name in DOF_NAMES], np.float32).T,
        np.array([person.fields["skel_poses"] for person in expected]),
    )
    rows = load(published[1], "rows", tmp_path)
    assert rows["key"][:] == KEYS and sum(rows["published"][:]) == len(people) == published[0].people == 17
    statuses = dict(zip(rows["row"][:], rows["status"][:], strict=True))
    assert (statuses[3], statuses[5], statuses[6]) == ("bad_input", "not_converged", "residual_above_gate")
    assert rows[6]["reason"] == "pve_mm 25.00 > 20" and rows[6]["pve_mm"] == rows[6]["pve_mm_full"] == 25.0
    assert rows[3]["pve_mm"] is None and rows[3]["label_file"] == "people.npz"
    assert rows[11]["has_image"] is False and rows[11]["reason"] == people[8]["reason"] == "image_missing"


def test_datasets_reads_the_preview_and_the_tars(published: Published, run: Path, tmp_path: Path) -> None:
    preview = load(published[1], "preview", tmp_path)
    assert len(preview) == 16 and preview.column_names[:2] == ["image", "key"]
    features = datasets.Features.from_dict(json.loads((published[1] / "tar-features.json").read_text()))
    tars = datasets.load_dataset(
        "webdataset", data_files=str(published[1] / "fake-*.tar"), features=features, split="train",
        cache_dir=str(tmp_path),
    )  # fmt: skip
    by_key = {sample["__key__"]: sample for sample in tars}
    assert len(by_key) == 17 and by_key[KEYS[11]]["jpg"] is None
    for line in preview:
        sample = by_key[line["key"]]
        assert sample["meta.json"]["row"] == line["row"] and sample["meta.json"]["affine"] == line["affine"]
        np.testing.assert_array_equal(np.asarray(line["image"]), np.asarray(sample["jpg"]))
        assert sample["label.npy"][6] == np.float32(line["knee_angle_r"])


def test_the_front_matter_is_what_the_files_hold(published: Published, front: dict[str, Any]) -> None:
    assert front["license"] == "unknown" and "license_name" not in front  # none was given, none is claimed
    assert [config["config_name"] for config in front["configs"]] == ["people", "rows", "preview"]
    for info in front["dataset_info"]:
        files = list(published[1].glob(f"{info['config_name']}/*.parquet"))
        table = pq.read_table(files[0])
        features = datasets.Features.from_arrow_schema(table.schema)
        assert datasets.Features._from_yaml_list(info["features"]) == features
        assert info["splits"][0]["num_examples"] == table.num_rows
        assert info["download_size"] == sum(path.stat().st_size for path in files)


def test_the_card_lists_the_columns(published: Published) -> None:
    text = (published[1] / "README.md").read_text("utf-8")
    tables = text[text.index("## Tables") : text.index("## Sources")]
    assert all(f"| `{column.name}` |" in tables for column in PEOPLE if column.name not in DOF_NAMES)
    assert "| `pelvis_tilt` ... `wrist_deviation_l` | float32 | rad |" in tables
    assert 'load_dataset("someone/people", "people", split="train")' in tables


def test_the_folder_is_the_run_and_verify_says_good(published: Published, run: Path) -> None:
    result, out = published
    there = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert set(there) == set(result.files)
    assert all(there[name].stat().st_size == record.bytes for name, record in result.files.items())
    assert (out / "fake-000000.tar").read_bytes() == (run / "fake-000000.tar").read_bytes()
    assert skelfit.verify(out, sample=0, workers=0).verdict == "good"


def test_equal_runs_give_equal_bytes(published: Published, run: Path, tmp_path: Path) -> None:
    assert dry_run(run, tmp_path / "again").files == published[0].files


def test_a_licence_and_a_title_are_the_users(run: Path, tmp_path: Path) -> None:
    dry_run(run, tmp_path / "out", license="cc-by-nc-4.0", title="My people")
    matter = yaml.safe_load((tmp_path / "out" / "README.md").read_text("utf-8").split("---\n")[1])
    assert (matter["license"], matter["pretty_name"]) == ("cc-by-nc-4.0", "My people")
    with pytest.raises(ArgumentError, match="license: expected an identifier of the Hub"):
        dry_run(run, tmp_path / "other", license="CC BY-NC 4.0")


def test_without_images_there_is_no_preview(tmp_path: Path) -> None:
    bare = finished_run(tmp_path, images=False)
    result = dry_run(bare, tmp_path / "published")
    assert not [name for name in result.files if "preview" in name]
    features = json.loads((tmp_path / "published" / "tar-features.json").read_text())
    assert set(features) == {"__key__", "__url__", "label.npy", "meta.json"}


def test_a_keep_list_goes_along(run: Path, tmp_path: Path) -> None:
    keep, kept = tmp_path / "keep.csv", [KEYS[0], KEYS[11], KEYS[19]]
    people = [person.key for person in open_run(run).people()]
    write_keep(keep, [Kept(key, "fake", () if key in kept else ("far",)) for key in people])
    result = dry_run(run, tmp_path / "out", keep=keep)
    assert result.people == 3 and (tmp_path / "out" / "keep.csv").read_bytes() == keep.read_bytes()
    assert pq.read_table(tmp_path / "out" / "people")["key"].to_pylist() == kept
    assert pq.read_table(tmp_path / "out" / "preview")["key"].to_pylist() == [KEYS[0], KEYS[19]]
    assert pq.read_table(tmp_path / "out" / "rows").num_rows == 20
    assert "The tars hold all" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_dry_run_replaces_nothing_of_the_users(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds files already; choose another folder$"):
        dry_run(run, tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="holds files already; choose another folder$"):
        dry_run(run, run, overwrite=True)
    out = tmp_path / "out"
    dry_run(run, out)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="choose another folder or --overwrite"):
        dry_run(run, out)
    before = (run / "fake-000000.tar").read_bytes()
    result = dry_run(run, out, overwrite=True)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {*result.files, "mine.txt"} and (run / "fake-000000.tar").read_bytes() == before


def test_only_a_whole_run_is_published(run: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(run, tmp_path / "run")
    tar = damaged / "fake-000001.tar"
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(ShardError, match="expected a finished run that is whole, found .*fake-000001"):
        dry_run(damaged, tmp_path / "out")
    shutil.copyfile(run / "fake-000001.tar", tar)
    (damaged / "summary.json").unlink()
    with pytest.raises(ShardError, match=r"no summary\.json, so the run is not finished"):
        dry_run(damaged, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_options_that_do_not_fit(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="out: expected a folder for what a dry run writes, found none"):
        skelfit.publish(run, ADDRESS, dry_run=True)
    with pytest.raises(ArgumentError, match="out: expected none, except with dry_run"):
        skelfit.publish(run, ADDRESS, out=tmp_path)
    for text in (
        "someone/people",
        "hf://someone/people",
        "hf://datasets/a/b/c",
        "hf://datasets/../b",
        "s3://a",
    ):
        with pytest.raises(InputError, match="expected the address of a dataset, hf://datasets/OWNER/NAME"):
            skelfit.publish(run, text)
    with pytest.raises(InputError, match="give it as --revision"):
        skelfit.publish(run, f"{ADDRESS}@main")
    monkeypatch.setattr("skelfit.publishing.publication.MOST_IN_FOLDER", 108)
    with pytest.raises(
        OutputError, match="9 files in 3 shards, and the Hub recommends at most 108 in a folder"
    ):
        dry_run(run, tmp_path / "out")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(HubError, match="expected a token of the Hub, found none"):
        skelfit.publish(run, ADDRESS)
