"""From the image names of label files to image files: the changes that some datasets need, as named rules.

The labels and the images of a dataset were packed by different people. How a name must be changed is a property of the
subset, so its manifest names the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from skelfit.config.manifest import PathRule


def image_path(imgname: str, rule: PathRule, prefix: str = "") -> str:
    """Path of an image below the image folder: its name in the label file under a manifest's `path_rule`.

    prefix: put before the result, for tars that keep their images deeper. Returns '' for a name that the rule does not
    fit, or that leads out of the folder: a label file must not choose which other files enter a dataset.
    """
    name = _RULES[rule](imgname)
    path = PurePosixPath(name)
    return "" if not name or path.is_absolute() or ".." in path.parts or "\\" in name else prefix + name


def _none(name: str) -> str:
    return name


def _basename(name: str) -> str:
    """train2014/a.jpg -> a.jpg (COCO, MPII)."""
    return name.rsplit("/", 1)[-1]


def _aic(name: str) -> str:
    """aic-train/a.jpg -> a.jpg (AI Challenger)."""
    return name.replace("aic-train/", "", 1)


def _insta(name: str) -> str:
    """insta-train/12/a_bbb_ccc_d_z/7.jpg -> 12/a_bb_cc_z/0007.jpg (InstaVariety).

    In the third part of the path, a_b_c_..._z, the image archives keep two letters each of b and c, and the last word.
    Frame numbers have at least four digits.
    """
    parts = name.split("/")
    if len(parts) < 4:
        return ""
    words = parts[2].split("_")
    frame = PurePosixPath(parts[-1])
    if len(words) < 3 or not (frame.stem.isascii() and frame.stem.isdigit()):
        return ""
    parts[2] = "_".join([words[0], words[1][:2], words[2][:2], words[-1]])
    parts[-1] = f"{int(frame.stem):04d}{frame.suffix}"
    return "/".join(parts).replace("insta-train/", "", 1)


def _append_jpg(name: str) -> str:
    """S1/a_000001 -> S1/a_000001.jpg (Human3.6M, MPI-INF-3DHP: the names are keys of WebDataset samples)."""
    return f"{name}.jpg"


_RULES: dict[PathRule, Callable[[str], str]] = {
    "none": _none,
    "basename": _basename,
    "aic": _aic,
    "insta": _insta,
    "append_jpg": _append_jpg,
}
