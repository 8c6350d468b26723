"""Meshes of other topologies: the map to SMPL, the files that hold them, and how well SKEL meets them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
import trimesh
from click.testing import CliRunner, Result

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.bodies.vertex_maps import VertexMap, build_vertex_map, load_vertex_map, save_vertex_map
from skelfit.cli import main
from skelfit.config.manifest import LabelSource, ReadOptions
from skelfit.errors import LabelError, ModelError
from skelfit.labels.demo_people import sample_labels
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import build_store, read_rows, store_info
from skelfit.labels.read_settings import OptionError
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_samples
from tools.studies.other_bodies import OtherBody, edge_body, face_body

PEOPLE = 3
MAKE = {"edges": edge_body, "faces": face_body}


@pytest.fixture(scope="module")
def skins(models: ModelSet) -> np.ndarray:
    """Male SMPL meshes (n,6890,3) m of demo people."""
    pose, betas, pelvis = (torch.tensor(x) for x in sample_labels(PEOPLE, 0, 0.0))
    return np.asarray(SmplModel(models.smpl_of("male")).vertices(pose, betas, pelvis), np.float64)


@pytest.fixture(scope="module")
def bodies(models: ModelSet) -> dict[str, OtherBody]:
    """The bodies of other topologies."""
    return {name: make(models.smpl_of("male").faces) for name, make in MAKE.items()}


@pytest.fixture(scope="module")
def maps(
    models: ModelSet, bodies: dict[str, OtherBody], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Their maps, each made by the command from two templates: the source elsewhere, and in its own unit."""
    folder, smpl = tmp_path_factory.mktemp("maps"), models.smpl_of("male")
    trimesh.Trimesh(smpl.v_template, smpl.faces, process=False).export(folder / "smpl.ply")
    made = {}
    for name, body in bodies.items():
        template = body.of(smpl.v_template[None].astype(np.float64))[0] + 3 * body.per_metre
        trimesh.Trimesh(template, body.faces, process=False).export(folder / f"{name}.glb")
        made[name] = folder / f"{name}-map.npz"
        result = run(
            "models", "map", folder / f"{name}.glb", "--target", folder / "smpl.ply", "--out", made[name]
        )
        assert (
            f"{len(template)} vertices, in {'cm' if body.per_metre > 1 else 'm'}, moved by (-3.0"
            in result.output
        )
        assert "distance of SMPL's vertices from the mesh, in mm: mean 0." in result.output
    return made


def run(*words: object) -> Result:
    """A command that does its work."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result


def refused(*words: object) -> str:
    """The message of a command that does not."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output
    return result.stderr.splitlines()[-1]


def read(path: Path, vertex_map: Path | None, folder: Path) -> LabelBatch:
    options = ReadOptions(vertex_map=None if vertex_map is None else str(vertex_map))
    store = build_store(LabelSource(path.name, read=options), path, folder / "stores")
    return read_rows(store, 0, store_info(store).rows)


# The map.


def test_a_map_is_that_of_the_closest_points(models: ModelSet, bodies: dict[str, OtherBody]) -> None:
    """Against every triangle that faces the same way, one by one."""
    smpl, body = models.smpl_of("male"), bodies["faces"]
    skin = smpl.v_template.astype(np.float64)
    source = body.of(skin[None])[0]
    made, report = build_vertex_map(source, body.faces, skin, smpl.faces.astype("i8"))
    points = source / body.per_metre + report.moved
    triangles = points[body.faces]
    facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals = trimesh.Trimesh(skin, smpl.faces, process=False).vertex_normals
    found = made.matrix @ points
    for i in range(0, 6890, 97):
        same = triangles[(facing * normals[i]).sum(1) > 0]
        there = trimesh.triangles.closest_point(same, np.tile(skin[i], (len(same), 1)))
        nearest = np.linalg.norm(there - skin[i], axis=1).min()
        assert np.linalg.norm(found[i] - skin[i]) <= nearest + 1e-6
        np.testing.assert_allclose(report.distance[i], nearest, atol=1e-6)


def test_a_surface_that_faces_the_other_way_is_not_mapped(
    models: ModelSet, bodies: dict[str, OtherBody]
) -> None:
    """A lining just where SMPL's skin is, turned over: nearer, and taken in a few folds of the skin alone."""
    smpl, body = models.smpl_of("male"), bodies["faces"]
    skin = smpl.v_template.astype(np.float64)
    outside = body.of(skin[None])[0] / body.per_metre
    faces = np.concatenate([body.faces, smpl.faces[:, ::-1] + len(outside)])
    made, _ = build_vertex_map(np.concatenate([outside, skin]), faces, skin, smpl.faces.astype("i8"))
    weights = made.matrix.tocoo()
    assert weights.data[weights.coords[1] >= len(outside)].sum() < 0.01 * weights.data.sum()


