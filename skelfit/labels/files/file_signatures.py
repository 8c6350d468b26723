"""Files of kinds that never hold labels, told by their first bytes: what the file is, and what to do with it."""

from __future__ import annotations

import bz2
import json
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from skelfit.labels.files.foreign_files import (
    HEAD_BYTES,
    IF_TRUSTED,
    READABLE_KEYS,
    SAVE_CODE,
    SAVE_COLUMNS,
    UNPACK_ADVICE,
    conversion_command,
    describe_joblib,
)

_DEPTH = 2  # compressed files inside compressed files

# How files begin, what they are, and what to do with them.
_BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet table, as pandas and data sets on the web have it", ""),
    (b"ARROW1", "an Arrow table, as pandas and Hugging Face's datasets write it", ""),
    (b"\x89PNG", "a PNG image", "image"),
    (b"\xff\xd8\xff", "a JPEG image", "image"),
    (b"GIF8", "a GIF image", "image"),
    (b"II*\0", "a TIFF image", "image"),
    (b"MM\0*", "a TIFF image", "image"),
    (b"v/1\x01", "an OpenEXR image", "image"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video", "image"),
    (b"Kaydara FBX Binary", "an FBX scene, as Blender, Maya and MotionBuilder write it", "motion"),
    (b"glTF", "a glTF scene, as Blender writes it", "motion"),
    (b"%PDF", "a PDF document", ""),
    (b"SQLite format 3", "an SQLite database", ""),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack"),
    (b"Rar!", "a RAR archive", "unpack"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd", "unpack"),
)
_ADVICE = {
    "image": "skelfit does not find people in it; give labels as --labels and images as --images",
    "motion": "it holds a skeleton or a mesh, not SMPL parameters; fit SMPL to it first",
    "unpack": UNPACK_ADVICE,
    "": SAVE_COLUMNS,
}
# How texts begin, in the same way; the first that fits counts.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    (r"version https://git-lfs", "a Git LFS pointer, as a clone without LFS has in place of a file", "lfs"),
    (r"(?i)<!doctype html|<html", "an HTML page, as a server sends in place of a file to log in", "page"),
    (r"HIERARCHY\s", "a BVH motion, as motion capture and Blender write it", "motion"),
    (r"PathFileType\s", "a TRC file of marker positions, as OpenSim and motion capture write it", "motion"),
    (r"(?s).*?\bendheader\s", "an OpenSim .mot or .sto table", "motion"),
    (r"; FBX ", "an FBX scene, as Blender, Maya and MotionBuilder write it", "motion"),
    (r"ply\r?\n", "a PLY mesh", "mesh"),
    (r"(?s)(#[^\n]*\n|\s)*(mtllib |o |g |v )", "an OBJ mesh", "mesh"),
    (r"<", "an XML file", ""),
    (r"---\s|[\w-]+:(\s|$)", "a YAML file", ""),
    (r"[^\n]*[,;\t]", "a CSV table, as spreadsheets and pandas write it", ""),
    (r"", "a text file", ""),
)
_ADVICE_ON_TEXT = _ADVICE | {
    "lfs": "get the file itself with 'git lfs pull'",
    "page": "download the file again, logged in, with a browser or with the cookies of one",
    "mesh": "skelfit reads the vertices of files that are called .obj, .ply or .glb",
}
_OLD_PICKLE = re.compile(rb"\(?[dl]p\d+\n|\(dp|\(lp|[\]}]q\x00|c[\w.]+\n[\w.]+\n")


def describe_file(path: Path, but: str = "") -> str:
    """A description of a file that is no npz, npy, HDF5 or pickle; '' where its bytes tell nothing.

    but: 'tar' where a tar is expected.
    """
    with open(path, "rb") as stream:
        head = stream.read(HEAD_BYTES)
    if but == "tar" and _tar(head, path):
        return ""
    return _what_bytes(head, path, _DEPTH)


def _what_bytes(head: bytes, path: Path, depth: int) -> str:
    if not head:
        return "an empty file (0 bytes); copy, download or write it again"
    if not head.strip(b"\0"):
        return "a file that begins with zeros only, as a broken download leaves it; copy or download it again"
    if depth and (description := _compressed(head, path, depth)):
        return description
    for magic, what, kind in _BINARY:
        if head.startswith(magic):
            return f"{what}; {_ADVICE[kind]}"
    describers = (_tar, _safetensors, _matlab, _media, _c3d, _old_pickle, _json, _text)
    return next((description for describe in describers if (description := describe(head, path))), "")


def _inflate(head: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head, HEAD_BYTES)


def _old_joblib(head: bytes) -> bytes:
    return _inflate(head[21:])  # 'ZF', and the length in hexadecimal digits of a fixed width


# A damaged length must not allocate much memory: each decompressor has a limit of its output or its memory.
_PACKERS: tuple[tuple[re.Pattern[bytes], str, Callable[[bytes], bytes] | None], ...] = (
    (re.compile(rb"\x1f\x8b"), "gzip", _inflate),
    (re.compile(rb"\x78[\x01\x5e\x9c\xda]"), "zlib", _inflate),
    (re.compile(rb"ZF0x"), "zlib", _old_joblib),
    (re.compile(rb"BZh[1-9]1AY&SY"), "bz2", lambda head: bz2.BZ2Decompressor().decompress(head, HEAD_BYTES)),
    (
        re.compile(rb"\xfd7zXZ\0|\x5d\0\0"),
        "lzma",
        lambda head: lzma.LZMADecompressor(memlimit=2**28).decompress(head, HEAD_BYTES),
    ),
    (re.compile(rb"\x04\x22\x4d\x18"), "lz4", None),
)


