"""Paths on the command line. All options and arguments that are paths have one of these types.

Some of them take an address (s3://bucket/demo) in place of a path. pathlib would make a folder `s3:` of one, so the
others refuse it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from skelfit.errors import ConfigError, InputError
from skelfit.resources.catalog import MANIFESTS, PIPELINES, TRAININGS, ResourceFolder
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import (
    LOCATION,
    WRITABLE,
    Location,
    describe_unusable,
    location_of,
    protocol_of,
    text_of,
)
from skelfit.storage.path_checks import LOCAL_PATH, describe_non_local

_OF_DASK = ("tcp://", "tls://", "ws://", "wss://", "ucx://", "ucxx://")


class LocalPath(click.Path):
    """A path on this machine, as a pathlib.Path. Raises InputError for an address."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """The path."""
        _refuse_address(os.fspath(value), param)
        return super().convert(value, param, ctx)


class LocationPath(click.Path):
    """A path, as a pathlib.Path, or an address, as a StorePath. Raises InputError for an address that is of no use."""

    def __init__(self, *, writing: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.writing = writing

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """The path or address."""
        location = _location(os.fspath(value), param, writing=self.writing)
        return super().convert(location, param, ctx) if isinstance(location, Path) else location


class PathPattern(click.types.StringParamType):
    """A path or an address in which * and {a..b} stand for several, as text. Raises InputError."""

    name = "pattern"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The pattern."""
        return text_of(_location(value, param)) if protocol_of(value) else str(value)


class SchedulerPlace(click.types.StringParamType):
    """An address that Dask knows, or the path of a scheduler file, as text. Raises InputError for another address."""

    name = "address|path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address or path."""
        if not value.startswith(_OF_DASK) and (described := describe_non_local(value)) is not None:
            raise InputError(
                named(param), None, f"an address like tcp://HOST:PORT, or {LOCAL_PATH}", described
            )
        return value


class ShippedPath(LocationPath):
    """A file that comes with skelfit, by name, or a path, or an address. Raises ConfigError, which lists the names."""

    def __init__(self, shipped: ResourceFolder, **options: Any) -> None:
        super().__init__(**options)
        self.shipped = shipped
        self.name = "name|path"

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Its path on this machine."""
        text = os.fspath(value)
        location = fetched(_location(text, param), f"a {self.shipped.kind}", ConfigError)
        return super().convert(location if protocol_of(text) else self.shipped.find(text), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names; where none begins like this, paths."""
        names = [CompletionItem(name) for name in self.shipped.names if name.startswith(incomplete)]
        return names or super().shell_complete(ctx, param, incomplete)


def _refuse_address(text: str, param: click.Parameter | None) -> None:
    if (described := describe_non_local(text)) is not None:
        raise InputError(named(param), None, LOCAL_PATH, described)


def _location(text: str, param: click.Parameter | None, *, writing: bool = False) -> Location:
    if (fault := describe_unusable(text, writing=writing)) is not None:
        raise InputError(named(param), None, WRITABLE if writing else LOCATION, fault)
    return location_of(text)


def named(param: click.Parameter | None) -> str:
    """A parameter as its user knows it: --out, DIR."""
    if param is None:
        return "a path"
    return (
        max(param.opts, key=len)
        if isinstance(param, click.Option)
        else param.human_readable_name.strip("[].")
    )


# On this machine only.
PATH = LocalPath()
FILE = LocalPath(dir_okay=False)
FOLDER = LocalPath(file_okay=False)
# Here or in a store: to be read, and to be written.
PLACE = LocationPath()
FILE_PLACE = LocationPath(dir_okay=False)
FOLDER_PLACE = LocationPath(file_okay=False)
OUT_PLACE = LocationPath(writing=True)
OUT_FILE = LocationPath(dir_okay=False, writing=True)
OUT_FOLDER = LocationPath(file_okay=False, writing=True)
PATTERN = PathPattern()
SCHEDULER = SchedulerPlace()
MANIFEST = ShippedPath(MANIFESTS)
PIPELINE = ShippedPath(PIPELINES, dir_okay=False)
TRAINING = ShippedPath(TRAININGS, dir_okay=False)
