"""How a label file is to be read, and the check that each option given had a use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skelfit.config.manifest import Gender, LabelLayout, ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.known_hashes import file_sha256


@dataclass(frozen=True)
class ReadSettings:
    """How a label file is to be read. The fields are hashed into the names of label stores."""

    gender: Gender = "neutral"  # of the SMPL body where the file does not say
    max_abs_beta: float = 10.0  # a row with a larger shape coefficient is bad
    options: ReadOptions = ReadOptions()
    name: str = ""  # of the sequence; '' is the name of the file without its ending
    subject: str = ""  # of the sequence, where the file does not say

    def identity(self) -> dict[str, Any]:
        """All that decides how a file is read; the vertex map by its content. Raises LabelError."""
        path = self.options.vertex_map
        return asdict(self) | {"map": None if path is None else file_sha256(Path(path))}


class OptionError(LabelError):
    """An option that has no use for this label file."""


# What each reading option is about, and its name on the command line.
OPTIONS = {
    "scale_unit": ("boxes", "--scale-unit"),
    "angle_unit": ("axis-angles", "--angle-unit"),
    "rot6d": ("rotations as 6 numbers", "--rot6d"),
    "length_unit": ("meshes", "--length-unit"),
    "vertex_map": ("meshes of another topology than SMPL's", "--vertex-map"),
    "coordinates": ("people both before a camera and in a world", "--coordinates"),
    "labels_up": ("people in a world, not before a camera", "--labels-up"),
    "up": ("people in a world, not before a camera", "--up"),
}


def check_options(arrays: LabelArrays, layout: LabelLayout, options: ReadOptions) -> None:
    """Raise OptionError for a given option that the reader of the file did not use."""
    for name, (subject, option) in OPTIONS.items():
        value = getattr(options, name)
        if value is not None and name not in arrays.used_options:
            expected = f"{subject}, for {option} {value} (in a manifest: read.{name})"
            raise OptionError(arrays.path, None, expected, f"none in these {layout} labels")
