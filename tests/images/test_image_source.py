"""Images for the shards: whole ones as they are, and a reason for every other."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from pathlib import Path

import pytest
from job_fakes import picture
from PIL import Image

from skelfit.config.pipeline import ImageConfig
from skelfit.images import image_source as source
from skelfit.images.image_bytes import (
    DAMAGED,
    IDENTITY,
    MAX_BYTES,
    MISSING,
    NO_CROP,
    TOO_LARGE,
    UNKNOWN_PIXELS,
    UNREADABLE,
    ShardImage,
    check_image,
)
from skelfit.images.image_source import FolderImages, read_image, read_images
from skelfit.images.square_crop import CropBox
from skelfit.shards.row_status import IMAGE_KINDS


def fault(data: bytes) -> str:
    return check_image(data, "jpg").reason


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_whole_image_is_good_and_a_cut_one_is_not(form: str) -> None:
    data = picture(0, 64, form)
    assert fault(data) == ""
    cuts = range(0, len(data) - 2, max(1, len(data) // 60))
    assert [cut for cut in cuts if fault(data[:cut]) != DAMAGED] == []


def test_a_whole_jpeg_is_told_without_being_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture(0, 64)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    assert fault(data) == fault(data + b"what some cameras leave behind it") == ""


def test_what_only_looks_cut_is_decoded() -> None:
    # A marker of a scan behind the picture: doubtful, and yet whole.
    assert fault(picture(0, 64) + b"\xff\xda behind") == ""
    assert fault(b"") == fault(b"<html>404</html>") == fault(os.urandom(5000)) == DAMAGED


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    """A small file may unfold to gigabytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )
    assert fault(bomb) == TOO_LARGE
    stream = io.BytesIO()
    Image.new("L", (10_001, 10_000)).save(stream, "PNG")
    assert fault(stream.getvalue()) == TOO_LARGE


def test_every_fault_has_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good.JPG"
    good.write_bytes(picture(0))
    assert read_image(good) == ShardImage(picture(0), "jpg", "", (16, 16), IDENTITY)
    assert read_image(None).reason == MISSING
    assert read_image(tmp_path / "none.jpg").reason == MISSING
    assert read_image(good / "below a file.jpg").reason == MISSING
    assert read_image(tmp_path / "a\0b.jpg").reason == MISSING
    (tmp_path / "label.npy").write_bytes(picture(0))
    assert read_image(tmp_path / "label.npy").why == f"{MISSING}: its name ends with .npy, which is not read"
    (tmp_path / "empty.jpg").touch()
    assert read_image(tmp_path / "empty.jpg").reason == DAMAGED
    (tmp_path / "folder.jpg").mkdir()
    assert read_image(tmp_path / "folder.jpg").why == f"{UNREADABLE}: a folder, not a regular file"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_image(tmp_path / "pipe.jpg").why == f"{UNREADABLE}: a named pipe, not a regular file"
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    assert read_image(tmp_path / "device.jpg").why == f"{UNREADABLE}: a device, not a regular file"
    (tmp_path / "ring.jpg").symlink_to(tmp_path / "ring.jpg")
    assert read_image(tmp_path / "ring.jpg").why == f"{UNREADABLE}: Too many levels of symbolic links"
    assert read_image(tmp_path / f"{'long' * 100}.jpg").reason == UNREADABLE
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    huge = f"{TOO_LARGE}: 67,108,865 bytes, at most 67,108,864 are read"
    assert read_image(tmp_path / "huge.jpg").why == huge
    assert {f"image_{kind}" for kind in IMAGE_KINDS} - {"image_found"} == {
        MISSING,
        UNREADABLE,
        DAMAGED,
        TOO_LARGE,
        NO_CROP,
        UNKNOWN_PIXELS,
    }


def test_pictures_come_in_order_and_only_a_few_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def read(path: Path) -> ShardImage:
        begun.append(path)
        time.sleep(0.02 if path.stem.endswith("0") else 0)
        return ShardImage(path.stem.encode())

    monkeypatch.setattr(source, "read_image", read)
    folder, box = FolderImages(Path("images")), CropBox(8, 8, 8)
    wanted = [(f"{i}.jpg", box) for i in range(100)]
    pictures = read_images(folder, wanted, ImageConfig())
    assert next(pictures).data == b"0"
    assert len(begun) <= (source.AHEAD + 1) * source.TOGETHER
    assert [p.data for p in pictures] == [str(i).encode() for i in range(1, 100)]
    stopped = read_images(folder, wanted, ImageConfig())
    next(stopped)
    begun.clear()
    stopped.close()
    assert len(begun) <= source.AHEAD * source.TOGETHER


def test_people_of_one_image_in_a_row_share_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def read(path: Path) -> ShardImage:
        begun.append(path.stem)
        return ShardImage(path.stem.encode())

    monkeypatch.setattr(source, "read_image", read)
    wanted = [(f"{name}.jpg", CropBox(8, 8, 8)) for name in "aabbbca"]
    pictures = read_images(FolderImages(Path("images")), wanted, ImageConfig())
    assert b"".join(p.data or b"" for p in pictures) == b"aabbbca"
    assert sorted(begun) == sorted("abca")
