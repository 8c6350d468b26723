"""The set of body models that a run uses: a folder of assets, or the open body where no folder is given.

A models folder holds `smpl_GENDER.npz`, `skel_GENDER.npz`, optionally `keypoints44.npz` and `joints_NAME.npz`, and
`models.json`, which says where each asset comes from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from skelfit.bodies.assets import (
    FORMAT_VERSION,
    SKEL_GENDERS,
    SMPL_GENDERS,
    AnyAsset,
    Asset,
    Float32,
    SkelAsset,
    SmplAsset,
    asset_kind,
    asset_name,
    asset_sha256,
    checked_field,
    load_skel,
    load_smpl,
    read_npz,
    save_asset,
    write_npz,
)
from skelfit.errors import ArgumentError, ModelError, OutputError
from skelfit.storage.checked_arguments import location_argument
from skelfit.storage.command_lines import command
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import LOCATION, Place, describe_unusable, location_of

PROVENANCE_NAME = "models.json"
KEYPOINTS_NAME = "keypoints44.npz"
# Regressors of joints that evaluations use, by name -> the number of joints: Human3.6M's, and SMPL's of the male body.
JOINT_REGRESSORS = {"h36m17": 17, "smpl_male24": 24}
OPEN_BODY = "open body"
ProvenanceEntry: TypeAlias = dict[str, str]


@dataclass(frozen=True, eq=False)
class ModelSet:
    """The body models of one run: the assets by gender, where they come from, and one hash of them all."""

    smpl: Mapping[str, SmplAsset]
    skel: Mapping[str, SkelAsset]
    source: str  # the folder, or 'open body'
    sha256: str
    keypoints44: Float32 | None  # (44, V) regressor from SMPL vertices, or None
    # (J, V) by a name of JOINT_REGRESSORS. No body is made with them, so the hash leaves them out.
    joint_regressors: Mapping[str, Float32] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        """Whether two sets hold the same numbers, wherever they come from."""
        return isinstance(other, ModelSet) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    def __repr__(self) -> str:
        genders = f"SMPL {', '.join(self.smpl) or 'none'}; SKEL {', '.join(self.skel) or 'none'}"
        return f"<ModelSet of {self.source}: {genders}; sha256 {self.sha256[:12]}>"

    def smpl_of(self, gender: str) -> SmplAsset:
        """The SMPL of 'neutral', 'male' or 'female'. Raises ModelError when the set has none."""
        return self._of(self.smpl, "smpl", gender, SMPL_GENDERS)

    def skel_of(self, gender: str) -> SkelAsset:
        """The SKEL of 'male' or 'female' (no neutral one exists). Raises ModelError when the set has none."""
        return self._of(self.skel, "skel", gender, SKEL_GENDERS)

    def _of(self, assets: Mapping[str, Asset], kind: str, gender: str, genders: tuple[str, ...]) -> Asset:
        if gender not in genders:
            raise ModelError(self.source, f"{kind} gender", " or ".join(genders), repr(gender))
        if gender not in assets:
            how = command("models", "import", f"--{kind}", "DIR", "--out", self.source)
            expected = f"the {gender} {kind.upper()} asset (make it with: {how})"
            raise ModelError(Path(self.source) / asset_name(kind, gender), None, expected, "no such file")
        return assets[gender]


def make_model_set(
    smpl: Mapping[str, SmplAsset],
    skel: Mapping[str, SkelAsset],
    source: str,
    keypoints44: Float32 | None,
    joint_regressors: Mapping[str, Float32] = MappingProxyType({}),
) -> ModelSet:
    """A ModelSet with its hash, which depends on the content only and not on the source."""
    digest = hashlib.sha256()
    for kind, assets in (("smpl", smpl), ("skel", skel)):
        for gender in sorted(assets):
            digest.update(f"{kind} {gender} {asset_sha256(assets[gender])}\n".encode())
    if keypoints44 is not None:
        digest.update(b"keypoints44 " + np.ascontiguousarray(keypoints44, "<f4").tobytes())
    return ModelSet(dict(smpl), dict(skel), source, digest.hexdigest(), keypoints44, dict(joint_regressors))


def joints_name(regressor: str) -> str:
    """The file name of a joint regressor inside a models folder, such as 'joints_h36m17.npz'."""
    return f"joints_{regressor}.npz"


def load_models(place: Place) -> ModelSet:
    """Read the assets of a models folder, which may hold any subset of genders. Raises ModelError, StoreError."""
    location = location_of(place)
    folder = fetched(location, "a models folder", ModelError)
    if not folder.is_dir():
        raise ModelError(folder, None, "a models folder", "a file" if folder.exists() else "no such folder")
    smpl = {g: load_smpl(p) for g in SMPL_GENDERS if (p := folder / asset_name("smpl", g)).exists()}
    skel = {g: load_skel(p) for g in SKEL_GENDERS if (p := folder / asset_name("skel", g)).exists()}
    if not smpl and not skel:
        how = command("models", "import", "--smpl", "DIR", "--skel", "DIR", "--out", folder)
        raise ModelError(folder, None, f"smpl_*.npz and skel_*.npz assets (make them with: {how})", "none")
    assets: list[AnyAsset] = [*smpl.values(), *skel.values()]
    vertices = assets[0].v_template.shape[0]
    keypoints = _load_regressor(folder / KEYPOINTS_NAME, "keypoints44", (44, vertices))
    found = {
        name: _load_regressor(folder / joints_name(name), name, (joints, vertices))
        for name, joints in JOINT_REGRESSORS.items()
    }
    joints = {name: regressor for name, regressor in found.items() if regressor is not None}
    return make_model_set(smpl, skel, str(location), keypoints, joints)


def _load_regressor(path: Path, key: str, shape: tuple[int, int]) -> Float32 | None:
    """A regressor from its file; None where there is no file."""
    if not path.exists():
        return None
    values = read_npz(path, [key])
    if key not in values:
        raise ModelError(path, key, "a regressor of joints", "nothing")
    array: Float32 = checked_field(path, key, values[key], "<f4", shape, {})
    return array


def save_models(models: ModelSet, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write all assets of a set and then models.json; returns the asset paths. Raises OutputError."""
    folder = Path(folder)
    assets: list[AnyAsset] = [*models.smpl.values(), *models.skel.values()]
    paths = [folder / asset_name(asset_kind(asset), asset.gender) for asset in assets]
    regressors = {joints_name(name): {name: array} for name, array in models.joint_regressors.items()}
    if models.keypoints44 is not None:
        regressors[KEYPOINTS_NAME] = {"keypoints44": models.keypoints44}
    refuse_existing([*paths, *(folder / name for name in regressors)], overwrite)
    records = []
    for asset, path in zip(assets, paths, strict=True):
        save_asset(asset, path)
        record = {"kind": asset_kind(asset), "gender": asset.gender, "source": models.source}
        records.append(record | {"asset": path.name, "asset_sha256": asset_sha256(asset)})
    for name, arrays in regressors.items():
        write_npz(folder / name, arrays)
        paths.append(folder / name)
    write_provenance(folder, records)
    return paths


