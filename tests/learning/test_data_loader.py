"""The trainer's loader: which people it reads, in which order, and their batches."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d
from train_shards import HEIGHT, PEOPLE, STILL, WIDTH, data_config, ramp, same, write_people

from skelfit.config.yaml_dataclasses import build
from skelfit.errors import ConfigError
from skelfit.images.image_bytes import IDENTITY
from skelfit.learning.data import person_stream as people_module
from skelfit.learning.data.augmentation import AugmentConfig, draw, recolored
from skelfit.learning.data.data_loader import DataConfig, Loader, each_once
from skelfit.learning.data.degradations import _groups, degraded
from skelfit.learning.data.person_crops import Square, read_crop, square_around
from skelfit.learning.data.person_stream import Part, SubsetConfig, person_source, shuffled
from skelfit.learning.data.training_batch import MEAN, STD
from skelfit.shards.keep_list import Kept, write_keep
from skelfit.shards.label_vector import LAYOUT_VERSION, FloatArray, unpack
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_samples
from skelfit.storage.locations import Location, location_of


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("people_of_a_shard", [4, 100], ids=["shards enough", "a shard for two readers"])
def test_shards_in_memory_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people_of_a_shard: int
) -> None:
    folder = write_people(tmp_path)
    if people_of_a_shard > PEOPLE:
        for tar in sorted(folder.glob("*.tar"))[1:]:
            tar.unlink()
    config = data_config(folder, keep=None, held_out=0.2, batch_size=2, epoch_samples=8)
    part = Part(1, 2)
    plain, kept = (Loader(config, part, images=False, memory=memory) for memory in (False, True))
    opened: list[str] = []

    def noted(tar: str) -> Location:
        opened.append(tar)
        return location_of(tar)

    monkeypatch.setattr(people_module, "location_of", noted)
    one = [batch for _ in range(9) for batch in kept]
    assert len(opened) == len(set(opened)) > 0
    assert all(map(same, [batch for _ in range(9) for batch in plain], one)) and len(one) == 18
    assert len(opened) > 2 * len(set(opened))


@pytest.mark.parametrize("crops", [False, True], ids=["images", "crops"])
@pytest.mark.parametrize(
    "augment",
    [
        STILL,
        AugmentConfig(color=0, extreme_crop=0.5),
        AugmentConfig(color=0, extreme_crop=0, shift=0.2, rotation=30),
    ],
    ids=["still", "varied", "turned"],
)
def test_keypoints_of_the_crop_match_the_image(tmp_path: Path, crops: bool, augment: AugmentConfig) -> None:
    """At a keypoint of the crop stands the colour that the source image has there, whatever the shards hold."""
    batch = next(
        iter(Loader(data_config(write_people(tmp_path, crops=crops), batch_size=20, augment=augment)))
    )
    assert batch.pixels.shape == (20, 3, 256, 256) and batch.pixels.dtype == torch.uint8
    labels: dict[str, dict[str, FloatArray]] = {}
    for path in sorted(tmp_path.glob("*.tar")):
        labels |= {key: unpack(label) for key, label, _ in read_samples(path)}
    compared = 0
    for i, key in enumerate(batch.keys):
        source = labels[key]["gtkps"]
        assert torch.equal(batch.keypoints2d[i, :, 2], torch.from_numpy(source[:, 2].copy()))
        for (u, v, streams), (x, y, _) in zip(batch.keypoints2d[i].tolist(), source.tolist(), strict=True):
            column, row = int((u + 0.5) * 256), int((v + 0.5) * 256)
            if streams and 2 <= column < 254 and 2 <= row < 254 and 2 < x < WIDTH - 2 and 2 < y < HEIGHT - 2:
                red, green, blue = batch.pixels[i, :, row, column].tolist()
                if crops and blue < 250:
                    continue  # beyond the stored crop
                assert (red, green) == pytest.approx((x - 0.5, y - 0.5), abs=3 if crops else 1.2), key
                compared += 1
    assert compared > 60
    if augment.rotation:
        return  # the labels of turned images have a test of their own
    assert torch.equal(batch.cam_int[0], torch.from_numpy(labels[batch.keys[0]]["cam_int"].copy()))
    assert torch.equal(batch.poses[3], torch.from_numpy(labels[batch.keys[3]]["skel_poses"].copy()))
    if augment == STILL:
        width, height = 200 * labels[batch.keys[0]]["scale"]
        assert batch.box_size[0] == pytest.approx(max(height, width), rel=1e-6)
        wide = next(iter(Loader(data_config(tmp_path, batch_size=20, augment=augment, widen=True))))
        assert wide.box_size[0] == pytest.approx(max(height, width * 256 / 192), rel=1e-6)
        assert torch.equal(batch.center[0], torch.from_numpy(labels[batch.keys[0]]["center"].copy()))


def test_crops_of_another_size_have_the_same_content(shards: Path) -> None:
    config = data_config(shards, batch_size=4)
    for readers in (lambda **size: Loader(config, **size), lambda **size: each_once(config, **size)):
        large, small = next(iter(readers())), next(iter(readers(crop=64)))
        assert small.pixels.shape == (4, 3, 64, 64) and small.keys == large.keys
        assert torch.equal(small.keypoints2d, large.keypoints2d)
        means = avg_pool2d(large.pixels.float(), 4)[..., 1:-1, 1:-1]
        # But at the edges of the image, beyond which crops are black.
        assert (small.pixels[..., 1:-1, 1:-1] - means).abs().median() < 2


def test_unknown_values_of_a_batch(tmp_path: Path) -> None:
    cameras = [i % 2 == 0 for i in range(PEOPLE)]
    folder = write_people(tmp_path, camera=cameras, coordinates=["camera"] * 18 + ["world_z_up"] * 4)
    batch = next(iter(each_once(data_config(folder, batch_size=99))))
    assert len(batch) == 18, "people without camera coordinates are left out"
    assert batch.female.tolist() == [i % 3 == 0 for i in range(18)]
    assert batch.image_size.tolist() == [[WIDTH, HEIGHT]] * 18
    focal = float(np.hypot(WIDTH, HEIGHT))
    assert batch.cam_int[1].tolist() == [
        [pytest.approx(focal), 0, 120],
        [0, pytest.approx(focal), 100],
        [0, 0, 1],
    ]
    unseen = batch.keypoints2d[..., 2] == 0
    assert unseen.any() and (batch.keypoints2d[unseen] == 0).all()
    red = (batch.pixels[0, 0].float() / 255 - MEAN[0]) / STD[0]
    assert torch.allclose(batch.image[0, 0], red) and batch.to("cpu").keys == batch.keys


def test_crops_are_black_outside_and_small_where_large_jpegs_are() -> None:
    square = Square(0.0, 100.0, 100.0)  # half of it left of the image
    pixels = read_crop(ramp(), IDENTITY, square, 64)
    assert not pixels[:, :32].any() and (pixels[:, 32:, 2] > 200).all() and (pixels[:, 33:, 2] == 255).all()
    assert pixels[0, 63].tolist() == pytest.approx([49.2, 50.3, 255], abs=1)
    assert not read_crop(ramp(), IDENTITY, Square(-500, -500, 50), 16).any()
    whole = read_crop(ramp("JPEG"), IDENTITY, Square(120, 100, 200), 20).astype(int)
    exact = read_crop(ramp(), IDENTITY, Square(120, 100, 200), 20).astype(int)
    assert np.abs(whole - exact)[1:-1].max() < 6  # decoded at an eighth, where the image does not end
    sides = [
        square_around(5, 6, *box, widen=widen).side for box in ((30, 80), (90, 80)) for widen in (False, True)
    ]
    assert sides == [80, 80, 90, 120]


def test_augmentation_keeps_to_its_bounds() -> None:
    rng = np.random.default_rng(0)
    keypoints = np.ones((44, 3), np.float32)
    keypoints[:, 0], keypoints[:, 1] = 100, np.linspace(10, 200, 44)
    square = Square(100, 150, 400)
    drawn = [draw(square, keypoints, AugmentConfig(), rng) for _ in range(4000)]
    colors = np.array([one.colors for one in drawn])
    assert 0.8 <= colors.min() < 0.81 and 1.19 < colors.max() <= 1.2
    whole = [one for one in drawn if one.square[:2] == (100, 150)]
    sizes = np.array([one.square.side for one in whole]) / 400
    assert 1 - len(whole) / 4000 == pytest.approx(0.1, abs=0.015)
    assert (sizes.min(), sizes.max()) == pytest.approx((0.9, 1.1)) and sizes.std() == pytest.approx(
        0.0718, abs=0.004
    )
    assert all(one.degrade is None and one.turn == 0 for one in drawn)
    still = draw(square, keypoints, STILL, rng)
    assert still.square == square and still.colors == (1, 1, 1)


@pytest.mark.parametrize("readers", [1, 2, 4, 7, 13])
def test_each_person_is_read_by_one_reader(shards: Path, readers: int) -> None:
    """Also where readers outnumber the 6 shards."""
    parts = [Part(k, readers) for k in range(readers)]
    keys = [key for part in parts for batch in each_once(data_config(shards), part) for key in batch.keys]
    assert len(keys) == PEOPLE == len(set(keys))


@pytest.mark.parametrize("readers", [1, 3, 8])
def test_a_pass_has_each_person_once(shards: Path, readers: int) -> None:
    source = person_source([SubsetConfig(f"{shards}/*.tar")], None, images=False)
    # With a buffer of one, order is that of the shards; a share is at most all of it.
    streams = []
    for k in range(readers):
        stream = shuffled(source, [1.0], Part(k, readers), 1, "a seed")
        first = next(stream).key
        mine = [first]
        streams.append((mine, stream))
    keys = [key for mine, stream in streams for key in mine + [p.key for p in islice(stream, PEOPLE)]]
    assert set(Counter(keys)) == {f"people-people-0-{i:08d}" for i in range(PEOPLE)}
    if readers == 1:
        assert len(set(keys[:PEOPLE])) == PEOPLE


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_repeatable_and_resumable(shards: Path, workers: int) -> None:
    config = data_config(shards, workers=workers)
    loader = Loader(config)
    first, second = list(loader), list(loader)
    assert len(first) == len(second) == loader.batches == PEOPLE // 3
    again = Loader(config)
    assert all(map(same, first, again)) and (again.epoch, again.done) == (1, 0)
    assert not any(map(same, first, second)) and not any(map(same, first, Loader(replace(config, seed=1))))
    for done in (1, 4, 6):
        stopped = Loader(config)
        assert len(list(islice(stopped, done))) == done
        resumed = Loader(config)
        resumed.resume(stopped.state())
        rest = list(resumed)
        assert len(rest) == loader.batches - done and all(map(same, first[done:], rest))
        assert all(map(same, second, resumed)), "the epoch after it"


def test_resuming_in_another_order_is_refused(shards: Path) -> None:
    state = Loader(data_config(shards)).state()
    with pytest.raises(ConfigError, match=r"'seed': expected 0, to go on in order, found 3"):
        Loader(data_config(shards, seed=3)).resume(state)
    with pytest.raises(ConfigError, match="processes"):
        Loader(data_config(shards), Part(0, 2)).resume(state)
    with pytest.raises(ConfigError, match="at least a batch, 1 x 99, found 22"):
        Loader(data_config(shards, batch_size=99))


def test_reading_keeps_the_random_state_of_torch(shards: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    list(Loader(data_config(shards, workers=1), images=False))
    assert torch.equal(torch.rand(2), expected)


def test_processes_have_equally_many_batches_of_different_people(shards: Path) -> None:
    epochs = [list(Loader(data_config(shards, shuffle=1), Part(k, 2))) for k in range(2)]
    assert len(epochs[0]) == len(epochs[1]) == PEOPLE // 6
    one, other = ({key for batch in epoch for key in batch.keys} for epoch in epochs)
    assert len(one & other) <= 4  # a pass later they read the other's shards


def test_subsets_are_drawn_by_weight(shards: Path, tmp_path: Path) -> None:
    few = write_people(tmp_path, 6, "few")
    subsets = (SubsetConfig(f"{shards}/*.tar", 1), SubsetConfig(f"{few}/few-{{000000..000001}}.tar", 3))
    config = data_config(shards, subsets=subsets, epoch_samples=600)

    def share_of_few(config: DataConfig) -> float:
        keys = [key for batch in Loader(config, images=False) for key in batch.keys]
        return sum(key.startswith("few") for key in keys) / len(keys)

    assert share_of_few(config) == pytest.approx(0.75, abs=0.05)
    natural = replace(config, subsets=tuple(replace(s, weight=None) for s in subsets))
    assert share_of_few(natural) == pytest.approx(6 / 28, abs=0.05)
    assert Loader(replace(natural, epoch_samples=None)).samples == 28


def test_a_keep_list_selects_people(shards: Path, tmp_path: Path) -> None:
    keys = [f"people-people-0-{i:08d}" for i in range(PEOPLE)]
    table = tmp_path / "keep.csv"
    write_keep(
        table, [Kept(key, "people-000000", () if i % 5 == 0 else ("why",)) for i, key in enumerate(keys)]
    )
    config = data_config(shards, keep=str(table))
    assert [k for b in each_once(config) for k in b.keys] == keys[::5]
    assert {k for b in Loader(config) for k in b.keys} <= set(keys[::5])
    write_keep(table, [Kept("unknown", "people-000000")])
    with pytest.raises(
        ShardError, match=r"people-000000.tar: expected people that the keep-list keeps with an image"
    ):
        list(Loader(config))
    write_keep(table, [Kept(keys[0], "people-000000", ("why",))])
    with pytest.raises(ShardError, match=r"keep.csv: 'keep': expected at least one kept person"):
        each_once(config)


def test_damaged_samples_are_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_people(tmp_path)
    tar = folder / "people-000001.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[: data.rindex(ramp()) + 100])  # within the last image
    broken = folder / "people-000002.tar"
    content = broken.read_bytes()
    image = ramp()
    assert content.count(image) == 4
    broken.write_bytes(content.replace(image, b"\0" * len(image), 1))
    with caplog.at_level(logging.WARNING):
        keys = [k for b in each_once(data_config(folder)) for k in b.keys]
    assert len(keys) == PEOPLE - 2 and not {"people-people-0-00000007", "people-people-0-00000008"} & set(
        keys
    )
    assert "image cannot be decoded" in caplog.text
    assert f"a part of one, is left out: {tar}: unexpected end of data" in caplog.text
    loader = Loader(data_config(folder))
    assert all(len(batch) == 3 for _ in range(3) for batch in loader), "another person takes the place"


def test_another_layout_and_missing_shards_are_refused(tmp_path: Path) -> None:
    folder = write_people(tmp_path, layout=["skelfit-label-9"] * PEOPLE)
    with pytest.raises(ShardError, match=f"expected {LAYOUT_VERSION}, found skelfit-label-9"):
        list(Loader(data_config(folder)))
    with pytest.raises(ShardError, match="expected finished shards"):
        Loader(data_config(tmp_path / "nowhere"))
    (folder / "people-000003.done.json").unlink()
    with pytest.raises(ShardError, match="people-000003.done.json"):
        Loader(data_config(folder))


def test_degradations(shards: Path) -> None:
    config = data_config(shards, batch_size=20, augment=replace(STILL, degrade=0.5))
    batch, again, still = (
        next(iter(Loader(c))) for c in (config, config, data_config(shards, batch_size=20, augment=STILL))
    )
    changed = (batch.pixels != still.pixels).flatten(1).any(1)
    assert same(batch, again) and torch.equal(batch.keypoints2d, still.keypoints2d)
    assert 5 < changed.sum() < 20


def test_degradations_are_two_groups_at_their_rate() -> None:
    pixels = np.random.default_rng(0).integers(40, 200, (32, 32, 3), dtype=np.uint8)
    for rate, share in ((0.3, 1 - 0.7**2), (1.0, 1.0)):
        made = [degraded(pixels, seed, rate) for seed in range(150)]
        assert np.mean([(one != pixels).any() for one in made]) == pytest.approx(share, abs=0.1)
        assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in made)


def test_degradations_need_their_extra(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader says so before it reads, not in a worker."""
    monkeypatch.setitem(sys.modules, "albumentations", None)
    _groups.cache_clear()
    with pytest.raises(
        ConfigError, match=r"augment.degrade': expected 0, or albumentations, found .*skelfit\[augment"
    ):
        Loader(data_config(shards, augment=replace(STILL, degrade=0.3)))


