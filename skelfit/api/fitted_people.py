"""What a fit from Python gives: SKEL's parameters of people, and the bodies that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.api.angle_names import AnglesByName, angle_index
from skelfit.api.model_reference import reference_to
from skelfit.bodies.dofs import DOF_NAMES, NUM_JOINTS
from skelfit.bodies.model_set import OPEN_BODY, ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.shards.row_status import PUBLISHED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ArrayT = TypeVar("ArrayT")
_BLOCK = 16  # people who are posed at once: their bones take 10 MB
_NAMES = ("status", "reason", "skel_gender")
_REFERENCE = "_reference"  # instead of `models` in a pickle
_NUMBERS = ("poses", "betas", "trans", "pve_mm", "max_vertex_mm")


@dataclass(frozen=True, eq=False)
class FittedPeople(Generic[ArrayT]):
    """People as SKEL, with the leading dimensions `...` of what was fitted.

    Numbers are float32, in NumPy arrays or, where tensors were given, in tensors; texts are NumPy arrays always.
    `people[index]` is some of them, by any index of the leading dimensions. A pickle holds no models of the open body
    or of a folder: they are loaded again where they are needed, and must be there, and the same, or it is a ModelError.

    `status` is what a conversion writes of a row: `ok`; `limit_violation`: a joint beyond its limits by more than the
    pipeline allows; `residual_above_gate`, `not_converged`: the fit must not be used as a label, and all numbers of a
    fit that is not finite are NaN; `bad_input`: nothing was fitted, the numbers are NaN. `usable` says which people
    enter a conversion's shards.
    """

    poses: ArrayT  # (..., 46) rad, in the order of DOF_NAMES
    betas: ArrayT  # (..., 10) SKEL's shape
    trans: ArrayT  # (..., 3) m, in the frame of the arguments
    pve_mm: ArrayT  # (...) mean distance of SKEL's skin to the target's, mm
    max_vertex_mm: ArrayT  # (...) the largest distance, mm
    status: NDArray[np.str_]  # (...)
    reason: NDArray[np.str_]  # (...) why the status is not ok; '' where it is
    skel_gender: NDArray[np.str_]  # (...) of the SKEL that was fitted; '' where nothing was
    models: ModelSet
    notes: tuple[str, ...] = ()  # what of the arguments was not used

    def __len__(self) -> int:
        """The first leading dimension. Raises TypeError for one person, as an array does."""
        if self.status.ndim == 0:
            raise TypeError(
                "expected people along a dimension, found one person, who has no length and no items"
            )
        return len(self.status)

    def __getitem__(self, index: Any) -> FittedPeople[ArrayT]:
        """Some of the people. Raises IndexError."""
        index = index.cpu().numpy() if isinstance(index, Tensor) else index
        # Leading dimensions alone: an index that reached into a person's numbers would mix people.
        rows = np.asarray(np.arange(self.status.size).reshape(self.status.shape)[index])

        def taken(value: Any) -> Any:
            few = value.reshape(self.status.size, *value.shape[self.status.ndim :])[rows.reshape(-1)]
            return few.reshape(rows.shape + few.shape[1:])

        few: FittedPeople[ArrayT] = object.__new__(type(self))
        few.__setstate__(self.__dict__ | {name: taken(getattr(self, name)) for name in (*_NUMBERS, *_NAMES)})
        return few

    def __iter__(self) -> Iterator[FittedPeople[ArrayT]]:
        """Along the first leading dimension."""
        return (self[i] for i in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        """For pickles: of models that can be loaded again, only where they come from."""
        state = dict(self.__dict__)
        if "models" in state and (reference := reference_to(state["models"])) is not None:
            del state["models"]
            state[_REFERENCE] = reference
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    if not TYPE_CHECKING:  # a checker knows the field

        def __getattr__(self, name: str) -> ModelSet:
            """The models of people from a pickle, loaded at their first use. Raises ModelError."""
            if name != "models" or _REFERENCE not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            models = self.__dict__["models"] = self.__dict__[_REFERENCE].load()
            return models

    def __repr__(self) -> str:
        statuses = ", ".join(f"{count} {name}" for name, count in Counter(self.status.flat).items())
        errors = _numpy(self.pve_mm)[self.usable]
        pve = f", PVE mean {errors.mean():.2f} mm" if errors.size else ""
        # Of people from a pickle the models need not be there.
        source = (self.__dict__.get(_REFERENCE) or self.models).source
        stand_in = " (a free stand-in, not SMPL and SKEL)" if source == OPEN_BODY else ""
        shape = self.status.shape
        return f"<FittedPeople {shape}: {statuses or 'none'}{pve}; models: {source}{stand_in}>"

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(...) whose status is ok or limit_violation: those who enter a conversion's shards.

        It is no judgement of accuracy, unless the pipeline has a gate for it: look at `pve_mm`.
        """
        return np.isin(self.status, PUBLISHED)

    @property
    def angles(self) -> Mapping[str, ArrayT]:
        """The 46 angles (...) in rad, by the names of DOF_NAMES: `people.angles["knee_angle_l"]`.

        Another name raises ArgumentError.
        """
        poses: Any = self.poses
        return MappingProxyType(AnglesByName((name, poses[..., i]) for i, name in enumerate(DOF_NAMES)))

    def angle(self, name: str, *, degrees: bool = False) -> ArrayT:
        """One of the 46 angles (...), in rad, or in degrees. Raises ArgumentError for another name."""
        poses: Any = self.poses
        rad: Any = poses[..., angle_index(name)]
        if not degrees:
            return rad
        turned: Any = torch.rad2deg(rad) if isinstance(rad, Tensor) else np.degrees(rad)
        return turned

    def vertices(self) -> ArrayT:
        """Skins (..., 6890, 3) m in the frame of the arguments; NaN where nothing was fitted."""
        count = self.models.skel_of(self._a_gender()).v_template.shape[0]
        return self._posed(count, lambda model, b, q, t: model.forward(model.shape(b), q, t).vertices)

    def joints(self) -> ArrayT:
        """Joints (..., 24, 3) m in the frame of the arguments, in SKEL's order; NaN where nothing was fitted."""
        return self._posed(
            NUM_JOINTS, lambda model, b, q, t: model.joints(model.frames(b), q).pos + t[:, None]
        )

    def bones(self) -> ArrayT:
        """Vertices of the bones (..., V, 3) m, scaled to the person; NaN where nothing was fitted.

        Faces are `models.skel_of(gender).bone_faces`. One person has 25 thousand vertices: take a few people.
        """
        count = self.models.skel_of(self._a_gender()).bone_v_template.shape[0]
        return self._posed(count, lambda model, b, q, t: model.bones(model.shape(b), q, t))

    def to_numpy(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, as NumPy has them: `np.savez("people.npz", **people.to_numpy())`."""
        return {name: _numpy(getattr(self, name)) for name in (*_NUMBERS, *_NAMES)}

    def plot(self, limit: int = 12, up: str | None = None) -> Figure:
        """A picture of the first `limit` people who have a fit: skin, bones and joints, each in 3D.

        up: the axis that is up in the picture: x, y or z, or -x, -y, -z. None: the one that is nearest to the
        direction from the pelvis to the head, mean of the people.
        Raises SkelfitError where matplotlib is missing, ArgumentError where no person has a fit, or for another `up`.
        """
        # Imported here because matplotlib takes a moment, which fits need not wait for.
        from skelfit.api.people_plot import draw_people

        return draw_people(self, limit, up)

    def _a_gender(self) -> str:
        """The gender of a SKEL that the models have; all have as many vertices."""
        return next(iter(self.models.skel))

    def _posed(self, count: int, pose: Callable[[SkelModel, Tensor, Tensor, Tensor], Tensor]) -> ArrayT:
        """Points (..., count, 3) of people, block by block, in float64 and then rounded."""
        leading, people = self.status.shape, self.status.size
        points = np.full((people, count, 3), np.nan, np.float32)
        parameters = [
            torch.tensor(array.reshape(people, array.shape[-1]), dtype=torch.float64)
            for array in map(_numpy, (self.betas, self.poses, self.trans))
        ]
        genders = self.skel_gender.reshape(-1)
        for gender in sorted(set(genders.tolist()) - {""}):
            model = _skel_model(self.models, gender)
            rows = np.flatnonzero(genders == gender)
            for start in range(0, len(rows), _BLOCK):
                few = rows[start : start + _BLOCK]
                with torch.no_grad():
                    points[few] = pose(model, *(values[few] for values in parameters)).float().numpy()
        whole: Any = points.reshape(*leading, count, 3)
        if isinstance(self.poses, Tensor):
            whole = torch.from_numpy(whole).to(self.poses.device)
        return whole


@lru_cache(maxsize=4)
def _skel_model(models: ModelSet, gender: str) -> SkelModel:
    """The model of a gender, made once."""
    return SkelModel(models.skel_of(gender), dtype=torch.float64)


def _numpy(value: Any) -> NDArray[Any]:
    array: NDArray[Any] = value.cpu().numpy() if isinstance(value, Tensor) else value
    return array
