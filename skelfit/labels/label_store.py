"""Label files, checked once and kept as HDF5, so that every worker reads only its rows.

An `.npz` cannot be sliced: each of a thousand shard tasks would read the whole file. A store is immutable. It is
written under a temporary name and moved into place, and its name holds the hash of its inputs, so neither two
processes that build it at once nor a changed source do harm. Its chunks carry checksums. A folder of sequences makes
one store, written file by file, so that it need not fit into memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from skelfit.config.identity import mapping_hash
from skelfit.config.manifest import LabelLayout, LabelSource
from skelfit.errors import LabelError
from skelfit.labels.known_hashes import KnownHashes, file_sha256
from skelfit.labels.label_batch import (
    FIELD_SHAPES,
    OPTIONAL_SHAPES,
    TEXT_FIELDS,
    Coordinates,
    FloatArray,
    LabelBatch,
    LabelProperties,
    MotionSequence,
    sequences_of_rows,
)
from skelfit.labels.label_schema import check_keys, check_sha256
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers import label_folder as folders
from skelfit.labels.readers.registry import READERS, detect_layout, read_label_file
from skelfit.labels.unchanged_files import file_signature, unchanged_pieces
from skelfit.labels.world_up import check_up, infer_world
from skelfit.storage.atomic_write import atomic_write, remove_file
from skelfit.storage.local_cache import local_copy
from skelfit.storage.locations import Location, Place

_FORMAT = 6  # of the HDF5 layout
_SLACK = 1 << 16  # bytes that HDF5 adds to the arrays, and a margin
_CHUNK_ROWS = 1024  # about one shard, so that little is read in vain
_CHUNK_BYTES = 1 << 22  # at most: meshes are large
_NOTES = 20  # at most, the most frequent: they are part of every marker
_EXTRA = "extra"  # dataset of the properties and sequences, as JSON


@dataclass(frozen=True)
class StoreInfo:
    """The content of a store and the file that it was made from."""

    rows: int
    sha256: str  # of the source file, or of the names and hashes of a folder's files
    source_path: str
    source: LabelLayout
    reader: str  # name and version of the reader
    about: LabelProperties


def build_store(
    source: LabelSource,
    label_path: str | Path,
    store_dir: str | Path,
    max_abs_beta: float = 10.0,
    *,
    shared: bool = False,
) -> Path:
    """The store of a label file or folder below `store_dir`; built if it is missing.

    shared: several ranks build it, one after another: each takes the hashes that an earlier one computed. Raises
    LabelError when the file cannot be used or is not the one of `source` (sha256, row count), OutputError when the
    store cannot be written.
    """
    label_path, store_dir = Path(label_path), Path(store_dir)
    is_folder = label_path.is_dir()
    layout = folders.folder_layout(label_path, source.source) if is_folder else source.source
    files = [label_path] if layout is None or not is_folder else folders.list_label_files(label_path, layout)
    before = [file_signature(file) for file in files]
    known = KnownHashes(store_dir) if shared else None
    hashed = file_sha256 if known is None else known.sha256
    sha256 = _folder_sha256(label_path, files, hashed) if is_folder else hashed(label_path)
    if known is not None:
        known.save()
    check_sha256(source, label_path, sha256)
    check_keys(label_path, source.expected_keys)
    layout = layout or detect_layout(label_path)[0]
    settings = ReadSettings(source.gender, max_abs_beta, source.read)
    if READERS[layout].has_sequences and not is_folder:
        settings = folders.name_sequence(settings, label_path)
    tag = mapping_hash({"format": _FORMAT, **settings.identity()})[:8]
    reader = READERS[layout].version
    path = store_dir / f"{reader}-{sha256[:16]}-{tag}.h5"
    rows = _valid_rows(path, sha256)
    if rows is None:
        pieces = (
            folders.read_folder(label_path, files, settings, layout)
            if is_folder
            else iter([read_label_file(label_path, layout, settings)])
        )
        info = StoreInfo(0, sha256, str(label_path), layout, reader, LabelProperties())
        rows = _write(path, unchanged_pieces(pieces, files, before), info)
    if source.expected_rows is not None and rows != source.expected_rows:
        raise LabelError(label_path, None, f"{source.expected_rows} rows (by the manifest)", f"{rows} rows")
    check_up(label_path, source.read, store_info(path).about, rows)
    return path


def _folder_sha256(folder: Path, files: Iterable[Path], hashed: Callable[[Path], str]) -> str:
    """One hash of the names and contents of the files; of a file that cannot be read, of the reason."""
    digest = hashlib.sha256()
    for path in files:
        try:
            content = hashed(path)
        except LabelError as error:  # folders.read_folder makes a bad row of it
            content = f"unreadable: {error.found}"
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def clear_temporaries(store_dir: Location) -> None:
    """Remove the temporary files of killed processes. No process may be writing there. Raises OutputError."""
    for path in store_dir.glob(".*.tmp"):
        remove_file(path)


def read_rows(store_path: Place, start: int, stop: int) -> LabelBatch:
    """The rows start..stop-1 of a store, exactly as the reader returned them. Raises LabelError."""
    with _open(store_path) as file:
        rows = int(file.attrs["rows"])
        if not 0 <= start <= stop <= rows:
            raise LabelError(store_path, None, f"a range within its {rows} rows", f"{start} to {stop}")
        return _read(store_path, file, slice(start, stop))


def read_selected_rows(store_path: Place, rows: NDArray[np.int64]) -> LabelBatch:
    """The given rows (K,), in ascending order, of a store. Raises LabelError."""
    with _open(store_path) as file:
        return _read(store_path, file, rows)


def read_field(store_path: Place, name: str, rows: NDArray[np.int64]) -> FloatArray:
    """One numeric field of the given rows (K,), in ascending order: (K,...). Raises LabelError."""
    with _open(store_path) as file:
        return _slice(store_path, file, name, rows)


def _read(store_path: Place, file: h5py.File, rows: slice | NDArray[np.int64]) -> LabelBatch:
    fields: dict[str, Any] = {}
    optional = [name for name in OPTIONAL_SHAPES if name in file]
    for name in ("row", *TEXT_FIELDS, *FIELD_SHAPES, *optional):
        field = _slice(store_path, file, name, rows)
        fields[name] = [t.decode() for t in field.tolist()] if name in TEXT_FIELDS else field
    about, sequences = _extra(store_path, file)
    return LabelBatch(**fields, sequences=sequences_of_rows(sequences, fields["row"]), about=about)


def store_sequences(store_path: Place) -> tuple[MotionSequence, ...]:
    """The sequences of a store, in the order of rows. Raises LabelError."""
    with _open(store_path) as file:
        return _extra(store_path, file)[1]


def store_info(store_path: Place) -> StoreInfo:
    """The content of a store and its source. Raises LabelError."""
    with _open(store_path) as file:
        attrs = file.attrs
        return StoreInfo(
            rows=int(attrs["rows"]),
            sha256=str(attrs["sha256"]),
            source_path=str(attrs["source_path"]),
            source=attrs["source"],
            reader=str(attrs["reader"]),
            about=_extra(store_path, file)[0],
        )


@dataclass(frozen=True)
class StoreContents:
    """What at least one of the first rows of a store has."""

    genders: frozenset[str]
    has_names: bool  # of images
    has_boxes: bool
    has_keypoints: bool  # 2D
    has_smpl: bool
    sequences: tuple[MotionSequence, ...]  # without the rows that stand for unusable files

    def has(self, data: str) -> bool:
        """Whether the labels have the data that a filter needs (`skelfit.labels.filters.REQUIRED_DATA`)."""
        return {"2D keypoints": self.has_keypoints, "SMPL betas": self.has_smpl}[data]


def store_contents(store_path: Place, rows: int) -> StoreContents:
    """What the first rows of a store have. Raises LabelError."""
    with _open(store_path) as file:
        selection = slice(0, rows)
        about, sequences = _extra(store_path, file)
        reasons = _slice(store_path, file, "bad", selection) if sequences else np.zeros(0, "S1")
        unusable = set(np.flatnonzero(np.char.startswith(reasons, f"{folders.BAD_FILE}:".encode())).tolist())
        return StoreContents(
            genders=frozenset(
                g.decode() for g in np.unique(_slice(store_path, file, "gender", selection)).tolist()
            ),
            has_names=bool((_slice(store_path, file, "imgname", selection) != b"").any()),
            has_boxes=bool(_slice(store_path, file, "scale", selection).any()),
            has_keypoints=about.has_keypoints,
            has_smpl=about.has_smpl,
            sequences=tuple(s for s in sequences if s.start < rows and s.start not in unusable),
        )


def _extra(store_path: Place, file: h5py.File) -> tuple[LabelProperties, tuple[MotionSequence, ...]]:
    content = json.loads(_slice(store_path, file, _EXTRA, slice(None)).tobytes())
    lists = ("notes", "upright", "told_up", "first_up")
    about = LabelProperties(**content["about"] | {name: tuple(content["about"][name]) for name in lists})
    return about, tuple(MotionSequence(**values) for values in content["sequences"])


def _slice(store_path: Place, file: h5py.File, name: str, rows: slice | NDArray[np.int64]) -> np.ndarray:
    try:
        return np.asarray(file[name][rows])
    except (OSError, KeyError, ValueError) as error:
        expected = "a whole label store (remove it and start again: it is rebuilt)"
        raise LabelError(store_path, name, expected, f"a damaged one ({error})") from None


def _open(path: Place) -> Any:
    try:
        # No lock: the file never changes, and many file systems of clusters have no locks.
        file = h5py.File(local_copy(path), "r", locking=False)
    except OSError as error:
        raise LabelError(path, "rows", "a label store (HDF5)", f"an unreadable file ({error})") from None
    if "rows" not in file.attrs:
        file.close()
        raise LabelError(path, None, "a label store (HDF5)", "an HDF5 file of another kind")
    return file


def _valid_rows(path: Path, sha256: str) -> int | None:
    """Rows of the store, or None when it has to be built. The short hash in its name is not enough."""
    if not path.exists():
        return None
    try:
        info = store_info(path)
    except LabelError:
        return None
    return info.rows if info.sha256 == sha256 else None


def _write(path: Path, pieces: Iterable[LabelBatch], info: StoreInfo) -> int:
    """Write the batches one after another; returns the number of rows."""
    texts: dict[str, list[Any]] = {name: [] for name in TEXT_FIELDS}
    sequences: list[MotionSequence] = []
    notes: Counter[str] = Counter()
    rows, count, upright, telling = 0, 0, np.zeros(3), 0
    has_keypoints, has_camera, has_smpl = False, False, True
    worlds: set[Coordinates] = set()
    told_up, first_up = np.zeros(2, np.int64), ("", "")
    stream = iter(pieces)
    first = next(stream)  # before anything is written: most unusable files fail here
    with atomic_write(path) as temporary:
        _reserve(temporary, _size(first))
        try:
            with h5py.File(temporary, "w") as file:
                for piece in _and_then(first, stream):
                    _check_room(temporary, _size(piece))
                    _append(file, piece, rows)
                    for name in TEXT_FIELDS:
                        # Text of fixed length: HDF5 has no checksums for other text.
                        texts[name].append(
                            np.array([t.encode() for t in getattr(piece, name)] or [b""])[: len(piece)]
                        )
                    sequences += piece.sequences
                    notes.update(piece.about.notes)
                    upright += piece.about.upright
                    telling += piece.about.telling
                    worlds.add(piece.about.coordinates)
                    told_up += piece.about.told_up
                    y_name, z_name = piece.about.first_up
                    first_up = (first_up[0] or y_name, first_up[1] or z_name)
                    has_keypoints = has_keypoints or bool(piece.gtkps[..., 2].any())
                    has_camera, has_smpl = (
                        has_camera or piece.about.has_camera,
                        has_smpl and piece.about.has_smpl,
                    )
                    rows, count = rows + len(piece), count + 1
                for name in TEXT_FIELDS:
                    _create(file, name, np.concatenate(texts[name]))
                told = tuple(
                    note if count == 1 else f"{note} ({n} of {count} files)"
                    for note, n in notes.most_common(_NOTES)
                )
                x, y, z = upright.tolist()
                about = replace(
                    first.about,
                    coordinates=_common_coordinates(worlds, (x, y, z), telling),
                    has_camera=has_camera,
                    has_smpl=has_smpl,
                    has_keypoints=has_keypoints,
                    notes=told,
                    upright=(x, y, z),
                    telling=telling,
                    told_up=(int(told_up[0]), int(told_up[1])),
                    first_up=first_up,
                )
                extra = {"about": asdict(about), "sequences": [asdict(s) for s in sequences]}
                _create(file, _EXTRA, np.frombuffer(json.dumps(extra).encode(), np.uint8))
                for name in ("sha256", "source_path", "source", "reader"):
                    file.attrs[name] = getattr(info, name)
                file.attrs["rows"] = rows
        except RuntimeError as error:  # raised by HDF5 for a failed write when the file is closed
            raise OSError(f"HDF5: {error}") from error
    return rows


def _common_coordinates(
    worlds: set[Coordinates], upright: tuple[float, float, float], telling: int
) -> Coordinates:
    """The coordinates of a store. Unusable files, whose coordinates are unknown, do not count."""
    known = [world for world in worlds if world != "unknown"]
    if len(known) > 1:
        return infer_world(upright, telling, None)
    return known[0] if known else "unknown"


def _and_then(first: LabelBatch, others: Iterator[LabelBatch]) -> Iterator[LabelBatch]:
    yield first
    yield from others


def _append(file: h5py.File, piece: LabelBatch, start: int) -> None:
    """Append the numbers of a batch to the datasets."""
    for name in ("row", *piece.field_shapes()):
        column = getattr(piece, name)
        if name not in file:
            _create(file, name, column[:0], len(column) or _CHUNK_ROWS)
        file[name].resize(start + len(column), axis=0)
        # Rows that were never written read as 0 and take no space: most layouts lack some fields.
        if column.any():
            file[name][start:] = column
    for name in OPTIONAL_SHAPES:  # of another file of a folder
        if name in file:
            file[name].resize(start + len(piece), axis=0)


def _create(file: h5py.File, name: str, column: np.ndarray, rows: int | None = None) -> None:
    """A dataset with checksums, made for about so many rows."""
    width = max(1, column.dtype.itemsize * int(np.prod(column.shape[1:])))
    most = min(max(len(column) if rows is None else rows, 1), _CHUNK_ROWS, max(1, _CHUNK_BYTES // width))
    # A dataset without rows has no chunks unless it can grow.
    limits = (None, *column.shape[1:])
    file.create_dataset(name, data=column, chunks=(most, *column.shape[1:]), maxshape=limits, fletcher32=True)


def _size(batch: LabelBatch) -> int:
    return sum(getattr(batch, name).nbytes for name in ("row", *batch.field_shapes()))


def _reserve(path: Path, size: int) -> None:
    """Raise OSError unless the disk has room for a store: HDF5 may crash the process on a full one."""
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size + size // 100 + _SLACK)


def _check_room(path: Path, size: int) -> None:
    """Raise OSError unless the disk has room for more of a store that is being written."""
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < size + _SLACK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
