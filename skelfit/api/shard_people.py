"""`skelfit.load_shards`: the people of finished shards, one by one, as plain Python and any trainer can use them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skelfit.api.angle_names import angle_index
from skelfit.errors import ArgumentError, found_text
from skelfit.learning.data.person_stream import find_tars
from skelfit.shards.finished_run import checked_shard, kept_keys, open_run
from skelfit.shards.label_vector import LABEL_SIZE, LAYOUT_VERSION, FloatArray, unpack
from skelfit.shards.shard_files import ShardError, ShardFiles, shard_of
from skelfit.shards.shard_reader import read_members, read_samples
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.checked_arguments import location_argument, location_or_none
from skelfit.storage.locations import Location, Place, location_of, side_by_side, text_of

_LABEL, _META = "label.npy", "meta.json"
_EXPECTED = "a folder of a finished run, tars as a path with * or {000000..000009}, or several of them"


@dataclass(frozen=True, eq=False)
class LabelledPerson:
    """One person of a shard.

    `labels` has the parts of the label vector by name, float32 in the shapes and units of shards/README.md:
    skel_poses (46,) rad, skel_betas (10,), skel_trans (3,) m, smpl_pose (24, 3) rad, smpl_betas (10,),
    smpl_trans (3,) m, center (2,) px, scale (2,) px/200, cam_int (3, 3) px, gtkps (44, 3) px, px, confidence,
    keypoints3d (44, 4) m, m, m, confidence, errors (2,) mm. `meta` is the person's metadata;
    `meta["coordinates"]` names the frame of all this.
    """

    key: str
    status: str  # ok, or limit_violation
    labels: Mapping[str, FloatArray]
    meta: Mapping[str, Any]
    image: bytes | None  # an image file's bytes; None where there is none, or none was asked for

    def __repr__(self) -> str:
        image = "no image" if self.image is None else f"an image of {len(self.image)} bytes"
        return f"<LabelledPerson {self.key}: {self.status}; labels: {', '.join(self.labels)}; {image}>"

    @property
    def poses(self) -> FloatArray:
        """SKEL's angles (46,) rad, in the order of DOF_NAMES."""
        return self.labels["skel_poses"]

    @property
    def betas(self) -> FloatArray:
        """SKEL's shape (10,), of the gender `meta["skel_gender"]`."""
        return self.labels["skel_betas"]

    @property
    def trans(self) -> FloatArray:
        """SKEL's translation (3,) m."""
        return self.labels["skel_trans"]

    def angle(self, name: str, *, degrees: bool = False) -> float:
        """One of the 46 angles in rad, or in degrees. Raises ArgumentError for another name."""
        rad = float(self.poses[angle_index(name)])
        return float(np.degrees(rad)) if degrees else rad


@dataclass(frozen=True, eq=False)
class ShardPeople:
    """The people of some finished shards, in their order: to be iterated over as often as wanted.

    Each iteration reads the tars from the first on and holds one person at a time. Raises ShardError on the way for a
    shard that is not what its done marker says.
    """

    shards: tuple[tuple[ShardFiles, ShardMarker], ...]
    kept: frozenset[str] | None = None  # keys of the people who are wanted; None: all
    images: bool = True

    def __repr__(self) -> str:
        return f"<ShardPeople: {len(self)} people in {len(self.shards)} shards>"

    def __len__(self) -> int:
        """How many people there are, by the done markers and the keep-list."""
        return sum(marker.rows_out for _, marker in self.shards) if self.kept is None else len(self.kept)

    def __iter__(self) -> Iterator[LabelledPerson]:
        for files, marker in self.shards:
            count = 0
            for key, label, meta, image in self._samples(files.tar):
                count += 1
                if self.kept is not None and key not in self.kept:
                    continue
                if meta.get("layout") != LAYOUT_VERSION or label.shape != (LABEL_SIZE,):
                    layout = f"{meta.get('layout')} {label.shape}"
                    raise ShardError(files.tar, f"{key}: layout", f"{LAYOUT_VERSION} ({LABEL_SIZE},)", layout)
                yield LabelledPerson(key, str(meta["status"]), unpack(label), meta, image)
            if count != marker.rows_out:
                raise ShardError(files.tar, None, f"{marker.rows_out} samples", f"{count}")

    def _samples(self, tar: Location) -> Iterator[tuple[str, FloatArray, dict[str, Any], bytes | None]]:
        """Key, label vector, metadata and image of each sample."""
        if not self.images:
            yield from ((key, label, meta, None) for key, label, meta in read_samples(tar))
            return
        for key, members in read_members(tar):
            try:
                label = np.load(io.BytesIO(members.pop(_LABEL)), allow_pickle=False)
                meta = json.loads(members.pop(_META))
            except (KeyError, ValueError) as error:
                expected = f"a readable {_LABEL} and {_META}"
                raise ShardError(tar, key, expected, repr(error)) from None
            yield key, label, meta, next(iter(members.values()), None)


def load_shards(
    shards: Place | Sequence[Place],
    *,
    keep: Place | None = None,
    images: bool = True,
) -> ShardPeople:
    """The people of finished shards, for any trainer or for plain Python.

    Args:
        shards: the folder of a finished run, or tars by pattern ("shards/demo/*.tar", "demo-{000000..000009}.tar"),
            or several of them; each a path or an address (s3://...).
        keep: a keep-list of `skelfit verify --keep`: only the people that it keeps.
        images: whether the images are read too.

    Returns:
        A ShardPeople: `len()` says how many there are, and each iteration gives them in the order of the shards.
        For batches on several processes, shuffled and augmented, see docs/loaders.md.

    Raises:
        ArgumentError: for what is no path, and for a shard that is there twice.
        ShardError: for shards that are not there, not finished, or damaged.
        InputError: for a keep-list that cannot be used, or that does not name all people.
    """
    given: Sequence[Any] = shards if isinstance(shards, (list, tuple)) else [shards]
    if not given:
        raise ArgumentError("shards", _EXPECTED, found_text(shards))
    keep_list = location_or_none("keep", keep)
    pairs = tuple(pair for item in given for pair in _shards_at(item))
    for tar, count in Counter(files.tar.resolve() for files, _ in pairs).items():
        if count > 1:
            raise ArgumentError("shards", "each shard once", f"{tar.name} {count} times")
    kept = None if keep_list is None else kept_keys([files for files, _ in pairs], keep_list)
    return ShardPeople(pairs, kept, images)


def _shards_at(folder_or_tars: Place) -> tuple[tuple[ShardFiles, ShardMarker], ...]:
    """The shards of a folder, or of a pattern, each with its marker. Raises ArgumentError, ShardError."""
    location = location_argument("shards", folder_or_tars)
    if location.is_dir():
        return open_run(location).shards
    shards = [shard_of(location_of(tar)) for tar in find_tars(text_of(location))]
    return tuple(side_by_side(checked_shard, shards, location))
