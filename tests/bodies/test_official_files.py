"""The importer on files in the official schemas: pickles of Python 2 and 3, npz, and files that mean harm.

The open body makes the whole trip; random arrays of the official sizes serve where a file must be odd.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import random
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from skelfit.bodies.assets import asset_sha256, load_skel, load_smpl
from skelfit.bodies.dofs import DOF_NAMES, SKEL_JOINT_NAMES, SKEL_PARENTS
from skelfit.bodies.model_set import find_models, load_models, open_models, save_models
from skelfit.bodies.official_files import (
    SMPL_PARENTS,
    find_official_files,
    import_models,
    skel_from_official,
    smpl_from_official,
)
from skelfit.bodies.open_body import open_body_models, write_official
from skelfit.errors import ModelError, OutputError, SkelfitError
from skelfit.storage.unpickle import as_array, as_texts, load_pickle, read_pickle

V, VS = 6890, 24752


def kintree(parents: tuple[int, ...]) -> np.ndarray:
    return np.array([parents, range(24)], dtype=np.int64).astype(np.uint32)


def one_hot(rows: int, rng: np.random.Generator) -> np.ndarray:
    return np.eye(24, dtype="f4")[rng.integers(0, 24, rows)]


@pytest.fixture(scope="module")
def smpl_raw() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "v_template": rng.normal(size=(V, 3)),
        "f": rng.integers(0, V, size=(13776, 3)).astype("u4"),
        "shapedirs": rng.normal(size=(V, 3, 12)).astype("f4"),
        "posedirs": np.tile(rng.normal(size=(1, 3, 207)).astype("f4"), (V, 1, 1)),
        "J_regressor": sp.csc_matrix(np.tile(np.eye(24), (1, 288))[:, :V] / 287),
        "weights": one_hot(V, rng),
        "kintree_table": kintree(SMPL_PARENTS),
        "bs_style": "lbs",
    }


@pytest.fixture(scope="module")
def skel_raw(smpl_raw: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    shared = {key: smpl_raw[key] for key in ("shapedirs", "posedirs", "J_regressor")}
    return shared | {
        "version": "1.1.1",
        "skin_template_v": smpl_raw["v_template"],
        "skin_template_f": smpl_raw["f"],
        "skel_template_v": rng.normal(size=(VS, 3)),
        "skel_template_f": rng.integers(0, VS, size=(100, 3)),
        "J_regressor_osim": sp.csr_matrix(smpl_raw["J_regressor"]),
        "per_joint_rot": np.tile(np.eye(3), (24, 1, 1)),
        "skin_weights": sp.csc_matrix(smpl_raw["weights"]),
        "skel_weights": sp.coo_matrix(one_hot(VS, rng)),
        "skel_weights_rigid": sp.csr_matrix(one_hot(VS, rng)),
        "osim_kintree_table": np.array([SKEL_PARENTS, range(24)]),
        "apose_rel_transfo": np.tile(np.eye(4), (24, 1, 1)),
        "tpose_transfo": np.tile(np.eye(4), (24, 1, 1)),
        "apose_transfo": np.tile(np.eye(4), (24, 1, 1)),
        "parameter_mapping": {"pelvis": [0, 1, 2]},
        "bone_names": ["femur", "tibia"],
        "joints_name": list(SKEL_JOINT_NAMES),
        "pose_params_name": np.array(DOF_NAMES),
    }


def write_pickle(path: Path, content: Any, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@contextmanager
def chumpy_installed() -> Iterator[tuple[type, type]]:
    """Classes with chumpy's names, importable only while the test writes its pickle."""

    class Ch:
        def __init__(self, **terms: Any) -> None:
            self.__dict__.update(terms, _dirty_vars={"x"}, _itr=None, _depends_on_deps={})

    class Select(Ch):
        pass

    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    for cls, module in ((Ch, "chumpy.ch"), (Select, "chumpy.reordering")):
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(modules[module], cls.__name__, cls)
    sys.modules.update(modules)
    try:
        yield Ch, Select
    finally:
        for name in modules:
            del sys.modules[name]


def as_python2(content: bytes) -> bytes:
    """A pickle of protocol 2 with the module names of the numpy and scipy that SMPL was written with."""
    for new, old in ((b"numpy._core", b"numpy.core"), (b"scipy.sparse._csc", b"scipy.sparse.csc")):
        content = content.replace(new, old)
    return content


