"""Assets: round trips, byte-identical files, errors that name file and key, and where models are found."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelfit.bodies import model_set as models_module
from skelfit.bodies.assets import (
    SkelAsset,
    SmplAsset,
    asset_sha256,
    build_asset,
    load_skel,
    load_smpl,
    save_asset,
    write_npz,
)
from skelfit.bodies.model_set import ModelSet, find_models, load_models, make_model_set, save_models
from skelfit.errors import ModelError, OutputError

V, VS = 12, 7


def smpl_fields(gender: str = "male", seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "gender": gender,
        "v_template": rng.normal(size=(V, 3)).astype("f4"),
        "faces": rng.integers(0, V, size=(5, 3)).astype("i4"),
        "shapedirs": rng.normal(size=(V, 3, 12)).astype("f4"),
        "posedirs": rng.normal(size=(V, 3, 207)).astype("f4"),
        "J_regressor": rng.random((24, V)).astype("f4"),
        "weights": rng.random((V, 24)).astype("f4"),
        "parents": np.arange(-1, 23, dtype="i4"),
    }


def skel_fields(gender: str = "female", seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    body = smpl_fields(gender, seed)
    body["skin_weights"] = body.pop("weights")
    return body | {
        "version": "1.1.1",
        "shapedirs": body["shapedirs"][..., :10],
        "J_regressor_osim": rng.random((24, V)).astype("f4"),
        "per_joint_rot": rng.normal(size=(24, 3, 3)).astype("f4"),
        "apose_rel_transfo": rng.normal(size=(24, 4, 4)).astype("f4"),
        "bone_v_template": rng.normal(size=(VS, 3)).astype("f4"),
        "bone_faces": rng.integers(0, VS, size=(4, 3)).astype("i4"),
        "bone_weights": rng.random((VS, 24)).astype("f4"),
        "bone_weights_rigid": rng.random((VS, 24)).astype("f4"),
        "joints_name": tuple(f"joint{i}" for i in range(24)),
        "bone_names": ("femur", "tibia"),
        "pose_params_name": tuple(f"q{i}" for i in range(46)),
    }


def smpl(gender: str = "male", seed: int = 0) -> SmplAsset:
    return build_asset(SmplAsset, smpl_fields(gender, seed), "memory")


def skel(gender: str = "female", seed: int = 1) -> SkelAsset:
    return build_asset(SkelAsset, skel_fields(gender, seed), "memory")


def assert_equal_assets(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype and left.shape == right.shape
            assert left.tobytes() == right.tobytes(), field.name
        else:
            assert left == right, field.name


def test_round_trip_is_bit_equal(tmp_path: Path) -> None:
    for asset, load in ((smpl(), load_smpl), (skel(), load_skel)):
        save_asset(asset, tmp_path / "a.npz")
        again = load(tmp_path / "a.npz")
        assert_equal_assets(asset, again)
        assert asset_sha256(again) == asset_sha256(asset)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]  # no temporary file stays


def test_equal_assets_give_identical_files(tmp_path: Path) -> None:
    fields = smpl_fields()
    fields["posedirs"] = np.asfortranarray(fields["posedirs"])  # the memory layout is no content
    save_asset(smpl(), tmp_path / "a.npz")
    save_asset(build_asset(SmplAsset, fields, "memory"), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_hash_sees_every_field() -> None:
    for asset in (smpl(), skel()):
        hashes = {asset_sha256(asset)}
        for field in dataclasses.fields(asset):
            value = getattr(asset, field.name)
            changed: Any = value + 1 if isinstance(value, np.ndarray) else value[:-1]
            hashes.add(asset_sha256(dataclasses.replace(asset, **{field.name: changed})))
        assert len(hashes) == len(dataclasses.fields(asset)) + 1


def test_arrays_are_read_only(tmp_path: Path) -> None:
    save_asset(skel(), tmp_path / "a.npz")
    for asset in (skel(), load_skel(tmp_path / "a.npz")):
        with pytest.raises(ValueError, match="read-only"):
            asset.v_template[0] = 0


def change(fields: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {k: v for k, v in (fields | {key: value}).items() if v is not None}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("posedirs", None, "expected a field of a skel asset, found nothing"),
        (
            "posedirs",
            np.zeros((V, 3, 206), "f4"),
            r"expected shape \(12, 3, 207\), found shape \(12, 3, 206\)",
        ),
        ("skin_weights", np.zeros((V + 1, 24), "f4"), r"expected shape \(12, 24\), found shape \(13, 24\)"),
        ("bone_weights", np.zeros((24,), "f4"), r"expected shape \(7, 24\), found shape \(24,\)"),
        ("shapedirs", np.zeros((V, 3, 10)), "expected float32 data, found dtype float64"),
        ("joints_name", np.zeros(24), "expected text data"),
        (
            "v_template",
            np.full((V, 3), np.nan, "f4"),
            "expected finite numbers, found 36 NaN or infinite values",
        ),
        (
            "faces",
            np.full((5, 3), V, "i4"),
            "expected vertex indices from 0 to 11, found indices from 12 to 12",
        ),
        ("bone_faces", np.full((4, 3), -1, "i4"), "expected vertex indices from 0 to 6"),
        ("parents", np.arange(24, dtype="i4"), "expected -1 for the root and then earlier joints"),
        ("parents", np.full(24, -1, "i4"), "expected -1 for the root and then earlier joints"),
        ("version", "1.0.0", "expected '1.1.1', found '1.0.0'"),
        ("gender", "neutral", "expected male or female, found 'neutral'"),
    ],
)
def test_bad_field_names_file_and_key(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = tmp_path / "skel_female.npz"
    write_npz(path, change({"format_version": np.int32(1), "kind": "skel"} | skel_fields(), key, value))
    with pytest.raises(ModelError, match=message) as caught:
        load_skel(path)
    assert str(caught.value).startswith(f"{path}: '{key}': ")


def test_too_few_shape_components() -> None:
    fields = smpl_fields() | {"shapedirs": np.zeros((V, 3, 9), "f4")}
    with pytest.raises(ModelError, match="at least 10 shape components, found 9"):
        build_asset(SmplAsset, fields, "memory")


def test_wrong_kind_and_version(tmp_path: Path) -> None:
    save_asset(skel(), tmp_path / "a.npz")
    with pytest.raises(ModelError, match="'kind': expected 'smpl', found 'skel'"):
        load_smpl(tmp_path / "a.npz")
    write_npz(tmp_path / "b.npz", {"format_version": np.int32(2), "kind": "smpl"} | smpl_fields())
    with pytest.raises(ModelError, match="'format_version': expected 1, found 2"):
        load_smpl(tmp_path / "b.npz")
    write_npz(tmp_path / "c.npz", smpl_fields())
    with pytest.raises(ModelError, match="'kind': expected a skelfit smpl asset, found nothing"):
        load_smpl(tmp_path / "c.npz")


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(ModelError, match="no such file"):
        load_smpl(path)
    save_asset(smpl(), path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # the checksum of the zip member must notice
    for content in (b"", b"not a zip", whole[: len(whole) // 2], whole[:-1], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load_smpl(path)
        assert str(path) in str(caught.value)


def test_pickled_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    fields = {"format_version": np.int32(1), "kind": "smpl"} | smpl_fields()
    np.savez(path, **(fields | {"weights": np.array({"a": 1}, dtype=object)}))
    with pytest.raises(ModelError, match="'weights': expected an array that can be read without pickle"):
        load_smpl(path)


def small_set() -> ModelSet:
    keypoints = np.random.default_rng(0).random((44, V)).astype("f4")
    return make_model_set({"male": smpl()}, {"female": skel()}, "open body", keypoints)


def test_models_folder_round_trip(tmp_path: Path) -> None:
    models = small_set()
    paths = save_models(models, tmp_path / "out")
    assert [path.name for path in paths] == ["smpl_male.npz", "skel_female.npz", "keypoints44.npz"]
    again = load_models(tmp_path / "out")
    assert again.sha256 == models.sha256 and again.source == str(tmp_path / "out")
    assert_equal_assets(again.smpl_of("male"), models.smpl_of("male"))
    assert_equal_assets(again.skel_of("female"), models.skel_of("female"))
    assert again.keypoints44 is not None and (again.keypoints44 == models.keypoints44).all()
    entries = json.loads((tmp_path / "out/models.json").read_text())["models"]
    assert [entry["asset"] for entry in entries] == ["skel_female.npz", "smpl_male.npz"]
    assert entries[1]["asset_sha256"] == asset_sha256(models.smpl_of("male"))


def test_model_set_hash_depends_on_content_only(tmp_path: Path) -> None:
    models = small_set()
    elsewhere = make_model_set(models.smpl, models.skel, "elsewhere", models.keypoints44)
    assert elsewhere.sha256 == models.sha256
    others = [
        make_model_set({"male": smpl(seed=5)}, models.skel, "x", models.keypoints44),
        make_model_set(models.smpl, {}, "x", models.keypoints44),
        make_model_set(models.smpl, models.skel, "x", None),
    ]
    assert len({other.sha256 for other in others} | {models.sha256}) == 4


def test_missing_gender_says_how_to_get_it(tmp_path: Path) -> None:
    save_models(small_set(), tmp_path)
    models = load_models(tmp_path)
    with pytest.raises(ModelError, match="skelfit models import --smpl DIR") as caught:
        models.smpl_of("neutral")
    assert str(caught.value).startswith(str(tmp_path / "smpl_neutral.npz"))
    with pytest.raises(ModelError, match="skelfit models import --skel DIR"):
        models.skel_of("male")
    with pytest.raises(ModelError, match="expected male or female, found 'neutral'"):
        models.skel_of("neutral")


def test_folder_without_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_models(tmp_path / "none")
    with pytest.raises(ModelError, match="skelfit models import"):
        load_models(tmp_path)


def test_keypoint_regressor_of_another_body(tmp_path: Path) -> None:
    save_models(small_set(), tmp_path)
    write_npz(tmp_path / "keypoints44.npz", {"keypoints44": np.zeros((44, V + 1), "f4")})
    with pytest.raises(ModelError, match=r"'keypoints44': expected shape \(44, 12\), found shape \(44, 13\)"):
        load_models(tmp_path)


def test_saving_refuses_to_overwrite(tmp_path: Path) -> None:
    save_models(small_set(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match=r"smpl_male\.npz: exists already"):
        save_models(small_set(), tmp_path)
    save_models(small_set(), tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_asset(smpl(), tmp_path / "file" / "a.npz")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_asset(smpl(), tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_asset(smpl(seed=3), tmp_path / "a.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == before


def test_find_models_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("explicit", "variable", "models"):
        save_models(make_model_set({"male": smpl()}, {}, "x", None), tmp_path / name)
    open_body = make_model_set({"male": smpl()}, {}, "open body", None)
    monkeypatch.setattr(models_module, "open_models", lambda: open_body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKELFIT_MODELS", str(tmp_path / "variable"))
    assert find_models(tmp_path / "explicit").source == str(tmp_path / "explicit")
    assert find_models(None).source == str(tmp_path / "variable")
    monkeypatch.setenv("SKELFIT_MODELS", "")
    assert find_models(None).source == "models"
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    assert find_models(None).source == "open body"
    monkeypatch.setenv("SKELFIT_MODELS", str(tmp_path / "gone"))
    with pytest.raises(
        ModelError, match="no such folder"
    ):  # a named folder that is missing is never replaced
        find_models(None)
