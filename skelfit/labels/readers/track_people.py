"""Where files of tracks keep their people: from the tree of a file's content to the arrays of each person.

Names of keys stay those of the file, so that messages name them. What a layout keeps in another form (a camera as a
focal length, people by frames) gets names of its own: `cam_int`, `turn`, `shift`, `box`, `imgname`, `frames`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.labels.files.array_files import flatten, load_array
from skelfit.storage.unpickle import as_key

Person = dict[str, Any]
People = dict[str, Person]
_PHALP_FOCAL = 5000 / 256  # of PHALP's camera, in widths of the square around the image


def whole_file(tree: Any) -> People:
    """One person, whose keys are those of the file."""
    return {"": flatten(tree)} if isinstance(tree, Mapping) else {}


def by_identity(tree: Any) -> People:
    """A person for each key of the file."""
    if not isinstance(tree, Mapping) or not tree or not all(isinstance(v, Mapping) for v in tree.values()):
        return {}
    return {as_key(key): flatten(person) for key, person in tree.items()}


def below_people(tree: Any) -> People:
    """PromptHMR's `people`, each with the camera of the video."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("people"), Mapping):
        return {}
    camera = tree.get("camera")
    found = by_identity(tree["people"])
    for person in found.values():
        if isinstance(camera, Mapping) and {"img_focal", "img_center"} <= set(camera):
            focal, (x, y) = load_array(camera["img_focal"]).reshape(-1)[0], load_array(camera["img_center"])
            person["cam_int"] = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]], np.float64)
        if "bboxes" in person:
            left, top, right, bottom = load_array(person["bboxes"])[:, :4].T
            person["box"] = np.stack([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 1)
    return found


def romp_people(tree: Any) -> People:
    """ROMP's `sequence_results`, a person each; else the people of all images together, under the name ''."""
    if not isinstance(tree, Mapping):
        return {}
    if found := by_identity(tree.get("sequence_results")):
        return found
    results = tree.get("results")
    if not isinstance(results, Mapping):
        return {}
    frames = list(results.values()) if by_identity(results) else [results]
    names = [as_key(key) for key in results] if by_identity(results) else [""]
    if not all("smpl_thetas" in frame for frame in frames):
        return {}
    shared = [key for key in frames[0] if key in ("smpl_thetas", "smpl_betas", "cam_trans")]
    person: Person = {key: np.concatenate([load_array(frame[key]) for frame in frames]) for key in shared}
    counts = [len(load_array(frame["smpl_thetas"])) for frame in frames]
    person["imgname"] = np.repeat(np.array(names), counts)
    return {"": person}


def by_first_axis(tree: Any) -> People:
    """SLAHMR's arrays of B people over T frames: a person for each row, before the cameras of the frames."""
    if not isinstance(tree, Mapping) or not {"trans", "root_orient", "pose_body"} <= set(tree):
        return {}
    arrays = {key: load_array(tree[key]) for key in ("trans", "root_orient", "pose_body")}
    count = len(arrays["trans"])
    cameras = {
        name: load_array(tree[key]) for name, key in (("turn", "cam_R"), ("shift", "cam_t")) if key in tree
    }
    people: People = {}
    for i in range(count):
        person = {key: value[i] for key, value in arrays.items() if len(value) == count}
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


def threedpw_people(tree: Any) -> People:
    """3DPW's lists of one entry per person, before the moving camera."""
    keys = ("poses", "betas", "trans", "cam_poses")
    if not isinstance(tree, Mapping) or not all(key in tree for key in keys):
        return {}
    if not isinstance(tree["poses"], Sequence):
        return {}
    extrinsic = load_array(tree["cam_poses"])
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


def by_frame(tree: Any) -> People:
    """PHALP's frames, each with lists over the people in it: a person for each identity.

    People that the tracker only carries on (`tracked_time` above 0) are left out of a frame.
    """
    if not isinstance(tree, Mapping) or not tree:
        return {}
    frames = list(tree.values())
    if not all(isinstance(frame, Mapping) and {"tid", "smpl", "time"} <= set(frame) for frame in frames):
        return {}
    people: dict[str, list[Person]] = {}
    for name, frame in tree.items():
        ages = frame.get("tracked_time") or [0] * len(frame["tid"])
        for i, identity in enumerate(frame["tid"]):
            if int(load_array(ages[i])) > 0:
                continue
            row: Person = {f"smpl.{key}": value for key, value in frame["smpl"][i].items()}
            row |= {"frames": frame["time"], "imgname": as_key(name)}
            row |= {key: frame[key][i] for key in ("camera", "size", "bbox") if len(frame.get(key, ())) > i}
            people.setdefault(as_key(identity), []).append(row)
    return {identity: _phalp_columns(rows) for identity, rows in people.items()}


def _phalp_columns(rows: list[Person]) -> Person:
    person = stacked(rows)
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


def easymocap_people(tree: Any) -> People:
    """EasyMocap's people of a frame, or of the frames of a folder: a person for each `id`."""
    frames = tree["frames"] if isinstance(tree, Mapping) and "frames" in tree else {"": tree}
    people: dict[str, list[Person]] = {}
    for name, content in frames.items():
        listed = content.get("annots") if isinstance(content, Mapping) else content
        if not isinstance(listed, Sequence) or not all(isinstance(p, Mapping) for p in listed):
            return {}
        for entry in listed:
            keys = [key for key in ("Rh", "Th", "poses", "shapes", "expression") if key in entry]
            row: Person = {key: load_array(entry[key]).reshape(-1) for key in keys}
            if str(name).isdigit():
                row["frames"] = int(name)
            people.setdefault(as_key(entry.get("id", 0)), []).append(row)
    found = {identity: stacked(rows) for identity, rows in people.items()}
    for person in found.values():
        if {"Rh", "Th"} <= set(person):
            person |= {"turn": person["Rh"], "shift": person["Th"]}
    return found


def stacked(rows: list[Person]) -> Person:
    """The values that all rows of a person have, one above the other."""
    shared = [key for key in rows[0] if all(key in row for row in rows)]
    return {key: np.stack([load_array(row[key]) for row in rows]) for key in shared}


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


def pare_people(tree: Any) -> People:
    """PARE's people of a video, or those of one image, under the name ''."""
    if isinstance(tree, Mapping) and "pred_pose" in tree:
        return {"": flatten(tree)}
    return by_identity(tree)
