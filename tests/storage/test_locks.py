"""Locks in stores: objects with an owner and a lease, which end with their process or when nothing renews them."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest
from s3_server import S3Server, s3, s3_server  # noqa: F401  fixtures

from skelfit.errors import StoreError
from skelfit.storage import locks
from skelfit.storage.locations import Location, location_of
from skelfit.storage.locks import is_locked, take_lock
from skelfit.storage.store_path import StorePath


@pytest.fixture(params=["memory", "s3"])
def path(request: pytest.FixtureRequest) -> Iterator[StorePath]:
    """Where a lock is to be, in an empty folder."""
    folder: Location = location_of("memory://tests-of-locks")
    if request.param == "s3":
        folder = location_of(request.getfixturevalue("s3").folder("locks"))
    lock = folder / ".run.lock"
    assert isinstance(lock, StorePath)
    yield lock
    lock.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_SETTLE_SECONDS", 0.0)


def test_one_holds_it_until_it_is_released(path: StorePath) -> None:
    assert not is_locked(path)
    lock = take_lock(path)
    assert lock is not None and is_locked(path) and take_lock(path) is None
    lock.release()
    assert not is_locked(path) and not path.exists()
    another = take_lock(path)
    assert another is not None
    another.release()


def test_of_many_that_ask_at_once_one_gets_it(path: StorePath) -> None:
    got = []
    threads = [threading.Thread(target=lambda: got.append(take_lock(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (lock,) = [lock for lock in got if lock is not None]
    lock.release()


def left_by(path: StorePath, **changes: object) -> None:
    """Write a lock as another process leaves it."""
    path.write_bytes(
        json.dumps({"token": "other", "host": "node17", "pid": 1, "of": "x", **changes}).encode()
    )


def test_what_a_dead_process_left_is_no_lock(path: StorePath, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(path)
    assert is_locked(path) and take_lock(path) is None, "of another machine, which may be alive"
    monkeypatch.setattr(locks, "LEASE_SECONDS", -60.0)
    assert not is_locked(path)
    lock = take_lock(path)
    monkeypatch.setattr(locks, "LEASE_SECONDS", 300.0)
    assert lock is not None and is_locked(path)
    lock.release()


def test_a_process_of_this_machine_that_is_gone_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    path = location_of("memory://tests-of-locks/.run.lock")
    assert isinstance(path, StorePath)
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    left_by(path, host="here", pid=os.getppid())
    assert is_locked(path)
    left_by(path, host="here", pid=2**22 + 1)
    assert not is_locked(path)
    left_by(path, host="here", pid=os.getpid())  # a container's processes have the same numbers again
    assert not is_locked(path)
    path.write_bytes(b"no JSON")
    assert is_locked(path)
    path.unlink()


def test_it_is_renewed_while_it_is_held(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = location_of("memory://tests-of-locks/.run.lock")
    assert isinstance(path, StorePath)
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.02)
    lock = take_lock(path)
    assert lock is not None
    first, end = path.stat().st_mtime, time.monotonic() + 30
    while path.stat().st_mtime == first:
        assert time.monotonic() < end
        time.sleep(0.01)
    with caplog.at_level(logging.WARNING):
        left_by(path)
        while "another process has taken this lock" not in caplog.text:
            assert time.monotonic() < end
            time.sleep(0.01)
    lock.release()
    assert json.loads(path.read_bytes())["token"] == "other", "it is not removed with ours"
    path.unlink()


def test_a_store_without_locks_is_told(
    s3: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = location_of(s3.folder("none")) / ".run.lock"
    monkeypatch.setattr(StorePath, "create", refuse)
    assert take_lock(path) is not None
    assert "no locks here" in caplog.text


def refuse(path: StorePath, data: bytes) -> None:
    raise StoreError(f"{path}: the store refuses: not implemented")
