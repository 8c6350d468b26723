"""How people of shards are matched with the rows of a label file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelfit.errors import LabelError
from skelfit.verification.comparison.matching import MATCHED, UNMATCHED, PersonId, match
from skelfit.verification.comparison.skel_labels import SkelLabels
from skelfit.verification.comparison.source_frame import SourceFrame


def labels_of(
    names: list[str], center: Any = None, row: Any = None, sources: list[SourceFrame | None] | None = None
) -> SkelLabels:
    n = len(names)
    zeros = np.zeros((n, 46), np.float32)
    return SkelLabels(
        Path("x.npz"), names, zeros, zeros[:, :10], None,
        None if center is None else np.array(center, np.float32).reshape(-1, 2),
        None if row is None else np.array(row), sources or [None] * n, None,
        np.zeros(n, bool), False, np.zeros(n, bool),
    )  # fmt: skip


def matched(people: Sequence[tuple[Any, ...]], labels: SkelLabels) -> list[tuple[int, str]]:
    person_ids = (PersonId(*(*person, SourceFrame(None, "x", person[1]))[:4]) for person in people)
    matching = match(person_ids, labels, 1.0)
    how = (*MATCHED, *UNMATCHED)
    return [(int(row), how[k]) for row, k in zip(matching.row, matching.how, strict=True)]


A, B, FAR = (10.0, 10.0), (50.0, 10.0), (90.0, 90.0)


def test_people_of_an_image_match_by_centre() -> None:
    labels = labels_of(["x", "x", "y", "x"], [B, A, A, (10.7, 90)])
    people = [("x", 0, A), ("x", 1, B), ("x", 2, (10, 90)), ("x", 3, FAR), ("y", 4, A), ("z", 5, A)]
    assert matched(people, labels) == [
        (1, "center"), (0, "center"), (3, "near"), (-1, "no_person"), (2, "center"), (-1, "no_image"),
    ]  # fmt: skip


def test_ambiguous_people_are_not_matched() -> None:
    assert matched([("x", 0, A)], labels_of(["x", "x"], [(10.5, 10), (9.5, 10)])) == [(-1, "ambiguous")]
    two = [("x", 0, (10.5, 10)), ("x", 1, (9.5, 10))]
    assert matched(two, labels_of(["x"], [A])) == [(-1, "ambiguous")] * 2
    same = [("x", 3, A), ("x", 5, A)]
    assert matched(same, labels_of(["x"] * 3, [A] * 3)) == [(-1, "ambiguous")] * 2
    assert matched(same, labels_of(["x"] * 2, [A] * 2)) == [(0, "order"), (1, "order")]
    # Rows decide where both sides have them; a row that the file lacks is ambiguous.
    assert matched(same, labels_of(["x"] * 3, [A] * 3, [5, 4, 3])) == [(2, "row"), (0, "row")]
    assert matched(same, labels_of(["x"] * 2, [A] * 2, [5, 4])) == [(-1, "ambiguous"), (0, "row")]
    assert (
        matched([("x", 3, A), ("x", 3, A)], labels_of(["x"] * 2, [A] * 2, [3, 4])) == [(-1, "ambiguous")] * 2
    )


def test_files_without_centres() -> None:
    people = [("x", 0, A), ("x", 1, B), ("y", 2, A), ("z", 3, A), ("z", 4, B)]
    labels = labels_of(["y", "x", "z", "x"])
    assert matched(people, labels) == [
        (1, "order"), (3, "order"), (0, "alone"), (-1, "ambiguous"), (-1, "ambiguous"),
    ]  # fmt: skip


def test_image_names_may_start_at_another_folder() -> None:
    people = [("train/a/1.jpg", 0, A), ("2.jpg", 1, A), ("b/3.jpg", 2, A), ("4.jpg", 3, A)]
    labels = labels_of(["a/1.jpg", "root/2.jpg", "c/3.jpg", "p/4.jpg", "q/4.jpg"], [A] * 5)
    assert matched(people, labels) == [(0, "center"), (1, "center"), (-1, "no_image"), (-1, "ambiguous")]
    # One name of the file for several images of the shards.
    two = [("p/1.jpg", 0, A), ("q/1.jpg", 1, B)]
    assert matched(two, labels_of(["1.jpg", "1.jpg"], [A, B])) == [(-1, "ambiguous")] * 2


def walk(*frames: int, name: str = "walk", subject: str = "ann") -> list[SourceFrame | None]:
    return [SourceFrame(subject, name, frame) for frame in frames]


def test_frames_without_images_are_matched_by_their_sequence() -> None:
    """Never by their rows: another motion of equal length has the same ones."""
    people = [("", row, (0.0, 0.0), source) for row, source in enumerate(walk(3, 4, 5))]
    own, rows = labels_of([""] * 3, [(0, 0)] * 3, [7, 8, 9], walk(5, 3, 4)), [0, 1, 2]
    assert matched(people, own) == [(1, "frame"), (2, "frame"), (0, "frame")]
    two_frames = labels_of([""] * 2, [(0, 0)] * 2, [0, 2], walk(3, 5))
    assert matched(people, two_frames) == [(0, "frame"), (-1, "no_frame"), (1, "frame")]
    for other in (walk(3, 4, 5, name="run"), walk(3, 4, 5, subject="bob")):
        assert matched(people, labels_of([""] * 3, [(0, 0)] * 3, rows, other)) == [(-1, "no_frame")] * 3
    twice = labels_of([""] * 3, [(0, 0)] * 3, rows, walk(3, 3, 4))
    assert matched(people, twice) == [(-1, "ambiguous"), (2, "frame"), (-1, "no_frame")]
    assert matched([people[0]] * 2, own) == [(-1, "ambiguous")] * 2


def test_meshes_without_images_are_matched_by_file_and_row() -> None:
    people = [("", row, (0.0, 0.0), SourceFrame(None, "scans.npz", row)) for row in (3, 5)]
    sources: list[SourceFrame | None] = [
        SourceFrame(None, "scans.npz", 5),
        SourceFrame(None, "other.npz", 3),
        None,
    ]
    labels = labels_of([""] * 3, [(0, 0)] * 3, [5, 3, 3], sources)
    assert matched(people, labels) == [(-1, "no_frame"), (0, "frame")]


def test_files_without_names_and_frames_are_refused() -> None:
    people = [("", row, (0.0, 0.0), source) for row, source in enumerate(walk(0, 1))]
    labels = labels_of([""] * 2, [(0, 0)] * 2, [0, 1])
    with pytest.raises(LabelError) as caught:
        matched(people, labels)
    assert str(caught.value) == (
        "x.npz: 'sequence': expected what identifies frames without images: sequence, subject and frame, or "
        "label_file and row, found none of these keys, or nothing in them"
    )
    # Those with an image are compared all the same.
    mixed = [*people, ("x", 2, A, SourceFrame(None, "p.npz", 2))]
    assert matched(mixed, labels_of(["", "", "x"], [(0, 0), (0, 0), A])) == [
        (-1, "no_frame"), (-1, "no_frame"), (2, "center"),
    ]  # fmt: skip
    # A name that ends in a slash does not end in the empty name.
    assert matched([("x/", 0, A)], labels_of([""], [A])) == [(-1, "no_image")]


def test_centres_that_are_not_finite_are_named() -> None:
    nan = (np.nan, np.nan)
    people = [("x", 0, A), ("x", 1, B), ("y", 2, nan), ("z", 3, A)]
    labels = labels_of(["x", "x", "y", "z"], [nan, nan, A, FAR])
    assert matched(people, labels) == [(-1, "no_center")] * 3 + [(-1, "no_person")]


def test_many_people_without_images_are_matched_fast() -> None:
    n = 20_000
    people = (PersonId("", i, (0.0, 0.0), SourceFrame("s", "x", i)) for i in range(n))
    order = np.random.default_rng(0).permutation(n)
    labels = labels_of([""] * n, [(0, 0)] * n, order, [SourceFrame("s", "x", i) for i in order.tolist()])
    matching = match(people, labels, 1.0)
    assert (order[matching.row] == np.arange(n)).all() and matching.counts(MATCHED)["frame"] == n
