"""The dataset card: its numbers are those of the shards, its front matter and links hold, its pictures are pictures."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from export_fakes import make_fields, make_metas, write_run
from job_fakes import FakeFitter, make_run
from PIL import Image

from skelfit.api.run_shards import convert_run
from skelfit.bodies.dofs import NUM_DOFS
from skelfit.cli import main
from skelfit.conversion.batch_fit import convert_batch
from skelfit.exports.dataset_card.card_facts import read_facts
from skelfit.exports.dataset_card.card_pictures import angle_panels
from skelfit.shards.finished_run import open_run
from skelfit.shards.shard_files import ShardError

ORIGINS = (
    {"of": "labels", "name": "Some | Labels", "url": "https://a.example", "license": "CC BY 4.0", "citation": "A"},
    {"of": "images", "name": "Pictures", "url": "", "license": "", "citation": ""},
)  # fmt: skip


def card(*args: object) -> str:
    result = CliRunner().invoke(main, ["card", *map(str, args)])
    assert result.exit_code == 0, result.output
    return result.output


def sections(text: str) -> dict[str, str]:
    """The text under each heading."""
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text: str, column: str) -> dict[str, list[str]]:
    """The table with this column: its rows by their first cell, the header under ''."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = next(i for i, line in enumerate(lines) if column in line)
    rows_by_name = {"": [cell.strip() for cell in lines[first].strip("|").split(" | ")]}
    for line in lines[first + 2 :]:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) != len(rows_by_name[""]):
            break
        rows_by_name.setdefault(cells[0], cells)
    return rows_by_name


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    fields = make_fields(20)
    metas = make_metas(20, keypoints3d=["skel"] * 5 + ["labels"] * 15)
    one = write_run(tmp_path / "data" / "one", fields, metas, subset="one", origins=ORIGINS)
    frames = make_metas(6, sequence=["a"] * 4 + ["b"] * 2, frame=[0, 1, 2, 3, 0, 1])
    two = write_run(tmp_path / "data" / "two", make_fields(6, seed=1), frames, subset="two")
    return [one, two]


def test_one_card_of_several_runs(tmp_path: Path, folders: list[Path]) -> None:
    out = tmp_path / "data" / "README.md"
    output = card(*folders, "--out", out, "--title", "My people")
    assert "card of 26 people" in output and "no origin and no licence is named for two" in output
    text = out.read_text()
    _, front, body = text.split("---\n", 2)
    front_matter = yaml.safe_load(front)
    assert front_matter["pretty_name"] == "My people" and front_matter["size_categories"] == ["n<1K"]
    for config, count in zip(front_matter["configs"], (3, 1), strict=True):
        assert len(list(out.parent.glob(config["data_files"][0]["path"]))) == count
    for picture in re.findall(r"!\[.+\]\((.+)\)", body):
        with Image.open(out.parent / picture) as image:
            assert image.format == "PNG" and image.width > 1000
    parts = sections(body)
    pve = make_fields(20)["errors"][:, 0].astype(float)
    line = table(body, "with image")["one"]
    assert line[1:4] == ["20", "20", "100.0 %"]
    np.testing.assert_allclose(
        [float(cell) for cell in line[4:7]],
        [pve.mean(), np.quantile(pve, 0.5), np.quantile(pve, 0.95)],
        atol=0.006,
    )
    sources = table(parts["Sources and licences"], "licence")
    assert sources["one"][1:] == ["labels", "[Some \\| Labels](https://a.example)", "CC BY 4.0"]
    assert "Pictures | not stated |" in parts["Sources and licences"]
    assert "The manifest of two names no origin" in parts["Sources and licences"]
    assert "19.2 % regressed from the fitted skin" in parts["Format"]
    assert "in coordinates 100.0 % `camera`" in parts["Format"]
    assert "The 46 angles of all people" in parts["Joint angles"]
    assert "Rows in time: those of two are frames of 2 sequence(s)." in parts["What became of the rows"]
    assert "- A\n" in parts["Citation"]
    # What it says of the layout is the layout.
    assert table(parts["Format"], "offset")["`errors`"][1] == "465"


