"""Write a card and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from skelfit.exports.dataset_card.card_facts import SubsetFacts
from skelfit.exports.dataset_card.card_pictures import draw_angles, draw_errors
from skelfit.exports.dataset_card.markdown import CARD_NAME, card_text
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

PICTURES = "card"


def write_card(
    subsets: Sequence[SubsetFacts],
    out: Location,
    title: str | None = None,
    front: Mapping[str, Any] = MappingProxyType({}),
    sections: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> tuple[Location, Location]:
    """Write the card of some runs and, first, the pictures beside it, whose paths it returns. Raises OutputError.

    title: None is made of the names of the subsets; front and sections: as in `card_text`.
    """
    # Several cards may lie in one folder.
    folder = out.parent / (PICTURES if out.name == CARD_NAME else f"{out.stem}-{PICTURES}")
    angles, errors = folder / "angles.png", folder / "errors.png"
    draw_angles(subsets, angles)
    draw_errors(subsets, errors)
    title = title or "SKEL labels of " + ", ".join(subset.name for subset in subsets)
    text = card_text(
        subsets,
        title,
        out.parent,
        f"{folder.name}/{angles.name}",
        f"{folder.name}/{errors.name}",
        front,
        sections,
    )
    write_atomically(out, lambda stream: stream.write(text.encode()))
    return angles, errors
