"""Paths and addresses: what becomes of a text, how a store behaves, and that nothing of a secret is shown."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import skelfit.storage.locations
import skelfit.storage.patience
from skelfit.errors import ArgumentError, InputError, LabelError, OutputError, StoreError, without_secrets
from skelfit.shards.shard_reader import read_json
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.checked_arguments import location_argument
from skelfit.storage.hashed_write import write_json
from skelfit.storage.local_cache import cache_folder, fetched, local_copy, upload_named
from skelfit.storage.locations import Location, address_of, location_of, side_by_side
from skelfit.storage.patience import patiently
from skelfit.storage.store_path import StorePath

SIGNED = "https://data.example.org/labels/people.npz?X-Amz-Signature=open-sesame&X-Amz-Expires=9"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(skelfit.storage.patience, "PAUSES", [0.0, 0.0])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StorePath]:
    """A folder in a store of its own."""
    folder = StorePath.of(f"memory://{tmp_path.name}/run")
    yield folder
    for path in folder.parent.files_below():
        path.unlink()


def test_a_path_stays_a_path_and_an_address_behaves_as_one(store: StorePath) -> None:
    assert location_of("a/b.npz") == Path("a/b.npz") and isinstance(location_of("a"), Path)
    assert (
        location_of("file:///data/a%20b") == Path("/data/a b") == location_of("FILE://localhost/data/a%20b")
    )
    assert location_of(store) is store and address_of(Path("x")) == str(Path("x").absolute())
    (store / "demo-000000.tar").write_bytes(b"0123456789")
    (store / "deep" / "x.txt").write_text("one\ntwo\n")
    assert sorted(path.name for path in store.iterdir()) == ["deep", "demo-000000.tar"]
    assert [str(path) for path in store.glob("demo-*")] == [f"{store}/demo-000000.tar"]
    assert list((store / "nowhere").iterdir()) == []
    tar = store / "demo-000000.tar"
    assert (tar.name, tar.stem, tar.suffix, tar.parent) == ("demo-000000.tar", "demo-000000", ".tar", store)
    assert tar.is_file() and not tar.is_dir() and store.is_dir() and not (store / "gone").exists()
    assert tar.stat().st_size == 10 and tar.stat().st_mtime > 1e9
    with tar.open("rb") as stream:
        stream.seek(-4, 2)
        assert (
            stream.read(2) == b"67" and stream.tell() == 8 and stream.read() == b"89" == tar.read_range(8, 10)
        )
    with (store / "deep" / "x.txt").open() as lines:
        assert list(lines) == ["one\n", "two\n"]
    assert [path.below(store) for path in store.files_below()] == ["deep/x.txt", "demo-000000.tar"]
    assert pickle.loads(pickle.dumps(tar)) == tar and len({tar, store / "demo-000000.tar"}) == 1
    tar.unlink()
    tar.unlink(missing_ok=True)
    for missing in (tar.unlink, tar.stat, tar.read_bytes):
        with pytest.raises(FileNotFoundError):
            missing()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pipe:cat x.tar", "the command pipe:cat x.tar; write its output to a file"),
        ("simplecache::s3://b/x", "simplecache::s3://b/x, with an address inside; give the address alone"),
        ("ftp://host/x", "the address ftp://host/x; copy the files to this machine"),
        ("https://me:sesame@host/x", "a password in the address https://...@host/x; put it into fsspec's"),
    ],
)
def test_an_address_of_no_use_says_what_to_do(text: str, found: str) -> None:
    with pytest.raises(ArgumentError, match="^labels: expected a path, or an address") as error:
        location_argument("labels", text)
    assert error.value.found.startswith(found)
    if "://" in text:  # else a file may have the name
        with pytest.raises(InputError, match="expected a path, or an address"):
            location_of(text)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skelfit.storage.locations, "find_spec", lambda _: None)
    for address, extra in (("s3://b/x", "s3"), ("gs://b/x", "gcs"), ("hf://datasets/a/b", "hub")):
        with pytest.raises(InputError, match=f"no package for it: pip install 'skelfit\\[{extra}\\]'"):
            location_of(address)


@pytest.mark.parametrize("address", ["https://host/out", "hf://datasets/me/out"])
def test_what_is_only_read_is_not_written_to(address: str) -> None:
    assert location_argument("labels", address)
    with pytest.raises(ArgumentError, match=r"^out: expected a path, or an address .*, found the address"):
        location_argument("out", address, writing=True)


def test_no_secret_is_shown() -> None:
    location = location_of(SIGNED)
    error = pickle.loads(pickle.dumps(LabelError(location, "x", "a file", f"none at {SIGNED}")))
    for text in (str(location), repr(location), str(error), str(OutputError(f"{SIGNED}: gone")), error.found):
        assert "sesame" not in text and "https://data.example.org/labels/people.npz?..." in text
    assert location.name == "people.npz" and address_of(location) == SIGNED
    assert without_secrets("a file://x?y, s3://b/?.tar") == "a file://x?y, s3://b/?.tar"
    assert without_secrets("ftp://me:sesame@h/x") == "ftp://...@h/x"


class BotoError(Exception):
    """As botocore has them: no OSError, with the answer of the server."""

    __module__ = "botocore.exceptions"

    def __init__(self, status: int) -> None:
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}
        super().__init__(f"no answer from {SIGNED}")


def asked(*errors: Exception) -> Callable[[], str]:
    """A request that fails so, one after another, and then succeeds."""
    left = list(errors)

    def request() -> str:
        if left:
            raise left.pop(0)
        return "an answer"

    return request


@pytest.mark.parametrize(
    "error",
    [
        BotoError(503),
        BotoError(429),
        TimeoutError(),
        ConnectionResetError("reset"),
        OSError(errno.EBUSY, "Please reduce your request rate"),
    ],
)
def test_a_store_that_is_busy_is_asked_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert patiently("s3://b/x", asked(error, error)) == "an answer"
    assert caplog.text.count("s3://b/x: ") == 2 and "sesame" not in caplog.text
    with pytest.raises(StoreError, match="^s3://b/x: the store does not answer: ") as told:
        patiently("s3://b/x", asked(error, error, error))
    assert "sesame" not in str(told.value) and told.value.__suppress_context__


@pytest.mark.parametrize(
    "error", [BotoError(403), PermissionError("Access Denied"), OSError(errno.EINVAL, "no")]
)
def test_a_store_that_refuses_is_not_asked_again(error: Exception) -> None:
    with pytest.raises(StoreError, match="^s3://b/x: the store refuses: "):
        patiently("s3://b/x", asked(error))


def test_what_a_store_says_of_a_file_is_no_fault_of_it() -> None:
    for error in (FileNotFoundError("s3://b/x"), FileExistsError("s3://b/x")):
        with pytest.raises(type(error)):
            patiently("s3://b/x", asked(error))
    with pytest.raises(ZeroDivisionError):  # a bug of ours
        patiently("s3://b/x", asked(ZeroDivisionError()))


def test_a_file_is_uploaded_whole_or_not_at_all(store: StorePath, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store / "summary.json"
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert not path.exists() and not temporary.parent.exists()
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1} and [each.name for each in store.iterdir()] == ["summary.json"]

    def put_half(file: str, to: str, **_: Any) -> None:
        path.fs.pipe_file(to, Path(file).read_bytes()[:1])

    monkeypatch.setattr(type(path.fs), "put_file", staticmethod(put_half))
    with pytest.raises(
        OutputError, match="summary.json: the store does not answer: 1 of 13 bytes have arrived"
    ):
        write_json(path, {"a": 2})


def test_a_copy_is_fetched_once_and_again_when_the_file_changes(store: StorePath) -> None:
    path = store / "people.npz"
    with pytest.raises(LabelError, match=r"people\.npz: expected a label file, found no such file"):
        fetched(path, "a label file", LabelError)
    path.write_bytes(b"first")
    with ThreadPoolExecutor() as pool:
        (copy,) = set(pool.map(fetched, [path] * 8))
    assert copy.read_bytes() == b"first" and copy.name == "people.npz" and cache_folder() in copy.parents
    copy.write_bytes(b"kept")
    assert fetched(path).read_bytes() == b"kept"
    path.write_bytes(b"second")
    assert fetched(path).read_bytes() == b"second"
    (store / "deep" / "x").write_bytes(b"x")
    folder = fetched(store)
    assert (folder / "deep" / "x").read_bytes() == b"x" and (folder / "people.npz").read_bytes() == b"second"
    assert fetched(store) == folder and fetched(folder) == folder
    assert not list(cache_folder().rglob(".*.tmp"))


def test_a_store_of_labels_is_told_by_its_hash(store: StorePath, tmp_path: Path) -> None:
    built = tmp_path / "spin-1.h5"
    built.write_bytes(b"labels")
    placed = upload_named(built, store)
    assert upload_named(built, store) == placed and [path.name for path in store.iterdir()] == [placed.name]
    assert local_copy(str(placed)).read_bytes() == b"labels"
    local = local_copy(str(placed))
    placed.write_bytes(b"LABELS")
    skelfit.storage.local_cache._fetch_named.cache_clear()
    with pytest.raises(StoreError, match="expected a file with the sha256"):
        local_copy(placed)
    assert local.read_bytes() == b"labels"  # the good copy stays


def test_requests_side_by_side_keep_their_order(store: StorePath) -> None:
    def work(number: int) -> int:
        if number == 30:
            raise StoreError("gone")
        return 2 * number

    for place in (Path(), store):
        numbers: Iterator[int] = side_by_side(work, range(25), place)
        assert list(numbers) == [2 * n for n in range(25)]
        with pytest.raises(StoreError):
            list(side_by_side(work, range(60), place))


def test_a_location_is_typed() -> None:
    location: Location = Path("x")
    assert location_argument("out", location, writing=True) == location
    with pytest.raises(ArgumentError, match="out: expected a path, or an address"):
        location_argument("out", 3)
