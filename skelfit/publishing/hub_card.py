"""The card of a published dataset: the dataset card, with what the Hub reads of it and a list of the columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.exports.dataset_card.card_facts import read_facts
from skelfit.exports.dataset_card.markdown import CARD_NAME, markdown_table
from skelfit.exports.dataset_card.write_card import write_card
from skelfit.exports.parquet_tables.table_columns import ANGLES, Column
from skelfit.publishing.dataset_features import card_features
from skelfit.publishing.dataset_tables import PEOPLE_TABLE, PREVIEW_TABLE, ROW_TABLE, DatasetTable
from skelfit.shards.finished_run import FinishedRun
from skelfit.storage.locations import Location

TAR_FEATURES = "tar-features.json"
_TASKS = ("keypoint-detection", "image-to-3d")
_ABOUT = {
    PEOPLE_TABLE: "one line for each person in the tars",
    ROW_TABLE: "one line for each row of the label files, also of those that are not published, and why",
    PREVIEW_TABLE: "some people with their images, for the viewer",
}


def write_hub_card(
    run: FinishedRun,
    tables: Sequence[DatasetTable],
    repository: str,
    folder: Path,
    *,
    title: str | None,
    licence: str | None,
    keep_list: str | None,
) -> tuple[Location, ...]:
    """Write the card of a run and its pictures to a folder, whose paths it returns; keep_list: its name there.

    Raises ShardError, OutputError.
    """
    # In the dataset the card lies beside the shards.
    facts = replace(read_facts(run.folder), folder=folder)
    front: dict[str, Any] = {
        "task_categories": list(_TASKS),
        "configs": [_config(table) for table in tables],
        "dataset_info": [_info(table) for table in tables],
    }
    if licence is not None:
        front["license"] = licence
    sections = {"Tables": list(_table_texts(run, tables, repository, keep_list))}
    pictures = write_card([facts], folder / CARD_NAME, title, front, sections)
    return folder / CARD_NAME, *pictures


def _config(table: DatasetTable) -> dict[str, Any]:
    """A configuration, which load_dataset and the viewer offer by name."""
    files = [{"split": "train", "path": f"{table.name}/*.parquet"}]
    default = {"default": True} if table.name == PEOPLE_TABLE else {}
    return {"config_name": table.name, **default, "data_files": files}


def _info(table: DatasetTable) -> dict[str, Any]:
    """Columns and sizes, which the Hub shows."""
    split = {"name": "train", "num_bytes": table.written.bytes, "num_examples": table.written.lines}
    return {
        "config_name": table.name,
        "features": card_features(table.columns),
        "splits": [split],
        "download_size": table.file_bytes,
        "dataset_size": table.written.bytes,
    }


def _table_texts(
    run: FinishedRun, tables: Sequence[DatasetTable], repository: str, keep_list: str | None
) -> Iterator[str]:
    lines = [[f"`{t.name}`", _ABOUT[t.name], f"{t.written.lines:,}"] for t in tables]
    yield markdown_table(("configuration", "what", "lines"), lines, left=2)
    if keep_list is not None:
        yield (
            f"The tables of people have only those that the keep-list `{keep_list}` keeps. The tars hold all: give "
            "the list to what reads them."
        )
    yield (
        "```python\nimport json\n\nfrom datasets import Features, load_dataset\n\n"
        f'people = load_dataset("{repository}", "{PEOPLE_TABLE}", split="train")\n\n'
        "# The tars, with images and keypoints:\n"
        f'features = Features.from_dict(json.load(open("{TAR_FEATURES}")))  # a file of this dataset\n'
        f'tars = "hf://datasets/{repository}/{run.subset}-*.tar"\n'
        'samples = load_dataset("webdataset", data_files=tars, features=features, split="train", streaming=True)\n```'
    )
    yield "Columns; their units and meanings are in the metadata of the Parquet files, too:"
    listed = {
        column.name: column for table in tables for column in table.columns if column.name not in DOF_NAMES
    }
    names = {name: _tables_with(tables, name) for name in listed}
    columns = [
        [f"`{c.name}`", _type_text(c), c.unit, ", ".join(names[c.name]), c.meaning] for c in listed.values()
    ]
    first, last = ANGLES[0], ANGLES[-1]
    angles = [f"`{first.name}` ... `{last.name}`", _type_text(first), first.unit]
    angles += [", ".join(_tables_with(tables, first.name)), "SKEL's 46 angles, named as listed under Format"]
    yield markdown_table(("column", "type", "unit", "in", "meaning"), [*columns, angles], left=5)


def _tables_with(tables: Sequence[DatasetTable], name: str) -> list[str]:
    return [table.name for table in tables if any(column.name == name for column in table.columns)]


def _type_text(column: Column) -> str:
    return column.kind + (f" {' x '.join(map(str, column.shape))}" if column.shape else "")
