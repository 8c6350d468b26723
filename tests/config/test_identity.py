"""What a result depends on is hashed into markers and summary; a rerun with anything else refuses by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from job_fakes import FakeFitter, batches_of, hashes, make_run

from skelfit.api.run_shards import convert_run
from skelfit.config.fit_settings import FirstOrderConfig
from skelfit.config.identity import difference, mapping_hash
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import ALGORITHM_VERSION, Run, pending, plan_shards
from skelfit.errors import ConfigError, OutputError
from skelfit.executors.worker_line import WorkerLine
from skelfit.images.square_crop import CROP_VERSION
from skelfit.shards.content_seal import unsealed
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_json

# What may differ between runs that go on with each other: places, the store, which follows from the labels, and what
# the manifest tells people.
PLACES = {"out", "images", "models", "device", "labels[0].store", "description", "origins"}


def convert(run: Run) -> None:
    with writing(Path(run.out), run.subset):
        convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))


def leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a run, however deep, and its value."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{where}.{field.name}" if where else field.name)
    elif isinstance(value, tuple) and value:
        for i, item in enumerate(value):
            yield from leaves(item, f"{where}[{i}]")
    else:
        yield where, value


def another(value: Any) -> Any:
    """A value that differs from a leaf; what it means does not matter."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value or ''}x" if isinstance(value, str) else 7 if value is None else ("x",)


def changed(value: Any, path: str, new: Any) -> Any:
    """A run with one leaf replaced."""
    name, _, rest = path.partition(".")
    field, _, index = name.partition("[")
    inner = getattr(value, field)
    if index:
        items = list(inner)
        i = int(index[:-1])
        items[i] = changed(items[i], rest, new) if rest else new
        return dataclasses.replace(value, **{field: tuple(items)})
    return dataclasses.replace(value, **{field: changed(inner, rest, new) if rest else new})


def test_every_field_of_a_run_is_identity_or_a_place(tmp_path: Path) -> None:
    """A new field must be one or the other: this test asks which."""
    run = make_run(tmp_path)
    run = dataclasses.replace(run, pipeline=dataclasses.replace(run.pipeline, first_order=FirstOrderConfig()))
    convert(run)
    before = hashes(Path(run.out))
    fields = dict(leaves(run))
    assert set(fields) >= PLACES and len(fields) > 40
    # What a run was before it was extended is told by its shards: the first of them would have had fewer rows.
    assert fields.pop("earlier") == ()
    extended = dataclasses.replace(run, earlier=((dataclasses.replace(run.labels[0], rows=8),),))
    with pytest.raises(OutputError, match=r"labels\[0\].rows: 20 against 8"):
        pending(extended, plan_shards(extended))
    for path, value in fields.items():
        other = changed(run, path, another(value))
        if path in PLACES - {"out", "images"}:
            assert pending(other, plan_shards(other)) == [], path
        elif path not in PLACES:
            if path == "subset":  # tells folders apart, not shards
                continue
            with pytest.raises(OutputError, match="another configuration") as refused:
                pending(other, plan_shards(other))
            assert f" {path}" in str(refused.value) and " against " in str(refused.value), path
    with_images = dataclasses.replace(run, images=str(tmp_path))
    with pytest.raises(OutputError, match="images: false against true"):
        pending(with_images, plan_shards(with_images))
    assert hashes(Path(run.out)) == {k: v for k, v in before.items() if k != "summary.json"}


def test_every_difference_is_named_at_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    other = dataclasses.replace(changed(run, "pipeline.fit.batch", 77), models_sha256="1" * 64)
    with pytest.raises(OutputError) as refused:
        pending(other, plan_shards(other))
    assert "pipeline.fit.batch: null against 77" in str(refused.value)
    assert "models_sha256" in str(refused.value) and "--overwrite" in str(refused.value)


def test_a_marker_of_another_form_is_of_another_configuration(tmp_path: Path) -> None:
    """As an older skelfit may have written it: its shards are not taken for damaged ones and removed."""
    run = make_run(tmp_path)
    convert(run)
    marker = ShardFiles(Path(run.out), "fake-000001").marker
    content = read_json(marker)
    del content["rejected"]
    content["identity"]["code"] = {"version": "0.0.9"}
    del content["identity"]["algorithm"]
    marker.write_text(json.dumps(unsealed(content)))
    with pytest.raises(OutputError, match=r'code.*"0\.0\.9".* against'):
        pending(run, plan_shards(run))
    assert marker.exists()


def test_markers_and_summary_carry_the_hash(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert(run)
    summary = read_json(Path(run.out) / "summary.json")
    identities = {read_json(task.files.marker)["identity_sha256"] for task in plan_shards(run)}
    assert identities == {summary["identity_sha256"]} == {mapping_hash(summary["identity"])}
    assert summary["identity"]["algorithm"] == ALGORITHM_VERSION


def test_a_worker_of_another_algorithm_refuses(tmp_path: Path) -> None:
    run = dataclasses.replace(make_run(tmp_path), algorithm=ALGORITHM_VERSION + 1)
    Path(run.out).mkdir()
    expected = (
        f"algorithm version.*expected {ALGORITHM_VERSION + 1}, that of the run.*found {ALGORITHM_VERSION} on"
    )
    with pytest.raises(ConfigError, match=expected):
        WorkerLine(0).begin(convert_batch(batches_of(run)[0], FakeFitter()), SimpleQueue())
    assert list(Path(run.out).iterdir()) == []


def test_only_runs_with_crops_have_a_version_of_crops(tmp_path: Path) -> None:
    """So finished shards without crops stay finished, and crops of two versions are never mixed."""
    run = make_run(tmp_path)
    pictures = dataclasses.replace(run, images=str(tmp_path))
    plain = [run, pictures, changed(run, "pipeline.images.mode", "crop")]
    assert ["crops" in each.identity() for each in plain] == [False] * 3
    crops = changed(pictures, "pipeline.images.mode", "crop")
    assert crops.identity()["crops"] == CROP_VERSION
    former = {key: value for key, value in crops.identity().items() if key != "crops"}
    assert difference(former, crops.identity()) == [f"crops: absent against {CROP_VERSION}"]
