"""Runs that are still going or were interrupted: unfinished, unless their shards are damaged."""

from __future__ import annotations

import re
from pathlib import Path

from verify_fakes import damage_kinds, damage_of, edit_json, fake_key

from skelfit.conversion.run_lock import writing

MIDDLE = "fake-000001"  # rows 8 to 15, all published


def test_an_interrupted_run_is_unfinished(folder: Path) -> None:
    """A killed run leaves shards that were not begun, and one without its marker."""
    (folder / "summary.json").unlink()
    (folder / "schema.json").unlink()
    (folder / f"{MIDDLE}.done.json").unlink()
    (fault,) = damage_of(folder)
    assert (fault.shard, fault.kind) == (None, "unfinished")
    assert re.search(r"not finished \(process \d+ on .*\): 12 of 20 rows .* convert goes on", fault.message)
    for path in folder.glob("fake-*"):
        path.unlink()
    (fault,) = damage_of(folder)
    assert fault.kind == "unfinished" and "0 of 20 rows" in fault.message
    assert "the same command goes on" in fault.message


def test_a_running_run_is_unfinished(folder: Path) -> None:
    (folder / f"{MIDDLE}.done.json").unlink()
    assert any(d.kind == "missing" for d in damage_of(folder)), "of a finished run it is"
    with writing(folder, "fake"):
        (fault,) = damage_of(folder)
    assert fault.kind == "unfinished" and "a run is writing here (process" in fault.message
    assert "12 of 20 rows" in fault.message and "verify them again when it has finished" in fault.message


def test_damage_of_an_unfinished_run_is_damage(folder: Path) -> None:
    (folder / "summary.json").unlink()
    tar = folder / f"{MIDDLE}.tar"
    data = bytearray(tar.read_bytes())
    data[1500] ^= 1
    tar.write_bytes(data)
    assert {(None, None, "unfinished"), (MIDDLE, fake_key(8), "tar")} < damage_kinds(folder)


def test_shards_of_an_unfinished_run_that_share_rows_are_damage(folder: Path) -> None:
    (folder / "summary.json").unlink()
    edit_json(folder / f"{MIDDLE}.done.json", start=7)
    assert any(d.kind == "rows" and d.shard == MIDDLE for d in damage_of(folder))
