"""Every kind of image file to 8-bit RGB: scaled and never clipped, by one function wherever images are read."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fakes import make_fields, make_metas, write_run
from PIL import Image

from skelfit.config.pipeline import ImageConfig
from skelfit.images import decoding as pixels
from skelfit.images import image_bytes
from skelfit.images.decoding import TooLargeError, UnknownPixelsError, decode, open_image, shrink_for, to_rgb
from skelfit.images.image_bytes import (
    DAMAGED,
    IDENTITY,
    TOO_LARGE,
    UNKNOWN_PIXELS,
    check_image,
    faulty_image,
)
from skelfit.images.square_crop import CropBox, cut_crops
from skelfit.learning.data.data_loader import DataConfig, each_once
from skelfit.learning.data.person_crops import Square, read_crop
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.inference.given_images import GivenImage
from skelfit.learning.inference.intrinsics import exif_focal, from_diagonal, plugged_in
from skelfit.learning.inference.person_boxes import whole_photo
from skelfit.learning.inference.photo_results import PhotoFile
from skelfit.learning.inference.photos import PhotoSettings, prepare_photo
from skelfit.shards.row_statistics import Summary

SIDE = 32
RAMP = np.add.outer(np.arange(SIDE), np.arange(SIDE)) / (2 * SIDE - 2)  # 0 to 1, from corner to corner


def coded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def of(values: np.ndarray, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(values)
    assert mode is None or image.mode == mode
    return image


def gray(bits: int) -> np.ndarray:
    return np.rint(RAMP * (2**bits - 1))


def retagged(tiff: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag that holds one short."""
    data = bytearray(tiff)
    assert data[:2] == b"II"
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<H", data, at + 8, value)
            return bytes(data)
    raise AssertionError(f"no tag {tag}")


def twelve_bits() -> bytes:
    """A TIFF of 12 bits per pixel, two pixels in three bytes."""
    values = gray(12).astype(int).reshape(-1, 2)
    packed = np.stack(
        [values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], 1
    ).astype(np.uint8)
    entries = [(256, SIDE), (257, SIDE), (258, 12), (259, 1), (262, 1), (277, 1), (278, SIDE)]
    head = 8 + 2 + 12 * (len(entries) + 2) + 4
    ifd = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries[:5])
    ifd += struct.pack("<HHII", 273, 4, 1, head)
    ifd += b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries[5:])
    ifd += struct.pack("<HHII", 279, 4, 1, packed.size)
    return b"II*\0" + struct.pack("<IH", 8, len(entries) + 2) + ifd + bytes(4) + packed.tobytes()


WORDS, BYTES = gray(16).astype("u2"), gray(8).astype(np.uint8)
SHADED = {
    "8-bit PNG": coded(of(BYTES, "L"), "PNG"),
    "16-bit PNG": coded(of(WORDS, "I;16"), "PNG"),
    "16-bit TIFF": coded(of(WORDS), "TIFF"),
    "16-bit TIFF, big-endian": coded(of(WORDS.astype(">u2"), "I;16B"), "TIFF"),
    "16-bit JPEG 2000": coded(of(WORDS), "JPEG2000"),
    "12-bit TIFF": twelve_bits(),
    "32-bit TIFF of 16 bits": coded(of(WORDS.astype("i4"), "I"), "TIFF"),
    "32-bit TIFF of 8 bits": coded(of(BYTES.astype("i4"), "I"), "TIFF"),
    "floats to 1": coded(of(RAMP.astype("f4"), "F"), "TIFF"),
    "floats to 255": coded(of(gray(8).astype("f4"), "F"), "TIFF"),
    "floats to 65535": coded(of(gray(16).astype("f4"), "F"), "TIFF"),
    "16-bit TIFF, white is zero": retagged(coded(of(65535 - WORDS), "TIFF"), 262, 0),
    "with alpha": coded(Image.merge("LA", (of(BYTES), of(BYTES[::-1].copy()))), "PNG"),
    "RGBA": coded(of(np.dstack([BYTES] * 3 + [BYTES[::-1]]), "RGBA"), "PNG"),
    "a palette": coded(of(BYTES).convert("P"), "PNG", transparency=7),
    "several frames": coded(of(BYTES), "GIF", save_all=True, append_images=[of(255 - BYTES)]),
    "several pages": coded(of(BYTES), "TIFF", save_all=True, append_images=[of(255 - BYTES)]),
    "AVIF": coded(of(BYTES), "AVIF", quality=100),
    "JPEG 2000": coded(of(BYTES), "JPEG2000"),
    "CMYK": coded(of(np.dstack([BYTES] * 3)).convert("CMYK"), "TIFF"),
}


