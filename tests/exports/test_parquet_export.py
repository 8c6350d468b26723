"""The Parquet table: the numbers of the label vectors by name, nulls for what is not known, units, equal bytes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from export_fakes import export, make_fields, make_metas, write_run

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.cli import main
from skelfit.errors import OutputError, SkelfitError
from skelfit.exports.exporter import ExportOptions
from skelfit.shards.finished_run import no_step, open_run
from skelfit.shards.keep_list import Kept, write_keep

pq = pytest.importorskip("pyarrow.parquet")

PEOPLE = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    metas = make_metas(
        PEOPLE,
        smpl=[i % 2 == 0 for i in range(PEOPLE)],
        camera=[i % 5 != 0 for i in range(PEOPLE)],
        affine=[[[1.0, 0.0, i], [0.0, 1.0, 0.5]] if i % 3 else None for i in range(PEOPLE)],
        frame=[i if i > 9 else None for i in range(PEOPLE)],
        frame_rate=[25] * PEOPLE,
    )
    return write_run(tmp_path_factory.mktemp("run"), make_fields(PEOPLE), metas)


@pytest.fixture(scope="module")
def table(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("table") / "people.parquet"
    assert export("parquet", run, out).people == PEOPLE
    return pq.read_table(out)


def test_every_number_is_that_of_the_label_vector(table: Any) -> None:
    fields = make_fields(PEOPLE)
    poses = np.stack([table[name].to_numpy() for name in DOF_NAMES], axis=1)
    np.testing.assert_array_equal(poses, fields["skel_poses"], strict=True)
    errors = np.stack([table[name].to_numpy() for name in ("pve_mm", "max_vertex_mm")], axis=1)
    np.testing.assert_array_equal(errors, fields["errors"], strict=True)
    known = {"smpl": [i % 2 == 0 for i in range(PEOPLE)], "cam_int": [i % 5 != 0 for i in range(PEOPLE)]}
    for name in (
        "skel_betas",
        "skel_trans",
        "center",
        "scale",
        "smpl_pose",
        "smpl_betas",
        "smpl_trans",
        "cam_int",
    ):
        expected = known.get(name, known["smpl"] if name.startswith("smpl") else [True] * PEOPLE)
        for value, numbers, is_known in zip(table[name].to_pylist(), fields[name], expected, strict=True):
            assert (value is not None) == is_known
            if is_known:
                np.testing.assert_array_equal(np.array(value, np.float32), numbers, strict=True)


def test_metadata_and_what_is_null(table: Any) -> None:
    assert table["key"].to_pylist() == [f"people-0-{i:08d}" for i in range(PEOPLE)]
    assert table["shard"].to_pylist()[:9] == ["people-000000"] * 8 + ["people-000001"]
    assert table["row"].to_pylist() == list(range(PEOPLE))
    assert table["has_smpl"].to_pylist() == [i % 2 == 0 for i in range(PEOPLE)]
    assert table["affine"].to_pylist()[:2] == [None, [[1.0, 0.0, 1.0], [0.0, 1.0, 0.5]]]
    assert table["frame"].to_pylist() == [None] * 10 + list(range(10, PEOPLE))
    assert table["sequence"].null_count == PEOPLE
    assert set(table["skel_gender"].to_pylist()) == {"male", "female"}


def test_the_schema_says_what_each_column_is(table: Any) -> None:
    units = {field.name: field.metadata[b"unit"].decode() for field in table.schema}
    assert {units[name] for name in DOF_NAMES} == {"rad"}
    assert (units["skel_trans"], units["scale"], units["pve_mm"], units["key"]) == ("m", "px/200", "mm", "")
    assert all(field.metadata[b"meaning"] for field in table.schema)
    about = json.loads(table.schema.metadata[b"skelfit"])
    assert [column["name"] for column in about["columns"]] == table.column_names
    assert about["subset"] == "people" and len(about["identity_sha256"]) == 64


def test_the_documentation_lists_every_column(table: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "publish.md").read_text("utf-8")
    names = set(table.column_names) - set(DOF_NAMES)
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_equal_tables_have_equal_bytes_and_rows_in_groups(run: Path, tmp_path: Path) -> None:
    from skelfit.exports.parquet_tables.parquet_files import write_parquet
    from skelfit.exports.parquet_tables.people_table import people_batches, people_schema

    finished, counts = open_run(run), list[int]()
    written = [
        write_parquet(
            lambda i, part=part: tmp_path / part / f"{i}.parquet",  # type: ignore[misc]
            people_schema(finished),
            people_batches(finished, 6),
            counts.append if part == "a" else no_step,
            lines_per_file=12,
        )
        for part in ("a", "b")
    ]
    assert counts == [6, 6, 6, 2] and written[0].lines == PEOPLE
    assert [pq.ParquetFile(path).metadata.num_row_groups for path in written[0].files] == [2, 2]
    for one, other in zip(written[0].files, written[1].files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    keys = [key for path in written[0].files for key in pq.read_table(path)["key"].to_pylist()]
    assert keys == [f"people-0-{i:08d}" for i in range(PEOPLE)]


def test_only_who_is_kept(run: Path, tmp_path: Path) -> None:
    keys = [f"people-0-{i:08d}" for i in range(PEOPLE)]
    keep = tmp_path / "keep.csv"
    write_keep(keep, [Kept(key, "people-000000", ("far",) if i % 4 else ()) for i, key in enumerate(keys)])
    out = tmp_path / "kept.parquet"
    result = CliRunner().invoke(
        main, ["export", str(run), "--format", "parquet", "--keep", str(keep), "--out", str(out)]
    )
    assert result.exit_code == 0 and f"5 people in {out}" in result.output, result.output
    assert pq.read_table(out)["key"].to_pylist() == keys[::4]


def test_what_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"people.csv: expected a file name that ends in \.parquet"):
        export("parquet", run, tmp_path / "people.csv")
    out = tmp_path / "people.parquet"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export("parquet", run, out)
    assert out.read_text() == "mine"
    export("parquet", run, out, ExportOptions(overwrite=True))
    assert pq.read_table(out).num_rows == PEOPLE
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(SkelfitError, match=r"^a Parquet table needs pyarrow: pip install 'skelfit\[hub\]'$"):
        export("parquet", run, tmp_path / "other.parquet")
