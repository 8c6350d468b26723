"""Published checkpoints: files with the published names and shapes, imported, used, trained from, and refused."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    FULL,
    HEADS,
    Harmful,
    Sizes,
    Weights,
    content_of,
    foreign_classes,
    shapes_of,
    weights_of,
    without_bytes,
    write_published,
)
from click.testing import CliRunner, Result
from plain_networks import flat, part_of, plain_hsmr, plain_skel_cf, plain_vitpose
from safetensors.torch import save_file
from training_runs import SHORT_TRAINING, log_lines, run_train

from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.errors import ModelError
from skelfit.labels.demo_people import LABELS_NAME
from skelfit.learning.cameras import box_features
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.published.checkpoint_import import import_checkpoint
from skelfit.learning.training import checkpoint
from skelfit.learning.training.checkpoint import CheckpointError, load_network
from skelfit.storage.inert_object import InertObject

SIZES = Sizes()
TINY = {"backbone": "tiny", "layers": 2, "heads": HEADS, "feed_forward": SIZES.feed_forward}
NETWORK_OF = {
    "skel-cf": NetworkConfig("skel-cf", hidden=SIZES.hidden, **TINY),  # type: ignore[arg-type]
    "hsmr": NetworkConfig("hsmr", dim=SIZES.dim, **TINY),  # type: ignore[arg-type]
    "4d-humans": NetworkConfig("hsmr", dim=SIZES.dim, **TINY),  # type: ignore[arg-type]
}


def imported(kind: str, folder: Path, weights: Weights | None = None) -> tuple[Path, Weights]:
    """Our checkpoint of a file of a kind, and the weights of that file."""
    weights = write_published(kind, folder / "published.pth", weights)
    path = folder / "checkpoint.pt"
    checkpoint.save(path, import_checkpoint(folder / "published.pth").content)
    return path, weights


@pytest.mark.parametrize("kind", ["skel-cf", "hsmr"])
def test_an_imported_network_gives_the_estimates_of_the_file(
    kind: str, tmp_path: Path, batch: TrainingBatch
) -> None:
    """Against a forward pass written from the papers, on the file's own names: start, layers and camera included."""
    path, weights = imported(kind, tmp_path)
    network, config, _ = load_network(path)
    assert config.network == NETWORK_OF[kind] and config.data.widen == (kind == "hsmr")
    patches = plain_vitpose(part_of(weights, "backbone."), batch.image[..., 32:-32].double(), heads=2)
    if kind == "skel-cf":
        box = box_features(batch.cam_int, batch.center, batch.box_size).double()
        expected = plain_skel_cf(part_of(weights, "decoder."), patches, box, layers=2, heads=HEADS)
    else:
        expected = [plain_hsmr(part_of(weights, "head."), patches, layers=2, heads=HEADS)]
    prediction = network(batch.image, batch.cam_int, batch.center, batch.box_size)
    steps = [step for step in (prediction.encoder, *prediction.layers) if step is not None]
    for step, plain in zip(steps, expected, strict=True):
        assert (flat(step) - plain).abs().max() < 1e-5 * plain.abs().max()


def test_the_running_mean_counts_not_the_raw_weights(tmp_path: Path) -> None:
    path, weights = imported("skel-cf", tmp_path)
    taken = checkpoint.load(path)["weights"]
    assert all(torch.equal(taken[name], weights[name]) for name in taken)
    with foreign_classes():
        content = content_of("skel-cf", weights) | {"model": weights}
        del content["ema_model"]
        torch.save(content, tmp_path / "raw.pth")
    assert import_checkpoint(tmp_path / "raw.pth").place == "model"


@pytest.mark.parametrize(
    ("kind", "backbone"), [*((kind, "vitpose-h") for kind in NETWORK_OF), ("skel-cf", "vitpose-b")]
)
def test_files_of_full_size_are_those_of_published_networks(kind: str, backbone: str, tmp_path: Path) -> None:
    path = tmp_path / "full.pth"
    sizes = FULL if backbone == "vitpose-h" else FULL._replace(width=768, depth=12)
    write_published(kind, path, without_bytes(shapes_of(kind, sizes)))
    found = import_checkpoint(path)
    assert found.network == NetworkConfig("skel-cf" if kind == "skel-cf" else "hsmr", backbone)
    assert len(found.missing) == (6 if kind == "4d-humans" else 0)


