"""Cached observations of a backbone: valid for every crop of the same people, augmented or mirrored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from train_shards import PEOPLE, STILL, data_config, write_people

from skelfit.errors import SkelfitError
from skelfit.learning.data.backbone_cache import BackboneCache, observe_batches
from skelfit.learning.data.data_loader import DataConfig, Loader, each_once

HERE = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("shards"))


def all_knowing(data: DataConfig) -> BackboneCache:
    """What a backbone would find that knows the labels: their keypoints, deviations of a tenth and a fifth, and 0.7."""
    batches = list(each_once(data, crop=32))
    known = iter(batches)

    def observe(image: Tensor) -> Tensor:
        batch = next(known)
        assert torch.equal(image, batch.image)
        about = torch.tensor([0.1, 0.2, 0.7]).expand(len(batch), 44, 3)
        return torch.cat((batch.keypoints2d[..., :2], about), -1)

    return BackboneCache(list(observe_batches(observe, batches, HERE)))


@pytest.mark.parametrize("flip", [0.0, 1.0, 0.5])
def test_cached_keypoints_hold_for_every_crop(folder: Path, flip: float) -> None:
    data = data_config(folder, batch_size=7, augment=replace(STILL, scale=0.3, flip=flip, extreme_crop=0.5))
    cache = all_knowing(data)
    assert len(cache.rows) == PEOPLE
    own = {
        key: side for batch in each_once(data) for key, side in zip(batch.keys, batch.box_size, strict=True)
    }
    flips = set()
    for batch in (cache.add_to(batch) for _ in range(2) for batch in Loader(data, images=False)):
        assert batch.observations is not None and batch.observations.shape == (7, 44, 5)
        known = batch.keypoints2d[..., 2] > 0
        assert 0.3 < known.float().mean() < 0.7
        torch.testing.assert_close(
            batch.observations[..., :2][known], batch.keypoints2d[..., :2][known], rtol=0, atol=1e-5
        )
        torch.testing.assert_close(batch.observations[..., 3], 2 * batch.observations[..., 2])
        assert (batch.observations[..., 4] == 0.7).all()
        flips |= {*batch.flipped.tolist()}
        expected = 0.1 * torch.stack([own[key] for key in batch.keys]) / batch.box_size
        torch.testing.assert_close(batch.observations[..., 2], expected[:, None].expand(-1, 44))
    assert flips == ({False, True} if flip == 0.5 else {bool(flip)})


def test_cached_keypoints_turn_with_the_image(folder: Path) -> None:
    data = data_config(folder, batch_size=20, augment=replace(STILL, rotation=30, flip=0.5))
    batch = all_knowing(data).add_to(next(iter(Loader(data, images=False))))
    assert batch.observations is not None and (batch.turn.abs() > 0.2).sum() > 5 and batch.flipped.any()
    known = batch.keypoints2d[..., 2] > 0
    found = batch.observations[..., :2]
    torch.testing.assert_close(found[known], batch.keypoints2d[..., :2][known], rtol=0, atol=1e-5)
    c, s = batch.turn.cos(), batch.turn.sin()
    expected = torch.stack((torch.hypot(0.1 * c, 0.2 * s), torch.hypot(0.1 * s, 0.2 * c)), -1)
    torch.testing.assert_close(batch.observations[:, 0, 2:4], expected)


def test_a_loader_reads_only_cached_people(folder: Path) -> None:
    data = data_config(folder, batch_size=5, augment=STILL)
    cache = all_knowing(data)
    cache.rows = dict(list(cache.rows.items())[::2])
    loader = Loader(data, images=False, only=cache.rows)
    keys = {key for _ in range(5) for batch in loader for key in cache.add_to(batch).keys}
    assert keys == set(cache.rows) and len(keys) == PEOPLE // 2
    again = Loader(data, images=False, only=cache.rows)
    again.resume(loader.state())
    with pytest.raises(SkelfitError, match="'kept'"):
        Loader(data, images=False).resume(loader.state())
    with pytest.raises(SkelfitError, match="found none"):
        BackboneCache([])