def test_python2_pickle_with_chumpy(tmp_path: Path, smpl_raw: dict[str, Any]) -> None:
    shapedirs = smpl_raw["shapedirs"].astype("f8")
    all_of_them = np.concatenate([np.zeros((V, 3, 3)), shapedirs], axis=2)
    flat = np.arange(all_of_them.size).reshape(all_of_them.shape)[..., 3:].ravel()
    with chumpy_installed() as (ch, select):
        chumpy_raw = smpl_raw | {
            "v_template": ch(x=smpl_raw["v_template"]),
            "weights": ch(x=ch(x=smpl_raw["weights"])),
            "shapedirs": select(a=ch(x=all_of_them), idxs=flat, preferred_shape=shapedirs.shape),
        }
        content = as_python2(pickle.dumps(chumpy_raw, 2))
    for name in (
        b"cchumpy.ch\nCh\n",
        b"cchumpy.reordering\nSelect\n",
        b"cscipy.sparse.csc\n",
        b"cnumpy.core.",
    ):
        assert name in content
    (tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl").write_bytes(content)
    [record] = import_models(tmp_path, None, tmp_path / "out")
    assert (record.gender, record.version) == ("female", "1.0.0")
    assert "chumpy" not in sys.modules
    asset = load_smpl(record.asset)
    expected = smpl_from_official(smpl_raw, "female", "memory")
    assert asset_sha256(asset) == asset_sha256(expected) == record.asset_sha256
    assert (asset.shapedirs == smpl_raw["shapedirs"]).all()
    assert (asset.J_regressor == smpl_raw["J_regressor"].toarray().astype("f4")).all()
    assert asset.parents.tolist() == list(SMPL_PARENTS)


def test_pickle_written_by_python2_itself(tmp_path: Path) -> None:
    # Opcodes that only Python 2 writes: the bytes of the array are a BINSTRING, not an encoded text.
    array = np.array([[1.5, -2.0], [np.pi, 1e300]])
    content = (
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x02\x86q\x08cnumpy\ndtype\nq\x09U\x02f8q\x0aK\x00K\x01\x87q\x0bRq"
        b"\x0c(K\x03U\x01<q\x0dNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89U\x20"
    )
    (tmp_path / "a.pkl").write_bytes(content + array.tobytes() + b"q\x0ftq\x10bs.")
    assert as_array(load_pickle(tmp_path / "a.pkl")["a"]).tolist() == array.tolist()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_and_array_type(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    table = sp.random(5, 7, 0.4, random_state=0)
    content: dict[str, Any] = {
        "float": rng.normal(size=(4, 3)),
        "fortran": np.asfortranarray(rng.normal(size=(4, 3)).astype("f4")),
        "big endian": rng.normal(size=4).astype(">f8"),
        "scalar": np.float32(3),
        "zero-d": np.array(4294967295, "u4"),
        "empty": np.zeros((0, 3)),
        "bool": np.array([True, False]),
        "sparse in an object array": np.array(sp.csc_matrix(table), dtype=object),
    }
    for layout in ("csc", "csr", "coo"):
        content[f"{layout} matrix"] = getattr(sp, f"{layout}_matrix")(table)
        content[f"{layout} array"] = getattr(sp, f"{layout}_array")(table)
    texts: dict[str, Any] = {
        "list": ["x", "y"],
        "array": np.array(["x", "yz"]),
        "objects": np.array(["x", "yz"], dtype=object),
    }
    loaded = load_pickle(write_pickle(tmp_path / "a.pkl", content | {"texts": texts}, protocol))
    for key, value in content.items():
        array = as_array(loaded[key])
        expected = table.toarray() if key[0] == "s" and "object" in key else value
        expected = np.asarray(expected.toarray() if sp.issparse(expected) else expected)
        assert array.dtype == expected.dtype and array.shape == expected.shape, key
        assert (array == expected).all(), key
    for key, value in texts.items():
        assert as_texts(loaded["texts"][key]) == tuple(value)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {flag}", "posix.system"),
        (eval, "open({flag!r}, 'w')", "eval"),
        (exec, "open({flag!r}, 'w')", "exec"),
        (builtins.open, "{flag}", "open"),
        (np.load, "{flag}", "numpy.load"),
        (np.savetxt, "{flag}", "numpy.savetxt"),
        (getattr, "{flag}", "getattr"),
        (sp.load_npz, "{flag}", "load_npz"),
    ],
)
def test_pickles_that_call_are_refused_and_not_run(
    tmp_path: Path, function: Callable[..., Any], argument: str, name: str
) -> None:
    flag = tmp_path / "flag"
    content = {"v_template": Calls(function, argument.format(flag=str(flag)))}
    for protocol in (0, 2, 4):
        path = write_pickle(tmp_path / "SMPL_MALE.pkl", content, protocol)
        with pytest.raises(ModelError, match=rf"found the global '.*{name}', which is not run") as caught:
            import_models(tmp_path, None, tmp_path / "out")
        assert str(path) in str(caught.value)
    assert not flag.exists() and not (tmp_path / "out").exists()