def test_weights_of_other_precision_and_names_of_wrappers(tmp_path: Path) -> None:
    weights = weights_of("hsmr")
    halves = {f"module.model.{name}": tensor.half().contiguous() for name, tensor in weights.items()}
    save_file(halves, tmp_path / "x.safetensors")
    found = import_checkpoint(tmp_path / "x.safetensors", "hsmr")
    assert found.place == "" and found.beside == {"the body model": 4, "the discriminator": 2}
    name = "head.poses_decoder.weight"
    assert torch.equal(found.content["weights"][name], weights[name].half().float())


def without(name: str) -> Callable[[Weights], object]:
    return lambda weights: weights.pop(name)


def with_(name: str, *shape: int) -> Callable[[Weights], object]:
    return lambda weights: weights.update({name: torch.zeros(shape)})


Q = "layers.1.1.fn.to_q.weight"
MISFITS: list[tuple[str, Callable[[Weights], object], str]] = [
    (
        "skel-cf",
        without("decoder.mean_cam"),
        "expected the 85 weights of SKEL-CF with tiny, found no decoder.mean_cam",
    ),
    (
        "skel-cf",
        with_(f"decoder.transformer.{Q}", 64, 64),
        rf"found decoder.transformer.{Q} of shape \(64, 64\) in place of \(128, 64\)",
    ),
    (
        "skel-cf",
        with_("decoder.to_depth_embedding.bias", 64),
        "found besides decoder.to_depth_embedding.bias",
    ),
    ("hsmr", with_("tail.weight", 3), "expected the 75 weights of HSMR with tiny, found besides tail.weight"),
    ("hsmr", without("head.init_betas"), "found no head.init_betas"),
    ("hsmr", without("backbone.last_norm.bias"), "found no backbone.last_norm.bias"),
    ("hsmr", with_("head.poses_decoder.weight", 46, 40), r"of shape \(46, 40\) in place of \(144, 40\)"),
    (
        "4d-humans",
        without(f"smpl_head.transformer.transformer.{Q}"),
        f"found no head.transformer.transformer.{Q}",
    ),
    (
        "hsmr",
        with_("backbone.patch_embed.proj.weight", 100, 3, 16, 16),
        "'backbone': expected one of ViTPose's sizes",
    ),
    (
        "vitpose",
        without("backbone.blocks.1.norm1.bias"),
        "'blocks.1.norm1.bias': expected the weights of tiny, found none",
    ),
]


@pytest.mark.parametrize(("kind", "change", "message"), MISFITS)
def test_files_that_do_not_fit_are_refused(
    kind: str, change: Callable[[Weights], object], message: str, tmp_path: Path
) -> None:
    weights = weights_of(kind)
    change(weights)
    write_published(kind, tmp_path / "x.pth", weights)
    with pytest.raises(ModelError, match=message) as caught:
        import_checkpoint(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    weights = weights_of("hsmr")
    for i in range(6):
        del weights[f"head.transformer.transformer.layers.{i % 2}.{i % 3}.norm.weight"]
    weights["head.init_cam"] = torch.zeros(1, 4)
    weights["head.more"] = torch.zeros(1)
    write_published("hsmr", tmp_path / "x.pth", weights)
    with pytest.raises(ModelError) as caught:
        import_checkpoint(tmp_path / "x.pth")
    message = str(caught.value)
    assert (
        "norm.weight and 2 more; head.init_cam of shape (1, 4) in place of (1, 3); besides head.more"
        in message
    )


def test_files_of_no_kind_and_of_another(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"head.decpose.weight": torch.zeros(144, 1024)}}, path)
    with pytest.raises(
        ModelError, match=r"head.poses_decoder.weight \(HSMR\).*found 1 others \(head.decpose.weight"
    ):
        import_checkpoint(path)
    write_published("hsmr", path)
    with pytest.raises(ModelError, match="expected the weights of SKEL-CF, found those of HSMR"):
        import_checkpoint(path, "skel-cf")
    with pytest.raises(
        ModelError, match="expected the 153 weights of SKEL-CF with tiny, found no decoder.mean_poses"
    ):
        write_published("vitpose", path)
        import_checkpoint(path, "skel-cf")
    for content in ({"state_dict": {"a": 1}}, [torch.ones(1)], {}):
        torch.save(content, path)
        with pytest.raises(
            ModelError, match="expected a checkpoint of a published network .* found no tensors by name"
        ):
            import_checkpoint(path)
    torch.save({"format": "skelfit-train-5", "weights": {"mean": torch.ones(1)}}, path)
    with pytest.raises(ModelError, match="no tensors by name"):
        import_checkpoint(path)


