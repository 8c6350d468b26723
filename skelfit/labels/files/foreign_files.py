"""Archives, pickles and arrays that are no label files: what the file is, and how to make a label file of it.

Descriptions follow from the first bytes, the names inside an archive, and the headers of arrays. Nothing is unpickled,
run or read whole here. A description is the second half of an error message, on one line. Files of other kinds:
`file_signatures`.
"""

from __future__ import annotations

import io
import pickletools
import re
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

HEAD_BYTES = 2**16  # bytes of a file, or of an archive's member, that are inspected
OBJECT_ARRAY = (
    "an object array, as numpy saves dictionaries and lists of unequal lengths; loading it runs code of the file. "
    "If you trust the file, load it with np.load(FILE, allow_pickle=True) and save plain arrays with np.savez"
)
_HEADER = 1024  # bytes, enough for the header of most arrays
_MEMBERS = 1000  # members of an archive, at most, that are inspected
READABLE_KEYS = (
    "skelfit reads global_orient, body_pose, betas and transl, "
    "or the keys of another layout in docs/labels.md"
)
UNPACK_ADVICE = "unpack it, and give a label file that is in it"
SAVE_COLUMNS = f"save its columns as arrays with np.savez; {READABLE_KEYS}"
IF_TRUSTED = "if you trust the file, as loading it runs its code"
# Flattens nested dictionaries of arrays; names are joined by dots.
_FLAT = (
    "f = lambda d, p='': {k: v for n, x in d.items() for k, v in "
    "(f(x, f'{p}{n}.') if isinstance(x, dict) else {f'{p}{n}': np.asarray(x)}).items()}; "
)
SAVE_CODE = _FLAT + "np.savez(argv[2], **f(d))"
# The first person of many; the 72 numbers of a pose are split as in the layout hmr2.
_FIRST = (
    "d = d if 'betas' in d else next(iter(d.values())); p = d.get('pose'); "
    "t = {'transl': d[k] for k in ['trans'] if k in d}; d = d if p is None else "
    "dict(t, global_orient=p[:, :3], body_pose=p[:, 3:], betas=d['betas']); np.savez(argv[2], **d)"
)
_TORCH_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the magic number of torch.save before zip, pickled

# The package of a pickled class -> a description of such pickles.
_PICKLED_BY = {
    "torch": "a pickle of torch tensors, as pickle.dump writes the output of a network",
    "pandas": "a pickled pandas table",
}


def describe_archive(path: Path) -> str:
    """A description of a zip file that is no npz; '' for an npz."""
    if not zipfile.is_zipfile(path):  # its table of contents is at the end
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
        kind = "torch file" if re.search(rb"/(data\.pkl|byteorder|version)", head[:512]) else ".npz file"
        return f"a truncated {kind}: its end is missing; copy, download or write it again"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()[:_MEMBERS]
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if pickles and any(re.search(r"(^|/)(version|byteorder|\.format_version)$", name) for name in names):
            with archive.open(pickles[0]) as member:
                return _weights(member.read(HEAD_BYTES))
    if not names or any(name.endswith(".npy") for name in names):
        return ""
    if any(name.startswith(("xl/", "word/")) for name in names):
        return f"an office document; {SAVE_COLUMNS}"
    return f"a zip archive of {', '.join(names[:3])}{', ...' * (len(names) > 3)}; {UNPACK_ADVICE}"


