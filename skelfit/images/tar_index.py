"""Images in tars that are never unpacked: an index says where each begins and how long it is.

The tars stand for the folder that unpacking them in order would give: of two members of one name the later counts. Only
the names of images enter the index, so other members (4D-Humans' pickled `data.pyd`) are not read. The index is a
SQLite file: it is written under a temporary name, moved into place, and then only read.
"""

from __future__ import annotations

import posixpath
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote
from zlib import crc32

from skelfit.errors import InputError
from skelfit.images.decoding import ENDINGS
from skelfit.images.image_bytes import ending_of
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location, address_of, location_of, side_by_side
from skelfit.storage.path_checks import describe_non_file, describe_skipped

INDEX_ENDING = ".sqlite"
INDEX_NAME = f"images{INDEX_ENDING}"
# Version of the index, and of the endings that it was made for: another Pillow may read more formats.
_FORMAT = 2 << 16 | crc32(" ".join(sorted(ENDINGS)).encode()) & 0xFFFF
_TABLES = """
    CREATE TABLE tars (tar INTEGER PRIMARY KEY, path TEXT, bytes INTEGER, mtime_ns INTEGER, fault TEXT);
    CREATE TABLE skipped (tar INTEGER, ending TEXT, files INTEGER);
    CREATE TABLE images (name TEXT, tar INTEGER, start INTEGER, bytes INTEGER, PRIMARY KEY (name, tar))
        WITHOUT ROWID;
"""
_BLOCK = 512


class ImageError(InputError):
    """A tar of images, or an index of tars, that cannot be used."""


@dataclass(frozen=True)
class TarMember:
    """Where an image is in a tar, and the size and time of the tar when it was indexed."""

    name: str
    tar: str
    start: int  # bytes
    bytes: int
    tar_bytes: int
    tar_mtime_ns: int


@dataclass(frozen=True)
class IndexReport:
    """The content of an index, in numbers."""

    images: int
    scanned: int  # tars that were read now; the others were in the old index
    faults: tuple[str, ...]  # one line for each tar that is damaged, cut short or no tar
    skipped: Counter[str]  # other files in the tars, by ending


def build_index(tars: Sequence[Location], path: Path) -> IndexReport:
    """Make or update the index of the tars; tars with the same size and time as before are not read again.

    Raises ImageError when no tar holds an image, OutputError when the index cannot be written.
    """
    states = list(side_by_side(tar_state, tars, tars[0]))
    known = _known(path)
    if list(known) != states:
        with atomic_write(path) as temporary:
            try:
                scanned = _write(temporary, path, states, known)
            except sqlite3.Error as error:  # such as a full disk
                raise OSError(f"SQLite: {error}") from error
    else:
        scanned = 0
    with closing(_open(path)) as index:
        images = index.execute("SELECT count(DISTINCT name) FROM images").fetchone()[0]
        faults = [f"{tar}: {fault}" for tar, fault in index.execute("SELECT path, fault FROM tars") if fault]
        skipped = Counter(dict(index.execute("SELECT ending, sum(files) FROM skipped GROUP BY ending")))
    if not images:
        actual = "; ".join(faults[:3]) or describe_skipped(skipped, "images") or "none"
        raise ImageError(tars[0], None, "a tar of images" if len(tars) == 1 else "tars of images", actual)
    return IndexReport(images, scanned, tuple(faults), skipped)


