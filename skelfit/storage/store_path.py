"""An address in a store, which behaves as pathlib.Path does for a path of this machine."""

from __future__ import annotations

import fnmatch
import io
import os
import stat
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fsspec import AbstractFileSystem, filesystem
from upath.extensions import ProxyUPath

from skelfit.errors import StoreError, without_secrets
from skelfit.storage.locations import protocol_of
from skelfit.storage.patience import patiently

_BLOCK = 8 << 20  # bytes read at a time from a large file
# What stores call the time of a file, and its hash or version.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "generation")


class StorePath(ProxyUPath):
    """A file or folder of a store. Every request is made again while the store does not answer.

    Its methods raise StoreError, and FileNotFoundError as those of a path do. Its text has no secrets, so it may be
    shown. A store has no folders of its own: one is there when a file is in it. A file is read by ranges, and written
    as a whole (`skelfit.storage.atomic_write`).
    """

    @classmethod
    def of(cls, address: str) -> StorePath:
        """The location of an address."""
        # A cached listing would hide what other machines have written since.
        path: StorePath = cls(address, use_listings_cache=False)
        return path

    @property
    def address(self) -> str:
        """The whole address, with a query that may be a secret."""
        return str(self.__wrapped__)

    def __str__(self) -> str:
        return without_secrets(self.address)

    def __repr__(self) -> str:
        return f"StorePath({str(self)!r})"

    @property
    def name(self) -> str:
        """The last part; of a web page without its query."""
        name: str = self.__wrapped__.name
        return name.partition("?")[0] if protocol_of(self.address) in ("http", "https") else name

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def fs(self) -> AbstractFileSystem:
        """The file system of fsspec. It is asked for each time, as those of a process do not work in its forks."""
        return filesystem(self.protocol, **self.storage_options)

    def read_info(self) -> dict[str, Any]:
        """What the store says of the file. Raises StoreError."""
        info: dict[str, Any] = patiently(self, lambda: self.fs.info(self.path))
        return info

    def version(self) -> str:
        """A text that changes when the file does. Raises StoreError."""
        info = self.read_info()
        marks = [info[key] for key in _VERSIONS if info.get(key)] or [_time(info) or uuid.uuid4().hex]
        return f"{info.get('size')} {marks[0]}"

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind, size and time of change. Raises StoreError."""
        info = self.read_info()
        kind = stat.S_IFDIR if info.get("type") == "directory" else stat.S_IFREG
        time = _time(info)
        whole = int(time)
        times = {"st_mtime": time, "st_mtime_ns": int(time * 1e9)}
        return os.stat_result((kind, 0, 0, 1, 0, 0, info.get("size") or 0, whole, whole, whole), times)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file, or a folder with one. Raises StoreError."""
        try:
            self.read_info()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether a file lies in it. Raises StoreError."""
        try:
            return self.read_info().get("type") == "directory"
        except FileNotFoundError:
            return False

    def is_file(self) -> bool:
        """Whether it is a file. Raises StoreError."""
        try:
            return self.read_info().get("type") == "file"
        except FileNotFoundError:
            return False

    def is_symlink(self) -> bool:
        """Never: stores have none."""
        return False

    def iterdir(self) -> Iterator[StorePath]:
        """What lies in the folder now. Raises StoreError; a folder that is not there is empty."""
        for name in self._names():
            yield self / name

    def glob(self, pattern: str, **_: Any) -> Iterator[StorePath]:
        """What lies in the folder now and matches a pattern, by name. Raises StoreError."""
        names = [name for name in self._names() if fnmatch.fnmatchcase(name, pattern)]
        yield from (self / name for name in sorted(names))

    def matches(self) -> list[StorePath]:
        """The files whose addresses match this one, in which * stands for any text. Raises StoreError."""
        self.fs.invalidate_cache()
        found: list[str] = patiently(self, lambda: self.fs.glob(self.path))
        return [self.with_path(path) for path in sorted(found)]

    def with_path(self, path: str) -> StorePath:
        """The place of another path in the same store."""
        return self._from_upath(self.__wrapped__.with_segments(path))

    def _names(self) -> list[str]:
        self.fs.invalidate_cache()
        try:
            entries: list[str] = patiently(self, lambda: self.fs.ls(self.path, detail=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        own = self.path.strip("/")  # some stores have an empty file for a folder
        return [path.rpartition("/")[2] for entry in entries if (path := entry.strip("/")) != own]

    def files_below(self) -> list[StorePath]:
        """The files in the folder and in those below it, by path. Raises StoreError."""
        self.fs.invalidate_cache()
        found: list[str] = patiently(self, lambda: self.fs.find(self.path))
        return [self / path.removeprefix(self.path).lstrip("/") for path in sorted(found)]

    def below(self, folder: StorePath) -> str:
        """Its path below a folder, with slashes."""
        return str(self.path.removeprefix(folder.path).lstrip("/"))

    def read_bytes(self) -> bytes:
        """The whole file. Raises StoreError."""
        content: bytes = patiently(self, lambda: self.fs.cat_file(self.path))
        return content

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from start to end-1. Raises StoreError."""
        data: bytes = patiently(self, lambda: self.fs.cat_file(self.path, start=start, end=end))
        if len(data) != end - start:
            raise StoreError(f"{self}: {len(data)} bytes came of the {end - start} that were asked for")
        return data

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        """The whole file as text. Raises StoreError."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *_: Any, encoding: str | None = None, **options: Any) -> IO[Any]:  # type: ignore[override]
        """The file for reading, by ranges: it may be large. Raises StoreError."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: mode {mode}; a store's file is written as a whole")
        stream = io.BufferedReader(_Ranges(self), _BLOCK)
        if mode == "rb":
            return stream
        return io.TextIOWrapper(stream, encoding or "utf-8", newline=options.get("newline"))

    def upload(self, file: Path) -> None:
        """Put a file of this machine here, whole or not at all: by the store's own means. Raises StoreError."""
        size = file.stat().st_size

        def put() -> None:
            self.fs.put_file(str(file), self.path)
            there = self.fs.info(self.path).get("size")
            if there != size:
                raise TimeoutError(f"{there} of {size} bytes have arrived")

        patiently(self, put)

    def download(self, file: Path) -> None:
        """Write the content to a file of this machine. Raises StoreError."""
        size = self.read_info().get("size")

        def get() -> None:
            self.fs.get_file(self.path, str(file))
            here = file.stat().st_size
            if size is not None and here != size:
                raise TimeoutError(f"{here} of {size} bytes have arrived")

        patiently(self, get)

    def write_bytes(self, data: bytes) -> int:
        """Write a small file. Raises StoreError."""
        patiently(self, lambda: self.fs.pipe_file(self.path, data))
        return len(data)

    def create(self, data: bytes) -> None:
        """Write a small file where none is: of two that do so at once, one gets FileExistsError. Raises StoreError."""
        patiently(self, lambda: self.fs.pipe_file(self.path, data, mode="create"))

    def write_text(self, data: str, encoding: str | None = None, *_: Any, **__: Any) -> int:
        """Write a small text. Raises StoreError."""
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file. Raises StoreError."""
        try:
            patiently(self, lambda: self.fs.rm_file(self.path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a folder is there when a file is in it."""

    def absolute(self) -> StorePath:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> StorePath:
        """Itself."""
        return self


class _Ranges(io.RawIOBase):
    """A file of a store, read by ranges: a request that fails is made again at the same place."""

    def __init__(self, path: StorePath) -> None:
        self._path, self._at = path, 0
        self._size = path.stat().st_size
        self.name = str(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._path.read_range(self._at, end)
        buffer[: len(data)] = data
        self._at = end
        return len(data)


def _time(info: dict[str, Any]) -> float:
    """When a file was written, in seconds; 0 where the store does not say."""
    time = next((info[key] for key in _TIMES if info.get(key)), None)
    if isinstance(time, str):
        time = datetime.fromisoformat(time.replace("Z", "+00:00"))
    return time.timestamp() if isinstance(time, datetime) else float(time or 0)
