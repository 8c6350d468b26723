"""Where files of tracks keep their people: from the tree of a file's content to the arrays of each person.

Names of keys stay those of the file, so that messages name them. What a layout keeps in another form (a camera as a
focal length, people by frames) gets names of its own: `cam_int`, `turn`, `shift`, `box`, `imgname`, `frames`.

A function that finds people returns None for a file of another layout, and no people for a file without a
person. It raises TrackFault where the layout is plain, but a part of it is not as the layout has it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.labels.files.array_files import flatten, load_array
from skelfit.storage.unpickle import as_key, kind_of

Person = dict[str, Any]
People = dict[str, Person]
_PHALP_FOCAL = 5000 / 256  # of PHALP's camera, in widths of the square around the image


class TrackFault(Exception):
    """A fault of a file whose layout is plain."""

    def __init__(self, key: str, expected: str, found: str) -> None:
        super().__init__(key, expected, found)
        self.key, self.expected, self.found = key, expected, found


def unused(name: str, used: Container[str]) -> str:
    """The name, or with the first number behind it that is not used."""
    numbered, number = name, 2
    while numbered in used:
        numbered, number = f"{name}-{number}", number + 1
    return numbered


def whole_file(tree: Any) -> People | None:
    """One person, whose keys are those of the file."""
    return {"": flatten(tree)} if isinstance(tree, Mapping) else None


def by_identity(tree: Any) -> People | None:
    """A person for each key of the file that holds one. Single values, and people without any key, are none."""
    if not isinstance(tree, Mapping):
        return None
    people: People = {}
    for key, person in tree.items():
        if isinstance(person, Mapping) and person:
            people[unused(as_key(key), people)] = flatten(person)
        elif not (isinstance(person, Mapping) or _is_single(person)):
            return None
    return people or None


def _is_single(value: Any) -> bool:
    return (
        value is None or isinstance(value, (bool, int, float, str, bytes)) or kind_of(value) == "numpy number"
    )


def below_people(tree: Any) -> People | None:
    """PromptHMR's `people`, each with the camera of the video."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("people"), Mapping):
        return None
    if not tree["people"]:
        return {}
    people = by_identity(tree["people"]) or {}
    if not any("smplx_cam.rotmat" in person for person in people.values()):
        return None
    camera = _prompthmr_camera(tree.get("camera"))
    for name, person in people.items():
        if camera is not None:
            person["cam_int"] = camera
        if "bboxes" in person:
            corners = _numbers(person["bboxes"], f"people.{name}.bboxes", (None, 4), (None, 5))
            left, top, right, bottom = corners[:, :4].T
            person["box"] = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 1)
    return people


def _prompthmr_camera(camera: Any) -> NDArray[np.float64] | None:
    if not (isinstance(camera, Mapping) and {"img_focal", "img_center"} <= set(camera)):
        return None
    focal = _numbers(camera["img_focal"], "camera.img_focal", (), (1,)).reshape(())
    x, y = _numbers(camera["img_center"], "camera.img_center", (2,), (1, 2)).reshape(2)
    return np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float64)


def _numbers(value: Any, key: str, *shapes: tuple[int | None, ...]) -> NDArray[Any]:
    """Numbers of one of the shapes, in which None is any size; of any shape if none is given. Raises TrackFault."""
    expected = "numbers" + (f" of shape {' or '.join(map(_shape_text, shapes))}" if shapes else "")
    try:
        array = load_array(value)
    except ValueError as error:
        raise TrackFault(key, expected, " ".join(str(error).split())) from None
    if array.dtype.kind not in "fiub":
        raise TrackFault(key, expected, f"dtype {array.dtype}")
    fits = [
        len(shape) == array.ndim
        and all(size in (None, there) for size, there in zip(shape, array.shape, strict=True))
        for shape in shapes
    ]
    if shapes and not any(fits):
        raise TrackFault(key, expected, f"shape {array.shape}")
    return array


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return str(tuple("N" if size is None else size for size in shape)).replace("'", "")


def _same_length(entries: Any, key: str, count: int, what: str) -> None:
    """Raise TrackFault unless a list has so many entries."""
    found = len(entries) if isinstance(entries, Sequence) or hasattr(entries, "__len__") else None
    if found != count:
        raise TrackFault(
            key, f"{count} entries, one for each of {what}", f"{kind_of(entries) if found is None else found}"
        )