def test_a_backbone_alone_needs_no_import(tmp_path: Path) -> None:
    write_published("vitpose", tmp_path / "x.pth")
    for kind in (None, "vitpose"):
        with pytest.raises(
            ModelError, match=r"expected a network, found a backbone alone.* network.backbone: tiny"
        ):
            import_checkpoint(tmp_path / "x.pth", kind)


def test_nothing_in_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = weights_of("hsmr")
    content: dict[str, Any] = {"state_dict": {**weights, "tail": Harmful()}, "hyper_parameters": Harmful()}
    torch.save(content, tmp_path / "x.ckpt", pickle_module=pickle)
    assert "harm" not in os.listdir()
    taken = import_checkpoint(tmp_path / "x.ckpt").content["weights"]
    assert os.listdir() == ["x.ckpt"] and not any(isinstance(value, InertObject) for value in taken.values())
    content["state_dict"]["head.init_cam"] = Harmful()
    torch.save(content, tmp_path / "x.ckpt", pickle_module=pickle)
    with pytest.raises(ModelError, match="found no head.init_cam"):
        import_checkpoint(tmp_path / "x.ckpt")
    assert os.listdir() == ["x.ckpt"]


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = weights_of("hsmr")
    weights["head.init_cam"][0, 1] = float("nan")
    write_published("hsmr", tmp_path / "x.pth", weights)
    with pytest.raises(ModelError, match="'head.init_cam': expected finite numbers, found others"):
        import_checkpoint(tmp_path / "x.pth")


