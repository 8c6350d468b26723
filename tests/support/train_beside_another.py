"""One of two processes of a training whose labels get better: `train_beside_another.py CONFIG SHARDS OUT [UNTIL]`.

Writes read-N.json into OUT: the labels that process N has read in its batches, by the process that found them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import SilentObserver, short_config

from skelfit.bodies.model_set import open_models
from skelfit.learning.data import better_labels
from skelfit.learning.data.better_labels import BetterLabels, PosedPeople
from skelfit.learning.data.process_group import process_group
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.training.training_loop import train


def nudged(people: PosedPeople) -> tuple[PosedPeople, torch.Tensor]:
    """As they are, but for betas, which are small."""
    done = torch.ones(len(people.poses), dtype=torch.bool)
    return replace(people, betas=people.betas.clamp(-1, 1)), done


def main(config: Path, shards: Path, out: Path, until: int) -> None:
    """Train, and note which labels are read."""
    found: set[tuple[str, bool]] = set()
    read: dict[tuple[str, bool], bool] = {}  # whether this process found it
    refined, better = BetterLabels._refined, BetterLabels.better

    def noted(labels: BetterLabels) -> Any:
        new = refined(labels)
        found.update(who for who, _ in new)
        return new

    def reading(labels: BetterLabels, batch: TrainingBatch) -> TrainingBatch:
        new = better(labels, batch)
        who = list(zip(batch.keys, batch.flipped.tolist(), strict=True))
        for i, one in enumerate(who):
            if one in labels.labels:
                assert torch.equal(new.betas[i], labels.labels[one].numbers[46:])
                read[one] = one in found
        return new

    with pytest.MonkeyPatch.context() as patch, process_group("cpu") as group:
        patch.setattr(BetterLabels, "_refined", noted)
        patch.setattr(BetterLabels, "better", reading)
        # The keypoints of these people are noise: no body is near them.
        patch.setattr(better_labels, "errors_2d", lambda points, *_: points[..., 0].abs().sum(-1).double())
        observer = SilentObserver(until=until)
        train(short_config(config, shards), out, open_models(), group, observer, resume=True, refine=nudged)
        own, other = (sorted(who for who, mine in read.items() if mine == is_own) for is_own in (True, False))
        text = json.dumps({"found": sorted(found), "own": own, "other": other})
        (out / f"read-{group.part.number}.json").write_text(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
