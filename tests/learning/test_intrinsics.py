"""Cameras of photos: by EXIF, options or a plug-in."""

from __future__ import annotations

import sys
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prediction_runs import parameters_of, rows_of, run_predict

from skelfit.errors import InputError
from skelfit.learning.inference.intrinsics import PhotoCamera, exif_focal, from_exif, plugged_in


def test_cameras_of_the_command_line(trained: Path, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The same photo: each says another focal length, and depth follows it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_camera.py").write_text(
        "def tell(photo):\n    assert photo.mode == 'RGB'\n    return 700, 700, photo.width / 2, photo.height / 2\n"
        "def fail(photo):\n    raise RuntimeError('no idea')\n"
    )
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50
    photo = tmp_path / "a.jpg"
    Image.open(photos / "000000000000.jpg").save(photo, exif=exif, quality=95)
    sources = {
        "exif": ((), 50 / hypot(36, 24) * hypot(256, 256)),
        "diagonal": (("--intrinsics-from", "diagonal"), hypot(256, 256)),
        "given field of view": (("--fov", "90"), 128.0),
        "given": (("--intrinsics", "900,900,128,128"), 900.0),
        "my_camera:tell": (("--intrinsics-from", "my_camera:tell"), 700.0),
    }
    depth = {}
    for i, (source, (options, focal)) in enumerate(sources.items()):
        plain = ("--meshes", "none", "--overlays", "none", "--out", f"out{i}")
        assert run_predict(trained, "a.jpg", *plain, *options).exit_code == 0
        people, row = parameters_of(Path(f"out{i}")), rows_of(Path(f"out{i}"))[0]
        assert row["intrinsics"] == source
        np.testing.assert_allclose(row["camera"], [focal, focal, 128, 128], rtol=1e-5)
        depth[source] = people["skel_trans"][0, 2] / focal
    np.testing.assert_allclose(list(depth.values()), depth["given"], rtol=1e-4)
    assert (
        run_predict(trained, "a.jpg", "--intrinsics-from", "my_camera:fail", "--out", "failed").exit_code == 1
    )
    row = rows_of(Path("failed"))[0]
    assert row["status"] == "no_camera" and "RuntimeError('no idea')" in row["reason"]
    with pytest.raises(InputError, match=r"expected fx, fy, cx, cy in px, found"):
        plugged_in("builtins:list")(Image.new("RGB", (1, 1)))


def with_exif(size: tuple[int, int], **tags: Any) -> Image.Image:
    """An empty photo with tags of its EXIF's second directory."""
    names = {
        "film": 0xA405,
        "lens": 0x920A,
        "width": 0xA002,
        "height": 0xA003,
        "per_unit": 0xA20E,
        "unit": 0xA210,
    }
    image = Image.new("RGB", size)
    directory = image.getexif().get_ifd(0x8769)
    for name, value in tags.items():
        directory[names[name]] = value
    return image


def test_focal_lengths_by_exif() -> None:
    assert exif_focal(with_exif((3600, 2400), film=24)) == pytest.approx(2400)
    assert exif_focal(with_exif((2400, 3600), film=24, width=3600, height=2400)) == pytest.approx(2400)
    # 5 mm on a sensor of 1000 px/mm, of which half are left.
    lens = {"lens": 5.0, "per_unit": 10000.0, "unit": 3, "width": 4000, "height": 3000}
    assert exif_focal(with_exif((2000, 1500), **lens)) == pytest.approx(2500)
    assert exif_focal(with_exif((4000, 3000), **lens)) == pytest.approx(5000)
    for unknown in (
        {},
        {"film": 0},
        {"lens": 5.0},
        {"film": "?"},
        {"film": 50, "width": 3000, "height": 3000},
    ):
        assert exif_focal(with_exif((400, 300), **unknown)) is None
    assert from_exif(with_exif((400, 300))) == (PhotoCamera(500, 500, 200, 150), "diagonal")