def test_files_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    write_published("hsmr", tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    for end in (0, 1000, len(whole) // 2, len(whole) - 100):
        (tmp_path / "x.pth").write_bytes(whole[:end])
        with pytest.raises(ModelError, match=r"x\.pth: expected a checkpoint of a published network"):
            import_checkpoint(tmp_path / "x.pth")


def run_import(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", "import", *map(str, arguments)], catch_exceptions=False)


def test_the_command_says_what_it_took_and_left(tmp_path: Path) -> None:
    write_published("skel-cf", tmp_path / "x.pth")
    out = tmp_path / "new folder" / "checkpoint.pt"
    result = run_import(tmp_path / "x.pth", "--out", out)
    assert result.exit_code == 0, result.output
    for line in (
        f"SKEL-CF: 85 weights of {tmp_path}/x.pth (its ema_model)",
        "  left: the network of the camera (3 tensors)",
        "  left: the body model (4 tensors)",
        f"checkpoint: {out}",
        f"next: skelfit predict '{out}' IMAGE... --out predictions",
    ):
        assert f"{line}\n" in result.output
    again = run_import(tmp_path / "x.pth", "--out", out)
    assert again.exit_code == 2 and "exists already" in again.output
    assert run_import(tmp_path / "x.pth", "--out", out, "--overwrite").exit_code == 0
    wrong = run_import(tmp_path / "x.pth", "--out", out, "--overwrite", "--kind", "hsmr")
    assert wrong.exit_code == 2 and "expected the weights of HSMR, found those of SKEL-CF" in wrong.output


def test_predict_and_evaluate_take_an_imported_network(tmp_path: Path, photos: Path) -> None:
    path, _ = imported("hsmr", tmp_path)
    predicting = [
        *("predict", path, photos, "--out", tmp_path / "out"),
        *("--meshes", "none", "--overlays", "none"),
    ]
    measuring = ["evaluate", path, "--protocol", "camerahmr-3dpw", "--labels", photos.parent / LABELS_NAME]
    for words, line in (
        (predicting, "2 photos in, 2 people out"),
        ([*measuring, "--images", photos], "camerahmr-3dpw, mm, 2 people"),
    ):
        result = CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False)
        assert result.exit_code == 0 and line in result.output, result.output
        assert "models: not those of the training (" in result.output


def short(folder: Path, network: str, start: Path) -> Path:
    """A training of one step, with a start."""
    lines = [line for line in SHORT_TRAINING.splitlines() if not line.startswith("network:")]
    text = "\n".join(lines).replace("steps: 10, learning_rate: 1e-3", "steps: 1, learning_rate: 0")
    path = folder / "short.yaml"
    losses = "losses: {refinement: 0}\n" if "hsmr" in network else ""
    path.write_text(f"{text}\n{losses}network: {{{network}, checkpoint: {start}}}\n")
    return path


HSMR = "kind: hsmr, backbone: tiny, layers: 2, heads: 2, feed_forward: 48, dim: 40"


def test_a_training_starts_with_all_that_was_imported(tmp_path: Path, shards: Path) -> None:
    path, weights = imported("hsmr", tmp_path)
    result = run_train(short(tmp_path, HSMR, path), "--shards", shards, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    network = load_network(tmp_path / "out").network
    for name, tensor in network.state_dict().items():  # the learning rate is 0
        assert torch.equal(tensor, weights[name]), name
    assert len([line for line in log_lines(tmp_path / "out") if "loss" in line]) == 1


def test_the_start_of_4d_humans(tmp_path: Path, shards: Path) -> None:
    """Its backbone, decoder and camera; SKEL's heads are new, and the mean is that of the labels."""
    path, weights = imported("4d-humans", tmp_path)
    with pytest.raises(CheckpointError, match=r"found the start of a training: no head.init_poses"):
        load_network(path)
    result = run_train(short(tmp_path, HSMR, path), "--shards", shards, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    network = load_network(tmp_path / "out").network
    for name, tensor in network.state_dict().items():
        theirs = name.replace("head.cam_decoder", "smpl_head.deccam").replace("head.", "smpl_head.", 1)
        if "poses" in name or "betas" in name:
            assert tensor.abs().max() > 0, name
        else:
            theirs = name.replace("head.cam_decoder.", "smpl_head.deccam.").replace("head.t", "smpl_head.t")
            assert torch.equal(tensor, weights[theirs.replace("head.init", "smpl_head.init")]), name
    assert network.start.pose[0, 0].abs().max() == 1  # upright, facing the camera


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (HSMR.replace("dim: 40", "dim: 48"), "dim: 40 against 48"),
        (
            "kind: skel-cf, backbone: tiny, layers: 2, heads: 2, feed_forward: 48",
            'kind: "hsmr" against "skel-cf"',
        ),
    ],
)
def test_a_start_of_another_network_is_refused(
    network: str, named: str, tmp_path: Path, shards: Path
) -> None:
    path, _ = imported("hsmr", tmp_path)
    result = run_train(short(tmp_path, network, path), "--shards", shards, "--out", tmp_path / "out")
    assert result.exit_code == 2 and named in result.output and str(path) in result.output


def test_a_training_starts_from_another_training(
    tmp_path: Path, whole: Path, config_file: Path, shards: Path
) -> None:
    """Fine-tuning: weights and start are those of the other's best or last."""
    text = config_file.read_text().replace("random: true", f"checkpoint: {whole}/best.pt")
    (tmp_path / "fine.yaml").write_text(
        text.replace("steps: 10, learning_rate: 1e-3", "steps: 1, learning_rate: 0")
    )
    result = run_train(tmp_path / "fine.yaml", "--shards", shards, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    before, after = load_network(whole).network, load_network(tmp_path / "out").network
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name]), name


def test_body_models_that_do_not_fit_are_told(tmp_path: Path, models: ModelSet) -> None:
    trained = load_network(imported("hsmr", tmp_path)[0])
    assert trained.unlike(models) == (
        "models: not those of the training (SKEL v1.1.1): betas and keypoints are of other bodies"
    )
    official = replace(models, source="models")  # whose sha256 is not known
    assert trained.unlike(official) is None
    ours = trained._replace(models=models.sha256)
    assert ours.unlike(models) is None and ours.unlike(official) is None
    assert "sha256 0123)" in str(ours._replace(models="0123").unlike(official))


def test_the_first_word_decides_what_is_run(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONFIG is never taken for a command, nor a command for CONFIG; a file of that name has a path."""
    monkeypatch.chdir(tmp_path)
    assert "import  Make a checkpoint of FILE" in run_train("--help").output
    assert "train import [OPTIONS] FILE" in run_import("--help").output
    nothing = run_train()
    assert nothing.exit_code == 2 and "Missing option '--out'" in nothing.output
    extra = run_train("train-tiny", "import", "--out", "out")
    assert extra.exit_code == 2 and "unexpected extra argument (import)" in extra.output
    for words in (["./import"], ["--config", "import"], ["--steps", 1, "import"]):
        result = run_train(*words, "--shards", shards, "--out", "out")
        assert result.exit_code == 2 and "import: expected a training" in result.output, result.output