# webdataset leaves the tars that it read for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_code_in_the_card_reads_the_shards(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "README.md" in card(folders[0])
    code = re.search(r"```python\n(.+?)```", (folders[0] / "README.md").read_text(), re.S)
    assert code
    monkeypatch.chdir(folders[0])
    names: dict[str, Any] = {}
    exec(code[1].replace('decode("pil")', 'decode("pil").slice(3)'), names)
    np.testing.assert_array_equal(names["poses"], make_fields(20)["skel_poses"][2])


def test_a_card_is_replaced_only_with_overwrite(folders: list[Path]) -> None:
    card(folders[0])
    files = [folders[0] / "README.md", *(folders[0] / "card").iterdir()]
    before = [path.read_bytes() for path in files]
    result = CliRunner().invoke(main, ["card", str(folders[0])])
    assert result.exit_code == 2 and "exists already" in result.output
    card(folders[0], "--overwrite")
    assert [path.read_bytes() for path in files] == before
    result = CliRunner().invoke(main, ["card", *map(str, folders)])
    assert result.exit_code == 2 and "say with --out" in result.output


def test_angles_of_large_subsets_are_sampled_from_whole_shards(folders: list[Path]) -> None:
    assert len(read_facts(folders[0]).poses) == 20
    sampled = read_facts(folders[0], angle_people=10)
    assert len(sampled.poses) == 12 and sampled.rows.rows_out == 20  # the first and the last shard
    np.testing.assert_array_equal(sampled.poses[-1], make_fields(20)["skel_poses"][19])


def test_rows_that_are_not_published_are_counted_and_nothing_more(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    convert_run(run, work=partial(convert_batch, fitter=FakeFitter()))
    facts = read_facts(Path(run.out))
    assert facts.rows.rows_in == 20 and facts.rows.rows_out == sum(facts.largest.values()) == 17
    assert facts.metadata_counts == {"keypoints3d": {"skel": 17}, "coordinates": {"camera": 17}}
    card(run.out)
    rows = sections((Path(run.out) / "README.md").read_text())["What became of the rows"]
    header, line = (table(rows, "bad_input")[key] for key in ("", "fake"))
    counts = dict(zip(header, line, strict=True))
    assert (counts["`bad_input`"], counts["`not_converged`"], counts["`residual_above_gate`"]) == (
        "1",
        "1",
        "1",
    )
    assert "| fake | `residual_above_gate: pve_mm` | 1 |" in rows and "No filter was on" in rows


def test_every_angle_has_a_panel() -> None:
    panels = angle_panels()
    assert sorted(dof for _, dofs in panels for dof in dofs) == list(range(NUM_DOFS))
    assert dict(panels)["shoulder x"] == (29, 39) and dict(panels)["knee angle"] == (6, 13)


def test_shards_of_another_version_are_refused(tmp_path: Path) -> None:
    metas = [{k: v for k, v in meta.items() if k != "coordinates"} for meta in make_metas(2)]
    older = write_run(tmp_path / "older", make_fields(2), metas)
    with pytest.raises(
        ShardError, match="'coordinates': expected a value, as rows and metadata of this version"
    ):
        read_facts(older)
    with pytest.raises(
        ShardError, match="people-0-00000000: coordinates': expected a value, as shards of this"
    ):
        list(open_run(older).people())


def test_damaged_shards_are_refused(folders: list[Path], tmp_path: Path) -> None:
    (folders[0] / "one-000001.tar").unlink()
    with pytest.raises(ShardError, match="one-000001.tar"):
        read_facts(folders[0])
    shutil.rmtree(folders[1])
    with pytest.raises(ShardError, match=r"summary\.json"):
        read_facts(folders[1])
