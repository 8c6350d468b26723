"""The SKEL bodies of exported people: joints, skin and bones, with the models of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet, make_model_set
from skelfit.bodies.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.bodies.world_axes import Y_UP_FROM_Z_UP, up_axis
from skelfit.errors import ModelError
from skelfit.shards.finished_run import FinishedRun, Person
from skelfit.verification.measures.sequence_ground import SequenceGround, measure_ground
from skelfit.verification.measures.sole_poser import SolePoser

Array = NDArray[np.float64]

# Rotations from the coordinates of a label file to OpenSim's ground, whose y axis is up. Rows are the ground's axes.
# A person who faces the camera, or stands as the body models do, looks along x and has z to the right.
_Y_UP: Array = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # as the body models have it: y up, z forward
GROUND_AXES: dict[str, Array] = {
    "camera": np.array([[0.0, 0, -1], [0, -1, 0], [-1, 0, 0]]),  # x right, y down, z forward
    "world_y_up": _Y_UP,
    "world_z_up": _Y_UP @ Y_UP_FROM_Z_UP,
    "unknown": _Y_UP,
}
GROUND_TEXT = {
    "camera": "x = -z (towards the camera), y = -y (up), z = -x (to the left of the image) of the camera frame",
    "world_y_up": "x = z, y = y (up), z = -x of the labels' world, whose y is up",
    "world_z_up": "x = -y, y = z (up), z = -x of the labels' world, whose z is up",
    "unknown": "x = z, y = y (up), z = -x of the labels' frame, whose y is taken to be up",
}

# All files that are written have y up, and gravity along -y.
GRAVITY_KNOWN = "along -y: the labels are in a world with an axis up"
GRAVITY_ASSUMED = {
    "camera": "not known: taken to be along -y, as if the camera were level",
    "unknown": "not known: taken to be along -y, as if y were up in the labels",
}


def gravity_text(coordinates: str) -> str:
    """How gravity in a file follows from the coordinates of its labels, a key of GROUND_AXES."""
    return GRAVITY_KNOWN if up_axis(coordinates) is not None else GRAVITY_ASSUMED[coordinates]


def coordinates_of(person: Person) -> str:
    """The coordinates of a person's label, a key of GROUND_AXES."""
    name = str(person.meta["coordinates"])
    return name if name in GROUND_AXES else "camera"  # the others have a camera's axes


def check_models(run: FinishedRun, models: ModelSet) -> None:
    """Raise ModelError unless these are the models that the run was fitted with.

    The same models with a keypoint regressor, which the run did not have, are accepted: it changes no body.
    """
    expected = run.identity["models_sha256"]
    without_keypoints = make_model_set(models.smpl, models.skel, models.source, None)
    if expected not in (models.sha256, without_keypoints.sha256):
        raise ModelError(models.source, "sha256", f"the models of the run, {expected}", models.sha256)


@dataclass(frozen=True)
class PosedPoints:
    """Joints, markers and joint frames of N people, in the coordinates of their labels."""

    joints: Array  # (N,24,3) m
    markers: Array  # (N,M,3) m, skin vertices
    orientations: (
        Array  # (N,24,3,3) of SKEL's joint frames, axes as columns; of the pelvis: x forward, y up, z right
    )


class ExportedBodies:
    """The SKEL models of a run's people, each made when it is first needed."""

    def __init__(self, models: ModelSet) -> None:
        self.models = models
        self._skel: dict[str, SkelModel] = {}
        self._soles: dict[str, SolePoser] = {}

    def ground(self, people: Sequence[Person], rate: float | None) -> SequenceGround:
        """The ground under the frames of a sequence, of one gender of SKEL; rate in Hz, if known."""
        gender = str(people[0].meta["skel_gender"])
        if gender not in self._soles:
            self._soles[gender] = SolePoser(self.skel(gender))
        frames = np.array([int(person.meta["frame"]) for person in people], np.int64)
        names = ("skel_betas", "skel_poses", "skel_trans")
        parameters = (np.array([person.fields[name] for person in people]) for name in names)
        tracks = self._soles[gender].tracks(frames, *parameters)
        return measure_ground(tracks, rate, str(people[0].meta["coordinates"]))

    def skel(self, gender: str) -> SkelModel:
        """SKEL of a gender. Raises ModelError when there is none."""
        if gender not in self._skel:
            self._skel[gender] = SkelModel(self.models.skel_of(gender), dtype=torch.float64)
        return self._skel[gender]

    def by_gender(self, people: Sequence[Person]) -> Iterator[tuple[list[int], SkelModel]]:
        """The rows of `people` of each gender of SKEL, with its model."""
        genders = np.array([person.meta["skel_gender"] for person in people])
        for gender in sorted(set(genders.tolist())):
            yield np.flatnonzero(genders == gender).tolist(), self.skel(gender)

    @torch.no_grad()
    def points(self, people: Sequence[Person], vertices: Sequence[int]) -> PosedPoints:
        """Joints, their frames and the given skin vertices of N people."""
        n = len(people)
        points = PosedPoints(np.empty((n, 24, 3)), np.empty((n, len(vertices), 3)), np.empty((n, 24, 3, 3)))
        for rows, model in self.by_gender(people):
            betas, q, trans = parameters_of([people[i] for i in rows])
            frames = model.frames(betas)
            posed = model.joints(frames, q)
            marked = list(vertices)
            rest = model.v_template[marked] + torch.einsum("vcb,nb->nvc", model.shapedirs[marked], betas)
            feature = corrective_feature(posed.local_rot, model.corrective_joints)
            rest = rest + torch.einsum("vcp,np->nvc", model.posedirs[marked], feature)
            transforms = skinning_transforms(posed, frames.joints)
            skin = torch.einsum("vj,njrc->nvrc", model.weights[marked], transforms)
            markers = (skin[..., :3] @ rest[..., None])[..., 0] + skin[..., 3]
            points.joints[rows] = (posed.pos + trans[:, None]).numpy()
            points.markers[rows] = (markers + trans[:, None]).numpy()
            points.orientations[rows] = (posed.rot @ frames.frame).numpy()
        return points

    @torch.no_grad()
    def skin(self, person: Person) -> tuple[Array, NDArray[np.int32]]:
        """Skin vertices (V,3) m in the coordinates of the labels, and faces (F,3)."""
        model = self.skel(person.meta["skel_gender"])
        betas, q, trans = parameters_of([person])
        return model.forward(model.shape(betas), q, trans).vertices[0].numpy(), model.asset.faces

    @torch.no_grad()
    def bones(self, person: Person) -> tuple[Array, NDArray[np.int32]]:
        """Bone vertices (Vs,3) m in the coordinates of the labels, and faces (Fs,3)."""
        model = self.skel(person.meta["skel_gender"])
        betas, q, trans = parameters_of([person])
        return model.bones(model.shape(betas), q, trans)[0].numpy(), model.asset.bone_faces


def parameters_of(people: Sequence[Person]) -> list[torch.Tensor]:
    """Betas (N,10), poses (N,46) rad and translations (N,3) m, in float64."""
    names = ("skel_betas", "skel_poses", "skel_trans")
    return [torch.tensor(np.array([p.fields[name] for p in people], np.float64)) for name in names]
