"""Images in tars: found without unpacking, as unpacking would leave them, and told from damaged ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from job_fakes import picture

from skelfit.api.subsets import prepare_images
from skelfit.config.pipeline import ImageConfig
from skelfit.images import image_source as source
from skelfit.images import tar_index as tars
from skelfit.images.image_bytes import DAMAGED, MAX_BYTES, MISSING, TOO_LARGE, UNREADABLE, ShardImage
from skelfit.images.image_source import FolderImages, ImageLocation, locate_images, open_images, read_images
from skelfit.images.square_crop import CropBox
from skelfit.images.tar_index import INDEX_NAME, ImageError, TarImages, build_index, scan_tar

BOX = CropBox(8, 8, 8)


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("sprung"),)


def write_tar(path: Path, members: Mapping[str, bytes], **options: Any) -> Path:
    """A tar as 4D-Humans has them: beside each image a pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            for member, content in ((name, data), (f"{name[:-4]}.data.pyd", pickle.dumps([{"a": Trap()}]))):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def read(index: Path, *names: str) -> list[ShardImage]:
    with closing(open_images(index)) as images:
        return list(read_images(images, [(name, BOX) for name in names], ImageConfig()))


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two tars of three images each."""
    return [
        write_tar(tmp_path / f"{t:06d}.tar", {f"train/{t}{i}.jpg": picture(10 * t + i) for i in range(3)})
        for t in range(2)
    ]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "out" / INDEX_NAME


def test_images_of_tars_are_those_of_the_unpacked_folder(
    tmp_path: Path, two: list[Path], index: Path
) -> None:
    folder = tmp_path / "unpacked"
    for path in two:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    assert build_index(two, index) == tars.IndexReport(6, 2, (), Counter(pyd=6))
    names = [f"train/{t}{i}.jpg" for t in (1, 0) for i in range(3)] + [
        "train/99.jpg",
        "",
        "train/00.data.pyd",
    ]
    images = read(index, *names)
    assert images == list(read_images(FolderImages(folder), [(n, BOX) for n in names], ImageConfig()))
    assert [p.data for p in images] == [picture(i) for i in (10, 11, 12, 0, 1, 2)] + [None] * 3
    assert {p.reason for p in images[6:]} == {MISSING}
    assert not Path("sprung").exists()


def test_names_are_as_unpacking_makes_them(tmp_path: Path, index: Path) -> None:
    """Of two members of one name the later counts, within a tar and from tar to tar."""
    long = "long/" * 60 + "name.jpg"
    one = write_tar(tmp_path / "1.tar", {"./a.jpg": picture(1), "b//c.JPG": picture(2), long: picture(3)})
    with tarfile.open(one, "a") as tar:
        for name, data in (("a.jpg", picture(4)), ("d.jpg", picture(5)), ("no.txt", b"text")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    two = write_tar(tmp_path / "2.tar", {"d.jpg": picture(6)}, format=tarfile.PAX_FORMAT)
    assert build_index([one, two], index).images == 4
    images = read(index, "a.jpg", "./b/c.JPG", long, "d.jpg", "link.jpg", "b/../../a.jpg")
    assert [p.data for p in images] == [picture(i) for i in (4, 2, 3, 6)] + [None, None]
    assert build_index([two, one], index).images == 4
    assert read(index, "d.jpg")[0].data == picture(5)


def test_a_tar_is_read_once(two: list[Path], index: Path, tmp_path: Path) -> None:
    build_index(two, index)
    stamp = index.stat().st_mtime_ns, index.read_bytes()
    assert build_index(two, index).scanned == 0
    assert (index.stat().st_mtime_ns, index.read_bytes()) == stamp
    # One more, one that has changed, one that is gone.
    three = [*two, write_tar(tmp_path / "000002.tar", {"new.jpg": picture(20)})]
    assert build_index(three, index) == tars.IndexReport(7, 1, (), Counter(pyd=7))
    write_tar(two[0], {"train/00.jpg": picture(30)})
    assert build_index(three, index) == tars.IndexReport(5, 1, (), Counter(pyd=5))
    assert [p.data for p in read(index, "train/00.jpg", "train/01.jpg")] == [picture(30), None]
    assert build_index(three[1:], index) == tars.IndexReport(4, 0, (), Counter(pyd=4))
    assert read(index, "train/12.jpg", "new.jpg", "train/00.jpg")[2].reason == MISSING


@pytest.mark.parametrize("damage", ["no index", "cut", "a page", "another kind", "another version"])
def test_an_index_that_is_none_is_made_anew(two: list[Path], index: Path, damage: str) -> None:
    build_index(two, index)
    whole = index.read_bytes()
    if damage == "another version":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tars, "_FORMAT", 99)
            assert build_index(two, index).scanned == 2
        with pytest.raises(ImageError, match=f"'user_version': expected {tars._FORMAT}, found 99"):
            TarImages(index)
    else:
        damaged = {"no index": b"", "cut": whole[:6000], "another kind": b"what" * 5000}
        damaged["a page"] = whole[:-4096] + bytes(4096)
        index.write_bytes(damaged[damage])
        with pytest.raises(ImageError, match="images.sqlite"):
            read(index, "train/00.jpg")
    assert build_index(two, index) == tars.IndexReport(6, 2, (), Counter(pyd=6))
    assert index.read_bytes() == whole
    assert read(index, "train/00.jpg")[0].data == picture(0)


def test_two_may_make_an_index_at_once(two: list[Path], index: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        reports = list(pool.map(lambda _: build_index(two, index), range(16)))
    assert {r.images for r in reports} == {6} and list(index.parent.iterdir()) == [index]
    assert read(index, "train/12.jpg")[0].data == picture(12)


def test_what_stands_before_a_cut_is_found(tmp_path: Path, index: Path) -> None:
    """Cut anywhere: whole images are given whole, the one that is cut is damaged, those behind are missing."""
    names = [f"{i}.jpg" for i in range(4)]
    whole = write_tar(tmp_path / "whole.tar", {name: picture(i) for i, name in enumerate(names)}).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        ends = {m.name: m.offset_data + m.size for m in tar if m.name in names}
        starts = {m.name: m.offset_data for m in tar if m.name in names}
        last = max(m.offset_data + 512 for m in tar)
    path = tmp_path / "cut.tar"
    for cut in range(700, last + 1, 307):
        path.write_bytes(whole[:cut])
        report = build_index([path], index)
        assert len(report.faults) == 1 and report.faults[0].startswith(f"{path}: expected a whole tar"), cut
        expected = ["" if ends[n] <= cut else DAMAGED if starts[n] <= cut else MISSING for n in names]
        assert [p.reason for p in read(index, *names)] == expected, cut
    path.write_bytes(whole[: last + 512])
    assert build_index([path], index).faults == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"<html>404</html>" * 100, "invalid header"),
        (gzip.compress(b"tar" * 999), "header"),
        (bytes(700) + b"more", ""),
    ],
    ids=["nothing", "html", "gzip", "zeros"],  # not the content: gzip's has the time in it
)
def test_what_is_no_tar_is_said(
    tmp_path: Path, two: list[Path], index: Path, content: bytes, said: str
) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(content)
    faults = build_index([bad, *two], index).faults
    if said:
        assert len(faults) == 1 and "expected a whole tar, not compressed, found" in faults[0]
        assert said in faults[0] and faults[0].startswith(str(bad))
    else:  # a tar of nothing
        assert faults == ()
    assert read(index, "train/00.jpg")[0].data == picture(0)
    with pytest.raises(ImageError, match="expected a tar of images, found"):
        build_index([bad], index)


def test_what_is_no_regular_file_is_no_tar(two: list[Path], index: Path, tmp_path: Path) -> None:
    """Nor does it block, before the tar is indexed or after."""
    pipe = tmp_path / "pipe.tar"
    os.mkfifo(pipe)
    assert locate_images(str(pipe)) == ImageLocation(None, (pipe,))
    report = build_index([pipe, *two], index)
    assert report.images == 6
    assert report.faults == (f"{pipe}: expected a tar that can be read, found a named pipe",)
    two[0].unlink()
    os.mkfifo(two[0])
    with pytest.raises(ImageError, match="expected the tar that was indexed, found a named pipe"):
        read(index, "train/00.jpg")
    with pytest.raises(
        ImageError, match="expected a tar of images, found .*: expected a tar .* a named pipe"
    ):
        build_index([pipe], index)


def test_other_files_in_tars_are_counted_by_their_endings(tmp_path: Path, index: Path) -> None:
    names = ("a.jpg", "b.HEIC", "c.heic", "README", "d.avif", "f.jp2")
    one = tmp_path / "1.tar"
    with tarfile.open(one, "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        tar.addfile(link)
    expected = tars.IndexReport(3, 1, (), Counter({"heic": 2, "": 1}))
    assert build_index([one], index) == expected
    # Known tars are not read again, and what they skip is still said.
    two = write_tar(tmp_path / "2.tar", {"x.jpg": picture(1)})
    assert build_index([one, two], index) == tars.IndexReport(4, 1, (), Counter({"heic": 2, "": 1, "pyd": 1}))
    nothing = tmp_path / "3.tar"
    with tarfile.open(nothing, "w") as tar:
        tar.addfile(tarfile.TarInfo("b.heic"), io.BytesIO())
    message = "expected a tar of images, found 1 file is skipped, not read as images: 1 .heic"
    with pytest.raises(ImageError, match=message):
        build_index([nothing], index)


def test_convert_says_what_tars_hold_besides(
    two: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        prepare_images(ImageLocation(None, tuple(two)), "bytes", tmp_path, print)
        said = capsys.readouterr().out
        assert said.count("6 files are skipped, not read as images: 6 .pyd") == 1


def test_a_name_that_is_not_read_is_named(two: list[Path], index: Path, tmp_path: Path) -> None:
    """Alike for tars and for folders, so that a run may go on from one with the other."""
    build_index(two, index)
    names = ["train/a.heic", "train/a", "train/none.jpg", ""]
    images = read(index, *names)
    assert [p.why for p in images] == [
        "image_missing: its name ends with .heic, which is not read",
        "image_missing: its name has no ending",
        "image_missing",
        "image_missing",
    ]
    folder = tmp_path / "folder"
    (folder / "train").mkdir(parents=True)
    (folder / "train/a.heic").write_bytes(picture(0))
    assert list(read_images(FolderImages(folder), [(n, BOX) for n in names], ImageConfig())) == images


def test_a_damaged_header_ends_a_tar(tmp_path: Path, two: list[Path], index: Path) -> None:
    data = bytearray(two[0].read_bytes())
    with tarfile.open(two[0]) as tar:
        second = tar.getmember("train/01.jpg").offset
    data[second : second + 100] = b"x" * 100
    two[0].write_bytes(data)
    assert scan_tar(two[0]) == (
        {"train/00.jpg": (512, len(picture(0)))},
        f"expected a whole tar, not compressed, found a damaged header at byte {second}; its images before "
        "that are used: 1",
        Counter(pyd=1),
    )


def test_bytes_that_anyone_may_have_made(tmp_path: Path, two: list[Path]) -> None:
    """No damage raises anything."""
    data, path = two[0].read_bytes(), tmp_path / "odd.tar"
    for place in range(0, 1536, 3):
        path.write_bytes(data[:place] + bytes([255 - data[place]]) + data[place + 1 :])
        images = scan_tar(path).images
        assert len(images) <= 3
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"size": "-4096", "path": "a.jpg"}
        tar.addfile(info, io.BytesIO(b""))
    assert "expected a whole tar" in scan_tar(path)[1]


def test_a_tar_that_leads_back_ends(two: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As some versions of tarfile let a negative size do."""
    member = tarfile.TarInfo("a.jpg")
    member.offset_data = 512
    monkeypatch.setattr(tarfile.TarFile, "next", lambda _: member)
    images, fault, _ = scan_tar(two[0])
    assert list(images) == ["a.jpg"] and "a member that leads back, at byte 0" in fault


