"""`skelfit.load_shards`: the people of finished shards, with arrays by name, once each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from job_fakes import BENT_ROW, NO_IMAGE_ROW, batches_of, make_run, work

from skelfit.api.shard_people import load_shards
from skelfit.bodies.dofs import DOF_NAMES
from skelfit.conversion.run_plan import plan_shards
from skelfit.conversion.run_summary import write_summary
from skelfit.errors import ArgumentError, InputError
from skelfit.executors.dask_tasks import run_tasks
from skelfit.shards.keep_list import Kept, write_keep
from skelfit.shards.label_vector import FIELDS
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_samples

PEOPLE = 17  # of the 20 rows of the label file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("run"), images=True)
    out = Path(run.out)
    out.mkdir()
    tasks = plan_shards(run)
    assert len(list(run_tasks(batches_of(run), work=work))) == len(tasks)
    write_summary(run, tasks, {"people_per_second": None, "time": None})
    return out


def test_everybody_comes_with_arrays_by_name(folder: Path) -> None:
    people = load_shards(folder)
    assert len(people) == PEOPLE
    stored = [sample for tar in sorted(folder.glob("*.tar")) for sample in read_samples(tar)]
    for _ in range(2):  # as often as wanted
        listed = list(people)
        assert [person.key for person in listed] == [key for key, _, _ in stored]
    for person, (_, label, meta) in zip(listed, stored, strict=True):
        assert {name: value.shape for name, value in person.labels.items()} == {
            f.name: f.shape for f in FIELDS
        }
        assert (
            np.concatenate([value.reshape(-1) for value in person.labels.values()]).tobytes()
            == label.tobytes()
        )
        assert person.meta == meta and person.status == meta["status"]
        assert person.poses is person.labels["skel_poses"] and person.betas.shape == (10,)
        assert person.trans.shape == (3,)
        knee = float(person.poses[DOF_NAMES.index("knee_angle_r")])
        assert person.angle("knee_angle_r") == knee
        assert person.angle("knee_angle_r", degrees=True) == pytest.approx(knee * 180 / np.pi)
        assert (person.image is None) == (meta["row"] == NO_IMAGE_ROW)
        assert person.image is None or person.image[:2] == b"\xff\xd8"
    said = [repr(person) for person in listed]
    assert said[0].startswith(f"<LabelledPerson {listed[0].key}: ok; labels: skel_poses, ")
    assert max(map(len, said)) < 400 and sum("; no image>" in text for text in said) == 1
    assert repr(people) == f"<ShardPeople: {PEOPLE} people in 3 shards>"
    statuses = {person.meta["row"]: person.status for person in listed}
    assert statuses[BENT_ROW] == "limit_violation" and statuses[0] == "ok"
    with pytest.raises(ArgumentError, match="name: expected a name of DOF_NAMES"):
        listed[0].angle("knee")


def test_tars_by_pattern_and_labels_alone(folder: Path) -> None:
    whole = [person.key for person in load_shards(folder)]
    several: list[str | Path] = [folder / "fake-000000.tar", f"{folder}/fake-00000[12].tar"]
    for shards in (f"{folder}/*.tar", f"{folder}/fake-{{000000..000002}}.tar", several):
        people = load_shards(shards, images=False)
        assert [person.key for person in people] == whole and len(people) == PEOPLE
        assert all(person.image is None for person in people)
    again: tuple[str | Path, ...] = (folder, f"{folder}/fake-000001.tar")
    for second in again:
        with pytest.raises(
            ArgumentError, match=r"shards: expected each shard once, found fake-\d+.tar 2 times"
        ):
            load_shards([folder, second])


def test_a_keep_list(folder: Path, tmp_path: Path) -> None:
    keys = [person.key for person in load_shards(folder)]
    write_keep(
        tmp_path / "keep.csv", [Kept(key, "s", ("bent",) if i % 3 else ()) for i, key in enumerate(keys)]
    )
    people = load_shards(folder, keep=str(tmp_path / "keep.csv"))
    assert [person.key for person in people] == keys[::3] and len(people) == len(keys[::3])
    write_keep(tmp_path / "short.csv", [Kept(key, "s") for key in keys[1:]])
    with pytest.raises(InputError, match="expected a line for each person in the shards, found none"):
        load_shards(folder, keep=tmp_path / "short.csv")


def test_what_cannot_be_read_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="shards: expected a path, or an address .* found 3"):
        load_shards(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"shards: expected .* found \[\]"):
        load_shards([])
    with pytest.raises(ArgumentError, match="keep: expected a path, or an address .* found 3"):
        load_shards(folder, keep=3)  # type: ignore[arg-type]
    with pytest.raises(ShardError, match="expected finished shards"):
        load_shards(tmp_path / "gone-*.tar")
    (tmp_path / "part").mkdir()
    for path in folder.glob("fake-000000.*"):
        (tmp_path / "part" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ShardError, match=r"summary\.json"):
        load_shards(tmp_path / "part")  # a run that is not finished
    assert len(list(load_shards(f"{tmp_path}/part/*.tar"))) > 0
    marker = tmp_path / "part" / "fake-000000.done.json"
    content = json.loads(marker.read_text())
    tar = tmp_path / "part" / "fake-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1024])
    with pytest.raises(ShardError, match=f"{content['tar']['bytes']}"):
        load_shards(f"{tmp_path}/part/*.tar")