def test_the_configuration_is_read_strictly() -> None:
    given = {"subsets": [{"shards": "a/*.tar", "weight": 2}], "augment": {"scale": 0.2}, "batch_size": 8}
    config = build(DataConfig, given, "train.yaml", "data")
    assert config.subsets[0].weight == 2 and config.augment == AugmentConfig(scale=0.2)
    with pytest.raises(ConfigError, match=r"train.yaml: 'data.augment.rotate': .* an unknown key"):
        build(DataConfig, given | {"augment": {"rotate": 0.5}}, "train.yaml", "data")
    with pytest.raises(ConfigError, match=r"'data.workers': expected at least 0"):
        build(DataConfig, given | {"workers": -1}, "train.yaml", "data")


def test_each_channel_has_its_own_factor() -> None:
    pixels = np.arange(256, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 4), np.uint8)
    factors = (0.5, 1.0, 1.3)
    planes = recolored(pixels[..., :3], factors)
    expected = [np.minimum(np.floor(np.arange(256) * factor + 0.5), 255) for factor in factors]
    np.testing.assert_array_equal(planes, np.repeat(np.array(expected)[..., None], 2, axis=2))
    assert recolored(pixels[..., :3], (1.0, 1.0, 1.0)).flags["C_CONTIGUOUS"]
