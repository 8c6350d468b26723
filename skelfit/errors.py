"""The errors of skelfit: one family, whose messages say where, what was expected and what was found.

A message of this family is meant for the person who runs the command, so the command line prints it as it is,
without a traceback. Everything that is not a SkelfitError is a bug of ours.
"""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(https?://[^\s?'\"]*\?)[^\s'\",;)]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text in which no address has a password, nor a query, which signs the addresses that stores hand out."""
    return _QUERY.sub(r"\1...", _PASSWORD.sub("...@", text)) if "://" in text else text


class SkelfitError(Exception):
    """Base of all errors that a user can cause and fix. Its message has no secrets of addresses."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_secrets(arg) if isinstance(arg, str) else arg for arg in args))


class InputError(SkelfitError):
    """A file that cannot be used: names the file, the key, what was expected and what was found."""

    def __init__(self, path: object, key: str | None, expected: str, found: str) -> None:
        self.path, self.key, self.expected = without_secrets(str(path)), key, expected
        self.found = without_secrets(found)
        where = self.path if key is None else f"{self.path}: '{key}'"
        super().__init__(f"{where}: expected {expected}, found {found}")

    def __reduce__(self) -> tuple[type, tuple[str, str | None, str, str]]:
        # The default would replay the formatted message as the path when a worker sends the error back.
        return type(self), (self.path, self.key, self.expected, self.found)


class ModelError(InputError):
    """A body-model file or asset that cannot be used."""


class LabelError(InputError):
    """A label file that cannot be used."""


class ConfigError(InputError):
    """A manifest or pipeline file that cannot be used."""


class ArgumentError(SkelfitError, ValueError):
    """An argument of a Python function that cannot be used: names it, what was expected and what was found."""

    def __init__(self, argument: str, expected: str, found: str) -> None:
        self.argument, self.expected, self.found = argument, expected, found
        super().__init__(f"{argument}: expected {expected}, found {found}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.argument, self.expected, self.found)


class OutputError(SkelfitError):
    """An output folder that must not or cannot be written to."""


class StoreError(SkelfitError):
    """A store that does not answer, or refuses. It says nothing of the file, which may be whole: try again later."""


class DeviceError(SkelfitError):
    """A device to compute on that is not there."""


class ClusterError(SkelfitError):
    """A cluster that cannot be reached, or does not do its part."""


class HubError(SkelfitError):
    """A dataset repository that cannot be reached, or must not be written to."""


def found_text(value: object) -> str:
    """What an argument is, for the end of a message: its repr where that is short, else its type."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a value of type {type(value).__name__}"
