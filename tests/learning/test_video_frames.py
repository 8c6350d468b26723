"""Frames of videos: their times, turned upright, with square pixels; and damaged ones."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from made_videos import damage_frame, turn_video, write_video

from skelfit.errors import InputError
from skelfit.learning.inference.video_frames import VideoError, count_frames, read_frames, require_pyav

TIMES = (0.0, 0.04, 0.08, 0.2, 0.25, 0.9)  # at no constant rate


def shaded(count: int = len(TIMES)) -> list[np.ndarray]:
    """Frames of 64 x 48 px, each of another gray; the upper left quarter is red."""
    frames = [np.full((48, 64, 3), 40 + 20 * i, np.uint8) for i in range(count)]
    for frame in frames:
        frame[:24, :32] = 250, 20, 20
    return frames


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", shaded(), TIMES)


def test_frames_have_the_times_of_their_stamps(video: Path) -> None:
    frames = list(read_frames(video))
    assert [frame.number for frame in frames] == list(range(6)) and count_frames(video) == 6
    np.testing.assert_allclose([frame.seconds for frame in frames], TIMES, atol=2e-3)
    for frame, made in zip(frames, shaded(), strict=True):
        assert frame.pixels is not None and frame.pixels.shape == (48, 64, 4)
        off = np.abs(frame.pixels[..., :3].astype(int) - made)
        assert off[30:, 40:].max() < 6 and off[:20, :28].max() < 12


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    late = write_video(tmp_path / "late.mkv", shaded(3), (5.0, 5.5, 7.0))
    np.testing.assert_allclose([frame.seconds for frame in read_frames(late)], (0, 0.5, 2), atol=2e-3)


def test_every_third_frame(video: Path) -> None:
    frames = list(read_frames(video, 3))
    assert [frame.number for frame in frames] == [0, 3]
    np.testing.assert_allclose([frame.seconds for frame in frames], (0, 0.2), atol=2e-3)


def test_frames_are_turned_upright(video: Path) -> None:
    """The upper left corner of what is stored is the upper right one of what is shown."""
    turn_video(video)
    pixels = next(read_frames(video)).pixels
    assert pixels is not None and pixels.shape == (64, 48, 4)
    red = pixels[..., 0].astype(int) - pixels[..., 1] > 100
    assert red[2:28, 28:46].all() and not red[36:].any() and not red[:, :20].any()


def test_pixels_become_square(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.mp4", shaded(2), (0, 1), Fraction(2))
    pixels = next(read_frames(wide)).pixels
    assert pixels is not None and pixels.shape == (48, 128, 4)
    assert (pixels[2:20, 4:60, 0] > 200).all() and (pixels[2:20, 68:, 0] < 80).all()


def test_damaged_frames_are_given_with_the_reason(video: Path) -> None:
    damage_frame(video, 3)
    frames = list(read_frames(video))
    assert [frame.number for frame in frames] == list(range(6))
    bad = [frame for frame in frames if frame.pixels is None]
    assert [frame.number for frame in bad] == [3]
    assert bad[0].status == "frame_damaged" and "Invalid data" in bad[0].reason
    assert all(one.seconds < other.seconds for one, other in zip(frames, frames[1:], strict=False))
    np.testing.assert_allclose(frames[4].seconds, TIMES[4], atol=2e-3)


def test_files_that_are_no_videos(tmp_path: Path, video: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(video.read_bytes()[:-200])
    for path, reason in (
        (tmp_path / "text.mp4", "expected a video, found Invalid data"),
        (cut, "expected a video, found "),
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path, "a folder, not a regular file"),
    ):
        with pytest.raises(VideoError, match=reason):
            next(read_frames(path))
        assert count_frames(path) is None


def test_without_pyav_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    require_pyav()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'skelfit\[video\]'"):
        require_pyav()
