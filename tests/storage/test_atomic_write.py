"""Whether a file can be written is known before the work whose result it is to hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from skelfit.errors import OutputError
from skelfit.storage.atomic_write import check_writable


def test_places_where_a_file_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("{}")
    for path in (tmp_path / "new.json", tmp_path / "there.json", tmp_path / "no" / "folder" / "yet.json"):
        check_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


def test_places_where_no_file_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path, fault in (
        (tmp_path, "it is a folder"),
        (tmp_path / "pipe", "it is a named pipe"),
        (tmp_path / "file" / "report.json", "file is no folder"),
        (tmp_path / "file" / "more" / "report.json", "file is no folder"),
    ):
        with pytest.raises(OutputError, match=rf"{path.name}: cannot be written: .*{fault}"):
            check_writable(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # to root, no folder is closed
    with pytest.raises(OutputError, match="no permission to write in"):
        check_writable(tmp_path / "report.json")