def rgb_of(data: bytes) -> np.ndarray:
    with open_image(data) as image:
        rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    return np.asarray(rgb, int)


@pytest.mark.parametrize("kind", SHADED)
def test_shades_stay_what_they_are(kind: str) -> None:
    """Black is 0, white 255, and all between lies between, whatever a file codes its shades with."""
    assert check_image(SHADED[kind], "any").reason == ""
    rgb = rgb_of(SHADED[kind])
    # Both codecs of video change a shade a little; a palette and AVIF may change two.
    assert np.abs(rgb - BYTES[..., None].astype(int)).max() <= (2 if kind in ("AVIF", "a palette") else 1)


def everyones(data: bytes, folder: Path) -> dict[str, np.ndarray]:
    """The pixels that convert, the loader and predict make of an image."""
    config = ImageConfig(mode="crop", size=64, margin=1.0, quality=100)
    (crop,) = cut_crops(check_image(data, "any"), [CropBox(16, 16, SIDE)], config)
    assert crop.data is not None
    (folder / "a.png").write_bytes(data)
    given = GivenImage(PhotoFile(folder / "a.png", "a"))
    seen = prepare_photo(given, PhotoSettings(whole_photo, from_diagonal, 1.0, crop=64))
    (shot,) = seen.inputs
    return {
        "convert": rgb_of(crop.data),
        "loader": read_crop(data, IDENTITY, Square(16, 16, SIDE), 64).astype(int),
        "predict": np.asarray(shot.pixels, int),
    }


@pytest.mark.parametrize("kind", SHADED)
def test_convert_loader_and_predict_see_the_same(kind: str, tmp_path: Path) -> None:
    images, plain = (everyones(SHADED[each], tmp_path) for each in (kind, "8-bit PNG"))
    for where, shown in images.items():
        assert shown.std() > 40, where
        assert np.abs(shown - plain[where]).max() <= 4, where


def test_bits_are_told_by_the_first_two_bytes_of_the_range() -> None:
    """Black and white of 16 bits are those of 8, and rounding is to the nearest."""
    values = np.array([[0, 128, 129, 257, 32767, 32768, 65406, 65407, 65535]], "u2")
    assert rgb_of(coded(of(values), "PNG"))[0, :, 0].tolist() == [0, 0, 1, 1, 127, 128, 254, 255, 255]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[-0.5, 0.5]], np.float32), "floats from -0.5 to 0.5"),
        (np.array([[0, 1.3]], np.float32), "floats from 0 to 1.3"),
        (np.array([[0, 300]], np.float32), "floats from 0 to 300"),
        (np.array([[0, 1e9]], np.float32), "floats from 0 to 1e+09"),
        (np.array([[0, np.nan]], np.float32), "not finite"),
        (np.array([[-1, 9]], np.int32), "32-bit integers from -1 to 9"),
        (np.array([[0, 70000]], np.int32), "32-bit integers from 0 to 70000"),
    ],
)
def test_pixels_of_no_known_range_are_refused(values: np.ndarray, found: str) -> None:
    data = coded(of(values), "TIFF")
    with open_image(data) as image, pytest.raises(UnknownPixelsError, match=found.replace("+", r"\+")):
        to_rgb(image)
    picture = check_image(data, "tif")
    assert (picture.data, picture.reason) == (None, UNKNOWN_PIXELS) and found in picture.detail
    assert picture.why == f"image_unknown_pixels: {picture.detail}"


def test_colours_without_a_conversion_are_refused() -> None:
    with pytest.raises(UnknownPixelsError, match="pixels of mode La, which have no conversion to RGB"):
        to_rgb(Image.new("La", (4, 4)))


def test_a_row_says_what_is_wrong_with_its_image_and_is_counted() -> None:
    def row(image: bool | None, reason: str) -> dict[str, Any]:
        known = {
            "status": "ok",
            "unseen_keypoints": 0,
            "pve_mm": 1.0,
            "stage_pve_mm": {},
            "skel_gender": "male",
        }
        return {**known, "betas_mm": {}, "image": image, "reason": reason}

    rows = [
        row(True, ""),
        row(False, "image_missing"),
        row(False, "limit_deg 12 > 5; image_too_large: 20000 x 10000 px, at most 100,000,000 pixels"),
        row(False, "image_missing: its name ends with .image_x"),
        row(None, ""),
    ]
    counts = Summary.of_rows(rows).to_json()["images"]
    assert counts["found"] == 1 and counts["missing"] == 2 and counts["too_large"] == 1
    assert sum(counts.values()) == 4