def refuse_existing(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise OutputError when one of the files exists and must not be overwritten."""
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputError(
                f"{path}: exists already; remove it, choose another folder or allow overwriting"
            )


def write_provenance(folder: Path, records: Iterable[ProvenanceEntry]) -> None:
    """Write models.json; entries of other assets in it stay. Raises ModelError, OutputError."""
    path = folder / PROVENANCE_NAME
    entries: dict[str, ProvenanceEntry] = {}
    if path.exists():
        try:
            entries = {entry["asset"]: entry for entry in json.loads(path.read_text("utf-8"))["models"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(path, "models", "the provenance of a models folder", f"{error!r}") from error
    entries |= {record["asset"]: record for record in records}
    content = {"format_version": FORMAT_VERSION, "models": [entries[name] for name in sorted(entries)]}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    write_atomically(path, lambda stream: stream.write(text.encode()))


def open_models() -> ModelSet:
    """The open body that skelfit ships: all genders and the 44-keypoint regressor."""
    # Imported here because the open body takes a moment to expand.
    from skelfit.bodies.open_body import open_body_models

    return models_from_official(open_body_models(), OPEN_BODY)


def models_from_official(raw: Mapping[str, Any], source: str) -> ModelSet:
    """Models from the contents of official files (`smpl_GENDER`, `skel_GENDER`), with the open body's keypoints."""
    # Imported here because the importer uses this module.
    from skelfit.bodies.joint_regressor import open_joints
    from skelfit.bodies.official_files import skel_from_official, smpl_from_official
    from skelfit.bodies.open_body import open_keypoint_regressor

    smpl = {g: smpl_from_official(raw[f"smpl_{g}"], g, f"{source}: smpl_{g}") for g in SMPL_GENDERS}
    skel = {g: skel_from_official(raw[f"skel_{g}"], g, f"{source}: skel_{g}") for g in SKEL_GENDERS}
    keypoints = np.asarray(open_keypoint_regressor(), dtype="<f4")
    return make_model_set(smpl, skel, source, keypoints, open_joints(keypoints))


def find_models(folder: Place | None = None) -> ModelSet:
    """The models of a run: `folder`, else $SKELFIT_MODELS, else ./models, else the open body.

    Callers print `source` of the result, so that users do not take the open body for SMPL. Raises ModelError, and
    ArgumentError for what is no path.
    """
    if folder is not None:
        if isinstance(folder, ModelSet):
            found = "a set of models, which fit and fit_mesh alone take"
            raise ArgumentError("models", "the path of a models folder, or None", found)
        return load_models(location_argument("models", folder))
    if variable := os.environ.get("SKELFIT_MODELS"):
        if (fault := describe_unusable(variable)) is not None:
            raise ModelError("$SKELFIT_MODELS", None, LOCATION, fault)
        return load_models(variable)
    return load_models("models") if Path("models").exists() else open_models()
