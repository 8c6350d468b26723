"""`skelfit verify`: what it says, its exit codes, gates and keep-lists, and comparisons."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from export_fakes import SUBSET, make_fields, make_metas, write_run
from verify_fakes import edit_labels, make_consistent

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.errors import InputError
from skelfit.executors.executor import Executor
from skelfit.shards.keep_list import COLUMNS, Kept, read_keep, write_keep
from skelfit.shards.label_vector import LABEL_SIZE, pack
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_reader import read_json
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.person_measures import measure
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.report_comparison import compare_reports
from skelfit.verification.report.terminal import comparison_lines, summary_lines
from skelfit.verification.verify_shard import ShardReport, VerifyTask, verify_shard

PEOPLE = 12  # in shards of eight


def verify(*args: object) -> Result:
    here = () if "--workers" in args else ("--workers", 0)
    result = CliRunner().invoke(main, ["verify", *map(str, (*args, *here))])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def write_people(folder: Path, models: ModelSet, seed: int, models_sha256: str | None = None) -> Path:
    """Shards whose stored errors are those of their parameters; all people are about 200 mm off."""
    fields, metas = make_fields(PEOPLE, seed), make_metas(PEOPLE)
    fields["smpl_pose"] *= 0.1
    fields["skel_poses"][:, :3] = 0
    keys = tuple(meta["key"] for meta in metas)
    measured = measure(BodyModels(models), DecodedPeople("s", keys, pack(fields), tuple(metas))).accuracy
    fields["errors"] = np.stack([measured.pve_mm, measured.max_vertex_mm], 1).astype(np.float32)
    return write_run(folder, fields, metas, models_sha256=models_sha256 or models.sha256)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: ModelSet) -> Path:
    return write_people(tmp_path_factory.mktemp("made") / "shards", models, 0)


def report_of(tmp_path: Path, *args: object) -> dict[str, Any]:
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "of.json"
    verify(*args, "--json", path)
    return read_json(path)


def key(row: int) -> str:
    return f"{SUBSET}-0-{row:08d}"


def test_good_shards(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    result = verify(made, "--json", path, "--workers", 0)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines[:-2])) <= 110, "it fits a screen"  # but for our file names
    assert "whole: every byte as it was written" in result.stdout and "verdict: good" in result.stdout
    assert lines[-1] == f"next: skelfit verify {made} --html report.html --keep keep.csv"
    report = read_json(path)
    assert report["version"] == "skelfit-verify-2" and report["verdict"] == "good"
    assert report["people"] == {"whole": PEOPLE, "measured": PEOPLE}
    assert report["integrity"]["damage"] == [] and report["accuracy"]["people"] == PEOPLE
    assert report["keep"]["kept"] + report["keep"]["dropped"] == PEOPLE


def test_a_gate_on_the_mean_error(made: Path, tmp_path: Path) -> None:
    mean = report_of(tmp_path, made)["accuracy"]["pve_mm"]["mean"]
    assert verify(made, "--max-pve", mean + 0.01).exit_code == 0
    result = verify(made, "--max-pve", mean - 0.01)
    assert result.exit_code == 1 and "verdict: BELOW THE GATE" in result.stdout


def test_damage_wins_over_the_gate(folder: Path, tmp_path: Path) -> None:
    tar = folder / f"{SUBSET}-000001.tar"
    data = bytearray(tar.read_bytes())
    data[1500] ^= 1
    tar.write_bytes(data)
    result = verify(folder, "--max-pve", 0.1, "--json", tmp_path / "r.json")
    assert result.exit_code == 2 and "verdict: DAMAGED OR INCOMPLETE" in result.stdout
    damage = read_json(tmp_path / "r.json")["integrity"]["damage"]
    assert (f"{SUBSET}-000001", key(8)) in [(d["shard"], d["sample"]) for d in damage]
    assert key(8) in result.stdout
    assert verify(folder, "--sample", 0).exit_code == 2


def test_edited_parameters_with_consistent_hashes_are_detected(folder: Path) -> None:
    files = ShardFiles(folder, f"{SUBSET}-000001")
    knee = np.arange(LABEL_SIZE) == 6
    edit_labels(files.tar, lambda name, x: x + np.float32(0.05) * knee if name == key(9) else x)
    make_consistent(files)
    assert verify(folder, "--sample", 0).exit_code == 0, "no hash tells"
    result = verify(folder)
    assert result.exit_code == 2 and "1 faults: errors 1" in result.stdout
    assert f"{key(9)}: errors of" in result.stdout


def test_swapped_sides_with_consistent_hashes_are_detected(folder: Path) -> None:
    files = ShardFiles(folder, f"{SUBSET}-000000")
    order = np.arange(LABEL_SIZE)
    order[3:10], order[10:17] = np.arange(10, 17), np.arange(3, 10)
    edit_labels(files.tar, lambda name, x: x[order] if name == key(2) else x)
    make_consistent(files)
    assert f"errors: {files.tar}: {key(2)}" in verify(folder).stdout


def test_a_sample_of_the_people_is_spread_over_all_shards(made: Path, tmp_path: Path) -> None:
    report = report_of(tmp_path, made, "--sample", 5)
    assert report["people"] == {"whole": PEOPLE, "measured": 5}
    assert report["accuracy"]["people"] == 5
    assert "accuracy" not in report_of(tmp_path, made, "--sample", 0)


def test_a_report_of_worker_processes_is_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = report_of(tmp_path, made, "--workers", 0)
    monkeypatch.setattr("skelfit.verification.verify_folders.FEW", 0)
    monkeypatch.setattr("skelfit.verification.verify_folders._executor", lambda _: Executor(2))
    assert report_of(tmp_path, made) == here


def test_a_report_does_not_depend_on_the_order_of_results(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last_first(tasks: list[VerifyTask], *_: object) -> Iterator[ShardReport]:
        yield from [verify_shard(task) for task in tasks][::-1]

    here = report_of(tmp_path, made)
    monkeypatch.setattr("skelfit.verification.verify_folders.run_tasks", last_first)
    keep = tmp_path / "keep.csv"
    verify(made, "--keep", keep)
    assert [line.split(",")[0] for line in keep.read_text().splitlines()[1:]] == [
        key(i) for i in range(PEOPLE)
    ]
    assert report_of(tmp_path, made) == here


def rows_of(report: dict[str, Any], title: str) -> dict[str, dict[str, list[Any]]]:
    """The rows of a table of the comparison, by name."""
    (matching,) = [table for table in report["comparison"] if table["title"] == title]
    return {row["name"]: row for row in matching["rows"]}


def test_two_datasets_side_by_side(made: Path, tmp_path: Path, models: ModelSet) -> None:
    other = write_people(tmp_path / "other", models, 1)
    result = verify(made, "--against", other, "--json", tmp_path / "report.json")
    report, alone = read_json(tmp_path / "report.json"), report_of(tmp_path / "alone", other)
    assert report["against"] == alone
    both = (report, alone)
    lines = result.stdout.splitlines()
    (pve,) = [line for line in lines if line.startswith("  PVE ")]
    this, against, difference = (part.split()[-4] for part in pve.split("|"))
    means = [r["accuracy"]["pve_mm"]["mean"] for r in both]
    assert [this, against] == [f"{mean:.0f}" for mean in means] and this != against
    assert float(difference) == pytest.approx(means[0] - means[1], abs=0.011)
    # Every table of the report, and every row of a table.
    assert max(map(len, lines[2:])) <= 130
    dofs = [{d["dof"]: d["share"] for d in r["anatomy"]["violations"]["dofs"]} for r in both]
    expected = {
        "errors, mm": ("PVE", [list(r["accuracy"]["pve_mm"].values())[2] for r in both]),
        "joints, mm": ("lsp14", [r["accuracy"]["joints"]["lsp14"]["mpjpe_mm"]["mean"] for r in both]),
        "parts, mm": ("hand_l", [r["parts"]["mm"]["hand_l"]["mean"] for r in both]),
        "by subset": (SUBSET, [PEOPLE, PEOPLE]),
        "by subset, more": (SUBSET, [r["subsets"][SUBSET]["max_vertex_mm"]["mean"] for r in both]),
        "by bend of the label": ("0 to 10 deg", [r["extremity"]["bins"][0]["pve_mm"]["count"] for r in both]),
        "2D keypoints": ("SKEL fit", [r["reprojection"]["skel"]["px"]["mean"] for r in both]),
        "people beyond a limit": ("wrist_deviation_l", [d["wrist_deviation_l"][0] for d in dofs]),
        "knees, elbows, as HSMR": (
            "left knee, label",
            [r["anatomy"]["knees_elbows"]["joints"]["left knee"]["smpl"][0] for r in both],
        ),
        "bone vertices outside": ("all", [r["anatomy"]["bones"]["share"]["mean"] for r in both]),
    }
    for title, (name, values) in expected.items():
        row = rows_of(report, title)[name]
        assert [row["this"][0], row["against"][0]] == values, title
        if None not in values:
            assert row["difference"][0] == pytest.approx(values[0] - values[1], abs=1e-6)
            assert not any(values) or [line for line in lines if line.startswith(f"  {name} ")]
    assert set(rows_of(report, "parts, mm")) == set(report["parts"]["mm"])
    assert set(rows_of(report, "people beyond a limit")) == {"any", *DOF_NAMES[3:]}
    assert len(rows_of(report, "knees, elbows, as HSMR")) == 8


def plain(parts: Iterable[object]) -> list[str]:
    """Lines and tables as lines of text."""
    return [line for part in parts for line in str(part).splitlines()]


def test_a_dataset_beside_one_that_was_not_measured(made: Path, tmp_path: Path) -> None:
    report = report_of(tmp_path, made)
    bare = report_of(tmp_path, made, "--sample", 0)
    (row,) = [r for t in compare_reports(report, bare) if t["title"] == "errors, mm" for r in t["rows"][:1]]
    assert row["against"] == row["difference"] == [None] * 4 and None not in row["this"]
    assert [t["title"] for t in compare_reports(bare, bare)] == ["counts"]
    lines = plain(comparison_lines(report, bare, compare_reports(report, bare)))
    assert any(line.startswith("  PVE ") and line.endswith("-") for line in lines)


def test_two_folders_must_have_different_keys(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "copy")
    report = report_of(tmp_path, made, copy, "--sample", 0)
    assert [d["kind"] for d in report["integrity"]["damage"]] == ["duplicate"]
    assert report["integrity"]["people"] == 2 * PEOPLE and len(report["integrity"]["folders"]) == 2


def test_other_models_are_refused(tmp_path: Path, models: ModelSet) -> None:
    folder = write_people(tmp_path / "shards", models, 0, models_sha256="a" * 64)
    result = verify(folder)
    assert result.exit_code == 2 and f"expected the models of {folder}, {'a' * 64}" in result.output
    assert verify(folder, "--sample", 0).exit_code == 0


def test_gates_make_a_keep_list(folder: Path, tmp_path: Path, made: Path) -> None:
    edit_labels(folder / f"{SUBSET}-000000.tar", lambda name, x: x + 0.001 if name == key(1) else x)
    keep = tmp_path / "keep.csv"
    largest = stored_errors(made)
    far = int(largest.argmax())
    assert far not in (0, 1)
    values = [f"max_vertex={np.sort(largest)[-2:].mean()}", "keypoints=0"]
    result = verify(folder, "--keep", keep, *(arg for value in values for arg in ("--gate", value)))
    assert result.exit_code == 2, "one of them is damaged"
    assert f"next: skelfit export {folder} --format skel-cf --keep {keep} --out" in result.stdout
    assert f"{PEOPLE - 2} people kept, 2 dropped (" in result.stdout and "; damaged: 1)" in result.stdout
    lines = keep.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS) and len(lines) == PEOPLE + 1
    assert lines[2] == f"{key(1)},{SUBSET}-000000,0,damaged"
    assert lines[1 + far].startswith(f"{key(far)},{SUBSET}-{far // 8:06d},0,max_vertex ")
    assert [k for k, good in read_keep(keep).items() if not good] == [key(1), key(far)]


def stored_errors(folder: Path) -> np.ndarray:
    """The largest vertex errors, mm, of the sidecars."""
    rows = [json.loads(x) for path in sorted(folder.glob("*.jsonl")) for x in path.read_text().splitlines()]
    return np.array([row["max_vertex_mm"] for row in rows])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--gate", "nonsense"), "'nonsense': expected one of max_vertex, pve,"),
        (("--gate", "pve=many"), "'pve': expected a number behind '=', found many"),
        (("--all", "--sample", "3"), "--sample: expected none with all or keep"),
        (("--sample", "0", "--max-pve", "3"), "--max-pve: expected people who are measured"),
        (("--tls-ca", "ca.pem"), "--tls-ca: expected a scheduler"),
        (
            ("--scheduler", "tls://127.0.0.1:1", "--tls-ca", "ca.pem"),
            "--tls-ca: expected tls_ca and tls_cert together",
        ),
    ],
)
def test_refused_options(made: Path, args: tuple[str, ...], message: str) -> None:
    result = verify(made, *args)
    assert result.exit_code == 2 and message in result.output


def test_a_folder_without_shards(tmp_path: Path) -> None:
    result = verify(tmp_path)
    assert result.exit_code == 2 and "expected a folder of shards, found no shards" in result.output


def test_a_keep_list_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keep.csv"
    write_keep(path, [Kept("a-0-1", "a-0"), Kept("a-0-2", "a-0", ("pve 40 > 30", "betas 4 > 3"))])
    assert read_keep(path) == {"a-0-1": True, "a-0-2": False}
    good = path.read_text()
    for text, message in (
        ("", "'line 1': expected key,shard,keep,reasons, found nothing"),
        (good.replace(",0,", ",no,"), "'line 3': expected key, shard, 0 or 1, reasons"),
        (good + "a-0-1,a-0,1,\n", "'line 4': expected each key once, found a-0-1"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_keep(path)
    with pytest.raises(InputError, match="expected a readable keep-list"):
        read_keep(tmp_path / "none.csv")


def test_an_unfinished_run(folder: Path, tmp_path: Path) -> None:
    (folder / "summary.json").unlink()
    for path in folder.glob(f"{SUBSET}-000001.*"):
        path.unlink()
    result = verify(folder, "--json", tmp_path / "r.json")
    assert result.exit_code == 2 and "faults" not in result.stdout
    assert "8 of 12 rows are in finished shards; the same skelfit convert goes on" in result.stdout
    assert "verdict: UNFINISHED" in result.stdout
    report = read_json(tmp_path / "r.json")
    assert report["verdict"] == "unfinished" and report["people"] == {"whole": 8, "measured": 8}
    assert (report["integrity"]["faults"], report["integrity"]["unfinished"]) == (0, True)


def test_ctrl_c_leaves_nothing_behind(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(task: VerifyTask) -> ShardReport:
        if task.shard.endswith("1"):
            raise KeyboardInterrupt
        return verify_shard(task)

    monkeypatch.setattr("skelfit.verification.verify_folders.verify_shard", work)
    wanted = [x for name in ("json", "html", "keep") for x in (f"--{name}", tmp_path / "out" / name)]
    (tmp_path / "out").mkdir()
    result = verify(made, *wanted)
    assert result.exit_code == 130
    assert result.stderr.splitlines() == ["interrupted: nothing was changed; reports are written at the end"]
    assert not list((tmp_path / "out").iterdir())


def test_a_hundred_thousand_faults_give_a_short_output(made: Path, tmp_path: Path) -> None:
    report = report_of(tmp_path, made, "--sample", 0)
    fault = {"shard": "a-000000", "sample": None, "kind": "tar", "message": "a-000000.tar: " + 900 * "x"}
    report["integrity"] |= {
        "whole": False, "faults": 100_000, "damaged": {"tar": 100_000}, "damage": [fault] * 100_000,
    }  # fmt: skip
    lines = plain(summary_lines(report))
    assert len(lines) <= 40 and "  and 99990 more; all of them: --json FILE" in lines
    assert max(map(len, lines)) <= 400


def test_an_export_takes_kept_people_only(made: Path, tmp_path: Path) -> None:
    keep, out = tmp_path / "keep.csv", tmp_path / "out.npz"
    write_keep(keep, [Kept(key(i), SUBSET, ("pve",) if i % 2 else ()) for i in range(PEOPLE)])
    args = ["export", str(made), "--format", "skel-cf", "--out", str(out), "--keep", str(keep)]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load(out)["row"], np.arange(0, PEOPLE, 2))
    write_keep(keep, [Kept(key(i), SUBSET) for i in range(PEOPLE - 1)])
    result = CliRunner().invoke(main, [*args, "--overwrite"])
    assert result.exit_code == 2 and f"'{key(PEOPLE - 1)}': expected a line for each person" in result.output


def test_reports_replace_earlier_ones_and_no_other_file(made: Path, tmp_path: Path) -> None:
    kinds = {"--json": tmp_path / "r.json", "--html": tmp_path / "r.html", "--keep": tmp_path / "keep.csv"}
    words = [word for pair in kinds.items() for word in pair]
    assert [verify(made, *words).exit_code for _ in range(2)] == [0, 0]
    mine = tmp_path / "people.npz"
    mine.write_bytes(b"mine")
    summary = tmp_path / "summary.json"
    shutil.copyfile(made / "summary.json", summary)
    others = [*kinds.values(), mine, summary]
    before = {path: path.read_bytes() for path in others}
    for option, own in kinds.items():
        for path in set(others) - {own}:
            result = verify(made, option, path)
            assert result.exit_code == 2 and "expected a new file or an earlier" in result.stderr
    assert {path: path.read_bytes() for path in others} == before
