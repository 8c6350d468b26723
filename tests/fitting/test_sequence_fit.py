"""Sequences fitted as one problem: smooth without lag, and independent of all other frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from backends import assert_same_bits, assert_same_fit
from label_tensors import Labels, labels_from, map_labels
from sequence_reference import joint_rotation
from torch import Tensor

from skelfit.bodies.dofs import dof_index
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.fit_result import FitResult, better_sequences, map_results
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.passes import PassMoments, vertex_pass
from skelfit.fitting.sequences import chain_steps
from skelfit.fitting.sequences.frame_index import FrameIndex, ShapeLabels
from skelfit.fitting.terms.label_jumps import label_jumps
from skelfit.labels.demo_people import sample_labels

RATE = 30.0
JOINTS = range(1, 24)


def motion(count: int, seed: int, extreme: float = 1.0, gap: float = 0.8) -> Labels:
    """Frames at 30 Hz between poses of made-up people, a `gap` (s) from one to the next: eased in and out."""
    keys = int(count / RATE / gap) + 2
    pose, betas, _ = (torch.from_numpy(x).double() for x in sample_labels(keys, 900 + seed, extreme))
    at = torch.arange(count) / RATE / gap
    k, share = at.long(), at.frac()
    eased = share.square() * (3 - 2 * share)
    one, two = (roma.rotvec_to_unitquat(pose[i]) for i in (k, k + 1))
    turned = torch.stack(
        [roma.unitquat_slerp(a, b, e[None])[0] for a, b, e in zip(one, two, eased, strict=True)]
    )
    rotvec = roma.unitquat_to_rotvec(turned)
    return rotvec.float(), betas[:1].expand(count, -1).float().contiguous(), torch.zeros(count, 3)


def frames_of(*counts: int, rate: float = RATE) -> FrameIndex:
    """Sequences one after the other."""
    time = np.concatenate([np.arange(n) / rate for n in counts])
    return FrameIndex(np.repeat(np.arange(len(counts)), counts), time)


def joined(*labels: Labels) -> Labels:
    return labels_from(torch.cat(x) for x in zip(*labels, strict=True))


def rows(result: FitResult, index: object) -> FitResult:
    return map_results(lambda x: x[index], result)


def rotations(poses: Tensor) -> Tensor:
    """(N, 23, 3, 3) of the joints but the root."""
    return torch.stack([joint_rotation(poses.double(), j) for j in JOINTS], 1)


def speeds(rot: Tensor) -> Tensor:
    """Turns (N - 1, J, 3) rad per frame."""
    return roma.rotmat_to_rotvec(rot[1:] @ rot[:-1].mT)


def jitter(rot: Tensor) -> float:
    """Mean length of the second difference, degrees per frame^2."""
    return float(torch.rad2deg(speeds(rot).diff(dim=0).norm(dim=-1)).mean())


# Smoothness.


def test_frames_follow_the_label_without_jitter(models: ModelSet, config: FitConfig) -> None:
    """Extreme poses, whose spines flip if frames are fitted alone. The vertex error hardly rises."""
    labels = motion(40, 20)
    fitter = Fitter(models, config)
    alone, result = fitter.fit("male", *labels), fitter.fit("male", *labels, frames_of(40))
    label = roma.rotvec_to_rotmat(labels[0][:, 1:].double())
    steps = [float(torch.rad2deg(speeds(r).norm(dim=-1)).max()) for r in (label, rotations(result.poses))]
    assert jitter(rotations(alone.poses)) > 1.5 * jitter(label)
    assert jitter(rotations(result.poses)) < 1.3 * jitter(label)
    assert steps[1] < steps[0] + 5
    assert result.pve_mm.mean() < 1.02 * alone.pve_mm.mean()
    assert result.converged.all()


@pytest.mark.parametrize("root", ["turn", "free"])
def test_a_root_that_is_free_does_not_jump(models: ModelSet, config: FitConfig, root: str) -> None:
    """Its turn is tied to that of the frame before, and its translation follows."""
    labels = motion(40, 22)
    fitter = Fitter(models, replace(config, root=root))  # type: ignore[arg-type]
    alone, result = fitter.fit("male", *labels), fitter.fit("male", *labels, frames_of(40))
    label = jitter(roma.rotvec_to_rotmat(labels[0][:, :1].double()))
    turning = [jitter(joint_rotation(fit.poses.double(), 0)[:, None]) / label for fit in (alone, result)]
    moving = [float(fit.trans.diff(n=2, dim=0).norm(dim=1).max()) for fit in (alone, result)]
    assert turning[0] > 1.05 and turning[1] < 1.04
    assert moving[1] < 2e-3
    if root == "free":
        assert moving[0] > 1.3 * moving[1]
    assert result.converged.all()


def kick(count: int = 40) -> Labels:
    """A leg goes up, and its knee opens, mostly within a tenth of a second."""
    time = torch.arange(count) / RATE
    up = torch.sigmoid((time - 0.65) / 0.02)
    pose = torch.zeros(count, 24, 3)
    pose[:, 2, 0], pose[:, 5, 0] = -1.4 * up, 1.3 - 1.2 * up
    return pose, torch.zeros(count, 10), torch.zeros(count, 3)


def test_a_kick_does_not_lag(models: ModelSet, config: FitConfig) -> None:
    labels = kick()
    result = Fitter(models, config).fit("male", *labels, frames_of(40))
    for name, label in (("hip_flexion_r", -labels[0][:, 2, 0]), ("knee_angle_r", labels[0][:, 5, 0])):
        angle = result.poses[:, dof_index(name)]
        middles = []
        for x in (angle, label):
            away = x - 0.5 * (x[:5].mean() + x[-5:].mean())
            k = int(torch.nonzero(away[1:] * away[:-1] <= 0)[0])
            middles.append(k + float(away[k] / (away[k] - away[k + 1])))
        assert abs(middles[0] - middles[1]) < 0.05, name


def test_a_wrong_label_does_not_drag_its_neighbours(models: ModelSet, config: FitConfig) -> None:
    labels, other = motion(40, 3, extreme=0.0, gap=1.2), motion(1, 5)
    fitter, frames = Fitter(models, config), frames_of(40)
    clean = fitter.fit("male", *labels, frames)
    labels[0][20] = other[0][0]
    result = fitter.fit("male", *labels, frames)
    between = rotations(clean.poses) @ rotations(result.poses).mT
    turned = torch.rad2deg(roma.rotmat_to_rotvec(between).norm(dim=-1))
    assert turned[20].max() > 30
    assert turned[[18, 19, 21, 22]].max() < 4
    bound = replace(config, temporal=replace(config.temporal, jump=1e6))  # type: ignore[type-var]
    dragged = Fitter(models, bound).fit("male", *labels, frames)
    assert (dragged.pve_mm - clean.pve_mm)[[19, 21]].min() > 5 * (result.pve_mm - clean.pve_mm)[
        [19, 21]
    ].abs().max()


def test_jumps_are_distinguished_from_fast_motions() -> None:
    """About one axis at 10 Hz, rad per frame: a turn that begins at once and goes on, one taken back, and a cut."""
    turns = torch.tensor([0, 0, 0.5, 0.5, 0.5, 0, 0, 0, 0.9, -0.9, 0, 0, 0.7, 0, 0]).double()
    angle = torch.cat((torch.zeros(1), turns.cumsum(0)))
    still = torch.zeros_like(angle)
    rot = roma.rotvec_to_rotmat(torch.stack([torch.stack((angle, still, still), -1), torch.zeros(16, 3)], 1))
    turning = rot.flatten(2).numpy().astype(np.float32)
    time = np.arange(16) / 10
    jumps = label_jumps(turning, [np.arange(16)], time)
    chord = 2 * np.sin(0.45)
    expected = np.zeros(16)
    # Of one joint of two; a turn and the turn back differ by twice as much.
    expected[[8, 9]] = 10 * chord / 2
    expected[12] = 10 * 2 * np.sin(0.35) / 2
    assert np.abs(jumps - expected).max() < 1e-5
    assert not label_jumps(turning[:2], [np.arange(2)], time[:2]).any()
    # Half a turn and back, of both joints: the axis has no sign there.
    flip = np.tile(np.eye(3, dtype=np.float32).ravel(), (7, 2, 1))
    flip[3] = np.diag([1, -1, -1]).ravel()
    assert np.abs(label_jumps(flip, [np.arange(7)], time[:7]) - [0, 0, 20, 20, 0, 0, 0]).max() < 1e-5
    # Another sequence changes nothing; twice the frame rate doubles the jumps.
    both = label_jumps(
        np.concatenate((turning, turning)),
        [np.arange(16), np.arange(16, 32)],
        np.concatenate((time, time / 2)),
    )
    assert np.array_equal(both[:16], jumps) and np.allclose(both[16:], 2 * jumps)


# Independence.


@pytest.fixture(scope="module")
def two(models: ModelSet, config: FitConfig) -> tuple[Labels, FitResult]:
    """Sequences of 23 and 40 frames, and their answers by this CPU's own backend."""
    labels = joined(motion(23, 1), motion(40, 2))
    return labels, Fitter(models, config).fit("male", *labels, frames_of(23, 40))


