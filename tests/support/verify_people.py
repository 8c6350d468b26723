"""Fitted people of the demo in label vectors, for the tests of measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_fakes import Fields, make_metas

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.smpl import SmplModel
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.fitter import Fitter
from skelfit.labels.demo_people import sample_labels
from skelfit.shards.label_vector import FIELDS, pack
from skelfit.verification.measures.decoded_samples import DecodedPeople

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"
CAMERA = np.array([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]], np.float32)


def fitted_fields(models: ModelSet, count: int, gender: str = "neutral", away: float = 0.0) -> Fields:
    """People of the demo with fits, keypoints and boxes, `away` metres further from the camera."""
    pose, betas, pelvis = (torch.tensor(a) for a in sample_labels(count, 7, 0.0))
    smpl = SmplModel(models.smpl_of(gender))
    trans = pelvis - smpl.root_joint(betas) + torch.tensor([0.0, 0.0, away])
    fits = Fitter(models, load_pipeline(PIPELINE).fit).fit(gender, pose, betas, trans)
    fields: Fields = {f.name: np.zeros((count, *f.shape), np.float32) for f in FIELDS}
    fields["skel_poses"], fields["skel_betas"] = fits.poses.numpy(), fits.betas.numpy()
    fields["skel_trans"] = fits.trans.numpy()
    fields["smpl_pose"], fields["smpl_betas"], fields["smpl_trans"] = (
        x.numpy() for x in (pose, betas, trans)
    )
    fields["cam_int"][:] = CAMERA
    points = torch.tensor(models.keypoints44) @ smpl.vertices(pose, betas, trans)
    image = points.numpy() @ CAMERA.T
    fields["gtkps"][..., :2], fields["gtkps"][..., 2] = image[..., :2] / image[..., 2:], 1
    points2d = fields["gtkps"][..., :2]
    fields["scale"] = np.repeat(np.ptp(points2d, axis=1).max(1, keepdims=True) * 1.2 / 200, 2, axis=1)
    fields["errors"] = np.stack([fits.pve_mm.numpy(), fits.max_vertex_mm.numpy()], 1)
    return fields


def as_people(fields: Fields, **changes: Sequence[Any]) -> DecodedPeople:
    """A shard of these people with the male SKEL; `changes` replace metadata."""
    count = len(fields["scale"])
    metas = make_metas(count, **{"skel_gender": ["male"] * count, **changes})
    return DecodedPeople("people-000000", tuple(m["key"] for m in metas), pack(fields), tuple(metas))
