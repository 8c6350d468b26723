"""Finished runs of made-up walks whose feet are planted, converted by the command."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from click.testing import CliRunner
from export_fakes import write_run

from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.cli import main
from skelfit.exports.exported_bodies import GROUND_AXES
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_samples
from tools.studies.planted_feet import PlantedBody, PlantedMotion, planted_walk

RATE, SECONDS = 30.0, 1.8


@cache
def walk_of(up: Literal["y", "z"]) -> PlantedMotion:
    return planted_walk(PlantedBody(open_models()), SECONDS, RATE, up)


def converted_walk(folder: Path, up: Literal["y", "z"]) -> Path:
    """The shards of a walk in AMASS's keys, in a world with this axis up."""
    motion = walk_of(up).motion
    labels, shards = folder / "labels", folder / "shards"
    labels.mkdir(parents=True)
    content = {"poses": motion.pose.reshape(-1, 72), "betas": motion.betas[0], "trans": motion.transl}
    np.savez(labels / "walk.npz", **content, gender="neutral", mocap_framerate=RATE)
    words = ["convert", "--labels", str(labels), "--source", "amass", "--out", str(shards), "--workers", "0"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return shards


def before_a_camera(walk: Path, folder: Path, models: ModelSet) -> Path:
    """The same fits as those of a walk with y up, as if seen by a level camera: x right, y down, z forward."""
    samples = [sample for tar in sorted(walk.glob("*.tar")) for sample in read_samples(tar)]
    fields = unpack(np.array([label for _, label, _ in samples]))
    metas: list[dict[str, Any]] = [dict(meta) for _, _, meta in samples]
    assert np.allclose(GROUND_AXES["camera"] @ [0, -1, 0], [0, 1, 0])
    for meta in metas:
        meta |= {"coordinates": "camera", "subset": "people", "label_file": "people.npz"}
        meta["key"] = f"people-0-{meta['row']:08d}"
    return write_run(folder, fields, metas, models_sha256=models.sha256, shard_size=len(metas))
