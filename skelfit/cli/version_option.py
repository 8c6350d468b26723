"""`skelfit --version`; with --verbose also what it runs on."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version

import click

from skelfit import __version__
from skelfit.cli.console import Console


def version_option() -> click.Option:
    """The option; --verbose is eager, so that it is known by then."""
    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version; with --verbose those of Python and torch, and the device.",
    )


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    console = context.ensure_object(Console)
    console.result(f"skelfit, version {__version__}")
    if console.verbose:
        for line in _surroundings():
            console.result(line)
    context.exit()


def _surroundings() -> Iterator[str]:
    """What skelfit runs on."""
    # Imported here because they take seconds.
    from skelfit.benchmark.fit_speed import describe_device
    from skelfit.fitting.backends.compute_device import find_device

    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield ", ".join(f"{name} {version(name)}" for name in ("torch", "warp-lang", "numpy"))
    device = describe_device(find_device("auto"))
    yield f"device: {device['kind']} ({device['name']}, {device['threads']} threads)"
