"""skelfit: SMPL labels in, SKEL-fitted WebDataset shards out.

What the command line does, a function of the same name does, with the same options:

| name | what it does |
|---|---|
| `fit` | SKEL fitted to SMPL parameters in NumPy arrays or torch tensors |
| `fit_mesh` | SKEL fitted to meshes in SMPL's topology |
| `convert` | label files to WebDataset shards |
| `refine_shards` | finished shards, refined against the keypoints of their pictures |
| `verify` | are shards whole, accurate and anatomical |
| `export` | shards in the form that others read |
| `evaluate` | a network, or predictions in a file, by a published protocol |
| `refine` | SKEL parameters in arrays, refined against 2D keypoints |
| `publish` | a finished run as a dataset of the Hugging Face Hub |
| `load_models` | the body models: official ones after `skelfit models import`, or the open body |
| `load_shards` | the people of finished shards, one by one |
| `SkelModel`, `SmplModel` | the bodies: parameters to vertices, joints and bones |
| `DOF_NAMES` | the names of SKEL's 46 angles, in the order of `poses` |

Names are imported at their first use: `import skelfit` alone brings neither torch nor Warp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from skelfit.api.convert_dataset import convert
    from skelfit.api.fit_arrays import fit, fit_mesh, load_models
    from skelfit.api.fitted_people import FittedPeople
    from skelfit.api.refine_arrays import RefinedPeople, refine
    from skelfit.api.refine_shards import refine_shards
    from skelfit.api.shard_people import LabelledPerson, ShardPeople, load_shards
    from skelfit.api.smpl_arrays import SmplPeople, to_smpl
    from skelfit.bodies.dofs import DOF_NAMES
    from skelfit.bodies.skel import SkelModel
    from skelfit.bodies.smpl import SmplModel
    from skelfit.errors import SkelfitError
    from skelfit.exports.export_run import export
    from skelfit.protocols.evaluation_run import evaluate
    from skelfit.publishing.publish_run import publish
    from skelfit.verification.verify_folders import verify

__all__ = [
    "DOF_NAMES",
    "FittedPeople",
    "LabelledPerson",
    "RefinedPeople",
    "ShardPeople",
    "SkelModel",
    "SkelfitError",
    "SmplModel",
    "SmplPeople",
    "__version__",
    "convert",
    "evaluate",
    "export",
    "fit",
    "fit_mesh",
    "load_models",
    "load_shards",
    "publish",
    "refine",
    "refine_shards",
    "to_smpl",
    "verify",
]

# Where each name is.
_MODULES = {
    "DOF_NAMES": "skelfit.bodies.dofs",
    "FittedPeople": "skelfit.api.fitted_people",
    "LabelledPerson": "skelfit.api.shard_people",
    "RefinedPeople": "skelfit.api.refine_arrays",
    "ShardPeople": "skelfit.api.shard_people",
    "SkelModel": "skelfit.bodies.skel",
    "SkelfitError": "skelfit.errors",
    "SmplModel": "skelfit.bodies.smpl",
    "SmplPeople": "skelfit.api.smpl_arrays",
    "convert": "skelfit.api.convert_dataset",
    "evaluate": "skelfit.protocols.evaluation_run",
    "export": "skelfit.exports.export_run",
    "fit": "skelfit.api.fit_arrays",
    "fit_mesh": "skelfit.api.fit_arrays",
    "load_models": "skelfit.api.fit_arrays",
    "load_shards": "skelfit.api.shard_people",
    "publish": "skelfit.publishing.publish_run",
    "refine": "skelfit.api.refine_arrays",
    "refine_shards": "skelfit.api.refine_shards",
    "to_smpl": "skelfit.api.smpl_arrays",
    "verify": "skelfit.verification.verify_folders",
}


def __getattr__(name: str) -> Any:
    """A public name, imported now and kept."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
