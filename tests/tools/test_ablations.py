"""The ablations: that each variant is the configuration that it names, and learns from the same detector."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from train_shards import write_people

import tools.studies.__main__
from skelfit.bodies.model_set import ModelSet
from skelfit.config.identity import difference
from skelfit.errors import SkelfitError
from skelfit.learning.networks.network import Network
from skelfit.learning.training import training_loop
from skelfit.learning.training.training_config import TrainConfig
from skelfit.learning.training.training_stages import TrainingStage
from tools.studies import ablations, tiny_training
from tools.studies.__main__ import study_command
from tools.studies.ablations import VARIANTS, _base, varied

SHORT = ("as configured", "looped decoder", "no refinement", "HSMR's network and losses")


def test_each_variant_is_what_its_name_says() -> None:
    """One change each, but for HSMR; all are configurations that `skelfit train` takes."""
    base = _base("nowhere")
    changed = {
        name: difference(asdict(base), asdict(varied(base, changes))) for name, changes in VARIANTS.items()
    }
    assert changed.pop("as configured") == []
    assert len(changed.pop("HSMR's network and losses")) == 4
    assert {len(lines) for lines in changed.values()} == {1}
    assert changed["no camera"] == ["network.camera: true against false"]
    assert len({str(lines) for lines in changed.values()}) == len(changed)


@pytest.mark.soak
def test_the_study(tmp_path: Path, models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_people(tmp_path / "shards", 24)
    monkeypatch.setattr(tools.studies.__main__, "find_models", lambda _: models)
    monkeypatch.setattr(ablations, "VARIANTS", {name: VARIANTS[name] for name in SHORT})
    monkeypatch.setattr(ablations, "_LENGTHS", {"keypoints": 1, "coarse": 1, "optimizer": 2})
    monkeypatch.setattr(ablations, "_HELD_OUT", 0.2)
    monkeypatch.setattr(training_loop, "MEAN_OF", 100)

    def few(shards: str) -> TrainConfig:
        base = _base(shards)
        return replace(base, data=replace(base.data, shuffle=8, batch_size=4))

    monkeypatch.setattr(ablations, "_base", few)
    eyes: list[torch.Tensor] = []
    learn = tiny_training.learn

    def spied(stage: TrainingStage, network: Network) -> dict[str, torch.Tensor]:
        learnt = learn(stage, network)
        eyes.append(learnt["backbone.eye.heatmaps.weight"].clone())
        return learnt

    monkeypatch.setattr(tiny_training, "learn", spied)
    arguments = ["ablations", "--shards", str(shards), "--device", "cpu", "--json", str(tmp_path / "a.json")]
    result = CliRunner().invoke(study_command, arguments)
    assert result.exit_code == 0, result.output
    records = {r["variant"]: r for r in json.loads((tmp_path / "a.json").read_text())["records"]}
    assert tuple(records) == SHORT and len(eyes) == 1 + 2 * len(SHORT)
    assert all(torch.equal(eye, eyes[0]) for eye in eyes), "the detector learns once"
    assert len({r["pa_mpjpe_mm"] for r in records.values()}) == len(SHORT)
    assert records["looped decoder"]["weights"] < records["as configured"]["weights"]
    assert "looped decoder" in result.output and "made-up people held out" in result.output
    for option in ("--shards", "--trained"):
        refused = CliRunner().invoke(study_command, ["limits", option, str(shards)])
        assert refused.exit_code == 2 and "trains nothing" in refused.output
    with pytest.raises(SkelfitError, match="--trained: expected a training of train-tiny"):
        tiny_training.detector_of({"decoder.weight": torch.zeros(1)})