def test_a_map_moves_with_the_body(
    bodies: dict[str, OtherBody], maps: dict[str, Path], skins: np.ndarray
) -> None:
    """In poses that the map has not seen, it finds SMPL's vertices about as well as in the templates."""
    for name, body in bodies.items():
        found = load_vertex_map(maps[name]).apply(body.of(skins).astype(np.float32)) / body.per_metre
        assert np.linalg.norm(found - skins, axis=2).mean() < 0.0015


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda v, f: (v[:, [1, 0, 2]] * [-1, 1, 1], f),
            "meshes that are .* mm apart on average; both have to be in the same pose",
        ),
        (lambda v, f: (v, f[:0]), "a source without triangles"),
        (lambda v, f: (v * 17, f), "a source .* long, and not a person in m, cm or mm"),
        (
            lambda v, f: (v + np.where(np.arange(len(v)) == 7, np.nan, 0)[:, None], f),
            "a source with vertices that are not",
        ),
        (lambda v, f: (v, f[:9]), "triangles that leave [0-9]+ of SMPL's 6890 vertices with none nearby"),
    ],
)
def test_what_cannot_be_mapped_is_refused(
    tmp_path: Path, models: ModelSet, bodies: dict[str, OtherBody], change: Any, said: str
) -> None:
    smpl, body = models.smpl_of("male"), bodies["faces"]
    vertices, faces = change(body.of(smpl.v_template[None].astype(np.float64))[0], body.faces)
    np.savez(tmp_path / "x.npz", vertices=vertices, faces=faces)
    with pytest.raises(AssertionError, match=said):
        run("models", "map", tmp_path / "x.npz", "--out", tmp_path / "map.npz")
    assert refused("models", "map", tmp_path / "x.npz", "--out", tmp_path / "map.npz").startswith(
        f"Error: {tmp_path / 'x.npz'}: expected a mesh of a body in the pose of SMPL's, found "
    )
    assert not (tmp_path / "map.npz").exists()


def test_a_target_needs_triangles(tmp_path: Path, models: ModelSet, bodies: dict[str, OtherBody]) -> None:
    """Without them, no surface faces the way of another."""
    skin, body = models.smpl_of("male").v_template.astype(np.float64), bodies["faces"]
    with pytest.raises(ValueError, match="a target without triangles"):
        build_vertex_map(body.of(skin[None])[0], body.faces, skin, np.zeros((0, 3), np.int64))


def test_a_file_that_is_no_map(tmp_path: Path) -> None:
    good = scipy.sparse.random_array((6890, 50), density=0.1, rng=np.random.default_rng(0))
    scipy.sparse.save_npz(tmp_path / "sums.npz", scipy.sparse.csr_array(good))
    scipy.sparse.save_npz(tmp_path / "shape.npz", scipy.sparse.csr_array(np.eye(50)))
    np.savez(tmp_path / "other.npz", a=1)
    for name, said in (("sums", "weights that sum to 1"), ("shape", r"shape \(50, 50\)"), ("other", "a vertex map"),
                       ("none", "no such file")):  # fmt: skip
        with pytest.raises(ModelError, match=said):
            load_vertex_map(tmp_path / f"{name}.npz")


# Files of meshes.


def test_meshes_in_any_file(
    tmp_path: Path, bodies: dict[str, OtherBody], maps: dict[str, Path], skins: np.ndarray
) -> None:
    """Arrays, the list that SAM 3D Body puts out, single files and a folder of them give the same skins."""
    body, path = bodies["faces"], maps["faces"]
    meshes = body.of(skins).astype(np.float32)
    np.savez(tmp_path / "x.npz", vertices=meshes)
    persons = [
        {"bbox": np.zeros(4), "focal_length": 1000.0, "pred_vertices": mesh, "pred_cam_t": np.zeros(3),
         "shape_params": np.zeros(45), "mask": None}
        for mesh in meshes
    ]  # fmt: skip
    (tmp_path / "sam.pkl").write_bytes(pickle.dumps(persons))
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, ending in enumerate(("obj", "ply", "glb")):
        trimesh.Trimesh(meshes[i], body.faces, process=False).export(folder / f"{i}.{ending}")
    expected = load_vertex_map(path).apply(meshes) / 100
    for file in (tmp_path / "x.npz", tmp_path / "sam.pkl", folder, folder / "0.obj"):
        batch = read(file, path, tmp_path)
        assert batch.vertices is not None and not batch.about.has_smpl and not any(batch.bad)
        np.testing.assert_allclose(batch.vertices, expected[: len(batch)], atol=1e-5)
        assert len(batch) == (1 if file.suffix == ".obj" else PEOPLE)
        notes = "; ".join(batch.about.notes)
        assert "in cm" in notes and "brought into SMPL's topology by faces-map.npz (sha256 " in notes
    (folder / "1.ply").write_bytes(b"ply\nformat cut")
    bad = read(folder, path, tmp_path)
    assert bad.bad[1].startswith("bad_file: ") and bad.bad[0] == bad.bad[2] == ""
    assert bad.vertices is not None
    np.testing.assert_allclose(bad.vertices[2], expected[2], atol=1e-5)


