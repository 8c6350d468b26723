"""Import of the official SMPL and SKEL v1.1.1 files, which users bring: locate, read, check, convert to assets.

Every array of the official schema must be there, with its shape and finite numbers. Anything else is one error that
names the file, the array, what was expected and what was found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from skelfit.bodies.assets import (
    SKEL_GENDERS,
    SKEL_VERSION,
    SMPL_GENDERS,
    AnyAsset,
    Float32,
    Int32,
    SkelAsset,
    SmplAsset,
    asset_name,
    asset_sha256,
    build_asset,
    save_asset,
)
from skelfit.bodies.dofs import DOF_NAMES, SKEL_JOINT_NAMES, SKEL_PARENTS
from skelfit.bodies.model_set import ProvenanceEntry, refuse_existing, write_provenance
from skelfit.errors import ModelError
from skelfit.storage.npz_entries import read_entries
from skelfit.storage.unpickle import as_array, as_texts, load_pickle

SKIN_VERTICES, SKIN_FACES, BONE_VERTICES, JOINTS = 6890, 13776, 24752, 24
MAX_SMPL_BETAS, SKEL_BETAS = 300, 10
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
_NO_PARENT = (-1, 4294967295)

_SMPL_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
_SMPL_FILE = re.compile(
    r"smpl_(?P<gender>neutral|male|female)\.(pkl|npz)"
    r"|basicmodel_(?P<letter>neutral|m|f)_lbs_10_207_\d+_v(?P<version>\d+\.\d+\.\d+)\.(pkl|npz)",
    re.IGNORECASE,
)
_SKEL_FILE = re.compile(r"skel_(?P<gender>male|female)\.pkl", re.IGNORECASE)
_LETTERS = {"m": "male", "f": "female"}
_SEARCH_DEPTH = 2


@dataclass(frozen=True)
class ImportRecord:
    """One imported file: its kind, its source file and its asset."""

    kind: str
    gender: str
    version: str  # 'unknown' for SMPL files whose name has none
    source: Path
    source_sha256: str
    asset: Path
    asset_sha256: str
    notes: tuple[str, ...]  # what is unusual about the file but no error

    def provenance(self) -> ProvenanceEntry:
        """The entry for models.json: file names without folders, so that equal imports give equal files."""
        names = ("kind", "gender", "version", "source_sha256", "asset_sha256")
        record = {name: getattr(self, name) for name in names}
        return record | {"source": self.source.name, "asset": self.asset.name, "notes": "; ".join(self.notes)}


@dataclass(frozen=True)
class _OfficialFile:
    kind: str
    gender: str
    version: str
    path: Path


def import_models(
    smpl_dir: Path | None, skel_dir: Path | None, out: Path, *, overwrite: bool = False
) -> list[ImportRecord]:
    """Convert the official files found in the folders to assets and models.json in `out`.

    Nothing is written unless all files are good. Raises ModelError for a file that cannot be used and for a
    folder without any; OutputError for an asset that exists already.
    """
    if smpl_dir is None and skel_dir is None:
        raise ModelError(out, None, "an SMPL or a SKEL folder to import from", "neither")
    sources = find_official_files("smpl", smpl_dir) if smpl_dir is not None else []
    sources += find_official_files("skel", skel_dir) if skel_dir is not None else []
    targets = [out / asset_name(source.kind, source.gender) for source in sources]
    refuse_existing(targets, overwrite)
    assets = [_read_source(source) for source in sources]
    records = []
    for source, asset, target in zip(sources, assets, targets, strict=True):
        save_asset(asset, target)
        records.append(
            ImportRecord(
                kind=source.kind,
                gender=source.gender,
                version=source.version,
                source=source.path,
                source_sha256=file_sha256(source.path),
                asset=target,
                asset_sha256=asset_sha256(asset),
                notes=_notes(asset),
            )
        )
    write_provenance(out, [record.provenance() for record in records])
    return records


def find_official_files(kind: str, folder: Path) -> list[_OfficialFile]:
    """The official files of a kind in a folder and two levels below it, one per gender. Raises ModelError.

    Of several files for one gender the one highest in the tree is taken, then SMPL_GENDER, then the newest version.
    """
    if not folder.is_dir():
        raise ModelError(folder, None, f"a folder with {kind.upper()} files", "no such folder")
    pattern, genders = (_SMPL_FILE, SMPL_GENDERS) if kind == "smpl" else (_SKEL_FILE, SKEL_GENDERS)
    best: dict[str, tuple[tuple[Any, ...], _OfficialFile]] = {}
    for depth, path in _files(folder, 0):
        if not (match := pattern.fullmatch(path.name)):
            continue
        groups = match.groupdict()
        letter = (groups.get("letter") or "").lower()
        gender = (groups["gender"] or _LETTERS.get(letter, letter)).lower()
        version = groups.get("version") or (SKEL_VERSION if kind == "skel" else "unknown")
        numbers = tuple(-int(part) for part in version.split(".")) if groups.get("version") else ()
        rank = (depth, bool(letter), numbers, path.suffix.lower() != ".pkl", str(path))
        if gender not in best or rank < best[gender][0]:
            best[gender] = rank, _OfficialFile(kind, gender, version, path)
    if not best:
        names = "SMPL_NEUTRAL, SMPL_MALE or SMPL_FEMALE (.pkl or .npz) or basicModel_*_lbs_10_207_0_v*.pkl"
        expected = names if kind == "smpl" else "skel_male.pkl or skel_female.pkl"
        raise ModelError(folder, None, expected, "none of them")
    return [best[gender][1] for gender in genders if gender in best]


def _files(folder: Path, depth: int) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.iterdir()):
        if path.is_file():
            yield depth, path
        elif path.is_dir() and depth < _SEARCH_DEPTH:
            yield from _files(path, depth + 1)


def _read_source(source: _OfficialFile) -> AnyAsset:
    if source.kind == "skel":
        return skel_from_official(load_pickle(source.path), source.gender, source.path)
    is_npz = source.path.suffix.lower() == ".npz"
    raw = read_entries(source.path, _SMPL_KEYS) if is_npz else load_pickle(source.path)
    return smpl_from_official(raw, source.gender, source.path)


def smpl_from_official(raw: Mapping[str, Any], gender: str, path: str | Path) -> SmplAsset:
    """An SMPL asset from the entries of an official file; `path` goes into errors. Raises ModelError."""
    entries = _Entries(raw, path)
    values = {
        "gender": gender,
        "v_template": entries.floats("v_template", (SKIN_VERTICES, 3)),
        "faces": entries.indices("f", (SKIN_FACES, 3), SKIN_VERTICES),
        "shapedirs": entries.floats("shapedirs", (SKIN_VERTICES, 3, None), keep=MAX_SMPL_BETAS),
        "posedirs": entries.floats("posedirs", (SKIN_VERTICES, 3, 207)),
        "J_regressor": entries.floats("J_regressor", (JOINTS, SKIN_VERTICES)),
        "weights": entries.weights("weights", SKIN_VERTICES),
        "parents": entries.parents("kintree_table", SMPL_PARENTS),
    }
    return build_asset(SmplAsset, values, path)


def skel_from_official(raw: Mapping[str, Any], gender: str, path: str | Path) -> SkelAsset:
    """A SKEL asset from the entries of an official v1.1.1 file; `path` is for errors. Raises ModelError."""
    entries = _Entries(raw, path)
    entries.version()
    for key in ("tpose_transfo", "apose_transfo"):  # part of the schema, but not used here
        entries.floats(key, None)
    values = {
        "gender": gender,
        "version": SKEL_VERSION,
        "v_template": entries.floats("skin_template_v", (SKIN_VERTICES, 3)),
        "faces": entries.indices("skin_template_f", (SKIN_FACES, 3), SKIN_VERTICES),
        "shapedirs": entries.floats("shapedirs", (SKIN_VERTICES, 3, None), keep=SKEL_BETAS),
        "posedirs": entries.floats("posedirs", (SKIN_VERTICES, 3, 207)),
        "J_regressor_osim": entries.floats("J_regressor_osim", (JOINTS, SKIN_VERTICES)),
        "J_regressor": entries.floats("J_regressor", (JOINTS, SKIN_VERTICES)),
        "skin_weights": entries.weights("skin_weights", SKIN_VERTICES),
        "per_joint_rot": entries.floats("per_joint_rot", (JOINTS, 3, 3)),
        "apose_rel_transfo": entries.floats("apose_rel_transfo", (JOINTS, 4, 4)),
        "parents": entries.parents("osim_kintree_table", SKEL_PARENTS),
        "bone_v_template": entries.floats("skel_template_v", (BONE_VERTICES, 3)),
        "bone_faces": entries.indices("skel_template_f", (None, 3), BONE_VERTICES),
        "bone_weights": entries.weights("skel_weights", BONE_VERTICES),
        "bone_weights_rigid": entries.weights("skel_weights_rigid", BONE_VERTICES),
        "joints_name": entries.texts("joints_name"),
        "bone_names": entries.texts("bone_names"),
        "pose_params_name": entries.texts("pose_params_name"),
    }
    return build_asset(SkelAsset, values, path)


@dataclass(frozen=True)
class _Entries:
    """The entries of an official file, read one by one with their checks; all raise ModelError."""

    raw: Mapping[str, Any]
    path: str | Path

    def _entry(self, key: str, expected: str) -> Any:
        if key not in self.raw:
            raise ModelError(self.path, key, expected, "nothing")
        return self.raw[key]

    def _numbers(self, key: str, shape: tuple[int | None, ...] | None) -> npt.NDArray[Any]:
        expected = "an array of numbers"
        if shape is not None:
            expected += f" of shape ({', '.join('any' if size is None else str(size) for size in shape)})"
        value = self._entry(key, expected)
        try:
            array = as_array(value)
        except ValueError as error:
            raise ModelError(self.path, key, expected, str(error)) from error
        if array.dtype.kind not in "biuf":
            raise ModelError(self.path, key, expected, f"dtype {array.dtype}")
        pattern = array.shape if shape is None else shape
        if array.ndim != len(pattern) or any(
            n not in (None, m) for n, m in zip(pattern, array.shape, strict=True)
        ):
            raise ModelError(self.path, key, expected, f"shape {array.shape}")
        return array

    def floats(self, key: str, shape: tuple[int | None, ...] | None, keep: int | None = None) -> Float32:
        """A float array; `keep` limits its last axis."""
        array = self._numbers(key, shape)[..., :keep] if keep else self._numbers(key, shape)
        with np.errstate(over="ignore"):
            cast: Float32 = np.ascontiguousarray(array, dtype="<f4")
        if not np.isfinite(cast).all():
            bad = int((~np.isfinite(cast)).sum())
            raise ModelError(self.path, key, "finite numbers", f"{bad} NaN, infinite or huge values")
        return cast

    def indices(self, key: str, shape: tuple[int | None, ...], limit: int) -> Int32:
        """Vertex indices below `limit`."""
        array = self._integers(key, shape)
        if array.size == 0 or array.min() < 0 or array.max() >= limit:
            actual = f"indices from {array.min()} to {array.max()}" if array.size else "none"
            raise ModelError(self.path, key, f"vertex indices from 0 to {limit - 1}", actual)
        return array.astype("<i4")

    def _integers(self, key: str, shape: tuple[int | None, ...]) -> npt.NDArray[np.int64]:
        array = self._numbers(key, shape)
        if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
            raise ModelError(self.path, key, "whole numbers", "fractions or NaN")
        return array.astype(np.int64)

    def weights(self, key: str, vertices: int) -> Float32:
        """Skinning weights, whose rows must sum to 1."""
        array = self.floats(key, (vertices, JOINTS))
        off = np.abs(array.sum(axis=1) - 1)
        if off.max() > 1e-3:
            actual = f"row {int(off.argmax())} with the sum {float(array[off.argmax()].sum()):.4g}"
            raise ModelError(self.path, key, "rows that sum to 1", actual)
        return array

    def parents(self, key: str, expected: tuple[int, ...]) -> Int32:
        """The parent of each joint, from the (2, 24) table of parent and joint ids."""
        table = self._integers(key, (2, JOINTS))
        position = {int(joint): index for index, joint in enumerate(table[1])}
        position |= dict.fromkeys(_NO_PARENT, -1)
        parents = tuple(position.get(int(parent), -2) for parent in table[0])
        if parents != expected:
            raise ModelError(self.path, key, f"the parents {expected}", str(parents))
        return np.array(parents, dtype="<i4")

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of names."""
        value = self._entry(key, "a list of names")
        try:
            return as_texts(value)
        except ValueError as error:
            raise ModelError(self.path, key, "a list of names", str(error)) from error

    def version(self) -> None:
        """The SKEL version, which must be the one whose arrays we know."""
        try:
            version = as_texts([self._entry("version", f"'{SKEL_VERSION}'")])[0]
        except ValueError as error:
            raise ModelError(self.path, "version", f"'{SKEL_VERSION}'", str(error)) from error
        if version != SKEL_VERSION:
            raise ModelError(self.path, "version", f"'{SKEL_VERSION}'", repr(version))


def _notes(asset: AnyAsset) -> tuple[str, ...]:
    notes = []
    for name in ("J_regressor", "J_regressor_osim"):
        regressor = getattr(asset, name, None)
        # The position of such a joint depends on the choice of the origin.
        if regressor is not None and (off := float(np.abs(regressor.sum(axis=1) - 1).max())) > 1e-2:
            notes.append(f"{name}: rows sum to 1 only within {off:.2g}")
    if isinstance(asset, SkelAsset):
        for name, expected in (("pose_params_name", DOF_NAMES), ("joints_name", SKEL_JOINT_NAMES)):
            if getattr(asset, name) != expected:
                notes.append(
                    f"{name}: not the names of SKEL v{SKEL_VERSION}; the order is taken as that version's"
                )
    return tuple(notes)


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
