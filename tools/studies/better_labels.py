"""Labels that get better while the tiny network learns from bad ones, beside the same training without.

The poses of all labels are off by the same angles, drawn once, as those of a biased fit may be; betas are 0, and the 3D
keypoints are those of the bad bodies. The 2D keypoints stay true. Errors are those against the true labels of people
that the network does not learn from. Detector and first estimate are the same for all variants.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skelfit.api.refine_arrays import label_refiner
from skelfit.benchmark.text_table import table
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.bodies.skins import SkelSkins
from skelfit.errors import SkelfitError
from skelfit.learning.data.better_labels import BetterLabelsConfig
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.evaluation.validation import validate
from skelfit.learning.networks.network import Network
from skelfit.learning.networks.network_registry import make_network
from skelfit.learning.training.training_config import (
    TrainConfig,
    ValidationConfig,
    load_train_config,
)
from skelfit.learning.training.training_loop import set_mean, validation_people
from skelfit.learning.training.training_stages import TrainingStages
from skelfit.resources.catalog import TRAININGS
from skelfit.shards.label_vector import FloatArray, pack, unpack
from skelfit.storage.atomic_write import atomic_write
from tools.studies import tiny_training
from tools.studies.setup import Setup, Study

_LENGTHS = {"keypoints": 400, "coarse": 300, "optimizer": 400}  # steps of each stage
_EVERY = 50  # steps between two refinements
_MEASURE = 100  # steps between two validations
_OFF = 0.3  # rad, the deviation of the angles that all poses are off by
_LAST = 3200  # samples that are refined
_LEARNT = 2  # tars to learn from: the first ones, so few that each person comes back while labels get better
_MEASURED = 1  # tars to measure with: the last ones
COLORS = ("#888888", "#28666e", "#c8553d", "#4a4e69")  # of the variants' curves
# What is learnt from, by the name of the variant: bad labels or true ones, and what makes them better.
VARIANTS: dict[str, tuple[bool, str | None]] = {
    "bad labels": (True, None),
    "bad labels, refined near predictions": (True, "anchored"),
    "bad labels, refined as in HSMR": (True, "published"),
    "true labels": (False, None),
}


def run(setup: Setup) -> list[dict[str, Any]]:
    """A record per variant. Raises SkelfitError where there are fewer than two shards."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="skelfit-better-labels-") as folder:
        shards = Path(setup.shards or tiny_training.make_shards(setup, Path(folder)))
        tars = sorted(shards.glob("*.tar"))
        if len(tars) <= _MEASURED:
            raise SkelfitError(f"{shards}: expected at least {_MEASURED + 1} shards, found {len(tars)}")
        bad = Path(folder) / "bad"
        true = Path(folder) / "true"
        for path in (bad, true):
            path.mkdir()
        angles = np.random.default_rng(0).normal(0, _OFF, 43)
        learnt = tars[:-_MEASURED][:_LEARNT]
        setup.say(f"making the labels of {len(learnt)} shards bad")
        for tar in learnt:
            spoil(tar, bad, angles, setup.models)
            for path in shards.glob(f"{tar.stem}.*"):
                (true / path.name).symlink_to(path.resolve())
        records = _compare(setup, bad, true, tars[-_MEASURED:])
    if setup.picture is not None:
        draw_curves(setup.picture, records)
    return records


def spoil(tar: Path, folder: Path, angles: NDArray[np.float64], models: ModelSet) -> None:
    """Write a shard to a folder with bad labels: poses off by angles (43,) rad, but for the root's."""
    for path in tar.parent.glob(f"{tar.stem}.*"):
        if path.suffix != ".tar":
            shutil.copy(path, folder)
    bodies = {gender: SkelKeypoints(models, gender) for gender in ("male", "female")}
    with tarfile.open(tar) as read:
        names = read.getmembers()
        contents = {member.name: _bytes(read, member) for member in names}
    keys = [name.removesuffix(".label.npy") for name in contents if name.endswith(".label.npy")]
    metas = [json.loads(contents[f"{key}.meta.json"]) for key in keys]
    labels = unpack(np.stack([np.load(io.BytesIO(contents[f"{key}.label.npy"])) for key in keys]))
    new = pack(labels | bad_labels(labels, [bodies[meta["skel_gender"]] for meta in metas], angles))
    for key, meta, label in zip(keys, metas, new, strict=True):
        stream = io.BytesIO()
        np.save(stream, label)
        contents[f"{key}.label.npy"] = stream.getvalue()
        contents[f"{key}.meta.json"] = json.dumps(meta | {"keypoints3d": "skel"}).encode()
    with tarfile.open(folder / tar.name, "w", format=tarfile.USTAR_FORMAT) as written:
        for member in names:
            member.size = len(contents[member.name])
            written.addfile(member, io.BytesIO(contents[member.name]))


def bad_labels(
    labels: dict[str, FloatArray], bodies: list[SkelKeypoints], angles: NDArray[np.float64]
) -> dict[str, FloatArray]:
    """Poses off by angles (43,) rad, betas 0, and the 3D keypoints of such bodies where they were."""
    poses = labels["skel_poses"].copy()
    poses[:, 3:] += angles.astype(np.float32)
    betas = np.zeros_like(labels["skel_betas"])
    points = labels["keypoints3d"].copy()
    for body in set(bodies):
        rows = np.flatnonzero([b is body for b in bodies])
        made = body(torch.from_numpy(poses[rows]), torch.from_numpy(betas[rows])).numpy()
        points[rows, :, :3] = made + labels["skel_trans"][rows, None]
    points[..., 3] = 1
    return {"skel_poses": poses, "skel_betas": betas, "keypoints3d": points}


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    found = tar.extractfile(member)
    assert found is not None
    return found.read()