def test_admitted_classes_cannot_be_changed_by_a_pickle(tmp_path: Path) -> None:
    # BUILD on a class or function would set its attributes: here __setstate__ of the stand-in for csc_matrix.
    attack = b"\x80\x02cscipy.sparse\ncsc_matrix\nN}X\x0c\x00\x00\x00__setstate__K\x01s\x86b."
    with pytest.raises(ModelError, match="expected a whole pickle"):
        read_pickle(io.BytesIO(attack), tmp_path, None)
    attack = b"\x80\x02ccopyreg\n_reconstructor\ncbuiltins\ndict\ncbuiltins\nobject\nN\x87R."
    with pytest.raises(ModelError, match="something that is no array"):
        read_pickle(io.BytesIO(attack), tmp_path, None)


def test_object_in_npz_is_not_run(tmp_path: Path, smpl_raw: dict[str, Any]) -> None:
    flag = tmp_path / "flag"
    evil = np.array(Calls(os.system, f"touch {flag}"), dtype=object)
    np.savez(tmp_path / "SMPL_MALE.npz", **(smpl_raw | {"weights": evil}))
    with pytest.raises(ModelError, match=r"SMPL_MALE\.npz: 'weights': .*posix\.system"):
        import_models(tmp_path, None, tmp_path / "out")
    assert not flag.exists()


def test_unsupported_chumpy_and_sparse_records(tmp_path: Path) -> None:
    with chumpy_installed() as (ch, _):
        ch.__name__ = ch.__qualname__ = "add"
        sys.modules["chumpy.ch"].add = ch  # type: ignore[attr-defined]
        cases = {"add": ch(a=1, b=2)}
        path = write_pickle(tmp_path / "a.pkl", cases)
    with pytest.raises(ValueError, match=r"chumpy\.ch\.add, which is a computation"):
        as_array(load_pickle(path)["add"])
    broken = sp.csr_matrix(np.eye(3))
    for name, value in (
        ("indptr", np.array([0, 1, 2, 2**40])),
        ("indptr", np.array([0, 2, 1, 3])),
        ("indices", np.array([0, 1, 3])),
        ("indices", np.array([0, -1, 1])),
        ("data", np.ones(2)),
        ("_shape", (2, 3)),
    ):
        matrix = broken.copy()
        matrix.__dict__[name] = value
        with pytest.raises(ValueError, match="sparse array"):
            as_array(load_pickle(write_pickle(tmp_path / "a.pkl", {"a": matrix}))["a"])
    empty = sp.coo_matrix((2**20, 2**20))  # a few bytes that would be terabytes
    with pytest.raises(ValueError, match=r"a sparse array of shape \(1048576, 1048576\)"):
        as_array(load_pickle(write_pickle(tmp_path / "a.pkl", {"a": empty}))["a"])


