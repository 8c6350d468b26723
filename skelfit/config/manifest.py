"""Manifests: what a subset is. One YAML file each, in `manifests/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skelfit.config.yaml_dataclasses import bounded, build, load_yaml, local_path
from skelfit.errors import ConfigError

Gender = Literal["neutral", "male", "female"]
PathRule = Literal["none", "basename", "aic", "insta", "append_jpg"]
LabelLayout = Literal["camerahmr", "4dhumans", "spin", "amass", "hmr2", "mesh"]


@dataclass(frozen=True)
class ReadOptions:
    """Units and axes that a label file does not state; None: inferred from the values, or an error."""

    scale_unit: Literal["px", "px/200"] | None = None  # of the boxes' `scale`
    angle_unit: Literal["rad", "deg"] | None = None  # of axis-angles
    rot6d: Literal["rows", "columns", "interleaved"] | None = None  # how 6 numbers are a rotation
    length_unit: Literal["m", "cm", "mm"] | None = None  # of meshes
    labels_up: Literal["y", "z"] | None = None  # which axis of the labels' world is up
    up: Literal["y", "z"] | None = None  # which axis is up in the shards; None: as the labels have it


@dataclass(frozen=True)
class LabelSource:
    """One label file of a subset, or a folder of sequences; `path` is relative to the data root."""

    path: str = local_path()
    source: LabelLayout | None = None  # its layout; None: told by its keys
    sha256: str | None = None  # pinned here; else what was recorded beside the file at its first use
    expected_keys: tuple[str, ...] = ()  # that the file must have, besides those that its reader needs
    expected_rows: int | None = bounded(0, default=None)
    gender: Gender = "neutral"  # of the SMPL body, where the file has none
    path_rule: PathRule = "none"
    # Put before the path that the rule gives, for tars that keep their images deeper.
    path_prefix: str = local_path(default="")
    read: ReadOptions = ReadOptions()


@dataclass(frozen=True)
class Filters:
    """Rules by which rows, or 2D keypoints, are left out; None: the rule is off. See `skelfit.labels.filters`."""

    low_confidence: float | None = bounded(0, default=None)  # 2D keypoints below it count as unseen
    few_keypoints: int | None = bounded(0, default=None)  # a row needs more seen 2D keypoints than this
    large_betas: float | None = bounded(0, default=None)  # |beta| beyond it makes a label invalid
    vertex_error: float | None = bounded(0, default=None)  # mm; no vertex of a fit may be this far off


@dataclass(frozen=True)
class DemoSpec:
    """Settings of a subset that is generated when it is missing."""

    people: int = bounded(1, default=2000)
    seed: int = bounded(0, default=0)
    images: bool = True


@dataclass(frozen=True)
class Origin:
    """The source of a subset's labels or images: printed when they are missing, and kept with the results."""

    of: Literal["labels", "images"]
    name: str  # of the project
    url: str = ""
    get: str = ""  # what to download, and how
    license: str = ""
    citation: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a subset is: `manifests/*.yaml`."""

    name: str
    labels: tuple[LabelSource, ...] = bounded(1)
    # Folder or tars (pattern with * or {a..b}), relative to the data root.
    images: str | None = local_path(default=None)
    filters: Filters = Filters()
    description: str = ""
    origins: tuple[Origin, ...] = ()
    demo: DemoSpec | None = None


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest file. Raises ConfigError."""
    manifest = build(Manifest, load_yaml(path), path)
    # The name becomes a file name and part of the WebDataset keys, which end at the first dot.
    if not manifest.name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in manifest.name):
        raise ConfigError(path, "name", "letters, digits, '-' and '_' only", repr(manifest.name))
    return manifest
