"""Labels that get better while a network learns: its own predictions, refined against the keypoints of the pictures.

After Xia et al., "Reconstructing Humans with a Biomechanically Accurate Skeleton" (HSMR), CVPR 2025. The label of a
person is the better of the one it has and the refined prediction: the 2D error decides, betas beyond 2 are never taken,
and crops of a part of the body are left out. 2D errors of both are those where the body fits its keypoints
best, so that a label of an unknown camera can compete. A person and the mirror image have a label each, and all
processes have the same ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from skelfit.bodies.continuous_pose import pose_to_angles
from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.keypoint_names import UNFITTED_POINTS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.config.yaml_dataclasses import bounded
from skelfit.learning.cameras import crop_to_translation, project
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.data.turn import turned_poses, turns_of
from skelfit.learning.networks.network import Prediction

LARGEST_BETA = 2.0  # HSMR's rule; the refiner's bound, where betas may end, is allowed
_NEAREST = 0.1  # m


@dataclass(frozen=True)
class BetterLabelsConfig:
    """Predictions of the main stage, refined against 2D keypoints, become labels where they are better; as in HSMR."""

    after: int = bounded(0, default=5000)  # steps of the main stage before the first refinement
    every: int = bounded(1, default=230)  # steps between two refinements
    last: int = bounded(1, default=18000)  # samples of each process that are refined: the last ones
    # how: anchored: held near the prediction, as skelfit.refine does; published: as in HSMR, which has no anchor
    refiner: Literal["anchored", "published"] = "anchored"


@dataclass(frozen=True)
class PosedPeople:
    """N people of one SKEL body in the frames of their cameras, and their keypoints; float32, on the CPU."""

    poses: Tensor  # (N, 46) rad
    betas: Tensor  # (N, 10)
    trans: Tensor  # (N, 3) m
    keypoints2d: Tensor  # (N, 44, 3) px, and confidence
    cam_int: Tensor  # (N, 3, 3) px


# From people to the same people with refined parameters, and (N,) bool: who was refined.
RefinePeople = Callable[[PosedPeople], tuple[PosedPeople, Tensor]]


class BetterLabel(NamedTuple):
    """A label that is better than that of the shard."""

    error: float  # px, see `errors_2d`
    numbers: Tensor  # (56,) poses and betas of the upright picture, mirrored for a mirror image


class _Seen(NamedTuple):
    """Samples of a step: predictions, and errors of the labels that they had then."""

    keys: tuple[str, ...]
    numbers: dict[str, Tensor]


class BetterLabels:
    """The better labels so far, and the samples to be refined next."""

    def __init__(
        self,
        config: BetterLabelsConfig,
        gender: str,
        models: ModelSet,
        group: ProcessGroup,
        refine: RefinePeople,
    ) -> None:
        """gender: of the body that is predicted. Raises ModelError."""
        self.config, self.gender, self.group, self.refine = config, gender, group, refine
        self.bodies = {
            female: SkelKeypoints(models, "female" if female else "male") for female in (False, True)
        }
        self.labels: dict[tuple[str, bool], BetterLabel] = {}
        self.seen: deque[_Seen] = deque()
        self.count = 0  # of samples in `seen`

    def better(self, batch: TrainingBatch) -> TrainingBatch:
        """A batch, on the CPU, with the better labels of those people who have one."""
        pairs = enumerate(zip(batch.keys, batch.flipped.tolist(), strict=True))
        found = [(i, label) for i, who in pairs if (label := self.labels.get(who)) is not None]
        if not found:
            return batch
        rows = torch.tensor([i for i, _ in found])
        numbers = torch.stack([label.numbers for _, label in found])
        poses, betas = _turned(numbers[:, :NUM_DOFS], batch.turn[rows]), numbers[:, NUM_DOFS:]
        of_fit = batch.fitted_points[rows]
        points = self.bodies[self.gender == "female"](poses, betas)
        points3d = batch.keypoints3d.clone()
        points3d[rows[of_fit], :, :3] = points[of_fit]
        yes = torch.ones(len(rows), dtype=torch.bool)
        return replace(
            batch,
            poses=batch.poses.index_copy(0, rows, poses),
            betas=batch.betas.index_copy(0, rows, betas),
            keypoints3d=points3d,
            female=batch.female.index_copy(0, rows, yes if self.gender == "female" else ~yes),
            has_pose=batch.has_pose.index_copy(0, rows, yes),
            has_betas=batch.has_betas.index_copy(0, rows, yes),
        )

    @torch.no_grad()
    def see(self, prediction: Prediction, batch: TrainingBatch, steps: int) -> None:
        """Keep the predictions of a batch, in a step after so many of the stage, where a refinement comes in time."""
        chosen = (~batch.extreme).nonzero()[:, 0].cpu()
        to_come = (self.config.after - steps - 1) * len(batch)
        if to_come >= self.config.last or not len(chosen):
            return
        final = prediction.final
        camera = (prediction.cam_int, batch.center, batch.box_size)
        in_crop, side = batch.keypoints2d, batch.box_size[:, None, None]
        pixels = torch.cat((in_crop[..., :2] * side + batch.center[:, None], in_crop[..., 2:]), -1)
        numbers = {
            "poses": pose_to_angles(final.pose),
            "betas": final.betas,
            "trans": crop_to_translation(final.camera.float(), *camera),
            "keypoints2d": pixels,
            "cam_int": prediction.cam_int,
            "turn": batch.turn,
            "flipped": batch.flipped,
        }
        numbers = {name: x.detach().cpu()[chosen] for name, x in numbers.items()}
        female, poses, betas = (x.cpu()[chosen] for x in (batch.female, batch.poses, batch.betas))
        points = torch.stack([body(poses, betas) for body in self.bodies.values()])
        points = points[female.long(), torch.arange(len(chosen))]
        numbers["error"] = errors_2d(points, numbers["keypoints2d"], numbers["cam_int"])
        self._keep(_Seen(tuple(batch.keys[i] for i in chosen.tolist()), numbers))

    def _keep(self, seen: _Seen) -> None:
        self.seen.append(seen)
        self.count += len(seen.keys)
        while self.count - len(self.seen[0].keys) >= self.config.last:
            self.count -= len(self.seen.popleft().keys)

    def after_step(self, steps: int) -> dict[str, int] | None:
        """Refine what was seen where it is time, after so many steps of the stage; returns counts of all processes.

        All processes call this after the same steps.
        """
        config = self.config
        if steps < config.after or (steps - config.after) % config.every:
            return None
        found = self._refined()
        tried = self.group.gather([min(self.count, config.last)])
        self.seen.clear()
        self.count = 0
        kept = 0
        for who, label in self.group.gather(found):
            known = self.labels.get(who)
            if known is None or label.error < known.error:
                self.labels[who] = label
                kept += 1
        return {"tried": sum(tried), "better": kept, "labels": len(self.labels)}

    def _refined(self) -> list[tuple[tuple[str, bool], BetterLabel]]:
        """Refinements of this process that are better than the labels were."""
        if not self.seen:
            return []
        keys = [key for part in self.seen for key in part.keys][-self.config.last :]
        numbers = {
            name: torch.cat([part.numbers[name] for part in self.seen])[-self.config.last :]
            for name in self.seen[0].numbers
        }
        people = PosedPeople(**{name: numbers[name] for name in PosedPeople.__dataclass_fields__})
        refined, done = self.refine(people)
        points = self.bodies[self.gender == "female"](refined.poses, refined.betas)
        error = errors_2d(points, people.keypoints2d, people.cam_int)
        good = done & (refined.betas.abs().amax(1) <= LARGEST_BETA) & (error < numbers["error"])
        upright = torch.cat((_turned(refined.poses, -numbers["turn"]), refined.betas), 1)
        flipped = numbers["flipped"].tolist()
        return [
            ((keys[i], flipped[i]), BetterLabel(float(error[i]), upright[i].clone()))
            for i in good.nonzero()[:, 0].tolist()
        ]

    def state(self) -> dict[str, Any]:
        """What `resume` needs of all processes, as plain data and tensors. All processes call this."""
        labels = list(self.labels.items())
        numbers = [label.numbers for _, label in labels]
        return {
            "keys": [key for (key, _), _ in labels],
            "flipped": [flipped for (_, flipped), _ in labels],
            "errors": [label.error for _, label in labels],
            "numbers": torch.stack(numbers) if numbers else torch.zeros(0, NUM_DOFS + 10),
            "seen": self.group.gather([[(list(part.keys), part.numbers) for part in self.seen]]),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        who = zip(state["keys"], state["flipped"], strict=True)
        made = map(BetterLabel, state["errors"], state["numbers"])
        self.labels = dict(zip(who, made, strict=True))
        self.seen.clear()
        self.count = 0
        for keys, numbers in state["seen"][self.group.part.number]:
            self._keep(_Seen(tuple(keys), dict(numbers)))


def errors_2d(points: Tensor, keypoints2d: Tensor, cam_int: Tensor) -> Tensor:
    """How far points (N, 44, 3) m lie from keypoints (N, 44, 3) px and confidence: means (N,) px by confidence.

    They are moved to where the rays of the keypoints pass them nearest, in least squares weighted by confidence.
    Infinite where that is behind the camera, or where too few are seen to tell.
    """
    weight = keypoints2d[..., 2].double().clone()
    weight[:, list(UNFITTED_POINTS)] = 0
    points, cam_int = points.double(), cam_int.double()
    given = torch.where(weight[..., None] > 0, keypoints2d[..., :2].double(), 0.0)
    # A point p seen at u lies on the planes (row_i - u_i row_3) p = 0 of its camera's rows.
    planes = cam_int[:, None, :2] - given[..., None] * cam_int[:, None, 2:]  # (N, 44, 2, 3)
    planes = planes * weight[..., None, None].sqrt()
    off = -(planes @ points[..., None])[..., 0]
    planes, off = planes.flatten(1, 2), off.flatten(1, 2)
    square = planes.mT @ planes
    solved, failed = torch.linalg.solve_ex(square, (planes.mT @ off[..., None])[..., 0])
    moved = points + solved[:, None]
    distance = (project(moved, cam_int) - given).norm(dim=-1)
    error = (weight * distance).sum(1) / weight.sum(1)
    near = ((moved[..., 2] < _NEAREST) & (weight > 0)).any(1)
    bad = (failed != 0) | near | ((weight > 0).sum(1) < 3) | ~error.isfinite()
    return torch.where(bad, torch.inf, error)


def _turned(poses: Tensor, turn: Tensor) -> Tensor:
    """Poses (N, 46) of pictures that are turned by angles (N,) rad; those of 0 keep their bits."""
    rows = (turn != 0).nonzero()[:, 0]
    if not len(rows):
        return poses
    turned = turned_poses(poses[rows].numpy(), turns_of(turn[rows].numpy()))
    return poses.index_copy(0, rows, torch.from_numpy(turned).to(poses))