def test_a_tar_that_is_not_the_one_indexed_is_refused(two: list[Path], index: Path) -> None:
    build_index(two, index)
    state = two[0].stat()
    os.utime(two[0], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    with pytest.raises(
        ImageError, match=r"000000\.tar: expected the tar that was indexed .* another size or time"
    ):
        read(index, "train/00.jpg")
    assert read(index, "train/10.jpg")[0].data == picture(10)
    two[1].unlink()
    with pytest.raises(ImageError, match=r"000001\.tar: expected the tar that was indexed .*no such file"):
        read(index, "train/10.jpg")
    assert build_index(two, index).faults[0].endswith("found No such file or directory")
    assert [p.reason for p in read(index, "train/00.jpg", "train/10.jpg")] == ["", MISSING]


def test_odd_members_have_their_reasons(tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.tar"
    with tarfile.open(path, "w") as tar, open("/dev/zero", "rb") as zeros:
        for name, size in (("huge.jpg", MAX_BYTES + 1), ("empty.jpg", 0), ("text.jpg", 100)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, zeros)
    build_index([path], index)
    assert [p.reason for p in read(index, "huge.jpg", "empty.jpg", "text.jpg")] == [
        TOO_LARGE,
        DAMAGED,
        DAMAGED,
    ]

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(source, "os", SimpleNamespace(**(vars(os) | {"fstat": fail})))
    assert read(index, "text.jpg")[0].reason == UNREADABLE


def test_where_images_are(tmp_path: Path, two: list[Path]) -> None:
    one, other = (path.absolute() for path in two)
    (tmp_path / "set{1..2}").mkdir()
    (tmp_path / "folder").mkdir()
    assert locate_images("folder", tmp_path) == ImageLocation(tmp_path / "folder")
    assert locate_images("set{1..2}", tmp_path) == ImageLocation(tmp_path / "set{1..2}")
    assert locate_images("000001.tar", tmp_path) == ImageLocation(None, (other,))
    assert locate_images("*.tar", tmp_path) == ImageLocation(None, (one, other))
    assert locate_images(str(tmp_path / "00000?.tar")) == ImageLocation(None, (one, other))
    assert locate_images("{000000..000003}.tar", tmp_path) == ImageLocation(
        None, (one, other), (tmp_path / "000002.tar", tmp_path / "000003.tar")
    )
    assert locate_images("{000001,0*}.tar", tmp_path) == ImageLocation(None, (other, one))
    assert locate_images("nothing", tmp_path) is locate_images("*.zip", tmp_path) is None
    assert locate_images("{000005..000009}.tar", tmp_path) is None
    with pytest.raises(ImageError, match="as many { as }"):
        locate_images("{000000..000003.tar", tmp_path)
