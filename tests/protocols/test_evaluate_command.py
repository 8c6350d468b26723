"""`skelfit evaluate`: what it says and writes, what becomes of rows, and options that are refused."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from evaluation_people import (
    MadePeople,
    made_people,
    write_camerahmr,
    write_hmr2,
    write_moyo,
    write_skel,
    write_smpl,
)

from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.errors import ArgumentError, InputError, ModelError
from skelfit.protocols.evaluation_files import COLUMNS
from skelfit.protocols.evaluation_run import evaluate
from skelfit.verification.report_files import report_files

COUNT = 6


@pytest.fixture(scope="module")
def people() -> MadePeople:
    return made_people(COUNT)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory, people: MadePeople) -> Path:
    """Of five good rows and one that cannot be used."""
    pose = people.pose.reshape(COUNT, 72).copy()
    pose[5] = np.nan
    return write_camerahmr(tmp_path_factory.mktemp("labels") / "3dpw_test.npz", people, pose_cam=pose)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def test_bodies_that_no_number_holds_have_a_status(tmp_path: Path, people: MadePeople) -> None:
    """A label and a prediction with finite numbers, whose bodies reach beyond all measure."""
    betas, of_labels = people.skel_betas.copy(), people.betas.copy()
    betas[1], of_labels[2] = 1e30, 1e30
    labels = write_camerahmr(tmp_path / "labels.npz", people, shape=of_labels)
    predictions = write_skel(tmp_path / "p.npz", people, skel_betas=betas)
    report = evaluate(predictions, protocol="camerahmr-3dpw", labels=labels).report
    assert report["rows"]["statuses"] == {"ok": COUNT - 2, "not_finite": 1, "bad_label": 1}
    assert report["stages"][-1]["people"] == COUNT - 2


@pytest.mark.parametrize("option", ["--json", "--html", "--rows"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    labels = tmp_path / "none.npz"  # which nothing looks for
    done = run(labels, "--protocol", "emdb", "--labels", labels, option, tmp_path / "file" / "report")
    assert done.exit_code == 2 and "report: cannot be written: " in done.output


def test_two_reports_are_two_files(tmp_path: Path, labels: Path) -> None:
    both = ("--json", tmp_path / "report", "--html", tmp_path / "report")
    done = run(labels, "--protocol", "camerahmr-3dpw", "--labels", labels, *both)
    assert done.exit_code == 2 and "--html: expected another file than json" in done.output
    with pytest.raises(ArgumentError, match="keep: expected another file than html"):
        report_files(None, tmp_path / "report", tmp_path / "report")


def test_every_row_has_a_status(tmp_path: Path, people: MadePeople, labels: Path) -> None:
    """Rows without a prediction, or with a bad one, are no people of the figures, and the exit code says so."""
    poses, photo = people.skel_poses.copy(), [f"x/{name}" for name in people.imgname]
    poses[1, 7], photo[2] = np.inf, "x/elsewhere.jpg"
    predictions = write_skel(tmp_path / "people.npz", people, skel_poses=poses, photo=np.array(photo))
    files = {name: tmp_path / f"report.{name}" for name in ("json", "html")}
    done = run(
        tmp_path,  # the folder of a prediction
        *("--protocol", "camerahmr-3dpw", "--labels", labels, "--rows", tmp_path / "rows.csv"),
        *("--json", files["json"], "--html", files["html"]),
    )
    assert done.exit_code == 1, done.output
    report = json.loads(files["json"].read_text())
    statuses = {"ok": 3, "bad_prediction": 1, "no_prediction": 1, "bad_label": 1}
    assert report["rows"]["statuses"] == statuses and report["rows"]["total"] == COUNT
    lines = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert tuple(lines[0]) == COLUMNS
    assert [line["status"] for line in lines] == [
        "ok",
        "bad_prediction",
        "no_prediction",
        "ok",
        "ok",
        "bad_label",
    ]
    assert lines[5]["reason"] == "non_finite:pose_cam" and lines[2]["pve_mm"] == ""
    mean = np.mean([float(lines[i]["mpjpe_mm"]) for i in (0, 3, 4)])
    assert report["stages"][0]["errors"]["mpjpe_mm"]["mean"] == pytest.approx(mean, abs=1e-3)
    assert "camerahmr-3dpw, mm, 3 people" in done.output and f"{mean:.2f}" in done.output
    assert {person["row"] for person in report["worst"]} == {0, 3, 4}
    page = files["html"].read_text()
    assert "<title>skelfit evaluate: camerahmr-3dpw</title>" in page and "class EvaluationGallery" in page
    drawn = json.loads(re.search(r'id="people">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert {p["row"] for p in drawn["people"]} == {0, 3, 4} and "target" in drawn["people"][0]
    again = run(predictions, "--protocol", "emdb", "--labels", labels, "--json", files["json"], "--quiet")
    assert (
        again.exit_code == 1 and again.output.startswith("emdb: MPJPE ") and "(3 of 6 rows)" in again.output
    )


def test_the_remark_of_a_protocol_is_said(tmp_path: Path, people: MadePeople, labels: Path) -> None:
    predictions = write_skel(tmp_path / "p.npz", people)
    done = run(predictions, "--protocol", "spec", "--labels", labels)
    assert done.exit_code == 0 and "left hip and the left knee, as published" in done.output
    assert "0.00%" in done.output and "spec, people beyond the range" in done.output


def test_nothing_that_matches(tmp_path: Path, people: MadePeople, labels: Path) -> None:
    photo = np.array([f"other/{i}.png" for i in range(COUNT)])
    predictions = write_skel(tmp_path / "p.npz", people, photo=photo)
    done = run(predictions, "--protocol", "emdb", "--labels", labels, "--html", tmp_path / "page.html")
    assert done.exit_code == 1 and "no figures, as no row has a prediction" in done.output
    assert "no_prediction: no prediction of this image (5)" in done.output
    assert (tmp_path / "page.html").is_file()


def refused(changed: dict[str, Any], error: type[Exception], message: str, base: dict[str, Any]) -> None:
    with pytest.raises(error, match=message):
        evaluate(**(base | changed))


def test_options_that_do_not_apply(
    tmp_path: Path, models: ModelSet, people: MadePeople, labels: Path
) -> None:
    skel = write_skel(tmp_path / "p.npz", people)
    smpl = write_smpl(tmp_path / "s.npz", people)
    base = {"predictions": skel, "protocol": "emdb", "labels": labels, "models": models}
    other = tmp_path / "other.json"
    other.write_text("{}")
    for changed, error, message in (
        ({"protocol": "coco"}, ArgumentError, "protocol: expected camerahmr-3dpw or .* found 'coco'"),
        ({"images": tmp_path}, ArgumentError, "images: expected a checkpoint, for images, found predictions"),
        ({"batch_size": 2}, ArgumentError, "batch_size: expected a checkpoint"),
        ({"pipeline": "hmr-skel"}, ArgumentError, "pipeline: expected SMPL predictions, .* found SKEL's"),
        (
            {"predictions": smpl, "intrinsics_from": "exif"},
            ArgumentError,
            "intrinsics_from: expected a checkpoint",
        ),
        (
            {"predictions": tmp_path / "best.pt"},
            ArgumentError,
            "images: expected the folder of the labels' images",
        ),
        (
            {"predictions": tmp_path / "best.pt", "skel_gender": "male"},
            ArgumentError,
            "skel_gender: expected SMPL",
        ),
        ({"limit": 0}, ArgumentError, "limit: expected a whole number, 1 or more"),
    ):
        refused(changed, error, message, base)
    done = run(skel, "--protocol", "emdb", "--labels", labels, "--json", other)
    assert done.exit_code == 2 and "earlier report (JSON) of evaluate, found another file" in done.output


def test_models_without_what_a_protocol_needs(
    tmp_path: Path, models: ModelSet, people: MadePeople, labels: Path
) -> None:
    base = {"predictions": write_skel(tmp_path / "p.npz", people), "labels": labels}
    bare = replace(models, joint_regressors={}, keypoints44=None, source="bare", sha256="1")
    male = replace(bare, smpl={"male": models.smpl["male"]}, sha256="2")
    nothing = np.zeros((COUNT, 44, 3))
    moyo, flat = (
        write_moyo(tmp_path / "m.npz", people),
        write_hmr2(tmp_path / "h.npz", people, nothing, nothing),
    )
    for changed, message in (
        ({"protocol": "spec", "models": bare}, "joints_h36m17.npz': .*import --joints J_regressor_h36m.npy"),
        (
            {"protocol": "hmr2-coco", "labels": flat, "models": bare},
            "keypoints44.npz': .*--keypoints SMPL_to_J19",
        ),
        ({"protocol": "emdb", "models": male}, "smpl_neutral.npz"),
        ({"protocol": "moyo", "labels": moyo, "models": male}, "smpl_neutral.npz"),
    ):
        refused(changed, ModelError, message, base)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"skel_gender": None},
            "'skel_gender': expected male or female, once or for each person; or predict.json .*, found no such key",
        ),
        ({"skel_gender": np.array("neutral")}, "'skel_gender': expected male or female"),
        ({"row": np.array([0, 1, np.nan, 3, 4, 5])}, "'row': expected whole numbers, found nan"),
        ({"row": np.array([0, 1, 2.5, 3, 4, 5])}, "'row': expected whole numbers, found 2.5"),
        ({"skel_betas": np.zeros((COUNT, 4))}, "'skel_betas': expected numbers of shape"),
        (
            {"photo": None},
            "'imgname': expected imgname or photo, by which people are found in the labels, or row",
        ),
        (
            {"skel_poses": None},
            "expected predictions: SKEL's skel_poses, or SMPL's pose and betas, found the keys",
        ),
        ({"cam_int": None}, "'cam_int': expected skel_trans and cam_int, for lsp, found not both"),
    ],
)
def test_predictions_that_are_refused(
    tmp_path: Path, models: ModelSet, people: MadePeople, changed: dict[str, Any], message: str
) -> None:
    nothing = np.zeros((COUNT, 44, 3))
    flat = write_hmr2(tmp_path / "h.npz", people, nothing, nothing)
    predictions = write_skel(tmp_path / "p.npz", people, **changed)
    with pytest.raises(InputError, match=message):
        evaluate(predictions, protocol="lsp", labels=flat, models=models)