def _base(shards: Path, measured: list[Path]) -> TrainConfig:
    """train-tiny, shorter."""
    config = load_train_config(TRAININGS.find(tiny_training.BASE))
    data = replace(config.data, subsets=(SubsetConfig(f"{shards}/*.tar"),), held_out=0.0)
    stages: Any = {name: replace(config.stages[name], steps=steps) for name, steps in _LENGTHS.items()}
    others = ValidationConfig(subsets=tuple(SubsetConfig(str(tar)) for tar in measured))
    return replace(config, data=data, validation=others, **stages)


def _compare(setup: Setup, bad: Path, true: Path, measured: list[Path]) -> list[dict[str, Any]]:
    group = ProcessGroup(torch.device(setup.device))
    base = _base(bad, measured)
    skins = SkelSkins(setup.models, base.skel_gender, group.device)
    network = make_network(base.network)
    stages = TrainingStages(base, network, setup.models, group)
    learnt = tiny_training.with_detector(setup, stages, network)
    network.load_state_dict(learnt)
    cache = stages.cache
    detector = {name: x.clone() for name, x in tiny_training.detector_of(network.state_dict()).items()}
    starts: dict[bool, dict[str, torch.Tensor]] = {}
    records = []
    for name, (is_bad, refiner) in VARIANTS.items():
        config = _base(bad if is_bad else true, measured)
        refine = None
        if refiner is not None:
            better = BetterLabelsConfig(after=_EVERY, every=_EVERY, last=_LAST, refiner=refiner)  # type: ignore[arg-type]
            config = replace(config, better_labels=better)
            refine = label_refiner(better, setup.models, config.skel_gender, setup.device)
        started = time.perf_counter()
        torch.manual_seed(config.data.seed)
        network = make_network(config.network).to(group.device)
        set_mean(network, config)
        network.load_state_dict(network.state_dict() | detector)
        stages = TrainingStages(config, network, setup.models, group, cache=cache, refine=refine)
        if is_bad not in starts:
            setup.say(f"{name}: pose and betas learn for {_LENGTHS['coarse']} steps")
            learnt = tiny_training.learn(stages.coarse(), network)
            starts[is_bad] = {k: v.clone() for k, v in learnt.items()}
        network.load_state_dict(starts[is_bad])
        curve = _curve(setup, name, stages, network, skins)
        seconds = time.perf_counter() - started
        records.append({"variant": name, "curve": curve, "seconds": seconds} | curve[-1])
    return records


def _curve(
    setup: Setup, name: str, stages: TrainingStages, network: Network, skins: SkelSkins
) -> list[dict[str, Any]]:
    """The main stage; errors along it, against the true labels."""
    stage, group = stages.all(), stages.group
    stream, curve = stage.batches(), []
    labels = 0
    while True:
        steps = stage.trainer.steps
        if steps and steps % _MEASURE == 0:
            people = validation_people(stages.config, group, network.backbone.crop)
            found = validate(stage.trainer.best_network, people, skins, group)
            assert found is not None
            names = ("people", "pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "pck_0.05")
            curve.append({"step": steps, "labels": labels} | {key: found[key] for key in names})
            setup.say(f"{name}: step {steps}, PA-MPJPE {found['pa_mpjpe_mm']:.1f} mm, {labels} better labels")
        if stage.finished:
            return curve
        stage.trainer.step([next(stream).to(group.device)])
        if stage.labels is not None:
            counts = stage.labels.after_step(stage.trainer.steps)
            labels = labels if counts is None else counts["labels"]


def draw_curves(path: Path, records: list[dict[str, Any]]) -> None:
    """PA-MPJPE by step, a line per variant, as a PNG. Raises OutputError."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for record, color in zip(records, COLORS, strict=True):
        points = [(point["step"], point["pa_mpjpe_mm"]) for point in record["curve"]]
        axes.plot(*zip(*points, strict=True), "o-", color=color, label=record["variant"])
    axes.set(title="PA-MPJPE against true labels, mm", xlabel="step of the main stage", ylim=(0, None))
    axes.legend(frameon=False, loc="lower left")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per variant, and the curves."""
    heads = ("labels", "PA-MPJPE", "MPJPE", "PVE", "better labels", "s")
    rows = [
        (r["variant"], *(f"{r[name]:.1f}" for name in ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm")))
        + (str(r["labels"]), f"{r['seconds']:.0f}")
        for r in records
    ]
    steps = [point["step"] for point in records[0]["curve"]]
    curves = [(r["variant"], *(f"{point['pa_mpjpe_mm']:.1f}" for point in r["curve"])) for r in records]
    last = f"mm; {records[0]['people']} made-up people that the network does not learn from"
    return [*table(heads, rows), last, "PA-MPJPE by step:", *table(("labels", *map(str, steps)), curves)]


STUDY = Study(
    "labels that get better while the tiny network learns from bad ones",
    3_000,
    (),
    run,
    text,
    draws=True,
    trains=True,
)
