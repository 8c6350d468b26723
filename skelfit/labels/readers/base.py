"""The base class of readers: one subclass for each layout of label files. See docs/how-to-add-a-reader.md."""

from __future__ import annotations

from abc import ABC, abstractmethod

from skelfit.config.manifest import LabelLayout
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.read_settings import ReadSettings


class LabelReader(ABC):
    """Recognises and reads the label files of one layout."""

    layout: LabelLayout  # its name in manifests and on the command line
    version: str  # raise the number when the same file would be read differently: stores are named by it
    required_keys: tuple[tuple[str, ...], ...]  # a file of the layout has one key of each group
    excluded_keys: tuple[str, ...] = ()  # a file with one of these has another layout
    has_sequences: bool = False  # whether its files may hold frames of motions

    @abstractmethod
    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """All rows of a file of the layout, checked.

        Raises LabelError for a fault of the file. A fault of one row becomes its reason in the batch's `bad`.
        """

    def mismatches(self, arrays: LabelArrays) -> list[str]:
        """The keys that a file lacks for this layout, or must not have, in words; empty where the layout fits."""
        missing = [
            " or ".join(f"'{key}'" for key in group)
            for group in self.required_keys
            if not arrays.first_key(*group)
        ]
        return missing + [f"no '{key}'" for key in self.excluded_keys if key in arrays]

    def matching_keys(self, arrays: LabelArrays) -> str:
        """The keys of a file of this layout that tell the layout, for a message."""
        return ", ".join(f"'{arrays.first_key(*group)}'" for group in self.required_keys)
