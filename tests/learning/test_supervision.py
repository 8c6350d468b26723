"""Labels that do not count: what is switched off, and that no row is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from train_shards import STILL, data_config, write_people

from skelfit.learning.data.data_loader import Loader, each_once
from skelfit.learning.data.supervision import SupervisionConfig, supervised

HSMR = SupervisionConfig(min_confidence=0.3, max_vertex_mm=60, max_abs_beta=3)


def labels() -> dict[str, np.ndarray]:
    keypoints = np.full((4, 44, 3), 0.9, np.float32)
    keypoints[1, :5, 2], keypoints[1, 5:7, 2] = 0.29, 0
    betas = np.zeros((4, 10), np.float32)
    betas[0, 3], betas[2, 9] = 3.0, -3.1
    errors = np.array([[9, 60], [9, 61], [9, 10], [9, np.nan]], np.float32)
    return {"gtkps": keypoints, "skel_betas": betas, "errors": errors}


def test_what_counts_is_switched_off_by_person_and_keypoint() -> None:
    given = labels()
    counts = supervised(given, HSMR)
    assert counts.has_pose.tolist() == [True, False, False, False]
    assert counts.has_betas.tolist() == counts.has_pose.tolist()
    assert (counts.keypoints2d[1, :7, 2] == 0).all() and (counts.keypoints2d[1, 7:, 2] > 0.8).all()
    assert (counts.keypoints2d[[0, 2, 3], :, 2] > 0.8).all()
    assert counts.left_out.tolist() == [[0, 0, 0], [5, 1, 1], [0, 1, 1], [0, 1, 1]]
    assert np.array_equal(counts.betas, given["skel_betas"])
    assert given["gtkps"][1, 0, 2] == np.float32(0.29), "the labels stay as they are"


def test_betas_that_do_not_count_may_be_drawn_to_zero() -> None:
    counts = supervised(labels(), SupervisionConfig(max_vertex_mm=60, max_abs_beta=3, zero_betas=True))
    assert counts.has_betas.all() and not counts.has_pose[1:].any()
    assert counts.betas[2, 9] == 0 and counts.betas[0, 3] == 3


def test_all_labels_count_by_default() -> None:
    counts = supervised(labels(), SupervisionConfig())
    assert counts.has_pose.all() and counts.has_betas.all() and not counts.left_out.any()


def test_no_person_is_lost(tmp_path: Path) -> None:
    """A filter that excludes everyone leaves the same batches, with labels that do not count."""
    folder = write_people(tmp_path)
    plain, strict = (
        data_config(folder, augment=STILL, supervision=supervision)
        for supervision in (SupervisionConfig(), SupervisionConfig(max_vertex_mm=0, min_confidence=1))
    )
    for before, after in zip(Loader(plain, images=False), Loader(strict, images=False), strict=True):
        assert before.keys == after.keys and torch.equal(before.poses, after.poses)
        assert before.has_pose.all() and not after.has_pose.any() and (after.left_out[:, 1:] == 1).all()
    for batch in each_once(strict, images=False):
        assert batch.has_pose.all(), "people to measure with are as they are"