def is_torch_archive(path: Path) -> bool:
    """Whether a zip file is one of torch.save."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()[:_MEMBERS]
    return any(re.search(r"(^|/)data\.pkl$", name) for name in names) and not any(
        name.endswith(".npy") for name in names
    )


def is_old_torch(path: Path) -> bool:
    """Whether a pickle is a file of torch.save from before it wrote zip files."""
    with open(path, "rb") as stream:
        return _TORCH_LEGACY in stream.read(32)


def describe_pickle(path: Path) -> str:
    """A description of a pickle that holds no labels, by its first bytes; '' for one to read."""
    with open(path, "rb") as stream:
        head = stream.read(HEAD_BYTES)
    return _weights(head) if _TORCH_LEGACY in head[:32] else ""


def describe_global(name: str, path: Path) -> str:
    """A description of a pickle that names a class or function ('package.module.name'), which is not run."""
    package = name.split(".")[0]
    if package == "joblib":
        return describe_joblib(path)
    known = _PICKLED_BY.get(package, f"a pickle with objects of the package '{package}'")
    if zipfile.is_zipfile(path):
        load = "d = torch.load(argv[1], map_location='cpu', weights_only=False); "
        line = conversion_command(path, "torch", load + SAVE_CODE)
    else:
        line = conversion_command(path, "pickle", "d = pickle.load(open(argv[1], 'rb')); " + SAVE_CODE)
    return (
        f"{known} (it names the global '{name}', which is not run); "
        f"save its arrays, {IF_TRUSTED}: {line} ({READABLE_KEYS})"
    )


def describe_by_keys(path: Path, kind: str, names: Sequence[str]) -> str:
    """A description of a file that lacks a key, by the keys that it has; '' where they do not tell.

    Nested names are joined by dots or slashes.
    """
    try:
        objects = describe_object_arrays(path) if kind == "npz" else ""
    except Exception:  # a damaged array, which its reader reports
        objects = ""
    return objects or _what_keys(path, kind, names)


def _what_keys(path: Path, kind: str, names: Sequence[str]) -> str:
    parts = {part for name in names for part in re.split(r"[./]", name)}
    if {"v_template", "shapedirs"} <= parts:
        return (
            "a body model (it has v_template and shapedirs), as the SMPL and SKEL sites offer for download; "
            "give it to 'skelfit models import', and labels as --labels"
        )
    article = "an" if kind in ("npz", "hdf5") else "a"
    if names and all(re.fullmatch(r"arr_\d+", name) for name in names):
        return (
            f"an npz whose arrays have no names ({', '.join(names[:3])}), as np.savez(FILE, a, b) writes; "
            f"name them: np.savez(FILE, body_pose=a, betas=b). {READABLE_KEYS}"
        )
    numbers = sorted((part for part in parts if re.fullmatch(r"-?[0-9]{1,18}", part)), key=int)
    if not numbers:
        return ""
    listed = ", ".join(numbers[:3]) + (", ..." if len(numbers) > 3 else "")
    what = (
        f"{article} {kind} with integer keys ({listed}), as trackers write with an entry per person or frame"
    )
    if kind != "pickle":
        return f"{what} (WHAM, PHALP); save one entry as a file of its own with np.savez. {READABLE_KEYS}"
    line = conversion_command(path, "pickle", "d = pickle.load(open(argv[1], 'rb')); " + _FIRST)
    return f"{what} (WHAM, PHALP); save each entry as an npz, {IF_TRUSTED}: {line} ({READABLE_KEYS})"


def describe_object_arrays(path: Path) -> str:
    """A description of an npz or npy whose arrays hold Python objects; '' where one holds plain numbers or text.

    Single plain numbers and texts beside the objects do not count.
    """
    heads = list(_heads(path))
    objects = [(name, head) for name, head in heads if b"'|O'" in _header(head)]
    if not objects or any(_is_array(head) for _, head in heads if b"'|O'" not in _header(head)):
        return ""
    name, head = objects[0]
    if name:
        listed = ", ".join(f"'{other}'" for other, _ in objects[:3]) + ", ..." * (len(objects) > 3)
        what = f"an npz with an object array ({listed}), as np.savez of Python objects writes it"
        load = f"d = np.load(argv[1], allow_pickle=True)['{name}']"
    else:
        what = "an npy with an object array, as np.save of Python objects writes it"
        load = "d = np.load(argv[1], allow_pickle=True)"
    if _is_array(head):
        code = f"{load}; np.savez(argv[2], {name or 'vertices'}=np.array(d.tolist()))"
    else:
        code = f"{load}.item(); {SAVE_CODE}"
    return f"{what}; save plain arrays, {IF_TRUSTED}: {conversion_command(path, '', code)} ({READABLE_KEYS})"


def _heads(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and first bytes of the arrays of an npz, or of the one array of an npy, whose name is ''."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as stream:
            yield "", stream.read(HEAD_BYTES)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist()[:_MEMBERS]:
            with archive.open(name) as member:
                head = member.read(_HEADER)
                yield (
                    name.removesuffix(".npy"),
                    head + (member.read(HEAD_BYTES) if b"'|O'" in _header(head) else b""),
                )


def _header(head: bytes) -> bytes:
    """The header of an npy; b'' for other bytes."""
    if not head.startswith(b"\x93NUMPY"):
        return b""
    size = int.from_bytes(head[8:10] if head[6:7] == b"\x01" else head[8:12], "little")
    return head[: 12 + size]


def _is_array(head: bytes) -> bool:
    return b"'shape': ()" not in _header(head)


def conversion_command(path: Path, package: str, code: str) -> str:
    """A command that makes an npz beside a file. File names are quoted arguments, so they may hold any character."""
    modules = f"{package}, numpy as np" if package else "numpy as np"
    files = f"{shlex.quote(str(path))} {shlex.quote(str(path.with_name(path.stem + '-arrays.npz')))}"
    return f'python -c "from sys import argv; import {modules}; {code}" {files}'


def _texts(head: bytes) -> Iterable[str]:
    """The texts and names of classes at the beginning of consecutive pickles, without running them."""
    stream = io.BytesIO(head)
    try:
        while stream.tell() < len(head):
            for _, argument, _ in pickletools.genops(stream):
                if isinstance(argument, str):
                    yield argument
    except Exception:  # the beginning of a file is cut off, and numbers follow the pickles
        return


def _weights(head: bytes) -> str:
    """A description of a torch file with the weights of a network; '' for one of other tensors."""
    texts = set(_texts(head))
    if "state_dict" in texts or any(text.endswith((".weight", ".running_mean")) for text in texts):
        return (
            "a torch file with the weights of a network (a checkpoint, as trainers write it); it holds no labels: "
            "run the network, and give what it puts out"
        )
    return ""


def describe_joblib(path: Path, how: str = "") -> str:
    """A description of a joblib pickle; how: its compression."""
    what = f"a joblib pickle{how}, as VIBE, WHAM (wham_output.pkl) and PHALP write with joblib.dump"
    line = conversion_command(path, "joblib", f"d = joblib.load(argv[1]); {_FIRST}")
    return f"{what}; save each person as an npz, {IF_TRUSTED}: {line} ({READABLE_KEYS})"
