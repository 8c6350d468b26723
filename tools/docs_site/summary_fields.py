"""What the keys of summary.json mean. A test compares them with those of a run."""

from __future__ import annotations

SUMMARY: dict[str, str] = {
    "subset": "Name of the subset",
    "description": "Description from the manifest",
    "origins": "Sources of the labels and of the images, from the manifest",
}
