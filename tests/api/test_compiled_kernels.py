"""What a call compiles before it starts is what it launches: no file too few, which a user would wait for unawares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from refine_people import make_problem

import skelfit
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.backends import backend
from skelfit.fitting.backends.backend import Backend
from skelfit.labels.demo_people import sample_labels


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files of the kernels that are launched from now on."""
    files: set[str] = set()
    launch = Backend.launch

    def note(self: Backend, kernel: Any, groups: int, inputs: Sequence[Any]) -> None:
        files.add(kernel.module.name.rpartition(".")[2])
        launch(self, kernel, groups, inputs)

    monkeypatch.setattr(Backend, "launch", note)
    return files


def _fit(models: ModelSet, gender: str = "male", **more: Any) -> Any:
    pose, betas, transl = sample_labels(3, 5, 0.3)
    return skelfit.fit(
        pose, betas[:1].repeat(3, 0), transl, gender=gender, device="cpu", models=models, **more
    )


def _fit_mesh(models: ModelSet) -> Any:
    pose, betas, transl = map(torch.from_numpy, sample_labels(2, 5, 0.3))
    return skelfit.fit_mesh(
        SmplModel(models.smpl_of("male")).vertices(pose, betas, transl),
        gender="male",
        device="cpu",
        models=models,
    )


def _refine(models: ModelSet) -> Any:
    problem, _ = make_problem(models, 3)
    start = problem.start
    people = start.angles, start.betas[:1].repeat(3, 1), start.transl, problem.keypoints2d, problem.cam_int
    return skelfit.refine(*people, gender="male", device="cpu", models=models, frames_per_second=30)


def _to_smpl(models: ModelSet) -> Any:
    zeros = torch.zeros(1, 46), torch.zeros(1, 10), torch.zeros(1, 3)
    return skelfit.to_smpl(*zeros, gender="male", device="cpu", models=models)


@pytest.mark.parametrize(
    ("call", "files"),
    [
        (_fit, backend.FIT),
        (lambda models: _fit(models, gender="neutral"), (*backend.FIT, *backend.FREE_BETAS)),
        (lambda models: _fit(models, frames_per_second=30), backend.SEQUENCES),
        (_fit_mesh, backend.MESHES),
        (_refine, backend.REFINEMENT),
        (_to_smpl, backend.TO_SMPL),
    ],
    ids=["fit", "betas", "motion", "mesh", "refine", "to_smpl"],
)
def test_a_call_launches_what_it_compiles(
    models: ModelSet, launched: set[str], call: Callable[[ModelSet], Any], files: tuple[str, ...]
) -> None:
    call(models)
    assert launched == set(files)
