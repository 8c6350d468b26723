"""The registered formats: documented, and refused without the body models that they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_fakes import export, make_fields, make_metas, write_run

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import OutputError
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.formats import EXPORTERS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", EXPORTERS)
def test_a_format_is_documented(name: str) -> None:
    assert EXPORTERS[name].name == name and EXPORTERS[name].summary
    assert all(ending.startswith(".") for ending in EXPORTERS[name].endings)
    assert f"`{name}`" in (DOCS / "exports.md").read_text("utf-8")


@pytest.mark.parametrize("name", [name for name, exporter in EXPORTERS.items() if exporter.needs_models])
def test_models_are_required(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", make_fields(1), make_metas(1))
    with pytest.raises(ValueError, match="models: expected the body models of the run, found None"):
        export(name, run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_folder_of_other_files_is_overwritten(tmp_path: Path, models: ModelSet) -> None:
    run = write_run(tmp_path / "run", make_fields(1), make_metas(1), models_sha256=models.sha256)
    mine = tmp_path / "out" / "mine.obj"
    mine.parent.mkdir()
    mine.write_text("mine")
    for overwrite, message in ((False, "holds files already"), (True, "its export.json, found other files")):
        with pytest.raises(OutputError, match=message):
            export("obj", run, mine.parent, ExportOptions(models, overwrite=overwrite))
        assert list(mine.parent.iterdir()) == [mine]


@pytest.mark.parametrize("name", ["hsmr", "opensim", "obj"])
def test_no_folder_of_shards_is_written_to(tmp_path: Path, models: ModelSet, name: str) -> None:
    metas = make_metas(1)
    run = write_run(tmp_path / "run", make_fields(1), metas, models_sha256=models.sha256)
    before = sorted(run.iterdir())
    with pytest.raises(OutputError, match="run: holds the shards of a run; choose another folder"):
        export(name, run, run, ExportOptions(models, overwrite=True))
    assert sorted(run.iterdir()) == before
