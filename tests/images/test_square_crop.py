"""Crops of people: that the recorded affine says where everything went, and what becomes of odd boxes and images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from job_fakes import picture
from PIL import Image

from skelfit.config.pipeline import ImageConfig
from skelfit.images import square_crop
from skelfit.images.decoding import decode, shrink_for
from skelfit.images.image_bytes import DAMAGED, NO_CROP, ShardImage, check_image
from skelfit.images.square_crop import CropBox, crop_affine, cut_crops

CROP = ImageConfig(mode="crop", size=128, margin=1.5)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def pixels_of(crop: ShardImage) -> np.ndarray:
    assert crop.data is not None, crop.reason
    with Image.open(io.BytesIO(crop.data)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image, float)


def one(data: bytes, box: CropBox, config: ImageConfig = CROP) -> ShardImage:
    (crop,) = cut_crops(check_image(data, "jpg"), [box], config)
    return crop


def blob(width: int, height: int, x: float, y: float, sigma: float) -> np.ndarray:
    """A soft bright spot about (x, y); the middle of the top left pixel is (0.5, 0.5)."""
    across, down = np.arange(width) + 0.5 - x, np.arange(height) + 0.5 - y
    spot = 255 * np.exp(-(across**2 + down[:, None] ** 2) / (2 * sigma**2))
    return np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)


def spot_of(pixels: np.ndarray) -> np.ndarray:
    """Where the spot is: the centroid of what is brighter than a fifth of it."""
    light = np.clip(pixels.mean(axis=2) - 51, 0, None)
    across, down = np.arange(light.shape[1]) + 0.5, np.arange(light.shape[0]) + 0.5
    return np.array([light.sum(0) @ across, light.sum(1) @ down]) / light.sum()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("width", "height", "box", "shrink"),
    [
        (300, 200, CropBox(140.3, 90.8, 50.0), 1),  # enlarged
        (301, 203, CropBox(150.0, 100.0, 128 / 1.5), 1),  # as it is
        (640, 480, CropBox(320.2, 200.7, 300.0), 2),  # made smaller
        (640, 480, CropBox(20.0, 470.0, 250.0), 2),  # over two edges
        (641, 479, CropBox(630.0, 5.0, 90.0), 1),  # over two others, enlarged
        (150, 40, CropBox(70.0, 15.0, 400.0), 4),  # an image within its crop
        (1203, 901, CropBox(600.0, 450.0, 500.0), 4),
        (2001, 1207, CropBox(900.5, 500.5, 800.0), 8),
        (2003, 1501, CropBox(1900.0, 100.0, 1600.0), 8),
    ],
)
def test_the_affine_says_where_a_point_went(
    form: str, width: int, height: int, box: CropBox, shrink: int, rng: np.random.Generator
) -> None:
    """To a tenth of a pixel of the crop, and of the source image where that is coarser."""
    affine = np.array(crop_affine(box, CROP))
    scale = affine[0, 0]
    assert shrink_for(scale) == shrink
    reach = 0.5 * 1.5 * box.side
    low = np.maximum([box.x - reach, box.y - reach], 0)
    high = np.minimum([box.x + reach, box.y + reach], [width, height])
    sigma = min(max(2.0, 2 / scale), (high - low).min() / 8)
    for _ in range(3):
        point = low + (high - low) * rng.uniform(0.4, 0.6, 2)
        crop = one(encoded(blob(width, height, point[0], point[1], sigma), form), box)
        assert crop.size == (width, height) and crop.affine is not None
        np.testing.assert_array_equal(crop.affine, affine)
        pixels = pixels_of(crop)
        assert pixels.shape == (128, 128, 3)
        off = np.abs(spot_of(pixels) - affine @ [*point, 1])
        assert off.max() < 0.1 * max(1, scale), (point, off)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_labels_can_be_mapped() -> None:
    """Keypoints, box and camera, as the documentation says."""
    box = CropBox(300.0, 250.0, 240.0)
    affine = np.array(crop_affine(box, CROP))
    scale = affine[0, 0]
    np.testing.assert_allclose(affine @ [box.x, box.y, 1], [64, 64])
    assert scale * box.side == pytest.approx(128 / 1.5)
    camera = np.array([[900.0, 0, 320], [0, 905.0, 240], [0, 0, 1]])
    point = np.array([0.3, -0.2, 4.0])
    there = affine @ (camera @ point / point[2])
    cropped = np.vstack([affine, [0, 0, 1]]) @ camera
    np.testing.assert_allclose(cropped @ point / point[2], [*there, 1])


def test_a_crop_at_full_size_shows_the_image_and_black_around_it(rng: np.random.Generator) -> None:
    image = np.kron(rng.integers(40, 255, (20, 20, 1)), np.ones((8, 8, 3))).astype(np.uint8)
    config = ImageConfig(mode="crop", size=128, margin=1.0, quality=100)
    pixels = pixels_of(one(encoded(image), CropBox(160.0 - 24, 64.0, 128.0), config))
    near = np.abs(pixels[:, :88] - image[:128, 72:]).mean()
    assert near < 1  # what the JPEG loses
    assert np.abs(pixels[:, 92:]).max() < 12 and pixels[:, 100:].max() < 3
    # Nothing of the far edge comes around.
    pixels = pixels_of(one(encoded(image), CropBox(0.0, 0.0, 128.0), config))
    assert pixels[:56, :56].max() < 3 and np.abs(pixels[72:, 72:] - image[8:64, 8:64]).mean() < 1


def test_less_is_not_jagged() -> None:
    """A fine pattern becomes grey when it is made smaller: the filter looks at every pixel."""
    checks = (np.indices((960, 960)).sum(0) % 2 * 255).astype(np.uint8)
    for form in ("PNG", "JPEG"):
        pixels = pixels_of(one(encoded(checks, form, quality=100) if form == "JPEG" else encoded(checks),
                               CropBox(480.0, 480.0, 500.0)))  # fmt: skip
        assert pixels.std() < 5 and abs(pixels.mean() - 127.5) < 3


def test_exif_turns_nothing() -> None:
    image, exif = np.asarray(Image.open(io.BytesIO(picture(0, 64, "PNG")))), Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    plain, turned = encoded(image[:, :40], "JPEG"), encoded(image[:, :40], "JPEG", exif=exif.tobytes())
    assert plain != turned
    whole = check_image(turned, "jpg")
    assert whole.data == turned and whole.size == (40, 64) == check_image(plain, "jpg").size
    box = CropBox(20.0, 20.0, 30.0)
    assert one(turned, box) == one(plain, box)


def test_crops_carry_nothing_else_of_the_file() -> None:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(data, "JPEG", comment=b"made by", icc_profile=b"profile" * 9)
    crop = one(data.getvalue(), CropBox(32, 32, 40))
    assert crop.data is not None and b"made by" not in crop.data and b"profile" not in crop.data


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (64, 48)).save(stream, "JPEG" if mode == "CMYK" else "PNG")
    assert pixels_of(one(stream.getvalue(), CropBox(30, 20, 40))).shape == (128, 128, 3)


@pytest.mark.parametrize(
    "box",
    [
        CropBox(float("nan"), 8, 8),
        CropBox(8, float("inf"), 8),
        CropBox(8, 8, float("nan")),
        CropBox(8, 8, 0),
        CropBox(8, 8, -5),
        CropBox(8, 8, 1e-9),
        CropBox(8, 8, 1e12),
        CropBox(-100, 8, 50),
        CropBox(8, 1e9, 50),
        CropBox(8, 8, 8 * 64 / 1.5 + 1),
    ],
)
def test_a_box_that_shows_nothing_gives_no_crop(box: CropBox) -> None:
    crop = one(picture(0, 64), box)
    assert (crop.data, crop.reason, crop.size) == (None, NO_CROP, (64, 64))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 900), (900, 1)])
def test_images_of_a_few_pixels(size: tuple[int, int]) -> None:
    stream = io.BytesIO()
    Image.new("RGB", size, "white").save(stream, "JPEG")
    for side in (1, 100, 900):
        crop = one(stream.getvalue(), CropBox(size[0] / 2, size[1] / 2, side))
        assert crop.reason in ("", NO_CROP)
        assert crop.reason == NO_CROP or pixels_of(crop).max() > 0


def test_what_only_decoding_finds_is_damaged() -> None:
    data = bytearray(picture(0, 64, "PNG"))
    data[100:200] = bytes(100)
    assert check_image(bytes(data), "png").reason == ""  # its end is there
    assert one(bytes(data), CropBox(32, 32, 40)).reason == DAMAGED


def test_a_crop_is_its_own_whoever_else_is_in_the_image() -> None:
    """People who need different sizes of one image get what they would get alone."""
    whole = check_image(encoded(blob(1200, 900, 500, 400, 90), "JPEG"), "jpg")
    boxes = [
        CropBox(500, 400, 700),
        CropBox(500, 400, 40),
        CropBox(510, 380, 690),
        CropBox(500, 400, float("nan")),
    ]
    together = cut_crops(whole, boxes, CROP)
    assert together == [cut_crops(whole, [box], CROP)[0] for box in boxes if box.side == box.side] + [
        ShardImage(None, reason=NO_CROP, size=(1200, 900))
    ]
    assert len({c.data for c in together}) == 4


def test_people_of_one_image_share_its_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode_once(data: bytes, shrink: int) -> tuple[np.ndarray, int]:
        decoded.append(shrink)
        return decode(data, shrink)

    monkeypatch.setattr(square_crop, "decode", decode_once)
    whole = check_image(encoded(blob(1200, 900, 500, 400, 90), "JPEG"), "jpg")
    crops = cut_crops(whole, [CropBox(500 + i, 400, side) for i, side in enumerate((40, 60, 700, 690))], CROP)
    assert decoded == [1, 8] and all(crop.data for crop in crops)


def test_size_and_quality_are_as_asked() -> None:
    data, box = picture(0, 256), CropBox(128, 128, 150)
    sizes = []
    for quality in (50, 90):
        crop = one(data, box, ImageConfig(mode="crop", size=200, quality=quality))
        assert pixels_of(crop).shape == (200, 200, 3) and crop.data is not None
        sizes.append(len(crop.data))
    assert sizes[0] < 0.6 * sizes[1]