class TarImages:
    """The images of an index, by name. Use it in one thread, and close it."""

    def __init__(self, path: Path) -> None:
        self._path, self._index = path, _open(path)

    def find(self, name: str) -> TarMember | None:
        """Where an image is. Raises ImageError when the index is damaged."""
        query = (
            "SELECT name, path, images.start, images.bytes, tars.bytes, mtime_ns FROM images JOIN tars USING (tar) "
            "WHERE name = ? ORDER BY tar DESC LIMIT 1"
        )
        try:
            row = self._index.execute(query, (_storable(_normal(name)),)).fetchone()
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None
        return None if row is None else TarMember(*row)

    def similar(self, name: str) -> str | None:
        """An image of the same base name in another folder. Raises ImageError when the index is damaged."""
        base = _storable(posixpath.basename(name))
        query = "SELECT name FROM images WHERE name = ?1 OR substr(name, -length(?1) - 1) = '/' || ?1 LIMIT 1"
        try:
            row = self._index.execute(query, (base,)).fetchone()
        except sqlite3.Error as error:
            raise _damaged(self._path, error) from None
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Close the index."""
        self._index.close()


def _normal(name: str) -> str:
    """The path of a name after unpacking: './a//b' is 'a/b'."""
    return posixpath.normpath(name)


def tar_state(tar: Location) -> tuple[str, int, int]:
    """Path, size and time of a tar; -1 for size and time where they cannot be read. Raises StoreError."""
    with suppress(OSError):
        status = tar.stat()
        return address_of(tar), status.st_size, status.st_mtime_ns
    return address_of(tar), -1, -1


def _uri(path: Path) -> str:
    """A finished index for SQLite. It never changes, so it needs no locks, which network drives may lack."""
    return f"file:{quote(str(path))}?mode=ro&immutable=1"


def _open(path: Path) -> sqlite3.Connection:
    """A finished index for reading."""
    try:
        index = sqlite3.connect(_uri(path), uri=True)
        version = index.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise _damaged(path, error) from None
    if version != _FORMAT:
        index.close()
        raise ImageError(path, "user_version", str(_FORMAT), str(version))
    return index


def _damaged(path: Path, error: Exception) -> ImageError:
    return ImageError(
        path, None, "an index of images (remove it, and the next run makes it again)", str(error)
    )


def _known(path: Path) -> dict[tuple[str, int, int], int]:
    """The tars of an index, in order, by path, size and time; none where there is no whole index."""
    if not path.exists():
        return {}
    try:
        with closing(_open(path)) as index:
            if index.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                return {}
            rows = index.execute("SELECT path, bytes, mtime_ns, tar FROM tars ORDER BY tar").fetchall()
    except (ImageError, sqlite3.Error):
        return {}
    return {(tar, size, time): number for tar, size, time, number in rows if size >= 0}


def _write(
    path: Path, old: Path, states: Sequence[tuple[str, int, int]], known: dict[tuple[str, int, int], int]
) -> int:
    """Write an index of tars in these states, reusing the old index; returns how many tars were read."""
    scanned = 0
    with closing(sqlite3.connect(path, isolation_level=None, uri=True)) as index:
        # No other process opens the file before it is whole.
        index.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        index.execute(f"PRAGMA user_version = {_FORMAT}")
        if known:
            index.execute("ATTACH ? AS old", (_uri(old),))
        index.execute("BEGIN")
        for number, state in enumerate(states):
            if state in known:
                old_number = known[state]
                index.execute(
                    "INSERT INTO tars SELECT ?, path, bytes, mtime_ns, fault FROM old.tars WHERE tar = ?",
                    (number, old_number),
                )
                index.execute(
                    "INSERT INTO images SELECT name, ?, start, bytes FROM old.images WHERE tar = ?",
                    (number, old_number),
                )
                index.execute(
                    "INSERT INTO skipped SELECT ?, ending, files FROM old.skipped WHERE tar = ?",
                    (number, old_number),
                )
                continue
            scanned += 1
            content = scan_tar(location_of(state[0]))
            index.execute("INSERT INTO tars VALUES (?, ?, ?, ?, ?)", (number, *state, content.fault))
            rows = ((name, number, start, size) for name, (start, size) in sorted(content.images.items()))
            index.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
            others = ((number, ending, files) for ending, files in sorted(content.skipped.items()))
            index.executemany("INSERT INTO skipped VALUES (?, ?, ?)", others)
        index.execute("COMMIT")
    return scanned


class TarScan(NamedTuple):
    """The content of a tar."""

    images: dict[str, tuple[int, int]]  # where each begins and how long it is, bytes
    fault: str  # what is wrong with the tar; '' when it is whole
    skipped: Counter[str]  # other files, by ending


def scan_tar(tar: Location) -> TarScan:
    """The images of a tar; in a damaged tar, those before the fault. Never raises for damage."""
    images: dict[str, tuple[int, int]] = {}
    skipped: Counter[str] = Counter()
    if other := describe_non_file(tar):  # to open a named pipe would block
        return TarScan(images, f"expected a tar that can be read, found {other}", skipped)
    try:
        with tar.open("rb") as stream:
            try:
                for member in tar_members(stream):
                    name = _normal(member.name)
                    # Links and sparse files have no contiguous bytes of their own.
                    plain = member.isreg() and not member.issparse()
                    if plain and ending_of(name) in ENDINGS:
                        images[_storable(name)] = member.offset_data, member.size
                    elif member.isreg():
                        skipped[_storable(ending_of(name))] += 1
            except Exception as error:  # tarfile may raise anything on damaged bytes
                used = f"; its images before that are used: {len(images)}" if images else ""
                return TarScan(images, f"expected a whole tar, not compressed, found {error}{used}", skipped)
    except OSError as error:
        return TarScan(images, f"expected a tar that can be read, found {error.strerror or error}", skipped)
    return TarScan(images, "", skipped)


def tar_members(stream: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The members of a tar; raises when it does not end as a tar ends."""
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        end = 0
        while (member := tar.next()) is not None:
            if member.offset_data <= end:
                raise tarfile.ReadError(f"a member that leads back, at byte {member.offset}")
            end = member.offset_data
            tar.members = []  # type: ignore[attr-defined]  # or it keeps them all
            yield member
        # tarfile ends silently at a damaged header or a cut file: a whole tar ends with a block of zeros.
        stream.seek(tar.offset)
        if (block := stream.read(_BLOCK)) != bytes(_BLOCK):
            what = "a damaged header" if len(block) == _BLOCK else "one that is cut short"
            raise tarfile.ReadError(f"{what} at byte {tar.offset}")


def _storable(name: str) -> str:
    """A name that SQLite can store; bytes that are no UTF-8 become '?'."""
    return name.encode("utf-8", "replace").decode()
