"""Runs whose labels, images and shards are in a store: the same bytes as on a disk, whatever the server does."""

from __future__ import annotations

import hashlib
import json
import logging
import tarfile
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from click.testing import CliRunner
from job_fakes import FakeFitter, write_images, write_labels
from s3_server import KEYS, S3Server, s3, s3_server  # noqa: F401  fixtures

import skelfit
import skelfit.api.convert_dataset
from skelfit.api.convert_dataset import convert
from skelfit.api.run_shards import ShardsFailedError
from skelfit.cli import main
from skelfit.errors import ArgumentError, SkelfitError, StoreError
from skelfit.exports.dataset_card import write_card
from skelfit.learning.data.person_stream import ALL, PersonSource, find_tars, in_order
from skelfit.resources.catalog import PIPELINES
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location, location_of

PEOPLE, SHARD = 20, 8
NOT_SHARDS = ("summary.json", "schema.json")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: FakeFitter(stages=3))
    monkeypatch.setattr(skelfit.api.convert_dataset, "compile_once", lambda *_: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, their images, and the same images in two tars."""
    folder = tmp_path_factory.mktemp("data")
    write_labels(folder / "people.npz", PEOPLE)
    images = write_images(folder / "images", PEOPLE)
    (folder / "tars").mkdir()
    files = sorted(images.rglob("*.jpg"))
    for i, part in enumerate((files[::2], files[1::2])):
        with tarfile.open(folder / "tars" / f"{i:06d}.tar", "w") as tar:
            for file in part:
                tar.add(file, file.relative_to(images))
    (folder / "pipeline.yaml").write_text(PIPELINES.find("hmr-skel").read_text())
    return folder


@pytest.fixture(scope="module")
def disk(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in which all is on a disk."""
    out = tmp_path_factory.mktemp("disk") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: FakeFitter(stages=3))
        patch.setattr(skelfit.api.convert_dataset, "compile_once", lambda *_: None)
        convert(out, labels=data / "people.npz", images=data / "images", **options(data))
    return out


@pytest.fixture(scope="module")
def on_disk(disk: Path) -> dict[str, str]:
    """Its shards."""
    return shards(disk)


def options(data: Path | str) -> dict[str, Any]:
    return {"pipeline": f"{data}/pipeline.yaml", "shard_size": SHARD, "workers": 0}


def shards(out: Location | str | Path) -> dict[str, str]:
    """The sha256 of each file of a shard, by name."""
    folder = location_of(out)
    files = [path for path in folder.iterdir() if path.name[0] != "." and path.name not in NOT_SHARDS]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files, key=str)}


def uploaded(data: Path, address: str) -> str:
    """Everything of `data` below an address."""
    folder = location_of(address)
    for path in data.rglob("*"):
        if path.is_file():
            (folder / path.relative_to(data).as_posix()).write_bytes(path.read_bytes())
    return address


def after_a_shard(do: Callable[[], object]) -> Callable[[int, int], object]:
    """A `progress` that does something once, when the first shard is finished."""
    left = [do]
    return lambda done, _: left.pop()() if left and done else None


@pytest.mark.parametrize("images", ["images", "tars/{000000..000001}.tar", "tars/*.tar"])
def test_all_in_a_store_gives_the_bytes_of_a_disk(
    images: str, data: Path, on_disk: dict[str, str], tmp_path: Path
) -> None:
    place = uploaded(data, f"memory://{tmp_path.name}/data")
    out = f"memory://{tmp_path.name}/out"
    convert(out, labels=f"{place}/people.npz", images=f"{place}/{images}", **options(place))
    assert shards(out) == on_disk and len(on_disk) == 9
    summary = json.loads((location_of(out) / "summary.json").read_bytes())
    assert summary["rows_out"] == 18 and summary["people_per_second"] is not None
    again = convert(out, labels=f"{place}/people.npz", images=f"{place}/{images}", **options(place))
    assert again.subsets[0].summary is not None and again.subsets[0].summary["people_per_second"] is None


