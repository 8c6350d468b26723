"""Paths that are no regular files: one message at once, where opening them would wait for ever."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from label_files import amass, write

from skelfit.bodies.assets import read_npz
from skelfit.bodies.keypoint_regressor import import_keypoints
from skelfit.cli import main
from skelfit.config.manifest import LabelSource, load_manifest
from skelfit.config.pipeline import load_pipeline
from skelfit.errors import ConfigError, InputError, LabelError
from skelfit.images.fourdhumans_tars import read_tar_labels
from skelfit.labels.label_schema import recorded_sha256
from skelfit.labels.label_store import build_store, read_rows
from skelfit.labels.readers.registry import detect_layout, read_label_file
from skelfit.learning.inference.person_boxes import BoxFile
from skelfit.storage.path_checks import (
    count_endings,
    describe_non_file,
    describe_skipped,
    require_regular_file,
)
from skelfit.storage.tensor_files import read_tensor_file
from skelfit.storage.unpickle import load_pickle


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_folder(path: Path) -> None:
    path.mkdir()


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")  # links are followed


NON_FILES: dict[Callable[[Path], None], str] = {
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


@pytest.mark.parametrize("make", NON_FILES)
def test_what_is_no_regular_file_is_named(short: Path, make: Callable[[Path], None]) -> None:
    path = short / "x"
    make(path)
    assert describe_non_file(path) == NON_FILES[make]
    with pytest.raises(LabelError) as caught:
        require_regular_file(path, "a label file", LabelError)
    assert str(caught.value) == f"x: expected a label file, found {caught.value.found}"
    assert caught.value.found == f"{NON_FILES[make]}, not a regular file"


def test_files_and_what_is_not_there_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    (tmp_path / "z").symlink_to(tmp_path / "gone")
    for name in ("x", "y", "z", "gone", "a\0b"):
        assert describe_non_file(tmp_path / name) == ""
        require_regular_file(tmp_path / name, "a YAML file", ConfigError)


def test_what_is_skipped_is_one_line() -> None:
    names = ["a.HEIC", "b.heic", "c", ".hidden", "d.txt", "e.a", "f.b", "g.c"]
    endings = count_endings(map(Path, names))
    assert describe_skipped(endings, "images") == (
        "7 files are skipped, not read as images: 2 .heic, 1 .a, 1 .b, 1 .c, 1 .txt, 1 more"
    )
    assert describe_skipped(count_endings([Path("x.txt")]), "sequences") == (
        "1 file is skipped, not read as sequences: 1 .txt"
    )
    assert describe_skipped(count_endings([Path("c")]), "images").endswith(
        "not read as images: 1 without an ending"
    )
    assert describe_skipped(count_endings([Path(".DS_Store")]), "images") == ""


# What opens files of others: a process that waits for a pipe is woken after some seconds, and the test fails.

OPENERS: dict[str, Callable[[Path], object]] = {
    "x.npz": read_label_file,
    "a.npz": detect_layout,
    "b.npz": lambda path: build_store(LabelSource(str(path)), path, path.parent / "stores"),
    "c.npz.sha256": lambda path: recorded_sha256(path.with_suffix("")),
    "x.yaml": load_manifest,
    "y.yaml": load_pipeline,
    "x.tar": lambda path: read_tar_labels([path]),
    "x.pt": lambda path: read_tensor_file(path, "a checkpoint", InputError),
    "x.safetensors": lambda path: read_tensor_file(path, "a checkpoint", InputError),
    "x.pkl": load_pickle,
    "d.npz": read_npz,
    "x.npy": lambda path: import_keypoints(path, path.parent / "models"),
    "x.json": BoxFile,
}


@pytest.fixture
def impatient() -> Iterator[None]:
    def wake(*_: object) -> None:
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, wake)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.parametrize("make", NON_FILES)
def test_no_reader_waits_for_what_is_no_file(
    short: Path, impatient: None, make: Callable[[Path], None], name: str
) -> None:
    path = short / name
    make(path)
    if name == "b.npz" and make is make_folder:
        return  # a folder of sequences, see below
    with pytest.raises(InputError) as caught:
        OPENERS[name](path)
    assert caught.value.path == name
    assert caught.value.found == f"{NON_FILES[make]}, not a regular file" and "\n" not in str(caught.value)


def test_a_pipe_among_sequences_is_a_bad_row(short: Path, impatient: None) -> None:
    """So is a file that cannot be read; a folder with the ending of a file is looked into."""
    write(short / "motions/good.npz", amass(3))
    write(short / "motions/walks.npz/one.npz", amass(2))
    make_pipe(short / "motions/pipe.npz")
    (short / "motions/gone.npz").symlink_to("nowhere")
    batch = read_rows(build_store(LabelSource("motions"), short / "motions", short / "stores"), 0, 7)
    names = [sequence.name for sequence in batch.sequences for _ in range(sequence.frames)]
    assert names == ["gone", *["good"] * 3, "pipe", *["walks.npz/one"] * 2]
    assert batch.bad[0].startswith(
        "bad_file: expected a label file (an .npz, .npy, HDF5, torch or pickle file)"
    )
    assert batch.bad[0].endswith("found no such file")
    assert batch.bad[4].endswith("found a named pipe, not a regular file")
    assert [i for i, bad in enumerate(batch.bad) if bad] == [0, 4]


@pytest.mark.parametrize("option", ["--labels", "--manifest", "--pipeline"])
def test_the_command_line_says_it_in_one_line(short: Path, impatient: None, option: str) -> None:
    write(short / "x.npz", amass(2))
    make_pipe(short / "pipe")
    options = {"--labels": "x.npz"} if option == "--pipeline" else {}
    options |= {option: "pipe", "--out": "out", "--workers": "0"}
    result = CliRunner().invoke(main, ["convert", *(word for pair in options.items() for word in pair)])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("found a named pipe, not a regular file")
    assert "Traceback" not in result.output
