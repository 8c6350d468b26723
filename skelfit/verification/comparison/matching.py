"""Who is who: the people of shards and the rows of a label file, by image, then by the centre of the box.

Images are the same when their names are, or when one name is the end of the other (`train/1.jpg` and `1.jpg`). Among
the people of an image, the one with the same centre is meant; where several share it, or none has one, the row of the
original label file decides if both sides know it, and else the order, if there are as many on both sides. People
without an image's name (frames of motion capture, meshes) are matched by their subject, sequence and frame, or else by
the name of their label file and their row. A row is matched once, and a person who could be several is not matched at
all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from skelfit.errors import LabelError
from skelfit.shards.label_vector import FloatArray
from skelfit.verification.comparison.skel_labels import SkelLabels
from skelfit.verification.comparison.source_frame import SourceFrame

# How a person was matched, or why not.
MATCHED = ("center", "near", "alone", "row", "order", "frame")
UNMATCHED = ("no_image", "no_frame", "no_person", "no_center", "ambiguous")
WHY = {
    "center": "the same centre of the box",
    "near": "the nearest centre",
    "alone": "the only one of the image, in a file without centres",
    "row": "several at one centre, or none: by their row",
    "order": "several at one centre, or none: by their order",
    "frame": "no image: the same frame of a sequence, or row of a label file",
    "no_image": "no such image in the file",
    "no_frame": "no image, and no such frame of a sequence, or row of a label file, in the file",
    "no_person": "the image is there, without a person near enough",
    "no_center": "the image is there, but a centre to match by is not finite",
    "ambiguous": "could be several",
}
_HOW = (*MATCHED, *UNMATCHED)
_NO_IMAGE, _SEVERAL, _NAMELESS = -1, -2, -3


@dataclass(frozen=True)
class Seen:
    """A person of the shards, as far as matching asks."""

    imgname: str
    row: int  # in the label file of the run
    center: Sequence[float]  # (2,) px
    place: SourceFrame

    def __str__(self) -> str:
        return described(self.imgname, self.place)


@dataclass(frozen=True)
class Matching:
    """Of N people of the shards, in their order."""

    row: NDArray[np.int64]  # (N,) of the label file; -1: not matched
    how: NDArray[np.int8]  # (N,) which of MATCHED, then UNMATCHED
    example: str  # a person of the shards in words: one whose image or frame the file lacks, if it lacks any

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """How many people there are of each of MATCHED, or of UNMATCHED."""
        return {name: int((self.how == _HOW.index(name)).sum()) for name in names}


class Names:
    """The images of a label file, found by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.whole: dict[str, int] = {}
        self.of_rows = np.array([self.whole.setdefault(name, len(self.whole)) for name in names], np.int64)
        self._ends: dict[str, int] | None = None  # made when somebody needs them

    def find(self, name: str) -> int:
        """The number of an image; _NO_IMAGE, or _SEVERAL where the name is the end of several."""
        for known in (name, *_ends(name)):
            if (found := self.whole.get(known)) is not None:
                return found
        if self._ends is None:
            self._ends = {}
            for longer, k in self.whole.items():
                for end in _ends(longer):
                    self._ends[end] = k if self._ends.get(end, k) == k else _SEVERAL
        return self._ends.get(name, _NO_IMAGE)


def _ends(name: str) -> Iterator[str]:
    """What is left of a path when folders are taken off its beginning, the longest first."""
    while "/" in name:
        name = name.partition("/")[2]
        if name:
            yield name


def described(imgname: str, place: SourceFrame | None) -> str:
    """What a person is matched by, in words."""
    return f"the image {imgname!r}" if imgname else str(place or "a row without an image's name")


def match(people: Iterable[Seen], labels: SkelLabels, within_px: float) -> Matching:
    """The row of a label file for each person. within_px: how far the centres of one box may be apart.

    Raises LabelError where no person has an image's name, and the file does not say what else its rows are of.
    """
    names, first, mixed = Names(labels.imgname), dict[int, str](), set[int]()
    places = _Places(labels.places)
    lost: Seen | None = None
    last: Seen | None = None
    images, rows, centers = list[int](), list[int](), list[Sequence[float]]()
    nameless = list[int]()  # rows of the file for people without an image's name
    for person in people:
        image = names.find(person.imgname) if person.imgname else _NAMELESS
        if image >= 0 and first.setdefault(image, person.imgname) != person.imgname:
            mixed.add(image)  # the file's name is the end of several images' names
        images.append(image)
        rows.append(person.row)
        centers.append(person.center)
        if image == _NAMELESS:
            nameless.append(places.find(person.place))
        if lost is None and (image == _NO_IMAGE or (image == _NAMELESS and nameless[-1] == _NO_IMAGE)):
            lost = person
        last = person
    if nameless and len(nameless) == len(images) and not places.known:
        expected = "what identifies frames without images: sequence, subject and frame, or label_file and row"
        raise LabelError(labels.path, "sequence", expected, "none of these keys, or nothing in them")
    found = _Found(np.array(rows, np.int64), np.array(centers, np.float32).reshape(-1, 2), labels, within_px)
    theirs = _groups(names.of_rows)
    for image, who in _groups(np.array(images, np.int64)).items():
        if image == _NO_IMAGE:
            found.how[who] = _HOW.index("no_image")
        elif image == _NAMELESS:
            found.pair_places(who, np.array(nameless, np.int64))
        elif image >= 0 and image not in mixed:
            found.pair(who, theirs[image])
    return Matching(found.row, found.how, str(lost or last or ""))


