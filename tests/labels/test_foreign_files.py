"""Files that are not label files: the one line says what each is, who writes it and what to do, and nothing is run."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from programs import shell_words
from safetensors.numpy import save as save_tensors

from skelfit.config.manifest import LabelSource
from skelfit.errors import LabelError
from skelfit.images.fourdhumans_tars import read_tar_labels
from skelfit.labels.label_schema import check_keys
from skelfit.labels.label_store import build_store, read_rows
from skelfit.labels.readers.registry import detect_layout, read_label_file


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return stream.getvalue()


def saved(save: Callable[[Any], object]) -> bytes:
    stream = io.BytesIO()
    save(stream)
    return stream.getvalue()


def tarred(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


def as_torch(content: Any, **options: Any) -> bytes:
    return saved(lambda stream: torch.save(content, stream, **options))


def hdf5(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, value in arrays.items():
            file[name.replace("__", "/")] = value
    return stream.getvalue()


PERSON = {"global_orient": np.zeros((2, 3)), "body_pose": np.zeros((2, 63)), "betas": np.ones((2, 10))}
TENSORS = {name: torch.tensor(value) for name, value in PERSON.items()}
TRACK: dict[str, Any] = {"pose": np.zeros((2, 72)), "betas": np.zeros((2, 10)), "trans": np.ones((2, 3))}
TRACKS = defaultdict(dict, {np.int64(3): TRACK, np.int64(11): TRACK})
ROMP = {"smpl_thetas": np.zeros((2, 72)), "smpl_betas": np.zeros((2, 10)), "cam_trans": np.ones((2, 3))}
MESHES = np.empty(2, object)
MESHES[:] = [np.random.default_rng(0).uniform(-0.8, 0.8, (6890, 3))] * 2
NETWORK = {"state_dict": {"head.weight": torch.zeros(2, 2)}}
MODEL: dict[str, Any] = {
    "v_template": np.zeros((9, 3)),
    "shapedirs": np.zeros((9, 3, 10)),
    "weights": np.zeros((9, 2)),
}
JOBLIB, SAVEZ = "a joblib pickle", "np.savez"

# The content, and what the line says of it: what it is first.
KINDS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "checkpoint": (as_torch(NETWORK), ("a torch file with the weights of a network", "no labels")),
    "old checkpoint": (
        as_torch(NETWORK, _use_new_zipfile_serialization=False),
        ("a torch file with the weights of a network", "no labels"),
    ),
    "cut torch": (as_torch(TENSORS)[:-60], ("a truncated torch file", "download")),
    "nested integers": (
        pickle.dumps({"m": {np.int32(7): np.zeros(3)}, "n": {-1: 1}}),
        ("a pickle with integer keys (-1, 7)", SAVEZ),
    ),
    "groups of integers": (hdf5(**{"4__pose": 1, "5__pose": 1}), ("an hdf5 with integer keys (4, 5)", SAVEZ)),
    "npz of lists": (
        saved(lambda stream: np.savez(stream, meshes=MESHES)),
        ("an npz with an object array ('meshes')", "allow_pickle=True", SAVEZ),
    ),
    "npz without names": (
        saved(lambda stream: np.savez(stream, 1, 2)),
        ("an npz whose arrays have no", SAVEZ),
    ),
    "joblib, lz4": (b"\x04\x22\x4d\x18" + bytes(9), (f"{JOBLIB} compressed by lz4", "joblib.load")),
    "joblib before 0.10": (
        b"ZF" + hex(9).ljust(19).encode() + zlib.compress(pickle.dumps({})),
        (f"{JOBLIB} compressed by zlib", "joblib.load"),
    ),
    "pickled path": (
        pickle.dumps({"a": Path("x")}),
        ("a pickle with objects of the package 'pathlib'", SAVEZ),
    ),
    "pickled array": (pickle.dumps(np.zeros(3)), ("a pickled numpy array, and neither a dictionary",)),
    "old pickle": (pickle.dumps({"a": 1}, 0), ("a pickle of protocol 0 or 1", "latin1")),
    "old pickle, binary": (pickle.dumps({"a": 1}, 1), ("a pickle of protocol 0 or 1", "latin1")),
    "empty": (b"", ("an empty file", "again")),
    "zeros": (bytes(5000), ("a file that begins with zeros only", "again")),
    "cut npz": (saved(lambda stream: np.savez(stream, **TRACK))[:-40], ("a truncated .npz file", "again")),
    "cut pickle": (pickle.dumps(PERSON)[:-40], ("one that is cut off",)),
    "cut gzip": (
        gzip.compress(b"a,b\n" * 99)[:-9],
        ("a file compressed by gzip that holds a CSV table", "unpack"),
    ),
    "damaged zlib": (b"\x78\x9c" + b"\xff" * 30, ("a damaged file compressed by zlib", "again")),
    "zip": (zipped(a_dot_npz=b"1", b_dot_npz=b"2"), ("a zip archive of a.npz, b.npz", "unpack")),
    "tar": (tarred("1.data.pyd"), ("a tar archive (the first member is '1.data.pyd')", "skelfit tar-labels")),
    "tar.gz": (gzip.compress(tarred("a")), ("a file compressed by gzip that holds a tar archive", "unpack")),
    "parquet": (b"PAR1" + bytes(30), ("a Parquet table", "pandas", SAVEZ)),
    "safetensors": (save_tensors(PERSON), ("a safetensors file", "load_file", SAVEZ)),
    "MATLAB 5": (
        saved(lambda s: scipy.io.savemat(s, {"a": 1})),
        ("a MATLAB 5 file", "SURREAL", "loadmat", SAVEZ),
    ),
    "MATLAB 7.3": (b"MATLAB 7.3 MAT-file".ljust(512) + hdf5(a=1), ("a MATLAB 7.3 file", "h5py", SAVEZ)),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(20), ("a PNG image", "--images")),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(20), ("a JPEG image", "--images")),
    "WebP": (b"RIFF\x10\0\0\0WEBPVP8 ", ("a WebP image", "--images")),
    "MP4": (b"\0\0\0\x20ftypisom" + bytes(20), ("an MP4 or QuickTime video", "--images")),
    "AVI": (b"RIFF\x10\0\0\0AVI LIST", ("an AVI video", "--images")),
    "C3D": (b"\x02P" + bytes(510), ("a C3D file", "motion capture")),
    "BVH": (b"HIERARCHY\nROOT Hips\n", ("a BVH motion", "motion capture")),
    "FBX": (b"Kaydara FBX Binary  \0\x1a\0", ("an FBX scene", "Blender")),
    "TRC": (b"PathFileType\t4\t(X/Y/Z)\tx.trc\n", ("a TRC file", "OpenSim")),
    "MOT": (b"name\nversion=1\nnRows=2\nendheader\ntime\tx\n", ("an OpenSim .mot or .sto table", "SMPL")),
    "JSON": (b'{"annotations": [1, 2]}', ("a JSON file", "COCO", "json.load", SAVEZ)),
    "cut JSON": (b'[{"image_id": 1, "bbox": [1', ("a JSON file", "COCO")),
    "CSV": (b"imgname,pose,betas\na.jpg,1,2\n", ("a CSV table", "pandas", SAVEZ)),
    "YAML": (b"pose: [1, 2]\n", ("a YAML file", SAVEZ)),
    "XML": (b"<?xml version='1.0'?>\n<a/>", ("an XML file", SAVEZ)),
    "HTML": (b"\n<!DOCTYPE html><html>Login</html>", ("an HTML page", "log in", "download")),
    "LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        ("a Git LFS pointer", "git lfs pull"),
    ),
    "text": ("Größe".encode(), ("a text file", SAVEZ)),
    "OBJ": (b"# mesh\nv 0 0 0\n", ("an OBJ mesh", "vertices")),
    "body model, npz": (saved(lambda s: np.savez(s, **MODEL)), ("a body model", "skelfit models import")),
    "body model, pickle": (pickle.dumps(MODEL), ("a body model", "skelfit models import")),
}


# Files that are read though they are no plain arrays: the content, and the layout.
READ: dict[str, tuple[bytes, str]] = {
    "torch": (as_torch(TENSORS), "hmr2"),
    "torch before zip": (as_torch(TENSORS, _use_new_zipfile_serialization=False), "hmr2"),
    "tracks": (pickle.dumps(TRACKS), "wham"),
    "npz of ROMP": (saved(lambda stream: np.savez(stream, results=ROMP)), "romp"),  # type: ignore[arg-type]
    "npz of a dictionary": (
        saved(lambda stream: np.savez(stream, a=PERSON, version=1)),  # type: ignore[arg-type]
        "hmr2",
    ),
    "npy of a dictionary": (saved(lambda stream: np.save(stream, PERSON)), "hmr2"),  # type: ignore[arg-type]
    "pickled tensors": (pickle.dumps(TENSORS), "hmr2"),
    "pickled tensors, packed": (gzip.compress(pickle.dumps(TENSORS)), "hmr2"),
}


@pytest.mark.parametrize("kind", READ)
def test_dictionaries_and_tensors_are_read_as_they_are(tmp_path: Path, kind: str) -> None:
    content, layout = READ[kind]
    (tmp_path / "x.npz").write_bytes(content)
    assert detect_layout(tmp_path / "x.npz")[0] == layout
    batch = read_label_file(tmp_path / "x.npz")
    assert set(batch.bad) == {""}
    np.testing.assert_array_equal(batch.betas, 0 if layout in ("wham", "romp") else 1)
    if layout == "wham":
        np.testing.assert_array_equal(batch.transl, 1)


@pytest.mark.parametrize("source", [None, "camerahmr"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_line_says_what_a_file_is_and_what_to_do(tmp_path: Path, kind: str, source: Any) -> None:
    """Whatever its name, and whether a layout is asked for or not."""
    content, facts = KINDS[kind]
    path = tmp_path / "labels.npz"
    path.write_bytes(content)
    with pytest.raises(LabelError) as caught:
        read_label_file(path, source)
    description = caught.value.found
    assert description.startswith(facts[0])
    assert all(fact in description for fact in facts), description
    assert (
        "\n" not in str(caught.value) and " object at 0x" not in description and "_Scalar" not in description
    )


@pytest.mark.parametrize("kind", ["npz of lists", "groups of integers", "zip", "body model, npz"])
def test_a_manifest_that_names_keys_hides_nothing(tmp_path: Path, kind: str) -> None:
    content, facts = KINDS[kind]
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(LabelError) as caught:
        check_keys(tmp_path / "x.npz", ["imgname"])
    assert caught.value.found.startswith(facts[0])


class Bomb:
    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.flag}",)


def test_nothing_is_run(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    content = {"smpl_thetas": Bomb(flag)}
    whole = [pickle.dumps(content, protocol) for protocol in range(6)]
    bombs = [
        *whole,
        *(pack(whole[4]) for pack in (zlib.compress, gzip.compress, bz2.compress, lzma.compress)),
    ]
    bombs += [
        saved(lambda s: np.savez(s, results=content)),  # type: ignore[arg-type]
        saved(lambda s: np.save(s, content)),  # type: ignore[arg-type]
        zipped(x__data_dot_pkl=whole[2], x__version=b"3"),
        as_torch(content, _use_new_zipfile_serialization=False),
    ]
    for number, bomb in enumerate(bombs):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(bomb)
        with pytest.raises(LabelError):
            read_label_file(path)
    assert not flag.exists()
    pickle.loads(whole[4])  # the bomb would have gone off
    assert flag.exists()


@pytest.mark.parametrize(("kind", "layout"), [("safetensors", "hmr2")])
def test_the_command_of_a_message_makes_a_label_file(tmp_path: Path, kind: str, layout: str) -> None:
    path = tmp_path / "my $file's.npz"
    path.write_bytes(KINDS[kind][0])
    with pytest.raises(LabelError) as caught:
        detect_layout(path)
    description = caught.value.found
    command = description[description.index('python -c "') :].rsplit(" (", 1)[0]
    command = command.replace("python", shell_words(), 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "my $file's-arrays.npz"
    assert detect_layout(made)[0] == layout
    batch = read_label_file(made)
    assert batch.bad == [""] * 2


def test_heads_of_large_files_are_enough(tmp_path: Path) -> None:
    """A gigabyte of zeros behind the beginning (not on the disk) is not looked at."""
    path = tmp_path / "x.npz"
    path.write_bytes(gzip.compress(bytes(2**20)) + KINDS["PNG"][0])
    with open(path, "r+b") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        stream.truncate(2**30)
    with pytest.raises(LabelError, match="a PNG image"):
        read_label_file(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Alone it is an error; in a folder of sequences it is a row, and the others are read."""
    folder = tmp_path / "sequences"
    folder.mkdir()
    os.mkfifo(folder / "x.npz")
    expected = "found a named pipe, not a regular file"
    with pytest.raises(LabelError, match=expected):
        read_label_file(folder / "x.npz")
    with pytest.raises(LabelError, match=expected):
        build_store(LabelSource(path="x.npz"), folder / "x.npz", tmp_path / "stores", 10.0)
    np.savez(folder / "y.npz", poses=np.zeros((3, 72)), betas=np.zeros(10), trans=np.zeros((3, 3)))
    batch = read_rows(build_store(LabelSource(path="."), folder, tmp_path / "stores", 10.0), 0, 4)
    assert batch.bad[0].startswith("bad_file: ") and batch.bad[0].endswith(expected)
    assert batch.bad[1:] == [""] * 3


@pytest.mark.parametrize("kind", ["PNG", "tar.gz", "JSON"])
def test_what_is_no_tar_of_labels(tmp_path: Path, kind: str) -> None:
    content, facts = KINDS[kind]
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(LabelError) as caught:
        read_tar_labels([tmp_path / "x.tar"])
    assert caught.value.found.startswith(facts[0])