def romp_people(tree: Any) -> People | None:
    """ROMP's `sequence_results`, a person each; else the people of all images together, under the name ''."""
    if not isinstance(tree, Mapping):
        return None
    if found := by_identity(tree.get("sequence_results")):
        return found
    results = tree.get("results")
    if not isinstance(results, Mapping):
        return None
    images = (
        {"": results} if "smpl_thetas" in results else {as_key(key): frame for key, frame in results.items()}
    )
    images = {name: frame for name, frame in images.items() if frame}  # an image without people may have none
    if not all(isinstance(frame, Mapping) for frame in images.values()):
        return None
    if not images:
        return {}
    if not any("smpl_thetas" in frame for frame in images.values()):
        return None
    shared = [key for key in next(iter(images.values())) if key in ("smpl_thetas", "smpl_betas", "cam_trans")]
    for (name, frame), key in product(images.items(), ("smpl_thetas", *shared)):
        if key not in frame:
            raise TrackFault(f"results.{name}.{key}", "numbers, as the first image has them", "no such key")
    person: Person = {
        key: np.concatenate([load_array(frame[key]) for frame in images.values()]) for key in shared
    }
    counts = [len(load_array(frame["smpl_thetas"])) for frame in images.values()]
    person["imgname"] = np.repeat(np.array(list(images)), counts)
    return {"": person}


def by_first_axis(tree: Any) -> People | None:
    """SLAHMR's arrays of B people over T frames: a person for each row, before the cameras of the frames."""
    keys = ("trans", "root_orient", "pose_body")
    if not isinstance(tree, Mapping) or not set(keys) <= set(tree):
        return None
    arrays = {key: load_array(tree[key]) for key in keys}
    count = len(arrays["trans"]) if arrays["trans"].ndim else 0
    for key, value in arrays.items():
        if value.ndim < 3 or len(value) != count:
            of = f" of {count} people, as in 'trans'" if key != "trans" else ""
            raise TrackFault(key, f"numbers (B, T, ...) of people and frames{of}", f"shape {value.shape}")
    cameras = {
        name: load_array(tree[key]) for name, key in (("turn", "cam_R"), ("shift", "cam_t")) if key in tree
    }
    people: People = {}
    for i in range(count):
        person = {key: value[i] for key, value in arrays.items()}
        person |= {
            name: value[i] if value.ndim == 3 + (name == "turn") else value for name, value in cameras.items()
        }
        if "betas" in tree:
            betas = load_array(tree["betas"])
            person["betas"] = betas[i] if len(betas) == count else betas
        if "intrins" in tree and (numbers := load_array(tree["intrins"])).shape[-1] == 4:
            fx, fy, cx, cy = numbers.reshape(-1, 4)[0]
            person["cam_int"] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
        people[str(i)] = person
    return people


def threedpw_people(tree: Any) -> People | None:
    """3DPW's lists of one entry per person, before the moving camera."""
    keys = ("poses", "betas", "trans", "cam_poses")
    if not isinstance(tree, Mapping) or not all(key in tree for key in keys):
        return None
    if not isinstance(tree["poses"], Sequence):
        return None
    for key in ("betas", "trans", "genders", "campose_valid"):
        if key in tree:
            _same_length(tree[key], key, len(tree["poses"]), "'poses'")
    extrinsic = _numbers(tree["cam_poses"], "cam_poses", (None, 4, 4), (None, 3, 4))
    sequence = as_key(tree.get("sequence", ""))
    people: People = {}
    for i, poses in enumerate(tree["poses"]):
        rows = len(load_array(poses))
        person: Person = {"poses": poses, "betas": tree["betas"][i], "trans": tree["trans"][i]}
        person |= {"turn": extrinsic[:, :3, :3], "shift": extrinsic[:, :3, 3]}
        person["imgname"] = np.array([f"{sequence}/image_{k:05d}.jpg" for k in range(rows)])
        if "cam_intrinsics" in tree:
            person["cam_int"] = tree["cam_intrinsics"]
        if "genders" in tree:
            person["gender"] = as_key(tree["genders"][i])
        if "campose_valid" in tree:
            person["campose_valid"] = tree["campose_valid"][i]
        people[str(i)] = person
    return people


def by_frame(tree: Any) -> People | None:
    """PHALP's frames, each with lists over the people in it: a person for each identity.

    People that the tracker only carries on (`tracked_time` above 0) are left out of a frame.
    """
    keys = {"tid", "smpl", "time"}
    if not isinstance(tree, Mapping) or not all(isinstance(frame, Mapping) for frame in tree.values()):
        return None
    if not any(keys <= set(frame) for frame in tree.values()):
        return None
    people: dict[str, list[Person]] = {}
    for key, frame in tree.items():
        name = as_key(key)
        for missing in sorted(keys - set(frame)):
            raise TrackFault(f"{name}.{missing}", "what the other frames have", "no such key")
        ages = frame.get("tracked_time") or [0] * len(frame["tid"])
        for listed, entries in (("smpl", frame["smpl"]), ("tracked_time", ages)):
            _same_length(entries, f"{name}.{listed}", len(frame["tid"]), "'tid'")
        for i, identity in enumerate(frame["tid"]):
            if int(load_array(ages[i])) > 0:
                continue
            row: Person = {f"smpl.{key}": value for key, value in frame["smpl"][i].items()}
            row |= {"frames": frame["time"], "imgname": name}
            row |= {key: frame[key][i] for key in ("camera", "size", "bbox") if len(frame.get(key, ())) > i}
            people.setdefault(as_key(identity), []).append(row)
    return {identity: _phalp_columns(rows, identity) for identity, rows in people.items()}


