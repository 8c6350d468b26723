"""Angles by their names."""

from __future__ import annotations

import difflib
from typing import TypeVar

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.errors import ArgumentError, found_text

T = TypeVar("T")


def angle_index(name: str) -> int:
    """Where an angle stands in `poses`. Raises ArgumentError for a name that is not one of DOF_NAMES."""
    if name not in DOF_NAMES:
        near = difflib.get_close_matches(name, DOF_NAMES, 3) if isinstance(name, str) else []
        expected = f"a name of DOF_NAMES, such as {', '.join(near or DOF_NAMES)}"
        raise ArgumentError("name", expected, found_text(name))
    return DOF_NAMES.index(name)


class AnglesByName(dict[str, T]):
    """Angles by the names of DOF_NAMES. Another name raises ArgumentError, with the names that are near."""

    def __missing__(self, name: str) -> T:
        return self[DOF_NAMES[angle_index(name)]]