class _Places:
    """The rows of a label file, found by where people without images come from."""

    def __init__(self, places: Iterable[SourceFrame | None]) -> None:
        self.known: dict[SourceFrame, int] = {}
        for row, place in enumerate(places):
            if place is not None:
                self.known[place] = row if place not in self.known else _SEVERAL

    def find(self, place: SourceFrame) -> int:
        """The row of a place; _NO_IMAGE, or _SEVERAL."""
        return self.known.get(place, _NO_IMAGE)


def _groups(numbers: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The places of each number, in order."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True)) if len(numbers) else {}


class _Found:
    """What is found of people, one image after the other; who is never paired is ambiguous."""

    def __init__(
        self, rows: NDArray[np.int64], centers: FloatArray, labels: SkelLabels, within_px: float
    ) -> None:
        self.rows, self.centers, self.labels, self.within_px = rows, centers, labels, within_px
        self.row = np.full(len(rows), -1, np.int64)
        self.how = np.full(len(rows), _HOW.index("ambiguous"), np.int8)

    def pair(self, who: NDArray[np.int64], theirs: NDArray[np.int64]) -> None:
        """People `who` of an image with the rows `theirs` of the file."""
        if self.labels.center is None:
            self._alike(who, theirs)
            return
        mine, other = _by_center(self.centers, who), _by_center(self.labels.center, theirs)
        for center in mine.keys() & other.keys():
            self._alike(np.array(mine.pop(center)), np.array(other.pop(center)))
        if mine:
            left = [np.array([i for some in x.values() for i in some], np.int64) for x in (mine, other)]
            self._near(*left)

    def pair_places(self, who: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """People `who` without images with the rows of their places, as they were looked up."""
        values, counts = np.unique(rows, return_counts=True)
        once = (rows >= 0) & ~np.isin(rows, values[counts > 1])
        self._set(who[once], rows[once], "frame")
        self.how[who[rows == _NO_IMAGE]] = _HOW.index("no_frame")

    def _alike(self, who: NDArray[np.int64], theirs: NDArray[np.int64]) -> None:
        """People whom nothing but their rows and their order tells apart."""
        if len(who) == len(theirs) == 1:
            self._set(who, theirs, "center" if self.labels.center is not None else "alone")
            return
        known = self.labels.row
        if known is not None and len(set(known[theirs].tolist())) == len(theirs):
            place = dict(zip(known[theirs].tolist(), theirs.tolist(), strict=True))
            same = [
                (i, place[row])
                for i, row in zip(who.tolist(), self.rows[who].tolist(), strict=True)
                if row in place
            ]
            if same and len({k for _, k in same}) == len(same):
                mine, other = np.array(same).T
                self._set(mine, other, "row")
        elif len(who) == len(theirs):
            self._set(who, theirs, "order")

    def _near(self, who: NDArray[np.int64], theirs: NDArray[np.int64]) -> None:
        """People without anybody at their very centre: the only one near, who is near to nobody else."""
        self.how[who] = _HOW.index("no_person")
        assert self.labels.center is not None
        points = [x[k].astype(np.float64) for x, k in ((self.centers, who), (self.labels.center, theirs))]
        known = [np.isfinite(p).all(1) for p in points]
        lost = ~known[0] | (len(theirs) > 0 and not known[1].any())
        self.how[who[lost]] = _HOW.index("no_center")
        if not all(k.any() for k in known):
            return
        (who, theirs), trees = (
            (who[known[0]], theirs[known[1]]),
            [KDTree(p[k]) for p, k in zip(points, known, strict=True)],
        )
        near = trees[0].query_ball_tree(trees[1], self.within_px)
        back = trees[1].query_ball_tree(trees[0], self.within_px)
        for i, some in enumerate(near):
            if len(some) == 1 and len(back[some[0]]) == 1:
                self._set(who[i : i + 1], theirs[some], "near")
            elif some:
                self.how[who[i]] = _HOW.index("ambiguous")

    def _set(self, who: NDArray[np.int64], theirs: NDArray[np.int64], how: str) -> None:
        self.row[who], self.how[who] = theirs, _HOW.index(how)


def _by_center(centers: FloatArray, some: NDArray[np.int64]) -> dict[tuple[float, float], list[int]]:
    """Some people by the centres of their boxes."""
    found: dict[tuple[float, float], list[int]] = {}
    for k, (x, y) in zip(some.tolist(), centers[some].tolist(), strict=True):
        found.setdefault((x, y), []).append(k)
    return found