def test_the_loader_reads_deep_pixels_of_finished_shards(tmp_path: Path) -> None:
    """Shards of mode `bytes` hold the file as it is."""
    fields = make_fields(2)
    fields["center"][:], fields["scale"][:] = SIDE / 2, SIDE / 200
    metas = make_metas(
        2, image=[True] * 2, image_size=[[SIDE, SIDE]] * 2, affine=[[list(line) for line in IDENTITY]] * 2
    )
    images = {0: ("png", SHADED["16-bit PNG"]), 1: ("png", SHADED["8-bit PNG"])}
    folder = write_run(tmp_path / "run", fields, metas, images=images, shard_size=4, subset="deep")
    config = DataConfig((SubsetConfig(f"{folder}/*.tar"),), batch_size=2, workers=0)
    (batch,) = each_once(config, crop=64)
    deep, plain = batch.pixels.int()
    assert len(torch.unique(plain)) > 100 and (deep - plain).abs().max() <= 1


def test_an_overlarge_image_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = coded(Image.new("L", (60, 50)), "PNG")
    monkeypatch.setattr(pixels, "MAX_PIXELS", 2999)
    picture = check_image(data, "png")
    assert picture.why == f"{TOO_LARGE}: 60 x 50 px, at most 2,999 pixels are read"
    with pytest.raises(TooLargeError, match="60 x 50 px, at most 2,999"):
        read_crop(data, IDENTITY, Square(9, 9, 9), 16)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own error comes at twice that
    assert check_image(data, "png").why == f"{TOO_LARGE}: 3,000 pixels, at most 1,000 pixels are read"


def turned(data: Image.Image, form: str) -> bytes:
    """An image that is to be shown turned by a quarter, taken with 50 mm (35 mm film)."""
    exif = Image.Exif()
    exif[0x0112], exif[271] = 6, "maker"
    exif.get_ifd(0x8769)[0xA405] = 50
    return coded(data, form, exif=exif)


def test_predict_turns_deep_pixels_and_keeps_their_exif(tmp_path: Path) -> None:
    """An EXIF orientation is followed by predict alone; what it shows is still scaled, and still has its EXIF."""
    wide = WORDS[:20]
    for form in ("PNG", "TIFF"):
        path = tmp_path / f"a.{form.lower()}"
        path.write_bytes(turned(of(wide), form))
        cameras: list[Any] = []

        def find(photo: Image.Image, seen: list[Any] = cameras) -> Any:
            seen.append((photo.getexif().get(271), exif_focal(photo)))
            return from_diagonal(photo)

        (one,) = (
            prepare_photo(GivenImage(PhotoFile(path, "a")), PhotoSettings(whole_photo, find, 1.0, crop=32)),
        )
        assert one.picture is not None
        shown = one.picture[..., 0].astype(int)
        assert np.abs(shown - np.rot90(rgb_of(SHADED["8-bit PNG"])[:20, :, 0], -1)).max() <= 1
        assert cameras[0][0] == "maker"
        if form == "PNG":  # Pillow writes no more of a TIFF's EXIF
            assert cameras[0][1] == pytest.approx(50 / np.hypot(36, 24) * np.hypot(20, SIDE))


def test_a_camera_of_ones_own_is_shown_rgb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_camera_of_pixels.py").write_text(
        "SEEN = []\ndef tell(photo):\n    SEEN.append((photo.mode, photo.getexif().get(271)))\n    return 9, 9, 9, 9\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    find = plugged_in("own_camera_of_pixels:tell")
    exif = Image.Exif()
    exif[271] = "maker"
    for kind, form in (("16-bit", "TIFF"), ("alpha", "PNG"), ("8-bit", "JPEG")):
        image = {"16-bit": of(WORDS), "alpha": Image.new("RGBA", (8, 8)), "8-bit": Image.new("L", (8, 8))}[
            kind
        ]
        with open_image(coded(image, form, exif=exif)) as photo:
            find(photo)
    import own_camera_of_pixels  # type: ignore[import-not-found]

    assert own_camera_of_pixels.SEEN == [("RGB", "maker")] * 3
    json.dumps(own_camera_of_pixels.SEEN)