def test_files_that_are_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "SMPL_MALE.pkl"
    whole = pickle.dumps({"v_template": np.zeros((V, 3))}, 2)
    for content in (
        b"",
        b"hello",
        whole[:200],
        whole[: len(whole) // 2],
        whole[:-1],
        b"\x80\x63",
        bytes(1000),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ModelError, match=r"SMPL_MALE\.pkl: expected a whole pickle, found one that is cut off"
        ):
            import_models(tmp_path, None, tmp_path / "out")
    write_pickle(path, [1, 2])
    with pytest.raises(ModelError, match="expected a pickled dictionary, found a list"):
        import_models(tmp_path, None, tmp_path / "out")
    path.rename(tmp_path / "SMPL_MALE.npz")
    with pytest.raises(ModelError, match=r"SMPL_MALE\.npz: expected an npz file that can be read"):
        import_models(tmp_path, None, tmp_path / "out")


def test_damaged_bytes_give_no_other_error(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": np.arange(6.0).reshape(2, 3), "s": sp.csc_matrix(np.eye(3)), "t": ["x"]}
    rng = random.Random(0)
    outcomes = {"good": 0, "bad": 0}
    for protocol in (0, 2, 4):
        whole = pickle.dumps(content, protocol)
        for _ in range(400):
            damaged = bytearray(whole)
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
            try:
                loaded = read_pickle(io.BytesIO(damaged), tmp_path, None)
                for value in loaded.values() if isinstance(loaded, dict) else ():
                    as_array(value)
                outcomes["good"] += 1
            except (ModelError, ValueError):
                outcomes["bad"] += 1
    assert min(outcomes.values()) > 100


def test_npz_and_pickle_give_the_same_asset(tmp_path: Path, smpl_raw: dict[str, Any]) -> None:
    np.savez(tmp_path / "SMPL_MALE.npz", **smpl_raw)  # J_regressor becomes a pickled object in it
    dense = smpl_raw | {"J_regressor": smpl_raw["J_regressor"].toarray()}
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **dense)
    write_pickle(tmp_path / "smpl" / "SMPL_FEMALE.pkl", smpl_raw, 4)
    records = import_models(tmp_path, None, tmp_path / "out")
    assert [record.gender for record in records] == ["neutral", "male", "female"]
    assets = [load_smpl(record.asset) for record in records]
    for asset in assets:
        assert (asset.J_regressor == assets[0].J_regressor).all() and asset.J_regressor.max() > 0
        assert (asset.v_template == smpl_raw["v_template"].astype("f4")).all()


def test_skel_import_and_provenance(
    tmp_path: Path, skel_raw: dict[str, Any], smpl_raw: dict[str, Any]
) -> None:
    for gender in ("male", "female"):
        write_pickle(tmp_path / "skel" / f"skel_{gender}.pkl", skel_raw)
    write_pickle(tmp_path / "smpl" / "SMPL_NEUTRAL.pkl", smpl_raw)
    records = import_models(None, tmp_path / "skel", tmp_path / "out")
    assert [(r.kind, r.gender, r.version, r.notes) for r in records] == [
        ("skel", "male", "1.1.1", ()),
        ("skel", "female", "1.1.1", ()),
    ]
    asset = load_skel(tmp_path / "out" / "skel_male.npz")
    assert asset.gender == "male" and asset.shapedirs.shape == (V, 3, 10)
    assert (asset.bone_weights == skel_raw["skel_weights"].toarray()).all()
    assert (asset.bone_weights_rigid == skel_raw["skel_weights_rigid"].toarray()).all()
    assert asset.pose_params_name == DOF_NAMES and asset.parents.tolist() == list(SKEL_PARENTS)

    import_models(tmp_path / "smpl", None, tmp_path / "out")  # adds to what is there
    first = (tmp_path / "out" / "models.json").read_text()
    entries = json.loads(first)["models"]
    assert [entry["asset"] for entry in entries] == ["skel_female.npz", "skel_male.npz", "smpl_neutral.npz"]
    assert entries[1]["asset_sha256"] == asset_sha256(asset) == records[0].asset_sha256
    assert entries[1]["source"] == "skel_male.pkl" and len(entries[1]["source_sha256"]) == 64

    import_models(tmp_path / "smpl", tmp_path / "skel", tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_open_body_makes_the_whole_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(open_body_models(), tmp_path / "official")
    records = import_models(tmp_path / "official", tmp_path / "official", tmp_path / "models")
    assert [(r.kind, r.gender) for r in records] == [
        *(("smpl", gender) for gender in ("neutral", "male", "female")),
        *(("skel", gender) for gender in ("male", "female")),
    ]
    assert not any(record.notes for record in records)
    loaded, opened = load_models(tmp_path / "models"), open_models()
    assert opened.source == "open body"
    for gender in ("neutral", "male", "female"):
        assert asset_sha256(loaded.smpl_of(gender)) == asset_sha256(opened.smpl_of(gender))
    for gender in ("male", "female"):
        assert asset_sha256(loaded.skel_of(gender)) == asset_sha256(opened.skel_of(gender))
    assert opened.keypoints44 is not None and opened.keypoints44.shape == (44, V)
    monkeypatch.chdir(tmp_path / "official")
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    assert find_models().sha256 == opened.sha256
    save_models(opened, tmp_path / "saved")
    assert load_models(tmp_path / "saved").sha256 == opened.sha256


def test_existing_assets_are_kept(tmp_path: Path, smpl_raw: dict[str, Any]) -> None:
    write_pickle(tmp_path / "SMPL_MALE.pkl", smpl_raw)
    [record] = import_models(tmp_path, None, tmp_path / "out")
    record.asset.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"smpl_male\.npz: exists already"):
        import_models(tmp_path, None, tmp_path / "out")
    assert record.asset.read_bytes() == b"mine"
    import_models(tmp_path, None, tmp_path / "out", overwrite=True)
    assert load_smpl(record.asset).gender == "male"


def test_one_bad_file_writes_nothing(tmp_path: Path, smpl_raw: dict[str, Any]) -> None:
    write_pickle(tmp_path / "SMPL_MALE.pkl", smpl_raw)
    write_pickle(tmp_path / "SMPL_FEMALE.pkl", smpl_raw | {"f": None})
    with pytest.raises(SkelfitError, match=r"SMPL_FEMALE\.pkl: 'f'"):
        import_models(tmp_path, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_finding_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        find_official_files("smpl", tmp_path / "none")
    for kind in ("smpl", "skel"):
        with pytest.raises(ModelError, match="found none of them"):
            find_official_files(kind, tmp_path)
    with pytest.raises(ModelError, match="an SMPL or a SKEL folder to import from, found neither"):
        import_models(None, None, tmp_path / "out")
    for name in (
        "a/b/basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
        "a/b/basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
        "a/b/c/SMPL_FEMALE.pkl",  # too deep
        "smpl/basicModel_f_lbs_10_207_0_v1.0.0.pkl",
        "smpl/basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
        "smpl/smpl_neutral.PKL",
        "SMPLX_MALE.npz",
        "._SMPL_MALE.pkl",
        "Skel_Male.pkl",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = [(s.gender, s.version, s.path.name) for s in find_official_files("smpl", tmp_path)]
    assert files == [
        ("neutral", "unknown", "smpl_neutral.PKL"),
        ("male", "1.1.0", "basicmodel_m_lbs_10_207_0_v1.1.0.pkl"),
        ("female", "1.0.0", "basicModel_f_lbs_10_207_0_v1.0.0.pkl"),
    ]
    assert [(s.gender, s.path.name) for s in find_official_files("skel", tmp_path)] == [
        ("male", "Skel_Male.pkl")
    ]


def with_value(array: Any, value: float) -> np.ndarray:
    dense = np.array(array.toarray() if sp.issparse(array) else array, dtype="f8")
    dense.flat[5] = value
    return dense


@pytest.mark.parametrize(
    "key", ["v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table"]
)
def test_smpl_arrays_are_checked(smpl_raw: dict[str, Any], key: str) -> None:
    value = smpl_raw[key].toarray() if sp.issparse(smpl_raw[key]) else smpl_raw[key]
    assert_refused(smpl_from_official, {k: v for k, v in smpl_raw.items() if k != key}, key, "found nothing")
    assert_refused(smpl_from_official, smpl_raw | {key: value[:-1]}, key, "expected .*shape .*found shape")
    assert_refused(smpl_from_official, smpl_raw | {key: with_value(value, np.nan)}, key, "NaN")
    assert_refused(smpl_from_official, smpl_raw | {key: value[:1].astype(str)}, key, "found dtype <U")
    assert_refused(smpl_from_official, smpl_raw | {key: {"no": "array"}}, key, "found a dict")


SKEL_ARRAYS = [
    "skin_template_v", "skin_template_f", "skel_template_v", "skel_template_f", "shapedirs", "posedirs",
    "J_regressor", "J_regressor_osim", "per_joint_rot", "skin_weights", "skel_weights", "skel_weights_rigid",
    "osim_kintree_table", "apose_rel_transfo",
]  # fmt: skip


@pytest.mark.parametrize("key", SKEL_ARRAYS)
def test_skel_arrays_are_checked(skel_raw: dict[str, Any], key: str) -> None:
    value = skel_raw[key].toarray() if sp.issparse(skel_raw[key]) else skel_raw[key]
    assert_refused(skel_from_official, {k: v for k, v in skel_raw.items() if k != key}, key, "found nothing")
    assert_refused(
        skel_from_official, skel_raw | {key: value[..., :-1]}, key, "expected .*shape .*found shape"
    )
    assert_refused(skel_from_official, skel_raw | {key: with_value(value, np.inf)}, key, "expected .*found")


def assert_refused(convert: Callable[..., Any], raw: dict[str, Any], key: str, message: str) -> None:
    if key == "shapedirs" and "found shape" in message and raw[key].shape[2] == 11:
        raw = raw | {key: raw[key][..., :9]}  # one component less is still enough
    with pytest.raises(ModelError, match=message) as caught:
        convert(raw, "male", "folder/file.pkl")
    assert str(caught.value).startswith(f"folder/file.pkl: '{key}': expected ")


def test_values_that_cannot_be(smpl_raw: dict[str, Any], skel_raw: dict[str, Any]) -> None:
    tree = kintree(SMPL_PARENTS)
    tree[0, 5] = 1
    weights = smpl_raw["weights"] * 1.01
    for raw, key, message in (
        (
            smpl_raw | {"f": with_value(smpl_raw["f"], V)},
            "f",
            "indices from 0 to 6889, found indices from . to 6890",
        ),
        (smpl_raw | {"f": with_value(smpl_raw["f"], 0.5)}, "f", "whole numbers"),
        (smpl_raw | {"weights": weights}, "weights", "rows that sum to 1, found row .* with the sum 1.01"),
        (smpl_raw | {"kintree_table": tree}, "kintree_table", "expected the parents"),
        (smpl_raw | {"v_template": with_value(smpl_raw["v_template"], 1e300)}, "v_template", "huge"),
    ):
        assert_refused(smpl_from_official, raw, key, message)
    for raw, key, message in (
        (skel_raw | {"version": "1.0.0"}, "version", r"expected '1\.1\.1', found '1\.0\.0'"),
        (skel_raw | {"version": 1.1}, "version", "something else than strings"),
        ({k: v for k, v in skel_raw.items() if k != "version"}, "version", "found nothing"),
        ({k: v for k, v in skel_raw.items() if k != "tpose_transfo"}, "tpose_transfo", "found nothing"),
        (skel_raw | {"bone_names": [1, 2]}, "bone_names", "something else than strings"),
    ):
        assert_refused(skel_from_official, raw, key, message)


def test_shape_components_kept(smpl_raw: dict[str, Any], skel_raw: dict[str, Any]) -> None:
    assert smpl_from_official(smpl_raw, "male", "memory").shapedirs.shape == (V, 3, 12)
    many = np.broadcast_to(np.float32(0), (V, 3, 301))
    assert smpl_from_official(smpl_raw | {"shapedirs": many}, "male", "memory").shapedirs.shape == (V, 3, 300)
    skel = skel_from_official(skel_raw, "male", "memory")
    assert (skel.shapedirs == skel_raw["shapedirs"][..., :10]).all()


def test_unusual_files_are_noted(tmp_path: Path, skel_raw: dict[str, Any]) -> None:
    unusual = {"J_regressor_osim": skel_raw["J_regressor_osim"] * 1.1, "joints_name": ["a", "b"]}
    write_pickle(tmp_path / "skel_male.pkl", skel_raw | unusual)
    [record] = import_models(None, tmp_path, tmp_path / "out")
    assert len(record.notes) == 2
    assert "J_regressor_osim: rows sum to 1 only within 0.1" in record.notes[0]
    assert "joints_name" in record.notes[1]
    assert "J_regressor_osim" in json.loads((tmp_path / "out/models.json").read_text())["models"][0]["notes"]
