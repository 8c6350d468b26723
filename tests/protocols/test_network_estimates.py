"""`skelfit evaluate CHECKPOINT`: the crops of label rows, the layers of a network, and rows without a crop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from evaluation_people import made_people, write_camerahmr, write_moyo
from naive_protocols import pck as naive_pck
from prediction_runs import TINY_VIT, run_predict

from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.errors import InputError
from skelfit.images.image_bytes import IDENTITY
from skelfit.labels.demo_people import LABELS_NAME, write_demo
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_crops import Square, read_crop
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.inference.intrinsics import PhotoCamera
from skelfit.learning.inference.predictor import CropInput, PredictedPeople, Predictor
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training import checkpoint
from skelfit.learning.training.training_config import TrainConfig
from skelfit.protocols import evaluation_run
from skelfit.protocols.evaluation_run import evaluate
from skelfit.protocols.network_estimates import CropRule, NetworkEstimates
from skelfit.protocols.protocol_table import PROTOCOLS
from skelfit.protocols.published_labels import read_labels

PEOPLE, STAGES = 3, ["encoder", "layer 1", "layer 2"]
PROTOCOL = "camerahmr-3dpw"


@dataclass(frozen=True)
class Made:
    """A checkpoint, and labelled images."""

    checkpoint: Path
    images: Path
    labels: Path
    network: SkelCfNetwork


@pytest.fixture(scope="module")
def made(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.manual_seed(0)
    network = SkelCfNetwork(TINY_VIT).eval()
    network.load_state_dict(  # layers that differ, as if they had learnt something
        {
            name: 3 * value if name.endswith("_decoder.2.weight") else value
            for name, value in network.state_dict().items()
        }
    )
    data = DataConfig((SubsetConfig("none.tar"),), held_out=0.5)
    config = asdict(TrainConfig("made", data=data, network=TINY_VIT))
    folder = tmp_path_factory.mktemp("evaluated")
    path = folder / "run" / checkpoint.BEST_NAME
    path.parent.mkdir()
    content = {"step": 1, "config": config, "measured": None, "training": None, "models": models.sha256}
    checkpoint.save(path, content | {"weights": network.state_dict()})
    write_demo(folder, PEOPLE, models=models)
    return Made(path, folder / "images", folder / LABELS_NAME, network)


def report_of(made: Made, models: ModelSet, **changed: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": PROTOCOL,
        "labels": made.labels,
        "images": made.images,
        "models": models,
    }
    return dict(evaluate(made.checkpoint.parent, **(options | changed)).report)


def labels_with(made: Made, path: Path, **changed: Any) -> Path:
    with np.load(made.labels) as content:
        columns = {**content, **changed}
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    return path


def test_figures_are_those_of_the_people_that_predict_writes(
    made: Made, models: ModelSet, tmp_path: Path
) -> None:
    with np.load(made.labels) as content:
        side = 200 * content["scale"] / 1.2  # predict adds a margin
        boxes = np.column_stack([content["center"] - side[:, None] / 2, side, side])
    (tmp_path / "boxes.json").write_text(
        json.dumps({f"{i:012d}.jpg": [box] for i, box in enumerate(boxes.tolist())})
    )
    out, arguments = tmp_path / "out", ("--boxes", tmp_path / "boxes.json", "--intrinsics-from", "diagonal")
    done = run_predict(made.checkpoint, made.images, "--out", out, "--meshes", "none", *arguments)
    assert done.exit_code == 0, done.output
    network = report_of(made, models, intrinsics_from="diagonal", batch_size=2)
    file = evaluate(out, protocol=PROTOCOL, labels=made.labels, models=models).report
    assert [stage["name"] for stage in network["stages"]] == STAGES
    assert network["rows"]["statuses"] == file["rows"]["statuses"] == {"ok": PEOPLE}
    last, only = network["stages"][-1], file["stages"][0]
    for measure, errors in only["errors"].items():
        assert last["errors"][measure]["mean"] == pytest.approx(errors["mean"], abs=0.05), measure
    means = [stage["errors"]["pve_mm"]["mean"] for stage in network["stages"]]
    assert len({round(mean, 2) for mean in means}) == len(STAGES)
    (out / "predict.json").unlink()
    with pytest.raises(InputError, match="'skel_gender': expected .*or predict.json beside the file"):
        evaluate(out / "people.npz", protocol=PROTOCOL, labels=made.labels, models=models)


def test_every_layer_in_the_image(made: Made, models: ModelSet, tmp_path: Path) -> None:
    """Keypoints are seen by the labels' camera: those of the last layer as labels give 1 for it, and less before."""
    with np.load(made.labels) as content:
        cameras, center, side = content["cam_int"], content["center"], 200 * content["scale"]
    crops = [
        CropInput(
            read_crop(
                (made.images / f"{i:012d}.jpg").read_bytes(), IDENTITY, square, made.network.backbone.crop
            ),
            square,
            PhotoCamera(*cameras[i, [0, 1, 0, 1], [0, 1, 2, 2]].tolist()),
        )
        for i, square in enumerate(Square(*map(float, (*center[i], side[i]))) for i in range(PEOPLE))
    ]
    layers = Predictor(made.network, models, "male", every_layer=True).estimates(crops)
    labelled = np.concatenate([layers[-1].keypoints2d, np.ones((PEOPLE, 44, 1))], 2)
    labelled[:, :7, 2] = 0.5  # not confident enough
    points = {"body_keypoints_2d": labelled[:, :25], "extra_keypoints_2d": labelled[:, 25:]}
    sizes = np.stack([side, side / 2], 1)
    labels = labels_with(made, tmp_path / "coco.npz", scale=sizes, **points)
    report = report_of(made, models, protocol="hmr2-coco", labels=labels, intrinsics_from="label")
    assert report["rows"]["statuses"] == {"ok": PEOPLE} and len(layers) == len(STAGES)
    for stage, layer in zip(report["stages"], layers, strict=True):
        for figure in stage["pck"]:
            naive = naive_pck(layer.keypoints2d.astype(float), labelled, sizes, figure["at"])
            assert figure["mean"] == pytest.approx(naive, abs=1e-9), (stage["name"], figure["at"])
    shares = [stage["pck"][0]["mean"] for stage in report["stages"]]
    assert shares[-1] == 1 and min(shares) < 1


