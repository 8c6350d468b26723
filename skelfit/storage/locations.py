"""Where a file is: a path of this machine, or an address in a store (s3://bucket/demo). Texts become locations here."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import unquote

from skelfit.errors import InputError, without_secrets

if TYPE_CHECKING:
    from skelfit.storage.store_path import StorePath

Location: TypeAlias = "Path | StorePath"
Place: TypeAlias = "str | os.PathLike[str] | StorePath"  # what a caller may give for one
T = TypeVar("T")
U = TypeVar("U")

LOCATION = "a path, or an address (s3://, gs://, hf://, https://, file://)"
WRITABLE = "a path, or an address (s3://, gs://, file://)"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
# Of each protocol: the package that fsspec needs for it, and the extra of skelfit that brings it.
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "hf": ("huggingface_hub", "hub"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "memory": ("fsspec", ""),
    "file": ("fsspec", ""),
}
_ONLY_READ = {
    "http": "a web server, to which nothing is written",
    "https": "a web server, to which nothing is written",
    "hf": "the Hub, where each file would be a commit; write to a folder or to s3://, then publish it",
}
_AT_A_TIME = 16  # requests: a store answers late, but many at once


def protocol_of(text: str) -> str:
    """The protocol of an address in lower case; '' for a path."""
    match = _SCHEME.match(text)
    return match[1].lower() if match else ""


def describe_unusable(text: str, *, writing: bool = False) -> str | None:
    """What is wrong with a text that is to be a location, and what to do; None where it can be one."""
    shown = without_secrets(text)
    if text.startswith("pipe:"):  # webdataset would run it
        return f"the command {text}; write its output to a file"
    protocol = protocol_of(text)
    if not protocol or len(_SCHEME.findall(text)) > 1:
        chained = _SCHEME.search(text)
        return f"{shown}, with an address inside; give the address alone" if chained else None
    if protocol not in _PACKAGES:
        return f"the address {shown}; copy the files to this machine, or to a store of these"
    if writing and protocol in _ONLY_READ:
        return f"the address {shown} of {_ONLY_READ[protocol]}"
    if shown.partition("@")[0].endswith("://..."):
        return f"a password in the address {shown}; put it into fsspec's configuration (docs/clusters.md)"
    package, extra = _PACKAGES[protocol]
    if find_spec(package) is None:
        return f"the address {shown}, and no package for it: pip install 'skelfit[{extra}]'"
    return None


def location_of(place: Place) -> Location:
    """The location that a text names; one that is one already stays. Raises InputError for an unusable address."""
    if not isinstance(place, str):
        return Path(place) if isinstance(place, os.PathLike) else place
    if "://" in place and (fault := describe_unusable(place)) is not None:
        raise InputError("location", None, LOCATION, fault)
    protocol = protocol_of(place)
    if protocol == "file":
        return Path(unquote(_FILE.sub("", place)))
    if not protocol:
        return Path(place)
    # Imported here because fsspec takes a moment, which paths need not wait for.
    from skelfit.storage.store_path import StorePath

    return StorePath.of(place)


def below(folder: Location, text: str) -> Location:
    """What a text names that is relative to a folder, unless it is an address or an absolute path."""
    return location_of(text) if protocol_of(text) else folder / text


def is_writable(location: Location) -> bool:
    """Whether files can be written there; of web servers and the Hub none can."""
    return isinstance(location, Path) or location.protocol not in _ONLY_READ


def files_matching(pattern: Location) -> list[Location]:
    """What a path or an address with * matches, by name. Raises StoreError."""
    if isinstance(pattern, Path):
        return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    return list(pattern.matches())


def text_of(location: Location) -> str:
    """The text of a location as it was given; of an address with all that it takes to read it."""
    return str(location) if isinstance(location, Path) else location.address


def address_of(location: Location) -> str:
    """The text that names a location on every machine that sees it: absolute, and with all that it takes to read it."""
    return text_of(location.absolute())


def side_by_side(function: Callable[[T], U], items: Iterable[T], place: Location) -> Iterator[U]:
    """The results for all items, in order. In a store, a few are asked for at a time, ahead of use."""
    if isinstance(place, Path):
        yield from map(function, items)
        return
    ahead: deque[Future[U]] = deque()
    with ThreadPoolExecutor(_AT_A_TIME, "store") as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > _AT_A_TIME:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
