"""Finished shards of people whose keypoints are not where their labels are, some hostile; and a stand-in refiner.

Seeds are fixed: the same rows have the same status in each test.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from job_fakes import hashes, make_run, write_images
from verify_people import CAMERA, PIPELINE

from skelfit.api.run_shards import convert_run, make_rank_of, make_run_of
from skelfit.bodies.dofs import dof_index
from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import load_pipeline
from skelfit.config.refine_job import RefineJob
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.planned_shard import RunPlan
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import LabelFile
from skelfit.executors.executor import THIS_PROCESS
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    RefinementStatus,
    unrefined,
)
from skelfit.labels.demo_people import sample_labels
from skelfit.labels.label_store import build_store, store_info
from skelfit.refining.refine_run import plan_refinement
from skelfit.refining.shard_refinement import refine_batch
from skelfit.shards.finished_run import open_run

PEOPLE, SHARD_SIZE = 14, 5
NAN_ROW, UNSEEN_ROW, BEHIND_ROW, THREE_ROW, SWAPPED_ROW, NEAR_ROW = 3, 4, 5, 6, 7, 8
HOSTILE = (NAN_ROW, UNSEEN_ROW, BEHIND_ROW, THREE_ROW, SWAPPED_ROW, NEAR_ROW)
_MOVED = ("hip_flexion", "hip_adduction", "knee_angle", "elbow_flexion")


def make_source(folder: Path, models: ModelSet, camera: bool = True) -> Path:
    """Three finished shards with images. The pictures show the fits with other angles of hips, knees and elbows.

    NAN_ROW is a bad label; UNSEEN_ROW has no confidence, BEHIND_ROW is behind the camera, THREE_ROW has three
    keypoints, those of SWAPPED_ROW have left and right exchanged, and NEAR_ROW's are where the fit is. camera False:
    the labels have none.
    """
    folder.mkdir(parents=True)
    pipeline = replace(load_pipeline(PIPELINE), shard_size=SHARD_SIZE)
    fitter = Fitter(models, pipeline.fit)
    pose, betas, pelvis = (torch.tensor(a) for a in sample_labels(PEOPLE, 7, 0.0))
    betas = 0.3 * betas
    trans = pelvis - SmplModel(models.smpl_of("neutral")).root_joint(betas)
    trans[BEHIND_ROW, 2] = -1.5  # further behind, the label would be bad
    fits = fitter.fit("neutral", pose, betas, trans)
    image = _shown(models, _moved(fits.poses), fits.betas, fits.trans)
    near = [NEAR_ROW, SWAPPED_ROW]
    image[near] = _shown(models, fits.poses, fits.betas, fits.trans)[near]
    image[UNSEEN_ROW, :, 2] = 0
    image[THREE_ROW, 3:, 2] = 0
    image[SWAPPED_ROW] = image[SWAPPED_ROW, list(MIRRORED_KEYPOINTS)]
    flat = pose.reshape(PEOPLE, 72).numpy().copy()
    flat[NAN_ROW, 7] = np.nan
    labels = folder / "people.npz"
    layout: Literal["camerahmr", "hmr2"] = "camerahmr" if camera else "hmr2"
    columns: dict[str, Any] = {
        "imgname": np.array([f"train/{i:06d}.jpg" for i in range(PEOPLE)]),
        "center": np.full((PEOPLE, 2), 128, np.float32),
        "scale": np.full(PEOPLE, 1.2, np.float32),
    }
    if camera:
        columns |= {"pose_cam": flat, "shape": betas.numpy(), "trans_cam": trans.numpy()}
        columns |= {"cam_int": np.tile(CAMERA, (PEOPLE, 1, 1)), "gtkps": image.astype(np.float32)}
    else:
        columns |= {"global_orient": flat[:, :3], "body_pose": flat[:, 3:], "betas": betas.numpy()}
        columns |= {"pred_cam_t_full": trans.numpy(), "keypoints_2d": image.astype(np.float32)}
    np.savez(labels, **columns)
    store = build_store(LabelSource("people.npz", layout), labels, folder / "stores")
    run = replace(
        make_run(folder / "unused"),
        subset="seen",
        out=str(folder / "out"),
        images=str(write_images(folder / "images", PEOPLE, 256)),
        models_sha256=models.sha256,
        pipeline=pipeline,
        labels=(
            LabelFile(str(store), labels.name, store_info(store).sha256, PEOPLE, layout, "neutral", "none"),
        ),
    )
    with writing(folder / "out", run.subset):
        convert_run(run, work=partial(convert_batch, fitter=fitter))
    return folder / "out"


def _moved(poses: torch.Tensor) -> torch.Tensor:
    """Poses (N,46) with other angles of the limbs, away from their limits at 0."""
    rng, moved = np.random.default_rng(3), poses.clone()
    for name in _MOVED:
        for side in "rl":
            by = torch.tensor(rng.uniform(0.1, 0.25, len(poses)), dtype=poses.dtype)
            moved[:, dof_index(f"{name}_{side}")] += by
    return moved


def _shown(models: ModelSet, poses: torch.Tensor, betas: torch.Tensor, trans: torch.Tensor) -> np.ndarray:
    """Keypoints (N,44,3) px and confidence of people in their pictures."""
    skel = SkelModel(models.skel_of("male"))
    points = torch.tensor(models.keypoints44) @ skel.forward(skel.shape(betas), poses, trans).vertices
    image = points.double().numpy() @ CAMERA.T.astype(np.float64)
    return np.concatenate((image[..., :2] / image[..., 2:], np.ones((*image.shape[:2], 1))), 2)


class StandInRefiner:
    """Lowers both knees of every second person, and says that this helped; counts the people of its calls."""

    def __init__(self) -> None:
        self.people: list[int] = []

    def refine(self, problem: RefinementProblem) -> RefinementResult:
        """What depends on a person's own numbers alone."""
        self.people.append(len(problem))
        angles = problem.start.angles.clone()
        chosen = (
            (angles.double().sum(1) + problem.start.betas.double().sum(1)) * 1000
        ).round().long() % 2 == 0
        angles[:, [6, 13]] += 0.01
        refined = BodyParameters(
            torch.where(chosen[:, None], angles, problem.start.angles),
            problem.start.betas,
            problem.start.transl,
        )
        status = torch.where(chosen, int(RefinementStatus.REFINED), int(RefinementStatus.UNCHANGED))
        pair = torch.tensor([[2.0, 1.0]]).repeat(len(problem), 1)
        result = unrefined(problem, status)
        return replace(result, refined=refined, reprojection=pair, reprojection_px=10 * pair)


def planned(source: Path, out: Path, job: RefineJob | None = None) -> RunPlan:
    """The shards of a refinement."""
    run = open_run(source)
    return plan_refinement(run, str(out), None, run.identity["models_sha256"], "cpu", job or RefineJob())


def refine(
    source: Path, out: Path, *, stand_in: bool = False, rank: Rank | None = None, fit_batch: int | None = None
) -> dict[str, str]:
    """Refine in this process; returns the hashes of the files."""
    work = partial(refine_batch, refiner=StandInRefiner() if stand_in else None)
    plan = planned(source, out)
    with writing(out, plan.run.subset, rank):
        if rank is None:
            make_run_of(plan, lambda _: None, THIS_PROCESS, work, fit_batch=fit_batch)
        else:
            make_rank_of(plan, lambda _: None, rank, THIS_PROCESS, work, fit_batch=fit_batch)
    return hashes(out)
