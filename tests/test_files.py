"""Paths that are no regular files: one message at once, where opening them would wait for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from skelfit.errors import ConfigError, LabelError
from skelfit.files import endings_of, other_than_file, regular_file, skipped_line


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_folder(path: Path) -> None:
    path.mkdir()


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")  # links are followed


OTHERS = {
    make_pipe: "a named pipe",
    make_socket: "a socket",
    make_folder: "a folder",
    make_device: "a device",
}


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: the path of a socket may not be long."""
    monkeypatch.chdir(tmp_path)
    return Path()


@pytest.mark.parametrize("make", OTHERS)
def test_what_is_no_regular_file_is_named(short: Path, make: Callable[[Path], None]) -> None:
    path = short / "x"
    make(path)
    assert other_than_file(path) == OTHERS[make]
    with pytest.raises(LabelError) as caught:
        regular_file(path, "a label file", LabelError)
    assert str(caught.value) == f"x: expected a label file, found {caught.value.found}"
    assert caught.value.found == f"{OTHERS[make]}, not a regular file"


def test_files_and_what_is_not_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    (tmp_path / "z").symlink_to(tmp_path / "gone")
    for name in ("x", "y", "z", "gone", "a\0b"):
        assert other_than_file(tmp_path / name) == ""
        regular_file(tmp_path / name, "a YAML file", ConfigError)


def test_what_is_skipped_is_one_line() -> None:
    names = ["a.HEIC", "b.heic", "c", ".hidden", "d.txt", "e.a", "f.b", "g.c"]
    endings = endings_of(map(Path, names))
    assert skipped_line(endings, "images") == (
        "7 files are skipped, not read as images: 2 .heic, 1 without an ending, 1 .txt, 1 .a, 1 .b, 1 more"
    )
    assert skipped_line(endings_of([Path("x.txt")]), "sequences") == (
        "1 file is skipped, not read as sequences: 1 .txt"
    )
    assert skipped_line(endings_of([Path(".DS_Store")]), "images") == ""
