"""Arguments of Python functions, checked: an ArgumentError names the argument, what was expected and what was found."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from skelfit.errors import ArgumentError, ConfigError, found_text
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import (
    LOCATION,
    WRITABLE,
    Location,
    describe_unusable,
    location_of,
    protocol_of,
)
from skelfit.storage.path_checks import LOCAL_PATH, describe_non_local


def location_argument(name: str, value: object, *, writing: bool = False) -> Location:
    """A path or an address. Raises ArgumentError for an address that cannot be used, and for what is neither."""
    expected = WRITABLE if writing else LOCATION
    text = getattr(value, "address", value)
    if not isinstance(text, (str, os.PathLike)):
        raise ArgumentError(name, expected, found_text(value))
    if (fault := describe_unusable(os.fspath(text), writing=writing)) is not None:
        raise ArgumentError(name, expected, fault)
    return location_of(os.fspath(text))


def file_argument(name: str, value: object, find: Callable[[str], Path]) -> Path:
    """The file of a text, as `find` has it by name or path; a Path as it is; a copy of what an address names.

    Raises ArgumentError, ConfigError, StoreError.
    """
    place = location_argument(name, value)
    if isinstance(value, str) and not protocol_of(value):
        return find(value)
    return fetched(place, f"a {name}", ConfigError)


def location_or_none(name: str, value: object, *, writing: bool = False) -> Location | None:
    """The same for an argument that may be None."""
    return None if value is None else location_argument(name, value, writing=writing)


def local_path_of(name: str, value: object) -> Path:
    """A path of this machine. Raises ArgumentError for an address (s3://...), and for what is no path."""
    if not isinstance(value, (str, os.PathLike)):
        raise ArgumentError(name, LOCAL_PATH, found_text(value))
    if (other := describe_non_local(str(value))) is not None:
        raise ArgumentError(name, LOCAL_PATH, other)
    return Path(value)


def local_path_or_none(name: str, value: object) -> Path | None:
    """The same for an argument that may be None."""
    return None if value is None else local_path_of(name, value)


def whole_number(name: str, value: object, at_least: int) -> int:
    """An int, of Python or NumPy. Raises ArgumentError for other values, also for 3.0 and True."""
    expected = f"a whole number, {at_least} or more"
    if isinstance(value, bool):
        raise ArgumentError(name, expected, repr(value))
    try:
        number: int = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ArgumentError(name, expected, repr(value)) from None
    if number < at_least:
        raise ArgumentError(name, expected, str(number))
    return number


def number_of(name: str, value: object, expected: str) -> float:
    """A number as a float. Raises ArgumentError for other values, also for a text."""
    if isinstance(value, (bool, str)):
        raise ArgumentError(name, expected, repr(value))
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ArgumentError(name, expected, repr(value)) from None


def texts_of(name: str, value: object) -> tuple[str, ...]:
    """Texts; one alone is a list of one. Raises ArgumentError."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise ArgumentError(name, "a text, or a list of texts", repr(value))
    return tuple(value)