def as_pillow(data: bytes, shrink: int) -> np.ndarray:
    with open_image(data) as image:
        image.draft(None, (max(1, image.width // shrink), max(1, image.height // shrink)))
        return np.asarray(to_rgb(image))


def rough_jpeg(mode: str = "RGB", size: tuple[int, int] = (131, 97), **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    return coded(Image.fromarray(noise).resize(size).convert(mode), "JPEG", **options)


JPEGS = {
    "usual": rough_jpeg(quality=90),
    "gray": rough_jpeg("L"),
    "CMYK": rough_jpeg("CMYK"),
    "progressive": rough_jpeg(progressive=True),
    "whole colours": rough_jpeg(subsampling=0),
    "RGB inside": rough_jpeg(keep_rgb=True),
    "a pixel": rough_jpeg(size=(1, 1)),
    "a line": rough_jpeg(size=(1, 300)),
    "bytes behind it": rough_jpeg() + b"what some cameras leave",
}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_have_the_pixels_that_pillow_gives(kind: str) -> None:
    for shrink in (1, 2, 4, 8):
        seen, unit = decode(JPEGS[kind], shrink)
        assert seen.shape[2] == 4
        if unit == shrink:  # Pillow shrinks no image of a few pixels
            shown = as_pillow(JPEGS[kind], shrink)
            if shown.shape == seen[..., :3].shape:
                np.testing.assert_array_equal(seen[..., :3], shown)
        with open_image(JPEGS[kind]) as image:
            assert seen.shape[1::-1] == tuple(-(-side // unit) for side in image.size)


def test_a_damaged_jpeg_is_what_pillow_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast decoder refuses whatever makes libjpeg warn, and Pillow has the last word."""
    whole = rough_jpeg(quality=90)
    rng = np.random.default_rng(0)
    files = [whole[:cut] for cut in range(0, len(whole), len(whole) // 12)]
    for _ in range(40):
        data = bytearray(whole)
        for at in rng.integers(20, len(whole), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        files.append(bytes(data))

    def seen() -> list[str]:
        results = []
        for data in files:
            try:
                results.append(decode(data)[0][..., :3].tobytes().hex())
            except Exception as error:
                results.append(faulty_image(error).reason)
        return results

    fast = seen()
    monkeypatch.setattr(pixels, "_decode_sound_jpeg", lambda *_: None)
    assert fast == seen()
    assert fast.count(DAMAGED) >= 12 and len(set(fast)) > 12


def test_a_sound_jpeg_is_not_for_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "open_image", lambda _: pytest.fail("decoded by Pillow"))
    for kind in ("usual", "gray", "progressive", "whole colours"):
        assert decode(JPEGS[kind], 2)[0].shape == (49, 66, 4)


def test_the_check_of_a_plain_jpeg_is_the_one_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its header has of damage: of each byte before the coded image, a bit is turned."""
    files = list(JPEGS.values())
    for whole in (JPEGS["usual"], JPEGS["gray"], JPEGS["progressive"]):
        for at in range(2, whole.index(b"\xff\xda") + 8):
            files.append(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        files += [whole[:at] for at in range(20, len(whole), 97)]
    with monkeypatch.context() as patch:
        patch.setattr(image_bytes, "open_image", lambda _: pytest.fail("opened by Pillow"))
        assert check_image(JPEGS["usual"], "jpg").size == check_image(JPEGS["gray"], "jpg").size == (131, 97)
    fast = [check_image(data, "jpg") for data in files]
    monkeypatch.setattr(image_bytes, "plain_jpeg_size", lambda _: None)
    assert fast == [check_image(data, "jpg") for data in files]
    assert sum(image.reason == DAMAGED for image in fast) > 100


@pytest.mark.parametrize(("scale", "shrink"), [(2, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.1, 8)])
def test_a_crop_never_gets_more_pixels_than_were_decoded(scale: float, shrink: int) -> None:
    assert shrink_for(scale) == shrink


def test_every_processor_gives_the_same_crops() -> None:
    """Decoder and coder, with and without the processor's vectors. The environment counts when they are loaded."""
    script = (
        "import hashlib, sys; from skelfit.config.pipeline import ImageConfig\n"
        "from skelfit.images.image_bytes import check_image\n"
        "from skelfit.images.square_crop import CropBox, cut_crops\n"
        "picture = check_image(sys.stdin.buffer.read(), 'jpg')\n"
        "boxes = [CropBox(60, 50, side) for side in (20, 60, 90, 400)]\n"
        "crops = cut_crops(picture, boxes, ImageConfig(mode='crop', size=64))\n"
        "print(*(hashlib.sha256(crop.data).hexdigest() for crop in crops))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            input=JPEGS["usual"],
            env=os.environ | {"JSIMD_FORCENONE": off},
            capture_output=True,
            check=True,
        ).stdout
        for off in ("0", "1")
    }
    assert len(seen) == 1 and len(seen.pop().split()) == 4
