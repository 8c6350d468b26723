"""The six datasets of HMR-SKEL through their real manifests, the real pipeline and the real fit, in small."""

from __future__ import annotations

import gc
import io
import json
import pickle
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from miniatures import MINIATURES, UNLABELLED, Columns, Trap, write_miniature

import skelfit.api.convert_dataset
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.config.manifest import load_manifest
from skelfit.config.pipeline import load_pipeline
from skelfit.conversion.run_fitter import make_fitter
from skelfit.labels.demo_people import write_demo
from skelfit.labels.known_hashes import file_sha256
from skelfit.labels.label_schema import recorded_sha256

ROOT = Path(__file__).parents[2]
PEOPLE = 200


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, models: ModelSet) -> tuple[Columns, list[bytes]]:
    """People and their pictures, drawn once for all subsets."""
    folder = tmp_path_factory.mktemp("people")
    with np.load(write_demo(folder, PEOPLE, seed=5, models=models)) as labels:
        columns = dict(labels)
    return columns, [(folder / "images" / name).read_bytes() for name in columns["imgname"]]


@pytest.fixture(scope="module")
def converted(
    tmp_path_factory: pytest.TempPathFactory, models: ModelSet, people: tuple[Columns, list[bytes]]
) -> tuple[Path, str]:
    """All six, converted as `make convert SUBSET=all` does it; the folder, and what was said."""
    folder = tmp_path_factory.mktemp("all")
    trap = pickle.dumps([Trap(folder / "unpickled")])
    for name in MINIATURES:
        write_miniature(name, folder / "data", *people, trap)
    # Preparing a fitter takes longer than a subset.
    fitter = make_fitter(models, load_pipeline(ROOT / "pipelines" / "hmr-skel.yaml"), "cpu")
    arguments = ["convert", "--manifest", ROOT / "manifests", "--out", folder / "shards", "--workers", 0]
    arguments += ["--device", "cpu", "--pipeline", ROOT / "pipelines" / "hmr-skel.yaml"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skelfit.api.convert_dataset, "make_fitter", lambda *_: fitter)
        patch.setattr(skelfit.api.convert_dataset, "find_models", lambda _: models)
        patch.setenv("SKELFIT_DATA", str(folder / "data"))
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert not (folder / "unpickled").exists()
    return folder, result.stdout


def test_each_dataset_has_a_miniature() -> None:
    names = {path.stem for path in (ROOT / "manifests").glob("*.yaml")}
    assert names == set(MINIATURES) | {"demo", "demo-large"}
    for name, mini in MINIATURES.items():
        manifest = load_manifest(ROOT / "manifests" / f"{name}.yaml")
        assert tuple(source.path for source in manifest.labels) == mini.labels
        assert {origin.of for origin in manifest.origins} == {"labels", "images"}


def samples_of(shards: list[str]) -> list[dict[str, bytes]]:
    """The samples of shards, by plain webdataset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the garbage collector
        samples = list(webdataset.WebDataset(shards, shardshuffle=False))
        gc.collect()
    return samples


@pytest.mark.soak
@pytest.mark.parametrize("name", MINIATURES)
def test_a_trainer_finds_every_image_beside_its_labels(
    converted: tuple[Path, str], people: tuple[Columns, list[bytes]], name: str
) -> None:
    """Read with plain webdataset, and without skelfit."""
    folder = converted[0] / "shards" / name
    columns, pictures = people
    fields = {f["name"]: f for f in json.loads((folder / "schema.json").read_text())["fields"]}
    summary = json.loads((folder / "summary.json").read_text())
    rows = [row for path in sorted(folder.glob("*.rows.jsonl")) for row in path.read_text().splitlines()]
    assert len(rows) == PEOPLE == summary["rows_in"] == sum(summary["statuses"].values())
    samples = samples_of([str(path) for path in sorted(folder.glob("*.tar"))])
    # Some extreme people are further off than HSMR allows.
    assert len(samples) == summary["rows_out"] >= 0.9 * PEOPLE
    assert set(summary["statuses"]) <= {"ok", "filtered", "bad_input"}
    assert summary["images"]["found"] == summary["rows_out"]
    mini = MINIATURES[name]
    halves = np.array_split(np.arange(PEOPLE), len(mini.labels))
    images = {mini.place(i): picture for i, picture in enumerate(pictures)}
    for sample in samples:
        meta = json.loads(sample["meta.json"])
        file_index = mini.labels.index(f"{Path(mini.labels[0]).parent}/{meta['label_file']}")
        person = int(halves[file_index][meta["row"]])
        assert sample["jpg"] == images[mini.place(person)] and meta["image"] is True
        assert meta["imgname"] == mini.imgname(person) and str(sample["__key__"]).startswith(f"{name}-")
        label = np.load(io.BytesIO(sample["label.npy"]))
        part = {k: label[f["offset"] : f["offset"] + f["size"]] for k, f in fields.items()}
        np.testing.assert_array_equal(part["smpl_pose"], columns["pose_cam"][person])
        np.testing.assert_allclose(part["scale"], columns["scale"][person], rtol=1e-6)
        np.testing.assert_array_equal(part["gtkps"].reshape(44, 3), columns["gtkps"][person])
        assert np.isfinite(part["skel_poses"]).all() and part["errors"][0] < 40


@pytest.mark.parametrize("name", ["h36m", "mpi-inf-3dhp"])
def test_a_row_without_a_label_is_a_row_with_a_reason(converted: tuple[Path, str], name: str) -> None:
    lines = (converted[0] / "shards" / name / f"{name}-000000.rows.jsonl").read_text().splitlines()
    row = json.loads(lines[UNLABELLED])
    assert row["status"] == "bad_input" and "has_b" in row["reason"]


def test_what_is_said_of_all(converted: tuple[Path, str]) -> None:
    folder, said = converted
    table = said.split("result\n")[1].splitlines()[: len(MINIATURES)]
    assert [line.split()[:2] for line in table] == [[name, str(PEOPLE)] for name in sorted(MINIATURES)]
    for mini in MINIATURES.values():
        for path in mini.labels:
            assert recorded_sha256(folder / "data" / path) == file_sha256(folder / "data" / path)
    recorded = Counter(line.startswith("sha256 of") for line in said.splitlines())[True]
    assert recorded == sum(len(mini.labels) for mini in MINIATURES.values())
    filters = json.loads((folder / "shards" / "coco" / "summary.json").read_text())["filters"]
    assert list(filters) == ["vertex_error"] and filters["vertex_error"]["value"] == 60