def _phalp_columns(rows: list[Person], identity: str) -> Person:
    person = stacked(rows, identity)
    if "size" in person:  # height and width
        size = np.asarray(person["size"], np.float64).reshape(len(rows), 2)
        camera = np.zeros((len(rows), 3, 3))
        camera[:, [0, 1], [0, 1]] = _PHALP_FOCAL * size.max(axis=1)[:, None]
        camera[:, :2, 2] = size[:, ::-1] / 2
        camera[:, 2, 2] = 1
        person["cam_int"] = camera
    if "bbox" in person:  # the upper left corner, width and height
        corner, sides = np.split(np.asarray(person["bbox"], np.float64), 2, axis=1)
        person["box"] = np.concatenate([corner + sides / 2, sides], axis=1)
    return person


def easymocap_people(tree: Any) -> People | None:
    """EasyMocap's people of a frame, or of the frames of a folder: a person for each `id`.

    The last digits in the name of a file are the number of its frame.
    """
    frames = tree["frames"] if isinstance(tree, Mapping) and "frames" in tree else {"": tree}
    if not isinstance(frames, Mapping):
        return None
    entries = []
    for name, content in frames.items():
        listed = content.get("annots") if isinstance(content, Mapping) else content
        if not isinstance(listed, Sequence) or not all(isinstance(p, Mapping) for p in listed):
            return None
        entries += [(str(name), entry) for entry in listed]
    if not any({"Rh", "Th", "poses"} <= set(entry) for _, entry in entries):
        return None
    people: dict[str, list[Person]] = {}
    for name, entry in entries:
        row: Person = {
            key: _numbers(entry[key], f"{name}.json, {key}" if name else key).reshape(-1)
            for key in ("Rh", "Th", "poses", "shapes", "expression")
            if key in entry
        }
        if digits := re.search(r"([0-9]{1,15})$", name):
            row["frames"] = int(digits[1])
        people.setdefault(as_key(entry.get("id", 0)), []).append(row)
    found = {identity: stacked(rows, identity) for identity, rows in people.items()}
    for person in found.values():
        if {"Rh", "Th"} <= set(person):
            person |= {"turn": person["Rh"], "shift": person["Th"]}
    return found


def stacked(rows: list[Person], name: str) -> Person:
    """The values that all rows of a person have, one above the other. Raises TrackFault for shapes that differ."""
    shared = [key for key in rows[0] if all(key in row for row in rows)]
    columns: Person = {}
    for key in shared:
        values = [load_array(row[key]) for row in rows]
        odd = next((i for i, value in enumerate(values) if value.shape != values[0].shape), None)
        if odd is not None:
            found = f"{values[odd].shape} in frame {rows[odd].get('frames', odd)}"
            raise TrackFault(
                f"{name}.{key}", f"shape {values[0].shape} in all frames, as in the first", found
            )
        columns[key] = np.stack(values)
    return columns


def vibe_box(person: Person) -> Person:
    """VIBE's and PARE's boxes (N,4) px: centre, width and height."""
    return {"box": person["bboxes"]} if "bboxes" in person else {}


def gvhmr_camera(person: Person) -> Person:
    """GVHMR's camera of the whole image (N,3,3) px."""
    return {"cam_int": person["K_fullimg"]} if "K_fullimg" in person else {}


def easymocap_pose(person: Person) -> Person:
    """The joints of the body among EasyMocap's poses: 72 numbers of SMPL, 78 or 156 of SMPL+H, 87 or 165 of SMPL-X."""
    poses: NDArray[Any] = load_array(person["poses"])
    size = poses.shape[-1] if poses.ndim == 2 else 0
    model = {78: "smplh", 156: "smplh", 87: "smplx", 165: "smplx"}.get(size)
    return {} if model is None else {"poses": poses[:, :66], "model_type": np.array(model)}


def pare_people(tree: Any) -> People | None:
    """PARE's people of a video, or those of one image, under the name ''."""
    if isinstance(tree, Mapping) and "pred_pose" in tree:
        return {"": flatten(tree)}
    return by_identity(tree)
