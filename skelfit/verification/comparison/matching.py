"""Match the people of shards with the rows of a label file: by image, then by the centre of the box.

Images match when their names are equal, or when one name is the end of the other (`train/1.jpg` and `1.jpg`). Within an
image, people match by equal centres. If several have the same centre, or none has one, they match by the row of the
original label file where both sides have it, else by order if there are as many on both sides. People without an
image's name (frames of motion capture, meshes) match by subject, sequence and frame, or else by the name of their label
file and the row. A row is matched once. Ambiguous people are not matched.
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

# How a person was matched, and why one was not.
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
class PersonId:
    """What identifies a person of the shards."""

    imgname: str
    row: int  # in the label file of the run
    center: Sequence[float]  # (2,) px
    source: SourceFrame

    def __str__(self) -> str:
        return described(self.imgname, self.source)


@dataclass(frozen=True)
class Matching:
    """The matches of N people of the shards, in order."""

    row: NDArray[np.int64]  # (N,) of the label file; -1: not matched
    how: NDArray[np.int8]  # (N,) index into MATCHED, then UNMATCHED
    example: str  # a person of the shards in words, if possible one whose image or frame the file lacks

    def counts(self, names: Sequence[str]) -> dict[str, int]:
        """The number of people by each of `names`, from MATCHED or UNMATCHED."""
        return {name: int((self.how == _HOW.index(name)).sum()) for name in names}


class ImageNames:
    """The images of a label file, by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.whole: dict[str, int] = {}
        self.of_rows = np.array([self.whole.setdefault(name, len(self.whole)) for name in names], np.int64)
        self._ends: dict[str, int] | None = None  # of all names; made when first needed

    def find(self, name: str) -> int:
        """The index of an image; _NO_IMAGE, or _SEVERAL where the name is the end of several names."""
        for known in (name, *_ends(name)):
            if (number := self.whole.get(known)) is not None:
                return number
        if self._ends is None:
            self._ends = {}
            for longer, k in self.whole.items():
                for end in _ends(longer):
                    self._ends[end] = k if self._ends.get(end, k) == k else _SEVERAL
        return self._ends.get(name, _NO_IMAGE)


def _ends(name: str) -> Iterator[str]:
    """The ends of a path without its first folders, the longest first."""
    while "/" in name:
        name = name.partition("/")[2]
        if name:
            yield name


def described(imgname: str, source: SourceFrame | None) -> str:
    """What identifies a person, in words."""
    return f"the image {imgname!r}" if imgname else str(source or "a row without an image's name")


def match(people: Iterable[PersonId], labels: SkelLabels, within_px: float) -> Matching:
    """The row of a label file for each person. within_px: largest distance of matching centres.

    Raises LabelError where no person has an image's name, and the file has no keys for frames or rows.
    """
    names, first, mixed = ImageNames(labels.imgname), dict[int, str](), set[int]()
    sources = _SourceRows(labels.sources)
    unmatched: PersonId | None = None
    last: PersonId | None = None
    images, rows, centers = list[int](), list[int](), list[Sequence[float]]()
    rows_of_nameless = list[int]()  # rows of the file for people without an image's name
    for person in people:
        image = names.find(person.imgname) if person.imgname else _NAMELESS
        if image >= 0 and first.setdefault(image, person.imgname) != person.imgname:
            mixed.add(image)  # the name in the file is the end of the names of several images
        images.append(image)
        rows.append(person.row)
        centers.append(person.center)
        if image == _NAMELESS:
            rows_of_nameless.append(sources.find(person.source))
        if unmatched is None and (
            image == _NO_IMAGE or (image == _NAMELESS and rows_of_nameless[-1] == _NO_IMAGE)
        ):
            unmatched = person
        last = person
    if rows_of_nameless and len(rows_of_nameless) == len(images) and not sources.known:
        expected = "what identifies frames without images: sequence, subject and frame, or label_file and row"
        raise LabelError(labels.path, "sequence", expected, "none of these keys, or nothing in them")
    matcher = _Matcher(
        np.array(rows, np.int64), np.array(centers, np.float32).reshape(-1, 2), labels, within_px
    )
    rows_of_image = _groups(names.of_rows)
    for image, indices in _groups(np.array(images, np.int64)).items():
        if image == _NO_IMAGE:
            matcher.how[indices] = _HOW.index("no_image")
        elif image == _NAMELESS:
            matcher.pair_frames(indices, np.array(rows_of_nameless, np.int64))
        elif image >= 0 and image not in mixed:
            matcher.pair_image(indices, rows_of_image[image])
    return Matching(matcher.row, matcher.how, str(unmatched or last or ""))