@pytest.mark.parametrize(("rule", "cut", "told"), [((True, False), 4 / 3, 1.0), ((True, True), 4 / 3, 4 / 3)])
def test_widened_crops(
    made: Made,
    models: ModelSet,
    rule: tuple[bool, bool],
    cut: float,
    told: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The crop of a square box is 4/3 of its side; MOYO's code tells the network the box all the same."""
    seen: list[CropInput] = []
    network = Predictor(made.network, models, "male", every_layer=True)
    cameras = np.tile(np.array([[300, 0, 120], [0, 310, 130], [0, 0, 1.0]]), (PEOPLE, 1, 1))
    people = read_labels(labels_with(made, tmp_path / "l.npz", cam_int=cameras), PROTOCOLS[PROTOCOL])
    estimates = NetworkEstimates(network, people, made.images, None, CropRule(*rule), 8)
    inner = network.estimates

    def noted(crops: Sequence[CropInput]) -> list[PredictedPeople]:
        seen.extend(crops)
        return inner(crops)

    monkeypatch.setattr(network, "estimates", noted)
    estimates.of_rows(np.arange(1))
    (x, y), side = people.center[0].tolist(), float(people.size[0].max())
    data = (made.images / people.imgname[0]).read_bytes()
    expected = read_crop(data, IDENTITY, Square(x, y, cut * side), made.network.backbone.crop)
    assert seen[0].square == pytest.approx((x, y, told * side)) and np.array_equal(seen[0].pixels, expected)
    assert seen[0].camera == (300, 310, 120, 130)


@pytest.mark.parametrize(("protocol", "rule"), [("moyo", (True, False)), ("emdb", (False, False))])
def test_the_protocol_of_moyo_widens_crops(
    made: Made,
    models: ModelSet,
    tmp_path: Path,
    protocol: str,
    rule: tuple[bool, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of any network; others are as in the training, which did not widen."""
    people = made_people(PEOPLE)
    labels = (write_moyo if protocol == "moyo" else write_camerahmr)(tmp_path / "labels.npz", people)
    rules: list[CropRule] = []

    def noted(*arguments: Any) -> NetworkEstimates:
        rules.extend(each for each in arguments if isinstance(each, CropRule))
        return NetworkEstimates(*arguments)

    monkeypatch.setattr(evaluation_run, "NetworkEstimates", noted)
    report_of(made, models, protocol=protocol, labels=labels)
    assert rules == [rule]


def test_rows_without_a_crop(made: Made, models: ModelSet, tmp_path: Path) -> None:
    """Each has its own status, and the command fails, as its figures are of fewer people."""
    names = ["000000000000.jpg", "none.jpg", "damaged.jpg", "000000000001.jpg", "000000000002.jpg"]
    images = tmp_path / "images"
    images.mkdir()
    for name in (names[0], *names[3:]):
        (images / name).write_bytes((made.images / name).read_bytes())
    (images / "damaged.jpg").write_bytes(b"no image")
    chosen = [0, 0, 0, 1, 2]
    with np.load(made.labels) as content:
        columns: dict[str, Any] = {name: column[chosen] for name, column in content.items()}
    columns["imgname"] = np.array(names)
    columns["scale"][3] = 99  # 19,800 px in an image of 256
    columns["cam_int"][4] = 0
    labels = tmp_path / "labels.npz"
    np.savez(labels, **columns)
    command = ["evaluate", str(made.checkpoint), "--protocol", PROTOCOL, "--labels", str(labels)]
    command += ["--images", str(images), "--intrinsics-from", "label", "--json", str(tmp_path / "r.json")]
    done = CliRunner().invoke(main, [*command, "--rows", str(tmp_path / "rows.csv")])
    assert done.exit_code == 1, done.output
    statuses = json.loads((tmp_path / "r.json").read_text())["rows"]["statuses"]
    kinds = ("ok", "image_missing", "image_damaged", "bad_box", "no_camera")
    assert statuses == dict.fromkeys(kinds, 1)
    assert [line.split(",")[2] for line in (tmp_path / "rows.csv").read_text().splitlines()[1:]] == list(
        kinds
    )


def test_no_row_with_a_crop(made: Made, models: ModelSet, tmp_path: Path) -> None:
    report = report_of(made, models, images=tmp_path)
    assert report["rows"]["statuses"] == {"image_missing": PEOPLE}
    assert [stage["people"] for stage in report["stages"]] == [0] * len(STAGES)


def test_answers_that_are_not_finite(made: Made, models: ModelSet, tmp_path: Path) -> None:
    content = checkpoint.load(made.checkpoint)
    name = next(
        name
        for name in content["weights"]
        if name.endswith("pose_decoder.2.bias") or "poses_decoder.2.bias" in name
    )
    content["weights"][name] = torch.full_like(content["weights"][name], torch.nan)
    broken = Made(tmp_path / "run" / "broken.pt", made.images, made.labels, made.network)
    broken.checkpoint.parent.mkdir()
    checkpoint.save(broken.checkpoint, content)
    report = dict(
        evaluate(
            broken.checkpoint, protocol=PROTOCOL, labels=made.labels, images=made.images, models=models
        ).report
    )
    assert report["rows"]["statuses"] == {"not_finite": PEOPLE}


def test_images_that_are_not_a_folder(made: Made, models: ModelSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder of images, found no such folder"):
        report_of(made, models, images=tmp_path / "none")
    with pytest.raises(InputError, match="expected a folder of images, found a file"):
        report_of(made, models, images=made.labels)


def test_labels_without_cameras(made: Made, models: ModelSet, tmp_path: Path) -> None:
    labels = labels_with(made, tmp_path / "labels.npz", cam_int=None)
    with pytest.raises(InputError, match="'cam_int': expected intrinsics, for intrinsics_from 'label'"):
        report_of(made, models, labels=labels, intrinsics_from="label")