def test_another_map_in_the_same_file_is_another_store(
    tmp_path: Path, maps: dict[str, Path], skins: np.ndarray
) -> None:
    np.save(tmp_path / "x.npy", skins[:, :50].astype(np.float32))
    stores = []
    for shift in (0, 1):
        rows = np.arange(6890)
        matrix = scipy.sparse.csr_array((np.ones(6890), (rows, (rows + shift) % 50)), shape=(6890, 50))
        save_vertex_map(VertexMap(matrix), tmp_path / "map.npz")
        options = ReadOptions(vertex_map=str(tmp_path / "map.npz"), length_unit="m")
        stores.append(
            build_store(LabelSource("x.npy", "mesh", read=options), tmp_path / "x.npy", tmp_path / "stores")
        )
    assert stores[0] != stores[1]


def test_a_map_that_has_no_use_or_does_not_fit_is_refused(
    tmp_path: Path, maps: dict[str, Path], skins: np.ndarray
) -> None:
    np.savez(tmp_path / "smpl.npz", vertices=skins)
    with pytest.raises(
        OptionError, match="expected meshes of another topology than SMPL's, for --vertex-map"
    ):
        read(tmp_path / "smpl.npz", maps["faces"], tmp_path)
    np.savez(tmp_path / "x.npz", vertices=np.zeros((2, 10475, 3)))
    with pytest.raises(
        LabelError,
        match=r"\(N, 13776, 3\), as faces-map.npz \(sha256 .*\) takes them, found shape \(2, 10475, 3\)$",
    ):
        read(tmp_path / "x.npz", maps["faces"], tmp_path)
    for vertices, model in ((10475, "SMPL-X"), (18439, "MHR (SAM 3D Body)"), (600, "another topology")):
        np.savez(tmp_path / "x.npz", vertices=np.zeros((2, vertices, 3)))
        with pytest.raises(LabelError) as caught:
            read(tmp_path / "x.npz", None, tmp_path)
        assert (
            f"meshes of {model}, which have to be" in caught.value.found
            and "--vertex-map FILE" in caught.value.found
        )


POINTS = "v 0 0 0\nv 0 1.7 0\nv 0 0 1\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            POINTS + "f 1 2 9\n",
            r"'faces': expected triangles \(F, 3\) of 3 vertices, found vertices of numbers 0 to 8",
        ),
        (POINTS + "f 0 1 2\n", "'faces': .* found vertices of numbers -1 to 1"),
        ("# a mesh\nv 0,1 0,2 0,3\n", "found line 2: 'v 0,1 0,2 0,3'"),
        ("v 0 1\n", "found line 1: 'v 0 1'"),
        ("# none\n", r"'vertices': expected points \(V, 3\), found shape \(0, 3\)"),
    ],
)
def test_a_wrong_obj_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.obj").write_text(text)
    with pytest.raises(LabelError, match=said):
        read(tmp_path / "x.obj", None, tmp_path)


