"""Paths on the command line. All options and arguments that are paths have one of these types.

An address (s3://bucket/demo) is no path. pathlib would make a folder `s3:` of it, so it is refused before that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from skelfit.errors import InputError
from skelfit.resources.catalog import MANIFESTS, PIPELINES, TRAININGS, ResourceFolder
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


class PathPattern(click.types.StringParamType):
    """A path on this machine in which * and {a..b} stand for several, as text. Raises InputError for an address."""

    name = "pattern"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The pattern."""
        _refuse_address(value, param)
        return value


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


class ShippedPath(LocalPath):
    """A file that comes with skelfit, by name, or a path. Raises ConfigError, which lists the names."""

    def __init__(self, shipped: ResourceFolder, **options: Any) -> None:
        super().__init__(**options)
        self.shipped = shipped
        self.name = "name|path"

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Its path."""
        _refuse_address(os.fspath(value), param)
        return super().convert(self.shipped.find(os.fspath(value)), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names; where none begins like this, paths."""
        names = [CompletionItem(name) for name in self.shipped.names if name.startswith(incomplete)]
        return names or super().shell_complete(ctx, param, incomplete)


def _refuse_address(text: str, param: click.Parameter | None) -> None:
    if (described := describe_non_local(text)) is not None:
        raise InputError(named(param), None, LOCAL_PATH, described)


def named(param: click.Parameter | None) -> str:
    """A parameter as its user knows it: --out, DIR."""
    if param is None:
        return "a path"
    return (
        max(param.opts, key=len)
        if isinstance(param, click.Option)
        else param.human_readable_name.strip("[].")
    )


PATH = LocalPath()
FILE = LocalPath(dir_okay=False)
FOLDER = LocalPath(file_okay=False)
PATTERN = PathPattern()
SCHEDULER = SchedulerPlace()
MANIFEST = ShippedPath(MANIFESTS)
PIPELINE = ShippedPath(PIPELINES, dir_okay=False)
TRAINING = ShippedPath(TRAININGS, dir_okay=False)
