"""Body-model assets: the content of the official SMPL and SKEL files, as plain arrays in files without pickles.

An asset is an uncompressed npz of little-endian float32 and int32 arrays and of strings. Reading one never
executes code, and equal assets give byte-identical files. Lengths are in metres. Arrays are read-only:
make tensors with `torch.tensor(array)`, which copies.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from skelfit.errors import ModelError
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location
from skelfit.storage.path_checks import require_regular_file

FORMAT_VERSION = 1
SKEL_VERSION = "1.1.1"
SMPL_GENDERS = ("neutral", "male", "female")
SKEL_GENDERS = ("male", "female")

Float32: TypeAlias = npt.NDArray[np.float32]
Int32: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class SmplAsset:
    """SMPL of one gender; V vertices, B >= 10 shape components as found in the source."""

    gender: str
    v_template: Float32  # (V, 3) m
    faces: Int32  # (F, 3)
    shapedirs: Float32  # (V, 3, B) m per unit beta
    posedirs: Float32  # (V, 3, 207) m, driven by vec(R_1..23 - I) in row-major order
    J_regressor: Float32  # (24, V)
    weights: Float32  # (V, 24)
    parents: Int32  # (24,), -1 for the root

    def __post_init__(self) -> None:
        _lock_arrays(self)


@dataclass(frozen=True, eq=False)
class SkelAsset:
    """SKEL of one gender; V skin vertices, Vs bone vertices, joints in the order of the SKEL file."""

    gender: str
    version: str
    v_template: Float32  # (V, 3) m
    faces: Int32  # (F, 3)
    shapedirs: Float32  # (V, 3, 10) m per unit beta
    posedirs: Float32  # (V, 3, 207) m
    J_regressor_osim: Float32  # (24, V) anatomical joints
    J_regressor: Float32  # (24, V) SMPL joints
    skin_weights: Float32  # (V, 24)
    per_joint_rot: Float32  # (24, 3, 3)
    apose_rel_transfo: Float32  # (24, 4, 4)
    parents: Int32  # (24,), -1 for the root
    bone_v_template: Float32  # (Vs, 3) m
    bone_faces: Int32  # (Fs, 3)
    bone_weights: Float32  # (Vs, 24) smooth
    bone_weights_rigid: Float32  # (Vs, 24)
    joints_name: tuple[str, ...]
    bone_names: tuple[str, ...]
    pose_params_name: tuple[str, ...]

    def __post_init__(self) -> None:
        _lock_arrays(self)


Asset = TypeVar("Asset", SmplAsset, SkelAsset)
AnyAsset: TypeAlias = "SmplAsset | SkelAsset"

# Per field: the dtype and the shape. A letter is a free size, the same in all fields of an asset.
_FieldSpec: TypeAlias = tuple[str, tuple[int | str, ...]]
_SPECS: dict[type, dict[str, _FieldSpec]] = {
    SmplAsset: {
        "gender": ("text", ()),
        "v_template": ("<f4", ("V", 3)),
        "faces": ("<i4", ("F", 3)),
        "shapedirs": ("<f4", ("V", 3, "B")),
        "posedirs": ("<f4", ("V", 3, 207)),
        "J_regressor": ("<f4", (24, "V")),
        "weights": ("<f4", ("V", 24)),
        "parents": ("<i4", (24,)),
    },
    SkelAsset: {
        "gender": ("text", ()),
        "version": ("text", ()),
        "v_template": ("<f4", ("V", 3)),
        "faces": ("<i4", ("F", 3)),
        "shapedirs": ("<f4", ("V", 3, 10)),
        "posedirs": ("<f4", ("V", 3, 207)),
        "J_regressor_osim": ("<f4", (24, "V")),
        "J_regressor": ("<f4", (24, "V")),
        "skin_weights": ("<f4", ("V", 24)),
        "per_joint_rot": ("<f4", (24, 3, 3)),
        "apose_rel_transfo": ("<f4", (24, 4, 4)),
        "parents": ("<i4", (24,)),
        "bone_v_template": ("<f4", ("Vs", 3)),
        "bone_faces": ("<i4", ("Fs", 3)),
        "bone_weights": ("<f4", ("Vs", 24)),
        "bone_weights_rigid": ("<f4", ("Vs", 24)),
        # These names are for people to read: the version fixes the order of joints and DoFs.
        "joints_name": ("text", ("joints",)),
        "bone_names": ("text", ("bones",)),
        "pose_params_name": ("text", ("params",)),
    },
}
_KINDS: dict[type, str] = {SmplAsset: "smpl", SkelAsset: "skel"}
_GENDERS: dict[type, tuple[str, ...]] = {SmplAsset: SMPL_GENDERS, SkelAsset: SKEL_GENDERS}


def _lock_arrays(asset: AnyAsset) -> None:
    for field in fields(asset):
        value = getattr(asset, field.name)
        if isinstance(value, np.ndarray):
            view = value.view()
            view.flags.writeable = False
            object.__setattr__(asset, field.name, view)


def asset_kind(asset: AnyAsset) -> str:
    """'smpl' or 'skel'."""
    return _KINDS[type(asset)]


def asset_name(kind: str, gender: str) -> str:
    """The file name of an asset inside a models folder, such as 'smpl_neutral.npz'."""
    return f"{kind}_{gender}.npz"


def build_asset(cls: type[Asset], values: Mapping[str, Any], path: str | Path) -> Asset:
    """Validate every field (presence, dtype, shape, finite, indices in range) and make the asset.

    Float fields must already be float32 and index fields int32. `path` is the file that the errors name.
    Raises ModelError.
    """
    sizes: dict[str, int] = {}
    checked: dict[str, Any] = {}
    for name, (dtype, shape) in _SPECS[cls].items():
        if name not in values:
            raise ModelError(path, name, f"a field of a {_KINDS[cls]} asset", "nothing")
        checked[name] = checked_field(path, name, np.asarray(values[name]), dtype, shape, sizes)
    if checked["gender"] not in _GENDERS[cls]:
        raise ModelError(path, "gender", " or ".join(_GENDERS[cls]), repr(checked["gender"]))
    if cls is SkelAsset and checked["version"] != SKEL_VERSION:
        raise ModelError(path, "version", f"'{SKEL_VERSION}'", repr(checked["version"]))
    if cls is SmplAsset and sizes["B"] < 10:
        raise ModelError(path, "shapedirs", "at least 10 shape components", str(sizes["B"]))
    _check_indices(path, "faces", checked["faces"], sizes["V"])
    if "bone_faces" in checked:
        _check_indices(path, "bone_faces", checked["bone_faces"], sizes["Vs"])
    _check_parents(path, checked["parents"])
    return cls(**checked)


def checked_field(
    path: str | Path, name: str, array: Any, dtype: str, shape: tuple[int | str, ...], sizes: dict[str, int]
) -> Any:
    """The array, if it has that dtype and shape and is finite; else raises ModelError. Text becomes str or tuple.

    A letter in `shape` stands for its size in `sizes`; the first field with that letter sets it.
    """
    kind = "text" if dtype == "text" else np.dtype(dtype).name
    if (array.dtype.kind != "U") if dtype == "text" else (array.dtype != np.dtype(dtype)):
        raise ModelError(path, name, f"{kind} data", f"dtype {array.dtype}")
    if array.ndim == len(shape):
        for size, length in zip(shape, array.shape, strict=True):
            if isinstance(size, str):
                sizes.setdefault(size, length)
    expected = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)
    if array.shape != expected:
        raise ModelError(path, name, f"shape {_shape_text(expected)}", f"shape {_shape_text(array.shape)}")
    if dtype == "text":
        return str(array) if array.ndim == 0 else tuple(str(item) for item in array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(
            path, name, "finite numbers", f"{int((~np.isfinite(array)).sum())} NaN or infinite values"
        )
    return np.ascontiguousarray(array)


def _shape_text(shape: tuple[Any, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"


def _check_indices(path: str | Path, name: str, faces: Int32, vertices: int) -> None:
    if faces.size and (faces.min() < 0 or faces.max() >= vertices):
        actual = f"indices from {faces.min()} to {faces.max()}"
        raise ModelError(path, name, f"vertex indices from 0 to {vertices - 1}", actual)


def _check_parents(path: str | Path, parents: Int32) -> None:
    children = np.arange(1, len(parents))
    if parents[0] != -1 or (parents[1:] < 0).any() or (parents[1:] >= children).any():
        raise ModelError(path, "parents", "-1 for the root and then earlier joints", str(parents.tolist()))


def asset_sha256(asset: AnyAsset) -> str:
    """Hash of the content: names, dtypes, shapes and bytes of all fields."""
    digest = hashlib.sha256(f"{asset_kind(asset)} {FORMAT_VERSION}\n".encode())
    for name, (dtype, _) in sorted(_SPECS[type(asset)].items()):
        value = getattr(asset, name)
        if dtype == "text":
            digest.update(json.dumps([name, value]).encode())
        else:
            digest.update(json.dumps([name, dtype, value.shape]).encode())
            digest.update(np.ascontiguousarray(value, dtype=dtype).data)
    return digest.hexdigest()


def save_asset(asset: AnyAsset, path: str | Path) -> None:
    """Write an asset as npz: atomically, and with the same bytes for the same content. Raises OutputError."""
    arrays: dict[str, Any] = {"format_version": np.array(FORMAT_VERSION, "<i4"), "kind": asset_kind(asset)}
    arrays |= {name: getattr(asset, name) for name in _SPECS[type(asset)]}
    write_npz(Path(path), arrays)


def write_npz(path: Location, arrays: Mapping[str, Any]) -> None:
    """Write arrays as an uncompressed npz without timestamps, atomically. Raises OutputError."""
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                # np.ascontiguousarray would turn scalars into vectors; np.array would read all of a file.
                np.lib.format.write_array(
                    member, np.asarray(value, order="C"), version=(1, 0), allow_pickle=False
                )


def load_smpl(path: str | Path) -> SmplAsset:
    """Read an SMPL asset file. Raises ModelError."""
    return _load_asset(SmplAsset, Path(path))


def load_skel(path: str | Path) -> SkelAsset:
    """Read a SKEL asset file. Raises ModelError."""
    return _load_asset(SkelAsset, Path(path))


def _load_asset(cls: type[Asset], path: Path) -> Asset:
    values = read_npz(path, ("format_version", "kind", *_SPECS[cls]))
    for key, expected in (("kind", _KINDS[cls]), ("format_version", FORMAT_VERSION)):
        if key in values and values[key].tolist() != expected:
            raise ModelError(path, key, repr(expected), repr(values[key].tolist()))
        if key not in values:
            raise ModelError(path, key, f"a skelfit {_KINDS[cls]} asset", "nothing")
    return build_asset(cls, values, path)


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz file (or those of `names` that it has), never pickles. Raises ModelError."""
    key = None
    require_regular_file(path, "an npz file", ModelError)
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ModelError(
                    path, None, "an npz file", f"{path.stat().st_size} bytes that are no zip archive"
                )
        values = {}
        with np.load(path, allow_pickle=False) as archive:
            for key in archive.files if names is None else [name for name in names if name in archive.files]:
                values[key] = archive[key]
        return values
    except FileNotFoundError as error:
        raise ModelError(path, None, "an npz file", "no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(path, key, "an array that can be read without pickle", str(error)) from error
