"""The address of a dataset repository: hf://datasets/OWNER/NAME."""

from __future__ import annotations

import re
from dataclasses import dataclass

from skelfit.errors import InputError

_FORM = "hf://datasets/OWNER/NAME"
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ADDRESS = re.compile(rf"hf://datasets/(?:({_WORD})/)?({_WORD})/?")


@dataclass(frozen=True)
class HubAddress:
    """A dataset repository; without an owner, that of the account whose token is used."""

    owner: str
    name: str

    @property
    def repository(self) -> str:
        """As the Hub names it."""
        return f"{self.owner}/{self.name}" if self.owner else self.name

    def __str__(self) -> str:
        return f"hf://datasets/{self.repository}"


def parse_address(text: object) -> HubAddress:
    """The repository that an address names. Raises InputError."""
    match = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    if match is None or "--" in match[0] or ".." in match[0]:
        found = "a revision in it; give it as --revision" if "@" in str(text) else "another text"
        raise InputError(str(text), None, f"the address of a dataset, {_FORM}", found)
    return HubAddress(match[1] or "", match[2])