def _compressed(head: bytes, path: Path, depth: int) -> str:
    """A description of a compressed file and of what it holds; '' for a file that is not compressed."""
    for magic, packer, unpack in _PACKERS:
        if not magic.match(head):
            continue
        try:
            inner = unpack(head) if unpack else b""
        except Exception:  # the bytes may be anything
            return f"a damaged file compressed by {packer}; copy or download it again"
        how = f" compressed by {packer}"
        if (
            inner.startswith(b"\x80") or not inner
        ):  # of a large block of bz2, nothing comes out of the beginning
            return describe_joblib(path, how) if inner or packer in ("lz4", "bz2") else _packed(packer, "")
        return _packed(packer, _what_bytes(inner, path, depth - 1).split("; ")[0].split(", as ")[0])
    return ""


def _packed(packer: str, inner: str) -> str:
    holds = f" that holds {inner}" if inner else ""
    return f"a file compressed by {packer}{holds}; {UNPACK_ADVICE}"


def _tar(head: bytes, path: Path) -> str:
    if head[257:262] != b"ustar":
        return ""
    name = head[:100].split(b"\0")[0].decode("utf-8", "replace")
    return (
        f"a tar archive (the first member is {name!r}), as web data sets come; of 4D-Humans' tars, "
        f"'skelfit tar-labels' makes a label file; unpack any other, and give a label file that is in it"
    )


def _safetensors(head: bytes, path: Path) -> str:
    if not (head[8:10] == b'{"' and 2 <= int.from_bytes(head[:8], "little") <= 2**27):
        return ""
    line = conversion_command(
        path, "safetensors.numpy", "np.savez(argv[2], **safetensors.numpy.load_file(argv[1]))"
    )
    return (
        "a safetensors file, as networks are kept on the web; if it holds labels, save an npz: "
        f"{line} ({READABLE_KEYS})"
    )


def _matlab(head: bytes, path: Path) -> str:
    if not head.startswith(b"MATLAB "):
        return ""
    if head.startswith(b"MATLAB 7.3"):
        return (
            "a MATLAB 7.3 file (.mat, HDF5 behind a header); its arrays are transposed for Python: "
            f"read it with h5py or mat73, and save plain arrays with np.savez. {READABLE_KEYS}"
        )
    code = "np.savez(argv[2], **{k: v for k, v in scipy.io.loadmat(argv[1]).items() if k[0] != '_'})"
    return (
        "a MATLAB 5 file (.mat), as MATLAB and SURREAL have it; save its arrays as an npz: "
        f"{conversion_command(path, 'scipy.io', code)} ({READABLE_KEYS})"
    )


def _media(head: bytes, path: Path) -> str:
    kinds = {b"WEBP": "a WebP image", b"AVI ": "an AVI video", b"WAVE": "a WAV sound"}
    what = kinds.get(head[8:12], "") if head.startswith(b"RIFF") else ""
    if head[4:8] == b"ftyp":
        what = "an AVIF or HEIC image" if head[8:10] in (b"av", b"he", b"mi") else "an MP4 or QuickTime video"
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        what = "a BMP image"
    return f"{what}; {_ADVICE['image']}" if what else ""


def _c3d(head: bytes, path: Path) -> str:
    if not (len(head) >= 512 and head[1] == 0x50 and 2 <= head[0] <= 16):
        return ""
    return f"a C3D file of marker positions, as motion capture writes it; {_ADVICE['motion']}"


def _old_pickle(head: bytes, path: Path) -> str:
    if not _OLD_PICKLE.match(head):
        return ""
    what = "a pickle of protocol 0 or 1, as Python 2 wrote it"
    code = "d = pickle.load(open(argv[1], 'rb'), encoding='latin1'); " + SAVE_CODE
    return (
        f"{what}; save its arrays, {IF_TRUSTED}: {conversion_command(path, 'pickle', code)} ({READABLE_KEYS})"
    )


def _json(head: bytes, path: Path) -> str:
    text = _decoded(head)
    if not text or text[0] not in "{[":
        return ""
    try:
        json.JSONDecoder().raw_decode(text)
    except RecursionError:
        return ""
    except ValueError:
        if len(head) < HEAD_BYTES and not re.match(r'(?s)\{\s*"|\[\s*[\[{"\d-]', text):
            return ""
    return (
        "a JSON file, as COCO, detectors and EasyMocap write it; read it with json.load, "
        f"and save its numbers as arrays with np.savez. {READABLE_KEYS}"
    )


def _text(head: bytes, path: Path) -> str:
    text = _decoded(head)
    if not text:
        return ""
    what, kind = next((what, kind) for start, what, kind in _TEXTS if re.match(start, text))
    return f"{what}; {_ADVICE_ON_TEXT[kind]}"


def _decoded(head: bytes) -> str:
    """The text at the beginning of a file, without leading spaces; '' for a file that is no text."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        if (
            error.start < len(head) - 4 or error.start == 0
        ):  # a character that is cut off at the end is no fault
            return ""
        text = head[: error.start].decode(encoding, "replace")
    return "" if re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text) else text.lstrip()