class _SourceRows:
    """The rows of a label file for people without images, by their source."""

    def __init__(self, sources: Iterable[SourceFrame | None]) -> None:
        self.known: dict[SourceFrame, int] = {}
        for row, source in enumerate(sources):
            if source is not None:
                self.known[source] = row if source not in self.known else _SEVERAL

    def find(self, source: SourceFrame) -> int:
        """The row of a source; _NO_IMAGE, or _SEVERAL."""
        return self.known.get(source, _NO_IMAGE)


def _groups(numbers: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The indices of each number, in order."""
    order = np.argsort(numbers, kind="stable")
    values, starts = np.unique(numbers[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True)) if len(numbers) else {}


class _Matcher:
    """Matches people, one image after the other. People who are never paired are ambiguous."""

    def __init__(
        self, rows: NDArray[np.int64], centers: FloatArray, labels: SkelLabels, within_px: float
    ) -> None:
        self.rows, self.centers, self.labels, self.within_px = rows, centers, labels, within_px
        self.row = np.full(len(rows), -1, np.int64)
        self.how = np.full(len(rows), _HOW.index("ambiguous"), np.int8)

    def pair_image(self, people: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Match the people and rows (indices) of one image."""
        if self.labels.center is None:
            self._pair_by_row_or_order(people, rows)
            return
        people_at, rows_at = _by_center(self.centers, people), _by_center(self.labels.center, rows)
        for center in people_at.keys() & rows_at.keys():
            self._pair_by_row_or_order(np.array(people_at.pop(center)), np.array(rows_at.pop(center)))
        if people_at:
            left = [
                np.array([i for indices in x.values() for i in indices], np.int64)
                for x in (people_at, rows_at)
            ]
            self._pair_nearest(*left)

    def pair_frames(self, people: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Match people without images with the rows of their sources; rows may be _NO_IMAGE or _SEVERAL."""
        values, counts = np.unique(rows, return_counts=True)
        once = (rows >= 0) & ~np.isin(rows, values[counts > 1])
        self._set(people[once], rows[once], "frame")
        self.how[people[rows == _NO_IMAGE]] = _HOW.index("no_frame")

    def _pair_by_row_or_order(self, people: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Match people with the same centre, or without one, by their rows or order."""
        if len(people) == len(rows) == 1:
            self._set(people, rows, "center" if self.labels.center is not None else "alone")
            return
        original_rows = self.labels.row
        if original_rows is not None and len(set(original_rows[rows].tolist())) == len(rows):
            row_in_file = dict(zip(original_rows[rows].tolist(), rows.tolist(), strict=True))
            pairs = [
                (i, row_in_file[row])
                for i, row in zip(people.tolist(), self.rows[people].tolist(), strict=True)
                if row in row_in_file
            ]
            if pairs and len({k for _, k in pairs}) == len(pairs):
                matched, matched_rows = np.array(pairs).T
                self._set(matched, matched_rows, "row")
        elif len(people) == len(rows):
            self._set(people, rows, "order")

    def _pair_nearest(self, people: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Match people without an equal centre with the only row near, if that is near to no other person."""
        self.how[people] = _HOW.index("no_person")
        assert self.labels.center is not None
        points = [x[k].astype(np.float64) for x, k in ((self.centers, people), (self.labels.center, rows))]
        known = [np.isfinite(p).all(1) for p in points]
        without_center = ~known[0] | (len(rows) > 0 and not known[1].any())
        self.how[people[without_center]] = _HOW.index("no_center")
        if not all(k.any() for k in known):
            return
        (people, rows), trees = (
            (people[known[0]], rows[known[1]]),
            [KDTree(p[k]) for p, k in zip(points, known, strict=True)],
        )
        near = trees[0].query_ball_tree(trees[1], self.within_px)
        back = trees[1].query_ball_tree(trees[0], self.within_px)
        for i, candidates in enumerate(near):
            if len(candidates) == 1 and len(back[candidates[0]]) == 1:
                self._set(people[i : i + 1], rows[candidates], "near")
            elif candidates:
                self.how[people[i]] = _HOW.index("ambiguous")

    def _set(self, people: NDArray[np.int64], rows: NDArray[np.int64], how: str) -> None:
        self.row[people], self.how[people] = rows, _HOW.index(how)


def _by_center(centers: FloatArray, indices: NDArray[np.int64]) -> dict[tuple[float, float], list[int]]:
    """Indices of people by the centres of their boxes."""
    by_center: dict[tuple[float, float], list[int]] = {}
    for k, (x, y) in zip(indices.tolist(), centers[indices].tolist(), strict=True):
        by_center.setdefault((x, y), []).append(k)
    return by_center
