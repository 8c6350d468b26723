"""Manifests: what a subset is. One YAML file each, in `manifests/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skelfit.config.yaml_dataclasses import bounded, build, load_yaml, local_path, location
from skelfit.errors import ConfigError

Gender = Literal["neutral", "male", "female"]
PathRule = Literal["none", "basename", "aic", "insta", "append_jpg"]
LabelLayout = Literal[
    "camerahmr", "4dhumans", "spin", "amass", "hmr2", "mesh", "bedlam", "3dpw", "aist", "easymocap",
    "gvhmr", "wham", "tram", "prompthmr", "slahmr", "phalp", "vibe", "pare", "romp",
]  # fmt: skip


@dataclass(frozen=True)
class ReadOptions:
    """Units and axes that a label file does not state; None: inferred from the values, or an error."""

    scale_unit: Literal["px", "px/200"] | None = None  # unit of the boxes' scale
    angle_unit: Literal["rad", "deg"] | None = None  # unit of axis-angles
    rot6d: Literal["rows", "columns", "interleaved"] | None = None  # order of the six numbers of a rotation
    length_unit: Literal["m", "cm", "mm"] | None = None  # unit of meshes
    vertex_map: str | None = local_path(default=None)  # brings meshes of another topology into SMPL's
    # which of a file's two kinds of coordinates are read; null: those that the layout's files are mostly used for
    coordinates: Literal["camera", "world"] | None = None
    labels_up: Literal["y", "z"] | None = None  # which axis of the labels' world is up
    up: Literal["y", "z"] | None = None  # which axis is up in the shards; null: as in the labels


@dataclass(frozen=True)
class LabelSource:
    """One label file of a subset, or a folder of sequences; `path` is relative to the data root."""

    path: str = location()  # the label file, or a folder of sequences, below the data folder
    source: LabelLayout | None = None  # its layout; null: told by its keys
    # hash that the file must have; null: the one recorded beside the file at its first use
    sha256: str | None = None
    expected_keys: tuple[str, ...] = ()  # keys that the file must have, besides those that its reader needs
    expected_rows: int | None = bounded(0, default=None)  # number of rows that the file must have
    gender: Gender = "neutral"  # the SMPL body, where the file does not name one
    path_rule: PathRule = "none"  # how an image's name in the label file becomes its path
    # put before the result of the rule, for tars that keep their images deeper
    path_prefix: str = local_path(default="")
    read: ReadOptions = ReadOptions()  # answers that the numbers of the file do not give


@dataclass(frozen=True)
class Filters:
    """Rules by which rows, or 2D keypoints, are left out; None: the rule is off. See `skelfit.labels.filters`."""

    # 2D keypoints with a lower confidence count as unseen
    low_confidence: float | None = bounded(0, default=None)
    few_keypoints: int | None = bounded(0, default=None)  # a row needs more seen 2D keypoints than this
    large_betas: float | None = bounded(0, default=None)  # a larger |beta| leaves the row out
    # mm; a fit with a vertex this far off or further is left out
    vertex_error: float | None = bounded(0, default=None)


@dataclass(frozen=True)
class DemoSpec:
    """Settings of a subset that is generated when it is missing."""

    people: int = bounded(1, default=2000)  # how many people to make
    seed: int = bounded(0, default=0)  # seed of the made-up people
    images: bool = True  # whether to draw their images


@dataclass(frozen=True)
class Origin:
    """The source of a subset's labels or images: printed when they are missing, and kept with the results."""

    of: Literal["labels", "images"]  # what comes from there
    name: str  # name of the project
    url: str = ""  # its page
    get: str = ""  # what to download, and how
    license: str = ""  # licence, for the dataset card
    citation: str = ""  # citation, for the dataset card


@dataclass(frozen=True)
class Manifest:
    """What a subset is: `manifests/*.yaml`."""

    name: str  # prefix of shards and keys: letters, digits, - and _
    labels: tuple[LabelSource, ...] = bounded(1)  # the label files
    # a folder or tars (a pattern with * or {a..b}), below the data folder
    images: str | None = location(default=None)
    filters: Filters = Filters()  # rules that leave rows or keypoints out
    description: str = ""  # free text, kept in summary.json
    origins: tuple[Origin, ...] = ()  # where the labels and the images come from
    demo: DemoSpec | None = None  # generate the subset when its files are missing


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest file. Raises ConfigError."""
    manifest = build(Manifest, load_yaml(path), path)
    # The name becomes a file name and part of the WebDataset keys, which end at the first dot.
    if not manifest.name or not all(c.isascii() and (c.isalnum() or c in "-_") for c in manifest.name):
        raise ConfigError(path, "name", "letters, digits, '-' and '_' only", repr(manifest.name))
    return manifest