def test_a_busy_server_gives_the_bytes_of_a_disk(
    s3: S3Server,  # noqa: F811
    data: Path,
    on_disk: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place, out = uploaded(data, s3.folder("data")), s3.folder("out")
    s3.faults(busy=5, cut=4, delay=0.005)
    with caplog.at_level(logging.INFO, "skelfit"):
        convert(out, labels=f"{place}/people.npz", images=f"{place}/images", **options(place))
    assert "ServiceUnavailable" in caplog.text or "503" in caplog.text
    s3.faults()
    assert shards(out) == on_disk
    stored = [key for key in s3.keys(out) if "/.stores/" in key]
    assert len(stored) == 1 and not [key for key in s3.keys(out) if "started" in key or ".tmp" in key]
    told = caplog.text.encode() + b"".join(path.read_bytes() for path in location_of(out).files_below())  # type: ignore[union-attr]
    assert all(secret.encode() not in told for secret in KEYS.values())
    # A web address that carries its own secret reads the same file.
    local = tmp_path / "web"
    with caplog.at_level(logging.INFO, "skelfit"):
        convert(local, labels=s3.signed(f"{place}/people.npz"), images=data / "images", **options(data))
    told = caplog.text.encode() + b"".join(path.read_bytes() for path in local.rglob("*") if path.is_file())
    assert shards(local) == on_disk and b"Signature=" not in told and b"people.npz?..." in told


@pytest.mark.soak
def test_a_server_that_is_gone_costs_no_finished_shard(
    s3: S3Server,  # noqa: F811
    data: Path,
    on_disk: dict[str, str],
) -> None:
    out = s3.folder("out")
    run: dict[str, Any] = {"labels": data / "people.npz", "images": data / "images", **options(data)}
    with pytest.raises((ShardsFailedError, SkelfitError)):
        convert(out, **run, progress=after_a_shard(lambda: s3.faults(down=3600)))
    with pytest.raises(SkelfitError, match=r"s3://tests-.*: the store does not answer"):
        convert(out, **run)
    s3.faults()
    finished = {name: sha for name, sha in shards(out).items() if name.endswith("done.json")}
    assert 0 < len(finished) < 3
    location: Any = location_of(out)
    written = {name: (location / name).version() for name in finished}
    convert(out, **run)
    assert shards(out) == on_disk
    assert {name: (location / name).version() for name in finished} == written


@pytest.mark.soak
def test_a_server_killed_during_an_upload_and_empty_afterwards(
    s3: S3Server,  # noqa: F811
    data: Path,
    on_disk: dict[str, str],
) -> None:
    out = s3.folder("out")
    run: dict[str, Any] = {"labels": data / "people.npz", "images": data / "images", **options(data)}

    def kill_soon() -> None:
        s3.faults(delay=1.0)
        Timer(0.2, s3.kill).start()

    with pytest.raises(SkelfitError):
        convert(out, **run, progress=after_a_shard(kill_soon))
    s3.start()
    with pytest.raises(SkelfitError, match="s3://tests-"):
        convert(out, **run)  # there is no such bucket
    s3.bucket(out.removeprefix("s3://").partition("/")[0])
    convert(out, **run)
    assert shards(out) == on_disk


def test_a_multipart_upload_is_there_when_it_is_complete(s3: S3Server, tmp_path: Path) -> None:  # noqa: F811
    place: Any = location_of(s3.folder("out")) / "large.tar"
    file = tmp_path / "large.tar"
    file.write_bytes(bytes(range(256)) * (1 << 12) * 11)  # 11 MiB in parts of 5
    upload = place.fs.put_file
    place.fs.put_file = lambda here, there, **_: upload(here, there, chunksize=5 << 20)
    s3.faults(part=2)  # not every second upload: the client sends a request again that a kept connection lost
    with pytest.raises(StoreError):
        place.upload(file)
    assert s3.keys(str(place)) == []
    s3.faults()
    place.upload(file)
    assert hashlib.sha256(place.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()


def test_the_requests_of_a_run(s3: S3Server, data: Path) -> None:  # noqa: F811
    """Few for a shard, of which some cost money."""
    out = s3.folder("out")
    run: dict[str, Any] = {"labels": data / "people.npz", "workers": 0}
    convert(out, **run, shard_size=20)
    few = s3.faults()
    convert(s3.folder("out"), **run, shard_size=4)
    many = s3.faults()
    each = {method: (many[method] - few[method]) / 4 for method in ("PUT", "GET", "HEAD", "DELETE")}
    assert each["PUT"] == 4 and each["HEAD"] <= 10 and each["GET"] <= 7 and each["DELETE"] == 2, each
    convert(out, **run, shard_size=20)
    assert s3.faults().get("PUT", 0) <= 4  # summary, schema, record


def said(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_command_reads_and_writes_there(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("draw_angles", "draw_errors"):  # they take long
        draw = lambda _, path: write_atomically(path, lambda stream: stream.write(b"a picture"))  # noqa: E731
        monkeypatch.setattr(write_card, name, draw)
    store = f"memory://{tmp_path.name}/run"
    for path in disk.iterdir():
        if path.is_file() and path.suffix != ".lock":
            (location_of(store) / path.name).write_bytes(path.read_bytes())
    assert f"people in {store}: finished" in said("status", store)
    report = f"{store}-report.json"
    assert report in said("verify", store, "--sample", 0, "--workers", 0, "--json", report)
    assert json.loads(location_of(report).read_bytes())["verdict"] == "good"
    card = f"{store}-card/README.md"
    said("card", store, "--out", card)
    assert f"path: {store}/people-*.tar" in location_of(card).read_text()
    assert location_of(f"{store}-card/card/angles.png").read_bytes() == b"a picture"
    assert "exists already" in CliRunner().invoke(main, ["card", store, "--out", card]).output
    said("export", store, "--format", "skel-cf", "--out", f"{store}.npz")
    said("export", disk, "--format", "skel-cf", "--out", tmp_path / "skel.npz")
    assert location_of(f"{store}.npz").read_bytes() == (tmp_path / "skel.npz").read_bytes()
    people = [person.key for person in skelfit.load_shards(store)]
    assert people == [person.key for person in skelfit.load_shards(f"{store}/*.tar", images=False)]
    tars = find_tars(f"{store}/people-{{000000..000002}}.tar")
    there = PersonSource((tars,), None, images=True)
    here = PersonSource((find_tars(f"{disk}/*.tar"),), None, images=True)
    assert [(p.key, p.image) for p in in_order(there, ALL)] == [(p.key, p.image) for p in in_order(here, ALL)]


def test_labels_that_are_not_there_are_named_by_their_address(tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}/x.npz"
    with pytest.raises(SkelfitError, match=f"^{place}: expected a label file, found no such file"):
        convert(tmp_path / "out", labels=place, workers=0)
    location_of(place).write_text("no labels")
    with pytest.raises(SkelfitError, match=f"^{place}: expected"):
        convert(tmp_path / "out", labels=place, workers=0)
    with pytest.raises(ArgumentError, match="out: expected what other processes see too, or workers: 0"):
        convert(f"memory://{tmp_path.name}/out", labels=place, workers=2)
    with pytest.raises(ArgumentError, match=r"images: expected a folder or tars"):
        convert(tmp_path / "out", labels=place, images=f"{place}/nowhere", workers=0)
