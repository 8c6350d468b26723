"""Manifests and pipelines: what is wrong is refused, naming the file and the key; hashes are stable."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skelfit.config.fit_settings import (
    BranchConfig,
    FitConfig,
    JointLimits,
    LocatorConfig,
    MeshConfig,
    PassConfig,
    RestartConfig,
    RootPrior,
    SolverConfig,
    SpineConfig,
    SpineCoupling,
    StageConfig,
    TemporalConfig,
    VertexWeights,
)
from skelfit.config.identity import difference, stable_hash
from skelfit.config.manifest import DemoSpec, Manifest, ReadOptions, load_manifest
from skelfit.config.pipeline import Pipeline, load_pipeline
from skelfit.config.yaml_dataclasses import build
from skelfit.errors import ConfigError

ROOT = Path(__file__).parents[2]
# Those of trainings have a reader of their own.
SHIPPED_PIPELINES = sorted(p for p in (ROOT / "pipelines").glob("*.yaml") if not p.stem.startswith("train-"))
PIPELINE = """
name: p
fit:
  stages:
    - {name: full, dofs: all, vertices: all, steps: 8, refreshes: 2}
"""
MANIFEST = """
name: m
labels:
  - {path: m/m.npz, source: camerahmr}
"""


def pipeline(folder: Path, text: str = PIPELINE) -> Pipeline:
    path = folder / "p.yaml"
    path.write_text(text)
    return load_pipeline(path)


def test_defaults_and_values(tmp_path: Path) -> None:
    config = pipeline(tmp_path, PIPELINE + "gates: {max_pve_mm: 30}\nshard_size: 7\n")
    assert config.shard_size == 7
    assert config.fit.batch is None
    assert config.gates.max_vertex_mm is None
    assert config.gates.max_pve_mm == 30.0
    assert type(config.gates.max_pve_mm) is float
    assert config.fit.stages[0].stride == 1
    assert isinstance(config.fit.stages, tuple)


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("2E+1", 20.0), ("3", 3.0)])
def test_numbers_are_read_as_they_are_meant(tmp_path: Path, text: str, value: float) -> None:
    # YAML 1.1 takes 1e-4 for text.
    assert pipeline(tmp_path, PIPELINE + f"  limit_weight: {text}\n").fit.limit_weight == value


STAGE = "{name: a, dofs: all, vertices: all, steps: 8, refreshes: 2}"
BAD = [
    ("shardsize: 5", "shardsize", "one of ", "an unknown key"),
    ("  bach: 5", "fit.bach", "one of batch,", "an unknown key"),
    ("  batch: many", "fit.batch", "a whole number", "'many' (text)"),
    ("  batch: 2.5", "fit.batch", "a whole number", "2.5 (float)"),
    ("  batch: yes", "fit.batch", "a whole number", "True (true or false)"),
    ("  batch: 0", "fit.batch", "at least 1", "0"),
    ("  retries:", "fit.retries", "a whole number", "nothing (null)"),
    ("  limit_weight: .nan", "fit.limit_weight", "a finite number", "nan"),
    ("  limit_weight: -1", "fit.limit_weight", "at least 0", "-1"),
    ("  skel_gender: neutral", "fit.skel_gender", "one of male, female, best", "'neutral' (text)"),
    ("  skel_gender: [male]", "fit.skel_gender", "one of male, female, best", "['male'] (a list)"),
    ("  neutral_target: male", "fit.neutral_target", "one of neutral, gendered", "'male' (text)"),
    ("  betas: kept", "fit.betas", "one of transfer, copy", "'kept' (text)"),
    ("  vertex_weights: {foot: 0.5}", "fit.vertex_weights.foot", "one of armpits, feet", "an unknown key"),
    ("  vertex_weights: {feet: -1}", "fit.vertex_weights.feet", "at least 0", "-1"),
    ("images: {mode: crops}", "images.mode", "one of bytes, crop, none", "'crops' (text)"),
    ("images: {size: 8}", "images.size", "at least 64", "8"),
    ("images: {quality: 101}", "images.quality", "at most 100", "101"),
    ("gates: 3", "gates", "a mapping", "3 (int)"),
    ("gates: {max_pve_mm: low}", "gates.max_pve_mm", "a finite number or null", "'low' (text)"),
]


@pytest.mark.parametrize(("line", "key", "expected", "found"), BAD)
def test_errors_name_file_and_key(tmp_path: Path, line: str, key: str, expected: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline(tmp_path, PIPELINE + line + "\n")
    error = caught.value
    assert error.path == str(tmp_path / "p.yaml")
    assert error.key == key
    assert error.expected.startswith(expected)
    assert error.found.startswith(found)
    assert f"{tmp_path / 'p.yaml'}: '{key}': expected " in str(error)


NO_USE = [
    ("  root_prior: {turn: 1}", "fit.root_prior", "no such key, with root: frozen", "turn 1, move 0.01"),
    ("  root: turn\n  root_prior: {move: 1}", "fit.root_prior.move", "no such key, with root: turn", "1"),
    (
        "  temporal: {jump: 1}\nfirst_order: {}",
        "fit.temporal",
        "null or no such key, with first_order",
        "jump",
    ),
]


@pytest.mark.parametrize(("lines", "key", "expected", "found"), NO_USE)
def test_what_would_do_nothing_is_refused(
    tmp_path: Path, lines: str, key: str, expected: str, found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline(tmp_path, PIPELINE + lines + "\n")
    assert caught.value.key == key and caught.value.expected.startswith(expected), str(caught.value)
    assert found in caught.value.found


@pytest.mark.parametrize(
    "lines",
    [
        "  root_prior: {turn: 2e-4, move: 1e-2}",  # as it is by default
        "  root: turn\n  root_prior: {turn: 1}",
        "  root: free\n  root_prior: {move: 1}",
        "  temporal: null\nfirst_order: {}",  # what it does anyway
    ],
)
def test_what_has_a_use_is_not(tmp_path: Path, lines: str) -> None:
    pipeline(tmp_path, PIPELINE + lines + "\n")


BAD_FILES = [
    ("name: p\n", "fit", "found nothing (the key is missing)"),
    ("name: p\nfit: {stages: []}\n", "fit.stages", "expected at least 1 entry, found 0 entries"),
    ("name: p\nfit: {stages: full}\n", "fit.stages", "expected a list, found 'full' (text)"),
    ("name: p\nfit: {stages: [3]}\n", "fit.stages[0]", "expected a mapping, found 3 (int)"),
    ("name: p\nfit: {stages: [{name: a}]}\n", "fit.stages[0].dofs", "expected one of lower_body,"),
    (f"name: p\nfit: {{stages: [{STAGE}, {STAGE}]}}\n", "fit.stages", "different names, found a, a"),
    (PIPELINE + "name: q\n", None, "the key 'name' is given twice"),
    (PIPELINE + "fit: [\n", None, "expected valid YAML, found"),
    ("", None, "expected a mapping, found nothing (null)"),
    ("- 1\n", None, "expected a mapping, found [1] (a list)"),
    ("{[1]: 2}\n", None, "expected valid YAML, found"),
    ("name: !!python/object/apply:os.system [false]\n", None, "expected valid YAML, found"),
]


@pytest.mark.parametrize(("text", "key", "message"), BAD_FILES)
def test_bad_files(tmp_path: Path, text: str, key: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline(tmp_path, text)
    assert caught.value.key == key
    assert str(caught.value).startswith(str(tmp_path / "p.yaml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: expected a YAML file, found no such file"):
        load_manifest(tmp_path / "no.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match="expected a readable YAML file"):
        load_manifest(tmp_path / "b.yaml")
    with pytest.raises(ConfigError, match="expected a YAML file, found a folder"):
        load_manifest(tmp_path)


def test_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST + "demo: {people: 5}\n")
    manifest = load_manifest(path)
    assert manifest.demo == DemoSpec(people=5, seed=0, images=True)
    assert manifest.labels[0].gender == "neutral"
    path.write_text(MANIFEST.replace("camerahmr", "coco"))
    with pytest.raises(
        ConfigError, match=r"'labels\[0\].source': expected one of camerahmr, .* or null, found 'coco'"
    ):
        load_manifest(path)
    path.write_text(MANIFEST.replace("source: camerahmr", "read: {scale_unit: px, rot6d: rows}"))
    source = load_manifest(path).labels[0]
    assert source.source is None and source.read == ReadOptions(scale_unit="px", rot6d="rows")
    path.write_text(MANIFEST.replace("source: camerahmr", "read: {scale_unit: cm}"))
    expected = r"'labels\[0\].read.scale_unit': expected one of px, px/200 or null, found 'cm'"
    with pytest.raises(ConfigError, match=expected):
        load_manifest(path)


@pytest.mark.parametrize("name", ["a.b", "a/b", "a b", "''", "é"])
def test_a_name_that_cannot_be_a_key_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MANIFEST.replace("name: m", f"name: {name}"), encoding="utf-8")
    with pytest.raises(ConfigError, match="'name': expected letters, digits"):
        load_manifest(path)


@pytest.mark.parametrize("path", SHIPPED_PIPELINES, ids=lambda p: p.stem)
def test_shipped_pipelines(path: Path) -> None:
    assert load_pipeline(path).name == path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_manifests(path: Path) -> None:
    assert load_manifest(path).name == path.stem


def test_hash_ignores_the_order_of_keys_and_1_against_1_0(tmp_path: Path) -> None:
    first = pipeline(tmp_path, PIPELINE + "  limit_weight: 1\ngates: {max_pve_mm: 5, max_vertex_mm: 9}\n")
    second = pipeline(
        tmp_path,
        "gates: {max_vertex_mm: 9.0, max_pve_mm: 5.0}\nfit:\n  limit_weight: 1.0\n  stages:\n"
        "    - {refreshes: 2, steps: 8, vertices: all, dofs: all, name: full}\nname: p\n",
    )
    assert stable_hash(first) == stable_hash(second)
    built = dataclasses.replace(first, fit=dataclasses.replace(first.fit, limit_weight=1))
    assert stable_hash(built) == stable_hash(first)


def test_hash_ignores_the_order_of_fields_in_the_code() -> None:
    one = dataclasses.make_dataclass("one", [("a", int), ("b", str)])
    two = dataclasses.make_dataclass("two", [("b", str), ("a", int)])
    assert stable_hash(one(a=1, b="x")) == stable_hash(two(a=1, b="x"))
    assert stable_hash(one(a=1, b="x")) != stable_hash(one(a="1", b="x"))


def test_hash_changes_with_every_field(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    fit = config.fit
    changes: dict[str, Any] = {
        "name": "q",
        "skel_gender": "female",
        "neutral_target": "gendered",
        "betas": "copy",
        "root": "free",
        "root_prior": RootPrior(turn=1e-4),
        "batch": 255,
        "limit_weight": 2e-4,
        "vertex_weights": VertexWeights(feet=0.5),
        "limits": JointLimits(knee_angle_r=(0.0, 2.0)),
        "max_angle_step": 0.41,
        "beta_weight": 2e-6,
        "retries": 1,
        "solver": SolverConfig(noise=500.0),
        "passes": PassConfig(moving=4e-3),
        "restarts": RestartConfig(steps=11),
        "branches": BranchConfig(beyond=0.03),
        "locator": LocatorConfig(seed=1),
        "meshes": MeshConfig(coarse_steps=(4, 4)),
        "temporal": TemporalConfig(steps=3),
        "spine": SpineConfig(bending=SpineCoupling(1e-4, 0.4)),
    }
    variants = [dataclasses.replace(fit, **{k: v}) for k, v in changes.items() if k != "name"]
    assert {f.name for f in dataclasses.fields(FitConfig)} == changes.keys() - {"name"} | {"stages"}
    stages = [dataclasses.replace(fit.stages[0], stride=2)]
    variants.append(dataclasses.replace(fit, stages=tuple(stages)))
    hashes = {stable_hash(config), stable_hash(dataclasses.replace(config, name="q"))}
    hashes |= {stable_hash(dataclasses.replace(config, fit=f)) for f in variants}
    assert len(hashes) == 2 + len(variants)


def test_joint_limits(tmp_path: Path) -> None:
    """By name and in any order; hashable, since a pipeline is; a difference is named by its DoF."""
    one = pipeline(tmp_path, PIPELINE + "  limits: {knee_angle_r: [0, 2.5], hip_flexion_l: [-0.5, 2]}\n")
    other = pipeline(tmp_path, PIPELINE + "  limits: {hip_flexion_l: [-0.5, 2], knee_angle_r: [0, 2.5]}\n")
    assert one.fit.limits == {"knee_angle_r": (0.0, 2.5), "hip_flexion_l": (-0.5, 2.0)}
    assert one == other and hash(one) == hash(other) and stable_hash(one) == stable_hash(other)
    assert build(Pipeline, json.loads(json.dumps(dataclasses.asdict(one))), "marker.json") == one
    wider = pipeline(tmp_path, PIPELINE + "  limits: {knee_angle_r: [0, 2.6], hip_flexion_l: [-0.5, 2]}\n")
    differences = difference(dataclasses.asdict(one), dataclasses.asdict(wider))
    assert differences == ["fit.limits.knee_angle_r[1]: 2.5 against 2.6"]


@pytest.mark.parametrize(
    ("text", "key", "expected", "found"),
    [
        ("{knee_angel_r: [0, 2]}", ".knee_angel_r", "knee_angle_r, knee_angle_l", "an unknown name"),
        ("{pelvis_tilt: [0, 2]}", ".pelvis_tilt", "a DoF of the body: ", "an unknown name"),
        ("{knee_angle_r: [2, 2]}", ".knee_angle_r", "low < high, in rad", "[2, 2]"),
        ("{knee_angle_r: [0, 135]}", ".knee_angle_r", "within a turn of 0", "[0, 135]"),
        ("{knee_angle_r: [0]}", ".knee_angle_r", "[low, high] in rad", "[0] (a list)"),
        ("{knee_angle_r: [0, null]}", ".knee_angle_r[1]", "a finite number", "nothing (null)"),
        ("[0, 1]", "", "a mapping of DoF names to [low, high] in rad", "[0, 1] (a list)"),
    ],
)
def test_joint_limits_that_cannot_be(tmp_path: Path, text: str, key: str, expected: str, found: str) -> None:
    with pytest.raises(ConfigError) as raised:
        pipeline(tmp_path, PIPELINE + f"  limits: {text}\n")
    error = raised.value
    assert error.key == f"fit.limits{key}" and expected in str(error) and found in str(error)


def test_hash_is_the_same_in_another_process(tmp_path: Path) -> None:
    expected = stable_hash(pipeline(tmp_path))
    code = (
        "import sys; from skelfit.config.identity import stable_hash; "
        "from skelfit.config.pipeline import load_pipeline; "
        "print(stable_hash(load_pipeline(sys.argv[1])))"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, str(tmp_path / "p.yaml")]
        result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        assert result.stdout.strip() == expected


def test_difference_names_fields_and_values(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    fit = dataclasses.replace(config.fit, batch=512, stages=(*config.fit.stages, config.fit.stages[0]))
    a = dataclasses.asdict(config)
    b = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(config, fit=fit))))
    differences = difference(a, b)
    assert differences[0] == "fit.batch: null against 512"
    assert 'fit.stages[1].dofs: absent against "all"' in differences
    assert len(differences) == 1 + len(dataclasses.fields(StageConfig))
    assert difference(a, json.loads(json.dumps(a))) == []


def test_build_reads_what_asdict_wrote(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    assert build(Pipeline, json.loads(json.dumps(dataclasses.asdict(config))), "marker.json") == config
    manifest = load_manifest(ROOT / "manifests" / "demo.yaml")
    assert build(Manifest, dataclasses.asdict(manifest), "marker.json") == manifest
