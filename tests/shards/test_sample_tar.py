"""Tars of samples: the bytes are those that webdataset and tarfile write."""

from __future__ import annotations

import io
import tarfile
from typing import cast

import pytest
import webdataset

from skelfit.shards import sample_tar as module
from skelfit.shards.sample_tar import member_header, sample_tar

SAMPLES: list[tuple[str, dict[str, bytes]]] = [
    ("a-0-00000000", {"meta.json": b"{}", "label.npy": bytes(1996), "jpg": b"\xff" * 511}),
    ("a-0-00000001", {"meta.json": b"", "label.npy": b"x" * 512}),
    ("k" * 91, {"meta.json": b"a name of a hundred bytes"}),
    ("k" * 92, {"meta.json": b"one more"}),
    ("für-0-00000002", {"jpg": b"no ASCII"}),
    ("b" * 300, {"png": b"long"}),
]


def theirs(samples: list[tuple[str, dict[str, bytes]]]) -> bytes:
    stream = io.BytesIO()
    with webdataset.TarWriter(stream, user="", group="", mtime=0, encoder=False) as tar:
        for key, members in samples:
            tar.write({"__key__": key, **members})
    return stream.getvalue()


@pytest.mark.parametrize(("buffer", "large"), [(1, 1 << 15), (5000, 600), (1 << 18, 0), (1 << 18, 1 << 15)])
def test_a_tar_is_the_one_of_webdataset(buffer: int, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUFFER", buffer)
    monkeypatch.setattr(module, "_LARGE", large)
    for count in range(len(SAMPLES) + 1):
        stream = io.BytesIO()
        with sample_tar(cast(io.RawIOBase, stream)) as tar:
            for key, members in SAMPLES[:count]:
                tar.write(key, members)
        assert stream.getvalue() == theirs(SAMPLES[:count])


@pytest.mark.parametrize("size", [0, 1, 8, 1996, 67 << 20, 8**11 - 1, 8**11, 9 << 40])
def test_a_header_is_the_one_of_tarfile(size: int) -> None:
    for name in ("", "a.jpg", "z" * 100, "z" * 101, "\x7f~ é"):
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o444
        assert member_header(name, size) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