def test_points_quads_and_meshes_alone(tmp_path: Path, models: ModelSet) -> None:
    """A PLY without faces in either order of bytes, an OBJ of quads that count back, and arrays (V,3)."""
    skin = models.smpl_of("male").v_template
    head = f"element vertex {len(skin)}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    (tmp_path / "big.ply").write_bytes(
        f"ply\nformat binary_big_endian 1.0\n{head}".encode() + skin.astype(">f4").tobytes()
    )
    lines = "".join(" ".join(map(str, point)) + "\n" for point in skin.tolist())
    (tmp_path / "text.ply").write_text(f"ply\nformat ascii 1.0\n{head}{lines}")
    lines = "".join("v " + " ".join(map(str, point)) + "\n" for point in skin.tolist())
    (tmp_path / "quads.obj").write_text(lines + "f -1 -2 -3 -4\nf 1/1/1 2//2 3/3 4\n")
    np.savez(tmp_path / "alone.npz", vertices=skin, gender=np.array("male"))
    np.save(tmp_path / "alone.npy", skin)
    for name in ("big.ply", "text.ply", "quads.obj", "alone.npz", "alone.npy"):
        batch = read(tmp_path / name, None, tmp_path)
        assert batch.vertices is not None
        np.testing.assert_allclose(batch.vertices, skin[None], atol=1e-5)
        assert batch.gender == ["male" if name == "alone.npz" else "neutral"]


def test_scenes_that_hold_more_or_less_than_a_mesh(tmp_path: Path, models: ModelSet) -> None:
    smpl = models.smpl_of("male")
    skin = trimesh.Trimesh(smpl.v_template, smpl.faces, process=False)
    trimesh.Scene({"skin": skin, "hat": trimesh.creation.box()}).export(tmp_path / "two.glb")
    with pytest.raises(
        LabelError, match="found .*: 2 meshes: 'skin' of 6890 vertices, 'hat' of 8 vertices; export"
    ):
        read(tmp_path / "two.glb", None, tmp_path)
    skin.export(tmp_path / "packed.glb")
    content = (tmp_path / "packed.glb").read_bytes()
    size = int.from_bytes(content[12:16], "little")
    document = json.loads(content[20 : 20 + size]) | {"extensionsRequired": ["KHR_draco_mesh_compression"]}
    text = json.dumps(document).encode()
    length = (len(content) - size + len(text)).to_bytes(4, "little")
    packed = (
        content[:8] + length + len(text).to_bytes(4, "little") + content[16:20] + text + content[20 + size :]
    )
    (tmp_path / "packed.glb").write_bytes(packed)
    with pytest.raises(
        LabelError, match="found a mesh that is compressed by KHR_draco_mesh_compression; export it"
    ):
        read(tmp_path / "packed.glb", None, tmp_path)


def test_lists_of_people_without_a_mesh(tmp_path: Path) -> None:
    for people, said in (
        ([], "a pickled list without an entry"),
        ([{"pred_vertices": np.zeros((9, 3))}, {"bbox": np.zeros(4)}],
         "2 dictionaries that share no key: the first has pred_vertices; the others have bbox"),
    ):  # fmt: skip
        (tmp_path / "sam.pkl").write_bytes(pickle.dumps(people))
        with pytest.raises(LabelError, match=said):
            read(tmp_path / "sam.pkl", None, tmp_path)


# The fit.


def test_skel_meets_other_bodies_as_well_as_their_map_does(
    tmp_path: Path, models: ModelSet, bodies: dict[str, OtherBody], maps: dict[str, Path], skins: np.ndarray
) -> None:
    """The distance from the true SMPL mesh: that of the fit to it, and the map's own error plus at most 10 percent."""
    model = SkelModel(models.skel_of("male"))

    def distance(name: str, meshes: np.ndarray, *options: object) -> float:
        np.savez(tmp_path / f"{name}.npz", vertices=meshes, gender=np.array(["male"] * len(meshes)))
        run(
            "convert",
            "--labels",
            tmp_path / f"{name}.npz",
            "--out",
            tmp_path / name,
            "--workers",
            0,
            *options,
        )
        samples = list(read_samples(tmp_path / name / f"{name}-000000.tar"))
        label = unpack(np.array([vector for _, vector, _ in samples]))
        rows = [meta["row"] for _, _, meta in samples]
        assert rows == list(range(PEOPLE))
        tensors = [torch.tensor(label[key]) for key in ("skel_betas", "skel_poses", "skel_trans")]
        skin = model.forward(model.shape(tensors[0]), tensors[1], tensors[2]).vertices.numpy()
        return 1000 * float(np.linalg.norm(skin - skins, axis=2).mean())

    exact = distance("smpl", skins)
    for name, body in bodies.items():
        found = load_vertex_map(maps[name]).apply(body.of(skins).astype(np.float32)) / body.per_metre
        own = 1000 * float(np.linalg.norm(found - skins, axis=2).mean())
        through = distance(name, body.of(skins), "--vertex-map", maps[name])
        print(f"{name}: fit {exact:.2f} mm, map {own:.2f} mm, both {through:.2f} mm")
        assert through <= exact + 1.1 * own