def test_sequences_are_the_same_in_any_batch(
    two: tuple[Labels, FitResult], models: ModelSet, config: FitConfig
) -> None:
    labels, result = two
    threads = torch.get_num_threads()
    second = map_labels(lambda x: x[23:], labels)
    alone = Fitter(models, config).fit(
        "male", *second, FrameIndex(np.full(40, 5), 7.5 + np.arange(40) / RATE)
    )
    # Other times are other floats, with almost the same differences.
    assert_same_fit(alone, rows(result, slice(23, None)))
    alone = Fitter(models, config).fit("male", *second, frames_of(40))
    assert_same_bits(alone, rows(result, slice(23, None)))
    # Rows of both sequences interleaved, in batches of 8, by two threads.
    turns = torch.argsort(torch.cat((torch.arange(23) * 2.0, torch.arange(40) * 1.1)), stable=True)
    frames = frames_of(23, 40)
    index = FrameIndex(frames.sequence[turns], frames.time[turns])
    try:
        torch.set_num_threads(2)
        small = Fitter(models, replace(config, batch=8))
        turned = small.fit("male", *map_labels(lambda x: x[turns], labels), index)
    finally:
        torch.set_num_threads(threads)
    assert_same_bits(turned, rows(result, turns))


def test_a_refused_step_leaves_other_sequences_alone(
    models: ModelSet, config: FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; with a free root, whose translation each evaluation changes."""
    labels, frames = joined(motion(4, 1), motion(6, 2)), frames_of(4, 6)
    fitter = Fitter(models, replace(config, root="free"))
    result = fitter.fit("male", *labels, frames)
    accept = chain_steps.no_worse
    monkeypatch.setattr(chain_steps, "no_worse", lambda chain, *v: chain[0] >= 4 and accept(chain, *v))
    refused = fitter.fit("male", *labels, frames)
    assert (rows(refused, slice(4)).poses != rows(result, slice(4)).poses).any()
    assert_same_bits(rows(refused, slice(4, None)), rows(result, slice(4, None)))


@pytest.mark.parametrize("root", ["frozen", "free"])
def test_sequences_start_from_the_last_moments_of_late_frames(
    models: ModelSet, config: FitConfig, root: str
) -> None:
    """All frames are late here: the last moments that are kept are those at their end, to the bit."""
    late = replace(config.passes, converged_gain=0.0, converged_floor=0.0)
    fitter = Fitter(models, replace(config, passes=late, retries=1, root=root))  # type: ignore[arg-type]
    (pair,) = fitter.prepare("male")
    kept: list[PassMoments] = []
    batch = pair.start(*motion(4, 1)[:2])
    schedule = pair.schedule.with_betas_held()
    schedule.run(batch, lambda: None, kept.append)
    assert torch.equal(batch.origin, batch.q)
    again = vertex_pass(pair.backend, schedule.stages[-1].fine, batch, np.arange(4), False)
    for name in ("value", "start", "d"):
        one, two = (getattr(m.moments, name).numpy() for m in (kept[-1], again))
        assert np.array_equal(one, two), name


def test_rows_of_no_sequence_are_fitted_alone(
    two: tuple[Labels, FitResult], models: ModelSet, config: FitConfig
) -> None:
    labels, result = two
    single = motion(5, 4, extreme=0.0)
    frames = frames_of(23, 40)
    mixed = FrameIndex(
        np.concatenate((frames.sequence, [-1] * 5)), np.concatenate((frames.time, [np.nan] * 5))
    )
    fitter = Fitter(models, config)
    both = fitter.fit("male", *joined(labels, single), mixed)
    alone = fitter.fit("male", *single)
    assert_same_bits(rows(both, slice(63, None)), alone)
    assert_same_bits(rows(both, slice(63)), result)
    independent = Fitter(models, replace(config, temporal=None))
    assert_same_bits(independent.fit("male", *single, frames_of(5)), alone)
    assert_same_bits(fitter.fit("male", *single, FrameIndex(np.full(5, -1), np.zeros(5))), alone)


def test_backends_agree(backend: Backend, models: ModelSet, config: FitConfig) -> None:
    """Everyday people; for extreme ones the last bit of a sum may decide on which side of a ridge a frame is."""
    labels = motion(20, 6, extreme=0.0)
    own = Fitter(models, config).fit("male", *labels, frames_of(20))
    result = Fitter(models, config, backend=backend).fit("male", *labels, frames_of(20))
    assert_same_fit(result, own)


def test_threads_that_share_a_group_change_nothing(models: ModelSet, config: FitConfig) -> None:
    labels = motion(9, 8)
    result = [
        Fitter(models, config, backend=backend).fit("male", *labels, frames_of(9))
        for backend in (make_backend(), make_backend("cpu", 1, 4))
    ]
    assert_same_bits(*result)


def test_a_frame_that_is_not_finite_is_left_out(
    two: tuple[Labels, FitResult], models: ModelSet, config: FitConfig
) -> None:
    """Its neighbours are tied to each other across the gap: to the bit as if the frame were missing."""
    labels, _ = two
    broken = map_labels(Tensor.clone, labels)
    broken[0][30, 4, 1] = torch.nan
    fitter, frames = Fitter(models, config), frames_of(23, 40)
    result = fitter.fit("male", *broken, frames)
    kept = torch.cat((torch.arange(30), torch.arange(31, 63)))
    without = fitter.fit(
        "male", *map_labels(lambda x: x[kept], labels), FrameIndex(frames.sequence[kept], frames.time[kept])
    )
    assert not result.finite[30] and not result.converged[30]
    assert_same_bits(rows(result, kept), without)
    none = fitter.fit(
        "male", torch.full((3, 24, 3), torch.nan), torch.zeros(3, 10), torch.zeros(3, 3), frames_of(3)
    )
    assert not none.finite.any()


def test_frames_apart_in_time_are_tied_less(models: ModelSet, config: FitConfig) -> None:
    """The same frames at 30 Hz and a second apart: the latter are fitted as if alone, except for their betas."""
    labels = motion(30, 7)
    fitter = Fitter(models, config)
    alone = fitter.fit("male", *labels).poses
    near, far = (
        (fitter.fit("male", *labels, frames_of(30, rate=rate)).poses - alone).abs().mean()
        for rate in (RATE, 1.0)
    )
    assert near > 20 * far and far < 2e-3


# Betas and genders.


def test_betas_are_shared(models: ModelSet, config: FitConfig) -> None:
    """The mean of different betas; for neutral labels the best betas for some frames (see `test_common_betas`)."""
    labels = motion(12, 1, extreme=0.0)
    labels[1][:, 0] += torch.linspace(-0.3, 0.3, 12)
    fitter = Fitter(models, config)
    gendered = fitter.fit("male", *labels, frames_of(12)).betas
    assert (gendered - gendered[0]).abs().max() == 0
    assert (gendered[0] - labels[1].mean(0)).abs().max() < 1e-6
    three = replace(config, temporal=replace(config.temporal, beta_frames=3))  # type: ignore[type-var]
    neutral = Fitter(models, three).fit("neutral", *labels, frames_of(12)).betas
    refined = fitter.fit("neutral", *map_labels(lambda x: x[[0, 6, 11]], labels)).betas
    assert (neutral - neutral[0]).abs().max() == 0
    assert (neutral[0] - refined.mean(0)).abs().max() < (refined - refined[0]).abs().max()
    # The same frames, as labels of the person.
    told = ShapeLabels(*(x[[0, 6, 11]].numpy() for x in labels[:2]))
    shared = fitter.fit("neutral", *labels, replace(frames_of(12), shapes={0: told})).betas
    assert torch.equal(shared, neutral)


def test_a_sequence_has_one_gender(models: ModelSet, config: FitConfig) -> None:
    labels = joined(motion(6, 1, extreme=0.0), motion(5, 2, extreme=0.0))
    frames = frames_of(6, 5)
    male, female, best = (
        Fitter(models, replace(config, skel_gender=g)).fit("neutral", *labels, frames)
        for g in ("male", "female", "best")
    )
    expected = better_sequences(male, female, frames.sequences())
    assert_same_bits(best, expected)
    for index in frames.sequences():
        sums = [float(r.objective[index].double().mean()) for r in (male, female)]
        assert best.female[index].all() if sums[1] < sums[0] else not best.female[index].any()


def test_frames_are_those_of_the_rows(models: ModelSet, config: FitConfig) -> None:
    labels = motion(3, 1)
    with pytest.raises(ValueError, match="frames: expected those of 3 rows, found 4"):
        Fitter(models, config).fit("male", *labels, frames_of(4))
    empty = Fitter(models, config).fit(
        "male", *map_labels(lambda x: x[:0], labels), FrameIndex(np.zeros(0, np.int64), np.zeros(0))
    )
    assert len(empty.poses) == 0


def test_short_sequences(models: ModelSet, config: FitConfig) -> None:
    """One frame is tied to nothing."""
    labels = joined(motion(1, 1), motion(2, 2))
    result = Fitter(models, config).fit("male", *labels, frames_of(1, 2))
    alone = Fitter(models, config).fit("male", *map_labels(lambda x: x[:1], labels))
    assert result.converged.all()
    assert (result.poses[:1] - alone.poses).abs().max() < 1e-2
