"""Angles by their names."""

from __future__ import annotations

import difflib

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.errors import ArgumentError


def angle_index(name: str) -> int:
    """Where an angle stands in `poses`. Raises ArgumentError for a name that is not one of DOF_NAMES."""
    if name not in DOF_NAMES:
        near = difflib.get_close_matches(name, DOF_NAMES, 3) or DOF_NAMES
        raise ArgumentError("name", f"a name of DOF_NAMES, such as {', '.join(near)}", repr(name))
    return DOF_NAMES.index(name)
